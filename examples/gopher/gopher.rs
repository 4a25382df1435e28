//! What both ends of Gopher need (RFC 1436): kinds of items, lines of a menu, requests, and the form of texts. Pure: no
//! socket, no file.

use std::{fmt, net::IpAddr, path::Path, str};

/// A selector has 255 bytes at most.
pub(crate) const SELECTOR_MAX: usize = 255;

/// The last line of a menu and of a text.
pub(crate) const LAST_LINE: &str = ".\r\n";

// ----------------------------------------------------------------------------------------------------------- kinds

/// The kind of an item: the first character of its line. `h` and `i` are not in the RFC, but understood everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Menu,
    Error,
    Search,
    Binary,
    Gif,
    Image,
    Html,
    /// A line that is just for reading.
    Info,
    Other(u8),
}

impl Kind {
    pub(crate) fn of(code: u8) -> Self {
        match code {
            b'0' => Self::Text,
            b'1' => Self::Menu,
            b'3' => Self::Error,
            b'7' => Self::Search,
            b'9' => Self::Binary,
            b'g' => Self::Gif,
            b'I' => Self::Image,
            b'h' => Self::Html,
            b'i' => Self::Info,
            other => Self::Other(other),
        }
    }

    pub(crate) fn code(self) -> char {
        match self {
            Self::Text => '0',
            Self::Menu => '1',
            Self::Error => '3',
            Self::Search => '7',
            Self::Binary => '9',
            Self::Gif => 'g',
            Self::Image => 'I',
            Self::Html => 'h',
            Self::Info => 'i',
            Self::Other(code) => code.into(),
        }
    }

    /// The kind of a file, if its name tells.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Some(match Path::new(name).extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" | "text" | "md" | "rst" | "csv" | "log" | "c" | "h" | "py" | "rs" | "sh" | "toml" | "json" | "xml" => {
                Self::Text
            }
            "gif" => Self::Gif,
            "jpg" | "jpeg" | "png" | "webp" | "bmp" | "tif" | "tiff" => Self::Image,
            "html" | "htm" => Self::Html,
            "zip" | "gz" | "xz" | "bz2" | "zst" | "tar" | "tgz" | "7z" | "bin" | "exe" | "pdf" | "mp3" | "ogg" | "flac"
            | "wav" | "mp4" | "webm" | "iso" | "so" | "o" => Self::Binary,
            _ => return None,
        })
    }

    /// The kind of a file by its first bytes: text is UTF-8 without zero bytes. The last character may be cut off.
    pub(crate) fn of_bytes(head: &[u8]) -> Self {
        let is_text = match str::from_utf8(head) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none(),
        };
        if is_text && !head.contains(&0) { Self::Text } else { Self::Binary }
    }

    /// Whether it is sent in lines, with a special last one; everything else is sent as it is, up to the end of the connection.
    pub(crate) fn is_in_lines(self) -> bool {
        matches!(self, Self::Text | Self::Menu | Self::Search | Self::Error)
    }
}

// ------------------------------------------------------------------------------------------------------------ menus

/// A line of a menu: what it is, how it is shown, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    pub(crate) shown: String,
    pub(crate) selector: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Item {
    /// A line that leads nowhere: an error or a piece of information.
    pub(crate) fn note(kind: Kind, text: impl fmt::Display) -> Self {
        Self { kind, shown: text.to_string(), selector: String::new(), host: "-".into(), port: 0 }
    }

    /// Reads a line, without its end. Some servers leave fields out of pieces of information, and some add fields.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let kind = Kind::of(*line.as_bytes().first().filter(|code| code.is_ascii_graphic())?);
        let mut fields = line[1..].split('\t').map(str::to_owned);
        let (shown, selector, host, port) = (fields.next()?, fields.next(), fields.next(), fields.next());
        let port = port.and_then(|port| port.trim().parse().ok());
        match (selector, host, port) {
            (Some(selector), Some(host), Some(port)) => Some(Self { kind, shown, selector, host, port }),
            _ if kind == Kind::Info => Some(Self::note(kind, shown)),
            _ => None,
        }
    }
}

