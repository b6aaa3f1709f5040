//! What a server has learnt by serving: how long backends take, what hedges it can pay for, which names live where.

use std::collections::HashMap;
use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::super::Server;
use super::super::recent_queries::RecentQueries;
use super::super::worker::{Command, TOLD};
use crate::engine::LearntBackend;
use crate::net::tasks::blocking;
use crate::policy::affinity::Affinity;
use crate::policy::balance::Balance;
use crate::state::{ForwarderState, SharedPool};
use crate::wire::HashSeed;

/// What a server has learnt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learnt {
    /// How it hashes questions and names: what follows, and the cache, are found by that.
    pub(in crate::server) seed: HashSeed,
    /// By the names of the pools.
    pools: Vec<LearntPool>,
    /// What each worker has learnt of backends.
    workers: Vec<Vec<LearntBackend>>,
}

/// The same of one pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LearntPool {
    /// Its name.
    name: String,
    /// What is in the bucket of the hedge budget, and what it holds.
    budget: (i64, i64),
    /// Turns taken and queries counted.
    progress: (u64, u64),
    /// Queries counted at each second of the last minute.
    recent_queries: Vec<u64>,
    /// Where names live, if it is `sticky`.
    affinity: Option<LearntAffinity>,
}

/// Where names live.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LearntAffinity {
    /// What each backend is called there.
    numbers: Vec<(String, u32)>,
    /// The words of the memory, little-endian, in base64. A process whose words are made otherwise has another name for them.
    #[serde(default)]
    words_of_32_bits: String,
}

impl LearntAffinity {
    /// Of a memory, with what backends are called in it. Takes half a millisecond.
    fn of(affinity: &Affinity, numbers: Vec<(String, u32)>) -> Self {
        let words: Vec<u8> = affinity.words().into_iter().flat_map(u64::to_le_bytes).collect();
        Self { numbers, words_of_32_bits: BASE64.encode(&words) }
    }

    /// Has a pool remember the names, by what it calls its backends.
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
    /// Has the pools of a state that has just been made go on as those of the other process.
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

    /// What a worker begins with. If there were fewer of them, some begin alike.
    pub(in crate::server) fn of_worker(&self, number: usize) -> Option<Vec<LearntBackend>> {
        let count = self.workers.len().max(1);
        self.workers.get(number % count).cloned()
    }
}

impl Server {
    /// What it has learnt so far. The server goes on meanwhile: workers tell it bit by bit, and what is large is written
    /// by another thread.
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
                    let (answer, told) = oneshot::channel();
                    let _ = worker.send(Command::TellLearnt(backends.len(), answer));
                    // One that is gone has nothing more to tell.
                    let told = told.await.unwrap_or_default();
                    let is_last = told.len() < TOLD;
                    backends.extend(told);
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

/// What is known of a pool, and of its queries of the last minute.
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
