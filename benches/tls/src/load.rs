//! The clients: rustls' buffered connection on std's sockets, in one thread. They check each byte that comes back, and are
//! bounded in time. The same without TLS, for what a server costs in clear.

use crate::tls;
use mainspring_benches::load::Failure;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is written at a time, and how much may be under way, where there is much.
const PIECE: usize = 256 << 10;
const UNDER_WAY: usize = 1 << 20;

/// Whom to talk to, and how: in clear if there is no config.
#[derive(Clone)]
pub struct Dialer {
    pub port: u16,
    pub config: Option<Arc<ClientConfig>>,
}

/// The far end of a connection.
pub enum Client {
    Clear(TcpStream),
    Secured(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Dialer {
    /// Connected, and the handshake is done.
    pub fn dial(&self) -> Result<Client, Failure> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let Some(config) = &self.config else { return Ok(Client::Clear(socket)) };
        let mut session = ClientConnection::new(Arc::clone(config), tls::name())?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Client::Secured(Box::new(StreamOwned::new(session, socket))))
    }

    pub fn dial_all(&self, count: usize) -> Result<Vec<Client>, Failure> {
        (0..count).map(|_| self.dial()).collect()
    }
}

impl Client {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match self {
            Self::Clear(stream) => stream.write_all(bytes),
            Self::Secured(stream) => stream.write_all(bytes),
        };
        written.map_err(|why| format!("cannot send: {why}").into())
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        let read = match self {
            Self::Clear(stream) => stream.read(into),
            Self::Secured(stream) => stream.read(into),
        };
        match read {
            Ok(0) => Err("the server has closed a connection".into()),
            Ok(length) => Ok(length),
            Err(why) => Err(format!("cannot receive: {why}").into()),
        }
    }

    fn hear(&mut self, expected: &[u8], buf: &mut Vec<u8>) -> Result<(), Failure> {
        buf.resize(expected.len(), 0);
        let mut heard = 0;
        while heard < expected.len() {
            heard += self.read(&mut buf[heard..])?;
        }
        if buf == expected { Ok(()) } else { Err("a wrong reply".into()) }
    }

    /// Ends it in TLS' own words, if it speaks any, and so that no port stays taken.
    fn end(self) -> Result<(), Failure> {
        if let Self::Secured(mut stream) = self {
            stream.conn.send_close_notify();
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(())
    }
}

/// This many bytes there and back on each, one message under way on each.
pub fn echo(clients: &mut [Client], rounds: usize, size: usize) -> Result<(), Failure> {
    let (message, mut buf) = (vec![b'x'; size], Vec::new());
    for _ in 0..rounds {
        for client in &mut *clients {
            client.write_all(&message)?;
        }
        for client in &mut *clients {
            client.hear(&message, &mut buf)?;
        }
    }
    Ok(())
}

/// This much there and back on one, as fast as it goes.
pub fn bulk(client: &mut Client, mebibytes: usize) -> Result<(), Failure> {
    let (piece, mut buf) = (vec![b'x'; PIECE], vec![0; UNDER_WAY]);
    let (total, mut sent, mut heard) = (mebibytes << 20, 0, 0);
    while heard < total {
        while sent < total && sent - heard < UNDER_WAY {
            client.write_all(&piece)?;
            sent += piece.len();
        }
        let length = client.read(&mut buf)?;
        if buf[..length].iter().any(|&byte| byte != b'x') {
            return Err("a wrong reply".into());
        }
        heard += length;
    }
    Ok(())
}

/// This many connections one after the other, each of a client that was never here before, or of one that was; a few bytes there
/// and back on each.
pub fn handshakes(port: u16, count: usize, resumed: bool) -> Result<(), Failure> {
    let wanted = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let mut dialer = Dialer { port, config: Some(tls::client()?) };
    if resumed {
        greet(dialer.dial()?)?;
    }
    for _ in 0..count {
        if !resumed {
            dialer.config = Some(tls::client()?);
        }
        let kind = greet(dialer.dial()?)?;
        if kind != Some(wanted) {
            return Err(format!("a handshake was {kind:?}, not {wanted:?}").into());
        }
    }
    Ok(())
}

/// What it hears besides is the ticket for the next time.
fn greet(mut client: Client) -> Result<Option<HandshakeKind>, Failure> {
    client.write_all(b"hello")?;
    client.hear(b"hello", &mut Vec::new())?;
    let kind = match &client {
        Client::Clear(_) => None,
        Client::Secured(stream) => stream.conn.handshake_kind(),
    };
    client.end()?;
    Ok(kind)
}
