//! Listeners: which clients they let in, with what, which they refuse, and what they outlive.

use crate::common::{
    Call, Ctx, Journal, Nothing, On, PATIENCE, TICK, by_default, dial, hang_up, is_alone, lines, listen, next_connected, note,
    quiet, read_to_end, recorder, reset, say, settle, skip, start, until, until_net,
};
use mainspring::{Address, Config, Key, Kind, Limit, Listen, Net, Outcome, Protocol, Reactor, Refusal};
use std::{
    cell::Cell,
    io::Read,
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    time::Duration,
};

#[test]
fn a_refusal_says_its_last_words_and_no_protocol_is_made() {
    let (mut reactor, mut journal) = start();
    let mut net = reactor.net();
    let options = Listen::new().connections_max(1, "421 full\r\n");
    let mut seen = 0;
    let listener = net
        .listen_with("127.0.0.1:0", options, move |_, _, _| {
            seen += 1;
            if seen == 1 { Err(Refusal::from("421 busy\r\n")) } else { Ok(recorder(quiet as On)) }
        })
        .expect("a free port");
    let addr = net.local(listener).and_then(|address| address.ip()).expect("an IP listener");
    let mut refused = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut refused), b"421 busy\r\n");
    let _guest = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    let mut third = dial(addr);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut third), b"421 full\r\n");
    assert_eq!(journal.keys().len(), 1);
}

fn connected(journal: &Journal) -> usize {
    journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count()
}

/// Where a new listener is.
fn listen_how(reactor: &mut Reactor<Journal>, at: &str, options: Listen, on: On) -> SocketAddr {
    let mut net = reactor.net();
    let listener = net.listen_with(at, options, move |_, _, _| Ok(recorder(on))).expect("a free port");
    net.local(listener).and_then(|address| address.ip()).expect("an IP listener")
}

#[test]
fn one_address_has_so_many_connections_and_the_next_is_told_its_last_words() {
    let (mut reactor, mut journal) = start();
    let options = Listen::new().connections_max(3, "full\r\n").per_peer_max(2, "enough\r\n");
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, hang_up);
    let from = |ip: [u8; 4]| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
        socket.bind(&SocketAddr::from((ip, 0)).into()).expect("a loopback address");
        socket.connect(&addr.into()).expect("it listens");
        TcpStream::from(socket)
    };
    let (first, second) = (from([127, 0, 0, 1]), from([127, 0, 0, 1]));
    until(&mut reactor, &mut journal, |journal| connected(journal) == 2);
    let refused = read_to_end(&mut reactor, &mut journal, &mut from([127, 0, 0, 1]));
    assert_eq!(refused, b"enough\r\n");
    drop(first);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let third = from([127, 0, 0, 1]);
    until(&mut reactor, &mut journal, |journal| connected(journal) == 3);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut from([127, 0, 0, 1])), b"enough\r\n");
    let other = from([127, 0, 0, 2]);
    until(&mut reactor, &mut journal, |journal| connected(journal) == 4);
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut from([127, 0, 0, 3])), b"full\r\n", "the limit of all comes first");
    drop((second, third, other));
    until(&mut reactor, &mut journal, |journal| journal.closings() == 4);
}

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 4711);

/// Each line names the peer.
fn behind_proxy(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    lines(ctx, journal, call)?;
    hang_up(ctx, journal, call)?;
    if let Call::Frame(line) = call {
        let is_set = ctx.link().set_peer(String::from_utf8_lossy(line).parse().expect("an address"));
        note(journal, ctx.key, format!("{is_set} {}", ctx.peer()));
    }
    Ok(())
}

fn answers(journal: &Journal) -> Vec<String> {
    journal.frames().into_iter().filter(|frame| frame.starts_with("true ") || frame.starts_with("false ")).collect()
}

