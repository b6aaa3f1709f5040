//! Rendezvous hashing (HRW, highest random weight): where a name is at home, with no table and no ring.
//!
//! Every backend throws dice for every name, loaded by its weight; the hash of both is the hrw_score, so all workers and
//! all runs of the program see the same. The best hrw_score is the home of the name, the next best is asked if that fails.
//! When a backend leaves, only the names that had their home there move, each to its second best; when it comes back, they
//! return.

use super::Member;

/// How a backend throws for a name: the lowest wins, as often as its weight says.
pub(super) fn hrw_score(member: &Member, name: u64) -> f64 {
    // Of exponential variables with rates w1, w2, ... the first is the least with chance w1 / (w1 + w2 + ...).
    -unit(mix(name ^ mix(member.identity))).ln() / f64::from(member.weight)
}

/// How many attempts may be out to a backend with this part of the weights, when there are `total` in all.
pub(super) fn bound(part: f64, total: u64) -> u32 {
    let bound = (OVERLOAD * part * total as f64).ceil() as u32;
    bound.max(MIN_BOUND)
}

/// Spreads the bits of a number all over it (the finalizer of SplitMix64), so that identities may be alike.
pub(super) fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A number between 0 and 1, never either.
fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// No backend has more attempts out than so many times its fair share.
const OVERLOAD: f64 = 1.25;
/// A bound below this is not enforced: small numbers exceed their mean by a quarter all the time. Without it 34 % of the
/// queries to ten backends with ten attempts in flight were sent away from home, and no server is overloaded by so few.
pub(super) const MIN_BOUND: u32 = 16;
