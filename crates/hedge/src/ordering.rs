//! The final order of candidates after `balance`: stalled backends come last, and hedges are distributed.

mod ways;

use std::time::{Duration, Instant};

use rand::Rng;

pub use self::ways::{BackendPath, order_ways};
use super::backend_load::BackendLoad;
use super::balance::Balance;
use super::candidates::{BackendIndex, Candidates};
use super::latency::Latency;
use super::rules::{Dispatch, RaceRules};

/// The state of the backends, by [`BackendIndex`].
#[derive(Clone, Copy, Debug)]
pub struct BackendStats<'a> {
    /// The load of each backend.
    pub loads: &'a [BackendLoad],
    /// The latency of each backend.
    pub latency: &'a [Latency],
    /// The time of the decision.
    pub now: Instant,
}

/// Returns the backends that a race may ask, in order. `weight` returns a backend's share of the load.
#[inline]
pub fn order(
    candidates: &Candidates,
    rules: &RaceRules,
    known: &BackendStats<'_>,
    weight: impl Fn(BackendIndex) -> u16,
    rng: &mut impl Rng,
) -> Candidates {
    if rules.balance == Balance::Ordered {
        return known.draw_hedged(*candidates, rules, rng);
    }
    let (mut candidates, fit) = known.stalled_last(candidates, rules.attempt_timeout.longest());
    match rules.dispatch {
        Dispatch::Hedge | Dispatch::Auto => {
            let is_failing =
                |backend: BackendIndex| known.loads.get(backend.get()).is_some_and(|load| load.is_failing(known.now));
            let fit = match rules.balance {
                Balance::LeastLoad | Balance::Fastest => {
                    candidates.iter().take(fit).take_while(|backend| !is_failing(*backend)).count()
                }
                _ => fit,
            };
            let load = |backend| f64::from(known.in_flight(backend)) / f64::from(weight(backend).max(1));
            candidates.draw_hedges(usize::from(rules.hedge.max), fit, load, rng);
        }
        Dispatch::Race | Dispatch::Sequential => {}
    }
    known.draw_hedged(candidates, rules, rng)
}

impl BackendStats<'_> {
    /// Draws if the race may hedge, with the probability of its first backend.
    #[inline]
    fn draw_hedged(&self, candidates: Candidates, rules: &RaceRules, rng: &mut impl Rng) -> Candidates {
        let first = candidates.get(0).filter(|_| rules.dispatch == Dispatch::Auto);
        let tuned = first.and_then(|first| self.latency.get(first.get())?.tuned());
        let part = tuned.map_or(1.0, |tuned| tuned.probability);
        if part < 1.0 && rng.next_u32() as f32 >= part * 2.0_f32.powi(32) { candidates.unhedged() } else { candidates }
    }

    #[inline]
    fn stalled_last(&self, candidates: &Candidates, longest: Duration) -> (Candidates, usize) {
        let is_stalled = |backend: &BackendIndex| self.is_stalled(*backend, longest);
        if candidates.all_down() || !candidates.as_slice().iter().any(is_stalled) {
            return (*candidates, candidates.len());
        }
        self.move_stalled_last(candidates, longest)
    }

    /// Moves stalled backends to the end, the most recently heard first, because after a pause of the whole
    /// machine a dead backend must not come first.
    #[cold]
    #[inline(never)]
    fn move_stalled_last(&self, candidates: &Candidates, longest: Duration) -> (Candidates, usize) {
        let mut list = Candidates::of(candidates.iter().filter(|backend| !self.is_stalled(*backend, longest)), false);
        let fit = list.len();
        while let Some(next) =
            candidates.iter().filter(|backend| !list.contains(*backend)).min_by_key(|backend| self.silence(*backend))
        {
            list.push(next);
        }
        (list, fit)
    }

    /// Returns true if a backend has stalled, so that others are asked first.
    #[inline]
    pub fn is_stalled(&self, backend: BackendIndex, longest: Duration) -> bool {
        let load = self.loads.get(backend.get());
        let is_stalled = |patience| load.is_some_and(|load| load.is_stalled(patience, self.now));
        is_stalled(MIN_PATIENCE.min(longest)) && is_stalled(self.patience(backend, longest))
    }

    /// Returns the time that a backend with open attempts has been silent.
    pub fn silence(&self, backend: BackendIndex) -> Duration {
        self.loads.get(backend.get()).map_or(Duration::ZERO, |load| load.silence(self.now))
    }

    /// Follows the usual latency, not the slowest replies, because many attempts are not all among the
    /// slowest.
    fn patience(&self, backend: BackendIndex, longest: Duration) -> Duration {
        let usual = self.latency.get(backend.get()).and_then(|latency| latency.quantile(0.75));
        usual.map_or(longest, |usual| (3 * usual).max(MIN_PATIENCE).min(longest))
    }

    fn in_flight(&self, backend: BackendIndex) -> u32 {
        self.loads.get(backend.get()).map_or(0, |load| load.in_flight_of_all(self.now))
    }
}

