//! Candidates: the backends that one request may use, in order.
//!
//! `balance` creates the list, `race` follows it. Hedges have a separate order, because a failover follows
//! the pool's `balance`, but a hedge should be fast.

use rand::Rng;

use super::race::MAX_ATTEMPTS;

/// A backend, as its position in the pool's list of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendIndex(pub u16);

impl BackendIndex {
    /// Returns the position as an index into a slice that is parallel to the pool's members.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// The distinct backends that one race may ask, in the order of asking, with a separate order for hedges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Candidates {
    backends: [BackendIndex; MAX_ATTEMPTS],
    hedges: PlaceOrder,
    len: u8,
    last: u8,
    all_down: bool,
}

impl Candidates {
    /// Creates an empty list. `all_down`: no backend of the pool is up.
    pub fn new(all_down: bool) -> Self {
        Self { backends: [BackendIndex(0); MAX_ATTEMPTS], hedges: PlaceOrder::IN_ORDER, len: 0, last: 0, all_down }
    }

    /// Creates a list of these backends in this order. Duplicates and surplus entries are left out.
    pub fn of(backends: impl IntoIterator<Item = BackendIndex>, all_down: bool) -> Self {
        let mut list = Self::new(all_down);
        for backend in backends {
            list.push(backend);
        }
        list
    }

    /// Appends a backend, unless it is in the list or the list is full.
    pub(crate) fn push(&mut self, backend: BackendIndex) {
        if self.is_full() || self.contains(backend) {
            return;
        }
        self.backends[usize::from(self.len)] = backend;
        self.len += 1;
    }

    /// Appends a backend that is asked only after all others, unless it is in the list or the list is full.
    pub fn push_last(&mut self, backend: BackendIndex) {
        let before = self.len;
        self.push(backend);
        self.last += self.len - before;
    }

    /// Returns true if the backend is asked only after the others.
    pub fn is_last(&self, backend: BackendIndex) -> bool {
        self.as_slice()[usize::from(self.first_in_line())..].contains(&backend)
    }

    /// Returns the list with the backends of lower tiers first, for a race without hedges.
    pub fn lowest_tier_first(&self, tier: impl Fn(BackendIndex) -> u8) -> Self {
        let mut sorted = *self;
        sorted.backends[..self.len()].sort_by_key(|backend| tier(*backend));
        sorted
    }

    pub(super) fn first_in_line(&self) -> u8 {
        if self.last == self.len { self.len } else { self.len - self.last }
    }

    pub(super) fn bring_to_front(&mut self, backend: BackendIndex) {
        let place = self.iter().position(|other| other == backend);
        let place = place.unwrap_or_else(|| {
            self.len += u8::from(!self.is_full());
            usize::from(self.len) - 1
        });
        self.backends[place] = backend;
        self.backends[..=place].rotate_right(1);
    }

    /// Chooses the targets of the first `most` hedges: each is the less loaded of two random candidates after
    /// the first and before place `end`. Picking the least loaded of all would cause herds.
    ///
    /// Never inlined, so that its instruction count does not change with the rest of the crate.
    #[inline(never)]
    pub(crate) fn draw_hedges(
        &mut self,
        most: usize,
        end: usize,
        load: impl Fn(BackendIndex) -> f64,
        rng: &mut impl Rng,
    ) {
        let end = end.min(self.len());
        for place in 1..end.saturating_sub(1).min(most.saturating_add(1)) {
            let one = place + below(end - place, rng);
            let other = place + below(end - 1 - place, rng);
            let other = other + usize::from(other >= one);
            let load_at = |at: usize| load(self.backends[usize::from(self.hedges.get(at))]);
            let chosen = if load_at(one) <= load_at(other) { one } else { other };
            self.hedges.swap(place, chosen);
        }
    }

    /// Orders the targets of hedges after the first candidate and before place `end`: these come first.
    /// Returns the end of them, or `end` if there are none.
    pub(crate) fn far_first(&mut self, end: usize, is_far: impl Fn(BackendIndex) -> bool) -> usize {
        let mut next = 1;
        for place in 1..end.min(self.len()) {
            if is_far(self.backends[usize::from(self.hedges.get(place))]) {
                (next..place).rev().for_each(|place| self.hedges.swap(place, place + 1));
                next += 1;
            }
        }
        if next > 1 { next } else { end }
    }

    /// Returns the list for a race without hedges.
    pub(crate) fn unhedged(self) -> Self {
        Self { hedges: PlaceOrder::NONE, ..self }
    }

    /// Returns true if the race may not hedge.
    pub(crate) fn is_unhedged(&self) -> bool {
        self.hedges == PlaceOrder::NONE
    }

    pub(super) fn hedge_places(&self) -> impl Iterator<Item = u8> + '_ {
        (0..self.len()).map(|at| self.hedges.get(at))
    }

    /// Returns the target of the first hedge if the race has asked the first candidate.
    pub fn next_hedge(&self) -> Option<BackendIndex> {
        let mut places = self.hedge_places().filter(|_| !self.is_unhedged());
        places.find(|place| *place > 0).and_then(|place| self.get(usize::from(place)))
    }

    /// Returns the backend at this place of the order.
    pub fn get(&self, place: usize) -> Option<BackendIndex> {
        self.as_slice().get(place).copied()
    }

    /// Returns true if the list contains this backend.
    pub(crate) fn contains(&self, backend: BackendIndex) -> bool {
        self.as_slice().contains(&backend)
    }

    /// Iterates over the backends in the order of asking.
    pub fn iter(&self) -> impl Iterator<Item = BackendIndex> + Clone + '_ {
        self.as_slice().iter().copied()
    }

    /// Returns the backends in the order of asking.
    pub(crate) fn as_slice(&self) -> &[BackendIndex] {
        &self.backends[..usize::from(self.len)]
    }

    /// Returns the number of backends, at most [`MAX_ATTEMPTS`].
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Returns true if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns true if the list has no room for another backend.
    pub(crate) fn is_full(&self) -> bool {
        self.len() == MAX_ATTEMPTS
    }

    /// Returns true if no backend of the pool is up.
    pub fn all_down(&self) -> bool {
        self.all_down
    }
}

/// Draws a number from 0 up to `end`, at most [`MAX_ATTEMPTS`]. The multiplication favors some numbers by at
/// most one in 2^29. `random_range` draws the same, but the compiler inlines it in one build and not in
/// another.
#[inline]
fn below(end: usize, rng: &mut impl Rng) -> usize {
    ((u64::from(rng.next_u32()) * end as u64) >> 32) as usize
}

/// A permutation of the places 0 to 7 with three bits each, small because a hundred thousand races hold one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PlaceOrder([u8; 3]);

impl PlaceOrder {
    const IN_ORDER: Self = Self::of(0o76543210);

    /// No permutation: there are no hedges.
    const NONE: Self = Self::of(0);

    const fn of(digits: u32) -> Self {
        let [a, b, c, _] = digits.to_le_bytes();
        Self([a, b, c])
    }

    fn digits(self) -> u32 {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0])
    }

    fn get(self, at: usize) -> u8 {
        (self.digits() >> (3 * at)) as u8 & 7
    }

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
        // The first candidate is asked anyway, and the last two are not suitable.
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
            // The order of asking is unchanged.
            assert_eq!(list.as_slice(), backends);
        }
        // Of six pairs among 3, 2, 1, 0, the least loaded wins three, the next two, the next one, and the
        // most loaded none.
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
