//! Slow races: what is told of a race that took longer than its pool's usually do, or that ended without an answer of a backend.
//!
//! A worker tells of such a race as it ends ([`ToldRace`]), and of the replies that its losers send afterwards ([`LateReply`]). The
//! [`SlowRaces`] joins the two, keeps what is newest and what was slowest, and says by [`why`] in a sentence where the time went. A
//! [`SlowRace`] is also the JSON of it, for `GET /api/v1/slow` and `hedgerow ctl slow`.

mod store;
mod why;

use serde::{Deserialize, Serialize};

pub use self::store::{Filter, LATE_REPLIES, SlowRaces};
pub use self::why::{rank_words, time, why};
use crate::policy::Rank;
use crate::policy::race::Kind;

/// A race that was slow or failed, with all of its attempts. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowRace {
    /// When it started: Unix time, in seconds.
    pub at: f64,
    /// Its pool.
    pub pool: String,
    /// The name that was asked for.
    pub name: String,
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub qtype: String,
    /// How long it took.
    pub took_ms: f64,
    /// What it came to.
    pub outcome: Outcome,
    /// The backend whose reply went out, if one's did.
    pub winner: Option<String>,
    /// The response code that clients were told, if they were told anything.
    pub rcode: Option<String>,
    /// How many clients waited for it.
    pub waiters: u32,
    /// Attempts whose hedge was denied for lack of budget, at first or for good.
    pub hedges_denied: u32,
    /// The first of them.
    pub denied: Option<Denied>,
    /// Whether no backend of the pool was up when it started.
    pub all_down: bool,
    /// Where the time went, in a sentence.
    #[serde(default)]
    pub why: String,
    /// Who was asked, in order.
    pub attempts: Vec<SlowAttempt>,
}

/// What a race came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// An accepted reply.
    Won,
    /// The best of the replies that were not accepted.
    Kept,
    /// A response of our own making, since nobody had replied.
    MadeUp,
    /// SERVFAIL: failures were all that came, or nobody could be asked.
    Failed,
    /// An answer from the cache whose time to live was over.
    Stale,
    /// There was no race, of a question that is explained: the cache had the answer.
    Cached,
}

impl Outcome {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Kept => "kept",
            Self::MadeUp => "made-up",
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Cached => "cached",
        }
    }
}

/// A hedge that the budget did not pay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Denied {
    /// Whom it would have gone to, if that is known.
    pub to: Option<String>,
    /// When it was due, from the start of the race.
    pub at_ms: f64,
    /// How long the race then went without another attempt.
    pub for_ms: f64,
}

/// One attempt of a race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowAttempt {
    /// Who was asked.
    pub backend: String,
    /// Why.
    pub kind: Kind,
    /// When, from the start of the race.
    pub at_ms: f64,
    /// How long the reply took, if one came.
    pub took_ms: Option<f64>,
    /// What became of it.
    pub fate: Fate,
    /// What the reply ranked, if one came.
    pub rank: Option<Rank>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Its reply was accepted.
    Won,
    /// The race ended before its reply came, or a better one had come.
    Beaten,
    /// Its reply was kept while others might have done better.
    Kept,
    /// It failed: by what came, or because it could not be asked.
    Failed,
    /// ICMP said that nobody was there.
    Unreachable,
    /// It was lost with its connection.
    Lost,
    /// Nothing came.
    Silent,
    /// Its reply came after the race was over.
    Late,
}

impl Fate {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Beaten => "beaten",
            Self::Kept => "kept",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Late => "late",
        }
    }
}

/// A race as a worker tells of it, and by what its late replies are joined to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToldRace {
    /// The hash of its question.
    pub hash: u64,
    /// What is told.
    pub race: SlowRace,
}

/// A reply that came when its race was over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LateReply {
    /// The hash of the question.
    pub hash: u64,
    /// The pool.
    pub pool: String,
    /// Whose it is.
    pub backend: String,
    /// When the backend was asked: Unix time, in seconds.
    pub asked_at: f64,
    /// How long it took.
    pub took_ms: f64,
    /// What it ranks.
    pub rank: Rank,
}

impl ToldRace {
    /// Joins a late reply to it, if that is for it. Returns whether it is.
    pub fn join(&mut self, late: &LateReply) -> bool {
        let is_meant = self.hash == late.hash && self.race.pool == late.pool && self.race.at <= late.asked_at + SLACK;
        is_meant && self.race.join(late)
    }
}

