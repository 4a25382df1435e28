//! Sockets that stay after `closed`, until their peers have had it all.

use crate::common::{Call, Ctx, Journal, dial, listen, recorder, start_with, turn, until_net};
use mainspring::Config;
use std::{io::Write, time::Duration};

#[test]
fn what_comes_for_a_lingering_socket_is_dropped_within_the_budget_of_a_turn() {
    const TURN: usize = 10_000;
    const READ: usize = 4096;
    let (mut reactor, mut journal) = start_with(Config::new().turn_bytes(TURN).read_bytes(READ));
    let close = |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
        if *call == Call::Connected {
            ctx.send("bye");
            ctx.close();
        }
        Ok(())
    };
    let (_, at) = listen(&mut reactor, move || recorder(close));
    let mut peer = dial(at);
    until_net(&mut reactor, &mut journal, |net, _| net.stats().lingering == 1);
    peer.set_nonblocking(true).expect("a socket option");
    let mut said = 0;
    while let Ok(bytes) = peer.write(&[b'.'; 64 << 10]) {
        said += bytes;
    }
    assert!(said > 3 * TURN, "{said}");
    let mut turns = 0;
    while reactor.stats().bytes_in < (3 * TURN) as u64 {
        let before = reactor.stats().bytes_in;
        turn(&mut reactor, &mut journal, Duration::from_millis(100));
        let dropped = reactor.stats().bytes_in - before;
        assert!(dropped < (TURN + READ) as u64, "a turn has dropped {dropped} bytes");
        turns += 1;
    }
    assert!(turns >= 3);
}
