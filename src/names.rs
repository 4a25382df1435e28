//! Looking names up: what is asked, what is found, and why something is not. The system's own resolver blocks, so none of
//! this is called on the loop's thread.

use crate::{
    panics::{guard, text},
    text::OneLine,
};
#[cfg(not(feature = "names"))]
use std::net::ToSocketAddrs;
use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

#[derive(Clone, Debug)]
pub(crate) enum Question {
    /// Of this host.
    Addresses(String),
    #[cfg(feature = "names")]
    Name(IpAddr),
}

/// What is asked for, exactly as it was written.
impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(host) => f.write_str(host),
            #[cfg(feature = "names")]
            Self::Name(ip) => write!(f, "{ip}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Resolved {
    /// In the order in which the system prefers them. Their port is 0.
    Addresses(Vec<SocketAddr>),
    #[cfg(feature = "names")]
    Name(String),
}

impl Resolved {
    pub(crate) fn into_addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Addresses(addresses) => addresses,
            #[cfg(feature = "names")]
            Self::Name(_) => Vec::new(),
        }
    }
}

pub(crate) type Lookup = Box<dyn FnOnce() -> io::Result<Resolved> + Send>;

/// Why a name was not resolved: inside the [`io::Error`] of [`Reason::Resolve`](crate::Reason::Resolve) and of
/// [`Net::resolve`](crate::Net::resolve). [The chapter](crate::manual::errors#could-not-resolve) says what to do about each.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameError {
    /// There is no such name, or nothing of the kind that was asked for belongs to it. The error's kind is
    /// [`io::ErrorKind::NotFound`].
    NotFound,
    /// The resolver got no answer, but may get one later.
    TryAgain,
    /// The resolver says that it cannot answer, and that asking again will not help; or a resolver of yours panicked.
    Failed,
    /// No answer came in time. The error's kind is [`io::ErrorKind::TimedOut`].
    TimedOut,
    /// Nobody was asked: every thread is busy with another name, and the queue is full. The error's kind is
    /// [`io::ErrorKind::ResourceBusy`].
    Busy,
    /// The resolver failed, and its text says how. Without the feature `names` this is so for everything that the system's
    /// resolver says, because std tells its failures apart by their text only.
    Other,
}

impl NameError {
    /// Finds what is inside an error, if it comes from a resolver.
    pub fn of(error: &io::Error) -> Option<Self> {
        Unresolved::of(error).map(|unresolved| unresolved.why)
    }

    pub(crate) fn error(self, text: impl Into<String>) -> io::Error {
        Unresolved { why: self, text: text.into() }.into()
    }
}

/// What an [`io::Error`] from a resolver carries.
#[derive(Clone, Debug)]
pub(crate) struct Unresolved {
    why: NameError,
    text: String,
}

