//! What happens by chance, and what fails on purpose. Each question has a name, and its answer depends on that and on the
//! seed alone. No fault is carried out here: the code that asks does that.

use super::{
    super::{errno::Errno, trace::Trace},
    EndId, HostId, Network,
};
use crate::time::nanos;
use fastrand::Rng;
use std::{collections::BTreeSet, time::Duration};

/// What may happen by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Chance {
    Delay,
    ShortRead,
    ShortWrite,
    Reset,
    Spurious,
    Refusal,
    Silence,
    Lookup,
    Loss,
    Double,
    Overtake,
}

/// How many kinds there are.
pub(super) const CHANCES: usize = 11;

/// A question of chance: about which end, about what, and how often it was asked before. The answer depends on these and the
/// seed alone, so that leaving one fault out changes no other.
pub(crate) type Question = (EndId, Chance, u32);

/// In a form that a command line can carry: `10000002a.ShortRead.7`.
pub(crate) fn question_text(&(id, chance, number): &Question) -> String {
    format!("{id:x}.{chance:?}.{number}")
}

/// The reverse.
pub(crate) fn question_of(text: &str) -> Option<Question> {
    let mut parts = text.split('.');
    let id = EndId::from_str_radix(parts.next()?, 16).ok()?;
    let name = parts.next()?;
    use Chance::{Delay, Double, Lookup, Loss, Overtake, Refusal, Reset, ShortRead, ShortWrite, Silence, Spurious};
    let all = [Delay, ShortRead, ShortWrite, Reset, Spurious, Refusal, Silence, Lookup, Loss, Double, Overtake];
    let chance = all.into_iter().find(|chance| format!("{chance:?}") == name)?;
    let number = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((id, chance, number))
}

/// Which faults may strike.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mercy {
    #[default]
    None,
    AllBut(BTreeSet<Question>),
}

/// One operation fails, or all from there on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Torture {
    pub(crate) at: u64,
    pub(crate) errno: Errno,
    pub(crate) is_persistent: bool,
}

/// Time passes when an operation fails on purpose: one that is tried again at once would otherwise be tried for ever.
const FAILURE_TAKES: Duration = Duration::from_millis(10);

impl Network {
    /// The answer to the next question of this kind: its own generator.
    fn ask(&mut self, id: EndId, chance: Chance) -> (Question, Rng) {
        let of_end = self.ends.get_mut(&id).map(|end| &mut end.asked);
        let asked = of_end.or_else(|| self.boxes.get_mut(&id).map(|socket| &mut socket.asked));
        let number = asked.map_or(0, |asked| {
            let asked = &mut asked[chance as usize];
            *asked += 1;
            *asked - 1
        });
        let of_id = mix(mix(self.seed) ^ id);
        let mixed = mix(of_id ^ (chance as u64) << 32 ^ u64::from(number));
        ((id, chance, number), Rng::with_seed(mixed))
    }

    /// Whether a fault strikes; then a generator for how.
    pub(super) fn strikes(&mut self, id: EndId, chance: Chance, thousandths: u32) -> Option<Rng> {
        let (question, rng) = self.draws(id, chance, thousandths)?;
        if let Some(end) = self.ends.get(&id) {
            let line = format!("{} {} {chance:?} towards {}", Trace::stamp(self.now), end.local, end.remote);
            self.struck.push((question, line));
        } else if let Some(socket) = self.boxes.get(&id) {
            let line = format!("{} {} {chance:?} of datagrams", Trace::stamp(self.now), socket.local);
            self.struck.push((question, line));
        }
        self.note_end(id, format_args!("meets a fault by chance, {chance:?}, towards"));
        Some(rng)
    }

    /// The same, and nobody has seen it yet.
    pub(super) fn draws(&mut self, id: EndId, chance: Chance, thousandths: u32) -> Option<(Question, Rng)> {
        if thousandths == 0 {
            return None;
        }
        let (question, mut rng) = self.ask(id, chance);
        let is_spared = match &self.mercy {
            Mercy::None => false,
            Mercy::AllBut(chosen) => !chosen.contains(&question),
        };
        (rng.u32(0..1000) < thousandths && !is_spared).then_some((question, rng))
    }

    /// Before each operation of a host: whether it is the one that is to fail.
    pub(crate) fn operate(&mut self, host: HostId, what: &str) -> Result<(), Errno> {
        let machine = &mut self.machines[host];
        let number = machine.operations;
        machine.operations += 1;
        match machine.torture {
            Some(torture) if number == torture.at || (torture.is_persistent && number > torture.at) => {
                let errno = torture.errno;
                self.reach(self.now + FAILURE_TAKES);
                self.note(host, format_args!("{what} fails on purpose: {errno:?}"));
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn delay(&mut self, from: EndId) -> Duration {
        match nanos(self.weather.jitter) {
            0 => self.weather.latency,
            jitter => {
                let by_chance = self.ask(from, Chance::Delay).1.u64(0..jitter);
                self.weather.latency.saturating_add(Duration::from_nanos(by_chance))
            }
        }
    }

    /// By how much a wait oversleeps.
    pub(crate) fn pause(&mut self) -> Duration {
        let is_paused = self.weather.pauses > 0 && self.dice.pauses.u32(0..1000) < self.weather.pauses;
        if is_paused { Duration::from_micros(self.dice.pauses.u64(0..1_000_000)) } else { Duration::ZERO }
    }

    /// How long the next job that this host gives to another thread takes: from the seed and the job's number alone.
    pub(crate) fn work_takes(&mut self, host: HostId) -> Duration {
        let machine = &mut self.machines[host];
        machine.jobs += 1;
        match nanos(self.weather.work) {
            0 => Duration::ZERO,
            most => {
                let of_job = mix(mix(self.seed ^ !(host as u64)) ^ u64::from(machine.jobs));
                Duration::from_nanos(Rng::with_seed(of_job).u64(0..most))
            }
        }
    }
}

/// splitmix64's step: neighbouring numbers become far ones.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
