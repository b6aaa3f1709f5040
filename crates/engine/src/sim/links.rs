//! Connections to a modelled backend that gets queries over streams: choice, opening and suspicion.
//!
//! ```text
//!              dial                  opened
//!   closed ───────────▶ dialling ───────────▶ open ◀──── something comes
//!     ▲                    │ refused,           │  quiet for max(4 × p99, 100 ms)      ▲
//!     │                    │ silent for 1 s     ▼                                      │
//!     └────────────────────┴───────────── suspected: no new query, a ping ─────────────┘
//!          it ends, or does not answer the ping: all that waits is lost
//! ```
//!
//! Queries open all connections in turn. Not modelled: idle connections are closed, and the backend takes
//! fewer queries at a time than hedgerow sends.

use std::time::Duration;

use super::model::ModelConnections;
use super::spells::{Spells, thawed};
use crate::Outstanding;
use crate::query_slots::QuerySlot;

#[derive(Debug)]
pub(super) struct SimulatedLinks {
    pub(super) all: Vec<SimulatedLink>,
    again_at: Duration,
    backoff: Duration,
}

#[derive(Debug)]
pub(super) struct SimulatedLink {
    pub(super) state: LinkState,
    pub(super) opened_at: Duration,
    pub(super) generation: u32,
    /// The pending queries, including those of races that are over.
    pub(super) waiting: usize,
    /// The time since which queries wait and nothing has arrived.
    quiet_since: Option<Duration>,
    pub(super) suspected_since: Option<Duration>,
    pub(super) is_watched: bool,
    /// The earliest arrival of new data, because lost data before it is sent again.
    held_until: Duration,
    stalls: Vec<Spells>,
    pub(super) ends: Vec<Spells>,
    pub(super) queued: Vec<QueuedQuery>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    Closed,
    Dialling,
    Open,
}

/// A query that is sent when its connection is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedQuery {
    pub(super) slot: QuerySlot,
    pub(super) outstanding: Outstanding,
    pub(super) name: u32,
    pub(super) has_opt: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkAction {
    Leave,
    Again(Duration),
    Suspect,
    GiveUp,
}

impl SimulatedLinks {
    pub(super) fn new(model: &ModelConnections, seeds: &mut impl FnMut() -> u64) -> Self {
        let mut link = || SimulatedLink {
            state: LinkState::Closed,
            opened_at: Duration::ZERO,
            generation: 0,
            waiting: 0,
            quiet_since: None,
            suspected_since: None,
            is_watched: false,
            held_until: Duration::ZERO,
            stalls: Spells::all(&model.stalls, seeds),
            ends: Spells::all(&model.ends, seeds),
            queued: Vec::new(),
        };
        let all = (0..model.max.max(1)).map(|_| link()).collect();
        Self { all, again_at: Duration::ZERO, backoff: FIRST_BACKOFF }
    }

    pub(super) fn are_cold(&self) -> bool {
        self.all.iter().all(|link| link.state != LinkState::Open)
    }

    /// Begins to open a connection, unless one is being opened or the backoff runs. Returns its place.
    pub(super) fn dial(&mut self, now: Duration) -> Option<usize> {
        if now < self.again_at || self.all.iter().any(|link| link.state == LinkState::Dialling) {
            return None;
        }
        let place = self.all.iter().position(|link| link.state == LinkState::Closed)?;
        self.all[place].state = LinkState::Dialling;
        Some(place)
    }

    /// Chooses the connection for a query: the open one with the fewest pending queries, else the one that is
    /// being opened. A suspected connection gets none; the one to avoid gets it if there is no other.
    pub(super) fn choose(&self, avoid: Option<usize>) -> Option<usize> {
        let is_free = |link: &SimulatedLink| link.waiting < PIPELINE && link.suspected_since.is_none();
        let places = |state| {
            let all = self.all.iter().enumerate();
            all.filter(move |(_, link)| link.state == state && is_free(link))
        };
        let open = places(LinkState::Open).filter(|(place, _)| Some(*place) != avoid);
        let open = open.min_by_key(|(_, link)| link.waiting);
        let dialling = places(LinkState::Dialling).find(|(place, _)| Some(*place) != avoid);
        let avoided = places(LinkState::Open).next().or_else(|| places(LinkState::Dialling).next());
        open.or(dialling).or(avoided).map(|(place, _)| place)
    }

    pub(super) fn opened(&mut self, place: usize, now: Duration) {
        (self.all[place].state, self.all[place].opened_at) = (LinkState::Open, now);
        (self.again_at, self.backoff) = (Duration::ZERO, FIRST_BACKOFF);
    }

    pub(super) fn failed(&mut self, place: usize, now: Duration) {
        self.close(place);
        self.again_at = now + self.backoff;
        self.backoff = (2 * self.backoff).min(LAST_BACKOFF);
    }

    pub(super) fn close(&mut self, place: usize) {
        let link = &mut self.all[place];
        link.state = LinkState::Closed;
        link.generation += 1;
        (link.waiting, link.quiet_since, link.suspected_since) = (0, None, None);
        (link.is_watched, link.held_until) = (false, Duration::ZERO);
        link.queued.clear();
    }
}

impl SimulatedLink {
    pub(super) fn sent(&mut self, now: Duration) {
        self.quiet_since.get_or_insert(now);
    }

