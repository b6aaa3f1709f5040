//! Measurements of backends that a process hands to its successor.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use dns::address::BackendAddress;
use hedge::backend_load::LoadImage;
use hedge::latency::{Latency, LatencyImage};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::io::ClientHandle;
use super::single_flight::WorkerId;

/// The measurements of a worker about one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearntBackend {
    /// The name of the pool.
    pub pool: String,
    /// The label of the backend.
    pub name: String,
    /// The address of the backend.
    pub address: BackendAddress,
    /// The latency of the backend, which the first worker sends for all.
    pub latency: LatencyImage,
    /// The recent load of the backend.
    pub load: LoadImage,
}

impl<C: ClientHandle> Engine<C> {
    /// Returns the measurements of `most` backends of the active state from `first` on, over all pools.
    pub fn learnt(&mut self, first: usize, most: usize, now: Instant) -> Vec<LearntBackend> {
        if first == 0 {
            self.pools.iter_mut().flat_map(|pool| &mut pool.latency).for_each(Latency::publish);
        }
        let sends_latency = self.worker.me == WorkerId(0);
        let pools = self.pool_slots.iter().filter_map(|slot| self.pools.get(*slot));
        let backends = pools.flat_map(|pool| pool.plan.shared.backends.iter().map(move |backend| (pool, backend)));
        let learnt = backends.skip(first).take(most).map(|(pool, backend)| {
            let place = backend.index.get();
            LearntBackend {
                pool: pool.plan.shared.config.name.clone(),
                name: backend.name.clone(),
                address: backend.address,
                latency: if sends_latency { pool.latency[place].image(now) } else { LatencyImage::default() },
                load: pool.loads[place].image(now),
            }
        });
        learnt.collect()
    }

    /// Takes over the measurements of another process's worker, for the backends that exist here.
    pub fn learn(&mut self, learnt: &[LearntBackend], now: Instant) {
        let of_backend = |known: &'_ LearntBackend| (known.address, known.pool.clone(), known.name.clone());
        let known: HashMap<_, _> = learnt.iter().map(|known| (of_backend(known), known)).collect();
        for slot in &self.pool_slots {
            let Some(pool) = self.pools.get_mut(*slot) else { continue };
            let shared = Arc::clone(&pool.plan.shared);
            let mut new = Vec::new();
            for backend in &shared.backends {
                let place = (backend.address, shared.config.name.clone(), backend.name.clone());
                if let Some(known) = known.get(&place) {
                    pool.latency[backend.index.get()].learn(&known.latency, now);
                    pool.loads[backend.index.get()].learn(&known.load, now);
                } else {
                    new.push(backend.index);
                }
            }
            pool.begin_latency(&new, now);
        }
    }
}
