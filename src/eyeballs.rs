//! Happy eyeballs (RFC 8305): which address of a name is tried when, and which attempt wins. A state machine without a
//! socket and without a clock: the caller decides what an attempt is, and `now` is an argument.

use crate::{address::Address, reason::ConnectError, table::Table, time::Time};
use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

/// RFC 8305, 5: how long an attempt is given before the next one runs beside it.
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A name with more addresses than this is a mistake, or somebody who wants to make us open sockets.
const ADDRESSES_MAX: usize = 32;

/// Attempts to reach one of some addresses; the first that succeeds wins, and the rest are dropped with the race. A `T` is
/// an attempt that is running; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Race<T> {
    waiting: VecDeque<SocketAddr>,
    /// In the order in which they were begun.
    attempts: Vec<Attempt<T>>,
    /// The next one begins at this time, unless one fails before.
    next: Time,
    delay: Duration,
}

#[derive(Debug)]
struct Attempt<T> {
    to: SocketAddr,
    state: AttemptState<T>,
}

#[derive(Debug)]
enum AttemptState<T> {
    Runs(T),
    Failed(io::Error),
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Begin this one, and call [`began`](Race::began) or [`refused`](Race::refused).
    Attempt(SocketAddr),
    /// Nothing before this time, unless one fails. `NEVER`: all have been begun.
    Wait(Time),
    /// All have failed.
    Lost,
}

impl<T> Race<T> {
    /// For addresses in the order in which the system prefers them. `delay` is the time between two attempts;
    /// [`Duration::MAX`] tries one after the other.
    pub(crate) fn new(addresses: impl IntoIterator<Item = SocketAddr>, delay: Duration) -> Self {
        Self { waiting: interleaved(addresses), attempts: Vec::new(), next: Time::default(), delay }
    }

    pub(crate) fn next_move(&self, now: Time) -> Move {
        match self.waiting.front() {
            Some(&address) if self.next <= now => Move::Attempt(address),
            Some(_) => Move::Wait(self.next),
            None if self.running().next().is_some() => Move::Wait(Time::NEVER),
            None => Move::Lost,
        }
    }

    /// The attempt that was asked for runs.
    pub(crate) fn began(&mut self, attempt: T, now: Time) {
        self.note(AttemptState::Runs(attempt));
        self.next = now + self.delay;
    }

    /// The attempt that was asked for cannot begin before this time.
    pub(crate) fn wait(&mut self, until: Time) {
        self.next = until;
    }

    /// The attempt that was asked for could not even begin.
    pub(crate) fn refused(&mut self, error: io::Error) {
        self.note(AttemptState::Failed(error));
    }

    fn note(&mut self, state: AttemptState<T>) {
        let to = self.waiting.pop_front().expect("an attempt was asked for");
        self.attempts.push(Attempt { to, state });
    }

    /// Each attempt that runs, by its number.
    pub(crate) fn running(&self) -> impl Iterator<Item = usize> {
        self.attempts
            .iter()
            .enumerate()
            .filter(|(_, attempt)| matches!(attempt.state, AttemptState::Runs(_)))
            .map(|(number, _)| number)
    }

    pub(crate) fn attempt(&mut self, number: usize) -> Option<&mut T> {
        match &mut self.attempts.get_mut(number)?.state {
            AttemptState::Runs(attempt) => Some(attempt),
            AttemptState::Failed(_) => None,
        }
    }

    /// Runs this for every attempt that is running, except one.
    pub(crate) fn each_but(&mut self, but: Option<usize>, mut run: impl FnMut(&mut T)) {
        for (number, attempt) in self.attempts.iter_mut().enumerate() {
            match &mut attempt.state {
                AttemptState::Runs(attempt) if Some(number) != but => run(attempt),
                _ => {}
            }
        }
    }

    /// An attempt has failed: the next one begins at once.
    pub(crate) fn failed(&mut self, number: usize, error: io::Error) {
        self.attempts[number].state = AttemptState::Failed(error);
        self.next = Time::default();
    }

    /// An attempt has succeeded. The others end here.
    pub(crate) fn won(mut self, number: usize) -> Option<(SocketAddr, T)> {
        let attempt = self.attempts.swap_remove(number);
        match attempt.state {
            AttemptState::Runs(winner) => Some((attempt.to, winner)),
            AttemptState::Failed(_) => None,
        }
    }

    /// Why nobody won: what is still running has not answered in time.
    pub(crate) fn into_error(self) -> ConnectError {
        let error = |state| match state {
            AttemptState::Runs(_) => io::ErrorKind::TimedOut.into(),
            AttemptState::Failed(error) => error,
        };
        ConnectError::new(self.attempts.into_iter().map(|attempt| (Address::Ip(attempt.to), error(attempt.state))).collect())
    }
}

