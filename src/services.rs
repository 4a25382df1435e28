//! Ports by the names of their services: a table of common ones, then the system's own file.

use std::{fmt, fs, io};

/// A protocol above IP that has ports.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpProtocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where the system keeps the others (services(5)).
const FILE: &str = if cfg!(windows) { r"C:\Windows\System32\drivers\etc\services" } else { "/etc/services" };

/// The port of a service, by its name of the IANA registry (RFC 6335), in whatever case: a built-in table of common ones,
/// then the system's own file (services(5)). It does not ask the network.
///
/// ```
/// use mainspring::{IpProtocol, service_port};
///
/// assert_eq!(service_port("http", IpProtocol::Tcp)?, 80);
/// assert!(service_port("no-such-service", IpProtocol::Tcp).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// [`io::ErrorKind::NotFound`] for a name that neither knows.
pub fn service_port(name: &str, protocol: IpProtocol) -> io::Result<u16> {
    built_in(name, protocol).or_else(|| in_system(FILE, name, protocol)).ok_or_else(|| {
        let name = name.escape_debug();
        let text = format!("no service is called `{name}` for {protocol}, here and in {FILE}: write the number of its port");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

fn built_in(name: &str, protocol: IpProtocol) -> Option<u16> {
    let is_it = |(known, _, has_tcp, has_udp): &&(&str, u16, bool, bool)| {
        let has_protocol = match protocol {
            IpProtocol::Tcp => *has_tcp,
            IpProtocol::Udp => *has_udp,
        };
        has_protocol && known.eq_ignore_ascii_case(name)
    };
    COMMON.iter().find(is_it).map(|(_, port, ..)| *port)
}

fn in_system(file: &str, name: &str, protocol: IpProtocol) -> Option<u16> {
    in_file(&String::from_utf8_lossy(&fs::read(file).ok()?), name, protocol)
}

/// Lines of `name port/protocol aliases…`, comments after `#`.
fn in_file(text: &str, name: &str, protocol: IpProtocol) -> Option<u16> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        let (port, of) = port.split_once('/')?;
        let is_it = std::iter::once(first).chain(words).any(|known| known.eq_ignore_ascii_case(name));
        (is_it && of.eq_ignore_ascii_case(&protocol.to_string())).then(|| port.parse().ok())?
    })
}

/// Name, port, whether over TCP, whether over UDP: what people connect to by name (IANA's registry of service names).
const COMMON: &[(&str, u16, bool, bool)] = &[
    ("echo", 7, true, true),
    ("discard", 9, true, true),
    ("daytime", 13, true, true),
    ("qotd", 17, true, true),
    ("chargen", 19, true, true),
    ("ftp-data", 20, true, false),
    ("ftp", 21, true, false),
    ("ssh", 22, true, false),
    ("telnet", 23, true, false),
    ("smtp", 25, true, false),
    ("time", 37, true, true),
    ("whois", 43, true, false),
    ("domain", 53, true, true),
    ("tftp", 69, false, true),
    ("gopher", 70, true, false),
    ("finger", 79, true, false),
    ("http", 80, true, false),
    ("www", 80, true, false),
    ("kerberos", 88, true, true),
    ("pop3", 110, true, false),
    ("sunrpc", 111, true, true),
    ("auth", 113, true, false),
    ("ident", 113, true, false),
    ("nntp", 119, true, false),
    ("ntp", 123, false, true),
    ("imap", 143, true, false),
    ("imap2", 143, true, false),
    ("snmp", 161, true, true),
    ("snmp-trap", 162, true, true),
    ("bgp", 179, true, false),
    ("irc", 194, true, true),
    ("ldap", 389, true, true),
    ("https", 443, true, true),
    ("submissions", 465, true, false),
    ("syslog", 514, false, true),
    ("submission", 587, true, false),
    ("ipp", 631, true, false),
    ("ldaps", 636, true, true),
    ("domain-s", 853, true, true),
    ("rsync", 873, true, false),
    ("ftps", 990, true, false),
    ("imaps", 993, true, false),
    ("pop3s", 995, true, false),
    ("socks", 1080, true, false),
    ("mqtt", 1883, true, false),
    ("nfs", 2049, true, true),
    ("mysql", 3306, true, false),
    ("ms-wbt-server", 3389, true, false),
    ("stun", 3478, true, true),
    ("svn", 3690, true, false),
    ("sip", 5060, true, true),
    ("sips", 5061, true, false),
    ("xmpp-client", 5222, true, false),
    ("xmpp-server", 5269, true, false),
    ("mdns", 5353, false, true),
    ("postgresql", 5432, true, false),
    ("amqps", 5671, true, false),
    ("amqp", 5672, true, false),
    ("redis", 6379, true, false),
    ("ircs-u", 6697, true, false),
    ("http-alt", 8080, true, false),
    ("secure-mqtt", 8883, true, false),
    ("git", 9418, true, false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_services_need_no_file_and_no_case() {
        for (name, port) in [("http", 80), ("HTTPS", 443), ("smtp", 25), ("gopher", 70), ("redis", 6379)] {
            assert_eq!(built_in(name, IpProtocol::Tcp), Some(port), "{name}");
        }
        assert_eq!(built_in("domain", IpProtocol::Udp), Some(53));
        assert_eq!(built_in("ntp", IpProtocol::Tcp), None);
        assert!(COMMON.is_sorted_by_key(|(_, port, ..)| *port), "a table that can be read");
    }

    #[test]
    fn others_are_found_in_the_systems_file_by_name_or_alias() {
        let file =
            "# services(5)\nftp 21/tcp\n  odd\t4711/udp  strange # no other\nodd 4712/TCP\nbroken\nbad x/tcp\n#odd2 1/tcp\n";
        let tcp = |name| in_file(file, name, IpProtocol::Tcp);
        assert_eq!(in_file(file, "odd", IpProtocol::Udp), Some(4711));
        assert_eq!(in_file(file, "STRANGE", IpProtocol::Udp), Some(4711));
        assert_eq!(tcp("odd"), Some(4712));
        assert_eq!([tcp("strange"), tcp("broken"), tcp("bad"), tcp("odd2"), tcp("no"), tcp("#odd2"), tcp("")], [None; 7]);
    }

    /// Somebody's comment in another encoding.
    #[test]
    fn a_file_that_is_not_all_utf8_is_read_all_the_same() {
        let name = format!("mainspring-services-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, b"# f\xfcr uns\nours 4711/tcp # M\xfcller\n").expect("writable");
        let found = in_system(&path.to_string_lossy(), "ours", IpProtocol::Tcp);
        fs::remove_file(&path).expect("it was just written");
        assert_eq!(found, Some(4711));
        assert_eq!(in_system("/no/such/file", "ours", IpProtocol::Tcp), None);
    }

    #[test]
    fn an_unknown_service_says_so_and_what_to_write() {
        let error = service_port("htpp", IpProtocol::Tcp).expect_err("a typing error");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("`htpp` for tcp") && error.to_string().contains("number"), "{error}");
        let error = service_port("a\nb", IpProtocol::Tcp).expect_err("no name");
        assert!(error.to_string().contains("`a\\nb`"), "one line in a log: {error}");
    }
}
