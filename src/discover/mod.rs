//! Service discovery: who is a member of a pool and why, as values without I/O. Those who ask stand in `discoverer/`.
//!
//! A **source** (etcd, a DNS name, a file) lists members ([`Entry`]), each by itself right or wrong. What a source said last is its
//! [`Listing`]. A [`Roster`] makes the members of one pool of what all its sources list:
//!
//! ```text
//!   etcd ──┐ entries, changes,                       joined, left, held
//!   dns  ──┼──────────────────▶ Listing ──▶ Roster ─────────────────────▶ members of the pool
//!   file ──┘ "I failed"                      ▲
//!                              who is up, time, what the config has, "accept"
//! ```
//!
//! Failure is not emptiness: a source that cannot be asked changes nothing. Absence is not death: who is listed no more stays while it
//! is up, for `hold`, and for as long as the list is in doubt (`roster.rs`). An entry that is wrong is refused alone.
//!
//! [`Order`]s for backends come the same way from etcd. [`etcd`] and [`dns`] are the two languages that are spoken, without the
//! connection that they are spoken over.

mod backoff;
pub mod dns;
mod entry;
pub mod etcd;
mod listing;
mod order;
mod roster;
pub mod saved;

pub use backoff::Backoff;
pub use entry::{Entry, escaped, unescaped};
pub use listing::{Item, Listing, News};
pub use order::Orders;
pub use roster::{Doubt, Fixed, Member, Origins, Refusal, Roster, RosterRules, Settled, Source};

pub use crate::metrics::{Change, Order, OrderWord, Origin, SourceState};
