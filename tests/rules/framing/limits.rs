//! How long a frame may be.

use super::{Dialogue, TOO_LONG, eof, piece};
use crate::common::{
    Call, Journal, Talk, closed, ends_with, frame, guest, is_closed, read_exactly, say, start, until, until_net,
};
use mainspring::{Context, Endian, Fault, Framer, Limit, Reason, Step, Terminator, Width};

#[test]
fn a_frame_at_its_limit_passes_and_one_byte_more_is_skipped() {
    let mut talk = Dialogue::with(|| Terminator::line(3));
    talk.says("abc\r\nabcd\r\nx\n").hears(&[frame("abc"), TOO_LONG, frame("x")]);
    // It is refused before its end comes, once, and memory stays flat.
    talk.says("abcd").hears(&[TOO_LONG]).holds(0).says("efgh").hears_nothing().holds(0);
    talk.says("\ny\nabcd").hears(&[frame("y"), TOO_LONG]);
    // The rest of a refused frame is no tail.
    talk.says("e\r").ends().hears(&[eof(""), closed(&Reason::Eof)]);

    let mut talk = Dialogue::with(|| Terminator::delimiter(&b"--"[..], 3));
    talk.says("abc--abcd--x-").hears(&[frame("abc"), TOO_LONG]).says("-").hears(&[frame("x")]);
    talk.says("abcd-").hears(&[TOO_LONG]).ends().hears(&[eof(""), closed(&Reason::Eof)]);
}

/// Asks for so many bytes at once.
struct Needs(usize);

impl Framer for Needs {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(if input.len() < self.0 { Step::Need(self.0) } else { Step::Frame { bytes: 0..self.0, consumed: self.0 } })
    }
}

#[test]
fn a_limit_that_is_not_answered_ends_the_connection() {
    let on = |terminator: fn() -> Terminator| {
        move |ctx: &mut Context<'_, Journal>, _: &mut Journal, call: &Call| match call {
            Call::Connected => {
                ctx.set_terminator(terminator());
                Ok(())
            }
            Call::Exceeded(limit) => Err((*limit).into()),
            _ => Ok(()),
        }
    };
    let over = closed(&Reason::Limit(Limit::FrameBytes));
    let cases: [(fn() -> Terminator, &[u8]); 6] = [
        (|| Terminator::line(3), b"abcd"),
        (|| Terminator::crlf(3), b"abcd\r\nx\r\n"),
        (|| Terminator::prefixed(Width::U8, Endian::Big, 3), b"\x04"),
        (|| Terminator::prefixed(Width::U64, Endian::Little, 3), b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        (|| Terminator::netstring(3), b"4"),
        (|| Terminator::custom(Needs(4), 3), b"a"),
    ];
    for (terminator, bytes) in cases {
        Dialogue::answering(on(terminator)).says(bytes).hears(&[TOO_LONG, over.clone()]);
    }
}

#[test]
fn a_declared_length_over_its_limit_is_refused_before_it_comes() {
    let mut talk = Dialogue::with(|| Terminator::declared(6, 5));
    talk.hears(&[TOO_LONG]);
    talk.says("123456rest").hears(&[piece("rest")]);
    Dialogue::with(|| Terminator::declared(5, 5)).says("12345").hears(&[frame("12345")]);
}

#[test]
fn the_end_of_a_custom_frame_is_not_known_so_that_going_on_closes_politely() {
    let mut talk = Dialogue::answering(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::prefixed(Width::U8, Endian::Big, 3)),
            Call::Exceeded(_) => ctx.send("too long"),
            _ => {}
        }
        Ok(())
    });
    talk.says(b"\x03abc\x04").hears(&[frame("abc"), TOO_LONG, closed(&Reason::Finish)]);
    assert_eq!(read_exactly(&mut talk.reactor, &mut talk.journal, &mut talk.peer, 8), b"too long");
}

#[test]
fn limits_leave_out_the_delimiter() {
    let (mut reactor, mut journal) = start();
    let (_, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| {
        if *call == Call::Connected {
            ctx.set_terminator(Terminator::line(3));
        }
        Ok(())
    });
    say(&peer, "abc\r\nabc\nabcd\nabc\n");
    until(&mut reactor, &mut journal, |journal| journal.frames().len() == 3);
    let [Call::Connected, Call::Frame(_), Call::Frame(_), Call::Exceeded(Limit::FrameBytes), Call::Frame(_)] =
        &journal.calls.iter().map(|(_, call)| call.clone()).collect::<Vec<_>>()[..]
    else {
        panic!("{:?}", journal.calls)
    };
}

#[test]
fn a_declared_length_beyond_the_limit_is_exceeded_before_it_comes() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| match call {
        Call::Connected => {
            ctx.set_terminator(Terminator::exactly(1));
            Ok(())
        }
        Call::Frame(_) => {
            ctx.set_terminator(Terminator::declared(1 << 40, 1 << 10));
            Ok(())
        }
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    say(&peer, "!");
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert!(journal.has(&Call::Exceeded(Limit::FrameBytes)));
}

