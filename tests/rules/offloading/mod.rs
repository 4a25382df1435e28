//! Blocking work on other threads.

mod ending;
#[cfg(feature = "sim")]
mod simulated;
mod threads;

use mainspring::{Config, Reactor};
use std::{
    cell::Cell,
    rc::Rc,
    sync::mpsc::{Receiver, Sender},
};

fn start<S>() -> Reactor<S> {
    Reactor::new().expect("a selector")
}

/// Work that says that it has begun, and ends when the other end of `wait` is dropped.
fn held(begun: Sender<()>, wait: Receiver<()>) -> impl FnOnce() + Send + 'static {
    move || {
        let _ = begun.send(());
        let _ = wait.recv();
    }
}

fn narrow<S>(threads: usize, queue: usize) -> Reactor<S> {
    Reactor::with_config(Config::new().offload_threads(threads).offload_queue(queue)).expect("a selector")
}

/// Says when it is dropped.
struct Witness(Rc<Cell<u32>>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}
