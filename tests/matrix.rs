//! Every callback × every action, on accepted and on opened connections, and three ways to end it all: what was promised
//! happens, exactly one `closed` comes and comes last, nobody else notices, and no descriptor stays open.
//!
//! A binary of its own with one thread, because threads share the descriptor table.

#[path = "common/skips.rs"]
#[allow(dead_code)] // a part of it
mod skips;
#[cfg(feature = "tls")]
#[path = "common/tls.rs"]
mod tls;

use mainspring::{
    Address, Bind, Config, Context, Datagram, Dispatcher, Drained, Fault, Framer, Key, Limit, Listen, Net, Outcome, Produced,
    Protocol, Reactor, Reason, Refusal, Remote, Scope, Source, Step, Terminator, Timer,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

/// No case waits longer for what it expects.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every panic that is part of a case says, and no other.
const PLANNED: &str = "planned panic";

const HOUR: Duration = Duration::from_secs(3600);

// ------------------------------------------------------------------------------------------------ the two directions

/// Which callback acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Connected,
    Received,
    Frame,
    Writable,
    Exceeded,
    Deadline,
    Draining,
    Eof,
    Closed,
    OwnTimer,
    Tell,
    NetTimer,
    Post,
    RemotePost,
    Factory,
    Producer,
    Framer,
    DeviceReadable,
    DeviceWritable,
    DeviceClosed,
    DatagramReceived,
    DatagramOversized,
    DatagramFailed,
    DatagramWritable,
    DatagramClosed,
}

use When::*;

const WHENS: [When; 25] = [
    Connected,
    Received,
    Frame,
    Writable,
    Exceeded,
    Deadline,
    Draining,
    Eof,
    Closed,
    OwnTimer,
    Tell,
    NetTimer,
    Post,
    RemotePost,
    Factory,
    When::Producer,
    When::Framer,
    DeviceReadable,
    DeviceWritable,
    DeviceClosed,
    DatagramReceived,
    DatagramOversized,
    DatagramFailed,
    DatagramWritable,
    DatagramClosed,
];

impl When {
    /// The connection's own callback, with a context.
    fn has_context(self) -> bool {
        matches!(self, Connected | Received | Frame | Writable | Exceeded | Deadline | Draining | Eof | Closed | OwnTimer | Tell)
    }

    fn is_job(self) -> bool {
        matches!(self, NetTimer | Post | RemotePost)
    }

    fn is_device(self) -> bool {
        matches!(self, DeviceReadable | DeviceWritable | DeviceClosed)
    }

    fn is_datagram(self) -> bool {
        matches!(self, DatagramReceived | DatagramOversized | DatagramFailed | DatagramWritable | DatagramClosed)
    }

    /// A callback with a scope: of what is not a stream, and has nothing to flush, to pause, or to become.
    fn has_scope(self) -> bool {
        self.is_device() || self.is_datagram()
    }

    /// The actor has ended already.
    fn is_after_the_end(self) -> bool {
        matches!(self, Closed | DeviceClosed | DatagramClosed)
    }
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    CloseSelf,
    CloseSelfByKey,
    CloseSelfTwice,
    CloseOther,
    HalfCloseSelf,
    HalfCloseOther,
    AbortSelf,
    AbortSelfByKey,
    AbortOther,
    CloseThenAbort,
    FailSelf,
    FailOther,
    Upgrade,
    UpgradeThenClose,
    UpgradeThenErr,
    UpgradeWithBomb,
    Listen,
    Bind,
    ConnectLive,
    ConnectRefused,
    Adopt,
    DetachSelf,
    DetachOther,
    SendSelf,
    SendOther,
    SendAfterClose,
    TellThenClose,
    PauseSelf,
    PauseAndResume,
    PauseOther,
    Stop,
    Panic,
    Err,
    Drain,
    ThrottleSelf,
    ThrottleOther,
    SetTerminator,
    CancelOwnTimer,
    PanicInDrop,
    NoProgress,
    /// With the feature `tls`.
    StartTlsOther,
}

const ACTIONS: [Action; 42] = [
    Action::Nothing,
    Action::CloseSelf,
    Action::CloseSelfByKey,
    Action::CloseSelfTwice,
    Action::CloseOther,
    Action::HalfCloseSelf,
    Action::HalfCloseOther,
    Action::AbortSelf,
    Action::AbortSelfByKey,
    Action::AbortOther,
    Action::CloseThenAbort,
    Action::FailSelf,
    Action::FailOther,
    Action::Upgrade,
    Action::UpgradeThenClose,
    Action::UpgradeThenErr,
    Action::UpgradeWithBomb,
    Action::Listen,
    Action::Bind,
    Action::ConnectLive,
    Action::ConnectRefused,
    Action::Adopt,
    Action::DetachSelf,
    Action::DetachOther,
    Action::SendSelf,
    Action::SendOther,
    Action::SendAfterClose,
    Action::TellThenClose,
    Action::PauseSelf,
    Action::PauseAndResume,
    Action::PauseOther,
    Action::Stop,
    Action::Panic,
    Action::Err,
    Action::Drain,
    Action::ThrottleSelf,
    Action::ThrottleOther,
    Action::SetTerminator,
    Action::CancelOwnTimer,
    Action::PanicInDrop,
    Action::NoProgress,
    Action::StartTlsOther,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Accepted,
    Opened,
}

/// How the case is wound up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// Every peer ends, listeners are closed.
    Peers,
    Shutdown,
    /// The reactor is dropped with all that is in it.
    Drop,
}

const FINISHES: [Finish; 3] = [Finish::Peers, Finish::Shutdown, Finish::Drop];

#[derive(Clone, Copy, Debug)]
struct Case {
    side: Side,
    when: When,
    action: Action,
    finish: Finish,
}

impl Case {
    fn name(self) -> String {
        format!("{}::{:?}_then_{:?}", group(self.side, self.when), self.action, self.finish)
    }

    /// Whether the action can be written in that callback.
    fn is_possible(self) -> bool {
        use Action::*;
        if (self.when == Factory && self.side == Side::Opened) || (self.action == StartTlsOther && !cfg!(feature = "tls")) {
            return false;
        }
        match self.when {
            // They are given nothing to act with.
            When::Producer | When::Framer => matches!(self.action, Nothing | Panic | Err | PanicInDrop | NoProgress),
            Closed => !matches!(self.action, Err | NoProgress),
            DeviceClosed | DatagramClosed if self.action == Err => false,
            // Its room is that of a connected Unix socket: over UDP the loopback has always some.
            DatagramWritable if !cfg!(unix) => false,
            _ if self.when.is_datagram() && matches!(self.action, SendSelf | SendAfterClose) => true,
            _ if self.when.is_datagram() && self.action == ThrottleSelf => false,
            _ if self.when.has_context() => self.action != NoProgress,
            Factory => !matches!(
                self.action,
                Upgrade
                    | UpgradeThenClose
                    | UpgradeThenErr
                    | UpgradeWithBomb
                    | TellThenClose
                    | SendSelf
                    | SendAfterClose
                    | HalfCloseSelf
                    | PauseSelf
                    | PauseAndResume
                    | ThrottleSelf
                    | ThrottleOther
                    | SetTerminator
                    | CloseSelfByKey
                    | AbortSelfByKey
                    | NoProgress
            ),
            _ if self.when.has_scope() => !matches!(
                self.action,
                Upgrade
                    | UpgradeThenClose
                    | UpgradeThenErr
                    | UpgradeWithBomb
                    | TellThenClose
                    | SendSelf
                    | SendAfterClose
                    | HalfCloseSelf
                    | PauseSelf
                    | PauseAndResume
                    | ThrottleOther
                    | SetTerminator
                    | NoProgress
            ),
            _ => !matches!(
                self.action,
                Upgrade
                    | UpgradeThenClose
                    | UpgradeThenErr
                    | UpgradeWithBomb
                    | Err
                    | CloseSelfByKey
                    | AbortSelfByKey
                    | PanicInDrop
                    | NoProgress
            ),
        }
    }

