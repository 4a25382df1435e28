//! Why TLS could not be agreed on, or broke: [`TlsError`], in words.

use crate::{reason::Reason, text::OneLine};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as Rustls, PeerIncompatible,
    pki_types::{ServerName, UnixTime},
};
use std::{error::Error, fmt, io, net::IpAddr, time::Duration};

/// Why TLS failed: what [`Reason::Tls`] holds, and [`Reason::Io`] for a connection that broke after its handshake.
/// [`TlsError::of`] finds it. As text it is one line. [The chapter](crate::manual::tls#what-went-wrong) says what each
/// means, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub struct TlsError {
    /// What it failed at.
    pub stage: TlsStage,
    /// What rustls says, if the error comes from there.
    pub error: Option<Rustls>,
    text: String,
}

/// What TLS failed at, for your program to decide by; the text of the [`TlsError`] has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsStage {
    /// Our client does not know which host the server must be, or nobody here has the name that a client asked for.
    Name,
    /// There is no version of TLS in common.
    Version,
    /// There is no cipher suite, key exchange or signature in common.
    Cipher,
    /// There is no application protocol in common.
    Alpn,
    /// The server's certificate was refused, or is missing.
    Certificate,
    /// The client's certificate was refused, or is missing.
    ClientCertificate,
    /// The peer has refused, and said why, in an alert.
    Refused,
    /// The peer does not speak TLS.
    NotTls,
    /// Something came in clear behind the request for TLS: somebody may have put it there.
    ClearBytes,
    /// The handshake took too long.
    TimedOut,
    /// The peer ended, or was cut off, without saying so in TLS; in mid-stream, also a peer that had ended before.
    Cut,
    /// What came is not what it should be.
    Broken,
    /// rustls has panicked, or a closure of yours that chooses a config has.
    Panicked,
}

