//! HTTP/1.1: files, uploads, and the ways to a WebSocket and to events.

use crate::{
    App, Ctx,
    body::{Chunked, LINE_MAX},
    deflate::Agreed,
    head::{self, Body, Head},
    parts::{self, Part, Parts, Wanted},
    sse, ws,
};
use mainspring::{Fault, Limit, OffloadError, Outcome, Produced, Protocol, Step, Terminator};
use std::{
    fs::{self, File, Metadata},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const HEAD_MAX: usize = 16 << 10;

/// What is read of a file together with looking for it.
const PIECE: u64 = 64 << 10;

const KEEP_ALIVE: Duration = Duration::from_secs(15);
const HEAD_TIME: Duration = Duration::from_secs(10);
const BODY_TIME: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(30);

const METHODS: &str = "Allow: GET, HEAD, POST, PUT, OPTIONS\r\n";

// -------------------------------------------------------------------------------------------------- files, which block

/// What looking for a file has found.
enum Found {
    Nothing,
    NotModified(Version),
    NoRange { total: u64 },
    File(Answer),
}

/// What is sent of a file.
struct Answer {
    version: Version,
    kind: String,
    /// Of one part of so many bytes.
    range: Option<(Part, u64)>,
    is_partial: bool,
    length: u64,
    /// Its beginning, and where the rest comes from.
    first: Vec<u8>,
    parts: Parts,
}

/// Of a file (RFC 9110, 8.8).
struct Version {
    etag: String,
    /// In whole seconds, as a header has it.
    modified: SystemTime,
}

impl Version {
    fn of(meta: &Metadata) -> Self {
        let since = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        let etag = format!("\"{:x}-{:x}\"", since.as_nanos(), meta.len());
        Self { etag, modified: UNIX_EPOCH + Duration::from_secs(since.as_secs()) }
    }

    /// Whether who asks has it already (13.2.2): a date counts only where there is no tag.
    fn is_known(&self, head: &Head) -> bool {
        match (&head.if_none_match, &head.if_modified_since) {
            (Some(tags), _) => tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == self.etag),
            (None, Some(date)) => httpdate::parse_http_date(date).is_ok_and(|date| self.modified <= date),
            (None, None) => false,
        }
    }

    /// Whether a part is still one of what who asks has the other parts of (13.1.5).
    fn is_that_of(&self, if_range: &str) -> bool {
        if_range == self.etag || httpdate::parse_http_date(if_range).is_ok_and(|date| self.modified == date)
    }

    fn headers(&self) -> String {
        format!("ETag: {}\r\nLast-Modified: {}\r\n", self.etag, httpdate::fmt_http_date(self.modified))
    }
}

/// By the end of its name. Nobody is to guess another one: `nosniff` goes with it.
fn kind_of(path: &Path) -> &'static str {
    match mime_guess::from_path(path).first_raw() {
        Some("text/html") => "text/html; charset=utf-8",
        Some("text/plain") => "text/plain; charset=utf-8",
        Some("text/css") => "text/css; charset=utf-8",
        Some("text/javascript") => "text/javascript; charset=utf-8",
        Some(other) => other,
        None => "application/octet-stream",
    }
}

fn look(path: PathBuf, head: &Head) -> io::Result<Found> {
    let file = match File::open(&path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        file => file?,
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(Found::Nothing);
    }
    let (total, version) = (meta.len(), Version::of(&meta));
    if version.is_known(head) {
        return Ok(Found::NotModified(version));
    }
    let is_ranged = head.method == "GET" && head.if_range.as_deref().is_none_or(|asked| version.is_that_of(asked));
    let range = head.range.as_deref().filter(|_| is_ranged);
    let wanted = range.map_or(Wanted::All, |range| parts::wanted(range, total));
    let (is_partial, kind) = (wanted != Wanted::All, kind_of(&path));
    let (mut parts, kind, range) = match wanted {
        Wanted::All => (Parts::one(file, (0, total)), kind.to_owned(), None),
        Wanted::Nothing => return Ok(Found::NoRange { total }),
        Wanted::Parts(parts) => match parts[..] {
            [part] => (Parts::one(file, part), kind.to_owned(), Some((part, total))),
            _ => {
                let (parts, kind) = Parts::several(file, &parts, kind, total);
                (parts, kind, None)
            }
        },
    };
    let (length, mut first) = (parts.left(), Vec::new());
    if head.method == "GET" {
        parts.read_more(PIECE, &mut first)?;
    }
    Ok(Found::File(Answer { version, kind, range, is_partial, length, first, parts }))
}

