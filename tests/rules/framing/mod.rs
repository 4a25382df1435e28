//! Where frames end, through the whole loop. That no cut matters is the subject of cuts.rs.

mod terminators;
mod limits;
mod changing;
mod twins;
mod framers;

use crate::common::{Call, Journal, PATIENCE, dial, listen, recorder, settle, until, until_net};
use mainspring::{Context, Key, Limit, Link, Outcome, Reactor, Terminator};
use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

fn piece(bytes: impl AsRef<[u8]>) -> Call {
    Call::Received(bytes.as_ref().to_vec())
}

fn joined(journal: &Journal) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for (_, call) in &journal.calls {
        match (calls.last_mut(), call) {
            (Some(Call::Received(pieces)), Call::Received(piece)) => pieces.extend_from_slice(piece),
            _ => calls.push(call.clone()),
        }
    }
    calls
}

/// A peer and the connection that was accepted from it.
struct Dialogue {
    reactor: Reactor<Journal>,
    journal: Journal,
    peer: TcpStream,
    key: Key,
}

impl Dialogue {
    /// With this terminator from the start. `exceeded` goes on, the peer's end is the end.
    fn with(terminator: impl Fn() -> Terminator + Clone + 'static) -> Self {
        Self::answering(move |ctx, _, call| {
            match call {
                Call::Connected => ctx.set_terminator(terminator()),
                Call::Eof(_) => ctx.close(),
                _ => {}
            }
            Ok(())
        })
    }

    fn answering<F>(on: F) -> Self
    where
        F: Fn(&mut Context<'_, Journal>, &mut Journal, &Call) -> Outcome + Clone + 'static,
    {
        let (mut reactor, mut journal) = (Reactor::new().expect("a selector"), Journal::default());
        let (_, addr) = listen(&mut reactor, move || recorder(on.clone()));
        let peer = dial(addr);
        until(&mut reactor, &mut journal, |journal| journal.has(&Call::Connected));
        assert_eq!(journal.calls[0].1, Call::Connected);
        let (key, _) = journal.calls.remove(0);
        Self { reactor, journal, peer, key }
    }

    fn says(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.peer.write_all(bytes.as_ref()).expect("the reactor takes it");
        self
    }

    fn ends(&mut self) -> &mut Self {
        self.peer.shutdown(Shutdown::Write).expect("connected");
        self
    }

    /// What the connection is called with, from what it heard last. Pieces are joined.
    #[track_caller]
    fn hears(&mut self, expected: &[Call]) -> &mut Self {
        let began = Instant::now();
        while joined(&self.journal) != expected && began.elapsed() < PATIENCE / 4 {
            self.reactor.turn(&mut self.journal, Duration::from_millis(5)).expect("the selector works");
        }
        assert_eq!(joined(&self.journal), expected);
        self.journal.calls.clear();
        self
    }

    #[track_caller]
    fn hears_nothing(&mut self) -> &mut Self {
        settle(&mut self.reactor, &mut self.journal);
        self.hears(&[])
    }

    /// So many bytes were received and not delivered.
    #[track_caller]
    fn holds(&mut self, bytes: usize) -> &mut Self {
        let key = self.key;
        until_net(&mut self.reactor, &mut self.journal, |net, _| net.link(key).is_some_and(|link| link.unread() == bytes));
        self
    }

    /// From outside: not in a callback.
    #[track_caller]
    fn link(&mut self, with: impl FnOnce(&mut Link<'_>)) -> &mut Self {
        with(&mut self.reactor.net().link(self.key).expect("it is open"));
        self
    }
}

fn eof(tail: impl AsRef<[u8]>) -> Call {
    Call::Eof(tail.as_ref().to_vec())
}

const TOO_LONG: Call = Call::Exceeded(Limit::FrameBytes);
