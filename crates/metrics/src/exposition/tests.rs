//! Tests of the text for Prometheus: each family, in both formats.

use std::time::SystemTime;

use dns::Transport;
use hedge::regret::{Regret, ReissueRule};

use super::super::aggregate::{Aggregate, Gauge};
use super::super::connections::{BackendConnectionCounts, CertificateSnapshot, ConnectionCounts, Limit};
use super::super::counters::{BackendCounts, PendingCounts, PoolCounts, ServerCounts};
use super::super::discovery::{MemberOrigin, SourceSnapshot, SourceState};
use super::super::frames::FrameSnapshot;
use super::super::histogram::Histogram;
use super::super::processes::{ProcessSnapshot, ProcessesSnapshot, Role, SupervisorSnapshot};
use super::super::snapshot::{
    AuthoritiesSnapshot, BackendState, CacheSnapshot, CacheStats, CatalogSnapshot, ExpiredZone, LastReload,
    MembershipSnapshot, ReloadSnapshot, RunSnapshot, ZonesSnapshot,
};
use super::*;

/// Returns a histogram of replies after these microseconds.
fn measured(micros: &[u64]) -> HistogramSnapshot {
    let histogram = Histogram::default();
    micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
    let mut snapshot = HistogramSnapshot::default();
    snapshot.collect(&histogram);
    snapshot
}

/// Returns counts by label: `first` and the numbers after it.
fn numbered<const N: usize>(first: u64) -> [u64; N] {
    std::array::from_fn(|place| first + place as u64)
}

/// Returns counts that differ from each other.
fn counts() -> ServerCounts {
    let mut responses = [[0; 24]; 7];
    for (source, counts) in responses.iter_mut().enumerate() {
        for rcode in [0, 2, 3, 5, 11] {
            counts[rcode] = (1_000 * rcode + source) as u64;
        }
        // Of the rcodes 23 and 3841.
        counts[23] = (3_864_000 + 2 * source) as u64;
    }
    let place = |transport: Transport| transport as u64;
    ServerCounts {
        queries: numbered(100),
        explained: 110,
        responses,
        failures: 111,
        dropped: numbered(120),
        cookies: numbered(140),
        connections: ConnectionCounts {
            http: numbered(3),
            open: Transport::ALL.map(|transport| Gauge(place(transport))),
            fates: Transport::ALL.map(|transport| numbered(10 * place(transport))),
            handshakes: Transport::ALL.map(|transport| numbered(20 * place(transport))),
        },
        taps: std::array::from_fn(|tap| numbered(150 + 2 * tap as u64)),
    }
}

