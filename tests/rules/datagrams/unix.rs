//! Unix datagrams, sequenced packets, netlink.

use super::common::*;
use crate::common::Folder;
use socket2::{Domain, Socket, Type};
use std::{os::unix::net::UnixDatagram, path::Path, time::Instant};

fn unix(path: &Path) -> Address {
    Address::Unix(Some(path.to_path_buf()))
}

#[test]
fn a_unix_datagram_comes_from_its_path_and_is_answered_there() {
    let folder = Folder::new("datagrams-path");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind(folder.path("ours").as_path(), echo()).expect("a free path");
    let theirs = UnixDatagram::bind(folder.path("theirs")).expect("a free path");
    for bytes in [&b"hello"[..], b""] {
        theirs.send_to(bytes, folder.path("ours")).expect("it is sent");
    }
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
    let from = unix(&folder.path("theirs"));
    assert_eq!(journal.of(key), [Told::Received(b"hello".to_vec(), from.clone()), Told::Received(Vec::new(), from)]);
    let mut buf = [0; 10];
    assert_eq!(
        (uninterrupted(|| theirs.recv(&mut buf)).expect("answered"), uninterrupted(|| theirs.recv(&mut buf)).expect("answered")),
        (5, 0)
    );
    reactor.net().close(key);
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 3);
    assert!(!folder.path("ours").exists(), "the file goes with the socket");
}

