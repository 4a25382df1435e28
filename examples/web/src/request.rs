//! A request: its head and its framing. Whatever could mean two things is refused (RFC 9112). Pure.

use percent_encoding::percent_decode_str;
use std::{ops::Range, str};

/// A head with more headers is refused.
const HEADERS_MAX: usize = 64;

/// The headers on which a request's end, and the next one's beginning, depend.
const FRAMING: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "expect"];

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Length(u64),
    Chunked,
}

/// A request's head. The body, if an [`Answer`](crate::Answer) wants it, comes afterwards.
#[derive(Debug)]
pub struct Request {
    /// As it came, but with the names of headers in lower case.
    head: String,
    method: Span,
    target: Span,
    headers: Vec<(Span, Span)>,
    pub(crate) is_1_1: bool,
    pub(crate) keeps: bool,
    pub(crate) body: Body,
    pub(crate) expects_continue: bool,
    /// Whether it asks to become a WebSocket.
    pub(crate) upgrades: bool,
}

/// The place of something in a head.
type Span = (u32, u32);

fn span(of: &[u8], part: &[u8]) -> Span {
    let from = part.as_ptr() as usize - of.as_ptr() as usize;
    (from as u32, (from + part.len()) as u32) // a head is a few kilobytes
}

fn range((from, to): Span) -> Range<usize> {
    from as usize..to as usize
}

impl Request {
    /// `GET`, as it came: methods are case-sensitive (RFC 9110, 9.1).
    pub fn method(&self) -> &str {
        &self.head[range(self.method)]
    }

    /// As it came: a path with its query, a whole URI, or `*`.
    pub fn target(&self) -> &str {
        &self.head[range(self.target)]
    }

    /// The target's path as it came, in percent-encoding; also if the target is a whole URI (RFC 9112, 3.2.2).
    pub fn path(&self) -> &str {
        let path = self.target().split(['?', '#']).next().unwrap_or_default();
        if path.starts_with('/') {
            return path;
        }
        let authority = path.split_once("://").map(|(_, rest)| rest);
        authority.map_or(path, |rest| rest.find('/').map_or("/", |at| &rest[at..]))
    }

    /// The host in a target that is a whole URI.
    fn authority(&self) -> Option<&str> {
        let target = self.target().split(['?', '#']).next().filter(|target| !target.starts_with('/'))?;
        target.split_once("://")?.1.split('/').next()
    }

    /// The part after the target's question mark, as it came.
    pub fn query(&self) -> Option<&str> {
        Some(self.target().split('#').next()?.split_once('?')?.1)
    }

