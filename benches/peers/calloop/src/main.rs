//! Servers on calloop, level-triggered (its default), with an event source for each connection.

#[path = "../../common.rs"]
mod common;

use calloop::{EventLoop, EventSource, Interest, LoopHandle, Poll, PostAction, Readiness, Token, TokenFactory, generic::Generic};
use common::{Mode, READ_BYTES, announce, answer, arguments, fail};
use std::{
    cell::RefCell,
    error::Error,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    rc::Rc,
};

struct Shared {
    buf: Vec<u8>,
    replies: Vec<u8>,
    source: Vec<u8>,
}

struct Conn {
    stream: Generic<TcpStream>,
    serving: Serving,
}

struct Serving {
    mode: Mode,
    shared: Rc<RefCell<Shared>>,
    out: Vec<u8>,
    sent: usize,
    begun: Vec<u8>,
}

fn main() {
    let (mode, at, _) = arguments(&[]);
    if let Err(why) = run(mode, at) {
        fail(format!("cannot serve on {at}: {why}"));
    }
}

fn run(mode: Mode, at: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut event_loop: EventLoop<'static, ()> = EventLoop::try_new()?;
    if mode == Mode::Udp {
        echo_datagrams(&event_loop.handle(), at)?
    } else {
        serve(&event_loop.handle(), mode, at)?
    }
    Ok(event_loop.run(None, &mut (), |()| {})?)
}

fn serve(handle: &LoopHandle<'static, ()>, mode: Mode, at: SocketAddr) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    announce(listener.local_addr()?);
    let shared = Shared { buf: vec![0; READ_BYTES], replies: Vec::with_capacity(READ_BYTES), source: vec![b'Z'; READ_BYTES] };
    let shared = Rc::new(RefCell::new(shared));
    let of_conns = handle.clone();
    handle.insert_source(Generic::new(listener, Interest::READ, calloop::Mode::Level), move |_, listener, ()| {
        while let Ok((stream, _)) = listener.accept() {
            let _ = stream.set_nonblocking(true);
            let _ = stream.set_nodelay(true);
            let interest = if mode == Mode::Source { Interest::WRITE } else { Interest::READ };
            let stream = Generic::new(stream, interest, calloop::Mode::Level);
            let serving = Serving { mode, shared: Rc::clone(&shared), out: Vec::new(), sent: 0, begun: Vec::new() };
            if let Err(why) = of_conns.insert_source(Conn { stream, serving }, |_, _, _| {}) {
                fail(why);
            }
        }
        Ok(PostAction::Continue)
    })?;
    Ok(())
}

fn echo_datagrams(handle: &LoopHandle<'static, ()>, at: SocketAddr) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    announce(socket.local_addr()?);
    let mut buf = vec![0; READ_BYTES];
    handle.insert_source(Generic::new(socket, Interest::READ, calloop::Mode::Level), move |_, socket, ()| {
        while let Ok((length, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..length], from);
        }
        Ok(PostAction::Continue)
    })?;
    Ok(())
}

fn over(why: &io::Error) -> PostAction {
    if why.kind() == ErrorKind::WouldBlock { PostAction::Continue } else { PostAction::Remove }
}

impl Serving {
    /// What is to become of the source; `Reregister` where it waits for something else from here on.
    fn serve(&mut self, is_readable: bool, mut stream: &TcpStream) -> PostAction {
        let Shared { buf, replies, source } = &mut *self.shared.borrow_mut();
        if self.mode == Mode::Source {
            loop {
                match stream.write(source) {
                    Ok(READ_BYTES) => {}
                    Ok(_) => return PostAction::Continue,
                    Err(why) => return over(&why),
                }
            }
        }
        if !self.out.is_empty() {
            match stream.write(&self.out[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(why) => return over(&why),
            }
            if self.sent < self.out.len() {
                return PostAction::Continue;
            }
            (self.out, self.sent) = (Vec::new(), 0);
            return PostAction::Reregister;
        }
        if !is_readable {
            return PostAction::Continue;
        }
        let length = match stream.read(buf) {
            Ok(0) => return PostAction::Remove,
            Ok(length) => length,
            Err(why) => return over(&why),
        };
        let reply: &[u8] = match self.mode {
            Mode::Echo => &buf[..length],
            Mode::Line => {
                replies.clear();
                answer(&mut self.begun, &buf[..length], replies);
                replies
            }
            _ => &[],
        };
        if reply.is_empty() {
            return PostAction::Continue;
        }
        let sent = match stream.write(reply) {
            Ok(sent) => sent,
            Err(why) if why.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return PostAction::Remove,
        };
        self.out.extend_from_slice(&reply[sent..]);
        if self.out.is_empty() { PostAction::Continue } else { PostAction::Reregister }
    }
}

impl EventSource for Conn {
    type Event = ();
    type Metadata = ();
    type Ret = ();
    type Error = io::Error;

    fn process_events<C: FnMut((), &mut ())>(&mut self, ready: Readiness, token: Token, _: C) -> io::Result<PostAction> {
        let Self { stream, serving } = self;
        let action = stream.process_events(ready, token, |ready, stream| Ok(serving.serve(ready.readable, stream)))?;
        if action == PostAction::Reregister {
            self.stream.interest = if self.serving.out.is_empty() { Interest::READ } else { Interest::WRITE };
        }
        Ok(action)
    }

    fn register(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.stream.register(poll, factory)
    }

    fn reregister(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.stream.reregister(poll, factory)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.stream.unregister(poll)
    }
}