impl Unresolved {
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<Unresolved> for io::Error {
    fn from(unresolved: Unresolved) -> Self {
        let kind = match unresolved.why {
            NameError::NotFound => io::ErrorKind::NotFound,
            NameError::TimedOut => io::ErrorKind::TimedOut,
            NameError::Busy => io::ErrorKind::ResourceBusy,
            NameError::TryAgain | NameError::Failed | NameError::Other => io::ErrorKind::Other,
        };
        Self::new(kind, unresolved)
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", OneLine(&self.text))
    }
}

impl Error for Unresolved {}

/// What looks names up instead of the system.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>);

impl Resolver {
    pub(crate) fn new(resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    pub(crate) fn lookup(&self, host: &str) -> Lookup {
        let (resolve, host) = (Arc::clone(&self.0), host.to_owned());
        Box::new(move || {
            let found = guard(|| resolve(&host)).unwrap_or_else(|payload| {
                let text = text(&payload);
                log::error!(target: "mainspring", "the resolver panicked over `{host}`: {}", OneLine(&text));
                Err(NameError::Failed.error(format!("`{host}`: the resolver panicked: {text}")))
            })?;
            Ok(Resolved::Addresses(found.into_iter().map(|ip| (ip, 0).into()).collect()))
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Blocks.
pub(crate) fn ask_the_system(question: &Question) -> io::Result<Resolved> {
    match question {
        Question::Addresses(host) => addresses(host).map(Resolved::Addresses),
        #[cfg(feature = "names")]
        Question::Name(ip) => name(*ip).map(Resolved::Name),
    }
}

/// By std's getaddrinfo(3): the user's /etc/hosts and nsswitch.conf count, and the order is that of RFC 6724.
#[cfg(not(feature = "names"))]
fn addresses(host: &str) -> io::Result<Vec<SocketAddr>> {
    match (host, 0).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(said(NameError::Other, host, error)),
    }
}

#[cfg(feature = "names")]
fn addresses(host: &str) -> io::Result<Vec<SocketAddr>> {
    let hints = dns_lookup::AddrInfoHints { socktype: dns_lookup::SockType::Stream.into(), ..Default::default() };
    match dns_lookup::getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => found.map(|found| Ok(found?.sockaddr)).collect(),
        Err(error) => Err(typed(error, host)),
    }
}

#[cfg(feature = "names")]
fn name(ip: IpAddr) -> io::Result<String> {
    dns_lookup::lookup_addr(&ip).map_err(|error| typed(error, &ip.to_string())).and_then(|name| named(ip, name))
}

/// A number is not a name: whoever has the address could use it to pass for another host.
#[cfg(feature = "names")]
fn named(ip: IpAddr, name: String) -> io::Result<String> {
    if name.strip_suffix('.').unwrap_or(&name).parse::<IpAddr>().is_err() {
        return Ok(name);
    }
    Err(NameError::NotFound.error(format!("`{ip}`: its name is given as a number, `{name}`, which is not a name")))
}

#[cfg(feature = "names")]
fn typed(error: dns_lookup::LookupError, asked: &str) -> io::Error {
    use dns_lookup::LookupErrorKind as Kind;
    let why = match error.kind() {
        Kind::NoName | Kind::NoData => NameError::NotFound,
        Kind::Again => NameError::TryAgain,
        Kind::Fail => NameError::Failed,
        _ => NameError::Other,
    };
    #[cfg(windows)]
    let error = io::Error::from_raw_os_error(error.error_num());
    said(why, asked, error.into())
}

/// What the resolver says. An error with a number is the system's, and is left as it is; but on Windows all errors have one.
fn said(why: NameError, asked: &str, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() && !cfg!(windows) {
        return error;
    }
    let text = error.to_string();
    let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
    why.error(format!("`{asked}`: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses_of(found: io::Result<Resolved>) -> Vec<SocketAddr> {
        match found {
            Ok(Resolved::Addresses(addresses)) => addresses,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_system_knows_localhost() {
        let found = addresses_of(ask_the_system(&Question::Addresses("localhost".into())));
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }

    /// `.invalid` never exists (RFC 6761, 6.4).
    #[test]
    fn a_name_that_does_not_exist_is_an_error_that_names_it() {
        let error = ask_the_system(&Question::Addresses("no-such-host.invalid".into())).expect_err("reserved");
        assert!(error.raw_os_error().is_some() || error.to_string().starts_with("`no-such-host.invalid`: "), "{error}");
        let why = NameError::of(&error);
        if cfg!(feature = "names") {
            // Without a network the resolver cannot know.
            assert!(
                matches!(why, Some(NameError::NotFound | NameError::TryAgain)) || error.raw_os_error().is_some(),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_resolver_of_the_programs_own_is_asked_and_may_panic() {
        let resolver = Resolver::new(|host| match host {
            "two.test" => Ok(vec!["192.0.2.1".parse().expect("literal"), "::1".parse().expect("literal")]),
            _ => std::panic::resume_unwind(Box::new("on purpose")),
        });
        assert_eq!(addresses_of(resolver.lookup("two.test")()).len(), 2);
        let error = resolver.lookup("odd.test")().expect_err("it panics");
        assert_eq!(NameError::of(&error), Some(NameError::Failed));
        assert!(error.to_string().contains("on purpose"), "{error}");
    }

    #[test]
    #[cfg(feature = "names")]
    fn what_has_no_name_is_not_found_and_never_its_own_number() {
        // TEST-NET-1 (RFC 5737) has no names.
        let error = ask_the_system(&Question::Name("192.0.2.1".parse().expect("literal"))).expect_err("no name");
        assert!(matches!(NameError::of(&error), Some(NameError::NotFound | NameError::TryAgain)), "{error:?}");
        match ask_the_system(&Question::Name("127.0.0.1".parse().expect("literal"))) {
            Ok(Resolved::Name(name)) => assert!(name.parse::<IpAddr>().is_err(), "{name}"),
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(NameError::of(&error).is_some(), "{error:?}"),
        }
    }

    /// Whoever has an address may write down a number as its name, so as to be taken for another host.
    #[test]
    #[cfg(feature = "names")]
    fn a_number_is_nobodys_name() {
        let ip: IpAddr = "192.0.2.1".parse().expect("literal");
        assert_eq!(named(ip, "example.org".into()).expect("a name"), "example.org");
        for number in ["192.0.2.1", "127.0.0.1", "127.0.0.1.", "::1", "::ffff:127.0.0.1"] {
            let error = named(ip, number.into()).expect_err(number);
            assert_eq!(NameError::of(&error), Some(NameError::NotFound));
            assert!(error.to_string().starts_with("`192.0.2.1`: "), "{error}");
        }
    }

    #[test]
    fn the_kind_says_what_can_be_said_and_the_text_stays() {
        for (why, kind) in [
            (NameError::NotFound, io::ErrorKind::NotFound),
            (NameError::TimedOut, io::ErrorKind::TimedOut),
            (NameError::Busy, io::ErrorKind::ResourceBusy),
        ] {
            let error = why.error("`x`: said");
            assert_eq!((error.kind(), error.to_string().as_str(), NameError::of(&error)), (kind, "`x`: said", Some(why)));
        }
        assert_eq!(NameError::of(&io::ErrorKind::NotFound.into()), None);
    }
}
