//! The last minute of each pool: its queries, which size its hedge bucket, the durations of its races, from
//! which the threshold for slow races may follow, and whether it has lost its last backend.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use config::{SlowConfig, SlowThreshold};
use engine::state::{ForwarderState, PoolState, SharedPool};
use metrics::{Aggregate, BackendState, HistogramSnapshot};

pub(super) struct LastMinutes {
    pub(super) threshold: SlowThreshold,
    pub(super) pools: Vec<LastMinute>,
    seconds: usize,
}

pub(super) struct LastMinute {
    pool: Arc<PoolState>,
    /// All queries until each second.
    queries: VecDeque<u64>,
    /// All races until each step of the threshold.
    races: VecDeque<HistogramSnapshot>,
    is_dead: bool,
}

impl LastMinutes {
    pub(super) fn new(threshold: SlowThreshold) -> Self {
        Self { threshold, pools: Vec::new(), seconds: 0 }
    }

    /// Returns the number of all queries of a pool until each second.
    pub(super) fn queries(&self, pool: &Arc<PoolState>) -> Vec<u64> {
        let known = self.pools.iter().find(|known| Arc::ptr_eq(&known.pool, pool));
        known.map(|known| known.queries.iter().copied().collect()).unwrap_or_default()
    }

    /// Continues the numbers that a previous process has counted.
    pub(super) fn set_queries(&mut self, pool: &Arc<PoolState>, totals: &[u64]) {
        let latest = &totals[totals.len().saturating_sub(SECONDS)..];
        self.minute(pool).queries = latest.iter().copied().collect();
    }

    /// Sets the thresholds of changed pools.
    pub(super) fn set_state(&mut self, state: &ForwarderState) {
        self.follow(state, false);
    }

    /// Takes the numbers of a second.
    pub(super) fn on_second(&mut self, state: &ForwarderState) {
        self.follow(state, self.seconds.is_multiple_of(STEP));
        self.seconds += 1;
        for pool in &state.pools {
            let minute = self.minute(&pool.state);
            minute.count(pool);
            let name = &pool.config.name;
            match take_death(&mut minute.is_dead, pool.backends.iter().map(|backend| backend.state())) {
                Some(true) => tracing::error!("pool {name}: no backend is up"),
                Some(false) => tracing::info!("pool {name}: a backend is up again"),
                None => {}
            }
        }
    }

    fn follow(&mut self, state: &ForwarderState, is_step: bool) {
        self.pools.retain(|known| state.pools.iter().any(|pool| Arc::ptr_eq(&pool.state, &known.pool)));
        for pool in &state.pools {
            let threshold = self.threshold;
            let minute = self.minute(&pool.state);
            match threshold {
                SlowThreshold::Auto => minute.set_threshold(pool.config.rules.race.hedge.max_delay, is_step),
                SlowThreshold::Off | SlowThreshold::Above(_) => minute.races.clear(),
            }
            match threshold {
                SlowThreshold::Auto => {}
                SlowThreshold::Off => pool.state.set_slow_threshold(Duration::MAX),
                SlowThreshold::Above(threshold) => pool.state.set_slow_threshold(threshold),
            }
        }
    }

    fn minute(&mut self, pool: &Arc<PoolState>) -> &mut LastMinute {
        let known = self.pools.iter().position(|known| Arc::ptr_eq(&known.pool, pool));
        let place = known.unwrap_or_else(|| {
            let (queries, races) = (VecDeque::with_capacity(SECONDS + 1), VecDeque::with_capacity(STEPS + 1));
            self.pools.push(LastMinute { pool: Arc::clone(pool), queries, races, is_dead: false });
            self.pools.len() - 1
        });
        &mut self.pools[place]
    }
}

impl LastMinute {
    fn count(&mut self, pool: &SharedPool) {
        let total = pool.state.queries();
        push(&mut self.queries, total, SECONDS);
        pool.budget().set_recent_queries(total.saturating_sub(self.queries.front().copied().unwrap_or(0)));
    }

    /// Sets the threshold of a pool to the 99.9th percentile of its last minute. With too few races it is
    /// `unknown`, the longest hedge delay: a shorter race is not slow until the pool has a history.
    fn set_threshold(&mut self, unknown: Duration, is_step: bool) {
        if !is_step && !self.races.is_empty() {
            return;
        }
        let mut now = HistogramSnapshot::default();
        self.pool.counters.iter().for_each(|worker| now.collect(&worker.duration));
        let minute = self.races.front().map(|first| now.since(first)).filter(|minute| minute.count() >= MIN_RACES);
        let threshold = minute.and_then(|minute| minute.quantile(0.999)).unwrap_or(unknown);
        self.pool.set_slow_threshold(threshold.max(SlowConfig::MIN_AUTO));
        push(&mut self.races, now, STEPS);
    }
}

