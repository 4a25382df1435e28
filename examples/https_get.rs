//! Fetches a page by HTTPS (RFC 9112): a client that speaks TLS, has a terminator for each part of the answer, and tells
//! apart at which stage something failed.

mod common;
#[path = "common/printable.rs"]
mod printable;
#[path = "common/roots.rs"]
mod roots;
#[path = "common/tls.rs"]
mod tls;

use common::{Failure, arguments, callee, is_misused, misused, own_up, path, status, stop_on_interrupt, unwritten};
use mainspring::{
    Config, Connect, Context, Limit, Outcome, Protocol, Reactor, Reason, Target, Terminator, TlsError, TlsStage,
    rustls::RootCertStore,
};
use printable::printable;
use roots::roots_of_system;
use std::{
    fmt,
    io::{self, Write},
    mem,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

const HELP: &str = "\
Fetches a URL by HTTP/1.1 over TLS, and writes the body to standard output.

usage: https_get URL [--ca FILE] [--timeout SECS]

URL is https://HOST[:PORT][/PATH][?QUERY]. Redirections are reported, but not
followed.

  --ca FILE       the issuers of certificates to trust, in PEM; if not given,
                  those of the system (or SSL_CERT_FILE and SSL_CERT_DIR)
  --timeout SECS  how long to wait for a connection and TLS, for the head of the
                  answer, and for the next bytes; 30 if not given

exit codes:
    0  fetched completely
    1  the output could not be written
    2  a wrong command line, or no trusted issuers were found
    3  no such host, or its name could not be looked up
    4  the host cannot be reached, or refused the connection
    5  a time-out, while connecting or while waiting for bytes
    6  TLS could not be agreed on: its certificate, versions, protocols
    7  the answer is cut off, or is not HTTP
    8  the server answered with a status other than 2xx; the body is written
  130  interrupted";

/// Limits of a head, and of the lines between chunks.
const HEAD_MAX: usize = 64 << 10;
const LINE_MAX: usize = 4096;
const FIELDS_MAX: usize = 100;
const TRAILERS_MAX: usize = 100;
/// Interim answers before the final one (100, 103).
const INTERIM_MAX: u32 = 10;

// ---------------------------------------------------------------------------------------------------- how it can fail

/// The exit status, and the message.
#[derive(Debug)]
struct Failed(u8, String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Failed {}

/// The answer is not HTTP.
fn no_http(why: &str) -> Failed {
    Failed(7, format!("what the server sent is not HTTP: {why}"))
}

fn own_up_to(why: Failure) -> u8 {
    match why.downcast::<Failed>() {
        Ok(failed) => {
            own_up(&failed.1.into());
            failed.0
        }
        Err(other) => own_up(&other),
    }
}

// --------------------------------------------------------------------------------------------------------- the answer

/// What comes next.
#[derive(Clone, Copy)]
enum Part {
    Head,
    /// A body, with the number of bytes that are still to come.
    Counted(u64),
    /// A body that ends with the connection: without close_notify we cannot know whether that was all.
    UntilTheEnd,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer(usize),
    Nothing,
}

impl Part {
    fn terminator(self) -> Terminator {
        match self {
            Self::Head => Terminator::through(&b"\r\n\r\n"[..], HEAD_MAX),
            Self::Counted(left) | Self::Chunk(left) => Terminator::Stream(left), // as it comes: it may be cut
            Self::UntilTheEnd | Self::Nothing => Terminator::None,
            Self::ChunkSize | Self::ChunkEnd | Self::Trailer(_) => Terminator::crlf(LINE_MAX),
        }
    }

    /// The body that a head announces (RFC 9112, 6.3).
    fn of_body(status: u16, fields: &[httparse::Header<'_>]) -> Result<Self, Failed> {
        if matches!(status, 204 | 304) {
            return Ok(Self::Nothing);
        }
        let mut codings = named(fields, "transfer-encoding");
        if let Some(coding) = codings.next() {
            let is_chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            return if is_chunked { Ok(Self::ChunkSize) } else { Err(no_http("its transfer coding was not asked for")) };
        }
        let mut lengths = named(fields, "content-length").flat_map(|value| value.split(|byte| *byte == b',')).map(number);
        match lengths.next() {
            None => Ok(Self::UntilTheEnd),
            Some(Some(length)) if lengths.all(|other| other == Some(length)) => Ok(Self::counted(length)),
            Some(_) => Err(no_http("its length is not a number, or there are two")),
        }
    }

    fn counted(left: u64) -> Self {
        if left == 0 { Self::Nothing } else { Self::Counted(left) }
    }
}

/// The values of all fields of this name.
fn named<'a>(fields: &'a [httparse::Header<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

struct Answer {
    part: Part,
    status: Option<Status>,
    interims: u32,
}

/// The first line, to be reported unless it is a success.
struct Status {
    code: u16,
    text: String,
    moved_to: Option<String>,
}

impl Answer {
    fn new() -> Self {
        Self { part: Part::Head, status: None, interims: 0 }
    }

    /// Takes a whole head; returns what comes next.
    fn head(&mut self, head: &[u8]) -> Result<Part, Failed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut answer = httparse::Response::new(&mut fields);
        let parsed = answer.parse(head).map_err(|error| no_http(&format!("{error} in its head")))?;
        let code = answer.code.filter(|code| parsed.is_complete() && *code >= 100).ok_or_else(|| no_http("it has no status"))?;
        if code < 200 {
            self.interims += 1;
            let is_expected = code != 101 && self.interims <= INTERIM_MAX;
            return if is_expected { Ok(Part::Head) } else { Err(no_http("too many interim answers")) };
        }
        let moved_to = named(answer.headers, "location").next().map(|to| printable(&String::from_utf8_lossy(to)));
        self.status = Some(Status { code, text: printable(answer.reason.unwrap_or_default()), moved_to });
        Part::of_body(code, answer.headers)
    }

    /// Takes a complete frame; returns what comes next.
    fn take(&mut self, frame: &[u8]) -> Result<Part, Failed> {
        Ok(match self.part {
            Part::Head => self.head(frame)?,
            Part::Counted(_) => Part::Nothing,
            Part::ChunkSize => match httparse::parse_chunk_size(&[frame, b"\r\n"].concat()) {
                Ok(httparse::Status::Complete((_, 0))) => Part::Trailer(0),
                Ok(httparse::Status::Complete((_, size))) => Part::Chunk(size),
                _ => return Err(no_http("a chunk has no size")),
            },
            Part::Chunk(_) => Part::ChunkEnd,
            Part::ChunkEnd if frame.is_empty() => Part::ChunkSize,
            Part::ChunkEnd => return Err(no_http("a chunk is longer than it was said to be")),
            Part::Trailer(_) if frame.is_empty() => Part::Nothing,
            Part::Trailer(TRAILERS_MAX) => return Err(no_http("its trailers do not end")),
            Part::Trailer(n) => Part::Trailer(n + 1),
            Part::UntilTheEnd | Part::Nothing => unreachable!("it is not cut into frames"),
        })
    }

    /// What is missing at the end, if anything is.
    fn missing(&self) -> Option<String> {
        match self.part {
            Part::Nothing | Part::UntilTheEnd => None,
            Part::Head => Some("the server ended without an answer".into()),
            Part::Counted(left) => Some(format!("the answer is cut off: the server ended, and {left} bytes are missing")),
            _ => Some("the answer is cut off: the server ended, and the last chunk is missing".into()),
        }
    }

    /// After everything has come.
    fn verdict(&self) -> Result<(), Failed> {
        match &self.status {
            Some(Status { code: 200..=299, .. }) => Ok(()),
            Some(Status { code, text, moved_to: Some(to) }) if (300..=399).contains(code) => {
                Err(Failed(8, format!("the server says: {code} {text}: it has moved to '{to}'")))
            }
            Some(Status { code, text, .. }) => Err(Failed(8, format!("the server says: {code} {text}"))),
            None => Err(no_http("it has no status")),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- the client

/// The state of the program: how the fetch ended, once it has.
type Ended = Option<Result<(), Failure>>;

struct Client {
    request: String,
    timeout: Duration,
    answer: Answer,
}

impl Protocol<Ended> for Client {
    /// TLS was agreed on, and the server's certificate is good.
    fn connected(&mut self, ctx: &mut Context<'_, Ended>, _: &mut Ended) -> Outcome {
        ctx.set_idle_timeout(self.timeout);
        ctx.set_deadline(self.timeout); // for the head
        ctx.set_terminator(self.answer.part.terminator());
        ctx.send(mem::take(&mut self.request));
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Ended>, _: &mut Ended, frame: &[u8]) -> Outcome {
        self.answer.part = self.answer.take(frame)?;
        if !matches!(self.answer.part, Part::Head) {
            ctx.set_deadline(None);
        }
        if matches!(self.answer.part, Part::Nothing) {
            ctx.close(); // it had a length, so we know that this was all
        } else {
            ctx.set_terminator(self.answer.part.terminator());
        }
        Ok(())
    }

    /// A piece of the body. Writing may block, which is fine as there is nothing else to do: the server waits meanwhile.
    fn received(&mut self, _: &mut Context<'_, Ended>, _: &mut Ended, bytes: &[u8]) -> Outcome {
        if let Part::Counted(left) | Part::Chunk(left) = &mut self.answer.part {
            *left -= bytes.len() as u64;
        }
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(unwritten)
    }

    /// TLS says that this is the end, by close_notify.
    fn eof(&mut self, ctx: &mut Context<'_, Ended>, _: &mut Ended, _: &[u8]) -> Outcome {
        match self.answer.missing() {
            Some(missing) => Err(Failed(7, missing).into()),
            None => {
                ctx.close();
                Ok(())
            }
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_, Ended>, ended: &mut Ended, why: Reason) {
        let is_whole = why.is_clean() || matches!(self.answer.part, Part::Nothing);
        *ended = Some(if is_whole { self.end() } else { Err(self.failure(why)) });
        ctx.net.stop();
    }
}

impl Client {
    fn end(&self) -> Result<(), Failure> {
        io::stdout().flush().map_err(unwritten)?;
        Ok(self.answer.verdict()?)
    }

    fn failure(&self, why: Reason) -> Failure {
        let text = why.to_string();
        let seconds = self.timeout.as_secs();
        let code = match &why {
            Reason::Resolve(error) if is_misused(error) => return misused(error),
            Reason::Resolve(_) => 3,
            Reason::Connect(error) if error.kind() == io::ErrorKind::TimedOut => 5,
            Reason::Connect(_) => 4,
            Reason::Limit(Limit::Idle) => return Failed(5, format!("time-out: nothing came for {seconds} s")).into(),
            Reason::Limit(Limit::Deadline) => {
                return Failed(5, format!("time-out: the head of the answer was not there after {seconds} s")).into();
            }
            Reason::Limit(Limit::FrameBytes) => return no_http("a head or a line of it is too long").into(),
            Reason::Io(_) | Reason::Tls(_) => match TlsError::of(&why).map(|error| error.stage) {
                Some(TlsStage::TimedOut) => 5,
                Some(TlsStage::Cut) if matches!(why, Reason::Io(_)) => 7,
                Some(_) => 6,
                None => 7,
            },
            _ => 1,
        };
        match why {
            Reason::Failed(fault) => fault,
            _ => Failed(code, text).into(),
        }
    }
}

// ---------------------------------------------------------------------------------------------------- the command line

struct Asked {
    to: Target,
    request: String,
    roots: RootCertStore,
    timeout: Duration,
}

/// Nothing if only help was wanted.
fn asked() -> Result<Option<Asked>, Failure> {
    let Some(mut given) = arguments(HELP, 1, &["ca", "timeout"])? else { return Ok(None) };
    let url = given.text()?.ok_or_else(|| misused("URL is missing: what should be fetched?"))?;
    let timeout = given.seconds("timeout")?.unwrap_or(Duration::from_secs(30));
    let ca = given.option("ca").map(|file| path("--ca", file.clone())).transpose()?;
    let (to, request) = request_of(&url)?;
    let roots = match ca {
        Some(file) => tls::roots_of(Path::new(&file))?,
        None => roots_of_system("--ca")?,
    };
    Ok(Some(Asked { to, request, roots, timeout }))
}

/// The server to connect to, and the request.
fn request_of(url: &str) -> Result<(Target, String), Failure> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(misused(format!("URL must begin with https://, not '{url}'")));
    };
    if !scheme.eq_ignore_ascii_case("https") {
        return Err(misused(format!("URL must begin with https://: {scheme}:// is not supported")));
    }
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(misused("URL has blanks or other characters that must be escaped, as in %20; its host must be in ASCII"));
    }
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (host, asked) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.contains('@') {
        return Err(misused("URL has a user name in it, which is not supported"));
    }
    if host.is_empty() || host.starts_with(':') {
        return Err(misused("URL has no host: it is https://HOST[:PORT][/PATH][?QUERY]"));
    }
    if host.starts_with("unix:") {
        return Err(misused("URL has no host: there are no certificates for Unix sockets"));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let to = callee("URL", &if has_port { host.into() } else { format!("{host}:443") })?;
    let slash = if asked.starts_with('/') { "" } else { "/" };
    let request = format!(
        "GET {slash}{asked} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mainspring-https_get\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    Ok((to, request))
}

fn fetch(Asked { to, request, roots, timeout }: Asked) -> Result<(), Failure> {
    let tls = Arc::new(tls::client(roots, &["http/1.1"])?);
    let mut reactor = Reactor::with_config(Config::new().handshake_max(timeout))?;
    stop_on_interrupt(&reactor)?;
    let options = Connect::new().timeout(timeout).tls(tls);
    reactor.net().connect_with(to, options, Client { request, timeout, answer: Answer::new() });
    let mut ended = None;
    reactor.run(&mut ended)?;
    ended.unwrap_or_else(|| Err("interrupted".into())) // the exit status says so too
}

fn main() -> ExitCode {
    let outcome = asked().and_then(|asked| asked.map_or(Ok(()), fetch));
    status(outcome.map_or_else(own_up_to, |()| 0))
}