/// RFC 8305, 4: the families take turns, the preferred one (the first's) first; within a family the order stays. Each address
/// once.
fn interleaved(addresses: impl IntoIterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut seen = Table::<_, ()>::default();
    let addresses: Vec<SocketAddr> = addresses.into_iter().filter(|&address| seen.add(address)).collect();
    let is_preferred = |address: &SocketAddr| addresses.first().is_some_and(|first| first.is_ipv6() == address.is_ipv6());
    let (preferred, other): (Vec<_>, Vec<_>) = addresses.iter().copied().partition(is_preferred);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut all = VecDeque::new();
    while all.len() < ADDRESSES_MAX {
        let before = all.len();
        all.extend(preferred.next());
        all.extend(other.next());
        if all.len() == before {
            break;
        }
    }
    all.truncate(ADDRESSES_MAX);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

    fn v4(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 80))
    }

    fn v6(n: u16) -> SocketAddr {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 80))
    }

    fn millis(n: u64) -> Time {
        Time::default() + Duration::from_millis(n)
    }

    #[test]
    fn families_take_turns_and_the_first_address_says_which_begins() {
        assert_eq!(interleaved([v6(1), v6(2), v6(3), v4(1), v4(2)]), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
        assert_eq!(interleaved([v4(1), v6(1), v6(2)]), [v4(1), v6(1), v6(2)]);
        assert_eq!(interleaved([v4(1), v4(2), v4(1)]), [v4(1), v4(2)]);
        assert_eq!(interleaved([]), [] as [SocketAddr; 0]);
    }

    #[test]
    fn a_name_with_very_many_addresses_is_tried_at_some_of_both_families() {
        let many = interleaved((0..200).map(v6).chain((0..200).map(v4)));
        assert_eq!(many.len(), ADDRESSES_MAX);
        assert_eq!(many.iter().filter(|address| address.is_ipv4()).count(), ADDRESSES_MAX / 2);
        assert_eq!(interleaved([v4(0)].into_iter().chain((0..200).map(v6))).len(), ADDRESSES_MAX);
    }

    /// What happens to an attempt, and how long after it began.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Ending {
        Succeeds(u64),
        Fails(u64),
        /// It cannot even begin.
        Refused,
        Silent,
    }

    /// An attempt that notes its end.
    struct Socket {
        number: u8,
        open: Rc<RefCell<BTreeSet<u8>>>,
    }

    impl Socket {
        fn new(number: u8, open: &Rc<RefCell<BTreeSet<u8>>>) -> Self {
            assert!(open.borrow_mut().insert(number));
            Self { number, open: Rc::clone(open) }
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            self.open.borrow_mut().remove(&self.number);
        }
    }

    struct Run {
        /// When each was begun, in milliseconds.
        begun: Vec<u64>,
        /// Who won, and when.
        winner: Option<(SocketAddr, u64)>,
        tried: Vec<(Address, io::ErrorKind)>,
        ended: u64,
    }

    /// Runs a race of attempts whose endings are given in the order in which they are begun, up to a deadline.
    fn run(endings: &[Ending], delay: Duration, deadline: u64) -> Run {
        let open = Rc::default();
        let addresses: Vec<SocketAddr> = (0..endings.len()).map(|n| v4(n as u8)).collect();
        let mut race = Race::new(addresses, delay);
        let mut run = Run { begun: Vec::new(), winner: None, tried: Vec::new(), ended: deadline };
        let mut now = 0;
        while now < deadline {
            let until = match race.next_move(millis(now)) {
                Move::Attempt(to) => {
                    let number = run.begun.len();
                    assert_eq!(to, v4(number as u8), "in order");
                    run.begun.push(now);
                    match endings[number] {
                        Ending::Refused => race.refused(io::ErrorKind::NetworkUnreachable.into()),
                        _ => race.began(Socket::new(number as u8, &open), millis(now)),
                    }
                    continue;
                }
                Move::Wait(until) => until,
                Move::Lost => {
                    run.ended = now;
                    break;
                }
            };
            assert!(until > millis(now), "a step that does not wait");
            // The next thing that happens to an attempt, of several at a time the first.
            let end = |number: usize| match endings[number] {
                Ending::Succeeds(after) | Ending::Fails(after) => Some((run.begun[number] + after, number)),
                Ending::Silent | Ending::Refused => None,
            };
            match race.running().filter_map(end).min() {
                Some((at, number)) if millis(at) <= until && at < deadline => {
                    now = at;
                    if matches!(endings[number], Ending::Succeeds(_)) {
                        run.winner = race.won(number).map(|(to, socket)| {
                            assert_eq!(open.borrow().iter().copied().collect::<Vec<_>>(), [socket.number], "the rest are closed");
                            (to, now)
                        });
                        run.ended = now;
                        return run;
                    }
                    race.failed(number, io::ErrorKind::ConnectionRefused.into());
                    assert!(!open.borrow().contains(&(number as u8)), "a failed one is closed");
                }
                _ if until == Time::NEVER => now = deadline,
                _ => now = (until.0 / 1_000_000).min(deadline),
            }
        }
        run.tried = race.into_error().tried().iter().map(|(address, error)| (address.clone(), error.kind())).collect();
        assert!(open.borrow().is_empty(), "all are closed");
        run
    }

    /// Every ordering of outcomes: up to four addresses, each with every outcome at times before, at, and after the delay.
    /// Checked against the rules, written down a second time without a state machine.
    #[test]
    fn every_ordering_of_outcomes_for_up_to_four_addresses_keeps_the_rules() {
        use Ending::*;
        let all = [
            Succeeds(0),
            Succeeds(100),
            Succeeds(250),
            Succeeds(600),
            Fails(0),
            Fails(100),
            Fails(250),
            Fails(600),
            Refused,
            Silent,
        ];
        let (mut runs, mut won) = (0, 0);
        for count in 0..=4 {
            for mut index in 0..all.len().pow(count) {
                let mut endings = Vec::new();
                for _ in 0..count {
                    endings.push(all[index % all.len()]);
                    index /= all.len();
                }
                for deadline in [120, 10_000] {
                    let run = run(&endings, ATTEMPT_DELAY, deadline);
                    assert_rules(&endings, &run, deadline);
                    runs += 1;
                    won += usize::from(run.winner.is_some());
                }
            }
        }
        assert!(runs > 20_000 && won > runs / 2, "{won} of {runs}");
    }

    fn assert_rules(endings: &[Ending], run: &Run, deadline: u64) {
        let context = || format!("{endings:?} until {deadline}: begun {:?}, won {:?}", run.begun, run.winner);
        // Each begins when the one before has had its delay, or earlier when any attempt that is running fails; none after
        // the end.
        let (mut begins, mut failures) = (0, BTreeSet::new());
        for (number, fate) in endings.iter().enumerate() {
            match run.begun.get(number) {
                Some(&begun) => assert_eq!(begun, begins, "{}", context()),
                None => {
                    assert!(begins >= run.ended, "{}", context());
                    break;
                }
            }
            if let Ending::Fails(after) = fate {
                failures.insert((begins + after, number));
            }
            if *fate != Ending::Refused {
                begins += 250;
                if failures.first().is_some_and(|&(at, _)| at <= begins) {
                    begins = failures.pop_first().expect("just seen").0; // one failure, one attempt
                }
            }
        }
        // The first that succeeds wins.
        let successes = run.begun.iter().zip(endings).enumerate().filter_map(|(number, (begun, fate))| match fate {
            Ending::Succeeds(after) if begun + after < deadline => Some((begun + after, number)),
            _ => None,
        });
        let first = successes.min().map(|(at, number)| (v4(number as u8), at));
        assert_eq!(run.winner, first, "{}", context());
        // Otherwise the error names every address that was tried, in order, with its error.
        if run.winner.is_none() {
            let expected = run.begun.iter().zip(endings).enumerate().map(|(number, (begun, fate))| {
                let kind = match fate {
                    Ending::Refused => io::ErrorKind::NetworkUnreachable,
                    Ending::Fails(after) if begun + after < deadline => io::ErrorKind::ConnectionRefused,
                    _ => io::ErrorKind::TimedOut,
                };
                (Address::Ip(v4(number as u8)), kind)
            });
            assert_eq!(run.tried, expected.collect::<Vec<_>>(), "{}", context());
            if !endings.contains(&Ending::Silent) && deadline > 5000 {
                assert_eq!(run.begun.len(), endings.len(), "{}", context());
                assert!(run.ended < deadline, "lost when the last has failed: {}", context());
            }
        }
    }

    #[test]
    fn a_live_address_behind_a_dead_one_is_reached_after_the_delay() {
        assert_eq!(run(&[Ending::Silent, Ending::Succeeds(1)], ATTEMPT_DELAY, 30_000).winner, Some((v4(1), 251)));
        assert_eq!(run(&[Ending::Fails(3), Ending::Succeeds(1)], ATTEMPT_DELAY, 30_000).winner, Some((v4(1), 4)));
    }

    #[test]
    fn without_a_delay_between_them_one_is_tried_after_the_other() {
        let one_by_one = run(&[Ending::Fails(700), Ending::Succeeds(1)], Duration::MAX, 30_000);
        assert_eq!((one_by_one.begun, one_by_one.winner), (vec![0, 700], Some((v4(1), 701))));
        assert_eq!(run(&[Ending::Silent, Ending::Succeeds(1)], Duration::MAX, 30_000).winner, None);
    }
}
