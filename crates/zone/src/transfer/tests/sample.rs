//! Records for the tests of this module, all of `example.`.

use crate::{Record, Records};
use dns::RecordType;

pub(super) const ZONE: &[u8] = b"\x07example\0";

#[derive(Clone, Debug)]
pub(super) struct OwnedRecord {
    owner: Vec<u8>,
    rtype: RecordType,
    ttl: u32,
    rdata: Vec<u8>,
}

impl OwnedRecord {
    pub(super) fn as_record(&self) -> Record<'_> {
        Record { owner: &self.owner, rtype: self.rtype, ttl: self.ttl, rdata: &self.rdata }
    }
}

/// The SOA of a version: refresh 100 s, retry 10 s, expire 1000 s.
pub(super) fn soa(serial: u32) -> OwnedRecord {
    let numbers = [serial, 100, 10, 1_000, 60].map(u32::to_be_bytes).concat();
    let rdata = [&b"\x02ns\x07example\0\x01h\0"[..], &numbers].concat();
    OwnedRecord { owner: ZONE.to_vec(), rtype: RecordType::SOA, ttl: 300, rdata }
}

/// An A record of host `h0`, `h1`, ...; its address is the number of the host.
pub(super) fn a(host: u8, ttl: u32) -> OwnedRecord {
    let label = format!("h{host}");
    let owner = [&[label.len() as u8], label.as_bytes(), ZONE].concat();
    OwnedRecord { owner, rtype: RecordType::A, ttl, rdata: vec![192, 0, 2, host] }
}

pub(super) fn version(serial: u32, hosts: impl IntoIterator<Item = u8>) -> Records {
    let records: Vec<_> = std::iter::once(soa(serial)).chain(hosts.into_iter().map(|host| a(host, 300))).collect();
    records.iter().map(OwnedRecord::as_record).collect()
}
