//! A histogram of latencies over the current epoch and the previous one, with log-linear buckets.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::log_linear::LogLinear;

#[derive(Clone, Copy, Debug)]
pub(super) struct SampleSpan {
    pub(super) enough: u32,
    pub(super) shortest: Duration,
    pub(super) few: u32,
    pub(super) usual: Duration,
    pub(super) longest: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    current: [u16; BUCKETS],
    previous: [u16; BUCKETS],
    sums: [u32; BUCKETS],
    samples: u32,
    unanswered: [u32; 2],
    began: Instant,
    /// The duration of the previous epoch; zero if it is not known.
    lasted: Duration,
    span: SampleSpan,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WindowImage {
    current: Vec<(u16, u16)>,
    previous: Vec<(u16, u16)>,
    unanswered: [u32; 2],
    age: u64,
}

impl WindowImage {
    /// Merges windows into one of at most so many replies, which gives way to the first epoch that follows.
    pub(super) fn merged<'a>(windows: impl IntoIterator<Item = &'a Self>, most: u32) -> Self {
        let (mut counts, mut unanswered) = ([0_u64; BUCKETS], 0_u64);
        for window in windows {
            for &(bucket, count) in window.current.iter().chain(&window.previous) {
                counts[usize::from(bucket).min(BUCKETS - 1)] += u64::from(count);
            }
            unanswered += window.unanswered.map(u64::from).iter().sum::<u64>();
        }
        let total = counts.iter().sum::<u64>();
        let kept = total.min(most.into());
        // The middle of each step, so that no percentile moves by more than half a step.
        let scaled = |sum: u64| (sum * kept + total / 2).checked_div(total).unwrap_or(0);
        let mut sum = 0;
        let previous = (0..).zip(counts).filter_map(|(bucket, count)| {
            let before = scaled(sum);
            sum += count;
            let count = (scaled(sum) - before) as u16;
            (count > 0).then_some((bucket, count))
        });
        Self { previous: previous.collect(), unanswered: [0, scaled(unanswered) as u32], ..Self::default() }
    }

    pub(super) fn replies(&self) -> u32 {
        self.current.iter().chain(&self.previous).map(|&(_, count)| u32::from(count)).sum()
    }
}

impl Window {
    pub(super) fn image(&self, now: Instant) -> WindowImage {
        let filled = |counts: &[u16; BUCKETS]| {
            (0..).zip(counts).filter(|(_, count)| **count > 0).map(|(bucket, &count)| (bucket, count)).collect()
        };
        WindowImage {
            current: filled(&self.current),
            previous: filled(&self.previous),
            unanswered: self.unanswered,
            age: age_millis(self.began, now),
        }
    }

    /// Imports the window of another process. The caller must refresh it.
    pub(super) fn of_image(image: &WindowImage, span: SampleSpan, now: Instant) -> Self {
        let counts = |filled: &[(u16, u16)]| {
            let mut counts = [0; BUCKETS];
            for &(bucket, count) in filled {
                counts[usize::from(bucket).min(BUCKETS - 1)] = count;
            }
            counts
        };
        let samples = image.current.iter().map(|&(_, count)| u32::from(count)).sum();
        Self {
            current: counts(&image.current),
            previous: counts(&image.previous),
            samples,
            unanswered: image.unanswered,
            began: before(now, image.age),
            ..Self::new(span, now)
        }
    }

    pub(super) fn new(span: SampleSpan, now: Instant) -> Self {
        Self {
            current: [0; BUCKETS],
            previous: [0; BUCKETS],
            sums: [0; BUCKETS],
            samples: 0,
            unanswered: [0; 2],
            began: now,
            lasted: Duration::ZERO,
            span,
        }
    }

    pub(super) fn add(&mut self, bucket: u16, now: Instant) -> bool {
        let is_over = self.is_over(now);
        if is_over {
            self.previous = std::mem::replace(&mut self.current, [0; BUCKETS]);
            self.unanswered = [0, self.unanswered[0]];
            self.samples = 0;
            self.lasted = now.saturating_duration_since(self.began);
            self.began = now;
        }
        let count = &mut self.current[usize::from(bucket)];
        *count = count.saturating_add(1);
        self.samples += 1;
        is_over
    }

    pub(super) fn add_unanswered(&mut self) {
        self.unanswered[0] = self.unanswered[0].saturating_add(1);
    }

    pub(super) fn take_unanswered(&mut self) {
        if let Some(count) = self.unanswered.iter_mut().find(|count| **count > 0) {
            *count -= 1;
        }
    }

    pub(super) fn start_anew(&mut self, replies: impl Iterator<Item = u16>, now: Instant) {
        *self = Self::new(self.span, now);
        for bucket in replies {
            self.add(bucket, now);
        }
    }

    pub(super) fn refresh(&mut self) {
        let mut sum = 0;
        for ((current, previous), total) in self.current.iter().zip(&self.previous).zip(&mut self.sums) {
            sum += u32::from(*current) + u32::from(*previous);
            *total = sum;
        }
    }

