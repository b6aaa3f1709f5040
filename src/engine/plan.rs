//! One state of a pool, by which races run until they are over.

use std::sync::Arc;

use crate::policy::{Hedge, Rules};
use crate::state::SharedPool;

/// A state of a pool that has races still.
pub(super) struct Plan {
    /// Which one it is.
    pub(super) number: PlanNumber,
    /// What all workers share.
    pub(super) shared: Arc<SharedPool>,
    /// The rules of its races while nobody waits for them.
    pub(super) unhurried: Rules,
    /// Races that are not over.
    pub(super) in_flight: usize,
}

impl Plan {
    /// The rules of races for which nobody waits: without hedges, which buy time with load.
    pub(super) fn unhurried(shared: &SharedPool) -> Rules {
        let rules = shared.rules().clone();
        Rules { hedge: Hedge { max: 0, ..rules.hedge }, ..rules }
    }
}

/// Counts the states of a pool that a worker has seen. It goes round after hours of changes, and no race lasts for that long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlanNumber(u16);

impl PlanNumber {
    /// The next one.
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    /// Whether it is one of those from `first` to `last`, both included.
    pub(super) fn is_between(self, first: Self, last: Self) -> bool {
        self.0.wrapping_sub(first.0) <= last.0.wrapping_sub(first.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_round() {
        let check = |number, first, last, expected| {
            let is_between = PlanNumber(number).is_between(PlanNumber(first), PlanNumber(last));
            assert_eq!(is_between, expected, "{number} between {first} and {last}");
        };
        check(5, 5, 5, true);
        check(4, 5, 9, false);
        check(9, 5, 9, true);
        check(10, 5, 9, false);
        check(1, u16::MAX - 1, 3, true);
        check(4, u16::MAX - 1, 3, false);
        assert_eq!(PlanNumber(u16::MAX).next(), PlanNumber(0));
    }
}
