//! A client of NATS (<https://docs.nats.io/reference/reference-protocols/nats-protocol>): lines, some of which announce a
//! payload and its length. It reconnects whenever it loses its server, and subscribes again. It keeps nothing while there is
//! no connection, and NATS itself loses what is sent meanwhile: if you must not lose anything, number what you send. It does
//! not hear what it publishes itself.

use mainspring::{
    Connect, Context, Fault, Keep, Key, Limit, Link, Net, Outcome, Protocol, Reason, Reconnect, Terminator, TlsClient,
    rustls::{ClientConfig, pki_types::ServerName},
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use std::{collections::BTreeMap, mem, rc::Rc, sync::Arc, time::Duration};

/// The longest line of a server: its INFO lists the servers of its cluster.
const LINE_MAX: usize = 64 << 10;

/// The longest payload, either way, with its headers. A longer one from somebody else is skipped.
const PAYLOAD_MAX: usize = 512 << 10;

/// No NATS server accepts more at once.
const SIZE_MAX: usize = 64 << 20;

/// From connecting to the answer to our first PING, TLS included.
const LOGIN_MAX: Duration = Duration::from_secs(10);

/// After this much silence we send a PING.
const SILENCE: Duration = Duration::from_secs(10);

/// After so many PINGs without an answer, the server is gone.
const UNANSWERED_MAX: u32 = 2;

/// How long a line or a payload may take, and how long the server may read nothing of what we send.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pauses between attempts. They are short, because the parts of the room should meet again soon.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// The callbacks of an application. None of them runs inside a call of [`Nats`].
pub struct Told<S> {
    /// Where the client is in the state.
    pub find: fn(&mut S) -> &mut Nats<S>,
    /// It is connected, and subscribed to everything.
    pub connected: fn(&mut Net<'_, S>, &mut S),
    /// Once each time the connection is lost, and if the first attempt fails, with the reason. It keeps trying until
    /// [`connected`](Self::connected).
    pub away: fn(&mut Net<'_, S>, &mut S, &str),
    /// A message has come. For earlier subscriptions, some may come before `connected`.
    pub message: fn(&mut Net<'_, S>, &mut S, &Message<'_>),
}

impl<S> Clone for Told<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Told<S> {}

/// A message that somebody has published.
#[derive(Debug)]
pub struct Message<'a> {
    pub subject: &'a str,
    /// Where to send an answer, if one is wanted.
    pub reply: Option<&'a str>,
    /// As they came, with `NATS/1.0` in front; mostly empty.
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

/// Which server to connect to, and with which login.
struct Server {
    host: String,
    port: u16,
    /// A user with a password, or a token alone.
    login: Option<(String, Option<String>)>,
    /// If there is one, the server must speak TLS.
    tls: Option<TlsClient>,
    /// The name that the server shows to its operator.
    name: String,
}

/// A connection to a NATS server. It lives in the state.
pub struct Nats<S> {
    uplink: Reconnect<S>,
    subjects: BTreeMap<u64, String>,
    last: u64,
    payload_max: usize,
    away: Option<String>,
}

impl<S: 'static> Nats<S> {
    /// For `[nats://|tls://][USER:PASSWORD@|TOKEN@]HOST[:PORT]`, where `%40` is an @. With a config the server must speak TLS;
    /// without one, `tls://` is an error, and so is a server that requires TLS.
    ///
    /// # Errors
    /// If this is not such a URL. The text does not repeat it, as it may have a password in it.
    pub fn new(url: &str, tls: Option<Arc<ClientConfig>>, name: &str, told: Told<S>) -> Result<Self, String> {
        let server = Rc::new(Server::new(url, tls, name)?);
        let target = (server.host.clone(), server.port);
        let uplink = Reconnect::new(target, move |state| &mut (told.find)(state).uplink, move || Session::new(&server, told))
            .options(Connect::new().timeout(LOGIN_MAX))
            .back_off(PAUSES.0, PAUSES.1)
            .keep(Keep::Nothing);
        Ok(Self { uplink, subjects: BTreeMap::new(), last: 0, payload_max: 0, away: None })
    }

    pub fn start(&mut self, net: &mut Net<'_, S>) {
        self.uplink.start(net);
    }

    pub fn stop(&mut self, net: &mut Net<'_, S>) {
        self.uplink.stop(net);
    }

    /// Subscribes now and on every later connection; returns a number to unsubscribe with. Does nothing if the subject is not
    /// valid.
    pub fn subscribe(&mut self, net: &mut Net<'_, S>, subject: &str) -> u64 {
        self.last += 1;
        if is_subject(subject) {
            self.subjects.insert(self.last, subject.into());
            if let Some(mut link) = self.link(net) {
                link.send(format!("SUB {subject} {}\r\n", self.last));
            }
        }
        self.last
    }

    pub fn unsubscribe(&mut self, net: &mut Net<'_, S>, number: u64) {
        if self.subjects.remove(&number).is_some() {
            if let Some(mut link) = self.link(net) {
                link.send(format!("UNSUB {number}\r\n"));
            }
        }
    }

    /// `false`: not sent, because there is no connection, it is congested, the subject is not valid, or the payload is longer
    /// than [`payload_max`](Self::payload_max). `true` is not a promise: what a connection has taken is lost when it breaks.
    pub fn publish(&mut self, net: &mut Net<'_, S>, subject: &str, reply: Option<&str>, payload: impl AsRef<[u8]>) -> bool {
        let payload = payload.as_ref();
        if payload.len() > self.payload_max || !is_subject(subject) || !reply.is_none_or(is_subject) {
            return false;
        }
        let Some(mut link) = self.link(net).filter(|link| !link.is_congested()) else { return false };
        link.send(format!(
            "PUB {subject} {}{}{}\r\n",
            reply.unwrap_or(""),
            if reply.is_some() { " " } else { "" },
            payload.len()
        ));
        link.send(payload);
        link.send("\r\n")
    }

    pub fn is_connected(&self) -> bool {
        self.uplink.is_ready()
    }

    /// Also while there is no connection.
    pub fn is_congested(&self, net: &mut Net<'_, S>) -> bool {
        self.link(net).is_none_or(|link| link.is_congested())
    }

    /// Why there is no connection, as of the latest attempt.
    pub fn away(&self) -> Option<&str> {
        self.away.as_deref()
    }

    /// The longest payload that the server takes, while connected.
    pub fn payload_max(&self) -> usize {
        self.payload_max
    }

    /// The connection, for example to pause reading it.
    pub fn key(&self) -> Option<Key> {
        self.uplink.key()
    }

    fn link<'n>(&self, net: &'n mut Net<'_, S>) -> Option<Link<'n>> {
        self.uplink.key().filter(|_| self.uplink.is_ready()).and_then(|key| net.link(key))
    }
}

/// Whether a text can be part of a line without ending it, or a field of it.
fn is_subject(text: &str) -> bool {
    !text.is_empty() && text.len() <= 256 && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

impl Server {
    fn new(url: &str, tls: Option<Arc<ClientConfig>>, name: &str) -> Result<Self, String> {
        const FORM: &str = "a NATS server is [nats://|tls://][USER:PASSWORD@|TOKEN@]HOST[:PORT]";
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        let (login, at) = rest.rsplit_once('@').map_or((None, rest), |(login, at)| (Some(login), at));
        let at = at.strip_suffix('/').unwrap_or(at);
        let login = login.map(|login| match login.split_once(':') {
            Some((user, password)) => (decoded(user), Some(decoded(password))),
            None => (decoded(login), None),
        });
        let (host, port) = match at.strip_prefix('[').map_or_else(|| at.split_once(':'), |at| at.split_once(']')) {
            Some((host, "")) => (host, "4222"),
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
            None => (at, "4222"),
        };
        let port = port.parse().ok().filter(|&port| port != 0).ok_or(FORM)?;
        if !matches!(scheme, "nats" | "tls") || host.is_empty() || host.contains(['/', ',', ' ']) {
            return Err(FORM.into());
        }
        let tls = match tls {
            Some(config) => {
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|_| format!("there are no certificates for {host:?}"))?;
                Some(TlsClient::new(config).server_name(name))
            }
            None if scheme == "tls" => return Err("tls:// needs the certificates to trust".into()),
            None => None,
        };
        Ok(Self { host: host.into(), port, login, tls, name: name.into() })
    }

    fn login(&self) -> String {
        let mut connect = json!({
            "verbose": false, "pedantic": false, "echo": false, "headers": true, "protocol": 1, "name": self.name,
            "tls_required": self.tls.is_some(), "lang": "rust", "version": env!("CARGO_PKG_VERSION"),
        });
        match &self.login {
            Some((user, Some(password))) => {
                connect["user"] = json!(user);
                connect["pass"] = json!(password);
            }
            Some((token, None)) => connect["auth_token"] = json!(token),
            None => {}
        }
        format!("CONNECT {connect}\r\n")
    }
}

/// `%40` is an @. Anything that is not such a code stays as it is.
fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

// -------------------------------------------------------------------------------------------------- what a server says

/// A line from a server.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Info(&'a str),
    Ping,
    Pong,
    Ok,
    Refused(&'a str),
    Message(Announced),
}

/// A message whose payload is still to come.
#[derive(Debug, PartialEq)]
struct Announced {
    subject: String,
    sid: u64,
    reply: Option<String>,
    headers: usize,
    /// With the headers.
    size: usize,
}

/// The part of an INFO that we use.
#[derive(Deserialize)]
struct Info {
    max_payload: usize,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    tls_available: bool,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Result<Self, Fault> {
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        match verb {
            _ if is("MSG") || is("HMSG") => Announced::of(rest, is("HMSG")).map(Line::Message).ok_or_else(|| no_nats(line)),
            _ if is("PING") => Ok(Line::Ping),
            _ if is("PONG") => Ok(Line::Pong),
            _ if is("INFO") => Ok(Line::Info(rest)),
            _ if is("+OK") => Ok(Line::Ok),
            _ if is("-ERR") => Ok(Line::Refused(rest.trim().trim_matches('\''))),
            _ => Err(no_nats(line)),
        }
    }
}

impl Announced {
    fn of(fields: &str, has_headers: bool) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let mut fields: Vec<&str> = fields.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
        let size = number(fields.pop()?)?;
        let headers = if has_headers { number(fields.pop()?)? } else { 0 };
        let (subject, sid, reply) = match fields[..] {
            [subject, sid] => (subject, sid, None),
            [subject, sid, reply] => (subject, sid, Some(reply.to_owned())),
            _ => return None,
        };
        let sid = sid.parse().ok()?;
        (headers <= size && size <= SIZE_MAX).then(|| Self { subject: subject.to_owned(), sid, reply, headers, size })
    }
}

fn no_nats(line: &str) -> Fault {
    format!("that is not a NATS server: it said '{}'", shown(line)).into()
}

/// A server's words, safe to be shown.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

// ----------------------------------------------------------------------------------------------------- one connection

struct Session<S> {
    server: Rc<Server>,
    told: Told<S>,
    has_greeted: bool,
    /// We subscribed up to this one when we logged in.
    subscribed: u64,
    announced: Option<Announced>,
    is_skipping: bool,
    unanswered: u32,
    has_complained: bool,
}

impl<S: 'static> Session<S> {
    fn new(server: &Rc<Server>, told: Told<S>) -> Self {
        let server = Rc::clone(server);
        Self {
            server,
            told,
            has_greeted: false,
            subscribed: 0,
            announced: None,
            is_skipping: false,
            unanswered: 0,
            has_complained: false,
        }
    }

    fn nats<'s>(&self, state: &'s mut S) -> &'s mut Nats<S> {
        (self.told.find)(state)
    }

    fn info(&mut self, ctx: &mut Context<'_, S>, state: &mut S, text: &str) -> Outcome {
        let info: Info = serde_json::from_str(text).map_err(|_| no_nats(&format!("INFO {text}")))?;
        self.nats(state).payload_max = info.max_payload.min(PAYLOAD_MAX);
        if self.has_greeted {
            return Ok(());
        }
        self.has_greeted = true;
        match &self.server.tls {
            None if info.tls_required => Err("the server requires TLS, which needs the certificates to trust".into()),
            Some(tls) if info.tls_required || info.tls_available => {
                ctx.link().start_tls(tls.clone()); // it goes on in `secured`, and fails if more came in the clear
                Ok(())
            }
            Some(_) => Err("the server does not speak TLS".into()),
            None => self.log_in(ctx, state),
        }
    }

    fn log_in(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        ctx.send(self.server.login());
        self.subscribe(ctx, state);
        ctx.send("PING\r\n");
        Ok(())
    }

    fn subscribe(&mut self, ctx: &mut Context<'_, S>, state: &mut S) {
        let nats = self.nats(state);
        for (number, subject) in nats.subjects.range(self.subscribed + 1..) {
            write!(ctx, "SUB {subject} {number}\r\n");
        }
        self.subscribed = nats.last;
    }

    fn pong(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        if self.nats(state).is_connected() {
            return Ok(());
        }
        ctx.set_deadline(None);
        self.subscribe(ctx, state); // to subjects added meanwhile
        let nats = self.nats(state);
        nats.uplink.ready(ctx);
        nats.away = None;
        log::info!("connected to the NATS server {}:{}", self.server.host, self.server.port);
        (self.told.connected)(&mut ctx.net, state);
        Ok(())
    }

    /// After most errors the server itself ends the connection, but not if a subject is forbidden. Before we are ready, that is a
    /// subject we need; later on it only means that one message was not sent.
    fn refused(&mut self, state: &mut S, why: &str) -> Outcome {
        let is_of_one = ["permissions violation", "invalid subject"].iter().any(|one| why.to_lowercase().starts_with(one));
        if !is_of_one || !self.nats(state).is_connected() {
            return Err(format!("the NATS server says: {}", shown(why)).into());
        }
        if !mem::replace(&mut self.has_complained, true) {
            log::warn!("the NATS server says: {}", shown(why));
        }
        Ok(())
    }

    fn line(&mut self, ctx: &mut Context<'_, S>, state: &mut S, line: &str) -> Outcome {
        match Line::of(line)? {
            Line::Info(text) => return self.info(ctx, state, text),
            Line::Refused(why) => return self.refused(state, why),
            _ if !self.has_greeted => return Err(no_nats(line)),
            Line::Ping => ctx.send("PONG\r\n"),
            Line::Pong => return self.pong(ctx, state),
            Line::Ok => {}
            Line::Message(announced) => {
                ctx.set_terminator(Terminator::declared(announced.size + 2, PAYLOAD_MAX + 2));
                self.announced = Some(announced);
            }
        }
        Ok(())
    }
}

