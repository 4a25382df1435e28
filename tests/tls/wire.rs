//! What goes over the wire, however it is cut, joined, broken or meant ill.

use crate::{
    common::{Call, Ctx, Journal, On, PEER_FINISHED, closing_of, count, echo, ms, quiet, recorder, settle, start, until},
    configs::{client_of, server, sides},
    ending::{Talk, both_versions},
    peers::{End, Peer, Talker, records},
    talking::{answers, listen},
};
use mainspring::{
    Connect, Outcome,
    rustls::{
        self, AlertDescription, ClientConfig, ServerConfig,
        version::{TLS12, TLS13},
    },
};
use std::{net::TcpListener, sync::Arc, time::Duration};

const BAD_RECORD: &str = "connection lost: a record could not be decrypted";

#[test]
fn what_came_with_the_last_flight_is_delivered() {
    for client in both_versions() {
        let (mut reactor, mut journal) = start();
        let (_, at) = listen(&mut reactor, sides().0, quiet);
        let mut peer = Peer::dials(at, client);
        // Everything but what would finish it, which leaves at once with data and the end behind it.
        let mut held = Vec::new();
        until(&mut reactor, &mut journal, |_| {
            peer.injects(&held);
            held.clear();
            peer.pull();
            held = peer.talker.speech();
            peer.talker.is_agreed() || is_last_of_twelve(&peer, &held)
        });
        if !peer.talker.is_agreed() {
            peer.injects(&held); // TLS 1.2: the server has the last word, and the client cannot say anything before
            held = Vec::new();
            peer.agrees(&mut reactor, &mut journal);
        }
        peer.talker.says("what came along");
        peer.talker.tls.send_close_notify();
        held.extend(peer.talker.speech());
        peer.injects(&held);
        peer.fin();
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Eof(Vec::new())));
        let calls: Vec<Call> = journal.calls.iter().map(|(_, call)| call.clone()).collect();
        assert_eq!(calls, [Call::Connected, Call::Received(b"what came along".to_vec()), Call::Eof(Vec::new())]);
    }
}

/// Its Finished is on its way, and that of the server is not.
fn is_last_of_twelve(peer: &Peer, held: &[u8]) -> bool {
    peer.talker.tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2) && held.contains(&20)
}

#[test]
fn data_then_a_bad_record_is_delivered_then_failed() {
    for client in both_versions() {
        let mut talk = Talk::with(mainspring::Config::new(), sides().0, client, quiet);
        talk.peer.talker.says("good");
        let mut bytes = talk.peer.talker.speech();
        talk.peer.talker.says("bad");
        let mut bad = talk.peer.talker.speech();
        *bad.last_mut().expect("a record") ^= 1;
        bytes.extend(bad);
        talk.peer.injects(&bytes);
        talk.ends_with(BAD_RECORD);
        assert_eq!(talk.calls(), [Call::Received(b"good".to_vec()), Call::Closed(BAD_RECORD.into())]);
        talk.peer_ends();
        assert_eq!(talk.peer.talker.error, Some(rustls::Error::AlertReceived(AlertDescription::BadRecordMac)));
    }
}

/// In one segment with the last flight: the handshake is done, and the guest is somebody.
#[test]
fn a_bad_record_behind_the_last_flight_is_no_failed_handshake() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, quiet);
    let mut peer = Peer::dials(at, Arc::new(client_of(&[&TLS13])));
    let hello = peer.talker.speech();
    peer.injects(&hello);
    until(&mut reactor, &mut journal, |_| {
        peer.pull();
        peer.talker.is_agreed()
    });
    peer.talker.says("good");
    let mut flight = peer.talker.speech();
    peer.talker.says("bad");
    let mut bad = peer.talker.speech();
    *bad.last_mut().expect("a record") ^= 1;
    flight.extend(bad);
    peer.injects(&flight);
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let calls: Vec<Call> = journal.calls.iter().map(|(_, call)| call.clone()).collect();
    assert_eq!(calls, [Call::Connected, Call::Received(b"good".to_vec()), Call::Closed(BAD_RECORD.into())]);
    let stats = reactor.net().stats();
    assert_eq!((stats.handshakes, stats.handshakes_failed), (1, 0));
}

/// Each record of a flight in clear made into as many as it has bytes.
fn bytewise_records(flight: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = flight;
    while let [kind, major, minor, high, low, body @ ..] = rest {
        let (body, behind) = body.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if *kind == 22 {
            for byte in body {
                all.extend_from_slice(&[*kind, *major, *minor, 0, 1, *byte]);
            }
        } else {
            all.extend_from_slice(&rest[..5 + body.len()]);
        }
        rest = behind;
    }
    all
}

