//! HTTP/1.1 for an application, to be copied: a function of yours is called with each [`Request`], lent the application's
//! state, and says what is [answered](Answer): bytes, a file, a body made while it is sent, events, a WebSocket.
//!
//! `http.rs` is the connection, `ws.rs` and `sse.rs` what it may become. What a request says is read in `request.rs` and
//! `body.rs`, what is sent of a file stands in `files.rs` and `parts.rs`, and messages of a WebSocket are compressed in
//! `deflate.rs`: these know no connection. `inspect.rs` and `metrics.rs` are a site by themselves, which shows the reactor.

mod answer;
mod body;
pub mod deflate;
pub mod files;
mod http;
pub mod inspect;
pub mod metrics;
pub mod page;
mod parts;
mod request;
pub mod sse;
pub mod ws;

pub use answer::Answer;
pub use http::{Done, Http};
use mainspring::Context;
pub use request::Request;
use std::time::Duration;

/// Answers requests. It is called when the head has come; what the answer says of the body is done with it.
pub type Site<S> = fn(&mut Context<'_, S>, &mut S, &Request) -> Answer<S>;

/// What is bounded of a connection. What a body has at most says who wants it: [`Answer::collect`], [`Answer::save`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a head, its first line included; 431 beyond.
    pub head_bytes: usize,
    /// From a head's first byte to its last; 408 beyond.
    pub head_time: Duration,
    /// From a head's first byte to the last one of the body; 408 beyond. So it bounds how long an upload may take, also where
    /// the disk is what is slow.
    pub request_time: Duration,
    /// So much of a body that nobody wants is read, so that another request may follow.
    pub dropped_bytes: u64,
    /// For the next request, and between two bytes of one.
    pub keep_alive: Duration,
    /// Who takes nothing of an answer for so long is let go.
    pub stall: Duration,
}

impl Limits {
    pub const DEFAULT: Self = Self {
        head_bytes: 16 << 10,
        head_time: Duration::from_secs(10),
        request_time: Duration::from_secs(60),
        dropped_bytes: 64 << 10,
        keep_alive: Duration::from_secs(15),
        stall: Duration::from_secs(30),
    };
}
