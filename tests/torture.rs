//! Torture: each scenario is run once unharmed, counting the operations of each host, and then again with the n-th
//! operation failing, for every n, with every errno, once and for good. Whatever fails, the promises hold: the grammar of
//! calls, `closed` once and last, bytes that are a prefix of those sent, no socket left, nothing that spins.
//!
//! A scenario is a function of a [`Stage`], which is a simulation or the loopback; tests/agree.rs runs the same ones on
//! both, and has this file as a module.
#![cfg(feature = "sim")]
#![allow(dead_code)] // as a module it is used for its other half

#[allow(dead_code)] // it also knows of sources
#[path = "common/local.rs"]
mod local;
#[path = "torture/adopting.rs"]
mod adopting;
#[path = "torture/datagrams.rs"]
mod datagrams;
#[cfg(feature = "tls")]
#[path = "torture/secured.rs"]
mod secured;
#[cfg(feature = "tls")]
#[path = "common/tls.rs"]
mod configs;

#[allow(unused_imports)] // as a module it does not run what is for the simulation only
use adopting::two_pipes;
use adopting::{an_adopted_pair, given_back_and_adopted_again};
use datagrams::{a_burst_of_datagrams, datagrams_there_and_back, datagrams_to_nobody};
use mainspring::{
    Address, Config, Connect, Context, Detached, Endian, Key, Limit, Listen, Net, OffloadError, Outcome, Panics, Produced,
    Protocol, Reactor, Reason, Terminator, Width,
    testing::{Errno, Fate, Host, NameFate, Sim, Weather},
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Where things are on a stage. Nobody needs more than three hosts.
pub(crate) const SERVER: usize = 0;
pub(crate) const CLIENT: usize = 1;
const THIRD: usize = 2;
const HOSTS: usize = 3;

/// The time-outs that a scenario waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

/// Nothing is idle or stalled for longer, so that also what fails for good comes to an end. Unharmed, it is never reached.
const GUARD: Duration = Duration::from_secs(5);

/// Nor does any connection live longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// More than this is spent on no scenario: of virtual time, and of the real one.
const ENOUGH: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// What a listener says by itself to those that it does not let in.
const REFUSAL: &[u8] = b"421 busy\n";

/// A transfer that takes many operations.
const BULK: usize = 200 << 10;

// ------------------------------------------------------------------------------------------------------- the journal

/// What a protocol was called with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    Connected,
    Received(Vec<u8>),
    Frame(Vec<u8>),
    Writable,
    Exceeded(String),
    Draining,
    Eof(Vec<u8>),
    /// One of its own timers.
    Alarm,
    /// A tell.
    Told(&'static str),
    Datagram(Vec<u8>),
    /// Its first bytes.
    Oversized(Vec<u8>),
    /// One that was sent has failed.
    Failed(std::io::ErrorKind),
    Closed(String),
}

impl Call {
    fn bytes(&self) -> usize {
        match self {
            Self::Received(bytes) | Self::Frame(bytes) | Self::Datagram(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Connected,
    Ended,
    Closed,
}

/// What is known of one connection. Each call is held against the grammar when it comes.
#[derive(Debug, Default)]
pub(crate) struct Page {
    label: &'static str,
    /// The label of its other end, where that has no address.
    faces: &'static str,
    calls: Vec<Call>,
    phase: Phase,
    /// Its successor's `connected` may come.
    is_upgrading: bool,
    /// It was closed, aborted, or has failed: only tells, and `closed`.
    has_ended: bool,
    was_congested: bool,
    /// Tells that were accepted.
    tells_due: u32,
    saw_end: bool,
    local: Option<Address>,
    peer: Option<Address>,
    sent: Vec<u8>,
    got: Vec<u8>,
    /// What it sends is what its partner was sent: that is looked at from end to end.
    passes_on: bool,
    /// Whoever breaks off ends it like one who ends.
    is_pipe: bool,
    /// It was connected, and goes on in TLS: that may fail.
    starts_tls: bool,
}

impl Page {
    fn note(&mut self, call: &Call) {
        let phase = self.phase;
        let fits = match call {
            Call::Connected => phase == Phase::New || (self.is_upgrading && phase != Phase::Closed),
            Call::Received(_) | Call::Frame(_) | Call::Eof(_) => phase == Phase::Connected,
            Call::Datagram(_) | Call::Oversized(_) | Call::Failed(_) => phase == Phase::Connected,
            Call::Writable | Call::Exceeded(_) | Call::Draining => matches!(phase, Phase::Connected | Phase::Ended),
            Call::Alarm | Call::Told(_) | Call::Closed(_) => phase != Phase::Closed,
        };
        assert!(fits, "{}: {call:?} does not fit in after {:?}", self.label, self.calls);
        let is_last = matches!(call, Call::Told(_) | Call::Closed(_));
        assert!(is_last || !self.has_ended, "{}: {call:?} after the end: {:?}", self.label, self.calls);
        match call {
            Call::Connected => (self.phase, self.is_upgrading, self.tells_due) = (Phase::Connected, false, 0),
            Call::Eof(_) => (self.phase, self.saw_end) = (Phase::Ended, true),
            Call::Closed(_) => self.phase = Phase::Closed,
            Call::Writable => {
                assert!(std::mem::take(&mut self.was_congested), "{}: writable, and it never was congested", self.label);
            }
            Call::Told(_) => {
                assert!(self.tells_due > 0, "{}: a tell that nobody sent", self.label);
                self.tells_due -= 1;
            }
            _ => {}
        }
        self.calls.push(call.clone());
    }

    /// What depends on nothing but what was said: pieces joined; without what tells of buffers and of our own clock.
    fn normalised(&self) -> Vec<Call> {
        let mut calls: Vec<Call> = Vec::new();
        for call in &self.calls {
            match (calls.last_mut(), call) {
                (_, Call::Writable | Call::Alarm) => {}
                (Some(Call::Received(all)), Call::Received(more)) => all.extend_from_slice(more),
                (_, call) => calls.push(call.clone()),
            }
        }
        calls
    }
}

thread_local! {
    /// Protocols that were made and not yet dropped.
    static ALIVE: Cell<i64> = const { Cell::new(0) };
}

/// Counts as one of them. In the simulation other threads are this one.
struct Alive;

impl Alive {
    fn one_more() -> Self {
        ALIVE.with(|alive| alive.set(alive.get() + 1));
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.with(|alive| alive.set(alive.get() - 1));
    }
}

/// The state of each host.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pages: BTreeMap<Key, Page>,
    /// Protocols that were handed to the loop, without successors.
    begun: usize,
    closed: usize,
    /// Who is in the chat room.
    room: Vec<Key>,
    /// Who belongs to whom in the proxy.
    pairs: BTreeMap<Key, Key>,
    has_shut: bool,
    /// Just now.
    given_back: Option<Detached>,
    /// What its clients speak.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<mainspring::TlsClient>,
}

impl Book {
    pub(crate) fn connect(&mut self, net: &mut Net<'_, Self>, to: &str, player: Player) -> Key {
        let how = Connect::new();
        #[cfg(feature = "tls")]
        let how = self.tls.iter().cloned().fold(how, Connect::tls);
        self.connect_with(net, to, how, player)
    }

    fn connect_with(&mut self, net: &mut Net<'_, Self>, to: &str, how: Connect, player: Player) -> Key {
        let label = player.label;
        let key = net.connect_with(to, how, player);
        self.begun += 1;
        self.pages.insert(key, Page { label, ..Page::default() });
        key
    }

    pub(crate) fn send(&mut self, net: &mut Net<'_, Self>, key: Key, bytes: impl AsRef<[u8]>) -> bool {
        let Some(mut link) = net.link(key) else { return false };
        let page = self.pages.entry(key).or_default();
        if link.send(&bytes) {
            page.sent.extend_from_slice(bytes.as_ref());
        }
        page.was_congested |= link.is_congested();
        true
    }

    fn tell(&mut self, net: &mut Net<'_, Self>, key: Key, what: &'static str) -> bool {
        let accepted = net.tell(key, move |player: &mut Player, ctx, book| player.call(ctx, book, Call::Told(what)));
        if accepted {
            self.pages.entry(key).or_default().tells_due += 1;
        }
        accepted
    }

    pub(crate) fn close(&mut self, net: &mut Net<'_, Self>, key: Key) {
        if net.close(key) {
            self.pages.entry(key).or_default().has_ended = true;
        }
    }

    pub(crate) fn abort(&mut self, net: &mut Net<'_, Self>, key: Key) {
        if net.abort(key) {
            self.pages.entry(key).or_default().has_ended = true;
        }
    }

    /// It was failed from outside.
    pub(crate) fn note_end(&mut self, key: Key) {
        self.pages.entry(key).or_default().has_ended = true;
    }

    /// How many of them were called so.
    pub(crate) fn count(&self, label: &str, is_it: impl Fn(&Call) -> bool) -> usize {
        self.pages.values().filter(|page| page.label == label).flat_map(|page| &page.calls).filter(|call| is_it(call)).count()
    }

    /// How many bytes those with this label were given.
    pub(crate) fn got(&self, label: &str) -> usize {
        self.pages.values().filter(|page| page.label == label).map(|page| page.got.len()).sum()
    }

    pub(crate) fn key_of(&self, label: &str) -> Option<Key> {
        self.pages.iter().find(|(_, page)| page.label == label && page.phase != Phase::New).map(|(&key, _)| key)
    }
}

// ---------------------------------------------------------------------------------------------------------- players

/// How the bytes are cut, as far as they can be put together again.
#[derive(Clone, Debug, Default)]
enum Cut {
    #[default]
    None,
    Lines,
    Prefixed,
    Until(&'static [u8]),
}

impl Cut {
    /// The bytes on the wire that a call stands for.
    fn undo(&self, call: &Call) -> Vec<u8> {
        match (call, self) {
            (Call::Received(bytes) | Call::Eof(bytes), _) => bytes.clone(),
            (Call::Frame(frame), Self::Lines) => [frame, &b"\n"[..]].concat(),
            (Call::Frame(frame), Self::Prefixed) => [&(frame.len() as u16).to_be_bytes(), &frame[..]].concat(),
            (Call::Frame(_), Self::Until(delimiter)) => delimiter.to_vec(),
            _ => Vec::new(),
        }
    }
}

type Role = Box<dyn FnMut(&mut Me<'_, '_>, &Call) -> Outcome>;

/// The one protocol of all scenarios: it writes down each call, and asks its role what to do.
pub(crate) struct Player {
    label: &'static str,
    cut: Cut,
    role: Role,
}

pub(crate) fn player(label: &'static str, role: impl FnMut(&mut Me<'_, '_>, &Call) -> Outcome + 'static) -> Player {
    std::mem::forget(Alive::one_more());
    Player { label, cut: Cut::None, role: Box::new(role) }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(Alive);
    }
}

impl Player {
    fn call(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book, call: Call) -> Outcome {
        let key = ctx.key;
        let page = book.pages.entry(key).or_default();
        if page.label.is_empty() {
            page.label = self.label;
        }
        page.note(&call);
        page.got.extend(self.cut.undo(&call));
        if call == Call::Connected {
            (page.local, page.peer) = (Some(ctx.local().clone()), Some(ctx.peer().clone()));
            ctx.set_idle_timeout(GUARD);
            ctx.set_stall_timeout(GUARD);
            ctx.set_deadline(DEADLINE);
        }
        let outcome = (self.role)(&mut Me { ctx, book, cut: &mut self.cut }, &call);
        let page = book.pages.entry(key).or_default();
        page.has_ended |= outcome.is_err();
        page.is_upgrading &= !page.has_ended;
        outcome
    }
}

impl Protocol<Book> for Player {
    fn connected(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book) -> Outcome {
        self.call(ctx, book, Call::Connected)
    }

    fn received(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book, bytes: &[u8]) -> Outcome {
        self.call(ctx, book, Call::Received(bytes.to_vec()))
    }

    fn frame(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book, frame: &[u8]) -> Outcome {
        self.call(ctx, book, Call::Frame(frame.to_vec()))
    }

    fn writable(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book) -> Outcome {
        self.call(ctx, book, Call::Writable)
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book, limit: Limit) -> Outcome {
        self.call(ctx, book, Call::Exceeded(format!("{limit:?}")))
    }

    fn draining(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book) -> Outcome {
        self.call(ctx, book, Call::Draining)
    }

    fn eof(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book, tail: &[u8]) -> Outcome {
        self.call(ctx, book, Call::Eof(tail.to_vec()))
    }

    fn closed(&mut self, ctx: &mut Context<'_, Book>, book: &mut Book, why: Reason) {
        // Addresses differ between the worlds.
        let text = match &why {
            Reason::Connect(error) => format!("could not connect: {:?}", error.kind()),
            why => why.to_string(),
        };
        let page = book.pages.entry(ctx.key).or_default();
        assert!(page.phase != Phase::New || page.has_ended || !why.is_clean(), "clean, and it never was connected");
        assert!(page.phase == Phase::New || page.starts_tls || !why.is_connect(), "connected, and could not be connected");
        assert!(page.tells_due == 0 || book.has_shut, "{}: a tell was accepted, and `closed` comes before it", page.label);
        book.closed += 1;
        if let Reason::Detached(detached) = why {
            book.given_back = Some(*detached);
        }
        let _ = self.call(ctx, book, Call::Closed(text));
    }
}

/// What a role is called with: its connection, and what is written down of what it does.
pub(crate) struct Me<'a, 'c> {
    pub(crate) ctx: &'a mut Context<'c, Book>,
    pub(crate) book: &'a mut Book,
    cut: &'a mut Cut,
}

impl Me<'_, '_> {
    fn page(&mut self) -> &mut Page {
        self.book.pages.entry(self.ctx.key).or_default()
    }

    /// How many bytes it was given so far.
    pub(crate) fn got(&mut self) -> usize {
        self.page().got.len()
    }

    /// What a protocol does that does not say.
    pub(crate) fn usual(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Exceeded(limit) => Err(limit.as_str().into()),
            Call::Eof(_) | Call::Draining => {
                self.close();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let key = self.ctx.key;
        self.book.send(&mut self.ctx.net, key, bytes);
    }

    fn send_to(&mut self, key: Key, bytes: impl AsRef<[u8]>) -> bool {
        self.book.send(&mut self.ctx.net, key, bytes)
    }

    fn send_prefixed(&mut self, bytes: &[u8]) {
        self.ctx.send_prefixed(Width::U16, Endian::Big, bytes);
        let page = self.page();
        page.sent.extend((bytes.len() as u16).to_be_bytes());
        page.sent.extend(bytes);
    }

    /// This many bytes, made as they are needed.
    fn produce(&mut self, bytes: usize) {
        let whole = pattern(bytes);
        self.page().sent.extend(&whole);
        self.page().was_congested = true;
        let mut at = 0;
        self.ctx.produce(move |out: &mut Vec<u8>| {
            let end = (at + (16 << 10)).min(whole.len());
            out.extend_from_slice(&whole[at..end]);
            at = end;
            Ok(if at == whole.len() { Produced::Done } else { Produced::More })
        });
    }

    pub(crate) fn close(&mut self) {
        self.ctx.close();
        self.page().has_ended = true;
    }

    pub(crate) fn abort(&mut self) {
        self.ctx.abort();
        self.page().has_ended = true;
    }

    pub(crate) fn lines(&mut self) {
        self.ctx.set_terminator(Terminator::line(4096));
        *self.cut = Cut::Lines;
    }

    fn prefixed(&mut self) {
        self.ctx.set_terminator(Terminator::prefixed(Width::U16, Endian::Big, 4096));
        *self.cut = Cut::Prefixed;
    }

    fn until(&mut self, delimiter: &'static [u8]) {
        self.ctx.set_terminator(Terminator::stream_until(delimiter));
        *self.cut = Cut::Until(delimiter);
    }

    fn upgrade(&mut self, next: Player) {
        self.ctx.upgrade(next);
        self.page().is_upgrading = true;
    }

    #[cfg(feature = "tls")]
    fn start_tls(&mut self, side: impl Into<mainspring::TlsSide>, next: Player) {
        let begins = self.ctx.net.link(self.ctx.key).is_some_and(|mut link| link.start_tls(side));
        if begins {
            self.page().starts_tls = true;
            self.upgrade(next);
        }
    }

    pub(crate) fn after(&mut self, delay: Duration) {
        self.ctx.after(delay, |player: &mut Player, ctx, book| player.call(ctx, book, Call::Alarm));
    }

    fn every(&mut self, period: Duration) {
        self.ctx.every(period, |player: &mut Player, ctx, book| player.call(ctx, book, Call::Alarm));
    }

    fn connect(&mut self, to: &str, player: Player) -> Key {
        self.book.connect(&mut self.ctx.net, to, player)
    }

    pub(crate) fn tell(&mut self, key: Key, what: &'static str) -> bool {
        self.book.tell(&mut self.ctx.net, key, what)
    }
}

/// Bytes of which no two neighbouring pieces are alike. Made once: tens of thousands of runs ask for them.
fn pattern(bytes: usize) -> Vec<u8> {
    static ALL: OnceLock<Vec<u8>> = OnceLock::new();
    let all = ALL.get_or_init(|| (0..1 << 20).map(|n: usize| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect());
    match all.get(..bytes) {
        Some(some) => some.to_vec(),
        None => all.iter().copied().cycle().take(bytes).collect(),
    }
}

// ------------------------------------------------------------------------------------------------------------ stages

/// Three hosts, simulated or on the loopback.
pub(crate) struct Stage {
    world: World,
    doors: Vec<(usize, Key)>,
    drip: Option<Drip>,
    /// Who accepts nobody for now.
    held: Option<usize>,
    /// What its listeners speak.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<mainspring::TlsServer>,
}

enum World {
    Simulated { sim: Box<Sim>, hosts: Vec<Host<Book>> },
    Real { hosts: Vec<(Reactor<Book>, Book)> },
}

/// Something that was listened on. Without a key it could not be.
pub(crate) struct Door {
    key: Option<Key>,
    pub(crate) address: String,
}

/// From the `at`-th operation of a host on everything goes in small pieces, for good or for a short while.
#[derive(Clone, Debug)]
struct Drip {
    host: usize,
    at: u64,
    is_persistent: bool,
    has_begun: bool,
    weather: Weather,
}

/// If less than this is said, every byte goes alone.
const BYTEWISE_MAX: usize = 8 << 10;

/// Short reads and writes, down to a single byte where this little is said.
fn drops(bytes: usize) -> Weather {
    if bytes < BYTEWISE_MAX { calm().window(1) } else { calm().short(1000, 1000).window(997) }
}

/// What is a little late is seen to be late.
fn calm() -> Weather {
    Weather::fair().latency(Duration::from_millis(1), Duration::ZERO)
}

impl Stage {
    pub(crate) fn simulated(seed: u64, weather: Weather) -> Self {
        let mut sim = Box::new(Sim::new(seed));
        sim.set_weather(weather).keep_trace(false);
        let hosts = (0..HOSTS).map(|host| sim.host(&format!("10.0.0.{}", host + 1), Book::default())).collect();
        Self {
            world: World::Simulated { sim, hosts },
            doors: Vec::new(),
            drip: None,
            held: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    pub(crate) fn real() -> Self {
        let reactor = || Reactor::with_config(Config::new().panics(Panics::Propagate)).expect("a selector");
        let hosts = (0..HOSTS).map(|_| (reactor(), Book::default())).collect();
        Self {
            world: World::Real { hosts },
            doors: Vec::new(),
            drip: None,
            held: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    pub(crate) fn is_real(&self) -> bool {
        matches!(self.world, World::Real { .. })
    }

    /// For what only a simulation can do.
    fn sim(&mut self) -> (&mut Sim, &[Host<Book>]) {
        match &mut self.world {
            World::Simulated { sim, hosts } => (sim, hosts),
            World::Real { .. } => panic!("this scenario is for the simulation only"),
        }
    }

    pub(crate) fn with<T>(&mut self, host: usize, run: impl FnOnce(&mut Net<'_, Book>, &mut Book) -> T) -> T {
        match &mut self.world {
            World::Simulated { sim, hosts } => sim.with(hosts[host], run),
            World::Real { hosts } => {
                let (reactor, book) = &mut hosts[host];
                run(&mut reactor.net(), book)
            }
        }
    }

    pub(crate) fn listen(&mut self, host: usize, factory: impl FnMut() -> Player + 'static) -> Door {
        let how = Listen::new();
        #[cfg(feature = "tls")]
        let how = self.tls.iter().cloned().fold(how, Listen::tls);
        self.listen_with(host, 7, how, factory)
    }

    fn listen_with(&mut self, host: usize, port: u16, how: Listen, mut factory: impl FnMut() -> Player + 'static) -> Door {
        let mut address = if self.is_real() { "127.0.0.1:0".to_owned() } else { format!("10.0.0.{}:{port}", host + 1) };
        let listening = self.with(host, |net, _| {
            let key = net.listen_with(address.as_str(), how, move |_, book: &mut Book, _| {
                book.begun += 1;
                Ok(factory())
            })?;
            Ok::<_, std::io::Error>((key, net.local(key).expect("it listens").to_string()))
        });
        // In the simulation the address is known, also if it could not be listened on.
        let key = listening.ok().map(|(key, local)| {
            address = local;
            key
        });
        self.doors.extend(key.map(|key| (host, key)));
        Door { key, address }
    }

    pub(crate) fn stop_listening(&mut self, host: usize, door: &Door) {
        if let Some(key) = door.key {
            self.with(host, |net, _| net.close(key));
        }
    }

    /// Whatever connects to it waits in the backlog from now on.
    pub(crate) fn hold(&mut self, host: usize) {
        self.held = Some(host);
        if let World::Simulated { sim, hosts } = &mut self.world {
            let sockets = sim.sockets(hosts[host]);
            sim.set_sockets_max(hosts[host], sockets.saturating_sub(1));
        }
    }

    pub(crate) fn let_go(&mut self) {
        let held = self.held.take();
        if let (World::Simulated { sim, hosts }, Some(host)) = (&mut self.world, held) {
            sim.set_sockets_max(hosts[host], usize::MAX);
        }
    }

    pub(crate) fn connect(&mut self, host: usize, to: &Door, player: Player) -> Key {
        self.with(host, |net, book| book.connect(net, &to.address, player))
    }

    /// Lets things happen until something holds, for a while at most: where operations fail it may never hold.
    pub(crate) fn until(&mut self, done: impl FnMut(&mut Self) -> bool) -> bool {
        let most = if self.is_real() { PATIENCE } else { 2 * GUARD };
        let held = self.turn(most, done);
        assert!(held || !self.is_real(), "on the loopback nothing fails, and what is waited for comes");
        held
    }

    /// The same for what a host's book says.
    pub(crate) fn until_book(&mut self, host: usize, mut done: impl FnMut(&Book) -> bool) -> bool {
        self.until(|stage| stage.with(host, |_, book| done(book)))
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.turn(time, |_| false);
    }

    fn turn(&mut self, most: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let (began, mut passed, mut step) = (Instant::now(), Duration::ZERO, Duration::from_millis(1));
        loop {
            if done(self) {
                return true;
            }
            let is_dripping = self.let_drip();
            match &mut self.world {
                World::Simulated { sim, .. } => {
                    if passed >= most {
                        return false;
                    }
                    sim.run_for(step.min(most - passed));
                    passed += step;
                    // What does not come soon is not looked for every millisecond.
                    if !is_dripping {
                        step += step / 2;
                    }
                }
                World::Real { hosts } => {
                    if began.elapsed() >= most {
                        return false;
                    }
                    let held = self.held;
                    for (_, (reactor, book)) in hosts.iter_mut().enumerate().filter(|(host, _)| Some(*host) != held) {
                        reactor.turn(book, Duration::from_millis(1)).expect("the selector works");
                    }
                }
            }
        }
    }

    /// Whether the drip is still to be looked after.
    fn let_drip(&mut self) -> bool {
        let (Some(drip), World::Simulated { sim, hosts }) = (&mut self.drip, &mut self.world) else { return false };
        if !drip.has_begun && sim.operations(hosts[drip.host]) >= drip.at {
            drip.has_begun = true;
            sim.set_weather(drip.weather.clone());
            return true;
        }
        if drip.has_begun && !drip.is_persistent {
            sim.set_weather(calm());
        }
        if drip.has_begun {
            self.drip = None;
        }
        self.drip.is_some()
    }

    /// Everything ends by itself, or by its time-outs; then the reactors are shut down. Whatever happened, this holds.
    /// What is left are the journals, by host and label, in an order that does not depend on the world.
    pub(crate) fn finish(&mut self) -> Journals {
        let most = if self.is_real() { PATIENCE } else { ENOUGH };
        if !self.turn(most, Self::is_over) {
            let sockets: Vec<usize> = (0..HOSTS).map(|host| self.sockets(host)).collect();
            let open: Vec<_> = self.take_pages().into_iter().filter(|(_, page)| page.phase != Phase::Closed).collect();
            panic!("it does not end; sockets of each host: {sockets:?}, open: {open:?}");
        }
        for host in 0..HOSTS {
            self.shutdown(host);
            assert_eq!(self.sockets(host), 0, "host {host} has sockets after its shutdown");
            self.with(host, |_, book| assert_eq!(book.begun, book.closed, "each that began has ended, once"));
        }
        let pages = self.take_pages();
        assert_whole(&pages);
        let mut journals: Journals = pages.iter().map(|(host, page)| (*host, page.label, page.normalised())).collect();
        journals.sort();
        journals
    }

    /// Every connection has had its `closed`, and no socket is left but those of listeners.
    fn is_over(&mut self) -> bool {
        (0..HOSTS).all(|host| {
            let all_closed = self.with(host, |_, book| book.begun == book.closed);
            all_closed && (self.is_real() || self.sockets(host) == self.doors_open(host))
        })
    }

    fn doors_open(&mut self, host: usize) -> usize {
        let doors: Vec<Key> = self.doors.iter().filter(|(at, _)| *at == host).map(|&(_, key)| key).collect();
        self.with(host, |net, _| doors.into_iter().filter(|&key| net.is_open(key)).count())
    }

    fn sockets(&self, host: usize) -> usize {
        match &self.world {
            World::Simulated { sim, hosts } => sim.sockets(hosts[host]),
            World::Real { .. } => 0, // tests/matrix.rs counts them
        }
    }

    pub(crate) fn shutdown(&mut self, host: usize) {
        self.with(host, |_, book| book.has_shut = true);
        match &mut self.world {
            World::Simulated { sim, hosts } => sim.shutdown(hosts[host]),
            World::Real { hosts } => {
                let (reactor, book) = &mut hosts[host];
                reactor.shutdown(book);
            }
        }
    }

    fn take_pages(&mut self) -> Vec<(usize, Page)> {
        let of = |host| self.with(host, |_, book| std::mem::take(&mut book.pages)).into_values().map(move |page| (host, page));
        (0..HOSTS).flat_map(of).collect()
    }
}

/// Host, label, calls.
pub(crate) type Journals = Vec<(usize, &'static str, Vec<Call>)>;

/// What was received is a prefix of what the other end sent, and all of it if its end was seen.
fn assert_whole(pages: &[(usize, Page)]) {
    assert_whole_through(pages);
    for (_, page) in pages {
        assert_eq!(page.phase, Phase::Closed, "{}: {:?}", page.label, page.calls);
        let faces = |other: &Page| {
            let is_there = page.local.is_some() && other.peer == page.local && other.local == page.peer;
            is_there && (page.faces.is_empty() || page.faces == other.label)
        };
        // Of one that was adopted again the later page knows more.
        let all = pages.iter().filter(|(_, other)| faces(other));
        let Some((_, other)) = all.max_by_key(|(_, other)| other.sent.len()) else {
            assert!(REFUSAL.starts_with(&page.got), "{} was given bytes that nobody sent", page.label);
            continue;
        };
        if other.passes_on {
            continue;
        }
        assert!(other.sent.starts_with(&page.got), "{} was given other bytes than were sent", page.label);
        let is_broken_off = other.is_pipe && !matches!(other.calls.last(), Some(Call::Closed(why)) if why.contains("finished"));
        if page.saw_end && !is_broken_off {
            assert_eq!(page.got.len(), other.sent.len(), "{} saw the end, and something is missing", page.label);
        }
    }
}

/// The same of the two ends of a pair.
fn assert_whole_through(pages: &[(usize, Page)]) {
    let of = |label| pages.iter().map(|(_, page)| page).find(|page| page.label == label);
    let (true, Some(one)) = (pages.iter().any(|(_, page)| page.passes_on), of("this end")) else { return };
    let Some(other) = of("that end") else { return assert_eq!(one.got, b"", "nobody has said that") };
    for (page, other) in [(one, other), (other, one)] {
        assert!(other.sent.starts_with(&page.got), "{} was given other bytes than were sent", page.label);
        // A connect that was given up has ended without a word.
        let is_whole = !page.saw_end || page.got.is_empty() || page.got.len() == other.sent.len();
        assert!(is_whole, "{} saw the end, and something is missing: {:?}", page.label, page.got.len());
    }
}

// --------------------------------------------------------------------------------------------------------- scenarios

/// What a scenario's journals depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// On nothing but what is said: the same on the loopback and in the simulation, and if an operation is only late.
    Causal,
    /// Also on how fast things are.
    Timed,
    /// It takes what only a simulation can do.
    Simulated,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) run: fn(&mut Stage),
}

fn echoes() -> Player {
    player("echo", |me, call| match call {
        Call::Received(bytes) => {
            me.send(bytes);
            Ok(())
        }
        call => me.usual(call),
    })
}

/// Says a word, and the next one when it has come back.
fn asks(words: &'static [&'static str]) -> Player {
    let (mut said, mut heard) = (0, 0);
    player("asker", move |me, call| {
        match call {
            Call::Connected => {}
            Call::Received(bytes) => heard += bytes.len(),
            call => return me.usual(call),
        }
        if heard == words[..said].concat().len() {
            match words.get(said) {
                Some(word) => me.send(word),
                None => me.close(),
            }
            said += 1;
        }
        Ok(())
    })
}

fn echo(stage: &mut Stage) {
    let door = stage.listen(SERVER, echoes);
    stage.connect(CLIENT, &door, asks(&["one", "twenty two", "three hundred and thirty three"]));
    stage.connect(THIRD, &door, asks(&["four", "five"]));
}

fn lines_both_ways(stage: &mut Stage) {
    /// Both count to nine, each answering the other's line.
    fn counts(begins: bool) -> Player {
        player(if begins { "first" } else { "second" }, move |me, call| match call {
            Call::Connected => {
                me.lines();
                if begins {
                    me.send("1\n");
                }
                Ok(())
            }
            Call::Frame(line) => {
                let number: u32 = String::from_utf8_lossy(line).parse()?;
                match number {
                    9 => me.close(),
                    n => me.send(format!("{}\n", n + 1)),
                }
                Ok(())
            }
            call => me.usual(call),
        })
    }
    let door = stage.listen(SERVER, || counts(false));
    stage.connect(CLIENT, &door, counts(true));
}

/// The server gives each line to another thread, and takes the next when that has answered; if there is no thread, it does
/// the work itself.
fn answers_from_other_threads(stage: &mut Stage) {
    fn backwards(line: &[u8]) -> Vec<u8> {
        line.iter().rev().chain(b"\n").copied().collect()
    }
    let works = || {
        player("worker", |me, call| match call {
            Call::Connected => {
                me.lines();
                Ok(())
            }
            Call::Frame(line) => {
                let (line, again) = (line.clone(), line.clone());
                me.ctx.pause();
                me.ctx.offload(
                    move || backwards(&line),
                    move |_: &mut Player, ctx, book, reply| {
                        let key = ctx.key;
                        book.send(&mut ctx.net, key, reply.unwrap_or_else(|_| backwards(&again)));
                        ctx.resume();
                        Ok(())
                    },
                );
                Ok(())
            }
            call => me.usual(call),
        })
    };
    let door = stage.listen(SERVER, works);
    let (mut heard, words) = (0, "one\ntwenty two\nthree\n");
    let asks = player("asker", move |me, call| {
        match call {
            Call::Connected => {
                me.lines();
                me.send(words);
            }
            Call::Frame(_) => heard += 1,
            call => return me.usual(call),
        }
        if heard == 3 {
            me.close();
        }
        Ok(())
    });
    stage.connect(CLIENT, &door, asks);
    // One that does not wait for its answer.
    let leaves = player("leaver", |me, call| match call {
        Call::Connected => {
            me.send("and gone\n");
            me.close();
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(THIRD, &door, leaves);
}

/// What is uploaded is written elsewhere, and sent back from there; a lane beside it has work that fails and panics.
fn an_upload_that_is_kept_elsewhere(stage: &mut Stage) {
    /// Of which no piece may be done behind the last.
    fn works(me: &mut Me<'_, '_>) {
        let mut lane = me.ctx.net.lane(0);
        for piece in 0..4 {
            lane.offload(
                me.ctx,
                move |done| {
                    assert!(*done <= piece, "in order");
                    *done = piece + 1;
                    if piece % 2 == 0 {
                        std::panic::resume_unwind(Box::new("on purpose"));
                    }
                    piece
                },
                move |_: &mut Player, _, _, made| {
                    match made {
                        Ok(made) => assert_eq!(made, piece),
                        Err(OffloadError::Panicked(text)) => assert_eq!(text, "on purpose"),
                        Err(_) => {} // no thread
                    }
                    Ok(())
                },
            );
        }
        let alive = Alive::one_more();
        lane.finish(move |_| drop(alive));
    }
    let keeps = || {
        player("keeper", |me, call| match call {
            Call::Connected => {
                works(me);
                me.ctx.save(Vec::new(), |_: &mut Player, ctx, book, saved| {
                    let (kept, key) = (saved?, ctx.key);
                    let page = book.pages.entry(key).or_default();
                    page.got.extend_from_slice(&kept);
                    page.sent.extend_from_slice(&kept);
                    page.was_congested = true;
                    let bytes = kept.len() as u64;
                    ctx.send_from(std::io::Cursor::new(kept), move |_: &mut Player, ctx, book, sent| {
                        assert_eq!(sent?, bytes);
                        let key = ctx.key;
                        book.close(&mut ctx.net, key);
                        Ok(())
                    });
                    Ok(())
                });
                Ok(())
            }
            Call::Eof(_) => Ok(()), // the answer is under way
            call => me.usual(call),
        })
    };
    let door = stage.listen(SERVER, keeps);
    let uploads = player("uploader", |me, call| {
        if *call == Call::Connected {
            let whole = pattern(BULK);
            me.page().sent.extend_from_slice(&whole);
            me.page().was_congested = true;
            me.ctx.send_from(std::io::Cursor::new(whole), |_: &mut Player, ctx, book, sent| {
                if sent.is_err() {
                    book.pages.entry(ctx.key).or_default().sent.clear(); // no thread: it ends without a word
                }
                sent?;
                ctx.half_close();
                Ok(())
            });
        }
        me.usual(call)
    });
    stage.connect(CLIENT, &door, uploads);
}

/// Reads all, and then says how much that was, and something long.
fn says_what_it_got(label: &'static str) -> Player {
    player(label, |me, call| match call {
        Call::Eof(_) => {
            let got = me.got();
            me.send(format!("{got}\n"));
            me.send(pattern(BULK));
            me.close();
            Ok(())
        }
        call => me.usual(call),
    })
}

fn a_pair(stage: &mut Stage) {
    let server = stage.listen(SERVER, || says_what_it_got("that end"));
    fn passes_on(label: &'static str, to: Option<String>) -> Player {
        player(label, move |me, call| {
            me.page().passes_on = true;
            me.page().was_congested = true; // by what nobody tells it of
            if let (Call::Connected, Some(to)) = (call, &to) {
                let (inside, outside) = (me.ctx.key, me.connect(to, passes_on("outside", None)));
                if !me.ctx.net.pair(inside, outside) {
                    me.abort(); // it could not even begin
                }
            }
            if let Call::Exceeded(_) = call {
                me.abort(); // an `Err` would end well towards its own peer
                return Ok(());
            }
            me.usual(call)
        })
    }
    let to = server.address;
    let proxy = stage.listen(THIRD, move || passes_on("inside", Some(to.clone())));
    let client = player("this end", |me, call| {
        if *call == Call::Connected {
            me.send(pattern(BULK));
            me.ctx.half_close();
        }
        me.usual(call)
    });
    stage.connect(CLIENT, &proxy, client);
}

fn a_chat_of_four(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("host", |me, call| match call {
            Call::Connected => {
                me.lines();
                let key = me.ctx.key;
                me.book.room.push(key);
                Ok(())
            }
            Call::Frame(line) => {
                let (own, said) = (me.ctx.key, [line, &b"\n"[..]].concat());
                for other in me.book.room.clone().into_iter().filter(|&key| key != own) {
                    me.send_to(other, &said);
                }
                Ok(())
            }
            Call::Closed(_) => {
                let own = me.ctx.key;
                me.book.room.retain(|&key| key != own);
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let guests = ["anna", "bert", "cleo", "dora"].map(|name| {
        let (host, before) = if name < "c" { (CLIENT, 0) } else { (THIRD, 2) };
        let guest = player(name, |me, call| {
            if *call == Call::Connected {
                me.lines();
            }
            me.usual(call)
        });
        let key = stage.connect(host, &door, guest);
        let comes = before + usize::from(matches!(name, "bert" | "dora")) + 1;
        stage.until_book(SERVER, |book| book.room.len() == comes);
        (host, key)
    });
    for (n, (host, key)) in guests.into_iter().enumerate() {
        stage.with(host, |net, book| book.send(net, key, format!("hello from {n}\n")));
        stage.until_book(SERVER, |book| book.count("host", |call| matches!(call, Call::Frame(_))) == n + 1);
    }
    for (host, key) in guests {
        stage.until_book(host, |book| book.pages[&key].calls.len() == 4);
        stage.with(host, |net, book| book.close(net, key));
    }
}

/// Both ends of a proxy's connection through.
fn relays(me: &mut Me<'_, '_>, call: &Call) -> Outcome {
    let other = me.book.pairs.get(&me.ctx.key).copied();
    match (call, other) {
        (Call::Connected, _) => {
            me.ctx.set_hold_back(false);
            me.ctx.set_output_limits(1 << 10, 8 << 10, 1 << 20);
            let is_congested = me.ctx.is_congested();
            me.page().was_congested |= is_congested;
        }
        (Call::Received(bytes), Some(other)) => {
            me.send_to(other, bytes);
        }
        (Call::Eof(_), Some(other)) => {
            me.ctx.net.half_close(other);
        }
        (Call::Closed(why), Some(other)) => {
            me.book.pairs.remove(&me.ctx.key);
            me.book.pairs.remove(&other);
            if why.contains("finished") {
                me.book.close(&mut me.ctx.net, other);
            } else {
                me.book.abort(&mut me.ctx.net, other);
            }
        }
        (Call::Closed(_), None) => {}
        (call, _) => return me.usual(call),
    }
    Ok(())
}

fn a_proxy_with_throttles(stage: &mut Stage) {
    let server = stage.listen(SERVER, || says_what_it_got("server"));
    let to = server.address;
    let proxy = stage.listen(THIRD, move || {
        let to = to.clone();
        player("inside", move |me, call| {
            if *call == Call::Connected {
                let (inside, outside) = (me.ctx.key, me.connect(&to, player("outside", relays)));
                me.ctx.net.throttle(inside, outside);
                me.ctx.net.throttle(outside, inside);
                me.book.pairs.extend([(inside, outside), (outside, inside)]);
            }
            relays(me, call)
        })
    });
    let client = player("client", |me, call| {
        if *call == Call::Connected {
            me.send(pattern(BULK));
            me.ctx.half_close();
        }
        me.usual(call)
    });
    stage.connect(CLIENT, &proxy, client);
}

/// Reads a piece, and the next one a while later.
fn reads_slowly(label: &'static str) -> Player {
    player(label, |me, call| match call {
        Call::Received(_) => {
            me.ctx.pause();
            me.after(Duration::from_millis(2));
            Ok(())
        }
        Call::Alarm => {
            me.ctx.resume();
            Ok(())
        }
        call => me.usual(call),
    })
}

fn a_large_producer_with_a_slow_reader(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("producer", |me, call| {
            if *call == Call::Connected {
                me.produce(2 * BULK);
                me.close();
            }
            me.usual(call)
        })
    });
    stage.connect(CLIENT, &door, reads_slowly("reader"));
}

fn half_close_both_ways(stage: &mut Stage) {
    /// Says how much it got when the other has ended.
    fn answers() -> Player {
        player("answers", |me, call| match call {
            Call::Eof(_) => {
                let got = me.got();
                me.send(format!("so much: {got}"));
                me.close();
                Ok(())
            }
            call => me.usual(call),
        })
    }
    fn ends() -> Player {
        player("ends", |me, call| match call {
            Call::Connected => {
                me.send("all that I have to say");
                me.ctx.half_close();
                Ok(())
            }
            call => me.usual(call),
        })
    }
    let asked = stage.listen(SERVER, answers);
    stage.connect(CLIENT, &asked, ends());
    let asking = stage.listen(THIRD, ends);
    stage.connect(CLIENT, &asking, answers());
}

fn upgrade_in_mid_stream(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("lines", |me, call| match call {
            Call::Connected => {
                me.lines();
                Ok(())
            }
            Call::Frame(line) if line == b"more" => {
                me.send("raw from here\n");
                me.upgrade(echoes());
                Ok(())
            }
            Call::Frame(line) => {
                me.send([line, &b"!\n"[..]].concat());
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let client = player("client", |me, call| match call {
        Call::Connected => {
            me.lines();
            me.send("hello\nmore\nwith\nthese\nbytes");
            Ok(())
        }
        Call::Frame(line) if line == b"raw from here" => {
            let mut heard = 0;
            me.upgrade(player("raw", move |me, call| match call {
                Call::Received(bytes) => {
                    heard += bytes.len();
                    if heard == "with\nthese\nbytes".len() {
                        me.close();
                    }
                    Ok(())
                }
                call => me.usual(call),
            }));
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, client);
}

fn length_prefixed_requests(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Connected => {
                me.prefixed();
                Ok(())
            }
            Call::Frame(request) => {
                let answer: Vec<u8> = request.iter().rev().copied().collect();
                me.send_prefixed(&answer);
                Ok(())
            }
            call => me.usual(call),
        })
    });
    for host in [CLIENT, THIRD] {
        let mut answers = 0;
        let client = player("client", move |me, call| match call {
            Call::Connected => {
                me.prefixed();
                for length in [0, 1, 300, 4000] {
                    me.send_prefixed(&pattern(length));
                }
                Ok(())
            }
            Call::Frame(_) => {
                answers += 1;
                if answers == 4 {
                    me.close();
                }
                Ok(())
            }
            call => me.usual(call),
        });
        stage.connect(host, &door, client);
    }
}

fn listen_close_and_listen_again(stage: &mut Stage) {
    let door = stage.listen(SERVER, echoes);
    let long = player("stays", |me, call| me.usual(call));
    let stays = stage.connect(CLIENT, &door, long);
    stage.until_book(SERVER, |book| book.count("echo", |call| *call == Call::Connected) == 1);
    stage.stop_listening(SERVER, &door);
    let refused = stage.connect(CLIENT, &door, asks(&["nobody"]));
    stage.until_book(CLIENT, |book| book.pages[&refused].phase == Phase::Closed);
    let again = stage.listen(SERVER, echoes);
    stage.connect(CLIENT, &again, asks(&["somebody"]));
    stage.with(CLIENT, |net, book| book.send(net, stays, "still here"));
    stage.until_book(CLIENT, |book| book.pages[&stays].got.len() == 10);
    stage.with(CLIENT, |net, book| book.close(net, stays));
}

fn connects_that_are_refused_or_never_answered(stage: &mut Stage) {
    let door = stage.listen(SERVER, echoes);
    let (sim, hosts) = stage.sim();
    sim.set_fate("10.0.0.1:81", Fate::Refused).set_fate("10.0.0.1:82", Fate::Silent).set_fate("10.0.0.1:83", Fate::Unreachable);
    sim.part(hosts[SERVER], hosts[THIRD]);
    for to in ["10.0.0.1:81", "10.0.0.1:82", "10.0.0.1:83", "10.0.0.1:84", "10.9.9.9:1", "no address"] {
        stage.with(CLIENT, |net, book| book.connect_with(net, to, Connect::new().timeout(SHORT), asks(&["anybody?"])));
    }
    // What is sent before it connects is dropped with it, or leaves first.
    let early = stage.connect(THIRD, &door, asks(&["parted"]));
    stage.with(THIRD, |net, book| book.send(net, early, "early"));
    stage.pass(SHORT);
    let (sim, hosts) = stage.sim();
    sim.join(hosts[SERVER], hosts[THIRD]);
}

fn connects_by_name(stage: &mut Stage) {
    stage.listen(SERVER, echoes);
    let (sim, _) = stage.sim();
    sim.name("first.test", &["10.0.0.1"]).name("late.test", &["10.0.0.5", "fd00::6", "10.0.0.1"]);
    sim.name("dead.test", &["10.0.0.5", "10.0.0.6"]).name("slow.test", &["10.0.0.1"]).name("silent.test", &["10.0.0.1"]);
    sim.set_fate("10.0.0.5:7", Fate::Silent).set_fate("[fd00::6]:7", Fate::Refused).set_fate("10.0.0.6:7", Fate::Unreachable);
    sim.set_name_fate("slow.test", NameFate::Slow(SHORT)).set_name_fate("silent.test", NameFate::Silent);
    for to in ["first.test:7", "late.test:echo", "dead.test:7", "slow.test:7", "silent.test:7", "gone.test:7"] {
        let early = stage.with(CLIENT, |net, book| {
            let key = book.connect_with(net, to, Connect::new().timeout(10 * SHORT), asks(&["by name"]));
            net.resolve(to.split(':').next().expect("a host"), |_, _, _| {});
            key
        });
        stage.with(CLIENT, |net, book| book.send(net, early, "early"));
    }
    // One is broken off in its race.
    let broken = stage.with(CLIENT, |net, book| book.connect(net, "late.test:7", asks(&["never said"])));
    stage.pass(SHORT);
    stage.with(CLIENT, |net, book| book.abort(net, broken));
}

fn linger_with_a_slow_reader(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Connected => {
                me.lines();
                Ok(())
            }
            Call::Frame(_) => {
                me.send(pattern(2 * BULK));
                me.close();
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let client = player("client", |me, call| match call {
        Call::Connected => {
            me.send("get\n");
            Ok(())
        }
        Call::Received(_) => {
            // Closing at once, the server would answer this with a reset.
            me.send("words that are too late\n");
            me.ctx.pause();
            me.after(Duration::from_millis(2));
            Ok(())
        }
        Call::Alarm => {
            me.ctx.resume();
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, client);
}

fn abort_in_mid_transfer(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Connected => {
                me.produce(2 * BULK);
                me.after(Duration::from_millis(7));
                Ok(())
            }
            Call::Alarm => {
                me.abort();
                Ok(())
            }
            call => me.usual(call),
        })
    });
    stage.connect(CLIENT, &door, reads_slowly("reader"));
    let impatient = player("impatient", |me, call| match call {
        Call::Received(_) => Err("that is enough".into()),
        call => me.usual(call),
    });
    stage.connect(THIRD, &door, impatient);
}

fn an_abort_after_the_last_word(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Received(_) if me.got() == 6 => {
                me.abort();
                Ok(())
            }
            Call::Connected => {
                me.send("last words");
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let client = player("client", |me, call| match call {
        Call::Received(_) if me.got() == 10 => {
            me.send("thanks");
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, client);
}

fn drain_under_load(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        let mut is_last = false;
        player("server", move |me, call| match call {
            Call::Received(bytes) => {
                me.send(bytes);
                if is_last {
                    me.close();
                }
                Ok(())
            }
            Call::Draining => {
                is_last = true;
                Ok(())
            }
            call => me.usual(call),
        })
    });
    for host in [CLIENT, CLIENT, THIRD, THIRD] {
        let endless = player("client", |me, call| match call {
            Call::Connected => {
                me.send("more and more");
                Ok(())
            }
            Call::Received(bytes) => {
                me.send(bytes);
                Ok(())
            }
            call => me.usual(call),
        });
        stage.connect(host, &door, endless);
    }
    let own = stage.listen(THIRD, echoes);
    stage.connect(SERVER, &own, asks(&["of the server's own"]));
    stage.pass(Duration::from_millis(10));
    stage.with(SERVER, |net, _| net.drain(SHORT));
}

fn many_short_connections(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Received(bytes) => {
                me.send(bytes);
                me.close();
                Ok(())
            }
            call => me.usual(call),
        })
    });
    for n in 0..12 {
        let client = player("client", |me, call| {
            if *call == Call::Connected {
                me.send("x");
            }
            me.usual(call)
        });
        stage.connect(CLIENT + n % 2, &door, client);
        if n == 5 {
            stage.pass(Duration::from_millis(3));
        }
    }
}

fn time_outs_of_idle_slow_and_stalled_peers(stage: &mut Stage) {
    // More than a loopback's buffers hold.
    let much = if stage.is_real() { 16 << 20 } else { BULK };
    let limited = move |label, begin: fn(&mut Me<'_, '_>, usize)| {
        move || {
            player(label, move |me, call| {
                if *call == Call::Connected {
                    begin(me, much);
                }
                me.usual(call)
            })
        }
    };
    let idle = limited("idle", |me, _| me.ctx.set_idle_timeout(SHORT));
    let slow = limited("slow", |me, _| {
        me.lines();
        me.ctx.set_frame_timeout(SHORT);
    });
    let stalled = limited("stalled", |me, much| {
        me.ctx.set_stall_timeout(SHORT);
        me.send(pattern(much));
    });
    let doors = [
        stage.listen_with(SERVER, 1, Listen::new(), idle),
        stage.listen_with(SERVER, 2, Listen::new(), slow),
        stage.listen_with(SERVER, 3, Listen::new(), stalled),
    ];
    stage.connect(CLIENT, &doors[0], player("says nothing", |me, call| me.usual(call)));
    let mut drops = 0;
    let drips = player("drips", move |me, call| match call {
        Call::Connected => {
            me.every(SHORT / 4);
            Ok(())
        }
        // Not up to the end: whether that is a reset depends on what is under way.
        Call::Alarm if drops < 2 => {
            drops += 1;
            me.send(".");
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &doors[1], drips);
    let never_reads = player("never reads", |me, call| match call {
        Call::Connected => {
            me.ctx.pause();
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(THIRD, &doors[2], never_reads);
}

fn tells_between_connections(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Connected => {
                me.lines();
                let key = me.ctx.key;
                me.book.room.push(key);
                Ok(())
            }
            Call::Frame(line) => {
                let what = if line == b"go" { "please go" } else { "somebody spoke" };
                for key in me.book.room.clone() {
                    me.tell(key, what);
                }
                // Accepted before, and it comes after the end.
                if line == b"go" {
                    me.close();
                }
                Ok(())
            }
            Call::Told("please go") => {
                me.close();
                Ok(())
            }
            Call::Told(what) => {
                me.send(format!("{what}\n"));
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let keys = [CLIENT, THIRD].map(|host| {
        let client = player("client", |me, call| {
            if *call == Call::Connected {
                me.lines();
            }
            me.usual(call)
        });
        let key = stage.connect(host, &door, client);
        stage.until_book(SERVER, |book| book.room.len() == host);
        key
    });
    let has_heard = |stage: &mut Stage, times: usize| {
        for (host, key) in [(CLIENT, keys[0]), (THIRD, keys[1])] {
            stage.until_book(host, |book| book.pages[&key].calls.len() == times + 1);
        }
    };
    stage.with(CLIENT, |net, book| book.send(net, keys[0], "hello\n"));
    has_heard(stage, 1);
    stage.with(THIRD, |net, book| book.send(net, keys[1], "hello\n"));
    has_heard(stage, 2);
    stage.with(CLIENT, |net, book| book.send(net, keys[0], "go\n"));
}

fn timers_that_close(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        let mut ticks = 0;
        player("ticks", move |me, call| match call {
            Call::Connected => {
                me.every(Duration::from_millis(5));
                Ok(())
            }
            Call::Alarm => {
                ticks += 1;
                me.send("tick ");
                if ticks == 4 {
                    me.close();
                }
                Ok(())
            }
            call => me.usual(call),
        })
    });
    stage.connect(CLIENT, &door, player("listens", |me, call| me.usual(call)));
    let other = stage.listen(THIRD, || player("waits", |me, call| me.usual(call)));
    let fails = player("fails", |me, call| match call {
        Call::Connected => {
            me.after(Duration::from_millis(8));
            me.after(Duration::from_millis(9));
            Ok(())
        }
        Call::Alarm => Err("it was time".into()),
        call => me.usual(call),
    });
    stage.connect(CLIENT, &other, fails);
}

fn no_descriptors_for_a_while(stage: &mut Stage) {
    let door = stage.listen(SERVER, echoes);
    let (sim, hosts) = stage.sim();
    sim.set_sockets_max(hosts[SERVER], 2);
    for host in [CLIENT, CLIENT, THIRD] {
        stage.connect(host, &door, asks(&["one", "two", "three"]));
    }
    stage.pass(SHORT);
    let (sim, hosts) = stage.sim();
    sim.set_sockets_max(hosts[SERVER], 9);
}

fn shutdown_while_busy(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Connected => {
                me.produce(2 * BULK);
                me.every(Duration::from_millis(1));
                Ok(())
            }
            Call::Closed(_) if me.book.has_shut => {
                // Of which nothing may come, because nothing would end it.
                let key = me.ctx.key;
                me.tell(key, "too late");
                me.ctx.net.post(|_, _| panic!("a post that nothing runs any more"));
                Ok(())
            }
            call => me.usual(call),
        })
    });
    stage.connect(CLIENT, &door, reads_slowly("reader"));
    stage.connect(THIRD, &door, reads_slowly("reader"));
    stage.connect(SERVER, &door, reads_slowly("of its own"));
    stage.pass(Duration::from_millis(6));
    stage.shutdown(SERVER);
}

fn an_upload_until_its_dot(stage: &mut Stage) {
    const DOT: &[u8] = b"\r\n.\r\n";
    let door = stage.listen(SERVER, || {
        player("server", |me, call| match call {
            Call::Connected => {
                me.lines();
                Ok(())
            }
            Call::Frame(line) if line == b"DATA" => {
                me.until(DOT);
                Ok(())
            }
            Call::Frame(line) if line == b"QUIT" => {
                me.close();
                Ok(())
            }
            Call::Frame(_) => {
                me.send("250 thanks\n");
                me.lines();
                Ok(())
            }
            Call::Received(_) => Ok(()),
            call => me.usual(call),
        })
    });
    let client = player("client", |me, call| match call {
        Call::Connected => {
            me.lines();
            let mail: Vec<u8> = b"\r\n. \r\n..\r".iter().copied().cycle().take(5000).collect();
            me.send([b"DATA\n", &mail[..], DOT, b"DATA\n\r\n.\r", DOT].concat());
            Ok(())
        }
        Call::Frame(_) => {
            if me.book.count("client", |call| matches!(call, Call::Frame(_))) == 2 {
                me.send("QUIT\n");
            }
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, client);
}

fn a_client_that_comes_again(stage: &mut Stage) {
    let mut guests = 0;
    let door = stage.listen(SERVER, move || {
        guests += 1;
        let is_welcome = guests == 3;
        player("server", move |me, call| match call {
            Call::Received(bytes) if is_welcome => {
                me.send(bytes);
                Ok(())
            }
            Call::Received(_) if me.got() == 6 => Err("not yet".into()),
            call => me.usual(call),
        })
    });
    fn tries(to: Rc<str>, left: u32) -> Player {
        let mut is_served = false;
        player("client", move |me, call| match call {
            Call::Connected => {
                me.send("may I?");
                Ok(())
            }
            Call::Received(_) if me.got() == 6 => {
                is_served = true;
                me.close();
                Ok(())
            }
            Call::Closed(_) if !is_served && left > 0 => {
                let to = to.clone();
                me.ctx.net.after(Duration::from_millis(20), move |net, book: &mut Book| {
                    book.connect(net, &to.clone(), tries(to, left - 1));
                });
                Ok(())
            }
            call => me.usual(call),
        })
    }
    let to: Rc<str> = door.address.as_str().into();
    stage.connect(CLIENT, &door, tries(to, 6));
    // Between two tries nothing is open.
    stage.until_book(CLIENT, |book| book.got("client") == 6);
}

fn guests_beyond_the_limit(stage: &mut Stage) {
    let how = Listen::new().connections_max(1, REFUSAL);
    let door = stage.listen_with(SERVER, 7, how, echoes);
    let guest = || player("guest", |me, call| me.usual(call));
    let first = stage.connect(CLIENT, &door, guest());
    stage.until_book(SERVER, |book| book.begun == 1);
    let refused = stage.connect(CLIENT, &door, player("refused", |me, call| me.usual(call)));
    stage.until_book(CLIENT, |book| book.pages[&refused].phase == Phase::Closed);
    stage.with(CLIENT, |net, book| book.close(net, first));
    stage.until_book(SERVER, |book| book.closed == 1);
    stage.connect(CLIENT, &door, asks(&["now?"]));
}

fn a_partition_and_a_host_that_is_switched_off(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("server", |me, call| {
            if *call == Call::Connected {
                me.produce(2 * BULK);
            }
            me.usual(call)
        })
    });
    stage.connect(CLIENT, &door, reads_slowly("reader"));
    stage.pass(Duration::from_millis(5));
    let (sim, hosts) = stage.sim();
    sim.part(hosts[SERVER], hosts[CLIENT]);
    stage.pass(SHORT);
    let (sim, hosts) = stage.sim();
    sim.join(hosts[SERVER], hosts[CLIENT]);
    stage.pass(GUARD / 2);
    let (sim, hosts) = stage.sim();
    sim.part(hosts[SERVER], hosts[CLIENT]);
}

fn resets_while_paused(stage: &mut Stage) {
    let door = stage.listen(SERVER, || {
        player("long poll", |me, call| match call {
            Call::Received(_) if me.got() == 9 => {
                me.ctx.pause();
                me.send("wait");
                Ok(())
            }
            call => me.usual(call),
        })
    });
    let client = player("client", |me, call| match call {
        Call::Connected => {
            me.send("any news?");
            Ok(())
        }
        Call::Received(_) if me.got() == 4 => {
            me.abort();
            Ok(())
        }
        call => me.usual(call),
    });
    stage.connect(CLIENT, &door, client);
}

// ----------------------------------------------------------------------------------------------------------- torture

const ERRNOS: [Errno; 7] = [
    Errno::Again,
    Errno::Interrupted,
    Errno::ConnectionReset,
    Errno::BrokenPipe,
    Errno::NoBuffers,
    Errno::TimedOut,
    Errno::TooManyFiles,
];

/// Runs of all scenarios together.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// After this many failing runs the rest is not run.
const FAILURES_MAX: usize = 5;

/// How much of the trace is shown with a failure.
const TRACE_LINES: usize = 60;

/// What is done to one host, from its n-th operation on.
#[derive(Clone, Copy, Debug)]
struct Harm {
    host: usize,
    at: u64,
    /// Nothing: short reads and writes.
    errno: Option<Errno>,
    is_persistent: bool,
    /// How much is said in this scenario.
    bytes: usize,
}

impl Harm {
    /// What is only late, or in pieces, changes nothing that was said.
    fn is_mild(self) -> bool {
        self.errno.is_none() || (matches!(self.errno, Some(Errno::Again | Errno::Interrupted)) && !self.is_persistent)
    }
}

/// One run: the operations of each host; the journals, or what went wrong; the trace, if it is wanted.
struct Run {
    operations: Vec<u64>,
    outcome: Result<Journals, String>,
    trace: String,
}

fn run(scenario: Scenario, harm: Option<Harm>, with_trace: bool) -> Run {
    let mut stage = Stage::simulated(7, calm());
    ALIVE.with(|alive| alive.set(0));
    let (sim, hosts) = stage.sim();
    sim.keep_trace(with_trace);
    match harm {
        Some(Harm { host, at, errno: Some(errno), is_persistent, .. }) => {
            sim.fail_operation(hosts[host], at, errno, is_persistent);
        }
        Some(Harm { host, at, errno: None, is_persistent, bytes }) => {
            stage.drip = Some(Drip { host, at, is_persistent, has_begun: false, weather: drops(bytes) });
        }
        None => {}
    }
    let played = catch_unwind(AssertUnwindSafe(|| {
        (scenario.run)(&mut stage);
        stage.finish()
    }));
    let (sim, hosts) = stage.sim();
    let operations = hosts.iter().map(|&host| sim.operations(host)).collect();
    let trace = if with_trace { sim.trace() } else { String::new() };
    let dropped = catch_unwind(AssertUnwindSafe(|| {
        drop(stage);
        ALIVE.with(Cell::get)
    }));
    let outcome = match (played, dropped) {
        (Ok(journals), Ok(0)) => Ok(journals),
        (Ok(_), Ok(alive)) => Err(format!("{alive} protocols are not dropped")),
        (Err(payload), _) | (_, Err(payload)) => Err(match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => (*payload.downcast::<&str>().unwrap_or(Box::new("a panic without a text"))).to_owned(),
        }),
    };
    Run { operations, outcome, trace }
}

/// What is wrong with a run.
fn judge(scenario: Scenario, harm: Harm, run: &Run, unharmed: &Journals) -> Option<String> {
    match &run.outcome {
        Err(text) => Some(text.clone()),
        Ok(journals) if scenario.kind == Kind::Causal && harm.is_mild() && journals != unharmed => {
            Some(format!("it changed what was said\n{}", difference(unharmed, journals)))
        }
        Ok(_) => None,
    }
}

/// What only one of the two has.
pub(crate) fn difference(one: &Journals, other: &Journals) -> String {
    let show = |sign: char, of: &Journals, without: &Journals| {
        let lines = of.iter().filter(|entry| !without.contains(entry));
        let lines = lines.map(|(host, label, calls)| {
            let calls: Vec<String> = calls.iter().map(|call| format!("{call:?}").chars().take(200).collect()).collect();
            format!("{sign} host {host}, {label}: {}\n", calls.join(", "))
        });
        lines.collect::<String>()
    };
    show('-', one, other) + &show('+', other, one)
}

/// Every n-th operation that is made to fail. Without optimisation a seventh of them has to do.
fn step() -> usize {
    let is_plain = std::env::current_exe().is_ok_and(|path| path.components().any(|part| part.as_os_str() == "debug"));
    if is_plain { 7 } else { 1 }
}

pub(crate) fn torture(scenario: Scenario) {
    let unharmed = run(scenario, None, false);
    let journals = unharmed.outcome.unwrap_or_else(|text| panic!("{} fails unharmed: {text}", scenario.name));
    let operations: u64 = unharmed.operations.iter().sum();
    let bytes = journals.iter().flat_map(|(_, _, calls)| calls).map(Call::bytes).sum();
    let harms = unharmed.operations.iter().enumerate().flat_map(|(host, &made)| {
        (0..made).step_by(step()).flat_map(move |at| {
            let what = ERRNOS.into_iter().map(Some).chain([None]);
            what.flat_map(move |errno| [false, true].map(|is_persistent| Harm { host, at, errno, is_persistent, bytes }))
        })
    });
    let (mut runs, mut failures) = (0, Vec::new());
    for harm in harms {
        runs += 1;
        let harmed = run(scenario, Some(harm), false);
        if judge(scenario, harm, &harmed, &journals).is_none() {
            continue;
        }
        let again = run(scenario, Some(harm), true);
        let why = judge(scenario, harm, &again, &journals).unwrap_or_else(|| "it fails without a trace only".to_owned());
        // What cannot be listened on or connected to once is not tried again: that is a failure, not a delay.
        if again.outcome.is_ok()
            && ["listen fails", "connect fails", "connected fails", "bind fails", "adopt fails"]
                .iter()
                .any(|what| again.trace.contains(what))
        {
            continue;
        }
        let lines: Vec<&str> = again.trace.lines().collect();
        let tail = lines[lines.len().saturating_sub(TRACE_LINES)..].join("\n");
        failures.push(format!("{harm:?}: {why}\nthe end of the trace:\n{tail}\n"));
        if failures.len() == FAILURES_MAX {
            break;
        }
    }
    let all = RUNS.fetch_add(runs, Ordering::Relaxed) + runs;
    // Past the test's capture: the number is the point.
    let thinned = if step() > 1 { " (thinned out: every 7th operation)" } else { "" };
    let name = scenario.name;
    let _ = writeln!(std::io::stderr(), "{name}: {operations} operations, {runs} runs{thinned}; {all} runs so far");
    assert!(failures.is_empty(), "{name}: {}", failures.join("\n"));
}

/// Makes a test of each scenario. The crate says what kind of test: this file's is torture, that of tests/agree.rs compares
/// the worlds.
#[allow(unused_macros)] // where this file is a module, the macro is the other file's
macro_rules! test_each {
    ($($kind:ident: $($name:ident)+;)+) => {
        $($(
            #[test]
            fn $name() {
                torture(Scenario { name: stringify!($name), kind: Kind::$kind, run: super::$name });
            }
        )+)+
    };
}
#[allow(unused_imports)] // as above
pub(crate) use test_each;

mod tests {
    #[cfg(feature = "tls")]
    #[allow(unused_imports)] // as above
    use super::secured::*;
    #[allow(unused_imports)] // as above
    use super::{Kind, Scenario, torture};

    crate::test_each! {
        Causal:
            echo
            lines_both_ways
            answers_from_other_threads
            a_pair
            an_adopted_pair
            given_back_and_adopted_again
            a_chat_of_four
            a_proxy_with_throttles
            a_large_producer_with_a_slow_reader
            half_close_both_ways
            upgrade_in_mid_stream
            length_prefixed_requests
            listen_close_and_listen_again
            linger_with_a_slow_reader
            an_abort_after_the_last_word
            many_short_connections
            time_outs_of_idle_slow_and_stalled_peers
            tells_between_connections
            timers_that_close
            an_upload_until_its_dot
            a_client_that_comes_again
            guests_beyond_the_limit
            resets_while_paused
            datagrams_there_and_back
            datagrams_to_nobody;
        Timed:
            a_burst_of_datagrams
            abort_in_mid_transfer
            an_upload_that_is_kept_elsewhere
            drain_under_load
            shutdown_while_busy;
        Simulated:
            two_pipes
            connects_that_are_refused_or_never_answered
            connects_by_name
            no_descriptors_for_a_while
            a_partition_and_a_host_that_is_switched_off;
    }

    #[cfg(feature = "tls")]
    mod in_tls {
        #[allow(unused_imports)] // as above
        use super::{Kind, Scenario, torture};

        crate::test_each! {
            Causal:
                an_echo_in_tls
                half_close_both_ways_in_tls
                upgrade_in_mid_stream_in_tls
                a_large_producer_in_tls
                linger_in_tls
                tls_in_mid_stream;
            Timed:
                abort_in_mid_transfer_in_tls;
        }
    }
}
