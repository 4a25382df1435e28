//! The server, and how it puts a successor in its place.

use crate::common::{Failure, arguments, complain, misused, print};
use listenfd::ListenFd;
use mainspring::{
    Adopted, Context, Key, Listen, Net, Outcome, Protocol, Reactor, Terminator,
    signal::{SIGHUP, SIGINT, SIGKILL, SIGTERM, die_of},
};
use rustix::stdio::dup2_stdin;
use std::{
    fmt::Display,
    fs::File,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

const HELP: &str = "\
A server that is restarted and loses nobody. It takes a line, answers it with
the number of its process in front, and closes. On SIGHUP it starts its program
anew, from the file that it was started from (where that was a link, from what
that led to), and gives it the listening socket.
When the new one says that it is ready, the old one finishes what is under way,
and ends. If the new one ends before, or says nothing in time, the old one goes
on.

usage: restart [--patience SECONDS] [--grace SECONDS] [ADDR]

ADDR is where it listens, 127.0.0.1:7000 if it is not given. With - that is its
standard input, a socket that listens already; and one that systemd has opened
(LISTEN_FDS) comes before any. A successor has so long to be ready: 10 seconds,
or --patience. Who is connected has 10 seconds for his line, and all together
have 30 when it ends, or --grace. Standard output has one line, `listening on`,
for whoever has started it; what it does is told on standard error, which a
successor has too. SIGTERM and SIGINT end it, and also a successor that is not
ready yet.";

const LINE_MAX: usize = 1024;

/// From being connected to the last byte of the answer: less than a drain has.
const VISIT_MAX: Duration = Duration::from_secs(10);

/// What the program has one of.
struct Server {
    /// The same socket as the listener's, for a successor. None from when we end: as long as it is open, the kernel lets people in.
    socket: Option<OwnedFd>,
    /// Asked for in the beginning: when there is a newer one at its place, the system calls ours `… (deleted)`.
    program: PathBuf,
    patience: Duration,
    grace: Duration,
    /// Somebody who is not ready yet.
    successor: Option<Successor>,
    was_asked_to_end: bool,
}

struct Successor {
    news: Key,
    child: Key,
}

// ----------------------------------------------------------------------------------------------------- what it serves

/// One line, one answer.
struct Visit;

impl Protocol<Server> for Visit {
    fn connected(&mut self, ctx: &mut Context<'_, Server>, _: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Server>, _: &mut Server, line: &[u8]) -> Outcome {
        ctx.send(format!("{} ", std::process::id()));
        ctx.send(line);
        ctx.send("\n");
        ctx.close();
        Ok(())
    }

    /// Who has connected may have sent a line that is still on its way. So everybody has his answer, or his deadline: the default
    /// would close who is quiet.
    fn draining(&mut self, _: &mut Context<'_, Server>, _: &mut Server) -> Outcome {
        Ok(())
    }
}

// ----------------------------------------------------------------------------------------------------- the successor

/// A successor's standard output.
struct News;

impl Protocol<Server> for News {
    fn connected(&mut self, ctx: &mut Context<'_, Server>, _: &mut Server) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Server>, server: &mut Server, line: &[u8]) -> Outcome {
        if line.starts_with(b"listening on ") {
            server.hand_over(&mut ctx.net);
        }
        Ok(())
    }
}

impl Server {
    fn restart(net: &mut Net<'_, Self>, server: &mut Self) {
        match &server.socket {
            _ if server.successor.is_some() => tell("no restart: a successor is being started already"),
            None => tell("no restart: this process is ending"),
            Some(socket) => {
                let started = socket.try_clone().and_then(|socket| server.start(net, socket));
                match started {
                    Ok(successor) => server.successor = Some(successor),
                    Err(error) => tell(format_args!("no restart: cannot start '{}': {error}", server.program.display())),
                }
            }
        }
    }

    /// Whatever fails here after it was spawned: its line has no reader then, and who cannot say that he is ready ends.
    fn start(&self, net: &mut Net<'_, Self>, socket: OwnedFd) -> io::Result<Successor> {
        let mut command = Command::new(&self.program);
        command.arg(format!("--patience={}", self.patience.as_secs()));
        command.arg(format!("--grace={}", self.grace.as_secs()));
        command.arg("-").stdin(Stdio::from(socket)).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (number, output) = (child.id(), child.stdout.take().expect("piped"));
        let news = net.adopt(Adopted::reader(output), News)?;
        let waits = net.wait_child(child, move |net, server, status| {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            server.give_up(net, news, format_args!("process {number} has ended before it was ready: {status}"));
        });
        let child = waits.inspect_err(|_| _ = net.abort(news))?;
        net.after(self.patience, move |net, server: &mut Self| {
            let patience = server.patience.as_secs();
            server.give_up(net, news, format_args!("process {number} was not ready in {patience} s"));
        });
        tell(format_args!("process {number} is to take over"));
        Ok(Successor { news, child })
    }

    fn give_up(&mut self, net: &mut Net<'_, Self>, news: Key, why: impl Display) {
        if let Some(successor) = self.successor.take_if(|successor| successor.news == news) {
            let child = successor.child;
            net.abort(news); // it may say that it is ready now: too late
            net.signal_child(child, SIGTERM); // it may have let somebody in
            net.after(self.grace, move |net, _| _ = net.signal_child(child, SIGKILL));
            tell(format_args!("no restart: {why}"));
        }
    }

    fn hand_over(&mut self, net: &mut Net<'_, Self>) {
        if let Some(successor) = self.successor.take() {
            net.abort(successor.news);
            tell("the successor is ready: finishing what is under way");
            self.finish(net);
        }
    }

    fn end(net: &mut Net<'_, Self>, server: &mut Self, signal: i32) {
        if std::mem::replace(&mut server.was_asked_to_end, true) {
            let _ = die_of(signal); // asked for again: at once
        }
        if let Some(successor) = server.successor.take() {
            net.signal_child(successor.child, SIGTERM);
            net.abort(successor.news);
        }
        server.finish(net);
    }

    fn finish(&mut self, net: &mut Net<'_, Self>) {
        if self.socket.take().is_some() {
            net.drain(self.grace);
        }
    }
}

/// On standard error, where the lines of several processes meet.
fn tell(what: impl Display) {
    complain(format_args!("{}: {what}", std::process::id()));
}

// ------------------------------------------------------------------------------------------------------- the beginning

/// The socket that systemd has opened, or a predecessor, or we do.
fn socket(at: &str) -> Result<OwnedFd, Failure> {
    if let Some(socket) = ListenFd::from_env().take_tcp_listener(0)? {
        return Ok(socket.into());
    }
    if at == "-" {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        dup2_stdin(File::open("/dev/null")?)?; // or it would stay open as long as we live
        return Ok(socket);
    }
    let at: SocketAddr =
        at.parse().map_err(|_| misused(format!("`{at}` is no address to listen on: write IP:PORT or [IPv6]:PORT")))?;
    let socket = TcpListener::bind(at).map_err(|error| format!("cannot listen on {at}: {error}"))?;
    Ok(socket.into())
}

pub(crate) fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["patience", "grace"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7000".into());
    let patience = given.seconds("patience")?.unwrap_or(Duration::from_secs(10));
    let grace = given.seconds("grace")?.unwrap_or(Duration::from_secs(30));
    let program = std::env::current_exe()?;
    let socket = socket(&at)?;
    let for_successor = socket.try_clone()?;

    let mut reactor = Reactor::new()?;
    let mut net = reactor.net();
    let listener = net.listen_on(socket, Listen::new().deadline(VISIT_MAX), |_, _, _| Ok(Visit));
    let listener = listener.map_err(|error| format!("cannot listen on '{at}': {error}"))?;
    // Before it is said that we serve: whoever reads that may send a signal at once.
    net.on_signal(&[SIGHUP], |net, server, _| Server::restart(net, server))?;
    net.on_signal(&[SIGINT, SIGTERM], Server::end)?;
    print(format_args!("listening on {}", net.local(listener).expect("it listens")))?;

    let socket = Some(for_successor);
    reactor.run(&mut Server { socket, program, patience, grace, successor: None, was_asked_to_end: false })?;
    tell("ended");
    Ok(())
}