/// The line as it is sent. A field cannot contain what ends it, so that becomes a space.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [shown, selector, host] = [&self.shown, &self.selector, &self.host].map(|field| field.replace(char::is_control, " "));
        write!(f, "{}{shown}\t{selector}\t{host}\t{}\r\n", self.kind.code(), self.port)
    }
}

/// The answer of a server that cannot give what it was asked for: one error item and nothing else.
pub(crate) fn refusal(answer: &[u8]) -> Option<String> {
    let mut lines = str::from_utf8(answer).ok()?.lines();
    let item = Item::parse(lines.next()?).filter(|item| item.kind == Kind::Error)?;
    let is_alone = matches!((lines.next(), lines.next()), (None | Some("."), None));
    is_alone.then_some(item.shown)
}

/// Whether a client could connect to this: an IP address, or a valid name of a host.
pub(crate) fn is_host(text: &str) -> bool {
    let is_label =
        |label: &str| (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    let name = text.strip_suffix('.').unwrap_or(text);
    text.parse::<IpAddr>().is_ok() || name.len() <= 253 && name.split('.').all(is_label)
}

// --------------------------------------------------------------------------------------------------------- requests

/// The request of a client: a selector and, after a tab, the words to search for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) selector: String,
    pub(crate) words: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRequest {
    TooLong,
    NotText,
    ZeroByte,
}

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the selector is longer than {SELECTOR_MAX} bytes"),
            Self::NotText => f.write_str("the selector is not UTF-8"),
            Self::ZeroByte => f.write_str("the selector contains a zero byte"),
        }
    }
}

impl Request {
    /// Reads a request line, without its end.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, BadRequest> {
        let mut fields = line.split(|&byte| byte == b'\t');
        let selector = fields.next().unwrap_or_default();
        if selector.len() > SELECTOR_MAX {
            return Err(BadRequest::TooLong);
        }
        if line.contains(&0) {
            return Err(BadRequest::ZeroByte);
        }
        let text = |bytes| str::from_utf8(bytes).map(str::to_owned).map_err(|_| BadRequest::NotText);
        Ok(Self { selector: text(selector)?, words: fields.next().map(text).transpose()? })
    }
}

// ------------------------------------------------------------------------------------------------------------- text

/// Text on its way out: lines end with CR LF, a line that begins with a dot gets another one, and a dot is the last line.
#[derive(Debug)]
pub(crate) struct Stuffer {
    last: u8,
}

impl Stuffer {
    pub(crate) fn new() -> Self {
        Self { last: b'\n' }
    }

    /// The next piece, however the text is cut.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for &byte in text {
            match (self.last, byte) {
                (b'\r', b'\n') => {}
                (_, b'\n') => out.push(b'\r'),
                (b'\n', b'.') => out.push(b'.'),
                _ => {}
            }
            out.push(byte);
            self.last = byte;
        }
    }

    pub(crate) fn finish(mut self, out: &mut Vec<u8>) {
        if self.last != b'\n' {
            self.push(b"\n", out);
        }
        out.extend_from_slice(LAST_LINE.as_bytes());
    }
}

/// Text on its way in: CR LF becomes LF, a doubled dot a single one, and after the last line nothing more is taken.
///
/// Servers that do not double dots are forgiven: a single one stays, unless it is alone in its line.
#[derive(Debug, Default)]
pub(crate) struct Unstuffer {
    at: Place,
    is_empty: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// After the end of a line, or at the beginning.
    #[default]
    Start,
    /// After a dot at the beginning of a line, which is not passed on yet.
    Dot,
    /// The same, and a CR.
    DotCr,
    Line,
    /// After a CR that is not passed on yet.
    Cr,
    /// After the last line.
    Done,
}

/// How a text ended, when no more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the last line.
    Complete,
    /// At the end of a line, as with servers that do not quite speak Gopher (RFC 1436, 3.9, tells clients to expect it).
    WithoutLastLine,
    /// Inside a line, or before anything came.
    Early,
}

impl Unstuffer {
    pub(crate) fn new() -> Self {
        Self { at: Place::Start, is_empty: true }
    }