// -------------------------------------------------------------------------------------------------------- a connection

pub struct Http {
    /// Of the request that is coming, or is being answered.
    head: Option<Arc<Head>>,
    is_body: bool,
    chunked: Chunked,
    keeps: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self { head: None, is_body: false, chunked: Chunked::default(), keeps: true }
    }
}

impl Protocol<App> for Http {
    fn connected(&mut self, ctx: &mut Ctx<'_>, _: &mut App) -> Outcome {
        ctx.set_idle_timeout(KEEP_ALIVE);
        ctx.set_stall_timeout(STALL);
        self.read_head(ctx);
        Ok(())
    }

    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(self.chunked.cut(input))
    }

    /// Of a body that nobody wants.
    fn received(&mut self, _: &mut Ctx<'_>, _: &mut App, _: &[u8]) -> Outcome {
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Ctx<'_>, app: &mut App, frame: &[u8]) -> Outcome {
        match self.chunked.fault {
            _ if !self.is_body => self.head_came(ctx, app, frame),
            Some(status) => self.refuse(ctx, app, status),
            None => self.request_came(ctx, app),
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Ctx<'_>, app: &mut App, limit: Limit) -> Outcome {
        match limit {
            Limit::FrameBytes => self.refuse(ctx, app, 431),
            Limit::Idle if !self.is_body && ctx.unread() == 0 => ctx.close(),
            Limit::FrameTime | Limit::Deadline | Limit::Idle => self.refuse(ctx, app, 408),
            other => return Err(other.into()),
        }
        Ok(())
    }
}

/// Requests.
impl Http {
    fn read_head(&mut self, ctx: &mut Ctx<'_>) {
        (self.head, self.is_body) = (None, false);
        ctx.set_deadline(None);
        ctx.set_frame_timeout(HEAD_TIME);
        ctx.set_terminator(Terminator::through(&b"\r\n\r\n"[..], HEAD_MAX));
    }

    fn head_came(&mut self, ctx: &mut Ctx<'_>, app: &mut App, bytes: &[u8]) {
        if bytes == b"\r\n\r\n" {
            return; // empty lines before a request
        }
        let head = match head::parse(bytes) {
            Ok(head) => self.head.insert(Arc::new(head)),
            Err(status) => return self.refuse(ctx, app, status),
        };
        self.keeps = head.keeps;
        match head.method.as_str() {
            "PUT" => self.upload(ctx, app),
            "GET" | "HEAD" | "POST" | "OPTIONS" if head.body == Body::Length(0) => self.request_came(ctx, app),
            "GET" | "HEAD" | "POST" | "OPTIONS" => self.read_body(ctx),
            _ => {
                self.keeps &= head.body == Body::Length(0);
                self.say(ctx, app, 405, METHODS, "405 Method Not Allowed\n");
            }
        }
    }

