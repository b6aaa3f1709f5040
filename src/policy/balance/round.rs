//! Turns: one whole round of them, by weight, and who follows whom.

use super::Member;
use crate::policy::candidates::{BackendIndex, Candidates};

/// One whole round of turns: who is first in each, and the distinct ones who follow.
#[derive(Clone, Debug)]
pub(super) struct Round(Box<[Candidates]>);

impl Round {
    /// The round of these members.
    pub(super) fn new(members: &[Member], all_down: bool) -> Self {
        Self(followed(&smooth_round(members), all_down))
    }

    /// Whose turn it is, and who follows; `None` if there is nobody. Turns beyond the round begin it anew.
    pub(super) fn turn(&self, turn: u64) -> Option<&Candidates> {
        let place = turn.checked_rem(self.0.len() as u64)?;
        self.0.get(place as usize)
    }

    /// How many turns there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// One whole round in which each member is first as often as its weight says, spread as evenly as can be.
///
/// Smooth weighted round-robin: at each turn every member gains its weight as credit, the richest takes the
/// turn (of equals the first in the config) and pays the sum of all weights.
fn smooth_round(members: &[Member]) -> Vec<BackendIndex> {
    let divisor = members.iter().fold(0, |divisor, member| gcd(divisor, u32::from(member.weight))).max(1);
    let sum: u32 = members.iter().map(|member| u32::from(member.weight) / divisor).sum();
    let scale = f64::from(MAX_ROUND) / f64::from(sum.max(MAX_ROUND));
    let mut credits: Vec<_> = members
        .iter()
        .map(|member| {
            let weight = (f64::from(u32::from(member.weight) / divisor) * scale).round().max(1.0) as i64;
            (member.backend, weight, 0)
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
pub(super) const MAX_ROUND: u32 = 4096;
