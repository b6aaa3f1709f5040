//! The bounds of every number and duration, with their reasons. What is out of bounds is an error,
//! never clamped. The defaults stand in [`Rules`](crate::policy::Rules) and beside their readers.

use std::fmt;
use std::time::Duration;

use super::words::{DURATION, Expected, SIZE, SIZE_UNITS, duration, octets};
use crate::cache::Cache;

/// The smallest and the largest value that is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits<T> {
    /// The smallest.
    pub min: T,
    /// The largest.
    pub max: T,
}

impl<T: PartialOrd> Limits<T> {
    /// Whether `value` is within; NaN never is.
    pub fn holds(&self, value: &T) -> bool {
        (&self.min..=&self.max).contains(&value)
    }
}

impl Limits<Duration> {
    /// Reads a duration with its unit and within these bounds.
    pub fn parse(&self, text: &str) -> Result<Duration, Expected> {
        let value = duration(text)?;
        if self.holds(&value) {
            return Ok(value);
        }
        let (min, max) = (humantime::format_duration(self.min), humantime::format_duration(self.max));
        Err(Expected::new(format!("a duration from {min} to {max}")).matching(DURATION))
    }

    /// The same where "0s" says never.
    pub fn parse_or_never(&self, text: &str) -> Result<Option<Duration>, Expected> {
        match duration(text)? {
            Duration::ZERO => Ok(None),
            _ => self.parse(text).map(Some).map_err(|expected| expected.or("\"0s\" for never")),
        }
    }

    /// The same where "off" says never.
    pub fn parse_or_off(&self, text: &str) -> Result<Option<Duration>, Expected> {
        match text {
            "off" => Ok(None),
            _ => self.parse(text).map(Some).map_err(|time| Expected::one_of(text, ["off"].into_iter(), Some(time))),
        }
    }

    /// The same for what counts whole seconds, as times to live do.
    pub fn parse_seconds(&self, text: &str) -> Result<Duration, Expected> {
        let value = duration(text)?;
        if self.holds(&value) && value.subsec_nanos() == 0 {
            return Ok(value);
        }
        let (min, max) = (humantime::format_duration(self.min), humantime::format_duration(self.max));
        Err(Expected::new(format!("whole seconds from {min} to {max}")).matching(DURATION))
    }
}

impl Limits<usize> {
    /// Reads a size with its unit and within these bounds.
    pub fn parse_size(&self, text: &str) -> Result<usize, Expected> {
        let value = octets(text)?;
        if self.holds(&value) {
            return Ok(value);
        }
        Err(Expected::new(format!("a size from {} to {}", size_text(self.min), size_text(self.max))).matching(SIZE))
    }

    /// The same where "off" says that there is no bound.
    pub fn parse_size_or_off(&self, text: &str) -> Result<Option<usize>, Expected> {
        match text {
            "off" => Ok(None),
            _ => {
                self.parse_size(text).map(Some).map_err(|size| Expected::one_of(text, ["off"].into_iter(), Some(size)))
            }
        }
    }
}

/// A size with the largest unit that leaves no rest.
fn size_text(size: usize) -> String {
    let unit = SIZE_UNITS.into_iter().find(|(_, shift)| size.trailing_zeros() >= *shift);
    unit.map_or_else(|| size.to_string(), |(unit, shift)| format!("{}{unit}", size >> shift))
}

impl<T: fmt::Display> fmt::Display for Limits<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.min, self.max)
    }
}

/// Data-plane threads; 0 is one per CPU. More than this is a slip of the keyboard.
pub const WORKERS: Limits<usize> = Limits { min: 0, max: 1024 };

/// How long a worker stays awake after work; 0 is not at all. Far beyond what a sleep costs it would never sleep again.
pub const BUSY_POLL: Limits<Duration> = Limits { min: ms(0), max: ms(1) };

/// `drain_delay`: who has not withdrawn a server by then does not watch it. systemd and Kubernetes kill what takes long to end.
pub const DRAIN_DELAY: Limits<Duration> = Limits { min: ms(0), max: secs(300) };

/// Processes that stand by. None is a server that is started anew when it has died; more than a few only take memory.
pub const STANDBYS: Limits<usize> = Limits { min: 0, max: 8 };

/// How long who makes no progress is waited for. In less a busy machine would have sound processes killed; after more no client is
/// left to listen.
pub const WATCHDOG: Limits<Duration> = Limits { min: secs(1), max: secs(600) };

/// Slow races that are kept. Fewer are gone before anybody looks; of so many each may take a kilobyte.
pub const SLOW_KEPT: Limits<usize> = Limits { min: 10, max: 100_000 };

/// From when on a race is slow. None takes longer than its pool's `timeout`.
pub const SLOW_THRESHOLD: Limits<Duration> = Limits { min: Duration::from_micros(1), max: secs(60) };

/// Largest UDP message, octets. RFC 6891 section 6.2.3: less than 512 means 512. Section 6.2.5: 4096
/// is as much as one should offer; such messages already travel in fragments.
pub const EDNS_UDP_SIZE: Limits<u16> = Limits { min: 512, max: 4096 };

