//! `--trace FILE`: plays the first half of a recorded trace, and compares it with the second half.

use std::path::Path;
use std::sync::Arc;

use engine::sim::ReplayedTrace;
use engine::trace::{RaceTrace, TracedRace};
use serde::Serialize;

use super::CommandFailure;
use crate::files;

/// A recorded trace, ready to be played.
pub(super) struct PlayedTrace {
    pub(super) replay: Arc<ReplayedTrace>,
    /// Races per second, if the trace has its duration.
    pub(super) rate: Option<f64>,
    pub(super) measured: MeasuredHalf,
}

/// The times of the races in the second half of a trace.
#[derive(Debug, Serialize)]
pub(super) struct MeasuredHalf {
    pub(super) races: usize,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p99_9_ms: f64,
}

pub(super) fn read(file: &Path, seed: u64) -> Result<PlayedTrace, CommandFailure> {
    let wrong = |error: &dyn std::fmt::Display| CommandFailure::Usage(format!("--trace: {}: {error}", file.display()));
    let text = files::read(file).map_err(|error| wrong(&error))?;
    let trace = RaceTrace::read(&String::from_utf8_lossy(&text)).map_err(|error| wrong(&error))?;
    let (first, second) = trace.races.split_at(trace.races.len() / 2);
    let replay = ReplayedTrace::new(first, seed).ok_or_else(|| wrong(&"expected two races or more"))?;
    let rate = trace.seconds.map(|seconds| trace.races.len() as f64 / seconds);
    Ok(PlayedTrace { replay: Arc::new(replay), rate, measured: MeasuredHalf::of(second) })
}

impl MeasuredHalf {
    fn of(races: &[TracedRace]) -> Self {
        let mut micros: Vec<u64> = races.iter().map(|race| race.took.micros).collect();
        micros.sort_unstable();
        let part = |part: f64| {
            let rank = (part * micros.len() as f64).ceil() as usize;
            micros.get(rank.saturating_sub(1)).map_or(0.0, |micros| *micros as f64 / 1e3)
        };
        Self { races: micros.len(), p50_ms: part(0.5), p90_ms: part(0.9), p99_ms: part(0.99), p99_9_ms: part(0.999) }
    }

    pub(super) fn text(&self) -> String {
        let Self { races, p50_ms, p90_ms, p99_ms, p99_9_ms } = self;
        format!(
            "The policies play the first half of the trace. The {races} races of the second half took p50 {p50_ms:.2}, \
             p90 {p90_ms:.2}, p99 {p99_ms:.2}, p99.9 {p99_9_ms:.2} ms"
        )
    }
}
