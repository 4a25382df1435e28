//! The pipe or device is a `Dispatcher`; each listener is a connection.

use crate::common::{Failure, announce, arguments, drain_on_interrupt, listening, misused};
use mainspring::{Context, Dispatcher, Drained, Fault, Key, Listen, Net, Outcome, Protocol, Reactor, Reason, Scope, Source};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
    rc::Rc,
    time::Duration,
};

const HELP: &str = "\
Follows SOURCE, and sends its lines to everybody who is connected.

usage: tail SOURCE [ADDR]

SOURCE is a FIFO (mkfifo(1)), a device, or /dev/stdin if that is a pipe. The
program ends when nobody can write to SOURCE any more. ADDR is IP:PORT (port 0:
any free one) or unix:/path; the default is 127.0.0.1:7002. In two terminals:

  vmstat 1 | cargo run --example tail -- /dev/stdin
  nc 127.0.0.1 7002

The program cannot follow a plain file. Let tail(1) do that, into a pipe:

  tail -F /var/log/syslog | cargo run --example tail -- /dev/stdin

Slow clients delay nobody: one that does not keep up is told how many lines it
missed, and one that reads nothing for 60 seconds is disconnected.";

/// A longer line is passed on in pieces.
const LINE_MAX: usize = 16 << 10;

/// How much is read in a turn. Together with the beginning of a line, it is less than a connection may have queued.
const PIECE_BYTES: usize = 16 << 10;

const LISTENERS_MAX: usize = 100;

/// How long a client may read nothing of what is sent to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// When SOURCE has ended, or after Ctrl-C, the time everybody has to read the rest.
const GRACE: Duration = Duration::from_secs(10);

/// The state of the program; each callback borrows it.
struct Audience {
    /// The listeners, and how many lines each has missed.
    missed: BTreeMap<Key, usize>,
    ending: Result<(), Failure>,
}

impl Audience {
    /// One buffer for all, queued by reference.
    fn tell(&mut self, net: &mut Net<'_, Self>, lines: &[u8]) {
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        let lines: Rc<[u8]> = lines.into();
        for (&key, missed) in &mut self.missed {
            let Some(mut link) = net.link(key) else { continue };
            // A listener that has missed something must be told so first.
            if link.is_congested() || *missed > 0 {
                *missed += count;
            } else {
                link.send_shared(&lines);
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------------- the source

struct Tail {
    file: File,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl Dispatcher<Audience> for Tail {
    fn source(&mut self) -> Source<'_> {
        Source::Fd(self.file.as_fd())
    }

    /// Reads once a turn, so that everything else gets its turn too, however fast SOURCE is.
    fn readable(&mut self, scope: &mut Scope<'_, Audience>, audience: &mut Audience) -> Result<Drained, Fault> {
        let mut piece = [0; PIECE_BYTES];
        match self.file.read(&mut piece) {
            Ok(0) => scope.close(), // the last writer has gone
            Ok(bytes) => self.begun.extend(&piece[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Yes),
            Err(error) => return Err(error.into()),
        }
        let end = match self.begun.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.begun.len() > LINE_MAX => self.begun.len(),
            None => return Ok(Drained::No),
        };
        audience.tell(&mut scope.net, &self.begun[..end]);
        self.begun.drain(..end);
        Ok(Drained::No)
    }

    /// The program ends with SOURCE, once everybody has read the rest.
    fn closed(&mut self, scope: &mut Scope<'_, Audience>, audience: &mut Audience, why: Reason) {
        audience.tell(&mut scope.net, &self.begun);
        // After Ctrl-C the reactor is draining already.
        if !why.is_clean() && !matches!(why, Reason::Shutdown) {
            audience.ending = Err(why.to_string().into());
        }
        scope.net.drain(GRACE);
    }
}

/// Opens it with O_NONBLOCK: otherwise a read would wait, and the loop with it.
fn open(path: &Path) -> io::Result<File> {
    // A plain file is always readable, even at its end, and growing is not an event: the loop would report it once, and we
    // would take its end for the end of everything.
    let kind = fs::metadata(path)?;
    if kind.is_file() || kind.is_dir() {
        return Err(io::Error::other("a file cannot be waited for; --help shows how to follow one"));
    }
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

// ---------------------------------------------------------------------------------------------------- who listens

struct Listener;

impl Listener {
    fn own_up(ctx: &mut Context<'_, Audience>, audience: &mut Audience) {
        let missed = audience.missed.get_mut(&ctx.key).map(std::mem::take);
        if let Some(missed @ 1..) = missed {
            writeln!(ctx, "* {missed} lines were missed");
        }
    }
}

impl Protocol<Audience> for Listener {
    fn connected(&mut self, ctx: &mut Context<'_, Audience>, audience: &mut Audience) -> Outcome {
        audience.missed.insert(ctx.key, 0);
        // SOURCE may be silent all day; TCP notices a client that has vanished.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        ctx.send("* following\n");
        Ok(())
    }

    /// Ignores what clients send: there is nothing to ask here.
    fn received(&mut self, _: &mut Context<'_, Audience>, _: &mut Audience, _: &[u8]) -> Outcome {
        Ok(())
    }

    fn writable(&mut self, ctx: &mut Context<'_, Audience>, audience: &mut Audience) -> Outcome {
        Self::own_up(ctx, audience);
        Ok(())
    }

    fn draining(&mut self, ctx: &mut Context<'_, Audience>, audience: &mut Audience) -> Outcome {
        Self::own_up(ctx, audience);
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Audience>, audience: &mut Audience, _: Reason) {
        audience.missed.remove(&ctx.key);
    }
}

pub(crate) fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 2, &[])? else { return Ok(()) };
    let path = given.path("SOURCE")?.ok_or_else(|| misused("SOURCE is missing: the pipe or device to follow"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7002".into());
    let cannot = |error: io::Error| format!("cannot follow '{}': {error}", path.display());
    let file = open(&path).map_err(cannot)?;

    let mut reactor = Reactor::new()?;
    reactor.net().watch(Tail { file, begun: Vec::new() }).map_err(cannot)?;
    let options = Listen::new().stall_timeout(PATIENCE).connections_max(LISTENERS_MAX, "* too many are here already\n");
    let listener = listening(reactor.net().listen_with(at, options, |_, _, _| Ok(Listener)))?;
    drain_on_interrupt(&reactor, GRACE)?;
    announce(&reactor.net(), listener)?;
    let mut audience = Audience { missed: BTreeMap::new(), ending: Ok(()) };
    reactor.run(&mut audience)?;
    audience.ending
}
