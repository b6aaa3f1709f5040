//! Backends that are asked by stream: what a connection has lost, and which connection an attempt should not take.

use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use crate::policy::race::BackendIndex;
use crate::state::SharedBackend;

impl Pool {
    /// Notes by which way a backend is asked.
    pub(super) fn note_way(&mut self, backend: &Arc<SharedBackend>) {
        if backend.is_by_stream() && self.by_stream.is_empty() {
            self.by_stream.resize(self.members.len(), false);
        }
        if !self.by_stream.is_empty() {
            // The places of members may have become more.
            self.by_stream.resize(self.members.len(), false);
            self.by_stream[backend.index.get()] = backend.is_by_stream();
        }
    }

    /// Whether a backend is asked by stream.
    #[inline]
    pub(in crate::engine) fn is_by_stream(&self, backend: BackendIndex) -> bool {
        self.by_stream.get(backend.get()).is_some_and(|is| *is)
    }

    /// How long 99 % of the attempts take to ask a backend, if enough of them are in.
    pub(in crate::engine) fn p99(&self, backend: BackendIndex) -> Option<Duration> {
        self.latency.get(backend.get())?.quantile(0.99)
    }
}
