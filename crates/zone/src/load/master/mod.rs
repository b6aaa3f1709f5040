//! Master files: text in, records out (RFC 1035 section 5.1).
//!
//! [`read`] parses a file entry by entry and passes each record with its place to the caller, in order. After
//! an error the parser continues with the next entry, to report all errors at once. It opens no files.
//!
//! ```text
//! octets -> token (words) -> entry (directives, owner, TTL, class, type) -> rdata (fields) -> Record
//!                              |      ^
//!                              v      | lines
//!                           include, generate
//! ```

mod entry;
mod generate;
mod include;
mod problem;
#[cfg(test)]
mod tests;
mod token;
mod words;

pub use include::{ZoneFileSource, ZoneFiles};
pub(crate) use problem::EntryError;
pub use problem::EntryProblem;
pub(crate) use token::ZoneFileWord;
pub(crate) use words::{Words, number, record_type, seconds, unescape};

use dns::Name;
use entry::EntryReader;

use super::error::FileErrors;
use crate::store::record::{FilePlace, Record};

/// The context of a zone file, supplied by the caller.
pub struct ZoneFileContext<'a> {
    /// The origin of names until a `$ORIGIN` directive.
    pub origin: Option<&'a Name>,
    /// The TTL of records for which the file implies none.
    pub default_ttl: Option<u32>,
    /// Reads a file for `$INCLUDE` by its path relative to the folder of the zone file, without `..`. Returns
    /// the reason if it fails. It should reject symbolic links that leave the folder.
    pub include: &'a mut (dyn FnMut(&str) -> Result<ZoneFileSource, String> + 'a),
}

/// A summary of the files and records read.
#[derive(Debug)]
pub struct ZoneFileSummary {
    /// The files, for messages about places in them.
    pub files: ZoneFiles,
    /// The number of records read.
    pub records: usize,
}

/// Reads a master file and passes each record to `sink`.
///
/// If there is any error, the caller must discard the records.
pub fn read<'a>(
    source: &ZoneFileSource,
    task: ZoneFileContext<'a>,
    sink: &'a mut (dyn FnMut(Record<'_>, FilePlace) + 'a),
) -> Result<ZoneFileSummary, FileErrors> {
    let (summary, errors) = read_through(source, task, sink);
    errors.map(|()| summary)
}

/// Reads a master file like [`read`], and also returns a summary after errors.
pub fn read_through<'a>(
    source: &ZoneFileSource,
    task: ZoneFileContext<'a>,
    sink: &'a mut (dyn FnMut(Record<'_>, FilePlace) + 'a),
) -> (ZoneFileSummary, Result<(), FileErrors>) {
    let mut reader = EntryReader::new(source, task, sink);
    reader.read_zone(source);
    reader.finish()
}
