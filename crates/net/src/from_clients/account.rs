//! The account of one served connection: its place in the table, its queries in flight, its clock and its
//! end. TCP, HTTP and QUIC share it. Time is an argument.
//!
//! ```text
//!               valid query            last response read
//!     Reading ─────────────▶ Answering ──▶ Writing ──▶ Reading      `Doing`, by what is pending
//!        │
//!        │ `lifetime`, end of the address, end of input, or `MAX_USELESS` messages without a query
//!        ▼
//!     ending: pending queries are answered; idle, it closes after its grace
//! ```

use std::time::Instant;

use limit::{ConnectionClock, Doing, TableFullness};

use super::tcp::ConnectionSlot;

pub(crate) struct ConnectionAccount {
    pub(crate) slot: ConnectionSlot,
    pub(crate) clock: ConnectionClock,
    in_flight: usize,
    /// Messages, requests or streams without a valid query, since the last valid one.
    useless: u32,
    /// True if a valid query was handed over since the connection was last idle.
    is_busy: bool,
    /// The end of the grace, once the connection takes no more queries.
    end: Option<Instant>,
}

/// The part of an account that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DueAction {
    Nothing,
    /// The lifetime is over: answer the pending queries, and take no more.
    EndQueries,
    /// The client was idle, or read nothing, for too long; or the grace is over.
    Close,
}

