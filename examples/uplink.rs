//! Sends the lines of standard input to a server, and reconnects whenever the connection is lost, by a `Reconnect` in the
//! state. Its dialogue tests, on a simulated network, are at the end.
//!
//! Reading standard input blocks, so a thread reads it, and posts each line into the loop.

mod common;
#[path = "common/printable.rs"]
mod printable;

use common::{Failure, arguments, callee, complain, exit, is_misused, misused, print, stop_on_interrupt};
use mainspring::{Context, Keep, Limit, Link, Net, Outcome, Protocol, Reactor, Reason, Reconnect, Remote, Target, Terminator};
use printable::printable;
use std::{
    io::{self, BufRead, Read},
    process::ExitCode,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};

const HELP: &str = "\
Sends the lines of standard input to a server, prints the answers, and
reconnects whenever the connection is lost.

usage: uplink [--tries N] ADDR

ADDR is HOST:PORT or unix:/path. In two terminals:

  nc -lk 127.0.0.1 7003
  vmstat 1 | cargo run --example uplink -- 127.0.0.1:7003

While there is no connection, the newest 64 KiB of lines are kept; a line that
was on its way when the connection broke may be lost. After N failures in a row
it gives up; without --tries, never. At the end of its input it sends what is
kept, and prints the last answers, until the server ends too or has said nothing
for 5 seconds.";

/// We disconnect from a server that sends a longer line, and connect again later.
const LINE_MAX: usize = 4096;

/// How much is kept while there is no connection: of measurements, the newest matter most. A longer line is sent in pieces.
const KEPT_MAX: usize = 64 << 10;

/// A server that takes nothing of what is sent for this long is gone, or as good as gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// After everything has been sent, how long the server may be silent before we take it that there are no more answers.
const GRACE: Duration = Duration::from_secs(5);

/// The state of the program; each callback borrows it.
struct App {
    uplink: Reconnect<App>,
    tries_max: u32,
    was_connected: bool,
    /// Standard input has ended.
    is_complete: bool,
    /// The thread waits at the other end until the connection can take more. Dropping this tells it to go on.
    held_up: Option<SyncSender<()>>,
    ending: Result<(), Failure>,
}

impl App {
    fn new(to: impl Into<Target>, tries_max: u32) -> Self {
        let uplink = Reconnect::new(to, |app: &mut App| &mut app.uplink, || Uplink).keep(Keep::Last { bytes_max: KEPT_MAX });
        Self { uplink, tries_max, was_connected: false, is_complete: false, held_up: None, ending: Ok(()) }
    }

    /// A line of input. The thread waits until `waits` is dropped, before it reads the next line.
    fn input(&mut self, net: &mut Net<'_, Self>, line: &[u8], waits: SyncSender<()>) {
        self.uplink.send(net, line);
        let key = self.uplink.key();
        if key.and_then(|key| net.link(key)).is_some_and(|link| link.is_congested()) {
            self.held_up = Some(waits);
        }
    }

    fn input_ended(&mut self, net: &mut Net<'_, Self>) {
        self.is_complete = true;
        if let Some(mut link) = self.uplink.key().filter(|_| self.uplink.is_ready()).and_then(|key| net.link(key)) {
            say_that_it_was_all(&mut link);
        }
    }

    fn give_up(&mut self, net: &mut Net<'_, Self>, why: impl Into<Failure>) {
        self.ending = Err(why.into());
        self.uplink.stop(net);
        if self.uplink.key().is_none() {
            net.stop(); // otherwise a last `closed` comes, and stops it
        }
    }
}

/// Ends our direction alone, once everything has been sent, because the answers to the last lines are still to come. The idle
/// clock stands still until then.
fn say_that_it_was_all(link: &mut Link<'_>) {
    link.half_close();
    link.set_idle_timeout(GRACE);
}

/// A connection; there is a new one for each attempt.
struct Uplink;