#[test]
fn a_flight_of_one_byte_records() {
    for (client, of_server) in [(&TLS13, false), (&TLS12, false), (&TLS12, true)] {
        let client = Arc::new(client_of(&[client]));
        let (mut reactor, mut journal) = start();
        if of_server {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let at = listener.local_addr().expect("it is bound");
            let key = reactor.net().connect_with(at, Connect::new().tls(client), recorder(answers));
            let mut peer = Peer::new(Talker::server(Arc::new(server("rsa"))), listener.accept().expect("it comes").0);
            until(&mut reactor, &mut journal, |_| {
                peer.pull();
                let flight = peer.talker.speech();
                peer.injects(&bytewise_records(&flight));
                !flight.is_empty()
            });
            peer.talker.says("x");
            peer.hears(&mut reactor, &mut journal, "x");
            assert_eq!(count(&journal, key, &Call::Connected), 1);
        } else {
            let (_, at) = listen(&mut reactor, sides().0, answers);
            let mut peer = Peer::dials(at, client);
            let hello = bytewise_records(&peer.talker.speech());
            peer.injects(&hello);
            peer.talker.says("x");
            peer.hears(&mut reactor, &mut journal, "x");
        }
    }
}

#[test]
fn a_key_update_is_answered() {
    let mut talk = Talk::with(mainspring::Config::new(), sides().0, Arc::new(client_of(&[&TLS13])), echo);
    for round in 0..5 {
        talk.peer.talker.refresh_keys();
        talk.peer.talker.says(format!("round {round}"));
        talk.hears(format!("round {round}"));
    }
    // Alone, it is answered before what is sent next (RFC 8446, 4.6.3), in a record of its own.
    talk.peer.talker.refresh_keys();
    talk.peer.pump();
    settle(&mut talk.reactor, &mut talk.journal);
    talk.peer.talker.wire.clear();
    talk.reactor.net().send(talk.key, "behind it");
    talk.hears("behind it");
    assert_eq!(records(&talk.peer.talker.wire).len(), 2);
    assert_eq!(talk.peer.talker.error, None);
}

/// A peer that asks for new keys and never reads the answers.
#[test]
fn a_flood_of_key_updates_has_an_end() {
    let mut talk = Talk::with(mainspring::Config::new(), sides().0, Arc::new(client_of(&[&TLS13])), echo);
    for _ in 0..200 {
        talk.peer.talker.refresh_keys();
    }
    let key = talk.key;
    talk.until(|_, journal| closing_of(journal, key).is_some());
    let why = closing_of(&talk.journal, key).expect("it is closed");
    assert!(why.starts_with("connection lost: "), "{why}");
}

/// In TLS 1.2, in clear, before the handshake is over; later a fatal one.
#[test]
fn a_peers_warning_is_no_end() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen(&mut reactor, sides().0, answers);
    let mut peer = Peer::dials(at, Arc::new(client_of(&[&TLS12])));
    let hello = peer.talker.speech();
    peer.injects(&hello);
    until(&mut reactor, &mut journal, |_| {
        peer.pull();
        !peer.talker.wire.is_empty()
    });
    peer.injects(&[21, 3, 3, 0, 2, 1, 90]); // user_canceled
    peer.talker.says("x");
    peer.hears(&mut reactor, &mut journal, "x");
}

#[test]
fn a_fatal_alert_amid_the_handshake_is_told() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(at, Connect::new().tls(sides().1), recorder(quiet));
    let mut peer = Peer::new(Talker::server(sides().0), listener.accept().expect("it comes").0);
    peer.injects(&[21, 3, 3, 0, 2, 2, 40]);
    until(&mut reactor, &mut journal, |journal| closing_of(journal, key).is_some());
    let why = "could not agree on TLS: the peer refused: nothing in common (handshake failure)";
    assert_eq!(closing_of(&journal, key).as_deref(), Some(why));
}

/// rustls cannot ask for it as a client should, encrypted: a hello in clear is as near as it comes.
#[test]
fn renegotiation_is_refused() {
    let mut talk = Talk::with(mainspring::Config::new(), sides().0, Arc::new(client_of(&[&TLS12])), answers);
    let hello = Talker::client(Arc::new(client_of(&[&TLS12]))).speech();
    talk.peer.injects(&hello);
    talk.ends_with(BAD_RECORD);
    talk.peer_ends();
    assert!(records(&talk.peer.talker.wire).iter().all(|(kind, _)| *kind != 22) || talk.peer.talker.error.is_some());
}

