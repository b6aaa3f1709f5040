//! What is told of one question that an operator has asked: where it goes, who may be asked and why in that order, its race to the
//! last late reply, and the response.
//!
//! The worker that resolves it tells what happens as [`Event`]s; a [`Transcript`] takes them, says when there is no more to wait for,
//! and makes the [`Explained`] of them, which is the JSON of `POST /api/v1/explain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::slow::{LATE_REPLIES, LateReply, Outcome, SlowRace, why};

/// What happens to a question that is explained.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Another worker races for this question: it is to be asked there.
    Elsewhere(u16),
    /// No route covers the name.
    NoRoute,
    /// The LS itself answers for the name.
    Own,
    /// How it goes on.
    Planned {
        /// The pool of its route.
        pool: String,
        /// The rest.
        plan: Box<Plan>,
    },
    /// Its race is over.
    Over(Box<SlowRace>),
    /// One that has lost has replied.
    Late(LateReply),
    /// The response, and where it comes from.
    Response(Response),
    /// There is no response.
    NoResponse,
}

/// How a question goes on: what was known before anybody was asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The suffix that the name is under.
    pub route: String,
    /// The number of the worker that has the question.
    pub worker: u16,
    /// What the cache has of it.
    pub cache: CacheSeen,
    /// Whether it was answered from there, and nobody was asked.
    pub from_cache: bool,
    /// Whether an equal question was in flight, whose race it has joined.
    pub joined: bool,
    /// How its pool chooses whom to ask first.
    pub balance: String,
    /// How its pool asks.
    pub dispatch: String,
    /// The backends of the pool: first those that the race may ask, in order, then the others. Of a pool with more than 64 only the first.
    pub candidates: Vec<Candidate>,
    /// How many backends more it has.
    #[serde(default)]
    pub more_backends: u64,
    /// After how long the first attempt would be hedged; none where the pool does not hedge.
    pub hedge_delay_ms: Option<f64>,
    /// Where that comes from.
    pub hedge_delay_from: Option<String>,
    /// How many hedges the budget can pay; none where the pool does not hedge.
    pub tokens: Option<u64>,
}

/// What the cache has of a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheSeen {
    /// What it is: off, none, fresh, stale, failure, silence.
    pub state: String,
    /// For how long it stays fresh.
    pub ttl_seconds: Option<u64>,
    /// For how long it may be given out stale.
    pub stale_seconds: Option<u64>,
    /// How often it was hit.
    pub hits: Option<u8>,
}

/// A backend, before anybody was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its label.
    pub backend: String,
    /// Its place in the order of asking, from 1; none: the race does not ask it.
    pub place: Option<u8>,
    /// up, down, new or draining.
    pub state: String,
    /// Half of its replies come within, as the worker sees it of late; none if it knows too few.
    pub p50_ms: Option<f64>,
    /// The same of 99 %.
    pub p99_ms: Option<f64>,
    /// Attempts that it has out, of all workers; in a pool with more than 64 backends the one for this question too.
    pub in_flight: u64,
    /// Why it stands where it does.
    pub why: String,
}

/// A response, as a client would have got it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Where it comes from, as metrics have it.
    pub source: String,
    /// Its response code.
    pub rcode: String,
    /// When it was ready, after the question was asked.
    pub took_ms: f64,
    /// The message, in base64.
    pub message: String,
}

/// All that is told of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Its race, or what stands in its place.
    #[serde(flatten)]
    pub race: SlowRace,
    /// What was known before.
    #[serde(flatten)]
    pub plan: Plan,
    /// The response, if there was one.
    pub response: Option<Response>,
}

/// What has happened so far to a question.
#[derive(Debug)]
pub struct Transcript {
    /// The race as it stands in for one that is not run.
    race: SlowRace,
    plan: Option<Plan>,
    /// Whether the race is over.
    is_over: bool,
    /// Whether the LS itself answers.
    is_own: bool,
    /// Whether there is a response, or is to be none.
    is_answered: bool,
    response: Option<Response>,
}

impl Transcript {
    /// Of a question that is asked at this Unix time, in seconds.
    pub fn new(name: String, qtype: String, at: f64) -> Self {
        let race = SlowRace {
            at,
            pool: String::new(),
            name,
            qtype,
            took_ms: 0.0,
            outcome: Outcome::Cached,
            winner: None,
            rcode: None,
            waiters: 1,
            hedges_denied: 0,
            denied: None,
            all_down: false,
            why: String::new(),
            attempts: Vec::new(),
        };
        Self { race, plan: None, is_over: false, is_own: false, is_answered: false, response: None }
    }

