//! Decisions of the forwarder: backend order, timing, and the winning reply. The code is pure: the caller
//! passes `now`, replies and a seeded generator, and no socket, clock or DNS message is used here.

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
pub use rules::{Dispatch, Expect, Grace, HealthRules, Hedge, HedgeDelay, PoolRules, Serves, Silence};
