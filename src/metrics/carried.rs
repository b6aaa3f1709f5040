//! Counters that continue in another process: a server adds the counters of its predecessor.
//!
//! The predecessor first sends a whole [`Snapshot`], then differences. Gauges belong to one process.

use std::collections::HashMap;
use std::sync::Arc;

use super::counters::{BackendCounters, Counters, PoolCounters, RCODES};
use super::discovery::SourceSnapshot;
use super::snapshot::{AttemptCounts, BackendSnapshot, CacheSnapshot, PoolSnapshot, Snapshot, Wins};

impl Snapshot {
    /// Returns the difference to `earlier`. Gauges keep the current value.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counted = self.clone();
        subtract(&mut counted.queries, &earlier.queries);
        counted.explained = counted.explained.saturating_sub(earlier.explained);
        counted.failures = counted.failures.saturating_sub(earlier.failures);
        for (source, rcode, count) in &mut counted.responses {
            let known = earlier.responses.iter().find(|(s, r, _)| (s, r) == (source, rcode));
            *count = count.saturating_sub(known.map_or(0, |(_, _, count)| *count));
        }
        subtract(&mut counted.connections.fates, &earlier.connections.fates);
        subtract(&mut counted.connections.handshakes, &earlier.connections.handshakes);
        subtract(&mut counted.connections.http, &earlier.connections.http);
        for certificate in &mut counted.certificates {
            if let Some(earlier) = earlier.certificates.iter().find(|known| known.name == certificate.name) {
                certificate.loads = certificate.loads.saturating_sub(earlier.loads);
                certificate.refusals = certificate.refusals.saturating_sub(earlier.refusals);
            }
        }
        for interface in &mut counted.xdp {
            if let Some(earlier) = earlier.xdp.iter().find(|known| known.interface == interface.interface) {
                *interface = interface.with(earlier, u64::saturating_sub);
            }
        }
        subtract(&mut counted.dropped, &earlier.dropped);
        subtract(&mut counted.cookies, &earlier.cookies);
        subtract(&mut counted.taps, &earlier.taps);
        for (listener, limit, count) in &mut counted.limited {
            let known = earlier.limited.iter().find(|(l, other, _)| l == listener && other == limit);
            *count = count.saturating_sub(known.map_or(0, |(_, _, count)| *count));
        }
        if let (Some(cache), Some(earlier)) = (&mut counted.cache, &earlier.cache) {
            *cache = cache.since(earlier);
        }
        for pool in &mut counted.pools {
            if let Some(earlier) = earlier.pools.iter().find(|known| known.name == pool.name) {
                *pool = pool.since(earlier);
            }
        }
        counted.reload.succeeded = self.reload.succeeded.saturating_sub(earlier.reload.succeeded);
        counted.reload.failed = self.reload.failed.saturating_sub(earlier.reload.failed);
        counted.tasks_lost = self.tasks_lost.saturating_sub(earlier.tasks_lost);
        counted.worker_replacements = self.worker_replacements.saturating_sub(earlier.worker_replacements);
        counted
    }
}

impl CacheSnapshot {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(earlier.hits),
            stale_hits: self.stale_hits.saturating_sub(earlier.stale_hits),
            failure_hits: self.failure_hits.saturating_sub(earlier.failure_hits),
            misses: self.misses.saturating_sub(earlier.misses),
            insertions: self.insertions.saturating_sub(earlier.insertions),
            evictions: self.evictions.saturating_sub(earlier.evictions),
            ..*self
        }
    }
}

impl PoolSnapshot {
    fn since(&self, earlier: &Self) -> Self {
        let known: HashMap<_, _> =
            earlier.backends.iter().map(|known| ((&*known.name, known.address), known)).collect();
        let sources = self.sources.iter().map(|source| {
            let known = earlier.sources.iter().find(|known| known.origin == source.origin);
            let before = known.map_or([0; 3], |known| known.changes);
            let changes = std::array::from_fn(|change| source.changes[change].saturating_sub(before[change]));
            SourceSnapshot { changes, ..source.clone() }
        });
        let backends = self.backends.iter().map(|backend| {
            let known = known.get(&(&*backend.name, backend.address));
            known.map_or_else(|| backend.clone(), |earlier| backend.since(earlier))
        });
        Self {
            name: self.name.clone(),
            in_flight: self.in_flight,
            duration: self.duration.since(&earlier.duration),
            hedges_denied: self.hedges_denied.saturating_sub(earlier.hedges_denied),
            tokens: self.tokens,
            hedges_wasted: self.hedges_wasted.saturating_sub(earlier.hedges_wasted),
            stale_replies: self.stale_replies.saturating_sub(earlier.stale_replies),
            slow_races: self.slow_races.saturating_sub(earlier.slow_races),
            prefetches: self.prefetches.saturating_sub(earlier.prefetches),
            fetches: std::array::from_fn(|result| self.fetches[result].saturating_sub(earlier.fetches[result])),
            divergences: std::array::from_fn(|kind| self.divergences[kind].saturating_sub(earlier.divergences[kind])),
            divergent: self.divergent,
            backends: backends.collect(),
            sources: sources.collect(),
        }
    }
}

