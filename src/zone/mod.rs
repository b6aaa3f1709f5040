//! Zones: records in, an immutable store out, and responses from it.
//!
//! Two kinds of zone share one store. Tables are sets of hosts: [`Tables::build`] reads them. Zones are trees: [`master`] reads
//! their records, [`ZoneBuilder`] checks them as a whole and compiles them. Either way everything that is wrong is reported,
//! and nothing is loaded by halves. A [`ZoneDb`] is all zones and tables of one authority. [`respond`] is the whole way of one
//! query there, octets to octets. This room opens no files, knows no clock, and allocates only while it builds.
//!
//! ```text
//! load/    (file, octets)... -> table -> TablesBuilder --> Tables { Store, Referral, Miss } --+
//!          master -> (Record, Place)... -> ZoneBuilder --> Zone { Store, Denial } ------------+-> ZoneDb
//! store/                                       \-> StoreBuilder -> Store
//!
//! answer/  query -> wire::read_query -> zone_of -> lookup -> builder, denial -> writer -> response
//!                                           \-> tables: look up, copy ready records --/
//!
//! rdata/   the data of a record between text and wire, for master files and for whoever shows a record
//! ```

mod answer;
mod load;
mod rdata;
mod store;
mod tables;
#[expect(clippy::module_inception, reason = "the room is named for all zones, the file for one")]
mod zone;
mod zone_db;

pub use answer::{Identity, RateKey, Reaction, Text, prefetch_memory, respond, respond_to};
pub use load::{
    DeferredZoneBuilder, Diagnostic, DiagnosticList, Diagnostics, FileError, FileErrors, FileProblem, LineError,
    TableErrors, TablesBuilder, ZoneBuilder, ZoneError, ZoneWarning, is_master_file, master, read_table,
};
pub use rdata::rdata_to_text;
pub use store::record::{Place, Record, RecordBatch};
pub use store::seed_hashes;
pub use tables::{Miss, Tables};
pub use zone::Zone;
pub use zone_db::ZoneDb;
