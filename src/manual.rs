//! The manual: a chapter on each subject. Its programs are compiled and run as tests.
//!
//! **Begin with the [tutorial]**: in an hour you build a chat room of your own, in nine steps, from ten lines to limits, storms, a
//! client that comes back, and TLS. After that, each chapter covers one subject in full:
//!
//! ## Look it up
//!
//! | chapter | says |
//! |---|---|
//! | [cookbook] | fifty answers to “How do I …?”, each ready to copy, with the chapter that says more |
//! | [glossary] | the words of this crate, a sentence each |
//!
//! ## What you write
//!
//! | chapter | says |
//! |---|---|
//! | [the loop](the_loop) | what a turn does, in which order, and when the loop ends |
//! | [protocols] | what is called when; connecting, refusing, upgrading; sources of your own |
//! | [framing] | terminators and their limits, putting back, your own framer, the unfinished rest |
//! | [sharing state](sharing_state) | the state, keys, tells, posts |
//! | [timers and threads](timers_and_threads) | timers, four kinds of time-outs, other threads |
//! | [closing] | the ways to end a connection, what follows, and the reasons |
//! | [back-pressure](back_pressure) | water marks, producers, files, pausing, throttles, rate limits |
//! | [limits] | every bound: its default, its unit, its reason |
//!
//! ## The network
//!
//! | chapter | says |
//! |---|---|
//! | [serving] | a server from one function, request handlers, admitting clients, shutting down |
//! | [connecting] | names, services, several addresses at once, time-outs |
//! | [reconnecting] | a client that comes back: pauses, what is kept meanwhile, stopping |
//! | [datagrams] | UDP, Unix datagrams and others: what arrives, what fails, what waits |
//! | [TLS](tls) | servers, clients, certificates; STARTTLS; cuts; what went wrong |
//! | [which error means what](errors) | each reason, each errno, and what to do |
//!
//! ## The rest of the system
//!
//! | chapter | says |
//! |---|---|
//! | [other descriptors](other_descriptors) | pipes, terminals, files, standard input, sockets opened elsewhere: taken over and given back |
//! | [processes and signals](processes_and_signals) | child processes, their output and their exit; signals |
//! | [work elsewhere](blocking_work) | disks and databases on other threads; files in and out; lanes |
//! | [embedding] | the loop inside another: a descriptor, a deadline, a turn |
//! | [restarting] | a new program in place of the old one, without losing a client |
//! | [platforms] | what works on which system, what Windows does differently, what each feature adds |
//!
//! ## Whole programs
//!
//! | chapter | says |
//! |---|---|
//! | [testing] | your protocol as a dialogue, among scripted peers, in a thousand storms; replaying a failure by its seed |
//! | [logging] | records and their levels |
//! | [sessions] | an FTP server walked through: commands in order, a second connection, files both ways |
//! | [an application](an_application) | a chat room walked through: its parts, its order, its bounds, its tests |
//!
//! ## Coming from elsewhere
//!
//! | chapter | says |
//! |---|---|
//! | [from asyncore](from_asyncore) | what each name of asyncore, asynchat and socketserver has become, and what behaves differently |
//! | [coming from other libraries](coming_from) | the same for tokio, libuv and Twisted |
//!
//! Next to the sources, in docs/, are four more pages: reliability (what was tried, with the figures), benchmarks (what it
//! costs), the flaws (what its ancestors got wrong, with the test that guards against each here), and how the cuts are tested.
//!
//! A program's lines that begin with `# ` are there only for the test, and are not shown here.

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
[cookbook]: crate::manual::cookbook
[glossary]: crate::manual::glossary
[the loop]: crate::manual::the_loop
[protocols]: crate::manual::protocols
[framing]: crate::manual::framing
[sharing state]: crate::manual::sharing_state
[timers and threads]: crate::manual::timers_and_threads
[closing]: crate::manual::closing
[back-pressure]: crate::manual::back_pressure
[limits]: crate::manual::limits
[serving]: crate::manual::serving
[connecting]: crate::manual::connecting
[reconnecting]: crate::manual::reconnecting
[datagrams]: crate::manual::datagrams
[TLS]: crate::manual::tls
[which error means what]: crate::manual::errors
[other descriptors]: crate::manual::other_descriptors
[processes and signals]: crate::manual::processes_and_signals
[work elsewhere]: crate::manual::blocking_work
[embedding]: crate::manual::embedding
[restarting]: crate::manual::restarting
[platforms]: crate::manual::platforms
[testing]: crate::manual::testing
[logging]: crate::manual::logging
[sessions]: crate::manual::sessions
[an application]: crate::manual::an_application
[from asyncore]: crate::manual::from_asyncore
[coming from other libraries]: crate::manual::coming_from
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
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}
#[doc = links!()]
#[doc = include_str!("../docs/the-loop.md")]
pub mod the_loop {}
#[doc = links!()]
#[doc = include_str!("../docs/protocols.md")]
pub mod protocols {}
#[doc = links!()]
#[doc = include_str!("../docs/framing.md")]
pub mod framing {}
#[doc = links!()]
#[doc = include_str!("../docs/sharing-state.md")]
pub mod sharing_state {}
#[doc = links!()]
#[doc = include_str!("../docs/timers-and-threads.md")]
pub mod timers_and_threads {}
#[doc = links!()]
#[doc = include_str!("../docs/closing.md")]
pub mod closing {}
#[doc = links!()]
#[doc = include_str!("../docs/back-pressure.md")]
pub mod back_pressure {}
#[doc = links!()]
#[doc = include_str!("../docs/limits.md")]
pub mod limits {}
#[doc = links!()]
#[doc = include_str!("../docs/serving.md")]
pub mod serving {}
#[doc = links!()]
#[doc = include_str!("../docs/connecting.md")]
pub mod connecting {}
#[doc = links!()]
#[doc = include_str!("../docs/reconnecting.md")]
pub mod reconnecting {}
#[doc = links!()]
#[doc = include_str!("../docs/datagrams.md")]
pub mod datagrams {}
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
#[doc = links!()]
#[doc = include_str!("../docs/blocking-work.md")]
pub mod blocking_work {}
#[doc = links!()]
#[doc = include_str!("../docs/embedding.md")]
pub mod embedding {}
#[doc = links!()]
#[doc = include_str!("../docs/restarting.md")]
pub mod restarting {}
#[doc = links!()]
#[doc = include_str!("../docs/platforms.md")]
pub mod platforms {}
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
#[doc = include_str!("../docs/sessions.md")]
pub mod sessions {}
#[doc = links!()]
#[cfg_attr(feature = "sim", doc = links_to_testing!())]
#[cfg_attr(not(feature = "sim"), doc = links_without_testing!())]
#[doc = include_str!("../docs/an-application.md")]
pub mod an_application {}
#[doc = links!()]
#[doc = include_str!("../docs/from-asyncore.md")]
pub mod from_asyncore {}
#[doc = links!()]
#[doc = include_str!("../docs/coming-from.md")]
pub mod coming_from {}
