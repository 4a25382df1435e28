//! Datagrams there and back on one socket: each by itself, in their order, and none may be lost.

use super::{Failure, Figures, Phase, Run, Selector, Window, latencies, received, requests::Text, sent};
use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use std::{
    collections::VecDeque,
    net::{Ipv4Addr, UdpSocket},
    time::Instant,
};

struct Client<'a> {
    socket: UdpSocket,
    text: &'a Text,
    depth: usize,
    /// answered + times.len() have been sent
    answered: u64,
    /// When each that waits for its answer was sent.
    times: VecDeque<Instant>,
}

impl Client<'_> {
    /// As many are under way as should be, or as many as the socket takes.
    fn pump(&mut self, now: Instant) -> Result<(), Failure> {
        while self.times.len() < self.depth {
            let request = self.text.request(self.answered + self.times.len() as u64);
            let Some(length) = sent(self.socket.send(request))? else { return Ok(()) };
            if length < request.len() {
                return Err("the socket took a part only".into());
            }
            self.times.push_back(now);
        }
        Ok(())
    }

    /// All that is there.
    fn pull(&mut self, buf: &mut [u8], latencies: &mut Histogram<u64>) -> Result<(), Failure> {
        while let Some(length) = received(self.socket.recv(buf))? {
            let sent = self.times.pop_front().ok_or("more came back than was sent")?;
            if buf[..length] != *self.text.request(self.answered) {
                return Err("a wrong reply, or one was lost before it".into());
            }
            self.answered += 1;
            let _ = latencies.record(sent.elapsed().as_nanos() as u64);
        }
        Ok(())
    }
}

pub(super) fn run(text: &Text, depth: usize, run: Run) -> Result<Figures, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, run.port))?;
    socket.set_nonblocking(true)?;
    let mut selector = Selector::new()?;
    selector.add(&socket, 0, EventFlags::IN | EventFlags::ET)?;
    let mut client = Client { socket, text, depth, answered: 0, times: VecDeque::with_capacity(depth) };
    let mut window = Window::new(run);
    let (mut times, mut buf) = (latencies(), vec![0; 64 << 10]);
    loop {
        client.pump(Instant::now())?;
        if selector.wait(false)?.next().is_some() {
            client.pull(&mut buf, &mut times)?;
        }
        match window.look(client.answered as f64)? {
            Phase::GoOn => {}
            Phase::Warm => times.reset(),
            Phase::Over(figures) => return Ok(figures.with_latency(&times)),
        }
    }
}
