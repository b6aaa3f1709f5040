//! Who may be asked for one query, in which order.
//!
//! `balance` makes the list, `race` follows it. It lives inside the race, so it is a plain array: no
//! heap, and no more entries than a race can make attempts.

use super::attempts::MAX_ATTEMPTS;

/// A backend, as its position in the pool's list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(pub u16);

impl BackendIndex {
    /// The position as an index into a slice that is parallel to the pool's members.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// The backends that one race may ask, each once, in the order of asking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Candidates {
    /// The backends; those from `len` on mean nothing.
    backends: [BackendIndex; MAX_ATTEMPTS],
    /// How many of `backends` are meant.
    len: u8,
    /// Whether no backend of the pool is up, so that those here are all asked regardless.
    all_down: bool,
}

impl Candidates {
    /// An empty list. `all_down`: no backend of the pool is up.
    pub fn new(all_down: bool) -> Self {
        Self { backends: [BackendIndex(0); MAX_ATTEMPTS], len: 0, all_down }
    }

    /// A list of these backends, in this order. Repetitions and what is too much for a race are left out.
    pub fn of(backends: impl IntoIterator<Item = BackendIndex>, all_down: bool) -> Self {
        let mut list = Self::new(all_down);
        for backend in backends {
            list.push(backend);
        }
        list
    }

    /// Puts a backend at the end, unless it is in the list or the list is full.
    pub fn push(&mut self, backend: BackendIndex) {
        if self.is_full() || self.contains(backend) {
            return;
        }
        self.backends[usize::from(self.len)] = backend;
        self.len += 1;
    }

    /// Puts a backend at the front, taken from its place if it is in the list. The last of a full list falls off.
    pub(super) fn bring_to_front(&mut self, backend: BackendIndex) {
        let place = self.iter().position(|other| other == backend);
        let place = place.unwrap_or_else(|| {
            self.len += u8::from(!self.is_full());
            usize::from(self.len) - 1
        });
        self.backends[place] = backend;
        self.backends[..=place].rotate_right(1);
    }

    /// The backend at this place of the order.
    pub fn get(&self, place: usize) -> Option<BackendIndex> {
        self.as_slice().get(place).copied()
    }

    /// Whether this backend is in the list.
    pub fn contains(&self, backend: BackendIndex) -> bool {
        self.as_slice().contains(&backend)
    }

    /// The backends in the order of asking.
    pub fn iter(&self) -> impl Iterator<Item = BackendIndex> + '_ {
        self.as_slice().iter().copied()
    }

    /// The backends in the order of asking.
    pub fn as_slice(&self) -> &[BackendIndex] {
        &self.backends[..usize::from(self.len)]
    }

    /// How many backends there are, at most [`MAX_ATTEMPTS`].
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether there is no backend at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is no room for another backend.
    pub fn is_full(&self) -> bool {
        self.len() == MAX_ATTEMPTS
    }

    /// Whether no backend of the pool is up.
    pub fn all_down(&self) -> bool {
        self.all_down
    }
}

impl std::fmt::Debug for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidates").field("backends", &self.as_slice()).field("all_down", &self.all_down).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the backends in a list.
    fn numbers(list: &Candidates) -> Vec<u16> {
        list.iter().map(|backend| backend.0).collect()
    }

    #[test]
    fn repetitions_and_the_ninth_are_left_out() {
        let list = Candidates::of([3, 1, 3, 4, 5, 6, 7, 8, 9, 10].map(BackendIndex), false);
        assert_eq!(numbers(&list), [3, 1, 4, 5, 6, 7, 8, 9]);
        assert!(list.is_full() && !list.contains(BackendIndex(10)));
        assert_eq!(list.get(8), None);
    }

    #[test]
    fn bringing_to_the_front_keeps_the_order_of_the_others() {
        let mut list = Candidates::of([1, 2, 3].map(BackendIndex), false);
        list.bring_to_front(BackendIndex(3));
        assert_eq!(numbers(&list), [3, 1, 2]);
        list.bring_to_front(BackendIndex(9));
        assert_eq!(numbers(&list), [9, 3, 1, 2]);
        for backend in 20..27 {
            list.bring_to_front(BackendIndex(backend));
        }
        assert_eq!(numbers(&list), [26, 25, 24, 23, 22, 21, 20, 9]);
    }
}
