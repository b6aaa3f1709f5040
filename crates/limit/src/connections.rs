//! Policy of client connections: their number, their idle time, and the choice of one to close for a new one.
//!
//! 1. A client with `per_client` connections gets no more.
//! 2. While fewer than `max` are open, any other client gets one.
//! 3. If the table is full, the client with the most connections loses one, if it has more than the new
//!    client would: the longest idle one, or else the one with the oldest last query.
//! 4. If no client holds more, only a connection that was idle for [`MIN_IDLE`] is closed (RFC 7766 section
//!    6.2.3: "the server MAY close idle connections"). Otherwise the new client is refused.
//!
//! The idle time shrinks earlier: from half of `max` on, it falls in eight equal steps to [`MIN_IDLE`]
//! ([`TableFullness`]).

use std::cmp::Reverse;
use std::time::Duration;

/// The limits of TCP clients, `[*.connections]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRules {
    /// The maximum of open connections of the section's listeners; 0 is a share of the descriptors.
    pub max: usize,
    /// The maximum of one client, an IPv4 address or an IPv6 /56; 0 is no limit.
    pub per_client: u32,
    /// The maximum of waiting queries of one connection.
    pub in_flight: usize,
    /// The time until the first whole query.
    pub first_query: Duration,
    /// The time between queries, and the time in which a client must read something.
    pub idle: Duration,
    /// The time for which a connection takes queries.
    pub lifetime: Duration,
    /// The maximum of unread response bytes, over all connections.
    pub unsent: usize,
    /// The handshakes that one client may start in a second; 0 is no limit.
    pub handshakes: u32,
    /// For QUIC: 0-RTT queries of a resumed session are answered before the handshake is complete.
    pub early_data: bool,
}

impl Default for ConnectionRules {
    fn default() -> Self {
        Self {
            max: 0,
            // A forwarder needs one or two (RFC 7766 section 6.2.2), but some hundred hosts may share an
            // address.
            per_client: 100,
            // Answers of a few hundred bytes to so many queries fill a socket buffer.
            in_flight: 128,
            // A client connects because it has a query, and sends it at once.
            first_query: Duration::from_secs(5),
            // RFC 7766 section 6.2.3 asks for "a few seconds"; stub resolvers rarely pause longer.
            idle: Duration::from_secs(10),
            lifetime: Duration::from_secs(3600),
            // Room for 1,000 slow clients with a whole message of 64 KiB each.
            unsent: 64 << 20,
            // The gate separates handshakes from queries. No limit, because hosts may share an address.
            handshakes: 0,
            // An observer can replay such a query, at least to another process (RFC 9250 section 9.1).
            early_data: false,
        }
    }
}

/// The minimum idle time: a client at the other end of the world delivers its first query within 0.5 s of the
/// handshake, and a browser has looked up the names of one page.
pub const MIN_IDLE: Duration = Duration::from_millis(500);

/// The fill level of a connection table beyond its half, in eighths from 0 to 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableFullness(u8);

impl TableFullness {
    fn of(open: usize, max: usize) -> Self {
        let above = (2 * open).saturating_sub(max);
        Self((above * usize::from(STEPS) / max.max(1)).min(STEPS.into()) as u8)
    }

    /// Returns the next pressure. It rises at once and falls only when a further sixteenth of the table is
    /// free, because each change wakes all connections and one client that reconnects must not cause that.
    pub fn next(self, open: usize, max: usize) -> Self {
        let (rising, falling) = (Self::of(open, max), Self::of(open + max / 16, max));
        if rising > self {
            rising
        } else if falling < self {
            falling
        } else {
            self
        }
    }

    /// Scales an idle time. A time below [`MIN_IDLE`] stays as it is.
    pub fn shrink(self, idle: Duration) -> Duration {
        let least = idle.min(MIN_IDLE);
        idle - (idle - least) * u32::from(self.0) / u32::from(STEPS)
    }
}

const STEPS: u8 = 8;

/// A connection that may be closed for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionUse {
    /// The number of its client's connections.
    pub held: u32,
    /// True if a query waits for its response, or a response for the client.
    pub is_busy: bool,
    /// The time since its last query or, if it is not busy, since its last response.
    pub quiet: Duration,
}

