//! The sums of the workers' counters of pools and backends.

use super::{ManualHealth, SharedBackend, SharedPool};
use crate::metrics::{
    AttemptCounts, BackendConnectionsSnapshot, BackendCounters, BackendSnapshot, Cause, Counter, FETCHED,
    HistogramSnapshot, PoolSnapshot, Want, Wins,
};

impl SharedPool {
    /// Returns the sums of all counters.
    pub fn snapshot(&self) -> PoolSnapshot {
        let counters = || self.state.counters.iter().chain([&*self.state.carried]);
        let mut duration = HistogramSnapshot::default();
        counters().for_each(|worker| duration.add(&worker.duration));
        PoolSnapshot {
            name: self.config.name.clone(),
            in_flight: counters().map(|worker| worker.in_flight.get()).sum(),
            duration,
            hedges_denied: counters().map(|worker| worker.hedges_denied.get()).sum(),
            tokens: self.budget().hedges_left(),
            fetches: FETCHED.map(|result| counters().map(|worker| worker.fetches[result as usize].get()).sum()),
            prefetches: counters().map(|worker| worker.prefetches.get()).sum(),
            hedges_wasted: counters().map(|worker| worker.hedges_wasted.get()).sum(),
            stale_replies: counters().map(|worker| worker.stale_replies.get()).sum(),
            slow_races: counters().map(|worker| worker.slow_races.get()).sum(),
            divergences: std::array::from_fn(|kind| counters().map(|worker| worker.divergences[kind].get()).sum()),
            divergent: 0,
            backends: self.members().map(|(backend, weight)| backend_snapshot(backend, weight)).collect(),
            sources: Vec::new(),
        }
    }
}

fn backend_snapshot(backend: &SharedBackend, weight: u16) -> BackendSnapshot {
    let counters = || backend.counted().chain(backend.carried());
    let sum =
        |counter: &dyn Fn(&BackendCounters) -> &Counter| counters().map(|worker| counter(worker).get()).sum::<u64>();
    let mut latency = HistogramSnapshot::default();
    counters().for_each(|worker| latency.add(&worker.latency));
    let mut connections = backend.is_by_stream().then(Box::<BackendConnectionsSnapshot>::default);
    if let Some(sum) = &mut connections {
        counters().filter_map(|worker| worker.connections.get()).for_each(|worker| sum.add(worker));
        sum.problem = backend.connection_problem().map(|problem| problem.to_string());
    }
    BackendSnapshot {
        name: backend.name.clone(),
        address: backend.address,
        weight,
        state: backend.state(),
        by_hand: backend.manual() != ManualHealth::Auto,
        since: backend.since(),
        in_flight: sum(&|worker| &worker.in_flight),
        attempts: AttemptCounts {
            first: sum(&|worker| &worker.attempts[0]),
            hedge: sum(&|worker| &worker.attempts[1]),
            failover: sum(&|worker| &worker.attempts[2]),
            probe: backend.probes.get(),
        },
        wins: Wins {
            first: sum(&|worker| &worker.wins[0]),
            hedge: sum(&|worker| &worker.wins[1]),
            failover: sum(&|worker| &worker.wins[2]),
        },
        errors: sum(&|worker| &worker.errors),
        unreachable: sum(&|worker| &worker.unreachable) + backend.unreachable_probes.get(),
        again: Cause::ALL.map(|cause| (cause, sum(&|worker| &worker.again[cause as usize]))).to_vec(),
        timeouts: sum(&|worker| &worker.timeouts),
        lost_attempts: sum(&|worker| &worker.lost_attempts),
        decisions: sum(&|worker| &worker.decisions),
        unsent: Want::ALL.map(|want| (want, sum(&|worker| &worker.unsent[want as usize]))).to_vec(),
        connections,
        latency,
        origin: Vec::new(),
        is_listed: false,
        order: None,
    }
}
