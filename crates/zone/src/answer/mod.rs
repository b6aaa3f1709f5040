//! Answers: from a query to a response, both in wire form.
//!
//! [`respond`](respond()) handles one query. `builder.rs` assembles the answer of a zone by RFC 1034 section
//! 4.3.2: `lookup.rs` finds where the name leads, `denial.rs` and `nsec3.rs` prove absence, and `writer.rs`
//! writes the records that fit.

mod builder;
pub(super) mod denial;
mod identity;
pub(super) mod lookup;
mod memory_prefetch;
pub(super) mod nsec3;
mod rate_key;
pub(super) mod referral;
mod respond;
mod writer;
mod zone_version;

pub use identity::{Identity, IdentityText};
pub use memory_prefetch::prefetch_memory;
pub use rate_key::RateKey;
pub use respond::{Reaction, respond, respond_to};