impl ConnectionAccount {
    pub(crate) fn new(slot: ConnectionSlot, accepted: Instant) -> Self {
        Self { slot, clock: ConnectionClock::new(accepted), in_flight: 0, useless: 0, is_busy: false, end: None }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns true if one more query may be handed over.
    pub(crate) fn has_room(&self) -> bool {
        self.in_flight < self.slot.rules.in_flight && self.slot.seat.has_room()
    }

    /// Counts a message that is handed over.
    pub(crate) fn begin_query(&mut self, is_sound: bool) {
        self.in_flight += 1;
        self.useless = if is_sound { 0 } else { self.useless + 1 };
    }

    /// Notes that valid queries were handed over.
    pub(crate) fn on_queries(&mut self, now: Instant) {
        self.is_busy = true;
        self.clock.on_activity(now);
        self.slot.seat.set_standing(true, now);
    }

    /// Counts a response that no longer is in flight.
    pub(crate) fn end_query(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Counts a request or a stream without a query.
    pub(crate) fn count_useless(&mut self) {
        self.useless += 1;
    }

    /// Returns true if the client repeatedly sends no valid query. RFC 7766 section 6.2.3 lets the server
    /// decide when to close.
    pub(crate) fn is_noise(&self) -> bool {
        self.useless >= MAX_USELESS
    }

    /// Notes that the client has read bytes.
    pub(crate) fn on_written(&mut self, octets: usize, now: Instant) {
        self.clock.on_written(octets, &self.slot.rules, now);
    }

    /// Notes that the connection is idle, if it is so for the first time since a query.
    pub(crate) fn note_idle(&mut self, doing: Doing, now: impl FnOnce() -> Instant) {
        if self.is_busy && doing == Doing::Reading {
            self.is_busy = false;
            let now = now();
            self.clock.on_activity(now);
            self.slot.seat.set_standing(false, now);
        }
    }

    /// Takes no more queries. While idle, the connection stays open until `grace`.
    pub(crate) fn end_queries(&mut self, grace: Instant) {
        self.end = Some(grace);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    pub(crate) fn doing(&self, is_writing: bool) -> Doing {
        match (is_writing, self.in_flight) {
            (true, _) => Doing::Writing,
            (false, 1..) => Doing::Answering,
            (false, 0) => Doing::Reading,
        }
    }

    /// Returns the time of the next [`on_alarm`](Self::on_alarm).
    pub(crate) fn due(&self, doing: Doing, pressure: TableFullness) -> Option<Instant> {
        let idle = self.clock.end(doing, &self.slot.rules, pressure);
        match (self.end, doing) {
            (Some(grace), Doing::Reading) => Some(grace),
            (Some(_), Doing::Answering | Doing::Writing) => idle,
            (None, _) => idle.into_iter().chain([self.clock.end_of_queries(&self.slot.rules)]).min(),
        }
    }

    pub(crate) fn on_alarm(&self, doing: Doing, pressure: TableFullness, now: Instant) -> DueAction {
        if self.due(doing, pressure).is_none_or(|due| due > now) {
            return DueAction::Nothing;
        }
        let is_idle = self.clock.end(doing, &self.slot.rules, pressure).is_some_and(|end| end <= now);
        if is_idle || self.is_ending() { DueAction::Close } else { DueAction::EndQueries }
    }
}

/// The limit of consecutive messages without a query: a client that has lost its framing never recovers, and
/// empty frames only cost time.
const MAX_USELESS: u32 = 100;

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use limit::{Clients, ConnectionRules};

    use super::*;
    use crate::from_clients::tcp::ConnectionTable;

    const RULES: ConnectionRules = ConnectionRules {
        max: 8,
        per_client: 0,
        in_flight: 2,
        first_query: Duration::from_secs(5),
        idle: Duration::from_secs(10),
        lifetime: Duration::from_secs(60),
        unsent: 1 << 20,
        handshakes: 0,
        early_data: false,
    };

    /// An event of a connection.
    enum Event {
        /// A valid query.
        Query,
        /// A message without one.
        Noise,
        /// A response.
        Response,
        /// Bytes wait for the client.
        Unwritten,
        /// The client has read all.
        Read,
        /// No more queries are taken, with a grace of a second.
        End,
    }

    #[test]
    fn accounts_are_due_by_what_is_pending() {
        use DueAction::{Close, EndQueries};
        use Event::{End, Noise, Query, Read, Response, Unwritten};
        for (events, doing, due) in [
            (&[][..], Doing::Reading, Some((5, Close))),
            (&[(1, Noise), (2, Response)], Doing::Reading, Some((5, Close))),
            (&[(1, Query)], Doing::Answering, Some((60, EndQueries))),
            (&[(1, Query), (2, Response)], Doing::Reading, Some((12, Close))),
            (&[(1, Query), (2, Query), (3, Response)], Doing::Answering, Some((60, EndQueries))),
            (&[(1, Query), (2, Unwritten), (2, Response)], Doing::Writing, Some((12, Close))),
            (&[(1, Query), (2, Unwritten), (2, Response), (7, Read)], Doing::Reading, Some((17, Close))),
            (&[(55, Query), (56, Response)], Doing::Reading, Some((60, EndQueries))),
            (&[(1, Query), (2, End)], Doing::Answering, None),
            (&[(1, Query), (2, End), (3, Response)], Doing::Reading, Some((3, Close))),
            (&[(1, Query), (2, End), (3, Unwritten), (3, Response)], Doing::Writing, Some((13, Close))),
            (&[(1, End)], Doing::Reading, Some((2, Close))),
        ] {
            let start = Instant::now();
            let table = ConnectionTable::new("test", RULES, Arc::new(Clients::new(8, 1)), start);
            let slot = table.enter([192, 0, 2, 1].into(), start).expect("a free place");
            let mut account = ConnectionAccount::new(slot, start);
            let mut is_writing = false;
            for (at, event) in events {
                let now = start + Duration::from_secs(*at);
                match event {
                    Query => {
                        account.begin_query(true);
                        account.on_queries(now);
                    }
                    Noise => account.begin_query(false),
                    Response => account.end_query(),
                    Unwritten => {
                        account.clock.on_unwritten(now);
                        is_writing = true;
                    }
                    Read => {
                        account.on_written(100, now);
                        is_writing = false;
                    }
                    End => account.end_queries(now + Duration::from_secs(1)),
                }
                account.note_idle(account.doing(is_writing), || now);
            }
            let pressure = TableFullness::default();
            assert_eq!(account.doing(is_writing), doing);
            let found = account.due(doing, pressure);
            assert_eq!(found.map(|at| (at - start).as_secs()), due.map(|(at, _)| at), "{doing:?}");
            if let Some((at, action)) = due {
                let at = start + Duration::from_secs(at);
                assert_eq!(account.on_alarm(doing, pressure, at), action, "{doing:?}");
                assert_eq!(account.on_alarm(doing, pressure, at - Duration::from_millis(1)), DueAction::Nothing);
            }
        }
    }

    #[test]
    fn messages_without_queries_have_an_end() {
        let now = Instant::now();
        let table = ConnectionTable::new("test", RULES, Arc::new(Clients::new(8, 1)), now);
        let slot = table.enter([192, 0, 2, 1].into(), now).expect("a free place");
        let mut account = ConnectionAccount::new(slot, now);
        for _ in 1..MAX_USELESS {
            account.begin_query(false);
            account.end_query();
        }
        assert!(!account.is_noise());
        account.begin_query(true);
        assert!(account.has_room(), "one of two");
        account.count_useless();
        assert!(!account.is_noise(), "counts from the last query");
        account.begin_query(true);
        assert!(!account.has_room(), "two of two");
        (0..MAX_USELESS).for_each(|_| account.count_useless());
        assert!(account.is_noise());
    }
}
