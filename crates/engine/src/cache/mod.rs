//! The cache of replies: look up, keep, age, evict; with negative caching (RFC 2308), serve-stale (RFC 8767)
//! and failures (RFC 9520).
//!
//! One [`Cache`] serves all pools and workers. It is split into shards by the hash of the question. Each
//! shard has a lock that a worker holds only while it writes one response. A worker calls:
//!
//! ```text
//!   a few queries ──▶ prefetch_memory loads the memory for their look-ups; then each:
//!
//!   query ──▶ look_up ──▶ Found::Fresh ────────────────▶ send `out`; start a refresh if one is due
//!                    ├──▶ Found::Stale, a race is due ──▶ race; when late or failed, look_stale
//!                    ├──▶ Found::Stale, none is due ────▶ send `out`
//!                    ├──▶ Found::Failed ────────────────▶ send `out`, or the pool's response to silence
//!                    └──▶ Found::Nothing ───────────────▶ race
//!   reply that won, or came late ──▶ keep; if it may not be kept but replaces an entry, forget
//!   race that ended in silence ────▶ keep_silence, or note_failure where clients get no response to silence
//! ```
//!
//! An entry is one whole message. The key is pool, folded question, CD and DO, compared in full (`key.rs`).
//! The cache reserves its memory once, at the start (the system provides it as it is touched), and counts
//! every byte. So there is no allocator on the hot path, no sweep, and no growth.

mod entry;
mod key;
mod lifetime;
mod maintain;
mod memory_prefetch;
mod ring;
mod shard;
mod snapshot;
mod store;
mod table;

pub use entry::State;
pub use key::{CacheKey, PoolId};
pub use maintain::{Flush, ShownEntry};
pub use memory_prefetch::prefetch_memory;
pub use snapshot::{DamagedSnapshot, SnapshotLoadError};
pub(crate) use store::EntryWorth;
pub use store::{Cache, CacheLookup, CachedFailure, ResponseFor};
