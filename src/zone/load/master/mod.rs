//! Master files: text in, records out (RFC 1035 section 5.1).
//!
//! [`read`] goes through a file entry by entry and hands each record to its caller, in order, with its place. It judges
//! entries by themselves; what records mean to each other is for those who take them. An entry that is wrong is reported,
//! and reading goes on with the next one, so that all errors of a file are seen at once. Nothing here opens a file: a
//! closure of the caller gives what `$INCLUDE` names.
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

pub use include::{Files, Source};
pub(in crate::zone) use problem::EntryError;
pub use problem::EntryProblem;
pub(in crate::zone) use token::Word;
pub(in crate::zone) use words::{Words, number, record_type, seconds, unescape};

use entry::Reader;

use super::error::FileErrors;
use crate::wire::Name;
use crate::zone::store::record::{Place, Record};

/// What a caller knows of a zone before its file is read, and how it gives more.
pub struct Task<'a> {
    /// What names are relative to until a `$ORIGIN`.
    pub origin: Option<&'a Name>,
    /// The TTL of records for which the file says none in any way.
    pub default_ttl: Option<u32>,
    /// Reads a file for `$INCLUDE`, by its path below the folder of the zone file: relative, without `..`. Says why if it
    /// cannot; a symbolic link out of the folder should be such a reason.
    pub include: &'a mut (dyn FnMut(&str) -> Result<Source, String> + 'a),
}

/// What was read.
#[derive(Debug)]
pub struct Summary {
    /// For messages about places in them.
    pub files: Files,
    /// How many records there were.
    pub records: usize,
}

/// Reads a master file and hands each record to `sink`.
///
/// If there is any error, what `sink` got is not to be used.
pub fn read<'a>(
    source: &Source,
    task: Task<'a>,
    sink: &'a mut (dyn FnMut(Record<'_>, Place) + 'a),
) -> Result<Summary, FileErrors> {
    let (summary, errors) = read_through(source, task, sink);
    errors.map(|()| summary)
}

/// The same for those who go on to judge the records that could be read, so as to tell all that is wrong at once.
pub fn read_through<'a>(
    source: &Source,
    task: Task<'a>,
    sink: &'a mut (dyn FnMut(Record<'_>, Place) + 'a),
) -> (Summary, Result<(), FileErrors>) {
    let mut reader = Reader::new(source, task, sink);
    reader.read_zone(source);
    reader.finish()
}
