//! What a server takes over from the process before it.
//!
//! ```text
//!   a server that runs                                            its successor, which starts
//!     known()      by-hand changes, states of backends ─────────▶ Carried::known      ──▶ pools, backends
//!     learnt()     latency, budgets, sticky names, the seed ────▶ Carried::learnt     ──▶ workers, pools
//!     save_cache() the cache, as octets ────────── load_cache ──▶ Carried::cache      ──▶ the first state
//!     hand_over_counted()  all counters, and at the end ────────▶ add_counted()       ──▶ sets of their own
//!                  of the drain the difference to that
//! ```
//!
//! Who hands over decides the order: what is learnt while the other goes on to serve, then what was changed by hand meanwhile
//! ([`take_known`](Server::take_known)), and the counters when nobody can read them from the other any more, or they would
//! be seen to fall. After a crash there is only [`Known`], which standbys were told as it changed. All of it goes by names: a pool or
//! backend that the successor does not have is left aside.

mod cache;
mod counted;
mod known;
mod learnt;

use std::sync::Arc;

pub use self::known::Known;
pub use self::learnt::Learnt;
#[cfg(doc)]
use super::Server;
use crate::cache::Cache;
pub use crate::secondary::SavedZones;

/// What a server begins with. The default is nothing at all, as at a first start.
#[derive(Debug, Default)]
pub struct Carried {
    /// By-hand changes and states of backends.
    pub known: Known,
    /// What was learnt besides.
    pub learnt: Option<Learnt>,
    /// Where the content of the cache comes from.
    pub cache: CarriedCache,
    /// What it has read already of the zones that an earlier process has saved.
    pub saved: SavedZones,
    /// The edition of the config, if it is not the first.
    pub edition: Option<u64>,
    /// True if another process has served before.
    pub takes_over: bool,
}

/// Where the content of a cache comes from.
#[derive(Clone, Debug, Default)]
pub enum CarriedCache {
    /// The file of `cache.persist`, if there is one.
    #[default]
    Persisted,
    /// Another process, which has sent it.
    Sent(Arc<Cache>),
    /// Nowhere.
    Cold,
}
