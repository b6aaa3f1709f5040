//! From when on a race is slow, pool by pool: as the config says, or as the pool's last minute was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{SlowConfig, SlowThreshold};
use crate::metrics::HistogramSnapshot;
use crate::state::{ForwarderState, PoolState};

/// How long the races of each pool took, as it was told now and then in the last minute.
#[derive(Default)]
pub(super) struct SlowThresholds {
    known: Vec<(Arc<PoolState>, VecDeque<HistogramSnapshot>)>,
    /// Counts the seconds.
    seconds: usize,
}

impl SlowThresholds {
    /// Called once a second, and when pools or the config change.
    pub(super) fn set(&mut self, config: Option<&SlowConfig>, state: &ForwarderState) {
        let threshold = config.map_or(SlowThreshold::Off, |config| config.threshold);
        if threshold != SlowThreshold::Auto {
            self.known.clear();
        }
        self.known.retain(|(known, _)| state.pools.iter().any(|pool| Arc::ptr_eq(&pool.state, known)));
        let is_step = self.seconds.is_multiple_of(STEP);
        self.seconds += 1;
        for pool in &state.pools {
            match threshold {
                SlowThreshold::Off => pool.state.set_slow_threshold(Duration::MAX),
                SlowThreshold::Above(threshold) => pool.state.set_slow_threshold(threshold),
                SlowThreshold::Auto => self.follow(&pool.state, is_step),
            }
        }
    }

    /// Sets the threshold of a pool to the 99.9th percentile of its last minute.
    fn follow(&mut self, pool: &Arc<PoolState>, is_step: bool) {
        let known = self.known.iter().position(|(known, _)| Arc::ptr_eq(known, pool));
        let index = known.unwrap_or_else(|| {
            self.known.push((Arc::clone(pool), VecDeque::with_capacity(STEPS + 1)));
            self.known.len() - 1
        });
        if !is_step && known.is_some() {
            return;
        }
        let mut now = HistogramSnapshot::default();
        pool.counters.iter().for_each(|worker| now.add(&worker.duration));
        let steps = &mut self.known[index].1;
        let of_minute = steps.front().and_then(|first| now.since(first).quantile(0.999));
        // Where nothing was measured, nothing is usual.
        pool.set_slow_threshold(of_minute.unwrap_or_default().max(SlowConfig::MIN_AUTO));
        steps.push_back(now);
        if steps.len() > STEPS {
            steps.pop_front();
        }
    }
}

/// Seconds from one time that it is looked to the next.
const STEP: usize = 5;

/// How many of them are a minute.
const STEPS: usize = 12;
