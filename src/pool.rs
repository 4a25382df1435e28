//! A small pool of threads for what may block. It knows nothing of sockets, of the loop, or of your state: a job has to
//! report its own end.
//!
//! Threads are started when there is work for them, and end when there was none for a while. Nobody waits for one, not even
//! at exit: a job that never returns costs its thread, and nothing else.

use crate::panics::{discard, guard};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// A thread without work ends after this long: work that comes in bursts finds it, and an idle program has none.
const IDLE_MAX: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Names a job of one pool.
pub(crate) type Ticket = u64;

/// What a pool is for: each has its own threads, so that one kind of work never waits for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Names,
    Offload,
    /// Pieces of lanes: each of these has one at a time.
    Lanes,
}

/// How many there are.
pub(crate) const PURPOSES: usize = 3;

impl Purpose {
    /// Linux keeps fifteen bytes of the name.
    fn thread_name(self) -> &'static str {
        match self {
            Self::Names => "mainspring-name",
            Self::Offload => "mainspring-work",
            Self::Lanes => "mainspring-lane",
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
    /// The system gives no thread, and there is none yet.
    NoThread(io::Error),
}

pub(crate) struct Pool {
    purpose: Purpose,
    /// At least 1.
    threads_max: usize,
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
    /// What is done before anything else, and also when the pool has gone: what the loop's thread would otherwise have to
    /// wait for.
    chores: VecDeque<Job>,
    /// free <= threads <= threads_max
    threads: usize,
    /// Threads that look at the queue before they sleep: the first `free` jobs in it are as good as begun.
    free: usize,
    /// A thread beyond these does chores, because all of them are busy.
    has_helper: bool,
    is_over: bool,
}

impl Shared {
    /// Nothing that panics runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Roster> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    pub(crate) fn new(purpose: Purpose, threads_max: usize) -> Self {
        Self { purpose, threads_max: threads_max.max(1), shared: Arc::default() }
    }

    /// Jobs begin in the order in which they come; at most `queue_max` of them wait for a thread.
    pub(crate) fn spawn(&self, queue_max: usize, ticket: Ticket, job: Job) -> Result<(), (Refused, Job)> {
        self.spawn_by(queue_max, ticket, job, || self.start(work))
    }

    fn spawn_by(
        &self,
        queue_max: usize,
        ticket: Ticket,
        job: Job,
        start_thread: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), (Refused, Job)> {
        let (taken, no_other) = self.enter(queue_max, ticket, job, start_thread);
        if taken.is_ok() {
            self.shared.changed.notify_one();
        }
        // Not under the lock: a logger may wait, or have a job of its own for this pool.
        if let Some(error) = no_other {
            log::warn!(target: "mainspring", "cannot start another thread: {error}");
        }
        taken
    }

    /// Also returns why no other thread could be started, if one was wanted and the job can do without.
    fn enter(
        &self,
        queue_max: usize,
        ticket: Ticket,
        job: Job,
        start_thread: impl FnOnce() -> io::Result<()>,
    ) -> (Result<(), (Refused, Job)>, Option<io::Error>) {
        let mut state = self.shared.lock();
        let no_other = self.man(&mut state, start_thread).err();
        match no_other {
            Some(error) if state.threads == 0 => return (Err((Refused::NoThread(error), job)), None),
            _ if state.queue.len() >= state.free.saturating_add(queue_max) => return (Err((Refused::Full, job)), no_other),
            _ => state.queue.push_back((ticket, job)),
        }
        (Ok(()), no_other)
    }

    /// Starts a thread for what comes next if all are busy and there may be another.
    fn man(&self, state: &mut Roster, start_thread: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if state.queue.len() + state.chores.len() >= state.free && state.threads < self.threads_max {
            start_thread()?;
            state.threads += 1;
            state.free += 1;
        }
        Ok(())
    }

    /// Has a thread do what nobody waits for, before anything else; another thread if all are busy, perhaps for ever. The
    /// chore is given back if there is none.
    pub(crate) fn do_chore(&self, chore: Job) -> Result<(), Job> {
        let mut state = self.shared.lock();
        let _ = self.man(&mut state, || self.start(work));
        if state.queue.len() + state.chores.len() >= state.free && !state.has_helper {
            state.has_helper = self.start(help).is_ok();
        }
        if state.threads == 0 && !state.has_helper {
            return Err(chore);
        }
        state.chores.push_back(chore);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Takes a job back that has not begun.
    pub(crate) fn take_back(&self, ticket: Ticket) -> Option<Job> {
        let mut state = self.shared.lock();
        let at = state.queue.iter().position(|(queued, _)| *queued == ticket)?;
        state.queue.remove(at).map(|(_, job)| job)
    }

    fn start(&self, life: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name(self.purpose.thread_name().to_owned()).spawn(move || life(&shared)).map(|_| ())
    }
}

/// What has not begun never does, except for the chores.
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
        let chore = state.chores.pop_front();
        if let Some(job) = chore.or_else(|| state.queue.pop_front().map(|(_, job)| job)) {
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
        if timeout.timed_out() && state.queue.is_empty() && state.chores.is_empty() {
            state.free -= 1;
            state.threads -= 1;
            return;
        }
    }
}

