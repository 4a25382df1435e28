//! Parts of files that are sent, read on the loop or by the kernel.

use crate::common::{
    Call, Ctx, Folder, Journal, PATIENCE, by_default, closing_of, is_alone, local_pair, ms, recorder, settle, tcp_pair, until,
};
use mainspring::{Adopted, Config, Key, Limit, Outcome, Reactor};
use socket2::Socket;
#[cfg(unix)]
use std::os::fd::OwnedFd;
use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::Path,
};

const MUCH: usize = 5_000_000;

fn content() -> Vec<u8> {
    (0..MUCH as u32).map(|n| (n % 251) as u8).collect()
}

fn file(folder: &Folder, name: &str, content: &[u8]) -> File {
    let path = folder.path(name);
    std::fs::write(&path, content).expect("a folder of its own");
    File::open(path).expect("just written")
}

/// How many descriptors of this file the process has.
#[cfg(unix)]
fn descriptors(path: &Path) -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |all| {
        all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).filter(|other| other == path).count()
    })
}

/// Whether anybody has one: one that does not share it with others is refused.
#[cfg(windows)]
fn descriptors(path: &Path) -> usize {
    use std::os::windows::fs::OpenOptionsExt;
    File::options().read(true).share_mode(0).open(path).is_err().into()
}

/// A connection that does this in its beginning, and its peer.
fn begins(
    uses_sendfile: bool,
    is_tcp: bool,
    mut begin: impl FnMut(&mut Ctx<'_>) + 'static,
) -> (Reactor<Journal>, Journal, Key, Socket) {
    let mut reactor = Reactor::with_config(Config::new().sendfile(uses_sendfile)).expect("a selector");
    let on = move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| -> Outcome {
        if *call == Call::Connected {
            begin(ctx);
        }
        by_default(ctx, journal, call)
    };
    let (ours, theirs): (Adopted, Socket) = if is_tcp {
        let (ours, theirs) = tcp_pair();
        (ours.into(), theirs.into())
    } else {
        let (ours, theirs) = local_pair();
        #[cfg(unix)]
        let theirs = OwnedFd::from(theirs);
        (ours.into(), theirs.into())
    };
    let key = reactor.net().adopt(ours, recorder(on)).expect("a stream");
    theirs.set_nonblocking(true).expect("a socket option");
    (reactor, Journal::default(), key, theirs)
}

/// All that comes, up to the end or a reset, and whether it was that; never is more than this much queued.
#[track_caller]
fn read_all(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key, theirs: &mut Socket) -> (Vec<u8>, bool) {
    let (mut all, mut was_reset, mut buf) = (Vec::new(), false, vec![0; 50_000]);
    crate::common::until_net(reactor, journal, |net, _| {
        let queued = net.link(key).map_or(0, |link| link.queued());
        assert!(queued <= 192 << 10, "{queued} bytes stand in memory");
        match theirs.read(&mut buf) {
            Ok(0) => return true,
            Ok(bytes) => all.extend_from_slice(&buf[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => {
                was_reset = true;
                return true;
            }
        }
        false
    });
    (all, was_reset)
}

#[cfg(unix)]
fn open_folder(path: &Path) -> std::io::Result<File> {
    File::open(path)
}

#[cfg(windows)]
fn open_folder(path: &Path) -> std::io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(0x0200_0000).open(path) // FILE_FLAG_BACKUP_SEMANTICS
}

/// With and without sendfile(2), over a Unix socket where there are some, and over TCP.
fn each(mut with: impl FnMut(bool, bool)) {
    for uses_sendfile in [false, true] {
        for is_tcp in [false, true] {
            if is_tcp || cfg!(unix) {
                with(uses_sendfile, is_tcp);
            }
        }
    }
}

#[test]
fn parts_leave_in_order_among_other_output_and_stand_in_no_memory() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-order");
        let whole = file(&folder, "file", &content());
        let part = whole.try_clone().expect("a descriptor");
        let mut files = Some((whole, part));
        let (mut reactor, mut journal, key, mut theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
            let (whole, part) = files.take().expect("once");
            ctx.send("before ");
            ctx.send_file(whole, 0..MUCH as u64);
            ctx.send(" between ");
            ctx.send_file(part, 1_000..1_007);
            ctx.send(" behind");
            ctx.close();
        });
        let (all, was_reset) = read_all(&mut reactor, &mut journal, key, &mut theirs);
        let expected = [b"before ", &content()[..], b" between ", &content()[1_000..1_007], b" behind"].concat();
        assert!(!was_reset && all == expected, "{} of {} bytes", all.len(), expected.len());
    });
}

