//! Formats a status as tables for a terminal, without frames, so that `grep` and `awk` can read them.

use std::time::{Duration, SystemTime};

use comfy_table::{CellAlignment, Table, presets};

use super::cache;
use crate::admin::status::{BackendStatus, PoolStatus, ProcessStatus, Status, ZoneCounts};
use crate::sight::live::{BackendMinute, PoolMinute, Verdict};

pub(super) fn status(status: &Status) -> String {
    let Status { verdict, version, uptime_seconds, workers, pools, cache, .. } = status;
    let verdict = self::verdict(verdict);
    let mut server = format!("{verdict}\nhedgerow {version}, up {}, {workers} workers", time(*uptime_seconds));
    if pools.is_empty() {
        server.push_str(", no pools");
    }
    server.extend(reloads(status).map(|line| format!("\n{line}")));
    server.extend(counts(status).map(|line| format!("\n{line}")));
    if pools.is_empty() {
        return server;
    }
    let cache = cache.as_ref().map(|cache| format!("\n\n{}", cache::stats(cache))).unwrap_or_default();
    let pools = table(&POOL_COLUMNS, pools.iter().map(pool_row));
    format!("{server}\n\nin the last minute:\n{pools}\n\n{}{cache}", backends(status))
}

fn counts(status: &Status) -> impl Iterator<Item = String> {
    let Status { queries, rcodes, zone_counts: ZoneCounts { primary, served, absent, expired }, .. } = status;
    let usual = USUAL.into_iter().map(|rcode| (rcode, rcodes.get(rcode).copied().unwrap_or_default()));
    let others =
        rcodes.iter().map(|(rcode, count)| (rcode.as_str(), *count)).filter(|(rcode, _)| !USUAL.contains(rcode));
    let by_rcode: String = usual.chain(others).map(|(rcode, count)| format!("  {rcode} {count}")).collect();
    let all = primary + served + absent + expired;
    let states = [("primary", primary), ("served", served), ("absent", absent), ("expired", expired)];
    let states: String =
        states.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("  {state} {count}")).collect();
    let queries = (*queries > 0).then(|| format!("queries {queries}{by_rcode}"));
    queries.into_iter().chain((all > 0).then(|| format!("zones {all}{states}")))
}

const USUAL: [&str; 4] = ["NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED"];

fn verdict(verdict: &Verdict) -> String {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(verdict.since);
    let since = humantime::format_rfc3339_seconds(since).to_string().replace('T', " ").replace('Z', " UTC");
    let reasons = verdict.reasons.iter().map(|reason| format!("\n  {}: {}", reason.code, reason.text));
    format!("{} since {since}{}", verdict.state.label(), reasons.collect::<String>())
}

fn reloads(status: &Status) -> impl Iterator<Item = String> {
    let last = status.reload.as_ref().map(|last| match &last.error {
        None => format!("last reload at {}, edition {} is active", last.at, status.edition),
        Some(error) => {
            let first = error.lines().next().unwrap_or_default();
            format!("last reload at {} FAILED, edition {} is active: {first}", last.at, status.edition)
        }
    });
    let running = status.reloading.map(|running| {
        let next = if running.next_waits { ", another one waits" } else { "" };
        format!("a reload has been reading for {}{next}", time(running.for_seconds))
    });
    last.into_iter().chain(running)
}

/// Formats all backends of all pools. If some use streams, two columns show connections, and each unusable
/// transport has a line.
pub(super) fn backends(status: &Status) -> String {
    let backends = || status.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let rows = backends().map(|(pool, backend)| backend_row(&pool.name, backend));
    if backends().all(|(_, backend)| backend.open_connections.is_none()) {
        return table(&BACKEND_COLUMNS, rows);
    }
    let rows = rows.zip(backends()).map(|(mut row, (_, backend))| {
        row.push(backend.transport.clone());
        row.push(backend.open_connections.map_or_else(nothing, |open| open.to_string()));
        row
    });
    let table = table(&[&BACKEND_COLUMNS[..], &STREAM_COLUMNS[..]].concat(), rows);
    let problems = backends().filter_map(|(pool, backend)| {
        let problem = backend.connection_problem.as_deref()?.lines().next()?;
        Some(format!("\n{} of pool {} cannot be connected to: {problem}", backend.name, pool.name))
    });
    format!("{table}{}", problems.collect::<String>())
}

