//! A connection that is made again whenever it ends. It is built on what you have too: a factory, a timer, the state.
//!
//! It does not stand between the loop and your protocol, so your timers, tells and upgrades stay yours; in return your
//! protocol tells it two things: that it is ready, and that it was closed.

use crate::{
    address::Target,
    connect::Connect,
    contract::{Context, Net, Protocol},
    key::{Key, Timer},
    output::Produced,
    reason::Reason,
    time::PAUSE_MIN,
};
use std::{
    collections::VecDeque,
    fmt, io,
    rc::Rc,
    time::{Duration, Instant},
};

/// How much of what was kept is handed to the output queue at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A client's connection that is made again whenever it ends, with a growing pause, until you stop it.
///
/// It lives in your state. Your protocol calls [`ready`](Self::ready) when it may be used, and [`closed`](Self::closed) from
/// its own `closed`. What is sent through [`send`](Self::send) leaves at once; while there is no connection it is kept, as
/// [`Keep`] says. The chapter is [reconnecting](crate::manual::reconnecting).
///
/// * The pause after the first failure is `first` (500 ms), and after each further one twice as long, up to `cap` (60 s). A
///   random part of it, at most one half, is taken off, so that a thousand clients of a server that restarts do not come
///   back in step ([`back_off`](Self::back_off)).
/// * A connection that was ready for some time (10 s, [`stable_after`](Self::stable_after)) is not a failure when it ends:
///   the pause is `first` again. One that breaks sooner is a failure, so that a server that accepts and closes is not called
///   without end.
/// * There is never a second connection while `closed` of the first is still to come.
/// * It ends by [`stop`](Self::stop), and with the reactor: after [`Reason::Shutdown`], and while the loop
///   [drains](Net::drain), nothing is connected again, not even by [`start`](Self::start).
///
/// ```
/// use mainspring::{Context, Outcome, Protocol, Reactor, Reason, Reconnect};
///
/// struct App {
///     uplink: Reconnect<App>,
/// }
///
/// struct Uplink;
/// impl Protocol<App> for Uplink {
///     fn connected(&mut self, ctx: &mut Context<'_, App>, app: &mut App) -> Outcome {
///         app.uplink.ready(ctx); // what was kept leaves
///         Ok(())
///     }
///     fn closed(&mut self, ctx: &mut Context<'_, App>, app: &mut App, why: Reason) {
///         app.uplink.closed(ctx, &why); // and again, after a pause
///     }
/// }
///
/// # fn main() -> std::io::Result<()> {
/// let mut reactor = Reactor::new()?;
/// let mut app = App { uplink: Reconnect::new("127.0.0.1:7000", |app: &mut App| &mut app.uplink, || Uplink) };
/// app.uplink.start(&mut reactor.net());
/// app.uplink.send(&mut reactor.net(), "hello\n"); // now or later
/// # app.uplink.stop(&mut reactor.net());
/// reactor.run(&mut app)
/// # }
/// ```
pub struct Reconnect<S = ()> {
    dial: Box<dyn FnMut(&mut Net<'_, S>, Connect) -> Key>,
    /// Sets the timer, which finds this object in the state. (If the type of `find` were in it, `S` would have to be
    /// `'static`.)
    wait: Box<dyn Fn(&mut Net<'_, S>, Duration) -> Timer>,
    options: Connect,
    first: Duration,
    cap: Duration,
    stable: Duration,
    stage: Stage,
    /// Connections in a row that were not stable.
    failures: u32,
    kept: Kept,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Stopped,
    /// Until the timer fires.
    Waiting(Timer),
    /// Connecting, or connected and not ready.
    Dialled(Key),
    Ready {
        key: Key,
        since: Instant,
    },
    /// Stopped, and perhaps started again, while `closed` is still to come.
    Ending {
        key: Key,
        again: bool,
    },
}

/// What happens to messages that are sent while there is no connection.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They are refused: [`send`](Reconnect::send) returns `false`.
    Nothing,
    /// They are kept in order, up to this many bytes; what does not fit is refused.
    First {
        /// Of all messages together.
        bytes_max: usize,
    },
    /// They are kept in order, up to this many bytes; to make room the oldest are dropped, as whole messages.
    Last {
        /// Of all messages together; a message that is longer is refused.
        bytes_max: usize,
    },
}

impl<S> Reconnect<S> {
    /// Makes one that is stopped. `to` and `factory` are as for [`Net::connect`], used again for each attempt; a name is
    /// resolved each time. `find` says where in your state this is; it may capture, say, an index.
    pub fn new<P: Protocol<S>>(
        to: impl Into<Target>,
        find: impl Fn(&mut S) -> &mut Reconnect<S> + 'static,
        mut factory: impl FnMut() -> P + 'static,
    ) -> Self {
        let (to, find) = (to.into(), Rc::new(find));
        Self {
            dial: Box::new(move |net, options| net.connect_with(&to, options, factory())),
            wait: Box::new(move |net, pause| {
                let find = Rc::clone(&find);
                net.after(pause, move |net, state| find(state).pause_is_over(net))
            }),
            options: Connect::new(),
            first: Duration::from_millis(500),
            cap: Duration::from_secs(60),
            stable: Duration::from_secs(10),
            stage: Stage::Stopped,
            failures: 0,
            kept: Kept::new(Keep::First { bytes_max: 64 << 10 }),
        }
    }

