//! The bounds of every number and duration, with their reasons. What is out of bounds is an error.

use std::fmt;
use std::time::Duration;

use super::words::{DURATION, Expectation, SIZE, SIZE_UNITS, duration, octets};
use crate::cache::Cache;

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

impl Limits<Duration> {
    /// Reads a duration with a unit, within these bounds.
    pub fn parse(&self, text: &str) -> Result<Duration, Expectation> {
        let value = duration(text)?;
        if self.holds(&value) {
            return Ok(value);
        }
        let (min, max) = (humantime::format_duration(self.min), humantime::format_duration(self.max));
        Err(Expectation::new(format!("a duration from {min} to {max}")).matching(DURATION))
    }

    /// Reads a duration like `parse`; "0s" disables it.
    pub fn parse_or_never(&self, text: &str) -> Result<Option<Duration>, Expectation> {
        match duration(text)? {
            Duration::ZERO => Ok(None),
            _ => self.parse(text).map(Some).map_err(|expected| expected.or("\"0s\" for never")),
        }
    }

    /// Reads a duration like `parse`; "off" disables it.
    pub fn parse_or_off(&self, text: &str) -> Result<Option<Duration>, Expectation> {
        match text {
            "off" => Ok(None),
            _ => self.parse(text).map(Some).map_err(|time| Expectation::one_of(text, ["off"].into_iter(), Some(time))),
        }
    }

    /// Reads a duration in whole seconds, such as a TTL.
    pub fn parse_seconds(&self, text: &str) -> Result<Duration, Expectation> {
        let value = duration(text)?;
        if self.holds(&value) && value.subsec_nanos() == 0 {
            return Ok(value);
        }
        let (min, max) = (humantime::format_duration(self.min), humantime::format_duration(self.max));
        Err(Expectation::new(format!("whole seconds from {min} to {max}")).matching(DURATION))
    }
}

impl Limits<usize> {
    /// Reads a size with a unit, within these bounds.
    pub fn parse_size(&self, text: &str) -> Result<usize, Expectation> {
        let value = octets(text)?;
        if self.holds(&value) {
            return Ok(value);
        }
        Err(Expectation::new(format!("a size from {} to {}", size_text(self.min), size_text(self.max))).matching(SIZE))
    }

