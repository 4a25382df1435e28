//! Rate limits, in virtual time, and on real sockets once for each kind.

mod each;
mod shared;

use mainspring::{
    Context, Key, Limit, Listen, Outcome, Protocol, Reason, Terminator,
    testing::{Actor, Scene},
};
use std::{collections::BTreeMap, time::Duration};

const MILLI: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Log {
    keys: Vec<Key>,
    received: usize,
    received_by: BTreeMap<Key, usize>,
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

    fn received(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.received += bytes.len();
        *log.received_by.entry(ctx.key).or_default() += bytes.len();
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

/// Counts what it gets, and becomes another of its kind each time.
struct Shifter {
    says: &'static [u8],
}

impl Protocol<Log> for Shifter {
    fn connected(&mut self, ctx: &mut Context<'_, Log>, _: &mut Log) -> Outcome {
        ctx.send(self.says);
        Ok(())
    }

    fn received(&mut self, ctx: &mut Context<'_, Log>, log: &mut Log, bytes: &[u8]) -> Outcome {
        log.received += bytes.len();
        ctx.upgrade(Self { says: self.says });
        Ok(())
    }
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
