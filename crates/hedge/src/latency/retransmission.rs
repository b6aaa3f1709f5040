//! The retransmission timer of one backend, and the allowance for the attempts that it starts.
//!
//! The timer follows RFC 6298: the smoothed latency and four times its smoothed deviation. As there, one
//! sample stands for many replies, or a slow reply would be forgotten before the next one comes. Each attempt
//! has its own ID and socket, so a reply is never taken for that of another attempt, and Karn's algorithm
//! (section 3) is not needed.
//!
//! A late reply looks like a lost one. Each reply thus earns a part of an early attempt that follows the
//! share of attempts without a reply. The late replies of a slow backend correct that share, so its allowance
//! stays small.

use std::cell::Cell;
use std::time::Duration;

use crate::rules::AttemptTimeout;

#[derive(Clone, Debug)]
pub(super) struct Retransmission {
    estimate: Option<Estimate>,
    replies: Cell<u32>,
    allowance: Cell<f64>,
}

/// The smoothed latency and its smoothed deviation in seconds.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    latency: f64,
    deviation: f64,
}

impl Retransmission {
    pub(super) fn new() -> Self {
        Self { estimate: None, replies: Cell::new(0), allowance: Cell::new(BURST) }
    }

    /// Records the latency of the latest of so many replies.
    pub(super) fn record(&mut self, latency: Duration, replies: u32) {
        let sample = latency.as_secs_f64();
        self.estimate = Some(match self.estimate {
            None => Estimate { latency: sample, deviation: sample / 2.0 },
            Some(Estimate { latency, deviation }) => {
                let error = sample - latency;
                let deviation = deviation + (error.abs() - deviation) / 4.0;
                Estimate { latency: latency + error / 8.0, deviation }
            }
        });
        *self.replies.get_mut() = self.replies.get().saturating_add(replies);
    }

    /// Returns the silence after which a first attempt is taken for lost.
    pub(super) fn timeout(&self) -> Duration {
        let Some(Estimate { latency, deviation }) = self.estimate else { return AttemptTimeout::LONGEST };
        let seconds = (latency + 4.0 * deviation).min(AttemptTimeout::LONGEST.as_secs_f64());
        Duration::from_secs_f64(seconds).max(SHORTEST)
    }

    /// Takes one early attempt from the allowance. `lost`: attempts without a reply for each reply.
    pub(super) fn take(&self, lost: f64) -> bool {
        let earned = f64::from(self.replies.take()) * (lost * MARGIN).clamp(MIN_RATE, MAX_RATE);
        let allowance = (self.allowance.get() + earned).min(BURST);
        let is_enough = allowance >= 1.0;
        self.allowance.set(if is_enough { allowance - 1.0 } else { allowance });
        is_enough
    }
}

/// A shorter timer would take pauses of the machine or the backend, some milliseconds each, for losses.
const SHORTEST: Duration = Duration::from_millis(20);

/// Early attempts without any reply, such as the losses of a short outage.
const BURST: f64 = 20.0;

/// Losses come unevenly, and repetitions are lost too.
const MARGIN: f64 = 1.5;

/// For rare losses, which no window holds.
const MIN_RATE: f64 = 0.01;

/// The limit for a backend that drops queries because of its load.
const MAX_RATE: f64 = 0.25;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: f64) -> Duration {
        Duration::from_secs_f64(millis / 1e3)
    }

    fn after(samples: &[f64]) -> Retransmission {
        let mut timer = Retransmission::new();
        samples.iter().for_each(|sample| timer.record(ms(*sample), 1));
        timer
    }

    fn drain(timer: &Retransmission, lost: f64) -> u32 {
        std::iter::from_fn(|| timer.take(lost).then_some(1_u32)).sum()
    }

    #[test]
    fn the_timer_is_the_latency_and_four_deviations() {
        // A second is the longest and the first; three times the only sample; 20 ms is the shortest.
        for (samples, expected) in [
            (&[][..], 1_000.0),
            (&[10.0], 10.0 + 4.0 * 5.0),
            (&[10.0, 42.0], 14.0 + 4.0 * 11.75),
            (&[1.0], 20.0),
            (&[900.0], 1_000.0),
        ] {
            let timeout = after(samples).timeout().as_secs_f64() * 1e3;
            assert!((timeout - expected).abs() < 0.001, "{samples:?}: {timeout}");
        }
    }

    #[test]
    fn the_timer_exceeds_a_new_latency_at_once() {
        let mut timer = after(&[1.0; 1_000]);
        timer.record(ms(100.0), 1);
        assert!(timer.timeout() > ms(100.0), "{timer:?}");
    }

    #[test]
    fn the_allowance_follows_the_loss_between_its_bounds() {
        for (lost, expected) in [(0.0, 10), (0.1, 150), (0.9, 250)] {
            let mut timer = after(&[]);
            assert_eq!(drain(&timer, lost), 20, "it starts with a burst");
            let mut taken: u32 = 0;
            for _ in 0..1_000 {
                timer.record(ms(1.0), 1);
                taken += drain(&timer, lost);
            }
            assert!(taken.abs_diff(expected) <= 1, "{lost}: {taken}");
        }
    }

    proptest! {
        #[test]
        fn takes_no_more_than_burst_and_earnings(steps in prop::collection::vec((0u32..50, 0.0..1.0_f64), 1..200)) {
            let mut timer = Retransmission::new();
            let (mut earned, mut taken) = (BURST, 0.0_f64);
            for (replies, lost) in steps {
                timer.record(ms(1.0), replies);
                earned += f64::from(replies) * (lost * MARGIN).clamp(MIN_RATE, MAX_RATE);
                taken += f64::from(drain(&timer, lost));
                prop_assert!(taken <= earned + 1e-6, "{} of {}", taken, earned);
            }
        }

        #[test]
        fn the_timer_stays_between_its_bounds(samples in prop::collection::vec(any::<u64>(), 0..50)) {
            let mut timer = Retransmission::new();
            for sample in samples {
                timer.record(Duration::from_micros(sample), 1);
                prop_assert!((SHORTEST..=AttemptTimeout::LONGEST).contains(&timer.timeout()));
            }
        }
    }
}
