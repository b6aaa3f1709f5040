//! The timeouts of one client connection, as a pure clock.
//!
//! ```text
//!              whole query           last response taken
//!     new ────────────────▶ busy ────────────────────────▶ idle ──┐
//!      │                     │  ▲                         │       │
//!      │ first_query         │  └───────── query ─────────┘       │ idle
//!      ▼                     │ nothing taken for `idle`           ▼
//!     end                    └──────────▶ end                    end
//! ```
//!
//! - Only a valid query counts as activity. Empty or unreadable frames do not keep a connection open.
//! - While a query waits for its response there is no timeout, because the race has its own deadline.
//! - While a response waits, the client has `idle` to read *something*: a slow secondary gets its transfer
//!   however long that takes, as from NSD and Knot, whose timeouts are for one write and not for all.
//! - After `lifetime` no query is taken. Running responses and transfers complete, but the client must read
//!   [`MIN_TAKEN`] bytes in each `idle`, so that reading a byte now and then is not enough. BIND ends every
//!   transfer after two hours; a rate does not punish large zones.

use std::time::Instant;

use super::connections::{ConnectionRules, TableFullness};

/// The state that a connection waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It waits for the client's next query.
    Reading,
    /// It waits for our response.
    Answering,
    /// It waits for the client to read.
    Writing,
}

/// The clock of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionClock {
    opened: Instant,
    idle_since: Option<Instant>,
    taken_at: Instant,
    taken: usize,
}

impl ConnectionClock {
    /// Creates the clock of a new connection.
    pub fn new(now: Instant) -> Self {
        Self { opened: now, idle_since: None, taken_at: now, taken: 0 }
    }

    /// Notes a valid query, or that the client has read the last response.
    pub fn on_activity(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// Returns true before the first whole query.
    pub fn is_fresh(&self) -> bool {
        self.idle_since.is_none()
    }

    /// Notes that the client has bytes to read from now on.
    pub fn on_unwritten(&mut self, now: Instant) {
        (self.taken_at, self.taken) = (now, 0);
    }

    /// Notes that the client has read bytes.
    pub fn on_written(&mut self, octets: usize, rules: &ConnectionRules, now: Instant) {
        self.taken += octets;
        let least = if now < self.end_of_queries(rules) { 1 } else { MIN_TAKEN };
        if self.taken >= least {
            (self.taken_at, self.taken) = (now, 0);
        }
    }

    /// Returns the time after which no queries are taken.
    pub fn end_of_queries(&self, rules: &ConnectionRules) -> Instant {
        self.opened + rules.lifetime
    }

    /// Returns the time at which the connection closes if nothing happens.
    pub fn end(&self, doing: Doing, rules: &ConnectionRules, pressure: TableFullness) -> Option<Instant> {
        match (doing, self.idle_since) {
            (Doing::Reading, None) => Some(self.opened + pressure.shrink(rules.first_query)),
            (Doing::Reading, Some(since)) => Some(since + pressure.shrink(rules.idle)),
            (Doing::Answering, _) => None,
            (Doing::Writing, _) => Some(self.taken_at + rules.idle),
        }
    }
}

/// The bytes that a client must read in each idle time after the lifetime: with 10 s, 13 kbit/s.
const MIN_TAKEN: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Timeouts that differ from each other.
    const RULES: ConnectionRules = ConnectionRules {
        max: 8,
        per_client: 0,
        in_flight: 1,
        first_query: Duration::from_secs(5),
        idle: Duration::from_secs(10),
        lifetime: Duration::from_secs(3_600),
        unsent: 1 << 20,
        handshakes: 0,
        early_data: false,
    };

    /// An event of the client.
    enum Event {
        /// A valid query, or the last response read.
        Activity,
        /// Bytes wait for the client.
        Unwritten,
        /// The client has read this number of bytes.
        Written(usize),
    }

    #[test]
    fn a_connection_ends_when_nothing_happens_for_too_long() {
        use Doing::{Answering, Reading, Writing};
        use Event::{Activity, Unwritten, Written};
        for (events, doing, end) in [
            (&[][..], Reading, Some(5)),
            (&[(1, Activity)], Reading, Some(11)),
            (&[(1, Activity), (9, Activity)], Reading, Some(19)),
            (&[(1, Activity)], Answering, None),
            (&[], Answering, None),
            // Counts from the first waiting byte, whatever came before.
            (&[(1, Activity), (7, Unwritten)], Writing, Some(17)),
            // Any byte counts ...
            (&[(1, Activity), (7, Unwritten), (16, Written(1))], Writing, Some(26)),
            (&[(3_500, Unwritten), (3_599, Written(1))], Writing, Some(3_609)),
            // ... until the lifetime is over.
            (&[(3_590, Unwritten), (3_600, Written(1))], Writing, Some(3_600)),
            (&[(3_590, Unwritten), (3_599, Written(1)), (3_601, Written(16_383))], Writing, Some(3_609)),
            (
                &[(3_590, Unwritten), (3_600, Written(16_000)), (3_601, Written(384)), (3_602, Written(1))],
                Writing,
                Some(3_611),
            ),
        ] {
            let start = Instant::now();
            let mut patience = ConnectionClock::new(start);
            for (at, event) in events {
                let now = start + Duration::from_secs(*at);
                match event {
                    Activity => patience.on_activity(now),
                    Unwritten => patience.on_unwritten(now),
                    Written(octets) => patience.on_written(*octets, &RULES, now),
                }
            }
            let found = patience.end(doing, &RULES, TableFullness::default());
            assert_eq!(found.map(|end| (end - start).as_secs()), end, "{doing:?}");
        }
    }

    #[test]
    fn under_pressure_idle_times_shrink_and_writing_has_its_time() {
        let start = Instant::now();
        let full = TableFullness::default().next(8, 8);
        let mut patience = ConnectionClock::new(start);
        let after =
            |patience: &ConnectionClock, doing| patience.end(doing, &RULES, full).map(|end| (end - start).as_millis());
        assert_eq!(after(&patience, Doing::Reading), Some(500));
        patience.on_activity(start + Duration::from_secs(1));
        patience.on_unwritten(start + Duration::from_secs(1));
        assert_eq!([Doing::Reading, Doing::Writing].map(|doing| after(&patience, doing)), [Some(1_500), Some(11_000)]);
    }
}
