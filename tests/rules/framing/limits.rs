//! How long a frame may be.

use crate::common::{Call, Journal, Recorded, TOO_LONG, closed, cut_by, cut_from_outside, dialogue, eof, frame, is_alone, piece};
use mainspring::{Context, Endian, Fault, Framer, Limit, Reason, Step, Terminator, Width};

#[test]
fn a_frame_at_its_limit_passes_and_one_byte_more_is_skipped() {
    let mut t = cut_by(|| Terminator::line(3));
    t.receives("abc\r\nabcd\r\nx\n").gets(&[frame("abc"), TOO_LONG, frame("x")]);
    // It is refused before its end comes, once, and memory stays flat.
    t.receives("abcd").gets(&[TOO_LONG]).holds(0).receives("efgh").gets_nothing().holds(0);
    t.receives("\ny\nabcd").gets(&[frame("y"), TOO_LONG]);
    // The rest of a refused frame is no tail.
    t.receives("e\r").peer_ends().gets(&[eof(""), closed(&Reason::Eof)]);

    let mut t = cut_by(|| Terminator::delimiter(&b"--"[..], 3));
    t.receives("abc--abcd--x-").gets(&[frame("abc"), TOO_LONG]).receives("-").gets(&[frame("x")]);
    t.receives("abcd-").gets(&[TOO_LONG]).peer_ends().gets(&[eof(""), closed(&Reason::Eof)]);
}

/// Asks for this many bytes at once.
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
        (|| Terminator::netstring(3), b"4:"),
        (|| Terminator::custom(Needs(4), 3), b"a"),
    ];
    for (terminator, bytes) in cases {
        dialogue(on(terminator)).receives(bytes).gets(&[TOO_LONG, over.clone()]);
    }
}

#[test]
fn a_declared_length_over_its_limit_is_refused_before_it_comes() {
    let mut t = cut_by(|| Terminator::declared(6, 5));
    t.gets(&[TOO_LONG]);
    t.receives("123456rest").gets(&[piece("rest")]);
    cut_by(|| Terminator::declared(5, 5)).receives("12345").gets(&[frame("12345")]);
}

#[test]
fn a_frame_too_long_for_its_prefix_is_an_overflow() {
    for (width, bytes) in [(Width::U8, 256), (Width::U16, 65_536)] {
        let mut t = cut_by(|| Terminator::None);
        t.link(|link| {
            assert!(!link.send_prefixed(width, Endian::Big, vec![0; bytes]));
            assert!(!link.send_prefixed(width, Endian::Big, "x"), "it has begun to end");
            assert!(!link.send_netstring("x"), "it has begun to end");
        });
        t.gets(&[closed(&Reason::Overflow)]);
    }
}

#[test]
fn a_frame_too_long_for_its_prefix_leaves_no_half_frame() {
    let mut t = dialogue(|ctx, _, call| {
        if let Call::Received(_) = call {
            ctx.send_prefixed(Width::U8, Endian::Big, "whole");
            ctx.send_prefixed(Width::U8, Endian::Big, [0; 256]);
        }
        Ok(())
    });
    t.receives("go").gets(&[piece("go"), closed(&Reason::Overflow)]);
    let got = t.sent();
    assert!(got.is_empty() || got == b"\x05whole", "{got:?}");
}

/// It asks for more than it may be shown, and so does not say where the frame ends.
#[test]
fn the_end_of_what_a_framer_refuses_by_need_is_not_known_so_that_going_on_closes_politely() {
    let mut t = dialogue(|ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(Terminator::custom(Needs(4), 3)),
            Call::Exceeded(_) => ctx.send("too long"),
            _ => {}
        }
        Ok(())
    });
    t.receives("a").gets(&[TOO_LONG, closed(&Reason::Finish)]);
    t.sends("too long");
}

