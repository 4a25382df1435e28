//! Sequences of operations on reactors: three hosts on a simulated network open, send, close, pause, throttle, tell, post,
//! wait and fail as the fuzzer says, from outside and from inside every callback, in any weather and with any errno.
//!
//! They have datagram sockets, too.
//!
//! What must hold: what `Hub::assert_sound` asserts after every turn; the grammar of calls; one `closed` for each
//! connection and datagram socket, and nothing after it; bytes in order, and all of them where the receiver was told of the end; an accepted
//! tell runs; no timer early; offloaded work is told to its own connection, alive; no socket left behind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainspring::{
    Address, Bind, Config, Connect, Context, Datagram, Endian, Fault, Framer, Full, Interface, Key, Limit, Listen, Net,
    OffloadError, Outcome, Produced, Protocol, Reason, Refusal, Scope, Step, Terminator, Timer, Width,
    testing::{Errno, Fate, Host, Sim, Weather},
};
use mainspring_fuzz::Tape;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

fuzz_target!(|data: &[u8]| run(data));

const IPS: [&str; 3] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];

/// The ports that are listened on and connected to.
const PORTS: usize = 3;

/// Connections of one run, listeners of one host; more do not find more.
const LIVES_MAX: usize = 60;
const LISTENERS_MAX: usize = 8;

/// Datagram sockets that one host has at a time.
const EARS_MAX: usize = 6;

/// Bytes of one run, as far as it is up to us.
const SENT_MAX: usize = 200 << 10;

/// What everybody sends, again and again; without LF, so that `line` finds no frame in it.
fn text(from: usize, bytes: usize) -> Vec<u8> {
    (from..from + bytes).map(|n| (n % 251) as u8 | 0x80).collect()
}

// ---------------------------------------------------------------------------------------------------- what is known

/// What all hosts share.
struct Shared {
    tape: Vec<u8>,
    at: usize,
    lives: Vec<Life>,
    sent: usize,
}

type Handle = Rc<RefCell<Shared>>;

/// What is known of one connection, at one end.
#[derive(Debug, Default)]
struct Life {
    host: usize,
    ends: Option<(Address, Address)>,
    /// Nothing but tells and `closed` may come.
    is_ending: bool,
    is_paused: bool,
    upgrades: usize,
    eof_told: bool,
    closed: bool,
    /// It was opened while nothing is opened, or refused: no callback comes.
    is_stillborn: bool,
    may_be_stillborn: bool,
    sent: usize,
    received: usize,
    /// Something was skipped: the bytes can be counted no more.
    is_blurred: bool,
    tells_accepted: usize,
    tells_run: usize,
}

/// The state of one host.
struct Ledger {
    shared: Handle,
    host: usize,
    ids: BTreeMap<Key, usize>,
    keys: Vec<Key>,
    timers: Vec<Timer>,
    listeners: usize,
    /// Datagram sockets, closed ones included, and how many are not.
    ears: Vec<Key>,
    ears_open: usize,
    is_shutting_down: bool,
}

