//! Replicas: what the members of a pool that have the same data say when they are asked, on the control thread.
//!
//! [`ask`] asks one member. [`Comparisons`] ask all members what workers have found to be answered differently, and recent questions
//! besides; what lasts of it [`policy::divergence`](crate::policy::divergence) decides. [`SoaProbes`]
//! ask who was not heard for the version of a zone, and note who is [behind](crate::policy::serials).

mod ask;
mod comparison;
mod said;
mod soa_probes;

pub use ask::{Asked, ask};
pub use comparison::{Comparisons, MOST};
pub use soa_probes::{SoaProbes, show as show_serials};
