//! A short log of the backends whose state has changed, so that workers need not check thousands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, PoisonError};

use hedge::BackendIndex;

/// The latest changes of a pool, numbered. A reader passes the number that it knows and gets the later ones.
#[derive(Debug, Default)]
pub struct PoolChanges {
    count: AtomicU64,
    last: Mutex<VecDeque<Option<BackendIndex>>>,
}

impl PoolChanges {
    /// Returns the number of changes so far.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Acquire)
    }

    /// Records a change; `None` stands for several or unknown backends.
    pub(crate) fn note(&self, backend: Option<BackendIndex>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(backend);
        self.count.fetch_add(1, Release);
    }

    /// Returns the backends of the changes after the first `known` ones, some maybe twice, and the number of
    /// changes now. `None` stands for any backends.
    pub(crate) fn since(&self, known: u64) -> (Option<Vec<BackendIndex>>, u64) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count();
        let new = usize::try_from(count.saturating_sub(known)).unwrap_or(usize::MAX);
        let before = last.len().checked_sub(new);
        (before.and_then(|before| last.range(before..).copied().collect()), count)
    }
}

/// The capacity of the log. Workers read it after each change that a probe finds, and with each query.
const KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_seen_some_is_told_of_the_rest() {
        let changes = PoolChanges::default();
        assert_eq!(changes.since(0), (Some(Vec::new()), 0));
        let numbers = |range: std::ops::Range<u16>| Some(range.map(BackendIndex).collect());
        (0..10).for_each(|number| changes.note(Some(BackendIndex(number))));
        assert_eq!(changes.since(7), (numbers(7..10), 10));
        assert_eq!(changes.since(10), (numbers(0..0), 10));
        changes.note(None);
        assert_eq!(changes.since(10), (None, 11));
        (0..KEPT as u16).for_each(|number| changes.note(Some(BackendIndex(number))));
        let count = 11 + KEPT as u64;
        assert_eq!(changes.since(11), (numbers(0..KEPT as u16), count));
        assert_eq!(changes.since(10), (None, count), "the log has forgotten");
    }
}
