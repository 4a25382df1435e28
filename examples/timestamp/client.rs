//! The client: sends a line, shows the answer, sends the next.
//!
//! Reading standard input blocks, so a thread does that. It posts each line into the loop, and waits until the loop says that
//! there was an answer. So the prompt comes after the answer, and there is never more than one line under way.

use crate::{
    common::{Failure, is_misused, misused, print, put, say, stop_on_interrupt},
    printable::printable,
    server::LINE_MAX,
};
use mainspring::{Connect, Context, Key, Limit, Outcome, Protocol, Reactor, Reason, Remote, Target, Terminator};
use std::{
    io::{self, IsTerminal},
    iter,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

/// How long connecting may take, and an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the program: how it will end.
type Ending = Result<(), Failure>;

struct Client {
    /// Tells the thread that it may ask: we are connected, or the answer has come.
    ready: SyncSender<()>,
    /// Whether the last line on the terminal is a prompt.
    prompts: bool,
    timeout: Duration,
}

impl Protocol<Ending> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Ending>, _: &mut Ending) -> Outcome {
        ctx.set_terminator(Terminator::line(2 * LINE_MAX));
        Ok(self.ready.try_send(())?)
    }

    fn frame(&mut self, ctx: &mut Context<'_, Ending>, _: &mut Ending, answer: &[u8]) -> Outcome {
        ctx.set_deadline(None);
        print(printable(&String::from_utf8_lossy(answer)))?;
        self.ready.try_send(()).map_err(|_| "the server answered more than it was asked")?;
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ending>, ending: &mut Ending, why: Reason) {
        ctx.net.stop();
        if self.prompts && !why.is_connect() && !matches!(why, Reason::Finish) {
            say("");
        }
        *ending = match why {
            Reason::Finish => Ok(()),
            Reason::Failed(fault) => Err(fault),
            Reason::Resolve(error) if is_misused(&error) => Err(misused(error)),
            Reason::Limit(Limit::Deadline) => {
                Err(format!("the server {} has not answered for {} seconds", ctx.peer(), self.timeout.as_secs()).into())
            }
            why if why.is_connect() => Err(why.to_string().into()),
            why => Err(format!("lost the server {}: {why}", ctx.peer()).into()),
        };
    }
}

/// Asks `text`, or what you type.
pub(crate) fn ask(server: Target, text: Option<String>, timeout: Duration) -> Ending {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let (ready, may_ask) = sync_channel(1);
    let prompts = text.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal();
    let how = Connect::new().timeout(timeout);
    let server = reactor.net().connect_with(server, how, Client { ready, prompts, timeout });
    let remote = reactor.remote();
    thread::spawn(move || {
        let asking = Asking { server, timeout, remote, may_ask };
        match text {
            Some(text) => asking.ask_all(text.split('\n').map(|line| Ok(line.to_owned()))),
            None => asking.ask_all(iter::from_fn(|| next_line(prompts).transpose())),
        }
    });
    let mut ending = Ok(());
    reactor.run(&mut ending)?;
    ending
}

/// The thread.
struct Asking {
    server: Key,
    timeout: Duration,
    remote: Remote<Ending>,
    may_ask: Receiver<()>,
}

impl Asking {
    /// Posts a line each time the loop is ready for one. It ends with the lines, or with the client.
    fn ask_all(&self, mut lines: impl Iterator<Item = Result<String, Failure>>) {
        let &Self { server, timeout, .. } = self;
        while self.may_ask.recv().is_ok() {
            let line = lines.next();
            let posted = self.remote.post(move |net, _| {
                let Some(mut link) = net.link(server) else { return };
                match line {
                    Some(Ok(line)) => {
                        link.set_deadline(timeout);
                        link.send(line + "\n");
                    }
                    Some(Err(why)) => link.fail(why),
                    None => link.close(),
                }
            });
            if posted.is_err() {
                return;
            }
        }
    }
}

/// A line of standard input; `None` at an empty one, or at the end.
fn next_line(prompts: bool) -> Result<Option<String>, Failure> {
    if prompts {
        put("> ")?;
    }
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line).map_err(|error| format!("cannot read standard input: {error}"))?;
    if prompts && read == 0 {
        put("\n")?; // nobody has pressed Enter after the prompt
    }
    let line = line.trim_end_matches(['\r', '\n']);
    Ok((!line.is_empty()).then(|| line.to_owned()))
}