    /// How the actor's own connection (or dispatcher) ends by the action alone; `None`: it goes on.
    fn ends(self) -> Option<&'static str> {
        use Action::*;
        let polite = if self.when == Eof { "the peer finished" } else { "finished" };
        match self.action {
            _ if self.when.is_after_the_end() => Some("finished"),
            CloseSelf | CloseSelfByKey | CloseSelfTwice | SendAfterClose | TellThenClose | UpgradeThenClose => Some(polite),
            // These have nothing to flush: the first cause wins.
            CloseThenAbort if self.when.has_scope() => Some(polite),
            AbortSelf | AbortSelfByKey | CloseThenAbort => Some("aborted"),
            // A stream that ended both ways; a successor that is told of the end.
            HalfCloseSelf | Upgrade | UpgradeWithBomb if self.when == Eof => Some(polite),
            // The answer to a limit that is exceeded.
            Err | UpgradeThenErr if self.when == Exceeded => Some("a frame is longer than its limit"),
            Err | UpgradeThenErr if self.when == Deadline => Some("the deadline passed"),
            // What is not a stream is not given back.
            DetachSelf if self.when.has_scope() => None,
            DetachSelf => Some("detached"),
            FailSelf | Err | UpgradeThenErr | NoProgress => Some("failed: "),
            Panic if self.when.is_job() => None,
            // It is dropped when it is done, inside the call.
            PanicInDrop if self.when == When::Producer => Some("panicked: planned panic"),
            Panic => Some("panicked: planned panic"),
            // The default answer to `draining` is to close; dispatchers and datagram sockets are last.
            Drain if self.when.has_scope() || self.when == Draining => None,
            Drain => Some(polite),
            _ => None,
        }
    }

    fn other_ends(self) -> Option<&'static str> {
        match self.action {
            Action::CloseOther => Some("finished"),
            Action::AbortOther => Some("aborted"),
            Action::FailOther => Some("failed: "),
            Action::DetachOther => Some("detached"),
            Action::StartTlsOther => Some("could not agree on TLS: the peer does not speak TLS: it began with `ping`"),
            _ => None,
        }
    }
}

fn group(side: Side, when: When) -> String {
    format!("every_action_in_{when:?}_of_{side:?}_ends_as_promised").to_lowercase()
}

// ---------------------------------------------------------------------------------------------------------- the cast

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The one that acts.
    Subject,
    /// What a subject is upgraded to.
    Successor,
    /// The one that it is done to.
    Other,
    /// The one that must not notice.
    Bystander,
    /// Those whom an action lets in, or who are connected to by one.
    Extra,
    Device,
    Packets,
    /// The datagram socket that an action binds.
    Bound,
}

#[derive(Debug)]
struct Note {
    key: Key,
    role: Role,
    call: &'static str,
    text: Vec<u8>,
}

/// What the program has only one of.
struct Bench {
    case: Case,
    has_acted: Rc<Cell<bool>>,
    /// How many notes there were when the action was done.
    acted_at: usize,
    notes: Vec<Note>,
    /// Whom "self" means where there is no context.
    own: Option<Key>,
    other: Option<Key>,
    timer: Option<Timer>,
    live_at: SocketAddr,
    refused_at: SocketAddr,
    live: Option<Key>,
    refused: Option<Key>,
    listener: Option<(Key, SocketAddr)>,
    bound: Option<Key>,
    /// Answers that were not what was promised.
    wrong: Vec<String>,
    /// One for each protocol that is alive.
    life: Rc<()>,
}

impl Bench {
    fn note(&mut self, key: Key, role: Role, call: &'static str, text: &[u8]) {
        self.notes.push(Note { key, role, call, text: text.to_vec() });
    }

    /// Whether it is the moment to act, which comes once.
    fn is_due(&mut self, when: When) -> bool {
        let is_due = self.case.when == when && !self.has_acted.replace(true);
        if is_due {
            self.acted_at = self.notes.len();
        }
        is_due
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong.push(what.to_owned());
        }
    }

    fn key_of(&self, role: Role) -> Option<Key> {
        self.notes.iter().find(|note| note.role == role).map(|note| note.key)
    }

    fn calls(&self, key: Key, call: &str) -> usize {
        self.notes.iter().filter(|note| note.key == key && note.call == call).count()
    }

    fn reason(&self, key: Key) -> Option<String> {
        let closed = self.notes.iter().find(|note| note.key == key && note.call == "closed");
        closed.map(|note| String::from_utf8_lossy(&note.text).into_owned())
    }

    fn input(&self, key: Key) -> Vec<u8> {
        let pieces = self.notes.iter().filter(|note| note.key == key && matches!(note.call, "received" | "frame"));
        pieces.flat_map(|note| note.text.clone()).collect()
    }

    fn has_heard(&self, key: Key, text: &str) -> bool {
        contains(&self.input(key), text)
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Panics when it is dropped, if armed.
#[derive(Default)]
struct Bomb {
    is_armed: bool,
}

impl Bomb {
    fn arm(&mut self, on: bool) {
        self.is_armed = on;
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.is_armed || std::thread::panicking(), "{PLANNED}");
    }
}

struct Actor {
    role: Role,
    bomb: Bomb,
    _life: Rc<()>,
}

type Ctx<'a> = Context<'a, Bench>;

impl Actor {
    fn new(role: Role, life: &Rc<()>) -> Self {
        Self { role, bomb: Bomb::default(), _life: Rc::clone(life) }
    }

    /// Whether the callback is to go on with what it usually does.
    fn step(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench, when: When, call: &'static str, text: &[u8]) -> Result<bool, Fault> {
        bench.note(ctx.key, self.role, call, text);
        if self.role != Role::Subject || !bench.is_due(when) {
            return Ok(true);
        }
        self.act(ctx, bench)?;
        Ok(false)
    }

    fn act(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench) -> Outcome {
        let life = Rc::clone(&bench.life);
        let successor = || Self::new(Role::Successor, &life);
        match bench.case.action {
            Action::CloseSelf => ctx.close(),
            Action::CloseSelfTwice => {
                ctx.close();
                ctx.close();
            }
            Action::AbortSelf => ctx.abort(),
            Action::CloseThenAbort => {
                ctx.close();
                bench.expect(ctx.net.abort(ctx.key) != bench.case.when.is_after_the_end(), "abort after close still works");
            }
            Action::FailSelf => ctx.fail("planned"),
            Action::HalfCloseSelf => ctx.half_close(),
            Action::Upgrade => ctx.upgrade(successor()),
            Action::UpgradeWithBomb => {
                self.bomb.arm(true);
                ctx.upgrade(successor());
            }
            Action::UpgradeThenClose => {
                ctx.upgrade(successor());
                ctx.close();
            }
            Action::UpgradeThenErr => {
                ctx.upgrade(successor());
                return Err("planned".into());
            }
            Action::SendSelf => ctx.send("reply"),
            Action::SendAfterClose => {
                ctx.close();
                ctx.send("too late");
                write!(ctx, "too late");
                ctx.send_shared(&Rc::from(&b"too late"[..]));
            }
            Action::TellThenClose => {
                tell(&mut ctx.net, ctx.key, bench);
                ctx.close();
            }
            Action::PauseSelf => ctx.pause(),
            Action::PauseAndResume => {
                ctx.pause();
                ctx.resume();
            }
            Action::SetTerminator => ctx.set_terminator(Terminator::exactly(4)),
            Action::Err => return Err("planned".into()),
            Action::PanicInDrop => self.bomb.arm(true),
            _ => by_key(&mut ctx.net, ctx.key, bench),
        }
        Ok(())
    }

