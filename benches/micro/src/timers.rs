//! Timers among many others that are set, beside std's heap.

use crate::{Failure, Random, median, timed};
use mainspring::Reactor;
use std::{cmp::Reverse, collections::BinaryHeap, fs, time::Duration};

const LIVE: [usize; 3] = [1_000, 100_000, 1_000_000];
const PASSES: usize = 15;
const OPERATIONS: usize = 1_000;

pub(crate) fn table() -> Result<String, Failure> {
    let mut text = "### Timers: ns each, by how many others are set\n\nDeadlines drawn at random within an hour. The heap: a push and a \
                    pop of a deadline and a number, on std's `BinaryHeap` of that size.\n\n\
                    | set | set and cancel | set and fire | heap | memory of each, set | after cancelling |\n|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for live in LIVE {
        text += &row(live)?;
    }
    Ok(text)
}

fn row(live: usize) -> Result<String, Failure> {
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let mut delay = move || Duration::from_nanos(600_000_000_000 + random.below(3_000_000_000) * 1_000);
    let mut heap = BinaryHeap::new();
    let (mut now, mut number) = (0, 0);
    for _ in 0..live {
        number += 1;
        heap.push(Reverse((delay().as_nanos() as u64, number)));
    }
    let mut reactor = Reactor::<u64>::new()?;
    let empty = dirty_bytes()?;
    let others: Vec<_> = (0..live).map(|_| reactor.net().after(delay(), |_, fired| *fired += 1)).collect();
    let full = dirty_bytes()? - size_of_val(&others[..]) as f64;
    let (mut cancelled, mut fired, mut heaped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let (took, ()) = timed(|| {
            for _ in 0..OPERATIONS {
                let timer = reactor.net().after(delay(), |_, fired| *fired += 1);
                reactor.net().cancel(timer);
            }
        });
        cancelled.push(took / OPERATIONS as f64);
        let mut count = 0;
        let (took, turned) = timed(|| {
            for _ in 0..OPERATIONS {
                reactor.net().after(Duration::ZERO, |_, fired| *fired += 1);
            }
            reactor.turn(&mut count, Duration::ZERO)
        });
        turned?;
        if count != OPERATIONS as u64 {
            return Err(format!("{count} of {OPERATIONS} timers fired").into());
        }
        fired.push(took / OPERATIONS as f64);
        let (took, ()) = timed(|| {
            for _ in 0..OPERATIONS {
                number += 1;
                heap.push(Reverse((now + delay().as_nanos() as u64, number)));
                if let Some(Reverse((deadline, _))) = heap.pop() {
                    now = deadline;
                }
            }
        });
        heaped.push(took / OPERATIONS as f64);
    }
    for &other in &others {
        reactor.net().cancel(other);
    }
    reactor.turn(&mut 0, Duration::ZERO)?;
    let after = dirty_bytes()? - size_of_val(&others[..]) as f64;
    // Of a few timers, the pages of everything else are more.
    let of_each = |bytes: f64| match live {
        10_000.. => format!("{:.0} bytes", (bytes - empty).max(0.0) / live as f64),
        _ => "–".into(),
    };
    Ok(format!(
        "| {live} | {:.0} | {:.0} | {:.0} | {} | {} |\n",
        median(&mut cancelled),
        median(&mut fired),
        median(&mut heaped),
        of_each(full),
        of_each(after)
    ))
}

/// Memory that this process has written and shares with nobody.
fn dirty_bytes() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).ok_or("no Private_Dirty in smaps_rollup")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
