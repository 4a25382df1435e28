//! How TLS ends: close_notify, cuts, resets.

use crate::{
    common::{
        ABORTED, Call, Ctx, FINISHED, Journal, On, PEER_FINISHED, closing_of, count, echo, ends_with, is_closed, ms, quiet,
        recorder, settle, start, start_with, turn, until,
    },
    configs::{client_of, sides},
    peers::{End, Peer, Talker, records},
    talking::{answers, listen_how},
};
use mainspring::{
    Config, Connect, Key, Limit, Listen, Outcome, Produced, Reactor, Reason, TlsClient, TlsError, TlsServer, TlsStage,
    rustls::{
        ClientConfig,
        version::{TLS12, TLS13},
    },
};
use std::{cell::RefCell, net::TcpListener, rc::Rc, sync::Arc};

const CUT: &str = "connection lost: the peer ended without close_notify: what came may be cut short";

/// A guest that is connected, and its peer.
pub(crate) struct Talk {
    pub(crate) reactor: Reactor<Journal>,
    pub(crate) journal: Journal,
    pub(crate) key: Key,
    pub(crate) peer: Peer,
}

impl Talk {
    pub(crate) fn new(on: On) -> Self {
        Self::with(Config::new().wait_for_lingering(false), sides().0, sides().1, on)
    }

    pub(crate) fn with(config: Config, server: impl Into<TlsServer>, client: Arc<ClientConfig>, on: On) -> Self {
        let (mut reactor, mut journal) = start_with(config);
        let (_, at) = listen_how(&mut reactor, Listen::new().tls(server), on);
        let mut peer = Peer::dials(at, client);
        peer.until(&mut reactor, &mut journal, |peer, journal| peer.talker.is_agreed() && journal.has(&Call::Connected));
        let key = journal.calls[0].0;
        Self { reactor, journal, key, peer }
    }

    #[track_caller]
    pub(crate) fn until(&mut self, done: impl FnMut(&mut Peer, &mut Journal) -> bool) {
        self.peer.until(&mut self.reactor, &mut self.journal, done);
    }

    #[track_caller]
    pub(crate) fn hears(&mut self, text: impl AsRef<[u8]>) {
        self.peer.hears(&mut self.reactor, &mut self.journal, text);
    }

    #[track_caller]
    pub(crate) fn peer_ends(&mut self) -> End {
        self.peer.ends(&mut self.reactor, &mut self.journal)
    }

    #[track_caller]
    pub(crate) fn ends_with(&mut self, why: &str) {
        let key = self.key;
        self.until(|_, journal| is_closed(journal, key));
        assert_eq!(closing_of(&self.journal, key).as_deref(), Some(why));
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.journal.of(self.key).split_off(1)
    }
}

pub(crate) fn both_versions() -> [Arc<ClientConfig>; 2] {
    [Arc::new(client_of(&[&TLS13])), Arc::new(client_of(&[&TLS12]))]
}

#[test]
fn close_notify_is_answered_and_what_is_queued_leaves_first() {
    const MUCH: usize = 4 << 20;
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Received(_) => ctx.send(vec![b'x'; MUCH]),
            Call::Eof(_) => ctx.close(),
            _ => {}
        }
        Ok(())
    }
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, client, on);
        talk.peer.reads = false;
        talk.peer.talker.says("all of it");
        talk.until(|_, journal| !journal.received().is_empty());
        talk.peer.says_goodbye();
        settle(&mut talk.reactor, &mut talk.journal);
        talk.peer.reads = true;
        assert_eq!(talk.peer_ends(), End::Fin);
        assert_eq!((talk.peer.talker.plain.len(), talk.peer.talker.is_told_end), (MUCH, true));
        talk.ends_with(PEER_FINISHED);
    }
}

#[test]
fn a_polite_close_does_not_wait_for_the_peers_close_notify() {
    for client in both_versions() {
        let mut talk = Talk::with(Config::new().wait_for_lingering(false), sides().0, client, quiet);
        talk.reactor.net().send(talk.key, "the last word");
        talk.reactor.net().close(talk.key);
        ends_with(&mut talk.reactor, &mut talk.journal, talk.key, FINISHED);
        talk.hears("the last word");
        assert_eq!(talk.peer_ends(), End::Fin);
        assert!(talk.peer.talker.is_told_end);
    }
}

