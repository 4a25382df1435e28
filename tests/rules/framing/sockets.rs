//! On real sockets: what one end writes and the other reads, what a panic ends, and a very long line.

use super::Says;
use crate::common::{Call, Journal, PATIENCE, closed, dial, listen, read_exactly, recorder, until};
use mainspring::{Context, Endian, Link, Reactor, Reason, Step, Terminator, Width};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Both ends in one reactor: the frames that came of what `send` sent.
fn heard_by_a_twin(terminator: fn() -> Terminator, send: impl FnOnce(&mut Link<'_>)) -> Vec<Vec<u8>> {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, move || {
        recorder(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(terminator()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        })
    });
    let sender = reactor.net().connect(addr, recorder(|_, _, _| Ok(())));
    let mut net = reactor.net();
    send(&mut net.link(sender).expect("connecting"));
    net.close(sender);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    let calls = journal.calls.iter().filter(|(key, _)| *key != sender).map(|(_, call)| call);
    let frames = calls.filter_map(|call| match call {
        Call::Frame(frame) => Some(frame.clone()),
        Call::Connected | Call::Closed(_) => None,
        Call::Eof(tail) if tail.is_empty() => None,
        other => panic!("{other:?}"),
    });
    frames.collect()
}

/// Without printing them: they are long.
#[track_caller]
fn assert_same(heard: &[Vec<u8>], sent: &[Vec<u8>]) {
    let sizes = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(heard), sizes(sent));
    assert!(heard == sent, "the bytes differ");
}

fn of_sizes(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().map(|&size| (0..size).map(|at| at as u8).collect()).collect()
}

#[test]
fn what_send_prefixed_writes_the_twin_terminator_reads() {
    fn check<const WIDTH: usize, const ORDER: usize>(sizes: &[usize]) {
        const WIDTHS: [Width; 4] = [Width::U8, Width::U16, Width::U32, Width::U64];
        const ORDERS: [Endian; 2] = [Endian::Big, Endian::Little];
        let frames = of_sizes(sizes);
        let heard = heard_by_a_twin(
            || Terminator::prefixed(WIDTHS[WIDTH], ORDERS[ORDER], 70_000),
            |link| {
                for frame in &frames {
                    assert!(link.send_prefixed(WIDTHS[WIDTH], ORDERS[ORDER], frame));
                }
            },
        );
        assert_same(&heard, &frames);
    }
    check::<0, 0>(&[0, 1, 255, 0]);
    check::<0, 1>(&[0, 1, 255, 0]);
    check::<1, 0>(&[0, 1, 255, 256, 65_535, 3]);
    check::<1, 1>(&[0, 1, 255, 256, 65_535, 3]);
    check::<2, 0>(&[0, 1, 256, 65_536, 70_000, 3]);
    check::<2, 1>(&[0, 1, 256, 65_536, 70_000, 3]);
    check::<3, 0>(&[0, 1, 256, 65_536, 70_000, 3]);
    check::<3, 1>(&[0, 1, 256, 65_536, 70_000, 3]);
}

#[test]
fn what_send_netstring_writes_the_twin_terminator_reads() {
    let frames = of_sizes(&[0, 1, 9, 10, 99, 100, 70_000, 0]);
    let heard = heard_by_a_twin(
        || Terminator::netstring(70_000),
        |link| {
            for frame in &frames {
                assert!(link.send_netstring(frame));
            }
        },
    );
    assert_same(&heard, &frames);
}

#[test]
fn a_framer_that_panics_ends_its_own_connection_only() {
    let on = |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::custom(
                Says(|input| match input[0] {
                    b'!' => panic!("a framer's panic"),
                    _ => Ok(Step::Frame { bytes: 0..1, consumed: 1 }),
                }),
                9,
            )),
            Call::Frame(frame) => ctx.send(frame),
            _ => {}
        }
        Ok(())
    };
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, move || recorder(on));
    let (mut bad, mut good) = (dial(addr), dial(addr));
    bad.write_all(b"a!b").expect("it reads");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut bad, 1), b"a");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    assert!(journal.has(&closed(&Reason::Panicked("a framer's panic".into()))), "{journal:?}");
    assert_eq!(journal.frames(), ["a"]);
    good.write_all(b"c").expect("it reads");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut good, 1), b"c");
}

/// Flaw 15: The buffer was sliced anew for each frame and each read, and searched from its beginning: quadratic work.
///
/// A line of 4 MiB, 64 bytes a turn. Searched from its beginning each time that would be 128 GiB, far beyond the test's
/// patience; and so would be copying.
#[cfg(unix)]
#[test]
fn flaw_15_a_long_line_in_small_pieces_is_searched_once() {
    const LINE: usize = 4 << 20;
    let dir = std::env::temp_dir().join(format!("mainspring-flaws-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a place for temporary files");
    let path = dir.join("socket");
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    reactor
        .net()
        .listen(path.as_path(), || {
            recorder(|ctx, _, call| {
                if *call == Call::Connected {
                    ctx.set_terminator(Terminator::crlf(LINE));
                }
                Ok(())
            })
        })
        .expect("a new directory");
    let mut peer = std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
    std::fs::remove_dir_all(&dir).expect("they have met");
    let began = Instant::now();
    for _ in 0..LINE / 64 {
        assert!(began.elapsed() < PATIENCE, "the work grows with the square");
        // Bare halves of the delimiter everywhere: none of them may make it begin again.
        peer.write_all(&[b"x".repeat(62).as_slice(), b"\n\r"].concat()).expect("there is room");
        reactor.turn(&mut journal, Duration::ZERO).expect("the selector works");
    }
    peer.write_all(b"\r\n").expect("there is room");
    until(&mut reactor, &mut journal, |journal| journal.calls.len() == 2);
    assert!(matches!(&journal.calls[1].1, Call::Frame(line) if line.len() == LINE));
}
