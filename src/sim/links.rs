//! The connections to a modelled backend that is asked by stream: which one a query takes, and when one is given up.
//!
//! ```text
//!              dial                  opened
//!   closed ───────────▶ dialling ───────────▶ open ◀──── something comes
//!     ▲                    │ refused,           │  quiet for max(4 × p99, 100 ms)      ▲
//!     │                    │ silent for 1 s     ▼                                      │
//!     └────────────────────┴───────────── suspected: no new query, a sign of life ─────┘
//!          it ends, or gives no sign of life: all that waits is lost
//! ```
//!
//! All that there may be are opened as soon as there are queries. What is not modelled: that they are closed while idle, and that the
//! backend takes fewer queries at a time than we send.

use std::time::Duration;

use super::model::Connections;
use super::spells::Spells;
use crate::engine::Outstanding;
use crate::policy::query_slots::QuerySlot;

/// The connections to one backend. Times count from the start of the scenario.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) all: Vec<Link>,
    /// None is dialled before this time.
    again_at: Duration,
    /// How long that takes if the next dial fails too.
    backoff: Duration,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) state: LinkState,
    /// When it was opened.
    pub(super) opened_at: Duration,
    /// Counts the connections that were at this place.
    pub(super) generation: u32,
    /// Queries that wait there, those included whose race is over.
    pub(super) waiting: usize,
    /// Since then something waits and nothing has come.
    quiet_since: Option<Duration>,
    /// Since then it was asked for a sign of life.
    pub(super) suspected_since: Option<Duration>,
    /// Somebody is going to look at it.
    pub(super) is_watched: bool,
    /// What is sent arrives no earlier, for something before it was lost and is sent again.
    held_until: Duration,
    /// When all on it stands still.
    stalls: Vec<Spells>,
    /// When it ends.
    pub(super) ends: Vec<Spells>,
    /// What waits for it to be opened.
    pub(super) queued: Vec<Queued>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    Closed,
    Dialling,
    Open,
}

/// A query that is sent when its connection is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) slot: QuerySlot,
    pub(super) outstanding: Outstanding,
    pub(super) name: u32,
    pub(super) has_opt: bool,
}

/// What is to be done with a connection that somebody looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing waits there.
    Leave,
    /// To look again then.
    Again(Duration),
    /// To ask it for a sign of life.
    Suspect,
    /// To give it up.
    GiveUp,
}

impl Links {
    /// All are closed.
    pub(super) fn new(model: &Connections, seeds: &mut impl FnMut() -> u64) -> Self {
        let mut link = || Link {
            state: LinkState::Closed,
            opened_at: Duration::ZERO,
            generation: 0,
            waiting: 0,
            quiet_since: None,
            suspected_since: None,
            is_watched: false,
            held_until: Duration::ZERO,
            stalls: model.stalls.iter().map(|when| Spells::new(*when, seeds())).collect(),
            ends: model.ends.iter().map(|when| Spells::new(*when, seeds())).collect(),
            queued: Vec::new(),
        };
        let all = (0..model.max.max(1)).map(|_| link()).collect();
        Self { all, again_at: Duration::ZERO, backoff: FIRST_BACKOFF }
    }

    /// Whether none is open.
    pub(super) fn are_cold(&self) -> bool {
        self.all.iter().all(|link| link.state != LinkState::Open)
    }

    /// Begins to open one, unless that is being done or may not be yet. Returns which.
    pub(super) fn dial(&mut self, now: Duration) -> Option<usize> {
        if now < self.again_at || self.all.iter().any(|link| link.state == LinkState::Dialling) {
            return None;
        }
        let place = self.all.iter().position(|link| link.state == LinkState::Closed)?;
        self.all[place].state = LinkState::Dialling;
        Some(place)
    }

