//! The explanation of one question of an operator.
//!
//! A [`Transcript`] collects the [`Event`]s of the worker and makes the [`Explanation`] as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::slow::{LATE_REPLIES, LateReply, RaceOutcome, SlowRace, why};

/// An event of a question that is explained.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Another worker, with this number, races for this question and must get it.
    Elsewhere(u16),
    /// No route covers the name.
    NoRoute,
    /// The rule with this name is the first that matches. True if it makes the response.
    Rule(String, bool),
    /// The forwarder itself answers for the name, for this reason.
    Own(&'static str),
    /// The plan is ready.
    Planned {
        /// The pool of the route.
        pool: String,
        /// The plan of the pool.
        plan: Box<Plan>,
    },
    /// The race is over.
    Over(Box<SlowRace>),
    /// A late reply has arrived.
    Late(LateReply),
    /// The response with its source.
    Response(ExplainedResponse),
    /// There is no response.
    NoResponse,
}

/// The state of a question before the first attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The suffix of the route.
    pub route: String,
    /// The number of the worker that has the question.
    pub worker: u16,
    /// The cache entry of the question.
    pub cache: CacheSeen,
    /// True if the cache answered without an attempt.
    pub from_cache: bool,
    /// True if the question has joined the race of an equal one.
    pub joined: bool,
    /// The balancing of the pool, which orders the candidates.
    pub balance: String,
    /// The dispatch of the pool.
    pub dispatch: String,
    /// The backends of the pool, those of the race first and in order; at most 64.
    pub candidates: Vec<Candidate>,
    /// The number of backends left out.
    #[serde(default)]
    pub more_backends: u64,
    /// The delay of the first hedge; `None` if the pool does not hedge.
    pub hedge_delay_ms: Option<f64>,
    /// The origin of the hedge delay.
    pub hedge_delay_from: Option<String>,
    /// The number of hedges that the budget can pay for; `None` if the pool does not hedge.
    pub tokens: Option<u64>,
}

impl Plan {
    /// The route if a rule chose the pool.
    pub const BY_RULE: &str = "rule";
}

/// The cache entry of a question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CacheSeen {
    /// The state: off, none, fresh, stale, failure, silence.
    pub state: String,
    /// The remaining time to live.
    pub ttl_seconds: Option<u64>,
    /// The remaining time in which it may be served stale.
    pub stale_seconds: Option<u64>,
    /// The number of hits.
    pub hits: Option<u8>,
}

/// A backend before the first attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The label.
    pub backend: String,
    /// The place in the order of attempts, from 1; `None` if the race does not use it.
    pub place: Option<u8>,
    /// The state: up, down, new or draining.
    pub state: String,
    /// The tier: 0, or higher for a spare.
    #[serde(default)]
    pub tier: u8,
    /// The recent median reply time seen by the worker; `None` if it has too few replies.
    pub p50_ms: Option<f64>,
    /// The recent p99 of the reply time; `None` if the worker has too few replies.
    pub p99_ms: Option<f64>,
    /// The pending attempts of all workers at this backend.
    pub in_flight: u64,
    /// The reason for the place.
    pub why: String,
}

/// The response that a client would have got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainedResponse {
    /// The source, as in metrics.
    pub source: String,
    /// The response code.
    pub rcode: String,
    /// The time from the question to the response.
    pub took_ms: f64,
    /// The message in base64.
    pub message: String,
    /// The first records as in a master file.
    #[serde(default)]
    pub records: Vec<String>,
}

/// The explanation of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The race, or a substitute if none was run.
    #[serde(flatten)]
    pub race: SlowRace,
    /// The state before the first attempt.
    #[serde(flatten)]
    pub plan: Plan,
    /// The first rule that matches, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The response, if there was one.
    pub response: Option<ExplainedResponse>,
}

/// The events of a question so far.
#[derive(Debug, Default)]
pub struct Transcript {
    race: SlowRace,
    plan: Option<Plan>,
    is_over: bool,
    own: Option<&'static str>,
    rule: Option<String>,
    is_answered: bool,
    response: Option<ExplainedResponse>,
}