const POOL_COLUMNS: [Column; 11] = [
    ("POOL", CellAlignment::Left),
    ("UP", CellAlignment::Left),
    ("IN FLIGHT", CellAlignment::Right),
    ("QUERIES", CellAlignment::Right),
    ("P50 ms", CellAlignment::Right),
    ("P99 ms", CellAlignment::Right),
    ("P99.9 ms", CellAlignment::Right),
    ("HEDGES", CellAlignment::Right),
    ("WON", CellAlignment::Right),
    ("DENIED", CellAlignment::Right),
    ("BUDGET", CellAlignment::Right),
];

fn pool_row(pool: &PoolStatus) -> Vec<String> {
    let up = pool.backends.iter().filter(|backend| matches!(&*backend.state, "up" | "behind")).count();
    let mut row = vec![pool.name.clone(), format!("{up} of {}", pool.backends.len()), pool.in_flight.to_string()];
    match &pool.last_minute {
        Some(PoolMinute { queries, attempts: _, p50_ms, p99_ms, p999_ms, hedges }) => {
            row.push(queries.to_string());
            row.extend([p50_ms, p99_ms, p999_ms].map(|value| millis(*value)));
            row.extend([hedges.sent, hedges.won, hedges.denied, hedges.tokens].map(|count| count.to_string()));
        }
        None => row.resize_with(POOL_COLUMNS.len(), nothing),
    }
    row
}

const BACKEND_COLUMNS: [Column; 14] = [
    ("POOL", CellAlignment::Left),
    ("BACKEND", CellAlignment::Left),
    ("ADDRESS", CellAlignment::Left),
    ("WEIGHT", CellAlignment::Right),
    ("STATE", CellAlignment::Left),
    ("FOR", CellAlignment::Left),
    ("IN FLIGHT", CellAlignment::Right),
    ("ATTEMPTS", CellAlignment::Right),
    ("HEDGES", CellAlignment::Right),
    ("WINS", CellAlignment::Right),
    ("ERRORS", CellAlignment::Right),
    ("TIMEOUTS", CellAlignment::Right),
    ("P50 ms", CellAlignment::Right),
    ("P99 ms", CellAlignment::Right),
];

const STREAM_COLUMNS: [Column; 2] = [("TRANSPORT", CellAlignment::Left), ("CONNECTIONS", CellAlignment::Right)];

fn backend_row(pool: &str, backend: &BackendStatus) -> Vec<String> {
    let by_hand = if backend.by_hand { " (by hand)" } else { "" };
    let mut row = vec![
        pool.to_owned(),
        backend.name.clone(),
        backend.address.to_string(),
        backend.weight.to_string(),
        format!("{}{by_hand}", backend.state),
        time(backend.since_seconds),
        backend.in_flight.to_string(),
    ];
    match &backend.last_minute {
        Some(BackendMinute { attempts, hedges, wins, hedges_won: _, errors, timeouts, p50_ms, p99_ms }) => {
            row.extend([attempts, hedges, wins, errors, timeouts].map(|count| count.to_string()));
            row.extend([p50_ms, p99_ms].map(|value| millis(*value)));
        }
        None => row.resize_with(BACKEND_COLUMNS.len(), nothing),
    }
    row
}

pub(super) fn processes(processes: &[ProcessStatus]) -> String {
    table(&PROCESS_COLUMNS, processes.iter().map(process_row))
}

const PROCESS_COLUMNS: [Column; 6] = [
    ("PID", CellAlignment::Right),
    ("ROLE", CellAlignment::Left),
    ("VERSION", CellAlignment::Left),
    ("EDITION", CellAlignment::Right),
    ("FOR", CellAlignment::Left),
    ("PROBLEM", CellAlignment::Left),
];

fn process_row(process: &ProcessStatus) -> Vec<String> {
    // Only the first line of a problem, because a process has one row.
    let problem = process.problem.as_deref().and_then(|problem| problem.lines().next()).unwrap_or("-");
    vec![
        process.pid.to_string(),
        process.role.clone(),
        process.version.clone(),
        process.edition.to_string(),
        time(process.since_seconds),
        problem.to_owned(),
    ]
}

