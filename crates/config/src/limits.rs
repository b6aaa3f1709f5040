//! Bounds of numbers and durations: those that several keys or the command line use, with their reasons. What
//! is out of bounds is an error.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::words::{DURATION, Expectation, SIZE, SIZE_UNITS, duration, octets};

/// The smallest and the largest accepted value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits<T> {
    /// The smallest accepted value.
    pub min: T,
    /// The largest accepted value.
    pub max: T,
}

impl<T: PartialOrd> Limits<T> {
    /// Returns true if `value` is within the bounds; NaN never is.
    pub fn holds(&self, value: &T) -> bool {
        (&self.min..=&self.max).contains(&value)
    }
}

impl<T> From<RangeInclusive<T>> for Limits<T> {
    fn from(range: RangeInclusive<T>) -> Self {
        let (min, max) = range.into_inner();
        Self { min, max }
    }
}

impl Limits<Duration> {
    /// Reads a duration with a unit, within these bounds.
    pub fn parse(&self, text: &str) -> Result<Duration, Expectation> {
        let value = duration(text)?;
        if self.holds(&value) {
            return Ok(value);
        }
        Err(Expectation::new(format!("a duration {}", self.in_words())).matching(DURATION))
    }

    /// Reads a duration like `parse`; "0s" disables it.
    pub(crate) fn parse_or_never(&self, text: &str) -> Result<Option<Duration>, Expectation> {
        match duration(text)? {
            Duration::ZERO => Ok(None),
            _ => self.parse(text).map(Some).map_err(|expected| expected.or("\"0s\" for never")),
        }
    }

    /// Reads a duration in whole seconds, such as a TTL.
    pub(crate) fn parse_seconds(&self, text: &str) -> Result<Duration, Expectation> {
        let value = duration(text)?;
        if self.holds(&value) && value.subsec_nanos() == 0 {
            return Ok(value);
        }
        Err(Expectation::new(format!("whole seconds {}", self.in_words())).matching(DURATION))
    }

    pub(super) fn in_words(&self) -> String {
        format!("from {} to {}", humantime::format_duration(self.min), humantime::format_duration(self.max))
    }
}

impl Limits<usize> {
    /// Reads a size with a unit, within these bounds.
    pub(crate) fn parse_size(&self, text: &str) -> Result<usize, Expectation> {
        let value = octets(text)?;
        if self.holds(&value) {
            return Ok(value);
        }
        Err(Expectation::new(format!("a size from {} to {}", size_text(self.min), size_text(self.max))).matching(SIZE))
    }
}

fn size_text(size: usize) -> String {
    let unit = SIZE_UNITS.into_iter().find(|(_, shift)| size.trailing_zeros() >= *shift);
    unit.map_or_else(|| size.to_string(), |(unit, shift)| format!("{}{unit}", size >> shift))
}

impl<T: fmt::Display> fmt::Display for Limits<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.min, self.max)
    }
}

/// Data-plane threads; 0 is one per CPU. More than the maximum is a typing error.
pub const WORKERS: Limits<usize> = Limits { min: 0, max: 1024 };

/// Standby processes. With none, a crashed server starts from scratch; more than a few only take memory.
pub const STANDBYS: Limits<usize> = Limits { min: 0, max: 8 };

/// Watchdog timeout. Below it healthy but busy processes would be killed; above it all clients have given up.
pub const WATCHDOG: Limits<Duration> = Limits { min: secs(1), max: secs(600) };

/// Share of the load. Less than a thousandth is nearly none.
pub const WEIGHT: Limits<u16> = Limits { min: 1, max: 1000 };

/// Tier of a backend. Three kinds of spares are more than pools in use have.
pub const TIER: Limits<u8> = Limits { min: 0, max: 3 };

/// Backends of lower tiers that are up, below which spares take turns. Zero would disable spares.
pub const MIN_UP: Limits<u16> = Limits { min: 1, max: 1000 };

/// The client's deadline. Zero would fail every query; after a minute the client has given up.
pub const TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Silence after which the next backend is tried. May exceed `timeout`: then only failures move on.
pub const ATTEMPT_TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Backends that a race starts with; 0 is all. A race has at most 8 attempts.
pub const FANOUT: Limits<u16> = Limits { min: 0, max: 8 };

/// Attempts per backend and query. A race has at most 8 attempts.
pub const TRIES: Limits<u8> = Limits { min: 1, max: 8 };

/// Clamps of an adaptive hedge delay.
pub const HEDGE_CLAMP: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// Hedges per client query, on average. 1 doubles the load.
pub const BUDGET: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// Hedges per query. The first of at most 8 attempts is no hedge; to disable hedges, set `budget = 0`.
pub const HEDGES: Limits<u8> = Limits { min: 1, max: 7 };

/// Time between probes of one backend. Shorter is load, longer is no health check.
pub const PROBE_INTERVAL: Limits<Duration> = Limits { min: ms(100), max: secs(3600) };

/// TTL of table records. RFC 2181 section 8: 31 bits.
pub(crate) const TTL: Limits<Duration> = Limits { min: ms(0), max: secs((1 << 31) - 1) };

/// Memory of the cache in bytes. Less holds only a few of the longest messages; more is a typing error.
pub const CACHE_SIZE: Limits<usize> = Limits { min: 1 << 20, max: 64 << 30 };

/// Upper bound for TTLs. RFC 8767 section 4: seven days; RFC 2308 section 5: at most a day for negatives.
pub(crate) const MAX_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(7 * 86_400) };

/// Idle time of a connection. RFC 7828 section 3.1 can announce up to 6553.5 s.
pub(crate) const CONNECTION_IDLE: Limits<Duration> = Limits { min: ms(100), max: secs(6553) };

/// Age of a connection. Less is mostly handshakes; after a week, other limits have ended it.
pub(crate) const CONNECTION_AGE: Limits<Duration> = Limits { min: secs(1), max: secs(7 * 86_400) };

/// Lifetime of cached failures. RFC 9520 section 3.2: at least 1 s, at most 5 min.
pub const FAILURE_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(300) };

/// A share of all questions.
pub(crate) const SHARE: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// Memory for queued records in bytes. It should hold a few buffers of the longest message.
pub(crate) const TAP_BUFFER: Limits<usize> = Limits { min: 1 << 20, max: 1 << 30 };

/// Shortest secret in bytes. RFC 8945 section 10 recommends the hash length, but servers use shorter ones.
pub(crate) const MIN_SECRET: usize = 8;

pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

pub(super) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_themselves_are_within() {
        for (text, taken) in [("1ms", true), ("60s", true), ("999us", false), ("60001ms", false), ("0s", false)] {
            assert_eq!(TIMEOUT.parse(text).is_ok(), taken, "{text}");
        }
        assert!(BUDGET.holds(&0.0) && BUDGET.holds(&1.0));
        assert!(!BUDGET.holds(&f64::NAN) && !BUDGET.holds(&-0.1));
    }

    #[test]
    fn the_remedy_names_the_bounds() {
        let error = TIMEOUT.parse("2m").expect_err("out of bounds");
        assert_eq!(error.to_string(), "expected a duration from 1ms to 1m");
    }
}
