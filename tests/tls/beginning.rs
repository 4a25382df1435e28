//! What is agreed on before anybody is told that it is connected: names, certificates, ALPN, sessions; and how long that may
//! take.

use crate::{
    common::{
        ABORTED, Call, Ctx, FINISHED, Journal, On, PEER_FINISHED, count, echo, ends_with, guest, is_closed, ms, pass, quiet,
        recorder, settle, start, start_with, until,
    },
    configs::{certificates, client, client_of, key, roots, server, sides},
    ending::both_versions,
    peers::{End, Peer, Talker, records},
    talking::{answers, listen, listen_how},
};
use mainspring::{
    Address, Config, Connect, Key, Listen, Net, Outcome, Reactor, Reason, TlsClient, TlsError, TlsServer, TlsStage,
    rustls::{
        self, AlertDescription, ClientConfig, ServerConfig,
        crypto::ring,
        pki_types::ServerName,
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};
use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// Remembers the stage at which it ended.
struct Ends(Rc<RefCell<Vec<TlsStage>>>);

impl mainspring::Protocol<Journal> for Ends {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        self.0.borrow_mut().extend(TlsError::of(&why).map(|error| error.stage));
        journal.note(ctx.key, Call::Closed(why.to_string()));
    }
}

/// What a client that cannot agree with this server is told.
#[track_caller]
fn fails(server: Arc<ServerConfig>, client: impl Into<TlsClient>) -> (String, TlsStage) {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, server, quiet);
    let stages = Rc::default();
    let key = reactor.net().connect_with(at, Connect::new().tls(client), Ends(Rc::clone(&stages)));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    settle(&mut reactor, &mut journal);
    assert_eq!(count(&journal, key, &Call::Connected), 0);
    assert_eq!(journal.keys(), [key], "nobody was made for it");
    assert_eq!(reactor.net().stats().handshakes_failed, 2, "each side has failed");
    let why = crate::common::closing_of(&journal, key).expect("it is closed");
    let stage = stages.borrow()[0];
    (why, stage)
}

#[test]
fn a_certificate_that_is_not_good_is_refused_in_words() {
    let told = |certificate| fails(Arc::new(server(certificate)), Arc::new(client()));
    let text = |why: &str| (format!("could not agree on TLS: {why}"), TlsStage::Certificate);
    assert_eq!(told("other"), text("the certificate is for `other.example`, not for `127.0.0.1`"));
    assert_eq!(told("expired"), text("the certificate expired 2021-01-01"));
    assert_eq!(told("future"), text("the certificate is not valid before 2100-01-01"));
    assert_eq!(told("stranger"), text("the certificate's issuer is not known"));
}

/// Nothing has been said in clear: what was queued is dropped, and no reset destroys the alert.
#[test]
fn who_refuses_a_certificate_says_so_also_with_something_to_send() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = listener.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(to, Connect::new().tls(Arc::new(client())), recorder(quiet));
    assert!(reactor.net().send(key, "for nobody else"));
    let mut peer = Peer::new(Talker::server(Arc::new(server("stranger"))), listener.accept().expect("it has come").0);
    assert_eq!(peer.ends(&mut reactor, &mut journal), End::Fin);
    assert_eq!(peer.talker.error, Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)));
    assert_eq!(peer.talker.plain, b"");
    let stats = reactor.net().stats();
    assert_eq!((stats.handshakes, stats.handshakes_failed), (0, 1));
}

#[test]
fn who_is_asked_for_by_name_is_to_show_that_name() {
    let name = ServerName::try_from("else.example").expect("a name");
    let (why, stage) = fails(Arc::new(server("p256")), TlsClient::new(Arc::new(client())).server_name(name));
    assert_eq!(why, "could not agree on TLS: the certificate is for `localhost`, `127.0.0.1`, `::1`, not for `else.example`");
    assert_eq!(stage, TlsStage::Certificate);
}

