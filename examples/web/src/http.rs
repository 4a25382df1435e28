//! A connection that speaks HTTP/1.1 (RFC 9112), until it becomes something else.

use crate::{
    Answer, Limits, Request, Site,
    answer::{Collected, Content, Open, reason},
    body::{Chunked, LINE_MAX},
    deflate::Agreed,
    request::Body,
    sse::Events,
    ws,
};
use mainspring::{Context, Fault, Limit, Outcome, Produced, Protocol, Step, Terminator};
use std::{
    borrow::Cow,
    cell::RefCell,
    io::{self, Write},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// When the server shuts down, a request may be on its way: we wait this long for it. It is answered, and is the last.
const LAST_CALL: Duration = Duration::from_secs(1);

/// An answer, for a log.
pub struct Done<'a> {
    /// `None` if it could not be understood.
    pub request: Option<&'a Request>,
    pub status: u16,
    /// The size of its body, if known.
    pub bytes: Option<u64>,
}

type Log<S> = fn(&mut Context<'_, S>, &mut S, &Done<'_>);

/// Speaks HTTP/1.1, and lets a [`Site`] answer. The requests of a connection are answered one after the other.
pub struct Http<S> {
    site: Site<S>,
    limits: &'static Limits,
    log: Option<Log<S>>,
    clock: fn() -> SystemTime,
    /// The request that is being read, or answered.
    request: Option<Rc<Request>>,
    stage: Stage<S>,
    /// The request's body, if there is one and nothing of it has been read.
    body: Option<Body>,
    /// The headers of the answer so far, whole lines.
    headers: String,
    /// Time-outs and terminator are set for a head already: most requests have no body.
    is_set_for_heads: bool,
    /// When the whole body has to be there.
    due: Option<Instant>,
    chunked: Chunked,
    keeps: bool,
}

/// What comes next.
enum Stage<S> {
    Head,
    /// A body that nobody wants, and the answer to be sent after it.
    Dropped(Answer<S>),
    Collected(Vec<u8>, Collected<S>),
    /// A body that other threads write to a file.
    Saved,
    /// Nothing: the request is being answered.
    Answer,
}

impl<S: 'static> Http<S> {
    pub fn new(site: Site<S>) -> Self {
        Self {
            site,
            limits: &Limits::DEFAULT,
            log: None,
            clock: SystemTime::now,
            request: None,
            stage: Stage::Head,
            body: None,
            headers: String::new(),
            is_set_for_heads: false,
            due: None,
            chunked: Chunked::new(0),
            keeps: true,
        }
    }

    pub fn limits(mut self, limits: &'static Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets where the date of an answer comes from, for tests.
    pub fn clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.clock = clock;
        self
    }

    /// Calls this with each answer, when its head is sent.
    pub fn log(mut self, log: Log<S>) -> Self {
        self.log = Some(log);
        self
    }
}

impl<S: 'static> Protocol<S> for Http<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_stall_timeout(self.limits.stall);
        self.read_head(ctx);
        Ok(())
    }

    fn cut(&mut self, input: &mut [u8]) -> Result<Step, Fault> {
        Ok(self.chunked.cut(input))
    }

    /// A piece of a body.
    fn received(&mut self, _: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
        if let Stage::Collected(body, _) = &mut self.stage {
            body.extend(bytes);
        }
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, frame: &[u8]) -> Outcome {
        match (std::mem::replace(&mut self.stage, Stage::Answer), self.chunked.fault) {
            (Stage::Head, _) => self.head_came(ctx, state, frame),
            (Stage::Dropped(answer), Some(413)) => self.body_came(ctx, state, answer.close()), // the rest is not wanted either
            (_, Some(status)) => self.refuse(ctx, state, status),
            (Stage::Dropped(answer), None) => self.body_came(ctx, state, answer),
            (Stage::Collected(body, then), None) => {
                let answer = then(ctx, state, &body);
                self.body_came(ctx, state, answer);
            }
            (Stage::Saved | Stage::Answer, None) => {}
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        match (limit, &self.stage) {
            (Limit::FrameBytes, _) => self.refuse(ctx, state, 431),
            (Limit::Idle, Stage::Answer) => {}
            (Limit::Idle, Stage::Head) if ctx.unread() == 0 => ctx.close(),
            (Limit::FrameTime | Limit::Deadline | Limit::Idle, _) => self.refuse(ctx, state, 408),
            (other, _) => return Err(other.into()),
        }
        Ok(())
    }

    /// A request may be on its way to us. It is still answered; then the connection ends.
    fn draining(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        if matches!(self.stage, Stage::Head) {
            ctx.set_idle_timeout(LAST_CALL);
        }
        Ok(())
    }
}

