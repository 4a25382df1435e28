//! The only file that calls rustls: its unbuffered API, which 0.24 has in another form. There are three rules, each of which
//! a peer could use against us otherwise: every call is given all that is not consumed, even one that only writes, because
//! rustls remembers places in it; after an error it is called only as long as it wants to write, or it would decrypt the
//! same record again; and a panic in it is an error of this connection.

use super::{config::TlsServer, error::TlsError};
use crate::{
    panics::{self, guard, report},
    secured::Tls,
};
use rustls::{
    ClientConfig, CommonState, HandshakeKind,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::{Acceptor, ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};
use std::sync::Arc;

/// What four records may add to their plaintext (RFC 8446, 5.2; RFC 5246, 6.2.3), generously.
const OVERHEAD: usize = 128;

/// unrecognized_name (RFC 6066, 3), fatal, in a record in clear.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Whether this is a handshake message, in clear as the first one is (RFC 8446, 5.1).
pub(crate) fn begins_a_handshake(bytes: &[u8]) -> bool {
    matches!(bytes, [22] | [22, 3, ..])
}

/// One side of one connection.
pub(super) struct Engine {
    session: Session,
    /// Something that came was TLS.
    has_begun: bool,
    has_peer_ended: bool,
    /// It has failed or panicked, and must not be called any more.
    is_over: bool,
    /// What the client asked for.
    server_name: Option<Box<str>>,
    /// The client's, for what it has offered.
    config: Option<Arc<ClientConfig>>,
}

enum Session {
    /// It is not known yet which host the client wants.
    Accepting(Box<Accepting>),
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

struct Accepting {
    server: TlsServer,
    /// Looks at the first message as well, and keeps nothing.
    acceptor: Acceptor,
    /// How much of what is not consumed it has seen.
    seen: usize,
}

/// Where plaintext goes: to the reader; what has no room there is kept.
pub(super) struct Plain<'a> {
    into: &'a mut [u8],
    pub(super) filled: usize,
    rest: &'a mut Vec<u8>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(into: &'a mut [u8], rest: &'a mut Vec<u8>) -> Self {
        Self { into, filled: 0, rest }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (fits, rest) = bytes.split_at(bytes.len().min(self.into.len() - self.filled));
        self.into[self.filled..][..fits.len()].copy_from_slice(fits);
        self.filled += fits.len();
        if !rest.is_empty() {
            self.rest.extend_from_slice(rest);
        }
    }
}

/// Records on their way out. The buffer only grows: it would be a waste to clear 64 KiB for each write.
#[derive(Default)]
pub(super) struct Records {
    buffer: Vec<u8>,
    filled: usize,
}

impl Records {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    fn room(&mut self, least: usize) -> &mut [u8] {
        let needed = self.filled + least;
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        &mut self.buffer[self.filled..]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }
}

/// What is wanted of a session that may write.
#[derive(Clone, Copy)]
enum Wish<'a> {
    /// Only what has come.
    Read,
    Encrypt(&'a [u8]),
    CloseNotify,
}

/// The result of one call of rustls.
enum Step {
    /// It has more to say.
    Again,
    /// A record's plaintext; what is behind that record has not been looked at yet.
    Read,
    Done,
    /// It cannot write yet, or not any more.
    Stuck,
}

impl Engine {
    pub(super) fn server(server: TlsServer) -> Self {
        let accepting = Accepting { server, acceptor: Acceptor::default(), seen: 0 };
        Self::new(Session::Accepting(Box::new(accepting)))
    }

