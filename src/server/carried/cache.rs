//! Transfers the cache from one process to its successor before the successor serves.

use std::hash::BuildHasher;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use super::super::Server;
use super::super::persist::wall_clock;
use super::{CarriedPools, Learnt};
use crate::cache::{Cache, SnapshotLoadError};
use crate::config::{CacheConfig, Config};
use crate::state::ForwarderState;

impl Server {
    /// Returns a function that writes the cache for another process and returns the number of answers. It may
    /// block.
    pub fn save_cache(&self) -> Option<impl FnOnce(&mut dyn Write) -> io::Result<u64> + Send + use<>> {
        let state = self.state.as_ref()?;
        let (cache, rules) = (Arc::clone(state.cache.as_ref()?), state.cache_config.as_ref()?.rules.clone());
        Some(move |mut out: &mut dyn Write| cache.save(&rules, Instant::now(), wall_clock(), &mut out))
    }

    /// Stops saves to the cache file, because another process has the cache.
    pub fn leave_cache(&mut self) {
        self.saves.leave();
    }
}

impl Learnt {
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
}
