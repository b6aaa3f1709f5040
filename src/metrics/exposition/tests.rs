//! Tests of the text for Prometheus: each family, in both formats.

use super::super::backend_connections::BackendConnectionsSnapshot;
use super::super::connections::{CertificateSnapshot, ConnectionFate, ConnectionsSnapshot, HttpStatus, ShakenBy};
use super::super::counters::{CookieKind, DropReason, ResponseSource, Tap, TapFate};
use super::super::discovery::{DISCOVERY_COUNTERS, MemberOrigin, SourceSnapshot, SourceState};
use super::super::histogram::Histogram;
use super::super::limited::Limit;
use super::super::processes::{ProcessSnapshot, SupervisorSnapshot};
use super::super::snapshot::{AttemptCounts, BackendState, ExpiredZone, LastReload, Wins};
use super::super::xdp::XdpSnapshot;
use super::*;
use crate::wire::Transport;

/// Returns a histogram of replies after these microseconds.
fn measured(micros: &[u64]) -> HistogramSnapshot {
    let histogram = Histogram::default();
    micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
    let mut snapshot = HistogramSnapshot::default();
    snapshot.add(&histogram);
    snapshot
}

/// Returns a snapshot with a value in every family.
fn sample() -> Snapshot {
    let backend = BackendSnapshot {
        name: "[::1]:53".to_owned(),
        address: "[::1]:53".parse().expect("an address"),
        weight: 1,
        state: BackendState::Draining,
        by_hand: false,
        since: SystemTime::UNIX_EPOCH,
        in_flight: 1,
        attempts: AttemptCounts { first: 10, hedge: 11, failover: 12, probe: 13 },
        wins: Wins { first: 14, hedge: 15, failover: 16 },
        again: vec![(Cause::Case, 40)],
        errors: 17,
        timeouts: 18,
        lost_attempts: 71,
        decisions: 72,
        unsent: vec![(Want::Ports, 40)],
        unreachable: 40,
        connections: None,
        latency: measured(&[150, 1_500, 20_000_000]),
        origin: Vec::new(),
        is_listed: false,
        order: None,
    };
    let pool = PoolSnapshot {
        name: "a \"b\"".to_owned(),
        in_flight: 19,
        duration: measured(&[]),
        hedges_denied: 20,
        tokens: 54,
        hedges_wasted: 27,
        stale_replies: 28,
        slow_races: 28,
        prefetches: 39,
        fetches: [40, 41, 42],
        divergences: [66, 67, 68],
        divergent: 69,
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
            changes: [63, 64, 65],
        }],
    };
    Snapshot {
        failures: 0,
        absent_zones: Vec::new(),
        uptime: Duration::from_secs(1),
        workers: 2,
        queries: vec![(Transport::Udp, 21), (Transport::Tcp, 22)],
        explained: 23,
        responses: vec![
            (ResponseSource::Backend, 0, 23),
            (ResponseSource::Synthesized, 3, 24),
            (ResponseSource::Error, 3841, 25),
        ],
        dropped: vec![(DropReason::Late, 26)],
        cookies: vec![(CookieKind::Invalid, 40)],
        taps: vec![((Tap::QueryLog, TapFate::Dropped), 41)],
        connections: ConnectionsSnapshot {
            open: vec![(Transport::Tls, 66)],
            fates: vec![((Transport::Tls, ConnectionFate::HandshakeFailed), 67)],
            handshakes: vec![((Transport::Tls, ShakenBy::Resumed), 68)],
            http: vec![(HttpStatus::GatewayTimeout, 72)],
        },
        xdp: vec![XdpSnapshot {
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
            entries: 31,
            bytes: 32,
            hits: 33,
            stale_hits: 34,
            failure_hits: 35,
            misses: 36,
            insertions: 37,
            evictions: 38,
        }),
        pools: vec![pool],
        reload: ReloadSnapshot {
            edition: 5,
            in_force_since: SystemTime::UNIX_EPOCH + Duration::from_secs(43),
            succeeded: 4,
            failed: 44,
            running: Some(Duration::ZERO),
            is_next_waiting: false,
            last: Some(LastReload { at: SystemTime::UNIX_EPOCH, error: Some("wrong".to_owned()) }),
        },
        tasks_lost: 45,
        worker_replacements: 46,
        processes: processes(),
        verdict: Some(2),
        expired_zones: vec![ExpiredZone { authority: "ts1".to_owned(), zone: "example.org.".to_owned() }],
        registered: vec![("ts1".to_owned(), true)],
        backend_series: None,
        zones: vec![ZonesSnapshot { authority: "ts1".to_owned(), primary: 61, served: 62, absent: 63, expired: 64 }],
        catalogs: vec![CatalogSnapshot {
            authority: "ts1".to_owned(),
            catalog: "cat.example.".to_owned(),
            members: 65,
            state: "broken".to_owned(),
            reason: Some("it has no version".to_owned()),
        }],
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
    Usage { cpu: Duration::from_millis(4_250), workers, resident: 53, open_fds: 54, max_fds: Some(1_024), began: 55.5 }
}