    pub(super) fn heard(&mut self, now: Duration) {
        self.quiet_since = (self.waiting > 0).then_some(now);
        self.suspected_since = None;
    }

    pub(super) fn left(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            (self.quiet_since, self.suspected_since) = (None, None);
        }
    }

    /// Delays everything that is sent from now on until lost data is sent again.
    pub(super) fn resend(&mut self, now: Duration) {
        self.held_until = self.held_until.max(now + RESENT_AFTER);
    }

    pub(super) fn arrival(&mut self, now: Duration) -> Option<Duration> {
        self.thawed(now.max(self.held_until))
    }

    /// Returns `time`, or the end of the stall that it falls into; `None` if never.
    pub(super) fn thawed(&mut self, time: Duration) -> Option<Duration> {
        thawed(&mut self.stalls, time)
    }

    /// Checks the connection. `patience` is the quiet time allowed, `sign` the time for an answer to a ping.
    pub(super) fn look(&mut self, now: Duration, patience: Duration, sign: Duration) -> LinkAction {
        let Some(quiet_since) = self.quiet_since else { return LinkAction::Leave };
        let (suspect_at, give_up_at) = (quiet_since + patience, self.suspected_since.map(|since| since + sign));
        match give_up_at {
            Some(at) if at <= now => LinkAction::GiveUp,
            Some(at) => LinkAction::Again(at),
            None if suspect_at <= now => {
                self.suspected_since = Some(now);
                LinkAction::Suspect
            }
            None => LinkAction::Again(suspect_at),
        }
    }
}

/// The default limit of pending queries on one connection.
const PIPELINE: usize = 100;

/// The first and the longest backoff after a failed connection attempt.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// The TCP retransmission timeout of Linux (RFC 6298 section 2.4 asks for 1 s).
const RESENT_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::super::spells::When;
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn links(max: u16, open: usize) -> SimulatedLinks {
        let mut links = SimulatedLinks::new(&ModelConnections { max, ..ModelConnections::default() }, &mut || 1);
        for place in 0..open {
            assert_eq!(links.dial(ms(0)), Some(place));
            links.opened(place, ms(0));
        }
        links
    }

    #[test]
    fn a_query_takes_the_open_connection_with_the_fewest_waiting() {
        let mut links = links(3, 2);
        links.all[0].waiting = 2;
        assert_eq!((links.choose(None), links.choose(Some(1)), links.choose(Some(0))), (Some(1), Some(0), Some(1)));
        links.all[1].suspected_since = Some(ms(1));
        assert_eq!((links.choose(None), links.choose(Some(0))), (Some(0), Some(0)));
        links.all[0].waiting = PIPELINE;
        assert_eq!(links.choose(None), None);
        // A connection that is being opened is better than the one to avoid.
        links.all[0].waiting = 0;
        assert_eq!(links.dial(ms(5)), Some(2));
        assert_eq!((links.choose(Some(0)), links.choose(None)), (Some(2), Some(0)));
    }

    #[test]
    fn one_is_dialled_at_a_time_and_a_failed_dial_waits() {
        let mut links = links(2, 0);
        assert!(links.are_cold());
        assert_eq!((links.dial(ms(0)), links.dial(ms(0))), (Some(0), None));
        links.failed(0, ms(10));
        assert_eq!((links.dial(ms(109)), links.dial(ms(110))), (None, Some(0)));
        links.failed(0, ms(110));
        assert_eq!((links.dial(ms(309)), links.dial(ms(310))), (None, Some(0)));
        links.opened(0, ms(310));
        assert!(!links.are_cold());
        assert_eq!(links.dial(ms(310)), Some(1));
    }

    #[test]
    fn a_quiet_connection_is_suspected_and_then_given_up() {
        let mut links = links(1, 1);
        let link = &mut links.all[0];
        let look = |link: &mut SimulatedLink, at| link.look(ms(at), ms(100), ms(1_000));
        assert_eq!(look(link, 0), LinkAction::Leave);
        link.waiting = 2;
        link.sent(ms(5));
        link.sent(ms(50));
        assert_eq!((look(link, 5), look(link, 105)), (LinkAction::Again(ms(105)), LinkAction::Suspect));
        assert_eq!((look(link, 106), look(link, 1_105)), (LinkAction::Again(ms(1_105)), LinkAction::GiveUp));
        // Data arrives, and another query still waits.
        link.heard(ms(200));
        assert_eq!((link.suspected_since, look(link, 300)), (None, LinkAction::Suspect));
        link.left();
        link.left();
        assert_eq!(look(link, 301), LinkAction::Leave);
    }

    #[test]
    fn what_is_sent_waits_for_stalls_and_for_what_was_lost() {
        let stalls = vec![When::Between { from: ms(100), to: ms(300) }];
        let mut links = SimulatedLinks::new(&ModelConnections { max: 1, stalls, ends: Vec::new() }, &mut || 1);
        let link = &mut links.all[0];
        assert_eq!([50, 100, 299, 300].map(|at| link.arrival(ms(at))), [50, 300, 300, 300].map(|at| Some(ms(at))));
        link.resend(ms(400));
        assert_eq!((link.arrival(ms(500)), link.arrival(ms(700))), (Some(ms(600)), Some(ms(700))));
    }
}
