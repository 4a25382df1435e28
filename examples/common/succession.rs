//! Restarts a server without losing a client: on SIGHUP it starts its program anew, which gets the listening socket as its
//! standard input; when the new process has said `listening on`, the old one finishes what is under way.

use super::common::{Failure, complain, misused};
use listenfd::ListenFd;
use mainspring::{
    Adopted, Context, Key, Net, Outcome, Protocol, Terminator,
    signal::{SIGHUP, SIGINT, SIGKILL, SIGTERM, die_of},
};
use rustix::stdio::dup2_stdin;
use std::{
    ffi::OsString,
    fmt::Display,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

const LINE_MAX: usize = 1024;

/// The word on the command line that says: the socket is our standard input.
pub(crate) const FROM_STDIN: &str = "-";

/// What a server knows about its successor.
pub(crate) struct Succession<S> {
    /// Where it is in the state.
    place: fn(&mut S) -> &mut Self,
    /// The listener's socket once more, for a successor. None once we end: as long as it is open, the kernel accepts clients.
    socket: Option<OwnedFd>,
    /// Found out at the start: once a newer program has replaced ours, the system calls ours `… (deleted)`.
    program: PathBuf,
    /// They tell the successor to take the socket that it is given.
    arguments: Vec<OsString>,
    patience: Duration,
    grace: Duration,
    /// A successor that is not ready yet.
    successor: Option<Successor>,
    was_asked_to_end: bool,
}

struct Successor {
    news: Key,
    child: Key,
}

/// Reads a successor's standard output.
struct News<S> {
    place: fn(&mut S) -> &mut Succession<S>,
}

impl<S: 'static> Protocol<S> for News<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, line: &[u8]) -> Outcome {
        if line.starts_with(b"listening on ") {
            (self.place)(state).hand_over(&mut ctx.net);
        }
        Ok(())
    }
}

impl<S: 'static> Succession<S> {
    /// A successor has the time `patience` to get ready; what is under way has the time `grace` to finish.
    pub(crate) fn new(
        place: fn(&mut S) -> &mut Self,
        socket: OwnedFd,
        arguments: Vec<OsString>,
        patience: Duration,
        grace: Duration,
    ) -> io::Result<Self> {
        let (program, socket) = (std::env::current_exe()?, Some(socket));
        Ok(Self { place, socket, program, arguments, patience, grace, successor: None, was_asked_to_end: false })
    }

    /// SIGHUP restarts, SIGINT and SIGTERM end. Call this before you announce the server: whoever reads that may send a signal
    /// at once.
    pub(crate) fn heed_signals(&self, net: &mut Net<'_, S>) -> io::Result<()> {
        let place = self.place;
        net.on_signal(&[SIGHUP], move |net, state, _| place(state).restart(net))?;
        net.on_signal(&[SIGINT, SIGTERM], move |net, state, signal| place(state).end(net, signal))?;
        Ok(())
    }

    fn restart(&mut self, net: &mut Net<'_, S>) {
        match &self.socket {
            _ if self.successor.is_some() => tell("no restart: a successor is being started already"),
            None => tell("no restart: this process is ending"),
            Some(socket) => {
                let started = socket.try_clone().and_then(|socket| self.start(net, socket));
                match started {
                    Ok(successor) => self.successor = Some(successor),
                    Err(error) => tell(format_args!("no restart: cannot start '{}': {error}", self.program.display())),
                }
            }
        }
    }

    /// If anything fails after the spawn, the child's output has no reader: it cannot say that it is ready, and ends.
    fn start(&self, net: &mut Net<'_, S>, socket: OwnedFd) -> io::Result<Successor> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::from(socket)).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (number, output) = (child.id(), child.stdout.take().expect("piped"));
        let place = self.place;
        let news = net.adopt(Adopted::reader(output), News { place })?;
        let waits = net.wait_child(child, move |net, state, status| {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            place(state).give_up(net, news, format_args!("process {number} has ended before it was ready: {status}"));
        });
        let child = waits.inspect_err(|_| _ = net.abort(news))?;
        net.after(self.patience, move |net, state| {
            let succession = place(state);
            let patience = succession.patience.as_secs();
            succession.give_up(net, news, format_args!("process {number} was not ready in {patience} s"));
        });
        tell(format_args!("process {number} is to take over"));
        Ok(Successor { news, child })
    }

    fn give_up(&mut self, net: &mut Net<'_, S>, news: Key, why: impl Display) {
        if let Some(successor) = self.successor.take_if(|successor| successor.news == news) {
            let child = successor.child;
            net.abort(news); // if it says that it is ready now, that is too late
            net.signal_child(child, SIGTERM); // gently: it may have accepted a client
            net.after(self.grace, move |net, _| _ = net.signal_child(child, SIGKILL));
            tell(format_args!("no restart: {why}"));
        }
    }

    fn hand_over(&mut self, net: &mut Net<'_, S>) {
        if let Some(successor) = self.successor.take() {
            net.abort(successor.news);
            tell("the successor is ready: finishing what is under way");
            self.finish(net);
        }
    }

    fn end(&mut self, net: &mut Net<'_, S>, signal: i32) {
        if std::mem::replace(&mut self.was_asked_to_end, true) {
            let _ = die_of(signal); // asked for again: at once
        }
        if let Some(successor) = self.successor.take() {
            net.signal_child(successor.child, SIGTERM);
            net.abort(successor.news);
        }
        self.finish(net);
    }

    fn finish(&mut self, net: &mut Net<'_, S>) {
        if self.socket.take().is_some() {
            net.drain(self.grace);
        }
    }
}

/// Prints a line on standard error, with our process id, because several processes write there.
pub(crate) fn tell(what: impl Display) {
    complain(format_args!("{}: {what}", std::process::id()));
}

/// The listening socket: from systemd, from a predecessor, or opened by us.
pub(crate) fn socket(at: &str) -> Result<OwnedFd, Failure> {
    if let Some(socket) = ListenFd::from_env().take_tcp_listener(0)? {
        return Ok(socket.into());
    }
    if at == FROM_STDIN {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        dup2_stdin(File::open("/dev/null")?)?; // otherwise it would stay open as long as we live
        return Ok(socket);
    }
    let at: SocketAddr =
        at.parse().map_err(|_| misused(format!("`{at}` is not an address to listen on: write IP:PORT or [IPv6]:PORT")))?;
    let socket = TcpListener::bind(at).map_err(|error| format!("cannot listen on {at}: {error}"))?;
    Ok(socket.into())
}