/// The life of a thread that does chores, and ends when there are none.
fn help(shared: &Shared) {
    let mut state = shared.lock();
    while let Some(chore) = state.chores.pop_front() {
        drop(state);
        let _ = guard(chore);
        state = shared.lock();
    }
    state.has_helper = false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const LONG: Duration = Duration::from_secs(20);

    /// With room for this many that wait.
    struct Bounded(Pool, usize);

    impl Bounded {
        fn spawn(&self, ticket: Ticket, job: Job) -> Result<(), Refused> {
            self.0.spawn(self.1, ticket, job).map_err(|(refused, _)| refused)
        }
    }

    fn pool(threads: usize, queue: usize) -> Bounded {
        Bounded(Pool::new(Purpose::Offload, threads), queue)
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
        assert_eq!(pool.0.shared.lock().threads, 1);
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
        assert!(pool.0.take_back(1).is_none(), "it has begun");
        assert!(pool.0.take_back(3).is_some());
        assert!(pool.0.take_back(3).is_none());
        drop(pool);
        drop((first, begun));
        assert!(begins.recv_timeout(LONG).is_err(), "nothing begins, and all that could have is gone");
    }

    /// Gives work to the pool whose record it gets.
    struct Logger;

    static LOGGING: std::sync::OnceLock<Bounded> = std::sync::OnceLock::new();

    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            if record.args().to_string().contains("another thread: none on purpose") {
                let pool = LOGGING.get().expect("it is what this test logs of");
                // Not `spawn`, which would wait here for ever.
                let was_free = pool.0.shared.state.try_lock().is_ok();
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
        pool.0.spawn_by(10, 2, job, || Err(io::Error::other("none on purpose"))).map_err(|(refused, _)| refused).expect("room");
        assert_eq!(next(&begins), 2, "the logger's work has another thread");
    }

    #[test]
    fn a_chore_comes_before_what_waits_and_is_done_also_when_the_pool_has_gone() {
        let (begun, begins) = channel();
        let pool = pool(1, 10);
        let (first, job) = held(&begun, 1);
        pool.spawn(1, job).expect("a thread");
        assert_eq!(next(&begins), 1);
        pool.spawn(2, held(&begun, 2).1).expect("room");
        pool.0.shared.lock().has_helper = true; // so that there is none
        let chore = |number: u32| {
            let begun = begun.clone();
            assert!(pool.0.do_chore(Box::new(move || begun.send(number).expect("the test listens"))).is_ok());
        };
        chore(3);
        chore(4);
        drop(first);
        assert_eq!([0; 3].map(|_| next(&begins)), [3, 4, 2]);
        let (last, job) = held(&begun, 5);
        pool.spawn(5, job).expect("room");
        assert_eq!(next(&begins), 5);
        pool.spawn(6, held(&begun, 6).1).expect("room");
        chore(7);
        drop(pool);
        drop((last, begun));
        assert_eq!((next(&begins), begins.recv_timeout(LONG).is_err()), (7, true));
    }

    #[test]
    fn a_chore_does_not_wait_for_work_that_never_returns() {
        let (begun, begins) = channel();
        let pool = pool(1, 10);
        let (_never, job) = held(&begun, 1);
        pool.spawn(1, job).expect("a thread");
        assert_eq!(next(&begins), 1);
        for number in 2..100 {
            let begun = begun.clone();
            assert!(pool.0.do_chore(Box::new(move || begun.send(number).expect("the test listens"))).is_ok());
            assert_eq!(next(&begins), number);
        }
    }

    #[test]
    fn threads_are_started_for_work_only() {
        let pool = pool(8, 10);
        assert_eq!(pool.0.shared.lock().threads, 0);
        for number in 0..20 {
            let (done, ended) = channel();
            pool.spawn(number, Box::new(move || done.send(0).expect("the test listens"))).expect("a thread");
            next(&ended);
            // The thread is free a moment later.
            while pool.0.shared.lock().free == 0 {
                thread::yield_now();
            }
        }
        assert_eq!(pool.0.shared.lock().threads, 1);
    }
}