#[test]
fn behind_a_proxy_each_client_counts_for_itself_once_it_is_named() {
    let (mut reactor, mut journal) = start();
    let options = Listen::new().behind_proxy().per_peer_max(2, "enough\r\n");
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, behind_proxy);
    let mut unnamed: Vec<_> = (0..4).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| connected(journal) == 4);
    let name = |reactor: &mut Reactor<Journal>, journal: &mut Journal, peer: &TcpStream, of: &str| {
        let before = answers(journal).len();
        say(peer, format!("{of}\n"));
        until(reactor, journal, |journal| answers(journal).len() > before);
        answers(journal).pop().expect("answered")
    };
    for peer in &unnamed[..2] {
        assert_eq!(name(&mut reactor, &mut journal, peer, "192.0.2.7:4711"), format!("true {CLIENT}"));
    }
    assert_eq!(name(&mut reactor, &mut journal, &unnamed[2], "192.0.2.8:4711"), "true 192.0.2.8:4711");
    // One too many: it keeps its name, for the log, and is sent away.
    let mut third = unnamed.remove(3);
    assert_eq!(name(&mut reactor, &mut journal, &third, "[::ffff:192.0.2.7]:1"), "false [::ffff:192.0.2.7]:1");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut third), b"enough\r\n");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    // A client that was refused did not count; one that is named anew leaves a place; so does one that ends.
    assert_eq!(name(&mut reactor, &mut journal, &unnamed[0], "192.0.2.9:4711"), "true 192.0.2.9:4711");
    let fourth = dial(addr);
    assert_eq!(name(&mut reactor, &mut journal, &fourth, "192.0.2.7:4712"), "true 192.0.2.7:4712");
    drop(unnamed.remove(1));
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    assert_eq!(name(&mut reactor, &mut journal, &dial(addr), "192.0.2.7:4713"), "true 192.0.2.7:4713");
}

#[test]
fn only_who_was_accepted_behind_a_proxy_and_is_open_has_its_peer_named() {
    let (mut reactor, mut journal) = start();
    let addr = listen_how(&mut reactor, "127.0.0.1:0", Listen::new().per_peer_max(1, "enough"), behind_proxy);
    let peer = dial(addr);
    say(&peer, "192.0.2.7:4711\n");
    until(&mut reactor, &mut journal, |journal| !answers(journal).is_empty());
    assert_eq!(answers(&journal), [format!("false {}", peer.local_addr().expect("connected"))]);

    // Its listener has gone: it is named all the same, and counts for nobody.
    let mut options = Listen::new().behind_proxy().per_peer_max(1, "enough");
    options = options.accepts_max(2);
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, behind_proxy);
    for peer in [dial(addr), dial(addr)] {
        let before = answers(&journal).len();
        say(&peer, "192.0.2.7:4711\n");
        until(&mut reactor, &mut journal, |journal| answers(journal).len() > before);
        assert_eq!(answers(&journal).pop(), Some(format!("true {CLIENT}")));
    }
    let key = *journal.keys().last().expect("connected");
    reactor.net().close(key);
    assert!(reactor.net().link(key).is_none_or(|mut link| !link.set_peer(CLIENT)), "it has begun to end");
}

#[test]
fn what_a_listener_lets_in_has_its_time_outs_and_connected_may_change_them() {
    let (mut reactor, mut journal) = start();
    let addr = listen_how(&mut reactor, "127.0.0.1:0", Listen::new().idle_timeout(TICK), quiet);
    let _silent = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Idle)));

    let options = Listen::new().idle_timeout(TICK).stall_timeout(3 * TICK).deadline(100 * TICK).output_limits(1, 2, 3);
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_idle_timeout(None);
            ctx.send("four");
            ctx.send("more"); // above its cap
        }
        Ok(())
    });
    let before = journal.calls.len();
    let mut peer = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.len() > before);
    read_to_end(&mut reactor, &mut journal, &mut peer);
    until(&mut reactor, &mut journal, |journal| journal.calls[before..].iter().any(|(_, call)| matches!(call, Call::Closed(_))));
    assert_eq!(reactor.net().stats().closed.overflow, 1);

    let options = Listen::new().idle_timeout(100 * TICK).stall_timeout(3 * TICK).deadline(200 * TICK);
    let addr = listen_how(&mut reactor, "127.0.0.1:0", options, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_idle_timeout(None);
        }
        Ok(())
    });
    let before = journal.calls.len();
    let _peer = dial(addr);
    let key = next_connected(&mut reactor, &mut journal, before);
    let all = reactor.net().connections();
    let timeouts = &all.iter().find(|connection| connection.key == key).expect("it is there").timeouts;
    assert_eq!(*timeouts, [(Limit::Stalled, 3 * TICK), (Limit::Deadline, 200 * TICK)]);
}

