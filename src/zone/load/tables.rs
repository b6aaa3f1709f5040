//! The builder of tables: takes the lines of all files of an authority, and compiles them if none is wrong.

use super::error::{FileError, FileErrors, FileProblem, LineError, MAX_ERRORS};
use super::table::TableErrors;
use crate::wire::{Name, RecordType};
use crate::zone::answer::referral::ReferralBuilder;
use crate::zone::store::record::{Place, Record};
use crate::zone::store::{Added, Full, StoreBuilder};
use crate::zone::tables::{Miss, Tables};

/// Tables whose files are being read.
#[derive(Debug)]
pub struct TablesBuilder {
    /// Said of what is in none.
    miss: Miss,
    /// From address lines.
    hosts: StoreBuilder,
    /// From NS lines.
    referral: ReferralBuilder,
    /// What found no room, of the file that is being read.
    overflow: Vec<(usize, LineError)>,
    /// What is wrong with the files that were read.
    errors: Vec<FileError>,
}

impl TablesBuilder {
    /// Nothing has been read yet.
    pub fn new(miss: Miss) -> Self {
        let (hosts, referral) = (StoreBuilder::default(), ReferralBuilder::default());
        Self { miss, hosts, referral, overflow: Vec::new(), errors: Vec::new() }
    }

    /// Gets ready for many hosts.
    pub fn expect_many(&mut self) {
        self.hosts.expect_many();
    }

    /// Adds what a line says, as `read_table` hands it over.
    pub fn add(&mut self, record: &Record<'_>, place: Place) {
        let Record { owner, rtype, ttl, rdata } = *record;
        let problem = if rtype == RecordType::NS {
            let is_added = Name::from_wire(owner).is_ok_and(|host| self.referral.add(&host, ttl));
            (!is_added).then_some(FileProblem::TooManyNameServers)
        } else {
            self.hosts.open(owner, place);
            match self.hosts.add(rtype, ttl, rdata) {
                // A line that is there twice counts once.
                Ok(Added::New | Added::Duplicate | Added::OtherTtl) => None,
                Err(Full { limit }) => Some(FileProblem::TooManyAddresses { limit }),
            }
        };
        if let Some(problem) = problem {
            self.overflow.push((place.line as usize, LineError { column: 1, problem }));
        }
    }

    /// Notes that a file of this name was read, and what is wrong with its lines. Of a file that is wrong all over only the
    /// first lines are told.
    pub fn end_file(&mut self, file: &str, TableErrors(mut errors): TableErrors) {
        errors.append(&mut self.overflow);
        errors.sort_by_key(|(line, _)| *line);
        if errors.len() > MAX_ERRORS {
            let more = errors.len() - MAX_ERRORS;
            errors.truncate(MAX_ERRORS + 1);
            if let Some((_, error)) = errors.last_mut() {
                *error = LineError { column: 1, problem: FileProblem::More(more) };
            }
        }
        let error = |(line, error)| FileError { file: file.to_owned(), line, error };
        self.errors.extend(errors.into_iter().map(error));
    }

    /// Compiles the tables, unless anything is wrong.
    pub fn finish(mut self) -> Result<Tables, FileErrors> {
        FileErrors::check(self.errors)?;
        self.hosts.fill_gaps(Name::root().as_wire().len());
        let (hosts, _) = self.hosts.finish();
        let referral = self.referral.finish(&hosts);
        Ok(Tables::new(hosts, referral, self.miss))
    }
}
