//! The time of day, as messages bear it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, which is the time of TSIG (RFC 8945 section 4.2).
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
