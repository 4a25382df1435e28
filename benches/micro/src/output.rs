//! Many small sends within one callback.

use crate::{Failure, median, timed};
use mainspring::{Context, Outcome, Protocol, Reactor};
use std::{
    hint::black_box,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const SENDS: usize = 4_096;
const PIECE: [u8; 16] = *b"0123456789abcde\n";
const PASSES: usize = 101;

/// Sends many pieces for whatever it gets, and notes how long the sending took.
struct Chatty;

impl Protocol<Vec<f64>> for Chatty {
    fn received(&mut self, ctx: &mut Context<'_, Vec<f64>>, times: &mut Vec<f64>, _: &[u8]) -> Outcome {
        let (took, ()) = timed(|| {
            for _ in 0..SENDS {
                ctx.send(black_box(&PIECE));
            }
        });
        times.push(took / SENDS as f64);
        Ok(())
    }
}

pub(crate) fn table() -> Result<String, Failure> {
    let mut reactor = Reactor::new()?;
    let listener = reactor.net().listen("127.0.0.1:0", || Chatty)?;
    let at = reactor.net().local(listener).expect("a listener that was just opened has an address").to_string();
    let mut client = TcpStream::connect(at)?;
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut heard = vec![0; SENDS * PIECE.len()];
    for pass in 1..=PASSES {
        client.write_all(b"x")?;
        for _ in 0..100 {
            if ours.len() == pass {
                break;
            }
            reactor.turn(&mut ours, Duration::from_millis(100))?;
        }
        let mut length = 0;
        while length < heard.len() {
            length += client.read(&mut heard[length..])?;
            reactor.turn(&mut ours, Duration::ZERO)?;
        }
        if heard.chunks(PIECE.len()).any(|piece| piece != PIECE) {
            return Err("a wrong reply".into());
        }
        let mut buf: Vec<u8> = Vec::with_capacity(heard.len());
        let (took, ()) = timed(|| {
            for _ in 0..SENDS {
                buf.extend_from_slice(black_box(&PIECE));
            }
        });
        theirs.push(took / SENDS as f64);
    }
    Ok(format!(
        "### Output: ns each, of {SENDS} sends of {} bytes within a callback\n\n| `ctx.send` | `Vec::extend_from_slice` |\n|--:|--:|\n| {:.1} | {:.1} |\n",
        PIECE.len(),
        median(&mut ours),
        median(&mut theirs)
    ))
}