    /// Sets the options of each attempt. If it has an [owner](Connect::owner), it is stopped when that has ended.
    #[must_use]
    pub fn options(mut self, options: Connect) -> Self {
        self.options = options;
        self
    }

    /// Sets the pause after the first failure (at least 1 ms), and the longest one.
    #[must_use]
    pub fn back_off(mut self, first: Duration, cap: Duration) -> Self {
        (self.first, self.cap) = (first, cap);
        self
    }

    /// Sets how long a connection must have been ready to count as good: when such a one ends, the pauses start over.
    #[must_use]
    pub fn stable_after(mut self, time: Duration) -> Self {
        self.stable = time;
        self
    }

    /// Sets what is kept while there is no connection. Default: the first 64 KiB.
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> Self {
        self.kept = Kept::new(keep);
        self
    }

    // -------------------------------------------------------------------------------------------------- commands

    /// Connects, and from now on reconnects. If it is pausing, the attempt comes at once; if there is a connection (or an
    /// attempt), nothing happens. After [`stop`](Self::stop) it waits until the stopped connection is closed.
    ///
    /// When the reactor comes to its end nothing is connected any more, and a drain or a
    /// [shutdown](crate::Reactor::shutdown) comes to its end whatever your `closed` calls: while the loop drains, and during
    /// a shutdown, this only stops what was pausing and drops what was kept. Start it when that is over. [`Net::stop`] is no
    /// such end: when you turn the loop again, the attempt is where it was.
    pub fn start(&mut self, net: &mut Net<'_, S>) {
        match self.stage {
            Stage::Stopped => {}
            Stage::Waiting(timer) => {
                net.cancel(timer);
            }
            // If nobody knows the key any more, it went with a reactor that was shut down: no `closed` will come.
            Stage::Dialled(key) | Stage::Ready { key, .. } | Stage::Ending { key, .. } if net.peer(key).is_none() => {}
            Stage::Dialled(_) | Stage::Ready { .. } => return,
            Stage::Ending { key, .. } => {
                self.stage = Stage::Ending { key, again: !net.is_draining() };
                return;
            }
        }
        self.dial(net);
    }

    /// Makes no further attempt. A connection that is ready is closed politely, any other aborted; its protocol gets its
    /// `closed`. What is kept is dropped.
    pub fn stop(&mut self, net: &mut Net<'_, S>) {
        let stage = match self.stage {
            Stage::Stopped => Stage::Stopped,
            Stage::Waiting(timer) => {
                net.cancel(timer);
                Stage::Stopped
            }
            Stage::Dialled(key) => {
                net.abort(key);
                Stage::Ending { key, again: false }
            }
            Stage::Ready { key, .. } => {
                net.close(key);
                Stage::Ending { key, again: false }
            }
            Stage::Ending { key, .. } => Stage::Ending { key, again: false },
        };
        self.rest(stage);
    }

    /// Sends the message, or keeps it. `true` means one of the two; `false` means that the message is not kept ([`Keep`]),
    /// or that this is stopped. What was given to a connection is lost with it: only an answer of the peer tells you what
    /// has arrived.
    pub fn send(&mut self, net: &mut Net<'_, S>, message: impl AsRef<[u8]>) -> bool {
        let message = message.as_ref();
        match self.stage {
            Stage::Stopped | Stage::Ending { again: false, .. } => false,
            Stage::Ready { key, .. } if net.send(key, message) => true,
            _ => self.kept.push(message),
        }
    }

    // ----------------------------------------------------------------------------------- what your protocol says

