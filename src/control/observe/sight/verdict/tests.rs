//! Tests of the verdict: each rule on both sides of each of its bounds, and the healthy cases.

use std::time::{Duration, SystemTime};

use metrics::{LastReload, MemberOrigin};

use super::*;

/// Facts of a healthy server, and the data they refer to.
struct Case {
    snapshot: Snapshot,
    crashed_for: Option<Duration>,
    queries: u64,
    overload: u64,
    answered: u64,
    made_up: u64,
    usual: Option<AnswerShare>,
    failures: u64,
    usual_failures: Option<AnswerShare>,
    pools: Vec<PoolFacts<'static>>,
    taps: Vec<TapFacts>,
}

impl Default for Case {
    /// One pool of two backends, an hour after the start.
    fn default() -> Self {
        let pool = PoolFacts {
            name: "ts",
            measured: 60_000,
            slow: 0,
            p99: Some(4_000),
            usual_p99: Some(4_000),
            hedges_sent: 100,
            hedges_denied: 0,
            divergent: 0,
            sources: &[],
            backends: vec![backend("ts1"), backend("ts2")],
        };
        Self {
            snapshot: Snapshot::default(),
            crashed_for: None,
            queries: 10_000,
            overload: 0,
            answered: 10_000,
            made_up: 0,
            usual: Some(AnswerShare { part: 0, answered: 3_600_000 }),
            failures: 0,
            usual_failures: Some(AnswerShare { part: 36_000, answered: 3_600_000 }),
            pools: vec![pool],
            taps: vec![TapFacts { name: "query_log", written: 60_000, dropped: 0 }],
        }
    }
}

