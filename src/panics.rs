//! Catching the panics of user code. What was caught is either told (`Reason::Panicked`) or allowed to go on, never
//! swallowed.

use crate::text::OneLine;
use log::Level;
use std::{
    any::Any,
    cell::RefCell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// What somebody panicked with. It is a value of theirs, so its own `drop` may panic too: that goes no further than here.
pub(crate) struct Payload(Box<dyn Any + Send>);

impl Payload {
    /// Lets the panic go on.
    pub(crate) fn go_on(mut self) -> ! {
        resume_unwind(self.take())
    }

    fn take(&mut self) -> Box<dyn Any + Send> {
        mem::replace(&mut self.0, Box::new(()))
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        let payload = self.take();
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(second); // its `drop` may panic as well, and so on: it has to stop somewhere
        }
    }
}

/// The caller puts its own state in order afterwards, whether or not there was a panic: that makes this unwind-safe.
pub(crate) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(run)).map_err(Payload)
}

/// Drops something of yours, whose `drop` may panic.
pub(crate) fn discard<T>(what: &'static str, value: T) {
    if let Err(payload) = guard(|| drop(value)) {
        report(what, "panicked while it was dropped", &payload);
        #[cfg(feature = "sim")]
        DROPPED.with_borrow_mut(|first| {
            if let Some(first) = first {
                first.get_or_insert(payload);
            }
        });
    }
}

#[cfg(feature = "sim")]
thread_local! {
    /// The first panic of what was dropped, as long as somebody waits for it.
    static DROPPED: RefCell<Option<Option<Payload>>> = const { RefCell::new(None) };
}

/// Runs this, and lets the first panic of what was dropped meanwhile go on afterwards: in a test it is a failure.
#[cfg(feature = "sim")]
pub(crate) fn with_those_of_drops<T>(run: impl FnOnce() -> T) -> T {
    let outer = DROPPED.replace(Some(None));
    let outcome = guard(run);
    let dropped = DROPPED.replace(outer).flatten();
    match (outcome, dropped) {
        (Err(payload), _) | (Ok(_), Some(payload)) => payload.go_on(),
        (Ok(done), None) => done,
    }
}

/// Makes one record; apart, so that code that is generic in your types need not contain how it is written. One of each kind
/// in ten seconds, because peers may cause it. It uses the machine's clock, because code that drops something has no other
/// at hand, and only the level depends on it.
#[cold]
pub(crate) fn report(what: &'static str, happened: &'static str, payload: &Payload) {
    let (level, left_out) = match left_out(what, happened, Instant::now()) {
        Some(0) => (Level::Error, String::new()),
        Some(more) => (Level::Error, format!(" (and {more} more of this kind since the last record of it)")),
        None => (Level::Debug, String::new()),
    };
    log::log!(target: "mainspring", level, "{what} {happened}: {}{left_out}", OneLine(text(payload)));
}

/// How many records of this kind were left out since the last one; `None` if this one is left out.
fn left_out(what: &'static str, happened: &'static str, now: Instant) -> Option<u64> {
    thread_local! {
        static REPORTED: RefCell<Vec<(&'static str, &'static str, Instant, u64)>> = const { RefCell::new(Vec::new()) };
    }
    REPORTED.with_borrow_mut(|all| match all.iter_mut().find(|kind| (kind.0, kind.1) == (what, happened)) {
        Some((.., last, left_out)) if now.duration_since(*last) < PAUSE => {
            *left_out += 1;
            None
        }
        Some((.., last, left_out)) => {
            *last = now;
            Some(std::mem::take(left_out))
        }
        None => {
            all.push((what, happened, now, 0));
            Some(0)
        }
    })
}

/// There is one record of a kind in this time.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);

/// What `panic!` was called with.
pub(crate) fn text(payload: &Payload) -> String {
    match (payload.0.downcast_ref::<&str>(), payload.0.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(not a text)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped, with another one of these, this many times.
    struct Chain(u32);

    impl Drop for Chain {
        fn drop(&mut self) {
            if self.0 > 0 {
                resume_unwind(Box::new(Self(self.0 - 1)));
            }
        }
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_panics_nobody() {
        for more in [0, 1, 2, 9] {
            let payload = guard(|| resume_unwind(Box::new(Chain(more)))).expect_err("it panics");
            assert_eq!(text(&payload), "(not a text)");
            drop(payload);
            discard("a chain", Chain(more));
        }
    }

    #[test]
    fn each_kind_is_reported_once_in_ten_seconds_with_how_many_were_left_out() {
        let now = Instant::now();
        let say = |what, seconds| left_out(what, "panicked", now + Duration::from_secs(seconds));
        assert_eq!((say("a", 0), say("a", 1), say("b", 2), say("a", 9)), (Some(0), None, Some(0), None));
        assert_eq!((say("a", 10), say("a", 20)), (Some(2), Some(0)));
    }

    #[test]
    fn a_panic_that_goes_on_keeps_what_it_was_called_with() {
        let payload = guard(|| resume_unwind(Box::new("on purpose"))).expect_err("it panics");
        let again = guard(|| payload.go_on()).expect_err("it goes on");
        assert_eq!(text(&again), "on purpose");
    }
}
