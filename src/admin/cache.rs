//! The cache by HTTP: what it keeps of a name, and what it is to forget.
//!
//! Either may have to look at every entry, which takes a while where there are millions. So the control thread only hands out
//! a [`CacheAccess`], and a thread for such work goes through the entries while probes and scrapes go on.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::status::EntryStatus;
use crate::cache::{Cache, Flush, PoolId, Rules};
use crate::wire::Name;

/// The cache as it is configured now.
#[derive(Clone)]
pub struct CacheAccess {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Its rules.
    pub rules: Rules,
    /// The pools whose replies it keeps, with their names.
    pub pools: Vec<(PoolId, String)>,
}

impl CacheAccess {
    /// All that is kept of a name.
    pub(super) fn show(&self, name: &Name) -> Vec<EntryStatus> {
        let kept = self.cache.show(name, &self.rules, Instant::now());
        kept.iter().filter_map(|entry| EntryStatus::of(entry, self.pool(entry.pool))).collect()
    }

    /// Forgets, and says how many entries.
    pub(super) fn flush(&self, what: &Scope) -> u64 {
        self.cache.flush(match what {
            Scope::All => Flush::All,
            Scope::Name(name) => Flush::Name(name),
            Scope::Subtree(name) => Flush::Subtree(name),
        })
    }

    /// The name of a pool, if it still is as it was when it said something.
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

/// What is to be forgotten.
#[derive(Debug)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// What was asked about this name.
    Name(Name),
    /// The same of all names at or below it.
    Subtree(Name),
}

impl Scope {
    /// Says how many of it were forgotten.
    pub(super) fn message(&self, flushed: u64) -> String {
        let entries = if flushed == 1 { "1 entry".to_owned() } else { format!("{flushed} entries") };
        match self {
            Self::All => format!("{entries} flushed"),
            Self::Name(name) => format!("{entries} of {name} flushed"),
            Self::Subtree(name) => format!("{entries} at or below {name} flushed"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Subtree(name) => write!(f, "{name} and below"),
        }
    }
}
