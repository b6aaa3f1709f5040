//! Zones: records in, an immutable store out, and responses from it.
//!
//! Two kinds of zone share one store. Tables are sets of hosts: [`Catalog::build`] reads them. Zones are trees: [`master`]
//! reads their records, [`ZoneBuilder`] checks them as a whole and compiles them. Either way everything that is wrong is
//! reported, and nothing is loaded by halves. [`respond`] is the whole story of one query at an authority, octets to octets.
//! This room opens no files, knows no clock, and allocates only while it builds.
//!
//! ```text
//! (file, octets)... -> table -> Draft -> Tables { Store, Referral, Miss } -------------+
//! master -> (Record, Place)... -> ZoneBuilder -> Draft -> Zone { Store, Denial } ------+-> Catalog
//!                                                                                      |
//! query -> wire::read_query -> zone_of -> lookup -> answer, denial -> writer -> response
//!                                  \-> tables: look up, copy ready records --/
//! ```

mod answer;
mod assembly;
mod batch;
mod catalog;
mod checks;
mod denial;
mod error;
mod flaw;
mod identity;
mod layout;
mod lookup;
pub mod master;
mod names;
mod nsec3;
mod rdata;
mod record;
mod referral;
mod respond;
mod store;
mod table;
mod tables;
mod topic;
mod warm;
mod writer;
#[expect(clippy::module_inception, reason = "the room is named for all zones, the file for one")]
mod zone;

pub use assembly::Assembly;
pub use batch::Batch;
pub use catalog::Catalog;
pub use error::{Fault, Problem, ZoneError, ZoneErrors};
pub use flaw::{Caution, Finding, Findings, Flaw, Listed};
pub use identity::{Identity, Text};
pub use rdata::rdata_to_text;
pub use record::{Place, Record};
pub use respond::{Reaction, Transport, respond, respond_to};
pub use store::seed_hashes;
pub use table::{TableFaults, is_master_file, read_table};
pub use tables::{Miss, Tables, TablesBuilder};
pub use topic::{Kind, Topic};
pub use warm::warm;
pub use zone::{Zone, ZoneBuilder};
