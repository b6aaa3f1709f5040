//! Problems of taps, for the log once a minute.

use std::time::{Duration, Instant};

use metrics::Tap;

#[derive(Debug, Default)]
pub(super) struct TapProblems {
    pub(super) problem: Option<String>,
    /// The number of dropped records in earlier reports.
    reported: u64,
    reported_at: Option<Instant>,
}

impl TapProblems {
    /// Logs the problems since the last report, if there are any and it is time. `dropped` is the number of
    /// all dropped records, `done` says what happens to the others, and `place` where.
    pub(super) fn log(&mut self, tap: Tap, dropped: u64, done: &str, place: &str, now: Instant) {
        let fresh = dropped - self.reported;
        let is_due = self.reported_at.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_EVERY);
        if !is_due || fresh == 0 && self.problem.is_none() {
            return;
        }
        (self.reported_at, self.reported) = (Some(now), dropped);
        let (tap, dropped) = (tap.label(), fresh);
        match self.problem.take() {
            Some(error) => {
                tracing::warn!(%error, dropped, "{tap}: records cannot be {done}{place}; {dropped} are dropped");
            }
            None => {
                tracing::warn!(dropped, "{tap}: records come faster than they can be {done}; {dropped} are dropped");
            }
        }
    }
}

const REPORT_EVERY: Duration = Duration::from_secs(60);