    /// Call this when the connection may be used: from `connected`, or when you have logged in, also from a protocol that it
    /// was upgraded to. What was kept leaves, after what was sent to the connection until now.
    pub fn ready(&mut self, ctx: &mut Context<'_, S>) {
        if !matches!(self.stage, Stage::Dialled(key) if key == ctx.own()) {
            return;
        }
        self.stage = Stage::Ready { key: ctx.own(), since: ctx.net.now() };
        let mut kept = self.kept.take();
        if !kept.is_empty() {
            // A producer, because all that is kept may be more than the output queue's hard cap.
            ctx.produce(move |out: &mut Vec<u8>| -> io::Result<Produced> {
                let piece = kept.len().min(PIECE_BYTES);
                out.extend(kept.drain(..piece));
                Ok(if kept.is_empty() { Produced::Done } else { Produced::More })
            });
        }
    }

    /// Call this from your `closed`, whatever the reason: it arranges the next attempt. If it is called for a connection
    /// other than the current one, it does nothing.
    pub fn closed(&mut self, ctx: &mut Context<'_, S>, why: &Reason) {
        if self.key() != Some(ctx.own()) {
            return;
        }
        let net = &mut ctx.net;
        let is_stopped = matches!(self.stage, Stage::Ending { again: false, .. });
        let is_nobodys = self.options.owner.is_some_and(|owner| !net.is_open(owner));
        if is_stopped || is_nobodys || net.is_draining() || matches!(why, Reason::Shutdown) {
            return self.rest(Stage::Stopped);
        }
        let pause = self.pause(net);
        self.stage = Stage::Waiting((self.wait)(net, pause));
    }

    // ------------------------------------------------------------------------------------------------- questions

    /// The connection, from the attempt to its `closed`.
    pub fn key(&self) -> Option<Key> {
        match self.stage {
            Stage::Dialled(key) | Stage::Ready { key, .. } | Stage::Ending { key, .. } => Some(key),
            Stage::Stopped | Stage::Waiting(_) => None,
        }
    }

    /// Whether [`ready`](Self::ready) was called, and `closed` and [`stop`](Self::stop) were not.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    /// Whether there will be no further attempt.
    pub fn is_stopped(&self) -> bool {
        matches!(self.stage, Stage::Stopped | Stage::Ending { again: false, .. })
    }

    /// How many connections in a row failed, or ended before they were stable.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// How many bytes are kept.
    pub fn kept(&self) -> usize {
        self.kept.bytes.len()
    }

    // ------------------------------------------------------------------------------------------------- inside

    fn dial(&mut self, net: &mut Net<'_, S>) {
        // If the factory panics, this is stopped, and does not wait for what will never come.
        self.stage = Stage::Stopped;
        if net.is_draining() {
            return self.rest(Stage::Stopped);
        }
        let key = (self.dial)(net, self.options.clone());
        // During a shutdown nothing is opened, and nobody knows the key: no `closed` will come.
        if net.peer(key).is_some() { self.stage = Stage::Dialled(key) } else { self.rest(Stage::Stopped) }
    }

    /// There will be no further attempt, and nobody to send to.
    fn rest(&mut self, stage: Stage) {
        self.stage = stage;
        self.failures = 0;
        self.kept.clear();
    }

    fn pause(&mut self, net: &mut Net<'_, S>) -> Duration {
        let was_stable = match self.stage {
            Stage::Ending { .. } => return Duration::ZERO, // you wanted it again
            Stage::Ready { since, .. } => net.now().duration_since(since) >= self.stable,
            _ => false,
        };
        self.failures = if was_stable { 0 } else { self.failures.saturating_add(1) };
        back_off(self.first, self.cap, self.failures, net.random())
    }

    fn pause_is_over(&mut self, net: &mut Net<'_, S>) {
        // Otherwise the state has another one in this place by now.
        if let Stage::Waiting(_) = self.stage {
            self.dial(net);
        }
    }
}

impl<S> fmt::Debug for Reconnect<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnect")
            .field("stage", &self.stage)
            .field("failures", &self.failures)
            .field("kept", &self.kept())
            .finish_non_exhaustive()
    }
}

/// The pause after this many failures in a row: `first`, doubled with each further one up to `cap`, less a random part of at
/// most one half. Spreading over the whole range would spread better still, but some would come back at once.
fn back_off(first: Duration, cap: Duration, failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let full = first.max(PAUSE_MIN).saturating_mul(1 << doublings).min(cap.max(PAUSE_MIN));
    let part = (random >> 11) as f64 / (1u64 << 53) as f64; // in [0, 1), exactly
    full - (full / 2).mul_f64(part)
}

