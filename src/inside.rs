//! The door for fuzz/ and benches/: what they need of the parts that have no socket, no callback and no clock. Compiled with
//! `--cfg fuzzing` or `--cfg bench` only, and for the tests in src/. Each item is the internal item of the same name;
//! nothing is decided here.
#![allow(missing_debug_implementations, reason = "nobody prints them")]

use crate::{
    address::{Address, Place, Target},
    framing::{self, Framing, Input, Terminator},
    key::{Key, Timer},
    output::{self, Broken, Producer},
    reason::Fault,
    text,
    time::Time,
    timers::{self, TimerKind},
};
use std::{
    io::{self, IoSlice},
    num::NonZeroU32,
    rc::Rc,
};

/// A terminator, and what has arrived for it.
pub struct Cutter(Framing, Input);

pub enum Found<'a> {
    Frame(&'a [u8]),
    Piece(&'a [u8]),
    Nothing,
    TooLong,
    Broken,
}

// What is measured is inlined as it is in the loop; otherwise the way through the door would be measured too.
#[rustfmt::skip]
impl Cutter {
    pub fn new(terminator: Terminator, room: usize) -> Self { Self(terminator.into(), Input::with_capacity(room)) }
    pub fn set(&mut self, terminator: Terminator) { _ = self.0.set(terminator) }
    pub fn search_anew(&mut self) { self.1.search_anew() }
    pub fn take_fault(&mut self) -> Fault { self.0.take_fault() }
    pub fn skip(&mut self, is_refused: bool) -> bool { self.0.skip(is_refused) }
    pub fn put_back(&mut self, bytes: usize) { self.1.put_back(bytes) }
    pub fn is_amid(&self) -> bool { self.0.is_amid(self.1.len()) }
    pub fn has_tail(&self) -> bool { self.0.has_tail() }
    pub fn unread(&self) -> &[u8] { self.1.unread() }
    pub fn capacity(&self) -> usize { self.1.capacity() }

    pub fn change_buffers(&mut self, room: usize) {
        let mut other = Input::with_capacity(room);
        self.1.move_into(&mut other);
        self.1 = other;
    }

    #[inline(always)]
    pub fn arrives(&mut self, bytes: &[u8]) {
        self.1.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.1.filled(bytes.len());
    }

    #[inline(always)]
    pub fn step(&mut self) -> Found<'_> {
        match self.0.next(&mut self.1) {
            framing::Found::Frame => Found::Frame(self.1.given()),
            framing::Found::Piece => Found::Piece(self.1.given()),
            framing::Found::Nothing => Found::Nothing,
            framing::Found::TooLong => Found::TooLong,
            framing::Found::Broken => Found::Broken,
            framing::Found::Asks(_) => unreachable!("it has no protocol to ask"),
        }
    }
}

#[derive(Default)]
pub struct Output(output::Output);

pub const SLICES_MAX: usize = output::SLICES_MAX;

#[rustfmt::skip]
impl Output {
    pub fn push(&mut self, more: &[u8]) { self.0.push(more) }
    pub fn push_vec(&mut self, bytes: Vec<u8>, sent: usize) { self.0.push_vec(bytes, sent) }
    pub fn push_shared(&mut self, bytes: &Rc<[u8]>) { self.0.push_shared(bytes) }
    pub fn push_producer(&mut self, producer: Box<dyn Producer>) { self.0.push_producer(producer) }
    pub fn wake(&mut self) { self.0.wake() }
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>; SLICES_MAX], most: usize) -> usize { self.0.slices(into, most) }
    pub fn advance(&mut self, bytes: usize) { self.0.advance(bytes) }
    pub fn queued(&self) -> usize { self.0.queued() }
    pub fn is_empty(&self) -> bool { self.0.is_empty() }
    pub fn is_parked(&self) -> bool { self.0.is_parked() }
    pub fn wants_pull(&self) -> bool { self.0.wants_pull() }

    /// `Err`: the producer's own error, or `None` where it made no progress.
    pub fn pull(&mut self) -> Result<(), Option<io::Error>> {
        self.0.pull().map_err(|broken| match broken {
            Broken::Error(error) => Some(error),
            Broken::NoProgress => None,
        })
    }
}

/// Times are in nanoseconds; a timer without an owner is a job of the program.
#[derive(Default)]
pub struct Timers(timers::Timers);

pub const NO_TIMER: u32 = timers::NO_TIMER;

#[rustfmt::skip]
impl Timers {
    pub fn set(&mut self, at: u64, owner: Option<Key>) -> Timer { self.0.set(Time(at), owner.map_or(TimerKind::Job, TimerKind::Owned)) }
    pub fn set_again(&mut self, timer: Timer, at: u64) { self.0.set_again(timer, Time(at)) }
    pub fn stale(&mut self) -> Timer { self.0.stale() }
    pub fn is_set(&self, timer: Timer) -> bool { self.0.is_set(timer) }
    pub fn owner(&self, timer: Timer) -> Option<Key> { self.0.owner(timer) }
    pub fn mark(&self) -> u64 { self.0.mark() }
    pub fn next(&self) -> Option<u64> { self.0.next().map(|at| at.0) }
    pub fn link(&mut self, head: u32, timer: Timer) -> u32 { self.0.link(head, timer) }
    pub fn unlink(&mut self, head: u32, timer: Timer) -> u32 { self.0.unlink(head, timer) }
    pub fn at_head(&self, head: u32) -> Option<Timer> { self.0.at_head(head) }

