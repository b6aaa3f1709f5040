//! Whose turn it is: the order in which a pool's backends are asked.
//!
//! [`Turns`] is made anew by a worker whenever the set of backends that are up changes; from then on a
//! query costs a copy (ordered, round-robin) or a few random numbers (random). The count of turns is an
//! argument: one counter, shared by all workers, makes the rotation exact across them without a lock.

use rand::{Rng, RngExt};

use super::candidates::{BackendIndex, Candidates};

/// In which order backends are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// As in the config.
    Ordered,
    /// In turn, by weight.
    RoundRobin,
    /// By weighted chance.
    Random,
}

/// The turns of the backends that are up; of all, if none is.
#[derive(Clone, Debug)]
pub struct Turns {
    /// The backends that take turns, in the order of the config, with their weights.
    members: Box<[(BackendIndex, u16)]>,
    /// The first members, in the order of the config.
    ordered: Candidates,
    /// One whole round of turns: who is first in each, and the distinct ones who follow.
    round: Box<[Candidates]>,
}

impl Turns {
    /// The turns of a pool. `weights`: of each member, in the order of the config; 0 is taken as 1.
    pub fn new(weights: &[u16], up: impl Fn(usize) -> bool) -> Self {
        let all = || (0..=u16::MAX).map(BackendIndex).zip(weights.iter().map(|&weight| weight.max(1)));
        let mut members: Box<[_]> = all().filter(|(backend, _)| up(backend.get())).collect();
        let all_down = members.is_empty();
        if all_down {
            members = all().collect();
        }
        let ordered = Candidates::of(members.iter().map(|&(backend, _)| backend), all_down);
        let round = followed(&smooth_round(&members), all_down);
        Self { members, ordered, round }
    }

    /// Whom a race may ask. `turn`: the count that all workers share, raised by one for each race.
    pub fn candidates(&self, balance: Balance, turn: u64, rng: &mut impl Rng) -> Candidates {
        match balance {
            Balance::Ordered => self.ordered,
            Balance::RoundRobin => match self.round.len() as u64 {
                0 => self.ordered,
                length => self.round[(turn % length) as usize],
            },
            Balance::Random => self.draw(rng),
        }
    }

    /// Draws members by weight, none of them twice.
    fn draw(&self, rng: &mut impl Rng) -> Candidates {
        let mut drawn = Candidates::new(self.ordered.all_down());
        let mut total: u64 = self.members.iter().map(|&(_, weight)| u64::from(weight)).sum();
        while total > 0 && !drawn.is_full() {
            let mut ticket = rng.random_range(0..total);
            let left = self.members.iter().filter(|(backend, _)| !drawn.contains(*backend));
            for &(backend, weight) in left {
                let weight = u64::from(weight);
                if ticket < weight {
                    drawn.push(backend);
                    total -= weight;
                    break;
                }
                ticket -= weight;
            }
        }
        drawn
    }
}

/// One whole round in which each member is first as often as its weight says, spread as evenly as can be.
///
/// Smooth weighted round-robin: at each turn every member gains its weight as credit, the richest takes the
/// turn (of equals the first in the config) and pays the sum of all weights.
fn smooth_round(members: &[(BackendIndex, u16)]) -> Vec<BackendIndex> {
    let divisor = members.iter().fold(0, |divisor, &(_, weight)| gcd(divisor, u32::from(weight))).max(1);
    let sum: u32 = members.iter().map(|&(_, weight)| u32::from(weight) / divisor).sum();
    let scale = f64::from(LONGEST_ROUND) / f64::from(sum.max(LONGEST_ROUND));
    let mut credits: Vec<_> = members
        .iter()
        .map(|&(backend, weight)| {
            let weight = (f64::from(u32::from(weight) / divisor) * scale).round().max(1.0) as i64;
            (backend, weight, 0)
        })
        .collect();
    let length: i64 = credits.iter().map(|&(_, weight, _)| weight).sum();
    let turn = |_| {
        for (_, weight, credit) in &mut credits {
            *credit += *weight;
        }
        // Of equals `max_by_key` takes the last.
        let (backend, _, credit) = credits.iter_mut().rev().max_by_key(|(_, _, credit)| *credit)?;
        *credit -= length;
        Some(*backend)
    };
    (0..length).filter_map(turn).collect()
}

/// Each turn of a round with the distinct members who follow in the ring.
fn followed(round: &[BackendIndex], all_down: bool) -> Box<[Candidates]> {
    // Going backward through the ring, who was met last comes first. After one lap everybody was met.
    let mut list = Candidates::new(all_down);
    for &backend in round.iter().rev() {
        list.bring_to_front(backend);
    }
    let mut turns: Vec<_> = round
        .iter()
        .rev()
        .map(|&backend| {
            list.bring_to_front(backend);
            list
        })
        .collect();
    turns.reverse();
    turns.into_boxed_slice()
}