#[test]
fn its_length_is_what_was_asked_for_whatever_becomes_of_the_file() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-length");
        let mut opened = Some(file(&folder, "file", &content()));
        let (mut reactor, mut journal, key, mut theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
            ctx.send_file(opened.take().expect("once"), 0..MUCH as u64);
            ctx.close();
        });
        settle(&mut reactor, &mut journal);
        let mut more = File::options().append(true).open(folder.path("file")).expect("it is there");
        more.write_all(b"and more").expect("a disk");
        std::fs::rename(folder.path("file"), folder.path("another")).expect("a folder of its own");
        file(&folder, "file", b"replaced");
        let (all, was_reset) = read_all(&mut reactor, &mut journal, key, &mut theirs);
        assert!(!was_reset && all == content());
    });
}

/// The peer must not take a part for the whole.
#[test]
fn one_that_is_too_short_is_a_failure_and_a_reset() {
    each(|uses_sendfile, is_tcp| {
        for shrinks in [true, false] {
            let folder = Folder::new("files-short");
            let mut opened = Some(file(&folder, "file", &content()));
            let end = if shrinks { MUCH } else { MUCH + 1 } as u64;
            let (mut reactor, mut journal, key, mut theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
                ctx.send_file(opened.take().expect("once"), 0..end);
                ctx.send("never");
                ctx.close();
            });
            settle(&mut reactor, &mut journal);
            if shrinks {
                File::options()
                    .write(true)
                    .open(folder.path("file"))
                    .and_then(|file| file.set_len(4_500_000))
                    .expect("it is there");
            }
            let (all, was_reset) = read_all(&mut reactor, &mut journal, key, &mut theirs);
            assert!(all.len() <= MUCH && content().starts_with(&all), "{} bytes", all.len());
            assert!(was_reset || !is_tcp, "an orderly end after {} bytes", all.len());
            until(&mut reactor, &mut journal, |journal| closing_of(journal, key).is_some());
            let why = closing_of(&journal, key).expect("it is closed");
            assert!(why.contains("the file to be sent ends at") && why.contains(&format!("up to {end}")), "{why}");
        }
    });
}

#[test]
fn what_cannot_be_read_so_is_a_failure_and_nothing_is_nothing() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-odd");
        file(&folder, "file", b"content");
        let directory = || open_folder(&folder.0).expect("a folder");
        #[cfg(unix)]
        let socket = || File::from(OwnedFd::from(local_pair().0));
        let for_writing = || File::options().write(true).open(folder.path("file")).expect("it is there");
        let odd = [
            directory(),
            #[cfg(unix)]
            socket(),
            for_writing(),
        ];
        for (odd, word) in odd.map(|odd| (odd, "cannot be read")) {
            let mut odd = Some(odd);
            let (mut reactor, mut journal, key, mut theirs) =
                begins(uses_sendfile, is_tcp, move |ctx| ctx.send_file(odd.take().expect("once"), 0..7));
            let (all, _) = read_all(&mut reactor, &mut journal, key, &mut theirs);
            assert_eq!(all, b"");
            until(&mut reactor, &mut journal, |journal| closing_of(journal, key).is_some());
            let why = closing_of(&journal, key).expect("it is closed");
            assert!(why.starts_with("failed: ") && why.contains(word), "{why}");
        }
        let whole = || File::open(folder.path("file")).expect("it is there");
        let mut empty = Some((directory(), whole(), whole()));
        let (mut reactor, mut journal, key, mut theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
            let (directory, file, late) = empty.take().expect("once");
            assert!(ctx.link().send_file(directory, 5..5));
            #[allow(clippy::reversed_empty_ranges)]
            let reversed = ctx.link().send_file(file, 5..3);
            assert!(reversed);
            ctx.send("only this");
            ctx.close();
            assert!(!ctx.link().send_file(late, 0..1), "it has begun to end");
        });
        let (all, was_reset) = read_all(&mut reactor, &mut journal, key, &mut theirs);
        assert!(!was_reset && all == b"only this");
    });
}

/// An `Err` has what stands in front written once: a part of a file is of no use to anybody.
#[test]
fn an_error_leaves_nothing_of_it() {
    each(|uses_sendfile, _| {
        let folder = Folder::new("files-error");
        let mut opened = Some(file(&folder, "file", &content()));
        let (ours, mut theirs) = local_pair();
        let mut reactor = Reactor::with_config(Config::new().sendfile(uses_sendfile)).expect("a selector");
        let on = move |ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| -> Outcome {
            if *call == Call::Connected {
                ctx.send_file(opened.take().expect("once"), 0..MUCH as u64);
                ctx.send("never");
                return Err("on purpose".into());
            }
            by_default(ctx, journal, call)
        };
        let mut journal = Journal::default();
        reactor.net().adopt(ours, recorder(on)).expect("a stream");
        reactor.run(&mut journal).expect("the selector works");
        let mut all = Vec::new();
        let read = theirs.read_to_end(&mut all);
        assert!(read.is_ok() || cfg!(windows), "TCP is reset: {read:?}");
        assert!(all.is_empty(), "{} bytes", all.len());
    });
}

