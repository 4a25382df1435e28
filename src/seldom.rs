//! Things that not every program has, in boxes whose `drop` is not compiled anew wherever one might be dropped. [`Seldom`]
//! is dropped by a function that is stored beside it, so that a program that never makes one links nothing of it; [`Apart`]
//! by one function for each type.

use std::{
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
};

/// Perhaps a box, as an option of one is.
pub(crate) struct Seldom<T>(Option<Made<T>>);

struct Made<T> {
    thing: ManuallyDrop<Box<T>>,
    drop: fn(Box<T>),
}

impl<T> Seldom<T> {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(thing: T) -> Self {
        Self(Some(Made { thing: ManuallyDrop::new(Box::new(thing)), drop }))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn as_ref(&self) -> Option<&T> {
        self.0.as_ref().map(|made| &**made.thing)
    }

    pub(crate) fn as_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut().map(|made| &mut **made.thing)
    }

    pub(crate) fn get_or_insert_with(&mut self, make: impl FnOnce() -> T) -> &mut T {
        if self.is_none() {
            *self = Self::new(make());
        }
        self.as_mut().expect("it is there, or was just made")
    }

    pub(crate) fn take(&mut self) -> Option<Box<T>> {
        self.0.take().map(|made| ManuallyDrop::into_inner(made.thing))
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self::none()
    }
}

impl<T> Drop for Seldom<T> {
    fn drop(&mut self) {
        if let Some(made) = self.0.take() {
            (made.drop)(ManuallyDrop::into_inner(made.thing));
        }
    }
}

/// A box.
pub(crate) struct Apart<T>(Option<ManuallyDrop<Box<T>>>);

const THERE: &str = "it is there until it is dropped";

impl<T> Apart<T> {
    pub(crate) fn new(thing: T) -> Self {
        Self(Some(ManuallyDrop::new(Box::new(thing))))
    }

    pub(crate) fn into_inner(mut self) -> T {
        *ManuallyDrop::into_inner(self.0.take().expect(THERE))
    }
}

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(THERE)
    }
}

impl<T> DerefMut for Apart<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(THERE)
    }
}

impl<T> Drop for Apart<T> {
    fn drop(&mut self) {
        if let Some(thing) = self.0.take() {
            drop_apart(ManuallyDrop::into_inner(thing));
        }
    }
}

#[inline(never)]
fn drop_apart<T>(thing: Box<T>) {
    drop(thing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn what_was_made_is_dropped_once_and_what_was_taken_is_the_takers() {
        let life = Rc::new(());
        let mut seldom = Seldom::none();
        assert!(seldom.as_ref().is_none() && seldom.take().is_none());
        seldom.get_or_insert_with(|| Rc::clone(&life));
        seldom.get_or_insert_with(|| unreachable!("it is there"));
        assert_eq!(Rc::strong_count(&life), 2);
        drop(seldom);
        assert_eq!(Rc::strong_count(&life), 1);
        let mut seldom = Seldom::none();
        seldom.get_or_insert_with(|| Rc::clone(&life));
        let taken = seldom.take();
        drop(seldom);
        assert_eq!(Rc::strong_count(&life), 2);
        drop(taken);
        assert_eq!(Rc::strong_count(&life), 1);
    }
}
