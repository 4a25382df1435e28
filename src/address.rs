//! Where a socket is ([`Address`]), and what you may write to name a place ([`Target`]).

#[cfg(unix)]
use std::os::unix::ffi::OsStringExt;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// Where one end of a socket is.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// TCP or UDP.
    Ip(SocketAddr),
    /// A Unix socket; `None` is one without a name, as most clients are.
    Unix(Option<PathBuf>),
    /// A Linux abstract Unix socket: a name that is no file (unix(7)). Without its leading zero byte.
    Abstract(Vec<u8>),
    /// A name that was not resolved, as it was asked for.
    Name(String),
    /// No address: a plain descriptor, or a socket that was never opened.
    Fd,
}

impl Address {
    /// The IP address and port, if it has one.
    pub fn ip(&self) -> Option<SocketAddr> {
        if let Self::Ip(addr) = self { Some(*addr) } else { None }
    }
}

/// Between ours and the system's form.
#[cfg(unix)]
impl Address {
    pub(crate) fn of_socket(addr: &socket2::SockAddr) -> Self {
        if let Some(ip) = addr.as_socket() {
            return Self::Ip(ip);
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = addr.as_abstract_namespace() {
            return Self::Abstract(name.to_vec());
        }
        Self::Unix(addr.as_pathname().map(Path::to_path_buf))
    }

    /// # Errors
    /// For a path that is too long (107 bytes on Linux, unix(7)), or none at all.
    pub(crate) fn to_socket(&self) -> io::Result<socket2::SockAddr> {
        match self {
            Self::Ip(addr) => Ok((*addr).into()),
            Self::Unix(Some(path)) if path.as_os_str().as_encoded_bytes().contains(&0) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a path has no zero byte (an abstract name is written unix:@name)",
            )),
            Self::Unix(Some(path)) => socket2::SockAddr::unix(path),
            Self::Abstract(name) if cfg!(any(target_os = "linux", target_os = "android")) => {
                let name: Vec<u8> = [&[0], &name[..]].concat();
                socket2::SockAddr::unix(std::ffi::OsString::from_vec(name))
            }
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, format!("`{self}` is no address on this system"))),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

/// In the form that [`Target`] reads, as far as it is text: what is no UTF-8 in a path or a name is shown as such.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            // An abstract name begins with @, a path must not.
            Self::Unix(Some(path)) if path.as_os_str().as_encoded_bytes().starts_with(b"@") => {
                write!(f, "unix:./{}", path.display())
            }
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
            Self::Abstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
            Self::Name(text) => f.write_str(text),
            Self::Fd => f.write_str("descriptor"),
        }
    }
}

/// A place to listen on or to connect to: `"127.0.0.1:7000"`, `"[::1]:7000"`, `"unix:/run/me.sock"`, `"unix:@name"`
/// (Linux's abstract names), a [`SocketAddr`], `(IpAddr, port)`, a [`Path`].
///
/// Host names (`"example.org:80"`, `("example.org", 80)`) are understood, and answered with an error for now: this
/// version does not resolve them. Ports are numbers; port 0 lets the system choose one when listening.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Text in one of the forms above.
    Text(String),
    /// A host name or literal address, and a port, which are not to be glued together.
    Name(String, u16),
    /// An IP address.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of a Linux abstract Unix socket, without its leading zero byte.
    Abstract(Vec<u8>),
}

/// Why a target has no address.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// A host name: to be resolved.
    Name(io::Error),
    /// Not understood.
    Malformed(io::Error),
}

impl Unusable {
    pub(crate) fn into_error(self) -> io::Error {
        match self {
            Self::Name(error) | Self::Malformed(error) => error,
        }
    }
}

impl Target {
    /// The address that is written there literally.
    pub(crate) fn address(&self) -> Result<Address, Unusable> {
        match self {
            Self::Ip(addr) => Ok(Address::Ip(*addr)),
            Self::Unix(path) => Ok(Address::Unix(Some(path.clone()))),
            Self::Abstract(name) => Ok(Address::Abstract(name.clone())),
            Self::Name(host, port) => match host.parse::<IpAddr>() {
                Ok(ip) => Ok(Address::Ip((ip, *port).into())),
                Err(_) => Err(unresolved(host)),
            },
            Self::Text(text) => parse(text),
        }
    }
}

fn parse(text: &str) -> Result<Address, Unusable> {
    if let Some(name) = text.strip_prefix("unix:@") {
        return Ok(Address::Abstract(name.into()));
    }
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Address::Unix(Some(path.into())));
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Address::Ip(addr));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !host.contains([':', '[', ']', '/']) && !port.is_empty() => {
            Err(unresolved(host))
        }
        _ => Err(Unusable::Malformed(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{text}` is no address: write IP:PORT, [IPv6]:PORT or unix:/path"),
        ))),
    }
}

fn unresolved(host: &str) -> Unusable {
    Unusable::Name(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("`{host}` is no literal address, and names are not resolved yet: write 127.0.0.1:PORT or [::1]:PORT"),
    ))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
        }
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Target {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        Self::Name(host.into(), port)
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Self {
        Self::Name(host, port)
    }
}

impl From<(IpAddr, u16)> for Target {
    fn from(addr: (IpAddr, u16)) -> Self {
        Self::Ip(addr.into())
    }
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

/// What an [`Address`] names can be connected to again.
impl From<&Address> for Target {
    fn from(address: &Address) -> Self {
        match address {
            Address::Ip(addr) => Self::Ip(*addr),
            Address::Unix(Some(path)) => Self::Unix(path.clone()),
            Address::Abstract(name) => Self::Abstract(name.clone()),
            other => Self::Text(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood() {
        let address = |text: &str| Target::from(text).address().expect(text).to_string();
        for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/x", "unix:relative", "unix:@abstract", "unix:@it's \\ here"] {
            assert_eq!(address(text), text);
        }
        assert_eq!(Target::from(("::1", 7)).address().expect("literal"), Address::Ip("[::1]:7".parse().expect("literal")));
    }

    #[test]
    fn bad_targets_say_what_was_wrong_and_what_to_do() {
        let error = |text: &str| Target::from(text).address().expect_err(text);
        for text in ["", "7000", ":80", "::1:80x", "unix:", "a/b:1", "127.0.0.1:"] {
            let Unusable::Malformed(error) = error(text) else { panic!("{text} is no name") };
            assert!(error.to_string().contains("IP:PORT"), "{error}");
        }
        for text in ["example.org:80", "localhost:http"] {
            assert!(matches!(error(text), Unusable::Name(_)), "{text}");
        }
        assert!(matches!(Target::from(("example.org", 80)).address(), Err(Unusable::Name(_))));
    }
}
