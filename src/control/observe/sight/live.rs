//! The JSON of `/api/v1/live` and `/api/v1/history`, and of `verdict` and `last_minute` in `/api/v1/status`,
//! for the page, `hedgerow top` and `hedgerow ctl`.
//!
//! Each figure belongs to its second, minute or ten seconds; gauges are as of the end. A figure that was not
//! measured is null. Durations are in milliseconds, times in Unix seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A second of the server: the data of an event `second`, and the response to `/api/v1/live?once`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// The end of the second.
    pub at: u64,
    /// The verdict on the server's health.
    pub verdict: Verdict,
    /// The queries and responses.
    #[serde(flatten)]
    pub answers: AnswerCounts<u64>,
    /// Look-ups in the cache; null without a cache.
    pub cache: Option<CacheSecond>,
    /// The pools in order of the config.
    pub pools: Vec<PoolSecond>,
}

/// Queries and responses: in a second, or in each step of a history. Older servers lack some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerCounts<N> {
    /// Queries of clients.
    pub queries: N,
    /// Queries by transport, with all transports.
    #[serde(default)]
    pub transports: BTreeMap<String, N>,
    /// Responses by source, with all sources.
    pub responses: BTreeMap<String, N>,
    /// Responses by rcode: NOERROR, NXDOMAIN, SERVFAIL, REFUSED, other.
    #[serde(default)]
    pub rcodes: BTreeMap<String, N>,
    /// Responses that report a failure, from backends or from this forwarder.
    #[serde(default)]
    pub failures: N,
    /// Dropped messages and queries by reason, with all reasons.
    pub dropped: BTreeMap<String, N>,
}

/// The verdict on the server's health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The state.
    pub state: VerdictState,
    /// The start of this state.
    #[serde(default)]
    pub since: u64,
    /// The reasons, the gravest first; empty if all is OK.
    pub reasons: Vec<Reason>,
}

dns::labels! {
    /// The health of the server. The worst state is the greatest.
    #[derive(Default, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum VerdictState {
        /// No action is needed.
        #[default]
        Well = "OK",
        /// An operator should look at it during working hours.
        Watch = "watch",
        /// Clients are affected, or soon will be.
        Trouble = "trouble",
    }
}

/// A reason why a verdict is not `well`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The name of the rule, such as `backend-down`.
    pub code: String,
    /// A sentence for people, with pool, backend and figure.
    pub text: String,
}

/// Look-ups in the cache: in a second, or in each step of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLookups<N> {
    /// Look-ups that found a fresh answer, or a failure.
    pub hits: N,
    /// Look-ups that found a stale answer.
    pub stale_hits: N,
    /// Look-ups that found nothing.
    pub misses: N,
}

/// Look-ups in the cache in a second.
pub type CacheSecond = CacheLookups<u64>;

/// A pool: in a second, or in each step of a history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolFigures<N, T, B> {
    /// The name in the config.
    pub name: String,
    /// Answered queries of clients, including cache hits.
    pub queries: N,
    /// Queries to the backends, without probes.
    pub attempts: N,
    /// Queries of clients that wait for their response.
    pub in_flight: N,
    /// The median time from a query to its response.
    pub p50_ms: T,
    /// The p99 of the response time.
    pub p99_ms: T,
    /// The p99.9 of the response time.
    pub p999_ms: T,
    /// The hedges.
    pub hedges: HedgeFigures<N>,
    /// The backends: in a second those that are sick or slow first, and at most [`MAX_BACKENDS`].
    pub backends: Vec<B>,
    /// The number of backends left out.
    pub more_backends: u64,
}

/// A second of a pool.
pub type PoolSecond = PoolFigures<u64, Option<f64>, BackendSecond>;

/// The hedges of a pool: in a second, or in each step of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HedgeFigures<N> {
    /// Hedges made.
    pub sent: N,
    /// Hedges whose answer went to the client.
    pub won: N,
    /// Hedges not made because the budget was spent.
    pub denied: N,
    /// The number of further hedges that the budget pays for.
    pub tokens: N,
}

/// The hedges of a pool in a second.
pub type HedgesSecond = HedgeFigures<u64>;