impl TlsError {
    /// Finds the error that this reason holds, if it is a TLS error.
    pub fn of(reason: &Reason) -> Option<&Self> {
        match reason {
            Reason::Tls(fault) => fault.downcast_ref(),
            Reason::Io(error) => error.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    fn new(stage: TlsStage, text: impl Into<String>) -> Self {
        Self { stage, error: None, text: text.into() }
    }

    pub(crate) fn no_name() -> Self {
        Self::new(TlsStage::Name, "it is not said whose certificate the server has to show: `TlsClient::server_name`")
    }

    pub(crate) fn bad_name(host: &str) -> Self {
        Self::new(TlsStage::Name, format!("no certificate can be for `{host}`"))
    }

    pub(super) fn name_refused(name: Option<&str>) -> Self {
        Self::new(
            TlsStage::Name,
            match name {
                Some(name) => format!("the client asked for `{name}`, a name that nobody here has"),
                None => "the client asked for no name".into(),
            },
        )
    }

    pub(crate) fn clear_bytes() -> Self {
        Self::new(TlsStage::ClearBytes, "bytes came in clear behind the request for TLS")
    }

    pub(crate) fn one_way() -> Self {
        Self::new(TlsStage::Cut, "a stream of which one direction has ended cannot begin with TLS")
    }

    pub(crate) fn timed_out(most: Duration) -> Self {
        let most = if most.subsec_nanos() == 0 { format!("{} s", most.as_secs()) } else { format!("{} ms", most.as_millis()) };
        Self::new(TlsStage::TimedOut, format!("the handshake took longer than {most}"))
    }

    pub(super) fn ended_amid_handshake() -> Self {
        Self::new(TlsStage::Cut, "the peer ended during the handshake")
    }

    pub(crate) fn lost_amid_handshake(error: &io::Error) -> Self {
        Self::new(TlsStage::Cut, format!("the connection was lost during the handshake: {error}"))
    }

    pub(super) fn cut() -> Self {
        Self::new(TlsStage::Cut, "the peer ended without close_notify: what came may be cut short")
    }

    pub(super) fn broken(text: &str) -> Self {
        Self::new(TlsStage::Broken, text)
    }

    pub(super) fn panicked(text: &str) -> Self {
        Self::new(TlsStage::Panicked, format!("panicked: {text}"))
    }

    /// For a peer that has not begun with a TLS record (RFC 8446, 5.1).
    pub(super) fn of_first_bytes(bytes: &[u8]) -> Option<Self> {
        let is_record = matches!(bytes, [20..=24, 3, ..] | [20..=24] | []);
        if is_record {
            return None;
        }
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let begin = String::from_utf8_lossy(&line[..line.len().min(40)]);
        Some(Self::new(TlsStage::NotTls, format!("the peer does not speak TLS: it began with `{}`", begin.trim_end())))
    }

    /// `client`: the config, if this is the client's side.
    pub(super) fn of_rustls(error: Rustls, client: Option<&ClientConfig>) -> Self {
        let (stage, mut text) = explain(&error, client.is_some());
        if let Some(client) = client.filter(|_| stage == TlsStage::Alpn) {
            let offered = client.alpn_protocols.iter().map(|name| format!("`{}`", String::from_utf8_lossy(name)));
            text += ": offered ";
            text += &offered.collect::<Vec<_>>().join(", ");
        }
        Self { stage, error: Some(error), text }
    }

    /// As a socket's error, for a connection that was connected.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self.stage {
            TlsStage::Cut => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }

    /// The other way.
    pub(crate) fn from_io(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::lost_amid_handshake(&error),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", OneLine(&self.text))
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}

fn explain(error: &Rustls, is_client: bool) -> (TlsStage, String) {
    let said = |stage, text: &str| (stage, text.to_owned());
    match error {
        Rustls::InvalidCertificate(error) => {
            let (stage, whose) = match is_client {
                true => (TlsStage::Certificate, "the certificate"),
                false => (TlsStage::ClientCertificate, "the client's certificate"),
            };
            (stage, explain_certificate(error, whose))
        }
        Rustls::NoCertificatesPresented if is_client => said(TlsStage::Certificate, "the server showed no certificate"),
        Rustls::NoCertificatesPresented => said(TlsStage::ClientCertificate, "the client showed no certificate"),
        Rustls::PeerIncompatible(why) => explain_incompatible(why),
        Rustls::NoApplicationProtocol => said(TlsStage::Alpn, "no application protocol in common"),
        Rustls::AlertReceived(AlertDescription::ProtocolVersion) => said(TlsStage::Version, "no TLS version in common"),
        Rustls::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            said(TlsStage::Alpn, "no application protocol in common")
        }
        Rustls::AlertReceived(AlertDescription::CertificateRequired) => {
            said(TlsStage::ClientCertificate, "the peer refused: it wants a certificate from the client")
        }
        Rustls::AlertReceived(alert) => (TlsStage::Refused, format!("the peer refused: {}", alert_in_words(*alert))),
        Rustls::DecryptError => said(TlsStage::Broken, "a record could not be decrypted"),
        Rustls::PeerSentOversizedRecord => said(TlsStage::Broken, "a record is too long"),
        Rustls::PeerMisbehaved(how) => (TlsStage::Broken, format!("the peer broke the protocol: {}", words(how))),
        Rustls::InvalidMessage(how) => (TlsStage::Broken, format!("the peer sent no valid TLS message: {}", words(how))),
        Rustls::InappropriateMessage { .. } | Rustls::InappropriateHandshakeMessage { .. } => {
            said(TlsStage::Broken, "the peer sent a message that does not belong there")
        }
        other => (TlsStage::Broken, other.to_string()),
    }
}

fn explain_incompatible(why: &PeerIncompatible) -> (TlsStage, String) {
    use PeerIncompatible as Why;
    let (stage, text) = match why {
        Why::ServerDoesNotSupportTls12Or13
        | Why::ServerTlsVersionIsDisabledByOurConfig
        | Why::SupportedVersionsExtensionRequired
        | Why::SignatureAlgorithmsExtensionRequired // of TLS 1.1 and before
        | Why::Tls12NotOffered
        | Why::Tls12NotOfferedOrEnabled => (TlsStage::Version, "no TLS version in common"),
        Why::NoCipherSuitesInCommon => (TlsStage::Cipher, "no cipher suite in common"),
        Why::NoKxGroupsInCommon | Why::NamedGroupsExtensionRequired | Why::KeyShareExtensionRequired => {
            (TlsStage::Cipher, "no key exchange in common")
        }
        Why::NoSignatureSchemesInCommon | Why::NoCertificateRequestSignatureSchemesInCommon => (TlsStage::Cipher, "no signature scheme in common"),
        other => return (TlsStage::Cipher, format!("nothing in common: {}", words(other))),
    };
    (stage, text.to_owned())
}

fn explain_certificate(error: &CertificateError, whose: &str) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => format!("{whose} expired {}", date(*not_after)),
        CertificateError::Expired => format!("{whose} has expired"),
        CertificateError::NotValidYetContext { not_before, .. } => format!("{whose} is not valid before {}", date(*not_before)),
        CertificateError::NotValidYet => format!("{whose} is not valid yet"),
        CertificateError::UnknownIssuer => format!("{whose}'s issuer is not known"),
        CertificateError::Revoked => format!("{whose} was revoked"),
        CertificateError::BadSignature => format!("{whose} is not signed by its supposed issuer"),
        CertificateError::BadEncoding => format!("{whose} cannot be read"),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let wanted = name(expected);
            match presented.as_slice() {
                [] => format!("{whose} is for no name, and not for `{wanted}`"),
                all => {
                    let all: Vec<String> = all.iter().take(4).map(|name| format!("`{}`", bare(name))).collect();
                    format!("{whose} is for {}, not for `{wanted}`", all.join(", "))
                }
            }
        }
        CertificateError::NotValidForName => format!("{whose} is for another name"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            format!("{whose} is not made for this purpose")
        }
        CertificateError::Other(error) => format!("{whose} is not good: {error}"),
        other => format!("{whose} is not good: {}", words(other)), // of some, rustls shows the name in the source
    }
}

