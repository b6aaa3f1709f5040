//! Loading: turns files, or the records of a transfer, into a compiled zone or tables.

mod builder;
mod checks;
mod diagnostics;
pub(super) mod error;
mod hosts;
pub mod master;
mod table;

pub use builder::{DeferredZoneBuilder, ZoneBuilder};
pub use diagnostics::{Diagnostic, DiagnosticList, Diagnostics, ZoneError, ZoneWarning};
pub use error::{FileError, FileErrors, FileProblem, LineError};
pub use hosts::read_hosts;
pub use table::{TableErrors, TablesBuilder, is_master_file, read_table};
