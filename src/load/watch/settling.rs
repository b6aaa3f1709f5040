//! When files that change are read again: once they have been left alone for a moment, and not too late if they never are.
//!
//! ```text
//!               something has changed                    nothing has changed for QUIET, or the first change is LATEST ago
//!    ┌───────┐ ──────────────────────▶ ┌──────────────┐ ───────────────────────────────────────────────────────────────▶ Compare
//!    │ quiet │                         │ being edited │ ──┐ something has changed                                            │
//!    └───────┘ ◀─────────────────────  └──────────────┘ ◀─┘                                                                  │
//!        ▲                                                                                                                   │
//!        └───────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Who writes several files, or one in pieces, is so seldom read half-way.

use std::time::{Duration, Instant};

/// Whether files are being edited.
#[derive(Debug)]
pub(super) struct Settling {
    /// The last look at the files.
    looked: Instant,
    edit: Option<Edit>,
}

/// Changes that were seen and not read yet.
#[derive(Clone, Copy, Debug)]
struct Edit {
    /// The first may be as old as this.
    first: Instant,
    /// The last was seen now.
    last: Instant,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Look at the files again then.
    LookAt(Instant),
    /// They have settled: compare what they say, and look again then.
    Compare(Instant),
}

impl Settling {
    /// Files that nobody edits.
    pub(super) fn new(now: Instant) -> Self {
        Self { looked: now, edit: None }
    }

    /// Files were looked at; whether any has changed since the last look.
    pub(super) fn on_look(&mut self, is_changed: bool, now: Instant) -> Step {
        let earlier = std::mem::replace(&mut self.looked, now);
        if is_changed {
            let first = self.edit.map_or(earlier, |edit| edit.first);
            self.edit = Some(Edit { first, last: now });
        }
        let Some(Edit { first, last }) = self.edit else { return Step::LookAt(now + PAUSE) };
        let due = (last + QUIET).min(first + LATEST);
        if now < due {
            return Step::LookAt(due.min(now + EDIT_PAUSE));
        }
        self.edit = None;
        Step::Compare(now + PAUSE)
    }
}

/// So long nothing must have changed.
const QUIET: Duration = Duration::from_millis(250);
/// So long after the first change files are read in any case.
const LATEST: Duration = Duration::from_secs(2);
/// Between two looks at files that nobody edits. A look at a file takes a microsecond or two.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at files that somebody edits.
const EDIT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays changes at these times, in ms, and tells when files were compared. A look sees what has changed since the last.
    fn check(changes: &[u64], compared: &[u64]) {
        let start = Instant::now();
        let mut settling = Settling::new(start);
        let (mut now, mut seen, mut found) = (0, 0, Vec::new());
        while now < 10_000 {
            let so_far = changes.iter().filter(|&&change| change <= now).count();
            let step = settling.on_look(so_far > seen, start + Duration::from_millis(now));
            seen = so_far;
            let next = match step {
                Step::LookAt(next) => next,
                Step::Compare(next) => {
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
        // It is seen by the look at 500 ms.
        check(&[1], &[750]);
        check(&[500], &[750]);
        check(&[501], &[1_250]);
        check(&[1, 620, 750], &[1_000]);
        check(&[1, 3_000], &[750, 3_500]);
    }

    #[test]
    fn files_that_never_settle_are_compared_two_seconds_after_the_first_change() {
        let without_end: Vec<u64> = (1..60).map(|change| 100 + change * 100).collect();
        // The first change may have come right after the look before the one that saw it.
        check(&without_end, &[2_000, 4_000, 6_000]);
    }
}