#[test]
fn the_file_of_a_dead_datagram_socket_is_replaced_and_that_of_a_living_one_is_not() {
    let folder = Folder::new("datagrams-stale");
    let path = folder.path("socket");
    drop(UnixDatagram::bind(&path).expect("a free path"));
    let (mut reactor, _) = reactor();
    reactor.net().bind(path.as_path(), silent()).expect("its owner is dead");
    let error = reactor.net().bind(path.as_path(), silent()).expect_err("its owner lives");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_is_bound_and_shown() {
    use std::os::linux::net::SocketAddrExt;
    let (mut reactor, mut journal) = reactor();
    let name = format!("mainspring-datagrams-{}", std::process::id());
    let key = reactor.net().bind(format!("unix:@{name}"), silent()).expect("a free name");
    let theirs = std::os::unix::net::SocketAddr::from_abstract_name(format!("{name}-theirs")).expect("a name");
    let theirs = UnixDatagram::bind_addr(&theirs).expect("a free name");
    let ours = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    theirs.send_to_addr(b"x", &ours).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    let from = Address::Abstract(format!("{name}-theirs").into_bytes());
    assert_eq!(journal.of(key), [Told::Received(b"x".to_vec(), from)]);
}

#[test]
fn a_client_without_a_name_cannot_be_answered_and_that_is_told() {
    let folder = Folder::new("datagrams-unnamed");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind(folder.path("ours").as_path(), echo()).expect("a free path");
    let client = UnixDatagram::unbound().expect("a descriptor");
    client.send_to(b"x", folder.path("ours")).expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
    let told = journal.of(key);
    assert_eq!(told[0], Told::Received(b"x".to_vec(), Address::Unix(None)));
    assert!(matches!(&told[1], Told::Failed(Address::Unix(None), ErrorKind::Unsupported, None)), "{:?}", told[1]);
}

/// unix(7): 107 bytes and a zero byte, which Linux does not ask of one that binds by 108.
#[cfg(target_os = "linux")]
#[test]
fn a_client_at_a_path_of_108_bytes_is_shown_and_a_longer_target_is_told() {
    let folder = Folder::new("datagrams-108");
    let (mut reactor, mut journal) = reactor();
    let ours = folder.path("ours");
    let key = reactor.net().bind(ours.as_path(), silent()).expect("a free path");
    let name = "x".repeat(108 - folder.0.as_os_str().len() - 1);
    let client = r#"
import ctypes, os, socket, struct, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = struct.pack("H108s", socket.AF_UNIX, os.fsencode(sys.argv[1]))
assert ctypes.CDLL(None).bind(s.fileno(), name, len(name)) == 0
s.sendto(b"x", sys.argv[2])
"#;
    let ran = std::process::Command::new("python3").args(["-c", client]).arg(folder.path(&name)).arg(&ours).status();
    if !ran.is_ok_and(|status| status.success()) {
        return crate::common::skip("there is no Python 3 to bind by 108 bytes");
    }
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(journal.of(key), [Told::Received(b"x".to_vec(), unix(&folder.path(&name)))]);
    let too_long = unix(&folder.path(&name));
    assert!(reactor.net().send_to(key, &too_long, "x"));
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 2);
    assert_eq!(journal.failures(), [(too_long, ErrorKind::InvalidInput)]);
    let error = reactor.net().bind(folder.path(&name).as_path(), silent()).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// A Unix receiver that is not read has room for a few (net.unix.max_dgram_qlen).
fn full_for_200_ms(connected: bool) {
    let folder = Folder::new(if connected { "datagrams-full-connected" } else { "datagrams-full" });
    let (full, other) = (folder.path("full"), folder.path("other"));
    let (slow, quick) = (UnixDatagram::bind(&full).expect("a free path"), UnixDatagram::bind(&other).expect("a free path"));
    slow.set_nonblocking(true).expect("a socket option");
    quick.set_nonblocking(true).expect("a socket option");
    let (mut reactor, mut journal) = reactor();
    let key = match connected {
        true => reactor.net().bind_to(full.as_path(), silent()),
        false => reactor.net().bind(folder.path("ours").as_path(), silent()),
    };
    let key = key.expect("a free path");
    for number in 0..300_u32 {
        assert!(reactor.net().send_to(key, &unix(&full), number.to_be_bytes()));
    }
    if !connected {
        assert!(reactor.net().send_to(key, &unix(&other), "x"));
        assert_eq!(uninterrupted(|| quick.recv(&mut [0; 10])).expect("nothing is in its way"), 1);
    }
    let (turns, until_then) = (reactor.stats().turns, Instant::now() + Duration::from_millis(200));
    while Instant::now() < until_then {
        reactor.turn(&mut journal, until_then.saturating_duration_since(Instant::now())).expect("the selector works");
    }
    let turns = reactor.stats().turns - turns;
    assert!(turns <= 20, "{turns} turns while nothing could be done");
    let (mut got, mut buf) = (Vec::new(), [0; 10]);
    let mut read = |got: &mut Vec<u32>| {
        while let Ok(4) = slow.recv(&mut buf) {
            got.push(u32::from_be_bytes(buf[..4].try_into().expect("four bytes")));
        }
    };
    let failed = journal.failures();
    if connected {
        until(&mut reactor, &mut journal, |journal| {
            read(&mut got);
            journal.told.last().is_some_and(|(_, told)| *told == Told::Writable)
        });
        read(&mut got);
        assert_eq!(got, (0..300).collect::<Vec<_>>(), "all, in order");
        assert_eq!(journal.of(key), [Told::Writable], "once");
    } else {
        read(&mut got);
        assert_eq!(got, (0..got.len() as u32).collect::<Vec<_>>());
        assert!(!got.is_empty() && got.len() < 300, "it was full: {}", got.len());
        let refused = 300 - got.len();
        assert_eq!((failed.len(), reactor.stats().datagrams_dropped), (refused.min(64), refused as u64));
        let codes = journal.told.iter().filter_map(|(_, told)| if let Told::Failed(_, _, code) = told { *code } else { None });
        assert!(codes.into_iter().all(|code| code == libc::ENOBUFS) && failed.iter().all(|(to, _)| *to == unix(&full)));
    }
}

#[test]
fn a_full_unix_receiver_costs_who_is_connected_to_it_no_turns_and_gets_all() {
    full_for_200_ms(true);
}

#[test]
fn a_full_unix_receiver_is_failed_for_who_is_not_connected_and_nobody_else_waits() {
    full_for_200_ms(false);
}

// ------------------------------------------------------------------------------- the queue, by a receiver that is full

/// Fills its peer, so that what follows waits; then the peer reads, and what waited comes.
fn waiting(options: Bind, sends: u32) -> (Vec<bool>, Vec<u32>, Vec<Told>) {
    let folder = Folder::new(&format!("datagrams-queue-{:?}", std::thread::current().id()));
    let at = folder.path("full");
    let slow = UnixDatagram::bind(&at).expect("a free path");
    slow.set_nonblocking(true).expect("a socket option");
    let (mut reactor, mut journal) = reactor();
    let filler = reactor.net().bind_to(at.as_path(), silent()).expect("somebody is bound there");
    while reactor.net().connections().iter().all(|one| one.queued == 0) {
        assert!(reactor.net().send(filler, "fill"));
    }
    let probe = UnixDatagram::unbound().expect("a descriptor");
    probe.set_nonblocking(true).expect("a socket option");
    probe.send_to(b"x", &at).expect_err("it is full");
    let ours = UnixDatagram::unbound().expect("a descriptor");
    ours.connect(&at).expect("somebody is bound there");
    let key = reactor.net().bind_on(ours, options, silent()).expect("a socket of packets");
    let sent = (0..sends).map(|number| reactor.net().send(key, number.to_be_bytes())).collect();
    reactor.net().abort(filler);
    let (mut got, mut buf) = (Vec::new(), [0; 10]);
    for _ in 0..50 {
        settle(&mut reactor, &mut journal);
        while let Ok(bytes) = slow.recv(&mut buf) {
            if bytes == 4 && &buf[..4] != b"fill" {
                got.push(u32::from_be_bytes(buf[..4].try_into().expect("four bytes")));
            }
        }
        if journal.of(key).iter().any(|told| matches!(told, Told::Writable | Told::Closed(_))) {
            break;
        }
    }
    (sent, got, journal.of(key))
}

#[test]
fn a_queue_that_is_full_drops_the_newest() {
    let (sent, got, told) = waiting(Bind::new().queue(3 * 64, Full::DropNewest), 5);
    assert_eq!((sent, got, told), (vec![true, true, true, false, false], vec![0, 1, 2], vec![Told::Writable]));
}

#[test]
fn a_queue_that_is_full_drops_the_oldest() {
    let (sent, got, told) = waiting(Bind::new().queue(3 * 64, Full::DropOldest), 5);
    assert_eq!((sent, got, told), (vec![true; 5], vec![2, 3, 4], vec![Told::Writable]));
}

#[test]
fn a_queue_that_is_full_ends_the_socket() {
    let (sent, got, told) = waiting(Bind::new().queue(3 * 64, Full::Close), 5);
    assert_eq!(sent, [true, true, true, false, false]);
    assert_eq!((got, told), (vec![], vec![Told::Closed(Reason::Overflow.to_string())]));
}

#[test]
fn a_queue_of_nothing_keeps_none_under_each_policy() {
    for full in [Full::DropNewest, Full::DropOldest] {
        let (sent, got, told) = waiting(Bind::new().queue(0, full), 2);
        assert_eq!((sent, got, told), (vec![false, false], vec![], vec![]), "{full:?}");
    }
    let (sent, got, told) = waiting(Bind::new().queue(0, Full::Close), 2);
    assert_eq!((sent, got, told), (vec![false, false], vec![], vec![Told::Closed(Reason::Overflow.to_string())]));
}

// -------------------------------------------------------------------------------------- sockets of the program's own

#[test]
fn unix_sockets_of_std_are_taken_as_they_are() {
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = UnixDatagram::pair().expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new(), echo()).expect("a socket of packets");
    theirs.send(b"unix").expect("it is sent");
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 1);
    assert_eq!(uninterrupted(|| theirs.recv(&mut [0; 10])).expect("it is answered"), 4);
    assert!(reactor.net().send(key, "by key"));
    assert_eq!(uninterrupted(|| theirs.recv(&mut [0; 10])).expect("it was sent"), 6);
}

