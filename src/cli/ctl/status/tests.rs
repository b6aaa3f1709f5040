//! Tests of the text of `ctl status`, `backends` and `processes`.

use super::*;
use crate::admin::status::{
    ByKind, CacheStats, CacheStatus, MembershipStatus, Percentiles, ProcessesStatus, ReloadStatus, ReloadingStatus,
    TransportStatus, WorkStatus,
};
use crate::control::observe::sight::live::{BackendMinute, HedgesSecond, PoolMinute, Reason, VerdictState};

fn sample() -> Status {
    let backend = |name: &str, state: &str, by_hand| BackendStatus {
        name: name.to_owned(),
        address: "192.0.2.1:53".parse().expect("an address"),
        transport: TransportStatus { word: "udp".to_owned(), open_connections: None, connection_problem: None },
        probe_problem: None,
        weight: 1,
        state: state.to_owned(),
        by_hand,
        by_hand_until: None,
        since: "2026-01-01T00:00:00Z".to_owned(),
        since_seconds: 90,
        work: WorkStatus {
            in_flight: 2,
            latency_ms: Percentiles { p50: Some(0.4), p95: Some(1.0), p99: Some(12.345) },
            latency_histogram: Vec::new(),
            attempts: ByKind { first: 10, hedge: 2, failover: 1, probe: Some(7) },
            wins: ByKind { first: 9, hedge: 1, failover: 0, probe: None },
            errors: 3,
            timeouts: 4,
            last_minute: (!by_hand).then_some(BackendMinute {
                attempts: 13,
                hedges: 2,
                wins: 10,
                hedges_won: 1,
                errors: 3,
                timeouts: 4,
                p50_ms: Some(0.4),
                p99_ms: Some(12.345),
            }),
        },
        membership: MembershipStatus::default(),
    };
    let hedges = HedgesSecond { sent: 2, won: 1, denied: 6, tokens: 9 };
    let minute =
        PoolMinute { queries: 11, attempts: 13, p50_ms: Some(0.5), p99_ms: Some(12.345), p999_ms: None, hedges };
    let pool = PoolStatus {
        name: "ts".to_owned(),
        in_flight: 5,
        duration_ms: Percentiles { p50: None, p95: None, p99: None },
        hedges_denied: 6,
        hedges_wasted: 8,
        last_minute: Some(minute),
        regret: None,
        tuning: None,
        min_up: 1,
        backends: vec![backend("192.0.2.1:53", "up", false), backend("b", "down", true)],
        sources: Vec::new(),
    };
    Status {
        verdict: Verdict { since: 1_767_225_600, ..Verdict::default() },
        version: "1.2.3".to_owned(),
        uptime_seconds: 93_784,
        workers: 2,
        pools: vec![pool],
        cache: None,
        service: ServiceStatus::default(),
        reloads: ReloadsStatus { edition: 1, ..ReloadsStatus::default() },
        processes: ProcessesStatus::default(),
    }
}

#[test]
fn processes_are_a_row_each() {
    let process = |pid, role: &str, problem: Option<&str>| ProcessStatus {
        pid,
        role: role.to_owned(),
        version: "1.2.3".to_owned(),
        edition: 4,
        since: "2026-01-01T00:00:00Z".to_owned(),
        since_seconds: 90,
        problem: problem.map(str::to_owned),
    };
    // No backslash before the first line, which would remove its leading blank.
    let expected = " PID  ROLE        VERSION  EDITION  FOR     PROBLEM
   7  supervisor  1.2.3          4  1m 30s  -
4711  failed      1.2.3          4  1m 30s  a.txt:1: wrong";
    let shown =
        processes(&[process(7, "supervisor", None), process(4711, "failed", Some("a.txt:1: wrong\nb.txt:2: wrong"))]);
    assert_eq!(shown, expected);
}

#[test]
fn a_status_is_the_verdict_a_line_and_two_tables() {
    let expected = "\
OK since 2026-01-01 00:00:00 UTC
hedgerow 1.2.3, up 1day 2h, 2 workers

in the last minute:
POOL  UP      IN FLIGHT  QUERIES  P50 ms  P99 ms  P99.9 ms  HEDGES  WON  DENIED  BUDGET
ts    1 of 2          5       11    0.50   12.35         -       2    1       6       9

POOL  BACKEND       ADDRESS       WEIGHT  STATE           FOR     IN FLIGHT  ATTEMPTS  HEDGES  WINS  ERRORS  TIMEOUTS  P50 ms  P99 ms
ts    192.0.2.1:53  192.0.2.1:53       1  up              1m 30s          2        13       2    10       3         4    0.40   12.35
ts    b             192.0.2.1:53       1  down (by hand)  1m 30s          2         -       -     -       -         -       -       -";
    let shown = status(&sample());
    assert_eq!(shown.lines().collect::<Vec<_>>(), expected.lines().collect::<Vec<_>>());
}