/// A second of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendSecond {
    /// The label.
    pub name: String,
    /// The state: up, down, new or draining.
    pub state: String,
    /// Queries to the backend, without probes.
    pub attempts: u64,
    /// Answers that went to the client.
    pub wins: u64,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: u64,
    /// Attempts that were silent for `attempt_timeout`.
    pub timeouts: u64,
    /// Attempts that wait for their reply.
    pub in_flight: u64,
    /// The median reply time.
    pub p50_ms: Option<f64>,
    /// The p99 of the reply time.
    pub p99_ms: Option<f64>,
    /// True if the backend changes between up and down often, as the rule `flapping` of the verdict has it.
    #[serde(default, rename = "flapping")]
    pub is_flapping: bool,
}

/// The response of `/api/v1/history`: the figures of a [`Second`] as arrays as long as
/// [`HistoryFigures::at`], the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryFigures {
    /// The length of a step: 1 for 10 minutes, 60 for 24 hours.
    pub step_seconds: u64,
    /// The end of each step. Steps that lie further apart have a gap without counts, as while the host slept.
    pub at: Vec<u64>,
    /// The verdict at the end of each step.
    pub verdict: Vec<VerdictState>,
    /// The queries and responses.
    #[serde(flatten)]
    pub answers: AnswerCounts<Vec<u64>>,
    /// Look-ups in the cache; null without a cache.
    pub cache: Option<CacheLookups<Column<u64>>>,
    /// The pools in order of the config, up to the bound.
    pub pools: Vec<PoolHistory>,
    /// The number of pools left out.
    pub more_pools: u64,
    /// The length of a step of a backend: 10.
    pub backend_step_seconds: u64,
    /// The end of each step of backends, for the last 10 minutes; empty with a span of 24 hours.
    pub backend_at: Vec<u64>,
}

/// A figure in each step, the oldest first; null where there was nothing to measure.
pub type Column<T> = Vec<Option<T>>;

/// The history of a pool; null where it did not exist. The arrays of its backends are as long as
/// [`HistoryFigures::backend_at`].
pub type PoolHistory = PoolFigures<Column<u64>, Column<f64>, BackendHistory>;

/// The history of a backend by ten seconds; null where it did not exist.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendHistory {
    /// The label.
    pub name: String,
    /// The median reply time.
    pub p50_ms: Column<f64>,
    /// The p99 of the reply time.
    pub p99_ms: Column<f64>,
    /// Attempts that failed.
    pub errors: Column<u64>,
    /// Attempts that were silent for `attempt_timeout`.
    pub timeouts: Column<u64>,
}

/// A pool in the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolMinute {
    /// Answered queries of clients, including cache hits.
    pub queries: u64,
    /// Queries to the backends, without probes.
    pub attempts: u64,
    /// The median time from a query to its response.
    pub p50_ms: Option<f64>,
    /// The p99 of the response time.
    pub p99_ms: Option<f64>,
    /// The p99.9 of the response time.
    pub p999_ms: Option<f64>,
    /// The hedges.
    pub hedges: HedgesSecond,
}

/// A backend in the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendMinute {
    /// Queries to the backend, without probes.
    pub attempts: u64,
    /// Hedges among these queries.
    pub hedges: u64,
    /// Answers that went to the client.
    pub wins: u64,
    /// Answers to hedges that went to the client.
    pub hedges_won: u64,
    /// Attempts that failed.
    pub errors: u64,
    /// Attempts that were silent for `attempt_timeout`.
    pub timeouts: u64,
    /// The median reply time.
    pub p50_ms: Option<f64>,
    /// The p99 of the reply time.
    pub p99_ms: Option<f64>,
}

/// The span of a [`HistoryFigures`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Span {
    /// Ten minutes by second.
    #[default]
    #[serde(rename = "10m")]
    TenMinutes,
    /// 24 hours by minute.
    #[serde(rename = "24h")]
    Day,
}

impl Span {
    /// Returns the length of a step in seconds.
    pub fn step_seconds(self) -> u64 {
        match self {
            Self::TenMinutes => 1,
            Self::Day => 60,
        }
    }
}

