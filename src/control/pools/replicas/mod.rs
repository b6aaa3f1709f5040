//! Replicas: compares the replies of a pool's members, which should have the same data, on the control
//! thread.
//!
//! [`ask`] asks one member. [`Comparisons`] ask all members the questions with different replies, and some
//! recent questions; [`divergence`] finds lasting differences.
//! [`SoaProbes`] ask for zone versions, and note members that are [behind](engine::state::serial_table).

use std::sync::Arc;

use tokio::sync::Semaphore;

mod ask;
mod comparison;
pub mod divergence;
mod said;
mod soa_probes;

pub use ask::{ReplicaQuestion, ask};
pub use comparison::{Comparisons, MOST};
use net::tasks::Tasks;
use net::to_backends::tls::BackendTls;
pub use soa_probes::{SoaProbes, show as show_serials};

/// The means of asking members.
#[derive(Clone)]
pub struct ReplicaLinks {
    /// The tasks of the thread.
    pub tasks: Tasks,
    /// The limit of concurrent queries: each takes a place.
    pub places: Arc<Semaphore>,
    /// The TLS configurations of members.
    pub tls: Arc<BackendTls>,
}
