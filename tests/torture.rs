//! Torture: each scenario is run once unharmed, counting the operations of each host, and then again with the n-th
//! operation failing, for every n, with every errno, once and for good. Whatever fails, the promises hold: the grammar of
//! calls, `closed` once and last, bytes that are a prefix of those sent, no socket left, nothing that spins.
//!
//! A scenario is a function of a [`Stage`], which is a simulation or the loopback; tests/agree.rs runs the same ones on
//! both, and has this file as a module.
#![cfg(feature = "sim")]

use mainspring::{
    Address, Config, Connect, Context, Endian, Key, Limit, Listen, Net, Outcome, Panics, Produced, Protocol, Reactor, Reason,
    Terminator, Width,
    testing::{Errno, Fate, Host, Sim, Weather},
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
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
    Closed(String),
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
    calls: Vec<Call>,
    phase: Phase,
    /// Its successor's `connected` may come.
    is_upgrading: bool,
    /// It was closed, aborted, or has failed: only tells, and `closed`.
    has_ended: bool,
    was_congested: bool,
    /// Tells that were accepted.
    tells_due: u32,
    is_clean: bool,
    saw_end: bool,
    local: Option<Address>,
    peer: Option<Address>,
    sent: Vec<u8>,
    got: Vec<u8>,
}

impl Page {
    fn note(&mut self, call: &Call) {
        let phase = self.phase;
        let fits = match call {
            Call::Connected => phase == Phase::New || (self.is_upgrading && phase != Phase::Closed),
            Call::Received(_) | Call::Frame(_) | Call::Eof(_) => phase == Phase::Connected,
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
}

impl Book {
    pub(crate) fn connect(&mut self, net: &mut Net<'_, Self>, to: &str, player: Player) -> Key {
        self.connect_with(net, to, Connect::new(), player)
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
    ALIVE.with(|alive| alive.set(alive.get() + 1));
    Player { label, cut: Cut::None, role: Box::new(role) }
}

impl Drop for Player {
    fn drop(&mut self) {
        ALIVE.with(|alive| alive.set(alive.get() - 1));
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
        assert!(page.phase != Phase::New || page.sent.is_empty() || !why.is_clean(), "clean, and it never was connected");
        assert!(page.tells_due == 0 || book.has_shut, "{}: a tell was accepted, and `closed` comes before it", page.label);
        page.is_clean = why.is_clean();
        book.closed += 1;
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

    /// So many bytes, made as they are needed.
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

    pub(crate) fn after(&mut self, delay: Duration) {
        self.ctx.after(delay, |player: &mut Player, ctx, book| player.call(ctx, book, Call::Alarm));
    }

    fn every(&mut self, period: Duration) {
        self.ctx.every(period, |player: &mut Player, ctx, book| player.call(ctx, book, Call::Alarm));
    }

    fn connect(&mut self, to: &str, player: Player) -> Key {
        self.book.connect(&mut self.ctx.net, to, player)
    }

    fn tell(&mut self, key: Key, what: &'static str) -> bool {
        self.book.tell(&mut self.ctx.net, key, what)
    }
}

/// Bytes of which no two neighbouring pieces are alike.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect()
}

// ------------------------------------------------------------------------------------------------------------ stages

/// Three hosts, simulated or on the loopback.
pub(crate) struct Stage {
    world: World,
    doors: Vec<(usize, Key)>,
    drip: Option<Drip>,
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
}

/// Who is late a little is seen to be late.
fn calm() -> Weather {
    Weather::fair().latency(Duration::from_millis(1), Duration::ZERO)
}

impl Stage {
    pub(crate) fn simulated(seed: u64, weather: Weather) -> Self {
        let mut sim = Box::new(Sim::new(seed));
        sim.set_weather(weather).keep_trace(false);
        let hosts = (0..HOSTS).map(|host| sim.host(&format!("10.0.0.{}", host + 1), Book::default())).collect();
        Self { world: World::Simulated { sim, hosts }, doors: Vec::new(), drip: None }
    }

    pub(crate) fn real() -> Self {
        let reactor = || Reactor::with_config(Config::new().panics(Panics::Propagate)).expect("a selector");
        let hosts = (0..HOSTS).map(|_| (reactor(), Book::default())).collect();
        Self { world: World::Real { hosts }, doors: Vec::new(), drip: None }
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
        self.listen_with(host, 7, Listen::new(), factory)
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

    fn stop_listening(&mut self, host: usize, door: &Door) {
        if let Some(key) = door.key {
            self.with(host, |net, _| net.close(key));
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
                    for (reactor, book) in hosts {
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
            sim.set_weather(calm().short(1000, 1000).window(997));
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
    pub(crate) fn finish(mut self) -> Vec<(usize, &'static str, Vec<Call>)> {
        let most = if self.is_real() { PATIENCE } else { ENOUGH };
        let has_ended = self.turn(most, Self::is_over);
        if !has_ended {
            let open: Vec<String> =
                self.pages().filter(|page| page.phase != Phase::Closed).map(|page| format!("{page:?}")).collect();
            let sockets: Vec<usize> = (0..HOSTS).map(|host| self.sockets(host)).collect();
            panic!("it does not end; sockets: {sockets:?}, open: {}", open.join("\n"));
        }
        for host in 0..HOSTS {
            self.shutdown(host);
            assert_eq!(self.sockets(host), 0, "host {host} has sockets after its shutdown");
        }
        self.assert_all_closed();
        self.assert_bytes();
        let mut journals = Vec::new();
        for host in 0..HOSTS {
            self.with(host, |_, book| {
                journals.extend(book.pages.values().map(|page| (host, page.label, page.normalised())));
            });
        }
        drop(self);
        assert_eq!(ALIVE.with(Cell::get), 0, "every protocol is dropped");
        journals.sort();
        journals
    }

    /// Every connection has had its `closed`, and no socket is left but listeners'.
    fn is_over(&mut self) -> bool {
        let open_doors = |stage: &mut Self, host: usize| {
            let doors: Vec<Key> = stage.doors.iter().filter(|(at, _)| *at == host).map(|(_, key)| *key).collect();
            stage.with(host, |net, _| doors.iter().filter(|&&key| net.is_open(key)).count())
        };
        (0..HOSTS).all(|host| {
            let all_closed = self.with(host, |_, book| book.begun == book.closed);
            all_closed && (self.is_real() || self.sockets(host) == open_doors(self, host))
        })
    }

    fn sockets(&self, host: usize) -> usize {
        match &self.world {
            World::Simulated { sim, hosts } => sim.sockets(hosts[host]),
            World::Real { .. } => 0, // tests/matrix.rs counts them
        }
    }

    fn shutdown(&mut self, host: usize) {
        self.with(host, |_, book| book.has_shut = true);
        match &mut self.world {
            World::Simulated { sim, hosts } => sim.shutdown(hosts[host]),
            World::Real { hosts } => {
                let (reactor, book) = &mut hosts[host];
                reactor.shutdown(book);
            }
        }
    }

    fn pages(&mut self) -> impl Iterator<Item = &Page> {
        let books: Vec<&Book> = match &mut self.world {
            World::Simulated { sim, hosts } => {
                let sim: &mut Sim = sim;
                for &host in hosts.iter() {
                    sim.state(host);
                }
                return PagesOf::simulated(sim, hosts);
            }
            World::Real { hosts } => hosts.iter().map(|(_, book)| book).collect(),
        };
        PagesOf(books)
    }
}
