//! The data that the page gets in its tests: seconds, histories and a status, written by the types of the
//! admin server.

use std::collections::BTreeMap;

use hedgerow::control::observe::sight::live::{
    AnswerCounts, BackendSecond, CacheLookups, CacheSecond, HedgeFigures, HedgesSecond, HistoryFigures, PoolHistory,
    PoolSecond, Reason, Second, Verdict, VerdictState,
};
use hedgerow::control::observe::sight::names::{ClientCount, NameCount, NamesReport};
use serde_json::{Value, json};

/// The moment at which histories end.
pub(super) const NOW: u64 = 1_767_225_600;

/// A name that would be markup, if anything made markup of it.
pub(super) const HOSTILE: &str = "<img src=x onerror=\"document.title='run'\">&amp;\u{202e}\u{7}";

/// The problem of a config.
pub(super) const WRONG: &str = "config.toml:14:1: pools.ts: unknown key \"fan_out\", did you mean \"fanout\"?\n   |\n14 | fan_out = 3\n   | ^^^^^^^\n";

/// A pool called `ts`, whose first backend is down unless all is well, and how many backends more it has.
pub(super) struct Fixture {
    pub(super) state: VerdictState,
    pub(super) backends: Vec<String>,
}

impl Fixture {
    pub(super) fn new(state: VerdictState, backends: &[&str]) -> Self {
        Self { state, backends: backends.iter().map(|&name| name.to_owned()).collect() }
    }

    fn verdict(&self) -> Verdict {
        let reason = |code: &str, text: &str| Reason { code: code.to_owned(), text: text.to_owned() };
        let reasons = match self.state {
            VerdictState::Well => Vec::new(),
            VerdictState::Watch => vec![reason("backend-down", "ts1 of pool ts has been down for 40 s")],
            VerdictState::Trouble => vec![
                reason("made-up", "3 % of the answers were made up"),
                reason("backend-down", "ts1 of pool ts has been down for 40 s"),
            ],
        };
        Verdict { state: self.state, since: NOW - 39, reasons }
    }

