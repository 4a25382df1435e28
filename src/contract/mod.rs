//! What you write and what you are given. This is the only folder whose files know each other in a ring: a protocol is
//! called with a context, a context holds the net, and the net keeps protocols.

// In the order in which rustdoc shows what each adds to `Context` and `Net`.
mod protocol;
mod context;
mod net;
mod link;
mod offload;
mod lanes;
mod streams;
mod resolve;
mod dispatcher;
mod datagram;
#[cfg(all(unix, feature = "children"))]
mod children;
#[cfg(all(unix, feature = "signals"))]
mod signals;
mod remote;
mod core;
mod deferred;
mod timing;

pub use context::{Context, Scope};
pub(crate) use core::Core;
pub use datagram::Datagram;
pub(crate) use deferred::{Deferred, PostedJob, Tell};
pub use dispatcher::{Dispatcher, Drained};
pub use lanes::Lane;
pub use link::Link;
pub use net::Net;
pub use protocol::Protocol;
pub(crate) use protocol::{Handler, exceed, refuse_frame};
pub use remote::{Gone, Remote};
pub(crate) use streams::{Next, Put};
pub(crate) use timing::TimerJob;
