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

impl IpProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the system keeps the others (services(5)).
const FILE: &str = if cfg!(windows) { r"C:\Windows\System32\drivers\etc\services" } else { "/etc/services" };

/// The port of a service, by its name in the IANA registry (RFC 6335), in upper or lower case: a built-in table of common
/// ones, then the system's own file (services(5)). It does not ask the network.
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
/// [`io::ErrorKind::NotFound`] for a name that is in neither.
pub fn service_port(name: &str, protocol: IpProtocol) -> io::Result<u16> {
    in_file(COMMON, name, protocol).or_else(|| in_system(FILE, name, protocol)).ok_or_else(|| {
        let name = name.escape_debug();
        let text = format!("no service is called `{name}` for {protocol}, neither here nor in {FILE}: write its port number");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

fn in_system(file: &str, name: &str, protocol: IpProtocol) -> Option<u16> {
    in_file(&fs::read(file).ok()?, name, protocol)
}

/// Lines of `name port/protocol aliases…`, comments after `#`.
fn in_file(text: &[u8], name: &str, protocol: IpProtocol) -> Option<u16> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let line = line.split(|&byte| byte == b'#').next()?;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let (first, port) = (words.next()?, words.next()?);
        let (port, of) = port.split_at(port.iter().position(|&byte| byte == b'/')?);
        let is_it = std::iter::once(first).chain(words).any(|known| known.eq_ignore_ascii_case(name.as_bytes()));
        (is_it && of[1..].eq_ignore_ascii_case(protocol.name().as_bytes()))
            .then(|| std::str::from_utf8(port).ok()?.parse().ok())?
    })
}

/// What people connect to by name (IANA's registry of service names), in the form of the system's file.
const COMMON: &[u8] = b"\
echo 7/tcp
echo 7/udp
discard 9/tcp
discard 9/udp
daytime 13/tcp
daytime 13/udp
qotd 17/tcp
qotd 17/udp
chargen 19/tcp
chargen 19/udp
ftp-data 20/tcp
ftp 21/tcp
ssh 22/tcp
telnet 23/tcp
smtp 25/tcp
time 37/tcp
time 37/udp
whois 43/tcp
domain 53/tcp
domain 53/udp
tftp 69/udp
gopher 70/tcp
finger 79/tcp
http 80/tcp www
kerberos 88/tcp
kerberos 88/udp
pop3 110/tcp
sunrpc 111/tcp
sunrpc 111/udp
auth 113/tcp ident
nntp 119/tcp
ntp 123/udp
imap 143/tcp imap2
snmp 161/tcp
snmp 161/udp
snmp-trap 162/tcp
snmp-trap 162/udp
bgp 179/tcp
irc 194/tcp
irc 194/udp
ldap 389/tcp
ldap 389/udp
https 443/tcp
https 443/udp
submissions 465/tcp
syslog 514/udp
submission 587/tcp
ipp 631/tcp
ldaps 636/tcp
ldaps 636/udp
domain-s 853/tcp
domain-s 853/udp
rsync 873/tcp
ftps 990/tcp
imaps 993/tcp
pop3s 995/tcp
socks 1080/tcp
mqtt 1883/tcp
nfs 2049/tcp
nfs 2049/udp
mysql 3306/tcp
ms-wbt-server 3389/tcp
stun 3478/tcp
stun 3478/udp
svn 3690/tcp
sip 5060/tcp
sip 5060/udp
sips 5061/tcp
xmpp-client 5222/tcp
xmpp-server 5269/tcp
mdns 5353/udp
postgresql 5432/tcp
amqps 5671/tcp
amqp 5672/tcp
redis 6379/tcp
ircs-u 6697/tcp
http-alt 8080/tcp
secure-mqtt 8883/tcp
git 9418/tcp
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_services_need_no_file_and_no_case() {
        for (name, port) in [("http", 80), ("HTTPS", 443), ("smtp", 25), ("gopher", 70), ("redis", 6379)] {
            assert_eq!(in_file(COMMON, name, IpProtocol::Tcp), Some(port), "{name}");
        }
        assert_eq!(in_file(COMMON, "domain", IpProtocol::Udp), Some(53));
        assert_eq!(in_file(COMMON, "ntp", IpProtocol::Tcp), None);
        let ports = std::str::from_utf8(COMMON).expect("names").lines().map(|line| {
            let port = line.split(' ').nth(1).and_then(|port| port.split('/').next()?.parse::<u16>().ok());
            port.unwrap_or_else(|| panic!("`{line}`"))
        });
        assert!(ports.is_sorted(), "a table that can be read");
    }

    #[test]
    fn others_are_found_in_the_systems_file_by_name_or_alias() {
        let file =
            "# services(5)\nftp 21/tcp\n  odd\t4711/udp  strange # no other\nodd 4712/TCP\nbroken\nbad x/tcp\n#odd2 1/tcp\n";
        let tcp = |name| in_file(file.as_bytes(), name, IpProtocol::Tcp);
        assert_eq!(in_file(file.as_bytes(), "odd", IpProtocol::Udp), Some(4711));
        assert_eq!(in_file(file.as_bytes(), "STRANGE", IpProtocol::Udp), Some(4711));
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
