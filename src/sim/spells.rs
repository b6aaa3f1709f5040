//! What is so for a time only: a stall, a crash, a slow minute. When they come is said by [`When`], fixed or by chance;
//! [`Spells`] plays it, and [`Unfolding`] plays a value that is another one in such times.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::delay::exponential;

/// When something is so. Times count from the start of the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Once.
    Between {
        /// From this time on.
        from: Duration,
        /// Up to this time; [`Duration::MAX`] is never.
        to: Duration,
    },
    /// Again and again, by chance.
    NowAndThen {
        /// How long it lasts, in the mean.
        length: Duration,
        /// The mean time from one beginning to the next, longer than `length`.
        every: Duration,
    },
}

/// A value that may be another one for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Course<T> {
    /// What it is otherwise.
    pub usual: T,
    /// What it is at which times. Of several that apply the last one does.
    pub at_times: Vec<(T, When)>,
}

impl<T> Course<T> {
    /// Always the same.
    pub fn always(usual: T) -> Self {
        Self { usual, at_times: Vec::new() }
    }
}

/// A course as it is played.
#[derive(Debug)]
pub(super) struct Unfolding<'a, T> {
    /// What it is otherwise.
    usual: &'a T,
    at_times: Vec<(&'a T, Spells)>,
}

impl<'a, T> Unfolding<'a, T> {
    /// Begins to play. Each of the chances has a seed of its own.
    pub(super) fn new(course: &'a Course<T>, seeds: &mut impl FnMut() -> u64) -> Self {
        let at_times = course.at_times.iter().map(|(value, when)| (value, Spells::new(*when, seeds())));
        Self { usual: &course.usual, at_times: at_times.collect() }
    }

    /// What it is now. `now` never goes back.
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

/// The times at which something is so, as they come.
#[derive(Debug)]
pub(super) struct Spells {
    /// Those that are known and not over, in order.
    known: VecDeque<Range<Duration>>,
    /// What makes more of them.
    chance: Option<Chance>,
}

/// What makes spells by chance.
#[derive(Debug)]
struct Chance {
    /// Mean length of a spell.
    length: Duration,
    /// Mean time between two.
    gap: Duration,
    /// When the last one ends that was made.
    reached: Duration,
    /// Chance itself.
    rng: Xoshiro256PlusPlus,
}

impl Spells {
    /// Begins to play.
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

    /// The first spell that ends after this time; it may have begun, or be still to come.
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

    /// The spell that this time is in.
    pub(super) fn at(&mut self, time: Duration) -> Option<Range<Duration>> {
        self.next(time).filter(|spell| spell.start <= time)
    }

    /// Nobody asks any more for what was over by now.
    pub(super) fn forget(&mut self, now: Duration) {
        while self.known.front().is_some_and(|spell| spell.end <= now) {
            self.known.pop_front();
        }
    }
}

/// The shortest spell by chance, so that time gets on.
const MIN_LENGTH: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds.
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