    /// What the subject needs for its moment to come.
    fn prepare(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench) {
        if self.role != Role::Subject {
            return;
        }
        let (action, has_acted) = (bench.case.action, Rc::clone(&bench.has_acted));
        match bench.case.when {
            Frame => ctx.set_terminator(Terminator::line(100)),
            Exceeded => ctx.set_terminator(Terminator::line(10)),
            Writable => {
                ctx.set_output_limits(0, 10, 1 << 20);
                ctx.send([b'w'; 64]);
            }
            Deadline => ctx.set_deadline(Duration::from_millis(1)),
            When::Producer => ctx.produce(maker(action, has_acted)),
            When::Framer => ctx.set_terminator(Terminator::custom(Cutter { action, has_acted, bomb: Bomb::default() }, 100)),
            _ => {}
        }
        match bench.case.when {
            NetTimer => {}
            OwnTimer => {
                let timer = ctx.every(Duration::from_millis(1), |me: &mut Self, ctx, bench| {
                    me.step(ctx, bench, OwnTimer, "timer", b"").map(drop)
                });
                bench.timer = Some(timer);
            }
            _ => bench.timer = Some(ctx.after(HOUR, |_: &mut Self, _, _| Ok(()))),
        }
    }

    fn echoes(&self) -> bool {
        matches!(self.role, Role::Bystander | Role::Extra)
    }
}

impl Protocol<Bench> for Actor {
    fn connected(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench) -> Outcome {
        self.prepare(ctx, bench);
        self.step(ctx, bench, Connected, "connected", b"").map(drop)
    }

    fn received(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench, bytes: &[u8]) -> Outcome {
        if self.echoes() {
            ctx.send(bytes);
        }
        self.step(ctx, bench, Received, "received", bytes).map(drop)
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench, frame: &[u8]) -> Outcome {
        self.step(ctx, bench, Frame, "frame", frame).map(drop)
    }

    fn writable(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench) -> Outcome {
        self.step(ctx, bench, Writable, "writable", b"").map(drop)
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench, limit: Limit) -> Outcome {
        let when = if limit == Limit::Deadline { Deadline } else { Exceeded };
        self.step(ctx, bench, when, "exceeded", b"").map(drop)
    }

    fn draining(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench) -> Outcome {
        if self.step(ctx, bench, Draining, "draining", b"")? && self.role == Role::Subject {
            ctx.close();
        }
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench, tail: &[u8]) -> Outcome {
        if self.step(ctx, bench, Eof, "eof", tail)? {
            ctx.close();
        }
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Ctx<'_>, bench: &mut Bench, why: Reason) {
        let _ = self.step(ctx, bench, Closed, "closed", why.to_string().as_bytes());
        // Of the others it is dropped.
        if let (Reason::Detached(detached), Role::Other) = (why, self.role) {
            let adopted = detached.socket.unread(detached.unread);
            bench.live = ctx.net.adopt(adopted, Self::new(Role::Extra, &bench.life)).ok();
        }
    }
}

fn tell(net: &mut Net<'_, Bench>, key: Key, bench: &mut Bench) {
    // Three, where one a turn is run: `closed` waits for them.
    let is_accepted = [(); 3].map(|()| {
        net.tell(key, |me: &mut Actor, ctx, bench: &mut Bench| {
            bench.note(ctx.key, me.role, "told", b"");
            Ok(())
        })
    });
    bench.expect(is_accepted == [!bench.case.when.is_after_the_end(); 3], "a tell is accepted before the end, and not after");
}

/// The same by key: from jobs, factories and dispatchers, and on others.
fn by_key(net: &mut Net<'_, Bench>, own: Key, bench: &mut Bench) {
    let is_over = bench.case.when.is_after_the_end();
    let other = bench.other.expect("the other came first");
    let is_open = net.is_open(own);
    bench.expect(is_open != is_over, "open until the end, and not in `closed`");
    match bench.case.action {
        Action::CloseSelf | Action::CloseSelfByKey | Action::CloseSelfTwice => {
            bench.expect(net.close(own) == is_open, "close says whether it was open");
            bench.expect(!net.close(own), "the second close finds nothing");
            expect_ended(net, own, bench);
        }
        Action::CloseOther => {
            bench.expect(net.close(other), "the other was open");
            expect_ended(net, other, bench);
        }
        Action::AbortSelf | Action::AbortSelfByKey => {
            bench.expect(net.abort(own) == is_open, "abort says whether there was something");
            expect_ended(net, own, bench);
        }
        Action::AbortOther => {
            bench.expect(net.abort(other), "the other was open");
            expect_ended(net, other, bench);
        }
        Action::CloseThenAbort => {
            net.close(own);
            net.abort(own);
        }
        Action::FailSelf => bench.expect(net.fail(own, "planned") == is_open, "fail says whether it was open"),
        Action::FailOther => {
            bench.expect(net.fail(other, "planned"), "the other was open");
            expect_ended(net, other, bench);
        }
        Action::HalfCloseSelf => bench.expect(net.half_close(own) == is_open, "half_close says whether it was open"),
        Action::HalfCloseOther => {
            bench.expect(net.half_close(other), "the other is open");
            bench.expect(!net.send(other, "too late"), "nothing is sent after a half-close");
        }
        Action::Listen => {
            let life = Rc::clone(&bench.life);
            let key = net.listen("127.0.0.1:0", move || Actor::new(Role::Extra, &life)).expect("a free port");
            let at = net.local(key).and_then(|address| address.ip()).expect("an IP listener");
            bench.listener = Some((key, at));
        }
        Action::Bind => {
            let packets = Packets::new(Role::Bound, &bench.life);
            bench.bound = Some(net.bind("127.0.0.1:0", packets).expect("a free port"));
        }
        Action::ConnectLive => bench.live = Some(net.connect(bench.live_at, Actor::new(Role::Extra, &bench.life))),
        Action::ConnectRefused => bench.refused = Some(net.connect(bench.refused_at, Actor::new(Role::Extra, &bench.life))),
        Action::Adopt => {
            let socket = TcpStream::connect(bench.live_at).expect("the kernel connects it");
            bench.live = net.adopt(socket, Actor::new(Role::Extra, &bench.life)).ok();
        }
        Action::DetachSelf => {
            let is_stream = !bench.case.when.has_scope() && bench.case.when != Factory;
            bench.expect(net.detach(own) == (is_open && is_stream), "detach says whether it was an open stream");
            bench.expect(!net.detach(own), "the second detach finds nothing");
        }
        Action::DetachOther => {
            bench.expect(net.detach(other), "the other was open");
            expect_ended(net, other, bench);
        }
        #[cfg(feature = "tls")]
        Action::StartTlsOther => {
            let config = std::sync::Arc::new(tls::server("ed25519"));
            let mut other = net.link(other).expect("the other is open");
            bench.expect(other.send("in clear") && other.start_tls(config.clone()), "the other is connected");
            bench.expect(!other.start_tls(config), "it speaks TLS only once");
            bench.expect(other.send("too late"), "what is sent now waits for the handshake");
        }
        Action::SendSelf => bench.expect(net.send(own, "reply") == is_open, "send says whether it was open"),
        Action::SendOther => bench.expect(net.send(other, "hello"), "the other is open"),
        Action::SendAfterClose => {
            net.close(own);
            bench.expect(!net.send(own, "too late"), "nothing is sent after the end");
        }
        Action::TellThenClose => {
            tell(net, own, bench);
            net.close(own);
        }
        Action::PauseSelf => net.link(own).expect("it is open").pause(),
        Action::PauseAndResume => {
            let mut link = net.link(own).expect("it is open");
            link.pause();
            link.resume();
        }
        Action::PauseOther => net.link(other).expect("it is open").pause(),
        Action::SetTerminator => net.link(own).expect("it is open").set_terminator(Terminator::exactly(4)),
        Action::Stop => net.stop(),
        Action::Panic => panic!("{PLANNED}"),
        Action::Drain => net.drain(HOUR),
        Action::ThrottleSelf => bench.expect(net.throttle(own, other) == is_open, "a reader must be open"),
        Action::ThrottleOther => bench.expect(net.throttle(other, own) == is_open, "a writer must be open"),
        Action::CancelOwnTimer => {
            let timer = bench.timer.expect("it was set");
            let had_died = bench.case.when == Closed;
            bench.expect(net.cancel(timer) != had_died, "a timer of a connection dies with it, and not before");
            bench.expect(!net.cancel(timer), "a timer is cancelled once");
        }
        _ => {}
    }
}

