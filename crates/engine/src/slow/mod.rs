//! Slow races: races that took longer than usual in their pool, or that ended without a backend's answer.
//!
//! A worker reports such a race at its end ([`ReportedRace`]), and late replies afterwards ([`LateReply`]).
//! [`SlowRaces`] joins the two, keeps the newest and the slowest, and [`why`] explains each in a sentence. A
//! [`SlowRace`] is also its JSON, for `GET /api/v1/slow` and `hedgerow ctl slow`.

mod store;
mod why;

use config::Rank;
use hedge::race::AttemptKind;
use serde::{Deserialize, Serialize};

pub use self::store::{LATE_REPLIES, RaceFilter, SlowRaces};
pub use self::why::{rank_words, time, why};

/// A slow or failed race with all of its attempts. Durations are in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlowRace {
    /// The start, as Unix time in seconds.
    pub at: f64,
    /// The pool.
    pub pool: String,
    /// The queried name.
    pub name: String,
    /// The queried type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The duration.
    pub took_ms: f64,
    /// The outcome.
    pub outcome: RaceOutcome,
    /// The backend whose reply went to the client.
    pub winner: Option<String>,
    /// The response code sent to clients, if any.
    pub rcode: Option<String>,
    /// The number of clients that waited.
    pub waiters: u32,
    /// The reasons why it did not ask more backends.
    #[serde(flatten)]
    pub obstacles: RaceObstacles,
    /// A sentence on where the time went.
    #[serde(default)]
    pub why: String,
    /// The attempts in order.
    pub attempts: Vec<SlowAttempt>,
}

/// The reasons why a race did not ask more backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RaceObstacles {
    /// The attempts without a hedge for lack of budget, temporarily or for good.
    pub hedges_denied: u32,
    /// The first denied hedge.
    pub denied: Option<DeniedHedge>,
    /// True if no backend of the pool was up at the start.
    pub all_down: bool,
}

/// The slow races of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowRacesReport {
    /// The races, newest first.
    pub races: Vec<SlowRace>,
}

dns::labels! {
    /// The outcome of a race.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum RaceOutcome {
        /// An accepted reply.
        Won = "won",
        /// The best of the replies that were not accepted.
        Kept = "kept",
        /// A generated response, because no backend had replied.
        MadeUp = "made-up",
        /// SERVFAIL: all replies were failures, or no backend could be asked.
        Failed = "failed",
        /// A cached answer whose time to live was over.
        Stale = "stale",
        /// No race for an explained question: the cache had the answer.
        #[default]
        Cached = "cached",
    }
}

/// A hedge that the budget did not pay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeniedHedge<S = String> {
    /// The backend that would have got it, if known.
    pub to: Option<S>,
    /// The time at which it was due, from the start of the race.
    pub at_ms: f64,
    /// The time that the race then ran without another attempt.
    pub for_ms: f64,
}

/// One attempt of a race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowAttempt<S = String> {
    /// The backend.
    pub backend: S,
    /// The reason for the attempt.
    pub kind: AttemptKind,
    /// The time of the attempt, from the start of the race.
    pub at_ms: f64,
    /// The reply time, if a reply arrived.
    pub took_ms: Option<f64>,
    /// The fate of the attempt.
    pub fate: Fate,
    /// The rank of the reply, if one arrived.
    pub rank: Option<Rank>,
}

dns::labels! {
    /// The fate of an attempt.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Fate {
        /// The reply was accepted.
        Won = "won",
        /// The race ended before the reply arrived, or a better one had arrived.
        Beaten = "beaten",
        /// The reply was kept while others might be better.
        Kept = "kept",
        /// The attempt failed by its reply, or could not be made.
        Failed = "failed",
        /// An ICMP error reported the backend unreachable.
        Unreachable = "unreachable",
        /// The connection was lost.
        Lost = "lost",
        /// No reply arrived.
        Silent = "silent",
        /// The reply arrived after the end of the race.
        Late = "late",
    }
}

/// A race as reported by a worker, with the key for its late replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportedRace {
    /// The hash of the question.
    pub hash: u64,
    /// The race.
    pub race: SlowRace,
}

/// A reply that arrived after the end of its race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LateReply<S = String> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool.
    pub pool: S,
    /// The backend.
    pub backend: S,
    /// The time of the attempt, as Unix time in seconds.
    pub asked_at: f64,
    /// The reply time.
    pub took_ms: f64,
    /// The rank of the reply.
    pub rank: Rank,
}