impl BackendSnapshot {
    /// Returns true if both are of the same backend.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.address == other.address
    }

    fn since(&self, earlier: &Self) -> Self {
        let (attempts, wins) = (&earlier.attempts, &earlier.wins);
        let mut counted = Self {
            attempts: AttemptCounts {
                first: self.attempts.first.saturating_sub(attempts.first),
                hedge: self.attempts.hedge.saturating_sub(attempts.hedge),
                failover: self.attempts.failover.saturating_sub(attempts.failover),
                probe: self.attempts.probe.saturating_sub(attempts.probe),
            },
            wins: Wins {
                first: self.wins.first.saturating_sub(wins.first),
                hedge: self.wins.hedge.saturating_sub(wins.hedge),
                failover: self.wins.failover.saturating_sub(wins.failover),
            },
            errors: self.errors.saturating_sub(earlier.errors),
            unreachable: self.unreachable.saturating_sub(earlier.unreachable),
            timeouts: self.timeouts.saturating_sub(earlier.timeouts),
            lost_attempts: self.lost_attempts.saturating_sub(earlier.lost_attempts),
            decisions: self.decisions.saturating_sub(earlier.decisions),
            connections: self.connections.as_deref().map(|connections| {
                Box::new(
                    earlier
                        .connections
                        .as_deref()
                        .map_or_else(|| connections.clone(), |earlier| connections.since(earlier)),
                )
            }),
            latency: self.latency.since(&earlier.latency),
            ..self.clone()
        };
        subtract(&mut counted.again, &earlier.again);
        subtract(&mut counted.unsent, &earlier.unsent);
        counted
    }
}

impl Counters {
    /// Adds the counters of another process.
    pub fn add(&self, counted: &Snapshot) {
        counted.queries.iter().for_each(|&(transport, count)| self.queries[transport as usize].add(count));
        self.explained.add(counted.explained);
        self.failures.add(counted.failures);
        self.connections.add(&counted.connections);
        for &(source, rcode, count) in &counted.responses {
            self.responses[source as usize][usize::from(rcode).min(RCODES - 1)].add(count);
        }
        counted.dropped.iter().for_each(|&(reason, count)| self.dropped[reason as usize].add(count));
        counted.cookies.iter().for_each(|&(kind, count)| self.cookies[kind as usize].add(count));
        counted.taps.iter().for_each(|&((tap, fate), count)| self.tapped(tap, fate, count));
    }
}

impl PoolCounters {
    /// Adds the pool's counters of another process.
    pub fn add(&self, counted: &PoolSnapshot) {
        self.duration.add(&counted.duration);
        self.hedges_denied.add(counted.hedges_denied);
        self.hedges_wasted.add(counted.hedges_wasted);
        self.stale_replies.add(counted.stale_replies);
        self.slow_races.add(counted.slow_races);
        self.prefetches.add(counted.prefetches);
        self.fetches.iter().zip(counted.fetches).for_each(|(counter, count)| counter.add(count));
        self.divergences.iter().zip(counted.divergences).for_each(|(counter, count)| counter.add(count));
    }
}

impl BackendCounters {
    /// Adds the backend's counters of another process, without probes.
    pub fn add(&self, counted: &BackendSnapshot) {
        let AttemptCounts { first, hedge, failover, probe: _ } = counted.attempts;
        self.attempts.iter().zip([first, hedge, failover]).for_each(|(counter, count)| counter.add(count));
        let Wins { first, hedge, failover } = counted.wins;
        self.wins.iter().zip([first, hedge, failover]).for_each(|(counter, count)| counter.add(count));
        counted.again.iter().for_each(|&(cause, count)| self.again[cause as usize].add(count));
        counted.unsent.iter().for_each(|&(want, count)| self.unsent[want as usize].add(count));
        self.errors.add(counted.errors);
        self.unreachable.add(counted.unreachable);
        self.timeouts.add(counted.timeouts);
        self.lost_attempts.add(counted.lost_attempts);
        self.decisions.add(counted.decisions);
        if let Some(connections) = &counted.connections {
            self.connections.get_or_init(Arc::default).add(connections);
        }
        self.latency.add(&counted.latency);
    }
}

