//! The gate's loads over TLS: as `loads` has them, in a package of their own, because what stands there must cost what it costs
//! without the feature. The clients' cryptography is not counted, and their system calls are taken off.

use mainspring::{Listen, Reactor};
use mainspring_benches::{
    by_name::{self, Done},
    load::Failure,
};
use rustls::ClientConnection;
use server::Echo;
use std::{
    fs::File,
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    process::ExitCode,
    time::Duration,
};
use tls::tls as side;

const HELP: &str = "\
Runs one of the gate's loads over TLS; `gate` runs all of them under callgrind
and strace.

usage: tls_loads NAME [TIMES]

NAME    tls-1, tls-64
TIMES   how many times it is done; 1 if not given";

fn main() -> ExitCode {
    by_name::main(HELP, |name, times| match name {
        "tls-1" => echo(1, 1_000 * times),
        "tls-64" => echo(64, 20 * times),
        _ => by_name::unknown(),
    })
}

/// One turn.
#[inline(never)]
fn counted(reactor: &mut Reactor) -> io::Result<bool> {
    reactor.turn(&mut (), None)
}

/// 64 bytes there and back.
fn echo(connections: usize, rounds: usize) -> Result<Done, Failure> {
    let mut reactor = Reactor::new()?;
    let options = Listen::new().tls(side::server()?);
    let listener = reactor.net().listen_with("127.0.0.1:0", options, |_, _, _| Ok(Echo))?;
    let at = reactor.net().local(listener).expect("a listener that was just opened has an address").to_string();
    let mut clients = (0..connections).map(|_| Client::shaken(&at, &mut reactor)).collect::<Result<Vec<_>, _>>()?;
    // Tickets have come, and the first edge of each socket is seen: it is writable.
    let request = [b'x'; 64];
    for round in 0..rounds + 3 {
        for client in &mut clients {
            client.says(&request)?;
        }
        match round {
            0..3 => drop(reactor.turn(&mut (), Duration::from_millis(100))?),
            _ => drop(counted(&mut reactor)?),
        }
        for client in &mut clients {
            client.hears(&request)?;
        }
    }
    Ok(Done { requests: rounds * connections, own_calls: clients.iter().map(|client| client.calls).sum() })
}

/// The far end of a connection. As a file, so that its calls are read(2) and writev(2).
struct Client {
    session: ClientConnection,
    file: File,
    calls: usize,
}

impl Client {
    /// Connected, and both sides are done.
    fn shaken(at: &str, reactor: &mut Reactor) -> Result<Self, Failure> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let session = ClientConnection::new(side::client()?, side::name())?;
        let mut client = Self { session, file: File::from(OwnedFd::from(stream)), calls: 0 };
        let before = reactor.stats().accepted;
        for _ in 0..100 {
            client.writes()?;
            reactor.turn(&mut (), Duration::from_millis(100))?;
            client.reads()?;
            if !client.session.is_handshaking() && reactor.stats().handshakes > before {
                return Ok(client);
            }
        }
        Err("the handshake does not come to its end".into())
    }

    fn writes(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.calls += 1;
            self.session.write_tls(&mut self.file)?;
        }
        Ok(())
    }

    /// Once, what is there.
    fn reads(&mut self) -> Result<(), Failure> {
        self.calls += 1;
        match self.session.read_tls(&mut self.file) {
            Ok(0) => return Err("the server has closed a connection".into()),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            other => drop(other?),
        }
        self.session.process_new_packets()?;
        Ok(())
    }

    fn says(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.session.writer().write_all(bytes)?;
        Ok(self.writes()?)
    }

    /// Exactly this, which is there already: it does not wait.
    fn hears(&mut self, expected: &[u8]) -> Result<(), Failure> {
        self.reads()?;
        let mut heard = vec![0; expected.len() + 1];
        let length = self.session.reader().read(&mut heard)?;
        if heard[..length] != *expected { Err(format!("a wrong reply, of {length} bytes").into()) } else { Ok(()) }
    }
}
