//! Learned state of a server: latencies of backends, hedge budgets, locations of names.

use std::collections::HashMap;
use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::super::Server;
use super::super::recent_queries::RecentQueries;
use super::super::worker::{LEARNT_AT_ONCE, WorkerCommand};
use crate::engine::LearntBackend;
use crate::net::tasks::blocking;
use crate::policy::affinity::Affinity;
use crate::policy::balance::Balance;
use crate::state::{ForwarderState, SharedPool};
use crate::wire::HashSeed;

/// The learned state of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learnt {
    /// The hash seed of questions and names, needed for the rest and for the cache.
    pub(in crate::server) seed: HashSeed,
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
    pub(in crate::server) fn restore(&self, state: &ForwarderState, recent_queries: &mut RecentQueries) {
        for known in &self.pools {
            let Some(pool) = state.pool(&known.name) else { continue };
            pool.budget().set_level(known.budget);
            pool.state.set_progress(known.progress);
            recent_queries.set(&pool.state, &known.recent_queries);
            if let Some(affinity) = &known.affinity {
                affinity.restore(pool);
            }
        }
    }

    /// Returns the initial state of a worker. With fewer learned workers, some share a state.
    pub(in crate::server) fn of_worker(&self, number: usize) -> Option<Vec<LearntBackend>> {
        let count = self.workers.len().max(1);
        self.workers.get(number % count).cloned()
    }
}

impl Server {
    /// Collects the learned state while the server continues: workers send it in small parts, and another
    /// thread encodes large parts.
    pub fn learnt(&self) -> impl Future<Output = Learnt> + use<> {
        let workers = self.workers.ways();
        let seed = self.hash_seed;
        let pools = self.state.iter().flat_map(|state| &state.pools).map(|pool| {
            let pool = Arc::clone(pool);
            let recent_queries = self.recent_queries.of(&pool.state);
            (pool, recent_queries)
        });
        let pools: Vec<_> = pools.collect();
        async move {
            let mut learnt = Vec::new();
            for worker in workers {
                let mut backends = Vec::new();
                loop {
                    let (answer, part) = oneshot::channel();
                    let _ = worker.send(WorkerCommand::SendLearnt(backends.len(), answer));
                    // A dead worker has no more to send.
                    let part = part.await.unwrap_or_default();
                    let is_last = part.len() < LEARNT_AT_ONCE;
                    backends.extend(part);
                    if is_last {
                        break;
                    }
                }
                learnt.push(backends);
            }
            let pools = blocking(move || pools.into_iter().map(learnt_pool).collect()).await;
            Learnt { seed, pools, workers: learnt }
        }
    }
}

fn learnt_pool((pool, recent_queries): (Arc<SharedPool>, Vec<u64>)) -> LearntPool {
    let is_sticky = pool.rules().balance == Balance::Sticky;
    let numbers = pool.backends.iter().map(|backend| (backend.name.clone(), backend.affinity_number));
    LearntPool {
        name: pool.config.name.clone(),
        budget: pool.budget().level(),
        progress: pool.state.progress(),
        recent_queries,
        affinity: is_sticky.then(|| LearntAffinity::of(&pool.affinity, numbers.collect())),
    }
}