/// Returns a snapshot with a value in every family.
fn sample() -> Snapshot {
    let backend = BackendSnapshot {
        name: "[::1]:53".to_owned(),
        address: "[::1]:53".parse().expect("an address"),
        weight: 1,
        state: BackendState::Draining,
        by_hand: false,
        by_hand_until: None,
        since: SystemTime::UNIX_EPOCH,
        probes: 13,
        counts: BackendCounts {
            attempts: [10, 11, 12],
            again: numbered(160),
            wins: [14, 15, 16],
            pending: PendingCounts { in_flight: Gauge(1), waited_for: Gauge(1) },
            errors: 17,
            unreachable: 40,
            timeouts: 18,
            lost_attempts: 71,
            decisions: 72,
            unsent: numbered(170),
            connections: Some(Box::new(BackendConnectionCounts {
                open: Gauge(180),
                made: numbered(181),
                lost: numbered(185),
                handshakes: measured(&[150, 0, 99]),
            })),
            latency: measured(&[150, 1_500, 20_000_000]),
        },
        connection_problem: None,
        probe_problem: None,
        membership: MembershipSnapshot::default(),
    };
    let pool = PoolSnapshot {
        name: "a \"b\"".to_owned(),
        counts: PoolCounts {
            in_flight: Gauge(19),
            duration: measured(&[]),
            hedges_denied: 20,
            hedges_wasted: 27,
            stale_replies: 28,
            slow_races: 28,
            prefetches: 39,
            fetches: numbered(40),
            divergences: numbered(66),
        },
        tokens: 54,
        divergent: 69,
        tuning: None,
        regret: Some(Regret {
            target: 0.999,
            budget: 0.05,
            achieved: Duration::from_millis(5),
            best: ReissueRule { delay: Duration::from_millis(2), probability: 0.8, time: Duration::from_millis(4) },
        }),
        min_up: 1,
        backends: vec![backend],
        sources: vec![SourceSnapshot {
            origin: MemberOrigin::Etcd,
            source: "etcd ts".to_owned(),
            state: SourceState::Stale,
            failure: Some("away".to_owned()),
            age: Some(Duration::from_millis(60_500)),
            members: 61,
            refused: Vec::new(),
            refused_count: 62,
            changes: numbered(63),
        }],
    };
    let idle = PoolSnapshot {
        name: "back\\slash\nline".to_owned(),
        counts: PoolCounts { duration: measured(&[1]), ..PoolCounts::default() },
        ..PoolSnapshot::default()
    };
    Snapshot {
        run: RunSnapshot {
            uptime: Duration::from_secs(1),
            workers: 2,
            tasks_lost: 45,
            worker_replacements: 46,
            backend_series: None,
        },
        counts: counts(),
        frames: vec![FrameSnapshot {
            interface: "eth0".to_owned(),
            taken: 73,
            passed: 74,
            in_dropped: 75,
            sent: 76,
            out_dropped: 77,
        }],
        certificates: vec![CertificateSnapshot {
            name: "main".to_owned(),
            file: "chain.pem".into(),
            names: Vec::new(),
            not_before: 0,
            not_after: 69,
            loaded: 0,
            error: None,
            loads: 70,
            refusals: 71,
        }],
        limited: vec![("ts1".to_owned(), Limit::Unsent, 40)],
        cache: Some(CacheSnapshot {
            size: 30,
            stats: CacheStats {
                entries: 31,
                bytes: 32,
                hits: 33,
                stale_hits: 34,
                failure_hits: 35,
                misses: 36,
                insertions: 37,
                evictions: 38,
            },
        }),
        pools: vec![pool, idle],
        reload: ReloadSnapshot {
            edition: 5,
            in_force_since: SystemTime::UNIX_EPOCH + Duration::from_secs(43),
            succeeded: 4,
            failed: 44,
            running: Some(Duration::ZERO),
            is_next_waiting: false,
            last: Some(LastReload { at: SystemTime::UNIX_EPOCH, error: Some("wrong".to_owned()) }),
        },
        processes: processes(),
        verdict: Some(2),
        rules: vec![("a \"b\"".to_owned(), 70)],
        authorities: AuthoritiesSnapshot {
            absent_zones: Vec::new(),
            expired_zones: vec![ExpiredZone { authority: "ts1".to_owned(), zone: "example.org.".to_owned() }],
            registered: vec![("ts1".to_owned(), true)],
            zones: vec![ZonesSnapshot {
                authority: "ts1".to_owned(),
                primary: 61,
                served: 62,
                absent: 63,
                expired: 64,
            }],
            catalogs: vec![CatalogSnapshot {
                authority: "ts1".to_owned(),
                catalog: "cat.example.".to_owned(),
                members: 65,
                state: "broken".to_owned(),
                reason: Some("it has no version".to_owned()),
            }],
        },
    }
}

/// Returns a supervisor and two standbys.
fn processes() -> ProcessesSnapshot {
    let since = SystemTime::UNIX_EPOCH;
    let process = |pid, role| ProcessSnapshot { pid, role, version: String::new(), edition: 5, since, problem: None };
    ProcessesSnapshot {
        supervisor: Some(SupervisorSnapshot { pid: 1, since, successions: 52 }),
        processes: vec![process(1, Role::Supervisor), process(2, Role::Standby), process(3, Role::Standby)],
        takeovers: [47, 48, 49, 50, 51],
        crashed_at: None,
    }
}

/// Returns the usage of a process with two workers.
fn usage() -> Usage {
    let workers = vec![(0, Duration::from_millis(1_500)), (1, Duration::from_secs(2))];
    let began = 1_764_066_000.25;
    Usage { cpu: Duration::from_nanos(1_100), workers, resident: 53, open_fds: 54, max_fds: Some(1_024), began }
}

/// Returns the sample lines that fulfil a condition.
fn samples(text: &str, condition: impl Fn(&str) -> bool) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#') && condition(line)).collect()
}

/// The files are what the crate `prometheus-client` wrote of the same numbers.
#[test]
fn text_is_as_recorded_in_both_formats() {
    for (format, recorded) in [
        (ExpositionFormat::Prometheus, include_str!("prometheus.txt")),
        (ExpositionFormat::OpenMetrics, include_str!("openmetrics.txt")),
    ] {
        let text = write(&sample(), &usage(), format);
        for (line, recorded) in text.lines().zip(recorded.lines()) {
            assert_eq!(line, recorded, "{format:?}");
        }
        assert!(text == recorded, "{format:?}");
    }
}

#[test]
fn tiny_and_huge_numbers_are_written_as_before() {
    for (value, expected) in [
        (0.0, "0.0"),
        (5e-7, "5e-7"),
        (1.1e-6, "0.0000011"),
        (20.00165, "20.00165"),
        (u64::MAX as f64, "18446744073709552000.0"),
    ] {
        assert_eq!(decimal(value), expected);
    }
}

