//! Decisions: who is asked, when, and whose reply wins. Pure: `now`, replies and a seeded generator
//! are arguments; nothing here knows a socket, a clock or a byte of DNS.

mod attempts;
pub mod balance;
pub mod budget;
pub mod candidates;
pub mod health;
pub mod latency;
pub mod learn;
pub mod line_up;
pub mod load;
pub mod memory;
pub mod peak;
pub mod race;
pub mod rank;
pub mod rules;
pub mod slow_start;
mod step;
pub mod timers;

pub use candidates::{BackendIndex, Candidates};
pub use rank::{Accept, Rank};
pub use rules::{Dispatch, Grace, HealthRules, Hedge, HedgeDelay, Rules, Silence};