/// Neither as client nor, in mid-stream, as server: though the peer never answers.
#[test]
fn a_close_amid_the_handshake_ends() {
    let (mut reactor, mut journal) = start();
    let (server, client) = sides();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = silent.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(at, Connect::new().tls(Arc::clone(&client)), recorder(quiet));
    let (accepted, _) = silent.accept().expect("it comes");
    let mut peer = Peer::new(Talker::server(Arc::clone(&server)), accepted);
    until(&mut reactor, &mut journal, |_| {
        let mut byte = [0];
        peer.socket.peek(&mut byte).is_ok()
    });
    reactor.net().close(key);
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(count(&journal, key, &Call::Connected), 0);
    peer.ends(&mut reactor, &mut journal);

    for with_output in [false, true] {
        let most = if with_output { ms(50) } else { crate::common::PATIENCE };
        let (mut reactor, mut journal) = start_with(Config::new().wait_for_lingering(false).handshake_max(most));
        let (key, peer) = crate::common::guest(&mut reactor, &mut journal, quiet);
        assert!(reactor.net().link(key).expect("it is open").start_tls(Arc::clone(&server)));
        if !with_output {
            settle(&mut reactor, &mut journal);
        }
        if with_output {
            reactor.net().send(key, "behind the handshake that never is");
        }
        reactor.net().close(key);
        let why = if with_output { "could not agree on TLS: the handshake took longer than 50 ms" } else { FINISHED };
        ends_with(&mut reactor, &mut journal, key, why);
        drop(peer);
    }
}

#[test]
fn a_time_out_ends_a_connection_with_a_producer() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        match call {
            Call::Connected => {
                ctx.produce(|out: &mut Vec<u8>| {
                    out.extend_from_slice(&[b'x'; 16 << 10]);
                    Ok(Produced::More)
                });
                ctx.set_stall_timeout(ms(100));
            }
            Call::Exceeded(limit) => return Err((*limit).into()),
            _ => {}
        }
        Ok(())
    }
    let mut talk = Talk::new(on);
    talk.peer.reads = false;
    talk.ends_with(&Reason::Limit(Limit::Stalled).to_string());
}

#[test]
fn a_cut_is_told_apart() {
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, Arc::clone(&client), quiet);
        talk.peer.talker.says("before the cut");
        talk.peer.pump();
        talk.peer.fin();
        talk.ends_with(CUT);
        assert_eq!(talk.calls(), [Call::Received(b"before the cut".to_vec()), Call::Closed(CUT.into())]);

        let tolerant = TlsServer::new(sides().0).tolerate_cut();
        let mut talk = Talk::with(Config::new(), tolerant, client, answers);
        talk.peer.talker.says("before the cut");
        talk.peer.pump();
        talk.peer.fin();
        talk.ends_with(PEER_FINISHED);
        assert_eq!(talk.calls()[..2], [Call::Received(b"before the cut".to_vec()), Call::Eof(Vec::new())]);
        talk.hears("before the cut");
    }
}

#[test]
fn what_a_cut_is_can_be_asked() {
    struct Ends(Rc<RefCell<Option<(std::io::ErrorKind, TlsStage)>>>);
    impl mainspring::Protocol<Journal> for Ends {
        fn closed(&mut self, _: &mut Ctx<'_>, _: &mut Journal, why: Reason) {
            let stage = TlsError::of(&why).expect("one of TLS").stage;
            let Reason::Io(error) = why else { panic!("{why}") };
            *self.0.borrow_mut() = Some((error.kind(), stage));
        }
    }
    let (mut reactor, mut journal) = start();
    let ended = Rc::new(RefCell::new(None));
    let ends = Rc::clone(&ended);
    let factory =
        move |_: &mut mainspring::Net<'_, Journal>, _: &mut Journal, _: &mainspring::Address| Ok(Ends(Rc::clone(&ends)));
    let listener = reactor.net().listen_with("127.0.0.1:0", Listen::new().tls(sides().0), factory).expect("a port");
    let at = reactor.net().local(listener).and_then(|at| at.ip()).expect("an IP address");
    let mut peer = Peer::dials(at, sides().1);
    peer.agrees(&mut reactor, &mut journal);
    peer.fin();
    peer.until(&mut reactor, &mut journal, |_, _| ended.borrow().is_some());
    assert_eq!(*ended.borrow(), Some((std::io::ErrorKind::UnexpectedEof, TlsStage::Cut)));
}