    /// A value of the query, decoded; the first one if there are several.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.into_iter().find(|(other, _)| *other == name)?;
        String::from_utf8(decoded(&value.replace('+', " "))?).ok()
    }

    /// The value of the first header of this name, in lower case; `None` also if it is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    /// The values of all headers of this name.
    pub(crate) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let of_name = self.headers.iter().filter(move |(other, _)| &self.head[range(*other)] == name);
        of_name.map(|(_, value)| trimmed(&self.head[range(*value)]))
    }

    /// `1.0` or `1.1`.
    pub fn version(&self) -> &'static str {
        if self.is_1_1 { "1.1" } else { "1.0" }
    }

    /// The host that it asks for, with the port if one was given; in a whole URI, the one there (RFC 9112, 3.2.2). Empty if a
    /// request of HTTP/1.0 does not say.
    pub fn host(&self) -> &str {
        self.authority().or_else(|| self.header("host")).unwrap_or_default()
    }

    /// Whether it does not come from a page, or comes from a page of this very host (RFC 6454, 7): other pages must not speak in
    /// the name of the people who look at them.
    pub fn is_same_origin(&self) -> bool {
        let Some(origin) = self.header("origin") else { return true };
        let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        page.is_some_and(|page| page.eq_ignore_ascii_case(self.host()))
    }

    /// Whether the client has this version already, by its tag (If-None-Match; RFC 9110, 13.1.2).
    pub fn has_version(&self, etag: &str) -> bool {
        self.values("if-none-match").any(|tags| is_among(etag, tags))
    }

    /// Whether there is a body to read.
    pub(crate) fn has_body(&self) -> bool {
        self.body != Body::Length(0)
    }

    /// Its path below a folder, decoded, without the slash in front; with one at its end if the path has one. `None` if it
    /// cannot be a path below a folder: it has `..`, `.`, nothing between two slashes, NUL, or a slash in a name.
    pub fn path_below(&self) -> Option<Vec<u8>> {
        let path = self.path().strip_prefix('/')?;
        let below = decoded(path)?;
        let mut parts = below.split(|&byte| byte == b'/').rev();
        let is_fine = |part: &[u8]| !part.is_empty() && part != b"." && part != b"..";
        let is_last_fine = parts.next().is_some_and(|part| part.is_empty() || is_fine(part));
        let slashes = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'/').count();
        let is_below = is_last_fine && parts.all(is_fine) && !below.contains(&0) && slashes(&below) == slashes(path.as_bytes());
        is_below.then_some(below)
    }

    /// Parses `bytes`, a whole head with its CRLF CRLF. An error is a status.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, u16> {
        // No bare CR or LF: httparse would take a bare LF for a line's end, but a proxy in front of us might not.
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            rest = rest[at..].strip_prefix(b"\r\n").ok_or(400u16)?;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(bytes) {
            Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(431),
            Err(httparse::Error::Version) if bytes.windows(8).any(|eight| eight.starts_with(b"HTTP/") && eight[6] == b'.') => {
                return Err(505);
            }
            _ => return Err(400),
        }
        let part = |text: Option<&str>| span(bytes, text.unwrap_or_default().as_bytes());
        let spans = parsed.headers.iter().map(|header| (span(bytes, header.name.as_bytes()), span(bytes, header.value)));
        let mut request = Self {
            head: String::new(),
            method: part(parsed.method),
            target: part(parsed.path),
            headers: spans.collect(),
            is_1_1: parsed.version == Some(1),
            keeps: false,
            body: Body::Length(0),
            expects_continue: false,
            upgrades: false,
        };
        request.head = in_lower_case(bytes, &mut request.headers)?;
        request.understand()?;
        Ok(request)
    }

    /// Reads from the headers how the request is framed.
    fn understand(&mut self) -> Result<(), u16> {
        let (mut hosts, mut body) = (0, None);
        let (mut wants_upgrade, mut is_web_socket, mut closes, mut keeps) = (false, false, false, false);
        for &(name, value) in &self.headers {
            let value = trimmed(&self.head[range(value)]);
            match &self.head[range(name)] {
                "host" if is_host(value) => hosts += 1,
                "host" => return Err(400),
                "content-length" | "transfer-encoding" if body.is_some() => return Err(400),
                "content-length" => body = Some(Body::Length(number(value).filter(|&n| n < 10u64.pow(18)).ok_or(400u16)?)),
                "transfer-encoding" if !self.is_1_1 => return Err(400),
                "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => body = Some(Body::Chunked),
                "transfer-encoding" => return Err(501),
                "connection" => {
                    closes |= has(value, "close");
                    keeps |= has(value, "keep-alive");
                    wants_upgrade |= has(value, "upgrade");
                }
                "upgrade" => is_web_socket |= has(value, "websocket"),
                "expect" if value.eq_ignore_ascii_case("100-continue") => self.expects_continue = self.is_1_1,
                "expect" => return Err(417),
                _ => {}
            }
        }
        self.body = body.unwrap_or(Body::Length(0));
        self.keeps = !closes && (self.is_1_1 || keeps);
        self.upgrades = is_web_socket && wants_upgrade && self.is_1_1 && self.method() == "GET" && !self.has_body();
        let once = ["origin", "sec-websocket-key", "sec-websocket-version"];
        let is_twice = once.iter().any(|name| self.values(name).count() > 1);
        let is_absolute = self.authority().is_some_and(|authority| !authority.is_empty() && is_host(authority));
        let is_target = matches!(self.target().as_bytes(), [b'/', ..] | b"*") || is_absolute;
        if hosts > 1 || self.is_1_1 && hosts == 0 || is_twice || !is_target { Err(400) } else { Ok(()) }
    }
}

