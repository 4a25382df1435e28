//! What belongs to one thread, under a name that may go anywhere (feature `sim`).

use std::{
    any::Any,
    cell::RefCell,
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// A name for something that belongs to this thread and can only be got here: so a feature that is there for tests does not
/// keep a [`Reason`](crate::Reason) from being sent to another thread.
pub(crate) struct Parked(u64);

thread_local! {
    static PARKED: RefCell<BTreeMap<u64, Box<dyn Any>>> = const { RefCell::new(BTreeMap::new()) };
}

impl Parked {
    pub(crate) fn new(what: Box<dyn Any>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        PARKED.with_borrow_mut(|all| all.insert(number, what));
        Self(number)
    }

    /// `None` on another thread.
    pub(crate) fn take(&mut self) -> Option<Box<dyn Any>> {
        PARKED.try_with(|all| all.borrow_mut().remove(&self.0)).ok().flatten()
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parked_is_found_by_its_own_thread_alone_and_goes_with_its_name() {
        use std::rc::Rc;
        let what = Rc::new(7);
        let mut parked = Parked::new(Box::new(Rc::clone(&what)));
        let elsewhere = std::thread::spawn(move || (parked.take().is_none(), parked)).join();
        let (is_nothing, parked) = elsewhere.expect("it does not panic");
        assert!(is_nothing && Rc::strong_count(&what) == 2);
        drop(parked);
        assert_eq!(Rc::strong_count(&what), 1);
        let found = Parked::new(Box::new(what)).take().expect("it is of this thread");
        assert_eq!(found.downcast::<Rc<i32>>().ok().map(|found| **found), Some(7));
    }
}
