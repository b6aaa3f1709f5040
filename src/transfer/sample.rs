//! Records for the tests of this room, all of `example.`.

use super::records::Records;
use crate::wire::RecordType;
use crate::zone::Record;

/// The zone of all samples.
pub(super) const ZONE: &[u8] = b"\x07example\0";

/// A record that owns its octets.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    owner: Vec<u8>,
    rtype: RecordType,
    ttl: u32,
    rdata: Vec<u8>,
}

impl Owned {
    /// The record, borrowed.
    pub(super) fn as_record(&self) -> Record<'_> {
        Record { owner: &self.owner, rtype: self.rtype, ttl: self.ttl, rdata: &self.rdata }
    }
}

/// The SOA of a version: refresh 100 s, retry 10 s, expire 1000 s.
pub(super) fn soa(serial: u32) -> Owned {
    let numbers = [serial, 100, 10, 1_000, 60].map(u32::to_be_bytes).concat();
    let rdata = [&b"\x02ns\x07example\0\x01h\0"[..], &numbers].concat();
    Owned { owner: ZONE.to_vec(), rtype: RecordType::SOA, ttl: 300, rdata }
}

/// An A record of host `h0`, `h1`, ...; its address is the number of the host.
pub(super) fn a(host: u8, ttl: u32) -> Owned {
    let label = format!("h{host}");
    let owner = [&[label.len() as u8], label.as_bytes(), ZONE].concat();
    Owned { owner, rtype: RecordType::A, ttl, rdata: vec![192, 0, 2, host] }
}

/// A version of the zone: SOA first, then these hosts.
pub(super) fn version(serial: u32, hosts: impl IntoIterator<Item = u8>) -> Records {
    let records: Vec<_> = std::iter::once(soa(serial)).chain(hosts.into_iter().map(|host| a(host, 300))).collect();
    records.iter().map(Owned::as_record).collect()
}