    pub(super) fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let made = guard(|| UnbufferedClientConnection::new(Arc::clone(config), name));
        match made {
            Ok(Ok(made)) => {
                let session = Session::Client(Box::new(made));
                Ok(Self { config: Some(Arc::clone(config)), ..Self::new(session) })
            }
            Ok(Err(error)) => Err(TlsError::of_rustls(error, Some(config))),
            Err(payload) => Err(TlsError::panicked(&panics::text(&payload))),
        }
    }

    fn new(session: Session) -> Self {
        Self { session, has_begun: false, has_peer_ended: false, is_over: false, server_name: None, config: None }
    }

    /// Consumes what is complete of what has come; says how much that was, even when it has failed.
    pub(super) fn read(
        &mut self,
        unread: &mut [u8],
        plain: &mut Plain<'_>,
        records: &mut Records,
    ) -> (usize, Result<(), TlsError>) {
        let mut used = 0;
        let outcome = guard(|| match self.accept(unread, records)? {
            true => self.work(unread, &mut used, Wish::Read, plain, records).map(|_| ()),
            false => Ok(()),
        });
        self.has_begun |= used > 0;
        (used, self.judge(outcome, &mut unread[used..], records))
    }

    /// Encrypts all of it.
    pub(super) fn write(&mut self, bytes: &[u8], unread: &mut [u8], records: &mut Records) -> Result<(), TlsError> {
        self.say(Wish::Encrypt(bytes), unread, records)
    }

    /// Says that nothing more will come. Once, and only after the handshake.
    pub(super) fn close_notify(&mut self, unread: &mut [u8], records: &mut Records) {
        let _ = self.say(Wish::CloseNotify, unread, records); // one that has failed has said so in its own words
    }

    fn say(&mut self, wish: Wish<'_>, unread: &mut [u8], records: &mut Records) -> Result<(), TlsError> {
        let (mut rest, mut used) = (Vec::new(), 0);
        let mut plain = Plain::new(&mut [], &mut rest);
        let outcome = guard(|| match self.work(unread, &mut used, wish, &mut plain, records)? {
            Step::Done => Ok(()),
            Step::Again | Step::Read | Step::Stuck => Err(TlsError::broken("nothing can be encrypted any more")),
        });
        debug_assert!(used == 0 && rest.is_empty(), "what is whole was consumed when it was read");
        self.judge(outcome, unread, records)
    }

    /// Apart from the rest, because it is nearly always this.
    #[inline]
    fn judge(
        &mut self,
        outcome: Result<Result<(), TlsError>, panics::Payload>,
        unread: &mut [u8],
        records: &mut Records,
    ) -> Result<(), TlsError> {
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.fail(error, unread, records)),
            Err(payload) => Err(self.panicked(&payload)),
        }
    }

    /// After an error nothing may be called except for the alert that goes with it.
    #[cold]
    fn fail(&mut self, error: TlsError, unread: &mut [u8], records: &mut Records) -> TlsError {
        let _ = guard(|| self.fetch_alert(unread, records));
        self.is_over = true;
        error
    }

    /// After a panic nothing may be called at all.
    #[cold]
    fn panicked(&mut self, payload: &panics::Payload) -> TlsError {
        report("a session of TLS", "panicked", payload);
        self.is_over = true;
        TlsError::panicked(&panics::text(payload))
    }

    /// It has failed, and said so.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match &self.session {
            Session::Accepting(_) => true,
            Session::Server(conn) => conn.is_handshaking(),
            Session::Client(conn) => conn.is_handshaking(),
        }
    }

    /// The peer has said that nothing more will come.
    pub(super) fn has_peer_ended(&self) -> bool {
        self.has_peer_ended
    }

    /// What was agreed on.
    pub(super) fn facts(&self) -> Option<Tls<'_>> {
        let state: &CommonState = match &self.session {
            Session::Server(conn) => conn,
            Session::Client(conn) => conn,
            Session::Accepting(_) => return None,
        };
        Some(Tls {
            server_name: self.server_name.as_deref(),
            alpn: state.alpn_protocol(),
            certificates: state.peer_certificates().unwrap_or_default(),
            version: state.protocol_version()?,
            suite: state.negotiated_cipher_suite()?.suite(),
            is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// Finds out which host the client wants, and chooses. Returns whether that is known.
    fn accept(&mut self, unread: &[u8], records: &mut Records) -> Result<bool, TlsError> {
        let Session::Accepting(accepting) = &mut self.session else { return Ok(true) };
        let mut news = &unread[accepting.seen..];
        accepting.seen = unread.len();
        while !news.is_empty() {
            if accepting.acceptor.read_tls(&mut news).is_err() {
                return Err(TlsError::broken("the first message is too long"));
            }
            match accepting.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let server_name = hello.server_name().map(Box::from);
                    let Some(config) = accepting.server.choose_config(&hello) else {
                        records.push(&UNRECOGNIZED_NAME);
                        return Err(TlsError::name_refused(server_name.as_deref()));
                    };
                    let conn = UnbufferedServerConnection::new(config).map_err(|error| TlsError::of_rustls(error, None))?;
                    self.server_name = server_name;
                    self.session = Session::Server(Box::new(conn));
                    return Ok(true);
                }
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    let _ = alert.write_all(&mut bytes); // a Vec takes all
                    records.push(&bytes);
                    return Err(self.error_of(error, unread));
                }
            }
        }
        Ok(false)
    }

    fn work(
        &mut self,
        unread: &mut [u8],
        used: &mut usize,
        wish: Wish<'_>,
        plain: &mut Plain<'_>,
        records: &mut Records,
    ) -> Result<Step, TlsError> {
        loop {
            let (discard, step) = self.look(&mut unread[*used..], wish, plain, records);
            *used += discard;
            match step {
                // Nothing is behind it, and an answer to nothing is what another look would bring.
                Ok(Step::Read) if matches!(wish, Wish::Read) && *used == unread.len() && !self.wants_write() => {
                    return Ok(Step::Done);
                }
                Ok(Step::Again | Step::Read) => {}
                Ok(step) => return Ok(step),
                Err(error) => return Err(self.error_of(error, &unread[..])),
            }
        }
    }

    /// Asks rustls once; returns how much of the input it has consumed.
    #[inline(always)]
    fn look(
        &mut self,
        unread: &mut [u8],
        wish: Wish<'_>,
        plain: &mut Plain<'_>,
        records: &mut Records,
    ) -> (usize, Result<Step, rustls::Error>) {
        let ended = &mut self.has_peer_ended;
        match &mut self.session {
            _ if self.is_over => (0, Ok(Step::Stuck)),
            Session::Server(conn) => handle_as_server(conn.process_tls_records(unread), wish, plain, records, ended),
            Session::Client(conn) => handle(conn.process_tls_records(unread), wish, plain, records, ended),
            Session::Accepting(_) => (0, Ok(Step::Stuck)),
        }
    }

    /// It has something to say that nobody has asked for.
    fn wants_write(&self) -> bool {
        match &self.session {
            Session::Server(conn) => conn.wants_write(),
            Session::Client(conn) => conn.wants_write(),
            Session::Accepting(_) => false,
        }
    }

    fn error_of(&self, error: rustls::Error, unread: &[u8]) -> TlsError {
        match TlsError::of_first_bytes(unread).filter(|_| !self.has_begun) {
            Some(not_tls) => not_tls,
            None => TlsError::of_rustls(error, self.config.as_deref()),
        }
    }

    /// The alert that goes with an error, and no further record: a second call would decrypt the same one again.
    fn fetch_alert(&mut self, unread: &mut [u8], records: &mut Records) {
        let mut rest = Vec::new();
        let mut plain = Plain::new(&mut [], &mut rest);
        while self.wants_write() && matches!(self.look(unread, Wish::Read, &mut plain, records).1, Ok(Step::Again | Step::Read)) {
        }
    }
}

