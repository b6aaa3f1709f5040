//! Answers: from a query to a response, octets to octets.
//!
//! [`respond`](respond()) is the whole way of one query. What a zone says of a name is put together by `builder.rs`, as the
//! algorithm of RFC 1034 section 4.3.2 says: `lookup.rs` finds where the name leads, `denial.rs` and `nsec3.rs` prove what is
//! not there, `writer.rs` writes the records as long as there is room.

mod builder;
pub(super) mod denial;
mod identity;
pub(super) mod lookup;
mod memory_prefetch;
mod nsec3;
mod rate_key;
pub(super) mod referral;
mod respond;
mod writer;
mod zone_version;

pub use identity::{Identity, Text};
pub use memory_prefetch::prefetch_memory;
pub use rate_key::RateKey;
pub use respond::{Reaction, respond, respond_to};
