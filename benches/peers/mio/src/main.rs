//! The same loop as the one on epoll, written by hand on mio.

#[path = "../../common.rs"]
mod common;

use common::{Mode, READ_BYTES, announce, answer, arguments, fail};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream, UdpSocket},
};
use slab::Slab;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
};

const LISTENER: Token = Token(usize::MAX);

struct Conn {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    begun: Vec<u8>,
}

fn main() {
    let (mode, at, _) = arguments(&[]);
    let outcome = if mode == Mode::Udp { echo_datagrams(at) } else { serve(mode, at) };
    if let Err(why) = outcome {
        fail(format!("cannot serve on {at}: {why}"));
    }
}

fn serve(mode: Mode, at: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut listener = TcpListener::bind(at)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    announce(listener.local_addr()?);
    let mut conns: Slab<Conn> = Slab::new();
    let (mut buf, mut replies, source) = (vec![0; READ_BYTES], Vec::with_capacity(READ_BYTES), vec![b'Z'; READ_BYTES]);
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
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(place.key()), interest)?;
                    place.insert(Conn { stream, out: Vec::new(), sent: 0, begun: Vec::new() });
                }
                continue;
            }
            let Some(conn) = conns.get_mut(event.token().0) else { continue };
            let goes_on = conn.flush()
                && if mode == Mode::Source {
                    !event.is_read_closed() && !event.is_error() && conn.pour(&source)
                } else {
                    conn.converse(mode, &mut buf, &mut replies, event.is_read_closed())
                };
            if !goes_on {
                conns.remove(event.token().0);
            }
        }
    }
}

/// Each says whether the connection goes on.
impl Conn {
    fn flush(&mut self) -> bool {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(why) => return why.kind() == ErrorKind::WouldBlock,
            }
        }
        if !self.out.is_empty() {
            (self.out, self.sent) = (Vec::new(), 0);
        }
        true
    }

    fn pour(&mut self, source: &[u8]) -> bool {
        loop {
            match self.stream.write(source) {
                Ok(sent) if sent == source.len() => {}
                Ok(_) => return true,
                Err(why) => return why.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// A short read means drained, unless the peer has ended: then its end is still to be read.
    fn converse(&mut self, mode: Mode, buf: &mut [u8], replies: &mut Vec<u8>, has_ended: bool) -> bool {
        while self.out.is_empty() {
            let length = match self.stream.read(buf) {
                Ok(0) => return false,
                Ok(length) => length,
                Err(why) => return why.kind() == ErrorKind::WouldBlock,
            };
            let reply: &[u8] = match mode {
                Mode::Echo => &buf[..length],
                Mode::Line => {
                    replies.clear();
                    answer(&mut self.begun, &buf[..length], replies);
                    replies
                }
                _ => &[],
            };
            if !reply.is_empty() {
                let sent = match self.stream.write(reply) {
                    Ok(sent) => sent,
                    Err(why) if why.kind() == ErrorKind::WouldBlock => 0,
                    Err(_) => return false,
                };
                self.out.extend_from_slice(&reply[sent..]);
            }
            if length < buf.len() && !has_ended {
                break;
            }
        }
        true
    }
}

fn echo_datagrams(at: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(8);
    let mut socket = UdpSocket::bind(at)?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
    announce(socket.local_addr()?);
    let mut buf = vec![0; READ_BYTES];
    loop {
        let _ = poll.poll(&mut events, None);
        while let Ok((length, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..length], from);
        }
    }
}