#[test]
fn no_version_in_common() {
    let mut twelve = server_of(&[&TLS12], false);
    twelve.alpn_protocols.clear();
    let (why, stage) = fails(Arc::new(twelve), Arc::new(client_of(&[&TLS13])));
    assert_eq!((why.as_str(), stage), ("could not agree on TLS: no TLS version in common", TlsStage::Version));
    let (why, stage) = fails(Arc::new(server_of(&[&TLS13], false)), Arc::new(client_of(&[&TLS12])));
    assert_eq!((why.as_str(), stage), ("could not agree on TLS: no TLS version in common", TlsStage::Version));
}

#[test]
fn no_application_protocol_in_common() {
    let mut ours = server("p256");
    ours.alpn_protocols = vec![b"h2".to_vec()];
    let mut theirs = client();
    theirs.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (why, stage) = fails(Arc::new(ours), Arc::new(theirs));
    assert_eq!(
        (why.as_str(), stage),
        ("could not agree on TLS: no application protocol in common: offered `http/1.1`", TlsStage::Alpn)
    );
}

fn server_of(versions: &[&'static rustls::SupportedProtocolVersion], wants_certificate: bool) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).expect("ring has them");
    let builder = if wants_certificate {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots()), provider).build().expect("there is a root");
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    builder.with_single_cert(certificates("p256"), key("p256")).expect("they belong together")
}

fn client_with_certificate(versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(versions)
        .expect("ring has them")
        .with_root_certificates(roots())
        .with_client_auth_cert(certificates("client"), key("client"))
        .expect("they belong together")
}

#[test]
fn a_client_shows_its_certificate() {
    for version in [&TLS13, &TLS12] {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen(&mut reactor, Arc::new(server_of(&[version], true)), |ctx, journal, call| {
            if *call == Call::Connected {
                let shown = ctx.tls().expect("it speaks TLS").peer_certificates();
                assert_eq!(shown, certificates("client"));
            }
            answers(ctx, journal, call)
        });
        let client = Arc::new(client_with_certificate(&[version]));
        let key = reactor.net().connect_with(at, Connect::new().tls(client), recorder(quiet));
        reactor.net().send(key, "who am I");
        until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Received(b"who am I".to_vec())) == 1);
    }
}

/// In TLS 1.3 the client has agreed before the server has seen that it has none.
#[test]
fn a_client_without_a_certificate_is_refused() {
    for version in [&TLS13, &TLS12] {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen(&mut reactor, Arc::new(server_of(&[version], true)), quiet);
        let stages = Rc::default();
        let client = Arc::new(client_of(&[version]));
        let key = reactor.net().connect_with(at, Connect::new().tls(client), Ends(Rc::clone(&stages)));
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        settle(&mut reactor, &mut journal);
        assert_eq!(journal.keys(), [key], "nobody was made for it");
        assert_eq!(stages.borrow()[..], [TlsStage::ClientCertificate], "{:?}", journal.of(key));
        assert!(reactor.net().stats().handshakes_failed >= 1);
    }
}

/// A listener whose factory counts how often it ran.
fn counting(reactor: &mut Reactor<Journal>, options: Listen) -> (Key, SocketAddr, Rc<Cell<u32>>) {
    let made = Rc::new(Cell::new(0));
    let counts = Rc::clone(&made);
    let listener = reactor.net().listen_with("127.0.0.1:0", options, move |_, _, _| {
        counts.set(counts.get() + 1);
        Ok(recorder(quiet as On))
    });
    let listener = listener.expect("a port");
    let at = reactor.net().local(listener).and_then(|at| at.ip()).expect("an IP address");
    (listener, at, made)
}

#[test]
fn nobody_is_made_for_who_knocks_and_goes() {
    let (mut reactor, mut journal) = start();
    let (listener, at, made) = counting(&mut reactor, Listen::new().tls(sides().0));
    drop(TcpStream::connect(at).expect("it listens"));
    crate::common::reset(TcpStream::connect(at).expect("it listens"));
    TcpStream::connect(at).expect("it listens").write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it takes it");
    let hello = Talker::client(sides().1).speech();
    TcpStream::connect(at).expect("it listens").write_all(&hello).expect("it takes it");
    TcpStream::connect(at).expect("it listens").write_all(&hello[..hello.len() / 2]).expect("it takes it");
    until(&mut reactor, &mut journal, |_| true);
    let known = if cfg!(windows) { 4 } else { 5 }; // Winsock: one that was reset before being accepted is not
    crate::common::until_net(&mut reactor, &mut journal, |net, _| net.stats().handshakes_failed == known);
    assert_eq!((made.get(), journal.calls.len()), (0, 0));
    let stats = reactor.net().stats();
    assert_eq!((stats.accepted, stats.handshakes), (0, 0));
    let mut peer = Peer::dials(at, sides().1);
    peer.until(&mut reactor, &mut journal, |_, journal| journal.has(&Call::Connected));
    assert_eq!((made.get(), reactor.net().stats().handshakes), (1, 1));
    assert!(reactor.net().is_open(listener));
}