#[test]
fn regret_of_a_pool_follows_the_pools() {
    let mut status_of = sample();
    status_of.pools[0].regret = Some(RegretStatus {
        ratio: 1.05,
        percentile: 99.9,
        achieved_ms: 4.1,
        best_ms: 3.9,
        budget: 0.05,
        delay_ms: 2.0,
        probability: 0.8,
    });
    let shown = status(&status_of);
    let expected = "\n\nin the last 10 minutes:\nts: p99.9 4.10 ms; best possible with 5 %: 3.90 ms\n\nPOOL  BACKEND";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn hedges_of_auto_follow_the_pools() {
    let mut status_of = sample();
    let hedge =
        |backend: &str, delay_ms, probability| HedgeSnapshot { backend: backend.to_owned(), delay_ms, probability };
    let hedges = vec![hedge("a", 2.04, 1.0), hedge("b", 3.0, 0.5), hedge("c", 0.0, 0.0), hedge("d", 1.0, 1.0)];
    let tuning = TuningSnapshot { percentile: 99.9, expected_ms: Some(4.1), extra_load: 0.045, hedges };
    status_of.pools[0].tuning = Some(tuning);
    let shown = status(&status_of);
    let expected = "\n\nexpected by dispatch = \"auto\":\nts: p99.9 4.10 ms with 4.5 % more load; \
        hedges: 2.04 ms after a, 3.00 ms after b for 50 % of the races, none after c, and 1 more\n";
    assert!(shown.contains(expected), "{shown}");
}

#[test]
fn connections_are_told_where_there_can_be_any() {
    let mut status = sample();
    let by_tls = &mut status.pools[0].backends[1];
    by_tls.transport.word = "tls".to_owned();
    by_tls.transport.open_connections = Some(0);
    by_tls.transport.connection_problem = Some("its certificate has expired".to_owned());
    let shown = backends(&in_pools(&status));
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].ends_with("P99 ms  TRANSPORT  CONNECTIONS"), "{shown}");
    assert!(lines[1].ends_with("12.35  udp                  -"), "{shown}");
    assert!(lines[2].ends_with("-  tls                  0"), "{shown}");
    assert_eq!(lines[3..], ["b of pool ts cannot be connected to: its certificate has expired"]);
}

#[test]
fn reasons_of_the_verdict_come_first() {
    let reason = |code: &str, text: &str| Reason { code: code.to_owned(), text: text.to_owned() };
    let verdict = Verdict {
        state: VerdictState::Trouble,
        since: 1_767_225_600,
        reasons: vec![reason("pool-down", "no backend of pool ts is up"), reason("tail-high", "p99 of pool b is high")],
    };
    let expected = "\
trouble since 2026-01-01 00:00:00 UTC
  pool-down: no backend of pool ts is up
  tail-high: p99 of pool b is high
hedgerow 1.2.3, up 1day 2h, 2 workers
";
    assert!(status(&Status { verdict, ..sample() }).starts_with(expected));
}

#[test]
fn the_status_of_an_authority_has_queries_rcodes_and_zones() {
    let authority = Status {
        pools: Vec::new(),
        service: ServiceStatus {
            queries: 12,
            rcodes: [("NXDOMAIN", 3), ("NOERROR", 9)].map(|(rcode, count)| (rcode.to_owned(), count)).into(),
            zone_counts: ZoneCounts { primary: 2, served: 0, absent: 1, expired: 0 },
            ..ServiceStatus::default()
        },
        ..sample()
    };
    let expected = "queries 12  NOERROR 9  NXDOMAIN 3  SERVFAIL 0  REFUSED 0\nzones 3  primary 2  absent 1";
    assert_eq!(status(&authority).lines().skip(2).collect::<Vec<_>>().join("\n"), expected);
}

#[test]
fn reloads_are_told_below_the_first_lines() {
    let at = "2026-01-01T00:00:00Z".to_owned();
    let shown = |error: Option<&str>, reloading| {
        let reload = ReloadStatus { at: at.clone(), ok: error.is_none(), error: error.map(str::to_owned) };
        let status_of = Status { reloads: ReloadsStatus { edition: 3, reload: Some(reload), reloading }, ..sample() };
        status(&status_of).lines().skip(2).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(shown(None, None), format!("last reload at {at}, edition 3 is active"));
    let running = ReloadingStatus { for_seconds: 75, next_waits: true };
    assert_eq!(
        shown(Some("a.txt:1: wrong\nb.txt:2: wrong"), Some(running)),
        format!(
            "last reload at {at} FAILED, edition 3 is active: a.txt:1: wrong\n\
                 a reload has been reading for 1m 15s, another one waits"
        )
    );
}

#[test]
fn a_cache_is_shown_last() {
    let cache = CacheStatus { size_bytes: 1 << 20, stats: CacheStats::default(), prefetches: 0 };
    let shown = status(&Status { cache: Some(cache), ..sample() });
    let expected = format!("{}\n\n{}", status(&sample()), cache::stats(&cache));
    assert_eq!(shown, expected);
}

#[test]
fn a_server_without_pools_has_no_tables() {
    let status_without = Status { pools: Vec::new(), ..sample() };
    let expected = "OK since 2026-01-01 00:00:00 UTC\nhedgerow 1.2.3, up 1day 2h, 2 workers, no pools";
    assert_eq!(status(&status_without), expected);
}
