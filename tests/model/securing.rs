//! What is done: TLS. Some of the ports speak it, and those that connect there mostly do; and two that talk in clear may go
//! on in TLS: one of them as the server, which starts when nothing is under way to it, the other once it has got all that
//! was said in clear.
//!
//! If one says something in clear meanwhile, or meets a port that does not speak as it does, nobody knows what comes of it:
//! it is muddled.

use super::{
    chance::Dice,
    run::Site,
    shadow::{Call, Model, promise},
};
#[cfg(feature = "tls")]
use super::{
    configs::sides,
    framing::Framing,
    shadow::{Alive, Peer, Why},
};
use mainspring::{Connect, Listen, Net};
#[cfg(feature = "tls")]
use mainspring::{
    Context, TlsClient, TlsServer, TlsSide,
    rustls::{ClientConfig, ServerConfig, pki_types::ServerName},
};
#[cfg(feature = "tls")]
use std::sync::Arc;

/// What is drawn for it, and the configs of all.
pub(super) struct Secrets {
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody draws"))]
    dice: Dice,
    seed: u64,
    /// One port in this many speaks TLS; 0: none does, and nobody starts it.
    one_in: usize,
    #[cfg(feature = "tls")]
    configs: Option<(Arc<ServerConfig>, Arc<ClientConfig>)>,
}

/// How far one has come with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Secured {
    #[default]
    No,
    /// From the beginning.
    Yes,
    /// Its peer has started, as the server, when this one had sent this much and that one that much: it is to start as well.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody starts"))]
    IsToStart { sent: usize, said: usize },
    /// It has started. Succeeded, or to be told that it is secured.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody starts"))]
    Started { succeeded: bool },
}

impl Secured {
    pub(super) fn is_begun(self) -> bool {
        matches!(self, Self::Yes | Self::Started { .. })
    }
}

impl Secrets {
    pub(super) fn new(seed: u64, as_before: bool) -> Self {
        let mut dice = Dice((!seed).rotate_left(40));
        let has_tls = cfg!(feature = "tls") && !as_before;
        let one_in = if has_tls { dice.pick(&[0, 0, 1, 2, 4]) } else { 0 };
        Self {
            dice,
            seed,
            one_in,
            #[cfg(feature = "tls")]
            configs: (one_in > 0).then(sides),
        }
    }

    /// Whether TLS is spoken at this port of this host.
    fn is_spoken_at(&self, host: usize, port: u16) -> bool {
        self.one_in > 0 && Dice(self.seed ^ ((host as u64) << 40) ^ (u64::from(port) << 50)).one_in(self.one_in)
    }
}

impl Model {
    /// Whether it does.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "nobody does"))]
    pub(super) fn listen_by_tls(&self, host: usize, port: u16, options: Listen) -> (Listen, bool) {
        match &self.secrets {
            #[cfg(feature = "tls")]
            Secrets { configs: Some((server, _)), .. } if self.secrets.is_spoken_at(host, port) => {
                (options.tls(TlsServer::from(Arc::clone(server))), true)
            }
            _ => (options, false),
        }
    }

    /// Whether it does, and whether the other end speaks otherwise.
    pub(super) fn connect_by_tls(&mut self, host: usize, port: u16, options: Connect) -> (Connect, bool, bool) {
        let is_spoken = self.secrets.is_spoken_at(host, port);
        #[cfg(feature = "tls")]
        if let Some((_, client)) = self.secrets.configs.clone() {
            // Not the other way round: of a greeting that nobody understands no seed decides the bytes.
            let is_wrong = self.secrets.dice.one_in(20) && is_spoken;
            let speaks = is_spoken && !is_wrong;
            return (if speaks { options.tls(named(&client)) } else { options }, speaks, is_wrong);
        }
        (options, is_spoken, false)
    }

    /// What it was told fits in with what TLS has come to.
    pub(super) fn look_at_secured(&mut self, id: usize, net: &Net<'_, Site>, call: &Call<'_>) {
        #[cfg(feature = "tls")]
        if let (Call::Connected | Call::Secured, Some(key)) = (call, self.conns[id].key) {
            let speaks = self.conns[id].secured.is_begun();
            promise!(self.story, net.tls(key).is_some() == speaks, "{call:?} of {id}, which is to speak TLS: {speaks}");
        }
        #[cfg(not(feature = "tls"))]
        let _ = net;
        self.look_at_clear_words(id);
        if let Some(peer) = self.conns[id].peer {
            self.look_at_clear_words(peer);
        }
        let Secured::Started { succeeded } = self.conns[id].secured else {
            promise!(self.story, !matches!(call, Call::Secured), "`secured` of {id}, which has not started TLS");
            return;
        };
        match call {
            Call::Secured => promise!(self.story, !succeeded, "`secured` of {id}, which has a successor"),
            Call::Connected => promise!(self.story, succeeded, "`connected` of {id} twice"),
            Call::Received(_) | Call::Frame(_) | Call::Writable | Call::Eof(_) => {
                self.story.breaks(format!("{call:?} of {id}, which has still to agree on TLS"));
            }
            _ => {}
        }
        if matches!(call, Call::Secured | Call::Connected) {
            self.figures.secured += 1;
            self.conns[id].secured = Secured::Yes;
        }
    }

    /// Its successor is told that it is connected.
    pub(super) fn succeed_secured(&mut self, id: usize) {
        if let Secured::Started { succeeded } = &mut self.conns[id].secured {
            *succeeded = true;
        }
    }

