//! When measuring begins and ends, and what was used in between.

use super::{Failure, Figures, Latency, Run};
use crate::machine::{cpu_of, own_cpu};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Without any progress for this long, it is over.
const STALLED: Duration = Duration::from_secs(8);

/// Beyond the time that was asked for: the servers that are slow to start with.
const GRACE: Duration = Duration::from_secs(60);

pub(super) struct Window {
    run: Run,
    began: Instant,
    start: Option<Start>,
    last: (f64, Instant),
}

struct Start {
    at: Instant,
    done: f64,
    server_cpu: f64,
    own_cpu: f64,
}

pub(super) enum Phase {
    GoOn,
    /// Measuring begins now: forget the latencies so far.
    Warm,
    Over(Figures),
}

impl Window {
    pub(super) fn new(run: Run) -> Self {
        let now = Instant::now();
        Self { run, began: now, start: None, last: (0.0, now) }
    }

    /// To be called in each turn, with what was done since the beginning.
    pub(super) fn look(&mut self, done: f64) -> Result<Phase, Failure> {
        let now = Instant::now();
        if done > self.last.0 {
            self.last = (done, now);
        } else if now - self.last.1 > STALLED {
            return Err(format!("stalled: no reply for {} s, after {done}", STALLED.as_secs()).into());
        }
        let warm = Duration::from_secs_f64(self.run.warm_secs);
        let most = warm + Duration::from_secs_f64(self.run.secs);
        if now - self.began > most + GRACE {
            return Err("it took a minute longer than it should".into());
        }
        match &self.start {
            None if now - self.began >= warm => {
                self.start = Some(Start { at: now, done, server_cpu: cpu_of(self.run.pid)?, own_cpu: own_cpu() });
                Ok(Phase::Warm)
            }
            Some(start) if now - self.began >= most => {
                let requests = done - start.done;
                if requests <= 0.0 {
                    return Err("no replies in the measured time".into());
                }
                Ok(Phase::Over(Figures {
                    requests,
                    secs: (now - start.at).as_secs_f64(),
                    server_cpu: cpu_of(self.run.pid)? - start.server_cpu,
                    own_cpu: own_cpu() - start.own_cpu,
                    latency: None,
                    memory: None,
                }))
            }
            _ => Ok(Phase::GoOn),
        }
    }
}

impl Figures {
    pub(super) fn with_latency(mut self, times: &Histogram<u64>) -> Self {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        self.latency = Some(Latency { p50: at(0.5), p99: at(0.99) });
        self
    }
}
