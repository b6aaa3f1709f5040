//! Decisions: who is asked, when, and whose reply wins. Pure: `now`, replies and a seeded generator
//! are arguments; nothing here knows a socket, a clock or a byte of DNS.

pub mod affinity;
pub mod backend_load;
pub mod balance;
pub mod budget;
pub mod candidates;
pub mod connections;
pub mod divergence;
pub mod health;
pub mod latency;
pub mod ordering;
pub mod peak;
pub mod query_slots;
pub mod race;
pub mod rules;
pub mod serials;
pub mod timers;

pub use candidates::{BackendIndex, Candidates};
pub use race::{Accept, Rank};
pub use rules::{Dispatch, Expect, Grace, HealthRules, Hedge, HedgeDelay, Rules, Serves, Silence};
