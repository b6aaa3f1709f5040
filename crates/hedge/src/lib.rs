//! Decisions of the forwarder: backend order, timing, and the winning reply. The code is pure: the caller
//! passes `now`, replies and a seeded generator, and no socket, clock or DNS message is used here.

#![forbid(unsafe_code)]

pub mod affinity;
pub mod backend_load;
pub mod backoff;
pub mod balance;
pub mod budget;
mod candidates;
pub mod health;
pub mod latency;
pub mod log_linear;
pub mod ordering;
mod peak;
pub mod race;
mod rules;
pub mod timers;

pub use candidates::{BackendIndex, Candidates};
pub use rules::{Dispatch, Expect, Grace, HealthRules, Hedge, HedgeDelay, RaceRules};

/// The atomics of lock-free state. The models in `loom/` have those of loom in their place.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
}