impl Transcript {
    /// Creates the transcript of a question that is asked at this Unix time, in seconds.
    pub fn new(name: String, qtype: String, at: f64) -> Self {
        Self { race: SlowRace { at, name, qtype, waiters: 1, ..SlowRace::default() }, ..Self::default() }
    }

    /// Adds an event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Elsewhere(_) => {}
            Event::NoRoute => {
                self.race.outcome = RaceOutcome::Failed;
                self.race.rcode = Some("REFUSED".to_owned());
                (self.is_over, self.is_answered) = (true, true);
            }
            Event::Rule(name, is_made) => {
                if is_made {
                    self.race.outcome = RaceOutcome::Cached;
                    (self.is_over, self.own) = (true, Some("the rule makes the response"));
                }
                self.rule = Some(name);
            }
            Event::Own(reason) => {
                self.race.outcome = RaceOutcome::Cached;
                (self.is_over, self.own) = (true, Some(reason));
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
                if self.race.outcome == RaceOutcome::Cached {
                    self.race.took_ms = response.took_ms;
                    self.race.rcode = Some(response.rcode.clone());
                }
                self.response = Some(response);
                self.is_answered = true;
            }
            Event::NoResponse => self.is_answered = true,
        }
    }

    /// Returns the time in which events may still arrive, `since` after the end of the race.
    pub fn patience(&self, since: Duration) -> Option<Duration> {
        if !self.is_over || !self.is_answered {
            return None;
        }
        let is_waited_for = self.race.attempts.iter().any(super::slow::SlowAttempt::may_reply);
        let left = LATE_REPLIES.saturating_sub(since);
        Some(if is_waited_for { left } else { Duration::ZERO })
    }

    /// Returns the explanation.
    pub fn finish(mut self) -> Explanation {
        self.race.settle();
        let plan = self.plan.unwrap_or_default();
        self.race.why = match (&plan, self.race.outcome) {
            _ if let Some(reason) = self.own => reason.to_owned(),
            (Plan { route, .. }, _) if route.is_empty() => {
                "no route covers the name, so it is REFUSED; see [forwarder.routes]".to_owned()
            }
            (Plan { cache, .. }, RaceOutcome::Cached) => cache.answered(),
            (Plan { joined: true, .. }, _) => {
                format!("joined the race of an equal query; {}", why(&self.race))
            }
            _ => why(&self.race),
        };
        Explanation { race: self.race, plan, rule: self.rule, response: self.response }
    }
}

impl CacheSeen {
    fn answered(&self) -> String {
        let what = match (self.state.as_str(), self.ttl_seconds, self.stale_seconds) {
            ("fresh", Some(ttl), _) => format!("had the answer, fresh for {ttl} s more"),
            ("stale", _, Some(stale)) => {
                format!("had an answer that is stale, and may be given out for {stale} s more")
            }
            ("failure", ..) => "remembers that a race failed recently".to_owned(),
            ("silence", ..) => "remembers that no backend replied recently".to_owned(),
            _ => "had the answer".to_owned(),
        };
        format!("the cache {what}: no backend was asked (use --fresh to ask)")
    }
}

#[cfg(test)]
mod tests {
    use config::Rank;

    use super::super::slow::Fate;
    use super::*;

    fn plan() -> Plan {
        Plan { route: ".".to_owned(), ..Plan::default() }
    }

    fn planned(plan: Plan) -> Event {
        Event::Planned { pool: "ts".to_owned(), plan: Box::new(plan) }
    }

    fn response() -> Event {
        let (source, rcode) = ("backend".to_owned(), "NOERROR".to_owned());
        Event::Response(ExplainedResponse { source, rcode, took_ms: 0.2, ..ExplainedResponse::default() })
    }

    fn transcript() -> Transcript {
        Transcript::new("www.example.org.".to_owned(), "A".to_owned(), 1_790_000_000.25)
    }

