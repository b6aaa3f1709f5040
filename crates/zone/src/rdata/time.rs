//! Signature times: `YYYYMMDDHHmmSS` in UTC, or seconds since 1970 (RFC 4034 section 3.2).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::load::master::number;

/// Reads a time. Dates after 2106 wrap around like serial numbers (RFC 4034 section 3.1.5).
pub(super) fn read(text: &[u8]) -> Option<u32> {
    // A 32-bit number of seconds never has 14 digits.
    if text.len() != 14 {
        return number(text).and_then(|seconds| u32::try_from(seconds).ok());
    }
    let mut rfc3339 = *b"0000-00-00T00:00:00Z";
    rfc3339.iter_mut().filter(|place| **place == b'0').zip(text).for_each(|(place, digit)| *place = *digit);
    // The library takes second 60, a leap second, but seconds since 1970 have none.
    let rfc3339 = std::str::from_utf8(&rfc3339).ok().filter(|_| !text.ends_with(b"60"))?;
    let time = humantime::parse_rfc3339(rfc3339).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs() as u32)
}

pub(super) fn text(seconds: u32) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.into());
    humantime::format_rfc3339_seconds(time).to_string().chars().filter(char::is_ascii_digit).collect()
}