/// Returns a healthy backend.
fn backend(name: &'static str) -> BackendFacts<'static> {
    BackendFacts {
        name,
        state: BackendState::Up,
        by_hand: false,
        state_for: Duration::from_secs(7_260),
        flaps: None,
        failed: None,
        slow_for: 0,
        p50: Some(1_000),
        usual_p50: Some(1_000),
    }
}

impl Case {
    /// Returns the state with the codes and sentences.
    fn reasons(&self) -> (VerdictState, Vec<(String, String)>) {
        let share = |part, usual| RecentShare { now: AnswerShare { part, answered: self.answered }, usual };
        let facts = Facts {
            queries: self.queries,
            overload: self.overload,
            made_up: share(self.made_up, self.usual),
            failures: share(self.failures, self.usual_failures),
            pools: self.pools.clone(),
            taps: self.taps.clone(),
            snapshot: &self.snapshot,
            crashed_for: self.crashed_for,
        };
        let verdict = judge(&facts);
        (verdict.state, verdict.reasons.into_iter().map(|reason| (reason.code, reason.text)).collect())
    }

    /// Checks that exactly this rule applies, with this sentence.
    fn check(&self, state: VerdictState, code: &str, text: &str) {
        assert_eq!(self.reasons(), (state, vec![(code.to_owned(), text.to_owned())]));
    }

    /// Checks that no rule applies.
    fn check_well(&self) {
        assert_eq!(self.reasons(), (VerdictState::Well, Vec::new()));
    }
}

/// Returns a case with a change to the default.
fn with(change: impl FnOnce(&mut Case)) -> Case {
    let mut case = Case::default();
    change(&mut case);
    case
}

use VerdictState::{Trouble, Watch};

#[test]
fn an_ordinary_hour_a_start_and_an_idle_night_are_well() {
    Case::default().check_well();
    with(|case| {
        // No usual share is known, and clients ask for unknown names.
        (case.usual, case.made_up) = (None, 5_000);
        let pool = &mut case.pools[0];
        (pool.usual_p99, pool.slow, pool.measured) = (None, 0, 60_000);
        pool.backends[0].usual_p50 = None;
    })
    .check_well();
    with(|case| {
        (case.queries, case.answered, case.made_up) = (2, 2, 2);
        let pool = &mut case.pools[0];
        (pool.measured, pool.p99, pool.hedges_sent) = (0, None, 0);
        (pool.backends[0].p50, pool.backends[1].p50) = (None, None);
    })
    .check_well();
    with(|case| case.pools.clear()).check_well();
}

#[test]
fn responses_that_are_failures_are_trouble() {
    let failing = |failures, answered, is_known| {
        with(|case| {
            (case.failures, case.answered) = (failures, answered);
            case.usual_failures = case.usual_failures.filter(|_| is_known);
        })
    };
    let text = "100 % of the responses were SERVFAIL or REFUSED in the last 10 s (20 of 20)";
    failing(20, 20, false).check(Trouble, "failing", text);
    failing(19, 19, false).check_well();
    failing(50, 100, false).check_well();
    failing(100, 10_000, true).check_well();
    failing(299, 10_000, true).check_well();
    let text = "3.0 % of the responses were SERVFAIL or REFUSED in the last 10 s (300 of 10000); 1.0 % is usual";
    failing(300, 10_000, true).check(Trouble, "failing", text);
}

#[test]
fn a_backend_that_is_down_is_watched_unless_an_operator_set_it() {
    let down = |state, by_hand| {
        with(|case| {
            let backend = &mut case.pools[0].backends[1];
            (backend.state, backend.by_hand, backend.state_for) = (state, by_hand, Duration::from_secs(40));
        })
    };
    down(BackendState::Down, false).check(Watch, "backend-down", "ts2 of pool ts has been down for 40 s");
    down(BackendState::Down, true).check_well();
    down(BackendState::Draining, false).check_well();
    down(BackendState::New, false).check_well();
    let many = with(|case| {
        let backends = &mut case.pools[0].backends;
        backends.extend(["ts3", "ts4", "ts5"].map(backend));
        for backend in &mut backends[1..] {
            (backend.state, backend.state_for) = (BackendState::Down, Duration::from_secs(3_700));
        }
    });
    let text = "4 of 5 backends of pool ts are down: ts2 has been down for 1 h 1 min, ts3 has been down for 1 h 1 min, \
                ts4 has been down for 1 h 1 min and 1 more";
    many.check(Watch, "backend-down", text);
}

#[test]
fn a_pool_without_a_backend_that_is_up_is_trouble() {
    let case = |one, other| {
        with(|case| {
            (case.pools[0].backends[0].state, case.pools[0].backends[1].state) = (one, other);
            case.pools[0].backends[1].state_for = Duration::from_secs(61);
        })
    };
    let text = "no backend of pool ts is up: ts1 has been down for 2 h 1 min, ts2 has been down for 1 min 1 s";
    case(BackendState::Down, BackendState::Down).check(Trouble, "pool-down", text);
    let text = "no backend of pool ts is up: ts1 has been new for 2 h 1 min, ts2 has been draining for 1 min 1 s";
    case(BackendState::New, BackendState::Draining).check(Trouble, "pool-down", text);
    case(BackendState::New, BackendState::New).check_well();
    case(BackendState::Up, BackendState::Draining).check_well();
    assert_eq!(case(BackendState::Up, BackendState::Down).reasons().0, Watch);
    with(|case| case.pools[0].backends.clear()).check_well();
}

#[test]
fn a_rise_of_made_up_answers_is_trouble() {
    let case = |made_up, answered, usual: (u64, u64)| {
        with(|case| {
            (case.made_up, case.answered) = (made_up, answered);
            case.usual = Some(AnswerShare { part: usual.0, answered: usual.1 });
        })
    };
    let none = (0, 100_000);
    case(300, 10_000, none).check(
        Trouble,
        "made-up",
        "backends left 3.0 % of the queries unanswered in the last 10 s (300 of 10000); 0.0 % is usual",
    );
    // 1 %, and ten of them.
    assert_eq!(case(100, 10_000, none).reasons().0, Trouble);
    case(99, 10_000, none).check_well();
    assert_eq!(case(10, 20, none).reasons().0, Trouble);
    case(9, 20, none).check_well();
    // Three times the usual share.
    let some = (5_000, 100_000);
    case(1_499, 10_000, some).check_well();
    assert_eq!(case(1_501, 10_000, some).reasons().0, Trouble);
    // Halfway to all, where much is usual: an authority that is silent on unknown names.
    let much = (40_000, 100_000);
    case(6_999, 10_000, much).check_well();
    assert_eq!(case(7_001, 10_000, much).reasons().0, Trouble);
    // Six standard deviations and ten more, where there are few: 5 + 6 * 2.24 + 10 = 28.4.
    case(28, 100, some).check_well();
    assert_eq!(case(29, 100, some).reasons().0, Trouble);
}

#[test]
fn any_made_up_answer_is_trouble_while_no_backend_is_up() {
    let case = |made_up| {
        with(|case| {
            (case.made_up, case.answered, case.usual) = (made_up, 4, None);
            case.pools[0].backends.iter_mut().for_each(|backend| backend.state = BackendState::Down);
        })
    };
    let codes = |case: Case| case.reasons().1.into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    assert_eq!(codes(case(0)), ["pool-down"]);
    assert_eq!(codes(case(1)), ["pool-down", "made-up"]);
    let text =
        "backends left 25 % of the queries unanswered in the last 10 s (1 of 4), and no backend of pool ts is up";
    assert_eq!(case(1).reasons().1[1].1, text);
}

#[test]
fn drops_by_overload_are_trouble() {
    let case = |overload, queries| with(|case| (case.overload, case.queries) = (overload, queries));
    let text = "20 queries were dropped in the last 10 s (0.1 %): more arrived than this server can answer";
    case(20, 20_000).check(Trouble, "overload", text);
    case(19, 20_000).check_well();
    case(9, 9).check_well();
    assert_eq!(case(10, 10).reasons().0, Trouble);
    // Messages that are dropped before they are counted.
    assert_eq!(case(10, 0).reasons().0, Trouble);
}

#[test]
fn a_zone_that_has_expired_is_trouble() {
    let expired = |zones: &[&str]| {
        with(|case| {
            let zone = |zone: &&str| ExpiredZone { authority: "ts1".to_owned(), zone: (*zone).to_owned() };
            case.snapshot.authorities.expired_zones = zones.iter().map(zone).collect();
        })
    };
    expired(&[]).check_well();
    let text = "zone a.example. of authority ts1 has expired: no primary has confirmed the data in time";
    expired(&["a.example."]).check(Trouble, "zone-expired", text);
    let text = "zones a., b., c. and 1 more of authority ts1 have expired: no primary has confirmed the data in time";
    expired(&["a.", "b.", "c.", "d."]).check(Trouble, "zone-expired", text);
}

#[test]
fn a_zone_that_has_never_come_is_trouble() {
    let zone = ExpiredZone { authority: "ts1".to_owned(), zone: "a.example.".to_owned() };
    let text = "zone a.example. of authority ts1 has no data: no transfer has succeeded";
    with(|case| case.snapshot.authorities.absent_zones = vec![zone]).check(Trouble, "zone-absent", text);
}

#[test]
fn a_backend_that_flaps_is_watched_for_five_minutes() {
    let flaps = |within, ago| {
        let (within, ago) = (Duration::from_secs(within), Duration::from_secs(ago));
        with(|case| case.pools[0].backends[1].flaps = Some(Flaps { within, ago }))
    };
    let text = "ts2 of pool ts flaps: it changed between up and down four times in 5 min, the last time 4 min 59 s ago";
    flaps(300, 299).check(Watch, "flapping", text);
    flaps(301, 0).check_well();
    flaps(300, 300).check_well();
}

#[test]
fn a_backend_that_fails_is_watched_while_it_is_up() {
    let failed = |state, ago| {
        let failed = FailedAttempts { attempts: 40, failures: 35, ago: Duration::from_secs(ago) };
        with(|case| (case.pools[0].backends[1].state, case.pools[0].backends[1].failed) = (state, Some(failed)))
    };
    let text = "ts2 of pool ts fails: 88 % of its attempts failed in 10 s (35 of 40)";
    failed(BackendState::Up, 0).check(Watch, "backend-failing", text);
    failed(BackendState::Up, 299).check(Watch, "backend-failing", &format!("{text}, 4 min 59 s ago"));
    failed(BackendState::Up, 300).check_well();
    assert_eq!(failed(BackendState::Down, 0).reasons().1.len(), 1, "down is enough");
    for (attempts, failures, expected) in [(19, 19, None), (20, 10, Some(false)), (20, 11, Some(true))] {
        assert_eq!(is_failing(&FailedAttempts { attempts, failures, ago: Duration::ZERO }), expected);
    }
}

#[test]
fn a_slow_backend_is_watched_while_it_is_up() {
    let slow = |state, slow_for| {
        with(|case| {
            let backend = &mut case.pools[0].backends[1];
            (backend.state, backend.slow_for, backend.p50) = (state, slow_for, Some(212_000));
        })
    };
    let text = "ts2 of pool ts has been slow for 40 s: its median is 212 ms, 1.0 ms is usual";
    slow(BackendState::Up, 40).check(Watch, "backend-slow", text);
    slow(BackendState::Up, 0).check_well();
    assert_eq!(slow(BackendState::Down, 40).reasons().1.len(), 1, "down is enough");
}

#[test]
fn slow_is_five_times_what_is_usual_and_20_ms_more() {
    for (usual, now, expected) in [
        (1_000, 20_999, false),
        (1_000, 21_000, true),
        (5_000, 24_999, false),
        (5_000, 25_000, true),
        (100_000, 499_999, false),
        (100_000, 500_000, true),
    ] {
        assert_eq!(is_slow(usual, now), expected, "{usual} {now}");
    }
}

#[test]
fn a_high_tail_is_watched() {
    let tail = |slow, measured| {
        with(|case| {
            let pool = &mut case.pools[0];
            (pool.slow, pool.measured, pool.p99) = (slow, measured, Some(212_000));
        })
    };
    let text = "p99 of pool ts was 212 ms in the last minute, 4.0 ms in the hour before";
    tail(1_800, 60_000).check(Watch, "tail-high", text);
    tail(1_799, 60_000).check_well();
    tail(29, 100).check_well();
    assert_eq!(tail(30, 100).reasons().0, Watch);
    assert_eq!((slow_bound(4_000), slow_bound(6_000), slow_bound(10_000)), (24_000, 26_000, 40_000));
}

#[test]
fn denied_hedges_are_watched() {
    let hedges = |denied, sent| with(|case| (case.pools[0].hedges_denied, case.pools[0].hedges_sent) = (denied, sent));
    let text = "41 hedges of pool ts were denied in the last 10 s, 40 were sent: the budget is spent";
    hedges(41, 40).check(Watch, "hedges-denied", text);
    hedges(40, 40).check_well();
    hedges(19, 0).check_well();
    assert_eq!(hedges(20, 0).reasons().0, Watch);
}

#[test]
fn replicas_that_disagree_are_watched() {
    let divergent = |count| with(|case| case.pools[0].divergent = count);
    divergent(1).check(Watch, "divergence", "backends of pool ts answer 1 question differently");
    divergent(3).check(Watch, "divergence", "backends of pool ts answer 3 questions differently");
    divergent(0).check_well();
}

#[test]
fn a_failed_reload_is_watched_until_one_succeeds() {
    let reload = |error: Option<&str>| {
        with(|case| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
            case.snapshot.reload.last = Some(LastReload { at, error: error.map(str::to_owned) });
            case.snapshot.reload.edition = 4;
        })
    };
    reload(None).check_well();
    let text =
        "the reload at 2026-01-01T00:00:00Z failed, edition 4 still applies: config.toml:14:1: pools.ts: unknown key";
    reload(Some("config.toml:14:1: pools.ts: unknown key\n  |")).check(Watch, "reload-failed", text);
}

