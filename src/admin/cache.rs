//! The cache by HTTP: shows the entries of a name and flushes entries.
//!
//! A visit of every entry is slow when there are millions. The control thread only hands out a
//! [`CacheAccess`]; a separate thread visits the entries.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use config::CacheRules;
use dns::Name;
use engine::cache::{Cache, Flush, PoolId};

use super::status::EntryStatus;

/// Access to the cache with the current config.
#[derive(Clone)]
pub struct CacheAccess {
    /// The shared cache.
    pub cache: Arc<Cache>,
    /// The caching rules of the config.
    pub rules: CacheRules,
    /// The pools that use the cache, with their names.
    pub pools: Vec<(PoolId, String)>,
}

impl CacheAccess {
    pub(super) fn show(&self, name: &Name) -> Vec<EntryStatus> {
        let kept = self.cache.show(name, &self.rules, Instant::now());
        kept.iter().filter_map(|entry| EntryStatus::of(entry, self.pool(entry.pool))).collect()
    }

    pub(super) fn flush(&self, what: &Scope) -> u64 {
        self.cache.flush(match what {
            Scope::All => Flush::All,
            Scope::Name(name) => Flush::Name(name),
            Scope::Subtree(name) => Flush::Subtree(name),
        })
    }

    /// Returns the name of a pool, if the pool has not changed since the entry was stored.
    fn pool(&self, id: PoolId) -> Option<&str> {
        self.pools.iter().find(|(known, _)| *known == id).map(|(_, name)| name.as_str())
    }
}

impl fmt::Debug for CacheAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache: _, rules, pools } = self;
        f.debug_struct("CacheAccess").field("rules", rules).field("pools", pools).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) enum Scope {
    All,
    Name(Name),
    Subtree(Name),
}

impl Scope {
    pub(super) fn message(&self, flushed: u64) -> String {
        let entries = if flushed == 1 { "1 entry".to_owned() } else { format!("{flushed} entries") };
        match self {
            Self::All => format!("{entries} flushed"),
            Self::Name(name) => format!("{entries} of {name} flushed"),
            Self::Subtree(name) => format!("{entries} at or below {name} flushed"),
        }
    }
}