#[test]
fn a_unix_socket_of_the_programs_own_is_connected_if_a_peer_is_asked_for() {
    let folder = Folder::new("datagrams-peer");
    let (mut reactor, mut journal) = reactor();
    let theirs = UnixDatagram::bind(folder.path("theirs")).expect("a free path");
    let ours = UnixDatagram::unbound().expect("a descriptor");
    let options = Bind::new().peer(folder.path("theirs").as_path());
    let key = reactor.net().bind_on(ours, options, silent()).expect("a socket of packets");
    assert!(reactor.net().send(key, "x"));
    assert_eq!(uninterrupted(|| theirs.recv(&mut [0; 10])).expect("it was sent"), 1);
    settle(&mut reactor, &mut journal);
    assert!(journal.told.is_empty());
    let error = reactor.net().bind_to(folder.path("nobody").as_path(), silent()).expect_err("nobody is there");
    assert!(error.to_string().starts_with("cannot exchange datagrams with unix:"), "{error}");
}

/// Messages, an empty one among them, and then the end, which reads as an empty one too.
#[test]
fn sequenced_packets_come_one_by_one_and_their_end_is_one() {
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new().largest(10), silent()).expect("a socket of packets");
    for bytes in [&b"one"[..], b"", b"three", &[7; 100]] {
        theirs.send(bytes).expect("it is sent");
    }
    until(&mut reactor, &mut journal, |journal| journal.told.len() == 4);
    assert!(reactor.net().is_open(key), "an empty message is no end");
    assert_eq!(journal.received(), [&b"one"[..], b"", b"three"]);
    theirs.send(b"last").expect("it is sent");
    drop(theirs);
    until(&mut reactor, &mut journal, |journal| journal.told.last().is_some_and(|(_, told)| matches!(told, Told::Closed(_))));
    let told = journal.of(key);
    assert!(matches!(&told[4], Told::Received(bytes, _) if bytes == b"last"), "{told:?}");
    assert_eq!(told.last(), Some(&Told::Closed(Reason::Eof.to_string())));
}

