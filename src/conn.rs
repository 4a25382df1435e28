//! One connection: its phase, its marks, filling and flushing. It knows no callback and no other connection.

use crate::{
    address::Address,
    config::Marks,
    connector::Opening,
    input::Input,
    key::Key,
    limits::{Limits, Situation},
    output::{Broken, Output, Producer, SLICES_MAX},
    panics::{Payload, guard},
    terminator::Framing,
    time::Time,
    timers::NO_TIMER,
    transport::{Moved, Stream},
};
use std::{
    cell::OnceCell,
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connecting or connected.
    Open,
    /// Closed politely: the output is still flushing.
    Flushing,
    /// On the list of those to be closed; only tells and `closed` are left.
    Ended,
    /// `closed` was called. The rest of the output, the FIN, then what the peer still sends is dropped until its end.
    Lingering,
}

pub(crate) struct Conn {
    pub(crate) key: Key,
    /// Nothing while a connect waits for its next try, or could not even begin.
    pub(crate) stream: Option<Stream>,
    pub(crate) peer: Address,
    /// Asked for once: most programs never do.
    local: OnceCell<Box<Address>>,
    pub(crate) framing: Framing,
    /// What of the input is not consumed, between turns. Never empty.
    pub(crate) held: Option<Box<Input>>,
    /// Never empty: what can be written at once needs no queue.
    pub(crate) output: Option<Box<Output>>,
    /// What is not of daily use.
    pub(crate) extra: Option<Box<Extra>>,
    /// Whose guest it is; connections that we opened have none.
    pub(crate) listener: Option<Key>,
    /// Tells that wait; `closed` waits for them.
    pub(crate) tells: u32,
    /// Counts upgrades: a tell is for one life only.
    pub(crate) life: u32,
    /// When it was accepted or opened.
    pub(crate) born: Time,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) phase: Phase,
    /// The transport is connected.
    pub(crate) is_established: bool,
    /// `connected` is owed.
    pub(crate) owes_connected: bool,
    /// `writable` is owed: the output was congested, and has fallen to the low mark.
    pub(crate) owes_writable: bool,
    /// `draining` is owed.
    pub(crate) owes_draining: bool,
    /// The transport may have something to read, or room to write. Cleared when it says that it is drained.
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// A short read does not mean that there is no more.
    pub(crate) read_on: bool,
    /// The selector reported an error.
    pub(crate) has_failed: bool,
    /// What is held may contain a frame.
    pub(crate) has_backlog: bool,
    pub(crate) eof_seen: bool,
    pub(crate) eof_told: bool,
    /// `half_close` was asked for; the FIN has left.
    pub(crate) fin_asked: bool,
    pub(crate) fin_sent: bool,
    /// The peer had ended when we asked to end.
    pub(crate) peer_first: bool,
    pub(crate) is_paused: bool,
    pub(crate) holds_back: bool,
    /// The output went above the high mark, and is not yet down to the low one.
    pub(crate) is_congested: bool,
    /// It is lost, which is never taken back: hold-back and throttles do not keep its last input.
    pub(crate) is_lifted: bool,
    /// Some of the output will never leave: the peer must not take it for whole.
    pub(crate) is_cut: bool,
    pub(crate) in_ready: bool,
    pub(crate) in_dirty: bool,
    /// Turns in a row in which nothing was achieved; it stops counting at the top.
    pub(crate) in_vain: u8,
}

pub(crate) struct Extra {
    pub(crate) limits: Limits,
    pub(crate) marks: Option<Marks>,
    /// Reading is off while one of these is congested.
    pub(crate) targets: Vec<Key>,
    /// Who reads only while this one is not congested.
    pub(crate) readers: Vec<Key>,
    /// The chain of its own timers.
    pub(crate) timers: u32,
    /// What the first failed write said.
    pub(crate) write_error: Option<io::Error>,
    /// Connect from here.
    pub(crate) from: Option<SocketAddr>,
    /// How far connecting by name has come.
    pub(crate) opening: Option<Box<Opening>>,
}

impl Default for Extra {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            marks: None,
            targets: Vec::new(),
            readers: Vec::new(),
            timers: NO_TIMER,
            write_error: None,
            from: None,
            opening: None,
        }
    }
}

impl Extra {
    /// Nothing in it is needed any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.limits.is_idle()
            && self.marks.is_none()
            && self.targets.is_empty()
            && self.readers.is_empty()
            && self.timers == NO_TIMER
            && self.write_error.is_none()
            && self.opening.is_none()
    }
}

