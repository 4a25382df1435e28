//! `closed` comes exactly once, last, for each of all ends.

use super::{Mortal, deaf};
use crate::common::{
    ABORTED, Call, Ctx, FINISHED, Journal, On, PEER_FINISHED, SHORT, SHUT_DOWN, Talk, closing_of, dial, is_closed, listen,
    nobody, quiet, recorder, reset, say, settle, start, until,
};
use mainspring::{Connect, Key, Outcome, Reactor};
use std::{
    cell::{Cell, RefCell},
    net::{Shutdown, SocketAddr, TcpStream},
    rc::Rc,
};

struct Life {
    reactor: Reactor<Journal>,
    journal: Journal,
    key: Key,
    peer: Option<TcpStream>,
    drops: Rc<RefCell<Vec<&'static str>>>,
}

impl Life {
    fn accepted() -> Self {
        let (mut reactor, mut journal) = start();
        let drops = Rc::new(RefCell::new(Vec::new()));
        let given = Rc::clone(&drops);
        let (listener, addr) = listen(&mut reactor, move || Mortal { drops: Rc::clone(&given) });
        let peer = Some(dial(addr));
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        reactor.net().close(listener);
        let key = journal.calls[0].0;
        Self { reactor, journal, key, peer, drops }
    }

    fn connecting(to: SocketAddr, options: Connect) -> Self {
        let (mut reactor, journal) = start();
        let drops = Rc::new(RefCell::new(Vec::new()));
        let key = reactor.net().connect_with(to, options, Mortal { drops: Rc::clone(&drops) });
        Self { reactor, journal, key, peer: None, drops }
    }

    /// Exactly one `closed`, then one drop, and nothing else ever; says why.
    #[track_caller]
    fn ends(mut self) -> String {
        let key = self.key;
        until(&mut self.reactor, &mut self.journal, |journal| is_closed(journal, key));
        settle(&mut self.reactor, &mut self.journal);
        assert_eq!(*self.drops.borrow(), ["closed", "dropped"]);
        assert_eq!(self.journal.closings(), 1);
        assert!(!self.reactor.net().is_open(key));
        self.reactor.shutdown(&mut self.journal);
        assert_eq!(self.journal.closings(), 1);
        closing_of(&self.journal, key).expect("it is closed")
    }
}

#[test]
fn closed_comes_once_for_one_that_was_refused() {
    let (_socket, addr) = nobody();
    let life = Life::connecting(addr, Connect::new());
    assert!(life.ends().starts_with("could not connect to 127.0.0.1"));
}

#[test]
#[cfg_attr(windows, ignore = "Winsock: who finds no room in a backlog is refused, and not left waiting")]
fn closed_comes_once_for_one_that_timed_out_connecting() {
    let (_sockets, addr) = deaf();
    let life = Life::connecting(addr, Connect::new().timeout(SHORT));
    let why = life.ends();
    assert!(why.starts_with("could not connect") && why.contains("timed out"), "{why}");
}

#[test]
fn closed_comes_once_for_an_address_that_is_none() {
    let (mut reactor, mut journal) = start();
    let key = reactor.net().connect("nonsense", recorder(quiet as On));
    until(&mut reactor, &mut journal, |journal| is_closed(journal, key));
    assert_eq!(journal.of(key).len(), 1);
}

#[test]
fn closed_comes_once_for_one_that_errs() {
    let life = Life::accepted();
    say(life.peer.as_ref().expect("a peer"), "err");
    assert_eq!(life.ends(), "failed: asked to fail");
}

#[test]
fn closed_comes_once_for_one_that_panics() {
    let life = Life::accepted();
    say(life.peer.as_ref().expect("a peer"), "panic");
    assert_eq!(life.ends(), "panicked: asked to panic");
}

#[test]
fn closed_comes_once_for_one_that_is_reset() {
    let mut life = Life::accepted();
    reset(life.peer.take().expect("a peer"));
    assert!(life.ends().starts_with("connection lost"));
}

#[test]
fn closed_comes_once_for_one_whose_peer_ends() {
    let mut life = Life::accepted();
    life.peer = None;
    assert_eq!(life.ends(), PEER_FINISHED);
}

#[test]
fn closed_comes_once_for_one_that_is_closed_or_aborted() {
    let mut life = Life::accepted();
    life.reactor.net().close(life.key);
    assert_eq!(life.ends(), FINISHED);
    let mut life = Life::accepted();
    life.reactor.net().abort(life.key);
    assert_eq!(life.ends(), ABORTED);
}

#[test]
fn closed_comes_once_for_one_that_is_shut_down() {
    let mut life = Life::accepted();
    life.reactor.shutdown(&mut life.journal);
    assert_eq!(life.ends(), SHUT_DOWN);
}

#[test]
fn plain_drop_has_no_state_to_lend_and_drops_silently() {
    let life = Life::accepted();
    let drops = Rc::clone(&life.drops);
    drop(life);
    assert_eq!(*drops.borrow(), ["dropped"]);
}

#[test]
fn closed_may_connect_again_and_fail_at_once() {
    let (mut reactor, mut journal) = start();
    let tries = Rc::new(Cell::new(0));
    let tried = Rc::clone(&tries);
    fn again(tries: &Rc<Cell<u32>>, ctx: &mut Ctx<'_>, call: &Call) -> Outcome {
        if matches!(call, Call::Closed(_)) && tries.replace(tries.get() + 1) < 5 {
            let tries = Rc::clone(tries);
            ctx.net
                .connect("nonsense", recorder(move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| again(&tries, ctx, call)));
        }
        Ok(())
    }
    let first = recorder(move |ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call| again(&tries, ctx, call));
    reactor.net().connect("nonsense", first);
    for closings in 1..=6 {
        // Each comes round in the next turn, which does not sleep.
        reactor.turn(&mut journal, None).expect("the selector works");
        assert_eq!(journal.closings(), closings);
    }
    assert_eq!(tried.get(), 6);
}

/// Flaw 5: Under poll, handle_close was called twice in one turn.
#[test]
fn flaw_05_closed_is_called_once_however_often_it_is_closed() {
    let ways: [fn(&mut Ctx<'_>) -> Outcome; 3] = [
        |ctx| {
            ctx.close();
            Ok(())
        },
        |ctx| {
            let key = ctx.key;
            ctx.close();
            ctx.close();
            ctx.net.close(key);
            ctx.half_close();
            Ok(())
        },
        |ctx| {
            ctx.close();
            ctx.abort();
            ctx.abort();
            Err("and failed".into())
        },
    ];
    for end in ways {
        let mut talk = Talk::new(move |ctx, _, call| if matches!(call, Call::Eof(_)) { end(ctx) } else { Ok(()) });
        say(&talk.peer, "hi");
        talk.peer.shutdown(Shutdown::Both).expect("connected");
        talk.until(|journal| journal.closings() > 0);
        let key = talk.key;
        talk.reactor.net().close(key);
        talk.reactor.net().abort(key);
        talk.settle();
        let calls = talk.calls();
        assert_eq!(calls[..2], [Call::Received(b"hi".into()), Call::Eof(Vec::new())]);
        assert!(matches!(calls[2..], [Call::Closed(_)]), "{calls:?}");
    }
}
