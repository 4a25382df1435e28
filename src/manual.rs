//! The manual: a chapter on each subject. Its programs are compiled and run as tests.
//!
//! **Begin with the [tutorial]**: in an hour a chat room of your own, in nine steps, from ten lines to limits, storms, a client that
//! comes back, and TLS. Then the chapters say everything about one subject each:
//!
//! | chapter | says |
//! |---|---|
//! | [the loop](the_loop) | what a turn does in which order, and when it ends |
//! | [embedding] | the loop inside of another: a descriptor, a deadline, a turn |
//! | [restarting] | a new program in the place of the old one, and nobody is lost |
//! | [protocols] | what is called when, connecting, refusing, upgrading, your own sources |
//! | [connecting] | names, services, several addresses at once, time-outs |
//! | [datagrams] | UDP, Unix datagrams and others: what comes, what fails, what waits |
//! | [other descriptors](other_descriptors) | pipes, terminals, files, standard input, sockets of others: taken over, given back; descriptors over Unix sockets |
//! | [processes and signals](processes_and_signals) | children: their output, their ends, signals to them; signals of the process |
//! | [TLS](tls) | servers, clients, certificates; STARTTLS; cuts; what went wrong |
//! | [which error means what](errors) | each reason, each errno, what to do |
//! | [framing] | terminators, limits, putting back, your own framer, the unfinished rest |
//! | [closing] | the ways to end, what follows, the reasons |
//! | [back-pressure](back_pressure) | marks, producers, files, pausing, hold-back, throttles, rate limits (bandwidth) |
//! | [sharing state](sharing_state) | the state, keys, tells, posts |
//! | [timers and threads](timers_and_threads) | timers, time-outs, other threads |
//! | [reconnecting] | a client that comes back: pauses, what is kept meanwhile, stopping |
//! | [serving] | a server from a function, request handlers, letting in, bounds, going down |
//! | [work elsewhere](blocking_work) | disks and databases on other threads, results on the loop; files in and out; lanes |
//! | [sessions] | an FTP server walked through: commands in order, a connection that belongs to another, files both ways |
//! | [an application](an_application) | a whole program walked through: its parts, its order, its bounds, its tests |
//! | [testing] | your protocol as a dialogue, among scripted peers, in a thousand storms; a failure again, by its seed |
//! | [logging] | records and their levels |
//! | [platforms] | what works on which system, and what Windows does otherwise |
//! | [from asyncore](from_asyncore) | what each name has become, or why it has not, and what behaves differently |
//!
//! Beside the sources, in docs/, are three more: reliability, what was tried, and the figures; benchmarks, what it costs; and
//! the flaws, what its ancestors got wrong, with the test that holds each here.
//!
//! A line of a program that begins with `# ` is for the test alone, and is not shown here.

