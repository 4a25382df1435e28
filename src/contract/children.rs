//! Children of the process: their ends, and signals to them. No thread waits for them, and none is left a zombie while the
//! reactor lives.

use super::{Core, Dispatcher, Drained, Net, Scope};
use crate::{
    endpoint::Entry,
    flags::READABLE,
    key::Key,
    panics::discard,
    reason::{Fault, Reason},
    table::Table,
    world::Source,
};
use rustix::process::{Pid, Signal, kill_process};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, OwnedFd};
use std::{
    io,
    process::{Child, ExitStatus},
};

/// # Children
///
/// The chapter is [processes and signals](crate::manual::processes_and_signals). To read what a child writes, or to write to
/// it, [adopt](Self::adopt) its descriptors.
impl<S> Net<'_, S> {
    /// Waits for a child to end, and then runs `then` with its exit status, once, between other callbacks. The child may
    /// have ended already. As [`Child::wait`] does, it closes the child's standard input, unless you have taken that out
    /// before. The wait keeps [`run`](crate::Reactor::run) running. The child's output may end before or after: a grandchild
    /// may hold it open.
    ///
    /// If the wait is closed before that, by [`close`](Self::close), a drain or a shutdown, `then` is dropped uncalled and
    /// the child lives on; it is still reaped as long as the reactor turns.
    ///
    /// Linux reports the end by a pidfd. Where there is none (before 5.3, behind a filter that forbids it, on other systems)
    /// the child is asked after 1 ms, then less and less often, in the end ten times a second.
    ///
    /// # Errors
    /// `NotConnected` during a shutdown, `Unsupported` in a simulated world: the child lives on, and nobody reaps it. `then`
    /// is given the error of waitpid(2): ECHILD where SIGCHLD is ignored, because the kernel has forgotten the status.
    pub fn wait_child(
        &mut self,
        child: Child,
        then: impl FnOnce(&mut Net<'_, S>, &mut S, io::Result<ExitStatus>) + 'static,
    ) -> io::Result<Key> {
        self.core.wait_child(child, Box::new(then))
    }

    /// Sends a signal to a child that is [waited for](Self::wait_child), and never to another process that has got its
    /// number. `false`: it has ended, nobody waits for it, or no signal with a name has this
    /// number (kill(2)).
    pub fn signal_child(&mut self, key: Key, signal: i32) -> bool {
        self.core.signal_child(key, signal)
    }
}

pub(super) type ThenEnded<S> = Box<dyn FnOnce(&mut Net<'_, S>, &mut S, io::Result<ExitStatus>)>;

/// What is to follow, by the dispatcher that waits.
pub(super) type Ends<S> = Table<Key, ThenEnded<S>>;

impl<S> Core<S> {
    fn wait_child(&mut self, child: Child, then: ThenEnded<S>) -> io::Result<Key> {
        self.hub.refuse_if_shut()?;
        let key = self.watch_child(Waiting::new(child))?;
        self.ends_of_children.get_or_insert_with(Table::default).put(key, then);
        Ok(key)
    }

    fn watch_child(&mut self, waiting: Waiting) -> io::Result<Key> {
        let is_asked = waiting.is_asked();
        let key = self.hub.watch(waiting.source())?;
        self.keep_dispatcher(key, Box::new(waiting));
        if is_asked {
            self.hub.dispatcher_wants(key, READABLE);
        }
        Ok(key)
    }

    fn take_end(&mut self, key: Key) -> Option<ThenEnded<S>> {
        self.ends_of_children.as_mut()?.remove(key)
    }

    pub(super) fn discard_ends_of_children(&mut self) {
        for (_, then) in self.ends_of_children.take().into_iter().flat_map(|mut ends| ends.take_all().collect::<Vec<_>>()) {
            discard("what was to follow a child's end", then);
        }
    }

    fn signal_child(&mut self, key: Key, signal: i32) -> bool {
        let Some(signal) = Signal::from_named_raw(signal) else { return false };
        let is_open = self.hub.slots.get(key).is_some_and(Entry::is_open);
        is_open && self.dispatcher::<Waiting>(key).is_some_and(|waiting| waiting.signal(signal))
    }
}

struct Waiting {
    /// `None`: it has ended, and is reaped.
    child: Option<Child>,
    /// Readable when it has ended (pidfd_open(2)). `None`: it is asked now and then.
    #[cfg(target_os = "linux")]
    pidfd: Option<OwnedFd>,
    /// Nobody is to be told of its end any more: it is only reaped.
    is_orphan: bool,
}

impl Waiting {
    fn new(mut child: Child) -> Self {
        drop(child.stdin.take()); // or it might wait for us
        Self {
            // As long as it is not reaped, nobody else has its number.
            #[cfg(target_os = "linux")]
            pidfd: match child.try_wait() {
                Ok(None) => pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).ok(),
                _ => None,
            },
            child: Some(child),
            is_orphan: false,
        }
    }

    fn source(&self) -> Source<'_> {
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            return Source::Fd(pidfd.as_fd());
        }
        Source::Nothing
    }

    fn is_asked(&self) -> bool {
        matches!(self.source(), Source::Nothing)
    }

    fn signal(&mut self, signal: Signal) -> bool {
        let Some(child) = &mut self.child else { return false };
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            return pidfd_send_signal(pidfd, signal).is_ok();
        }
        matches!(child.try_wait(), Ok(None)) && kill_process(Pid::from_child(child), signal).is_ok()
    }
}

