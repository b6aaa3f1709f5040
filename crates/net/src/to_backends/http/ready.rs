//! Wakers that mark requests to be polled, instead of a task per request.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

#[derive(Default)]
pub(crate) struct ReadyList(Mutex<Vec<usize>>);

impl ReadyList {
    pub(crate) fn pop(&self) -> Option<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(crate) fn push(&self, place: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }
}

/// A waker that marks the place of a request, once until the request is polled.
pub(crate) struct PlaceWaker {
    place: usize,
    list: Arc<ReadyList>,
    is_marked: AtomicBool,
}

impl PlaceWaker {
    pub(crate) fn new(place: usize, list: &Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self { place, list: Arc::clone(list), is_marked: AtomicBool::new(false) })
    }

    pub(crate) fn clear(&self) {
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

#[derive(Default)]
pub(crate) struct FlagWaker(AtomicBool);

impl FlagWaker {
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Relaxed)
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
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
