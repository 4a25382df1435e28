//! Jobs posted into the loop, beside std's channel.

use crate::{Failure, median, timed};
use mainspring::{Reactor, Remote};
use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

const BURST: usize = 1_000;
const MANY: usize = 100_000;
const PASSES: usize = 51;

type Job = Box<dyn FnOnce(&mut usize) + Send>;

pub(crate) fn table() -> Result<String, Failure> {
    let mut reactor = Reactor::<usize>::new()?;
    let remote = reactor.remote();
    let (sender, receiver) = mpsc::channel();
    let (job_sender, job_receiver) = mpsc::channel();
    let (mut posted, mut sent, mut boxed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..PASSES {
        let (took, outcome) = timed(|| burst_of_posts(&mut reactor, &remote));
        outcome?;
        posted.push(took / BURST as f64);
        let (took, sum) = timed(|| burst_of_numbers(&sender, &receiver));
        sent.push(took / BURST as f64);
        let (took, count) = timed(|| burst_of_jobs(&job_sender, &job_receiver));
        boxed.push(took / BURST as f64);
        if sum != BURST * (BURST - 1) / 2 || count != BURST {
            return Err("something was lost in a channel".into());
        }
    }
    let (mut across, mut across_channel) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        across.push(posts_of_another_thread(&mut reactor)?);
        across_channel.push(jobs_of_another_thread(&job_sender, &job_receiver));
    }
    Ok(format!(
        "### Posts: ns each\n\nIn bursts of {BURST}, posted and run by one thread, so that nobody waits: with the turn that runs them, its \
         wake-up included; and {MANY} of another thread, by the clock.\n\n| | one thread | another thread |\n|---|--:|--:|\n\
         | `Remote::post` and the turn | {:.0} | {:.0} |\n| std mpsc, of boxed closures | {:.0} | {:.0} |\n| std mpsc, of numbers | {:.0} | – |\n",
        median(&mut posted),
        median(&mut across),
        median(&mut boxed),
        median(&mut across_channel),
        median(&mut sent),
    ))
}

fn burst_of_posts(reactor: &mut Reactor<usize>, remote: &Remote<usize>) -> Result<(), Failure> {
    let mut ran = 0;
    for one in std::iter::repeat_n(1, BURST) {
        remote.post(move |_, ran| *ran += one)?;
    }
    reactor.turn(&mut ran, Duration::ZERO)?;
    if ran == BURST { Ok(()) } else { Err(format!("{ran} of {BURST} jobs ran in one turn").into()) }
}

fn burst_of_numbers(sender: &Sender<usize>, receiver: &Receiver<usize>) -> usize {
    for n in 0..BURST {
        let _ = sender.send(n);
    }
    receiver.try_iter().sum()
}

fn burst_of_jobs(sender: &Sender<Job>, receiver: &Receiver<Job>) -> usize {
    for one in std::iter::repeat_n(1, BURST) {
        let _ = sender.send(Box::new(move |ran| *ran += one));
    }
    let mut ran = 0;
    for job in receiver.try_iter() {
        job(&mut ran);
    }
    ran
}

fn posts_of_another_thread(reactor: &mut Reactor<usize>) -> Result<f64, Failure> {
    let remote = reactor.remote();
    let began = Instant::now();
    let poster = thread::spawn(move || std::iter::repeat_n(1, MANY).try_for_each(|one| remote.post(move |_, ran| *ran += one)));
    let mut ran = 0;
    while ran < MANY && began.elapsed() < Duration::from_secs(20) {
        reactor.turn(&mut ran, Duration::from_secs(1))?;
    }
    let took = began.elapsed().as_nanos() as f64;
    poster.join().map_err(|_| "the posting thread has panicked")??;
    if ran == MANY { Ok(took / MANY as f64) } else { Err(format!("{ran} of {MANY} jobs ran").into()) }
}

fn jobs_of_another_thread(sender: &Sender<Job>, receiver: &Receiver<Job>) -> f64 {
    let sender = sender.clone();
    let began = Instant::now();
    let poster =
        thread::spawn(move || std::iter::repeat_n(1, MANY).all(|one| sender.send(Box::new(move |ran| *ran += one)).is_ok()));
    let mut ran = 0;
    while ran < MANY {
        match receiver.recv_timeout(Duration::from_secs(20)) {
            Ok(job) => job(&mut ran),
            Err(_) => break,
        }
    }
    let took = began.elapsed().as_nanos() as f64;
    let _ = poster.join();
    took / MANY as f64
}