/// The expected samples, without histograms.
const SAMPLES: &str = r#"
hedgerow_queries_total{transport="udp"} 21
hedgerow_queries_total{transport="tcp"} 22
hedgerow_queries_total{transport="admin"} 23
hedgerow_responses_total{rcode="NOERROR",source="backend"} 23
hedgerow_responses_total{rcode="NXDOMAIN",source="synthesized"} 24
hedgerow_responses_total{rcode="RCODE3841",source="error"} 25
hedgerow_dropped_total{reason="late"} 26
hedgerow_cookies_total{cookie="invalid"} 40
hedgerow_tap_records_total{tap="query_log",fate="dropped"} 41
hedgerow_limited_total{listener="ts1",limit="unsent"} 40
hedgerow_attempts_total{pool="a \"b\"",backend="[::1]:53",kind="first"} 10
hedgerow_attempts_total{pool="a \"b\"",backend="[::1]:53",kind="hedge"} 11
hedgerow_attempts_total{pool="a \"b\"",backend="[::1]:53",kind="failover"} 12
hedgerow_attempts_total{pool="a \"b\"",backend="[::1]:53",kind="probe"} 13
hedgerow_asked_again_total{pool="a \"b\"",backend="[::1]:53",cause="case"} 40
hedgerow_wins_total{pool="a \"b\"",backend="[::1]:53",kind="first"} 14
hedgerow_wins_total{pool="a \"b\"",backend="[::1]:53",kind="hedge"} 15
hedgerow_wins_total{pool="a \"b\"",backend="[::1]:53",kind="failover"} 16
hedgerow_unreachable_total{pool="a \"b\"",backend="[::1]:53"} 40
hedgerow_failed_attempts_total{pool="a \"b\"",backend="[::1]:53"} 17
hedgerow_backend_lost_attempts_total{pool="a \"b\"",backend="[::1]:53"} 71
hedgerow_decisions_total{pool="a \"b\"",backend="[::1]:53"} 72
hedgerow_hedges_denied_total{pool="a \"b\""} 20
hedgerow_slow_races_total{pool="a \"b\""} 28
hedgerow_hedges_wasted_total{pool="a \"b\""} 27
hedgerow_stale_replies_total{pool="a \"b\""} 28
hedgerow_unsent_attempts_total{pool="a \"b\"",backend="[::1]:53",cause="ports"} 40
hedgerow_fetches_total{pool="a \"b\"",result="whole"} 40
hedgerow_fetches_total{pool="a \"b\"",result="failed"} 41
hedgerow_fetches_total{pool="a \"b\"",result="unsent"} 42
hedgerow_divergence_total{pool="a \"b\"",kind="rcode"} 66
hedgerow_divergence_total{pool="a \"b\"",kind="data"} 67
hedgerow_divergence_total{pool="a \"b\"",kind="serial"} 68
hedgerow_in_flight{pool="a \"b\""} 19
hedgerow_backend_up{pool="a \"b\"",backend="[::1]:53"} 1
hedgerow_pool_backends{pool="a \"b\"",state="up"} 0
hedgerow_pool_backends{pool="a \"b\"",state="down"} 0
hedgerow_pool_backends{pool="a \"b\"",state="new"} 0
hedgerow_pool_backends{pool="a \"b\"",state="draining"} 1
hedgerow_pool_backends{pool="a \"b\"",state="behind"} 0
hedgerow_cache_size_bytes 30
hedgerow_cache_entries 31
hedgerow_cache_bytes 32
hedgerow_cache_hits_total 33
hedgerow_cache_stale_hits_total 34
hedgerow_cache_failure_hits_total 35
hedgerow_cache_misses_total 36
hedgerow_cache_insertions_total 37
hedgerow_cache_evictions_total 38
hedgerow_cache_prefetches_total{pool="a \"b\""} 39
hedgerow_config_edition 5
hedgerow_config_last_reload_successful 0
hedgerow_config_last_reload_success_timestamp_seconds 43
hedgerow_reload_in_progress 1
hedgerow_reloads_total{result="ok"} 4
hedgerow_reloads_total{result="failed"} 44
hedgerow_tasks_lost_total 45
hedgerow_worker_replacements_total 46
hedgerow_expired_zones 1
hedgerow_zones{authority="ts1",state="primary"} 61
hedgerow_zones{authority="ts1",state="served"} 62
hedgerow_zones{authority="ts1",state="absent"} 63
hedgerow_zones{authority="ts1",state="expired"} 64
hedgerow_catalog_members{authority="ts1",catalog="cat.example."} 65
hedgerow_catalog_broken{authority="ts1",catalog="cat.example."} 1
hedgerow_connections{transport="tls"} 66
hedgerow_connections_total{transport="tls",result="handshake_failed"} 67
hedgerow_handshakes_total{transport="tls",kind="resumed"} 68
hedgerow_http_responses_total{status="504"} 72
hedgerow_certificate_not_after_seconds{certificate="main"} 69
hedgerow_certificate_loads_total{certificate="main",result="loaded"} 70
hedgerow_certificate_loads_total{certificate="main",result="refused"} 71
hedgerow_xdp_frames_total{interface="eth0",direction="in",fate="taken"} 73
hedgerow_xdp_frames_total{interface="eth0",direction="in",fate="passed"} 74
hedgerow_xdp_frames_total{interface="eth0",direction="in",fate="dropped"} 75
hedgerow_xdp_frames_total{interface="eth0",direction="out",fate="sent"} 76
hedgerow_xdp_frames_total{interface="eth0",direction="out",fate="dropped"} 77
hedgerow_verdict 2
hedgerow_takeovers_total{reason="crash"} 47
hedgerow_takeovers_total{reason="hang"} 48
hedgerow_takeovers_total{reason="restart"} 49
hedgerow_takeovers_total{reason="upgrade"} 50
hedgerow_takeovers_total{reason="rollback"} 51
hedgerow_successions_total 52
hedgerow_processes{role="supervisor"} 1
hedgerow_processes{role="server"} 0
hedgerow_processes{role="standby"} 2
hedgerow_processes{role="starting"} 0
hedgerow_processes{role="draining"} 0
hedgerow_processes{role="failed"} 0
hedgerow_discovery_members{pool="a \"b\"",source="etcd"} 61
hedgerow_discovery_fresh{pool="a \"b\"",source="etcd"} 0
hedgerow_discovery_age_seconds{pool="a \"b\"",source="etcd"} 60.5
hedgerow_discovery_refused{pool="a \"b\"",source="etcd"} 62
hedgerow_discovery_changes_total{pool="a \"b\"",source="etcd",change="joined"} 63
hedgerow_discovery_changes_total{pool="a \"b\"",source="etcd",change="left"} 64
hedgerow_discovery_changes_total{pool="a \"b\"",source="etcd",change="held"} 65
hedgerow_registered{authority="ts1"} 1
hedgerow_build_info{version="0.1.0"} 1
hedgerow_worker_cpu_seconds_total{worker="0"} 1.5
hedgerow_worker_cpu_seconds_total{worker="1"} 2.0
process_cpu_seconds_total 4.25
process_resident_memory_bytes 53.0
process_open_fds 54.0
process_max_fds 1024.0
process_start_time_seconds 55.5
"#;

