//! The best backends of a pool: as many as a race can ask.

use crate::candidates::{BackendIndex, Candidates};
use crate::race::MAX_ATTEMPTS;

/// The backends with the lowest keys so far, in an array because each request fills one.
#[derive(Debug)]
pub(super) struct Shortlist<K> {
    best: [Option<(K, BackendIndex)>; MAX_ATTEMPTS],
    len: usize,
}

impl<K: PartialOrd + Copy> Shortlist<K> {
    #[inline]
    pub(super) fn of(keyed: impl Iterator<Item = (K, BackendIndex)>) -> Self {
        let mut list = Self { best: [None; MAX_ATTEMPTS], len: 0 };
        for (key, backend) in keyed {
            list.insert(key, backend);
        }
        list
    }

    fn insert(&mut self, key: K, backend: BackendIndex) {
        let is_after = |entry: &Option<(K, BackendIndex)>| entry.is_some_and(|(other, _)| key < other);
        let place = self.best[..self.len].iter().position(is_after).unwrap_or(self.len);
        let len = (self.len + 1).min(MAX_ATTEMPTS);
        if let Some(worse @ [_, ..]) = self.best.get_mut(place..len) {
            worse.rotate_right(1);
            worse[0] = Some((key, backend));
            self.len = len;
        }
    }

    pub(super) fn append_to(&self, candidates: &mut Candidates) {
        for (_, backend) in self.best.iter().flatten() {
            candidates.push(*backend);
        }
    }
}