#[test]
fn a_client_takes_a_cut_for_an_end_if_it_is_asked_to() {
    for tolerates in [false, true] {
        let (mut reactor, mut journal) = start();
        let (server, client) = sides();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("it is bound");
        let client = TlsClient::new(client);
        let client = if tolerates { client.tolerate_cut() } else { client };
        let key = reactor.net().connect_with(at, Connect::new().tls(client), recorder(crate::common::by_default));
        let mut peer = Peer::new(Talker::server(server), listener.accept().expect("it comes").0);
        peer.agrees(&mut reactor, &mut journal);
        peer.talker.says("something");
        peer.pump();
        peer.fin();
        ends_with(&mut reactor, &mut journal, key, if tolerates { PEER_FINISHED } else { CUT });
        assert_eq!(journal.received(), b"something");
    }
}

#[test]
fn an_abort_sends_no_close_notify() {
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, client, echo);
        talk.peer.talker.says("something");
        talk.hears("something");
        let wire = talk.peer.talker.wire.len();
        talk.reactor.net().abort(talk.key);
        talk.ends_with(ABORTED);
        assert_eq!(talk.peer_ends(), End::Reset);
        assert_eq!((talk.peer.talker.is_told_end, talk.peer.talker.wire.len()), (false, wire));
    }
}

#[test]
fn last_words_then_reset() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if let Call::Received(_) = call {
            ctx.send("a last word");
            return Err("it was wrong".into());
        }
        Ok(())
    }
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, client, on);
        talk.peer.reads = false;
        talk.peer.talker.says("something");
        let key = talk.key;
        talk.until(|_, journal| is_closed(journal, key));
        talk.peer.reads = true;
        talk.hears("a last word");
        talk.peer_ends();
        assert_eq!(closing_of(&talk.journal, key).as_deref(), Some("failed: it was wrong"));
    }
}

/// The peer says something and resets: what came is delivered, if the kernel has kept it; and it ends by the reset.
#[test]
fn a_reset_of_the_peer_is_no_cut() {
    let mut talk = Talk::new(echo);
    talk.peer.talker.says("something");
    talk.hears("something");
    let Talk { mut reactor, mut journal, key, peer } = talk;
    peer.resets();
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    let why = closing_of(&journal, key).expect("it is closed");
    assert!(why.starts_with("connection lost: ") && why != CUT, "{why}");
}

/// What the last flight of the handshake brings is answered by a session ticket, which meets the reset: that is no reason to
/// wait, nor to lose what came along.
#[test]
#[cfg_attr(windows, ignore = "Winsock: a reset takes what was not read with it")]
fn a_reset_behind_the_last_flight_is_met_at_once_and_behind_the_last_words() {
    let (mut reactor, mut journal) = start();
    let (_, at) = listen_how(&mut reactor, Listen::new().tls(sides().0), quiet);
    let mut peer = Peer::dials(at, Arc::new(client_of(&[&TLS13])));
    until(&mut reactor, &mut journal, |_| {
        let hello = peer.talker.speech();
        peer.injects(&hello);
        peer.pull();
        peer.talker.is_agreed()
    });
    peer.talker.says("the last words");
    let flight = peer.talker.speech();
    peer.injects(&flight);
    peer.resets();
    until(&mut reactor, &mut journal, |journal| journal.closings() == 1);
    let calls: Vec<Call> = journal.calls.iter().map(|(_, call)| call.clone()).take(2).collect();
    assert_eq!(calls, [Call::Connected, Call::Received(b"the last words".to_vec())]);
    let why = closing_of(&journal, journal.calls[0].0).expect("it is closed");
    assert!(why.starts_with("connection lost: ") && why != CUT, "{why}");
}

/// The same for a client, whose last flight meets it.
#[test]
fn a_server_that_resets_behind_its_flight_is_not_waited_for() {
    let (mut reactor, mut journal) = start();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    let key = reactor.net().connect_with(at, Connect::new().tls(Arc::new(client_of(&[&TLS13]))), recorder(quiet as On));
    let mut peer = Peer::new(Talker::server(sides().0), listener.accept().expect("it comes").0);
    let mut flight = Vec::new();
    until(&mut reactor, &mut journal, |_| {
        peer.pull();
        flight = peer.talker.speech();
        !flight.is_empty()
    });
    peer.injects(&flight);
    peer.resets();
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    let why = closing_of(&journal, key).expect("it is closed");
    assert!(why.contains("connection lost: ") || why.contains("was lost during the handshake: "), "{why}");
}

