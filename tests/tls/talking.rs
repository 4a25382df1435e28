//! Two ends that agree, and talk.

use crate::{
    common::{Call, Ctx, Journal, On, closing_of, echo, hang_up, is_closed, quiet, recorder, start, until},
    configs::{client_of, server, sides},
};
use mainspring::{
    Connect, Key, Listen, Outcome, Reactor,
    rustls::{
        ProtocolVersion, ServerConfig,
        version::{TLS12, TLS13},
    },
};
use std::{net::SocketAddr, sync::Arc};

pub(crate) fn answers(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
    echo(ctx, journal, call)?;
    hang_up(ctx, journal, call)
}

pub(crate) fn listen(reactor: &mut Reactor<Journal>, config: Arc<ServerConfig>, on: On) -> (Key, SocketAddr) {
    listen_how(reactor, Listen::new().tls(config), on)
}

pub(crate) fn listen_how(reactor: &mut Reactor<Journal>, options: Listen, on: On) -> (Key, SocketAddr) {
    let key = reactor.net().listen_with("127.0.0.1:0", options, move |_, _, _| Ok(recorder(on))).expect("a port");
    (key, reactor.net().local(key).and_then(|at| at.ip()).expect("an IP address"))
}

#[test]
fn what_is_sent_comes_back_in_both_versions() {
    for version in [&TLS13, &TLS12] {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen(&mut reactor, Arc::new(server("p256")), answers);
        let client = Arc::new(client_of(&[version]));
        let key = reactor.net().connect_with(at, Connect::new().tls(client), recorder(quiet));
        assert!(reactor.net().send(key, "before it is connected"), "it is kept");
        until(&mut reactor, &mut journal, |journal| journal.of(key).len() >= 2);
        assert_eq!(journal.of(key), [Call::Connected, Call::Received(b"before it is connected".to_vec())]);
        let net = reactor.net();
        let tls = net.tls(key).expect("it speaks TLS");
        let wanted = if *version == TLS13 { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 };
        assert_eq!((tls.version(), tls.is_resumed(), tls.alpn(), tls.peer_certificates().len()), (wanted, false, None, 1));
        reactor.net().close(key);
        until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
        let guest = *journal.keys().iter().find(|&&other| other != key).expect("somebody was let in");
        assert_eq!(closing_of(&journal, key).as_deref(), Some("finished"));
        assert_eq!(closing_of(&journal, guest).as_deref(), Some("the peer finished"));
        let stats = reactor.net().stats();
        assert_eq!((stats.handshakes, stats.handshakes_resumed, stats.handshakes_failed), (2, 0, 0));
    }
}

#[test]
fn much_comes_back_whole_and_in_order() {
    const MUCH: usize = 8 << 20;
    let (mut reactor, mut journal) = start();
    let (server, client) = sides();
    let (_, at) = listen(&mut reactor, server, echo);
    let key = reactor.net().connect_with(at, Connect::new().tls(client), recorder(quiet));
    let bytes: Vec<u8> = (0..MUCH as u32).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    assert!(reactor.net().send(key, &bytes));
    until(&mut reactor, &mut journal, |journal| {
        is_closed(journal, key)
            || journal.of(key).iter().map(|call| if let Call::Received(piece) = call { piece.len() } else { 0 }).sum::<usize>()
                >= MUCH
    });
    let got: Vec<u8> =
        journal.of(key).into_iter().flat_map(|call| if let Call::Received(piece) = call { piece } else { Vec::new() }).collect();
    assert!(got == bytes, "{} of {MUCH} bytes", got.len());
}
