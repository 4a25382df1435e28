//! Connecting from an address of one's own.

use crate::common::{Call, Ctx, Journal, dial, recorder, start, uninterrupted, until, until_net};
use mainspring::{Connect, Key, Reactor};
use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream},
};

fn says_goodbye(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> mainspring::Outcome {
    if *call == Call::Connected {
        ctx.close();
    }
    Ok(())
}

/// A port that nobody listens on now.
fn own_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound")
}

fn connect(reactor: &mut Reactor<Journal>, to: &TcpListener, from: SocketAddr) -> Key {
    let to = to.local_addr().expect("bound");
    reactor.net().connect_with(to, Connect::new().local(from), recorder(says_goodbye))
}

/// Without SO_REUSEADDR the port was in use for a minute after its connection had ended.
#[test]
fn a_port_of_ones_own_can_be_used_again() {
    let (mut reactor, mut journal) = start();
    let servers = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let from = own_address();
    for server in &servers {
        let key = connect(&mut reactor, server, from);
        until(&mut reactor, &mut journal, |journal| matches!(journal.of(key).last(), Some(Call::Closed(_))));
        assert_eq!(journal.of(key), [Call::Connected, Call::Closed("finished".into())], "to {server:?}");
        let (mut peer, at) = server.accept().expect("it has come");
        assert_eq!(at, from);
        assert_eq!(uninterrupted(|| peer.read(&mut [0])).expect("an end"), 0);
        drop(peer); // our end was the first: its port is in TIME_WAIT
        until_net(&mut reactor, &mut journal, |net, _| net.stats().lingering == 0);
    }
}

/// It takes nothing away from whoever listens there.
#[test]
fn a_port_that_somebody_listens_on_is_in_use() {
    let (mut reactor, mut journal) = start();
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let key = connect(&mut reactor, &server, taken.local_addr().expect("bound"));
    until(&mut reactor, &mut journal, |journal| !journal.of(key).is_empty());
    assert!(
        matches!(&journal.of(key)[..], [Call::Closed(why)] if why.contains("in use") || why.contains("10048")),
        "{journal:?}"
    );
    let client: TcpStream = dial(taken.local_addr().expect("bound"));
    assert_eq!(taken.accept().expect("it has come").1, client.local_addr().expect("connected"));
}