/// The supervisor and the operating system count for themselves: a server does not carry these counters on.
#[test]
fn a_difference_of_a_snapshot_to_itself_has_no_counter_above_zero() {
    let sample = sample();
    let is_counter = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let is_of_others = ["hedgerow_takeovers_total", "hedgerow_successions_total", "process_cpu_seconds_total"];
        let is_by_itself = is_of_others.contains(&name) || name.starts_with("hedgerow_worker_cpu");
        ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) && !is_by_itself
    };
    let text = write(&sample.since(&sample), &usage(), ExpositionFormat::Prometheus);
    let counters = samples(&text, is_counter);
    assert!(!counters.is_empty());
    let grown: Vec<_> = counters.into_iter().filter(|line| !line.ends_with(" 0") && !line.ends_with(" 0.0")).collect();
    assert_eq!(grown, Vec::<&str>::new());
    let counters_of = |text: &str| samples(text, is_counter).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let all = write(&sample.since(&sample.since(&sample)), &usage(), ExpositionFormat::Prometheus);
    assert_eq!(
        counters_of(&all),
        counters_of(&write(&sample, &usage(), ExpositionFormat::Prometheus)),
        "nothing before takes nothing away"
    );
}

#[test]
fn histograms_have_fixed_bounds_and_agree_with_their_count() {
    let text = write(&sample(), &usage(), ExpositionFormat::Prometheus);
    let labels = r#"pool="a \"b\"",backend="[::1]:53"}"#;
    let lines = samples(&text, |line| line.starts_with("hedgerow_backend_latency_seconds"));
    assert_eq!(lines.len(), BOUNDS.len() + 3);
    for (name, bound, value) in [
        ("bucket", Some("0.0001"), "0"),
        ("bucket", Some("0.0002"), "1"),
        ("bucket", Some("0.001"), "1"),
        ("bucket", Some("0.002"), "2"),
        ("bucket", Some("10.0"), "2"),
        ("bucket", Some("+Inf"), "3"),
        ("count", None, "3"),
        ("sum", None, "20.00165"),
    ] {
        let le = bound.map(|bound| format!("le=\"{bound}\",")).unwrap_or_default();
        let expected = format!("hedgerow_backend_latency_seconds_{name}{{{le}{labels} {value}");
        assert!(lines.contains(&expected.as_str()), "{expected}\n{text}");
    }
    assert!(text.contains("hedgerow_query_duration_seconds_count{pool=\"a \\\"b\\\"\"} 0\n"), "{text}");
}

/// Checks that earlier numbers and the growth since then add up to the whole in the next process.
fn check_carry_over<T>(earlier: &T, empty: &T)
where
    T: Aggregate<Counted: Default> + Clone + PartialEq + std::fmt::Debug,
{
    let sum = |counters: &T::Counted| {
        let mut sum = empty.clone();
        sum.collect(counters);
        sum
    };
    let (worker, successor) = (T::Counted::default(), T::Counted::default());
    earlier.carry(&worker);
    earlier.carry(&worker);
    let whole = sum(&worker);
    assert_ne!(whole, *empty);
    earlier.carry(&successor);
    whole.since(earlier).carry(&successor);
    assert_eq!(sum(&successor), whole);
}

#[test]
fn every_counter_is_carried_over_to_the_unit() {
    let Snapshot { pools, counts, .. } = sample();
    check_carry_over(&counts, &ServerCounts::default());
    check_carry_over(&pools[0].counts, &PoolCounts::default());
    let empty = BackendCounts { connections: Some(Box::default()), ..BackendCounts::default() };
    check_carry_over(&pools[0].backends[0].counts, &empty);
}

#[test]
fn without_a_cache_there_is_nothing_of_it() {
    let text = write(&Snapshot { cache: None, ..sample() }, &usage(), ExpositionFormat::Prometheus);
    assert!(!text.contains("hedgerow_cache"), "{text}");
}

#[test]
fn backends_of_large_pools_have_no_series_but_their_sums() {
    let with = |backend_series| {
        let run = RunSnapshot { backend_series, ..sample().run };
        write(&Snapshot { run, ..sample() }, &usage(), ExpositionFormat::Prometheus)
    };
    for (most, is_reported) in [(None, true), (Some(1), true), (Some(0), false)] {
        let text = with(most);
        assert_eq!(text.contains("backend=\""), is_reported, "{most:?}");
        assert!(text.contains("hedgerow_pool_backends{pool=\"a \\\"b\\\"\",state=\"draining\"} 1"), "{text}");
    }
}

#[test]
fn the_format_is_what_was_asked_for() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    assert_eq!(ExpositionFormat::accepted_by(prometheus), ExpositionFormat::OpenMetrics);
    for other in ["", "*/*", "text/html,*/*", "text/plain;version=0.0.4"] {
        assert_eq!(ExpositionFormat::accepted_by(other), ExpositionFormat::Prometheus, "{other}");
    }
}