/// The backends of a pool that a [`Second`] contains.
pub const MAX_BACKENDS: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Checks that a value is written as this JSON, and read from it.
    fn check<T: Serialize + for<'d> Deserialize<'d> + PartialEq + std::fmt::Debug>(value: &T, expected: Value) {
        assert_eq!(serde_json::to_value(value).expect("plain data"), expected);
        assert_eq!(serde_json::from_value::<T>(expected).expect("what was written"), *value);
    }

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
    }

    #[test]
    fn a_second_has_the_fields_of_the_contract() {
        let backend = BackendSecond {
            name: "ts2".to_owned(),
            state: "down".to_owned(),
            attempts: 12,
            wins: 3,
            errors: 1,
            timeouts: 2,
            in_flight: 4,
            p50_ms: None,
            p99_ms: None,
            is_flapping: true,
        };
        let pool = PoolSecond {
            name: "ts".to_owned(),
            queries: 1_000,
            attempts: 1_020,
            in_flight: 7,
            p50_ms: Some(0.4),
            p99_ms: Some(4.0),
            p999_ms: Some(21.5),
            hedges: HedgesSecond { sent: 20, won: 18, denied: 1, tokens: 9 },
            backends: vec![backend],
            more_backends: 3,
        };
        let text = "ts2 of pool ts has been down for 40 s".to_owned();
        let second = Second {
            at: 1_767_225_600,
            verdict: Verdict {
                state: VerdictState::Watch,
                since: 1_767_225_560,
                reasons: vec![Reason { code: "backend-down".to_owned(), text }],
            },
            answers: AnswerCounts {
                queries: 5_000,
                transports: counts(&[("udp", 4_990), ("tls", 10)]),
                responses: counts(&[("backend", 900), ("cache", 4_000)]),
                rcodes: counts(&[("NOERROR", 4_900), ("other", 0)]),
                failures: 3,
                dropped: counts(&[("late", 2)]),
            },
            cache: Some(CacheSecond { hits: 4_000, stale_hits: 0, misses: 1_000 }),
            pools: vec![pool],
        };
        check(
            &second,
            json!({
                "at": 1_767_225_600,
                "verdict": {
                    "state": "watch",
                    "since": 1_767_225_560,
                    "reasons": [{"code": "backend-down", "text": "ts2 of pool ts has been down for 40 s"}],
                },
                "queries": 5_000,
                "transports": {"udp": 4_990, "tls": 10},
                "responses": {"backend": 900, "cache": 4_000},
                "rcodes": {"NOERROR": 4_900, "other": 0},
                "failures": 3,
                "dropped": {"late": 2},
                "cache": {"hits": 4_000, "stale_hits": 0, "misses": 1_000},
                "pools": [{
                    "name": "ts", "queries": 1_000, "attempts": 1_020, "in_flight": 7,
                    "p50_ms": 0.4, "p99_ms": 4.0, "p999_ms": 21.5,
                    "hedges": {"sent": 20, "won": 18, "denied": 1, "tokens": 9},
                    "backends": [{
                        "name": "ts2", "state": "down", "attempts": 12, "wins": 3, "errors": 1, "timeouts": 2,
                        "in_flight": 4, "p50_ms": null, "p99_ms": null, "flapping": true,
                    }],
                    "more_backends": 3,
                }],
            }),
        );
        let idle = serde_json::to_value(Second::default()).expect("plain data");
        assert_eq!(
            (&idle["cache"], &idle["verdict"]),
            (&Value::Null, &json!({"state": "well", "since": 0, "reasons": []}))
        );
    }

    #[test]
    fn a_second_of_an_older_server_is_read() {
        let mut second = serde_json::to_value(Second::default()).expect("plain data");
        let fields = second.as_object_mut().expect("an object");
        for field in ["transports", "rcodes", "failures"] {
            assert!(fields.remove(field).is_some(), "{field}");
        }
        assert_eq!(serde_json::from_value::<Second>(second).expect("a second"), Second::default());
    }

    #[test]
    fn a_history_has_an_array_for_each_figure() {
        let pool = PoolHistory {
            name: "ts".to_owned(),
            queries: vec![None, Some(8)],
            attempts: vec![None, Some(9)],
            in_flight: vec![None, Some(1)],
            p50_ms: vec![None, Some(0.5)],
            p99_ms: vec![None, Some(2.0)],
            p999_ms: vec![None, Some(3.0)],
            hedges: HedgeFigures {
                sent: vec![None, Some(1)],
                won: vec![None, Some(1)],
                denied: vec![None, Some(0)],
                tokens: vec![None, Some(10)],
            },
            backends: vec![BackendHistory {
                name: "ts1".to_owned(),
                p50_ms: vec![Some(0.4)],
                p99_ms: vec![None],
                errors: vec![Some(0)],
                timeouts: vec![Some(2)],
            }],
            more_backends: 0,
        };
        let history = HistoryFigures {
            step_seconds: 1,
            at: vec![100, 101],
            verdict: vec![VerdictState::Well, VerdictState::Trouble],
            answers: AnswerCounts {
                queries: vec![7, 8],
                transports: BTreeMap::from([("udp".to_owned(), vec![7, 8])]),
                responses: BTreeMap::from([("backend".to_owned(), vec![7, 7])]),
                rcodes: BTreeMap::from([("SERVFAIL".to_owned(), vec![0, 2])]),
                failures: vec![3, 4],
                dropped: BTreeMap::from([("late".to_owned(), vec![0, 1])]),
            },
            cache: Some(CacheLookups {
                hits: vec![None, Some(1)],
                stale_hits: vec![None, Some(0)],
                misses: vec![None, Some(7)],
            }),
            pools: vec![pool],
            more_pools: 0,
            backend_step_seconds: 10,
            backend_at: vec![100],
        };
        check(
            &history,
            json!({
                "step_seconds": 1,
                "at": [100, 101],
                "verdict": ["well", "trouble"],
                "queries": [7, 8],
                "transports": {"udp": [7, 8]},
                "responses": {"backend": [7, 7]},
                "rcodes": {"SERVFAIL": [0, 2]},
                "failures": [3, 4],
                "dropped": {"late": [0, 1]},
                "cache": {"hits": [null, 1], "stale_hits": [null, 0], "misses": [null, 7]},
                "pools": [{
                    "name": "ts", "queries": [null, 8], "attempts": [null, 9], "in_flight": [null, 1],
                    "p50_ms": [null, 0.5], "p99_ms": [null, 2.0], "p999_ms": [null, 3.0],
                    "hedges": {"sent": [null, 1], "won": [null, 1], "denied": [null, 0], "tokens": [null, 10]},
                    "backends": [{
                        "name": "ts1", "p50_ms": [0.4], "p99_ms": [null], "errors": [0], "timeouts": [2],
                    }],
                    "more_backends": 0,
                }],
                "more_pools": 0,
                "backend_step_seconds": 10,
                "backend_at": [100],
            }),
        );
    }

    #[test]
    fn the_last_minute_is_told_of_pools_and_backends() {
        let hedges = HedgesSecond { sent: 2, won: 1, denied: 0, tokens: 10 };
        let pool = PoolMinute { queries: 60, attempts: 62, p50_ms: Some(1.0), p99_ms: None, p999_ms: None, hedges };
        check(
            &pool,
            json!({
                "queries": 60, "attempts": 62, "p50_ms": 1.0, "p99_ms": null, "p999_ms": null,
                "hedges": {"sent": 2, "won": 1, "denied": 0, "tokens": 10},
            }),
        );
        let backend = BackendMinute { attempts: 31, hedges: 2, wins: 30, hedges_won: 1, ..BackendMinute::default() };
        check(
            &backend,
            json!({
                "attempts": 31, "hedges": 2, "wins": 30, "hedges_won": 1, "errors": 0, "timeouts": 0,
                "p50_ms": null, "p99_ms": null,
            }),
        );
    }

    #[test]
    fn the_worst_verdict_is_the_greatest() {
        let states = [VerdictState::Well, VerdictState::Watch, VerdictState::Trouble];
        assert!(states.is_sorted());
        for (state, key, label) in
            [(states[0], "well", "OK"), (states[1], "watch", "watch"), (states[2], "trouble", "trouble")]
        {
            assert_eq!(serde_json::to_value(state).expect("a word"), key);
            assert_eq!(state.label(), label);
        }
    }
}
