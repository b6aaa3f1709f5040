//! Rendezvous hashing (HRW, highest random weight): the best score of a name and a backend is the home of the
//! name, the next best is the failover. When a backend leaves, only its own names move.

use super::BalanceMember;

/// Returns the score of a backend for a name. The lowest score wins, in proportion to the weight.
pub(super) fn hrw_score(member: &BalanceMember, name: u64) -> f64 {
    // The least of exponential variables follows their rates, here the weights.
    -unit(mix(name ^ mix(member.identity))).ln() / f64::from(member.weight)
}

pub(super) fn bound(part: f64, total: u64) -> u32 {
    let bound = (OVERLOAD * part * total as f64).ceil() as u32;
    bound.max(MIN_BOUND)
}

/// Spreads the bits of a number (the finalizer of SplitMix64), so that identities may be similar.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

const OVERLOAD: f64 = 1.25;
/// A bound below this is not enforced, because small numbers exceed their mean by a quarter all the time.
/// Without it 34 % of the requests to ten backends with ten attempts in flight left their home, and so few
/// overload no server.
pub(super) const MIN_BOUND: u32 = 16;