#[test]
fn half_closed_it_still_reads() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if *call == Call::Connected {
            ctx.send("that is all");
            ctx.half_close();
        }
        Ok(())
    }
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, client, on);
        talk.hears("that is all");
        assert_eq!(talk.peer_ends(), End::Fin);
        assert!(talk.peer.talker.is_told_end);
        talk.peer.talker.says("and yet it hears");
        talk.until(|_, journal| journal.received() == b"and yet it hears");
        talk.peer.says_goodbye();
        talk.ends_with(FINISHED);
    }
}

#[test]
fn half_closed_by_the_peer_it_still_writes() {
    fn on(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
        if let Call::Eof(_) = call {
            ctx.send(vec![b'x'; 1 << 20]);
            ctx.after(ms(10), |_: &mut crate::common::Recorder<On>, ctx, _| {
                ctx.send("and the end");
                ctx.close();
                Ok(())
            });
        }
        Ok(())
    }
    // What rustls says in TLS 1.2 after it was told the end is its own matter: here it is the peer that reads.
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, client, on);
        talk.peer.says_goodbye();
        assert_eq!(talk.peer_ends(), End::Fin);
        assert_eq!(talk.peer.talker.plain.len(), (1 << 20) + "and the end".len());
        assert!(talk.peer.talker.is_told_end);
        talk.ends_with(PEER_FINISHED);
    }
}

/// close_notify without a FIN: the end of what comes, all the same.
#[test]
fn close_notify_alone_is_an_end() {
    for client in both_versions() {
        let mut talk = Talk::with(Config::new(), sides().0, client, answers);
        talk.peer.talker.says("the last");
        talk.peer.talker.tls.send_close_notify();
        talk.ends_with(PEER_FINISHED);
        talk.hears("the last");
        assert_eq!(talk.peer_ends(), End::Fin);
        assert!(talk.peer.talker.is_told_end);
    }
}

/// The last record that leaves is the close_notify: an alert, and there is only one.
#[test]
fn close_notify_is_said_once() {
    let mut talk = Talk::with(Config::new(), sides().0, both_versions()[1].clone(), answers);
    talk.peer.talker.says("something");
    talk.hears("something");
    talk.reactor.net().half_close(talk.key);
    talk.peer_ends();
    talk.peer.says_goodbye();
    talk.ends_with(FINISHED);
    let alerts = records(&talk.peer.talker.wire).iter().filter(|(kind, _)| *kind == 21).count();
    assert_eq!(alerts, 1);
}

#[test]
fn nothing_is_heard_behind_close_notify() {
    let mut talk = Talk::new(quiet);
    talk.peer.talker.says("before");
    talk.peer.talker.tls.send_close_notify();
    let mut speech = talk.peer.talker.speech();
    speech.extend_from_slice(b"something in clear behind it");
    talk.peer.injects(&speech);
    let key = talk.key;
    talk.until(|_, journal| count(journal, key, &Call::Eof(Vec::new())) == 1);
    talk.reactor.net().close(key);
    talk.ends_with(PEER_FINISHED);
    assert_eq!(talk.journal.received(), b"before");
}

/// The kernel is full when the polite close has only its close_notify left to say.
#[test]
fn close_notify_waits_for_room() {
    const MUCH: usize = 16 << 20;
    let mut talk = Talk::new(quiet);
    talk.peer.reads = false;
    assert!(talk.reactor.net().send(talk.key, vec![b'x'; MUCH]));
    for _ in 0..20 {
        turn(&mut talk.reactor, &mut talk.journal, ms(1));
    }
    talk.reactor.net().close(talk.key);
    for _ in 0..20 {
        turn(&mut talk.reactor, &mut talk.journal, ms(1));
    }
    talk.peer.reads = true;
    assert_eq!(talk.peer_ends(), End::Fin);
    assert_eq!((talk.peer.talker.plain.len(), talk.peer.talker.is_told_end), (MUCH, true));
    talk.ends_with(FINISHED);
}
