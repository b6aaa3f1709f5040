//! The state that a server takes over from the previous process.
//!
//! ```text
//!   a server that runs                                            its successor, which starts
//!     known()      operator changes, states of backends ────────▶ CarriedState::known  ─▶ pools, backends
//!     learnt()     latency, budgets, sticky names, the seed ────▶ CarriedState::learnt ─▶ workers, pools
//!     save_cache() the cache, as bytes ─────────── load_cache ──▶ CarriedState::cache  ─▶ the first state
//!     hand_over_counted()  all counters, and at the end ────────▶ add_counted()        ─▶ sets of their own
//!                  of the drain the difference to that
//!     history()    the charts, with the first counters ─────────▶ take_history()       ─▶ observers
//! ```
//!
//! Order of the transfer: learned state while the old process still serves, then operator changes since
//! ([`take_known`](ServerPools::take_known)), then the counters once only the successor reports them, because
//! they would appear to fall. After a crash only [`CarriedPools`] and [`SavedLatency`] remain. Unknown names
//! of pools and backends are ignored.

use std::sync::Arc;

use config::Config;
use dns::{HashSeed, QuestionHasher};
use engine::LearntBackend;
use engine::cache::Cache;

#[cfg(doc)]
use super::pools::ServerPools;
use super::pools::{CarriedPools, Learnt, SavedLatency, read_saved_latency};
use crate::control::zones::secondary::SavedZones;

/// The initial state of a server. The default is empty, for a first start.
#[derive(Debug, Default)]
pub struct CarriedState {
    /// Changes by an operator and states of backends.
    pub known: CarriedPools,
    /// The learned state.
    pub learnt: Option<Learnt>,
    /// The saved latency of backends, without learned state.
    pub latency: Vec<LearntBackend>,
    /// The text with the saved history, which is read after the start, because clients come first.
    pub history: Vec<u8>,
    /// The source of the cache content.
    pub cache: CarriedCache,
    /// Saved zones that have already been read.
    pub saved: SavedZones,
    /// The edition of the config, if it is not the first.
    pub edition: Option<u64>,
    /// True if another process has served before.
    pub takes_over: bool,
}

impl CarriedState {
    /// Reads the saved latency and history.
    pub(crate) fn read_saved(&mut self, text: Vec<u8>) {
        if let Some(latency) = SavedLatency::read(&text) {
            (self.latency, self.history) = (latency, text);
        }
    }

    /// Reads the file in `state_dir`, unless another process has sent newer data.
    pub(super) fn read_file(&mut self, config: &Config) {
        if let (None, [], Some(folder)) = (&self.learnt, &self.history[..], &config.process.state_dir) {
            read_saved_latency(folder).into_iter().for_each(|text| self.read_saved(text));
        }
    }

    /// Returns the seed of this process with the hasher of questions: those of the previous process if its
    /// learned state is known.
    pub(super) fn hash(&self) -> (HashSeed, QuestionHasher) {
        match &self.learnt {
            Some(learnt) => (learnt.seed, learnt.seed.carried_hasher()),
            None => {
                let seed = HashSeed(rand::random()).in_force();
                (seed, seed.question_hasher())
            }
        }
    }
}

/// The source of the cache content.
#[derive(Clone, Debug, Default)]
pub enum CarriedCache {
    /// The file of `cache.persist`, if there is one.
    #[default]
    Persisted,
    /// Another process, which has sent it.
    Sent(Arc<Cache>),
    /// No source: the cache starts empty.
    Cold,
}