#[test]
fn a_half_close_waits_for_it_and_so_does_the_next_protocol() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-half");
        let mut opened = Some(file(&folder, "file", &content()));
        let (mut reactor, mut journal, key, mut theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
            ctx.send_file(opened.take().expect("once"), 0..MUCH as u64);
            ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call| {
                if *call == Call::Connected {
                    ctx.send("next");
                    ctx.half_close();
                }
                by_default(ctx, journal, call)
            }));
        });
        let (all, was_reset) = read_all(&mut reactor, &mut journal, key, &mut theirs);
        assert!(!was_reset && all == [&content()[..], b"next"].concat(), "{} bytes", all.len());
        assert!(closing_of(&journal, key).is_none(), "it is open the other way");
        theirs.write_all(b"thanks").expect("room");
        until(&mut reactor, &mut journal, |journal| journal.received() == b"thanks");
    });
}

/// The kernel has it, and nothing is queued: nevertheless somebody takes nothing.
#[test]
fn who_takes_nothing_of_it_stalls() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-stall");
        let mut opened = Some(file(&folder, "file", &vec![1; 20 << 20]));
        let (mut reactor, mut journal, key, _theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
            ctx.send_file(opened.take().expect("once"), 0..20 << 20);
            ctx.set_stall_timeout(ms(100));
        });
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Exceeded(Limit::Stalled)));
        until(&mut reactor, &mut journal, |journal| closing_of(journal, key).is_some());
    });
}

#[test]
fn its_rate_holds() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-rate");
        let mut opened = Some(file(&folder, "file", &content()));
        let (mut reactor, mut journal, key, mut theirs) = begins(uses_sendfile, is_tcp, move |ctx| {
            ctx.set_write_rate(10_000_000);
            ctx.send_file(opened.take().expect("once"), 0..MUCH as u64);
            ctx.close();
        });
        let began = std::time::Instant::now();
        let (all, _) = read_all(&mut reactor, &mut journal, key, &mut theirs);
        assert!(all == content());
        let took = began.elapsed();
        assert!(took > ms(150) && took < PATIENCE, "5 MB at 10 MB/s took {took:?}"); // a quarter of a second's bytes come at once
    });
}

#[test]
fn who_goes_away_leaves_no_descriptor() {
    each(|uses_sendfile, is_tcp| {
        let folder = Folder::new("files-gone");
        let opened = file(&folder, "file", &content());
        let mut opened = Some(opened);
        let (mut reactor, mut journal, key, theirs) =
            begins(uses_sendfile, is_tcp, move |ctx| ctx.send_file(opened.take().expect("once"), 0..MUCH as u64));
        settle(&mut reactor, &mut journal);
        drop(theirs);
        until(&mut reactor, &mut journal, |journal| closing_of(journal, key).is_some());
        assert_eq!(descriptors(&folder.path("file")), 0);
    });
}

/// All of it is sent, a part of it, or nothing.
#[test]
fn a_thousand_rounds_leave_no_descriptor() {
    if !is_alone("files::a_thousand_rounds_leave_no_descriptor", "") {
        return;
    }
    let folder = Folder::new("files-rounds");
    file(&folder, "file", &content()[..300_000]);
    for uses_sendfile in [false, true] {
        let mut reactor = Reactor::with_config(Config::new().sendfile(uses_sendfile)).expect("a selector");
        let mut journal = Journal::default();
        let mut round = |number: u64| {
            let (ours, mut theirs) = local_pair();
            let key = reactor.net().adopt(ours, recorder(by_default)).expect("a stream");
            for end in [300_000, number % 300_000, 0] {
                reactor
                    .net()
                    .link(key)
                    .expect("it is open")
                    .send_file(File::open(folder.path("file")).expect("it is there"), 0..end);
            }
            reactor.turn(&mut journal, ms(0)).expect("the selector works");
            if number % 3 == 1 {
                reactor.net().abort(key);
            } else if number % 3 == 2 {
                reactor.net().close(key);
                theirs.set_nonblocking(true).expect("a socket option");
                let (mut buf, mut all) = (vec![0; 100_000], 0);
                until(&mut reactor, &mut journal, |_| match theirs.read(&mut buf) {
                    Ok(bytes) => {
                        all += bytes;
                        bytes == 0
                    }
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                });
                assert_eq!(all as u64, 300_000 + number % 300_000);
            }
            drop(theirs);
            reactor.run(&mut journal).expect("the selector works");
            std::fs::read_dir("/proc/self/fd").ok().filter(|_| cfg!(unix)).map_or(0, Iterator::count)
        };
        let first = round(0);
        let rounds: Vec<usize> = (0..500).map(|number| round(number * 7)).collect();
        assert!(rounds.iter().all(|&count| count == first), "{first}: {:?}", rounds.iter().max());
        assert_eq!(descriptors(&folder.path("file")), 0);
    }
}
