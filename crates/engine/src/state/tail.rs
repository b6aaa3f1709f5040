//! The tail latency of a pool: the control thread measures its regret from the counts of the workers, and
//! tunes the hedges of `dispatch = "auto"`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hedge::Dispatch;
use hedge::balance::highest_in_use;
use hedge::regret::{Regret, RegretMeter, RegretRules, RegretTally};
use hedge::tuning::{Tuning, TuningRules, tune};
use metrics::{HedgeSnapshot, TuningSnapshot};

use super::{SharedBackend, SharedPool};
use crate::explain::millis;

/// The tallies of all workers, and the meter that reads them.
#[derive(Debug)]
pub(crate) struct PoolRegret {
    /// By worker. A tally is made for the first reply.
    tallies: Box<[OnceLock<Box<RegretTally>>]>,
    meter: Mutex<RegretMeter>,
}

impl PoolRegret {
    pub(super) fn new(workers: usize) -> Self {
        Self { tallies: (0..workers).map(|_| OnceLock::new()).collect(), meter: Mutex::default() }
    }

    /// Returns the tally of a worker, which alone may count in it.
    #[inline]
    pub(crate) fn tally(&self, worker: usize) -> &RegretTally {
        self.tallies[worker].get_or_init(Box::default)
    }

    /// Returns the last measured regret; `None` without enough races.
    pub(crate) fn latest(&self) -> Option<Regret> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).latest()
    }
}

impl SharedPool {
    /// Measures the regret, if the last measurement is some seconds old.
    pub fn measure_regret(&self, now: Instant) -> Option<Regret> {
        let PoolRegret { tallies, meter } = &self.state.regret;
        let tallies = tallies.iter().filter_map(|tally| tally.get().map(|tally| &**tally));
        meter.lock().unwrap_or_else(PoisonError::into_inner).measure(tallies, &self.regret_rules(), now)
    }

    /// The time between two tunings.
    pub const TUNE_EVERY: Duration = Duration::from_millis(200);

    /// Tunes the hedges to what was measured, if the dispatch is `auto`.
    pub fn tune_hedges(&self, now: Instant) {
        let rules = &self.rules().race;
        if rules.dispatch != Dispatch::Auto {
            return;
        }
        let (_, hedged) = self.asked_tiers();
        let is_asked = |backend: &&Arc<SharedBackend>| backend.is_up() && self.tier(backend.index) <= hedged;
        let known = self.backends.iter().filter(is_asked).filter_map(|backend| {
            let sample = backend.shared_latency().sample(self.domain(backend.index).site, now)?;
            Some((backend, sample))
        });
        let (backends, samples): (Vec<_>, Vec<_>) = known.unzip();
        // Early attempts after a loss depend on an allowance, so the tuning does not count on them.
        let (target, failover) = (rules.hedge.target, rules.attempt_timeout.longest());
        let (budget, step) = (rules.hedge.budget, self.budget().rate());
        let tuning = tune(&samples, &TuningRules { target, budget, step, failover });
        self.budget().set_rate(tuning.as_ref().map_or_else(|| rules.first_budget(), |tuning| tuning.step));
        let hedges = tuning.iter().flat_map(|tuning| tuning.hedges.iter().copied().map(Some));
        for (backend, hedge) in backends.iter().zip(hedges.chain(std::iter::repeat(None))) {
            backend.shared_latency().set_tuned(hedge);
        }
        let tuning = tuning.map(|Tuning { hedges, delays, expected, extra, step: _ }| {
            let hedges = backends.iter().zip(hedges).zip(delays).map(|((backend, hedge), delay)| HedgeSnapshot {
                backend: backend.name.clone(),
                delay_ms: millis(delay),
                probability: hedge.probability.into(),
            });
            let (percentile, expected_ms) = ((target * 1e6).round() / 1e4, expected.map(millis));
            TuningSnapshot { percentile, expected_ms, extra_load: extra, hedges: hedges.collect() }
        });
        *self.state.tuning.lock().unwrap_or_else(PoisonError::into_inner) = tuning;
    }

    /// Returns the hedges of the last tuning; `None` if the dispatch is not `auto`, or too little is known.
    pub fn tuning(&self) -> Option<TuningSnapshot> {
        let tuning = self.state.tuning.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tuning.filter(|_| self.rules().race.dispatch == Dispatch::Auto)
    }

    /// Returns the highest tier in use, and the highest one that a hedge may go to: that of the nearest spare
    /// if only one backend takes turns.
    fn asked_tiers(&self) -> (u8, u8) {
        if !self.has_tiers() {
            return (0, 0);
        }
        let tiers = self.backends.iter().map(|backend| (self.tier(backend.index), backend.takes_queries()));
        let in_use = highest_in_use(self.rules().min_up, tiers.clone());
        let up = tiers.filter(|(_, takes_queries)| *takes_queries).map(|(tier, _)| tier);
        let nearest = up.clone().filter(|tier| *tier > in_use).min();
        let is_alone = up.filter(|tier| *tier <= in_use).count() == 1;
        (in_use, nearest.filter(|_| is_alone).unwrap_or(in_use))
    }

