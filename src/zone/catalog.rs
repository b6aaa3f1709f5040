//! The catalog: all that one authority knows, and what it says of a name.
//!
//! Built whole from all zone files of the authority, or not at all, and immutable from then on. A
//! table is a set of hosts, not a tree; several tables are one set.

use std::net::IpAddr;

use super::error::{Fault, Problem, ZoneError, ZoneErrors};
use super::referral::{Referral, ReferralDraft};
use super::store::{Draft, Full, Rrset, Store};
use super::table::{self, Entry};
use crate::wire::{Name, RecordType};

/// The zones of one authority.
#[derive(Debug)]
pub struct Catalog {
    /// The hosts of all tables.
    hosts: Store,
    /// Said of names that are in no table, in place of `miss`.
    referral: Option<Referral>,
    /// Said of them if there is no referral.
    miss: Miss,
}

/// What an authority says of a name that is not in one of its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing: the other TS may have it.
    Silent,
    /// NXDOMAIN.
    Nxdomain,
    /// REFUSED.
    Refused,
}

impl Catalog {
    /// Builds a catalog from zone files, each its name for messages and its octets. Records get this TTL, since tables
    /// have none.
    ///
    /// Every bad line of every file is reported.
    pub fn build(sources: &[(String, Vec<u8>)], ttl: u32, miss: Miss) -> Result<Self, ZoneErrors> {
        let mut draft = CatalogDraft::new(ttl);
        let mut errors = Vec::new();
        for (file, octets) in sources {
            let faults = draft.read(&String::from_utf8_lossy(octets));
            errors.extend(faults.into_iter().map(|(line, fault)| ZoneError {
                file: file.clone(),
                line,
                fault,
            }));
        }
        ZoneErrors::check(errors)?;
        let hosts = draft.hosts.finish();
        Ok(Self {
            referral: draft.referral.finish(&hosts),
            hosts,
            miss,
        })
    }

    /// How many hosts have addresses here.
    pub fn hosts(&self) -> usize {
        self.hosts.owners()
    }

    /// How many addresses all hosts have.
    pub fn records(&self) -> usize {
        self.hosts.records()
    }

    /// How many name servers the referral names; 0 if there is none.
    pub fn name_servers(&self) -> usize {
        self.referral
            .as_ref()
            .map_or(0, |referral| usize::from(referral.servers()))
    }

    /// What there is to say of a name in wire form, in any case, and a type of data (or ANY) in class IN.
    pub(super) fn look_up(&self, qname: &[u8], qtype: RecordType) -> Answer<'_> {
        let node = self.hosts.find(qname);
        if let Some(host) = node.as_ref().filter(|node| node.is_owner()) {
            // RFC 8482 section 4.1: one RRset is answer enough to ANY.
            return host
                .rrsets()
                .find(|rrset| rrset.rtype == qtype || qtype == RecordType::ANY)
                .map_or(
                    Answer::Nodata {
                        authoritative: true,
                    },
                    Answer::Records,
                );
        }
        if let Some(referral) = &self.referral {
            return Answer::Referral(referral);
        }
        // What probes ask: silence would look like death, whatever is said of other names.
        if qname == Name::root().as_wire() && qtype == RecordType::NS {
            return Answer::Refused;
        }
        match self.miss {
            Miss::Silent => Answer::Silence,
            // RFC 8020 section 2: NXDOMAIN would deny the host that is below this name. Without AA, since a
            // table does not tell what else is at the name.
            Miss::Nxdomain if node.is_some() => Answer::Nodata {
                authoritative: false,
            },
            Miss::Nxdomain => Answer::Nxdomain,
            Miss::Refused => Answer::Refused,
        }
    }
}

/// What a catalog says of a name and type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer<'a> {
    /// These records are there.
    Records(Rrset<'a>),
    /// The name is there, the type is not.
    Nodata {
        /// Whether this is the last word on the name.
        authoritative: bool,
    },
    /// Others are to be asked.
    Referral(&'a Referral),
    /// There is no such name.
    Nxdomain,
    /// None of this authority's business.
    Refused,
    /// Nothing at all.
    Silence,
}

/// A catalog whose files are being read.
#[derive(Debug)]
struct CatalogDraft {
    /// For all records.
    ttl: u32,
    /// From address lines.
    hosts: Draft,
    /// From NS lines.
    referral: ReferralDraft,
}

impl CatalogDraft {
    /// Nothing has been read yet.
    fn new(ttl: u32) -> Self {
        Self {
            ttl,
            hosts: Draft::default(),
            referral: ReferralDraft::default(),
        }
    }

    /// Adds what a file says. Returns what is wrong with it, with line numbers.
    fn read(&mut self, text: &str) -> Vec<(usize, Fault)> {
        if let Some(sign) = table::find_master_file(text) {
            return vec![sign];
        }
        table::entries(text)
            .filter_map(|(line, entry)| {
                let fault = entry.and_then(|entry| self.add(&entry)).err()?;
                Some((line, fault))
            })
            .collect()
    }

    /// Adds what a line says.
    fn add(&mut self, entry: &Entry) -> Result<(), Fault> {
        match entry {
            Entry::Address {
                host,
                address: IpAddr::V4(address),
            } => self.add_address(host, RecordType::A, &address.octets()),
            Entry::Address {
                host,
                address: IpAddr::V6(address),
            } => self.add_address(host, RecordType::AAAA, &address.octets()),
            Entry::NameServer { host } if self.referral.add(host, self.ttl) => Ok(()),
            Entry::NameServer { .. } => Err(Fault {
                column: 1,
                problem: Problem::TooManyNameServers,
            }),
        }
    }

    /// Adds an address record.
    fn add_address(&mut self, host: &Name, rtype: RecordType, rdata: &[u8]) -> Result<(), Fault> {
        self.hosts
            .add(host, rtype, self.ttl, rdata)
            .map_err(|Full { limit }| Fault {
                column: 1,
                problem: Problem::TooManyAddresses { limit },
            })
    }
}
