//! Tiers: backends of higher tiers are spares for those of lower tiers.
//!
//! A tier takes turns while fewer than `min_up` backends of lower tiers take requests. The other tiers are
//! spares: a race asks them after all backends that take turns, the lowest tier first.

use crate::candidates::BackendIndex;

const MAX_TIER: u8 = 3;

/// A backend as [`Balancer::new`](super::Balancer::new) takes it.
pub type TurnEntry = (BackendIndex, u16, u64, bool);

/// The turns of a pool, with those of its spares.
#[derive(Clone, Debug)]
pub struct TierTurns<T> {
    /// The turns of the tiers in use; of all backends if none takes requests.
    pub turns: T,
    /// The turns of each other tier with backends that take requests, the lowest tier first.
    pub spares: Box<[T]>,
}

impl<T> TierTurns<T> {
    /// Creates the turns of a pool without spares.
    pub fn without_spares(turns: T) -> Self {
        Self { turns, spares: Box::default() }
    }

    /// Creates the turns of these backends, where `tier` returns the tier of a backend.
    pub fn new(
        min_up: u16,
        backends: impl Iterator<Item = TurnEntry>,
        tier: impl Fn(BackendIndex) -> u8,
        build: impl Fn(&[TurnEntry]) -> T,
    ) -> Self {
        let mut groups = by_use(min_up, backends, tier).into_iter();
        let turns = build(&groups.next().unwrap_or_default());
        Self { turns, spares: groups.map(|spares| build(&spares)).collect() }
    }

    /// Returns true if these turns were built for the same groups of backends: `is_of` compares one group.
    pub fn is_of(
        &self,
        min_up: u16,
        backends: impl Iterator<Item = TurnEntry>,
        tier: impl Fn(BackendIndex) -> u8,
        is_of: impl Fn(&T, &[TurnEntry]) -> bool,
    ) -> bool {
        let groups = by_use(min_up, backends, tier);
        groups.len() == 1 + self.spares.len()
            && std::iter::once(&self.turns).chain(&self.spares).zip(&groups).all(|(turns, group)| is_of(turns, group))
    }
}

/// Returns the highest tier in use: the lowest one that makes up `min_up` backends together with those below.
pub fn highest_in_use(min_up: u16, backends: impl Iterator<Item = (u8, bool)>) -> u8 {
    let mut up = [0_usize; MAX_TIER as usize + 1];
    for (tier, _) in backends.filter(|(_, takes_turns)| *takes_turns) {
        up[usize::from(tier.min(MAX_TIER))] += 1;
    }
    let mut sum = 0;
    let is_enough = |count: &usize| {
        sum += count;
        sum >= usize::from(min_up)
    };
    up.iter().position(is_enough).map_or(MAX_TIER, |tier| tier as u8)
}

fn by_use(
    min_up: u16,
    backends: impl Iterator<Item = TurnEntry>,
    tier: impl Fn(BackendIndex) -> u8,
) -> Vec<Vec<TurnEntry>> {
    let backends: Vec<TurnEntry> = backends.collect();
    let in_use =
        highest_in_use(min_up, backends.iter().map(|&(backend, .., takes_turns)| (tier(backend), takes_turns)));
    let of_tier = |spare: u8| {
        let spares = backends.iter().filter(|(backend, .., takes_turns)| *takes_turns && tier(*backend) == spare);
        spares.copied().collect::<Vec<_>>()
    };
    let spares = (in_use + 1..=MAX_TIER).map(of_tier).filter(|spares| !spares.is_empty());
    let used = backends.iter().filter(|(backend, ..)| tier(*backend) <= in_use).copied().collect();
    std::iter::once(used).chain(spares).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The groups of backends, given by tier and state.
    fn groups(min_up: u16, backends: &[(u8, bool)]) -> Vec<Vec<u16>> {
        let entries = (0..).zip(backends).map(|(number, &(_, is_up))| (BackendIndex(number), 1, 0, is_up));
        let turns = TierTurns::new(min_up, entries.clone(), |backend| backends[backend.get()].0, <[TurnEntry]>::to_vec);
        assert!(turns.is_of(min_up, entries, |backend| backends[backend.get()].0, |one, other| one == other));
        let numbers = |group: &Vec<TurnEntry>| group.iter().map(|(backend, ..)| backend.0).collect();
        std::iter::once(&turns.turns).chain(&turns.spares).map(numbers).collect()
    }

    #[test]
    fn spares_take_turns_while_fewer_than_min_up_are_up() {
        for (min_up, backends, expected) in [
            (1, &[(0, true), (0, false), (1, true)][..], &[&[0, 1][..], &[2]][..]),
            (2, &[(0, true), (0, false), (1, true)], &[&[0, 1, 2]]),
            (1, &[(0, false), (0, false), (1, true)], &[&[0, 1, 2]]),
            (1, &[(0, true), (1, false), (2, true)], &[&[0], &[2]]),
            (1, &[(0, false), (1, false), (2, true), (3, true)], &[&[0, 1, 2], &[3]]),
            (1, &[(0, false), (1, false)], &[&[0, 1]]),
            (9, &[(0, true), (3, true)], &[&[0, 1]]),
            (1, &[(1, true), (2, true)], &[&[0], &[1]]),
            (1, &[], &[&[]]),
        ] {
            assert_eq!(groups(min_up, backends), expected, "{min_up}: {backends:?}");
        }
    }

    proptest! {
        #[test]
        fn each_backend_that_is_up_is_in_one_group(
            min_up in 1..5_u16,
            backends in prop::collection::vec((0..=MAX_TIER, any::<bool>()), 0..12),
        ) {
            let groups = groups(min_up, &backends);
            let is_up = |number: &u16| backends[usize::from(*number)].1;
            let mut up: Vec<_> = groups.concat().into_iter().filter(is_up).collect();
            up.sort_unstable();
            prop_assert_eq!(up, (0..backends.len() as u16).filter(is_up).collect::<Vec<_>>());
            // The rule as the contract states it, for each backend.
            for number in groups.concat() {
                let tier = backends[usize::from(number)].0;
                let lower = backends.iter().filter(|(other, is_up)| *is_up && *other < tier).count();
                prop_assert_eq!(groups[0].contains(&number), tier == 0 || lower < usize::from(min_up));
            }
        }
    }
}