/// Addresses of netlink are none of ours.
#[cfg(target_os = "linux")]
#[test]
fn a_netlink_socket_is_asked_and_answers() {
    use std::os::fd::OwnedFd;
    let (mut reactor, mut journal) = reactor();
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    let socket: OwnedFd = socket.expect("NETLINK_ROUTE");
    let key = reactor.net().bind_on(Socket::from(socket), Bind::new(), silent()).expect("a socket of packets");
    let net = reactor.net();
    assert_eq!((net.local(key), net.peer(key)), (Some(&Address::Fd), Some(&Address::Fd)));
    // A dump of the links: nlmsghdr (length, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, number, port), ifinfomsg (rtnetlink(7)).
    let mut request = Vec::new();
    request.extend(32_u32.to_ne_bytes());
    request.extend(18_u16.to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 24]);
    assert!(reactor.net().send(key, &request));
    until(&mut reactor, &mut journal, |journal| !journal.received().is_empty());
    assert!(matches!(&journal.of(key)[0], Told::Received(bytes, Address::Fd) if bytes.len() > 16 && bytes[4] == 16), "a link");
    let to = Address::Ip("127.0.0.1:9".parse().expect("a literal"));
    assert!(reactor.net().send_to(key, &to, "x"));
    until(&mut reactor, &mut journal, |journal| !journal.failures().is_empty());
    assert_eq!(journal.failures(), [(to, ErrorKind::InvalidInput)]);
}

/// Its end is no empty message, also if the selector has not said yet that it has come.
#[test]
fn the_end_of_a_sequenced_peer_amid_a_turn_is_no_empty_message() {
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    theirs.send(b"one").expect("it is sent");
    let theirs = RefCell::new(Some(theirs));
    let datagram = recorder(move |_, _| {
        theirs.borrow_mut().take();
        Ok(())
    });
    let key = reactor.net().bind_on(ours, Bind::new(), datagram).expect("a socket of packets");
    until(&mut reactor, &mut journal, |journal| closed(journal, key));
    assert_eq!(journal.received().len(), 1, "messages that nobody has sent");
}

#[test]
fn what_a_sequenced_peer_sent_after_an_empty_message_comes_before_its_end() {
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new(), silent()).expect("a socket of packets");
    for bytes in [&b"one"[..], b"", b"last"] {
        theirs.send(bytes).expect("it is sent");
    }
    drop(theirs);
    until(&mut reactor, &mut journal, |journal| closed(journal, key));
    assert_eq!(journal.received(), [&b"one"[..], b"", b"last"]);
}

