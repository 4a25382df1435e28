//! Requests and replies: echo and lines.

use super::{Failure, Figures, Phase, Random, Run, Selector, Window, latencies, received, sent};
use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::TcpStream,
    time::Instant,
};

/// What is sent, and expected back: a cycle of requests without end.
pub(super) struct Text {
    /// The cycle twice, so that no slice need wrap.
    bytes: Vec<u8>,
    cycle: u64,
    /// Where each request of the first cycle ends.
    ends: Vec<u64>,
    depth: usize,
    is_lines: bool,
}

pub(super) fn echo(size: usize, depth: usize) -> Text {
    Text::new(depth, size, |random| {
        let mut request = vec![0; size];
        request.fill_with(|| b' ' + random.below(94) as u8);
        request
    })
}

/// Of half of `size` to half as much again, CRLF included.
pub(super) fn lines(size: usize, depth: usize) -> Text {
    let mut text = Text::new(depth, size, |random| {
        let mut line = vec![0; size / 2 + random.below(size + 1) - 2];
        line.fill_with(|| b' ' + random.below(94) as u8);
        line.extend_from_slice(b"\r\n");
        line
    });
    text.is_lines = true;
    text
}

impl Text {
    fn new(depth: usize, size: usize, mut request: impl FnMut(&mut Random) -> Vec<u8>) -> Self {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        while bytes.len() < (2 * size * depth).max(1 << 19) {
            bytes.extend(request(&mut random));
            ends.push(bytes.len() as u64);
        }
        let cycle = bytes.len() as u64;
        bytes.extend_from_within(..);
        Self { bytes, cycle, ends, depth, is_lines: false }
    }

    /// Where this many requests end.
    fn end(&self, requests: u64) -> u64 {
        let Some(last) = requests.checked_sub(1) else { return 0 };
        let (cycles, index) = (last / self.ends.len() as u64, last % self.ends.len() as u64);
        cycles * self.cycle + self.ends[index as usize]
    }

    /// The one of this number, counted from 0.
    pub(super) fn request(&self, number: u64) -> &[u8] {
        self.slice(self.end(number), self.end(number + 1))
    }

    /// At most a cycle of it.
    fn slice(&self, from: u64, to: u64) -> &[u8] {
        let start = (from % self.cycle) as usize;
        &self.bytes[start..start + (to - from) as usize]
    }

    fn is(&self, from: u64, bytes: &[u8]) -> bool {
        let parts = bytes.chunks(self.cycle as usize);
        (0..).zip(parts).all(|(cycles, part)| {
            let from = from + cycles * self.cycle;
            self.slice(from, from + part.len() as u64) == part
        })
    }
}

/// One connection. All of its places are counted from where it begins in the text: at request `skipped`, byte `base`.
struct Client<'a> {
    stream: &'a TcpStream,
    skipped: u64,
    base: u64,
    /// In bytes. received <= sent <= goal: what may be sent now
    sent: u64,
    goal: u64,
    received: u64,
    /// In requests. answered <= complete (sent to the end) <= issued (within `goal`)
    issued: u64,
    complete: u64,
    answered: u64,
    /// Where the next request to be complete ends, and the next one to be answered.
    complete_end: u64,
    answered_end: u64,
    /// When each request that waits for its answer was sent.
    times: VecDeque<Instant>,
}

impl<'a> Client<'a> {
    fn new(index: usize, stream: &'a TcpStream, text: &Text) -> Self {
        let skipped = (index as u64 * 37) % text.ends.len() as u64;
        let base = text.end(skipped);
        let first = text.end(skipped + 1) - base;
        Self {
            stream,
            skipped,
            base,
            sent: 0,
            goal: 0,
            received: 0,
            issued: 0,
            complete: 0,
            answered: 0,
            complete_end: first,
            answered_end: first,
            times: VecDeque::with_capacity(text.depth + 1),
        }
    }

    /// As many requests are under way as should be. A batch of lines is cut at a random place; its rest follows at once, or
    /// after the next reply.
    fn pump(&mut self, text: &Text, random: &mut Random, now: Instant) -> Result<(), Failure> {
        self.issued = self.answered + text.depth as u64;
        self.goal = text.end(self.skipped + self.issued) - self.base;
        if self.sent >= self.goal {
            return Ok(());
        }
        if text.is_lines {
            let cut = self.goal.saturating_sub(1 + random.below(64) as u64).max(self.sent);
            if !self.push(text, cut, now)? || (self.complete > self.answered && random.below(2) == 0) {
                return Ok(());
            }
        }
        self.push(text, self.goal, now)?;
        Ok(())
    }

    /// Whether the socket took all up to there.
    fn push(&mut self, text: &Text, to: u64, now: Instant) -> Result<bool, Failure> {
        while self.sent < to {
            let bytes = text.slice(self.base + self.sent, self.base + to);
            let Some(length) = sent(self.stream.write(bytes))? else { return Ok(false) };
            self.sent += length as u64;
            while self.complete_end <= self.sent {
                self.complete += 1;
                self.complete_end = text.end(self.skipped + self.complete + 1) - self.base;
                self.times.push_back(now);
            }
        }
        Ok(true)
    }

    /// How many requests were answered.
    fn pull(&mut self, text: &Text, buf: &mut [u8], times: &mut Histogram<u64>) -> Result<u64, Failure> {
        let before = self.answered;
        while let Some(length) = received(self.stream.read(buf))? {
            let now = Instant::now();
            if !text.is(self.base + self.received, &buf[..length]) {
                return Err("a wrong reply".into());
            }
            self.received += length as u64;
            if self.received > self.sent {
                return Err("more came back than was sent".into());
            }
            while self.answered_end <= self.received {
                self.answered += 1;
                self.answered_end = text.end(self.skipped + self.answered + 1) - self.base;
                let sent = self.times.pop_front().ok_or("a reply before its request was complete")?;
                let _ = times.record((now - sent).as_nanos() as u64);
            }
            if text.is_lines
                && self.complete == self.answered
                && self.received > text.end(self.skipped + self.complete) - self.base
            {
                return Err("a part of an incomplete line came back".into());
            }
            if length < buf.len() {
                break;
            }
        }
        Ok(self.answered - before)
    }
}

pub(super) fn run(text: Text, streams: &[TcpStream], run: Run) -> Result<Figures, Failure> {
    let mut selector = Selector::new()?;
    let mut random = Random(0xDEAD_BEEF_1234_5677);
    let mut clients: Vec<Client<'_>> = (0..).zip(streams).map(|(index, stream)| Client::new(index, stream, &text)).collect();
    for (index, stream) in streams.iter().enumerate() {
        selector.add(stream, index, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
    }
    let mut window = Window::new(run);
    let (mut done, mut times, mut buf) = (0, latencies(), vec![0; 256 << 10]);
    // One client that sleeps would measure how long it takes to wake.
    let spins = streams.len() == 1;
    for client in &mut clients {
        client.pump(&text, &mut random, Instant::now())?;
    }
    loop {
        for (index, ready) in selector.wait(spins)? {
            let client = &mut clients[index];
            if ready.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                done += client.pull(&text, &mut buf, &mut times)?;
            }
            client.pump(&text, &mut random, Instant::now())?;
        }
        match window.look(done as f64)? {
            Phase::GoOn => {}
            Phase::Warm => times.reset(),
            Phase::Over(_) if clients.iter().any(|client| client.answered == 0) => {
                return Err("a connection was never answered".into());
            }
            Phase::Over(figures) => return Ok(figures.with_latency(&times)),
        }
    }
}