    /// The connection that a query takes: of those that are open the one with the fewest waiting, else the one that is being opened. One
    /// that is suspected gets none; the one to avoid gets it rather than nobody.
    pub(super) fn choose(&self, avoid: Option<usize>) -> Option<usize> {
        let is_free = |link: &Link| link.waiting < PIPELINE && link.suspected_since.is_none();
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

    /// It is open now.
    pub(super) fn opened(&mut self, place: usize, now: Duration) {
        (self.all[place].state, self.all[place].opened_at) = (LinkState::Open, now);
        (self.again_at, self.backoff) = (Duration::ZERO, FIRST_BACKOFF);
    }

    /// It could not be opened: the next try waits, each time for longer.
    pub(super) fn failed(&mut self, place: usize, now: Duration) {
        self.close(place);
        self.again_at = now + self.backoff;
        self.backoff = (2 * self.backoff).min(LAST_BACKOFF);
    }

    /// It is closed, and another may be opened at its place.
    pub(super) fn close(&mut self, place: usize) {
        let link = &mut self.all[place];
        link.state = LinkState::Closed;
        link.generation += 1;
        (link.waiting, link.quiet_since, link.suspected_since) = (0, None, None);
        (link.is_watched, link.held_until) = (false, Duration::ZERO);
        link.queued.clear();
    }
}

impl Link {
    /// A query is sent on it.
    pub(super) fn sent(&mut self, now: Duration) {
        self.quiet_since.get_or_insert(now);
    }

    /// Something has come.
    pub(super) fn heard(&mut self, now: Duration) {
        self.quiet_since = (self.waiting > 0).then_some(now);
        self.suspected_since = None;
    }

    /// A query does not wait there any more.
    pub(super) fn left(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            (self.quiet_since, self.suspected_since) = (None, None);
        }
    }

    /// What is sent from now on waits for something that was lost.
    pub(super) fn resend(&mut self, now: Duration) {
        self.held_until = self.held_until.max(now + RESENT_AFTER);
    }

    /// When that arrives which is sent now; `None`: never.
    pub(super) fn arrival(&mut self, now: Duration) -> Option<Duration> {
        self.thawed(now.max(self.held_until))
    }

    /// This time, or when the stall is over that it falls into; `None`: never.
    pub(super) fn thawed(&mut self, mut time: Duration) -> Option<Duration> {
        while let Some(stall) = self.stalls.iter_mut().find_map(|stall| stall.at(time)) {
            time = stall.end;
        }
        (time < Duration::MAX).then_some(time)
    }

    /// What is to be done with it now. `patience`: how long it may be quiet; `sign`: how long it has for a sign of life.
    pub(super) fn look(&mut self, now: Duration, patience: Duration, sign: Duration) -> Look {
        let Some(quiet_since) = self.quiet_since else { return Look::Leave };
        let (suspect_at, give_up_at) = (quiet_since + patience, self.suspected_since.map(|since| since + sign));
        match give_up_at {
            Some(at) if at <= now => Look::GiveUp,
            Some(at) => Look::Again(at),
            None if suspect_at <= now => {
                self.suspected_since = Some(now);
                Look::Suspect
            }
            None => Look::Again(suspect_at),
        }
    }
}

/// Queries that may wait on one connection, as by default.
const PIPELINE: usize = 100;

/// How long a failed dial waits for the next one, and the longest that it may come to.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// After so long TCP sends again what was lost (RFC 6298 section 2.4 leaves less to the system; Linux has this).
const RESENT_AFTER: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::super::spells::When;
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// So many connections, the first ones open.
    fn links(max: u16, open: usize) -> Links {
        let mut links = Links::new(&Connections { max, ..Connections::default() }, &mut || 1);
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
        // One that is being opened is better than one to avoid.
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
        let look = |link: &mut Link, at| link.look(ms(at), ms(100), ms(1_000));
        assert_eq!(look(link, 0), Look::Leave);
        link.waiting = 2;
        link.sent(ms(5));
        link.sent(ms(50));
        assert_eq!((look(link, 5), look(link, 105)), (Look::Again(ms(105)), Look::Suspect));
        assert_eq!((look(link, 106), look(link, 1_105)), (Look::Again(ms(1_105)), Look::GiveUp));
        // Something comes, and something else waits still.
        link.heard(ms(200));
        assert_eq!((link.suspected_since, look(link, 300)), (None, Look::Suspect));
        link.left();
        link.left();
        assert_eq!(look(link, 301), Look::Leave);
    }

    #[test]
    fn what_is_sent_waits_for_stalls_and_for_what_was_lost() {
        let stalls = vec![When::Between { from: ms(100), to: ms(300) }];
        let mut links = Links::new(&Connections { max: 1, stalls, ends: Vec::new() }, &mut || 1);
        let link = &mut links.all[0];
        assert_eq!([50, 100, 299, 300].map(|at| link.arrival(ms(at))), [50, 300, 300, 300].map(|at| Some(ms(at))));
        link.resend(ms(400));
        assert_eq!((link.arrival(ms(500)), link.arrival(ms(700))), (Some(ms(600)), Some(ms(700))));
    }
}