    /// It is one frame, of no bytes perhaps; `frame` comes at its end.
    fn read_body(&mut self, ctx: &mut Ctx<'_>) {
        let Some(head) = &self.head else { return };
        if head.expects_continue && head.body != Body::Length(0) && ctx.unread() == 0 {
            ctx.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        (self.is_body, self.chunked) = (true, Chunked::default());
        ctx.set_frame_timeout(None);
        ctx.set_deadline(BODY_TIME);
        ctx.set_terminator(match head.body {
            Body::Length(n) => Terminator::Stream(n),
            Body::Chunked => Terminator::own(LINE_MAX),
        });
    }

    fn body_bytes(&self) -> u64 {
        match self.head.as_ref().map(|head| head.body) {
            Some(Body::Length(n)) => n,
            _ => self.chunked.bytes,
        }
    }

    fn request_came(&mut self, ctx: &mut Ctx<'_>, app: &mut App) {
        ctx.set_deadline(None);
        let Some(head) = &self.head else { return };
        match (head.method.as_str(), head.path.as_str()) {
            ("POST", _) => self.say(ctx, app, 200, "", &format!("{} bytes\n", self.body_bytes())),
            ("OPTIONS", _) => self.say(ctx, app, 200, METHODS, ""),
            (_, "/echo") => self.open_web_socket(ctx, app, ws::Echo),
            (_, "/chat") if head.ws.as_ref().is_some_and(|wish| !wish.is_same_origin) => self.refuse(ctx, app, 403),
            (_, "/chat") => self.open_web_socket(ctx, app, ws::Member),
            (_, "/events") => {
                self.keeps = false;
                self.begin(ctx, app, 200);
                ctx.send("Content-Type: text/event-stream\r\nCache-Control: no-store\r\n\r\n");
                ctx.upgrade(sse::Events);
            }
            (_, path) => {
                let Some(path) = head::below_root(path) else { return self.refuse(ctx, app, 400) };
                let (path, head) = (app.root.join(path), Arc::clone(head));
                if app.is_inline {
                    return self.found(ctx, app, Ok(look(path, &head)));
                }
                ctx.offload_held(
                    move || look(path, &head),
                    |me: &mut Self, ctx, app, found| {
                        me.found(ctx, app, found);
                        Ok(())
                    },
                );
            }
        }
    }

    /// PUT /upload/name: the file first, then the body, and its name is `name.done` when it is whole.
    fn upload(&mut self, ctx: &mut Ctx<'_>, app: &mut App) {
        let path = self.head.as_ref().and_then(|head| head.path.strip_prefix("/upload/"));
        let Some(name) = path.filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric())) else {
            return self.refuse(ctx, app, 404);
        };
        let path = app.root.join("upload").join(name);
        let part = path.clone();
        ctx.offload_held(
            move || File::create(part),
            move |me: &mut Self, ctx, app, file| {
                let Ok(Ok(file)) = file else {
                    me.refuse(ctx, app, 503);
                    return Ok(());
                };
                me.read_body(ctx);
                ctx.save(file, move |me: &mut Self, ctx, app, saved| {
                    match (saved, me.chunked.fault) {
                        (Ok(_), None) => me.keep(ctx, path),
                        (Ok(_), Some(status)) => me.refuse(ctx, app, status),
                        (Err(error), _) => me.fail(ctx, app, &error),
                    }
                    Ok(())
                });
                Ok(())
            },
        );
    }

    fn keep(&mut self, ctx: &mut Ctx<'_>, path: PathBuf) {
        ctx.set_deadline(None);
        ctx.offload_held(
            move || fs::rename(&path, path.with_extension("done")),
            |me: &mut Self, ctx, app, renamed| {
                match renamed? {
                    Ok(()) => me.say(ctx, app, 201, "", &format!("{} bytes\n", me.body_bytes())),
                    Err(error) => me.fail(ctx, app, &error),
                }
                Ok(())
            },
        );
    }

    fn open_web_socket(&mut self, ctx: &mut Ctx<'_>, app: &mut App, talk: impl ws::Talk) {
        let Some(wish) = self.head.as_ref().and_then(|head| head.ws.as_ref()) else {
            return self.say(ctx, app, 426, "Upgrade: websocket\r\nConnection: upgrade\r\n", "this is a WebSocket\n");
        };
        if wish.version != "13" {
            return self.say(ctx, app, 426, "Sec-WebSocket-Version: 13\r\n", "version 13\n");
        }
        let Some(accept) = ws::accept(&wish.key) else { return self.refuse(ctx, app, 400) };
        ctx.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        write!(ctx, "Sec-WebSocket-Accept: {accept}\r\n");
        let agreed = Agreed::on(&wish.extensions);
        if let Some(agreed) = agreed {
            write!(ctx, "Sec-WebSocket-Extensions: {}\r\n", agreed.answer());
        }
        ctx.send("\r\n");
        ctx.upgrade(ws::Ws::new(talk, agreed));
    }
}

