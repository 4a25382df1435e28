//! TLS: a stage of beginning, between being connected and being told so; or, in mid-stream, beginning once more.

use super::{
    Conn, Phase,
    connecting::{Connecting, How},
};
use crate::{
    cx::Cx,
    flags::*,
    reason::Reason,
    tls::{Side, TlsClient, TlsError, TlsServer, TlsStage, TlsStream, begins_a_handshake},
    world::{Stream, Ways},
};
use rustls::pki_types::ServerName;
use std::{io, rc::Rc, time::Duration};

/// In a drain: the time for a first word that had already left to arrive.
const FIRST_WORD_MAX: Duration = Duration::from_secs(1);

/// What a connection is about to agree on with its peer.
pub(crate) struct Shaking {
    /// Until the handshake begins.
    speaks: Option<Speaks>,
    /// How long it may take.
    most: Duration,
    /// Its protocol is told this, and not that it is connected: it is, and the same protocol goes on.
    tells_secured: bool,
}

/// What it is in TLS.
pub(crate) enum Speaks {
    Server(TlsServer),
    Client(TlsClient, ServerName<'static>),
}

impl Speaks {
    /// In mid-stream nobody knows any more which host the connection was made to.
    pub(crate) fn amid_stream(side: Side) -> Result<Self, TlsError> {
        match side {
            Side::Server(server) => Ok(Self::Server(server)),
            Side::Client(client) => {
                let name = client.name.clone().ok_or_else(TlsError::no_name)?;
                Ok(Self::Client(client, name))
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        match self {
            Self::Server(server) => server.timeout,
            Self::Client(..) => None,
        }
    }
}

/// How a step of the handshake ended.
pub(crate) enum Shaken {
    /// It waits for the peer, or for its turn.
    Waits,
    Done,
    Failed(TlsError),
}

const SHAKE: How = How {
    serve: |conn, cx| {
        let shaken = conn.shake(cx);
        conn.look_how_shaken(shaken, cx);
    },
    try_again: |_, _| {},
    go_on: |_, _| {},
    time_out: |conn, cx| {
        let error = conn.shaking_took_too_long();
        conn.look_how_shaken(Shaken::Failed(error), cx);
        conn.settle(cx);
    },
    stop: |_, _| {},
};

/// How it begins.
impl Conn {
    /// Once it is connected.
    pub(crate) fn is_to_speak_tls(&mut self, client: TlsClient, name: ServerName<'static>, cx: &Cx) {
        let most = cx.config.handshake_max;
        if let Some(connecting) = self.connecting() {
            connecting.shaking =
                Some(Box::new(Shaking { speaks: Some(Speaks::Client(client, name)), most, tells_secured: false }));
        }
    }

    /// A guest, before a protocol is made for it.
    pub(crate) fn begin_as_guest(&mut self, server: TlsServer, cx: &mut Cx) {
        self.is_about_to_shake(Speaks::Server(server), false, cx);
        let begun = self.begin_to_shake(Vec::new(), cx);
        debug_assert!(begun.is_ok(), "only a client has to make something that may fail");
        self.settle(cx);
    }

    /// In mid-stream: what is queued leaves in clear, then TLS begins. Returns whether it does.
    pub(crate) fn start_tls(&mut self, side: Side, cx: &mut Cx) -> bool {
        if !self.is_talking() || !self.takes_output() {
            return false;
        }
        let speaks = match Speaks::amid_stream(side) {
            Ok(_) if self.ways() != Ways::Both || self.is(EOF_SEEN) => Err(TlsError::one_way()),
            other => other,
        };
        match speaks {
            Ok(speaks) => {
                let is_known = !self.take(OWES_CONNECTED);
                self.is_about_to_shake(speaks, is_known, cx);
                self.queue_lent(cx);
                self.output(&mut cx.spares).push_barrier();
                if self.is_current(cx) {
                    cx.lent.interrupt = true;
                }
                self.touch(cx);
                true
            }
            Err(error) => {
                self.end(Reason::Tls(error.into()), cx);
                false
            }
        }
    }

    fn is_about_to_shake(&mut self, speaks: Speaks, tells_secured: bool, cx: &mut Cx) {
        let most = speaks.timeout().unwrap_or(cx.config.handshake_max);
        self.set(SHAKING);
        let shaking = Shaking { speaks: Some(speaks), most, tells_secured };
        let extra = self.extra();
        extra.clocks.set_connect(Some(most));
        extra.odds().connecting.get_or_insert_with(|| Connecting::secured(&SHAKE)).shaking = Some(Box::new(shaking));
    }

    /// A successor is told that it is connected.
    pub(super) fn shakes_for_successor(&mut self) {
        if let Some(shaking) = self.shaking() {
            shaking.tells_secured = false;
        }
    }

    fn shaking(&mut self) -> Option<&mut Shaking> {
        self.connecting()?.shaking.as_deref_mut()
    }

    /// What was to leave in clear has left.
    pub(super) fn has_left_in_clear(&mut self, cx: &mut Cx) {
        if !(self.is(ESTABLISHED) && self.output.as_ref().is_some_and(|output| output.has_barrier_in_front())) {
            return;
        }
        self.output(&mut cx.spares).pop_barrier();
        cx.spares.take_if_empty(&mut self.output);
        let begun = match (self.phase, &self.output) {
            // It is closed, and has nothing more to say.
            (Phase::Flushing, None) => {
                self.clear(SHAKING);
                return;
            }
            _ => self.take_hello().and_then(|already| match self.is(EOF_SEEN) {
                true => Err(TlsError::one_way()),
                false => self.begin_to_shake(already, cx),
            }),
        };
        match begun {
            Ok(()) => self.touch(cx),
            Err(error) => self.fail_to_agree(error, cx),
        }
    }

    /// What has come already is in clear, and refused; but a client that waits for nobody, such as one behind a proxy, may
    /// have begun its handshake.
    fn take_hello(&mut self) -> Result<Vec<u8>, TlsError> {
        let Some(held) = self.held.take() else { return Ok(Vec::new()) };
        let is_server = self.shaking().is_some_and(|shaking| matches!(shaking.speaks, Some(Speaks::Server(_))));
        match is_server && begins_a_handshake(held.unread()) {
            true => Ok(held.unread().to_vec()),
            false => Err(TlsError::clear_bytes()),
        }
    }

    /// Connected by TCP: whether TLS is to follow, and follows.
    pub(super) fn goes_on_by_tls(&mut self, cx: &mut Cx) -> bool {
        let Some(most) = self.shaking().map(|shaking| shaking.most) else { return false };
        let now = cx.world.now();
        let clocks = &mut self.extra().clocks;
        let clock = clocks.connect();
        let whole = clock.limit().unwrap_or(Duration::MAX);
        let left = whole.saturating_sub(clock.elapsed(now));
        clocks.set_connect(Some(left.min(most)));
        if let Some(shaking) = self.shaking().filter(|_| left < most) {
            shaking.most = whole; // the time that was asked for is the time that is reported
        }
        self.set(SHAKING);
        if let Err(error) = self.begin_to_shake(Vec::new(), cx) {
            self.fail_to_agree(error, cx);
        }
        true
    }

    pub(super) fn is_to_shake(&mut self) -> bool {
        self.shaking().is_some()
    }

    /// It was connected, and is lost already: its protocol is not told of a connection that was never secured.
    pub(super) fn is_lost_before_shaking(&mut self, error: &io::Error, cx: &mut Cx) {
        self.fail_to_agree(TlsError::lost_amid_handshake(error), cx);
    }

    /// From now on everything that it reads and writes is TLS.
    fn begin_to_shake(&mut self, already: Vec<u8>, cx: &mut Cx) -> Result<(), TlsError> {
        let Some(speaks) = self.shaking().and_then(|shaking| shaking.speaks.take()) else { return Ok(()) };
        if let Some(connecting) = self.connecting() {
            connecting.how = &SHAKE;
        }
        let Some(stream) = self.stream.take() else { return Ok(()) };
        // If it already speaks TLS, it has room of its own: both layers work at the same time.
        let scratch = if stream.tls().is_some() { Rc::default() } else { Rc::clone(cx.tls.get_or_insert_default()) };
        let wrapped = match speaks {
            Speaks::Server(server) => Ok(TlsStream::server(stream, server, already, scratch)),
            Speaks::Client(client, name) => TlsStream::client(stream, &client, name, scratch),
        };
        match wrapped {
            Ok(stream) => {
                self.stream = Some(Stream::Dyn(Box::new(Box::new(stream))));
                self.clear(ESTABLISHED);
                self.set(READABLE | WRITABLE);
                Ok(())
            }
            Err((stream, error)) => {
                self.stream = Some(stream);
                Err(error)
            }
        }
    }
}

/// How it goes on.
impl Conn {
    /// One step, unless there were enough in this turn.
    pub(crate) fn shake(&mut self, cx: &mut Cx) -> Shaken {
        if !cx.may_shake() {
            return Shaken::Waits;
        }
        let now = cx.world.now();
        let is_over = self.extra.as_ref().is_some_and(|extra| extra.clocks.connect().is_over(now));
        if is_over && !(self.phase == Phase::Guest && self.has_more_time(cx)) {
            return Shaken::Failed(self.shaking_took_too_long()); // nobody waits for it any more: no work for nothing
        }
        self.clear(READABLE | WRITABLE | FAILED | READ_UNTIL_BLOCKED);
        let Some(stream) = &mut self.stream else { return Shaken::Waits };
        match stream.connected() {
            Ok(true) => {
                let is_resumed = stream.tls().is_some_and(|tls| tls.is_resumed());
                cx.stats.handshakes += 1;
                cx.stats.handshakes_resumed += u64::from(is_resumed);
                self.clear(SHAKING);
                // What came with the last message of the handshake is there already.
                self.set(ESTABLISHED | READABLE | WRITABLE | READ_UNTIL_BLOCKED);
                return Shaken::Done;
            }
            Ok(false) => return Shaken::Waits,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.set(READABLE),
            // poll(2) had dropped it.
            Err(error) if is_not_registered(&error) => match self.register_again(cx) {
                Ok(()) => {}
                Err(error) => return Shaken::Failed(TlsError::lost_amid_handshake(&error)),
            },
            Err(error) => return Shaken::Failed(TlsError::from_io(error)),
        }
        Shaken::Waits
    }

    fn look_how_shaken(&mut self, shaken: Shaken, cx: &mut Cx) {
        match shaken {
            Shaken::Waits => {}
            Shaken::Done => {
                let tells_secured = self.shaking().is_some_and(|shaking| shaking.tells_secured);
                let is_open = self.is_open();
                self.put(OWES_CONNECTED, is_open);
                self.extra().owes_secured = is_open && tells_secured;
                self.end_of_connecting(cx);
            }
            Shaken::Failed(error) => self.fail_to_agree(error, cx),
        }
    }

    fn fail_to_agree(&mut self, error: TlsError, cx: &mut Cx) {
        cx.stats.handshakes_failed += 1;
        let is_heard = !matches!(error.stage, TlsStage::NotTls | TlsStage::Cut | TlsStage::TimedOut);
        if is_heard && self.bytes_in + self.bytes_out == 0 {
            // Nothing was said of which the peer could take a part for the whole: a reset would only destroy the alert.
            if let Some(output) = self.output.take() {
                output.discard();
            }
        }
        self.end(Reason::Tls(error.into()), cx);
    }

    /// For a guest, in a drain: it has come, and is to be let in, but if it says nothing at all, we do not wait for it as
    /// long as usual.
    pub(super) fn hurry(&mut self, cx: &mut Cx) {
        let left = self.time_left(cx);
        self.extra().clocks.set_connect(Some(left.min(FIRST_WORD_MAX)));
        self.settle(cx);
    }

    /// It was hurried, and has spoken.
    pub(crate) fn has_more_time(&mut self, cx: &mut Cx) -> bool {
        let left = self.time_left(cx);
        let goes_on = left > Duration::ZERO && self.stream.as_ref().is_some_and(|stream| stream.heard() > 0);
        if goes_on {
            self.extra().clocks.set_connect(Some(left));
            self.settle(cx);
        }
        goes_on
    }

    /// For a guest.
    fn time_left(&mut self, cx: &Cx) -> Duration {
        let most = self.shaking().map_or(Duration::ZERO, |shaking| shaking.most);
        most.saturating_sub(cx.world.now().since(self.born))
    }

    pub(crate) fn shaking_took_too_long(&mut self) -> TlsError {
        let most = self.shaking().map_or(Duration::ZERO, |shaking| shaking.most);
        TlsError::timed_out(most)
    }

    /// It is to be told that TLS was agreed on, and not that it is connected.
    pub(crate) fn takes_owed_secured(&mut self) -> bool {
        self.extra.as_mut().is_some_and(|extra| std::mem::take(&mut extra.owes_secured))
    }
}

fn is_not_registered(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && error.raw_os_error().is_none()
}