impl Ledger {
    /// What the fuzzer says next.
    fn draw<T>(&self, read: impl FnOnce(&mut Tape<'_>) -> T) -> T {
        let mut shared = self.shared.borrow_mut();
        let shared = &mut *shared;
        let mut tape = Tape::new(&shared.tape[shared.at..]);
        let drawn = read(&mut tape);
        shared.at = shared.tape.len() - tape.rest().len();
        drawn
    }

    fn is_over(&self) -> bool {
        self.draw(|tape| tape.is_over())
    }

    fn life<T>(&self, id: usize, with: impl FnOnce(&mut Life) -> T) -> T {
        with(&mut self.shared.borrow_mut().lives[id])
    }

    fn new_life(&self) -> Option<usize> {
        let mut shared = self.shared.borrow_mut();
        if shared.lives.len() >= LIVES_MAX {
            return None;
        }
        shared.lives.push(Life { host: self.host, ..Life::default() });
        Some(shared.lives.len() - 1)
    }

    fn know(&mut self, key: Key, id: usize) {
        if self.ids.insert(key, id).is_none() {
            self.keys.push(key);
        }
    }

    /// Any key that ever was.
    fn key(&self) -> Option<Key> {
        let at = self.draw(|tape| tape.below(256));
        if self.keys.is_empty() { None } else { Some(self.keys[at % self.keys.len()]) }
    }

    /// For sending: numbered bytes, if there may be more.
    fn bytes(&self, id: usize) -> Vec<u8> {
        let wanted = self.draw(|tape| if tape.once_in(8) { 300 * tape.below(256) } else { tape.below(256) });
        let mut shared = self.shared.borrow_mut();
        let bytes = wanted.min(SENT_MAX - shared.sent);
        shared.sent += bytes;
        text(shared.lives[id].sent, bytes)
    }
}

// ---------------------------------------------------------------------------------------------------- what is done

/// Does one thing, or nothing when the fuzzer has nothing more to say.
fn act(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    if ledger.is_over() {
        return;
    }
    match ledger.draw(|tape| tape.below(32)) {
        0..4 => connect(net, ledger),
        4 => listen(net, ledger),
        5..9 => send(net, ledger),
        9 => produce(net, ledger),
        10..12 => tell(net, ledger),
        12 => net.post(act),
        13 | 14 => wait(net, ledger),
        15 => {
            let at = ledger.draw(|tape| tape.below(256));
            if let Some(&timer) = ledger.timers.get(at % ledger.timers.len().max(1)) {
                net.cancel(timer);
                assert!(!net.cancel(timer));
            }
        }
        16 => throttle(net, ledger),
        17 => drain_or_stop(net, ledger),
        18..21 => end(net, ledger),
        30 | 31 => datagrams(net, ledger),
        _ => command(net, ledger),
    }
}

fn datagrams(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let (what, which) = ledger.draw(|tape| (tape.below(8), tape.below(256)));
    if what < 2 {
        return bind(net, ledger);
    }
    let Some(&key) = ledger.ears.get(which % ledger.ears.len().max(1)) else { return };
    match what {
        2 => assert_eq!(net.is_open(key), net.close(key)),
        3 => {
            let group = [239, 0, 0, 1].into();
            let _ = net.join(key, group, Interface::Any); // or it is in it already
            assert_eq!(net.leave(key, group, Interface::Any).is_ok(), net.is_open(key));
        }
        4 => _ = net.send(key, packet(ledger)),
        _ => {
            let to = ledger.draw(packet_address);
            let was_open = net.is_open(key);
            let is_sent = net.send_to(key, &to, packet(ledger));
            assert!(was_open || !is_sent, "a socket that has begun to end sends");
        }
    }
}

fn bind(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    if ledger.ears_open >= EARS_MAX {
        return;
    }
    let (at, options) = ledger.draw(|tape| {
        let full = [Full::DropNewest, Full::DropOldest, Full::Close][tape.below(3)];
        let options =
            Bind::new().queue(tape.below(256) * 8, full).largest(if tape.once_in(2) { 65_535 } else { tape.below(256) });
        match tape.below(4) {
            0 => ("0.0.0.0:0".to_owned(), options.peer(place(tape))),
            1 => (format!("0.0.0.0:{}", 7000 + tape.below(PORTS)), options.reuse_port()),
            _ => (format!("{}:{}", IPS[ledger.host], 7000 + tape.below(PORTS)), options),
        }
    });
    if let Ok(key) = net.bind_with(at.as_str(), options, Ear::default()) {
        assert!(!ledger.is_shutting_down);
        ledger.ears.push(key);
        ledger.ears_open += 1;
    }
}

/// Of somebody, or one to which nothing can be sent.
fn packet_address(tape: &mut Tape<'_>) -> Address {
    let text = match tape.below(8) {
        0 => format!("239.0.0.1:{}", 7000 + tape.below(PORTS)),
        1 => ["[::1]:1", "255.255.255.255:1", "10.0.0.9:1", "10.0.0.1:0"][tape.below(4)].to_owned(),
        _ => place(tape),
    };
    Address::Ip(text.parse().expect("a literal address"))
}

/// All begin alike.
fn packet(ledger: &Ledger) -> Vec<u8> {
    let bytes = ledger.draw(|tape| if tape.once_in(16) { tape.below(256) * 300 } else { tape.below(256) });
    let mut shared = ledger.shared.borrow_mut();
    let bytes = bytes.min(SENT_MAX - shared.sent);
    shared.sent += bytes;
    text(0, bytes)
}

/// A datagram that does things, as a connection does.
#[derive(Default)]
struct Ear {
    is_closed: bool,
}

impl Ear {
    fn react(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger) -> Outcome {
        assert!(!self.is_closed, "a callback after `closed`");
        for _ in 0..ledger.draw(|tape| tape.below(8)).saturating_sub(5) {
            act(&mut scope.net, ledger);
        }
        if ledger.is_over() {
            return Ok(());
        }
        match ledger.draw(|tape| tape.below(16)) {
            0 => scope.close(),
            1 => return Err("as the script says".into()),
            2..6 => _ = scope.reply(packet(ledger)),
            _ => {}
        }
        Ok(())
    }