/// What the chapters link to. Each has the same labels at its end, with the files that they are in a repository: here these
/// come first, and of several the first one counts.
macro_rules! links {
    () => {
        "\
[tutorial]: crate::manual::tutorial
[step 1]: crate::manual::tutorial::a_line_server
[step 2]: crate::manual::tutorial::limits
[step 3]: crate::manual::tutorial::shared_state
[step 4]: crate::manual::tutorial::telling_others
[step 5]: crate::manual::tutorial::time_outs_and_timers
[step 6]: crate::manual::tutorial::a_storm
[step 7]: crate::manual::tutorial::a_client_that_comes_back
[step 8]: crate::manual::tutorial::ending
[step 9]: crate::manual::tutorial::tls
[the loop]: crate::manual::the_loop
[embedding]: crate::manual::embedding
[restarting]: crate::manual::restarting
[protocols]: crate::manual::protocols
[connecting]: crate::manual::connecting
[datagrams]: crate::manual::datagrams
[other descriptors]: crate::manual::other_descriptors
[processes and signals]: crate::manual::processes_and_signals
[TLS]: crate::manual::tls
[which error means what]: crate::manual::errors
[framing]: crate::manual::framing
[closing]: crate::manual::closing
[back-pressure]: crate::manual::back_pressure
[sharing state]: crate::manual::sharing_state
[timers and threads]: crate::manual::timers_and_threads
[reconnecting]: crate::manual::reconnecting
[serving]: crate::manual::serving
[work elsewhere]: crate::manual::blocking_work
[sessions]: crate::manual::sessions
[an application]: crate::manual::an_application
[testing]: crate::manual::testing
[logging]: crate::manual::logging
[platforms]: crate::manual::platforms
[from asyncore]: crate::manual::from_asyncore
[`Reactor`]: crate::Reactor
[`Net`]: crate::Net
[`Link`]: crate::Link
[`Context`]: crate::Context
[`Protocol`]: crate::Protocol
[`Dispatcher`]: crate::Dispatcher
[`Remote`]: crate::Remote
[`Lane`]: crate::Lane
[`RequestHandler`]: crate::RequestHandler
[`Reconnect`]: crate::Reconnect
[`Keep`]: crate::Keep
[`Terminator`]: crate::Terminator
[`Framer`]: crate::Framer
[`Listen`]: crate::Listen
[`Listen::backlog`]: crate::Listen::backlog
[`Connect::timeout`]: crate::Connect::timeout
[`Config`]: crate::Config
[`Config::watchdog`]: crate::Config::watchdog
[`Config::offload_threads`]: crate::Config::offload_threads
[`Reason`]: crate::Reason
[`Limit`]: crate::Limit
[`NameError`]: crate::NameError
[`ConnectError`]: crate::ConnectError
[`OffloadError`]: crate::OffloadError
[`Producer`]: crate::Producer
[`Key`]: crate::Key
[`Timer`]: crate::Timer
[`Stats`]: crate::Stats
[`Target`]: crate::Target
[`Bind`]: crate::Bind
[`Datagram`]: crate::Datagram
[`Full`]: crate::Full
[`Scope`]: crate::Scope
[`Adopted`]: crate::Adopted
[`Detached`]: crate::Detached
"
    };
}

#[cfg(feature = "sim")]
macro_rules! links_to_testing {
    () => {
        "\
[`Transcript`]: crate::testing::Transcript
[`Scene`]: crate::testing::Scene
[`Sim`]: crate::testing::Sim
[`check`]: crate::testing::check
[`every_cut`]: crate::testing::every_cut
"
    };
}

/// The module is not there.
#[cfg(not(feature = "sim"))]
macro_rules! links_without_testing {
    () => {
        "\
[`Transcript`]: crate::manual::testing
[`Scene`]: crate::manual::testing
[`Sim`]: crate::manual::testing
[`check`]: crate::manual::testing
[`every_cut`]: crate::manual::testing
"
    };
}

#[cfg(feature = "tls")]
macro_rules! links_to_tls {
    () => {
        "\
[`Tls`]: crate::Tls
[`TlsServer`]: crate::TlsServer
[`TlsClient`]: crate::TlsClient
[`TlsError`]: crate::TlsError
"
    };
}

/// They are not there.
#[cfg(not(feature = "tls"))]
macro_rules! links_without_tls {
    () => {
        "\
[`Tls`]: crate::manual::tls
[`TlsServer`]: crate::manual::tls
[`TlsClient`]: crate::manual::tls
[`TlsError`]: crate::manual::tls
"
    };
}

