//! Notes in a relational database, for many clients at a time. A database blocks, and the loop must not: each request is
//! worked out on another thread, by `Answer::later`, and its answer comes in its turn.

#[path = "../../common/mod.rs"]
mod common;
#[path = "../../common/printable.rs"]
mod printable;
mod store;

use common::{Failure, announce, arguments, drain_on_interrupt, exit, listening, misused};
use mainspring::{Answer, Config, Context, Fault, Limit, Listen, Outcome, Reactor, RequestHandler, Terminator};
use printable::printable;
use std::{
    fmt::Write,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::{Note, Store};

const HELP: &str = "\
Keeps notes in a database.

usage: notes FILE [ADDR]

FILE is the database, which is made if it is not there. ADDR is IP:PORT (port 0:
any free one) or unix:/path; 127.0.0.1:7016 if it is not given. A request is a
line:

  add TEXT      OK ID, when the note is committed: from then on nothing loses it
  list [ID]     the notes after that one, each ID TEXT, at most 100; then OK and
                how many
  find TEXT     the notes that have TEXT in them; the same

and what goes wrong is answered with ERROR and why, a request of more than 4096
bytes too. Who for 10 minutes says nothing, takes none of its answers or does
not finish a request is let go. Ctrl-C lets requests that have come finish
first.";

/// Longer requests are refused.
const LINE_MAX: usize = 4096;

/// Who says nothing for so long, or takes so long for a request, is let go.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// After Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// What the program has one of. A connection to a database is for one thread at a time.
struct Notes {
    store: Arc<Mutex<Store>>,
}

struct Client;

impl RequestHandler<Notes> for Client {
    fn setup(&mut self, ctx: &mut Context<'_, Notes>, _: &mut Notes) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        ctx.set_idle_timeout(IDLE_MAX);
        ctx.set_frame_timeout(IDLE_MAX);
        ctx.set_stall_timeout(IDLE_MAX);
        Ok(())
    }

    fn handle(&mut self, ctx: &mut Context<'_, Notes>, notes: &mut Notes, line: &[u8]) -> Result<Answer<Self, Notes>, Fault> {
        ctx.set_deadline(None); // if the request before was too long, that has ended
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(why) => return Ok(Answer::now(format!("ERROR {why}\n"))),
        };
        let store = Arc::clone(&notes.store);
        let work = move || request.run(&store.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Answer::later(work, |_, _, _, done| {
            Ok(match done {
                Ok(Ok(text)) => Answer::now(text),
                Ok(Err(error)) => Answer::now(format!("ERROR {error}\n")),
                Err(error) => Answer::now(format!("ERROR {error}\n")), // too much to do; nothing was done
            })
        }))
    }

    /// Too long a request is answered, and what remains of it skipped. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, Notes>, _: &mut Notes, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "ERROR a request has at most {LINE_MAX} bytes; nothing was done");
        ctx.set_deadline(IDLE_MAX); // for that rest, which may have no end
        Ok(())
    }
}

enum Request {
    Add(String),
    List(i64),
    Find(String),
}

impl Request {
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let line = std::str::from_utf8(line).map_err(|_| "a request is a line of UTF-8")?;
        if printable(line) != line {
            return Err("a request has no control characters, and no others that cannot be seen");
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (verb, rest.trim()) {
            ("list", "") => Ok(Self::List(0)),
            ("list", id) => id.parse().map(Self::List).map_err(|_| "list [ID]: an ID is a number"),
            ("add" | "find", "") => Err("a TEXT is missing"),
            ("add", text) => Ok(Self::Add(text.to_owned())),
            ("find", text) => Ok(Self::Find(text.to_owned())),
            _ => Err("add TEXT, list [ID] or find TEXT"),
        }
    }

    /// On another thread.
    fn run(self, store: &Store) -> rusqlite::Result<String> {
        match self {
            Self::Add(text) => store.add(&text).map(|id| format!("OK {id}\n")),
            Self::List(after) => store.list(after).map(|notes| shown(&notes)),
            Self::Find(text) => store.find(&text).map(|notes| shown(&notes)),
        }
    }
}

fn shown(notes: &[Note]) -> String {
    let mut text = String::new();
    for note in notes {
        let _ = writeln!(text, "{} {}", note.id, note.text); // into a String, which takes all
    }
    text + &format!("OK {}\n", notes.len())
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 2, &[])? else { return Ok(()) };
    let file = given.path("FILE")?.ok_or_else(|| misused("a FILE is missing"))?;
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7016".into());
    let store = Store::open(&file).map_err(|error| format!("cannot open '{}': {error}", file.display()))?;
    // One connection to the database, so one thread is enough.
    let mut reactor = Reactor::with_config(Config::new().offload_threads(1))?;
    drain_on_interrupt(&reactor, GRACE)?;
    let listener = listening(reactor.net().serve(at, Listen::new(), || Client))?;
    announce(&reactor.net(), listener)?;
    Ok(reactor.run(&mut Notes { store: Arc::new(Mutex::new(store)) })?)
}