#[test]
fn a_tap_that_drops_records_is_watched() {
    let taps = |dropped, written| with(|case| case.taps = vec![TapFacts { name: "query_log", written, dropped }]);
    taps(10, 990).check(Watch, "tap-drops", "10 records of query_log were dropped in the last minute (1.0 %)");
    taps(10, 991).check_well();
    taps(9, 0).check_well();
    assert_eq!(taps(10, 0).reasons().0, Watch);
    with(|case| case.taps = vec![TapFacts { name: "slow", written: 100, dropped: 900 }]).check_well();
}

#[test]
fn a_crash_is_watched_for_ten_minutes() {
    let crashed = |seconds| with(|case| case.crashed_for = Some(Duration::from_secs(seconds)));
    let text = "a server process crashed or hung 9 min 59 s ago, and a standby took over";
    crashed(599).check(Watch, "process-crashed", text);
    crashed(600).check_well();
}

#[test]
fn the_gravest_comes_first_and_there_are_not_too_many() {
    let all = with(|case| {
        let pool = case.pools[0].clone();
        for number in 0..100_u32 {
            let mut pool = pool.clone();
            pool.backends[usize::from(number % 2 == 0)].state = BackendState::Down;
            case.pools.push(pool);
        }
        case.snapshot.reload.last = Some(LastReload { at: SystemTime::UNIX_EPOCH, error: Some(String::new()) });
        case.overload = 1_000;
    });
    let (state, reasons) = all.reasons();
    assert_eq!((state, reasons.len(), &*reasons[0].0, &*reasons[1].0), (Trouble, 32, "overload", "backend-down"));
    assert!(RULES.is_sorted_by_key(|rule| std::cmp::Reverse(rule.state)));
}

