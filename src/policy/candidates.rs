//! Who may be asked for one query, in which order.
//!
//! `balance` makes the list, `race` follows it. A hedge may go to another than the next: whom a failover asks is the
//! pool's `balance`, but a hedge is to be quick, wherever the name was answered before. It lives inside the race, so it is a plain array: no
//! heap, and no more entries than a race can make attempts.

use rand::{Rng, RngExt};

use super::race::MAX_ATTEMPTS;

/// A backend, as its position in the pool's list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(pub u16);

impl BackendIndex {
    /// The position as an index into a slice that is parallel to the pool's members.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// The backends that one race may ask, each once, in the order of asking; and in which order hedges go to them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Candidates {
    /// The backends; those from `len` on mean nothing.
    backends: [BackendIndex; MAX_ATTEMPTS],
    /// The places of `backends` in the order in which hedges go to them.
    hedges: Places,
    /// How many of `backends` are meant.
    len: u8,
    /// How many of them, at the end, are asked only when all others were.
    last: u8,
    /// Whether no backend of the pool is up, so that those here are all asked regardless.
    all_down: bool,
}

impl Candidates {
    /// An empty list. `all_down`: no backend of the pool is up.
    pub fn new(all_down: bool) -> Self {
        Self { backends: [BackendIndex(0); MAX_ATTEMPTS], hedges: Places::IN_ORDER, len: 0, last: 0, all_down }
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

    /// Puts a backend at the end that is to be asked only when all before it were, unless it is in the list or the list is full.
    pub fn push_last(&mut self, backend: BackendIndex) {
        let before = self.len;
        self.push(backend);
        self.last += self.len - before;
    }

    /// Whether a backend is asked only when the others were.
    pub fn is_last(&self, backend: BackendIndex) -> bool {
        self.as_slice()[usize::from(self.first_in_line())..].contains(&backend)
    }

    /// How many of them may be asked at once when a race begins: all but those at the end, or all if there are no others.
    pub(super) fn first_in_line(&self) -> u8 {
        if self.last == self.len { self.len } else { self.len - self.last }
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

    /// Chooses whom the first `most` hedges go to: to the less loaded of two drawn by chance, of those after the first and
    /// before place `end`, that was not chosen yet. To the less loaded of all they would go in herds: those who choose
    /// at the same time see the same loads. Unless this is called, hedges go in the order of asking.
    pub fn draw_hedges(&mut self, most: usize, end: usize, load: impl Fn(BackendIndex) -> f64, rng: &mut impl Rng) {
        let end = end.min(self.len());
        // The last one left is no choice.
        for place in 1..end.saturating_sub(1).min(most.saturating_add(1)) {
            let one = rng.random_range(place..end);
            let other = rng.random_range(place..end - 1);
            let other = other + usize::from(other >= one);
            let load_at = |at: usize| load(self.backends[usize::from(self.hedges.get(at))]);
            let chosen = if load_at(one) <= load_at(other) { one } else { other };
            self.hedges.swap(place, chosen);
        }
    }

    /// The places of the order of asking, in the order in which hedges go there.
    pub(super) fn hedge_places(&self) -> impl Iterator<Item = u8> + '_ {
        (0..self.len()).map(|at| self.hedges.get(at))
    }

    /// Whom the first hedge of a race goes to that has asked the first.
    pub fn next_hedge(&self) -> Option<BackendIndex> {
        self.hedge_places().find(|place| *place > 0).and_then(|place| self.get(usize::from(place)))
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
    pub fn iter(&self) -> impl Iterator<Item = BackendIndex> + Clone + '_ {
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

/// An order of the places 0 to 7, three bits for each in a word, since a hundred thousand races have one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Places([u8; 3]);

impl Places {
    /// The first is 0, the second 1.
    const IN_ORDER: Self = Self::of(0o76543210);

    /// The order that these digits, the last first, spell.
    const fn of(digits: u32) -> Self {
        let [a, b, c, _] = digits.to_le_bytes();
        Self([a, b, c])
    }

    fn digits(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }

    /// The one at this position.
    fn get(self, at: usize) -> u8 {
        (self.digits() >> (3 * at)) as u8 & 7
    }

    /// Exchanges two.
    fn swap(&mut self, one: usize, other: usize) {
        let differing = u32::from(self.get(one) ^ self.get(other));
        *self = Self::of(self.digits() ^ differing << (3 * one) ^ differing << (3 * other));
    }
}

impl std::fmt::Debug for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidates").field("backends", &self.as_slice()).field("all_down", &self.all_down).finish()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

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

    #[test]
    fn hedges_go_to_the_less_loaded_of_two_drawn() {
        let mut rng = SmallRng::seed_from_u64(1);
        // The first is asked anyway, and the last two are not fit.
        let backends = [4, 3, 2, 1, 0, 5, 6].map(BackendIndex);
        let mut firsts = [0_u32; 7];
        for _ in 0..6_000 {
            let mut list = Candidates::of(backends, false);
            list.draw_hedges(2, 5, |backend| f64::from(backend.0), &mut rng);
            let order: Vec<_> = list.hedge_places().collect();
            assert_eq!((order[0], &order[5..]), (0, &[5, 6][..]));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
            firsts[usize::from(order[1])] += 1;
            // The order of asking is as it was.
            assert_eq!(list.as_slice(), backends);
        }
        // Of six pairs among 3, 2, 1, 0, the least loaded wins three, the next two, the next one, and the most loaded none.
        for (place, expected) in [(1, 0_u32), (2, 1_000), (3, 2_000), (4, 3_000)] {
            assert!(firsts[place].abs_diff(expected) <= 200, "{firsts:?}");
        }
    }

    #[test]
    fn two_leave_no_choice() {
        let mut rng = SmallRng::seed_from_u64(1);
        for len in 0..=2 {
            let mut list = Candidates::of((0..len).map(BackendIndex), false);
            list.draw_hedges(7, 8, |_| 0.0, &mut rng);
            assert!(list.hedge_places().eq(0..len as u8));
        }
    }
}
