//! The protocols that are measured, written as anybody would write them.

use mainspring::{Address, Context, Datagram, Key, Outcome, Protocol, Reason, Scope, Terminator};
use std::rc::Rc;

/// Sends back whatever it gets.
#[derive(Debug)]
pub struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

impl<S> Datagram<S> for Echo {
    fn received(&mut self, scope: &mut Scope<'_, S>, _: &mut S, bytes: &[u8], _: &Address) -> Outcome {
        scope.reply(bytes);
        Ok(())
    }
}

/// Sends back each line, which ends with LF or CRLF, with CRLF.
#[derive(Debug)]
pub struct Lines;

impl<S> Protocol<S> for Lines {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(65_536));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, _: &mut S, line: &[u8]) -> Outcome {
        ctx.send(line);
        ctx.send(b"\r\n");
        Ok(())
    }
}

/// Reads and drops.
#[derive(Debug)]
pub struct Sink;

impl<S> Protocol<S> for Sink {
    fn received(&mut self, _: &mut Context<'_, S>, _: &mut S, _: &[u8]) -> Outcome {
        Ok(())
    }
}

/// Writes without end, as fast as the peer reads.
#[derive(Debug)]
pub struct Source {
    piece: Rc<[u8]>,
}

impl Source {
    /// All sources of one reactor send the same piece.
    pub fn new(piece: &Rc<[u8]>) -> Self {
        Self { piece: Rc::clone(piece) }
    }
}

impl<S> Protocol<S> for Source {
    fn connected(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.writable(ctx, state)
    }

    fn writable(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        while !ctx.is_congested() {
            ctx.send_shared(&self.piece);
        }
        Ok(())
    }
}

/// Who is in the room.
#[derive(Debug, Default)]
pub struct Room {
    pub members: Vec<Key>,
}

/// Says what it gets to all in the room.
#[derive(Debug)]
pub struct Member;

impl Protocol<Room> for Member {
    fn connected(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room) -> Outcome {
        room.members.push(ctx.key);
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, bytes: &[u8]) -> Outcome {
        for &member in &room.members {
            ctx.net.send(member, bytes);
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Room>, room: &mut Room, _: Reason) {
        room.members.retain(|&member| member != ctx.key);
    }
}
