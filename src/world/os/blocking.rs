//! What blocks, read or written by its own thread: one buffer at a time, and the next one only when that is consumed. The
//! thread ends when it is not needed any more, at the latest with its next read or write.

use super::super::{Event, transport::Moved};
use crate::flags::*;
use std::{
    io::{self, ErrorKind, Read, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// The size of one read or write.
const BYTES_MAX: usize = 64 << 10;

/// What other threads have to say to the selector, as it would have said it.
pub(super) type Notices = Arc<Mutex<Vec<Event>>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says to the loop that something is ready.
pub(super) struct Notifier {
    pub(super) notices: Notices,
    pub(super) wake: Arc<dyn Fn() + Send + Sync>,
    pub(super) token: usize,
}

impl Notifier {
    fn notify(&self, ready: Flags) {
        lock(&self.notices).push(Event { token: self.token, ready });
        (self.wake)();
    }
}

/// What both sides have.
struct Shared<T> {
    state: Mutex<T>,
    changed: Condvar,
}

impl<T: Default> Shared<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new() })
    }
}

impl<T> Shared<T> {
    /// Waits as long as this holds.
    fn wait_while(&self, waits: impl FnMut(&mut T) -> bool) -> MutexGuard<'_, T> {
        self.changed.wait_while(lock(&self.state), waits).unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("mainspring-io".into()).spawn(run).map(drop)
}

pub(super) struct ReadThread(Arc<Shared<Received>>);

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    /// This many of them are consumed.
    taken: usize,
    /// What follows them: the end, or an error.
    end: Option<io::Result<()>>,
    /// Nobody wants more.
    is_over: bool,
}

impl ReadThread {
    pub(super) fn start(source: Box<dyn Read + Send>, notifier: Notifier) -> io::Result<Self> {
        let shared = Shared::new();
        let this = Self(Arc::clone(&shared));
        start(move || read_all(source, &shared, &notifier))?;
        Ok(this)
    }

    pub(super) fn recv(&mut self, buf: &mut [u8]) -> io::Result<Moved> {
        let mut received = lock(&self.0.state);
        let unread = &received.bytes[received.taken..];
        if unread.is_empty() {
            return match &received.end {
                None => Err(ErrorKind::WouldBlock.into()),
                Some(Ok(())) => Ok(Moved { bytes: 0, drained: true }),
                Some(Err(_)) => match received.end.replace(Ok(())) {
                    Some(Err(error)) => Err(error),
                    _ => Ok(Moved { bytes: 0, drained: true }),
                },
            };
        }
        let bytes = unread.len().min(buf.len());
        buf[..bytes].copy_from_slice(&unread[..bytes]);
        received.taken += bytes;
        let is_drained = received.taken == received.bytes.len();
        if is_drained {
            self.0.changed.notify_one();
        }
        Ok(Moved { bytes, drained: is_drained })
    }
}

impl Drop for ReadThread {
    fn drop(&mut self) {
        lock(&self.0.state).is_over = true;
        self.0.changed.notify_one();
    }
}

fn read_all(mut source: Box<dyn Read + Send>, shared: &Shared<Received>, notifier: &Notifier) {
    loop {
        let mut received = shared.wait_while(|received| received.taken < received.bytes.len() && !received.is_over);
        if received.is_over {
            return;
        }
        let mut bytes = std::mem::take(&mut received.bytes);
        received.taken = 0;
        drop(received);
        bytes.resize(BYTES_MAX, 0);
        let read = loop {
            match source.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let mut received = lock(&shared.state);
        match read {
            Ok(0) => received.end = Some(Ok(())),
            Ok(length) => {
                bytes.truncate(length);
                received.bytes = bytes;
            }
            Err(error) => received.end = Some(Err(error)),
        }
        let is_over = received.is_over || received.end.is_some();
        drop(received);
        notifier.notify(READABLE);
        if is_over {
            return;
        }
    }
}

/// A byte counts as sent when it is written.
pub(super) struct WriteThread(Arc<Shared<Written>>);

#[derive(Default)]
struct Written {
    /// What is to be written next.
    bytes: Vec<u8>,
    /// That, or what is being written.
    is_busy: bool,
    /// This much is written, and nobody has been told.
    sent: usize,
    error: Option<io::Error>,
    is_over: bool,
}

impl WriteThread {
    pub(super) fn start(sink: Box<dyn Write + Send>, notifier: Notifier) -> io::Result<Self> {
        let shared = Shared::new();
        let this = Self(Arc::clone(&shared));
        start(move || write_all(sink, &shared, &notifier))?;
        Ok(this)
    }

    /// The caller gives again what was not taken, so the first bytes are those that are being written.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<Moved> {
        let mut written = lock(&self.0.state);
        if written.sent > 0 {
            let sent = written.sent.min(bytes.len());
            written.sent -= sent;
            return Ok(Moved { bytes: sent, drained: false });
        }
        if let Some(error) = written.error.take() {
            return Err(error);
        }
        if !written.is_busy {
            written.bytes = bytes[..bytes.len().min(BYTES_MAX)].to_vec();
            written.is_busy = true;
            self.0.changed.notify_one();
        }
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Drop for WriteThread {
    fn drop(&mut self) {
        lock(&self.0.state).is_over = true;
        self.0.changed.notify_one();
    }
}

fn write_all(mut sink: Box<dyn Write + Send>, shared: &Shared<Written>, notifier: &Notifier) {
    loop {
        let mut written = shared.wait_while(|written| written.bytes.is_empty() && !written.is_over);
        if written.bytes.is_empty() {
            return; // it is over; what was given before that is written once, like what is left after an `Err`
        }
        let bytes = std::mem::take(&mut written.bytes);
        drop(written);
        let outcome = write_in_pieces(&mut *sink, &bytes, shared, notifier);
        let mut written = lock(&shared.state);
        written.is_busy = false;
        let has_failed = outcome.is_err();
        written.error = outcome.err();
        drop(written);
        notifier.notify(WRITABLE);
        if has_failed {
            return;
        }
    }
}

fn write_in_pieces(sink: &mut dyn Write, mut bytes: &[u8], shared: &Shared<Written>, notifier: &Notifier) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(length) => {
                sink.flush()?;
                bytes = &bytes[length..];
                let mut written = lock(&shared.state);
                written.sent += length;
                if written.is_over {
                    return Ok(());
                }
                drop(written);
                if !bytes.is_empty() {
                    notifier.notify(WRITABLE);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
