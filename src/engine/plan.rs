//! One state of a pool, by which races run until they are over.

use std::sync::Arc;

use crate::policy::{Hedge, PoolRules};
use crate::state::SharedPool;

pub(super) struct PoolPlan {
    pub(super) number: PlanNumber,
    pub(super) shared: Arc<SharedPool>,
    pub(super) unhurried: PoolRules,
    pub(super) in_flight: usize,
}

impl PoolPlan {
    pub(super) fn new(shared: Arc<SharedPool>, number: PlanNumber) -> Self {
        let rules = shared.rules().clone();
        // The rules of refresh races have no hedges, which trade load for time.
        let unhurried = PoolRules { hedge: Hedge { max: 0, ..rules.hedge }, ..rules };
        Self { number, shared, unhurried, in_flight: 0 }
    }
}

/// The number of a plan. It wraps after hours of changes, longer than any race.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PlanNumber(u16);

impl PlanNumber {
    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

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