impl ReportedRace {
    /// Joins a late reply if it belongs to this race. Returns true if so.
    pub fn join(&mut self, late: &LateReply) -> bool {
        let is_meant = self.hash == late.hash && self.race.pool == late.pool && self.race.at <= late.asked_at + SLACK;
        is_meant && self.race.join(late)
    }
}

impl SlowAttempt {
    /// Returns true if a reply may still arrive.
    pub fn may_reply(&self) -> bool {
        let is_out = matches!(self.fate, Fate::Beaten | Fate::Silent | Fate::Unreachable);
        is_out && self.took_ms.is_none()
    }
}

impl SlowRace {
    /// Returns the end, as Unix time in seconds.
    pub(crate) fn ended_at(&self) -> f64 {
        self.at + self.took_ms / 1e3
    }

    /// Joins a late reply to the attempt that it answers. Returns false if there is none.
    pub(crate) fn join(&mut self, late: &LateReply) -> bool {
        let asked_ms = (late.asked_at - self.at) * 1e3;
        let waits = |attempt: &&mut SlowAttempt| attempt.backend == late.backend && attempt.may_reply();
        // A backend may have got two attempts.
        let distance = |attempt: &SlowAttempt| (attempt.at_ms - asked_ms).abs();
        let waiting = self.attempts.iter_mut().filter(waits);
        let Some(attempt) = waiting.min_by(|one, other| distance(one).total_cmp(&distance(other))) else {
            return false;
        };
        (attempt.fate, attempt.took_ms, attempt.rank) = (Fate::Late, Some(late.took_ms), Some(late.rank));
        self.why = why(self);
        true
    }

    /// Marks beaten attempts without a reply as silent, because no reply can arrive any more.
    pub fn settle(&mut self) {
        for attempt in &mut self.attempts {
            if attempt.fate == Fate::Beaten && attempt.took_ms.is_none() {
                attempt.fate = Fate::Silent;
            }
        }
        self.why = why(self);
    }

    /// Returns a race for tests: a silent backend, a denied hedge, and a late winner.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        serde_json::from_str(include_str!("tests/race.json")).expect("the JSON of a race")
    }
}

/// The error of the wall clock between two readings, in seconds.
const SLACK: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_words_of_the_contract() {
        let json: serde_json::Value = serde_json::from_str(include_str!("tests/race.json")).expect("JSON");
        let race = SlowRace::sample();
        assert_eq!(serde_json::to_value(&race).expect("plain data"), json);
        assert_eq!(why(&race), race.why);
    }

    #[test]
    fn labels_are_the_words_of_the_json() {
        for outcome in [
            RaceOutcome::Won,
            RaceOutcome::Kept,
            RaceOutcome::MadeUp,
            RaceOutcome::Failed,
            RaceOutcome::Stale,
            RaceOutcome::Cached,
        ] {
            assert_eq!(serde_json::to_value(outcome).expect("plain data"), outcome.label());
        }
        use Fate::{Beaten, Failed, Kept, Late, Silent, Unreachable, Won};
        for fate in [Won, Beaten, Kept, Failed, Unreachable, Silent, Late] {
            assert_eq!(serde_json::to_value(fate).expect("plain data"), fate.label());
        }
    }

    #[test]
    fn a_late_reply_joins_the_attempt_that_it_answers() {
        let mut race = SlowRace::sample();
        let again = SlowAttempt { kind: AttemptKind::Failover, at_ms: 100.0, ..race.attempts[0].clone() };
        race.attempts.insert(1, again);
        let late = LateReply {
            hash: 1,
            pool: "ts".to_owned(),
            backend: "ts1".to_owned(),
            asked_at: race.at + 0.1,
            took_ms: 400.0,
            rank: Rank::Nxdomain,
        };
        assert!(race.join(&late));
        assert_eq!(race.attempts[0].fate, Fate::Silent);
        let joined = &race.attempts[1];
        assert_eq!((joined.fate, joined.took_ms, joined.rank), (Fate::Late, Some(400.0), Some(Rank::Nxdomain)));
        assert!(race.why.contains("ts1 replied after 400 ms, too late"), "{}", race.why);
        // An attempt with a reply takes no other one.
        assert!(!race.join(&LateReply { backend: "ts2".to_owned(), ..late }));
    }
}
