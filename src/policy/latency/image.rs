//! The latency of a backend as one process tells it to its successor: what the windows hold, without clock readings.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::window::{Window, WindowImage};
use super::{LONG, SHORT};
use super::{Latency, Samples};

/// The recent latency of a backend, to be told to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyImage {
    /// What common percentiles are read from.
    short: WindowImage,
    /// What rare percentiles are read from.
    long: WindowImage,
}

impl Latency {
    /// What is known, for a successor.
    pub fn image(&self, now: Instant) -> LatencyImage {
        let samples = self.samples.as_ref();
        samples.map_or_else(LatencyImage::default, |samples| LatencyImage {
            short: samples.short.image(now),
            long: samples.long.image(now),
        })
    }

    /// What another process knew. Whether the times are about to change is seen anew, from the next replies on.
    pub fn of_image(image: &LatencyImage, now: Instant) -> Self {
        if *image == LatencyImage::default() {
            return Self::new(now);
        }
        let mut samples = Box::new(Samples::new(now));
        samples.short = Window::of_image(&image.short, SHORT, now);
        samples.long = Window::of_image(&image.long, LONG, now);
        samples.refresh(now);
        Self { began: now, samples: Some(samples) }
    }
}

/// Whole milliseconds since then.
pub(super) fn age_millis(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

/// The moment so many milliseconds ago, or as long ago as this clock knows.
pub(super) fn before(now: Instant, millis: u64) -> Instant {
    now.checked_sub(Duration::from_millis(millis)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::rules::Hedge;

    proptest! {
        /// A successor waits as long for a backend, before it hedges, as the process before it would.
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
            // What came since the last refresh is read by a successor at once.
            latency.samples_mut().refresh(now);
            let text = serde_json::to_string(&latency.image(now)).expect("plain data");
            let told = serde_json::from_str(&text).expect("what was written");
            let mut successor = Latency::of_image(&told, now);
            let hedge = Hedge::default();
            for part in [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0] {
                prop_assert_eq!(latency.quantile(part), successor.quantile(part), "{}", part);
            }
            prop_assert_eq!(latency.hedge_delay(&hedge), successor.hedge_delay(&hedge));
            prop_assert_eq!(&successor.image(now), &told);
            // A window ends for both at the same time, if the times do not change.
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
