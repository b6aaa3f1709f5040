//! The sums of the workers' counters of pools and backends.

use metrics::{Aggregate, BackendCounts, BackendSnapshot, MembershipSnapshot, PoolCounts, PoolSnapshot};

use super::{ManualHealth, SharedBackend, SharedPool};

impl SharedPool {
    /// Returns the sums of all counters.
    pub fn snapshot(&self) -> PoolSnapshot {
        let mut counts = PoolCounts::default();
        self.state.counters.iter().chain([&*self.state.carried]).for_each(|worker| counts.collect(worker));
        PoolSnapshot {
            name: self.config.name.clone(),
            counts,
            tokens: self.budget().hedges_left(),
            divergent: 0,
            regret: self.state.regret.latest(),
            tuning: self.tuning(),
            min_up: self.rules().min_up,
            backends: self
                .members()
                .map(|(backend, weight)| backend_snapshot(backend, weight, self.tier(backend.index)))
                .collect(),
            sources: Vec::new(),
        }
    }
}

fn backend_snapshot(backend: &SharedBackend, weight: u16, tier: u8) -> BackendSnapshot {
    let is_by_stream = backend.is_by_stream();
    let mut counts = BackendCounts { connections: is_by_stream.then(Box::default), ..BackendCounts::default() };
    backend.counted().chain(backend.carried()).for_each(|worker| counts.collect(worker));
    counts.unreachable += backend.unreachable_probes.get();
    let problem = backend.connection_problem().filter(|_| is_by_stream);
    BackendSnapshot {
        name: backend.name.clone(),
        address: backend.address,
        weight,
        state: backend.state(),
        by_hand: backend.manual() != ManualHealth::Auto,
        by_hand_until: backend.manual_until(),
        since: backend.since(),
        probes: backend.probes.get(),
        counts,
        connection_problem: problem.map(|problem| problem.to_string()),
        probe_problem: backend.probe_problem().map(|problem| problem.to_string()),
        membership: MembershipSnapshot { tier, ..MembershipSnapshot::default() },
    }
}
