//! Limits on what one client, or what seems to be one, may take: of responses a second ([`ResponseRate`]), of places that all
//! use ([`Shares`]), and of turns ([`Turns`]).

mod rate;
mod shares;
mod turns;

pub use rate::{Decision, Outcome, RateRules, ResponseRate};
pub use shares::Shares;
pub use turns::Turns;