/// One that was refused is one, and told once.
#[test]
fn a_unix_peer_that_has_gone_fails_each_datagram_once() {
    let path = std::env::temp_dir().join(format!("mainspring-review-gone-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let theirs = UnixDatagram::bind(&path).expect("a free path");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_to(path.as_path(), silent()).expect("somebody is there");
    drop(theirs);
    assert!(reactor.net().send(key, "x"));
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    settle(&mut reactor, &mut journal);
    let _ = std::fs::remove_file(&path);
    assert_eq!((journal.failures().len(), reactor.stats().datagrams_dropped), (1, 1), "{:?}", journal.told);
}

/// The same while something waits for it.
#[test]
fn a_unix_peer_that_goes_while_something_waits_fails_each_once() {
    let path = std::env::temp_dir().join(format!("mainspring-review-waits-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let theirs = UnixDatagram::bind(&path).expect("a free path");
    let (mut reactor, mut journal) = reactor();
    let key = reactor.net().bind_to(path.as_path(), silent()).expect("somebody is there");
    let mut waiting = 0;
    while waiting < 3 {
        assert!(reactor.net().send(key, "x"));
        waiting += usize::from(reactor.net().connections()[0].queued > 0);
    }
    drop(theirs);
    until(&mut reactor, &mut journal, |journal| journal.told.contains(&(key, Told::Writable)));
    let _ = std::fs::remove_file(&path);
    assert_eq!((journal.failures().len(), reactor.stats().datagrams_dropped), (3, 3), "{:?}", journal.told);
}

/// Also where the selector is poll(2), whose own errors have the same kind.
#[test]
fn a_unix_path_where_nobody_is_is_failed_as_such() {
    let (mut reactor, mut journal) = reactor();
    let (ours, _theirs) = UnixDatagram::pair().expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new(), silent()).expect("a socket of packets");
    let nowhere = Address::Unix(Some("/nowhere/at/all".into()));
    assert!(reactor.net().send_to(key, &nowhere, "x"));
    until(&mut reactor, &mut journal, |journal| !journal.told.is_empty());
    assert_eq!(journal.of(key), [Told::Failed(nowhere, ErrorKind::NotFound, Some(libc::ENOENT))]);
}

/// Both ways connected: then only the send buffer says that there is no room.
#[test]
fn a_pair_with_a_tiny_send_buffer_waits_and_gets_all() {
    let (slow, ours) = UnixDatagram::pair().expect("two descriptors");
    slow.set_nonblocking(true).expect("a socket option");
    let (mut reactor, mut journal) = reactor();
    let options = Bind::new().buffers(None, 1);
    let key = reactor.net().bind_on(ours, options, silent()).expect("a socket of packets");
    (0..200_u32).for_each(|number| assert!(reactor.net().send(key, number.to_be_bytes())));
    assert!(reactor.net().connections()[0].queued > 0);
    let (mut got, mut buf) = (Vec::new(), [0; 10]);
    until(&mut reactor, &mut journal, |journal| {
        while let Ok(4) = slow.recv(&mut buf) {
            got.push(u32::from_be_bytes(buf[..4].try_into().expect("four bytes")));
        }
        journal.told.contains(&(key, Told::Writable)) && got.len() == 200
    });
    assert_eq!(got, (0..200).collect::<Vec<_>>());
    assert_eq!(journal.told.len(), 1);
}

/// While one is read, more may come.
#[test]
fn a_flood_of_empty_messages_is_no_end() {
    const COUNT: usize = 30_000;
    let (mut reactor, mut journal) = reactor();
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).expect("two descriptors");
    let key = reactor.net().bind_on(ours, Bind::new().largest(10), silent()).expect("a socket of packets");
    let floods = std::thread::spawn(move || {
        let sent = (0..COUNT).take_while(|_| theirs.send(b"").is_ok()).count();
        let _ = theirs.send(b"last");
        (sent, theirs)
    });
    until(&mut reactor, &mut journal, |journal| {
        closed(journal, key) || matches!(journal.told.last(), Some((_, Told::Received(bytes, _))) if bytes == b"last")
    });
    let told = journal.told.len();
    assert!(!closed(&journal, key), "ended after {told} messages, and the peer is there: {:?}", journal.told.last());
    assert_eq!((told, floods.join().expect("no panic").0), (COUNT + 1, COUNT));
}
