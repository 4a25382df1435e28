//! The head of a request: what it means for its framing, and refusals of whatever could mean two things. Pure.

use crate::body::BODY_MAX;

/// How the body of a request is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Length(u64),
    Chunked,
}

impl Default for Body {
    fn default() -> Self {
        Self::Length(0)
    }
}

/// What is kept of a head.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub method: String,
    pub path: String,
    pub keeps: bool,
    pub body: Body,
    pub expects_continue: bool,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    pub if_modified_since: Option<String>,
    pub ws: Option<Ws>,
}

/// A wish to become a WebSocket.
#[derive(Clone, Debug)]
pub struct Ws {
    pub key: String,
    pub version: String,
    /// What extensions it offers.
    pub extensions: String,
    /// It comes from no page, or from one of this very host: others must not speak in the name of whoever looks at them (RFC 6455, 10.2).
    pub is_same_origin: bool,
}

/// `bytes` is a whole head, its CRLF CRLF included. An error is a status.
pub fn parse(bytes: &[u8]) -> Result<Head, u16> {
    // No bare CR or LF: httparse would take a bare LF for a line's end, and somebody before us might not.
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| b"\r\n\0".contains(byte)) {
        rest = rest[at..].strip_prefix(b"\r\n").ok_or(400u16)?;
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(httparse::Error::Version) => return Err(505),
        _ => return Err(400),
    }
    let is_1_1 = request.version == Some(1);
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let mut head = Head { method: own(request.method), path: own(request.path), ..Head::default() };
    let (mut hosts, mut upgrades, mut wants_upgrade, mut closes, mut keeps) = (0, false, false, false, false);
    let (mut body, mut ws_key, mut ws_version, mut extensions) = (None, None, String::new(), Vec::new());
    let (mut host, mut origin) = (String::new(), None);
    for header in request.headers.iter() {
        let text = std::str::from_utf8(header.value).map(str::trim);
        let (value, kept) = (text.map_err(|_| 400u16), text.ok().map(str::to_owned));
        match header.name.to_ascii_lowercase().as_str() {
            "host" => {
                hosts += 1;
                host = kept.unwrap_or_default();
            }
            "origin" if origin.is_some() => return Err(400),
            "origin" => origin = Some(kept.unwrap_or_default()),
            "content-length" | "transfer-encoding" if body.is_some() => return Err(400),
            "content-length" => body = Some(Body::Length(number(value?).filter(|&n| n < 10u64.pow(18)).ok_or(400u16)?)),
            "transfer-encoding" if !is_1_1 => return Err(400),
            "transfer-encoding" if value?.eq_ignore_ascii_case("chunked") => body = Some(Body::Chunked),
            "transfer-encoding" => return Err(501),
            "connection" => {
                let value = value?;
                closes |= has(value, "close");
                keeps |= has(value, "keep-alive");
                wants_upgrade |= has(value, "upgrade");
            }
            "upgrade" => upgrades |= has(value?, "websocket"),
            "expect" if value?.eq_ignore_ascii_case("100-continue") => head.expects_continue = is_1_1,
            "expect" => return Err(417),
            "range" => head.range = kept,
            "if-range" => head.if_range = kept,
            "if-modified-since" => head.if_modified_since = kept,
            "if-none-match" => head.if_none_match = head.if_none_match.into_iter().chain(kept).reduce(|a, b| a + "," + &b),
            "sec-websocket-key" if ws_key.is_some() => return Err(400),
            "sec-websocket-key" => ws_key = kept,
            "sec-websocket-extensions" => extensions.extend(kept),
            "sec-websocket-version" => ws_version = kept.unwrap_or_default(),
            _ => {}
        }
    }
    head.body = body.unwrap_or_default();
    head.keeps = !closes && (is_1_1 || keeps);
    if upgrades && wants_upgrade && is_1_1 && head.method == "GET" && head.body == Body::Length(0) {
        let key = ws_key.unwrap_or_default();
        let is_same_origin = origin.is_none_or(|origin| is_page_of(&origin, &host));
        head.ws = Some(Ws { key, version: ws_version, extensions: extensions.join(","), is_same_origin });
    }
    match head.body {
        _ if hosts > 1 || is_1_1 && hosts == 0 => Err(400),
        Body::Length(n) if n > BODY_MAX => Err(413),
        _ => Ok(head),
    }
}

/// Whether this origin (RFC 6454, 7) is that of the host that was asked.
fn is_page_of(origin: &str, host: &str) -> bool {
    let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    page.is_some_and(|page| page.eq_ignore_ascii_case(host))
}

/// Whether a token is in a list.
fn has(list: &str, token: &str) -> bool {
    list.split(',').any(|other| other.trim().eq_ignore_ascii_case(token))
}

/// Digits only: `parse` takes a sign too.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The file's path below the root, `None` if there can be none.
pub fn below_root(target: &str) -> Option<String> {
    let path = target.split(['?', '#']).next()?;
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?
            }
            b => b,
        });
    }
    let path = String::from_utf8(out).ok()?;
    let path = path.strip_prefix('/')?;
    let is_fine = !path.contains('\0') && path.split('/').all(|part| part != ".." && part != ".") && !path.starts_with('/');
    is_fine.then(|| if path.is_empty() || path.ends_with('/') { format!("{path}index.html") } else { path.to_owned() })
}
