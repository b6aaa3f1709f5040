//! Limits on what one client, or what seems to be one, may take: what it holds at a time ([`Clients`]), and how many responses
//! it gets a second ([`ResponseRate`]).

mod clients;
mod rate;

pub use clients::{Clients, Connected, Holding, Place};
pub use rate::{Decision, Outcome, RateRules, ResponseRate};