/// Messages in order.
struct Kept {
    keep: Keep,
    /// One after the other: `bytes.len()` is the sum of `lengths`, none of which is 0.
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
}

impl Kept {
    fn new(keep: Keep) -> Self {
        Self { keep, bytes: VecDeque::new(), lengths: VecDeque::new() }
    }

    fn push(&mut self, message: &[u8]) -> bool {
        let has_room = |kept: &Self, bytes_max: usize| message.len() <= bytes_max.saturating_sub(kept.bytes.len());
        let fits = match self.keep {
            Keep::Nothing => false,
            Keep::First { bytes_max } => has_room(self, bytes_max),
            Keep::Last { bytes_max } if message.len() > bytes_max => false,
            Keep::Last { bytes_max } => {
                while !has_room(self, bytes_max) {
                    self.drop_oldest();
                }
                true
            }
        };
        if fits && !message.is_empty() {
            self.bytes.extend(message);
            self.lengths.push_back(message.len());
        }
        fits
    }

    fn drop_oldest(&mut self) {
        let oldest = self.lengths.pop_front().unwrap_or(self.bytes.len());
        self.bytes.drain(..oldest);
    }

    fn take(&mut self) -> VecDeque<u8> {
        self.lengths = VecDeque::new();
        std::mem::take(&mut self.bytes)
    }

    fn clear(&mut self) {
        self.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(60);

    #[test]
    fn a_pause_doubles_up_to_the_cap() {
        let full = |failures| back_off(SECOND, CAP, failures, 0);
        assert_eq!([0, 1, 2, 3, 6, 7, 8].map(|failures| full(failures).as_secs()), [1, 1, 2, 4, 32, 60, 60]);
        assert_eq!(full(u32::MAX), CAP);
    }

    #[test]
    fn chance_takes_off_at_most_one_half_and_all_of_that_range() {
        for failures in [1, 4, 100] {
            let full = back_off(SECOND, CAP, failures, 0);
            let pauses: Vec<Duration> = (0..=64).map(|n| back_off(SECOND, CAP, failures, u64::MAX / 64 * n)).collect();
            assert!(pauses.windows(2).all(|pair| pair[0] > pair[1]), "{pauses:?}");
            assert!(pauses.iter().all(|pause| (full / 2..=full).contains(pause)), "{pauses:?}");
            assert!(back_off(SECOND, CAP, failures, u64::MAX) < full / 2 + Duration::from_micros(1));
        }
    }

    #[test]
    fn no_pause_is_nothing_and_none_overflows() {
        for random in [0, u64::MAX] {
            for (first, cap) in [(Duration::ZERO, Duration::ZERO), (Duration::ZERO, CAP), (SECOND, Duration::ZERO)] {
                assert!(back_off(first, cap, 1, random) >= PAUSE_MIN / 2, "{first:?} {cap:?}");
            }
            assert!(back_off(Duration::MAX, Duration::MAX, u32::MAX, random) >= Duration::MAX / 2);
        }
        assert_eq!(back_off(CAP, SECOND, 1, 0), SECOND, "the cap is the cap");
    }

    fn kept(keep: Keep, messages: &[&str]) -> (Vec<bool>, String) {
        let mut kept = Kept::new(keep);
        let answers = messages.iter().map(|message| kept.push(message.as_bytes())).collect();
        assert_eq!(kept.lengths.iter().sum::<usize>(), kept.bytes.len());
        (answers, String::from_utf8(kept.take().into()).expect("text"))
    }

    #[test]
    fn what_is_kept_is_bounded_as_the_policy_says() {
        let messages = ["one", "two", "", "three", "4"];
        assert_eq!(kept(Keep::Nothing, &messages), (vec![false; 5], String::new()));
        assert_eq!(kept(Keep::First { bytes_max: 7 }, &messages), (vec![true, true, true, false, true], "onetwo4".into()));
        assert_eq!(kept(Keep::Last { bytes_max: 8 }, &messages), (vec![true; 5], "three4".into()));
        assert_eq!(kept(Keep::Last { bytes_max: 12 }, &messages), (vec![true; 5], "onetwothree4".into()));
        assert_eq!(kept(Keep::Last { bytes_max: 4 }, &messages), (vec![true, true, true, false, true], "two4".into()));
        assert_eq!(kept(Keep::First { bytes_max: 0 }, &["", "x"]), (vec![true, false], String::new()));
    }
}
