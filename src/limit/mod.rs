//! Limits on what one client, or what seems to be one, may take: how many responses ([`ResponseRate`]), and what it may use
//! that comes by TCP ([`ConnectionRules`], [`Patience`]).

mod connections;
mod patience;
mod rate;

pub use connections::{ConnectionRules, LEAST_IDLE, Pressure, Standing, make_room};
pub use patience::{Doing, Patience};
pub use rate::{Decision, Outcome, RateRules, ResponseRate};
