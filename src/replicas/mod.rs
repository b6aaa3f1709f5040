//! Replicas: what the members of a pool that have the same data say when they are asked, on the control thread.
//!
//! [`ask`] asks one member. [`Comparisons`] ask all members what workers have found to be answered differently, and recent questions
//! besides; what lasts of it [`policy::divergence`](crate::policy::divergence) decides.

mod ask;
mod comparison;
mod said;

pub use ask::{Asked, ask};
pub use comparison::{Comparisons, MOST};