#[test]
fn a_listener_on_ipv6_takes_ipv4_too_or_not_as_it_is_asked() {
    let (mut reactor, mut journal) = start();
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this machine has no IPv6");
    }
    let both = listen_how(&mut reactor, "[::]:0", Listen::new().v6only(false).per_peer_max(1, "mapped\r\n"), quiet);
    let _peer = dial(([127, 0, 0, 1], both.port()).into());
    until(&mut reactor, &mut journal, |journal| journal.keys().len() == 1);
    let mut again = dial(([127, 0, 0, 1], both.port()).into());
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut again), b"mapped\r\n");
    let six = listen_how(&mut reactor, "[::]:0", Listen::new().v6only(true), quiet);
    let refused = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], six.port())));
    assert_eq!(refused.expect_err("nobody listens there").kind(), std::io::ErrorKind::ConnectionRefused);
    let _peer = dial((std::net::Ipv6Addr::LOCALHOST, six.port()).into());
    until(&mut reactor, &mut journal, |journal| journal.keys().len() == 2);
}

/// Each has a connection to a listener that pauses at two, which hangs up when they do.
fn five_at_a_time_where_two_may_be(reactor: &mut Reactor<Journal>) -> (Key, Vec<TcpStream>) {
    let listener = reactor
        .net()
        .listen_with("127.0.0.1:0", Listen::new().pause_at(2), |_, _, _| Ok(recorder(hang_up)))
        .expect("a free port");
    let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    (listener, (0..5).map(|_| dial(addr)).collect())
}

#[test]
fn a_listener_that_pauses_lets_in_as_many_as_may_be_and_the_others_as_those_end() {
    let (mut reactor, mut journal) = start();
    let (_, peers) = five_at_a_time_where_two_may_be(&mut reactor);
    for (n, mut peer) in peers.into_iter().enumerate() {
        until(&mut reactor, &mut journal, |journal| connected(journal) == 5.min(n + 2));
        settle(&mut reactor, &mut journal);
        assert_eq!(connected(&journal), 5.min(n + 2), "no more than two at a time");
        peer.shutdown(Shutdown::Write).expect("connected");
        read_to_end(&mut reactor, &mut journal, &mut peer);
    }
    assert_eq!((reactor.stats().accepted, reactor.stats().refused), (5, 0));
}

#[test]
fn a_listener_that_pauses_lets_in_who_waits_when_it_drains() {
    let (mut reactor, mut journal) = start();
    let (listener, peers) = five_at_a_time_where_two_may_be(&mut reactor);
    until(&mut reactor, &mut journal, |journal| connected(journal) == 2);
    reactor.net().drain(PATIENCE);
    until(&mut reactor, &mut journal, |journal| connected(journal) == 5);
    assert!(!reactor.net().is_open(listener), "nobody else is let in");
    for mut peer in peers {
        peer.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
    }
    reactor.run(&mut journal).expect("the selector works");
    assert_eq!((reactor.stats().accepted, reactor.stats().undrained), (5, 0));
}

/// Under both selectors: it is asked for no event while it pauses, so that the loop can sleep.
#[cfg(unix)]
#[test]
fn a_listener_of_a_path_pauses_too_and_lets_the_loop_sleep() {
    let (mut reactor, mut journal) = start();
    let path = std::env::temp_dir().join(format!("mainspring-pauses-{}", std::process::id()));
    let options = Listen::new().pause_at(1);
    reactor.net().listen_with(path.as_path(), options, |_, _, _| Ok(recorder(hang_up))).expect("a free path");
    let peers: Vec<_> = (0..3).map(|_| std::os::unix::net::UnixStream::connect(&path).expect("somebody listens")).collect();
    for (n, peer) in peers.into_iter().enumerate() {
        until(&mut reactor, &mut journal, |journal| connected(journal) == n + 1);
        settle(&mut reactor, &mut journal);
        let before = reactor.stats().turns;
        let end = std::time::Instant::now() + 10 * TICK;
        while std::time::Instant::now() < end {
            reactor.turn(&mut journal, Some(TICK)).expect("the selector works");
        }
        assert!(reactor.stats().turns - before <= 20, "it slept");
        drop(peer);
        until(&mut reactor, &mut journal, |journal| journal.closings() == n + 1);
    }
    assert_eq!(reactor.stats().accepted, 3);
}

