//! `hedgerow ctl status`, `backends` and `processes`: the status as tables.

use std::time::{Duration, SystemTime};

use metrics::{HedgeSnapshot, TuningSnapshot};
use serde::Serialize;

use super::cache;
use super::table::{TextTable, millis, or_dash, time};
use crate::admin::status::{
    BackendStatus, PoolStatus, ProcessStatus, RegretStatus, ReloadsStatus, ServiceStatus, Status, ZoneCounts, percent,
};
use crate::control::observe::sight::live::Verdict;

pub(super) fn status(status: &Status) -> String {
    let Status { verdict, version, uptime_seconds, workers, pools, cache, .. } = status;
    let verdict = self::verdict(verdict);
    let mut server = format!("{verdict}\nhedgerow {version}, up {}, {workers} workers", time(*uptime_seconds));
    if pools.is_empty() {
        server.push_str(", no pools");
    }
    server.extend(reloads(status).chain(counts(status)).map(|line| format!("\n{line}")));
    if pools.is_empty() {
        return server;
    }
    let cache = cache.as_ref().map(|cache| format!("\n\n{}", cache::stats(cache))).unwrap_or_default();
    let pools = format!("{}{}{}", self::pools(pools), tunings(pools), regrets(pools));
    format!("{server}\n\nin the last minute:\n{pools}\n\n{}{cache}", backends(&in_pools(status)))
}

fn counts(status: &Status) -> impl Iterator<Item = String> {
    let ServiceStatus { queries, rcodes, zone_counts, .. } = &status.service;
    let ZoneCounts { primary, served, absent, expired } = zone_counts;
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
    let ReloadsStatus { edition, reload, reloading } = &status.reloads;
    let last = reload.as_ref().map(|last| match &last.error {
        None => format!("last reload at {}, edition {edition} is active", last.at),
        Some(error) => {
            let first = error.lines().next().unwrap_or_default();
            format!("last reload at {} FAILED, edition {edition} is active: {first}", last.at)
        }
    });
    let running = reloading.map(|running| {
        let next = if running.next_waits { ", another one waits" } else { "" };
        format!("a reload has been reading for {}{next}", time(running.for_seconds))
    });
    last.into_iter().chain(running)
}

fn pools(pools: &[PoolStatus]) -> String {
    let is_up = |backend: &&BackendStatus| matches!(&*backend.state, "up" | "behind");
    TextTable::of(pools)
        .left("POOL", |pool| &pool.name)
        .left("UP", |pool| format!("{} of {}", pool.backends.iter().filter(is_up).count(), pool.backends.len()))
        .right("IN FLIGHT", |pool| pool.in_flight)
        .right("QUERIES", |pool| or_dash(pool.last_minute.map(|minute| minute.queries)))
        .right("P50 ms", |pool| millis(pool.last_minute.and_then(|minute| minute.p50_ms)))
        .right("P99 ms", |pool| millis(pool.last_minute.and_then(|minute| minute.p99_ms)))
        .right("P99.9 ms", |pool| millis(pool.last_minute.and_then(|minute| minute.p999_ms)))
        .right("HEDGES", |pool| or_dash(pool.last_minute.map(|minute| minute.hedges.sent)))
        .right("WON", |pool| or_dash(pool.last_minute.map(|minute| minute.hedges.won)))
        .right("DENIED", |pool| or_dash(pool.last_minute.map(|minute| minute.hedges.denied)))
        .right("BUDGET", |pool| or_dash(pool.last_minute.map(|minute| minute.hedges.tokens)))
        .text()
}

/// Formats a line for each pool with `dispatch = "auto"` whose hedges are chosen.
fn tunings(pools: &[PoolStatus]) -> String {
    let hedge = |HedgeSnapshot { backend, delay_ms, probability }: &HedgeSnapshot| {
        let part =
            if *probability < 1.0 { format!(" for {} % of the races", percent(*probability)) } else { String::new() };
        match *probability {
            0.0 => format!("none after {backend}"),
            _ => format!("{} ms after {backend}{part}", millis(Some(*delay_ms))),
        }
    };
    let lines: String = pools
        .iter()
        .filter_map(|pool| pool.tuning.as_ref().map(|tuning| (&pool.name, tuning)))
        .map(|(name, TuningSnapshot { percentile, expected_ms, extra_load, hedges })| {
            let shown: Vec<_> = hedges.iter().take(SHOWN_HEDGES).map(hedge).collect();
            let more = hedges.len().saturating_sub(SHOWN_HEDGES);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let (expected, extra) = (millis(*expected_ms), *extra_load * 100.0);
            let shown = shown.join(", ");
            format!("\n{name}: p{percentile} {expected} ms with {extra:.1} % more load; hedges: {shown}{more}")
        })
        .collect();
    if lines.is_empty() { lines } else { format!("\n\nexpected by dispatch = \"auto\":{lines}") }
}

/// The hedges of a pool that fit in a line.
const SHOWN_HEDGES: usize = 3;

