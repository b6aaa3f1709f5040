//! Which backends of a pool stand otherwise than before: a short log, so that workers need not look at thousands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, PoisonError};

use crate::policy::BackendIndex;

/// The last changes of a pool, each with a number. Whoever knows up to which it has seen them is told of the rest.
#[derive(Debug, Default)]
pub struct Changes {
    /// How many there were.
    count: AtomicU64,
    /// The last of them; `None`: any backend may be meant. Looked at only after `count` has grown.
    last: Mutex<VecDeque<Option<BackendIndex>>>,
}

/// What has changed since somebody looked.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    /// These backends, of which some may stand here twice.
    Some(Vec<BackendIndex>),
    /// Any of them.
    Any,
}

impl Changes {
    /// How many there were so far.
    #[inline]
    pub fn count(&self) -> u64 {
        self.count.load(Acquire)
    }

    /// Something has changed; `None`: of more than one backend, or of who knows which.
    pub fn note(&self, backend: Option<BackendIndex>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == KEPT {
            last.pop_front();
        }
        last.push_back(backend);
        self.count.fetch_add(1, Release);
    }

    /// What has changed since there were so many changes, and how many there are now.
    pub fn since(&self, known: u64) -> (Since, u64) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.count();
        let new = usize::try_from(count.saturating_sub(known)).unwrap_or(usize::MAX);
        let Some(before) = last.len().checked_sub(new) else { return (Since::Any, count) };
        let changed: Option<Vec<_>> = last.range(before..).copied().collect();
        (changed.map_or(Since::Any, Since::Some), count)
    }
}

/// Changes that are kept. A worker looks after each that probes have found, and with each query.
const KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_seen_some_is_told_of_the_rest() {
        let changes = Changes::default();
        assert_eq!(changes.since(0), (Since::Some(Vec::new()), 0));
        let numbers = |range: std::ops::Range<u16>| Since::Some(range.map(BackendIndex).collect());
        (0..10).for_each(|number| changes.note(Some(BackendIndex(number))));
        assert_eq!(changes.since(7), (numbers(7..10), 10));
        assert_eq!(changes.since(10), (numbers(0..0), 10));
        changes.note(None);
        assert_eq!(changes.since(10), (Since::Any, 11));
        (0..KEPT as u16).for_each(|number| changes.note(Some(BackendIndex(number))));
        let count = 11 + KEPT as u64;
        assert_eq!(changes.since(11), (numbers(0..KEPT as u16), count));
        assert_eq!(changes.since(10), (Since::Any, count), "the log has forgotten");
    }
}
