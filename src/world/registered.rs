//! What the selector knows of one socket or descriptor, for as long as it exists.

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
    /// `None`: the selector does not know it.
    interests: Option<Interest>,
}

impl Registration {
    pub(super) fn new(registry: Rc<Registry>, token: usize) -> Self {
        Self { registry, token: Token(token), interests: None }
    }

    /// From now on the selector waits for this, or for nothing. What is already so is reported, too.
    pub(super) fn want(&mut self, source: &mut impl Source, interests: Option<Interest>) -> io::Result<()> {
        let before = std::mem::replace(&mut self.interests, interests);
        match (before, interests) {
            (None, None) => Ok(()),
            (None, Some(interests)) => {
                let registered = self.registry.register(source, self.token, interests);
                registered.inspect_err(|_| self.interests = None)
            }
            (Some(_), None) => {
                let _ = self.registry.deregister(source); // poll(2) may have dropped it
                Ok(())
            }
            (Some(_), Some(interests)) => match self.registry.reregister(source, self.token, interests) {
                Err(error) if error.kind() == ErrorKind::NotFound => self.register_again(source),
                other => other,
            },
        }
    }

    /// poll(2) drops a descriptor that has an error, and mio then does not know it any more.
    #[cold]
    pub(super) fn register_again(&mut self, source: &mut impl Source) -> io::Result<()> {
        let Some(interests) = self.interests else { return Ok(()) };
        let _ = self.registry.deregister(source); // it fails again: nothing is registered
        self.registry.register(source, self.token, interests)
    }

    /// Looks at the result of a write of a number of bytes. Room is asked for only while a write waits for it, in addition
    /// to what it is registered for at other times: a Unix socket reports it whenever the peer has read.
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
            Ok(bytes) if waits_for_room && *bytes == of => _ = self.want(source, otherwise), // or it is woken for nothing
            Err(error) if !waits_for_room && error.kind() == ErrorKind::WouldBlock => self.want(source, and_room(otherwise))?,
            _ => {}
        }
        written
    }

    /// The result of a system call; if the selector did not know the socket, it is tried again when there is something.
    #[inline]
    pub(super) fn look_at<R>(&mut self, source: &mut impl Source, error: io::Error) -> io::Result<R> {
        // A path that does not exist has that kind too, and a system error number.
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

    /// The result of a system call, as [`Registration::look_at`] treats it.
    #[inline]
    pub(super) fn look_at<R>(&mut self, error: io::Error) -> io::Result<R> {
        self.registration.look_at(&mut self.socket, error)
    }
}

/// Explicitly: a duplicate, such as a successor has of a listener, would keep it registered, and wake us.
impl<T: Source> Drop for Registered<T> {
    fn drop(&mut self) {
        let _ = self.registration.want(&mut self.socket, None);
    }
}