    /// Takes what has happened.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Elsewhere(_) => {}
            Event::NoRoute => {
                self.race.outcome = Outcome::Failed;
                self.race.rcode = Some("REFUSED".to_owned());
                (self.is_over, self.is_answered) = (true, true);
            }
            Event::Own => {
                self.race.outcome = Outcome::Cached;
                (self.is_over, self.is_own) = (true, true);
            }
            Event::Planned { pool, plan } => {
                self.race.pool = pool;
                self.is_over |= plan.from_cache;
                self.plan = Some(*plan);
            }
            Event::Over(race) => {
                self.race = *race;
                self.is_over = true;
            }
            Event::Late(late) => drop(self.race.join(&late)),
            Event::Response(response) => {
                if self.race.outcome == Outcome::Cached {
                    self.race.took_ms = response.took_ms;
                    self.race.rcode = Some(response.rcode.clone());
                }
                self.response = Some(response);
                self.is_answered = true;
            }
            Event::NoResponse => self.is_answered = true,
        }
    }

    /// How long something may still come, `since` the race was over; none: nothing will, or the race is not over.
    pub fn patience(&self, since: Duration) -> Option<Duration> {
        if !self.is_over || !self.is_answered {
            return None;
        }
        let is_waited_for = self.race.attempts.iter().any(super::slow::SlowAttempt::may_reply);
        let left = LATE_REPLIES.saturating_sub(since);
        Some(if is_waited_for { left } else { Duration::ZERO })
    }

    /// All that there is to tell.
    pub fn finish(mut self) -> Explained {
        self.race.settle();
        let plan = self.plan.unwrap_or_default();
        self.race.why = match (&plan, self.race.outcome) {
            _ if self.is_own => "the LS answers for resolver.arpa itself (RFC 9462), as no route names it".to_owned(),
            (Plan { route, .. }, _) if route.is_empty() => {
                "no route covers the name, so it is REFUSED; see [forwarder.routes]".to_owned()
            }
            (Plan { cache, .. }, Outcome::Cached) => cache.answered(),
            (Plan { joined: true, .. }, _) => {
                format!("joined the race of an equal query; {}", why(&self.race))
            }
            _ => why(&self.race),
        };
        Explained { race: self.race, plan, response: self.response }
    }
}