    fn take(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger, bytes: &[u8]) -> Outcome {
        assert!(scope.net.is_open(scope.key), "received after it began to end");
        assert!(bytes == text(0, bytes.len()), "other bytes than were sent");
        self.react(scope, ledger)
    }
}

impl Datagram<Ledger> for Ear {
    fn received(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger, bytes: &[u8], _: &Address) -> Outcome {
        self.take(scope, ledger, bytes)
    }

    fn oversized(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger, bytes: &[u8], _: &Address) -> Outcome {
        self.take(scope, ledger, bytes)
    }

    fn failed(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger, to: &Address, error: std::io::Error) -> Outcome {
        assert!(!format!("{to}: {error}").is_empty());
        self.react(scope, ledger)
    }

    fn writable(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger) -> Outcome {
        self.react(scope, ledger)
    }

    fn closed(&mut self, scope: &mut Scope<'_, Ledger>, ledger: &mut Ledger, _: Reason) {
        let _ = self.react(scope, ledger);
        self.is_closed = true;
        ledger.ears_open -= 1;
    }
}

fn delay(tape: &mut Tape<'_>) -> Duration {
    match tape.below(8) {
        0 => Duration::ZERO,
        1..6 => Duration::from_millis(u64::from(tape.byte())),
        6 => Duration::from_secs(u64::from(tape.byte())),
        _ => Duration::MAX,
    }
}

fn place(tape: &mut Tape<'_>) -> String {
    format!("{}:{}", IPS[tape.below(IPS.len())], 7000 + tape.below(PORTS))
}

fn connect(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some(id) = ledger.new_life() else { return };
    let (to, options) = ledger.draw(|tape| {
        let options = if tape.once_in(4) { Connect::new().timeout(delay(tape)) } else { Connect::new() };
        (if tape.once_in(16) { "unix:/nowhere".to_owned() } else { place(tape) }, options)
    });
    let key = net.connect_with(to.as_str(), options, Subject::new(id));
    if ledger.is_shutting_down {
        ledger.life(id, |life| life.is_stillborn = true);
        assert!(!net.is_open(key));
        return;
    }
    let (is_open, may_be_over) = (net.is_open(key), net.is_draining());
    ledger.life(id, |life| {
        life.is_ending = !is_open;
        life.may_be_stillborn = !is_open && may_be_over; // the grace is over: nothing is opened any more
    });
    ledger.know(key, id);
}

fn listen(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    if ledger.listeners >= LISTENERS_MAX {
        return;
    }
    ledger.listeners += 1;
    let (port, options) = ledger.draw(|tape| {
        let options = match tape.below(8) {
            0 => Listen::new().accepts_max(u64::from(tape.byte() % 4)),
            1 => Listen::new().connections_max(tape.below(4), text(0, 5)),
            2 => Listen::new().backlog(1),
            3 => Listen::new().per_peer_max(tape.below(4), text(0, 6)),
            4 => bounded(tape),
            5 => rated(tape),
            _ => Listen::new(),
        };
        (7000 + tape.below(PORTS), options)
    });
    let at = format!("{}:{port}", IPS[ledger.host]);
    let listening = net.listen_with(at.as_str(), options, |net, ledger: &mut Ledger, _| {
        if ledger.draw(|tape| tape.once_in(8)) {
            act(net, ledger);
        }
        let wants = !ledger.draw(|tape| tape.once_in(16));
        let id = if wants { ledger.new_life() } else { None };
        id.map(Subject::new).ok_or_else(|| Refusal::from(text(0, 7)))
    });
    if let Ok(key) = listening {
        assert!(!ledger.is_shutting_down);
        ledger.keys.push(key);
    }
}

fn bounded(tape: &mut Tape<'_>) -> Listen {
    let options = match tape.below(4) {
        0 => Listen::new().idle_timeout(delay(tape)),
        1 => Listen::new().stall_timeout(delay(tape)),
        2 => Listen::new().deadline(delay(tape)),
        _ => Listen::new(),
    };
    let [low, high, cap] = marks(tape);
    if tape.once_in(2) { options.output_limits(low, high, cap) } else { options }
}

/// Each way of each and of all together may have a rate.
fn rated(tape: &mut Tape<'_>) -> Listen {
    let set: [fn(Listen, u64) -> Listen; 4] =
        [Listen::read_rate, Listen::write_rate, Listen::total_read_rate, Listen::total_write_rate];
    let which = tape.byte();
    set.iter()
        .enumerate()
        .filter(|(bit, _)| which & 1 << bit != 0)
        .fold(Listen::new(), |options, (_, set)| set(options, rate(tape)))
}

fn marks(tape: &mut Tape<'_>) -> [usize; 3] {
    [tape.below(200) * 50, tape.below(200) * 200, tape.below(256) << 10]
}

fn send(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some(key) = ledger.key() else { return };
    let Some(&id) = ledger.ids.get(&key) else {
        assert!(!net.send(key, "nobody"), "a listener cannot be sent to");
        return;
    };
    let bytes = ledger.bytes(id);
    let is_sent = match ledger.draw(|tape| tape.below(2)) {
        0 => net.send(key, &bytes),
        _ => net.send_shared(key, &Rc::from(&bytes[..])),
    };
    note_sent(ledger, id, bytes.len(), is_sent, net.is_open(key));
}

fn note_sent(ledger: &Ledger, id: usize, bytes: usize, is_sent: bool, is_open: bool) {
    ledger.life(id, |life| {
        assert!(!is_sent || !life.closed, "sent to somebody who is closed");
        if is_sent {
            life.sent += bytes;
        } else if !is_open {
            life.is_ending = true; // by this call perhaps: an overflow
        }
    });
}

/// Makes its bytes in portions; now and then there is nothing yet, and a timer wakes it.
fn produce(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some((key, &id)) = ledger.key().and_then(|key| Some((key, ledger.ids.get(&key)?))) else { return };
    let bytes = ledger.bytes(id);
    let total = bytes.len();
    let mut portions: VecDeque<Vec<u8>> = bytes.chunks(1 + total / 5).map(<[u8]>::to_vec).collect();
    let mut pauses = ledger.draw(|tape| tape.below(4));
    let Some(mut link) = net.link(key) else { return };
    let is_queued = link.produce(move |out: &mut Vec<u8>| {
        if pauses > 0 && portions.len() % 2 == 0 {
            pauses -= 1;
            return Ok(Produced::NotYet);
        }
        match portions.pop_front() {
            Some(portion) => {
                out.extend_from_slice(&portion);
                Ok(Produced::More)
            }
            None => Ok(Produced::Done),
        }
    });
    note_sent(ledger, id, total, is_queued, net.is_open(key));
    let delay = ledger.draw(delay);
    let timer = net.after(delay, move |net, _| {
        if let Some(mut link) = net.link(key) {
            link.wake();
        }
    });
    ledger.timers.push(timer);
}

fn tell(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some(key) = ledger.key() else { return };
    let is_other = ledger.draw(|tape| tape.once_in(16));
    let id = ledger.ids.get(&key).copied();
    let is_accepted = if is_other {
        net.tell(key, |_: &mut Nobody, _, _| panic!("it was told to somebody else"))
    } else {
        net.tell(key, move |subject: &mut Subject, ctx, ledger| {
            assert_eq!(Some(subject.id), id, "another was told");
            ledger.life(subject.id, |life| {
                assert!(!life.closed, "a tell after `closed`");
                life.tells_run += 1;
            });
            subject.react(ctx, ledger)
        })
    };
    let Some(id) = id else {
        assert!(!is_accepted, "a listener cannot be told");
        return;
    };
    ledger.life(id, |life| {
        assert!(!is_accepted || !life.closed);
        life.tells_accepted += usize::from(is_accepted && !is_other);
    });
}

fn wait(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let delay = ledger.draw(delay);
    let due = net.now().checked_add(delay);
    let is_early = move |net: &Net<'_, Ledger>| due.is_none_or(|due| net.now() < due);
    let timer = match ledger.draw(|tape| tape.below(4)) {
        0 => net.after(delay, move |net, ledger| {
            assert!(!is_early(net), "a timer is early");
            act(net, ledger);
        }),
        1 => {
            let (name, left) = (Rc::new(Cell::new(None)), Cell::new(5));
            let own = Rc::clone(&name);
            let timer = net.every(delay, move |net, ledger| {
                assert!(!is_early(net), "a timer is early");
                left.set(left.get() - 1);
                if left.get() == 0 {
                    assert!(net.cancel(own.get().expect("set at once")));
                }
                act(net, ledger);
            });
            name.set(Some(timer));
            timer
        }
        2 => {
            let remote = net.remote();
            net.after(delay, move |_, _| remote.post(act).expect("it runs in its loop"))
        }
        _ => {
            let Some(key) = ledger.key() else { return };
            net.tell_after(key, delay, move |subject: &mut Subject, ctx, ledger| {
                assert!(!is_early(&ctx.net), "a timer is early");
                subject.may_be_called(ledger, "its timer");
                subject.react(ctx, ledger)
            })
        }
    };
    ledger.timers.push(timer);
}

fn throttle(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let (Some(reader), Some(writer)) = (ledger.key(), ledger.key()) else { return };
    if ledger.draw(|tape| tape.once_in(4)) {
        net.unthrottle(reader, writer);
    } else {
        net.throttle(reader, writer);
    }
}

fn drain_or_stop(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    match ledger.draw(|tape| tape.below(8)) {
        0 => net.drain(ledger.draw(delay)),
        1 => net.stop(),
        2 => {
            let (stats, all) = (net.stats(), net.connections());
            assert!(!format!("{stats:?} {all:?}").is_empty());
        }
        3 => net.offload(
            || 7,
            |net, ledger: &mut Ledger, brought| {
                assert_eq!(brought.unwrap_or(7), 7, "what another brought"); // or there was no room, or no thread
                act(net, ledger);
            },
        ),
        4 => offload(net, ledger),
        _ => _ = net.random(),
    }
}

/// Work of a connection, which may panic.
fn offload(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some(key) = ledger.key() else { return };
    let (id, was_open) = (ledger.ids.get(&key).copied(), net.is_open(key));
    let is_bad = ledger.draw(|tape| tape.once_in(4));
    let work = move || {
        if is_bad {
            std::panic::resume_unwind(Box::new("by the script"));
        }
        id
    };
    let is_given = net.offload_for(key, work, move |subject: &mut Subject, ctx, ledger, brought| {
        subject.may_be_called(ledger, "its offload");
        match brought {
            Ok(brought) => assert!(!is_bad && brought == Some(subject.id), "another was told"),
            Err(OffloadError::Panicked(text)) => assert!(is_bad && text == "by the script"),
            Err(_) => {} // no room, or no thread
        }
        subject.react(ctx, ledger)
    });
    assert_eq!(is_given, was_open && id.is_some());
}

fn end(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some(key) = ledger.key() else { return };
    let was_open = net.is_open(key);
    let has_worked = match ledger.draw(|tape| tape.below(4)) {
        0 | 1 => net.close(key),
        2 => net.abort(key),
        _ => net.fail(key, "by the script"),
    };
    assert!(has_worked || !was_open);
    assert!(!net.is_open(key), "it has begun to end");
    if let Some(&id) = ledger.ids.get(&key) {
        ledger.life(id, |life| {
            assert!(!has_worked || !life.closed);
            life.is_ending = true;
        });
    }
}

/// One of a connection's own commands, by key.
fn command(net: &mut Net<'_, Ledger>, ledger: &mut Ledger) {
    let Some((key, &id)) = ledger.key().and_then(|key| Some((key, ledger.ids.get(&key)?))) else { return };
    let Some(mut link) = net.link(key) else { return };
    ledger.life(id, |life| assert!(!life.closed, "closed, and there is a link"));
    match ledger.draw(|tape| tape.below(18)) {
        0 | 1 => {
            link.pause();
            ledger.life(id, |life| life.is_paused = true);
        }
        2..5 => {
            link.resume();
            ledger.life(id, |life| life.is_paused = false);
        }
        5 => link.half_close(),
        6 | 7 => {
            let (terminator, is_blurred) = ledger.draw(terminator);
            ledger.life(id, |life| life.is_blurred |= is_blurred);
            link.set_terminator(terminator);
        }
        8 => link.set_idle_timeout(ledger.draw(|tape| tape.once_in(2).then(|| delay(tape)))),
        9 => link.set_stall_timeout(ledger.draw(|tape| tape.once_in(2).then(|| delay(tape)))),
        10 => link.set_deadline(ledger.draw(|tape| tape.once_in(2).then(|| delay(tape)))),
        11 => link.set_frame_timeout(ledger.draw(|tape| tape.once_in(2).then(|| delay(tape)))),
        12 => {
            let [low, high, cap] = ledger.draw(marks);
            link.set_output_limits(low, high, cap);
        }
        13 => link.set_hold_back(ledger.draw(|tape| tape.once_in(2))),
        14 => link.wake(),
        15 => link.set_read_rate(ledger.draw(|tape| tape.once_in(2).then(|| rate(tape)))),
        16 => link.set_write_rate(ledger.draw(|tape| tape.once_in(2).then(|| rate(tape)))),
        _ => {
            let _ = (link.is_congested(), link.queued(), link.unread(), link.peer().to_string(), link.local().to_string());
            assert!(link.with_socket(|_| ()).is_none(), "there is none in a simulation");
        }
    }
    let is_open = net.is_open(key);
    ledger.life(id, |life| life.is_ending |= !is_open);
}

/// Never so slow that what is queued is not gone when all has calmed down.
fn rate(tape: &mut Tape<'_>) -> u64 {
    [100_000, 1 << 20, u64::MAX][tape.below(3)]
}

/// And whether it may lose bytes: by a delimiter, by a skipped frame.
fn terminator(tape: &mut Tape<'_>) -> (Terminator, bool) {
    match tape.below(8) {
        0 => (Terminator::line(tape.below(256)), true),
        1 => (Terminator::delimiter(vec![0x80, 0x81], tape.size()), true),
        2 => (Terminator::exactly(tape.below(256) * 8), false),
        3 => (Terminator::Stream(tape.number()), false),
        4 => (Terminator::stream_until(vec![0x90, 0x91]), true),
        5 => (Terminator::custom(Pieces(tape.below(40)), 64), false),
        6 => (Terminator::prefixed(Width::U16, Endian::Big, tape.size()), true),
        _ => (Terminator::None, false),
    }
}

/// Pieces and frames of so many bytes, in turn.
struct Pieces(usize);

impl Framer for Pieces {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        let bytes = self.0 / 2 + 1;
        if input.len() < bytes {
            return Ok(Step::Need(bytes));
        }
        self.0 ^= 1;
        Ok(if self.0 % 2 == 0 {
            Step::Frame { bytes: 0..bytes, consumed: bytes }
        } else {
            Step::Piece { bytes: 0..bytes, consumed: bytes }
        })
    }
}