#[doc = links!()]
#[doc = include_str!("../docs/tutorial/README.md")]
pub mod tutorial {
    #[doc = links!()]
    #[doc = include_str!("../docs/tutorial/1-a-line-server.md")]
    pub mod a_line_server {}
    #[doc = links!()]
    #[cfg_attr(feature = "sim", doc = links_to_testing!())]
    #[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
    #[doc = include_str!("../docs/tutorial/2-limits.md")]
    pub mod limits {}
    #[doc = links!()]
    #[cfg_attr(feature = "sim", doc = links_to_testing!())]
    #[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
    #[doc = include_str!("../docs/tutorial/3-shared-state.md")]
    pub mod shared_state {}
    #[doc = links!()]
    #[doc = include_str!("../docs/tutorial/4-telling-others.md")]
    pub mod telling_others {}
    #[doc = links!()]
    #[doc = include_str!("../docs/tutorial/5-time-outs-and-timers.md")]
    pub mod time_outs_and_timers {}
    #[doc = links!()]
    #[cfg_attr(feature = "sim", doc = links_to_testing!())]
    #[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
    #[doc = include_str!("../docs/tutorial/6-a-storm.md")]
    pub mod a_storm {}
    #[doc = links!()]
    #[doc = include_str!("../docs/tutorial/7-a-client-that-comes-back.md")]
    pub mod a_client_that_comes_back {}
    // Its program needs the feature.
    #[cfg(any(all(unix, feature = "signals"), not(doctest)))]
    #[doc = links!()]
    #[doc = include_str!("../docs/tutorial/8-ending.md")]
    pub mod ending {}
    // Its program needs both features.
    #[cfg(any(all(unix, feature = "signals", feature = "tls"), not(doctest)))]
    #[doc = links!()]
    #[doc = include_str!("../docs/tutorial/9-tls.md")]
    pub mod tls {}
}
#[doc = links!()]
#[doc = include_str!("../docs/the-loop.md")]
pub mod the_loop {}
#[doc = links!()]
#[doc = include_str!("../docs/embedding.md")]
pub mod embedding {}
#[doc = links!()]
#[doc = include_str!("../docs/restarting.md")]
pub mod restarting {}
#[doc = links!()]
#[doc = include_str!("../docs/protocols.md")]
pub mod protocols {}
#[doc = links!()]
#[doc = include_str!("../docs/connecting.md")]
pub mod connecting {}
#[doc = links!()]
#[doc = include_str!("../docs/datagrams.md")]
pub mod datagrams {}
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/other-descriptors.md")]
pub mod other_descriptors {}
// Its programs need the features.
#[cfg(any(all(unix, feature = "children", feature = "signals"), not(doctest)))]
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/processes-and-signals.md")]
pub mod processes_and_signals {}
// Its programs need the feature.
#[cfg(any(feature = "tls", not(doctest)))]
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[cfg_attr(feature = "tls", doc = links_to_tls!())]
#[cfg_attr(not(feature = "tls"), doc = links_without_tls!())]
#[doc = include_str!("../docs/tls.md")]
pub mod tls {}
#[doc = links!()]
#[doc = include_str!("../docs/errors.md")]
pub mod errors {}
#[doc = links!()]
#[doc = include_str!("../docs/framing.md")]
pub mod framing {}
#[doc = links!()]
#[doc = include_str!("../docs/closing.md")]
pub mod closing {}
#[doc = links!()]
#[doc = include_str!("../docs/back-pressure.md")]
pub mod back_pressure {}
#[doc = links!()]
#[doc = include_str!("../docs/sharing-state.md")]
pub mod sharing_state {}
#[doc = links!()]
#[doc = include_str!("../docs/timers-and-threads.md")]
pub mod timers_and_threads {}
#[doc = links!()]
#[doc = include_str!("../docs/reconnecting.md")]
pub mod reconnecting {}
#[doc = links!()]
#[doc = include_str!("../docs/serving.md")]
pub mod serving {}
#[doc = links!()]
#[doc = include_str!("../docs/blocking-work.md")]
pub mod blocking_work {}
#[doc = links!()]
#[doc = include_str!("../docs/sessions.md")]
pub mod sessions {}
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/an-application.md")]
pub mod an_application {}
// Its programs need the feature; whoever looks for how to test must find the chapter without.
#[cfg(any(feature = "sim", not(doctest)))]
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/testing.md")]
pub mod testing {}
#[doc = links!()]
#[doc = include_str!("../docs/logging.md")]
pub mod logging {}
#[doc = links!()]
#[doc = include_str!("../docs/platforms.md")]
pub mod platforms {}
#[doc = links!()]
#[doc = include_str!("../docs/from-asyncore.md")]
pub mod from_asyncore {}
