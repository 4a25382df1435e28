//! What the selector knows of one socket or descriptor, for as long as somebody has it.

use super::ARMS_BY_ITSELF;
use mio::{Interest, Registry, Token, event::Source};
use std::{
    io::{self, ErrorKind},
    rc::Rc,
};

/// Under which key, and for what.
pub(super) struct Registration {
    registry: Rc<Registry>,
    token: Token,
    /// Nothing: the selector does not know it.
    interests: Option<Interest>,
}

impl Registration {
    pub(super) fn new(registry: Rc<Registry>, token: usize) -> Self {
        Self { registry, token: Token(token), interests: None }
    }

    /// From now on it is waited for this, or for nothing. What is so already is reported, too.
    pub(super) fn want(&mut self, source: &mut impl Source, interests: Option<Interest>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.interests, interests);
        match (before, interests) {
            (None, None) => Ok(()),
            (None, Some(interests)) => {
                let registered = self.registry.register(source, self.token, interests);
                registered.inspect_err(|_| self.interests = None)
            }
            (Some(_), None) => {
                let _ = self.registry.deregister(source); // poll(2) may have let go of it
                Ok(())
            }
            (Some(_), Some(interests)) => match self.registry.reregister(source, self.token, interests) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.register_again(source),
                other => other,
            },
        }
    }

    /// poll(2) lets go of a descriptor that has an error, which mio then does not know any more.
    #[cold]
    pub(super) fn register_again(&mut self, source: &mut impl Source) -> io::Result<()> {
        let Some(interests) = self.interests else { return Ok(()) };
        let _ = self.registry.deregister(source); // it says again that it is not there
        self.registry.register(source, self.token, interests)
    }

    /// What a write of so many bytes came to. Only while one waits for room that is asked for, beside what it is for at other
    /// times: a Unix socket reports it whenever the peer has read.
    #[cfg(unix)]
    pub(super) fn wrote(
        &mut self,
        source: &mut impl Source,
        otherwise: Option<Interest>,
        written: io::Result<usize>,
        of: usize,
    ) -> io::Result<usize> {
        let waits_for_room = self.interests.is_some_and(Interest::is_writable);
        match &written {
            Ok(bytes) if waits_for_room && *bytes == of => _ = self.want(source, otherwise), // or it is woken in vain
            Err(error) if !waits_for_room && error.kind() == ErrorKind::WouldBlock => self.want(source, and_room(otherwise))?,
            _ => {}
        }
        written
    }

    /// What a system call came to; if that was not known to the selector, it is tried again when there is something.
    #[inline]
    pub(super) fn look_at<R>(&mut self, source: &mut impl Source, error: io::Error) -> io::Result<R> {
        // A path that is not there has that kind too, and a number of the system's.
        if ARMS_BY_ITSELF || error.kind() != ErrorKind::NotFound || error.raw_os_error().is_some() {
            return Err(error);
        }
        self.register_again(source)?;
        Err(ErrorKind::WouldBlock.into())
    }
}

/// Room that is there already is reported, too.
#[cfg(unix)]
pub(super) fn and_room(interests: Option<Interest>) -> Option<Interest> {
    Some(interests.map_or(Interest::WRITABLE, |interests| interests | Interest::WRITABLE))
}

/// A socket that the selector knows. mio's own are armed again by themselves when they answer `WouldBlock`.
pub(super) struct Registered<T: Source> {
    pub(super) socket: T,
    registration: Registration,
}

impl<T: Source> Registered<T> {
    pub(super) fn new(socket: T, registry: Rc<Registry>, token: usize) -> io::Result<Self> {
        let mut this = Self { socket, registration: Registration::new(registry, token) };
        this.want_writable(false)?;
        Ok(this)
    }

    pub(super) fn want_writable(&mut self, on: bool) -> io::Result<()> {
        let interests = if on { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.registration.want(&mut self.socket, Some(interests))
    }

    /// What a system call came to, as [`Registration::look_at`] has it.
    #[inline]
    pub(super) fn look_at<R>(&mut self, error: io::Error) -> io::Result<R> {
        self.registration.look_at(&mut self.socket, error)
    }
}

/// Explicitly: whoever has a duplicate, as a successor has of a listener, would keep it registered, and wake us.
impl<T: Source> Drop for Registered<T> {
    fn drop(&mut self) {
        let _ = self.registration.want(&mut self.socket, None);
    }
}
