//! What health checks are told: whether queries are taken, and what keeps the server from its work.
//!
//! The control thread writes it and nobody waits for it, so that who asks whether we are well hears so whatever else goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwapOption;

/// What health checks are told.
#[derive(Debug, Default)]
pub struct Condition {
    /// Whether queries are taken.
    is_ready: AtomicBool,
    /// What makes no progress, in a sentence.
    stall: ArcSwapOption<String>,
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

    /// Whether queries are taken.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Relaxed)
    }

    /// What makes no progress.
    pub fn stall(&self) -> Option<Arc<String>> {
        self.stall.load_full()
    }
}
