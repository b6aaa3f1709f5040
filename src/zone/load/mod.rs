//! Loading: from the octets of files, or the records of a transfer, to a compiled zone or to tables.
//!
//! Everything that is wrong is reported with its place and a remedy, and nothing is loaded by halves.

mod builder;
mod checks;
mod diagnostics;
pub(super) mod error;
pub mod master;
mod table;
mod tables;

pub use builder::{DeferredZoneBuilder, ZoneBuilder};
pub use diagnostics::{Diagnostic, DiagnosticList, Diagnostics, ZoneError, ZoneWarning};
pub use error::{FileError, FileErrors, FileProblem, LineError};
pub use table::{TableErrors, is_master_file, read_table};
pub use tables::TablesBuilder;
