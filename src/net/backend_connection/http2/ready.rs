//! Who is to be polled: wakers that mark places, in place of a task for each.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Places of requests that have something new.
#[derive(Default)]
pub(super) struct ReadyList(Mutex<Vec<usize>>);

impl ReadyList {
    /// Takes one of them.
    pub(super) fn pop(&self) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Adds one.
    pub(super) fn push(&self, place: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }
}

/// Marks the place of a request, once until it is looked at.
pub(super) struct PlaceWaker {
    place: usize,
    list: Arc<ReadyList>,
    is_marked: AtomicBool,
}

impl PlaceWaker {
    /// For the request at this place.
    pub(super) fn new(place: usize, list: &Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self { place, list: Arc::clone(list), is_marked: AtomicBool::new(false) })
    }

    /// It is being looked at, and may be marked again.
    pub(super) fn clear(&self) {
        self.is_marked.store(false, Relaxed);
    }
}

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_marked.swap(true, Relaxed) {
            self.list.push(self.place);
        }
    }
}

/// Says that the connection has something to do.
#[derive(Default)]
pub(super) struct FlagWaker(AtomicBool);

impl FlagWaker {
    /// Whether it has, which is then forgotten.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }

    /// A waker that says so.
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for FlagWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}