fn expect_ended(net: &mut Net<'_, Bench>, key: Key, bench: &mut Bench) {
    bench.expect(!net.is_open(key), "what was ended is not open");
    bench.expect(!net.send(key, "too late"), "what was ended takes no bytes");
    bench.expect(net.link(key).is_none(), "what was ended has no link");
    bench.expect(!net.tell(key, |_: &mut Actor, _, _| Ok(())), "what was ended takes no tells");
    bench.expect(!net.fail(key, "again"), "what was ended does not fail");
}

/// A producer that does what it should.
fn maker(action: Action, has_acted: Rc<Cell<bool>>) -> impl FnMut(&mut Vec<u8>) -> std::io::Result<Produced> {
    let mut bomb = Bomb::default();
    move |out| {
        has_acted.set(true);
        match action {
            Action::Panic => panic!("{PLANNED}"),
            Action::Err => Err(std::io::Error::other("planned")),
            Action::NoProgress => Ok(Produced::More),
            _ => {
                bomb.arm(action == Action::PanicInDrop);
                out.extend_from_slice(b"produced");
                Ok(Produced::Done)
            }
        }
    }
}

struct Cutter {
    action: Action,
    has_acted: Rc<Cell<bool>>,
    bomb: Bomb,
}

impl Framer for Cutter {
    fn next(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        self.has_acted.set(true);
        match self.action {
            Action::Panic => panic!("{PLANNED}"),
            Action::Err => Err("planned".into()),
            Action::NoProgress => Ok(Step::Piece { bytes: 0..0, consumed: 0 }),
            _ => {
                self.bomb.arm(self.action == Action::PanicInDrop);
                Ok(Step::Piece { bytes: 0..input.len(), consumed: input.len() })
            }
        }
    }
}

/// A source of our own.
struct Device {
    socket: mio::net::TcpStream,
    bomb: Bomb,
    _life: Rc<()>,
}

impl Device {
    fn step(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, when: When, call: &'static str) -> Result<bool, Fault> {
        if !bench.is_due(when) {
            return Ok(false);
        }
        bench.note(scope.key, Role::Device, call, b"");
        match bench.case.action {
            Action::CloseSelf => scope.close(),
            Action::Err => return Err("planned".into()),
            Action::PanicInDrop => self.bomb.arm(true),
            _ => by_key(&mut scope.net, scope.key, bench),
        }
        Ok(true)
    }
}

impl Dispatcher<Bench> for Device {
    fn source(&mut self) -> Source<'_> {
        Source::Mio(&mut self.socket)
    }

    fn readable(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench) -> Result<Drained, Fault> {
        match self.socket.read(&mut [0; 64]) {
            Ok(0) => return Ok(Drained::Yes),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Drained::Yes),
            Err(error) => return Err(error.into()),
        }
        self.step(scope, bench, DeviceReadable, "readable")?;
        Ok(Drained::No)
    }

    fn writable(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench) -> Result<Drained, Fault> {
        self.step(scope, bench, DeviceWritable, "writable")?;
        Ok(Drained::Yes)
    }

    fn closed(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, why: Reason) {
        bench.note(scope.key, Role::Device, "closed", why.to_string().as_bytes());
        if bench.is_due(DeviceClosed) {
            match bench.case.action {
                Action::PanicInDrop => self.bomb.arm(true),
                _ => by_key(&mut scope.net, scope.key, bench),
            }
        }
    }
}

/// A datagram socket.
struct Packets {
    role: Role,
    bomb: Bomb,
    _life: Rc<()>,
}

impl Packets {
    fn new(role: Role, life: &Rc<()>) -> Self {
        Self { role, bomb: Bomb::default(), _life: Rc::clone(life) }
    }

    fn step(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, when: When, call: &'static str, bytes: &[u8]) -> Outcome {
        bench.note(scope.key, self.role, call, bytes);
        if self.role == Role::Bound {
            scope.reply(bytes);
            return Ok(());
        }
        if !bench.is_due(when) {
            return Ok(());
        }
        match bench.case.action {
            Action::CloseSelf => scope.close(),
            Action::Err => return Err("planned".into()),
            Action::PanicInDrop => self.bomb.arm(true),
            Action::SendSelf => send_to_itself(scope, bench),
            Action::SendAfterClose => {
                scope.close();
                let to = bench.live_at.into();
                let refused = !scope.reply("too late") && !scope.net.send_to(scope.key, &to, "too late");
                bench.expect(refused, "nothing is sent after the end");
            }
            _ => by_key(&mut scope.net, scope.key, bench),
        }
        Ok(())
    }
}

/// Whoever has no address sends to its peer.
fn send_to_itself(scope: &mut Scope<'_, Bench>, bench: &mut Bench) {
    let is_open = scope.net.is_open(scope.key);
    let own = scope.net.local(scope.key).filter(|address| address.ip().is_some()).cloned();
    let is_sent = match own {
        Some(own) => scope.net.send_to(scope.key, &own, "reply"),
        None => scope.net.send(scope.key, "reply"),
    };
    bench.expect(is_sent == is_open, "send_to says whether it was open");
}

impl Datagram<Bench> for Packets {
    fn received(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, bytes: &[u8], _: &Address) -> Outcome {
        self.step(scope, bench, DatagramReceived, "received", bytes)
    }

    fn oversized(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, bytes: &[u8], _: &Address) -> Outcome {
        self.step(scope, bench, DatagramOversized, "oversized", bytes)
    }

    fn failed(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, _: &Address, _: io::Error) -> Outcome {
        self.step(scope, bench, DatagramFailed, "failed", b"")
    }

    fn writable(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench) -> Outcome {
        self.step(scope, bench, DatagramWritable, "writable", b"")
    }

    fn closed(&mut self, scope: &mut Scope<'_, Bench>, bench: &mut Bench, why: Reason) {
        let _ = self.step(scope, bench, DatagramClosed, "closed", why.to_string().as_bytes());
    }
}

/// The far end of a datagram socket.
enum FarEnd {
    Udp(UdpSocket),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixDatagram),
}

impl FarEnd {
    fn say(&self, text: &[u8]) {
        let said = match self {
            Self::Udp(socket) => socket.send(text),
            #[cfg(unix)]
            Self::Unix(socket) => socket.send(text),
        };
        said.expect("room in an empty buffer");
    }