#[test]
fn a_guest_that_speaks_no_tls_is_answered_by_an_alert() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, quiet);
    let mut peer = crate::common::dial(at);
    peer.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it takes it");
    let got = crate::common::read_to_end(&mut reactor, &mut journal, &mut peer);
    assert_eq!(records(&got), [(21, 2)], "{got:?}");
    assert_eq!(journal.calls, []);
}

#[test]
fn a_server_that_speaks_no_tls_is_said_to() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let stages = Rc::default();
    let key = reactor.net().connect_with(at, Connect::new().tls(sides().1), Ends(Rc::clone(&stages)));
    let (mut peer, _) = listener.accept().expect("it comes");
    peer.write_all(b"220 ready when you are\r\n").expect("it takes it");
    let why = "could not agree on TLS: the peer does not speak TLS: it began with `220 ready when you are`";
    ends_with(&mut reactor, &mut journal, key, why);
    assert_eq!(stages.borrow()[..], [TlsStage::NotTls]);
}

#[test]
fn the_name_that_a_client_asks_for_is_known() {
    for client in both_versions() {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen(&mut reactor, sides().0, |ctx, _, call| {
            if *call == Call::Connected {
                assert_eq!(ctx.tls().and_then(|tls| tls.server_name()), Some("localhost"));
                ctx.send("yes");
            }
            Ok(())
        });
        let mut peer = Peer::dials(at, client);
        peer.hears(&mut reactor, &mut journal, "yes");
    }
}

#[test]
fn a_config_is_chosen_by_name_and_who_asks_for_another_is_refused() {
    let (mut reactor, mut journal) = start();
    let (local, other) = (Arc::new(server("p256")), Arc::new(server("other")));
    let chooses = TlsServer::new(Arc::clone(&local)).choose(move |hello| match hello.server_name() {
        Some("localhost") => Some(Arc::clone(&local)),
        Some("other.example") => Some(Arc::clone(&other)),
        _ => None,
    });
    let (_, at) = listen_how(&mut reactor, Listen::new().tls(chooses), quiet);
    for name in ["localhost", "other.example"] {
        let mut peer = Peer::new(Talker::client_for(Arc::new(client()), name), crate::common::dial(at));
        peer.agrees(&mut reactor, &mut journal); // its verifier has looked
    }
    for version in both_versions() {
        let mut peer = Peer::new(Talker::client_for(version, "nobody.example"), crate::common::dial(at));
        peer.ends(&mut reactor, &mut journal);
        assert_eq!(peer.talker.error, Some(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)));
    }
    let name = ServerName::try_from("nobody.example").expect("a name");
    let refused = Connect::new().tls(TlsClient::new(Arc::new(client())).server_name(name));
    let key = reactor.net().connect_with(at, refused, recorder(quiet));
    ends_with(&mut reactor, &mut journal, key, "could not agree on TLS: the peer refused: nobody there has that name");
    assert_eq!(reactor.net().stats().handshakes_failed, 4);
}

#[test]
fn a_panic_of_who_chooses_ends_one_connection() {
    let (mut reactor, mut journal) = start();
    let config = sides().0;
    let is_first = Cell::new(true);
    let chooses = TlsServer::new(Arc::clone(&config)).choose(move |_| {
        assert!(!is_first.replace(false), "who is that?");
        Some(Arc::clone(&config))
    });
    let (_, at) = listen_how(&mut reactor, Listen::new().tls(chooses), answers);
    let mut first = Peer::dials(at, sides().1);
    first.ends(&mut reactor, &mut journal);
    assert!(!first.talker.is_agreed());
    let mut second = Peer::dials(at, sides().1);
    second.talker.says("still there");
    second.hears(&mut reactor, &mut journal, "still there");
    assert_eq!(reactor.net().stats().handshakes_failed, 1);
}