impl<S> Dispatcher<S> for Waiting {
    fn source(&mut self) -> Source<'_> {
        Waiting::source(self)
    }

    fn readable(&mut self, scope: &mut Scope<'_, S>, state: &mut S) -> Result<Drained, Fault> {
        let Some(child) = &mut self.child else { return Ok(Drained::Yes) };
        let (key, core) = (scope.key, &mut *scope.net.core);
        let Some(status) = child.try_wait().transpose() else {
            if self.is_asked() {
                core.hub.rest_dispatcher(key, READABLE);
            }
            return Ok(Drained::Yes);
        };
        self.child = None;
        let then = core.take_end(key);
        core.hub.end(key, Reason::Finish);
        if let Some(then) = then {
            core.run_job("what follows a child's end", state, |net, state| then(net, state, status));
        }
        Ok(Drained::Yes)
    }

    fn closed(&mut self, scope: &mut Scope<'_, S>, _: &mut S, _: Reason) {
        let core = &mut *scope.net.core;
        discard("what was to follow a child's end", core.take_end(scope.key));
        if self.child.is_none() || self.is_orphan {
            return; // only a shutdown ends an orphan: nobody reaps it any more
        }
        // It lives on, and must be reaped; also if a drain's grace is over, and nothing else is opened any more.
        let orphan = Self {
            child: self.child.take(),
            #[cfg(target_os = "linux")]
            pidfd: self.pidfd.take(),
            is_orphan: true,
        };
        if let Ok(key) = core.watch_child(orphan) {
            core.hub.keep_in_background(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reactor;
    use std::{
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
        time::Duration,
    };

    /// Where the system has no pidfd, or a filter forbids it.
    #[test]
    fn without_a_pidfd_it_is_asked_for_its_end_and_killed_by_its_number() {
        let mut reactor = Reactor::new().expect("a selector");
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a program");
        let net = reactor.net();
        let waiting = Waiting {
            child: Some(child),
            #[cfg(target_os = "linux")]
            pidfd: None,
            is_orphan: false,
        };
        let key = net.core.watch_child(waiting).expect("it may be waited for");
        let then: ThenEnded<Vec<ExitStatus>> = Box::new(|_, ended, status| ended.push(status.expect("a status")));
        net.core.ends_of_children.get_or_insert_with(Table::default).put(key, then);
        let mut ended = Vec::new();
        for _ in 0..10 {
            reactor.turn(&mut ended, Duration::from_millis(1)).expect("the selector works");
        }
        assert!(ended.is_empty() && reactor.net().signal_child(key, 9));
        reactor.run(&mut ended).expect("the selector works");
        assert_eq!(ended.iter().map(ExitStatusExt::signal).collect::<Vec<_>>(), [Some(9)]);
        assert!(!reactor.net().signal_child(key, 9), "it has ended");
    }
}