/// Returns the sample lines that fulfil a condition.
fn samples(text: &str, condition: impl Fn(&str) -> bool) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#') && condition(line)).collect()
}

#[test]
fn names_and_labels_are_those_of_the_contract_in_both_formats() {
    for format in [ExpositionFormat::Prometheus, ExpositionFormat::OpenMetrics] {
        let text = write(sample(), usage(), format);
        let expected: Vec<_> = SAMPLES.trim().lines().collect();
        assert_eq!(
            samples(&text, |line| !["_bucket", "_sum", "_count"].iter().any(|part| line.contains(part))),
            expected,
            "{format:?}"
        );
    }
}

/// The supervisor and the operating system count for themselves: a server does not carry these counters on.
#[test]
fn a_difference_of_a_snapshot_to_itself_has_no_counter_above_zero() {
    let mut sample = sample();
    sample.pools[0].backends[0].connections = Some(Box::new(BackendConnectionsSnapshot {
        open: 0,
        made: [1, 2, 3, 4],
        lost: [5, 6, 7, 8, 9, 10, 11],
        handshakes: measured(&[150]),
        problem: None,
    }));
    let is_counter = |line: &str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let is_of_others = ["hedgerow_takeovers_total", "hedgerow_successions_total", "process_cpu_seconds_total"];
        let is_by_itself = is_of_others.contains(&name) || name.starts_with("hedgerow_worker_cpu");
        ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) && !is_by_itself
    };
    let text = write(sample.since(&sample), usage(), ExpositionFormat::Prometheus);
    let counters = samples(&text, is_counter);
    assert!(!counters.is_empty());
    let grown: Vec<_> = counters.into_iter().filter(|line| !line.ends_with(" 0") && !line.ends_with(" 0.0")).collect();
    assert_eq!(grown, Vec::<&str>::new());
    let counters_of = |text: &str| samples(text, is_counter).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let all = write(sample.since(&sample.since(&sample)), usage(), ExpositionFormat::Prometheus);
    assert_eq!(
        counters_of(&all),
        counters_of(&write(sample, usage(), ExpositionFormat::Prometheus)),
        "nothing before takes nothing away"
    );
}

