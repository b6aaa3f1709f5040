//! Export of a backend's latency to a successor process: the content of the windows, without clock readings.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::window::{Window, WindowImage};
use super::{LONG, SHORT};
use super::{Latency, Samples};

/// The recent latency of a backend in a form for another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyImage {
    short: WindowImage,
    long: WindowImage,
}

impl Latency {
    /// Exports the history for a successor process.
    pub fn image(&self, now: Instant) -> LatencyImage {
        let samples = self.samples.as_ref();
        samples.map_or_else(LatencyImage::default, |samples| LatencyImage {
            short: samples.short.image(now),
            long: samples.long.image(now),
        })
    }

    /// Imports the history of another process. The detection of changes starts anew with the next replies.
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

pub(super) fn age_millis(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn before(now: Instant, millis: u64) -> Instant {
    now.checked_sub(Duration::from_millis(millis)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::rules::Hedge;

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
            let mut successor = Latency::of_image(&reported, now);
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