/// Returns the connection to close for one of a client that would then hold `newcomer` of them, if any.
pub fn make_room(uses: impl Iterator<Item = ConnectionUse>, newcomer: u32) -> Option<usize> {
    let rank = |(_, usage): &(usize, ConnectionUse)| (usage.held, !usage.is_busy, usage.quiet);
    let (index, chosen) = uses.enumerate().max_by_key(|entry| (rank(entry), Reverse(entry.0)))?;
    let is_greedy = chosen.held > newcomer;
    let is_idle = !chosen.is_busy && chosen.quiet >= MIN_IDLE;
    (is_greedy || is_idle).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn idle(held: u32, millis: u64) -> ConnectionUse {
        ConnectionUse { held, is_busy: false, quiet: ms(millis) }
    }

    fn busy(held: u32, millis: u64) -> ConnectionUse {
        ConnectionUse { held, is_busy: true, quiet: ms(millis) }
    }

    #[test]
    fn the_idle_time_shrinks_above_half() {
        for (open, max, left) in [
            (0, 1_000, 10_000),
            (500, 1_000, 10_000),
            (562, 1_000, 10_000),
            (563, 1_000, 8_812),
            (750, 1_000, 5_250),
            (999, 1_000, 1_687),
            (1_000, 1_000, 500),
            (1_100, 1_000, 500),
            (0, 1, 10_000),
            (1, 1, 500),
            (1, 2, 10_000),
            (3, 4, 5_250),
            (0, 0, 10_000),
        ] {
            let idle = TableFullness::default().next(open, max).shrink(ms(10_000));
            assert_eq!(idle.as_millis(), left, "{open} of {max}");
        }
    }

    #[test]
    fn short_idle_times_do_not_shrink() {
        let full = TableFullness::default().next(8, 8);
        for (configured, left) in [(100, 100), (500, 500), (600, 500), (3_600_000, 500)] {
            assert_eq!(full.shrink(ms(configured)), ms(left));
        }
    }

    #[test]
    fn pressure_rises_at_once_and_falls_late() {
        let mut pressure = TableFullness::default();
        let mut steps = Vec::new();
        for open in [700, 750, 749, 700, 687, 690, 750, 0, 1_000] {
            pressure = pressure.next(open, 1_000);
            steps.push(pressure.0);
        }
        assert_eq!(steps, [3, 4, 4, 4, 3, 3, 4, 0, 8]);
    }

    #[test]
    fn the_longest_idle_connection_of_the_largest_holder_makes_room() {
        for (uses, newcomer, chosen) in [
            (vec![], 1, None),
            // The largest holder, not the longest idle of all.
            (vec![idle(1, 9_000), idle(3, 10), idle(3, 20), idle(3, 15)], 1, Some(2)),
            (vec![idle(2, 9_000), idle(100, 0)], 1, Some(1)),
            // Idle before busy, however old its query is.
            (vec![busy(3, 5_000), idle(3, 1), busy(3, 4_000)], 1, Some(1)),
            // None of them is idle: a client that holds everything cannot keep others out by slow queries.
            (vec![busy(3, 5), busy(3, 7), busy(1, 9_000), busy(3, 6)], 1, Some(1)),
            (vec![busy(3, 5), busy(3, 7), idle(1, 9_000), busy(3, 6)], 1, Some(1)),
            // Among equals no busy connection is closed, nor one before its first query can arrive.
            (vec![busy(1, 9_000), busy(1, 8_000)], 1, None),
            (vec![idle(1, 499), idle(1, 300)], 1, None),
            (vec![idle(1, 499), idle(1, 500)], 1, Some(1)),
            // The first of equals.
            (vec![idle(2, 50), idle(2, 50)], 1, Some(0)),
            // The largest holder opens another: its own longest idle one is closed, or none.
            (vec![idle(4, 600), idle(4, 700), idle(1, 9_000)], 4, Some(1)),
            (vec![idle(4, 60), idle(4, 70), idle(1, 9_000)], 4, None),
            (vec![busy(3, 600), busy(3, 700)], 3, None),
        ] {
            assert_eq!(make_room(uses.iter().copied(), newcomer), chosen, "{newcomer}: {uses:?}");
        }
    }
}