// ------------------------------------------------------------------------------------------------------ who does it

/// A protocol that checks how it is called, and does in each callback what the fuzzer says.
struct Subject {
    id: usize,
    is_connected: bool,
}

/// Of this type nobody is.
struct Nobody;
impl Protocol<Ledger> for Nobody {}

impl Subject {
    fn new(id: usize) -> Self {
        Self { id, is_connected: false }
    }

    fn may_be_called(&self, ledger: &Ledger, what: &str) {
        ledger.life(self.id, |life| {
            assert!(!life.closed, "{what} after `closed`");
            assert!(!life.is_ending, "{what} after it began to end");
        });
    }

    fn may_get(&self, ledger: &Ledger, what: &str) {
        self.may_be_called(ledger, what);
        assert!(self.is_connected, "{what} before `connected`");
        ledger.life(self.id, |life| {
            assert!(!life.is_paused, "{what} while it is paused");
            assert!(!life.eof_told, "{what} after `eof`");
        });
    }

    fn take(&self, ledger: &Ledger, bytes: &[u8]) {
        ledger.life(self.id, |life| {
            if !life.is_blurred {
                assert!(bytes == text(life.received, bytes.len()), "other bytes than were sent");
            }
            life.received += bytes.len();
        });
    }

    /// A few things, and perhaps an end.
    fn react(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger) -> Outcome {
        for _ in 0..ledger.draw(|tape| tape.below(8)).saturating_sub(4) {
            act(&mut ctx.net, ledger);
        }
        if ledger.is_over() {
            return Ok(());
        }
        match ledger.draw(|tape| tape.below(24)) {
            0 => {
                self.ends(ledger);
                ctx.close();
            }
            1 => {
                self.ends(ledger);
                return Err("as the script says".into());
            }
            2 => {
                ctx.half_close();
                let is_open = ctx.net.is_open(ctx.key);
                ledger.life(self.id, |life| life.is_ending |= !is_open);
            }
            3 if !ledger.life(self.id, |life| life.is_ending) => {
                ledger.life(self.id, |life| life.upgrades += 1);
                ctx.upgrade(Self::new(self.id));
            }
            4..12 => self.answer(ctx, ledger),
            12 => {
                let (terminator, is_blurred) = ledger.draw(terminator);
                ledger.life(self.id, |life| life.is_blurred |= is_blurred);
                ctx.set_terminator(terminator);
            }
            _ => {}
        }
        Ok(())
    }