impl Protocol<App> for Uplink {
    fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
        complain(format_args!("connected to {}", ctx.peer()));
        app.was_connected = true;
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_stall_timeout(PATIENCE);
        // TCP notices a server that has vanished. A heartbeat in your protocol would notice it sooner.
        let _ = ctx.link().with_socket(|socket| socket.set_keepalive(true));
        app.uplink.ready(ctx); // sends what was kept
        if app.is_complete {
            say_that_it_was_all(&mut ctx.link());
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, App>, app: &mut App, line: &[u8]) -> Outcome {
        // What the server says must not control a terminal.
        if let Err(why) = print(printable(&String::from_utf8_lossy(line))) {
            app.give_up(&mut ctx.net, why);
        }
        Ok(())
    }

    fn writable(&mut self, _: &mut Context<'_, App>, app: &mut App) -> Outcome {
        app.held_up = None;
        Ok(())
    }

    /// There is an idle time-out only once everything has been sent.
    fn exceeded(&mut self, ctx: &mut Context<'_, App>, _: &mut App, limit: Limit) -> Outcome {
        if limit != Limit::Idle {
            return Err(limit.into());
        }
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
        app.held_up = None;
        if app.is_complete && app.uplink.is_ready() {
            app.uplink.stop(&mut ctx.net); // everything has been sent
        }
        app.uplink.closed(ctx, &why); // connects again, after a pause
        // After a first success, a wrong zone may be a network interface that is down, and may come back.
        let is_nonsense = !app.was_connected && matches!(&why, Reason::Resolve(error) if is_misused(error));
        if app.uplink.is_stopped() {
            if app.ending.is_ok() && !why.is_clean() {
                app.ending = Err(format!("the last lines may be lost: {why}").into());
            }
            ctx.net.stop();
        } else if is_nonsense {
            app.give_up(&mut ctx.net, misused(why));
        } else if app.uplink.failures() >= app.tries_max {
            app.give_up(&mut ctx.net, why.to_string());
        } else {
            complain(format_args!("{why}; trying again"));
        }
    }
}

/// The thread: a line each time the loop can take one.
fn read_input(remote: &Remote<App>) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = (&mut stdin).take(KEPT_MAX as u64).read_until(b'\n', &mut line);
        let is_over = !matches!(read, Ok(1..));
        let (waits, wanted) = sync_channel(0);
        let posted = remote.post(move |net, app| match read {
            Ok(0) => app.input_ended(net),
            Ok(_) => app.input(net, &line, waits),
            Err(error) => app.give_up(net, format!("cannot read standard input: {error}")),
        });
        if posted.is_err() || is_over {
            return;
        }
        let _ = wanted.recv(); // always an error: the message is that `waits` was dropped
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["tries"])? else { return Ok(()) };
    let to = given.text()?.ok_or_else(|| misused("ADDR is missing: the server to connect to"))?;
    let tries_max = given.number("tries", 1..=u32::MAX)?.unwrap_or(u32::MAX);
    let to = callee("ADDR", &to)?;
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let mut app = App::new(to, tries_max);
    app.uplink.start(&mut reactor.net());
    let remote = reactor.remote();
    thread::spawn(move || read_input(&remote));
    reactor.run(&mut app)?;
    app.ending
}