    /// All that has come, one after the other.
    fn hear(&self) -> Vec<u8> {
        let (mut heard, mut buf) = (Vec::new(), [0; 4096]);
        let mut next = || match self {
            Self::Udp(socket) => socket.recv(&mut buf).map(|n| buf[..n].to_vec()),
            #[cfg(unix)]
            Self::Unix(socket) => socket.recv(&mut buf).map(|n| buf[..n].to_vec()),
        };
        while let Ok(bytes) = next() {
            heard.extend(bytes);
        }
        heard
    }
}

// --------------------------------------------------------------------------------------------------------- the stage

/// The far end of a connection.
struct Peer {
    socket: TcpStream,
    heard: Vec<u8>,
    has_ended: bool,
    was_reset: bool,
}

impl Peer {
    fn new(socket: TcpStream) -> Self {
        socket.set_nonblocking(true).expect("a socket option");
        socket.set_nodelay(true).expect("a socket option");
        Self { socket, heard: Vec::new(), has_ended: false, was_reset: false }
    }

    fn listen(&mut self) {
        let mut buf = [0; 4096];
        while !self.has_ended {
            match self.socket.read(&mut buf) {
                Ok(0) => self.has_ended = true,
                Ok(n) => self.heard.extend_from_slice(&buf[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => (self.has_ended, self.was_reset) = (true, true),
            }
        }
    }

    fn say(&mut self, text: &[u8]) {
        self.socket.write_all(text).expect("room in an empty buffer");
    }
}

struct Stage {
    reactor: Reactor<Bench>,
    bench: Bench,
    /// Where opened connections arrive.
    door: TcpListener,
    /// Where accepted ones come from, and who the next one is.
    listener: (Key, SocketAddr),
    next_role: Rc<Cell<Role>>,
    peers: BTreeMap<u8, Peer>,
    device: Option<(Key, Peer)>,
    packets: Option<(Key, FarEnd)>,
    /// How often a turn said that it was time to return.
    stops: usize,
    /// Nobody accepts here; the kernel alone completes the connections.
    _live: TcpListener,
    _refused: socket2::Socket,
}

impl Stage {
    fn new(case: Case) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("a literal");
        let door = TcpListener::bind(any).expect("a free port");
        let live = TcpListener::bind(any).expect("a free port");
        // Bound and not listening: nobody else gets the port, and nobody answers.
        let refused = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        refused.bind(&any.into()).expect("a free port");
        let mut bench = Bench {
            case,
            has_acted: Rc::default(),
            acted_at: 0,
            notes: Vec::new(),
            own: None,
            other: None,
            timer: None,
            live_at: live.local_addr().expect("bound"),
            refused_at: refused.local_addr().expect("bound").as_socket().expect("IP"),
            live: None,
            refused: None,
            listener: None,
            bound: None,
            wrong: Vec::new(),
            life: Rc::default(),
        };
        let mut reactor = Reactor::with_config(Config::new().linger_max(PATIENCE).turn_tells(1)).expect("a selector");
        bench.timer = Some(reactor.net().after(HOUR, |_, _| {}));
        let next_role = Rc::new(Cell::new(Role::Other));
        let listener = listen(&mut reactor, case, &bench.life, &next_role);
        let (peers, device, packets) = (BTreeMap::new(), None, None);
        Self { reactor, bench, door, listener, next_role, peers, device, packets, stops: 0, _live: live, _refused: refused }
    }

    fn case(&self) -> Case {
        self.bench.case
    }

    fn turn(&mut self, wait_max: Duration) {
        let goes_on = self.reactor.turn(&mut self.bench, wait_max).expect("the selector works");
        self.stops += usize::from(!goes_on);
        for peer in self.peers.values_mut() {
            peer.listen();
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "never: {what}; notes {:?}", self.bench.notes);
            self.turn(Duration::from_millis(5));
        }
    }

    /// For what must not happen.
    fn settle(&mut self) {
        let wait = if self.case().action == Action::CancelOwnTimer { Duration::from_millis(2) } else { Duration::ZERO };
        for _ in 0..4 {
            self.turn(wait);
        }
    }

    /// One more connection, of the case's side.
    fn enter(&mut self, role: Role) {
        let peer = match self.case().side {
            Side::Accepted => {
                self.next_role.set(role);
                TcpStream::connect(self.listener.1).expect("we listen")
            }
            Side::Opened => {
                let to = self.door.local_addr().expect("bound");
                self.reactor.net().connect(to, Actor::new(role, &self.bench.life));
                self.door.accept().expect("the kernel has connected it").0
            }
        };
        self.peers.insert(role as u8, Peer::new(peer));
    }

    fn peer(&mut self, role: Role) -> &mut Peer {
        self.peers.get_mut(&(role as u8)).expect("it entered")
    }

    fn key(&self, role: Role) -> Key {
        self.bench.key_of(role).expect("it was called")
    }

    fn is_open(&mut self, key: Key) -> bool {
        self.reactor.net().is_open(key)
    }

    /// The cast comes in, and the moment comes.
    fn play(&mut self) {
        for role in [Role::Other, Role::Bystander] {
            self.enter(role);
            self.until("somebody came in", |stage| stage.bench.key_of(role).is_some());
        }
        self.bench.other = self.bench.key_of(Role::Other);
        if self.case().when == Factory {
            self.bench.own = Some(self.listener.0);
        }
        self.enter(Role::Subject);
        if self.case().when != Factory {
            self.until("the subject was connected", |stage| stage.bench.key_of(Role::Subject).is_some());
            let subject = self.key(Role::Subject);
            self.bench.own = Some(subject);
            self.trigger(subject);
        }
        self.until("the moment to act came", |stage| stage.bench.has_acted.get());
    }

    fn trigger(&mut self, subject: Key) {
        match self.case().when {
            Received | When::Framer => self.peer(Role::Subject).say(b"one"),
            Frame => self.peer(Role::Subject).say(b"one\ntwo\n"),
            Exceeded => self.peer(Role::Subject).say(&[b'x'; 100]),
            Eof => self.peer(Role::Subject).socket.shutdown(Shutdown::Write).expect("connected"),
            Closed => assert!(self.reactor.net().close(subject)),
            Draining => self.reactor.net().drain(HOUR),
            Tell => {
                let told =
                    |me: &mut Actor, ctx: &mut Ctx<'_>, bench: &mut Bench| me.step(ctx, bench, Tell, "tell", b"").map(drop);
                assert!(self.reactor.net().tell(subject, told));
            }
            NetTimer => {
                let timer = self.reactor.net().every(Duration::from_millis(1), |net, bench| job(net, bench, NetTimer));
                self.bench.timer = Some(timer);
            }
            Post => self.reactor.net().post(|net, bench| job(net, bench, Post)),
            RemotePost => {
                let remote: Remote<Bench> = self.reactor.remote();
                remote.post(|net, bench| job(net, bench, RemotePost)).expect("the reactor is there");
            }
            when if when.is_device() => self.watch(),
            DatagramWritable => self.bind_to_one_who_is_full(),
            when if when.is_datagram() => self.bind(),
            _ => {}
        }
    }

    fn watch(&mut self) {
        let to = self.door.local_addr().expect("bound");
        let socket = TcpStream::connect(to).expect("we listen");
        socket.set_nonblocking(true).expect("a socket option");
        let mut peer = Peer::new(self.door.accept().expect("the kernel has connected it").0);
        let socket = mio::net::TcpStream::from_std(socket);
        let device = Device { socket, bomb: Bomb::default(), _life: Rc::clone(&self.bench.life) };
        let key = self.reactor.net().watch(device).expect("a socket can be watched");
        self.bench.own = Some(key);
        match self.case().when {
            DeviceReadable => peer.say(b"data"),
            DeviceClosed => assert!(self.reactor.net().close(key)),
            _ => {}
        }
        self.device = Some((key, peer));
    }