/// A byte at a time: nothing is lost in between, and nothing waits for what will not come.
#[test]
fn rate_limits_of_one_byte() {
    fn on(ctx: &mut Ctx<'_>, journal: &mut Journal, call: &Call) -> Outcome {
        if *call == Call::Connected {
            ctx.set_read_rate(20_000);
            ctx.set_write_rate(20_000);
        }
        answers(ctx, journal, call)
    }
    for client in both_versions() {
        let config = mainspring::Config::new().read_bytes(1).turn_bytes(1);
        let mut talk = Talk::with(config, sides().0, client, on);
        let text = "a byte at a time".repeat(20);
        talk.peer.talker.says(&text);
        talk.hears(&text);
        talk.peer.says_goodbye();
        talk.ends_with(PEER_FINISHED);
        assert_eq!(talk.peer_ends(), End::Fin);
        assert!(talk.peer.talker.is_told_end);
    }
}

#[test]
fn many_records_of_one_byte_are_one_stream() {
    for client in both_versions() {
        let mut talk = Talk::with(mainspring::Config::new(), sides().0, client, echo);
        for byte in b"slowly, and in many records" {
            talk.peer.talker.says([*byte]);
            let speech = talk.peer.talker.speech();
            talk.peer.out.extend(speech);
        }
        talk.hears("slowly, and in many records");
    }
}

/// How a conversation is cut.
#[derive(Clone, Copy, Debug)]
enum Cutting {
    /// Into two writes, at this byte of all that the peer sends.
    At(usize),
    Bytewise,
    Whole,
}

/// A whole conversation, of which the peer's bytes come as they are cut; how many these were.
fn converses(version: &'static rustls::SupportedProtocolVersion, is_server: bool, cutting: Cutting) -> usize {
    let (mut reactor, mut journal) = start();
    let (ours, theirs): (Arc<ServerConfig>, Arc<ClientConfig>) = (sides().0, Arc::new(client_of(&[version])));
    let (key, mut peer) = if is_server {
        let (_, at) = listen(&mut reactor, ours, answers);
        (None, Peer::dials(at, theirs))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let key = reactor.net().connect_with(at, Connect::new().tls(theirs), recorder(answers as On));
        (Some(key), Peer::new(Talker::server(ours), listener.accept().expect("it comes").0))
    };
    peer.talker.says("the whole of it");
    let (mut sent, mut has_ended) = (0, false);
    let began = std::time::Instant::now();
    while peer.end.is_none() {
        assert!(began.elapsed() < Duration::from_secs(20), "{version:?} {is_server} {cutting:?}");
        peer.pull();
        if peer.talker.plain == b"the whole of it" && !has_ended {
            has_ended = true;
            peer.talker.tls.send_close_notify();
        }
        let speech = peer.talker.speech();
        let (first, second) = match cutting {
            Cutting::At(at) if (sent..sent + speech.len()).contains(&at) => speech.split_at(at - sent),
            _ => (&speech[..], &[][..]),
        };
        sent += speech.len();
        let pieces: Vec<&[u8]> = match cutting {
            Cutting::Bytewise => speech.chunks(1).collect(),
            _ => vec![first, second],
        };
        for piece in pieces {
            peer.injects(piece);
            crate::common::turn(&mut reactor, &mut journal, Duration::ZERO);
            crate::common::turn(&mut reactor, &mut journal, Duration::ZERO);
        }
        crate::common::turn(&mut reactor, &mut journal, ms(1));
    }
    assert!(
        peer.talker.is_told_end && peer.talker.error.is_none(),
        "{version:?} {is_server} {cutting:?}: {:?}",
        peer.talker.error
    );
    let key = key.unwrap_or_else(|| journal.calls[0].0);
    let wanted = [Call::Connected, Call::Received(b"the whole of it".to_vec()), Call::Eof(Vec::new())];
    let calls = journal.of(key);
    assert_eq!(calls[..3], wanted, "{cutting:?}");
    assert_eq!(closing_of(&journal, key).as_deref(), Some(PEER_FINISHED), "{cutting:?}");
    sent
}

#[test]
fn a_conversation_is_the_same_however_it_is_cut() {
    for version in [&TLS13, &TLS12] {
        for is_server in [true, false] {
            let all = converses(version, is_server, Cutting::Whole);
            converses(version, is_server, Cutting::Bytewise);
            for at in (1..all).step_by(5) {
                converses(version, is_server, Cutting::At(at));
            }
        }
    }
}