    /// Of the backend in this place.
    fn state_of(&self, place: usize) -> &'static str {
        if place == 0 && self.state != VerdictState::Well { "down" } else { "up" }
    }

    /// A second that ends then.
    pub(super) fn second(&self, at: u64) -> Value {
        let shown = self.backends.iter().take(64).enumerate();
        let backends = shown.map(|(place, name)| BackendSecond {
            name: name.clone(),
            state: self.state_of(place).to_owned(),
            attempts: 10,
            wins: 9,
            in_flight: 1,
            p50_ms: Some(0.4),
            p99_ms: Some(3.0),
            is_flapping: self.state == VerdictState::Trouble && place == 2,
            ..BackendSecond::default()
        });
        let pool = PoolSecond {
            name: "ts".to_owned(),
            queries: queries(at),
            attempts: queries(at) + 20,
            in_flight: 7,
            p50_ms: Some(0.5),
            p99_ms: Some(212.0),
            p999_ms: Some(850.0),
            hedges: HedgesSecond { sent: 20, won: 18, denied: 1, tokens: 9 },
            backends: backends.collect(),
            more_backends: self.backends.len().saturating_sub(64) as u64,
        };
        let second = Second {
            at,
            verdict: self.verdict(),
            answers: AnswerCounts {
                queries: queries(at),
                transports: counts(&[("udp", queries(at) - 130), ("tcp", 30), ("tls", 60), ("quic", 40)]),
                responses: counts(&[("backend", 300), ("cache", 600), ("synthesized", 30), ("authority", 0)]),
                rcodes: counts(&[("NOERROR", 700), ("NXDOMAIN", 137), ("SERVFAIL", 93), ("REFUSED", 0), ("other", 0)]),
                failures: 93,
                dropped: counts(&[("malformed", 1), ("late", 4)]),
            },
            cache: Some(CacheSecond { hits: 600, stale_hits: 0, misses: 330 }),
            pools: vec![pool],
        };
        serde_json::to_value(second).expect("plain data")
    }

    /// So many steps of so many seconds, up to [`NOW`]. All was well before the last 40.
    pub(super) fn history(&self, steps: u64, step_seconds: u64) -> Value {
        let at: Vec<u64> =
            (0..steps).map(|step| NOW - NOW % step_seconds - (steps - 1 - step) * step_seconds).collect();
        let each = |value: u64| vec![value * step_seconds; at.len()];
        let some = |value: u64| vec![Some(value * step_seconds); at.len()];
        let time = |value: f64| vec![Some(value); at.len()];
        let verdict = (0..steps).map(|step| if step + 40 < steps { VerdictState::Well } else { self.state });
        let counted: Vec<u64> = at.iter().map(|&at| queries(at) * step_seconds).collect();
        let pool = PoolHistory {
            name: "ts".to_owned(),
            queries: counted.iter().copied().map(Some).collect(),
            attempts: some(1_020),
            in_flight: vec![Some(7); at.len()],
            p50_ms: time(0.5),
            p99_ms: time(212.0),
            p999_ms: time(850.0),
            hedges: HedgeFigures { sent: some(20), won: some(18), denied: some(1), tokens: vec![Some(9); at.len()] },
            ..PoolHistory::default()
        };
        let history = HistoryFigures {
            step_seconds,
            verdict: verdict.collect(),
            answers: AnswerCounts {
                transports: BTreeMap::from([("udp".to_owned(), counted.clone()), ("quic".to_owned(), each(40))]),
                queries: counted,
                rcodes: BTreeMap::from([("NOERROR".to_owned(), each(700)), ("NXDOMAIN".to_owned(), each(137))]),
                responses: BTreeMap::from([
                    ("backend".to_owned(), each(300)),
                    ("cache".to_owned(), each(600)),
                    ("synthesized".to_owned(), each(30)),
                ]),
                failures: each(93),
                dropped: BTreeMap::from([("malformed".to_owned(), each(1)), ("late".to_owned(), each(4))]),
            },
            cache: Some(CacheLookups { hits: some(600), stale_hits: some(0), misses: some(330) }),
            pools: vec![pool],
            at,
            ..HistoryFigures::default()
        };
        serde_json::to_value(history).expect("plain data")
    }

    /// The status, after a reload that failed unless all is well.
    pub(super) fn status(&self) -> Value {
        let backends = self.backends.iter().enumerate().map(|(place, name)| {
            let is_up = self.state_of(place) == "up";
            json!({
                "name": name, "address": "192.0.2.1:53", "weight": 1, "state": self.state_of(place), "by_hand": false,
                "since": "2025-12-31T22:00:00Z", "since_seconds": if is_up { 8_000 } else { 40 }, "in_flight": 1,
                "last_minute": {
                    "attempts": 600, "hedges": 9, "wins": 540, "hedges_won": 8, "errors": if is_up { 0 } else { 12 },
                    "timeouts": 0, "p50_ms": 0.4, "p99_ms": if is_up { Some(3.0) } else { None },
                },
            })
        });
        let reload = json!({"at": "2025-12-31T23:50:00Z", "ok": false, "error": WRONG});
        json!({
            "version": "1.2.3", "uptime_seconds": 98_765, "workers": 4, "edition": 3,
            "reload": if self.state == VerdictState::Well { Value::Null } else { reload },
            "processes": [{"pid": 12, "role": "failed", "problem": "zones/a.txt:1: wrong"}],
            "pools": [{
                "name": "ts", "in_flight": 7, "backends": backends.collect::<Vec<_>>(),
                "last_minute": {
                    "queries": 60_000, "attempts": 61_200, "p50_ms": 0.5, "p99_ms": 212.0, "p999_ms": 850.0,
                    "hedges": {"sent": 1_200, "won": 1_080, "denied": 60, "tokens": 9},
                },
                "sources": [{
                    "kind": "etcd", "state": "doubted", "age_seconds": 75, "members": 3,
                    "refused": [{"entry": HOSTILE, "reason": "no address"}],
                }],
            }, {
                "name": "rare", "in_flight": 0, "backends": [],
                "last_minute": {"queries": 100, "attempts": 100, "p50_ms": 40.0, "p99_ms": 90.0, "p999_ms": 90.0},
            }],
            "zones": [{"authority": "ts1", "name": "example.org", "state": "expired", "serial": 2_025_010_101}],
        })
    }

    /// All that the page asks for, by path.
    pub(super) fn answers(&self) -> Vec<(&'static str, (u16, Value))> {
        vec![
            ("/api/v1/history?span=10m", (200, self.history(600, 1))),
            ("/api/v1/history?span=24h", (200, self.history(1_440, 60))),
            ("/api/v1/status", (200, self.status())),
            ("/api/v1/slow", (200, races())),
            ("/api/v1/names", (200, names())),
        ]
    }
}

/// Queries in the second that ends then.
fn queries(at: u64) -> u64 {
    1_000 + at % 60
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

/// Two names of one client, and a third that got SERVFAIL.
fn names() -> Value {
    let count = |name: &str, queries| NameCount { name: name.to_owned(), qtype: "A".to_owned(), queries, error: 16 };
    let client = |client: &str, queries| ClientCount { client: client.parse().expect("an address"), queries, error: 0 };
    let report = NamesReport {
        names: vec![count("www.example.org.", 3_200), count(HOSTILE, 160)],
        servfail: vec![count("broken.example.", 48)],
        clients: vec![client("192.0.2.7", 3_200), client("2001:db8::7", 160)],
    };
    serde_json::to_value(report).expect("plain data")
}

/// A slow race each second of the last ten minutes, the newest first.
fn races() -> Value {
    let race = |ago: u64| {
        json!({
            "at": (NOW - ago) as f64 - 0.25, "pool": "ts", "name": HOSTILE, "type": "A", "took_ms": 182.5, "outcome": "won", "winner": "ts2",
            "rcode": "NOERROR", "waiters": 1, "hedges_denied": 1,
            "why": "ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms",
            "attempts": [
                {"backend": "ts1", "kind": "first", "at_ms": 0.0, "took_ms": null, "fate": "silent", "rank": null},
                {"backend": "ts2", "kind": "hedge", "at_ms": 180.0, "took_ms": 2.5, "fate": "won", "rank": "answer"},
            ],
        })
    };
    json!({ "races": (0..600).map(race).collect::<Vec<_>>() })
}
