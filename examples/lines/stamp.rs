//! The command is a child, its outputs are connections, its end and signals to us are callbacks.

use crate::common::{Failure, arguments, misused, unwritten};
use chrono::Local;
use mainspring::{
    Adopted, Config, Context, Fault, Key, Net, Outcome, Protocol, Reactor, Reason, Step, Terminator,
    signal::{SIGINT, SIGTERM},
};
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

const HELP: &str = "\
Runs COMMAND, and prints each line of its standard output and standard error
with the time and a mark in front:
12:34:56.789 out  hello
12:34:56.790 err  something is wrong

usage: lines -- COMMAND [ARG...]

COMMAND gets our standard input, and we end with its exit status; if a signal
kills it, that is 128 plus the signal's number, as in shells. SIGINT and SIGTERM
are passed on to COMMAND, which may end or not. After it has ended, processes
that still hold its outputs open have another second. A line of more than 64 KiB
is printed as several lines.";

const LINE_MAX: usize = 64 << 10;

/// How long other processes may hold the outputs open after the command has ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most that both pipes can hold: so much output of the command may be left when it has ended.
const PIPES_HOLD: usize = 2 * (64 << 10);

/// The reader of our output may be slow and loses nothing: the end waits for it. The command's outputs are held back meanwhile,
/// so little is waiting.
fn patient() -> Config {
    Config::new().linger_max(Duration::MAX).output_limits(16 << 10, 64 << 10, usize::MAX)
}

/// The state of the program; each callback borrows it.
struct Run {
    /// Where the lines go.
    printer: Key,
    outputs: Vec<Key>,
    status: Option<io::Result<ExitStatus>>,
    /// Bytes of lines that came after its end.
    came_late: usize,
    unwritten: Option<io::Error>,
}

impl Run {
    /// Called when the command and both of its outputs have ended.
    fn is_over(&self) -> bool {
        self.status.is_some() && self.outputs.is_empty()
    }

    fn finish_if_over(&self, net: &mut Net<'_, Self>) {
        if self.is_over() {
            net.close(self.printer); // once everything is printed
        }
    }

    /// The command has ended. We wait for the output that it left, however long printing takes, until the pipes are empty,
    /// because nothing has come for a whole turn, or until there was more than the command can have left.
    fn wait_for_others(net: &mut Net<'_, Self>, run: &mut Self, had_come: Option<usize>) {
        let came = run.came_late;
        if net.link(run.printer).is_some_and(|printer| printer.is_congested()) {
            net.after(PATIENCE / 2, |net, run| Self::wait_for_others(net, run, None));
        } else if had_come == Some(came) || came >= PIPES_HOLD {
            run.outputs.iter().for_each(|&output| _ = net.detach(output));
        } else {
            net.after(Duration::from_millis(1), move |net, run| Self::wait_for_others(net, run, Some(came)));
        }
    }
}

/// One of the two outputs. It is read only while our own output can leave.
struct Output {
    mark: &'static str,
}

impl Output {
    fn print(&self, ctx: &mut Context<'_, Run>, run: &Run, line: &[u8]) {
        let mut stamped = format!("{} {}  ", Local::now().format("%H:%M:%S%.3f"), self.mark).into_bytes();
        stamped.extend_from_slice(line);
        stamped.push(b'\n');
        ctx.net.send(run.printer, stamped);
    }
}

impl Protocol<Run> for Output {
    fn connected(&mut self, ctx: &mut Context<'_, Run>, run: &mut Run) -> Outcome {
        ctx.set_terminator(Terminator::own(LINE_MAX));
        ctx.net.throttle(ctx.key, run.printer);
        Ok(())
    }

    /// Where the next line ends; we do not wait for a line that does not end.
    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(match input.iter().position(|byte| *byte == b'\n') {
            Some(at) => Step::Frame { bytes: 0..at, consumed: at + 1 },
            None if input.len() == LINE_MAX => Step::Frame { bytes: 0..LINE_MAX, consumed: LINE_MAX },
            None => Step::Need(input.len() + 1),
        })
    }

    fn frame(&mut self, ctx: &mut Context<'_, Run>, run: &mut Run, line: &[u8]) -> Outcome {
        if run.status.is_some() {
            run.came_late += line.len() + 1;
        }
        self.print(ctx, run, line);
        Ok(())
    }

    /// The last line may have no end.
    fn eof(&mut self, ctx: &mut Context<'_, Run>, run: &mut Run, tail: &[u8]) -> Outcome {
        if !tail.is_empty() {
            self.print(ctx, run, tail);
        }
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Run>, run: &mut Run, why: Reason) {
        if let Reason::Detached(rest) = why {
            // If a process writes faster than we print, this is more than a line.
            for line in rest.unread.split_inclusive(|byte| *byte == b'\n') {
                self.print(ctx, run, line.strip_suffix(b"\n").unwrap_or(line));
            }
        }
        run.outputs.retain(|&output| output != ctx.key);
        run.finish_if_over(&mut ctx.net);
    }
}

/// Standard output.
struct Printer;

impl Protocol<Run> for Printer {
    /// The reader of our output has gone, so nobody reads the command either; it finds out when it goes on writing.
    fn closed(&mut self, ctx: &mut Context<'_, Run>, run: &mut Run, why: Reason) {
        if let Reason::Io(error) = why {
            run.unwritten = Some(error);
        }
        for &output in &run.outputs {
            ctx.net.abort(output);
        }
        if run.is_over() {
            ctx.net.stop();
        }
    }
}

fn start(mut command: impl Iterator<Item = OsString>) -> Result<Child, Failure> {
    let program = command.next().ok_or_else(|| misused("COMMAND is missing: the command to run"))?;
    let spawned = Command::new(&program).args(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    spawned.map_err(|error| format!("cannot run '{}': {error}", program.to_string_lossy()).into())
}

/// Runs the command to its end.
pub(crate) fn run() -> Result<u8, Failure> {
    let Some(mut given) = arguments(HELP, usize::MAX, &[])? else { return Ok(0) };
    let mut reactor = Reactor::with_config(patient())?;
    let mut net = reactor.net();
    let printer = net.adopt(Adopted::stdout()?, Printer)?;
    let mut child = start(std::iter::from_fn(|| given.word()))?;
    let out = net.adopt(Adopted::reader(child.stdout.take().expect("piped")), Output { mark: "out" })?;
    let err = net.adopt(Adopted::reader(child.stderr.take().expect("piped")), Output { mark: "err" })?;
    let child = net.wait_child(child, |net, run: &mut Run, status| {
        run.status = Some(status);
        run.finish_if_over(net);
        net.after(PATIENCE, |net, run| Run::wait_for_others(net, run, None));
    })?;
    // A terminal sends Ctrl-C to both of us already.
    let is_told_too = io::stdin().is_terminal();
    net.on_signal(&[SIGINT, SIGTERM], move |net, _, signal| {
        if signal != SIGINT || !is_told_too {
            net.signal_child(child, signal);
        }
    })?;

    let mut run = Run { printer, outputs: vec![out, err], status: None, came_late: 0, unwritten: None };
    reactor.run(&mut run)?;
    match (run.unwritten, run.status) {
        (Some(error), _) => Err(unwritten(error)),
        (None, Some(status)) => Ok(exit_status(status?)),
        (None, None) => unreachable!("it runs until the command has ended"),
    }
}

fn exit_status(of: ExitStatus) -> u8 {
    let status = of.code().or(of.signal().map(|signal| 128 + signal));
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(1)
}