/// If its config allows it, a server may be told something before the handshake is over (0-RTT, RFC 8446, 2.3).
fn handle_as_server(
    status: UnbufferedStatus<'_, '_, ServerConnectionData>,
    wish: Wish<'_>,
    plain: &mut Plain<'_>,
    records: &mut Records,
    has_peer_ended: &mut bool,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state: Ok(ConnectionState::ReadEarlyData(mut data)) } = status else {
        return handle(status, wish, plain, records, has_peer_ended);
    };
    while let Some(record) = data.next_record() {
        match record {
            Ok(record) => {
                discard += record.discard;
                plain.push(record.payload);
            }
            Err(error) => return (discard, Err(error)),
        }
    }
    (discard, Ok(Step::Again))
}

/// Does what rustls asks for; returns how much of the input it has consumed.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    wish: Wish<'_>,
    plain: &mut Plain<'_>,
    records: &mut Records,
    has_peer_ended: &mut bool,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.push(record.payload);
                    if traffic.peek_len().is_none() {
                        break Ok(Step::Read);
                    }
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Read),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let mut encoded = data.encode(records.room(0));
            if let Err(EncodeError::InsufficientSize(size)) = encoded {
                encoded = data.encode(records.room(size.required_size));
            }
            records.filled += encoded.expect("there is room, and it is asked for once");
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done(); // it leaves in order, before whatever is encrypted later
            Ok(Step::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            *has_peer_ended = true;
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let wrote = match wish {
                Wish::Read => return (discard, Ok(Step::Done)),
                Wish::Encrypt(bytes) => {
                    let wrote = traffic.encrypt(bytes, records.room(bytes.len() + OVERHEAD));
                    match wrote {
                        Err(EncryptError::InsufficientSize(size)) => traffic.encrypt(bytes, records.room(size.required_size)),
                        other => other,
                    }
                }
                Wish::CloseNotify => traffic.queue_close_notify(records.room(OVERHEAD)),
            };
            match wrote {
                Ok(bytes) => {
                    records.filled += bytes;
                    Ok(Step::Done)
                }
                Err(_) => Ok(Step::Stuck),
            }
        }
        Ok(ConnectionState::Closed | ConnectionState::BlockedHandshake) => {
            Ok(if matches!(wish, Wish::Read) { Step::Done } else { Step::Stuck })
        }
        Ok(_) => Ok(Step::Stuck),
        Err(error) => Err(error),
    };
    (discard, step)
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("is_handshaking", &self.is_handshaking()).finish_non_exhaustive()
    }
}
