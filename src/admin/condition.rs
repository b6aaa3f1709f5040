//! The state behind health checks. The control thread writes it without locks, so health checks are answered
//! even if that thread is blocked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use engine::state::SharedPool;

use super::ChangeRefusal;

/// The state that `/healthz` and `/readyz` report.
#[derive(Debug, Default)]
pub struct HealthCondition {
    is_ready: AtomicBool,
    stall: ArcSwapOption<String>,
    pools: ArcSwap<Vec<Arc<SharedPool>>>,
}

impl HealthCondition {
    /// Sets the readiness that `/readyz` reports.
    pub fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Relaxed);
    }

    /// Sets the stall that `/healthz` reports; `None` if all parts make progress.
    pub fn set_stall(&self, stall: Option<String>) {
        self.stall.store(stall.map(Arc::new));
    }

    /// Replaces the pools that `/readyz?pool=NAME` checks.
    pub fn set_pools(&self, pools: &[Arc<SharedPool>]) {
        self.pools.store(Arc::new(pools.to_vec()));
    }

    /// Returns true if a backend of this pool is up and takes queries.
    ///
    /// # Errors
    /// If there is no such pool.
    pub fn is_pool_up(&self, name: &str) -> Result<bool, ChangeRefusal> {
        let pools = self.pools.load();
        let pool = pools.iter().find(|pool| pool.config.name == name);
        let known = || pools.iter().map(|pool| pool.config.name.as_str());
        let pool = pool.ok_or_else(|| ChangeRefusal::no_such("pool", name, known()))?;
        Ok(pool.backends.iter().any(|backend| backend.takes_queries()))
    }

    /// Returns true if the server takes queries.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// Returns the sentence that names the part without progress, if there is one.
    pub fn stall(&self) -> Option<Arc<String>> {
        self.stall.load_full()
    }
}
