//! The slow start of a backend that was down: caches are cold, and what brought it down may do so again.

use std::time::Duration;

/// The part of its normal load that a backend is given when it has been up for so long.
pub fn share(up_for: Duration) -> f64 {
    (FIRST_SHARE + (1.0 - FIRST_SHARE) * up_for.div_duration_f64(LENGTH)).min(1.0)
}

/// How long the slow start lasts.
pub const LENGTH: Duration = Duration::from_secs(10);
/// The part with which it begins: enough to find out whether all is well.
const FIRST_SHARE: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_evenly_from_a_tenth_to_all() {
        for (seconds, expected) in [(0.0, 0.1), (2.5, 0.325), (5.0, 0.55), (10.0, 1.0), (1e6, 1.0)] {
            let share = share(Duration::from_secs_f64(seconds));
            assert!((share - expected).abs() < 1e-9, "after {seconds} s: {share}");
        }
    }
}
