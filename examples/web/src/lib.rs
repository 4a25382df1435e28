//! HTTP/1.1 for your application, to be copied. A function of yours gets each [`Request`], borrows the application's state, and
//! returns the [`Answer`]: bytes, a file, a body made while it is sent, events, a WebSocket.
//!
//! `http.rs` is the connection, `ws.rs` and `sse.rs` are what it can become. `request.rs` and `body.rs` read requests,
//! `files.rs` and `parts.rs` serve files, and `deflate.rs` compresses the messages of a WebSocket: these know no connection.
//! `inspect.rs` and `metrics.rs` are a site that shows the reactor.

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

/// Answers requests. It is called when the head has come; its answer says what to do with the body.
pub type Site<S> = fn(&mut Context<'_, S>, &mut S, &Request) -> Answer<S>;

/// The bounds of a connection. For the size of a body, see [`Answer::collect`] and [`Answer::save`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The size of a head, with its first line; 431 beyond.
    pub head_bytes: usize,
    /// From a head's first byte to its last; 408 beyond.
    pub head_time: Duration,
    /// From a head's first byte to the last one of the body; 408 beyond. So it bounds how long an upload may take, even if it
    /// is the disk that is slow.
    pub request_time: Duration,
    /// How much of an unwanted body is read, so that another request can follow.
    pub dropped_bytes: u64,
    /// The time to the next request, and between two bytes of one.
    pub keep_alive: Duration,
    /// A client that reads nothing of an answer for this long is disconnected.
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