impl SlowAttempt {
    /// Whether its reply may still come.
    pub fn may_reply(&self) -> bool {
        let is_out = matches!(self.fate, Fate::Beaten | Fate::Silent | Fate::Unreachable);
        is_out && self.took_ms.is_none()
    }
}

impl SlowRace {
    /// When it ended: Unix time, in seconds.
    pub fn ended_at(&self) -> f64 {
        self.at + self.took_ms / 1e3
    }

    /// Joins a late reply to the attempt that it answers, if there is one here. Returns whether there is.
    pub fn join(&mut self, late: &LateReply) -> bool {
        let asked_ms = (late.asked_at - self.at) * 1e3;
        let waits = |attempt: &&mut SlowAttempt| attempt.backend == late.backend && attempt.may_reply();
        // A backend may have been asked twice.
        let distance = |attempt: &SlowAttempt| (attempt.at_ms - asked_ms).abs();
        let waiting = self.attempts.iter_mut().filter(waits);
        let Some(attempt) = waiting.min_by(|one, other| distance(one).total_cmp(&distance(other))) else {
            return false;
        };
        (attempt.fate, attempt.took_ms, attempt.rank) = (Fate::Late, Some(late.took_ms), Some(late.rank));
        self.why = why(self);
        true
    }

    /// Nothing more will be heard: an attempt that was beaten and has not replied since was silent.
    pub fn settle(&mut self) {
        for attempt in &mut self.attempts {
            if attempt.fate == Fate::Beaten && attempt.took_ms.is_none() {
                attempt.fate = Fate::Silent;
            }
        }
        self.why = why(self);
    }

    /// A race for the tests of whoever shows one: a silent backend, a hedge that was denied, and a late winner.
    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        let attempt = |backend: &str, kind, at_ms, took_ms, fate, rank| SlowAttempt {
            backend: backend.to_owned(),
            kind,
            at_ms,
            took_ms,
            fate,
            rank,
        };
        let mut race = Self {
            at: 1_790_000_000.25,
            pool: "ts".to_owned(),
            name: "www.example.org.".to_owned(),
            qtype: "A".to_owned(),
            took_ms: 186.0,
            outcome: Outcome::Won,
            winner: Some("ts2".to_owned()),
            rcode: Some("NOERROR".to_owned()),
            waiters: 1,
            hedges_denied: 1,
            denied: Some(Denied { to: Some("ts2".to_owned()), at_ms: 4.0, for_ms: 180.0 }),
            all_down: false,
            why: String::new(),
            attempts: vec![
                attempt("ts1", Kind::First, 0.0, None, Fate::Silent, None),
                attempt("ts2", Kind::Hedge, 184.0, Some(2.0), Fate::Won, Some(Rank::Positive)),
            ],
        };
        race.why = why(&race);
        race
    }
}

/// By how much the wall clock may be off between two readings, in seconds.
const SLACK: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_words_of_the_contract() {
        let json = serde_json::to_value(SlowRace::sample()).expect("plain data");
        let expected = serde_json::json!({
            "at": 1_790_000_000.25, "pool": "ts", "name": "www.example.org.", "type": "A", "took_ms": 186.0,
            "outcome": "won", "winner": "ts2", "rcode": "NOERROR", "waiters": 1, "hedges_denied": 1,
            "denied": { "to": "ts2", "at_ms": 4.0, "for_ms": 180.0 }, "all_down": false,
            "why": "ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms",
            "attempts": [
                { "backend": "ts1", "kind": "first", "at_ms": 0.0, "took_ms": null, "fate": "silent", "rank": null },
                { "backend": "ts2", "kind": "hedge", "at_ms": 184.0, "took_ms": 2.0, "fate": "won", "rank": "positive" },
            ],
        });
        assert_eq!(json, expected);
        let back: SlowRace = serde_json::from_value(json).expect("its own JSON");
        assert_eq!(back, SlowRace::sample());
    }

    #[test]
    fn labels_are_the_words_of_the_json() {
        for outcome in [Outcome::Won, Outcome::Kept, Outcome::MadeUp, Outcome::Failed, Outcome::Stale, Outcome::Cached]
        {
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
        let again = SlowAttempt { kind: Kind::Failover, at_ms: 100.0, ..race.attempts[0].clone() };
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
        // Whoever has replied does not wait for a reply.
        assert!(!race.join(&LateReply { backend: "ts2".to_owned(), ..late }));
    }
}
