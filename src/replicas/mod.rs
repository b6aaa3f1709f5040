//! Replicas: what the members of a pool that have the same data say when they are asked, on the control thread.
//!
//! [`ask`] asks one member.

mod ask;

pub use ask::{Asked, ask};
