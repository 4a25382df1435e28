//! Connections that come, say 64 bytes, hear them back, and go.

use super::{Failure, Figures, Phase, Run, Selector, Window, dialling, latencies, received};
use rustix::{event::epoll::EventFlags, io::Errno, net::connect};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    time::Instant,
};

const REQUEST: [u8; 64] = [b'q'; 64];

struct Visit {
    stream: TcpStream,
    began: Instant,
    has_said: bool,
    heard: usize,
}

impl Visit {
    /// From another address each time: the ports of one would soon be used up by connections in TIME_WAIT.
    fn begin(number: u32, port: u16) -> Result<Self, Failure> {
        let from = Ipv4Addr::from(0x7F01_0002 + (number % 60_000) * 2);
        let stream = dialling(from, |stream| {
            rustix::io::ioctl_fionbio(stream, true)?;
            match connect(stream, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
                Err(Errno::INPROGRESS) => Ok(()),
                other => other,
            }
        })?;
        Ok(Self { stream, began: Instant::now(), has_said: false, heard: 0 })
    }

    /// Whether it is over.
    fn goes_on(&mut self, ready: EventFlags, buf: &mut [u8]) -> Result<bool, Failure> {
        if !self.has_said && ready.contains(EventFlags::OUT) {
            if let Some(why) = self.stream.take_error()? {
                return Err(format!("cannot connect: {why}").into());
            }
            if self.stream.write(&REQUEST)? < REQUEST.len() {
                return Err("the socket took a part only".into());
            }
            self.has_said = true;
        }
        if self.has_said && ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let length = received(self.stream.read(buf))?.unwrap_or(0);
            self.heard += length;
            if self.heard > REQUEST.len() || buf[..length].iter().any(|byte| !REQUEST.contains(byte)) {
                return Err("a wrong reply".into());
            }
        }
        Ok(self.heard < REQUEST.len())
    }
}

pub(super) fn run(connections: usize, run: Run) -> Result<Figures, Failure> {
    let mut selector = Selector::new()?;
    let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    let (mut visits, mut begun) = (Vec::new(), 0);
    for index in 0..connections {
        let visit = Visit::begin(begun, run.port)?;
        selector.add(&visit.stream, index, wanted)?;
        visits.push(visit);
        begun += 1;
    }
    let mut window = Window::new(run);
    let (mut done, mut times, mut buf) = (0, latencies(), [0; 256]);
    loop {
        for (index, ready) in selector.wait(false)? {
            if visits[index].goes_on(ready, &mut buf)? {
                continue;
            }
            done += 1;
            let _ = times.record(visits[index].began.elapsed().as_nanos() as u64);
            visits[index] = Visit::begin(begun, run.port)?;
            selector.add(&visits[index].stream, index, wanted)?;
            begun += 1;
        }
        match window.look(f64::from(done))? {
            Phase::GoOn => {}
            Phase::Warm => times.reset(),
            Phase::Over(figures) => return Ok(figures.with_latency(&times)),
        }
    }
}
