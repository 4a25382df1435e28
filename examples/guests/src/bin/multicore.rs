//! Several reactors, one a thread, at one port: the kernel spreads the connections (SO_REUSEPORT). What one client says is told
//! to all, across threads by `Remote`; a count that all threads share is an atomic number.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../../../common/printable.rs"]
mod printable;

use common::{Failure, arguments, exit, listening, misused, on_interrupt, print, say};
use mainspring::{Address, Config, Context, Key, Listen, Net, Outcome, Protocol, Reactor, Reason, Remote, Target, Terminator};
use printable::printable;
use std::{
    collections::BTreeSet,
    num::NonZero,
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

const HELP: &str = "\
Tells every client what all others say, each with a number. Several threads
serve the clients, each with an event loop of its own, and share the port.

usage: multicore [--threads N] [ADDR]

ADDR is IP:PORT (port 0: any free one); the default is 127.0.0.1:7009. N is from
1 to 64; the default is the number of processors. Then, in two other terminals:
nc 127.0.0.1 7009

If 10,000 lines of other threads wait for a thread, it misses further ones.
Ctrl-C ends all threads: what is under way has two seconds to finish.";

const GRACE: Duration = Duration::from_secs(2);
const LINE_MAX: usize = 1024;

/// How many lines of one thread may wait for another. A mailbox has no bound of its own, so the sender must keep one.
const WAITING_MAX: usize = 10_000;

// ---------------------------------------------------------------------------------------------------- of each thread

/// The state of a thread.
struct Shard {
    members: BTreeSet<Key>,
    /// How many clients it had.
    came: u64,
    others: Vec<Other>,
    /// The only thing that all threads write.
    said: Arc<AtomicU64>,
}

/// Another thread, as seen from this one.
struct Other {
    remote: Remote<Shard>,
    /// Lines of ours that it has not passed on yet.
    waiting: Arc<AtomicUsize>,
}

impl Shard {
    /// Sends a line to all clients of this thread: one buffer, queued by reference.
    fn tell(&self, net: &mut Net<'_, Shard>, text: &[u8]) {
        let text: Rc<[u8]> = text.into();
        for &member in &self.members {
            net.send_shared(member, &text);
        }
    }

    /// Sends a line to all other threads. An `Rc` cannot leave its thread, an `Arc` can.
    fn tell_others(&self, text: &Arc<[u8]>) {
        for Other { remote, waiting } in &self.others {
            if waiting.load(Ordering::Relaxed) >= WAITING_MAX {
                continue;
            }
            waiting.fetch_add(1, Ordering::Relaxed);
            let (text, waiting) = (Arc::clone(text), Arc::clone(waiting));
            let _ = remote.post(move |net, shard| {
                waiting.fetch_sub(1, Ordering::Relaxed);
                shard.tell(net, &text);
            }); // an error: that thread has ended
        }
    }
}

struct Member;

impl Protocol<Shard> for Member {
    fn connected(&mut self, ctx: &mut Context<'_, Shard>, shard: &mut Shard) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        shard.members.insert(ctx.key);
        shard.came += 1;
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Shard>, shard: &mut Shard, line: &[u8]) -> Outcome {
        let number = shard.said.fetch_add(1, Ordering::Relaxed) + 1;
        let text = format!("{number}: {}\n", printable(&String::from_utf8_lossy(line)));
        shard.tell(&mut ctx.net, text.as_bytes());
        shard.tell_others(&text.into_bytes().into());
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Shard>, shard: &mut Shard, _: Reason) {
        shard.members.remove(&ctx.key);
    }
}

/// What a thread reports when it listens: its `Remote`, and its address.
type Ready = (Remote<Shard>, Address);

/// A thread from its beginning to its end; returns how many clients it had. A reactor stays in the thread that makes it.
fn serve(at: &Target, said: Arc<AtomicU64>, ready: &Sender<Ready>) -> Result<u64, Failure> {
    // A few lines of each client in a turn, so that output leaves before a single client has filled the queues of the readers.
    let mut reactor = Reactor::with_config(Config::new().turn_frames(16))?;
    let listener = listening(reactor.net().listen_with(at.clone(), Listen::new().reuse_port(), |_, _, _| Ok(Member)))?;
    let local = reactor.net().local(listener).expect("it listens").clone();
    let _ = ready.send((reactor.remote(), local)); // an error: the main thread has failed meanwhile
    let mut shard = Shard { members: BTreeSet::new(), came: 0, others: Vec::new(), said };
    reactor.run(&mut shard)?;
    Ok(shard.came)
}

// --------------------------------------------------------------------------------------------------- all of them

type Thread = thread::JoinHandle<Result<u64, Failure>>;

/// Starts one more thread. `None` if it could not listen: then it has ended, and reports why.
fn start(at: impl Into<Target>, said: &Arc<AtomicU64>) -> (Thread, Option<Ready>) {
    let (at, said) = (at.into(), Arc::clone(said));
    let (sender, receiver): (_, Receiver<Ready>) = channel();
    let thread = thread::spawn(move || serve(&at, said, &sender));
    (thread, receiver.recv().ok())
}

/// Tells each thread how to reach all others.
fn introduce(remotes: &[Remote<Shard>]) {
    for (number, remote) in remotes.iter().enumerate() {
        let others = remotes.iter().enumerate().filter(|(other, _)| *other != number);
        let others = others.map(|(_, remote)| Other { remote: remote.clone(), waiting: Arc::default() }).collect();
        let _ = remote.post(move |_, shard| shard.others = others); // an error: it has ended, and reports why
    }
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Failure> {
    let Some(mut given) = arguments(HELP, 1, &["threads"])? else { return Ok(()) };
    let at = given.text()?.unwrap_or_else(|| "127.0.0.1:7009".into());
    let count = given.number("threads", 1..=64)?;
    let count = count.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get).min(64));
    if at.starts_with("unix:") {
        return Err(misused("ADDR must be IP:PORT: threads can share a port, but not a path"));
    }

    let said = Arc::default();
    let (first, ready) = start(at, &said);
    let mut threads = vec![first];
    let mut remotes = Vec::new();
    if let Some((remote, local)) = ready {
        remotes.push(remote);
        // The others use the first one's address, because port 0 would give each a different one.
        while remotes.len() < count {
            let (thread, ready) = start(local.ip().expect("a port"), &said);
            threads.push(thread);
            let Some((remote, _)) = ready else { break };
            remotes.push(remote);
        }
        if remotes.len() == count {
            introduce(&remotes);
            let all = remotes.clone();
            on_interrupt(move |_| all.iter().try_for_each(|remote| remote.post(|net, _| net.drain(GRACE))))?;
            print(format_args!("listening on {local}"))?;
        }
    }
    if remotes.len() < count {
        for remote in &remotes {
            let _ = remote.stop(); // an error: it has ended already
        }
    }
    drop(remotes);
    let mut came = Vec::new();
    for thread in threads {
        came.push(thread.join().expect("it does not panic")?.to_string());
    }
    say(format_args!("{} lines; connections of each thread: {}", said.load(Ordering::Relaxed), came.join(", ")));
    Ok(())
}