/// Turns everybody away.
fn busy(_: &mut Net<'_, ()>, _: &mut (), _: &Address) -> Result<Nothing, Refusal> {
    Err("421 busy\r\n".into())
}

fn listen_busy(reactor: &mut Reactor<()>, options: Listen) -> SocketAddr {
    let listener = reactor.net().listen_with("127.0.0.1:0", options, busy).expect("a free port");
    reactor.net().local(listener).and_then(Address::ip).expect("an IP listener")
}

/// A refusal waited for the next turn to be written: without lingering it was reset at once.
#[test]
fn a_refusal_is_written_also_without_lingering() {
    let mut reactor = Reactor::with_config(Config::new().lingering_max(0)).expect("a selector");
    let mut peer = dial(listen_busy(&mut reactor, Listen::new()));
    let got = read_to_end(&mut reactor, &mut (), &mut peer);
    assert_eq!(String::from_utf8_lossy(&got), "421 busy\r\n");
}

/// And there was no next turn when the listener had had enough.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_refusal_is_written_before_run_returns() {
    let mut reactor = Reactor::new().expect("a selector");
    let mut peer = dial(listen_busy(&mut reactor, Listen::new().accepts_max(1)));
    reactor.run(&mut ()).expect("the selector works");
    drop(reactor);
    let mut got = Vec::new();
    let _ = peer.read_to_end(&mut got); // the end may be a reset
    assert_eq!(String::from_utf8_lossy(&got), "421 busy\r\n");
}

/// Whoever was turned away lingered, also without last words; and a flood of them reset those who were still reading theirs.
#[test]
fn those_who_are_refused_do_not_take_the_places_of_lingering_sockets() {
    for words in ["", "421 busy\r\n"] {
        let mut reactor = Reactor::with_config(Config::new().lingering_max(1)).expect("a selector");
        let (mut journal, mut guests) = (Journal::default(), 0);
        let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
            guests += 1;
            if guests > 1 {
                return Err(Refusal::from(words));
            }
            Ok(recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                if matches!(call, Call::Connected) {
                    ctx.send("bye");
                    ctx.close();
                }
                Ok(())
            }))
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
        let at = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
        let guest = dial(at);
        until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
        assert_eq!(reactor.stats().lingering, 1);
        let refused = [dial(at), dial(at)];
        until_net(&mut reactor, &mut journal, |net, _| net.stats().refused == 2);
        settle(&mut reactor, &mut journal);
        let lingering = reactor.net().connections().into_iter().filter(|one| one.kind == Kind::Lingering);
        let peers: Vec<_> = lingering.map(|one| one.peer.ip()).collect();
        assert_eq!(peers, [guest.local_addr().ok()], "{words:?}: it may still be reading");
        drop(guest);
        until_net(&mut reactor, &mut journal, |net, _| net.stats().lingering == 0);
        // There is room again: those with something to read linger.
        let _third = dial(at);
        until_net(&mut reactor, &mut journal, |net, _| net.stats().refused == 3);
        assert_eq!(reactor.stats().lingering, usize::from(!words.is_empty()), "{words:?}");
        drop(refused);
    }
}