#[test]
fn a_prefix_beyond_the_limit_is_exceeded_before_it_comes() {
    let (mut reactor, mut journal) = start();
    let (key, peer) = guest(&mut reactor, &mut journal, |ctx, _, call| match call {
        Call::Connected => {
            ctx.set_terminator(Terminator::prefixed(mainspring::Width::U32, mainspring::Endian::Big, 1000));
            Ok(())
        }
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    say(&peer, 1001_u32.to_be_bytes());
    ends_with(&mut reactor, &mut journal, key, &Reason::Limit(Limit::FrameBytes).to_string());
}

/// A length of all ones overflowed when its header was added, if the limit was no limit.
#[test]
fn a_peer_cannot_overflow_a_length() {
    let rows: [(&str, fn() -> Terminator, &[u8]); 2] = [
        ("prefixed", || Terminator::prefixed(Width::U64, Endian::Big, usize::MAX), &[0xff; 8]),
        ("netstring", || Terminator::netstring(usize::MAX), b"18446744073709551615:"),
    ];
    for (name, terminator, bytes) in rows {
        let mut talk = Talk::new(move |ctx, _, call| {
            if let Call::Connected = call {
                ctx.set_terminator(terminator());
            }
            Ok(())
        });
        let key = talk.key;
        say(&talk.peer, bytes);
        talk.until(|journal| journal.closings() == 1);
        let refused = [Call::Exceeded(Limit::FrameBytes), Call::Closed(Reason::Finish.to_string())];
        assert_eq!(talk.journal.of(key)[1..], refused, "{name}");
    }
}

/// Flaw 14: Nothing had a limit: smtpd and pyftpdlib each had to add one.
#[test]
fn flaw_14_no_frame_is_longer_than_its_terminator_allows() {
    let rows = [
        (Terminator::line(100), "x".repeat(200)),
        (Terminator::crlf(100), "x".repeat(200)),
        (Terminator::delimiter(&b"qqq"[..], 100), "x".repeat(200)),
        (Terminator::declared(101, 100), String::new()),
        (Terminator::prefixed(Width::U8, Endian::Big, 100), "\x65".into()), // 101
        (Terminator::netstring(100), "101:".into()),
    ];
    for (terminator, stream) in rows {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, stream);
        talk.until(|journal| journal.closings() == 1);
        let expected = [Call::Exceeded(Limit::FrameBytes), closed(&Reason::Limit(Limit::FrameBytes))];
        assert_eq!(talk.calls(), expected, "{shown}");
    }
}

/// Elsewhere a buffer was made as large as the peer declared, which ended the process (RUSTSEC-2022-0035). Ours waits for
/// bytes, whatever was declared; and beyond the limit it does not even wait.
#[test]
fn a_huge_declared_length_allocates_nothing() {
    let huge = |bytes: u64| [&bytes.to_be_bytes()[..], b"abc"].concat();
    let prefixed = |limit| Terminator::prefixed(Width::U64, Endian::Big, limit);
    let waits = [
        (prefixed(usize::MAX), huge(1 << 62)),
        (Terminator::declared(usize::MAX, usize::MAX), huge(0)),
        (Terminator::Stream(u64::MAX), Vec::new()),
        (Terminator::netstring(usize::MAX), b"999999999999999:abc".to_vec()),
    ];
    for (terminator, bytes) in waits {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, &bytes);
        let key = talk.key;
        until_net(&mut talk.reactor, &mut talk.journal, |net, _| net.link(key).expect(&shown).unread() == bytes.len());
        talk.settle();
        assert_eq!(talk.calls(), [], "{shown}");
    }
    let refused = [
        (prefixed(1 << 20), huge(1 << 62)),
        (prefixed(1 << 20), huge(u64::MAX)),
        (prefixed(usize::MAX), huge(u64::MAX)),
        (Terminator::netstring(1 << 20), b"999999999999999:".to_vec()),
        (Terminator::netstring(usize::MAX), b"99999999999999999999999999:".to_vec()),
    ];
    for (terminator, bytes) in refused {
        let shown = format!("{terminator:?}");
        let mut talk = Talk::cut_by(terminator);
        say(&talk.peer, &bytes);
        talk.until(|journal| journal.closings() == 1);
        assert!(matches!(talk.calls().last(), Some(Call::Closed(_))), "{shown}");
    }
}

/// The most address space that the process ever had, in bytes: reserved memory that nobody touched counts, too.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn address_space_max() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// The other tests of this file run meanwhile: half a declared frame is more than all of them take.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn nothing_is_allocated_for_a_length_before_its_bytes_come() {
    const GIB: usize = 1 << 30;
    let declared: [(fn() -> Terminator, &[u8]); 5] = [
        (|| Terminator::declared(GIB, GIB), b""),
        (|| Terminator::exactly(GIB), b""),
        (|| Terminator::prefixed(Width::U32, Endian::Big, GIB), b"\x40\x00\x00\x00"),
        (|| Terminator::netstring(GIB), b"1073741824:"),
        (|| Terminator::custom(Needs(GIB), GIB), b""),
    ];
    for (terminator, prefix) in declared {
        let before = address_space_max();
        let mut talk = Dialogue::with(terminator);
        talk.says([prefix, b"0123456789"].concat()).holds(prefix.len() + 10).hears_nothing();
        let grown = address_space_max() - before;
        assert!(grown < GIB / 2, "{grown} bytes more for {}", prefix.escape_ascii());
    }
}