/// The minimum silence of a stall: to avoid a shorter pause costs more than the pause.
const MIN_PATIENCE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::race::{AttemptKind, Race, RaceContext, RaceStep};
    use crate::{AttemptTimeout, Hedge, HedgeDelay, budget::Budget};

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// Checks the order of three backends after some of them have been silent for `waited`.
    fn check(silent: &[usize], balance: Balance, all_down: bool, waited: Duration, expected: [u16; 3]) {
        let now = Instant::now();
        let mut loads = [(); 3].map(|()| BackendLoad::new(now));
        for &backend in silent {
            (0..8).for_each(|_| loads[backend].asked(now));
        }
        let candidates = Candidates::of([0, 1, 2].map(BackendIndex), all_down);
        let rules = RaceRules { balance, attempt_timeout: AttemptTimeout::after(TIMEOUT), ..RaceRules::default() };
        let known = BackendStats { loads: &loads, latency: &[], now: now + waited };
        let found = order(&candidates, &rules, &known, |_| 1, &mut SmallRng::seed_from_u64(1));
        assert_eq!(found.as_slice(), expected.map(BackendIndex), "{silent:?}");
        assert_eq!(found.all_down(), all_down);
    }

    #[test]
    fn the_silent_come_last_in_their_order() {
        check(&[], Balance::RoundRobin, false, TIMEOUT, [0, 1, 2]);
        check(&[0], Balance::RoundRobin, false, TIMEOUT, [1, 2, 0]);
        check(&[0, 1], Balance::Random, false, TIMEOUT, [2, 0, 1]);
        check(&[0, 1, 2], Balance::RoundRobin, false, TIMEOUT, [0, 1, 2]);
    }

    #[test]
    fn of_several_silent_ones_the_last_heard_comes_first() {
        let now = Instant::now();
        let mut loads = [(); 3].map(|()| BackendLoad::new(now));
        for (backend, since) in [(0, 0), (1, 20), (2, 10)] {
            (0..8).for_each(|_| loads[backend].asked(now + Duration::from_millis(since)));
        }
        let candidates = Candidates::of([0, 1, 2].map(BackendIndex), false);
        let known = BackendStats { loads: &loads, latency: &[], now: now + 2 * TIMEOUT };
        let found = order(&candidates, &RaceRules::default(), &known, |_| 1, &mut SmallRng::seed_from_u64(1));
        assert_eq!(found.as_slice(), [1, 2, 0].map(BackendIndex));
    }

    #[test]
    fn some_orders_stay_as_they_are() {
        check(&[0], Balance::RoundRobin, false, TIMEOUT / 2, [0, 1, 2]);
        check(&[0], Balance::RoundRobin, true, TIMEOUT, [0, 1, 2]);
        check(&[0], Balance::Ordered, false, TIMEOUT, [0, 1, 2]);
    }

    #[test]
    fn patience_follows_the_latency_within_bounds() {
        let now = Instant::now();
        for (usual, expected) in [(1, 10), (10, 30), (900, 1_000)] {
            let mut latency = [Latency::new(now)];
            (0..100).for_each(|_| _ = latency[0].record(Duration::from_millis(usual), now));
            let known = BackendStats { loads: &[], latency: &latency, now };
            let found = known.patience(BackendIndex(0), TIMEOUT).as_millis();
            assert!(found.abs_diff(expected) * 20 <= expected, "{usual} ms: {found} ms");
            assert_eq!(known.patience(BackendIndex(1), TIMEOUT), TIMEOUT);
        }
    }

    #[test]
    fn a_hedge_goes_to_the_idle_rather_than_to_the_busy() {
        let now = Instant::now();
        let mut loads = [(); 3].map(|()| BackendLoad::new(now));
        (0..5).for_each(|_| loads[1].asked(now));
        let hedge = Hedge { delay: HedgeDelay::Fixed(Duration::ZERO), budget: 1.0, ..Hedge::default() };
        let rules = RaceRules { dispatch: Dispatch::Hedge, hedge, ..RaceRules::default() };
        let candidates = Candidates::of([0, 1, 2].map(BackendIndex), false);
        let known = BackendStats { loads: &loads, latency: &[], now };
        // Of two remaining backends, both are always drawn.
        let found = order(&candidates, &rules, &known, |_| 1, &mut SmallRng::seed_from_u64(1));
        let budget = Budget::new(1.0);
        let latency = [Latency::new(now), Latency::new(now), Latency::new(now)];
        let context = RaceContext { rules: &rules, latency: &latency, loads: &[], by_stream: &[], budget: &budget };
        let mut race = Race::start(&context, &found, true, now);
        let asked: Vec<_> = std::iter::from_fn(|| match race.poll(&context, now) {
            RaceStep::Ask { backend, kind, .. } => Some((backend.0, kind)),
            RaceStep::WaitUntil(_) | RaceStep::Finished(_) => None,
        })
        .collect();
        assert_eq!(asked, [(0, AttemptKind::First), (2, AttemptKind::Hedge)]);
    }
}