    fn bind(&mut self) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("a socket option");
        let packets = Packets::new(Role::Packets, &self.bench.life);
        let mut net = self.reactor.net();
        let key = net.bind_with("127.0.0.1:0", Bind::new().largest(16), packets).expect("a free port");
        self.bench.own = Some(key);
        socket.connect(net.local(key).and_then(Address::ip).expect("an IP address")).expect("an address");
        match self.case().when {
            DatagramReceived => _ = socket.send(b"one"),
            DatagramOversized => _ = socket.send(&[b'x'; 100]),
            DatagramFailed => {
                let to = socket.local_addr().expect("bound").into();
                assert!(self.reactor.net().send_to(key, &to, [b'x'; 70_000]), "that it is too long is told");
            }
            DatagramClosed => assert!(self.reactor.net().close(key)),
            _ => {}
        }
        self.packets = Some((key, FarEnd::Udp(socket)));
    }

    /// Some wait then, and once there is room they have left.
    #[cfg(unix)]
    fn bind_to_one_who_is_full(&mut self) {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().expect("a pair");
        far.set_nonblocking(true).expect("a socket option");
        let packets = Packets::new(Role::Packets, &self.bench.life);
        let key = self.reactor.net().bind_on(near, Bind::new(), packets).expect("a datagram socket");
        self.bench.own = Some(key);
        let far = FarEnd::Unix(far);
        let mut net = self.reactor.net();
        while net.connections().iter().any(|connection| connection.key == key && connection.queued == 0) {
            assert!(net.send(key, "w"), "it leaves or waits");
        }
        assert_eq!(self.bench.calls(key, "writable"), 0, "nobody is called within a send");
        far.hear();
        self.packets = Some((key, far));
    }

    #[cfg(not(unix))]
    fn bind_to_one_who_is_full(&mut self) {
        unreachable!("these cases are left out");
    }

    // ------------------------------------------------------------------------------------------ what was promised

    fn check(&mut self) {
        match self.case().when {
            Factory => self.check_factory(),
            _ => self.check_own(),
        }
        self.check_others();
        self.check_that_it_goes_on();
        assert_eq!(self.bench.wrong, Vec::<String>::new(), "answers");
        let stops = usize::from(self.case().action == Action::Stop);
        assert_eq!(self.stops, stops, "turns that said that it was time to return");
    }

    fn check_own(&mut self) {
        let own = self.bench.own.expect("set with the trigger");
        match self.case().ends() {
            Some(reason) => {
                self.until("the actor was closed", |stage| stage.bench.calls(own, "closed") > 0);
                self.settle();
                let why = self.bench.reason(own).expect("it was closed");
                assert!(why.starts_with(reason), "closed for {why:?}, not for {reason:?}");
                assert!(!self.is_open(own));
                self.check_silence(own);
            }
            None => {
                self.settle();
                assert!(self.is_open(own), "it goes on: {:?}", self.bench.notes);
                assert_eq!(self.bench.calls(own, "closed"), 0);
            }
        }
        match self.case().when {
            when if when.is_datagram() => self.check_packets(own),
            when if when.is_device() => {}
            _ => self.check_subject_peer(own),
        }
    }

    /// A connection that goes on is given what comes, and what it sends leaves; the others get and send nothing.
    fn check_packets(&mut self, own: Key) {
        let goes_on = self.case().ends().is_none();
        if let (Some((_, far)), true) = (&self.packets, goes_on) {
            far.say(b"ping");
            self.until("the datagram socket heard the ping", |stage| stage.bench.has_heard(own, "ping"));
        }
        if self.case().action == Action::SendSelf && goes_on {
            let mut heard = Vec::new();
            self.until("what it sent came", |stage| {
                let (_, far) = stage.packets.as_ref().expect("it was bound");
                heard.extend(far.hear());
                contains(&heard, "reply") || stage.bench.has_heard(own, "reply")
            });
        }
        let (_, far) = self.packets.as_ref().expect("it was bound");
        assert!(!contains(&far.hear(), "too late"), "nothing leaves after the end");
    }

    /// After the end began there are only tells, and `closed`.
    fn check_silence(&self, own: Key) {
        use Action::*;
        let begins_an_end = !matches!(self.case().action, Drain | Upgrade | UpgradeWithBomb | HalfCloseSelf);
        let after = self.bench.notes.iter().skip(self.bench.acted_at).filter(|note| note.key == own);
        let calls: Vec<&str> = after.map(|note| note.call).collect();
        if begins_an_end && !self.case().when.is_after_the_end() && self.case().ends().is_some() && self.bench.acted_at > 0 {
            let expected: &[&str] = match (self.case().when, self.case().action) {
                (_, TellThenClose) => &["told", "told", "told", "closed"],
                // Its own note of the call is made on the way.
                (DeviceReadable, _) => &["readable", "closed"],
                (DeviceWritable, _) => &["writable", "closed"],
                _ => &["closed"],
            };
            assert_eq!(calls, expected, "after the action");
        }
    }

    fn check_subject_peer(&mut self, own: Key) {
        use Action::*;
        let is_over = self.case().when == Closed;
        match self.case().action {
            SendSelf if !is_over => self.until("the reply came", |stage| contains(&stage.peer(Role::Subject).heard, "reply")),
            HalfCloseSelf => self.until("the peer saw the end", |stage| stage.peer(Role::Subject).has_ended),
            AbortSelf | AbortSelfByKey | CloseThenAbort if !is_over => {
                self.until("the peer saw the reset", |stage| stage.peer(Role::Subject).has_ended);
                // Wine reads a reset as an end if it has looked at the socket before.
                assert!(self.peer(Role::Subject).was_reset || cfg!(windows), "abort resets");
            }
            CloseSelf | CloseSelfByKey | CloseSelfTwice | TellThenClose => {
                self.until("the peer saw the end", |stage| stage.peer(Role::Subject).has_ended);
                assert!(!self.peer(Role::Subject).was_reset, "a polite close does not reset");
            }
            Upgrade | UpgradeWithBomb if !is_over => {
                assert!(self.bench.notes.iter().any(|note| note.role == Role::Successor && note.call == "connected"));
            }
            UpgradeThenClose | UpgradeThenErr => assert!(self.bench.key_of(Role::Successor).is_none(), "dropped uncalled"),
            CancelOwnTimer if self.case().when == OwnTimer => assert_eq!(self.bench.calls(own, "timer"), 1),
            _ => {}
        }
        assert!(!contains(&self.peer(Role::Subject).heard, "too late"), "nothing leaves after the end");
        if self.case().ends().is_none() && self.case().when != Eof {
            self.check_reading(own);
        }
    }

    /// A connection that goes on is given what comes, unless it paused.
    fn check_reading(&mut self, own: Key) {
        let is_paused = self.case().action == Action::PauseSelf;
        self.peer(Role::Subject).say(b"\nping\n");
        if is_paused {
            self.settle();
            assert!(!self.bench.has_heard(own, "ping") && !self.bench.has_heard(own, "two"), "paused: {:?}", self.bench.notes);
            self.reactor.net().link(own).expect("it is open").resume();
        }
        self.until("the subject heard the ping", |stage| stage.bench.has_heard(own, "ping"));
    }

    fn check_factory(&mut self) {
        use Action::*;
        let own = self.listener.0;
        match self.case().action {
            Err | Panic => {
                self.until("the guest was sent away", |stage| stage.peer(Role::Subject).has_ended);
                assert!(self.bench.key_of(Role::Subject).is_none(), "nobody was made for it");
                let (heard, was_reset) = (self.peer(Role::Subject).heard.clone(), self.peer(Role::Subject).was_reset);
                let panics = self.case().action == Panic;
                assert!(was_reset == panics || cfg!(windows), "a panic resets"); // Wine as above
                assert_eq!(heard, if panics { &b""[..] } else { &b"not you"[..] });
            }
            _ => self.until("the guest came in", |stage| stage.bench.key_of(Role::Subject).is_some()),
        }
        let closes = matches!(self.case().action, CloseSelf | CloseSelfTwice | AbortSelf | CloseThenAbort | FailSelf | Drain);
        self.settle();
        assert_eq!(self.is_open(own), !closes, "the listener");
        if self.case().action == Drain {
            let subject = self.key(Role::Subject);
            self.until("the guest was drained", |stage| stage.bench.calls(subject, "closed") > 0);
            assert_eq!(self.bench.calls(subject, "draining"), 1);
        }
    }

    fn check_others(&mut self) {
        use Action::*;
        let other = self.key(Role::Other);
        if self.case().action == StartTlsOther {
            self.until("what was queued came in clear", |stage| contains(&stage.peer(Role::Other).heard, "in clear"));
            assert!(self.is_open(other), "it waits for its peer");
            self.peer(Role::Other).say(b"ping");
        }
        match self.case().other_ends() {
            Some(reason) => {
                self.until("the other was closed", |stage| stage.bench.calls(other, "closed") > 0);
                let why = self.bench.reason(other).expect("it was closed");
                assert!(why.starts_with(reason), "the other was closed for {why:?}, not for {reason:?}");
            }
            None => assert!(self.is_open(other), "the other goes on"),
        }
        match self.case().action {
            SendOther => self.until("the other's peer was told", |stage| contains(&stage.peer(Role::Other).heard, "hello")),
            StartTlsOther => assert!(!contains(&self.peer(Role::Other).heard, "too late"), "nothing of it leaves in clear"),
            HalfCloseOther => self.until("the other's peer saw the end", |stage| stage.peer(Role::Other).has_ended),
            PauseOther => {
                self.peer(Role::Other).say(b"ping");
                self.settle();
                assert!(!self.bench.has_heard(other, "ping"), "the other is paused");
                self.reactor.net().link(other).expect("it is open").resume();
                self.until("the other heard the ping", |stage| stage.bench.has_heard(other, "ping"));
            }
            ConnectRefused => {
                let key = self.bench.refused.expect("it was tried");
                self.until("the refusal was told", |stage| stage.bench.calls(key, "closed") > 0);
                assert_eq!(self.bench.calls(key, "connected"), 0);
                let why = self.bench.reason(key).expect("it was closed");
                assert!(why.starts_with("could not connect to "), "{why}");
            }
            ConnectLive | Adopt => {
                let key = self.bench.live.expect("it was tried");
                self.until("the new connection was there", |stage| stage.bench.calls(key, "connected") > 0);
            }
            DetachOther => {
                let key = self.bench.live.expect("it was adopted again");
                self.until("the adopted one was there", |stage| stage.bench.calls(key, "connected") > 0);
                self.peer(Role::Other).say(b"ping");
                self.until("its peer was answered", |stage| contains(&stage.peer(Role::Other).heard, "ping"));
            }
            Bind => {
                let key = self.bench.bound.expect("it is bound");
                let at = self.reactor.net().local(key).and_then(Address::ip).expect("it is bound");
                let far = UdpSocket::bind("127.0.0.1:0").expect("a free port");
                far.set_nonblocking(true).expect("a socket option");
                far.send_to(b"ping", at).expect("room in an empty buffer");
                self.until("the new socket answered", |_| far.recv(&mut [0; 16]).is_ok());
            }
            Listen => {
                let (_, at) = self.bench.listener.expect("it listens");
                let peer = Peer::new(TcpStream::connect(at).expect("it listens"));
                self.peers.insert(Role::Extra as u8, peer);
                self.until("the new listener accepts", |stage| stage.bench.key_of(Role::Extra).is_some());
            }
            _ => {}
        }
    }

    fn check_that_it_goes_on(&mut self) {
        let key = self.key(Role::Bystander);
        self.peer(Role::Bystander).say(b"ping");
        self.until("the bystander was answered", |stage| contains(&stage.peer(Role::Bystander).heard, "ping"));
        assert!(self.is_open(key));
    }

    // ---------------------------------------------------------------------------------------------------- the end

    fn finish(mut self) {
        match self.case().finish {
            Finish::Peers => self.finish_by_peers(),
            Finish::Shutdown => {
                let Self { reactor, bench, .. } = &mut self;
                reactor.shutdown(bench);
                assert!(is_empty(&self.reactor), "a shutdown leaves nothing: {:?}", self.reactor);
            }
            Finish::Drop => {}
        }
        let Self { reactor, bench, .. } = self;
        drop(reactor);
        check_grammar(&bench);
        assert_eq!(Rc::strong_count(&bench.life), 1, "protocols and factories that were never dropped");
    }

    fn finish_by_peers(&mut self) {
        for peer in self.peers.values() {
            let _ = peer.socket.shutdown(Shutdown::Write); // it may be reset already
        }
        let (listener, subject) = (self.listener.0, self.bench.key_of(Role::Subject));
        let extra = self.bench.listener.map(|(key, _)| key);
        let device = self.device.as_ref().map(|(key, _)| *key);
        let packets = self.packets.as_ref().map(|(key, _)| *key);
        let (live, bound) = (self.bench.live, self.bench.bound);
        let deaf = subject.filter(|_| self.case().when == Eof);
        for key in [Some(listener), extra, device, packets, bound, deaf].into_iter().flatten() {
            self.reactor.net().close(key);
        }
        if let Some(key) = live {
            self.reactor.net().abort(key); // nobody is at its other end
        }
        self.until("every slot was free", |stage| is_empty(&stage.reactor));
        let subject_ended_by_its_peer = self.case().ends().is_none() && !self.case().when.has_scope();
        if let Some(subject) = subject.filter(|_| subject_ended_by_its_peer) {
            let has_half_closed = self.case().action == Action::HalfCloseSelf;
            let expected = if has_half_closed { "finished" } else { "the peer finished" };
            assert_eq!(self.bench.reason(subject).as_deref(), Some(expected));
        }
    }
}

