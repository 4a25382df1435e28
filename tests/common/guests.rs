//! A reactor with a journal, the guests that it lets in, and what a test asks of them.

use super::{Call, Journal, PATIENCE, Recorder, dial, listen, recorder, settle, until};
use mainspring::{Config, Context, Key, Net, Outcome, Protocol, Reactor, Reason, Terminator};
use std::{
    cell::Cell,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    time::{Duration, Instant},
};

/// More than the kernel takes on a loopback connection whose other end does not read.
pub(crate) const STUFF: usize = 16 << 20;

/// More than any kernel keeps for one connection.
pub(crate) const HUGE: usize = 50 << 20;

pub(crate) const TICK: Duration = Duration::from_millis(5);
pub(crate) const SHORT: Duration = Duration::from_millis(15);
pub(crate) const LONG: Duration = Duration::from_millis(60);

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) const FINISHED: &str = "finished";
pub(crate) const PEER_FINISHED: &str = "the peer finished";
pub(crate) const ABORTED: &str = "aborted";
pub(crate) const SHUT_DOWN: &str = "the reactor was shut down";

pub(crate) type Ctx<'a> = Context<'a, Journal>;
pub(crate) type On = fn(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome;

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn start() -> (Reactor<Journal>, Journal) {
    start_with(Config::new().wait_for_lingering(false)) // most peers here never end
}

pub(crate) fn start_with(config: Config) -> (Reactor<Journal>, Journal) {
    (Reactor::with_config(config).expect("a selector"), Journal::default())
}

/// An accepted connection that has had its `connected`, and its peer.
pub(crate) fn guest<F>(reactor: &mut Reactor<Journal>, journal: &mut Journal, on: F) -> (Key, TcpStream)
where
    F: FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static,
{
    let (listener, addr) = listen(reactor, move || recorder(on.clone()));
    let before = journal.calls.len();
    let peer = dial(addr);
    let key = next_connected(reactor, journal, before);
    reactor.net().close(listener);
    (key, peer)
}

/// Who is connected next, after this many calls.
pub(crate) fn next_connected(reactor: &mut Reactor<Journal>, journal: &mut Journal, before: usize) -> Key {
    let is_new = |(_, call): &&(Key, Call)| *call == Call::Connected;
    until(reactor, journal, |journal| journal.calls[before..].iter().any(|entry| is_new(&entry)));
    journal.calls[before..].iter().find(is_new).expect("it is connected").0
}

/// A connection that we open, and the listener that it goes to.
pub(crate) fn opened(reactor: &mut Reactor<Journal>, on: On) -> (Key, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let to = listener.local_addr().expect("it is bound");
    (reactor.net().connect(to, recorder(on)), listener)
}

/// A port that is taken, and where nobody listens.
pub(crate) fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().ok().and_then(|addr| addr.as_socket()).expect("it is bound");
    (socket, addr)
}

pub(crate) fn quiet(_: &mut Ctx<'_>, _: &mut Journal, _: &Call) -> Outcome {
    Ok(())
}

/// Does what a protocol does by default: it ends when its peer does, and when it takes too long.
pub(crate) fn by_default(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    match call {
        Call::Eof(_) => ctx.close(),
        Call::Exceeded(limit) => return Err((*limit).into()),
        _ => {}
    }
    Ok(())
}

/// Reads lines of up to a hundred bytes.
pub(crate) fn lines(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    if *call == Call::Connected {
        ctx.set_terminator(Terminator::line(100));
    }
    Ok(())
}

/// Sends back what it gets.
pub(crate) fn echo(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    if let Call::Received(bytes) = call {
        ctx.send(bytes);
    }
    Ok(())
}

/// Ends when its peer does.
pub(crate) fn hang_up(ctx: &mut Ctx<'_>, _: &mut Journal, call: &Call) -> Outcome {
    if let Call::Eof(_) = call {
        ctx.close();
    }
    Ok(())
}

/// Does nothing but what is so by default.
pub(crate) struct Nothing;