    fn regret_rules(&self) -> RegretRules {
        let rules = &self.rules().race;
        // A backend that is down cannot take a second attempt.
        let (in_use, hedged) = self.asked_tiers();
        let asked = if rules.dispatch == Dispatch::Race { in_use } else { hedged };
        let is_asked = |backend: &&Arc<SharedBackend>| backend.is_up() && self.tier(backend.index) <= asked;
        let others = self.backends.iter().filter(is_asked).count().saturating_sub(1);
        let budget = match rules.dispatch {
            _ if others == 0 => 0.0,
            Dispatch::Race if rules.fanout == 0 => others as f64,
            Dispatch::Race => f64::from(rules.fanout - 1).min(others as f64),
            // A sequential pool sees what a hedge within its budget would gain.
            Dispatch::Hedge | Dispatch::Auto | Dispatch::Sequential => rules.hedge.budget,
        };
        let target = if rules.dispatch == Dispatch::Auto { rules.hedge.target } else { TARGET };
        RegretRules { target, budget, failover: (others > 0).then_some(rules.attempt_timeout.longest()) }
    }
}

/// The part of the races by which a pool without a target is judged.
const TARGET: f64 = 0.999;

#[cfg(test)]
mod tests {
    use config::PoolRules;
    use hedge::health::HealthState;
    use hedge::{Hedge, HedgeDelay, RaceRules};

    use super::*;
    use crate::sim::{BackendModel, Course, Delay, Scenario, SeatModel, play};

    const MS: Duration = Duration::from_millis(1);

    fn regret(dispatch: Dispatch, delay: HedgeDelay, model: &BackendModel) -> Option<Regret> {
        pool(dispatch, delay, model).measure_regret(Instant::now())
    }

    /// Returns a pool of three backends that take 1 to 3 ms, or with 2 % another 50 ms, after many races.
    fn pool(dispatch: Dispatch, delay: HedgeDelay, model: &BackendModel) -> Arc<SharedPool> {
        let hedge = Hedge { delay, ..Hedge::default() };
        let rules = PoolRules {
            race: RaceRules { dispatch, fanout: 2, hedge, ..RaceRules::default() },
            ..PoolRules::default()
        };
        let usual = Box::new(Delay::Uniform { from: MS, to: 3 * MS });
        let delay = Course::always(Delay::Mixture {
            usual,
            others: vec![(0.02, Delay::Uniform { from: 50 * MS, to: 60 * MS })],
        });
        let model = BackendModel { delay, ..model.clone() };
        let gap = Duration::from_micros(500);
        let scenario = Scenario { queries: 40_000, gap, ..Scenario::of_pool(rules, vec![model; 3]) };
        Arc::clone(&play(&scenario, Instant::now(), 7, |_, _| ()).pools[0])
    }

    #[test]
    fn backends_that_are_down_could_not_have_helped() {
        let pool = pool(Dispatch::Sequential, HedgeDelay::Auto, &BackendModel::default());
        pool.backends[1..].iter().for_each(|backend| assert!(backend.set_health(HealthState::Down)));
        let regret = pool.measure_regret(Instant::now()).expect("there are enough races");
        assert_eq!((regret.ratio(), regret.budget), (1.0, 0.0));
    }

    #[test]
    fn spare_that_no_hedge_reaches_does_not_count() {
        let rules = PoolRules { race: RaceRules::default().with_dispatch(Dispatch::Auto), ..PoolRules::default() };
        let mut models = vec![BackendModel::default(); 3];
        models[2].seat = SeatModel { weight: 1, tier: 1 };
        let gap = Duration::from_micros(500);
        let scenario = Scenario { queries: 10_000, gap, ..Scenario::of_pool(rules, models) };
        let pool = Arc::clone(&play(&scenario, Instant::now(), 7, |_, _| ()).pools[0]);
        assert_eq!(pool.asked_tiers(), (0, 0));
        assert!(pool.backends[0].set_health(HealthState::Down));
        assert_eq!(pool.asked_tiers(), (0, 1), "a hedge goes to the spare");
        assert!(pool.backends[1].set_health(HealthState::Down));
        assert_eq!(pool.asked_tiers(), (1, 1), "the spare takes turns");
    }

    #[test]
    fn good_hedges_leave_less_to_regret_than_late_or_no_hedges() {
        for loss in [0.0, 0.003] {
            let model = BackendModel { loss: Course::always(loss), ..BackendModel::default() };
            let regret = |dispatch, delay| regret(dispatch, delay, &model).expect("there are enough races");
            let good = regret(Dispatch::Hedge, HedgeDelay::Auto);
            let late = regret(Dispatch::Hedge, HedgeDelay::Fixed(20 * MS));
            let none = regret(Dispatch::Sequential, HedgeDelay::Auto);
            let race = regret(Dispatch::Race, HedgeDelay::Auto);
            assert!((1.0..1.1).contains(&good.ratio()), "{good:?}");
            assert!(late.ratio() > 3.0 && none.ratio() > 9.0, "{late:?} {none:?}");
            assert!((1.0..1.1).contains(&race.ratio()) && race.budget == 1.0, "{race:?}");
            // Attempts that were beaten and then lost or late leave the same optimum as whole ones.
            for other in [late, none] {
                let best = other.best.time.div_duration_f64(good.best.time);
                assert!((0.9..1.1).contains(&best), "{other:?} beside {good:?}");
            }
        }
    }

    #[test]
    fn races_that_no_hedge_could_help_do_not_count() {
        let rarely = BackendModel { knows: 0.5, miss: None, ..BackendModel::default() };
        let regret = regret(Dispatch::Hedge, HedgeDelay::Auto, &rarely);
        assert!(regret.is_none_or(|regret| regret.ratio() < 1.1), "a silent miss is no latency: {regret:?}");
    }
}
