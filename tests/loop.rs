//! The loop's own order, on real sockets.

mod common;

use common::{Call, Journal, dial, listen, read_exactly, read_to_end, recorder, say, until};
use mainspring::{Config, Reactor, Terminator};
use std::time::{Duration, Instant};

#[test]
fn a_line_is_echoed_and_the_end_of_the_peer_is_the_end() {
    let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
    let (_, addr) = listen(&mut reactor, || {
        recorder(|ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(Terminator::line(100)),
                Call::Frame(line) => writeln!(ctx, "{}!", line.escape_ascii()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        })
    });
    let mut peer = dial(addr);
    say(&peer, "one\r\ntwo\nthr");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 10), b"one!\ntwo!\n");
    peer.shutdown(std::net::Shutdown::Write).expect("connected");
    assert_eq!(read_to_end(&mut reactor, &mut journal, &mut peer), b"");
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let calls: Vec<Call> = journal.calls.into_iter().map(|(_, call)| call).collect();
    assert_eq!(
        calls,
        [
            Call::Connected,
            Call::Frame(b"one".to_vec()),
            Call::Frame(b"two".to_vec()),
            Call::Eof(b"thr".to_vec()),
            Call::Closed("the peer finished".into())
        ]
    );
}

#[test]
fn a_loop_that_spins_first_serves_at_once_and_no_timer_is_early() {
    let mut reactor = Reactor::with_config(Config::new().spin(Duration::from_millis(2))).expect("a selector");
    let mut journal = Journal::default();
    let (_, addr) = listen(&mut reactor, || {
        recorder(|ctx, _, call| {
            if let Call::Received(bytes) = call {
                ctx.send(bytes);
            }
            Ok(())
        })
    });
    let mut peer = dial(addr);
    say(&peer, "ping");
    assert_eq!(read_exactly(&mut reactor, &mut journal, &mut peer, 4), b"ping");
    for delay in [1, 5] {
        let (delay, began) = (Duration::from_millis(delay), Instant::now());
        reactor.net().after(delay, |net, _| net.stop());
        reactor.run(&mut journal).expect("a working selector");
        assert!(began.elapsed() >= delay, "{delay:?} after {:?}", began.elapsed());
    }
    // Nothing to wait for but a moment: it neither sleeps longer nor spins on.
    let began = Instant::now();
    assert!(reactor.turn(&mut journal, Duration::from_millis(3)).expect("a working selector"));
    assert!(began.elapsed() >= Duration::from_millis(3));
}
