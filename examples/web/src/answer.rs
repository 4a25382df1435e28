//! The answers to requests.

use crate::{
    files::Sent,
    http::Http,
    ws::{Talk, Ws},
};
use mainspring::{Context, OffloadError, Produced, Producer};
use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    io::{self, Write},
    time::Duration,
};

/// The headers of most answers fit into this.
const HEADERS_BYTES: usize = 256;

/// The answer to a request. You make it when the head has come. If it does not ask for the request's body, the body is read and
/// dropped first; if that is long, the connection ends with the answer instead. If the content comes later
/// ([`later`](Self::later), [`collect`](Self::collect), [`save`](Self::save)), headers that you set now are sent too. A body
/// can be asked for once.
#[must_use]
pub struct Answer<S> {
    pub(crate) status: u16,
    /// Whole lines.
    pub(crate) headers: String,
    /// No request is read after this one.
    pub(crate) closes: bool,
    pub(crate) content: Content<S>,
}

pub(crate) enum Content<S> {
    Bytes(Cow<'static, [u8]>),
    File(Sent),
    Chunks(Chunks),
    Events(Duration, Event<S>),
    WebSocket {
        is_for_any_origin: bool,
        open: Open<S>,
    },
    /// Reading waits until it has answered.
    Later(Work<S>),
    /// Asks for the body, of at most so many bytes.
    Collect(u64, Collected<S>),
    /// The same, without keeping it in memory.
    Save(u64, Work<S>),
}

pub(crate) type Chunks = Box<dyn FnMut(&mut Vec<u8>) -> io::Result<Produced>>;
pub(crate) type Event<S> = Box<dyn FnMut(&mut Context<'_, S>, &mut S) -> String>;
pub(crate) type Open<S> = Box<dyn FnOnce(&mut Context<'_, S>, Option<crate::deflate::Agreed>)>;
pub(crate) type Work<S> = Box<dyn FnOnce(&mut Http<S>, &mut Context<'_, S>)>;
pub(crate) type Collected<S> = Box<dyn FnOnce(&mut Context<'_, S>, &mut S, &[u8]) -> Answer<S>>;

impl<S: 'static> Answer<S> {
    pub(crate) fn with(status: u16, content: Content<S>) -> Self {
        Self { status, headers: String::new(), closes: false, content }
    }

    /// `kind` is the Content-Type.
    pub fn new(status: u16, kind: &str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self::with(status, Content::Bytes(body.into())).header("Content-Type", kind)
    }

    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    pub fn html(text: impl Into<Cow<'static, str>>) -> Self {
        let body = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self::new(200, "text/html; charset=utf-8", body)
    }

    /// The status in words.
    pub fn status(status: u16) -> Self {
        Self::text(status, format!("{status} {}\n", reason(status)))
    }

    /// The client has it already (RFC 9110, 15.4.5): no body, just the headers that say which version it is.
    pub fn not_modified() -> Self {
        Self::with(304, Content::Bytes(Cow::Borrowed(b"")))
    }

    /// Redirects to another path of this server.
    pub fn redirect(status: u16, to: &str) -> Self {
        Self::status(status).header("Location", to)
    }

    /// # Panics
    /// In debug builds, if the value has a line end in it, which would begin another header.
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        let before = self.headers.len();
        if before == 0 {
            self.headers.reserve(HEADERS_BYTES);
        }
        let _ = write!(self.headers, "{name}: {value}\r\n"); // a String takes everything
        let line = &self.headers.as_bytes()[before..self.headers.len() - 2];
        let is_line = !line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        debug_assert!(is_line, "a header is one line");
        if !is_line {
            self.headers.truncate(before);
        }
        self
    }

    /// The connection ends with this answer.
    pub fn close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// Makes the body while it is sent, in chunks (RFC 9112, 7.1). For a client that does not know chunks, the end of the
    /// connection is the end of the body.
    pub fn chunked(kind: &str, mut producer: impl Producer) -> Self {
        let chunks = move |out: &mut Vec<u8>| producer.more(out);
        Self::with(200, Content::Chunks(Box::new(chunks))).header("Content-Type", kind)
    }

    /// Server-sent events: sends what `event` returns, at once and then each `period`, but not while the client is congested.
    /// [`sse::event`](crate::sse::event) makes one.
    pub fn events(period: Duration, event: impl FnMut(&mut Context<'_, S>, &mut S) -> String + 'static) -> Self {
        Self::with(200, Content::Events(period, Box::new(event)))
    }

    /// The connection becomes a WebSocket. A client that did not ask for one is told so (426), and a page of another origin
    /// is refused (403), unless you allow [any origin](Self::any_origin).
    pub fn web_socket(talk: impl Talk<S>) -> Self {
        let open: Open<S> = Box::new(move |ctx, agreed| ctx.upgrade(Ws::new(talk, agreed)));
        Self::with(101, Content::WebSocket { is_for_any_origin: false, open })
    }

    /// Lets any page open this WebSocket (RFC 6455, 10.2), in the name of the person who looks at the page.
    pub fn any_origin(mut self) -> Self {
        if let Content::WebSocket { is_for_any_origin, .. } = &mut self.content {
            *is_for_any_origin = true;
        }
        self
    }

    /// Does `work` on another thread; then `then` answers. Nothing is read from this connection meanwhile.
    pub fn later<R: Send + 'static>(
        work: impl FnOnce() -> R + Send + 'static,
        then: impl FnOnce(&mut Context<'_, S>, &mut S, Result<R, OffloadError>) -> Self + 'static,
    ) -> Self {
        let work = move |_: &mut Http<S>, ctx: &mut Context<'_, S>| {
            ctx.offload_held(work, move |http: &mut Http<S>, ctx, state, done| {
                let answer = then(ctx, state, done);
                http.answer(ctx, state, answer);
                Ok(())
            });
        };
        Self::with(0, Content::Later(Box::new(work)))
    }

    /// `then` gets the body, and answers. A body of more than `bytes_max` bytes is refused (413).
    pub fn collect(bytes_max: usize, then: impl FnOnce(&mut Context<'_, S>, &mut S, &[u8]) -> Self + 'static) -> Self {
        Self::with(0, Content::Collect(bytes_max as u64, Box::new(then)))
    }

    /// Writes the body to what `open` returns, which is opened and written on other threads. `then` gets the writer back,
    /// complete and flushed, or an error, and answers; it is not called if the body never comes completely. A body of more
    /// than `bytes_max` bytes is refused (413).
    pub fn save<W: Write + Send + 'static>(
        bytes_max: u64,
        open: impl FnOnce() -> io::Result<W> + Send + 'static,
        then: impl FnOnce(&mut Context<'_, S>, &mut S, io::Result<W>) -> Self + 'static,
    ) -> Self {
        let work = move |_: &mut Http<S>, ctx: &mut Context<'_, S>| {
            ctx.offload_held(open, move |http: &mut Http<S>, ctx, state, opened| {
                match opened.unwrap_or_else(|error| Err(io::Error::other(error.to_string()))) {
                    Ok(writer) => http.save_body(ctx, writer, then),
                    Err(error) => {
                        let answer = then(ctx, state, Err(error)).close();
                        http.answer(ctx, state, answer);
                    }
                }
                Ok(())
            });
        };
        Self::with(0, Content::Save(bytes_max, Box::new(work)))
    }
}

pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}
