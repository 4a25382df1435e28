//! Rate limits, in virtual time, and once on real sockets.
#![cfg(feature = "sim")]

mod common;

use common::until;
use mainspring::{
    Context, Key, Limit, Listen, Outcome, Protocol, Reactor, Reason, Terminator,
    testing::{Actor, Scene},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Log {
    keys: Vec<Key>,
    received: usize,
    frames: Vec<Vec<u8>>,
    limits: Vec<Limit>,
    writable: usize,
    eof: usize,
    closed: Vec<String>,
}

/// Sets what it is told, sends what it is told, writes down what it is called with.
#[derive(Clone, Default)]
struct Station {
    reading: Option<u64>,
    writing: Option<u64>,
    sends: usize,
    closes: bool,
    half_closes: bool,
    idle: Option<Duration>,
    stalled: Option<Duration>,
    is_lined: bool,
}

impl Protocol<Log> for Station {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
        log.keys.push(ctx.key);
        if self.reading.is_some() {
            ctx.set_read_rate(self.reading);
        }
        if self.writing.is_some() {
            ctx.set_write_rate(self.writing);
        }
        ctx.set_idle_timeout(self.idle);
        ctx.set_stall_timeout(self.stalled);
        if self.is_lined {
            ctx.set_terminator(Terminator::line(100));
        }
        ctx.send(vec![b'x'; self.sends]);
        if self.closes {
            ctx.close();
        }
        if self.half_closes {
            ctx.half_close();
        }
        Ok(())
    }

    fn received(&mut self, _: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.received += bytes.len();
        Ok(())
    }

    fn frame(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, frame: &[u8]) -> Outcome {
        log.frames.push(frame.to_vec());
        if frame == b"upgrade" {
            ctx.upgrade(Station { sends: self.sends, ..Station::default() });
        }
        Ok(())
    }

    fn writable(&mut self, _: &mut Context<'_, Log>, log: &mut Log) -> Outcome {
        log.writable += 1;
        Ok(())
    }

    fn exceeded(&mut self, _: &mut Context<'_, Log>, log: &mut Log, limit: Limit) -> Outcome {
        log.limits.push(limit);
        Ok(())
    }

    fn eof(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, _: &[u8]) -> Outcome {
        log.eof += 1;
        ctx.close();
        Ok(())
    }

    fn closed(&mut self, _: &mut Context<'_, Log>, log: &mut Log, why: Reason) {
        log.closed.push(why.to_string());
    }
}

/// A server with one client.
fn stage(station: Station) -> (Scene<Log>, Actor) {
    let (mut scene, clients) = crowd(station, Listen::new(), 1);
    (scene, clients[0])
}

fn crowd(station: Station, options: Listen, clients: usize) -> (Scene<Log>, Vec<Actor>) {
    let mut scene = Scene::new(1, Log::default());
    scene.net().listen_with("10.0.0.1:80", options, move |_, _, _| Ok(station.clone())).expect("a free port");
    let clients = (0..clients).map(|_| scene.dials("10.0.0.1:80")).collect();
    scene.settles();
    (scene, clients)
}

/// `bytes` after `time` at `rate`: the rate and a quarter of a second's worth, no more, less by no more than the 20 ms'
/// worth that is waited for.
#[track_caller]
fn assert_rate(bytes: usize, rate: usize, time: Duration) {
    let most = (rate as u128 * time.as_millis() / 1000) as usize + rate / 4;
    assert!((most - rate / 50..=most).contains(&bytes), "{bytes} bytes instead of {most} after {time:?}");
}

#[test]
fn writing_keeps_to_its_rate_at_every_moment() {
    let (mut scene, client) = stage(Station { writing: Some(10_000), sends: 60_000, ..Station::default() });
    let mut heard = scene.heard(client);
    assert_eq!(heard, 2_500, "the burst leaves at once");
    for step in 1..=500 {
        scene.passes(10 * MILLI);
        heard += scene.takes(client).len();
        let _ = heard;
        assert_rate(total(&mut heard, 0), 10_000, step * 10 * MILLI);
    }
}

fn total(sum: &mut usize, more: usize) -> usize {
    *sum += more;
    *sum
}
