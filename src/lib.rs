//! A small single-threaded event loop. You write protocols: objects whose callbacks run when bytes, timers or closings
//! happen. The loop owns the sockets, the buffers, the time.
#![forbid(unsafe_code)]

mod address;
mod config;
mod conn;
mod connector;
mod contract;
mod hub;
mod input;
mod key;
mod limits;
mod listener;
mod output;
mod panics;
mod reactor;
mod reason;
mod serve;
mod slots;
mod terminator;
mod time;
mod timers;
mod transport;
mod watched;
mod world;

pub use address::{Address, Target};
pub use config::{Config, Panics};
pub use connector::Connect;
pub use contract::{Context, Dispatcher, Drained, Gone, Link, Net, Protocol, Remote, Scope};
pub use key::{Key, Timer};
pub use listener::{Listen, Refusal};
pub use output::{Produced, Producer};
pub use reactor::Reactor;
pub use reason::{ConnectError, Fault, Limit, Outcome, Reason};
pub use terminator::{Endian, Framer, Step, Terminator, Width};
pub use world::Source;
