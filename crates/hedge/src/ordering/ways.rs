//! The order of candidates with different paths: open connections come before closed ones, and another
//! machine comes before another path to the same one.
//!
//! The algorithm:
//!
//! 1. There are three groups: warm backends; backends without an open connection, because a handshake eats
//!    the gain of a race; and stalled backends. In `race` all are asked at once, and the connection makes no
//!    difference.
//! 2. Within a group, the first path to each machine comes first; then the others, in their order.
//! 3. Hedges are distributed among the backends of the first non-empty group that are on different machines,
//!    at other sites than the first backend if there are any.

use rand::Rng;

use super::BackendStats;
use crate::balance::Balance;
use crate::candidates::{BackendIndex, Candidates};
use crate::rules::{Dispatch, RaceRules};

/// The path to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendPath {
    /// True if the backend is asked by stream and has no open connection.
    pub is_cold: bool,
    /// The machine of the backend; 0 for a machine that no other backend shares.
    pub machine: u16,
    /// The failure domain of the backend; 0 for one that no other backend shares.
    pub site: u16,
}

/// Returns the backends that a race may ask, in order, by load share (`weight`) and path (`way`).
pub fn order_ways(
    candidates: &Candidates,
    rules: &RaceRules,
    known: &BackendStats<'_>,
    weight: impl Fn(BackendIndex) -> u16,
    way: impl Fn(BackendIndex) -> BackendPath,
    rng: &mut impl Rng,
) -> Candidates {
    if candidates.all_down() {
        return super::order(candidates, rules, known, weight, rng);
    }
    let (in_turn, heard) = match rules.balance {
        Balance::Ordered => (*candidates, candidates.len()),
        Balance::RoundRobin
        | Balance::Random
        | Balance::Sticky
        | Balance::Hash
        | Balance::LeastLoad
        | Balance::Fastest => known.stalled_last(candidates, rules.attempt_timeout.longest()),
    };
    let (heard, silent) = in_turn.as_slice().split_at(heard);
    let is_cold = |backend: &BackendIndex| match rules.dispatch {
        Dispatch::Hedge | Dispatch::Auto | Dispatch::Sequential => way(*backend).is_cold,
        Dispatch::Race => false,
    };
    let mut list = Candidates::new(false);
    let warm = heard.iter().filter(|backend| !is_cold(backend));
    let warm_ahead = add(&mut list, warm, |backend| way(backend).machine);
    let cold = heard.iter().filter(|backend| is_cold(backend));
    let cold_ahead = add(&mut list, cold, |backend| way(backend).machine);
    let silent_ahead = add(&mut list, silent.iter(), |backend| way(backend).machine);
    if rules.dispatch.is_hedging() && rules.balance != Balance::Ordered {
        let free = [warm_ahead, cold_ahead, silent_ahead].into_iter().find(|ahead| *ahead > 0).unwrap_or_default();
        let own = list.get(0).map_or(0, |first| way(first).site);
        let free = list.far_first(free, |backend| own == 0 || way(backend).site != own);
        let load = |backend| f64::from(known.in_flight(backend)) / f64::from(weight(backend).max(1));
        list.draw_hedges(usize::from(rules.hedge.max), free, load, rng);
    }
    known.draw_hedged(list, rules, rng)
}

