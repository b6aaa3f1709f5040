//! Service discovery: decides on the members of a pool, as values without I/O. `discoverer/` does the I/O.
//!
//! A **source** (etcd, a DNS name, a file) lists members as [`MemberEntry`] values, each right or wrong.
//! [`SourceListing`] is the last list of a source. A [`Roster`] merges the lists of all sources of a pool:
//!
//! ```text
//!   etcd ──┐ entries, changes,                       joined, left, held
//!   dns  ──┼──────────────────▶ Listing ──▶ Roster ─────────────────────▶ members of the pool
//!   file ──┘ failures                        ▲
//!                              health, time, the config, "accept"
//! ```
//!
//! Failure is not emptiness: a failed source changes nothing. Absence is not death: an unlisted member stays
//! while it is up, for `hold`, and for as long as the list is in doubt (`roster.rs`). A wrong entry is
//! refused alone.
//!
//! [`BackendOrder`]s for backends come from etcd in the same way. [`etcd`] and [`dns`] are the protocols
//! without their connections.

pub mod dns;
mod entry;
pub mod etcd;
mod listing;
mod order;
mod roster;
pub mod saved;

pub use entry::{MemberEntry, escaped, unescaped};
pub use listing::{Item, SourceListing, SourceNews};
pub use order::{Orders, order_json, read_order};
pub use roster::{
    DiscoveredMember, Doubt, EntryRefusal, FixedBackend, Origins, PoolSource, Roster, RosterRules, Settlement,
};

pub use metrics::{BackendOrder, MemberOrigin, MembershipChange, OrderWord, SourceState};