fn name(name: &ServerName<'_>) -> String {
    name.to_str().into_owned()
}

/// What webpki has put around a name that a certificate is for: `DnsName("a.example")`.
fn bare(presented: &str) -> String {
    let inside = presented.split_once('(').map_or(presented, |(_, inside)| inside);
    let name = inside.trim_end_matches(')').trim_matches('"');
    name.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |ip| ip.to_string())
}

fn alert_in_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "unknown certificate authority".into(),
        AlertDescription::HandshakeFailure => "nothing in common (handshake failure)".into(),
        AlertDescription::UnrecognisedName => "nobody there has that name".into(),
        AlertDescription::Unknown(number) => format!("alert {number}"),
        other => words(&other),
    }
}

/// The name of a variant, without what is in it: `BadRecordMac` is "bad record mac".
fn words(variant: &impl fmt::Debug) -> String {
    let mut words = String::new();
    let mut was_small = false;
    for c in format!("{variant:?}").chars().take_while(|c| c.is_ascii_alphanumeric()) {
        if c.is_ascii_uppercase() && was_small {
            words.push(' ');
        }
        was_small = !c.is_ascii_uppercase();
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// The day, in UTC: "civil from days", by the 400 years in which the calendar repeats.
fn date(time: UnixTime) -> String {
    let days = (time.as_secs() / 86_400) as i64 + 719_468; // since the 1st of March of the year 0
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // counted from March
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{:04}-{month:02}-{day:02}", 400 * era + year + i64::from(month <= 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let of = |secs| date(UnixTime::since_unix_epoch(Duration::from_secs(secs)));
        assert_eq!(of(0), "1970-01-01");
        assert_eq!(of(951_782_400), "2000-02-29");
        assert_eq!(of(951_868_799), "2000-02-29");
        assert_eq!(of(951_868_800), "2000-03-01");
        assert_eq!(of(4_102_444_799), "2099-12-31");
        assert_eq!(of(4_107_542_400), "2100-03-01");
    }

    #[test]
    fn no_text_has_a_name_of_the_source_in_it() {
        assert_eq!(words(&AlertDescription::BadRecordMac), "bad record mac");
        let text = explain_certificate(&CertificateError::UnhandledCriticalExtension, "the certificate");
        assert_eq!(text, "the certificate is not good: unhandled critical extension");
        assert_eq!(bare("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare("a.example"), "a.example");
    }

    #[test]
    fn who_does_not_speak_tls_is_known_by_the_first_bytes() {
        let text = |bytes: &[u8]| TlsError::of_first_bytes(bytes).map(|error| error.to_string());
        assert_eq!(text(b""), None);
        assert_eq!(text(&[22]), None);
        assert_eq!(text(&[22, 3, 1, 0]), None);
        assert_eq!(text(b"GET / HTTP/1.1\r\n").as_deref(), Some("the peer does not speak TLS: it began with `GET / HTTP/1.1`"));
        assert_eq!(text(b"\x1b[2J").as_deref(), Some(r"the peer does not speak TLS: it began with `\u{1b}[2J`"));
    }
}