fn add<'a>(
    list: &mut Candidates,
    members: impl Iterator<Item = &'a BackendIndex> + Clone,
    machine: impl Fn(BackendIndex) -> u16,
) -> usize {
    let before = list.len();
    for backend in members.clone() {
        let own = machine(*backend);
        if own == 0 || !list.iter().any(|other| machine(other) == own) {
            list.push(*backend);
        }
    }
    let ahead = list.len() - before;
    members.for_each(|backend| list.push(*backend));
    ahead
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::Hedge;
    use crate::backend_load::BackendLoad;

    /// The order of five backends, some without a connection or stalled, on these machines.
    struct Case {
        cold: &'static [u16],
        silent: &'static [u16],
        machines: [u16; 5],
        sites: [u16; 5],
        rules: RaceRules,
        all_down: bool,
    }

    /// All backends are warm, heard, and on separate machines.
    fn case(dispatch: Dispatch) -> Case {
        let rules = RaceRules { dispatch, ..RaceRules::default() };
        Case { cold: &[], silent: &[], machines: [0; 5], sites: [0; 5], rules, all_down: false }
    }

    impl Case {
        fn cold(self, cold: &'static [u16]) -> Self {
            Self { cold, ..self }
        }

        fn silent(self, silent: &'static [u16]) -> Self {
            Self { silent, ..self }
        }

        fn machines(self, machines: [u16; 5]) -> Self {
            Self { machines, ..self }
        }

        fn sites(self, sites: [u16; 5]) -> Self {
            Self { sites, ..self }
        }

        fn found(&self, seed: u64) -> Candidates {
            let now = Instant::now();
            let mut loads = [(); 5].map(|()| BackendLoad::new(now));
            for backend in self.silent {
                (0..8).for_each(|_| loads[usize::from(*backend)].asked(now));
            }
            let candidates = Candidates::of((0..5).map(BackendIndex), self.all_down);
            let known = BackendStats { loads: &loads, latency: &[], now: now + Duration::from_secs(1) };
            let way = |backend: BackendIndex| BackendPath {
                is_cold: self.cold.contains(&backend.0),
                machine: self.machines[backend.get()],
                site: self.sites[backend.get()],
            };
            order_ways(&candidates, &self.rules, &known, |_| 1, way, &mut SmallRng::seed_from_u64(seed))
        }

        #[track_caller]
        fn check(self, expected: [u16; 5]) {
            let found = self.found(1);
            assert_eq!((found.as_slice(), found.all_down()), (&expected.map(BackendIndex)[..], self.all_down));
        }
    }

    const ONE_AT_A_TIME: [Dispatch; 2] = [Dispatch::Hedge, Dispatch::Sequential];

    #[test]
    fn who_has_no_connection_stands_behind_those_that_have_one() {
        for dispatch in ONE_AT_A_TIME {
            case(dispatch).check([0, 1, 2, 3, 4]);
            case(dispatch).cold(&[0, 3]).check([1, 2, 4, 0, 3]);
            // No backend has a connection: the order is the usual one.
            case(dispatch).cold(&[0, 1, 2, 3, 4]).check([0, 1, 2, 3, 4]);
            // Stalled backends come last, with or without an open connection.
            case(dispatch).cold(&[0]).silent(&[1, 2]).check([3, 4, 0, 1, 2]);
            let ordered = case(dispatch).cold(&[0]).silent(&[1]);
            let rules = RaceRules { balance: Balance::Ordered, ..ordered.rules.clone() };
            Case { rules, ..ordered }.check([1, 2, 3, 4, 0]);
            Case { all_down: true, ..case(dispatch).cold(&[0]) }.check([0, 1, 2, 3, 4]);
        }
        case(Dispatch::Race).cold(&[0, 3]).check([0, 1, 2, 3, 4]);
    }

    #[test]
    fn another_machine_goes_before_another_way_to_the_same_one() {
        for dispatch in [Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential] {
            case(dispatch).machines([1, 1, 1, 0, 0]).check([0, 3, 4, 1, 2]);
            case(dispatch).machines([1, 1, 2, 2, 1]).check([0, 2, 1, 3, 4]);
            case(dispatch).machines([0, 1, 0, 1, 0]).check([0, 1, 2, 4, 3]);
            case(dispatch).machines([1, 1, 1, 1, 1]).check([0, 1, 2, 3, 4]);
        }
        // A warm path to the same machine comes before a cold one to another; among cold ones another machine
        // comes first.
        case(Dispatch::Sequential).machines([1, 1, 1, 2, 2]).cold(&[2, 3, 4]).check([0, 1, 3, 2, 4]);
    }

    #[test]
    fn hedges_go_to_warm_ways_to_other_machines() {
        let hedges_of = |case: Case| {
            let hedge = Hedge { max: 1, budget: 1.0, ..Hedge::default() };
            let case = Case { rules: RaceRules { hedge, ..case.rules.clone() }, ..case };
            let mut found: Vec<_> = (0..64).filter_map(|seed| case.found(seed).next_hedge()).map(|to| to.0).collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        assert_eq!(hedges_of(case(Dispatch::Hedge)), [1, 2, 3, 4]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).cold(&[2, 4])), [1, 3]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).machines([1, 1, 2, 2, 0])), [2, 4]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).sites([1, 1, 2, 1, 0])), [2, 4]);
        assert_eq!(hedges_of(case(Dispatch::Auto).sites([1, 1, 1, 1, 1])), [1, 2, 3, 4]);
        // Hedge to a warm path on the same machine rather than to a cold one, and to a cold one rather than
        // not at all.
        assert_eq!(hedges_of(case(Dispatch::Hedge).machines([1, 1, 0, 0, 0]).cold(&[2, 3, 4])), [1]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).cold(&[1, 2, 3, 4])), [1]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).cold(&[0, 1, 2, 3, 4])), [1, 2, 3, 4]);
    }
}
