//! Connections of clients, as far as they are decided on: how many there may be, how long one may be idle, and which one makes
//! room for another. The connections themselves, their sockets and tasks are in `net/tcp/`.
//!
//! Who may connect, in plain lines:
//!
//! 1. Who holds `per_client` connections gets no more of them.
//! 2. As long as fewer than `max` are open, everybody else gets one.
//! 3. If the table is full, one connection of the largest holder makes room, provided that it holds more than the newcomer
//!    would: the one that has been idle for longest, or, if none is idle, the one whose last query is longest ago. So whoever
//!    holds everything keeps nobody out.
//! 4. If nobody holds more than the newcomer would, only what has been idle for [`MIN_IDLE`] makes room (RFC 7766
//!    section 6.2.3: "the server MAY close idle connections"), or else nobody does, and the newcomer is refused.
//!
//! And before it is full, the idle time shrinks: up to half of `max` it is what the config says, from there it goes down in
//! eight equal steps to [`MIN_IDLE`] ([`Pressure`]).

use std::cmp::Reverse;
use std::time::Duration;

/// `[*.connections]`: what clients may use that come by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionRules {
    /// Open at once, over all listeners of the section and all workers; 0 is a share of the descriptors.
    pub max: usize,
    /// Open at once of one client, an IPv4 address or an IPv6 /56; 0 is no limit.
    pub per_client: u32,
    /// Queries of one connection that wait for their response.
    pub in_flight: usize,
    /// How long a connection may take until its first whole query.
    pub first_query: Duration,
    /// How long a connection may go without a query, and how long a client that has to read may take nothing.
    pub idle: Duration,
    /// How long a connection takes queries.
    pub lifetime: Duration,
    /// Octets of responses that wait for clients to read, over all connections.
    pub unsent: usize,
    /// Handshakes that one client may begin in a second; 0 is no limit.
    pub handshakes: u32,
    /// By QUIC, queries that come with the first octets of a resumed session (0-RTT) are answered before the handshake is complete.
    pub early_data: bool,
}

impl Default for ConnectionRules {
    fn default() -> Self {
        Self {
            max: 0,
            // A stub resolver or a forwarder needs one or two (RFC 7766 section 6.2.2); some hundred hosts may stand behind one
            // address.
            per_client: 100,
            // As many as answers of a few hundred octets fill a socket buffer with.
            in_flight: 128,
            // A client connects because it has a query: it sends it at once.
            first_query: Duration::from_secs(5),
            // RFC 7766 section 6.2.3 asks for "a few seconds"; stub resolvers rarely pause for longer.
            idle: Duration::from_secs(10),
            // A forwarder that is never idle is spread anew over machines and workers now and then.
            lifetime: Duration::from_secs(3600),
            // A thousand clients that read slowly while a whole message of 64 KiB waits for each.
            unsent: 64 << 20,
            // The gate keeps handshakes from queries; how many one client needs is its own matter, as many hosts may stand behind it.
            handshakes: 0,
            // Whoever has seen such a query can send it again, to another process at least (RFC 9250 section 9.1).
            early_data: false,
        }
    }
}

/// Below this, no idle time shrinks: a client at the other end of the world has its first query here within half a second of
/// the handshake, and a browser that looks up the names of one page is done.
pub const MIN_IDLE: Duration = Duration::from_millis(500);

/// How far a table of connections is filled beyond its half, from 0 to 8 eighths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pressure(u8);

impl Pressure {
    /// The pressure when so many of at most `max` are open.
    fn of(open: usize, max: usize) -> Self {
        let above = (2 * open).saturating_sub(max);
        Self((above * usize::from(STEPS) / max.max(1)).min(STEPS.into()) as u8)
    }

    /// The pressure after this one, when so many are open. It rises at once, and falls only once a sixteenth of the table is
    /// free beyond what the step asks for: every change wakes all connections, and who opens and closes one should not.
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

    /// What is left of a time to be idle. A time that is below [`MIN_IDLE`] anyway stays as it is.
    pub fn shrink(self, idle: Duration) -> Duration {
        let least = idle.min(MIN_IDLE);
        idle - (idle - least) * u32::from(self.0) / u32::from(STEPS)
    }
}

/// Steps from a table that is half full to one that is full.
const STEPS: u8 = 8;

/// A connection that might make room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionUse {
    /// Connections that its client holds.
    pub held: u32,
    /// Whether a query waits for its response, or a response for the client to read it.
    pub is_busy: bool,
    /// How long ago its last query was, or, if it is not busy, the end of its last response.
    pub quiet: Duration,
}

/// Which of these connections makes room for one of a client that would then hold `newcomer` of them, if any does.
pub fn make_room(uses: impl Iterator<Item = ConnectionUse>, newcomer: u32) -> Option<usize> {
    let rank = |(_, usage): &(usize, ConnectionUse)| (usage.held, !usage.is_busy, usage.quiet);
    // Of equals the first.
    let (index, chosen) = uses.enumerate().max_by_key(|entry| (rank(entry), Reverse(entry.0)))?;
    let is_greedy = chosen.held > newcomer;
    let is_idle = !chosen.is_busy && chosen.quiet >= MIN_IDLE;
    (is_greedy || is_idle).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many milliseconds.
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
            let idle = Pressure::default().next(open, max).shrink(ms(10_000));
            assert_eq!(idle.as_millis(), left, "{open} of {max}");
        }
    }

    #[test]
    fn short_idle_times_do_not_shrink() {
        let full = Pressure::default().next(8, 8);
        for (configured, left) in [(100, 100), (500, 500), (600, 500), (3_600_000, 500)] {
            assert_eq!(full.shrink(ms(configured)), ms(left));
        }
    }

    #[test]
    fn pressure_rises_at_once_and_falls_late() {
        let mut pressure = Pressure::default();
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
            // Idle before busy, however long ago its query was.
            (vec![busy(3, 5_000), idle(3, 1), busy(3, 4_000)], 1, Some(1)),
            // None of them is idle: who holds everything keeps nobody out by a slow query on each.
            (vec![busy(3, 5), busy(3, 7), busy(1, 9_000), busy(3, 6)], 1, Some(1)),
            (vec![busy(3, 5), busy(3, 7), idle(1, 9_000), busy(3, 6)], 1, Some(1)),
            // Among equals nobody is broken off, nor before its first query can be here.
            (vec![busy(1, 9_000), busy(1, 8_000)], 1, None),
            (vec![idle(1, 499), idle(1, 300)], 1, None),
            (vec![idle(1, 499), idle(1, 500)], 1, Some(1)),
            // Of equals the first.
            (vec![idle(2, 50), idle(2, 50)], 1, Some(0)),
            // The greedy one itself comes once more: its own longest idle goes, or nobody.
            (vec![idle(4, 600), idle(4, 700), idle(1, 9_000)], 4, Some(1)),
            (vec![idle(4, 60), idle(4, 70), idle(1, 9_000)], 4, None),
            (vec![busy(3, 600), busy(3, 700)], 3, None),
        ] {
            assert_eq!(make_room(uses.iter().copied(), newcomer), chosen, "{newcomer}: {uses:?}");
        }
    }
}
