//! Where a socket is ([`Address`]), and what you may write to name a place ([`Target`]).

#[cfg(unix)]
use std::os::unix::ffi::OsStringExt;
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs},
    path::{Path, PathBuf},
};

use crate::{
    services::{IpProtocol, service_port},
    text::OneLine,
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

/// Between our form and the system's.
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

    pub(crate) fn of_unix(addr: &std::os::unix::net::SocketAddr) -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = abstract_name(addr) {
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
                "a path cannot have a zero byte in it (an abstract name is written unix:@name)",
            )),
            Self::Unix(Some(path)) => {
                let len = path.as_os_str().len();
                socket2::SockAddr::unix(path).map_err(|_| too_long("path", len))
            }
            Self::Abstract(name) if cfg!(any(target_os = "linux", target_os = "android")) => {
                let bytes: Vec<u8> = [&[0], &name[..]].concat();
                socket2::SockAddr::unix(std::ffi::OsString::from_vec(bytes)).map_err(|_| too_long("name", name.len()))
            }
            _ => Err(io::Error::new(io::ErrorKind::Unsupported, format!("`{self}` is not an address on this system"))),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(addr: &std::os::unix::net::SocketAddr) -> Option<&[u8]> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;
    addr.as_abstract_name()
}

/// What the system has for a Unix socket's path, without the zero byte that ends it, or that begins an abstract name.
#[cfg(unix)]
const PATH_BYTES_MAX: usize = size_of::<libc::sockaddr_un>() - std::mem::offset_of!(libc::sockaddr_un, sun_path) - 1;

#[cfg(unix)]
fn too_long(what: &str, bytes: usize) -> io::Error {
    invalid(format!("a Unix socket's {what} has at most {PATH_BYTES_MAX} bytes, and this one has {bytes}"))
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

/// In the form that [`Target`] reads, as far as it is ordinary text: what is not UTF-8 in a path or a name is shown as such,
/// and control characters are escaped (`\n`, `\u{1b}`), because a Unix client chooses its own path, and a log line must stay
/// one line. To connect to what it names, use the address itself and not its text.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            // An abstract name begins with @; a path must not look like one.
            Self::Unix(Some(path)) if path.as_os_str().as_encoded_bytes().starts_with(b"@") => {
                write!(f, "unix:./{}", OneLine(path.display()))
            }
            Self::Unix(Some(path)) => write!(f, "unix:{}", OneLine(path.display())),
            Self::Unix(None) => f.write_str("unix:"),
            Self::Abstract(name) => write!(f, "unix:@{}", OneLine(String::from_utf8_lossy(name))),
            Self::Name(text) => write!(f, "{}", OneLine(text)),
            Self::Fd => f.write_str("descriptor"),
        }
    }
}

/// A place to listen on or to connect to: `"example.org:http"`, `"example.org:80"`, `"127.0.0.1:7000"`, `"[::1]:7000"`,
/// `"[fe80::1%eth0]:7000"` (an address of one link needs its zone, RFC 4007), `"unix:/run/me.sock"`, `"unix:@name"` (Linux's
/// abstract names), a [`SocketAddr`], `(IpAddr, port)`, `(host, port)`, a [`Path`].
///
/// A port is a number or the name of a service ([`service_port`](crate::service_port)); port 0 lets the system choose one
/// when listening. Host names are for connecting only: looking one up takes time, so listening on one is an error. A host
/// name has at most 253 bytes, and 63 between two dots (RFC 1123, 2.1); what else a name may be is up to the resolver. The
/// chapter is [connecting](crate::manual::connecting#what-you-may-write).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Text in one of the forms above.
    Text(String),
    /// A host name or literal address, and a port, which must not be glued together.
    Name(String, u16),
    /// An IP address.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// The name of a Linux abstract Unix socket, without its leading zero byte.
    Abstract(Vec<u8>),
}

/// What a target leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    At(Address),
    /// A host to be looked up.
    Named(String, u16),
}

/// RFC 1035, 2.3.4, without the root's dot.
const HOST_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// The name of a network interface is short (netdevice(7): 15 bytes); other systems have longer ones.
const ZONE_BYTES_MAX: usize = 64;

