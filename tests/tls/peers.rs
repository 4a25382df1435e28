//! A peer that speaks TLS by rustls' own buffered connections, record by record: so that a test sees each of them, and can
//! cut, drip and inject. By a socket of std, or by hand.

use crate::common::{dial, until};
use mainspring::{
    Reactor,
    rustls::{self, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

/// One side of TLS, without a socket.
pub(crate) struct Talker {
    pub(crate) tls: Connection,
    /// What it was told.
    pub(crate) plain: Vec<u8>,
    /// All that came, in its records.
    pub(crate) wire: Vec<u8>,
    /// The other side has said close_notify.
    pub(crate) is_told_end: bool,
    pub(crate) error: Option<rustls::Error>,
}

impl Talker {
    pub(crate) fn client(config: Arc<ClientConfig>) -> Self {
        Self::client_for(config, "localhost")
    }

    pub(crate) fn client_for(config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        Self::new(ClientConnection::new(config, name).expect("a config").into())
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Self {
        Self::new(ServerConnection::new(config).expect("a config").into())
    }

    fn new(mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { tls, plain: Vec::new(), wire: Vec::new(), is_told_end: false, error: None }
    }

    /// What the other side has sent.
    pub(crate) fn hears(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
        let mut bytes = bytes;
        while !bytes.is_empty() && self.error.is_none() {
            self.tls.read_tls(&mut bytes).expect("there is room");
            match self.tls.process_new_packets() {
                Ok(state) => self.is_told_end |= state.peer_has_closed(),
                Err(error) => self.error = Some(error),
            }
            let mut plain = vec![0; 1 << 20];
            while let Ok(n @ 1..) = self.tls.reader().read(&mut plain) {
                self.plain.extend_from_slice(&plain[..n]);
            }
        }
    }

    pub(crate) fn says(&mut self, text: impl AsRef<[u8]>) {
        self.tls.writer().write_all(text.as_ref()).expect("there is no limit");
    }

    /// What it has to send.
    pub(crate) fn speech(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("a Vec takes all");
        }
        bytes
    }

    pub(crate) fn is_agreed(&self) -> bool {
        !self.tls.is_handshaking()
    }

    pub(crate) fn refresh_keys(&mut self) {
        match &mut self.tls {
            Connection::Client(tls) => tls.refresh_traffic_keys(),
            Connection::Server(tls) => tls.refresh_traffic_keys(),
        }
        .expect("it may");
    }
}

/// The types of the records on a wire, and how long each is.
pub(crate) fn records(wire: &[u8]) -> Vec<(u8, usize)> {
    let (mut all, mut rest) = (Vec::new(), wire);
    while let [kind, _, _, high, low, body @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        all.push((*kind, length));
        rest = body.get(length..).unwrap_or_default();
    }
    all
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// A [`Talker`] behind a socket that does not block.
pub(crate) struct Peer {
    pub(crate) talker: Talker,
    pub(crate) socket: TcpStream,
    pub(crate) end: Option<End>,
    /// On its way out.
    pub(crate) out: Vec<u8>,
    pub(crate) reads: bool,
}

impl Peer {
    pub(crate) fn new(talker: Talker, socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("a socket option");
        socket.set_nonblocking(true).expect("a socket option");
        Self { talker, socket, end: None, out: Vec::new(), reads: true }
    }

    pub(crate) fn dials(at: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self::new(Talker::client(config), dial(at))
    }

    /// Moves what can be moved.
    pub(crate) fn pump(&mut self) {
        self.pull();
        self.out.extend(self.talker.speech());
        self.push();
    }

    pub(crate) fn pull(&mut self) {
        let mut bytes = vec![0; 64 << 10];
        while self.reads && self.end.is_none() {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.end = Some(End::Fin),
                Ok(n) => self.talker.hears(&bytes[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.end = Some(End::Reset),
            }
        }
    }

    fn push(&mut self) {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(n) => _ = self.out.drain(..n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.out.clear(),
            }
        }
    }

    /// As it is, on the wire.
    pub(crate) fn injects(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.push();
        assert!(self.out.is_empty(), "the kernel takes a little");
    }

    #[track_caller]
    pub(crate) fn until<S>(&mut self, reactor: &mut Reactor<S>, state: &mut S, mut done: impl FnMut(&mut Self, &mut S) -> bool) {
        until(reactor, state, |state| {
            self.pump();
            done(self, state)
        });
    }

    #[track_caller]
    pub(crate) fn agrees<S>(&mut self, reactor: &mut Reactor<S>, state: &mut S) {
        self.until(reactor, state, |peer, _| peer.talker.is_agreed() && peer.out.is_empty());
    }

    #[track_caller]
    pub(crate) fn hears<S>(&mut self, reactor: &mut Reactor<S>, state: &mut S, text: impl AsRef<[u8]>) {
        self.until(reactor, state, |peer, _| peer.talker.plain.len() >= text.as_ref().len());
        assert!(self.talker.plain == text.as_ref(), "{:?}", String::from_utf8_lossy(&self.talker.plain));
        self.talker.plain.clear();
    }

    #[track_caller]
    pub(crate) fn ends<S>(&mut self, reactor: &mut Reactor<S>, state: &mut S) -> End {
        self.until(reactor, state, |peer, _| peer.end.is_some());
        self.end.expect("it has ended")
    }

    /// close_notify, and then its FIN.
    pub(crate) fn says_goodbye(&mut self) {
        self.talker.tls.send_close_notify();
        self.pump();
        self.fin();
    }

    /// A FIN, and nothing in TLS.
    pub(crate) fn fin(&self) {
        self.socket.shutdown(std::net::Shutdown::Write).expect("it is there");
    }

    pub(crate) fn resets(self) {
        crate::common::reset(self.socket);
    }
}
