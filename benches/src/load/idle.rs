//! Many connections that are open and silent: what memory they take, and whether they slow the others.

use super::{Failure, Figures, Memory, Run, dial, dial_all, received, requests};
use crate::machine::{descriptors_of, dirty_bytes_of};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

/// So that the server is at rest.
const REST: Duration = Duration::from_millis(200);

/// How long opening all of them may take.
const OPENING_MAX: Duration = Duration::from_secs(60);

pub(super) fn run(connections: usize, run: Run) -> Result<Figures, Failure> {
    // What the first connection alone costs is not of each.
    let first = [dial(run.port, Ipv4Addr::LOCALHOST)?];
    touch(&first)?;
    sleep(REST);
    let (descriptors, empty) = (descriptors_of(run.pid)?, dirty_bytes_of(run.pid)?);
    let mut idle = Vec::with_capacity(connections);
    let began = Instant::now();
    for number in 0..connections {
        // An address has 28,000 ports.
        let network = u8::try_from(1 + number / 20_000)?;
        idle.push(dial(run.port, Ipv4Addr::new(127, 1, network, 2))?);
        if number % 64 == 63 || number + 1 == connections {
            wait_for_descriptors(run.pid, descriptors + number as u64 + 1, began)?;
        }
    }
    sleep(REST);
    let fresh = dirty_bytes_of(run.pid)?;
    for some in idle.chunks(256) {
        touch(some)?;
    }
    sleep(REST);
    let used = dirty_bytes_of(run.pid)?;
    let mut figures = requests::run(requests::echo(64, 1), &dial_all(64, run)?, run)?;
    let of_each = |bytes: f64| (bytes - empty) / connections.max(1) as f64;
    figures.memory = Some(Memory { fresh: of_each(fresh), used: of_each(used) });
    Ok(figures)
}

fn wait_for_descriptors(pid: u32, wanted: u64, began: Instant) -> Result<(), Failure> {
    loop {
        let open = descriptors_of(pid)?;
        if open >= wanted {
            return Ok(());
        }
        if began.elapsed() > OPENING_MAX {
            return Err(format!("the server has accepted only {open} connections in {} s", OPENING_MAX.as_secs()).into());
        }
        sleep(Duration::from_micros(200));
    }
}

/// 64 bytes there and back on each, all at once.
fn touch(streams: &[TcpStream]) -> Result<(), Failure> {
    for mut stream in streams {
        stream.write_all(&[b'x'; 64])?;
    }
    for mut stream in streams {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let (mut heard, mut buf) = (0, [0; 64]);
        while heard < 64 {
            heard += received(stream.read(&mut buf[heard..]))?.ok_or("no reply in ten seconds")?;
        }
        if buf != [b'x'; 64] {
            return Err("a wrong reply".into());
        }
        stream.set_nonblocking(true)?;
    }
    Ok(())
}
