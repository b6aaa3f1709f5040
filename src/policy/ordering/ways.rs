//! The order of asking where the ways to backends differ: connections that are open go before those that are not, and another machine goes
//! before another way to the same one.
//!
//! In plain lines:
//!
//! 1. There are three groups: who is heard and warm; who has no open connection, for a handshake eats what a race would win; and who has
//!    fallen silent. In `race` all are asked at once, and to have no connection makes no difference.
//! 2. Within a group, those come first whose machine nobody before them is a way to; then the others, in their order.
//! 3. Hedges are shared out among those of the first group there is who are ways to different machines.
//!
//! If none is up, or all are in one group and ways to different machines, the order stays as it was.

use rand::Rng;

use super::BackendStats;
use crate::policy::balance::Balance;
use crate::policy::candidates::{BackendIndex, Candidates};
use crate::policy::rules::{Dispatch, Rules};

/// What tells one way to a backend from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// It is asked by stream, and no connection to it is open.
    pub is_cold: bool,
    /// The machine that it is a way to; 0: one of its own.
    pub machine: u16,
}

/// Whom a race may ask, in order. `weight`: a backend's share of the load; `way`: how it is asked now.
pub fn order_ways(
    candidates: &Candidates,
    rules: &Rules,
    known: &BackendStats<'_>,
    weight: impl Fn(BackendIndex) -> u16,
    way: impl Fn(BackendIndex) -> Way,
    rng: &mut impl Rng,
) -> Candidates {
    if candidates.all_down() {
        return super::order(candidates, rules, known, weight, rng);
    }
    // `ordered` means as in the config, whoever has fallen silent.
    let (in_turn, heard) = match rules.balance {
        Balance::Ordered => (*candidates, candidates.len()),
        Balance::RoundRobin
        | Balance::Random
        | Balance::Sticky
        | Balance::Hash
        | Balance::LeastLoad
        | Balance::Fastest => known.stalled_last(candidates, rules.attempt_timeout),
    };
    let (heard, silent) = in_turn.as_slice().split_at(heard);
    let is_cold = |backend: &BackendIndex| match rules.dispatch {
        Dispatch::Hedge | Dispatch::Sequential => way(*backend).is_cold,
        Dispatch::Race => false,
    };
    let mut list = Candidates::new(false);
    let warm = heard.iter().filter(|backend| !is_cold(backend));
    let warm_ahead = add(&mut list, warm, |backend| way(backend).machine);
    let cold = heard.iter().filter(|backend| is_cold(backend));
    let cold_ahead = add(&mut list, cold, |backend| way(backend).machine);
    let silent_ahead = add(&mut list, silent.iter(), |backend| way(backend).machine);
    if rules.dispatch == Dispatch::Hedge && rules.balance != Balance::Ordered {
        let free = [warm_ahead, cold_ahead, silent_ahead].into_iter().find(|ahead| *ahead > 0).unwrap_or_default();
        let load = |backend| f64::from(known.in_flight(backend)) / f64::from(weight(backend).max(1));
        list.draw_hedges(usize::from(rules.hedge.max), free, load, rng);
    }
    list
}

/// Adds these, ways to other machines first. Returns how many are.
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
    // Who is in the list is left out.
    members.for_each(|backend| list.push(*backend));
    ahead
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::policy::Hedge;
    use crate::policy::backend_load::BackendLoad;

    /// The order of five backends, of which these have no connection and have fallen silent, and which are ways to these machines.
    struct Case {
        cold: &'static [u16],
        silent: &'static [u16],
        machines: [u16; 5],
        rules: Rules,
        all_down: bool,
    }

    /// All are warm and heard, and each is on a machine of its own.
    fn case(dispatch: Dispatch) -> Case {
        let rules = Rules { dispatch, ..Rules::default() };
        Case { cold: &[], silent: &[], machines: [0; 5], rules, all_down: false }
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

        fn found(&self, seed: u64) -> Candidates {
            let now = Instant::now();
            let mut loads = [BackendLoad::new(now); 5];
            for backend in self.silent {
                (0..8).for_each(|_| loads[usize::from(*backend)].asked(now));
            }
            let candidates = Candidates::of((0..5).map(BackendIndex), self.all_down);
            let known = BackendStats { loads: &loads, latency: &[], now: now + Duration::from_secs(1) };
            let way = |backend: BackendIndex| Way {
                is_cold: self.cold.contains(&backend.0),
                machine: self.machines[backend.get()],
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
            // Nobody has one: the order is the usual one.
            case(dispatch).cold(&[0, 1, 2, 3, 4]).check([0, 1, 2, 3, 4]);
            // Who has fallen silent is asked last, open connection or not.
            case(dispatch).cold(&[0]).silent(&[1, 2]).check([3, 4, 0, 1, 2]);
            let ordered = case(dispatch).cold(&[0]).silent(&[1]);
            let rules = Rules { balance: Balance::Ordered, ..ordered.rules.clone() };
            Case { rules, ..ordered }.check([1, 2, 3, 4, 0]);
            Case { all_down: true, ..case(dispatch).cold(&[0]) }.check([0, 1, 2, 3, 4]);
        }
        // All are asked at once.
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
        // A warm way to the same machine goes before a cold one to another, and of the cold ones another machine goes first.
        case(Dispatch::Sequential).machines([1, 1, 1, 2, 2]).cold(&[2, 3, 4]).check([0, 1, 3, 2, 4]);
    }

    #[test]
    fn hedges_go_to_warm_ways_to_other_machines() {
        let hedges_of = |case: Case| {
            let hedge = Hedge { max: 1, budget: 1.0, ..Hedge::default() };
            let case = Case { rules: Rules { hedge, ..case.rules.clone() }, ..case };
            let mut found: Vec<_> = (0..64).filter_map(|seed| case.found(seed).next_hedge()).map(|to| to.0).collect();
            found.sort_unstable();
            found.dedup();
            found
        };
        assert_eq!(hedges_of(case(Dispatch::Hedge)), [1, 2, 3, 4]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).cold(&[2, 4])), [1, 3]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).machines([1, 1, 2, 2, 0])), [2, 4]);
        // Another way to the same machine, warm, rather than a cold one; and that rather than none.
        assert_eq!(hedges_of(case(Dispatch::Hedge).machines([1, 1, 0, 0, 0]).cold(&[2, 3, 4])), [1]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).cold(&[1, 2, 3, 4])), [1]);
        assert_eq!(hedges_of(case(Dispatch::Hedge).cold(&[0, 1, 2, 3, 4])), [1, 2, 3, 4]);
    }
}
