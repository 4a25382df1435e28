//! A small single-threaded event loop. You write protocols: objects whose callbacks run when bytes arrive, timers fire or
//! connections close. The loop owns the sockets, the buffers and the time.
//!
//! ```no_run
//! use mainspring::{Context, Outcome, Protocol, Reactor};
//!
//! struct Echo;
//! impl<S> Protocol<S> for Echo {
//!     fn received(&mut self, ctx: &mut Context<'_, S>, _: &mut S, bytes: &[u8]) -> Outcome {
//!         ctx.send(bytes);
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let mut reactor = Reactor::new()?;
//!     reactor.net().listen("127.0.0.1:7000", || Echo)?;
//!     reactor.run(&mut ())
//! }
//! ```
//!
//! It is what asyncore, asynchat, select and socketserver were for Python ([from asyncore](manual::from_asyncore)),
//! with what Twisted, libuv and pyftpdlib have taught since: no futures, no pinning, no `Send`, no `Rc<RefCell<_>>`. mio
//! gives you readiness; this gives you bytes and frames, back-pressure, time-outs, and an end that is told exactly
//! once. If you know tokio, libuv or Twisted: their names are in
//! [coming from other libraries](manual::coming_from).
//!
//! # The path of a byte
//!
//! ```text
//! kernel → World → fold → serve → Conn reads into the shared buffer
//!        → Terminator → your `frame` → Output → one write → kernel
//! ```
//!
//! # The grammar of calls
//!
//! ```text
//! [connected (received | frame | writable | exceeded | draining | secured)*
//!    [eof (writable | exceeded | draining)*]] closed
//! ```
//!
//! This is what each connection gets. Its own timers and offloads may come anywhere until it begins to end, and tells that
//! were accepted until `closed`; `secured` comes with the feature `tls` only. `closed` comes exactly once, last, for every
//! connection that was accepted or opened; without `connected` it means "could not connect". Every callback is called with
//! the same three things: what you may do ([`Context`]), what you have (your state, lent as `&mut`), and what happened. No
//! callback runs inside another, whatever you call in one.
//!
//! # How do I …
//!
//! | … | |
//! |---|---|
//! | send one message to many? | [`Net::send_shared`]; [one message for many](manual::sharing_state#one-message-for-many) |
//! | answer later? | [`Context::offload_held`], [`Answer::later`]; or keep the [`Key`] and use [`Net::tell`](manual::sharing_state#telling-another-protocol-something) |
//! | time a request out? | [`Context::set_frame_timeout`] until the request is complete, [`Context::set_deadline`] for request and answer together; [four time-outs](manual::timers_and_threads#four-time-outs-of-a-connection) |
//! | stop on Ctrl-C? | [`Net::drain`], started by a [signal](manual::processes_and_signals#signals) (feature `signals`) or a [`Remote`]; [going down](manual::serving#going-down) |
//! | run a command, and read what it prints? | [`Net::adopt`] its output; [a child](manual::processes_and_signals#a-child-its-output-and-its-end) |
//! | read standard input, a pipe, a terminal, a socket that is already open? | [`Net::adopt`]; [other descriptors](manual::other_descriptors) |
//! | use several cores? | [one reactor in each thread](Reactor#in-several-threads) |
//! | wait for two connections? | keep what is still missing in the state, or [`Net::tell`] the one that waits; [telling another protocol something](manual::sharing_state#telling-another-protocol-something) |
//! | use a library that blocks? | [`Context::offload`], [`Net::lane`]; [work elsewhere](manual::blocking_work) |
//! | put it into a game, or a GUI? | [`Reactor::turn`], or its descriptor; [embedding](manual::embedding) |
//! | encrypt it? | feature `tls`: `Listen::tls`, `Connect::tls`, and `start_tls` for STARTTLS; [TLS](manual::tls) |
//! | see what it does? | the [`log`] crate, target `mainspring`: [logging](manual::logging); [`Net::stats`] |
//! | test what I wrote? | [testing](manual::testing) |
//! | run it on Windows? | [platforms](manual::platforms) says what works there, and what differs |
//!
//! The [cookbook](manual::cookbook) has fifty such answers, each with the lines to copy.
//!
//! # Where to go next
//!
//! * [`Protocol`] is what you write; [`Context`] and [`Net`] are what you are given; [`Terminator`] says where a frame ends;
//!   [`Reason`] says why a connection ended; [`Reactor`] is the loop.
//! * The [tutorial](manual::tutorial) grows one server in nine steps. The [manual] has a chapter on each subject: begin with
//!   [the loop](manual::the_loop) and [protocols](manual::protocols). The [glossary](manual::glossary) says what a word means here.
//! * With the feature `sim` there is also `testing`, which runs your protocols on a simulated network.
//!   `cargo doc --features sim --open` shows it, or `--features mainspring/sim` in a crate that depends on this one; the
//!   chapter [`manual::testing`] says what it is good for.
//! * [Features](manual::platforms#features) says what `tls`, `names`, `children`, `signals`, `udp-batch` and `sim` add.
//! * The crate prints nothing by itself.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "sim")]
pub mod testing;
#[cfg(any(fuzzing, bench, test))]
#[doc(hidden)]
pub mod inside;
/// The bodies of the fuzzers, which live outside the crate, are also tests in src/.
#[cfg(all(test, feature = "tls"))]
extern crate self as mainspring;

// In reading order, which is the order of the layers: a file uses only what stands below it. tests/layers.rs checks this.
mod kit;
mod reactor;
mod serve;
mod contract;
mod hub;
mod endpoint;
mod cx;
mod threads;
mod listen;
mod connect;
mod bind;
mod peers;
mod stats;
mod records;
mod stopwatch;
mod timers;
mod rate;
#[cfg(feature = "tls")]
mod tls;
mod world;
mod pool;
mod mailbox;
mod alarm;
mod eyeballs;
mod framing;
mod output;
mod config;
mod reason;
mod names;
mod address;
mod adopted;
#[cfg(feature = "sim")]
mod parked;
mod services;
mod flags;
mod hold;
#[cfg(feature = "tls")]
mod secured;
mod key;
mod time;
mod table;
mod seldom;
mod room;
mod panics;
mod text;
#[cfg(all(unix, any(feature = "children", feature = "signals")))]
pub mod signal;

pub use address::{Address, Target};
pub use adopted::{Adopted, AdoptedListener};
pub use bind::{Bind, Full};
pub use config::{Config, Panics};
pub use connect::Connect;
pub use contract::{Context, Datagram, Dispatcher, Drained, Gone, Lane, Link, Net, Protocol, Remote, Scope};
pub use framing::{Endian, Framer, Step, Terminator, Width};
pub use hold::Hold;
pub use key::{Key, Timer};
pub use kit::{Answer, Keep, Reconnect, RequestHandler};
pub use listen::{Listen, Refusal};
pub use names::NameError;
pub use output::{Produced, Producer};
pub use reactor::Reactor;
pub use reason::{ConnectError, Detached, Fault, Limit, OffloadError, Outcome, Reason};
#[cfg(feature = "tls")]
pub use rustls;
#[cfg(feature = "tls")]
pub use secured::Tls;
pub use services::{IpProtocol, service_port};
pub use stats::{Closed, Connection, Kind, Stats};
#[cfg(feature = "tls")]
pub use tls::{TlsClient, TlsError, TlsServer, TlsSide, TlsStage};
pub use world::{Interface, PacketSocket, Source};

#[cfg(any(doc, doctest))]
pub mod manual;