/// Share of the load. Less than a thousandth can hardly be told from none.
pub const WEIGHT: Limits<u16> = Limits { min: 1, max: 1000 };

/// The client's deadline. Zero would fail every query; after a minute no client is left to listen,
/// while the query would still hold its place.
pub const TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Silence after which the next backend is due. May exceed `timeout`: then only failures move on.
pub const ATTEMPT_TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// For how long a replica may have an older version of a zone.
pub const MAX_LAG: Limits<Duration> = Limits { min: ms(100), max: secs(86_400) };

/// A fixed grace. Not to wait at all is `accept = "conclusive"`.
pub const GRACE: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// How many are asked at once; 0 is all. A race has at most 8 attempts.
pub const FANOUT: Limits<u16> = Limits { min: 0, max: 8 };

/// How often one backend is asked for one query. A race has at most 8 attempts.
pub const TRIES: Limits<u8> = Limits { min: 1, max: 8 };

/// Members of a pool that come by themselves. Each takes memory in every worker that asks it.
pub const MEMBERS: Limits<usize> = Limits { min: 1, max: 10_000 };

/// Zones that a catalog gives. Each takes some 12 KB, and a task; a million fill the memory of a large machine.
pub const CATALOG_MEMBERS: Limits<usize> = Limits { min: 1, max: 1_000_000 };

/// How long a member that is listed no more stays while it is up. An hour is longer than anybody looks on.
pub const HOLD: Limits<Duration> = Limits { min: ms(0), max: secs(3600) };

/// How long an authority is listed without a sign of life. Less than 2 s would not outlive an election of etcd.
pub const LEASE: Limits<Duration> = Limits { min: secs(2), max: secs(600) };

/// How long all zones are waited for before an authority is registered even so.
pub const REGISTER_WAIT: Limits<Duration> = Limits { min: ms(0), max: secs(3600) };

/// How long one request to etcd may take.
pub const ETCD_TIMEOUT: Limits<Duration> = Limits { min: ms(100), max: secs(60) };

/// Queries that may be out to one backend. None at all would be no backend; ten million are more than there is memory for.
pub const MAX_IN_FLIGHT: Limits<u32> = Limits { min: 1, max: 10_000_000 };

/// Connections of one worker to one backend. More than a few only share the loss of fewer queries each.
pub const BACKEND_CONNECTIONS: Limits<u8> = Limits { min: 1, max: 16 };

/// Queries that wait on one connection to a backend. There are 65,536 message IDs, of which half are left free.
pub const PIPELINE: Limits<u16> = Limits { min: 1, max: 10_000 };

/// Time to open a connection to a backend. Three round trips take less than a second everywhere on earth.
pub const CONNECT_TIMEOUT: Limits<Duration> = Limits { min: ms(10), max: secs(60) };

/// Backends of a pool above which none has series of its own in `/metrics`; as many as a pool may have members.
pub const BACKEND_SERIES: Limits<u16> = Limits { min: 0, max: 10_000 };

/// A fixed hedge delay, taken as it is: 0 starts the hedge at once.
pub const HEDGE_DELAY: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// The percentile of a hedge delay. Below the median most hedges would be in vain; above p99.9 the
/// few samples kept say nothing.
pub const PERCENT: Limits<f64> = Limits { min: 50.0, max: 99.9 };

/// Clamps of a hedge delay that is no fixed one.
pub const HEDGE_CLAMP: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// Hedges per query of the client, over time. 0 is none; 1 doubles the load.
pub const BUDGET: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// The share of the questions of which replies are compared.
pub const COMPARE: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// How often all backends of a pool are asked a recent question. Oftener is load, rarer finds nothing.
pub const AUDIT: Limits<Duration> = Limits { min: ms(100), max: secs(3600) };

/// Hedges per query. A race has at most 8 attempts, the first of which is no hedge; none at all is
/// `budget = 0`.
pub const HEDGES: Limits<u8> = Limits { min: 1, max: 7 };

/// Time between probes to one backend. Oftener than this is load, rarer is no health check.
pub const PROBE_INTERVAL: Limits<Duration> = Limits { min: ms(100), max: secs(3600) };

/// How long a probe waits.
pub const PROBE_TIMEOUT: Limits<Duration> = Limits { min: ms(1), max: secs(60) };

/// Queries to the pool between extra probes; 0 is off.
pub const PROBE_EVERY: Limits<u32> = Limits { min: 0, max: u32::MAX };

/// Probes in a row that turn a backend up or down.
pub const PROBES: Limits<u8> = Limits { min: 1, max: 100 };

/// TTL of table records. RFC 2181 section 8: 31 bits.
pub const TTL: Limits<Duration> = Limits { min: ms(0), max: secs((1 << 31) - 1) };

/// Memory of the cache, octets. Less cannot hold the longest message a few times over; more is a slip of the keyboard.
pub const CACHE_SIZE: Limits<usize> = Limits { min: Cache::MIN_SIZE, max: 64 << 30 };

/// What shorter times to live are raised to. Beyond a day it would overrule every server.
pub const MIN_TTL: Limits<Duration> = Limits { min: ms(0), max: secs(86_400) };

