//! What you write and what you are given. The only folder whose files know each other in a ring: a protocol is called with
//! a context, a context holds the net, the net keeps protocols.

mod context;
mod core;
mod deferred;
mod dispatcher;
mod lanes;
mod link;
mod net;
mod offload;
mod protocol;
mod remote;
mod resolve;
mod streams;
mod timing;

pub use context::{Context, Scope};
pub(crate) use core::Core;
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
