//! 64 bytes to 1,000 members, beside a loop that makes the same writes.

use crate::{Failure, median, timed};
use mainspring::Reactor;
use rustix::process::{Resource, getrlimit, setrlimit};
use server::{Member, Room};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

const MEMBERS: usize = 1_000;
const SAID: [u8; 64] = [b'x'; 64];
const PASSES: usize = 61;

pub(crate) fn table() -> Result<String, Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let mut room = Room::default();
    let mut reactor = Reactor::new()?;
    let listener = reactor.net().listen("127.0.0.1:0", || Member)?;
    let at = reactor.net().local(listener).expect("a listener that was just opened has an address").to_string();
    let mut members = Vec::new();
    for n in 1..=MEMBERS {
        members.push(client(&at)?);
        for _ in 0..100 {
            if room.members.len() == n {
                break;
            }
            reactor.turn(&mut room, Duration::from_millis(100))?;
        }
    }
    let raw_listener = TcpListener::bind("127.0.0.1:0")?;
    let raw_at = raw_listener.local_addr()?.to_string();
    let (mut raw_members, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..MEMBERS {
        raw_members.push(client(&raw_at)?);
        let (stream, _) = raw_listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        raw.push(stream);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..PASSES {
        members[0].write_all(&SAID)?;
        let (took, turned) = timed(|| reactor.turn(&mut room, None));
        turned?;
        ours.push(took / MEMBERS as f64);
        hear(&mut members)?;
        raw_members[0].write_all(&SAID)?;
        let (took, written) = timed(|| -> Result<(), Failure> {
            let mut said = [0; 64];
            raw[0].read_exact(&mut said)?;
            for stream in &mut raw {
                if stream.write(&said)? < said.len() {
                    return Err("a socket took a part only".into());
                }
            }
            Ok(())
        });
        written?;
        theirs.push(took / MEMBERS as f64);
        hear(&mut raw_members)?;
    }
    let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
    Ok(format!(
        "### Broadcast: ns of CPU time for each delivery, of 64 bytes to {MEMBERS} members\n\n| `net.send` to each | a loop that makes the \
         same writes | ratio |\n|--:|--:|--:|\n| {:.0} | {:.0} | {:.3} |\n",
        median(&mut ours),
        median(&mut theirs),
        median(&mut ratios)
    ))
}

fn client(at: &str) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

fn hear(members: &mut [TcpStream]) -> Result<(), Failure> {
    for member in members {
        let mut heard = [0; 64];
        member.read_exact(&mut heard)?;
        if heard != SAID {
            return Err("a wrong reply".into());
        }
    }
    Ok(())
}