impl<S> Protocol<S> for Nothing {}

/// Sends back what it gets, in any state.
pub(crate) struct Echo;

impl<S> Protocol<S> for Echo {
    fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }
}

/// Everything but `received` and `closed` is as the crate has it.
pub(crate) struct Bare;

impl Protocol<Journal> for Bare {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal, why: Reason) {
        // Not its text: a boxed limit reads like the real one.
        journal.note(ctx.key, Call::Closed(format!("{why:?}")));
    }
}

/// Notes that it was dropped.
#[derive(Default)]
pub(crate) struct Stranger {
    pub(crate) dropped: Option<Rc<Cell<bool>>>,
}

impl Protocol<Journal> for Stranger {
    fn connected(&mut self, ctx: &mut Ctx<'_>, journal: &mut Journal) -> Outcome {
        journal.note(ctx.key, Call::Connected);
        Ok(())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped.set(true);
        }
    }
}

/// What a program gave away: it counts how often it was dropped, and panics then.
pub(crate) struct Bad(pub(crate) Rc<Cell<usize>>);

impl Drop for Bad {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        assert!(std::thread::panicking(), "in drop");
    }
}

/// Queues more than the kernel takes.
#[track_caller]
pub(crate) fn stuff(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key) {
    assert!(reactor.net().send(key, vec![b'.'; STUFF]));
    reactor.turn(journal, Duration::ZERO).expect("the selector works");
    assert!(reactor.net().link(key).expect("it is open").is_congested(), "the kernel took it all");
}

/// One turn; whether anything is left.
pub(crate) fn turn<S>(reactor: &mut Reactor<S>, state: &mut S, wait_max: impl Into<Option<Duration>>) -> bool {
    reactor.turn(state, wait_max).expect("the selector works")
}

/// Turns until this much time has passed by the loop's own clock.
pub(crate) fn pass<S>(reactor: &mut Reactor<S>, state: &mut S, time: Duration) {
    let over = Rc::new(Cell::new(false));
    let rings = Rc::clone(&over);
    reactor.net().after(time, move |_, _| rings.set(true));
    until(reactor, state, |_| over.get());
}

/// Turns until a turn says that nothing is left.
pub(crate) fn run_out<S>(reactor: &mut Reactor<S>, state: &mut S) {
    let began = Instant::now();
    while reactor.turn(state, TICK).expect("the selector works") {
        assert!(began.elapsed() < PATIENCE, "something is left for ever");
    }
}

/// With this many milliseconds to wait, a turn takes them all: the loop does not spin.
#[track_caller]
pub(crate) fn assert_sleeps<S>(reactor: &mut Reactor<S>, state: &mut S) {
    settle(reactor, state);
    // A process that is stopped, or frozen with its machine, wakes up early once or twice; a loop that spins always does.
    assert!((0..3).any(|_| sleeps(reactor, state)), "woke up early, three times");
}

fn sleeps<S>(reactor: &mut Reactor<S>, state: &mut S) -> bool {
    let (began, wait) = (Instant::now(), Duration::from_millis(30));
    reactor.turn(state, wait).expect("the selector works");
    began.elapsed() >= wait
}

/// Also when nothing came in between.
#[track_caller]
pub(crate) fn assert_sleeps_at_once<S>(reactor: &mut Reactor<S>, state: &mut S) {
    assert!(sleeps(reactor, state), "woke up early");
}

pub(crate) fn closing_of(journal: &Journal, key: Key) -> Option<String> {
    journal.of(key).into_iter().find_map(|call| if let Call::Closed(why) = call { Some(why) } else { None })
}

pub(crate) fn is_closed(journal: &Journal, key: Key) -> bool {
    closing_of(journal, key).is_some()
}

#[track_caller]
pub(crate) fn ends_with(reactor: &mut Reactor<Journal>, journal: &mut Journal, key: Key, why: &str) {
    until(reactor, journal, |journal| is_closed(journal, key));
    assert_eq!(closing_of(journal, key).as_deref(), Some(why));
}