/// What reading brought.
pub(crate) enum Filled {
    Bytes(usize),
    /// Nothing until the next event.
    Drained,
    /// A signal came in between.
    Interrupted,
    End,
    Lost(io::Error),
}

/// Why output could not leave.
pub(crate) enum Stuck {
    Socket(io::Error),
    Producer(Broken),
    Panicked(Payload),
}

impl Conn {
    pub(crate) fn new(key: Key, stream: Option<Stream>, peer: Address, born: Time) -> Self {
        Self {
            key,
            stream,
            peer,
            local: OnceCell::new(),
            framing: Framing::None,
            held: None,
            output: None,
            extra: None,
            listener: None,
            tells: 0,
            life: 0,
            born,
            bytes_in: 0,
            bytes_out: 0,
            phase: Phase::Open,
            is_established: false,
            owes_connected: false,
            owes_writable: false,
            owes_draining: false,
            is_readable: false,
            is_writable: false,
            read_on: false,
            has_failed: false,
            has_backlog: false,
            eof_seen: false,
            eof_told: false,
            fin_asked: false,
            fin_sent: false,
            peer_first: false,
            is_paused: false,
            holds_back: false,
            is_congested: false,
            is_lifted: false,
            is_cut: false,
            in_ready: false,
            in_dirty: false,
            in_vain: 0,
        }
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn is_connecting(&self) -> bool {
        self.is_open() && !self.is_established
    }

    /// The common case, told apart quickly: there is something to read, and nothing else to think of.
    #[inline]
    pub(crate) fn is_plainly_readable(&self) -> bool {
        let is_special = self.owes_connected | self.owes_draining | self.has_failed | !self.is_established;
        self.is_readable && !is_special && !self.has_backlog && self.is_open() && self.extra.is_none() && self.reads()
    }

    /// The common case: nothing is to be done for it, and nothing has to be timed.
    #[inline]
    pub(crate) fn is_plainly_idle(&self) -> bool {
        let is_owed = self.owes_connected | self.owes_draining | self.owes_writable;
        let has_come = self.has_backlog | self.is_readable | self.has_failed | self.eof_seen;
        !(is_owed | has_come) && self.is_open() && self.output.is_none() && self.extra.is_none()
    }

    /// The common case: all that came was delivered.
    #[inline]
    pub(crate) fn is_plainly_read(&self) -> bool {
        !(self.has_backlog | self.is_readable | self.eof_seen) && self.extra.is_none()
    }

    /// The common case: all output has left, and nothing waited for that.
    #[inline]
    pub(crate) fn is_plainly_sent(&self) -> bool {
        let waits = self.is_congested | self.fin_asked;
        !waits && self.is_open() && self.output.is_none() && self.extra.is_none()
    }

    /// Whether there may be something to deliver, if it may be delivered.
    pub(crate) fn has_input(&self) -> bool {
        self.has_backlog || self.is_readable || (self.eof_seen && !self.eof_told)
    }

    /// Whether what is sent is queued; otherwise it is refused.
    #[inline]
    pub(crate) fn takes_output(&self) -> bool {
        self.is_open() && !self.fin_asked && self.write_error().is_none()
    }

    /// Whether `writable` is owed, and makes sense.
    pub(crate) fn may_be_told_writable(&self) -> bool {
        self.owes_writable && self.is_established && !self.owes_connected && self.takes_output() && !self.is_congested
    }

    /// Whether a write may be tried now.
    #[inline]
    pub(crate) fn can_write(&self) -> bool {
        self.is_established && self.is_writable && self.phase != Phase::Ended && self.write_error().is_none()
    }

    /// Not held back by itself; throttles are not known here.
    #[inline]
    pub(crate) fn reads(&self) -> bool {
        !self.is_paused && (self.is_lifted || !(self.is_congested && self.holds_back))
    }

    #[inline]
    pub(crate) fn write_error(&self) -> Option<&io::Error> {
        self.extra.as_ref()?.write_error.as_ref()
    }

    #[inline]
    pub(crate) fn marks(&self, default: Marks) -> Marks {
        self.extra.as_ref().and_then(|extra| extra.marks).unwrap_or(default)
    }

    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.queued())
    }

    /// Whether there is something that can be written now, or made.
    pub(crate) fn has_writable_output(&self) -> bool {
        self.output.as_ref().is_some_and(|output| !output.is_parked())
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Of a connection by name.
    pub(crate) fn opening(&mut self) -> Option<&mut Opening> {
        self.extra.as_mut()?.opening.as_deref_mut()
    }

    pub(crate) fn is_racing(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| matches!(extra.opening.as_deref(), Some(Opening::Racing { .. })))
    }

    pub(crate) fn output(&mut self) -> &mut Output {
        self.output.get_or_insert_default()
    }

    /// Asked for once, when it is connected; afterwards it is remembered.
    pub(crate) fn local(&self) -> &Address {
        static NONE: Address = Address::Fd;
        match (&self.stream, self.is_established) {
            (Some(stream), true) => self.local.get_or_init(|| Box::new(stream.local().unwrap_or(Address::Fd))),
            _ => &NONE,
        }
    }

    pub(crate) fn situation(&self, is_reading: bool) -> Situation {
        let held = self.held.as_ref().map_or(0, |held| held.len());
        Situation {
            is_established: self.is_established,
            is_closing: !self.is_open(),
            is_reading,
            has_output: self.queued() > 0,
            is_amid_frame: self.framing.is_amid(held),
        }
    }

    /// Reads once.
    #[inline]
    pub(crate) fn fill(&mut self, input: &mut Input, least: usize) -> Filled {
        let Some(stream) = &mut self.stream else { return Filled::Drained };
        match stream.recv(input.room(least)) {
            Ok(Moved { bytes: 0, .. }) => {
                (self.eof_seen, self.is_readable) = (true, false);
                self.has_failed |= self.is_lifted; // an error that came with the end is looked at now
                Filled::End
            }
            Ok(Moved { bytes, drained }) => {
                input.filled(bytes);
                self.bytes_in += bytes as u64;
                if drained && !self.read_on {
                    self.is_readable = false;
                }
                Filled::Bytes(bytes)
            }
            // It stays readable: the next turn tries again, after the others have had theirs.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Filled::Interrupted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                (self.is_readable, self.read_on) = (false, false);
                Filled::Drained
            }
            Err(error) => Filled::Lost(error),
        }
    }

    /// Writes once; how much the kernel took.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let moved = stream.send(bytes);
        self.note_written(moved)
    }

    /// Writes what is queued, once, after having a producer make more if one stands in front; how much the kernel took.
    pub(crate) fn flush(&mut self) -> Result<usize, Stuck> {
        let (Some(stream), Some(output)) = (&mut self.stream, &mut self.output) else { return Ok(0) };
        while output.wants_pull() {
            guard(|| output.pull()).map_err(Stuck::Panicked)?.map_err(Stuck::Producer)?;
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let moved = match output.slices(&mut slices) {
            0 => Ok(Moved { bytes: 0, drained: false }),
            1 => stream.send(&slices[0]),
            count => stream.send_vectored(&slices[..count]),
        };
        let taken = self.note_written(moved).map_err(Stuck::Socket)?;
        if let Some(output) = &mut self.output {
            output.advance(taken);
            if output.is_empty() {
                self.output = None;
            }
        }
        Ok(taken)
    }

    #[inline]
    fn note_written(&mut self, moved: io::Result<Moved>) -> io::Result<usize> {
        match moved {
            Ok(moved) => {
                self.is_writable &= !moved.drained;
                self.bytes_out += moved.bytes as u64;
                Ok(moved.bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_writable = false;
                Ok(0)
            }
            // It stays writable: the next turn tries again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn push_shared(&mut self, bytes: &Rc<[u8]>) {
        if !bytes.is_empty() {
            self.output().push_shared(bytes);
        }
    }

    pub(crate) fn push_producer(&mut self, producer: Box<dyn Producer>) {
        self.output().push_producer(producer);
    }

    /// What is queued will never leave.
    pub(crate) fn drop_output(&mut self) {
        self.is_cut |= self.output.take().is_some();
    }

    /// A successor starts clean; queued output stays, unread bytes are its own.
    pub(crate) fn begin_anew(&mut self) {
        self.framing = Framing::None;
        self.life += 1;
        self.is_paused = false;
        self.holds_back = self.listener.is_some();
        if let Some(extra) = &mut self.extra {
            extra.marks = None;
        }
        self.owes_connected = self.is_established;
        self.eof_told = false;
        self.has_backlog = self.held.is_some();
        if let Some(held) = &mut self.held {
            held.search_anew();
        }
    }
}
