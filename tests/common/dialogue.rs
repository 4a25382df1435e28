//! A recorder as one side of a dialogue, without a kernel and in virtual time; a test plays the peer.

use super::{Call, Ctx, Journal, Recorder, by_default, quiet, recorder};
use mainspring::{
    Key, Limit, Link, Outcome, Protocol, Terminator,
    testing::{Actor, Transcript},
};
use std::time::Duration;

/// With this recorder, which has had its `connected`.
pub(crate) fn dialogue<F>(on: F) -> Transcript<Recorder<F>, Journal>
where
    F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + 'static,
{
    let mut t = Transcript::new(recorder(on));
    assert_eq!(t.state().calls.remove(0).1, Call::Connected);
    t
}

/// With this terminator from the start. `exceeded` goes on, the peer's end is the end.
pub(crate) fn cut_by(terminator: impl Fn() -> Terminator + 'static) -> Transcript<impl Protocol<Journal>, Journal> {
    dialogue(move |ctx, _, call| {
        match call {
            Call::Connected => ctx.set_terminator(terminator()),
            Call::Eof(_) => ctx.close(),
            _ => {}
        }
        Ok(())
    })
}

/// With a terminator that is set from outside; otherwise it does what is done by default.
pub(crate) fn cut_from_outside(terminator: Terminator) -> Transcript<impl Protocol<Journal>, Journal> {
    let mut t = dialogue(by_default);
    t.link(|link| link.set_terminator(terminator));
    t
}

/// What a dialogue with a recorder can say in addition.
pub(crate) trait Recorded {
    /// It was called with exactly this since it was last asked. Pieces are joined.
    fn gets(&mut self, calls: &[Call]) -> &mut Self;

    fn gets_nothing(&mut self) -> &mut Self {
        self.gets(&[])
    }

    /// What it was called with since it was last asked: for what cannot be said exactly.
    fn calls(&mut self) -> Vec<Call>;

    /// This many bytes were received and not delivered.
    fn holds(&mut self, bytes: usize) -> &mut Self;

    /// From outside: not in a callback.
    fn link(&mut self, with: impl FnOnce(&mut Link<'_>)) -> &mut Self;

    /// The peer reads no more, and more is queued than its window takes.
    fn stuffs(&mut self) -> &mut Self;

    /// Another connection of the same reactor, which does nothing, and its peer.
    fn beside(&mut self) -> (Key, Actor);

    /// After this time it is told that this limit was exceeded, and not a nanosecond earlier.
    fn exceeds(&mut self, limit: Limit, after: Duration) -> &mut Self;
}

impl<P: Protocol<Journal>> Recorded for Transcript<P, Journal> {
    #[track_caller]
    fn gets(&mut self, expected: &[Call]) -> &mut Self {
        assert_eq!(self.calls(), expected);
        self
    }

    fn calls(&mut self) -> Vec<Call> {
        let key = self.settles().key();
        let journal = self.state();
        let calls = joined(journal.of(key));
        journal.calls.retain(|(owner, _)| *owner != key);
        calls
    }

    #[track_caller]
    fn holds(&mut self, bytes: usize) -> &mut Self {
        let key = self.settles().key();
        assert_eq!(self.scene().net().link(key).expect("it is open").unread(), bytes);
        self
    }

    #[track_caller]
    fn link(&mut self, with: impl FnOnce(&mut Link<'_>)) -> &mut Self {
        let key = self.key();
        with(&mut self.scene().net().link(key).expect("it is open"));
        self.settles()
    }

    #[track_caller]
    fn stuffs(&mut self) -> &mut Self {
        self.peer_stops_reading().link(|link| assert!(link.send(vec![b'.'; STUFFED])));
        self.link(|link| assert!(link.is_congested()))
    }

    fn beside(&mut self) -> (Key, Actor) {
        self.scene().net().listen("127.0.0.1:8", || recorder(quiet)).expect("a simulated port is free");
        let peer = self.scene().dials("127.0.0.1:8");
        (self.state().calls.pop().expect("it is connected").0, peer)
    }

    #[track_caller]
    fn exceeds(&mut self, limit: Limit, after: Duration) -> &mut Self {
        let moment = Duration::from_nanos(1);
        self.passes(after - moment).gets_nothing().passes(moment).gets(&[Call::Exceeded(limit)])
    }
}

/// More than a simulated window takes.
pub(crate) const STUFFED: usize = 1 << 20;

fn joined(calls: Vec<Call>) -> Vec<Call> {
    let mut all: Vec<Call> = Vec::new();
    for call in calls {
        match (all.last_mut(), call) {
            (Some(Call::Received(pieces)), Call::Received(piece)) => pieces.extend_from_slice(&piece),
            (_, call) => all.push(call),
        }
    }
    all
}

pub(crate) fn piece(bytes: impl AsRef<[u8]>) -> Call {
    Call::Received(bytes.as_ref().to_vec())
}

pub(crate) fn eof(tail: impl AsRef<[u8]>) -> Call {
    Call::Eof(tail.as_ref().to_vec())
}

pub(crate) const TOO_LONG: Call = Call::Exceeded(Limit::FrameBytes);
