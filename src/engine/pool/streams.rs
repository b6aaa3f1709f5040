//! Backends that are asked by stream, and the ways to one machine: in which order they are asked, and who is connected to meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;

use super::super::io::Io;
use super::Pool;
use crate::policy::ordering::{BackendStats, Way, order_ways};
use crate::policy::race::{BackendIndex, Candidates};
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

    /// Whom a race may ask, in order, where some are asked by stream or several are ways to one machine. Whose turn it was and who has no
    /// connection is connected to meanwhile.
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
            // One that was never asked has no sockets yet, and no connection.
            pool.is_by_stream(backend) && pool.known_sockets(backend).is_none_or(|sockets| io.is_cold(sockets))
        };
        let way = |backend| Way { is_cold: is_cold(self, io, backend), machine: self.shared.machine(backend) };
        let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
        let weight = |backend: BackendIndex| self.shared.weight(backend);
        let ordered = order_ways(candidates, self.shared.rules(), &known, weight, way, rng);
        let in_turn = candidates.get(0).filter(|first| ordered.get(0) != Some(*first));
        if let Some(passed_over) = in_turn.filter(|first| is_cold(self, io, *first)) {
            let sockets = self.sockets(io, passed_over);
            io.dial(sockets, now);
        }
        ordered
    }

    /// Whether a backend is asked by stream.
    #[inline]
    pub(in crate::engine) fn is_by_stream(&self, backend: BackendIndex) -> bool {
        self.by_stream.get(backend.get()).is_some_and(|is| *is)
    }

    /// Whether nobody on the way to a backend can read along.
    #[inline]
    pub(in crate::engine) fn is_encrypted(&self, backend: BackendIndex) -> bool {
        self.is_by_stream(backend) && self.backend(backend).is_encrypted()
    }

    /// True if a query without OPT gets one on its way to a backend: for its padding, or so that extended errors come back (RFC 8914
    /// section 2).
    #[inline]
    pub(in crate::engine) fn adds_opt(&self, backend: BackendIndex) -> bool {
        self.shared.rules().believe_ede || self.is_encrypted(backend)
    }

    /// Whether a header is to tell a backend who asks.
    #[inline]
    pub(in crate::engine) fn wants_header(&self, backend: BackendIndex) -> bool {
        self.shared.names_clients && self.backend(backend).wants_header
    }

    /// How long 99 % of the attempts take to ask a backend, if enough of them are in.
    pub(in crate::engine) fn p99(&self, backend: BackendIndex) -> Option<Duration> {
        self.latency.get(backend.get())?.quantile(0.99)
    }
}
