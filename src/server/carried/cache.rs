//! The cache on its way from one process to another: written by the one while it serves, read by the other before it does.

use std::hash::BuildHasher;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use super::super::Server;
use super::super::persist::wall_clock;
use super::{Known, Learnt};
use crate::cache::{Cache, LoadError};
use crate::config::{CacheConfig, Config};
use crate::state::ForwarderState;

impl Server {
    /// Writes the cache for another process, if there is one, and says how many answers that were; for a thread that may wait.
    pub fn save_cache(&self) -> Option<impl FnOnce(&mut dyn Write) -> io::Result<u64> + Send + use<>> {
        let state = self.state.as_ref()?;
        let (cache, rules) = (Arc::clone(state.cache.as_ref()?), state.cache_config.as_ref()?.rules.clone());
        Some(move |mut out: &mut dyn Write| cache.save(&rules, Instant::now(), wall_clock(), &mut out))
    }

    /// The cache is another process's by now: it is not saved in its file any more.
    pub fn leave_cache(&mut self) {
        self.saves.leave();
    }
}

impl Learnt {
    /// Reads the cache of another process, for a server of this config, and says how many answers are in it; none, if the config has
    /// no cache. Takes as long as the other takes to write it.
    ///
    /// # Errors
    /// If it breaks off, or is damaged.
    pub fn load_cache(
        &self,
        config: &Config,
        known: &Known,
        mut stream: impl Read,
    ) -> Result<Option<(Arc<Cache>, u64)>, LoadError> {
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