    fn ends(&self, ledger: &Ledger) {
        ledger.life(self.id, |life| life.is_ending = true);
    }

    fn answer(&self, ctx: &mut Context<'_, Ledger>, ledger: &Ledger) {
        let bytes = ledger.bytes(self.id);
        let is_sent = ctx.link().send(&bytes);
        note_sent(ledger, self.id, bytes.len(), is_sent, ctx.net.is_open(ctx.key));
    }
}

impl Protocol<Ledger> for Subject {
    fn connected(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger) -> Outcome {
        ledger.know(ctx.key, self.id);
        self.may_be_called(ledger, "connected");
        assert!(!std::mem::replace(&mut self.is_connected, true), "connected twice");
        let ends = (ctx.local().clone(), ctx.peer().clone());
        ledger.life(self.id, |life| {
            life.ends = Some(ends);
            (life.is_paused, life.eof_told) = (life.is_paused && life.upgrades == 0, false);
        });
        self.react(ctx, ledger)
    }

    fn received(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger, bytes: &[u8]) -> Outcome {
        self.may_get(ledger, "received");
        assert!(!bytes.is_empty());
        self.take(ledger, bytes);
        self.react(ctx, ledger)
    }

    fn frame(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger, frame: &[u8]) -> Outcome {
        self.may_get(ledger, "frame");
        self.take(ledger, frame);
        self.react(ctx, ledger)
    }

