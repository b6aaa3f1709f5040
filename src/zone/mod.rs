//! Zones: files in, an immutable store out, and responses from it.
//!
//! [`Catalog::build`] turns the zone files of one authority into one [`Catalog`]: every line is
//! read, every bad line is reported, and nothing is loaded by halves. [`respond`] is the whole story
//! of one query at an authority, octets to octets. This room opens no files, knows no clock, and
//! allocates only while it builds.
//!
//! ```text
//! (file, octets)... -> table -> Draft -> Catalog { Store, Referral, Miss }
//!                                           |
//! query -> wire::read_query -> look up -> copy ready records -> response
//! ```

mod catalog;
mod error;
pub mod master;
mod rdata;
mod record;
mod referral;
mod respond;
mod store;
mod table;

pub use catalog::{Catalog, Miss};
pub use error::{Fault, Problem, ZoneError, ZoneErrors};
pub use rdata::rdata_to_text;
pub use record::{Place, Record};
pub use respond::{Reaction, Transport, respond};