    /// The next piece, however the text is cut.
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for &byte in text {
            self.is_empty = false;
            self.at = self.step(byte, out);
        }
    }

    fn step(&self, byte: u8, out: &mut Vec<u8>) -> Place {
        match (self.at, byte) {
            (Place::Done, _) | (Place::Dot | Place::DotCr, b'\n') => return Place::Done,
            (Place::Start, b'.') => return Place::Dot,
            (Place::Dot, b'\r') => return Place::DotCr,
            (Place::Dot, b'.') => {}
            (Place::Dot, _) => out.push(b'.'),
            (Place::DotCr, _) => out.extend_from_slice(b".\r"),
            (Place::Cr, b'\n') => {}
            (Place::Cr, _) => out.push(b'\r'),
            (Place::Start | Place::Line, _) => {}
        }
        match byte {
            b'\r' => Place::Cr,
            b'\n' => {
                out.push(b'\n');
                Place::Start
            }
            _ => {
                out.push(byte);
                Place::Line
            }
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.at == Place::Done
    }

    pub(crate) fn ending(&self) -> Ending {
        match self.at {
            Place::Done => Ending::Complete,
            Place::Dot | Place::DotCr => Ending::Complete, // only its line's end is missing
            Place::Start if !self.is_empty => Ending::WithoutLastLine,
            _ => Ending::Early,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stuffed(pieces: &[&[u8]]) -> String {
        let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        stuffer.finish(&mut out);
        String::from_utf8(out).expect("text")
    }

    fn unstuffed(pieces: &[&[u8]]) -> (String, Ending) {
        let (mut unstuffer, mut out) = (Unstuffer::new(), Vec::new());
        for piece in pieces {
            unstuffer.push(piece, &mut out);
        }
        (String::from_utf8(out).expect("text"), unstuffer.ending())
    }

    #[test]
    fn a_text_is_sent_in_crlf_with_doubled_dots_and_a_last_line() {
        let cases = [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\n", "a\r\n.\r\n"),
            ("a\r\nb\n", "a\r\nb\r\n.\r\n"),
            (".\n", "..\r\n.\r\n"),
            (".a\n..b\nc.\n", "..a\r\n...b\r\nc.\r\n.\r\n"),
            ("\n\n.", "\r\n\r\n..\r\n.\r\n"),
            ("a\rb", "a\rb\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
        ];
        for (text, sent) in cases {
            assert_eq!(stuffed(&[text.as_bytes()]), sent, "{text:?}");
        }
    }

    #[test]
    fn a_text_is_received_in_lf_with_single_dots_up_to_its_last_line() {
        let cases = [
            (".\r\n", "", Ending::Complete),
            ("a\r\n..b\r\n.\r\nnot taken\r\n", "a\n.b\n", Ending::Complete),
            ("a\n.\n", "a\n", Ending::Complete),
            ("a\r\n.", "a\n", Ending::Complete),
            ("...\r\n.\r\n", "..\n", Ending::Complete),
            (".not doubled\r\n.\r\n", ".not doubled\n", Ending::Complete),
            (".\rx\r\n.\r\n", ".\rx\n", Ending::Complete),
            ("..\r\n.\r\n", ".\n", Ending::Complete),
            ("a\rb\r\r\n", "a\rb\r\n", Ending::WithoutLastLine),
            ("a\r\n", "a\n", Ending::WithoutLastLine),
            ("a\r\nb", "a\nb", Ending::Early),
            ("", "", Ending::Early),
        ];
        for (sent, text, ending) in cases {
            assert_eq!(unstuffed(&[sent.as_bytes()]), (text.into(), ending), "{sent:?}");
        }
    }

    #[test]
    fn any_cutting_of_a_text_gives_the_same() {
        let text = b".\n..\na\r\n.b\n\n.";
        let sent = stuffed(&[text]);
        let received = unstuffed(&[sent.as_bytes()]);
        assert_eq!(received, (".\n..\na\n.b\n\n.\n".into(), Ending::Complete));
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(stuffed(&[a, b]), sent, "cut after {cut}");
        }
        for cut in 0..=sent.len() {
            let (a, b) = sent.as_bytes().split_at(cut);
            assert_eq!(unstuffed(&[a, b]), received, "cut after {cut}");
        }
    }

    #[test]
    fn a_line_of_a_menu_is_read_as_it_was_written() {
        for code in 0..=u8::MAX {
            assert_eq!(Kind::of(code).code(), char::from(code));
        }
        let line = "0About us\t/about.txt\texample.org\t70";
        let item = Item::parse(line).expect("a line");
        let about = ("About us".into(), "/about.txt".into(), "example.org".into());
        assert_eq!((item.kind, item.port), (Kind::Text, 70));
        assert_eq!((item.shown.clone(), item.selector.clone(), item.host.clone()), about);
        assert_eq!(item.to_string(), format!("{line}\r\n"));
    }

    #[test]
    fn fields_that_are_too_many_are_ignored_and_those_that_miss_only_forgiven_to_information() {
        assert_eq!(Item::parse("1A\t/a\thost\t70\t+").expect("Gopher+ adds a field").port, 70);
        assert_eq!(Item::parse("ihello").expect("sloppy, and everywhere").shown, "hello");
        for line in
            ["", "0", "0a\t/a", "0a\t/a\thost", "0a\t/a\thost\tport", "0a\t/a\thost\t70000", "\ta\t/a\thost\t70", "é\t\t\t1"]
        {
            assert_eq!(Item::parse(line), None, "{line}");
        }
    }

    #[test]
    fn nothing_in_a_field_ends_it() {
        let item = Item { kind: Kind::Menu, shown: "a\tb\r\nc\0\x1b".into(), ..Item::note(Kind::Menu, "") };
        assert_eq!(item.to_string(), "1a b  c  \t\t-\t0\r\n");
    }

    #[test]
    fn one_error_item_and_nothing_else_is_a_refusal() {
        for answer in ["3no\t\t-\t0\r\n.\r\n", "3no\t\t-\t0\r\n", "3no\t\t-\t0"] {
            assert_eq!(refusal(answer.as_bytes()).as_deref(), Some("no"), "{answer:?}");
        }
        for answer in
            ["", ".\r\n", "3\r\n.\r\n", "3 wishes\r\n.\r\n", "0no\t\t-\t0\r\n.\r\n", "3no\t\t-\t0\r\n1a\t\t-\t0\r\n.\r\n"]
        {
            assert_eq!(refusal(answer.as_bytes()), None, "{answer:?}");
        }
    }

    #[test]
    fn a_request_is_a_selector_and_perhaps_words() {
        let request = |selector: &str, words: Option<&str>| Request { selector: selector.into(), words: words.map(Into::into) };
        assert_eq!(Request::parse(b""), Ok(request("", None)));
        assert_eq!(Request::parse(b"/a b"), Ok(request("/a b", None)));
        assert_eq!(Request::parse(b"search\ttwo words\t+"), Ok(request("search", Some("two words"))));
        assert_eq!(Request::parse(&[b'x'; 255]).map(|request| request.selector.len()), Ok(255));
        assert_eq!(Request::parse(&[b'x'; 256]), Err(BadRequest::TooLong));
        assert_eq!(Request::parse(b"/a\0b"), Err(BadRequest::ZeroByte));
        assert_eq!(Request::parse(b"/\xff"), Err(BadRequest::NotText));
    }

    #[test]
    fn a_kind_is_told_by_the_name_or_else_by_the_bytes() {
        for (name, kind) in [
            ("a.txt", Some(Kind::Text)),
            ("A.TXT", Some(Kind::Text)),
            ("a.gif", Some(Kind::Gif)),
            ("a.png", Some(Kind::Image)),
            ("a.html", Some(Kind::Html)),
            ("a.tar.gz", Some(Kind::Binary)),
            ("README", None),
            (".txt", None),
        ] {
            assert_eq!(Kind::of_name(name), kind, "{name}");
        }
        assert_eq!(Kind::of_bytes(b""), Kind::Text);
        assert_eq!(Kind::of_bytes("größer".as_bytes()), Kind::Text);
        assert_eq!(Kind::of_bytes(&"größer".as_bytes()[..3]), Kind::Text, "cut inside a character");
        assert_eq!(Kind::of_bytes(b"a\xffb"), Kind::Binary);
        assert_eq!(Kind::of_bytes(b"a\0b"), Kind::Binary);
    }
}
