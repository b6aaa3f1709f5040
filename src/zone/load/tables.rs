//! The builder of tables: collects the lines of all files of an authority and compiles them if there are no
//! errors.

use super::error::{FileError, FileErrors, FileProblem, LineError, MAX_ERRORS};
use super::table::TableErrors;
use crate::wire::{Name, RecordType};
use crate::zone::answer::referral::ReferralBuilder;
use crate::zone::store::record::{FilePlace, Record};
use crate::zone::store::{AddOutcome, Full, StoreBuilder};
use crate::zone::tables::{Miss, Tables};

/// Collects the lines of table files.
#[derive(Debug)]
pub struct TablesBuilder {
    miss: Miss,
    hosts: StoreBuilder,
    referral: ReferralBuilder,
    overflow: Vec<(usize, LineError)>,
    errors: Vec<FileError>,
}

impl TablesBuilder {
    /// Returns a builder without hosts.
    pub fn new(miss: Miss) -> Self {
        let (hosts, referral) = (StoreBuilder::default(), ReferralBuilder::default());
        Self { miss, hosts, referral, overflow: Vec::new(), errors: Vec::new() }
    }

    /// Reserves memory for many hosts.
    pub fn expect_many(&mut self) {
        self.hosts.expect_many();
    }

    /// Adds a line in the form that `read_table` passes on.
    pub fn add(&mut self, record: &Record<'_>, place: FilePlace) {
        let Record { owner, rtype, ttl, rdata } = *record;
        let problem = if rtype == RecordType::NS {
            let is_added = Name::from_wire(owner).is_ok_and(|host| self.referral.add(&host, ttl));
            (!is_added).then_some(FileProblem::TooManyNameServers)
        } else {
            self.hosts.open(owner, place);
            match self.hosts.add(rtype, ttl, rdata) {
                Ok(AddOutcome::New | AddOutcome::Duplicate | AddOutcome::OtherTtl) => None,
                Err(Full { limit }) => Some(FileProblem::TooManyAddresses { limit }),
            }
        };
        if let Some(problem) = problem {
            self.overflow.push((place.line as usize, LineError { column: 1, problem }));
        }
    }

    /// Completes a file of this name with the errors of its lines. If there are too many errors, only the
    /// first are kept.
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

    /// Compiles the tables, or returns all errors of all files.
    pub fn finish(mut self) -> Result<Tables, FileErrors> {
        FileErrors::check(self.errors)?;
        self.hosts.fill_gaps(Name::root().as_wire().len());
        let (hosts, _) = self.hosts.finish();
        let referral = self.referral.finish(&hosts);
        Ok(Tables::new(hosts, referral, self.miss))
    }
}
