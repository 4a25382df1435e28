//! The client: asks a line, shows the answer, asks the next.
//!
//! Reading standard input blocks, so a thread does that. It posts each line into the loop, and waits until the loop says
//! that it was answered: so the prompt comes after the answer, and no more than one line is ever under way.

use crate::{
    common::{Failure, say, stop_on_interrupt},
    server::LINE_MAX,
};
use mainspring::{Context, Key, Outcome, Protocol, Reactor, Reason, Remote, Terminator};
use std::{
    io::{self, Write},
    iter,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// What the program has one of: how it will end.
type Ending = Result<(), Failure>;

struct Client {
    /// Connected, or answered: the thread may ask.
    ready: SyncSender<()>,
    /// The last line on the terminal is a prompt, as long as nothing comes.
    prompts: bool,
}

impl Protocol<Ending> for Client {
    fn connected(&mut self, ctx: &mut Context<'_, Ending>, _: &mut Ending) -> Outcome {
        ctx.set_terminator(Terminator::line(2 * LINE_MAX));
        Ok(self.ready.try_send(())?)
    }

    fn frame(&mut self, _: &mut Context<'_, Ending>, _: &mut Ending, answer: &[u8]) -> Outcome {
        writeln!(io::stdout(), "{}", String::from_utf8_lossy(answer))?;
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
            why if why.is_connect() => Err(why.to_string().into()),
            why => Err(format!("lost the server {}: {why}", ctx.peer()).into()),
        };
    }
}

/// Asks `text`, or what is typed.
pub(crate) fn ask(server: String, text: Option<String>) -> Ending {
    let mut reactor = Reactor::new()?;
    stop_on_interrupt(&reactor)?;
    let (ready, may_ask) = sync_channel(1);
    let server = reactor.net().connect(server, Client { ready, prompts: text.is_none() });
    let remote = reactor.remote();
    thread::spawn(move || match text {
        Some(text) => ask_all(text.split('\n').map(|line| Ok(line.to_owned())), server, &remote, &may_ask),
        None => ask_all(iter::from_fn(|| prompt().transpose()), server, &remote, &may_ask),
    });
    let mut ending = Ok(());
    reactor.run(&mut ending)?;
    ending
}

/// The thread: a line each time the loop is ready for one. It ends with the lines, or with the client.
fn ask_all(mut lines: impl Iterator<Item = io::Result<String>>, server: Key, remote: &Remote<Ending>, may_ask: &Receiver<()>) {
    while may_ask.recv().is_ok() {
        let line = lines.next();
        let posted = remote.post(move |net, _| {
            match line {
                Some(Ok(line)) => net.send(server, line + "\n"),
                Some(Err(error)) => net.fail(server, format!("cannot read standard input: {error}")),
                None => net.close(server),
            };
        });
        if posted.is_err() {
            return;
        }
    }
}

/// A line of standard input; `None` at an empty one, or at the end.
fn prompt() -> io::Result<Option<String>> {
    let mut stdout = io::stdout();
    write!(stdout, "> ")?;
    stdout.flush()?;
    let mut line = String::new();
    if io::stdin().read_line(&mut line)? == 0 {
        writeln!(stdout)?; // nobody has pressed Enter behind the prompt
    }
    let line = line.trim_end_matches(['\r', '\n']);
    Ok((!line.is_empty()).then(|| line.to_owned()))
}