/// Formats a line for each pool whose tail is known well enough to be compared.
fn regrets(pools: &[PoolStatus]) -> String {
    let lines: String = pools
        .iter()
        .filter_map(|pool| pool.regret.map(|regret| (&pool.name, regret)))
        .map(|(name, RegretStatus { percentile, achieved_ms, best_ms, budget, .. })| {
            let budget = percent(budget);
            let (achieved, best) = (millis(Some(achieved_ms)), millis(Some(best_ms)));
            format!("\n{name}: p{percentile} {achieved} ms; best possible with {budget} %: {best} ms")
        })
        .collect();
    if lines.is_empty() { lines } else { format!("\n\nin the last 10 minutes:{lines}") }
}

#[derive(Serialize)]
pub(super) struct PooledBackend<'a> {
    pool: &'a str,
    #[serde(skip)]
    of: &'a PoolStatus,
    #[serde(flatten)]
    backend: &'a BackendStatus,
}

pub(super) fn in_pools(status: &Status) -> Vec<PooledBackend<'_>> {
    let pools = status.pools.iter();
    pools
        .flat_map(|pool| pool.backends.iter().map(|backend| PooledBackend { pool: &pool.name, of: pool, backend }))
        .collect()
}

/// Formats backends. If some use streams, two columns show connections. Each backend whose connection or
/// probe has failed has a line, and each spare one that says why it takes turns or not.
pub(super) fn backends(backends: &[PooledBackend<'_>]) -> String {
    let by_hand = |backend: &BackendStatus| match (backend.by_hand, &backend.by_hand_until) {
        (true, None) => " (by hand)".to_owned(),
        (true, Some(until)) => format!(" (by hand until {until})"),
        (false, Some(until)) => format!(" (until {until})"),
        (false, None) => String::new(),
    };
    let table = TextTable::of(backends)
        .left("POOL", |row| row.pool)
        .left("BACKEND", |row| &row.backend.name)
        .left("ADDRESS", |row| row.backend.address)
        .right("WEIGHT", |row| row.backend.weight)
        .left("STATE", |row| format!("{}{}", row.backend.state, by_hand(row.backend)))
        .left("FOR", |row| time(row.backend.since_seconds))
        .right("IN FLIGHT", |row| row.backend.work.in_flight)
        .right("ATTEMPTS", |row| or_dash(row.backend.work.last_minute.map(|minute| minute.attempts)))
        .right("HEDGES", |row| or_dash(row.backend.work.last_minute.map(|minute| minute.hedges)))
        .right("WINS", |row| or_dash(row.backend.work.last_minute.map(|minute| minute.wins)))
        .right("ERRORS", |row| or_dash(row.backend.work.last_minute.map(|minute| minute.errors)))
        .right("TIMEOUTS", |row| or_dash(row.backend.work.last_minute.map(|minute| minute.timeouts)))
        .right("P50 ms", |row| millis(row.backend.work.last_minute.and_then(|minute| minute.p50_ms)))
        .right("P99 ms", |row| millis(row.backend.work.last_minute.and_then(|minute| minute.p99_ms)));
    let is_by_stream = backends.iter().any(|row| row.backend.transport.open_connections.is_some());
    let table = match is_by_stream {
        false => table,
        true => table
            .left("TRANSPORT", |row| &row.backend.transport.word)
            .right("CONNECTIONS", |row| or_dash(row.backend.transport.open_connections)),
    };
    let lines: String = backends.iter().filter_map(problem).chain(backends.iter().filter_map(spare)).collect();
    table.text() + &lines
}

fn problem(PooledBackend { pool, backend, .. }: &PooledBackend<'_>) -> Option<String> {
    let name = &backend.name;
    let line = match (&backend.transport.connection_problem, &backend.probe_problem) {
        (Some(problem), _) => format!("{name} of pool {pool} cannot be connected to: {}", problem.lines().next()?),
        (None, Some(problem)) => format!("{name} of pool {pool}: the last probe failed: {}", problem.lines().next()?),
        (None, None) => return None,
    };
    Some(format!("\n{line}"))
}

fn spare(PooledBackend { pool, of, backend }: &PooledBackend<'_>) -> Option<String> {
    let tier = backend.membership.tier;
    let is_lower = |other: &&BackendStatus| other.membership.tier < tier && other.state == "up";
    let (up, min_up) = (of.backends.iter().filter(is_lower).count(), of.min_up);
    let use_of = if up < usize::from(min_up) { "takes turns" } else { "gets only hedges and failovers" };
    let name = &backend.name;
    (tier > 0).then(|| {
        format!(
            "\n{name} of pool {pool} is a spare (tier {tier}) and {use_of}: {up} of lower tiers up, min_up {min_up}"
        )
    })
}

pub(super) fn processes(processes: &[ProcessStatus]) -> String {
    // Only the first line of a problem, because a process has one row.
    let problem = |process: &ProcessStatus| or_dash(process.problem.as_deref().and_then(|text| text.lines().next()));
    TextTable::of(processes)
        .right("PID", |process| process.pid)
        .left("ROLE", |process| &process.role)
        .left("VERSION", |process| &process.version)
        .right("EDITION", |process| process.edition)
        .left("FOR", |process| time(process.since_seconds))
        .left("PROBLEM", |process| problem(process))
        .text()
}

#[cfg(test)]
mod tests;