fn job(net: &mut Net<'_, Bench>, bench: &mut Bench, when: When) {
    if bench.is_due(when) {
        let own = bench.own.expect("set with the trigger");
        by_key(net, own, bench);
    } else {
        assert!(bench.case.action != Action::CancelOwnTimer, "a cancelled timer fired");
    }
}

fn listen(reactor: &mut Reactor<Bench>, case: Case, life: &Rc<()>, next_role: &Rc<Cell<Role>>) -> (Key, SocketAddr) {
    let (life, next_role) = (Rc::clone(life), Rc::clone(next_role));
    let mut bomb = Bomb::default();
    let factory = move |net: &mut Net<'_, Bench>, bench: &mut Bench, _: &mainspring::Address| {
        let role = next_role.get();
        if role == Role::Subject && bench.is_due(Factory) {
            match case.action {
                Action::Err => return Err(Refusal::from("not you")),
                Action::PanicInDrop => bomb.arm(true),
                _ => {
                    let own = bench.own.expect("set before the guest comes");
                    by_key(net, own, bench);
                }
            }
        }
        Ok(Actor::new(role, &life))
    };
    let mut net = reactor.net();
    let key = net.listen_with("127.0.0.1:0", Listen::new(), factory).expect("a free port");
    (key, net.local(key).and_then(|address| address.ip()).expect("an IP listener"))
}

fn is_empty<S>(reactor: &Reactor<S>) -> bool {
    format!("{reactor:?}").contains("slots: 0,")
}

