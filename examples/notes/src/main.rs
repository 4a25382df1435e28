//! Notes in a relational database, for many clients at a time. A database blocks, and the loop must not: another thread works
//! on each request, by `Answer::later`, and the answers come in order.

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
Keeps notes in a database, for many clients.

usage: notes FILE [ADDR]

FILE is the database, which is made if it does not exist. ADDR is IP:PORT (port
0: any free one) or unix:/path; the default is 127.0.0.1:7016. A request is a
line:

  add TEXT      adds a note; the answer is OK ID, once it is safe on the disk
  list [ID]     the notes after that one, as ID TEXT, at most 100; then OK and
                their number
  find TEXT     the notes that have TEXT in them, in the same way

If something goes wrong, the answer is ERROR and the reason; so it is if a
request has more than 4096 bytes. A client that says nothing, reads none of its
answers or does not finish a request for 10 minutes is disconnected. Ctrl-C
finishes the requests that have come, and then ends.";

/// A longer request is refused.
const LINE_MAX: usize = 4096;

/// A client that says nothing for this long, or takes this long for a request, is disconnected.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// After Ctrl-C, the time for requests to finish.
const GRACE: Duration = Duration::from_secs(10);

/// The state of the program. A connection to a database is for one thread at a time.
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
        ctx.set_deadline(None); // a request that was too long has ended
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
                Err(error) => Answer::now(format!("ERROR {error}\n")), // there is too much to do, so nothing was done
            })
        }))
    }

    /// A request that is too long is answered, and the rest of it skipped. Any other limit ends the connection.
    fn exceeded(&mut self, ctx: &mut Context<'_, Notes>, _: &mut Notes, limit: Limit) -> Outcome {
        if limit != Limit::FrameBytes {
            return Err(limit.into());
        }
        writeln!(ctx, "ERROR a request has at most {LINE_MAX} bytes; nothing was done");
        ctx.set_deadline(IDLE_MAX); // for the rest, which may never end
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
            return Err("a request must not have control characters, nor other invisible ones");
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

    /// Runs on another thread.
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
        let _ = writeln!(text, "{} {}", note.id, note.text); // a String takes everything
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