impl Target {
    /// # Errors
    /// If it leads nowhere: the text says what is wrong with it.
    pub(crate) fn place(&self) -> io::Result<Place> {
        match self {
            Self::Ip(addr) => Ok(Place::At(Address::Ip(*addr))),
            Self::Unix(path) => Ok(Place::At(Address::Unix(Some(path.clone())))),
            Self::Abstract(name) => Ok(Place::At(Address::Abstract(name.clone()))),
            Self::Name(host, port) => place_of(host, *port),
            Self::Text(text) => parse(text, IpProtocol::Tcp, "HOST:PORT, IP:PORT, [IPv6]:PORT or unix:/path"),
        }
    }

    /// What was asked for, exactly as it was written.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Name(host, port) => format!("{host}:{port}"),
            other => other.to_string(),
        }
    }

    /// The address that is written there literally.
    ///
    /// # Errors
    /// For a host name, and if it leads nowhere.
    pub(crate) fn address(&self) -> io::Result<Address> {
        self.address_of(IpProtocol::Tcp)
    }

    /// The same; a service has its port for this protocol.
    ///
    /// # Errors
    /// The same as for [`address`](Self::address).
    pub(crate) fn address_of(&self, protocol: IpProtocol) -> io::Result<Address> {
        let place = match self {
            Self::Text(text) => parse(text, protocol, "IP:PORT, [IPv6]:PORT or unix:/path"),
            other => other.place(),
        };
        match place? {
            Place::At(address) => Ok(address),
            Place::Named(host, _) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("`{host}` is a name, and only an address can be used here: write IP:PORT, or look it up first"),
            )),
        }
    }
}

/// The error for text in none of these forms names them.
fn parse(text: &str, protocol: IpProtocol, forms: &str) -> io::Result<Place> {
    if let Some(name) = text.strip_prefix("unix:@") {
        return Ok(Place::At(Address::Abstract(name.into())));
    }
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Place::At(Address::Unix(Some(path.into()))));
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Place::At(Address::Ip(addr)));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").filter(|(host, _)| host.contains(':')).ok_or_else(|| malformed(text, forms))?,
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':')).ok_or_else(|| malformed(text, forms))?,
    };
    if host.is_empty() || port.is_empty() || text.contains('/') {
        return Err(malformed(text, forms));
    }
    place_of(host, parse_port(port, protocol)?)
}

fn malformed(text: &str, forms: &str) -> io::Error {
    invalid(format!("`{}` is not an address: write {forms}", text.escape_debug()))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn parse_port(text: &str, protocol: IpProtocol) -> io::Result<u16> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return service_port(text, protocol);
    }
    text.parse().map_err(|_| invalid(format!("there is no port {text}: the highest is 65535")))
}

fn place_of(host: &str, port: u16) -> io::Result<Place> {
    Ok(match literal(host)? {
        Some(mut addr) => {
            addr.set_port(port);
            Place::At(Address::Ip(addr))
        }
        None => Place::Named(host.to_owned(), port),
    })
}

/// The IP address that is written there, with port 0. `None`: it is a name that may be looked up.
///
/// # Errors
/// For text that can be neither.
pub(crate) fn literal(host: &str) -> io::Result<Option<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some((ip, 0).into()));
    }
    let zoned = host.split_once('%').and_then(|(ip, zone)| Some((ip.parse().ok()?, zone)));
    match zoned {
        Some((ip, zone)) => with_zone(host, ip, zone).map(Some),
        None => check_host(host).map(|()| None),
    }
}

