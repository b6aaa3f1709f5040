//! One whole round of weighted turns.

use super::BalanceMember;
use crate::candidates::{BackendIndex, Candidates};

/// Returns the candidates of each turn of one round.
pub(super) fn round(members: &[BalanceMember], all_down: bool) -> Box<[Candidates]> {
    followed(&smooth_round(members), all_down)
}

/// Builds one round in which each member is first in proportion to its weight, spread as evenly as possible.
///
/// Smooth weighted round-robin: at each turn every member gains its weight as credit. The member with the
/// most credit takes the turn (of equals the first in the list) and pays the sum of all weights.
fn smooth_round(members: &[BalanceMember]) -> Vec<BackendIndex> {
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
        let (backend, _, credit) = credits.iter_mut().rev().max_by_key(|(_, _, credit)| *credit)?;
        *credit -= length;
        Some(*backend)
    };
    (0..length).filter_map(turn).collect()
}

fn followed(round: &[BackendIndex], all_down: bool) -> Box<[Candidates]> {
    // Going backward through the ring, the last member met comes first. One lap meets all members.
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

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Longer rounds are scaled down, which limits memory to 80 KiB per pool and worker.
pub(super) const MAX_ROUND: u32 = 4096;
