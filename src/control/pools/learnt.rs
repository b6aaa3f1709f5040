//! Learned state of a server: latencies of backends, hedge budgets, locations of names.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use config::{CacheConfig, Config};
use data_encoding::BASE64;
use dns::HashSeed;
use engine::LearntBackend;
use engine::cache::{Cache, SnapshotLoadError};
use engine::state::{ForwarderState, SharedPool};
use hedge::affinity::Affinity;
use hedge::balance::Balance;
use net::tasks::blocking;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::persist::wall_clock;
use super::{CarriedPools, LastMinutes};
use crate::control::workers::WorkerChannels;
use crate::worker::{ForwarderCommand, LEARNT_AT_ONCE};

/// The learned state of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learnt {
    /// The hash seed of questions and names, needed for the rest and for the cache.
    pub(in crate::control) seed: HashSeed,
    pools: Vec<LearntPool>,
    workers: Vec<Vec<LearntBackend>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LearntPool {
    name: String,
    budget: (i64, i64),
    progress: (u64, u64),
    recent_queries: Vec<u64>,
    affinity: Option<LearntAffinity>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LearntAffinity {
    numbers: Vec<(String, u32)>,
    /// The words of the memory, little-endian, in base64. A process with another word format uses another
    /// field name.
    #[serde(default)]
    words_of_32_bits: String,
}

impl LearntAffinity {
    fn of(affinity: &Affinity, numbers: Vec<(String, u32)>) -> Self {
        let words: Vec<u8> = affinity.words().into_iter().flat_map(u64::to_le_bytes).collect();
        Self { numbers, words_of_32_bits: BASE64.encode(&words) }
    }

    fn restore(&self, pool: &SharedPool) {
        let octets = BASE64.decode(self.words_of_32_bits.as_bytes()).unwrap_or_default();
        let words: Vec<u64> = octets.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let own: HashMap<&str, u32> =
            pool.backends.iter().map(|backend| (&*backend.name, backend.affinity_number)).collect();
        let known = self.numbers.iter().filter_map(|(name, number)| Some((*number, *own.get(&**name)?)));
        let known: HashMap<u32, u32> = known.collect();
        let number = |number: u32| known.get(&number).copied();
        pool.affinity.set_words(&words, number);
    }
}

impl Learnt {
    pub(super) async fn collect(
        seed: HashSeed,
        pools: Vec<(Arc<SharedPool>, Vec<u64>)>,
        channels: WorkerChannels,
    ) -> Self {
        let mut workers = Vec::new();
        // The first worker comes last, because it sends the latency to which the others have added theirs.
        for worker in (0..channels.count()).rev() {
            workers.push(learnt_by(worker, &channels).await);
        }
        workers.reverse();
        let pools = blocking(move || pools.into_iter().map(learnt_pool).collect()).await;
        Self { seed, pools, workers }
    }

    /// Reads the cache of another process, and returns it with the number of answers; `None` if the config
    /// has no cache. Blocks until the other process has written it.
    ///
    /// # Errors
    /// If the data is incomplete or damaged.
    pub fn load_cache(
        &self,
        config: &Config,
        known: &CarriedPools,
        mut stream: impl Read,
    ) -> Result<Option<(Arc<Cache>, u64)>, SnapshotLoadError> {
        let Some(CacheConfig { size, rules, .. }) = &config.cache else { return Ok(None) };
        let hasher = self.seed.carried_hasher();
        let pools = ForwarderState::cached_pools_of(&known.changed(&config.pools));
        let cache = Cache::new(*size, Instant::now());
        let hash = |question: &[u8]| hasher.hash_one(question);
        let answers = cache.load(rules, Instant::now(), wall_clock(), &pools, hash, &mut stream)?;
        cache.reset_counts();
        Ok(Some((Arc::new(cache), answers)))
    }

    pub(super) fn restore(&self, state: &ForwarderState, minutes: &mut LastMinutes) {
        for known in &self.pools {
            let Some(pool) = state.pool(&known.name) else { continue };
            pool.budget().set_level(known.budget);
            pool.state.set_progress(known.progress);
            minutes.set_queries(&pool.state, &known.recent_queries);
            if let Some(affinity) = &known.affinity {
                affinity.restore(pool);
            }
        }
    }

    /// Returns the initial state of a worker. With fewer learned workers, some share a state.
    pub(in crate::control) fn of_worker(&self, number: usize) -> Option<Vec<LearntBackend>> {
        let count = self.workers.len().max(1);
        self.workers.get(number % count).cloned()
    }
}

/// Collects the measurements of a worker, in small parts.
pub(super) async fn learnt_by(worker: usize, channels: &WorkerChannels) -> Vec<LearntBackend> {
    let mut backends = Vec::new();
    loop {
        let (answer, part) = oneshot::channel();
        channels.send(worker, ForwarderCommand::SendLearnt(backends.len(), answer));
        // A dead worker has no more to send.
        let part = part.await.unwrap_or_default();
        let is_last = part.len() < LEARNT_AT_ONCE;
        backends.extend(part);
        if is_last {
            return backends;
        }
    }
}

fn learnt_pool((pool, recent_queries): (Arc<SharedPool>, Vec<u64>)) -> LearntPool {
    let is_sticky = pool.rules().race.balance == Balance::Sticky;
    let numbers = pool.backends.iter().map(|backend| (backend.name.clone(), backend.affinity_number));
    LearntPool {
        name: pool.config.name.clone(),
        budget: pool.budget().level(),
        progress: pool.state.progress(),
        recent_queries,
        affinity: is_sticky.then(|| LearntAffinity::of(&pool.affinity, numbers.collect())),
    }
}