/// The system numbers its interfaces; it is asked for that number, without a look at the network.
fn with_zone(host: &str, ip: Ipv6Addr, zone: &str) -> io::Result<SocketAddr> {
    let is_sane =
        !zone.is_empty() && zone.len() <= ZONE_BYTES_MAX && !zone.contains(|c: char| c.is_control() || c.is_whitespace());
    let found = if is_sane { (host, 0).to_socket_addrs().ok().and_then(|mut all| all.next()) } else { None };
    found.ok_or_else(|| {
        let (host, zone) = (host.escape_debug(), zone.escape_debug());
        let text = if ip.is_unicast_link_local() || ip.is_multicast() {
            format!("`{host}`: there is no network interface `{zone}` here")
        } else {
            format!("`{host}`: this is not an address of one link, so it has no zone: write it without `%{zone}`")
        };
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

fn check_host(host: &str) -> io::Result<()> {
    let bad = |what: &str| Err(invalid(format!("`{}` is not a host name: {what}", host.escape_debug())));
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() {
        return bad("it is empty");
    }
    if host.contains('\0') {
        return bad("it has a zero byte in it");
    }
    if let Some(odd) =
        host.chars().find(|&c| c.is_control() || c.is_whitespace() || matches!(c, '[' | ']' | ':' | '/' | '%' | '@'))
    {
        return bad(&format!("it has `{}` in it", odd.escape_debug()));
    }
    if name.len() > HOST_BYTES_MAX {
        return Err(invalid(format!("a host name has at most {HOST_BYTES_MAX} bytes, and this one has {}", name.len())));
    }
    match name.split('.').map(str::len).find(|len| !(1..=LABEL_BYTES_MAX).contains(len)) {
        Some(0) => bad("two dots follow each other, or one begins it"),
        Some(_) => bad("there are more than 63 bytes between two dots"),
        None => Ok(()),
    }
}

/// As it may be written, with control characters escaped.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", OneLine(text)),
            Self::Name(host, port) => write!(f, "{}:{port}", OneLine(host)),
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", OneLine(path.display())),
            Self::Abstract(name) => write!(f, "unix:@{}", OneLine(String::from_utf8_lossy(name))),
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

macro_rules! from_ip {
    ($($addr:ty),*) => {$(
        impl From<$addr> for Target {
            fn from(addr: $addr) -> Self {
                Self::Ip(addr.into())
            }
        }
    )*};
}

from_ip!((IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16), SocketAddr, SocketAddrV4, SocketAddrV6);

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}

impl From<&PathBuf> for Target {
    fn from(path: &PathBuf) -> Self {
        Self::Unix(path.clone())
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
            Address::Name(text) => Self::Text(text.clone()),
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
        for text in
            ["127.0.0.1:80", "[::1]:80", "[fe80::1%7]:80", "unix:/run/x", "unix:relative", "unix:@abstract", "unix:@it's \\ here"]
        {
            assert_eq!(address(text), text);
        }
        assert_eq!(address("127.0.0.1:http"), "127.0.0.1:80");
        assert_eq!(address("[::1]:HTTP"), "[::1]:80");
        assert_eq!(Target::from(("::1", 7)).address().expect("literal"), Address::Ip("[::1]:7".parse().expect("literal")));
    }

    #[test]
    fn what_a_peer_calls_itself_stays_on_one_line_and_leads_back_to_it() {
        let hostile = "/run/x\n7.3 127.0.0.1:1 accepted\r\x1b[2J\u{202e}\u{9b}0m";
        let shown = r"/run/x\n7.3 127.0.0.1:1 accepted\r\u{1b}[2J\u{202e}\u{9b}0m";
        let addresses = [
            (Address::Unix(Some(hostile.into())), format!("unix:{shown}")),
            (Address::Unix(Some(format!("@{hostile}").into())), format!("unix:./@{shown}")),
            (Address::Abstract(hostile.into()), format!("unix:@{shown}")),
            (Address::Name(hostile.into()), shown.to_owned()),
        ];
        for (address, shown) in addresses {
            assert_eq!(address.to_string(), shown);
            let target = Target::from(&address);
            assert!(!target.to_string().contains(char::is_control), "{target:?}");
            match address {
                Address::Name(name) => assert_eq!(target.name(), name),
                address => assert_eq!(target.address().expect("it is one"), address),
            }
        }
        assert_eq!(Target::from(("a\nb", 80)).to_string(), r"a\nb:80");
        assert_eq!(Target::from("a\nb:80").to_string(), r"a\nb:80");
    }

    #[test]
    fn names_are_for_the_resolver_and_services_are_not() {
        let named = |target: Target| match target.place() {
            Ok(Place::Named(host, port)) => format!("{host} {port}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(named("example.org:80".into()), "example.org 80");
        assert_eq!(named("localhost:smtp".into()), "localhost 25");
        assert_eq!(named(("example.org.", 80).into()), "example.org. 80");
        assert_eq!(named("a_b-c.3com:1".into()), "a_b-c.3com 1");
        let error = Target::from("example.org:80").address().expect_err("a name");
        assert!(error.to_string().contains("only an address"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_zone_is_a_number_or_an_interface() {
        let zone = |text: &str| match Target::from(text).address() {
            Ok(Address::Ip(SocketAddr::V6(addr))) => Ok(addr.scope_id()),
            Ok(other) => panic!("{other}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(zone("[fe80::1%lo]:80"), Ok(1), "the loopback is the first on Linux");
        assert_eq!(zone("[fe80::1%3]:http"), Ok(3));
        assert_eq!(Target::from(("fe80::1%lo", 80)).address().expect("literal").to_string(), "[fe80::1%1]:80");
        for text in ["[fe80::1%no-such-link]:80", "[fe80::1%]:80", "[fe80::1%a b]:80"] {
            assert!(zone(text).is_err_and(|error| error.contains("no network interface")), "{text}");
        }
        for text in ["[::1%lo]:80", "[2001:db8::1%lo]:80"] {
            assert!(zone(text).is_err_and(|error| error.contains("without `%lo`")), "{text}: {:?}", zone(text));
        }
    }

    #[test]
    fn what_std_has_for_an_address_is_a_target() {
        let (four, six) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let targets =
            [(four, 7).into(), (IpAddr::from(four), 7).into(), SocketAddrV4::new(four, 7).into(), Target::from("127.0.0.1:7")];
        assert!(targets.iter().all(|target| target.address().expect("literal").to_string() == "127.0.0.1:7"));
        let targets =
            [(six, 7).into(), (IpAddr::from(six), 7).into(), SocketAddrV6::new(six, 7, 0, 0).into(), Target::from("[::1]:7")];
        assert!(targets.iter().all(|target| target.address().expect("literal").to_string() == "[::1]:7"));
        let path = PathBuf::from("/run/x");
        for target in [Target::from(&path), Target::from(path.as_path()), Target::from(path.clone())] {
            assert_eq!(target.to_string(), "unix:/run/x");
        }
    }

    #[test]
    fn bad_targets_say_what_was_wrong_and_what_to_do() {
        let error = |text: &str| Target::from(text).place().expect_err(text).to_string();
        for text in [
            "",
            "7000",
            ":80",
            "::1:80x",
            "::1",
            "unix:",
            "a/b:1",
            "127.0.0.1:",
            "http://example.org",
            "[::1]",
            "[a]:1",
            "[::1:80",
        ] {
            assert!(error(text).contains("HOST:PORT, IP:PORT, [IPv6]:PORT or unix:/path"), "{text}: {}", error(text));
        }
        // Where a name cannot be used, nobody is told to write one.
        let error_of_address = Target::from("7000").address().expect_err("no address").to_string();
        assert_eq!(error_of_address, "`7000` is not an address: write IP:PORT, [IPv6]:PORT or unix:/path");
        assert!(error("example.org:htpp").contains("no service is called `htpp`"));
        assert!(error("example.org:70000").contains("65535"));
        assert!(error("example.org:+80").contains("no service"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn too_long_a_path_is_told_how_long_it_may_be() {
        let error = |address: Address| address.to_socket().expect_err("too long").to_string();
        let long = "x".repeat(108);
        assert!(Address::Unix(Some(long[1..].into())).to_socket().is_ok());
        assert!(Address::Abstract(long[1..].into()).to_socket().is_ok());
        let told = error(Address::Unix(Some(long.as_str().into())));
        assert_eq!(told, "a Unix socket's path has at most 107 bytes, and this one has 108");
        assert_eq!(error(Address::Abstract(long.into())), told.replace("path", "name"));
    }

    #[test]
    fn bad_host_names_say_what_was_wrong() {
        let long = "a".repeat(64);
        let very_long = vec!["a".repeat(60); 5].join(".");
        let cases = [
            ("", "empty"),
            (".", "empty"),
            ("a\0b", "zero byte"),
            ("a b", "` `"),
            ("a\nb", "`\\n`"),
            ("a@b", "`@`"),
            ("[::1]", "`[`"),
            ("1.2.3.4%lo", "`%`"),
            ("a..b", "two dots"),
            (".a", "two dots"),
            (long.as_str(), "63 bytes"),
            (very_long.as_str(), "253 bytes, and this one has 304"),
        ];
        for (host, what) in cases {
            let error = Target::from((host, 80)).place().expect_err(host);
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        let longest = format!("{}.{}", vec!["a".repeat(61); 4].join("."), "b".repeat(5));
        assert_eq!(longest.len(), 253);
        assert!(Target::from((longest + ".", 80)).place().is_ok());
    }
}