/// Requests.
impl<S: 'static> Http<S> {
    fn read_head(&mut self, ctx: &mut Context<'_, S>) {
        (self.request, self.stage, self.body) = (None, Stage::Head, None);
        self.headers.clear();
        if !std::mem::replace(&mut self.is_set_for_heads, true) {
            ctx.set_idle_timeout(self.limits.keep_alive);
            ctx.set_frame_timeout(self.limits.head_time);
            ctx.set_terminator(Terminator::through(&b"\r\n\r\n"[..], self.limits.head_bytes));
        }
        if ctx.net.is_draining() {
            ctx.set_idle_timeout(LAST_CALL);
        }
    }

    fn head_came(&mut self, ctx: &mut Context<'_, S>, state: &mut S, bytes: &[u8]) {
        if bytes == b"\r\n\r\n" {
            self.stage = Stage::Head;
            return; // empty lines before a request
        }
        let request = match Request::parse(bytes) {
            Ok(request) => Rc::new(request),
            Err(status) => return self.refuse(ctx, state, status),
        };
        self.keeps = request.keeps;
        self.request = Some(Rc::clone(&request));
        if request.has_body() {
            self.body = Some(request.body);
            self.due = Some(ctx.net.now() + self.limits.request_time.saturating_sub(ctx.frame_age()));
        }
        let answer = (self.site)(ctx, state, &request);
        self.answer(ctx, state, answer);
    }

    /// There is a body. If the answer does not need it, it is dropped first, if it is short and coming anyway.
    fn answer_with_body(&mut self, ctx: &mut Context<'_, S>, state: &mut S, body: Body, mut answer: Answer<S>) {
        let (most, is_wanted) = match answer.content {
            Content::Later(work) => return work(self, ctx), // its answer will say
            Content::Collect(most, _) | Content::Save(most, _) => (most, true),
            _ => (self.limits.dropped_bytes, false),
        };
        let is_too_long = matches!(body, Body::Length(length) if length > most);
        let is_waiting = self.request.as_ref().is_some_and(|request| request.expects_continue);
        self.chunked = Chunked::new(most);
        match answer.content {
            _ if is_too_long && is_wanted => self.refuse(ctx, state, 413),
            Content::Collect(_, then) => self.read_body(ctx, Stage::Collected(Vec::new(), then)),
            Content::Save(_, work) => work(self, ctx),
            _ if is_too_long || is_waiting => {
                (self.body, answer.closes) = (None, true);
                self.answer(ctx, state, answer);
            }
            _ => self.read_body(ctx, Stage::Dropped(answer)),
        }
    }

    /// The body is one frame, which may be empty; `frame` is called at its end. If it is asked for again, it is empty.
    fn read_body(&mut self, ctx: &mut Context<'_, S>, stage: Stage<S>) {
        let has_begun = ctx.unread() > 0;
        if self.body.is_some() && !has_begun && self.request.as_ref().is_some_and(|request| request.expects_continue) {
            ctx.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        (self.stage, self.is_set_for_heads) = (stage, false);
        ctx.set_deadline(self.due.map(|due| due.saturating_duration_since(ctx.net.now())));
        ctx.set_frame_timeout(None);
        ctx.set_terminator(match self.body.take().unwrap_or(Body::Length(0)) {
            Body::Length(n) => Terminator::Stream(n),
            Body::Chunked => Terminator::own(LINE_MAX),
        });
    }

    pub(crate) fn save_body<W: Write + Send + 'static>(
        &mut self,
        ctx: &mut Context<'_, S>,
        writer: W,
        then: impl FnOnce(&mut Context<'_, S>, &mut S, io::Result<W>) -> Answer<S> + 'static,
    ) {
        self.read_body(ctx, Stage::Saved);
        ctx.save(writer, move |http: &mut Self, ctx, state, saved| {
            match (saved, http.chunked.fault) {
                (Ok(writer), Some(status)) => {
                    ctx.net.offload(move || drop(writer), |_, _, _| ()); // because the drop may block
                    http.refuse(ctx, state, status);
                }
                (Err(error), _) => {
                    let answer = then(ctx, state, Err(error)).close(); // the rest of it may still be coming
                    http.body_came(ctx, state, answer);
                }
                (saved, None) => {
                    let answer = then(ctx, state, saved);
                    http.body_came(ctx, state, answer);
                }
            }
            Ok(())
        });
    }

    fn body_came(&mut self, ctx: &mut Context<'_, S>, state: &mut S, answer: Answer<S>) {
        ctx.set_deadline(None);
        self.answer(ctx, state, answer);
    }
}