    /// Reads a size like `parse_size`; "off" removes the bound.
    pub fn parse_size_or_off(&self, text: &str) -> Result<Option<usize>, Expectation> {
        match text {
            "off" => Ok(None),
            _ => self
                .parse_size(text)
                .map(Some)
                .map_err(|size| Expectation::one_of(text, ["off"].into_iter(), Some(size))),
        }
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

/// Time that a worker polls after work; 0 disables it. Above the maximum it would never sleep.
pub const BUSY_POLL: Limits<Duration> = Limits { min: ms(0), max: ms(1) };

/// `drain_delay`. systemd and Kubernetes kill a process that takes longer to end.
pub const DRAIN_DELAY: Limits<Duration> = Limits { min: ms(0), max: secs(300) };

/// Standby processes. With none, a crashed server starts from scratch; more than a few only take memory.
pub const STANDBYS: Limits<usize> = Limits { min: 0, max: 8 };

/// Watchdog timeout. Below it healthy but busy processes would be killed; above it all clients have given up.
pub const WATCHDOG: Limits<Duration> = Limits { min: secs(1), max: secs(600) };

/// Number of slow races kept. Fewer would vanish before an operator looks; each may take a kilobyte.
pub const SLOW_KEPT: Limits<usize> = Limits { min: 10, max: 100_000 };

/// Threshold of slow races. No race takes longer than its pool's `timeout`.
pub const SLOW_THRESHOLD: Limits<Duration> = Limits { min: Duration::from_micros(1), max: secs(60) };

/// Largest UDP message in bytes (RFC 6891 section 6.2.3, RFC 6891 section 6.2.5).
pub const EDNS_UDP_SIZE: Limits<u16> = Limits { min: 512, max: 4096 };

/// Share of the load. Less than a thousandth is nearly none.
pub const WEIGHT: Limits<u16> = Limits { min: 1, max: 1000 };

/// The client's deadline. Zero would fail every query; after a minute the client has given up.
pub const TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Silence after which the next backend is tried. May exceed `timeout`: then only failures move on.
pub const ATTEMPT_TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Time for which a replica may have an older version of a zone.
pub const MAX_LAG: Limits<Duration> = Limits { min: ms(100), max: secs(86_400) };

/// A fixed grace period. For none, set `accept = "conclusive"`.
pub const GRACE: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Backends that a race starts with; 0 is all. A race has at most 8 attempts.
pub const FANOUT: Limits<u16> = Limits { min: 0, max: 8 };

/// Attempts per backend and query. A race has at most 8 attempts.
pub const TRIES: Limits<u8> = Limits { min: 1, max: 8 };

/// Discovered members of a pool. Each takes memory in every worker.
pub const MEMBERS: Limits<usize> = Limits { min: 1, max: 10_000 };

/// Zones of a catalog. Each takes some 12 KB and a task; a million fill the memory of a large machine.
pub const CATALOG_MEMBERS: Limits<usize> = Limits { min: 1, max: 1_000_000 };

/// Time that a removed member stays while it is up.
pub const HOLD: Limits<Duration> = Limits { min: ms(0), max: secs(3600) };

/// Lease of a registration. Less than 2 s would not outlive an election of etcd.
pub const LEASE: Limits<Duration> = Limits { min: secs(2), max: secs(600) };

/// Longest wait for all zones before an authority registers.
pub const REGISTER_WAIT: Limits<Duration> = Limits { min: ms(0), max: secs(3600) };

/// `[etcd]` `timeout`.
pub const ETCD_TIMEOUT: Limits<Duration> = Limits { min: ms(100), max: secs(60) };

/// Pending queries of one backend. Zero would disable it; more than the maximum do not fit in memory.
pub const MAX_IN_FLIGHT: Limits<u32> = Limits { min: 1, max: 10_000_000 };

/// Connections of one worker to one backend. More only reduce the queries lost with a connection.
pub const BACKEND_CONNECTIONS: Limits<u8> = Limits { min: 1, max: 16 };

/// Pending queries on one connection to a backend. Half of the 65,536 message IDs stay free.
pub const PIPELINE: Limits<u16> = Limits { min: 1, max: 10_000 };

/// Time to open a connection to a backend. Three round trips take less than a second everywhere on earth.
pub const CONNECT_TIMEOUT: Limits<Duration> = Limits { min: ms(10), max: secs(60) };

/// Number of backends up to which a pool has series per backend in `/metrics`; at most the limit of members.
pub const BACKEND_SERIES: Limits<u16> = Limits { min: 0, max: 10_000 };

/// A fixed hedge delay; 0 starts the hedge at once.
pub const HEDGE_DELAY: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// The percentile of a hedge delay. Below it most hedges are useless; above it there are too few samples.
pub const PERCENT: Limits<f64> = Limits { min: 50.0, max: 99.9 };

/// Clamps of an adaptive hedge delay.
pub const HEDGE_CLAMP: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// Hedges per client query, on average. 1 doubles the load.
pub const BUDGET: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// Share of the questions with compared replies.
pub const COMPARE: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// Interval between audits of all backends. Shorter is load, longer finds nothing.
pub const AUDIT: Limits<Duration> = Limits { min: ms(100), max: secs(3600) };

/// Hedges per query. The first of at most 8 attempts is no hedge; to disable hedges, set `budget = 0`.
pub const HEDGES: Limits<u8> = Limits { min: 1, max: 7 };

/// Time between probes of one backend. Shorter is load, longer is no health check.
pub const PROBE_INTERVAL: Limits<Duration> = Limits { min: ms(100), max: secs(3600) };

/// `health.timeout`.
pub const PROBE_TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Queries to the pool between extra probes; 0 disables them.
pub const PROBE_EVERY: Limits<u32> = Limits { min: 0, max: u32::MAX };

/// Consecutive probes that turn a backend up or down.
pub const PROBES: Limits<u8> = Limits { min: 1, max: 100 };

/// TTL of table records. RFC 2181 section 8: 31 bits.
pub const TTL: Limits<Duration> = Limits { min: ms(0), max: secs((1 << 31) - 1) };

/// Memory of the cache in bytes. Less holds only a few of the longest messages; more is a typing error.
pub const CACHE_SIZE: Limits<usize> = Limits { min: Cache::MIN_SIZE, max: 64 << 30 };

/// Lower bound for TTLs. Beyond a day it would overrule every server.
pub const MIN_TTL: Limits<Duration> = Limits { min: ms(0), max: secs(86_400) };

/// Upper bound for TTLs. RFC 8767 section 4: seven days; RFC 2308 section 5: at most a day for negatives.
pub const MAX_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(7 * 86_400) };

/// Time for which expired answers are kept. RFC 8767 section 5: one to three days; 0 disables it.
pub const STALE: Limits<Duration> = Limits { min: ms(0), max: secs(7 * 86_400) };

/// Wait of a client before it gets a stale answer; 0 disables it.
pub const STALE_ANSWER_AFTER: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// TTL of a stale answer. RFC 8767 section 4: more than 0, or clients would retry at once.
pub const STALE_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(3600) };