/// `connected` first, `closed` once and last; only a reactor that was dropped may owe it.
fn check_grammar(bench: &Bench) {
    let mut calls: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for note in &bench.notes {
        calls.entry(note.key.to_string()).or_default().push(note.call);
    }
    for (key, calls) in calls {
        let closings = calls.iter().filter(|call| **call == "closed").count();
        let fewest = usize::from(bench.case.finish != Finish::Drop);
        assert!((fewest..=1).contains(&closings), "{key} was closed {closings} times: {calls:?}");
        let is_last = closings == 0 || calls.last() == Some(&"closed");
        assert!(is_last, "{key} was called after `closed`: {calls:?}");
    }
}

fn run_case(case: Case) {
    let before = descriptors();
    let mut stage = Stage::new(case);
    stage.play();
    stage.check();
    stage.finish();
    assert_eq!(descriptors(), before, "open descriptors");
}

// ------------------------------------------------------------------------------------------------------------- churn

#[derive(Default)]
struct Ends {
    connected: BTreeMap<String, usize>,
    closed: BTreeMap<String, usize>,
    keys: Vec<Key>,
}

struct Visitor;

impl Protocol<Ends> for Visitor {
    fn connected(&mut self, ctx: &mut Context<'_, Ends>, ends: &mut Ends) -> Outcome {
        *ends.connected.entry(ctx.key.to_string()).or_default() += 1;
        ends.keys.push(ctx.key);
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Ends>, _: &mut Ends, bytes: &[u8]) -> Outcome {
        ctx.send(bytes);
        Ok(())
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ends>, ends: &mut Ends, _: Reason) {
        *ends.closed.entry(ctx.key.to_string()).or_default() += 1;
    }
}

/// A reset or a FIN, by the peer or by us, in an order without a pattern.
fn five_thousand_connections_end_once_and_leave_no_descriptor() {
    const ROUNDS: usize = 20;
    const EACH: usize = 250;
    if !skips::has_room_for(2 * EACH + 100) {
        return;
    }
    let before = descriptors();
    let mut reactor = Reactor::new().expect("a selector");
    let mut ends = Ends::default();
    let mut net = reactor.net();
    let listener = net.listen("127.0.0.1:0", || Visitor).expect("a free port");
    let at = net.local(listener).and_then(|address| address.ip()).expect("an IP listener");
    let idle = descriptors();
    let mut chance: u32 = 1;
    for round in 1..=ROUNDS {
        let peers: Vec<TcpStream> = (0..EACH).map(|_| TcpStream::connect(at).expect("we listen")).collect();
        turn_until(&mut reactor, &mut ends, |_, ends| ends.connected.len() == round * EACH);
        for key in std::mem::take(&mut ends.keys) {
            match next(&mut chance) % 4 {
                0 => _ = reactor.net().abort(key),
                1 => _ = reactor.net().close(key),
                _ => {}
            }
        }
        for mut peer in peers {
            match next(&mut chance) % 3 {
                0 => socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("a socket option"),
                1 => drop(peer.write_all(b"last words")), // it may be reset already
                _ => {}
            }
        }
        turn_until(&mut reactor, &mut ends, |reactor, ends| {
            ends.closed.len() == round * EACH && format!("{reactor:?}").contains("slots: 1,")
        });
        assert_eq!(descriptors(), idle, "open descriptors after {} connections", round * EACH);
    }
    assert_eq!((ends.connected.len(), ends.closed.len()), (ROUNDS * EACH, ROUNDS * EACH));
    assert!(ends.connected.values().chain(ends.closed.values()).all(|times| *times == 1));
    reactor.net().close(listener);
    turn_until(&mut reactor, &mut ends, |reactor, _| is_empty(reactor));
    drop(reactor);
    assert_eq!(descriptors(), before, "open descriptors");
}

fn turn_until(reactor: &mut Reactor<Ends>, ends: &mut Ends, done: impl Fn(&Reactor<Ends>, &Ends) -> bool) {
    let began = Instant::now();
    while !done(reactor, ends) {
        assert!(began.elapsed() < PATIENCE, "{} of {}, {reactor:?}", ends.closed.len(), ends.connected.len());
        reactor.turn(ends, Duration::from_millis(2)).expect("the selector works");
    }
}

fn next(chance: &mut u32) -> u32 {
    *chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    *chance >> 16
}

// ----------------------------------------------------------------------------------------------------------- harness

/// How many descriptors this process has open; 0 where the system does not say.
fn descriptors() -> usize {
    if cfg!(windows) {
        return 0; // Wine has others, and as many as it likes
    }
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

thread_local! {
    /// What the last panic that was not planned said, and where.
    static COMPLAINT: RefCell<String> = const { RefCell::new(String::new()) };
}

fn catch(run: impl FnOnce()) -> Result<(), String> {
    COMPLAINT.take();
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let complaint = COMPLAINT.take(); // of a callback, perhaps: the loop has isolated it
    match outcome {
        Ok(()) if complaint.is_empty() => Ok(()),
        Ok(()) => Err(complaint),
        Err(_) if complaint.is_empty() => Err(format!("a {PLANNED} was not isolated")),
        Err(_) => Err(complaint),
    }
}

type Test = (String, Box<dyn Fn(&str) -> Vec<String>>);

fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for side in [Side::Accepted, Side::Opened] {
        for when in WHENS {
            if when == Factory && side == Side::Opened {
                continue;
            }
            let name = group(side, when);
            tests.push((name, Box::new(move |filter| run_group(side, when, filter))));
        }
    }
    tests.push((
        "five_thousand_connections_end_once_and_leave_no_descriptor".into(),
        Box::new(|_| catch(five_thousand_connections_end_once_and_leave_no_descriptor).err().into_iter().collect()),
    ));
    tests
}

/// Every case of a group, or only those that the filter names; what went wrong.
fn run_group(side: Side, when: When, filter: &str) -> Vec<String> {
    let cases = ACTIONS.iter().flat_map(|&action| FINISHES.map(|finish| Case { side, when, action, finish }));
    let mut failures = Vec::new();
    for case in cases.filter(|case| case.is_possible()) {
        if !group(side, when).contains(filter) && !case.name().contains(filter) {
            continue;
        }
        if let Err(complaint) = catch(|| run_case(case)) {
            failures.push(format!("{}: {complaint}", case.name()));
        }
    }
    failures
}

/// As much of libtest's manners as `cargo test` needs: a name (or the beginning of a case's), `--list`, `--exact`, `--skip`.
fn main() -> ExitCode {
    let (mut filter, mut lists, mut ignored, mut exact, mut skips) = (String::new(), false, false, false, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => lists = true,
            "--ignored" => ignored = true,
            "--exact" => exact = true,
            "--skip" => skips.extend(args.next()),
            "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => _ = args.next(),
            option if option.starts_with('-') => {}
            name => name.clone_into(&mut filter),
        }
    }
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains(PLANNED) {
            COMPLAINT.set(text);
        }
    }));
    let all = tests();
    let count = all.len();
    let of_case = filter.split("::").next().unwrap_or_default().to_owned();
    let is_wanted = |name: &str| {
        let is_named = if exact { name == filter } else { name.contains(&filter) || name == of_case };
        is_named && !ignored && !skips.iter().any(|skip| name.contains(skip.as_str()))
    };
    let wanted: Vec<Test> = all.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    if lists {
        for (name, _) in &wanted {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let (began, filtered) = (Instant::now(), count - wanted.len());
    println!("\nrunning {} tests", wanted.len());
    let mut failures = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for (name, run) in wanted {
        let complaints = run(&filter);
        let is_ok = complaints.is_empty();
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        (passed, failed) = (passed + usize::from(is_ok), failed + usize::from(!is_ok));
        failures.extend(complaints);
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = began.elapsed().as_secs_f32();
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in {seconds:.2}s\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
