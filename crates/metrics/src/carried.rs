//! The growth of a snapshot: a server adds the counters of its predecessor.
//!
//! The predecessor first sends a whole [`Snapshot`], then differences. Gauges belong to one process.

use std::collections::HashMap;
use std::hash::Hash;

use super::aggregate::Aggregate;
use super::connections::CertificateSnapshot;
use super::discovery::SourceSnapshot;
use super::frames::FrameSnapshot;
use super::snapshot::{BackendSnapshot, PoolSnapshot, Snapshot};

impl Snapshot {
    /// Returns the difference to `earlier`. Gauges keep the current value.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut grown = self.clone();
        grown.counts.subtract(&earlier.counts);
        let listener_and_limit = |(listener, limit, _): &(String, _, u64)| (listener.clone(), *limit as usize);
        subtract_all(&mut grown.limited, &earlier.limited, listener_and_limit, |now, before| now.2.subtract(&before.2));
        if let (Some(cache), Some(earlier)) = (&mut grown.cache, &earlier.cache) {
            cache.stats = cache.stats.since(earlier.stats);
        }
        subtract_all(&mut grown.pools, &earlier.pools, |pool| pool.name.clone(), PoolSnapshot::subtract);
        subtract_all(&mut grown.rules, &earlier.rules, |rule| rule.0.clone(), |now, before| now.1.subtract(&before.1));
        grown.reload.succeeded.subtract(&earlier.reload.succeeded);
        grown.reload.failed.subtract(&earlier.reload.failed);
        grown.run.tasks_lost.subtract(&earlier.run.tasks_lost);
        grown.run.worker_replacements.subtract(&earlier.run.worker_replacements);
        let name = |certificate: &CertificateSnapshot| certificate.name.clone();
        subtract_all(&mut grown.certificates, &earlier.certificates, name, |now, before| {
            now.loads.subtract(&before.loads);
            now.refusals.subtract(&before.refusals);
        });
        let interface = |frames: &FrameSnapshot| frames.interface.clone();
        subtract_all(&mut grown.frames, &earlier.frames, interface, |now, before| {
            *now = now.with(before, u64::saturating_sub)
        });
        grown
    }
}

impl PoolSnapshot {
    fn subtract(&mut self, earlier: &Self) {
        self.counts.subtract(&earlier.counts);
        let name_and_address = |backend: &BackendSnapshot| (backend.name.clone(), backend.address);
        subtract_all(&mut self.backends, &earlier.backends, name_and_address, |now, before| {
            now.probes.subtract(&before.probes);
            now.counts.subtract(&before.counts);
        });
        let origin = |source: &SourceSnapshot| source.origin;
        subtract_all(&mut self.sources, &earlier.sources, origin, |now, before| now.changes.subtract(&before.changes));
    }
}

/// Calls `subtract` for each item with the earlier item of the same key.
fn subtract_all<T, K: Eq + Hash>(now: &mut [T], earlier: &[T], key: impl Fn(&T) -> K, subtract: impl Fn(&mut T, &T)) {
    let known: HashMap<_, _> = earlier.iter().map(|item| (key(item), item)).collect();
    for item in now {
        if let Some(earlier) = known.get(&key(item)) {
            subtract(item, earlier);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use dns::Transport;
    use proptest::prelude::*;

    use super::super::counters::{
        BackendCounters, BackendCounts, Cause, Counters, CountersSummary, DropReason, PoolCounters, PoolCounts,
        ResponseSource, ServerCounts, Tap, TapFate, Want,
    };
    use super::super::snapshot::{BackendState, MembershipSnapshot};
    use super::*;

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
        let (mut of_pool, mut of_backend) = (PoolCounts::default(), BackendCounts::default());
        pool.iter().for_each(|counters| of_pool.collect(counters));
        backend.iter().for_each(|counters| of_backend.collect(counters));
        let backend = BackendSnapshot {
            name: "ts1".to_owned(),
            address: "192.0.2.1:53".parse().expect("an address"),
            weight: 1,
            state: BackendState::Up,
            by_hand: false,
            by_hand_until: None,
            since: SystemTime::UNIX_EPOCH,
            probes: 0,
            counts: of_backend,
            connection_problem: None,
            probe_problem: None,
            membership: MembershipSnapshot::default(),
        };
        let backends = vec![backend];
        let pool = PoolSnapshot { name: "ts".to_owned(), counts: of_pool, backends, ..PoolSnapshot::default() };
        let workers = process.iter().map(|counters| Arc::clone(counters)).collect();
        Snapshot { pools: vec![pool], counts: CountersSummary::of(workers).counts(), ..Snapshot::default() }
    }

    /// A program of another version has more or fewer labels.
    #[test]
    fn numbers_of_another_version_keep_their_places() {
        let counts = Counters::default();
        counts.dropped(DropReason::Late);
        let mut sum = ServerCounts::default();
        sum.collect(&counts);
        let whole = serde_json::to_value(&sum).expect("numbers are JSON");
        for is_newer in [false, true] {
            let mut sent = whole.clone();
            for key in ["dropped", "responses"] {
                let numbers = sent[key].as_array_mut().expect("numbers by label");
                let last = numbers.pop().expect("there is one");
                numbers.extend(std::iter::repeat_n(last, if is_newer { 2 } else { 0 }));
            }
            assert_eq!(serde_json::from_value::<ServerCounts>(sent).expect("it can be read").dropped, sum.dropped);
        }
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
                counted.counts.carry(&carried.0);
                counted.pools[0].counts.carry(&carried.1);
                counted.pools[0].backends[0].counts.carry(&carried.2);
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
            prop_assert_eq!(grown.counts.queries[0], found.counts.queries[0] - between.counts.queries[0]);
            prop_assert!(between.pools[0].counts.duration.count() <= found.pools[0].counts.duration.count());
        }
    }
}