/// Answers.
impl<S: 'static> Http<S> {
    /// Together with headers that were set before, if the content came later.
    pub(crate) fn answer(&mut self, ctx: &mut Context<'_, S>, state: &mut S, mut answer: Answer<S>) {
        self.stage = Stage::Answer;
        self.keeps &= !answer.closes && !ctx.net.is_draining();
        self.headers.push_str(&answer.headers);
        answer.headers.clear(); // the answer may come here again
        if let Some(body) = self.body {
            return self.answer_with_body(ctx, state, body, answer);
        }
        let is_head = self.request.as_ref().is_some_and(|request| request.method() == "HEAD");
        let is_1_1 = self.request.as_ref().is_some_and(|request| request.is_1_1);
        let status = answer.status;
        match answer.content {
            Content::Later(work) | Content::Save(_, work) => return work(self, ctx),
            Content::Collect(_, then) => {
                let answer = then(ctx, state, &[]); // there is no body
                return self.answer(ctx, state, answer);
            }
            Content::WebSocket { is_for_any_origin, open } => return self.open(ctx, state, is_for_any_origin, open),
            // These have none (RFC 9110, 6.4.1).
            Content::Bytes(_) if matches!(status, 100..=199 | 204 | 304) => {
                self.begin(ctx, state, status, Some(0));
                ctx.send("\r\n");
            }
            Content::Bytes(body) => {
                self.begin(ctx, state, status, Some(body.len() as u64));
                write!(ctx, "Content-Length: {}\r\n\r\n", body.len());
                if !is_head {
                    send_bytes(ctx, body);
                }
            }
            Content::File(sent) => {
                self.begin(ctx, state, status, Some(sent.length()));
                write!(ctx, "Content-Length: {}\r\n\r\n", sent.length());
                if !is_head {
                    sent.send(ctx);
                }
            }
            Content::Chunks(chunks) => {
                self.keeps &= is_1_1;
                self.begin(ctx, state, status, None);
                ctx.send(if is_1_1 { "Transfer-Encoding: chunked\r\n\r\n" } else { "\r\n" });
                if !is_head && is_1_1 {
                    ctx.produce(in_chunks(chunks));
                } else if !is_head {
                    ctx.produce(chunks);
                }
            }
            Content::Events(period, event) => {
                self.keeps = false;
                self.begin(ctx, state, status, None);
                ctx.send("Content-Type: text/event-stream\r\n");
                if !self.headers.contains("Cache-Control: ") {
                    ctx.send("Cache-Control: no-store\r\n");
                }
                ctx.send("\r\n");
                if !is_head {
                    return ctx.upgrade(Events { period, event, stall: self.limits.stall });
                }
            }
        }
        // The answer is queued, or has its place in the queue, so the next request can be read meanwhile.
        if self.keeps { self.read_head(ctx) } else { ctx.close() }
    }

    /// Answers with an error, after which nothing can be read any more.
    fn refuse(&mut self, ctx: &mut Context<'_, S>, state: &mut S, status: u16) {
        self.body = None;
        self.headers.clear();
        self.answer(ctx, state, Answer::status(status).close());
    }

    /// Status line and headers, except those that say how long the body is.
    fn begin(&mut self, ctx: &mut Context<'_, S>, state: &mut S, status: u16, bytes: Option<u64>) {
        write!(ctx, "HTTP/1.1 {status} {}\r\nDate: ", reason(status));
        send_date(ctx, (self.clock)());
        ctx.send("\r\nServer: mainspring\r\n");
        let was_1_0 = self.request.as_ref().is_some_and(|request| !request.is_1_1);
        if !self.keeps && status != 101 {
            ctx.send("Connection: close\r\n");
        } else if was_1_0 {
            ctx.send("Connection: keep-alive\r\n");
        }
        ctx.send(&self.headers);
        if let Some(log) = self.log {
            let request = self.request.clone();
            log(ctx, state, &Done { request: request.as_deref(), status, bytes });
        }
    }

    fn open(&mut self, ctx: &mut Context<'_, S>, state: &mut S, is_for_any_origin: bool, open: Open<S>) {
        let Some(request) = self.request.clone() else { return };
        let refusal = if !request.upgrades {
            Answer::text(426, "this is a WebSocket\n").header("Upgrade", "websocket").header("Connection", "upgrade")
        } else if request.header("sec-websocket-version") != Some("13") {
            Answer::text(426, "version 13\n").header("Sec-WebSocket-Version", 13)
        } else if !is_for_any_origin && !request.is_same_origin() {
            Answer::status(403).close()
        } else if let Some(accept) = ws::accept(request.header("sec-websocket-key").unwrap_or_default()) {
            let extensions: Vec<&str> = request.values("sec-websocket-extensions").collect();
            let agreed = Agreed::on(&extensions.join(","));
            self.headers += "Upgrade: websocket\r\nConnection: Upgrade\r\n";
            self.headers += &format!("Sec-WebSocket-Accept: {accept}\r\n");
            if let Some(agreed) = agreed {
                self.headers += &format!("Sec-WebSocket-Extensions: {}\r\n", agreed.answer());
            }
            self.begin(ctx, state, 101, None);
            ctx.send("\r\n");
            return open(ctx, agreed);
        } else {
            Answer::status(400).close()
        };
        self.answer(ctx, state, refusal);
    }
}