/// What longer times to live are cut to. RFC 8767 section 4 has seven days for the cap, and RFC 2308 section 5 a day at most for
/// negatives, but leaves it to the operator.
pub const MAX_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(7 * 86_400) };

/// For how long answers are kept beyond their time. RFC 8767 section 5: one to three days; 0 is off.
pub const STALE: Limits<Duration> = Limits { min: ms(0), max: secs(7 * 86_400) };

/// How long a client waits before it gets a stale answer. 0 is not at all.
pub const STALE_ANSWER_AFTER: Limits<Duration> = Limits { min: ms(0), max: secs(60) };

/// The time to live of a stale answer. RFC 8767 section 4: more than 0, or clients would come back at once.
pub const STALE_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(3600) };

/// Share of the time to live that is left when a popular entry is refreshed; 0 is never. Nearer to 1, hardly anything would be
/// kept.
pub const PREFETCH: Limits<f64> = Limits { min: 0.0, max: 0.9 };

/// For how long failures are remembered. RFC 9520 section 3.2: at least 1 s, at most 5 min.
pub const FAILURE_TTL: Limits<Duration> = Limits { min: secs(1), max: secs(300) };

/// Time between two saves of the cache; 0 is none but the last. Oftener, and a large cache would be written without end; more
/// rarely, and a crash leaves nothing of use.
pub const PERSIST_EVERY: Limits<Duration> = Limits { min: secs(10), max: secs(86_400) };

/// Queries of one client that wait for backends. None at all would be no forwarder.
pub const WAITING: Limits<u32> = Limits { min: 1, max: 100_000 };

/// Queries of all clients that wait for backends. Fewer would refuse clients on any slow day; each takes some 400 octets.
pub const IN_FLIGHT: Limits<u32> = Limits { min: 100, max: 10_000_000 };

/// Responses a second to one client; 0 is no limit. Ten thousand is what the accounts can count.
pub const RATE: Limits<u16> = Limits { min: 0, max: 10_000 };

/// How much a client may owe. Less than a second is no memory at all; after an hour, nobody remembers why.
pub const RATE_WINDOW: Limits<Duration> = Limits { min: secs(1), max: secs(3600) };

/// Every how many responses over the rate one goes out as TC=1; 0 is none. Ten, as BIND and NSD have it.
pub const SLIP: Limits<u8> = Limits { min: 0, max: 10 };

/// Bits of IPv4 addresses that make a client.
pub const IPV4_PREFIX: Limits<u8> = Limits { min: 1, max: 32 };

/// Bits of IPv6 addresses that make a client.
pub const IPV6_PREFIX: Limits<u8> = Limits { min: 1, max: 128 };

/// TCP connections open at once, of all clients or of one; 0 is as many as there is room for. More descriptors than that, no
/// process has by default.
pub const CONNECTIONS: Limits<usize> = Limits { min: 0, max: 1_000_000 };

/// The same of one client; 0 is no limit.
pub const CONNECTIONS_PER_CLIENT: Limits<u32> = Limits { min: 0, max: 1_000_000 };

/// Handshakes of one client in a second; 0 is no limit.
pub const HANDSHAKES: Limits<u32> = Limits { min: 0, max: 1_000_000 };

/// Queries of one connection that wait. None would be answered with 0; each has a place in a channel and perhaps a race.
pub const CONNECTION_IN_FLIGHT: Limits<usize> = Limits { min: 1, max: 10_000 };

/// Time until the first query. Less than a round trip would close every connection; more than a minute is no haste.
pub const FIRST_QUERY: Limits<Duration> = Limits { min: ms(100), max: secs(60) };

/// How long a connection is idle. RFC 7828 section 3.1 can tell clients of up to 6553.5 s.
pub const CONNECTION_IDLE: Limits<Duration> = Limits { min: ms(100), max: secs(6553) };

/// For how long a connection takes queries. Below a second, every other query would meet a connection that closes.
pub const CONNECTION_LIFETIME: Limits<Duration> = Limits { min: secs(1), max: secs(7 * 86_400) };

/// Share of the questions that are tapped.
pub const SAMPLE: Limits<f64> = Limits { min: 0.0, max: 1.0 };

/// Octets after which a file is rotated. Less would be hundreds of files a minute.
pub const ROTATE: Limits<usize> = Limits { min: 1 << 20, max: 1 << 40 };

/// Files that are kept of those that were rotated.
pub const KEPT_FILES: Limits<u16> = Limits { min: 1, max: 1000 };

/// Memory for records that wait to be written, octets. Less than a few buffers of the longest message change hands too often.
pub const TAP_BUFFER: Limits<usize> = Limits { min: 1 << 20, max: 1 << 30 };

/// Octets of the shortest secret of a key. RFC 8945 section 10 recommends as many as the algorithm gives, but servers of others
/// have shorter ones, and the key is theirs too.
pub const MIN_SECRET: usize = 8;

/// The number of a queue of a network card. Drivers set up one for each CPU, if the card has as many.
pub const XDP_QUEUE: Limits<u32> = Limits { min: 0, max: 1023 };

/// Short for a table of bounds.
const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Short for a table of bounds.
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