/// A head as text, with the names of its headers in lower case. A header whose value is not UTF-8 is dropped; it must not be one
/// of those that say how to read on.
fn in_lower_case(bytes: &[u8], headers: &mut Vec<(Span, Span)>) -> Result<String, u16> {
    let mut head = bytes.to_vec();
    let mut is_misread = false;
    headers.retain(|&(name, value)| {
        head[range(name)].make_ascii_lowercase();
        let is_text = str::from_utf8(&head[range(value)]).is_ok();
        if !is_text {
            is_misread |= FRAMING.iter().any(|framing| framing.as_bytes() == &head[range(name)]);
            head[range(value)].fill(b' ');
        }
        is_text
    });
    let head = String::from_utf8(head).map_err(|_| 400u16)?;
    if is_misread { Err(400) } else { Ok(head) }
}

/// Whether a Host is valid (RFC 3986, 3.2.2 and 3.2.3): no blanks, no path, no user. Empty is fine too (RFC 9112, 3.2).
fn is_host(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte))
}

/// Without the blanks around it (RFC 9110, 5.6.3): only spaces and tabs, anything else is part of it.
fn trimmed(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Whether a tag is in a list of tags, by weak comparison (RFC 9110, 8.8.3.2).
pub(crate) fn is_among(etag: &str, tags: &str) -> bool {
    tags.split(',').map(trimmed).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// Whether a token is in a list.
fn has(list: &str, token: &str) -> bool {
    list.split(',').any(|other| trimmed(other).eq_ignore_ascii_case(token))
}

/// Digits only: `parse` takes a sign too.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Decodes percent-encoding. A `%` that does not begin a code is refused: others may read it differently.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let is_code = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    text.split('%').skip(1).all(is_code).then(|| percent_decode_str(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(first: &str, headers: &str) -> Result<Request, u16> {
        Request::parse(format!("{first}\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn a_target_has_a_path_and_a_query_whatever_its_form() {
        for (target, path, query) in [
            ("/a/b?c=d", "/a/b", Some("c=d")),
            ("/a?b?c#d", "/a", Some("b?c")),
            ("http://host:80/a?b", "/a", Some("b")),
            ("http://host?b", "/", Some("b")),
            ("*", "*", None),
            ("/x://y", "/x://y", None),
        ] {
            let request = parsed(&format!("GET {target} HTTP/1.1"), "Host: a\r\n").unwrap();
            assert_eq!((request.path(), request.query()), (path, query), "{target}");
        }
        let request = parsed("GET /?a=b+c%26&name=%C3%A9&x HTTP/1.1", "Host: a\r\n").unwrap();
        let parameters = ["a", "name", "x", "y"].map(|name| request.parameter(name));
        assert_eq!(parameters, [Some("b c&".into()), Some("é".into()), Some(String::new()), None]);
    }

    #[test]
    fn a_path_stays_below_the_folder() {
        let below = |path: &str| parsed(&format!("GET {path} HTTP/1.1"), "Host: a\r\n").unwrap().path_below();
        for (path, expected) in [
            ("/", Some("")),
            ("/a/b", Some("a/b")),
            ("/a/", Some("a/")),
            ("/%61%2e", Some("a.")),
            ("/...", Some("...")),
            ("/..", None),
            ("/a/../b", None),
            ("/%2e%2E/b", None),
            ("/./b", None),
            ("//b", None),
            ("/a//b", None),
            ("/a//", None),
            ("/a%2fb", None),
            ("/a%00", None),
            ("/a%", None),
            ("/a%+1", None),
            ("*", None),
        ] {
            assert_eq!(below(path), expected.map(|path| path.as_bytes().to_vec()), "{path}");
        }
    }

    #[test]
    fn a_header_is_found_by_its_name_in_lower_case_if_it_can_be_read() {
        let head = b"GET / HTTP/1.1\r\nHOST: a\r\nX-A: 1\r\nx-a: 2\r\nX-B: \xff\xfe\xfd\xfc\r\nX-C: \xc3\xa9\r\n\r\n";
        let request = Request::parse(head).unwrap();
        let found = ["host", "x-a", "x-b", "x-c", "x-d"].map(|name| request.header(name));
        assert_eq!(found, [Some("a"), Some("1"), None, Some("é"), None]);
    }
}