    pub fn due(&self, now: u64, mark: u64) -> Option<(Timer, u64)> {
        self.0.due(Time(now), mark).map(|due| (due.timer, due.deadline.0))
    }

    /// Returns whose it was, if it was set.
    pub fn cancel(&mut self, timer: Timer) -> Option<Option<Key>> {
        self.0.cancel(timer).map(|what| if let TimerKind::Owned(key) = what { Some(key) } else { None })
    }
}

pub fn key(index: usize) -> Key {
    Key::new(index, NonZeroU32::MIN)
}

/// An address, or a host to be looked up.
pub fn place(target: &Target) -> io::Result<Result<Address, (String, u16)>> {
    Ok(match target.place()? {
        Place::At(address) => Ok(address),
        Place::Named(host, port) => Err((host, port)),
    })
}

pub fn address(target: &Target) -> io::Result<Address> {
    target.address()
}

pub fn name(target: &Target) -> String {
    target.name()
}

/// To the system's own form and back, if the system's form can hold it.
#[cfg(unix)]
pub fn there_and_back(address: &Address) -> Option<Address> {
    Some(Address::of_socket(&address.to_socket().ok()?))
}

pub fn is_odd(c: char) -> bool {
    text::is_odd(c)
}

#[cfg(feature = "tls")]
pub use tls::{Pipe, TlsEnd, TlsRoom};

#[cfg(feature = "tls")]
mod tls {
    use crate::{
        address::Address,
        adopted::Adopted,
        secured::Tls,
        tls::{Scratch, TlsClient, TlsError, TlsServer, TlsStream},
        world::{Moved, Stream, Transport},
    };
    use rustls::pki_types::ServerName;
    use socket2::SockRef;
    use std::{
        io::{self, IoSlice},
        rc::Rc,
    };

    /// What a TLS stream is built on, as the fuzzer plays it. The flag that comes with what was moved: there is no more
    /// until the next event.
    pub trait Pipe {
        fn recv(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)>;
        fn send(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)>;
        fn shutdown_write(&mut self) -> io::Result<()>;
    }

    struct Piped<P>(P);

    fn moved((bytes, drained): (usize, bool)) -> Moved {
        Moved { bytes, drained }
    }

    #[rustfmt::skip]
    impl<P: Pipe + 'static> Transport for Piped<P> {
        fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> { self.0.recv(buf).map(moved) }
        fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> { self.0.send(bytes).map(moved) }
        fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<Moved> { self.send(bytes.first().map_or(&[], |first| first)) }
        fn connected(&mut self) -> io::Result<bool> { Ok(true) }
        fn take_error(&mut self) -> Option<io::Error> { None }
        fn shutdown_write(&mut self) -> io::Result<()> { self.0.shutdown_write() }
        fn abort(&mut self) {}
        fn local(&self) -> Option<Address> { None }
        fn socket(&self) -> Option<SockRef<'_>> { None }
        fn detach(self: Box<Self>) -> Result<Adopted, Stream> { Err(Stream::Dyn(Box::new(self))) }
    }

    fn stream(pipe: impl Pipe + 'static) -> Stream {
        Stream::Dyn(Box::new(Box::new(Piped(pipe))))
    }

    /// What all connections of a reactor share.
    #[derive(Clone, Default)]
    pub struct TlsRoom(Rc<Scratch>);

    /// One end of TLS.
    pub struct TlsEnd(TlsStream);

    #[rustfmt::skip]
    impl TlsEnd {
        pub fn server(pipe: impl Pipe + 'static, server: TlsServer, already: Vec<u8>, room: &TlsRoom) -> Self {
            Self(TlsStream::server(stream(pipe), server, already, Rc::clone(&room.0)))
        }

        pub fn client(pipe: impl Pipe + 'static, client: &TlsClient, name: ServerName<'static>, room: &TlsRoom) -> Result<Self, TlsError> {
            TlsStream::client(stream(pipe), client, name, Rc::clone(&room.0)).map(Self).map_err(|(_, error)| error)
        }

        pub fn connected(&mut self) -> io::Result<bool> { self.0.connected() }
        pub fn recv(&mut self, buf: &mut [u8]) -> io::Result<(usize, bool)> { self.0.recv(buf).map(|moved| (moved.bytes, moved.drained)) }
        pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> { self.0.send(bytes).map(|moved| moved.bytes) }
        pub fn send_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> { self.0.send_vectored(bytes).map(|moved| moved.bytes) }
        pub fn shutdown_write(&mut self) -> io::Result<()> { self.0.shutdown_write() }
        pub fn stop_reading(&mut self) { self.0.stop_reading() }
        pub fn tls(&self) -> Option<Tls<'_>> { self.0.tls() }
        /// The length, and the room that it owns, of what came and is not complete, of what is decrypted, and of what is
        /// encrypted.
        pub fn held(&self) -> [(usize, usize); 3] { self.0.held() }
    }
}