/// Remaining share of the TTL at which a popular entry is refreshed; 0 disables it.
pub const PREFETCH: Limits<f64> = Limits { min: 0.0, max: 0.9 };

/// Lifetime of cached failures. RFC 9520 section 3.2: at least 1 s, at most 5 min.
pub const FAILURE_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(300) };

/// Time between saves of the cache; 0 saves only at exit. Shorter would write all the time.
pub const PERSIST_EVERY: Limits<Duration> = Limits { min: secs(10), max: secs(86_400) };

/// Pending queries of one client. Zero would disable the forwarder.
pub const WAITING: Limits<u32> = Limits { min: 1, max: 100_000 };

/// Pending queries of all clients. Fewer would refuse clients on any slow day; each takes some 400 bytes.
pub const IN_FLIGHT: Limits<u32> = Limits { min: 100, max: 10_000_000 };

/// Responses per second to one client; 0 is no limit. The counters hold ten thousand at most.
pub const RATE: Limits<u16> = Limits { min: 0, max: 10_000 };

/// Window of the rate limit. Less than a second remembers nothing.
pub const RATE_WINDOW: Limits<Duration> = Limits { min: secs(1), max: secs(3600) };

/// One in so many responses over the rate has TC=1; 0 is none. BIND and NSD allow up to 10, too.
pub const SLIP: Limits<u8> = Limits { min: 0, max: 10 };

/// Prefix length that identifies an IPv4 client.
pub const IPV4_PREFIX: Limits<u8> = Limits { min: 1, max: 32 };

/// Prefix length that identifies an IPv6 client.
pub const IPV6_PREFIX: Limits<u8> = Limits { min: 1, max: 128 };

/// Open TCP connections; 0 is as many as there is room for. A process rarely has more descriptors.
pub const CONNECTIONS: Limits<usize> = Limits { min: 0, max: 1_000_000 };

/// Open TCP connections of one client; 0 is no limit.
pub const CONNECTIONS_PER_CLIENT: Limits<u32> = Limits { min: 0, max: 1_000_000 };

/// Handshakes per second of one client; 0 is no limit.
pub const HANDSHAKES: Limits<u32> = Limits { min: 0, max: 1_000_000 };

/// Pending queries of one connection. Zero would answer none; each has a slot in a channel.
pub const CONNECTION_IN_FLIGHT: Limits<usize> = Limits { min: 1, max: 10_000 };

/// Time until the first query. Less than a round trip would close every connection.
pub const FIRST_QUERY: Limits<Duration> = Limits { min: ms(100), max: secs(60) };

/// Idle time of a connection. RFC 7828 section 3.1 can announce up to 6553.5 s.
pub const CONNECTION_IDLE: Limits<Duration> = Limits { min: ms(100), max: secs(6553) };

/// Time for which a connection accepts queries. Shorter, every other query would meet a closing one.
pub const CONNECTION_LIFETIME: Limits<Duration> = Limits { min: secs(1), max: secs(7 * 86_400) };

/// The share of queries that the query log records.
pub const SAMPLE: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// Size in bytes at which a file is rotated. Less would be hundreds of files a minute.
pub const ROTATE: Limits<usize> = Limits { min: 1 << 20, max: 1 << 40 };

/// The number of rotated files that the query log keeps.
pub const KEPT_FILES: Limits<u16> = Limits { min: 1, max: 1000 };

/// Memory for queued records in bytes. It should hold a few buffers of the longest message.
pub const TAP_BUFFER: Limits<usize> = Limits { min: 1 << 20, max: 1 << 30 };

/// Shortest secret in bytes. RFC 8945 section 10 recommends the hash length, but servers use shorter ones.
pub const MIN_SECRET: usize = 8;

/// The queue of a network card. Drivers set up one per CPU, if the card has as many.
pub const XDP_QUEUE: Limits<u32> = Limits { min: 0, max: 1023 };

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
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
