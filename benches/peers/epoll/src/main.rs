//! The limit: a loop written by hand on epoll(7), with nothing between the socket and the handler. Edge-triggered; with
//! `spin` it polls for up to 50 µs before it sleeps. rustix makes the system calls, through libc here, and without it where
//! peers/epoll-direct builds this file.

#[path = "../../common.rs"]
mod common;

use common::{Mode, READ_BYTES, announce, answer, arguments, fail};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::{AsRawFd, OwnedFd},
    io::Errno,
    net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const SPIN: Duration = Duration::from_micros(50);
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

struct Conn {
    socket: OwnedFd,
    /// Reply bytes that the socket did not take; usually empty, never allocated.
    out: Vec<u8>,
    sent: usize,
    /// The beginning of a line.
    begun: Vec<u8>,
}

struct Server {
    mode: Mode,
    listener: OwnedFd,
    epoll: OwnedFd,
    /// By descriptor.
    conns: Vec<Option<Conn>>,
    buf: Vec<u8>,
    replies: Vec<u8>,
    source: Vec<u8>,
}

fn main() {
    let (mode, at, variant) = arguments(&["spin"]);
    let kind = if mode == Mode::Udp { SocketType::DGRAM } else { SocketType::STREAM };
    let socket = bind(kind, at).unwrap_or_else(|why| fail(format!("cannot serve on {at}: {why}")));
    let outcome = if mode == Mode::Udp { echo_datagrams(&socket) } else { Server::run(mode, socket, variant == "spin") };
    if let Err(why) = outcome {
        fail(why);
    }
}

fn bind(kind: SocketType, at: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let socket = net::socket_with(AddressFamily::INET, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, kind == SocketType::STREAM)?;
    net::bind(&socket, &at)?;
    if kind == SocketType::STREAM {
        net::listen(&socket, 4096)?;
    }
    let local = SocketAddr::try_from(net::getsockname(&socket)?)?;
    announce(local);
    Ok(socket)
}

impl Server {
    fn run(mode: Mode, listener: OwnedFd, spins: bool) -> rustix::io::Result<()> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let name = EventData::new_u64(listener.as_raw_fd() as u64);
        epoll::add(&epoll, &listener, name, EventFlags::IN)?;
        let mut server = Self {
            mode,
            listener,
            epoll,
            conns: Vec::new(),
            buf: vec![0; READ_BYTES],
            replies: Vec::with_capacity(READ_BYTES),
            source: vec![b'Z'; READ_BYTES],
        };
        let mut events: Vec<Event> = Vec::with_capacity(1024);
        loop {
            server.wait(&mut events, spins)?;
            for &Event { flags, data } in &events {
                if data == name {
                    server.accept();
                } else {
                    server.serve(data.u64() as usize, flags);
                }
            }
        }
    }

    fn wait(&self, events: &mut Vec<Event>, spins: bool) -> rustix::io::Result<()> {
        events.clear();
        if spins {
            let began = Instant::now();
            while events.is_empty() && began.elapsed() < SPIN {
                epoll::wait(&self.epoll, spare_capacity(events), Some(&NOW))?;
            }
        }
        if events.is_empty() {
            match epoll::wait(&self.epoll, spare_capacity(events), None) {
                Err(Errno::INTR) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        while let Ok(socket) = net::accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            let _ = sockopt::set_tcp_nodelay(&socket, true);
            let index = socket.as_raw_fd() as usize;
            if epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), wanted).is_err() {
                continue;
            }
            if self.conns.len() <= index {
                self.conns.resize_with(index + 1, || None);
            }
            self.conns[index] = Some(Conn { socket, out: Vec::new(), sent: 0, begun: Vec::new() });
        }
    }

    fn serve(&mut self, index: usize, ready: EventFlags) {
        let Some(Some(conn)) = self.conns.get_mut(index) else { return };
        let goes_on = if self.mode == Mode::Source {
            !ready.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP) && conn.pour(&self.source)
        } else {
            conn.flush() && conn.converse(self.mode, &mut self.buf, &mut self.replies, ready.contains(EventFlags::RDHUP))
        };
        if !goes_on {
            self.conns[index] = None;
        }
    }
}

/// Each says whether the connection goes on.
impl Conn {
    /// What the socket did not take last time.
    fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        match net::send(&self.socket, &self.out[self.sent..], SendFlags::NOSIGNAL) {
            Ok(sent) => self.sent += sent,
            Err(why) => return why == Errno::AGAIN,
        }
        if self.sent == self.out.len() {
            (self.out, self.sent) = (Vec::new(), 0);
        }
        true
    }

    fn pour(&mut self, source: &[u8]) -> bool {
        loop {
            match net::send(&self.socket, source, SendFlags::NOSIGNAL) {
                Ok(sent) if sent == source.len() => {}
                Ok(_) => return true,
                Err(why) => return why == Errno::AGAIN,
            }
        }
    }

    /// Reads, handles and writes at once. A short read means drained, unless the peer has ended: then its end is still to
    /// be read.
    fn converse(&mut self, mode: Mode, buf: &mut [u8], replies: &mut Vec<u8>, has_ended: bool) -> bool {
        while self.out.is_empty() {
            let length = match net::recv(&self.socket, &mut *buf, RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((length, _)) => length,
                Err(why) => return why == Errno::AGAIN,
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
                let sent = match net::send(&self.socket, reply, SendFlags::NOSIGNAL) {
                    Ok(sent) => sent,
                    Err(Errno::AGAIN) => 0,
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

fn echo_datagrams(socket: &OwnedFd) -> rustix::io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, socket, EventData::new_u64(0), EventFlags::IN)?;
    let mut events: Vec<Event> = Vec::with_capacity(8);
    let mut buf = vec![0; READ_BYTES];
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        while let Ok((length, _, from)) = net::recvfrom(socket, &mut buf[..], RecvFlags::empty()) {
            if let Some(from) = from {
                let _ = net::sendto(socket, &buf[..length], SendFlags::empty(), &from);
            }
        }
    }
}
