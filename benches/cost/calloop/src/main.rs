//! The smallest echo server on calloop. (What the peer does not take at once is lost: the true server is in peers/.)

use calloop::{EventLoop, Interest, Mode, PostAction, generic::Generic};
use std::{
    error::Error,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut event_loop: EventLoop<'static, ()> = EventLoop::try_new()?;
    let listener = TcpListener::bind("127.0.0.1:7000")?;
    listener.set_nonblocking(true)?;
    let handle = event_loop.handle();
    event_loop.handle().insert_source(Generic::new(listener, Interest::READ, Mode::Level), move |_, listener, ()| {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        let echo = move |_, stream: &mut calloop::generic::NoIoDrop<TcpStream>, (): &mut ()| {
            let mut stream: &TcpStream = stream;
            let mut buf = [0; 4096];
            match stream.read(&mut buf) {
                Ok(0) | Err(_) => Ok(PostAction::Remove),
                Ok(length) => stream.write_all(&buf[..length]).map(|()| PostAction::Continue),
            }
        };
        handle
            .insert_source(Generic::new(stream, Interest::READ, Mode::Level), echo)
            .map_err(|why| why.error)
            .map_err(std::io::Error::other)?;
        Ok(PostAction::Continue)
    })?;
    Ok(event_loop.run(None, &mut (), |()| {})?)
}
