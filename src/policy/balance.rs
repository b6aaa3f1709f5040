//! stub
use rand::Rng;

use super::candidates::Candidates;

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

/// Whose turn it is.
#[derive(Clone, Debug)]
pub struct Turns {}
impl Turns {
    /// The turns of the backends that are up; of all, if none is.
    pub fn new(_weights: &[u16], _up: impl Fn(usize) -> bool) -> Self {
        todo!()
    }
    /// Whom a race may ask. `turn`: a counter that all workers share.
    pub fn candidates(&self, _balance: Balance, _turn: u64, _rng: &mut impl Rng) -> Candidates {
        todo!()
    }
}
