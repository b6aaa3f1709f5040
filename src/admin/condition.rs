//! What health checks are told: whether queries are taken, which pools have a backend that is up, and what keeps the server from its
//! work.
//!
//! The control thread writes it and nobody waits for it, so that who asks whether we are well hears so whatever else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::Refused;
use crate::state::SharedPool;

/// What health checks are told.
#[derive(Debug, Default)]
pub struct Condition {
    /// Whether queries are taken.
    is_ready: AtomicBool,
    /// What makes no progress, in a sentence.
    stall: ArcSwapOption<String>,
    /// The pools in force. Who is up in them, probes write there all the time.
    pools: ArcSwap<Vec<Arc<SharedPool>>>,
}

impl Condition {
    /// Says whether queries are taken: `/readyz`.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Relaxed);
    }

    /// Says what makes no progress, if something does not: `/healthz`.
    pub fn set_stall(&self, stall: Option<String>) {
        self.stall.store(stall.map(Arc::new));
    }

    /// Says which pools are in force: `/readyz?pool=NAME`.
    pub fn set_pools(&self, pools: &[Arc<SharedPool>]) {
        self.pools.store(Arc::new(pools.to_vec()));
    }

    /// Whether a backend of this pool is up and takes queries.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn is_pool_up(&self, name: &str) -> Result<bool, Refused> {
        let pools = self.pools.load();
        let pool = pools.iter().find(|pool| pool.config.name == name);
        let known = || pools.iter().map(|pool| pool.config.name.as_str());
        let pool = pool.ok_or_else(|| Refused::no_such("pool", name, known()))?;
        Ok(pool.backends.iter().any(|backend| backend.takes_queries()))
    }

    /// Whether queries are taken.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// What makes no progress.
    pub fn stall(&self) -> Option<Arc<String>> {
        self.stall.load_full()
    }
}
