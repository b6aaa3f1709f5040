//! Counts the queries of each pool in the last minute, which size its hedge bucket.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::state::{ForwarderState, PoolState};

/// Queries per second of each pool in the last minute.
#[derive(Default)]
pub(super) struct RecentQueries(Vec<(Arc<PoolState>, VecDeque<u64>)>);

impl RecentQueries {
    pub(super) fn of(&self, pool: &Arc<PoolState>) -> Vec<u64> {
        let known = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, pool));
        known.map(|(_, totals)| totals.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn set(&mut self, pool: &Arc<PoolState>, totals: &[u64]) {
        let latest = &totals[totals.len().saturating_sub(SECONDS)..];
        self.0.push((Arc::clone(pool), latest.iter().copied().collect()));
    }

    /// Called once a second.
    pub(super) fn count(&mut self, state: &ForwarderState) {
        self.0.retain(|(known, _)| state.pools.iter().any(|pool| Arc::ptr_eq(&pool.state, known)));
        for pool in &state.pools {
            let known = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, &pool.state));
            let index = known.unwrap_or_else(|| {
                self.0.push((Arc::clone(&pool.state), VecDeque::with_capacity(61)));
                self.0.len() - 1
            });
            let totals = &mut self.0[index].1;
            let total = pool.state.queries();
            totals.push_back(total);
            if totals.len() > SECONDS {
                totals.pop_front();
            }
            pool.budget().set_recent_queries(total.saturating_sub(totals.front().copied().unwrap_or(0)));
        }
    }
}

const SECONDS: usize = 60;
