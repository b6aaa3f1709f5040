//! Decides when changed files are read again: after a quiet moment, or at the latest some time after the
//! first change.
//!
//! ```text
//!               a file has changed                   no change for QUIET, or first change LATEST ago
//!    ┌───────┐ ──────────────────────▶ ┌──────────────┐ ───────────────────────────────────────▶ Compare
//!    │ quiet │                         │ being edited │ ──┐ a file has changed                           │
//!    └───────┘ ◀─────────────────────  └──────────────┘ ◀─┘                                              │
//!        ▲                                                                                               │
//!        └───────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! So files are rarely read while an editor is half-way through writing them.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Settling {
    looked: Instant,
    edit: Option<Edit>,
}

/// Changes that were seen and not read yet.
#[derive(Clone, Copy, Debug)]
struct Edit {
    /// The earliest possible time of the first change.
    first: Instant,
    last: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettlingStep {
    LookAt(Instant),
    /// The files have settled: compare their content, and poll again at this time.
    Compare(Instant),
}

impl Settling {
    pub(super) fn new(now: Instant) -> Self {
        Self { looked: now, edit: None }
    }

    /// Notes a poll. `is_changed`: a file has changed since the last poll.
    pub(super) fn on_look(&mut self, is_changed: bool, now: Instant) -> SettlingStep {
        let earlier = std::mem::replace(&mut self.looked, now);
        if is_changed {
            let first = self.edit.map_or(earlier, |edit| edit.first);
            self.edit = Some(Edit { first, last: now });
        }
        let Some(Edit { first, last }) = self.edit else { return SettlingStep::LookAt(now + PAUSE) };
        let due = (last + QUIET).min(first + LATEST);
        if now < due {
            return SettlingStep::LookAt(due.min(now + EDIT_PAUSE));
        }
        self.edit = None;
        SettlingStep::Compare(now + PAUSE)
    }
}

/// The time without changes after which files are read.
const QUIET: Duration = Duration::from_millis(250);
/// Files are read this long after the first change in any case.
const LATEST: Duration = Duration::from_secs(2);
/// The poll interval without an edit. Polling a file takes a microsecond or two.
const PAUSE: Duration = Duration::from_millis(500);
/// The poll interval during an edit.
const EDIT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays changes at these times, in ms, and checks the times of comparisons.
    fn check(changes: &[u64], compared: &[u64]) {
        let start = Instant::now();
        let mut settling = Settling::new(start);
        let (mut now, mut seen, mut found) = (0, 0, Vec::new());
        while now < 10_000 {
            let so_far = changes.iter().filter(|&&change| change <= now).count();
            let step = settling.on_look(so_far > seen, start + Duration::from_millis(now));
            seen = so_far;
            let next = match step {
                SettlingStep::LookAt(next) => next,
                SettlingStep::Compare(next) => {
                    found.push(now);
                    next
                }
            };
            let next = next.duration_since(start).as_millis() as u64;
            assert!(next > now, "time goes on");
            now = next;
        }
        assert_eq!(found, compared, "{changes:?}");
    }

    #[test]
    fn files_are_compared_once_they_are_left_alone() {
        check(&[], &[]);
        // The poll at 500 ms sees it.
        check(&[1], &[750]);
        check(&[500], &[750]);
        check(&[501], &[1_250]);
        check(&[1, 620, 750], &[1_000]);
        check(&[1, 3_000], &[750, 3_500]);
    }

    #[test]
    fn files_that_never_settle_are_compared_two_seconds_after_the_first_change() {
        let without_end: Vec<u64> = (1..60).map(|change| 100 + change * 100).collect();
        // The first change may have come right after the poll before the one that saw it.
        check(&without_end, &[2_000, 4_000, 6_000]);
    }
}