    /// Whether it has still to agree on TLS, from the beginning or in mid-stream.
    pub(super) fn is_securing(&self, id: usize) -> bool {
        let conn = &self.conns[id];
        match conn.secured {
            Secured::Started { .. } => true,
            Secured::Yes => !conn.was_connected && !conn.is_accepted,
            Secured::No | Secured::IsToStart { .. } => false,
        }
    }

    /// Whether it has said something in clear that its peer takes for TLS.
    fn look_at_clear_words(&mut self, id: usize) {
        let conn = &self.conns[id];
        if matches!(conn.secured, Secured::IsToStart { sent, .. } if conn.sent.len() > sent) {
            self.muddle(id);
        }
    }

    /// What one of them gets is not what the other has said.
    pub(super) fn muddle(&mut self, id: usize) {
        let peer = self.conns[id].peer;
        for one in [Some(id), peer].into_iter().flatten() {
            self.conns[one].is_muddled = true;
        }
    }
}

#[cfg(feature = "tls")]
fn named(client: &Arc<ClientConfig>) -> TlsClient {
    TlsClient::new(Arc::clone(client)).server_name(ServerName::try_from("localhost").expect("a name"))
}

#[cfg(feature = "tls")]
impl Model {
    /// Seldom: it starts TLS, from outside. Or it is its turn to.
    pub(super) fn start_some(&mut self, id: usize, net: &mut Net<'_, Site>) {
        if let Some(side) = self.some_start(id, net) {
            let _ = self.start_tls(id, side, net);
        }
    }

    /// The same in a callback; whether it is to be succeeded.
    pub(super) fn start_some_itself(&mut self, id: usize, ctx: &mut Context<'_, Site>) -> bool {
        let Some(side) = self.some_start(id, &mut ctx.net) else { return false };
        if !self.start_tls(id, side, &mut ctx.net) || self.secrets.dice.one_in(2) {
            return false;
        }
        self.story.note(|| format!("      {id} is to be succeeded then"));
        let life = self.conns[id].life + 1;
        ctx.upgrade(Peer { id, life, _alive: Alive::one_more(&self.alive) });
        true
    }

    fn some_start(&mut self, id: usize, net: &mut Net<'_, Site>) -> Option<TlsSide> {
        let (server, client) = self.secrets.configs.clone()?;
        self.look_at_clear_words(id);
        match self.conns[id].secured {
            Secured::IsToStart { said, .. } => self.has_got_all(id, said, net).then(|| named(&client).into()),
            Secured::No if !self.quiet.get() && self.secrets.dice.one_in(12) => {
                let peer = self.conns[id].peer?;
                let can_be = [id, peer].iter().all(|&one| self.may_start(one));
                let is_read = can_be && self.has_got_all(id, self.conns[peer].sent.len(), net);
                is_read.then(|| TlsServer::from(server).into())
            }
            _ => None,
        }
    }

    /// Plainly spoken on both sides, as far as anybody knows.
    fn may_start(&self, id: usize) -> bool {
        let conn = &self.conns[id];
        let has_ended = conn.is_over || conn.is_closing || conn.is_half_closed || conn.has_eof || conn.closed.is_some();
        let has_others = conn.mate.is_some() || conn.saving.is_some() || conn.has_sources || conn.is_apart || conn.is_detached;
        let is_clear = conn.is_connected && !conn.is_lost && !conn.is_muddled && conn.secured == Secured::No;
        is_clear && !has_ended && !has_others && !conn.is_ghost
    }

    /// Nothing of what was said in clear is still to come, or to be delivered.
    fn has_got_all(&mut self, id: usize, said: usize, net: &mut Net<'_, Site>) -> bool {
        self.skip(id);
        let conn = &self.conns[id];
        let is_open = conn.key.and_then(|key| net.link(key)).is_some_and(|link| link.unread() == 0);
        // One that skips a frame has looked ahead.
        let is_skipping = matches!(conn.framing, Framing::Skip { .. }) || (conn.has_skipped && conn.got == conn.skipped_to);
        is_open && conn.is_connected && conn.got == said && conn.came_back == 0 && !is_skipping
    }

    fn start_tls(&mut self, id: usize, side: TlsSide, net: &mut Net<'_, Site>) -> bool {
        let Some(key) = self.conns[id].key else { return false };
        let begins = net.link(key).is_some_and(|mut link| link.start_tls(side));
        self.story.note(|| format!("      {id} starts TLS: {begins}"));
        if !begins {
            // Its peer had ended, and nobody had been told; or it was lost.
            let is_over = self.is_over(id, net);
            let conn = &mut self.conns[id];
            if is_over && conn.must.is_none() {
                (conn.is_over, conn.must) = (true, Some(Why::Tls));
            }
            return false;
        }
        self.figures.starts += 1;
        let was = std::mem::replace(&mut self.conns[id].secured, Secured::Started { succeeded: false });
        if let (Secured::No, Some(peer)) = (was, self.conns[id].peer) {
            let said = self.conns[id].sent.len();
            let sent = self.conns[peer].sent.len();
            self.conns[peer].secured = Secured::IsToStart { sent, said };
        }
        true
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use super::super::{run::Site, shadow::Model};
    use mainspring::{Context, Net};

    impl Model {
        pub(in super::super) fn start_some(&mut self, _: usize, _: &mut Net<'_, Site>) {}

        pub(in super::super) fn start_some_itself(&mut self, _: usize, _: &mut Context<'_, Site>) -> bool {
            false
        }
    }
}