#[test]
fn an_application_protocol_is_agreed_on_and_a_chooser_makes_what_speaks_it() {
    fn by_alpn(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if *call == Call::Connected {
            match ctx.tls().and_then(|tls| tls.alpn()) {
                Some(b"echo") => ctx.upgrade(recorder(echo)),
                Some(b"shout") => ctx.upgrade(recorder(|ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| {
                    if let Call::Received(bytes) = call {
                        ctx.send(bytes.to_ascii_uppercase());
                    }
                    Ok(())
                })),
                _ => return Err("nothing was agreed on".into()),
            }
        }
        Ok(())
    }
    let mut ours = server("p256");
    ours.alpn_protocols = vec![b"echo".to_vec(), b"shout".to_vec()];
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, Arc::new(ours), by_alpn);
    for (offered, answer) in [("echo", "what"), ("shout", "WHAT")] {
        let mut theirs = client();
        theirs.alpn_protocols = vec![b"strange".to_vec(), offered.into()];
        let key = reactor.net().connect_with(at, Connect::new().tls(Arc::new(theirs)), recorder(quiet));
        reactor.net().send(key, "what");
        until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Received(answer.into())) == 1);
        assert_eq!(reactor.net().tls(key).and_then(|tls| tls.alpn()), Some(offered.as_bytes()));
    }
}

#[test]
fn a_session_is_resumed_in_both_versions() {
    for version in [&TLS13, &TLS12] {
        let (mut reactor, mut journal) = start();
        let mut ours = server("p256");
        if *version == TLS12 {
            ours.ticketer = ring::Ticketer::new().expect("ring has one");
        }
        let (_, at) = listen(&mut reactor, Arc::new(ours), answers);
        let client = Arc::new(client_of(&[version]));
        for round in 0..3 {
            let key = reactor.net().connect_with(at, Connect::new().tls(Arc::clone(&client)), recorder(quiet));
            reactor.net().send(key, "x");
            until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Received(b"x".to_vec())) == 1);
            let tls = reactor.net();
            let tls = tls.tls(key).expect("it speaks TLS");
            assert_eq!((tls.is_resumed(), tls.peer_certificates().len()), (round > 0, 1));
            reactor.net().close(key);
            ends_with(&mut reactor, &mut journal, key, FINISHED);
        }
        let stats = reactor.net().stats();
        assert_eq!((stats.handshakes, stats.handshakes_resumed, stats.handshakes_failed), (6, 4, 0));
    }
}

/// A guest that drips is not one that works.
#[test]
fn a_guests_handshake_may_not_take_for_ever() {
    for drips in [false, true] {
        let (mut reactor, mut journal) = start();
        let (_, at, made) = counting(&mut reactor, Listen::new().tls(TlsServer::new(sides().0).handshake_timeout(ms(150))));
        let mut peer = Peer::new(Talker::client(sides().1), crate::common::dial(at));
        let hello = peer.talker.speech();
        for byte in &hello {
            if drips {
                let _ = peer.socket.write(&[*byte]);
            }
            pass(&mut reactor, &mut journal, ms(5));
            peer.pump();
            if peer.end.is_some() {
                break;
            }
        }
        assert!(peer.end.is_some(), "it is still there, {} bytes later", hello.len());
        assert_eq!(made.get(), 0);
        assert_eq!(reactor.net().stats().handshakes_failed, 1);
    }
}