/// A factory finds its own guest among the connections. What it told it, gave it to do or did to it was for a connection
/// that perhaps never came to be: a refusal then panicked out of the turn.
#[test]
fn a_factory_cannot_reach_its_guest() {
    fn meddle(net: &mut Net<'_, Journal>, key: Key) -> bool {
        let is_told = net.tell(key, |_: &mut Meek, _, _| unreachable!("it was not open"));
        let is_given = net.offload_for(key, || (), |_: &mut Meek, _, _, _| unreachable!("it was not open"));
        is_told || is_given || net.send(key, "x") || net.is_open(key) || net.close(key) || net.fail(key, "x") || net.abort(key)
    }
    struct Meek;
    impl Protocol<Journal> for Meek {
        fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
            journal.note(ctx.key, Call::Connected);
            Ok(())
        }
    }
    let answers: [fn() -> Result<Meek, Refusal>; 3] = [|| Ok(Meek), || Err("no".into()), || panic!("in the factory")];
    for (number, answer) in answers.into_iter().enumerate() {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let met = Rc::new(Cell::new(0));
        let meets = Rc::clone(&met);
        let factory = move |net: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
            for guest in net.connections().into_iter().filter(|one| one.kind == Kind::Accepted) {
                assert!(!guest.is_ending && !meddle(net, guest.key));
                meets.set(meets.get() + 1);
            }
            answer()
        };
        let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
        let at = reactor.net().local(listener).and_then(|at| at.ip()).expect("it listens");
        let _peer = dial(at);
        until(&mut reactor, &mut journal, |_| met.get() > 0);
        settle(&mut reactor, &mut journal);
        let is_let_in = usize::from(number == 0);
        assert_eq!((met.get(), journal.calls.len(), reactor.stats().connections), (1, is_let_in, is_let_in), "{number}");
    }
}

/// Flaw 6: What failed while a connection was being accepted closed the *listener*.
#[test]
fn flaw_06_a_failing_factory_or_guest_does_not_close_the_listener() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let mut guests = 0;
    let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
        guests += 1;
        let number = guests;
        match number {
            1 => panic!("no protocol"),
            2 => Err(Refusal::silent()),
            _ => Ok(recorder(move |_: &mut Ctx<'_>, _: &mut Journal, call: &Call| match (call, number) {
                (Call::Connected, 3) => Err("not ready".into()),
                (Call::Connected, 4) => panic!("not at all"),
                _ => Ok(()),
            })),
        }
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    let _peers: Vec<TcpStream> = (0..5).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 5);
    assert_eq!(journal.closings(), 2, "{journal:?}");
    assert_eq!(journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count(), 3);
    assert!(reactor.net().is_open(listener));
}

#[cfg(unix)]
fn run_out_of_descriptors() {
    let config = Config::new().accept_back_off(Duration::from_millis(5));
    let (mut reactor, mut journal) = (Reactor::with_config(config).expect("a selector"), Journal::default());
    let (listener, addr) = listen(&mut reactor, || recorder(by_default));
    let mut turned_away: Vec<TcpStream> = (0..5).map(|_| dial(addr)).collect();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    for peer in &mut turned_away {
        assert_eq!(read_to_end(&mut reactor, &mut journal, peer), b"", "it is told that it is not let in");
    }
    assert!(reactor.net().is_open(listener));
    assert_eq!(journal.calls.len(), 0, "nobody can be let in");
    assert_eq!(reactor.net().stats().shed, 5);
    drop((hoard, turned_away));
    let peers: Vec<TcpStream> = (0..5).map(|_| dial(addr)).collect();
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 5);
    drop(peers);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 5);
    assert!(reactor.net().is_open(listener));
}

/// The other half of flaw 6: so did a lack of descriptors. Those who come then are closed at once, others are let in when there
/// are some again.
///
/// The lack is made in a process of its own, because all tests share their descriptors.
#[cfg(unix)]
#[test]
fn flaw_06_a_lack_of_descriptors_does_not_close_the_listener() {
    let name = "listening::flaw_06_a_lack_of_descriptors_does_not_close_the_listener";
    if is_alone(name, "ulimit -n 64 &&") {
        run_out_of_descriptors();
    }
}

