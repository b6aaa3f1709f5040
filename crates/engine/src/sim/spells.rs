//! Temporary conditions such as a stall, a crash or a slow minute. [`When`] defines their times, fixed or by
//! chance; [`Spells`] plays them, and [`Unfolding`] plays a value that differs in such times.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::delay::exponential;

/// The times of a condition, counted from the start of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// One period.
    Between {
        /// The beginning of the period.
        from: Duration,
        /// The end; [`Duration::MAX`] is never.
        to: Duration,
    },
    /// Repeated periods, by chance.
    NowAndThen {
        /// The mean length of a period.
        length: Duration,
        /// The mean time from one beginning to the next, longer than `length`.
        every: Duration,
    },
}

/// A value that may differ for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Course<T> {
    /// The usual value.
    pub usual: T,
    /// The other values and their times. The last one that applies wins.
    pub at_times: Vec<(T, When)>,
}

impl<T> Course<T> {
    /// Creates a value that never changes.
    pub fn always(usual: T) -> Self {
        Self { usual, at_times: Vec::new() }
    }
}

/// A course as it is played.
#[derive(Debug)]
pub(super) struct Unfolding<'a, T> {
    usual: &'a T,
    at_times: Vec<(&'a T, Spells)>,
}

impl<'a, T> Unfolding<'a, T> {
    /// Begins to play. Each source of chance has a separate seed.
    pub(super) fn new(course: &'a Course<T>, seeds: &mut impl FnMut() -> u64) -> Self {
        let at_times = course.at_times.iter().map(|(value, when)| (value, Spells::new(*when, seeds())));
        Self { usual: &course.usual, at_times: at_times.collect() }
    }

    /// Returns the value at `now`, which never goes back.
    pub(super) fn at(&mut self, now: Duration) -> &'a T {
        let mut value = self.usual;
        for (other, spells) in &mut self.at_times {
            spells.forget(now);
            if spells.at(now).is_some() {
                value = other;
            }
        }
        value
    }
}

#[derive(Debug)]
pub(super) struct Spells {
    /// The generated periods that are not over, in order.
    known: VecDeque<Range<Duration>>,
    chance: Option<Chance>,
}

/// A generator of periods.
#[derive(Debug)]
struct Chance {
    length: Duration,
    /// The mean time between two periods.
    gap: Duration,
    /// The end of the last generated period.
    reached: Duration,
    rng: Xoshiro256PlusPlus,
}

impl Spells {
    pub(super) fn new(when: When, seed: u64) -> Self {
        match when {
            When::Between { from, to } => Self { known: VecDeque::from([from..to]), chance: None },
            When::NowAndThen { length, every } => {
                let gap = every.saturating_sub(length);
                let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
                let chance = Chance { length, gap, reached: Duration::ZERO, rng };
                Self { known: VecDeque::new(), chance: Some(chance) }
            }
        }
    }

    /// Begins to play conditions, each by a seed of its own.
    pub(super) fn all(times: &[When], seeds: &mut impl FnMut() -> u64) -> Vec<Self> {
        times.iter().map(|when| Self::new(*when, seeds())).collect()
    }

    /// Returns the first period that ends after this time; it may have begun or be still to come.
    pub(super) fn next(&mut self, time: Duration) -> Option<Range<Duration>> {
        if let Some(chance) = &mut self.chance {
            while self.known.back().is_none_or(|last| last.end <= time) {
                let start = chance.reached + exponential(chance.gap, &mut chance.rng);
                chance.reached = start + exponential(chance.length, &mut chance.rng).max(MIN_LENGTH);
                self.known.push_back(start..chance.reached);
            }
        }
        self.known.iter().find(|spell| time < spell.end).cloned()
    }

    pub(super) fn at(&mut self, time: Duration) -> Option<Range<Duration>> {
        self.next(time).filter(|spell| spell.start <= time)
    }

    /// Returns the next beginning of a period after this time.
    pub(super) fn next_start(&mut self, time: Duration) -> Option<Duration> {
        let next = self.next(time)?;
        if next.start > time { Some(next.start) } else { self.next(next.end).map(|next| next.start) }
    }

    pub(super) fn forget(&mut self, now: Duration) {
        while self.known.front().is_some_and(|spell| spell.end <= now) {
            self.known.pop_front();
        }
    }
}

/// Returns `time`, or the end of the stall that it falls into; `None` if that never ends.
pub(super) fn thawed(stalls: &mut [Spells], mut time: Duration) -> Option<Duration> {
    while let Some(stall) = stalls.iter_mut().find_map(|stall| stall.at(time)) {
        time = stall.end;
    }
    (time < Duration::MAX).then_some(time)
}

/// The shortest generated period, so that time always advances.
const MIN_LENGTH: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn s(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_fixed_spell_comes_once() {
        let mut spells = Spells::new(When::Between { from: s(10), to: s(20) }, 0);
        for (time, next, at) in [(0, true, false), (10, true, true), (19, true, true), (20, false, false)] {
            assert_eq!(spells.next(s(time)).is_some(), next, "{time}");
            assert_eq!(spells.at(s(time)).is_some(), at, "{time}");
        }
        spells.forget(s(20));
        assert_eq!(spells.next(s(0)), None);
    }

    #[test]
    fn spells_by_chance_take_their_part_of_the_time() {
        let mut spells = Spells::new(When::NowAndThen { length: s(1), every: s(10) }, 3);
        let ticks = 1_000_000;
        let mut within = 0;
        for tick in 0..ticks {
            let now = Duration::from_millis(20 * tick);
            spells.forget(now);
            within += u64::from(spells.at(now).is_some());
        }
        assert!(within.abs_diff(ticks / 10) < ticks / 100, "{within} of {ticks}");
    }

    #[test]
    fn looking_ahead_changes_nothing() {
        let when = When::NowAndThen { length: s(1), every: s(3) };
        let (mut one, mut other) = (Spells::new(when, 5), Spells::new(when, 5));
        one.next(s(1_000));
        for second in 0..100 {
            assert_eq!(one.at(s(second)), other.at(s(second)));
        }
    }

    #[test]
    fn the_last_value_that_applies_counts() {
        let course = Course {
            usual: 1,
            at_times: vec![
                (2, When::Between { from: s(10), to: Duration::MAX }),
                (3, When::Between { from: s(20), to: s(30) }),
            ],
        };
        let mut unfolding = Unfolding::new(&course, &mut || 0);
        for (time, value) in [(0, 1), (10, 2), (20, 3), (30, 2)] {
            assert_eq!(*unfolding.at(s(time)), value, "{time}");
        }
    }
}
