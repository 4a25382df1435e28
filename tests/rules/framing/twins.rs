//! What one end writes and the other reads.

use super::{Dialogue, piece};
use crate::common::{Call, Journal, closed, listen, read_to_end, recorder, until};
use mainspring::{Endian, Link, Reactor, Reason, Terminator, Width};

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
fn a_frame_too_long_for_its_prefix_is_an_overflow() {
    for (width, bytes) in [(Width::U8, 256), (Width::U16, 65_536)] {
        let mut talk = Dialogue::with(|| Terminator::None);
        talk.link(|link| {
            assert!(!link.send_prefixed(width, Endian::Big, vec![0; bytes]));
            assert!(!link.send_prefixed(width, Endian::Big, "x"), "it has begun to end");
            assert!(!link.send_netstring("x"), "it has begun to end");
        });
        talk.hears(&[closed(&Reason::Overflow)]);
    }
}

#[test]
fn a_frame_too_long_for_its_prefix_leaves_no_half_frame() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.send_prefixed(Width::U8, Endian::Big, "whole");
            ctx.send_prefixed(Width::U8, Endian::Big, [0; 256]);
        }
        Ok(())
    });
    talk.says("go").hears(&[piece("go"), closed(&Reason::Overflow)]);
    let got = read_to_end(&mut talk.reactor, &mut talk.journal, &mut talk.peer);
    assert!(got.is_empty() || got == b"\x05whole", "{got:?}");
}
