//! Stream backends, and several transports to one machine: their order, and connections opened early.

use std::sync::Arc;
use std::time::Instant;

use hedge::ordering::{BackendPath, BackendStats, order_ways};
use hedge::race::{BackendIndex, Candidates};
use rand::Rng;

use super::super::io::Io;
use super::Pool;
use crate::state::SharedBackend;

impl Pool {
    pub(super) fn note_way(&mut self, backend: &Arc<SharedBackend>) {
        if backend.is_by_stream() && self.by_stream.is_empty() {
            self.by_stream.resize(self.members.len(), false);
        }
        if !self.by_stream.is_empty() {
            self.by_stream.resize(self.members.len(), false);
            self.by_stream[backend.index.get()] = backend.is_by_stream();
        }
    }

    /// Orders the candidates if some are stream backends or several lead to one machine. Opens a connection
    /// to a cold backend whose turn it was.
    #[cold]
    #[inline(never)]
    pub(super) fn order_ways<I: Io>(
        &mut self,
        io: &mut I,
        candidates: &Candidates,
        rng: &mut impl Rng,
        now: Instant,
    ) -> Candidates {
        let is_cold = |pool: &Self, io: &I, backend: BackendIndex| {
            pool.is_by_stream(backend) && pool.known_sockets(backend).is_none_or(|sockets| io.is_cold(sockets))
        };
        let way =
            |backend| BackendPath { is_cold: is_cold(self, io, backend), machine: self.plan.shared.machine(backend) };
        let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
        let weight = |backend: BackendIndex| self.plan.shared.weight(backend);
        let ordered = order_ways(candidates, &self.plan.shared.rules().race, &known, weight, way, rng);
        let in_turn = candidates.get(0).filter(|first| ordered.get(0) != Some(*first));
        if let Some(passed_over) = in_turn.filter(|first| is_cold(self, io, *first)) {
            let sockets = self.sockets(io, passed_over);
            io.dial(sockets, now);
        }
        ordered
    }

    #[inline]
    pub(in crate::engine) fn is_by_stream(&self, backend: BackendIndex) -> bool {
        self.by_stream.get(backend.get()).is_some_and(|is| *is)
    }

    #[inline]
    pub(in crate::engine) fn is_encrypted(&self, backend: BackendIndex) -> bool {
        self.is_by_stream(backend) && self.backend(backend).is_encrypted()
    }

    /// Returns true if a query without OPT gets one for a backend: for padding, or for extended errors in
    /// replies (RFC 8914 section 2).
    #[inline]
    pub(in crate::engine) fn adds_opt(&self, backend: BackendIndex) -> bool {
        self.plan.shared.rules().believe_ede || self.is_encrypted(backend)
    }

    #[inline]
    pub(in crate::engine) fn wants_header(&self, backend: BackendIndex) -> bool {
        self.plan.shared.names_clients && self.backend(backend).wants_header
    }
}