    #[test]
    fn late_replies_are_waited_for_as_long_as_there_may_be_some() {
        let mut race = SlowRace::sample();
        race.attempts[0].fate = Fate::Beaten;
        let mut reported = transcript();
        reported.take(planned(plan()));
        reported.take(Event::Over(Box::new(race)));
        assert_eq!(reported.patience(Duration::ZERO), None);
        reported.take(response());
        assert_eq!(reported.patience(Duration::from_secs(1)), Some(LATE_REPLIES - Duration::from_secs(1)));
        assert_eq!(reported.patience(Duration::from_secs(9)), Some(Duration::ZERO));
        reported.take(Event::Late(LateReply {
            hash: 1,
            pool: "ts".to_owned(),
            backend: "ts1".to_owned(),
            asked_at: 1_790_000_000.25,
            took_ms: 300.0,
            rank: Rank::Positive,
        }));
        assert_eq!(reported.patience(Duration::ZERO), Some(Duration::ZERO));
        let explained = reported.finish();
        assert_eq!(explained.race.attempts[0].fate, Fate::Late);
        assert!(explained.race.why.starts_with("ts1 replied after 300 ms, too late; "), "{}", explained.race.why);
    }

    #[test]
    fn who_does_not_reply_was_silent() {
        let mut race = SlowRace::sample();
        race.attempts[0].fate = Fate::Beaten;
        let mut reported = transcript();
        let joined = Plan { joined: true, ..plan() };
        [planned(joined), Event::Over(Box::new(race)), response()].into_iter().for_each(|event| reported.take(event));
        let explained = reported.finish();
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
            ("fresh", "the cache had the answer, fresh for 7 s more: no backend was asked (use --fresh to ask)"),
            (
                "stale",
                "the cache had an answer that is stale, and may be given out for 9 s more: no backend was asked (use --fresh to ask)",
            ),
            ("failure", "the cache remembers that a race failed recently: no backend was asked (use --fresh to ask)"),
            (
                "silence",
                "the cache remembers that no backend replied recently: no backend was asked (use --fresh to ask)",
            ),
        ] {
            let cache =
                CacheSeen { state: state.to_owned(), ttl_seconds: Some(7), stale_seconds: Some(9), hits: Some(1) };
            let mut reported = transcript();
            reported.take(planned(Plan { from_cache: true, cache, ..plan() }));
            reported.take(response());
            assert_eq!(reported.patience(Duration::ZERO), Some(Duration::ZERO));
            let Explanation { race, response, .. } = reported.finish();
            assert_eq!(
                (race.outcome, race.took_ms, race.rcode.as_deref()),
                (RaceOutcome::Cached, 0.2, Some("NOERROR"))
            );
            assert_eq!((race.why.as_str(), response.is_some()), (expected, true));
        }
    }

    #[test]
    fn a_name_of_the_ls_itself_is_told_as_such() {
        let mut reported = transcript();
        reported.take(Event::Own("the forwarder answers itself"));
        assert_eq!(reported.patience(Duration::ZERO), None, "its response is still to come");
        reported.take(response());
        assert_eq!(reported.patience(Duration::ZERO), Some(Duration::ZERO));
        let Explanation { race, response, .. } = reported.finish();
        assert_eq!((race.rcode.as_deref(), response.is_some()), (Some("NOERROR"), true));
        assert!(race.why == "the forwarder answers itself", "{}", race.why);
    }

    #[test]
    fn a_name_without_a_route_is_refused() {
        let mut reported = transcript();
        reported.take(Event::NoRoute);
        assert_eq!(reported.patience(Duration::ZERO), Some(Duration::ZERO));
        let race = reported.finish().race;
        assert_eq!((race.outcome, race.rcode.as_deref()), (RaceOutcome::Failed, Some("REFUSED")));
        assert!(race.why.starts_with("no route covers the name"), "{}", race.why);
    }

    #[test]
    fn the_json_is_one_object() {
        let mut reported = transcript();
        reported.take(planned(plan()));
        reported.take(Event::Over(Box::new(SlowRace::sample())));
        reported.take(response());
        let explained = reported.finish();
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
        assert_eq!(serde_json::from_value::<Explanation>(json).expect("its own JSON"), explained);
    }
}
