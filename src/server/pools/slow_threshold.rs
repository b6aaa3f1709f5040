//! The threshold for slow races per pool: from the config, or from the pool's last minute.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{SlowConfig, SlowThreshold};
use crate::metrics::{Aggregate, HistogramSnapshot};
use crate::state::{ForwarderState, PoolState};

pub(super) struct SlowThresholds {
    pub(super) threshold: SlowThreshold,
    known: Vec<(Arc<PoolState>, VecDeque<HistogramSnapshot>)>,
    seconds: usize,
}

impl SlowThresholds {
    pub(super) fn new(threshold: SlowThreshold) -> Self {
        Self { threshold, known: Vec::new(), seconds: 0 }
    }

    /// Called once a second.
    pub(super) fn on_second(&mut self, state: &ForwarderState) {
        let is_step = self.seconds.is_multiple_of(STEP);
        self.seconds += 1;
        self.apply(state, is_step);
    }

    pub(super) fn set(&mut self, state: &ForwarderState) {
        self.apply(state, false);
    }

    fn apply(&mut self, state: &ForwarderState, is_step: bool) {
        if self.threshold != SlowThreshold::Auto {
            self.known.clear();
        }
        self.known.retain(|(known, _)| state.pools.iter().any(|pool| Arc::ptr_eq(&pool.state, known)));
        for pool in &state.pools {
            match self.threshold {
                SlowThreshold::Off => pool.state.set_slow_threshold(Duration::MAX),
                SlowThreshold::Above(threshold) => pool.state.set_slow_threshold(threshold),
                SlowThreshold::Auto => self.follow(&pool.state, pool.config.rules.hedge.max_delay, is_step),
            }
        }
    }

    /// Sets the threshold of a pool to the 99.9th percentile of its last minute. With too few races it is
    /// `unknown`, the longest hedge delay: a shorter race is not slow until the pool has a history.
    fn follow(&mut self, pool: &Arc<PoolState>, unknown: Duration, is_step: bool) {
        let known = self.known.iter().position(|(known, _)| Arc::ptr_eq(known, pool));
        let index = known.unwrap_or_else(|| {
            self.known.push((Arc::clone(pool), VecDeque::with_capacity(STEPS + 1)));
            self.known.len() - 1
        });
        if !is_step && known.is_some() {
            return;
        }
        let mut now = HistogramSnapshot::default();
        pool.counters.iter().for_each(|worker| now.collect(&worker.duration));
        let steps = &mut self.known[index].1;
        let of_minute = steps.front().map(|first| now.since(first)).filter(|minute| minute.count() >= MIN_RACES);
        let threshold = of_minute.and_then(|minute| minute.quantile(0.999)).unwrap_or(unknown);
        pool.set_slow_threshold(threshold.max(SlowConfig::MIN_AUTO));
        steps.push_back(now);
        if steps.len() > STEPS {
            steps.pop_front();
        }
    }
}

const STEP: usize = 5;

const STEPS: usize = 12;

/// The fewest races for a 99.9th percentile: of fewer than 1,000 one is more than 0.1 %.
const MIN_RACES: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn state() -> ForwarderState {
        let text = "[forwarder]\nlisten = ['127.0.0.1:5300']\n[pools.p]\nbackends = ['127.0.0.1:5301']\n";
        let config = Config::parse(text, "c.toml", Path::new("")).expect("the config is right");
        ForwarderState::new(&config, None, None, None, 1, std::time::Instant::now()).expect("it has a forwarder")
    }

    fn note(state: &ForwarderState, races: usize, took: Duration) {
        (0..races).for_each(|_| state.pools[0].state.counters[0].duration.record(took));
    }

    /// Returns the threshold of the only pool after this many seconds.
    fn after(
        thresholds: &mut SlowThresholds,
        seconds: usize,
        threshold: SlowThreshold,
        state: &ForwarderState,
    ) -> Duration {
        thresholds.threshold = threshold;
        (0..seconds).for_each(|_| thresholds.on_second(state));
        state.pools[0].state.slow_threshold()
    }

    const MS: Duration = Duration::from_millis(1);

    /// The `hedge.max_delay` of the only pool.
    const UNKNOWN: Duration = Duration::from_millis(250);

    #[test]
    fn auto_is_what_nearly_all_races_of_the_last_minute_kept() {
        let (mut thresholds, state) = (SlowThresholds::new(SlowThreshold::Auto), state());
        let mut pass = |seconds| after(&mut thresholds, seconds, SlowThreshold::Auto, &state);
        assert_eq!(pass(1), UNKNOWN, "nothing is known yet");
        note(&state, 2_000, 10 * MS);
        note(&state, 1, 500 * MS);
        // A histogram is off by a sixteenth at most.
        let is_near = |threshold: Duration, of: Duration| threshold.abs_diff(of) <= of / 16;
        let threshold = pass(STEP);
        assert!(is_near(threshold, 10 * MS), "one of two thousand is the tail: {threshold:?}");
        note(&state, 9, 500 * MS);
        let threshold = pass(STEP);
        assert!(is_near(threshold, 500 * MS), "ten are not: {threshold:?}");
        let threshold = pass(STEP * (STEPS - 2));
        assert!(is_near(threshold, 500 * MS), "it is still the same minute: {threshold:?}");
        assert_eq!(pass(STEP * 2), UNKNOWN, "a minute later none of them counts");
    }

    #[test]
    fn without_history_nothing_below_the_longest_delay_of_a_hedge_is_slow() {
        let (mut thresholds, state) = (SlowThresholds::new(SlowThreshold::Auto), state());
        let mut pass = || after(&mut thresholds, STEP, SlowThreshold::Auto, &state);
        assert_eq!(pass(), UNKNOWN);
        note(&state, 999, 2 * MS);
        assert_eq!(pass(), UNKNOWN, "they are too few");
        note(&state, 1, 2 * MS);
        assert!(pass() < 3 * MS, "they are enough");
    }

    #[test]
    fn a_change_of_members_is_no_second() {
        let (mut thresholds, state) = (SlowThresholds::new(SlowThreshold::Auto), state());
        after(&mut thresholds, 1, SlowThreshold::Auto, &state);
        note(&state, 1_000, 100 * MS);
        after(&mut thresholds, STEP, SlowThreshold::Auto, &state);
        (0..10 * STEP * STEPS).for_each(|_| thresholds.set(&state));
        assert!(state.pools[0].state.slow_threshold() > 50 * MS, "the minute is not over");
    }

    #[test]
    fn auto_is_never_below_a_millisecond() {
        let (mut thresholds, state) = (SlowThresholds::new(SlowThreshold::Auto), state());
        after(&mut thresholds, 1, SlowThreshold::Auto, &state);
        note(&state, 1_000, MS / 5);
        assert_eq!(after(&mut thresholds, STEP, SlowThreshold::Auto, &state), MS);
    }

    #[test]
    fn what_the_config_says_is_in_force_at_once() {
        let (mut thresholds, state) = (SlowThresholds::new(SlowThreshold::Auto), state());
        after(&mut thresholds, 1, SlowThreshold::Auto, &state);
        note(&state, 1_000, 100 * MS);
        after(&mut thresholds, STEP, SlowThreshold::Auto, &state);
        let mut set = |threshold| after(&mut thresholds, 1, threshold, &state);
        assert_eq!(set(SlowThreshold::Above(7 * MS)), 7 * MS);
        assert_eq!(set(SlowThreshold::Off), Duration::MAX);
        assert_eq!(set(SlowThreshold::Auto), UNKNOWN, "what was before is forgotten");
    }
}
