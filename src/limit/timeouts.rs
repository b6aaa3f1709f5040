//! How long one connection of a client is waited for: the clock of one connection, as a value.
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
//! - Only a sound query counts as activity. Empty frames and what cannot be read do not, so nobody stays by sending those.
//! - While a query waits for its response there is no end: the race has its own deadline.
//! - While a response waits for the client, the client has `idle` to take *something*: a slow secondary gets its transfer
//!   however long that takes, as from NSD and Knot, whose timeouts are of one write and not of all of them.
//! - After `lifetime` no query is taken any more. What is in flight is answered and written, a transfer to its end, but from
//!   then on the client has to take [`MIN_TAKEN`] octets in each `idle`: who reads an octet now and then cannot stay for
//!   ever. BIND ends a transfer after two hours, however well it goes; a rate does not punish zones for their size.

use std::time::Instant;

use super::connections::{ConnectionRules, Pressure};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// The client's next query.
    Reading,
    /// A response of ours.
    Answering,
    /// The client to take octets.
    Writing,
}

/// The clock of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    opened: Instant,
    /// When it became idle for the last time; `None` until it has had a whole query.
    idle_since: Option<Instant>,
    /// When the client last took as much as it has to.
    taken_at: Instant,
    /// Octets that it has taken since.
    taken: usize,
}

impl Patience {
    /// Of a connection that was just opened.
    pub fn new(now: Instant) -> Self {
        Self { opened: now, idle_since: None, taken_at: now, taken: 0 }
    }

    /// A sound query has come, or the last response to one was taken.
    pub fn on_activity(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// Whether there was no whole query yet.
    pub fn is_fresh(&self) -> bool {
        self.idle_since.is_none()
    }

    /// From now on the client has octets to take.
    pub fn on_unwritten(&mut self, now: Instant) {
        (self.taken_at, self.taken) = (now, 0);
    }

    /// The client has taken octets.
    pub fn on_written(&mut self, octets: usize, rules: &ConnectionRules, now: Instant) {
        self.taken += octets;
        let least = if now < self.end_of_queries(rules) { 1 } else { MIN_TAKEN };
        if self.taken >= least {
            (self.taken_at, self.taken) = (now, 0);
        }
    }

    /// When no more queries are taken.
    pub fn end_of_queries(&self, rules: &ConnectionRules) -> Instant {
        self.opened + rules.lifetime
    }

    /// When the connection is to be closed if nothing happens until then.
    pub fn end(&self, doing: Doing, rules: &ConnectionRules, pressure: Pressure) -> Option<Instant> {
        match (doing, self.idle_since) {
            (Doing::Reading, None) => Some(self.opened + pressure.shrink(rules.first_query)),
            (Doing::Reading, Some(since)) => Some(since + pressure.shrink(rules.idle)),
            (Doing::Answering, _) => None,
            (Doing::Writing, _) => Some(self.taken_at + rules.idle),
        }
    }
}

/// Octets that a client has to take in each idle time once the lifetime of its connection is over: with 10 s, 13 kbit/s, a
/// modem of 1985.
const MIN_TAKEN: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Times that can be told apart.
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

    /// A client that does something.
    enum Event {
        /// A sound query, or the last response taken.
        Activity,
        /// Octets wait for it.
        Unwritten,
        /// It has taken so many.
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
            // From when there is something to take, whatever was before.
            (&[(1, Activity), (7, Unwritten)], Writing, Some(17)),
            // Any octet will do ...
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
            let mut patience = Patience::new(start);
            for (at, event) in events {
                let now = start + Duration::from_secs(*at);
                match event {
                    Activity => patience.on_activity(now),
                    Unwritten => patience.on_unwritten(now),
                    Written(octets) => patience.on_written(*octets, &RULES, now),
                }
            }
            let found = patience.end(doing, &RULES, Pressure::default());
            assert_eq!(found.map(|end| (end - start).as_secs()), end, "{doing:?}");
        }
    }

    #[test]
    fn under_pressure_idle_times_shrink_and_writing_has_its_time() {
        let start = Instant::now();
        let full = Pressure::default().next(8, 8);
        let mut patience = Patience::new(start);
        let after = |patience: &Patience, doing| patience.end(doing, &RULES, full).map(|end| (end - start).as_millis());
        assert_eq!(after(&patience, Doing::Reading), Some(500));
        patience.on_activity(start + Duration::from_secs(1));
        patience.on_unwritten(start + Duration::from_secs(1));
        assert_eq!([Doing::Reading, Doing::Writing].map(|doing| after(&patience, doing)), [Some(1_500), Some(11_000)]);
    }
}
