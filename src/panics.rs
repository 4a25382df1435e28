//! Catching the panics of user code. What was caught is either told (`Reason::Panicked`) or let go on, never swallowed.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub(crate) type Payload = Box<dyn Any + Send>;

/// The caller puts its own state in order afterwards, whether or not it panicked: that is what makes this unwind-safe.
pub(crate) fn guard<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(run))
}

/// What `panic!` was called with.
pub(crate) fn text(payload: &Payload) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(not a text)".to_owned(),
    }
}