/// Answers.
impl Http {
    /// Status line and the headers that are always there.
    fn begin(&self, ctx: &mut Ctx<'_>, app: &App, status: u16) {
        writeln!(ctx, "HTTP/1.1 {status} {}\r\nDate: {}\r\nServer: web\r", reason(status), app.date);
        if !self.keeps || ctx.net.is_draining() {
            ctx.send("Connection: close\r\n");
        }
    }

    /// An answer without a file.
    fn say(&mut self, ctx: &mut Ctx<'_>, app: &App, status: u16, extra: &str, text: &str) {
        self.begin(ctx, app, status);
        write!(ctx, "{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
        if !self.is_head() {
            ctx.send(text);
        }
        self.answered(ctx);
    }

    /// An answer after which nothing can be read any more.
    fn refuse(&mut self, ctx: &mut Ctx<'_>, app: &App, status: u16) {
        self.keeps = false;
        self.say(ctx, app, status, "", &format!("{status} {}\n", reason(status)));
    }

    fn fail(&mut self, ctx: &mut Ctx<'_>, app: &App, error: &dyn std::error::Error) {
        log::warn!("{}: {error}", ctx.key);
        self.refuse(ctx, app, 500);
    }

    fn is_head(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.method == "HEAD")
    }

    fn found(&mut self, ctx: &mut Ctx<'_>, app: &App, found: Result<io::Result<Found>, OffloadError>) {
        let answer = match found {
            Ok(Ok(Found::File(answer))) => answer,
            Ok(Ok(Found::Nothing)) => return self.say(ctx, app, 404, "", "404 Not Found\n"),
            Ok(Ok(Found::NoRange { total })) => {
                let extra = format!("Content-Range: bytes */{total}\r\n");
                return self.say(ctx, app, 416, &extra, "416 Range Not Satisfiable\n");
            }
            Ok(Ok(Found::NotModified(version))) => {
                self.begin(ctx, app, 304);
                write!(ctx, "{}\r\n", version.headers());
                return self.answered(ctx);
            }
            Ok(Err(error)) => return self.fail(ctx, app, &error),
            Err(error) => return self.fail(ctx, app, &error),
        };
        self.begin(ctx, app, if answer.is_partial { 206 } else { 200 });
        if let Some(((from, to), total)) = answer.range {
            write!(ctx, "Content-Range: bytes {from}-{}/{total}\r\n", to - 1);
        }
        let Answer { version, kind, length, first, parts, .. } = answer;
        write!(ctx, "{}Content-Type: {kind}\r\nX-Content-Type-Options: nosniff\r\n", version.headers());
        write!(ctx, "Accept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n");
        ctx.send(&first);
        if parts.left() > 0 && !self.is_head() {
            send_rest(ctx, app.is_inline, parts);
        }
        self.answered(ctx);
    }

    /// The answer is queued, or has its place there: the next request may be read meanwhile.
    fn answered(&mut self, ctx: &mut Ctx<'_>) {
        if !self.keeps || ctx.net.is_draining() {
            ctx.close();
        } else {
            self.read_head(ctx);
        }
    }
}

fn send_rest(ctx: &mut Ctx<'_>, is_inline: bool, mut parts: Parts) {
    if is_inline {
        ctx.produce(move |out: &mut Vec<u8>| {
            parts.read_more(PIECE, out)?;
            Ok(if parts.left() > 0 { Produced::More } else { Produced::Done })
        });
    } else {
        let left = parts.left();
        ctx.send_from(parts, move |_: &mut Http, ctx, _, sent| {
            if sent? < left {
                ctx.abort(); // it has become shorter: nobody is to take what follows for its rest
            }
            Ok(())
        });
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