/// Adds a value, and removes the first one if there are too many.
fn push<T>(values: &mut VecDeque<T>, value: T, max: usize) {
    values.push_back(value);
    if values.len() > max {
        values.pop_front();
    }
}

/// Takes the backend states of a pool. Returns whether the pool is dead, if that has changed. A new backend
/// may be up.
fn take_death(is_dead: &mut bool, mut states: impl Iterator<Item = BackendState> + Clone) -> Option<bool> {
    let was_dead = *is_dead;
    let has_states = states.clone().next().is_some();
    if states.clone().any(BackendState::is_up) {
        *is_dead = false;
    } else if has_states && states.all(|state| state != BackendState::New) {
        *is_dead = true;
    }
    (*is_dead != was_dead).then_some(*is_dead)
}

const SECONDS: usize = 60;

const STEP: usize = 5;

const STEPS: usize = 12;

/// The fewest races for a 99.9th percentile: of fewer than 1,000 one is more than 0.1 %.
const MIN_RACES: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Config;

    use super::*;

    fn state() -> ForwarderState {
        let text = "[forwarder]\nlisten = ['127.0.0.1:5300']\n[pools.p]\nbackends = ['127.0.0.1:5301']\n";
        let config = Config::parse(text, "c.toml", Path::new("")).expect("the config is right");
        ForwarderState::new(&config, None, None, None, 1, std::time::Instant::now()).expect("it has a forwarder")
    }

    fn note(state: &ForwarderState, races: usize, took: Duration) {
        (0..races).for_each(|_| state.pools[0].state.counters[0].duration.record(took));
    }

    #[test]
    fn a_pool_is_dead_once_and_alive_once() {
        use BackendState::{Down, New, Up};
        let mut is_dead = false;
        let mut take = |states: &[BackendState]| take_death(&mut is_dead, states.iter().copied());
        assert_eq!((take(&[]), take(&[New, Down]), take(&[Up, Down])), (None, None, None));
        assert_eq!((take(&[Down, Down]), take(&[Down, Down])), (Some(true), None));
        assert_eq!((take(&[Up, Down]), take(&[Up, Up])), (Some(false), None));
    }

    /// Returns the threshold of the only pool after this many seconds.
    fn after(
        thresholds: &mut LastMinutes,
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
        let (mut thresholds, state) = (LastMinutes::new(SlowThreshold::Auto), state());
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
        let (mut thresholds, state) = (LastMinutes::new(SlowThreshold::Auto), state());
        let mut pass = || after(&mut thresholds, STEP, SlowThreshold::Auto, &state);
        assert_eq!(pass(), UNKNOWN);
        note(&state, 999, 2 * MS);
        assert_eq!(pass(), UNKNOWN, "they are too few");
        note(&state, 1, 2 * MS);
        assert!(pass() < 3 * MS, "they are enough");
    }

    #[test]
    fn a_change_of_members_is_no_second() {
        let (mut thresholds, state) = (LastMinutes::new(SlowThreshold::Auto), state());
        after(&mut thresholds, 1, SlowThreshold::Auto, &state);
        note(&state, 1_000, 100 * MS);
        after(&mut thresholds, STEP, SlowThreshold::Auto, &state);
        (0..10 * STEP * STEPS).for_each(|_| thresholds.set_state(&state));
        assert!(state.pools[0].state.slow_threshold() > 50 * MS, "the minute is not over");
    }

    #[test]
    fn auto_is_never_below_a_millisecond() {
        let (mut thresholds, state) = (LastMinutes::new(SlowThreshold::Auto), state());
        after(&mut thresholds, 1, SlowThreshold::Auto, &state);
        note(&state, 1_000, MS / 5);
        assert_eq!(after(&mut thresholds, STEP, SlowThreshold::Auto, &state), MS);
    }

    #[test]
    fn what_the_config_says_is_in_force_at_once() {
        let (mut thresholds, state) = (LastMinutes::new(SlowThreshold::Auto), state());
        after(&mut thresholds, 1, SlowThreshold::Auto, &state);
        note(&state, 1_000, 100 * MS);
        after(&mut thresholds, STEP, SlowThreshold::Auto, &state);
        let mut set = |threshold| after(&mut thresholds, 1, threshold, &state);
        assert_eq!(set(SlowThreshold::Above(7 * MS)), 7 * MS);
        assert_eq!(set(SlowThreshold::Off), Duration::MAX);
        assert_eq!(set(SlowThreshold::Auto), UNKNOWN, "what was before is forgotten");
    }
}
