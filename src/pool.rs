//! A small pool of threads for what may block. It knows nothing of sockets, of the loop, of your state: a job sees itself
//! to it that somebody learns of its end.
//!
//! Threads are started when there is work for them, and end when there was none for a while. Nobody waits for one, also not
//! at exit: a job that never returns costs its thread, and nothing else.

use crate::panics::{discard, guard};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// A thread without work ends after so long: what comes in bursts finds it, and an idle program has none.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Names a job of one pool.
pub(crate) type Ticket = u64;

/// What a pool is for: each has threads of its own, so that one kind of work never waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Names,
    Offload,
}

impl Purpose {
    /// Linux keeps fifteen bytes of it.
    fn thread_name(self) -> &'static str {
        match self {
            Self::Names => "mainspring-name",
            Self::Offload => "mainspring-work",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// At least 1.
    pub(crate) threads: usize,
    /// Jobs that wait for a thread.
    pub(crate) queue: usize,
}

/// Why a job was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Every thread is busy, and the queue is full.
    Full,
    /// The system gives no thread, and there is none.
    NoThread(io::Error),
}

pub(crate) struct Pool {
    purpose: Purpose,
    capacity: Capacity,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Roster>,
    /// Something has come into the queue, or the pool has gone.
    changed: Condvar,
}

#[derive(Default)]
struct Roster {
    queue: VecDeque<(Ticket, Job)>,
    /// free <= threads <= capacity.threads
    threads: usize,
    /// Threads that look at the queue before they sleep: the first `free` jobs in it are as good as begun.
    free: usize,
    is_over: bool,
}

impl Shared {
    /// Nothing that panics runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    pub(crate) fn new(purpose: Purpose, capacity: Capacity) -> Self {
        Self { purpose, capacity, shared: Arc::default() }
    }

    /// Jobs begin in the order in which they come.
    pub(crate) fn spawn(&self, ticket: Ticket, job: Job) -> Result<(), Refused> {
        self.spawn_by(ticket, job, || self.start_thread())
    }

    fn spawn_by(&self, ticket: Ticket, job: Job, start_thread: impl FnOnce() -> io::Result<()>) -> Result<(), Refused> {
        let (taken, no_other) = self.enter(ticket, job, start_thread);
        if taken.is_ok() {
            self.shared.changed.notify_one();
        }
        // Not under the lock: a logger may wait, or have something of its own for this pool.
        if let Some(error) = no_other {
            log::warn!(target: "mainspring", "cannot start another thread: {error}");
        }
        taken
    }

    /// Also why no other thread could be started, if one was wanted and the job can do without.
    fn enter(
        &self,
        ticket: Ticket,
        job: Job,
        start_thread: impl FnOnce() -> io::Result<()>,
    ) -> (Result<(), Refused>, Option<io::Error>) {
        let mut state = self.shared.lock();
        let mut no_other = None;
        if state.queue.len() >= state.free && state.threads < self.capacity.threads.max(1) {
            match start_thread() {
                Ok(()) => {
                    state.threads += 1;
                    state.free += 1;
                }
                Err(error) if state.threads == 0 => return (Err(Refused::NoThread(error)), None),
                Err(error) => no_other = Some(error),
            }
        }
        if state.queue.len() >= state.free.saturating_add(self.capacity.queue) {
            return (Err(Refused::Full), no_other);
        }
        state.queue.push_back((ticket, job));
        (Ok(()), no_other)
    }

    /// Takes a job back that has not begun.
    pub(crate) fn take_back(&self, ticket: Ticket) -> Option<Job> {
        let mut state = self.shared.lock();
        let at = state.queue.iter().position(|(queued, _)| *queued == ticket)?;
        state.queue.remove(at).map(|(_, job)| job)
    }

    fn start_thread(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name(self.purpose.thread_name().to_owned()).spawn(move || work(&shared)).map(|_| ())
    }
}

/// What has not begun never does.
impl Drop for Pool {
    fn drop(&mut self) {
        let queue = {
            let mut state = self.shared.lock();
            state.is_over = true;
            std::mem::take(&mut state.queue)
        };
        self.shared.changed.notify_all();
        for (_, job) in queue {
            discard("offloaded work", job);
        }
    }
}