/// A listener that can neither let in nor send away who comes would have each wait for ever.
#[cfg(unix)]
#[test]
fn who_listens_has_a_descriptor_for_who_comes_or_is_told_that_there_is_none() {
    let name = "listening::who_listens_has_a_descriptor_for_who_comes_or_is_told_that_there_is_none";
    if !is_alone(name, "ulimit -n 64 &&") {
        return;
    }
    let path = std::env::temp_dir().join(format!("mainspring-spare-{}", std::process::id()));
    for at in ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())] {
        let mut listened = 0;
        for free in 0..4 {
            let mut reactor = Reactor::<()>::new().expect("a selector");
            let domain = if at.starts_with("unix") { socket2::Domain::UNIX } else { socket2::Domain::IPV4 };
            let client = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a descriptor");
            let mut hoard = Vec::new();
            let take_all = |hoard: &mut Vec<_>| hoard.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
            take_all(&mut hoard);
            hoard.truncate(hoard.len() - free);
            let Ok(listener) = reactor.net().listen(at.as_str(), || Nothing) else {
                assert!(!path.exists(), "what was not listened on leaves nothing behind");
                continue;
            };
            take_all(&mut hoard);
            let to = reactor.net().local(listener).and_then(Address::ip);
            let to = to.map_or_else(|| socket2::SockAddr::unix(&path).expect("a short path"), Into::into);
            client.connect(&to).expect("it listens");
            until_net(&mut reactor, &mut (), |net, ()| net.stats().shed == 1);
            listened += 1;
        }
        assert!(listened > 0, "{at}: so many descriptors are enough");
    }
}

#[cfg(unix)]
#[test]
fn without_a_descriptor_a_reactor_says_what_could_not_be_made() {
    if !is_alone("listening::without_a_descriptor_a_reactor_says_what_could_not_be_made", "ulimit -n 64 &&") {
        return;
    }
    let hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let error = Reactor::<()>::new().expect_err("it wants one at least").to_string();
    drop(hoard);
    assert!(error.starts_with("cannot make an event loop: "), "{error}");
}

/// asyncore's servers died of clients that had gone before they were accepted (CVE-2010-3492, CVE-2010-3493): accept gave
/// nothing, or getpeername failed. Ours takes the address from accept, and goes on.
#[test]
#[cfg_attr(windows, ignore = "Wine: has no address of who is gone, and std insists on one")]
fn clients_gone_before_accept_are_let_in_and_closed_once_each() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let listener = reactor.net().listen("127.0.0.1:0", || recorder(by_default)).expect("a free port");
    let addr = reactor.net().local(listener).and_then(Address::ip).expect("an IP listener");
    for n in 0..200 {
        let peer = dial(addr);
        match n % 3 {
            0 => reset(peer),
            1 => drop(peer),
            _ => {
                say(&peer, "bye");
                reset(peer);
            }
        }
    }
    until(&mut reactor, &mut journal, |journal| journal.closings() == 200);
    settle(&mut reactor, &mut journal);
    assert_eq!(journal.closings(), 200, "once each");
    assert_eq!(journal.calls.iter().filter(|(_, call)| *call == Call::Connected).count(), 200);
    let still = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.calls.last().is_some_and(|(_, call)| *call == Call::Connected));
    drop(still);
}

/// A resolver that has no descriptor says that there is no such name; one that lingers makes room for it.
#[cfg(unix)]
#[test]
fn who_lingers_makes_room_for_who_connects_by_name() {
    if !is_alone("listening::who_lingers_makes_room_for_who_connects_by_name", "ulimit -n 64 &&") {
        return;
    }
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, at) = listen(&mut reactor, || {
        recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
            if *call == Call::Connected {
                ctx.send("bye");
                ctx.close();
            }
            Ok(())
        })
    });
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("bound").port();
    let _peers: Vec<TcpStream> = (0..20).map(|_| dial(at)).collect();
    until_net(&mut reactor, &mut journal, |net, _| net.stats().lingering == 20);
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    let key = reactor.net().connect(("localhost", port), recorder(quiet as On));
    until(&mut reactor, &mut journal, |journal| !journal.of(key).is_empty());
    assert_eq!(journal.of(key), [Call::Connected]);
}

#[test]
fn a_factory_that_panics_lets_nobody_in_and_is_over() {
    let (mut reactor, mut journal) = start();
    let mut is_first = true;
    let factory = move |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| {
        assert!(!std::mem::take(&mut is_first), "on purpose");
        Ok(recorder(quiet as On))
    };
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new().admits_max(1), factory).expect("a free port");
    let addr = reactor.net().local(listener).and_then(|address| address.ip()).expect("an IP listener");
    let _panics = dial(addr);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().refused == 1);
    assert!(reactor.net().is_open(listener) && reactor.net().accepting().is_none());
    let _guest = dial(addr);
    until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
    assert!(!reactor.net().is_open(listener));
}