    fn writable(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger) -> Outcome {
        self.may_be_called(ledger, "writable");
        assert!(self.is_connected);
        self.react(ctx, ledger)
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger, limit: Limit) -> Outcome {
        self.may_be_called(ledger, "exceeded");
        assert!(self.is_connected);
        assert_ne!(limit, Limit::Linger);
        if ledger.is_over() || ledger.draw(|tape| tape.once_in(4)) {
            self.ends(ledger);
            return Err(limit.into());
        }
        ledger.life(self.id, |life| life.is_blurred |= matches!(limit, Limit::FrameBytes | Limit::FrameTime));
        self.react(ctx, ledger)
    }

    fn draining(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger) -> Outcome {
        self.may_be_called(ledger, "draining");
        assert!(self.is_connected);
        self.react(ctx, ledger)
    }

    fn eof(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger, tail: &[u8]) -> Outcome {
        self.may_get(ledger, "eof");
        self.take(ledger, tail);
        ledger.life(self.id, |life| life.eof_told = true);
        if ledger.draw(|tape| tape.once_in(2)) {
            let before = ledger.life(self.id, |life| life.upgrades);
            self.react(ctx, ledger)?;
            ledger.life(self.id, |life| {
                if life.upgrades > before {
                    life.received -= tail.len(); // a successor is given what is unread, and the end, again
                    life.eof_told = false;
                }
            });
        } else {
            self.ends(ledger);
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ledger>, ledger: &mut Ledger, why: Reason) {
        let is_shutdown = ledger.is_shutting_down || matches!(why, Reason::Shutdown); // which drops tells
        ledger.life(self.id, |life| {
            assert!(!life.is_stillborn, "closed, and it was never opened");
            assert!(!std::mem::replace(&mut life.closed, true), "closed twice");
            life.is_ending = true;
            if !is_shutdown && life.upgrades == 0 {
                assert_eq!(life.tells_run, life.tells_accepted, "accepted tells run before `closed`");
            }
        });
        assert!(!why.is_connect() || !self.is_connected, "it was connected: {why}");
        let _ = (ctx.peer().to_string(), ctx.local().to_string(), why.to_string());
        let _ = self.react(ctx, ledger);
    }
}

// -------------------------------------------------------------------------------------------------- the whole of it

fn run(data: &[u8]) {
    let mut tape = Tape::new(data);
    let mut sim = Sim::new(u64::from(tape.byte()));
    sim.keep_trace(false);
    let config = config(&mut tape);
    sim.set_weather(weather(&mut tape));
    let shared = Shared { tape: tape.rest().to_vec(), at: 0, lives: Vec::new(), sent: 0 };
    let shared = Rc::new(RefCell::new(shared));
    let hosts: Vec<Host<Ledger>> = IPS
        .iter()
        .enumerate()
        .map(|(host, ip)| {
            let ledger = Ledger {
                shared: Rc::clone(&shared),
                host,
                ids: BTreeMap::new(),
                keys: Vec::new(),
                timers: Vec::new(),
                listeners: 0,
                ears: Vec::new(),
                ears_open: 0,
                is_shutting_down: false,
            };
            sim.host_with(ip, ledger, config.clone())
        })
        .collect();
    for &host in &hosts {
        sim.with(host, listen);
    }
    while !sim.state(hosts[0]).is_over() {
        from_outside(&mut sim, &hosts);
    }
    calm_down(&mut sim, &hosts);
    sim.run_for(Duration::from_secs(120));
    for &host in &hosts {
        shut_down(&mut sim, host);
        sim.settle();
        assert_eq!(sim.sockets(host), 0, "a socket is left behind");
    }
    check(&shared.borrow().lives);
}

fn from_outside(sim: &mut Sim, hosts: &[Host<Ledger>]) {
    let choice = |sim: &mut Sim, end: usize| sim.state(hosts[0]).draw(|tape| tape.below(end));
    let at = choice(sim, hosts.len());
    let host = hosts[at];
    match choice(sim, 32) {
        0..16 => sim.with(host, act),
        16..20 => _ = sim.settle(),
        20..24 => {
            let time = sim.state(host).draw(|tape| Duration::from_millis(u64::from(tape.byte()) * 4));
            sim.run_for(time);
        }
        24 => {
            let time = Duration::from_secs(choice(sim, 60) as u64);
            sim.run_for(time);
        }
        25 => {
            let other = hosts[choice(sim, hosts.len())];
            if choice(sim, 2) == 0 {
                sim.part(host, other)
            } else {
                sim.join(host, other)
            };
        }
        26 => {
            let weather = sim.state(host).draw(weather);
            sim.set_weather(weather);
        }
        27 => {
            let at = sim.state(host).draw(place);
            let fate = [Fate::Refused, Fate::Unreachable, Fate::Silent][choice(sim, 3)];
            sim.set_fate(&at, fate);
        }
        28 => {
            let sockets = choice(sim, 12);
            sim.set_sockets_max(host, sockets);
        }
        29 | 30 => {
            let in_so_many = choice(sim, 16) as u64;
            let errno = ERRNOS[choice(sim, ERRNOS.len())];
            let number = sim.operations(host) + in_so_many;
            let is_persistent = choice(sim, 8) == 0;
            sim.fail_operation(host, number, errno, is_persistent);
            if is_persistent {
                sim.run_for(Duration::from_millis(300));
                sim.fail_operation(host, u64::MAX, errno, false);
            }
        }
        _ => {
            if choice(sim, 4) == 0 {
                shut_down(sim, host);
            }
        }
    }
}

const ERRNOS: [Errno; 8] = [
    Errno::Again,
    Errno::Interrupted,
    Errno::ConnectionReset,
    Errno::BrokenPipe,
    Errno::NoBuffers,
    Errno::TimedOut,
    Errno::TooManyFiles,
    Errno::ConnectionAborted,
];

fn config(tape: &mut Tape<'_>) -> Config {
    if tape.once_in(2) {
        return Config::new();
    }
    Config::new()
        .turn_frames(1 + tape.below(8))
        .turn_bytes(1 + tape.below(256) * 64)
        .turn_tells(1 + tape.below(4))
        .turn_timers(1 + tape.below(4))
        .turn_jobs(1 + tape.below(4))
        .turn_accepts(1 + tape.below(4))
        .turn_closings(1 + tape.below(4))
        .output_limits(tape.below(256) * 8, tape.below(256) * 64, tape.below(256) << 10)
        .lingering_max(tape.below(4))
        .offload_threads(2)
        .offload_queue(3)
        .linger_max(delay(tape))
        .connect_max(delay(tape))
}

fn weather(tape: &mut Tape<'_>) -> Weather {
    let weather = match tape.below(4) {
        0 | 1 => return Weather::fair(),
        2 => return Weather::rough(),
        _ => Weather::fair(),
    };
    let weather = weather.work(Duration::from_millis(500));
    let mut thousandths = |most: usize| tape.below(most) as u32;
    weather
        .short(thousandths(256) * 4, thousandths(256) * 4)
        .resets(thousandths(16))
        .spurious(thousandths(128))
        .refusals(thousandths(128), thousandths(64))
        .pauses(thousandths(16))
        .window(200 + tape.below(256) * 32)
        .latency(Duration::from_millis(u64::from(tape.byte())), Duration::from_millis(u64::from(tape.byte())))
        .datagrams(tape.below(256) as u32, tape.below(256) as u32, tape.below(256) as u32)
}

/// Nothing stands in the way any more.
fn calm_down(sim: &mut Sim, hosts: &[Host<Ledger>]) {
    sim.set_weather(Weather::fair());
    for &host in hosts {
        sim.fail_operation(host, u64::MAX, Errno::Again, false).set_sockets_max(host, usize::MAX);
        for &other in hosts {
            sim.join(host, other);
        }
    }
}

fn shut_down(sim: &mut Sim, host: Host<Ledger>) {
    sim.state(host).is_shutting_down = true;
    sim.shutdown(host);
    let ledger = sim.state(host);
    (ledger.is_shutting_down, ledger.listeners) = (false, 0);
    assert_eq!(ledger.ears_open, 0, "datagram sockets that a shutdown did not close");
    let host = ledger.host;
    let shared = ledger.shared.borrow();
    let left = shared.lives.iter().find(|life| {
        let is_owed = !life.is_stillborn && !life.may_be_stillborn;
        life.host == host && !life.closed && is_owed
    });
    assert!(left.is_none(), "not closed by a shutdown: {left:?}");
}

/// Everybody was closed; and who was told of the end has all that was sent.
fn check(lives: &[Life]) {
    for life in lives {
        let Some((local, peer)) = &life.ends else { continue };
        let is_other_end = |other: &&Life| other.ends.as_ref().is_some_and(|(its, theirs)| its == peer && theirs == local);
        let Some(other) = lives.iter().find(is_other_end) else { continue };
        if life.is_blurred {
            continue;
        }
        assert!(life.received <= other.sent, "{} bytes were received of {}", life.received, other.sent);
        if life.eof_told {
            assert_eq!(life.received, other.sent, "all that was sent came before the end");
        }
    }
}