/// The docs describe each rule of the table, in its order.
#[test]
fn rules_stand_in_the_docs() {
    let text = include_str!("../../../../../docs/src/verdict.md");
    let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    assert_eq!(found.len(), RULES.len());
    for (row, rule) in found.iter().zip(RULES) {
        let expected = format!("{}` | {} | ", rule.code, rule.state.label());
        assert!(row.starts_with(&expected), "{expected}: {row}");
    }
}

#[test]
fn sources_that_are_not_confirmed_are_reported() {
    let source = |state, age: Option<u64>, failure: Option<&str>| {
        let sources = vec![SourceSnapshot {
            origin: MemberOrigin::Etcd,
            source: "ts".to_owned(),
            state,
            failure: failure.map(str::to_owned),
            age: age.map(Duration::from_secs),
            members: 3,
            refused: Vec::new(),
            refused_count: 0,
            changes: [0; 3],
        }];
        // Leaked, because it must live as long as the tests.
        with(|case| case.pools[0].sources = Vec::leak(sources))
    };
    source(SourceState::Fresh, Some(0), None).check_well();
    source(SourceState::Stale, Some(9), Some("no route")).check_well();
    source(SourceState::Never, None, None).check_well();
    let text = "source etcd ts of pool ts has been stale for 10 s: no route";
    source(SourceState::Stale, Some(10), Some("no route")).check(Watch, "source-stale", text);
    let text = "source etcd ts of pool ts has never answered: no route";
    source(SourceState::Never, None, Some("no route")).check(Watch, "source-stale", text);
    let text = "source etcd ts of pool ts is doubted: it lists fewer than half of the backends that are up";
    source(SourceState::Doubted, Some(1), None).check(Watch, "source-stale", text);
}

#[test]
fn a_backend_that_is_behind_is_reported_and_no_pool_is_down_for_it() {
    let behind = |count: usize| {
        with(|case| {
            case.pools[0].backends[..count].iter_mut().for_each(|backend| {
                (backend.state, backend.state_for) = (BackendState::Behind, Duration::from_secs(40));
            });
        })
    };
    behind(0).check_well();
    let text = "ts1 of pool ts has been behind for 40 s: one of its zones is older than on other backends";
    behind(1).check(Watch, "backend-behind", text);
    let text = "2 of 2 backends of pool ts are behind: ts1 has been behind for 40 s, ts2 has been behind for 40 s";
    behind(2).check(Watch, "backend-behind", text);
}