impl<S: 'static> Protocol<S> for Session<S> {
    fn connected(&mut self, ctx: &mut Context<'_, S>, _: &mut S) -> Outcome {
        ctx.set_terminator(Terminator::line(LINE_MAX));
        // Below the mark, one more message fits, however long it is.
        ctx.set_output_limits(64 << 10, 256 << 10, (256 << 10) + PAYLOAD_MAX + LINE_MAX);
        ctx.set_deadline(LOGIN_MAX);
        ctx.set_idle_timeout(SILENCE);
        ctx.set_frame_timeout(PATIENCE);
        ctx.set_stall_timeout(PATIENCE);
        Ok(())
    }

    fn secured(&mut self, ctx: &mut Context<'_, S>, state: &mut S) -> Outcome {
        self.log_in(ctx, state)
    }

    fn frame(&mut self, ctx: &mut Context<'_, S>, state: &mut S, frame: &[u8]) -> Outcome {
        self.unanswered = 0;
        if mem::take(&mut self.is_skipping) {
            ctx.set_deadline(None);
        }
        let Some(Announced { subject, sid, reply, headers, .. }) = self.announced.take() else {
            return self.line(ctx, state, &String::from_utf8_lossy(frame));
        };
        ctx.set_terminator(Terminator::line(LINE_MAX));
        let message = frame.strip_suffix(b"\r\n").ok_or("a message of the NATS server is not as long as it says")?;
        if self.nats(state).subjects.contains_key(&sid) {
            let (headers, payload) = message.split_at(headers);
            let message = Message { subject: &subject, reply: reply.as_deref(), headers, payload };
            (self.told.message)(&mut ctx.net, state, &message);
        }
        Ok(())
    }

    fn exceeded(&mut self, ctx: &mut Context<'_, S>, state: &mut S, limit: Limit) -> Outcome {
        match limit {
            Limit::Idle if self.unanswered < UNANSWERED_MAX => {
                self.unanswered += 1;
                ctx.send("PING\r\n");
                Ok(())
            }
            // Somebody has published a message that is too long for us: skip it, and go on with the line after it.
            Limit::FrameBytes if self.announced.take().is_some() && self.nats(state).is_connected() => {
                ctx.set_terminator(Terminator::line(LINE_MAX));
                ctx.set_deadline(PATIENCE);
                self.is_skipping = true;
                Ok(())
            }
            other => Err(other.into()),
        }
    }

    fn closed(&mut self, ctx: &mut Context<'_, S>, state: &mut S, why: Reason) {
        let nats = self.nats(state);
        nats.uplink.closed(ctx, &why);
        nats.payload_max = 0;
        if nats.uplink.is_stopped() {
            nats.away = None;
            return;
        }
        let why = match &why {
            Reason::Failed(fault) => fault.to_string(), // an error from this file
            other => other.to_string(),
        };
        let before = nats.away.replace(why.clone());
        if before.as_ref() != Some(&why) {
            log::warn!("no connection to the NATS server {}:{}: {why}", self.server.host, self.server.port);
        }
        if before.is_none() {
            (self.told.away)(&mut ctx.net, state, &why);
        }
    }
}