/// How often one of them was called like this.
pub(crate) fn count(journal: &Journal, key: Key, wanted: &Call) -> usize {
    journal.of(key).iter().filter(|call| *call == wanted).count()
}

pub(crate) fn unread(reactor: &mut Reactor<Journal>, key: Key) -> usize {
    reactor.net().link(key).map_or(0, |link| link.unread())
}

/// Writes something down that is no call, as a frame.
pub(crate) fn note(journal: &mut Journal, key: Key, text: impl Into<String>) {
    journal.note(key, Call::Frame(text.into().into_bytes()));
}

/// One whose protocol is a plain recorder writes this down.
pub(crate) fn tell(net: &mut Net<'_, Journal>, key: Key, text: &'static str) -> bool {
    net.tell(key, move |_: &mut Recorder<On>, ctx, journal| {
        note(journal, ctx.key, text);
        Ok(())
    })
}

pub(crate) fn post(net: &mut Net<'_, Journal>, key: Key, text: &'static str) {
    net.post(move |_, journal| note(journal, key, text));
}

pub(crate) fn frame(bytes: impl AsRef<[u8]>) -> Call {
    Call::Frame(bytes.as_ref().to_vec())
}

pub(crate) fn closed(why: &Reason) -> Call {
    Call::Closed(why.to_string())
}

/// One accepted connection, which is connected, and its peer.
pub(crate) struct Talk {
    pub(crate) reactor: Reactor<Journal>,
    pub(crate) journal: Journal,
    pub(crate) listener: Key,
    pub(crate) key: Key,
    pub(crate) peer: TcpStream,
}

impl Talk {
    pub(crate) fn new(on: impl FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static) -> Self {
        Self::with(Config::new(), on)
    }

    pub(crate) fn with(config: Config, on: impl FnMut(&mut Ctx<'_>, &mut Journal, &Call) -> Outcome + Clone + 'static) -> Self {
        let (mut reactor, mut journal) = start_with(config);
        let (listener, addr) = listen(&mut reactor, move || recorder(on.clone()));
        let peer = dial(addr);
        until(&mut reactor, &mut journal, |journal| !journal.calls.is_empty());
        let key = journal.calls[0].0;
        Self { reactor, journal, listener, key, peer }
    }

    /// With a terminator that is set from outside, and nothing else.
    pub(crate) fn cut_by(terminator: Terminator) -> Self {
        let mut talk = Self::new(by_default);
        let key = talk.key;
        talk.reactor.net().link(key).expect("it is open").set_terminator(terminator);
        talk
    }

    #[track_caller]
    pub(crate) fn until(&mut self, done: impl FnMut(&mut Journal) -> bool) {
        until(&mut self.reactor, &mut self.journal, done);
    }

    pub(crate) fn turn(&mut self) {
        turn(&mut self.reactor, &mut self.journal, Duration::ZERO);
    }

    pub(crate) fn settle(&mut self) {
        settle(&mut self.reactor, &mut self.journal);
    }

    /// What it was called with after `connected`.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.journal.of(self.key).split_off(1)
    }

    pub(crate) fn unread(&mut self) -> usize {
        self.reactor.net().link(self.key).expect("it is open").unread()
    }

    pub(crate) fn is_congested(&mut self) -> bool {
        self.reactor.net().link(self.key).expect("it is open").is_congested()
    }

    pub(crate) fn queued(&mut self) -> usize {
        self.reactor.net().link(self.key).expect("it is open").queued()
    }

    /// A loop that spins never does; one that has just been written to may be woken once or twice more.
    #[track_caller]
    pub(crate) fn assert_sleeps(&mut self) {
        let wait = Duration::from_millis(10);
        let sleeps = (0..200).filter(|_| {
            let began = Instant::now();
            turn(&mut self.reactor, &mut self.journal, wait);
            began.elapsed() >= wait
        });
        assert_eq!(sleeps.take(3).count(), 3, "of 200 turns hardly one has waited: the loop spins");
    }
}
