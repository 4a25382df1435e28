//! Catching the panics of user code. What was caught is either told (`Reason::Panicked`) or let go on, never swallowed.

use crate::text::OneLine;
use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// What somebody panicked with. It is a value of theirs, so its own `drop` may panic too: that goes no further than here.
pub(crate) struct Payload(Box<dyn Any + Send>);

impl Payload {
    /// The panic goes on.
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
            mem::forget(second); // whose `drop` may panic as well, and so on: somebody has to stop
        }
    }
}

/// The caller puts its own state in order afterwards, whether or not it panicked: that is what makes this unwind-safe.
pub(crate) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(run)).map_err(Payload)
}

/// Drops something of yours, whose `drop` may panic.
pub(crate) fn discard<T>(what: &str, value: T) {
    if let Err(payload) = guard(|| drop(value)) {
        report(what, "panicked while it was dropped", &payload);
    }
}

/// One record, so that what is generic in your types need not carry how it is written.
#[cold]
pub(crate) fn report(what: &str, happened: &str, payload: &Payload) {
    log::error!(target: "mainspring", "{what} {happened}: {}", OneLine(text(payload)));
}

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

    /// Panics when it is dropped, with another one of so many.
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
    fn a_panic_that_goes_on_keeps_what_it_was_called_with() {
        let payload = guard(|| resume_unwind(Box::new("on purpose"))).expect_err("it panics");
        let again = guard(|| payload.go_on()).expect_err("it goes on");
        assert_eq!(text(&again), "on purpose");
    }
}