/// A long body is not queued as a whole: it would be more than the queue may hold.
fn send_bytes<S: 'static>(ctx: &mut Context<'_, S>, body: Cow<'static, [u8]>) {
    const PIECE: usize = 64 << 10;
    if body.len() <= PIECE {
        return ctx.send(body);
    }
    let mut sent = 0;
    ctx.produce(move |out: &mut Vec<u8>| -> io::Result<Produced> {
        let piece = &body[sent..body.len().min(sent + PIECE)];
        out.extend(piece);
        sent += piece.len();
        Ok(if sent < body.len() { Produced::More } else { Produced::Done })
    });
}

/// Each piece with its size in front, and at the end an empty chunk (RFC 9112, 7.1).
fn in_chunks(mut chunks: crate::answer::Chunks) -> impl FnMut(&mut Vec<u8>) -> io::Result<Produced> {
    let mut piece = Vec::new();
    move |out| {
        piece.clear();
        let produced = chunks(&mut piece)?;
        if !piece.is_empty() {
            write!(out, "{:x}\r\n", piece.len())?;
            out.extend(&piece);
            out.extend(b"\r\n");
        }
        if produced == Produced::Done {
            out.extend(b"0\r\n\r\n");
        }
        Ok(produced)
    }
}

thread_local! {
    /// The second for which it was made, and its text for HTTP.
    static DATE: RefCell<(u64, String)> = RefCell::default();
}

/// Keeps the text of a date for a second, because it takes longer to write than the rest of a head.
fn send_date<S>(ctx: &mut Context<'_, S>, now: SystemTime) {
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(of, date)| {
        if *of != second || date.is_empty() {
            (*of, *date) = (second, httpdate::fmt_http_date(now));
        }
        ctx.send(&*date);
    });
}
