//! One connection that only writes, or only reads.

use super::{Failure, Figures, Phase, Run, Selector, Window, dial, received, sent};
use rustix::event::epoll::EventFlags;
use std::{
    io::{Read, Write},
    net::Ipv4Addr,
};

/// What is counted as one request.
const PIECE: f64 = 65_536.0;

pub(super) fn run(writes: bool, run: Run) -> Result<Figures, Failure> {
    let mut stream = dial(run.port, Ipv4Addr::LOCALHOST)?;
    let mut selector = Selector::new()?;
    selector.add(&stream, 0, if writes { EventFlags::OUT } else { EventFlags::IN } | EventFlags::RDHUP)?;
    let mut buf = vec![b'Z'; 1 << 20];
    let mut window = Window::new(run);
    let mut bytes = 0;
    loop {
        for (_, ready) in selector.wait(false)? {
            if ready.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                return Err("the server has closed the connection".into());
            }
            if writes {
                bytes += sent(stream.write(&buf))?.unwrap_or(0);
            } else {
                let length = received(stream.read(&mut buf))?.unwrap_or(0);
                if buf[..length].iter().any(|&byte| byte != b'Z') {
                    return Err("a wrong byte".into());
                }
                bytes += length;
            }
        }
        if let Phase::Over(figures) = window.look(bytes as f64 / PIECE)? {
            return Ok(figures);
        }
    }
}