/// `cargo test --features sim --example uplink` runs it; so does tests/examples.rs.
#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use mainspring::testing::{Actor, Scene};
    use std::sync::mpsc::TryRecvError;

    const SERVER: &str = "10.0.0.1:7";
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn started(tries_max: u32) -> Scene<App> {
        let mut scene = Scene::new(0, App::new(SERVER, tries_max));
        scene.net().post(|net, app| app.uplink.start(net));
        scene
    }

    /// Does what the thread does; returns whether it would have to wait now.
    fn types(scene: &mut Scene<App>, line: &str) -> bool {
        let (waits, wanted) = sync_channel(0);
        let line = line.to_owned();
        scene.net().post(move |net, app| app.input(net, line.as_bytes(), waits));
        scene.settles();
        wanted.try_recv() == Err(TryRecvError::Empty)
    }

    fn ends_input(scene: &mut Scene<App>) {
        scene.net().post(|net, app| app.input_ended(net));
        scene.settles();
    }

    /// Types as much as the program takes.
    fn types_until_it_waits(scene: &mut Scene<App>) {
        assert!((0..1000).any(|_| types(scene, &"x".repeat(1000))), "a megabyte is too much to be queued");
    }

    /// A server to which the program has connected.
    fn found(scene: &mut Scene<App>) -> Actor {
        let server = scene.serves(SERVER);
        scene.passes(MINUTE);
        assert!(scene.state().uplink.is_ready(), "no pause is longer");
        server
    }

    #[test]
    fn what_is_typed_while_the_server_is_away_is_sent_once_when_it_is_back() {
        let mut scene = started(u32::MAX);
        types(&mut scene, "one\n");
        scene.passes(10 * SECOND); // refused, again and again
        let server = found(&mut scene);
        types(&mut scene, "two\n");
        scene.hears(server, "one\ntwo\n").resets(server);
        types(&mut scene, "three\n");
        let server = found(&mut scene);
        scene.hears(server, "three\n");
    }

    #[test]
    fn the_end_of_the_input_waits_for_the_server() {
        let mut scene = started(u32::MAX);
        types(&mut scene, "one\n");
        ends_input(&mut scene);
        scene.passes(MINUTE);
        assert!(!scene.state().uplink.is_stopped());
        let server = scene.serves(SERVER);
        scene.passes(MINUTE).hears(server, "one\n").hears_end(server).ends(server);
        assert!(scene.state().uplink.is_stopped() && scene.state().ending.is_ok());
    }

    #[test]
    fn a_server_has_all_the_time_to_take_the_last_lines_and_some_to_answer_them() {
        let mut scene = started(u32::MAX);
        let server = found(&mut scene);
        scene.reads(server, false);
        types_until_it_waits(&mut scene);
        ends_input(&mut scene);
        scene.passes(3 * GRACE);
        assert_eq!(scene.connections(), 1, "it takes its time");
        scene.reads(server, true).takes(server);
        scene.passes(GRACE / 2).says(server, "well\n").passes(GRACE / 2 + SECOND);
        assert!(!scene.state().uplink.is_stopped(), "it may answer more");
        scene.passes(GRACE).hears_end(server);
        assert!(scene.state().uplink.is_stopped() && scene.state().ending.is_ok());
    }

    #[test]
    fn a_server_that_breaks_off_what_was_the_last_is_told_of() {
        let mut scene = started(u32::MAX);
        let server = found(&mut scene);
        scene.reads(server, false);
        types_until_it_waits(&mut scene);
        ends_input(&mut scene);
        scene.resets(server).settles();
        assert!(scene.state().uplink.is_stopped());
        let ending = scene.state().ending.as_ref().expect_err("lines are lost").to_string();
        assert!(ending.starts_with("the last lines may be lost: connection lost"), "{ending}");
    }

    #[test]
    fn the_input_waits_while_the_server_does_not_read_and_not_for_ever() {
        let mut scene = started(u32::MAX);
        let server = found(&mut scene);
        scene.reads(server, false);
        types_until_it_waits(&mut scene);
        scene.reads(server, true);
        assert!(scene.state().held_up.is_none());
        scene.reads(server, false);
        types_until_it_waits(&mut scene);
        scene.passes(2 * PATIENCE);
        assert!(scene.state().held_up.is_none(), "who takes nothing is left");
        assert!(!scene.state().uplink.is_stopped(), "and called again");
    }

    #[test]
    fn after_so_many_failures_in_a_row_it_gives_up() {
        let mut scene = started(3);
        scene.passes(MINUTE);
        assert_eq!(scene.state().uplink.key(), None);
        let ending = scene.state().ending.as_ref().expect_err("nobody is there").to_string();
        assert!(ending.contains("could not connect to 10.0.0.1:7"), "{ending}");
        scene.serves(SERVER);
        scene.passes(MINUTE);
        assert_eq!(scene.connections(), 0);
    }

    #[test]
    fn a_server_that_talks_without_end_is_left_and_called_again_after_a_pause() {
        let mut scene = started(u32::MAX);
        let server = scene.serves(SERVER);
        scene.passes(SECOND).says(server, "x".repeat(LINE_MAX + 1)).hears_end(server);
        assert_eq!(scene.state().uplink.failures(), 1);
        found(&mut scene);
    }
}