#[test]
fn an_openers_handshake_may_not_take_for_ever() {
    let each = [
        (Config::new().handshake_max(ms(50)), Connect::new()),
        (Config::new(), Connect::new().timeout(ms(50))),
        (Config::new().connect_max(ms(50)), Connect::new()),
    ];
    for (config, options) in each {
        let (mut reactor, mut journal) = start_with(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let stages = Rc::default();
        let began = std::time::Instant::now();
        let key = reactor.net().connect_with(at, options.tls(sides().1), Ends(Rc::clone(&stages)));
        until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(stages.borrow()[..], [TlsStage::TimedOut]);
        let why = crate::common::closing_of(&journal, key).expect("it is closed");
        assert!(why.starts_with("could not agree on TLS: the handshake took longer than "), "{why}");
    }
}

#[test]
fn how_long_an_openers_handshake_might_take_is_said() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(at, Connect::new().timeout(ms(50)).tls(sides().1), recorder(quiet));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    let why = crate::common::closing_of(&journal, key).expect("it is closed");
    assert_eq!(why, "could not agree on TLS: the handshake took longer than 50 ms");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_has_no_name_of_its_own() {
    use std::os::unix::net::UnixListener;
    let folder = crate::common::Folder::new("tls-unix");
    let path = folder.path("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let (mut reactor, mut journal) = start();
    let stages = Rc::default();
    let key = reactor.net().connect_with(&*path, Connect::new().tls(sides().1), Ends(Rc::clone(&stages)));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(stages.borrow()[..], [TlsStage::Name]);
    listener.set_nonblocking(true).expect("a socket option");
    let came = listener.accept().is_ok_and(|(mut peer, _)| {
        let mut byte = [0];
        peer.set_nonblocking(true).expect("a socket option");
        matches!(peer.read(&mut byte), Ok(1))
    });
    assert!(!came, "not a byte was sent");
}

#[cfg(unix)]
#[test]
fn tls_over_a_unix_socket() {
    let folder = crate::common::Folder::new("tls-unix-named");
    let path = folder.path("socket");
    let (mut reactor, mut journal) = start();
    let (server, client) = sides();
    let factory = |_: &mut Net<'_, Journal>, _: &mut Journal, _: &Address| Ok(recorder(answers as On));
    reactor.net().listen_with(&*path, Listen::new().tls(server), factory).expect("a path");
    let named = TlsClient::new(client).server_name(ServerName::try_from("localhost").expect("a name"));
    let key = reactor.net().connect_with(&*path, Connect::new().tls(named), recorder(quiet));
    reactor.net().send(key, "over a path");
    until(&mut reactor, &mut journal, |journal| count(journal, key, &Call::Received(b"over a path".to_vec())) == 1);
    reactor.net().close(key);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 2);
    assert!(journal.has(&Call::Closed(PEER_FINISHED.into())));
}

#[test]
fn who_connects_by_name_asks_for_that_name() {
    let (mut reactor, mut journal) = start_with(Config::new().resolver(|_| Ok(vec!["127.0.0.1".parse().expect("an address")])));
    let (_, at) = listen(&mut reactor, sides().0, |ctx, journal, call| {
        if *call == Call::Connected {
            assert_eq!(ctx.tls().and_then(|tls| tls.server_name()), Some("localhost"));
        }
        answers(ctx, journal, call)
    });
    let to = format!("localhost.:{}", at.port());
    let key = reactor.net().connect_with(to, Connect::new().tls(sides().1), recorder(quiet));
    reactor.net().send(key, "x");
    until(&mut reactor, &mut journal, |journal| {
        count(journal, key, &Call::Received(b"x".to_vec())) == 1 || is_closed(journal, key)
    });
    assert!(!is_closed(&journal, key), "{:?}", journal.of(key));
}

/// An owner that ends takes with it what is still to agree.
#[test]
fn an_owner_takes_an_opener_amid_its_handshake_along() {
    let (mut reactor, mut journal) = start();
    let (owner, peer) = guest(&mut reactor, &mut journal, quiet);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = silent.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(to, Connect::new().owner(owner).tls(sides().1), recorder(quiet));
    let (mut accepted, _) = silent.accept().expect("it comes");
    let mut begun = [0; 5];
    accepted.set_read_timeout(Some(ms(1))).expect("a socket option");
    until(&mut reactor, &mut journal, |_| accepted.peek(&mut begun).is_ok_and(|n| n > 0));
    reactor.net().abort(owner);
    ends_with(&mut reactor, &mut journal, key, ABORTED);
    drop(peer);
    let mut rest = Vec::new();
    accepted.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket option");
    let _ = accepted.read_to_end(&mut rest); // it ends
}