#[test]
fn a_framer_that_says_how_long_a_refused_frame_is_has_it_skipped() {
    /// Runs of one byte: its value is how many of them there are.
    struct Runs;
    impl Framer for Runs {
        fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
            let bytes = usize::from(input[0]);
            Ok(match bytes {
                4.. => Step::TooLong { bytes: bytes as u64 },
                _ if input.len() < bytes => Step::Need(bytes),
                _ => Step::Frame { bytes: 0..bytes, consumed: bytes },
            })
        }
    }
    let mut t = cut_by(|| Terminator::custom(Runs, 3));
    t.receives(b"\x05\x05").gets(&[TOO_LONG]).receives(b"\x05\x05\x05\x02\x02").gets(&[frame("\x02\x02")]);
}

#[test]
fn limits_leave_out_the_delimiter() {
    let abc = || frame("abc");
    cut_by(|| Terminator::line(3)).receives("abc\r\nabc\nabcd\nabc\n").gets(&[abc(), abc(), TOO_LONG, abc()]);
}

#[test]
fn a_declared_length_beyond_the_limit_is_exceeded_before_it_comes() {
    let mut t = dialogue(|ctx, _, call| match call {
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
    t.receives("!").gets(&[frame("!"), TOO_LONG, closed(&Reason::Limit(Limit::FrameBytes))]);
}

#[test]
fn a_prefix_beyond_the_limit_is_exceeded_before_it_comes() {
    let mut t = dialogue(|ctx, _, call| match call {
        Call::Connected => {
            ctx.set_terminator(Terminator::prefixed(Width::U32, Endian::Big, 1000));
            Ok(())
        }
        Call::Exceeded(limit) => Err((*limit).into()),
        _ => Ok(()),
    });
    t.receives(1001_u32.to_be_bytes()).gets(&[TOO_LONG, closed(&Reason::Limit(Limit::FrameBytes))]);
}

/// A length of all ones overflowed when its header was added, if the limit was no limit.
#[test]
fn a_peer_cannot_overflow_a_length() {
    let rows: [(&str, fn() -> Terminator, &[u8]); 2] = [
        ("prefixed", || Terminator::prefixed(Width::U64, Endian::Big, usize::MAX), &[0xff; 8]),
        ("netstring", || Terminator::netstring(usize::MAX), b"18446744073709551615:"),
    ];
    for (name, terminator, bytes) in rows {
        let calls = cut_by(terminator).receives(bytes).calls();
        assert_eq!(calls, [TOO_LONG, closed(&Reason::Finish)], "{name}");
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
        let calls = cut_from_outside(terminator).receives(stream).calls();
        assert_eq!(calls, [TOO_LONG, closed(&Reason::Limit(Limit::FrameBytes))], "{shown}");
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
        let mut t = cut_from_outside(terminator);
        assert_eq!(t.receives(&bytes).holds(bytes.len()).calls(), [], "{shown}");
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
        let calls = cut_from_outside(terminator).receives(&bytes).calls();
        assert!(matches!(calls.last(), Some(Call::Closed(_))), "{shown}");
    }
}

/// The most address space that the process ever had, in bytes: reserved memory that nobody touched counts, too.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn address_space_max() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// Alone, because other tests take memory meanwhile.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[test]
fn nothing_is_allocated_for_a_length_before_its_bytes_come() {
    const GIB: usize = 1 << 30;
    if !is_alone("framing::limits::nothing_is_allocated_for_a_length_before_its_bytes_come", "") {
        return;
    }
    let declared: [(fn() -> Terminator, &[u8]); 5] = [
        (|| Terminator::declared(GIB, GIB), b""),
        (|| Terminator::exactly(GIB), b""),
        (|| Terminator::prefixed(Width::U32, Endian::Big, GIB), b"\x40\x00\x00\x00"),
        (|| Terminator::netstring(GIB), b"1073741824:"),
        (|| Terminator::custom(Needs(GIB), GIB), b""),
    ];
    for (terminator, prefix) in declared {
        let before = address_space_max();
        let mut t = cut_by(terminator);
        t.receives([prefix, b"0123456789"].concat()).holds(prefix.len() + 10).gets_nothing();
        let grown = address_space_max() - before;
        assert!(grown < GIB / 2, "{grown} bytes more for {}", prefix.escape_ascii());
    }
}