    pub(super) fn replies(&self) -> u32 {
        self.sums[BUCKETS - 1]
    }

    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered[0].saturating_add(self.unanswered[1])
    }

    /// Returns the replies of each bucket, and the unanswered attempts in the last one.
    pub(super) fn counts(&self) -> (Vec<u64>, Vec<u64>) {
        let replied = self.current.iter().zip(&self.previous);
        let replied = replied.map(|(current, previous)| u64::from(*current) + u64::from(*previous)).collect();
        let mut beaten = vec![0; BUCKETS];
        beaten[BUCKETS - 1] = self.unanswered().into();
        (replied, beaten)
    }

    /// Returns the replies per second.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let previous = || self.previous.iter().map(|count| u32::from(*count)).sum::<u32>();
        let replies = self.samples + if self.lasted.is_zero() { 0 } else { previous() };
        f64::from(replies) / (self.lasted + now.saturating_duration_since(self.began)).as_secs_f64().max(1e-3)
    }

    pub(super) fn at_rank(&self, rank: u32) -> Duration {
        let rank = rank.clamp(1, self.replies().max(1));
        let place = self.place_of(rank);
        let below = place.checked_sub(1).map_or(0, |place| self.sums[place]);
        let count = self.sums[place].saturating_sub(below).max(1);
        let (lowest, width) = (Buckets::border(place), Buckets::border(place + 1) - Buckets::border(place));
        let inside = if width > 1 { width * u64::from(rank - below) / u64::from(count) } else { 0 };
        Duration::from_micros(lowest + inside)
    }

    /// Returns the buckets of the middle half of the replies, and a little beyond; all if there are fewer
    /// than `least`.
    pub(super) fn usual(&self, least: u32) -> RangeInclusive<u16> {
        let replies = self.replies();
        if replies < least {
            return 0..=u16::MAX;
        }
        let place = |rank: u32| self.place_of(rank.max(1)) as u16;
        place(replies / 4).saturating_sub(BEYOND)..=place(replies - replies / 4) + BEYOND
    }

    fn place_of(&self, rank: u32) -> usize {
        self.sums.partition_point(|&sum| sum < rank).min(BUCKETS - 1)
    }

    fn is_over(&self, now: Instant) -> bool {
        let SampleSpan { enough, shortest, few, usual, longest } = self.span;
        let age = now.saturating_duration_since(self.began);
        self.samples >= MAX_SAMPLES
            || self.samples >= enough && age >= shortest
            || self.samples >= few && age >= usual
            || age >= longest
    }
}

fn age_millis(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

fn before(now: Instant, millis: u64) -> Instant {
    now.checked_sub(Duration::from_millis(millis)).unwrap_or(now)
}

pub(super) fn bucket(latency: Duration) -> u16 {
    Buckets::bucket_of(latency, MAX_MICROS) as u16
}

pub(crate) type Buckets = LogLinear<STEPS>;

const STEPS: u64 = 32;
/// The upper limit in µs: 16.8 s, longer than any useful attempt.
pub(super) const MAX_MICROS: u64 = (1 << 24) - 1;
pub(crate) const BUCKETS: usize = Buckets::bucket(MAX_MICROS) + 1;
const BEYOND: u16 = STEPS as u16 / 4;
/// The limit of samples in an epoch, so that no bucket overflows.
const MAX_SAMPLES: u32 = u16::MAX as u32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Latency;
    use super::*;
    use crate::rules::Hedge;

    proptest! {
        /// A successor uses the same hedge delays as the process before it.
        #[test]
        fn a_successor_knows_the_same_percentiles(
            replies in prop::collection::vec((1..200_000_u64, 0..50_u64), 0..600),
            given_up in 0..40_u32,
            later in prop::collection::vec(1..200_000_u64, 0..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut latency = Latency::new(start);
            for (micros, pause) in replies {
                now += Duration::from_millis(pause);
                latency.record(Duration::from_micros(micros), now);
            }
            (0..given_up).for_each(|_| latency.give_up());
            // A successor reads samples since the last refresh at once.
            latency.samples_mut().refresh(now);
            let text = serde_json::to_string(&latency.image(now)).expect("plain data");
            let reported = serde_json::from_str(&text).expect("what was written");
            let mut successor = Latency::new(now);
            successor.learn(&reported, now);
            let hedge = Hedge::default();
            for part in [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                prop_assert_eq!(latency.quantile(part), successor.quantile(part), "{}", part);
            }
            prop_assert_eq!(latency.hedge_delay(&hedge), successor.hedge_delay(&hedge));
            prop_assert_eq!(&successor.image(now), &reported);
            // A window ends for both at the same time if the latency does not change.
            if later.len() < 50 {
                for micros in later {
                    now += Duration::from_millis(40);
                    latency.record(Duration::from_micros(micros), now);
                    successor.record(Duration::from_micros(micros), now);
                }
                prop_assert_eq!(latency.image(now).long, successor.image(now).long);
            }
        }
    }
}
