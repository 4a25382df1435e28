//! As rustls' own example has it, in its order and with its calls.

use crate::{LISTENER, common::announce, tls};
use mio::{
    Events, Interest, Poll, Registry, Token,
    event::Event,
    net::{TcpListener, TcpStream},
};
use rustls::ServerConnection;
use std::{
    collections::HashMap,
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::Arc,
};

struct Conn {
    stream: TcpStream,
    token: Token,
    is_closing: bool,
    is_closed: bool,
    tls: ServerConnection,
}

pub(crate) fn serve(at: SocketAddr) -> Result<(), Box<dyn Error + Send + Sync>> {
    let config = tls::server()?;
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut listener = TcpListener::bind(at)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    announce(listener.local_addr()?);
    let (mut conns, mut next) = (HashMap::new(), 0);
    loop {
        match poll.poll(&mut events, None) {
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in &events {
            let token = event.token();
            if token == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.set_nodelay(true);
                    let token = Token(next);
                    next += 1;
                    let tls = ServerConnection::new(Arc::clone(&config))?;
                    poll.registry().register(&mut stream, token, interest(&tls))?;
                    conns.insert(token, Conn { stream, token, is_closing: false, is_closed: false, tls });
                }
            } else if let Some(conn) = conns.get_mut(&token) {
                conn.ready(poll.registry(), event)?;
                if conn.is_closed {
                    conns.remove(&token);
                }
            }
        }
    }
}

fn interest(tls: &ServerConnection) -> Interest {
    match (tls.wants_read(), tls.wants_write()) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (_, true) => Interest::WRITABLE,
        _ => Interest::READABLE,
    }
}

impl Conn {
    fn ready(&mut self, registry: &Registry, event: &Event) -> io::Result<()> {
        if event.is_readable() {
            self.read();
            self.echo();
        }
        if event.is_writable() {
            self.write();
        }
        if self.is_closing {
            let _ = self.stream.shutdown(Shutdown::Both);
            self.is_closed = true;
            return registry.deregister(&mut self.stream);
        }
        registry.reregister(&mut self.stream, self.token, interest(&self.tls))
    }

    fn read(&mut self) {
        match self.tls.read_tls(&mut self.stream) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => return,
            Err(_) | Ok(0) => {
                self.is_closing = true;
                return;
            }
            Ok(_) => {}
        }
        if self.tls.process_new_packets().is_err() {
            self.write();
            self.is_closing = true;
        }
    }

    fn echo(&mut self) {
        let Ok(state) = self.tls.process_new_packets() else { return };
        if state.plaintext_bytes_to_read() > 0 {
            let mut buf = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut buf).expect("it is there");
            self.tls.writer().write_all(&buf).expect("it takes all");
        }
    }

    fn write(&mut self) {
        if self.tls.write_tls(&mut self.stream).is_err() {
            self.is_closing = true;
        }
    }
}
