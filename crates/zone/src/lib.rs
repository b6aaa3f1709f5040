//! Zones: records in, an immutable store out, and responses from it.
//!
//! Two kinds of zone share one store. Tables are sets of hosts, built by `Tables::build`. Zones are trees:
//! [`master`] reads their records, and [`ZoneBuilder`] checks and compiles them. A [`ZoneDb`] holds all zones
//! and tables of one authority, and [`respond`] handles one query. [`transfer`] has the state machines of
//! AXFR, IXFR, NOTIFY, TSIG and catalog zones. This crate opens no files and sockets and reads no clock.
//!
//! ```text
//! load/    (file, octets)... -> table -> TablesBuilder --> Tables { Store, Referral, Miss } --+
//!          master -> (Record, Place)... -> ZoneBuilder --> Zone { Store, Denial } ------------+-> ZoneDb
//! store/                                       \-> StoreBuilder -> Store
//!
//! answer/  query -> dns::read_query -> zone_of -> lookup -> builder, denial -> writer -> response
//!                                           \-> tables: look up, copy ready records --/
//!
//! rdata/   record data between text and wire form, for master files and for output
//! ```

#![forbid(unsafe_code)]

mod answer;
mod load;
mod rdata;
mod store;
mod tables;
pub mod transfer;
mod zone;
mod zone_db;

pub use answer::{Identity, IdentityText, RateKey, Reaction, prefetch_memory, respond, respond_to};
pub use load::{
    DeferredZoneBuilder, Diagnostic, DiagnosticList, Diagnostics, FileError, FileErrors, FileProblem, LineError,
    TableErrors, TablesBuilder, ZoneBuilder, ZoneError, ZoneWarning, is_master_file, master, read_hosts, read_table,
};
pub use rdata::rdata_to_text;
pub use store::record::{FilePlace, Record, RecordBatch, Records};
pub use store::seed_hashes;
pub use tables::{Miss, Tables};
pub use zone::Zone;
pub use zone_db::ZoneDb;
