//! An echo over TLS by a loop on mio and rustls' buffered connection. With `example` it is what rustls' own example does
//! (tlsserver-mio): reads and writes when it is told to, and tells the selector each time what it waits for. Without, it goes on
//! until the socket has no more, writes at once, and tells the selector only what has changed: fewer system calls.

mod example;

#[path = "../../common.rs"]
mod common;
#[path = "../../tls.rs"]
mod tls;

use common::{Mode, READ_BYTES, announce, arguments, fail};
use mio::{
    Events, Interest, Poll, Registry, Token,
    net::{TcpListener, TcpStream},
};
use rustls::ServerConnection;
use slab::Slab;
use std::{
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::Arc,
};

const LISTENER: Token = Token(usize::MAX);

struct Conn {
    stream: TcpStream,
    tls: ServerConnection,
    interest: Interest,
    is_closing: bool,
}

fn main() {
    let (mode, at, variant) = arguments(&["example"]);
    if mode != Mode::Echo {
        fail("it only echoes");
    }
    let outcome = if variant == "example" { example::serve(at) } else { serve(at) };
    if let Err(why) = outcome {
        fail(format!("cannot serve on {at}: {why}"));
    }
}

fn serve(at: SocketAddr) -> Result<(), Box<dyn Error + Send + Sync>> {
    let config = tls::server()?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(at)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    announce(listener.local_addr()?);
    let mut conns: Slab<Conn> = Slab::new();
    let mut buf = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_nodelay(true);
                    let place = conns.vacant_entry();
                    poll.registry().register(&mut stream, Token(place.key()), Interest::READABLE)?;
                    let tls = ServerConnection::new(Arc::clone(&config))?;
                    place.insert(Conn { stream, tls, interest: Interest::READABLE, is_closing: false });
                }
                continue;
            }
            let token = event.token();
            let Some(conn) = conns.get_mut(token.0) else { continue };
            let goes_on = conn.flush().is_ok() && (!event.is_readable() || conn.converse(&mut buf).is_ok());
            if !goes_on || (conn.is_closing && !conn.tls.wants_write()) {
                conns.remove(token.0);
                continue;
            }
            conn.register(poll.registry(), token)?;
        }
    }
}

impl Conn {
    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Until the socket has no more, or the kernel takes no more.
    fn converse(&mut self, buf: &mut [u8]) -> io::Result<()> {
        while !self.tls.wants_write() && !self.is_closing {
            match self.tls.read_tls(&mut self.stream) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Err(why) if why.kind() == ErrorKind::WouldBlock => break,
                other => drop(other?),
            }
            match self.tls.process_new_packets() {
                Ok(state) if state.peer_has_closed() => {
                    self.is_closing = true;
                    self.tls.send_close_notify();
                }
                Ok(_) => {}
                Err(why) => {
                    let _ = self.tls.write_tls(&mut self.stream);
                    return Err(io::Error::other(why));
                }
            }
            while let Ok(length @ 1..) = self.tls.reader().read(buf) {
                self.tls.writer().write_all(&buf[..length])?;
            }
            self.flush()?;
        }
        Ok(())
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let wants_write = self.tls.wants_write();
        let interest = if wants_write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        // While it waits to write it is registered each time, so that what came meanwhile is told again.
        if interest != self.interest || wants_write {
            self.interest = interest;
            registry.reregister(&mut self.stream, token, interest)?;
        }
        Ok(())
    }
}