impl CacheSeen {
    /// What is said of an answer that came from it.
    fn answered(&self) -> String {
        let what = match (self.state.as_str(), self.ttl_seconds, self.stale_seconds) {
            ("fresh", Some(ttl), _) => format!("had the answer, fresh for {ttl} s more"),
            ("stale", _, Some(stale)) => {
                format!("had an answer that is stale, and may be given out for {stale} s more")
            }
            ("failure", ..) => "remembers that a race has failed not long ago".to_owned(),
            ("silence", ..) => "remembers that nobody replied not long ago".to_owned(),
            _ => "had the answer".to_owned(),
        };
        format!("the cache {what}: nobody was asked (--fresh asks)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::slow::Fate;
    use super::*;
    use crate::policy::Rank;

    fn plan() -> Plan {
        Plan { route: ".".to_owned(), ..Plan::default() }
    }

    fn planned(plan: Plan) -> Event {
        Event::Planned { pool: "ts".to_owned(), plan: Box::new(plan) }
    }

    fn response() -> Event {
        let (source, rcode) = ("backend".to_owned(), "NOERROR".to_owned());
        Event::Response(Response { source, rcode, took_ms: 0.2, message: String::new() })
    }

    fn transcript() -> Transcript {
        Transcript::new("www.example.org.".to_owned(), "A".to_owned(), 1_790_000_000.25)
    }

    #[test]
    fn late_replies_are_waited_for_as_long_as_there_may_be_some() {
        let mut race = SlowRace::sample();
        race.attempts[0].fate = Fate::Beaten;
        let mut told = transcript();
        told.take(planned(plan()));
        told.take(Event::Over(Box::new(race)));
        assert_eq!(told.patience(Duration::ZERO), None);
        told.take(response());
        assert_eq!(told.patience(Duration::from_secs(1)), Some(LATE_REPLIES - Duration::from_secs(1)));
        assert_eq!(told.patience(Duration::from_secs(9)), Some(Duration::ZERO));
        told.take(Event::Late(LateReply {
            hash: 1,
            pool: "ts".to_owned(),
            backend: "ts1".to_owned(),
            asked_at: 1_790_000_000.25,
            took_ms: 300.0,
            rank: Rank::Positive,
        }));
        assert_eq!(told.patience(Duration::ZERO), Some(Duration::ZERO));
        let explained = told.finish();
        assert_eq!(explained.race.attempts[0].fate, Fate::Late);
        assert!(explained.race.why.starts_with("ts1 replied after 300 ms, too late; "), "{}", explained.race.why);
    }

    #[test]
    fn who_does_not_reply_was_silent() {
        let mut race = SlowRace::sample();
        race.attempts[0].fate = Fate::Beaten;
        let mut told = transcript();
        let joined = Plan { joined: true, ..plan() };
        [planned(joined), Event::Over(Box::new(race)), response()].into_iter().for_each(|event| told.take(event));
        let explained = told.finish();
        assert_eq!(explained.race.attempts[0].fate, Fate::Silent);
        assert!(
            explained.race.why.starts_with("joined the race of an equal query; ts1 silent; "),
            "{}",
            explained.race.why
        );
    }

    #[test]
    fn an_answer_from_the_cache_is_all_there_is() {
        for (state, expected) in [
            ("fresh", "the cache had the answer, fresh for 7 s more: nobody was asked (--fresh asks)"),
            (
                "stale",
                "the cache had an answer that is stale, and may be given out for 9 s more: nobody was asked (--fresh asks)",
            ),
            ("failure", "the cache remembers that a race has failed not long ago: nobody was asked (--fresh asks)"),
            ("silence", "the cache remembers that nobody replied not long ago: nobody was asked (--fresh asks)"),
        ] {
            let cache =
                CacheSeen { state: state.to_owned(), ttl_seconds: Some(7), stale_seconds: Some(9), hits: Some(1) };
            let mut told = transcript();
            told.take(planned(Plan { from_cache: true, cache, ..plan() }));
            told.take(response());
            assert_eq!(told.patience(Duration::ZERO), Some(Duration::ZERO));
            let Explained { race, response, .. } = told.finish();
            assert_eq!((race.outcome, race.took_ms, race.rcode.as_deref()), (Outcome::Cached, 0.2, Some("NOERROR")));
            assert_eq!((race.why.as_str(), response.is_some()), (expected, true));
        }
    }

    #[test]
    fn a_name_of_the_ls_itself_is_told_as_such() {
        let mut told = transcript();
        told.take(Event::Own);
        assert_eq!(told.patience(Duration::ZERO), None, "its response is still to come");
        told.take(response());
        assert_eq!(told.patience(Duration::ZERO), Some(Duration::ZERO));
        let Explained { race, response, .. } = told.finish();
        assert_eq!((race.rcode.as_deref(), response.is_some()), (Some("NOERROR"), true));
        assert!(race.why.starts_with("the LS answers for resolver.arpa itself"), "{}", race.why);
    }

    #[test]
    fn a_name_without_a_route_is_refused() {
        let mut told = transcript();
        told.take(Event::NoRoute);
        assert_eq!(told.patience(Duration::ZERO), Some(Duration::ZERO));
        let race = told.finish().race;
        assert_eq!((race.outcome, race.rcode.as_deref()), (Outcome::Failed, Some("REFUSED")));
        assert!(race.why.starts_with("no route covers the name"), "{}", race.why);
    }

    #[test]
    fn the_json_is_one_object() {
        let mut told = transcript();
        told.take(planned(plan()));
        told.take(Event::Over(Box::new(SlowRace::sample())));
        told.take(response());
        let explained = told.finish();
        let json = serde_json::to_value(&explained).expect("plain data");
        let keys = [
            "route",
            "pool",
            "cache",
            "candidates",
            "hedge_delay_ms",
            "tokens",
            "attempts",
            "why",
            "outcome",
            "response",
        ];
        assert!(keys.iter().all(|key| json.get(key).is_some()), "{json}");
        assert_eq!(serde_json::from_value::<Explained>(json).expect("its own JSON"), explained);
    }
}