/// The greatest common divisor; of 0 and n it is n.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Weights whose round would be longer are scaled down, to 80 KiB a pool and worker at most.
const LONGEST_ROUND: u32 = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// The turns' candidates as numbers, for as many turns as are asked for.
    fn numbers(turns: &Turns, balance: Balance, count: u64) -> Vec<Vec<u16>> {
        let mut rng = StdRng::seed_from_u64(1);
        let list = |turn| turns.candidates(balance, turn, &mut rng).iter().map(|backend| backend.0).collect();
        (0..count).map(list).collect()
    }

    #[test]
    fn ordered_is_the_order_of_the_config() {
        let turns = Turns::new(&[1, 9, 1], |backend| backend != 0);
        assert_eq!(numbers(&turns, Balance::Ordered, 2), [[1, 2], [1, 2]]);
    }

    #[test]
    fn round_robin_rotates() {
        let turns = Turns::new(&[1, 1, 1], |_| true);
        assert_eq!(numbers(&turns, Balance::RoundRobin, 4), [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }

    #[test]
    fn round_robin_spreads_a_heavy_backend() {
        let turns = Turns::new(&[5, 1, 1], |_| true);
        let firsts: Vec<_> = numbers(&turns, Balance::RoundRobin, 7).iter().map(|list| list[0]).collect();
        assert_eq!(firsts, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn if_none_is_up_all_are_asked() {
        let turns = Turns::new(&[1, 1], |_| false);
        for balance in [Balance::Ordered, Balance::RoundRobin, Balance::Random] {
            let list = turns.candidates(balance, 0, &mut StdRng::seed_from_u64(1));
            assert!(list.all_down() && list.len() == 2, "{balance:?}: {list:?}");
        }
        assert!(!Turns::new(&[1], |_| true).candidates(Balance::Ordered, 0, &mut StdRng::seed_from_u64(1)).all_down());
    }

    #[test]
    fn an_empty_pool_has_no_candidates() {
        let turns = Turns::new(&[], |_| true);
        for balance in [Balance::Ordered, Balance::RoundRobin, Balance::Random] {
            assert!(turns.candidates(balance, 7, &mut StdRng::seed_from_u64(1)).is_empty());
        }
    }

    #[test]
    fn random_follows_the_weights() {
        let turns = Turns::new(&[1, 3], |_| true);
        let heavy = numbers(&turns, Balance::Random, 10_000).iter().filter(|list| list[0] == 1).count();
        assert!((7_300..7_700).contains(&heavy), "{heavy}");
    }

    #[test]
    fn huge_weights_make_no_huge_round() {
        let turns = Turns::new(&[u16::MAX, u16::MAX - 1, 1], |_| true);
        assert!(turns.round.len() <= LONGEST_ROUND as usize + 3, "{}", turns.round.len());
        assert!(turns.round.iter().all(|list| list.len() == 3));
    }

    proptest! {
        #[test]
        fn a_round_is_exact_and_everybody_follows(weights in prop::collection::vec(1..20_u16, 1..12)) {
            let turns = Turns::new(&weights, |_| true);
            let lists = numbers(&turns, Balance::RoundRobin, turns.round.len() as u64);
            for (backend, &weight) in weights.iter().enumerate() {
                let firsts = lists.iter().filter(|list| usize::from(list[0]) == backend).count();
                prop_assert_eq!(firsts * usize::from(weights[0]), usize::from(weight) * lists.iter().filter(|list| list[0] == 0).count());
            }
            for (turn, list) in lists.iter().enumerate() {
                // The definition, walked: the distinct ones that follow in the ring.
                let ring = (0..lists.len()).map(|step| lists[(turn + step) % lists.len()][0]);
                let walked = Candidates::of(ring.map(BackendIndex), false);
                let walked: Vec<_> = walked.iter().map(|backend| backend.0).collect();
                prop_assert_eq!(list, &walked);
            }
        }

        #[test]
        fn only_backends_that_are_up_are_candidates(up in prop::collection::vec(any::<bool>(), 1..20), turn in any::<u64>(), seed in any::<u64>()) {
            let turns = Turns::new(&vec![2; up.len()], |backend| up[backend]);
            let count = up.iter().filter(|&&up| up).count();
            for balance in [Balance::Ordered, Balance::RoundRobin, Balance::Random] {
                let list = turns.candidates(balance, turn, &mut StdRng::seed_from_u64(seed));
                prop_assert_eq!(list.all_down(), count == 0);
                prop_assert_eq!(list.len(), (if count == 0 { up.len() } else { count }).min(8));
                prop_assert!(list.all_down() || list.iter().all(|backend| up[backend.get()]));
            }
        }
    }
}