/// A thread's life. It begins as a free one.
fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some((_, job)) = state.queue.pop_front() {
            state.free -= 1;
            drop(state);
            // A job catches its panics itself, where somebody can be told; this is for what is left of it.
            let _ = guard(job);
            state = shared.lock();
            state.free += 1;
            continue;
        }
        let waited = if state.is_over { None } else { Some(shared.changed.wait_timeout(state, IDLE_MAX)) };
        let Some(waited) = waited else { return };
        let (relocked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        state = relocked;
        if timeout.timed_out() && state.queue.is_empty() {
            state.free -= 1;
            state.threads -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const LONG: Duration = Duration::from_secs(20);

    fn pool(threads: usize, queue: usize) -> Pool {
        Pool::new(Purpose::Offload, Capacity { threads, queue })
    }

    /// A job that says that it has begun, and ends when it is let go.
    fn held(begun: &Sender<u32>, number: u32) -> (Sender<()>, Job) {
        let (let_go, wait) = channel();
        let begun = begun.clone();
        let job = Box::new(move || {
            begun.send(number).expect("the test listens");
            let _ = wait.recv();
        });
        (let_go, job)
    }

    fn next(receiver: &Receiver<u32>) -> u32 {
        receiver.recv_timeout(LONG).expect("a job begins")
    }

    #[test]
    fn a_queue_without_bound_takes_work() {
        let (begun, begins) = channel();
        let pool = pool(1, usize::MAX);
        let jobs: Vec<_> = (0..3).map(|number| held(&begun, number)).collect();
        for (number, (let_go, job)) in (0..).zip(jobs) {
            pool.spawn(number, job).expect("there is room without end");
            drop(let_go);
        }
        assert_eq!([0; 3].map(|_| next(&begins)), [0, 1, 2]);
    }

    #[test]
    fn a_full_pool_refuses_at_once_and_takes_work_again_when_a_thread_is_free() {
        let (begun, begins) = channel();
        let pool = pool(2, 1);
        let (first, job) = held(&begun, 1);
        pool.spawn(1, job).expect("a thread");
        let (_second, job) = held(&begun, 2);
        pool.spawn(2, job).expect("another thread");
        let (third, job) = held(&begun, 3);
        pool.spawn(3, job).expect("room in the queue");
        assert!(matches!(pool.spawn(4, Box::new(|| ())), Err(Refused::Full)));
        assert_eq!([next(&begins), next(&begins)].iter().sum::<u32>(), 3);
        drop(first);
        assert_eq!(next(&begins), 3);
        let (_fifth, job) = held(&begun, 5);
        pool.spawn(5, job).expect("the queue is empty again");
        assert!(matches!(pool.spawn(6, Box::new(|| ())), Err(Refused::Full)));
        drop(third);
        assert_eq!(next(&begins), 5);
    }

    #[test]
    fn a_job_that_never_returns_keeps_its_thread_only() {
        let (begun, begins) = channel();
        let pool = pool(2, 10);
        let (_never, job) = held(&begun, 0);
        pool.spawn(0, job).expect("a thread");
        for number in 1..=10 {
            let (let_go, job) = held(&begun, number);
            drop(let_go);
            pool.spawn(number.into(), job).expect("a thread or room");
        }
        let mut all: Vec<u32> = (0..=10).map(|_| next(&begins)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..=10).collect::<Vec<_>>());
    }

    #[test]
    fn a_job_that_panics_costs_no_thread() {
        let (begun, begins) = channel();
        let pool = pool(1, 10);
        pool.spawn(1, Box::new(|| std::panic::resume_unwind(Box::new("on purpose")))).expect("a thread");
        let (_end, job) = held(&begun, 2);
        pool.spawn(2, job).expect("room");
        assert_eq!(next(&begins), 2);
        assert_eq!(pool.shared.lock().threads, 1);
    }

    #[test]
    fn what_has_not_begun_can_be_taken_back_and_never_begins_after_the_pool_is_gone() {
        let (begun, begins) = channel();
        let pool = pool(1, 10);
        let (first, job) = held(&begun, 1);
        pool.spawn(1, job).expect("a thread");
        assert_eq!(next(&begins), 1);
        for number in 2..=4 {
            pool.spawn(number.into(), held(&begun, number).1).expect("room");
        }
        assert!(pool.take_back(1).is_none(), "it has begun");
        assert!(pool.take_back(3).is_some());
        assert!(pool.take_back(3).is_none());
        drop(pool);
        drop((first, begun));
        assert!(begins.recv_timeout(LONG).is_err(), "nothing begins, and all that could have is gone");
    }

    /// Gives work to the pool that it has a record from.
    struct Logger;

    static LOGGING: std::sync::OnceLock<Pool> = std::sync::OnceLock::new();

    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.args().to_string().contains("another thread: none on purpose") {
                let pool = LOGGING.get().expect("it is what this test logs of");
                // Not `spawn`, which would wait here for ever.
                let was_free = pool.shared.state.try_lock().is_ok();
                assert!(was_free && pool.spawn(3, Box::new(|| ())).is_ok(), "the lock is free, and there is room");
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_logger_may_give_work_to_the_pool_that_it_has_a_record_from() {
        let (begun, begins) = channel();
        let pool = LOGGING.get_or_init(|| pool(2, 10));
        let (_first, job) = held(&begun, 1);
        pool.spawn(1, job).expect("a thread");
        assert_eq!(next(&begins), 1, "the only thread is busy");
        log::set_logger(&Logger).expect("the only logger");
        log::set_max_level(log::LevelFilter::Warn);
        let (_second, job) = held(&begun, 2);
        pool.spawn_by(2, job, || Err(io::Error::other("none on purpose"))).expect("room");
        assert_eq!(next(&begins), 2, "the logger's work has another thread");
    }

    #[test]
    fn threads_are_started_for_work_only() {
        let pool = pool(8, 10);
        assert_eq!(pool.shared.lock().threads, 0);
        for number in 0..20 {
            let (done, ended) = channel();
            pool.spawn(number, Box::new(move || done.send(0).expect("the test listens"))).expect("a thread");
            next(&ended);
            // The thread is free a moment later.
            while pool.shared.lock().free == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(pool.shared.lock().threads, 1);
    }
}
