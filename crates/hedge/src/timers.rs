//! Many timers with few different lengths. A timer joins the first queue whose last timer is not due later,
//! else a heap. Timers cannot be cancelled: the caller checks if the key of an expired timer is still valid.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// Timers, each with a key that identifies its purpose.
#[derive(Debug)]
pub struct Timers<K> {
    zero: Option<Instant>,
    lanes: [VecDeque<Timer<K>>; LANES],
    rest: BinaryHeap<Timer<K>>,
}

impl<K> Timers<K> {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self { zero: None, lanes: std::array::from_fn(|_| VecDeque::with_capacity(WARM)), rest: BinaryHeap::new() }
    }

    /// Sets a timer.
    pub fn push(&mut self, at: Instant, key: K) {
        let at = Nanos::between(*self.zero.get_or_insert(at), at);
        let fits = |lane: &&mut VecDeque<Timer<K>>| lane.back().is_none_or(|last| last.at <= at);
        match self.lanes.iter_mut().find(fits) {
            Some(lane) => {
                // Twice the capacity would often be nearly twice the memory, where it is much.
                if lane.len() == lane.capacity() && lane.len() >= MANY {
                    lane.reserve_exact(lane.len() / 8);
                }
                lane.push_back(Timer { at, key });
            }
            None => self.rest.push(Timer { at, key }),
        }
    }

    /// Returns the time of the nearest timer.
    pub fn peek(&self) -> Option<Instant> {
        Some(self.nearest()?.since(self.zero?))
    }

    /// Removes and returns the nearest timer if it is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<(Instant, K)> {
        let zero = self.zero?;
        let nearest = self.nearest().filter(|&at| at <= Nanos::between(zero, now))?;
        let is_nearest = |timer: Option<&Timer<K>>| timer.is_some_and(|timer| timer.at == nearest);
        let timer = match self.lanes.iter_mut().find(|lane| is_nearest(lane.front())) {
            Some(lane) => pop_front(lane),
            None => self.rest.pop(),
        };
        timer.map(|timer| (timer.at.since(zero), timer.key))
    }

    /// Removes the nearest timers while they are stale, so that they cause no wakeups.
    pub fn discard(&mut self, is_stale: impl Fn(Instant, &K) -> bool) {
        let Some(zero) = self.zero else { return };
        let is_stale = |timer: Option<&Timer<K>>| timer.is_some_and(|timer| is_stale(timer.at.since(zero), &timer.key));
        for lane in &mut self.lanes {
            while is_stale(lane.front()) {
                pop_front(lane);
            }
        }
        while is_stale(self.rest.peek()) {
            self.rest.pop();
        }
        if self.rest.capacity() > 8 * WARM && self.rest.len() < self.rest.capacity() / 8 {
            self.rest.shrink_to(2 * self.rest.len().max(WARM));
        }
    }

    fn nearest(&self) -> Option<Nanos> {
        let nearest = self.lanes.iter().filter_map(VecDeque::front).chain(self.rest.peek());
        nearest.map(|timer| timer.at).min()
    }
}

fn pop_front<K>(lane: &mut VecDeque<Timer<K>>) -> Option<Timer<K>> {
    let first = lane.pop_front();
    if lane.capacity() > 8 * WARM && lane.len() < lane.capacity() / 8 {
        lane.shrink_to(2 * lane.len().max(WARM));
    }
    first
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Nanoseconds from a base time, half the size of an [`Instant`] because there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Nanos(i64);

impl Nanos {
    fn between(zero: Instant, at: Instant) -> Self {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        match at.checked_duration_since(zero) {
            Some(after) => Self(nanos(after)),
            None => Self(-nanos(zero.saturating_duration_since(at))),
        }
    }

    fn since(self, zero: Instant) -> Instant {
        let distance = Duration::from_nanos(self.0.unsigned_abs());
        if self.0 < 0 { zero - distance } else { zero + distance }
    }
}

/// The order is reversed, because the heap returns the greatest first.
#[derive(Debug)]
struct Timer<K> {
    at: Nanos,
    key: K,
}

impl<K> Ord for Timer<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<K> PartialOrd for Timer<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> PartialEq for Timer<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Timer<K> {}

const WARM: usize = 1024;

/// The number of timers from which a queue grows by an eighth.
const MANY: usize = 1 << 16;

/// A pool has three lengths (deadline, attempt timeout, hedge delay), so this serves two pools.
const LANES: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl<K> Timers<K> {
        /// Returns the number of timers, including stale ones.
        fn len(&self) -> usize {
            self.lanes.iter().map(VecDeque::len).sum::<usize>() + self.rest.len()
        }

        fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let start = Instant::now();
        let mut timers = Timers::new();
        timers.push(start + Duration::from_secs(1), "late");
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.peek(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.pop_due(start + Duration::from_secs(1)).map(|(_, key)| key), Some("late"));
        assert!(timers.is_empty());
    }

    #[test]
    fn timers_of_few_lengths_need_no_heap() {
        let start = Instant::now();
        let mut timers = Timers::new();
        for tick in 0..1_000 {
            let now = start + Duration::from_micros(tick);
            while timers.pop_due(now).is_some() {}
            // A batch: many at the same time.
            for length in [300, 10, 100].repeat(8) {
                timers.push(now + Duration::from_micros(length), ());
            }
        }
        assert_eq!(timers.rest.capacity(), 0);
        assert!(timers.len() <= 8 * 410);
    }

    #[test]
    fn memory_is_given_back_after_a_peak() {
        let start = Instant::now();
        let mut timers = Timers::new();
        let mut lengths = (0..100_000).map(|number| Duration::from_micros(number % 7 * 1_000_000));
        lengths.by_ref().for_each(|length| timers.push(start + length, ()));
        let capacity =
            |timers: &Timers<()>| timers.lanes.iter().map(VecDeque::capacity).sum::<usize>() + timers.rest.capacity();
        assert!(capacity(&timers) >= 100_000);
        while timers.pop_due(start + Duration::from_secs(10)).is_some() {}
        timers.discard(|_, ()| true);
        assert!(timers.is_empty() && capacity(&timers) <= 8 * WARM * (LANES + 1), "{}", capacity(&timers));
    }

    proptest! {
        #[test]
        fn agrees_with_sorting(steps in prop::collection::vec((0..50_u64, 0..1_000_u64), 1..300)) {
            let start = Instant::now();
            let (mut now, mut timers, mut expected) = (start, Timers::new(), Vec::new());
            for (wait, length) in steps {
                now += Duration::from_micros(wait);
                let at = now + Duration::from_micros(length);
                timers.push(at, at);
                expected.push(at);
                expected.sort_unstable();
                prop_assert_eq!(timers.peek(), expected.first().copied());
                while let Some((at, key)) = timers.pop_due(now) {
                    prop_assert_eq!(at, key);
                    prop_assert_eq!(at, expected.remove(0));
                }
                prop_assert!(expected.first().is_none_or(|&at| at > now));
                prop_assert_eq!(timers.len(), expected.len());
            }
        }
    }
}
