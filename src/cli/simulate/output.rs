//! Formats the results of each policy as text, JSON and curves.

use std::time::Duration;

use engine::sim::Tally;
use serde::Serialize;

use super::plot::Curve;
use super::trace::MeasuredHalf;
use crate::cli::count;
use crate::cli::ctl::table::TextTable;

#[derive(Debug)]
pub(super) struct PolicyRun {
    pub(super) name: String,
    pub(super) tally: Tally,
}

#[derive(Debug, Serialize)]
pub(super) struct Setting {
    pub(super) queries: usize,
    pub(super) rate: f64,
    pub(super) backends: usize,
    pub(super) seed: u64,
    /// True if names repeat or are cached, so that some queries need no race.
    #[serde(skip)]
    pub(super) has_repeats: bool,
    /// The second half of the trace that is played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) measured: Option<MeasuredHalf>,
}

impl Setting {
    pub(super) fn headline(&self) -> String {
        let Self { queries, rate, backends, seed, .. } = self;
        let seconds = *queries as f64 / rate;
        // Milliseconds do not matter from 10 s on.
        let steps = if seconds < 10.0 { 1e3 } else { 1.0 };
        let time = humantime::format_duration(Duration::from_secs_f64((seconds * steps).round() / steps));
        let rate = (rate * 1e3).round() / 1e3;
        let backends = count(*backends, "backend", "backends");
        format!("{queries} queries at {rate}/s ({time}) to {backends}, seed {seed}")
    }
}

pub(super) fn to_text(setting: &Setting, played: &[PolicyRun]) -> String {
    let two_digits = |ms: f64| format!("{ms:.2}");
    let mut table = TextTable::of(played.iter().map(PolicyOutcome::of))
        .left("POLICY", |run| run.policy)
        .right("P50 ms", |run| two_digits(run.latency_ms.p50))
        .right("P90 ms", |run| two_digits(run.latency_ms.p90))
        .right("P99 ms", |run| two_digits(run.latency_ms.p99))
        .right("P99.9 ms", |run| two_digits(run.latency_ms.p99_9))
        .right("MAX ms", |run| two_digits(run.latency_ms.max))
        .right("EXTRA LOAD", |run| format!("{:.2} %", run.extra_load * 100.0))
        .right("HEDGES DENIED", |run| run.hedges_denied)
        .right("LOST", |run| run.lost);
    if setting.has_repeats {
        table = table.right("CACHED", |run| run.cached).right("JOINED", |run| run.joined);
    }
    let measured = setting.measured.as_ref().map(|measured| format!("\n\n{}", measured.text()));
    format!("{}\n\n{}{}", setting.headline(), table.text(), measured.unwrap_or_default())
}

pub(super) fn to_json(setting: &Setting, played: &[PolicyRun]) -> String {
    let document = Document { setting, policies: played.iter().map(PolicyOutcome::of).collect() };
    serde_json::to_string_pretty(&document).expect("plain data with text for keys")
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    setting: &'a Setting,
    policies: Vec<PolicyOutcome<'a>>,
}

#[derive(Serialize)]
struct PolicyOutcome<'a> {
    policy: &'a str,
    latency_ms: LatencySummary,
    extra_load: f64,
    attempts: AttemptShares,
    hedges_won: u64,
    hedges_wasted: u64,
    hedges_denied: u64,
    lost: u64,
    cached: u64,
    joined: u64,
}

impl<'a> PolicyOutcome<'a> {
    fn of(PolicyRun { name, tally }: &'a PolicyRun) -> Self {
        Self {
            policy: name,
            latency_ms: LatencySummary::of(tally),
            extra_load: tally.extra_load(),
            attempts: AttemptShares { first: tally.first, hedge: tally.hedges, failover: tally.failovers },
            hedges_won: tally.hedges_won,
            hedges_wasted: tally.hedges - tally.hedges_won,
            hedges_denied: tally.hedges_denied,
            lost: tally.lost,
            cached: tally.cached,
            joined: tally.joined(),
        }
    }
}

#[derive(Serialize)]
struct AttemptShares {
    first: u64,
    hedge: u64,
    failover: u64,
}

#[derive(Serialize)]
struct LatencySummary {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p99_9: f64,
    max: f64,
}

impl LatencySummary {
    fn of(tally: &Tally) -> Self {
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        let part = |part| ms(tally.latency.quantile(part).unwrap_or_default());
        Self { p50: part(0.5), p90: part(0.9), p99: part(0.99), p99_9: part(0.999), max: ms(tally.latency.max()) }
    }
}

pub(super) fn to_curves(played: &[PolicyRun]) -> Vec<Curve> {
    let curve = |PolicyRun { name, tally }: &PolicyRun| Curve {
        name: name.clone(),
        ccdf: thinned(tally.latency.ccdf()),
        p999: tally.latency.quantile(0.999).unwrap_or_default(),
        extra: tally.extra_load(),
    };
    played.iter().map(curve).collect()
}

/// Thins a curve to visible points: each is 1 % slower than the previous one, or the last.
fn thinned(curve: Vec<(Duration, f64)>) -> Vec<(Duration, f64)> {
    let last = curve.len().saturating_sub(1);
    let mut seen = Duration::ZERO;
    let is_seen = |&(index, (time, _)): &(usize, (Duration, f64))| {
        let is_seen = index == last || time >= seen.mul_f64(1.01);
        if is_seen {
            seen = time;
        }
        is_seen
    };
    curve.into_iter().enumerate().filter(is_seen).map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_thinned_but_keeps_its_ends() {
        let curve: Vec<_> = (1_000..2_000).map(|micros| (Duration::from_micros(micros), 0.5)).collect();
        let seen = thinned(curve.clone());
        assert!(seen.len() < 80 && seen.first() == curve.first() && seen.last() == curve.last(), "{}", seen.len());
        assert_eq!(thinned(Vec::new()), []);
    }

    #[test]
    fn the_headline_tells_the_scenario() {
        for (queries, rate, backends, reported) in [
            (180_000, 3_000.0, 1, "180000 queries at 3000/s (1m) to 1 backend, seed 7"),
            (100_000, 3_000.0, 2, "100000 queries at 3000/s (33s) to 2 backends, seed 7"),
            (1_000, 3_000.0, 2, "1000 queries at 3000/s (333ms) to 2 backends, seed 7"),
            (2, 0.25, 2, "2 queries at 0.25/s (8s) to 2 backends, seed 7"),
            (20, 2.0 / 3.0, 2, "20 queries at 0.667/s (30s) to 2 backends, seed 7"),
        ] {
            assert_eq!(
                Setting { queries, rate, backends, seed: 7, has_repeats: false, measured: None }.headline(),
                reported
            );
        }
    }
}
