//! Not asked for: a terminal program. Standard input as a `Dispatcher`, and the smallest server of lines.
use mainspring::*;
use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

/// Must be non-blocking: the loop asks again until `WouldBlock`. (Standard input is shared with the shell, so a pipe or a
/// duplicate of a terminal.)
struct Input {
    from: std::fs::File,
    to: Key,
}
impl<S> Dispatcher<S> for Input {
    fn source(&mut self) -> Source<'_> {
        Source::Fd(self.from.as_fd())
    }
    fn readable(&mut self, ctx: &mut Scope<'_, S>, _: &mut S) -> Result<Drained, Fault> {
        let mut buf = [0; 4096];
        match self.from.read(&mut buf) {
            Ok(0) => {
                ctx.net.half_close(self.to);
                ctx.net.close(ctx.key);
                Ok(Drained::Yes)
            }
            Ok(n) => {
                ctx.net.send(self.to, &buf[..n]);
                Ok(Drained::No)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Drained::Yes),
            Err(e) => Err(e.into()),
        }
    }
}
struct Output<W>(W);
impl<S, W: Write + 'static> Protocol<S> for Output<W> {
    fn received(&mut self, _: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        Ok(self.0.write_all(bytes)?)
    }
    fn closed(&mut self, ctx: &mut Context<'_, S>, _: &mut S, why: Reason) {
        if !why.is_clean() {
            eprintln!("{why}")
        }
        ctx.net.stop()
    }
}
pub fn talk(reactor: &mut Reactor<u64>, from: OwnedFd, output: impl Write + 'static) -> io::Result<()> {
    let mut net = reactor.net();
    let server = net.serve_lines("127.0.0.1:0", 1024, |_, count: &mut u64, _peer, line| {
        *count += 1;
        format!("{count} {}\n", line.len())
    })?;
    let at = net.local(server).expect("it listens").clone();
    let to = net.connect(&at, Output(output));
    let input = net.watch(Input { from: from.into(), to })?;
    net.throttle(input, to);
    reactor.run(&mut 0)
}