#[test]
fn histograms_have_fixed_bounds_and_agree_with_their_count() {
    let text = write(sample(), usage(), ExpositionFormat::Prometheus);
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

#[test]
fn each_format_names_its_families_as_it_should() {
    let check = |format, lines: [&str; 3], is_ended| {
        let text = write(sample(), usage(), format);
        lines.iter().for_each(|line| assert!(text.contains(&format!("{line}\n")), "{line}\n{text}"));
        assert_eq!(text.ends_with("# EOF\n"), is_ended, "{format:?}");
        assert_eq!(
            text.matches("# TYPE ").count(),
            COUNTERS.len()
                + USAGE_COUNTERS.len()
                + DISCOVERY_COUNTERS.len()
                + connections::COUNTERS.len()
                + backend_connections::COUNTERS.len()
                + xdp::COUNTERS.len()
                + 34
        );
    };
    check(
        ExpositionFormat::Prometheus,
        [
            "# TYPE hedgerow_queries_total counter",
            "# HELP hedgerow_queries_total Client queries",
            "# TYPE hedgerow_query_duration_seconds histogram",
        ],
        false,
    );
    check(
        ExpositionFormat::OpenMetrics,
        [
            "# TYPE hedgerow_queries counter",
            "# HELP hedgerow_queries Client queries",
            "# TYPE hedgerow_in_flight gauge",
        ],
        true,
    );
}

#[test]
fn without_a_cache_there_is_nothing_of_it() {
    let text = write(Snapshot { cache: None, ..sample() }, usage(), ExpositionFormat::Prometheus);
    assert!(!text.contains("hedgerow_cache"), "{text}");
}

#[test]
fn backends_of_large_pools_have_no_series_but_their_sums() {
    let with = |backend_series| write(Snapshot { backend_series, ..sample() }, usage(), ExpositionFormat::Prometheus);
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
