//! The output queue against one list of bytes and producers.

use super::Tape;
use mainspring::{
    Produced,
    inside::{Output, SLICES_MAX},
};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    rc::Rc,
    sync::LazyLock,
};

/// Of one run; more does not find more.
const BYTES_MAX: usize = 300 << 10;

/// What is sent, again and again: long and irregular, so that a wrong place shows.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..100_003_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect());

/// What a producer does when it is asked.
#[derive(Clone, Debug)]
enum Step {
    Says(Vec<u8>, Produced),
    Fails,
}

enum Item {
    Bytes(Vec<u8>),
    Producer { plan: VecDeque<Step>, parked: bool },
}

#[derive(Default)]
struct Pair {
    output: Output,
    model: VecDeque<Item>,
    /// Bytes so far.
    made: usize,
    is_broken: bool,
}

/// Queueing, producing, waking and writing, in any order; at the end all of it leaves.
pub fn output(data: &[u8]) {
    let (mut tape, mut pair) = (Tape::new(data), Pair::default());
    while !tape.is_over() && !pair.is_broken {
        pair.step(&mut tape);
        pair.check();
    }
    while !pair.is_broken && !pair.model.is_empty() {
        pair.wake();
        pair.write(usize::MAX);
        pair.check();
    }
}

impl Pair {
    fn step(&mut self, tape: &mut Tape<'_>) {
        match tape.below(8) {
            0 | 1 => {
                let bytes = self.bytes(tape);
                self.output.push(&bytes);
                self.expect(bytes);
            }
            2 => {
                let bytes = self.bytes(tape);
                let sent = tape.size().min(bytes.len());
                self.expect(bytes[sent..].to_vec());
                self.output.push_vec(bytes, sent);
            }
            3 => {
                let bytes = self.bytes(tape);
                self.output.push_shared(&Rc::from(&bytes[..]));
                self.expect(bytes);
            }
            4 => {
                let mut plan: VecDeque<Step> = (0..tape.below(5)).map(|_| self.plan(tape)).collect();
                self.model.push_back(Item::Producer { plan: plan.clone(), parked: false });
                self.output.push_producer(Box::new(move |out: &mut Vec<u8>| match plan.pop_front() {
                    Some(Step::Says(bytes, produced)) => {
                        out.extend_from_slice(&bytes);
                        Ok(produced)
                    }
                    Some(Step::Fails) => Err(io::ErrorKind::InvalidData.into()),
                    None => Ok(Produced::Done),
                }));
            }
            5 => self.wake(),
            _ => self.write(tape.size()),
        }
    }

    fn plan(&mut self, tape: &mut Tape<'_>) -> Step {
        let produced = match tape.below(16) {
            0..8 => Produced::More,
            8..12 => Produced::NotYet,
            12..15 => Produced::Done,
            _ => return Step::Fails,
        };
        Step::Says(self.bytes(tape), produced)
    }

    fn bytes(&mut self, tape: &mut Tape<'_>) -> Vec<u8> {
        let wanted = match tape.below(32) {
            0 => (64 << 10) - 2 + tape.below(5),
            1..4 => tape.below(256) << 4,
            4 => 0,
            _ => tape.below(256),
        };
        let length = wanted.min(BYTES_MAX - self.made);
        let from = self.made % (TEXT.len() - length);
        self.made += length;
        TEXT[from..from + length].to_vec()
    }

    fn expect(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.model.push_back(Item::Bytes(bytes));
        }
    }

    fn wake(&mut self) {
        self.output.wake();
        for item in &mut self.model {
            if let Item::Producer { parked, .. } = item {
                *parked = false;
            }
        }
    }

    /// As a connection does: pulls as long as it may, then writes once, of which `most` bytes are taken.
    fn write(&mut self, most: usize) {
        while self.output.wants_pull() {
            self.pull();
            if self.is_broken {
                return;
            }
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.output.slices(&mut slices, usize::MAX);
        let offered = slices[..count].iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
        assert!(slices[..count].iter().all(|slice| !slice.is_empty()), "an empty slice is a system call for nothing");
        let ready = self.front().concat();
        assert!(ready.starts_with(&offered), "what is offered is not what comes next");
        assert_eq!(offered.is_empty(), ready.is_empty());
        assert!(offered.len() == ready.len() || count == SLICES_MAX, "more could have been offered");
        let taken = offered.len().min(most);
        self.output.advance(taken);
        self.take(taken);
    }

    fn pull(&mut self) {
        let expected = self.pull_model();
        match (self.output.pull(), expected) {
            (Ok(()), Ok(())) => {}
            (Err(None), Err(true)) | (Err(Some(_)), Err(false)) => self.is_broken = true,
            (got, expected) => panic!("a producer's pull: broken {}, expected {expected:?}", got.is_err()),
        }
    }

    /// `Err`: whether it made no progress.
    fn pull_model(&mut self) -> Result<(), bool> {
        let Some(Item::Producer { mut plan, parked: false }) = self.model.pop_front() else {
            panic!("it would pull something that is no producer, or a parked one");
        };
        let mut made = Vec::new();
        let rest = loop {
            match plan.pop_front() {
                None => break None,
                Some(Step::Fails) => return Err(false),
                Some(Step::Says(bytes, produced)) => {
                    let is_empty = bytes.is_empty();
                    made.extend(bytes);
                    match produced {
                        Produced::Done => break None,
                        Produced::NotYet => break Some(true),
                        Produced::More if is_empty => return Err(true),
                        Produced::More if made.len() >= 64 << 10 => break Some(false),
                        Produced::More => {}
                    }
                }
            }
        };
        if let Some(parked) = rest {
            self.model.push_front(Item::Producer { plan, parked });
        }
        if !made.is_empty() {
            self.model.push_front(Item::Bytes(made));
        }
        Ok(())
    }

    /// What stands before the first producer.
    fn front(&self) -> Vec<&[u8]> {
        let bytes = self.model.iter().map_while(|item| match item {
            Item::Bytes(bytes) => Some(&bytes[..]),
            Item::Producer { .. } => None,
        });
        bytes.collect()
    }

    fn take(&mut self, mut taken: usize) {
        while taken > 0 {
            let Some(Item::Bytes(bytes)) = self.model.front_mut() else { panic!("more was taken than there was") };
            if taken < bytes.len() {
                bytes.drain(..taken);
                return;
            }
            taken -= bytes.len();
            self.model.pop_front();
        }
    }

    fn check(&self) {
        let queued = self.model.iter().map(|item| if let Item::Bytes(bytes) = item { bytes.len() } else { 0 }).sum::<usize>();
        if self.is_broken {
            return; // it stays in front until the connection has ended
        }
        assert_eq!(self.output.queued(), queued);
        let parked = match self.model.front() {
            Some(Item::Producer { parked, .. }) => Some(*parked),
            _ => None,
        };
        assert_eq!(self.output.is_empty(), self.model.is_empty());
        assert_eq!(self.output.is_parked(), parked == Some(true));
        assert_eq!(self.output.wants_pull(), parked == Some(false));
    }
}
