//! Limits on what one client, or what seems to be one, may take. So far that is one: [`ResponseRate`].

mod rate;

pub use rate::{Decision, Outcome, RateRules, ResponseRate};