fn millis(millis: Option<f64>) -> String {
    millis.map_or_else(nothing, |millis| format!("{millis:.2}"))
}

fn nothing() -> String {
    "-".to_owned()
}

/// Formats a duration by its two largest units.
pub(in crate::cli) fn time(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

pub(in crate::cli) type Column = (&'static str, CellAlignment);

/// Formats rows below their heads, with two blanks between columns and none at the end of a line.
pub(in crate::cli) fn table(columns: &[Column], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|(head, _)| head)).add_rows(rows);
    for (column, (_, alignment)) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2)).set_cell_alignment(*alignment);
    }
    table.trim_fmt()
}

/// Breaks a line at blanks to fit `width`; further lines begin with `indent`.
pub(in crate::cli) fn wrap(line: &str, width: usize, indent: &str) -> String {
    let mut lines = vec![String::new()];
    let blanks = line.len() - line.trim_start().len();
    for (place, word) in line[blanks..].split(' ').enumerate() {
        let last = lines.last_mut().expect("there is a first line");
        if place == 0 {
            *last = format!("{}{word}", &line[..blanks]);
        } else if last.chars().count() + 1 + word.chars().count() > width {
            lines.push(format!("{indent}{word}"));
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::admin::status::{ByKind, CacheStatus, Percentiles, ReloadStatus, ReloadingStatus};
    use crate::sight::live::{HedgesSecond, Reason, VerdictState};

    fn sample() -> Status {
        let backend = |name: &str, state: &str, by_hand| BackendStatus {
            name: name.to_owned(),
            address: "192.0.2.1:53".parse().expect("an address"),
            transport: "udp".to_owned(),
            open_connections: None,
            connection_problem: None,
            weight: 1,
            state: state.to_owned(),
            by_hand,
            since: "2026-01-01T00:00:00Z".to_owned(),
            since_seconds: 90,
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
            origin: Vec::new(),
            listed: false,
            behind: false,
            order: None,
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
            zones: Vec::new(),
            more_zones: 0,
            zone_counts: ZoneCounts::default(),
            queries: 0,
            rcodes: BTreeMap::new(),
            catalogs: Vec::new(),
            edition: 1,
            reload: None,
            reloading: None,
            supervisor: None,
            processes: Vec::new(),
        }
    }

    #[test]
    fn long_lines_are_broken_at_blanks() {
        assert_eq!(wrap("  one two three", 9, "    "), "  one two\n    three");
        assert_eq!(wrap("one two", 7, ""), "one two");
        assert_eq!(wrap("one two", 6, " "), "one\n two");
        assert_eq!(wrap("seventeen letters", 4, ""), "seventeen\nletters");
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
        let shown = processes(&[
            process(7, "supervisor", None),
            process(4711, "failed", Some("a.txt:1: wrong\nb.txt:2: wrong")),
        ]);
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
    fn connections_are_told_where_there_can_be_any() {
        let mut status = sample();
        let by_tls = &mut status.pools[0].backends[1];
        by_tls.transport = "tls".to_owned();
        by_tls.open_connections = Some(0);
        by_tls.connection_problem = Some("its certificate has expired".to_owned());
        let shown = backends(&status);
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
            reasons: vec![
                reason("pool-down", "no backend of pool ts is up"),
                reason("tail-high", "p99 of pool b is high"),
            ],
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
            queries: 12,
            rcodes: [("NXDOMAIN", 3), ("NOERROR", 9)].map(|(rcode, count)| (rcode.to_owned(), count)).into(),
            zone_counts: ZoneCounts { primary: 2, served: 0, absent: 1, expired: 0 },
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
            let status_of = Status { edition: 3, reload: Some(reload), reloading, ..sample() };
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
        let cache = CacheStatus {
            size_bytes: 1 << 20,
            bytes: 0,
            entries: 0,
            hits: 0,
            stale_hits: 0,
            failure_hits: 0,
            misses: 0,
            insertions: 0,
            evictions: 0,
            prefetches: 0,
        };
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
}
