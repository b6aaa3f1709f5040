//! Replicas: compares the replies of a pool's members, which should have the same data, on the control
//! thread.
//!
//! [`ask`] asks one member. [`Comparisons`] ask all members the questions with different replies, and some
//! recent questions; [`policy::divergence`](crate::policy::divergence) finds lasting differences.
//! [`SoaProbes`] ask for zone versions, and note members that are [behind](crate::policy::serials).

mod ask;
mod comparison;
mod said;
mod soa_probes;

pub use ask::{ReplicaQuestion, ask};
pub use comparison::{Comparisons, MOST};
pub use soa_probes::{SoaProbes, show as show_serials};
