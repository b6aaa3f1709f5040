//! The cache: replies kept for those who ask the same again. Look up, keep, age, evict; with negative caching (RFC 2308),
//! serve-stale (RFC 8767) and failures (RFC 9520).
//!
//! One [`Cache`] serves all pools and all workers. It is split into shards by the hash of the question, each behind a lock of its
//! own that is held for no longer than it takes to write one response. A worker calls:
//!
//! ```text
//!   a few queries ──▶ prefetch_memory, which brings near what their look-ups will read; then each:
//!
//!   query ──▶ look_up ──▶ Found::Fresh ────────────────▶ send `out`; if a refresh is due, start a race for nobody
//!                    ├──▶ Found::Stale, a race is due ──▶ race; after `stale_answer_after` or when it fails, look_stale
//!                    ├──▶ Found::Stale, none is due ────▶ send `out`
//!                    ├──▶ Found::Failed ────────────────▶ send `out`, or what the pool says on silence
//!                    └──▶ Found::Nothing ───────────────▶ race
//!   reply that won, or came late ──▶ keep; if it may not be kept but ends what was, forget
//!   race that ended in silence ────▶ keep_silence, or, where no client is told of that, note_failure
//! ```
//!
//! An entry is one whole message, found by pool, folded question, CD and DO, all compared in full (`key.rs`). What is kept and for
//! how long stands in `lifetime.rs`, how it is stored in `shard.rs`, `table.rs` and `ring.rs`, how look-ups wait together in
//! `memory_prefetch.rs`, how it survives a restart in `snapshot.rs`. The room knows no clock, no file and no random source: `now` and a seeded
//! hash are arguments.
//!
//! Memory is taken once, at the start, for all that the size allows (the system gives it as it is touched), and every octet of
//! it is counted: table, ghosts, heads and padding too. So there is no allocator on the way, nothing to sweep, and nothing grows.

mod entry;
mod key;
mod lifetime;
mod maintain;
mod memory_prefetch;
mod ring;
mod rules;
mod shard;
mod snapshot;
mod store;
mod table;

pub use entry::State;
pub use key::{Key, PoolId};
pub use maintain::{Flush, Shown};
pub use rules::Rules;
pub use shard::CacheStats;
pub use snapshot::{DamagedSnapshot, LoadError};
pub use store::{Cache, CachedFailure, Found, ResponseFor};