fn subtract<K: PartialEq>(counted: &mut [(K, u64)], earlier: &[(K, u64)]) {
    for (key, count) in counted {
        let known = earlier.iter().find(|(known, _)| known == key);
        *count = count.saturating_sub(known.map_or(0, |(_, count)| *count));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::super::counters::{Cause, CountersSummary, DropReason, ResponseSource, Tap, TapFate, Want};
    use super::super::histogram::HistogramSnapshot;
    use super::super::snapshot::BackendState;
    use super::*;
    use crate::wire::Transport;

    fn count(events: &[u8], process: &Counters, pool: &PoolCounters, backend: &BackendCounters) {
        for &event in events {
            match event % 12 {
                0 => process.query(Transport::Udp),
                1 => process.query(Transport::Tcp),
                2 => process.responses(ResponseSource::Cache, u16::from(event), 2),
                3 => process.dropped(DropReason::Late),
                4 => pool.duration.record(Duration::from_micros(u64::from(event) << 7)),
                5 => pool.fetches[1].increment(),
                6 => backend.latency.record(Duration::from_micros(u64::from(event) << 9)),
                7 => backend.attempts[2].increment(),
                8 => backend.unsent[Want::Ports as usize].increment(),
                9 => process.tapped(Tap::QueryLog, TapFate::Dropped, 3),
                10 => backend.decisions.increment(),
                _ => backend.again[Cause::Cookie as usize].increment(),
            }
        }
    }

    fn snapshot(process: &[&Arc<Counters>], pool: [&PoolCounters; 2], backend: [&BackendCounters; 2]) -> Snapshot {
        let sum = |counter: &dyn Fn(&BackendCounters) -> u64| backend.iter().map(|counters| counter(counters)).sum();
        let (mut latency, mut duration) = (HistogramSnapshot::default(), HistogramSnapshot::default());
        backend.iter().for_each(|counters| latency.add(&counters.latency));
        pool.iter().for_each(|counters| duration.add(&counters.duration));
        let backend = BackendSnapshot {
            name: "ts1".to_owned(),
            address: "192.0.2.1:53".parse().expect("an address"),
            weight: 1,
            state: BackendState::Up,
            by_hand: false,
            since: SystemTime::UNIX_EPOCH,
            in_flight: 7,
            attempts: AttemptCounts { failover: sum(&|of| of.attempts[2].get()), ..AttemptCounts::default() },
            wins: Wins::default(),
            again: vec![(Cause::Cookie, sum(&|of| of.again[Cause::Cookie as usize].get()))],
            errors: 0,
            unreachable: 0,
            timeouts: 0,
            lost_attempts: sum(&|of| of.lost_attempts.get()),
            decisions: sum(&|of| of.decisions.get()),
            unsent: vec![(Want::Ports, sum(&|of| of.unsent[Want::Ports as usize].get()))],
            connections: None,
            latency,
            origin: Vec::new(),
            is_listed: false,
            order: None,
        };
        let fetches = pool.iter().map(|counters| counters.fetches[1].get()).sum();
        let pool = PoolSnapshot {
            name: "ts".to_owned(),
            duration,
            fetches: [0, fetches, 0],
            backends: vec![backend],
            ..PoolSnapshot::default()
        };
        let workers = process.iter().map(|counters| Arc::clone(counters)).collect();
        Snapshot { pools: vec![pool], ..CountersSummary::of(workers).snapshot() }
    }

    proptest! {
        /// All counts before the switch, during the drain and in the successor are present at the end. The
        /// successor's counters never decrease.
        #[test]
        fn nothing_that_was_counted_is_lost_on_the_way(
            before in prop::collection::vec(any::<u8>(), 0..200),
            draining in prop::collection::vec(any::<u8>(), 0..200),
            after in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let none = (Arc::<Counters>::default(), PoolCounters::default(), BackendCounters::default());
            let reported = |process: &Arc<Counters>, pool: &PoolCounters, backend: &BackendCounters| {
                let snapshot = snapshot(&[process], [pool, &none.1], [backend, &none.2]);
                let text = serde_json::to_string(&snapshot).expect("plain data");
                serde_json::from_str::<Snapshot>(&text).expect("what was written")
            };
            let old = (Arc::<Counters>::default(), PoolCounters::default(), BackendCounters::default());
            count(&before, &old.0, &old.1, &old.2);
            let first = reported(&old.0, &old.1, &old.2);
            count(&draining, &old.0, &old.1, &old.2);
            let rest = reported(&old.0, &old.1, &old.2).since(&first);

            let own = (Arc::<Counters>::default(), PoolCounters::default(), BackendCounters::default());
            let carried = (Arc::<Counters>::default(), PoolCounters::default(), BackendCounters::default());
            let add = |counted: &Snapshot| {
                carried.0.add(counted);
                carried.1.add(&counted.pools[0]);
                carried.2.add(&counted.pools[0].backends[0]);
            };
            add(&first);
            count(&after, &own.0, &own.1, &own.2);
            let between = snapshot(&[&own.0, &carried.0], [&own.1, &carried.1], [&own.2, &carried.2]);
            add(&rest);
            let found = snapshot(&[&own.0, &carried.0], [&own.1, &carried.1], [&own.2, &carried.2]);

            let all = (Arc::<Counters>::default(), PoolCounters::default(), BackendCounters::default());
            count(&[before, draining, after].concat(), &all.0, &all.1, &all.2);
            prop_assert_eq!(&found, &snapshot(&[&all.0], [&all.1, &none.1], [&all.2, &none.2]));
            let grown = found.since(&between);
            prop_assert_eq!(grown.queries[0].1, found.queries[0].1 - between.queries[0].1);
            prop_assert!(between.pools[0].duration.count() <= found.pools[0].duration.count());
        }
    }
}
