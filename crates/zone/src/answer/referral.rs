//! The referral that an authority returns for names outside its tables.
//!
//! It is built once from the `HOST - NS` lines and copied into each response. The root owns its NS records.
//! It includes glue for the hosts that the tables have.

use dns::{HEADER_LEN, Name, RecordClass, RecordType};

use crate::store::{MAX_RECORDS_LEN, ZoneStore};

#[derive(Debug)]
pub(crate) struct Referral {
    authority: Vec<u8>,
    servers: u16,
    glue: Vec<Glue>,
    wire_len: usize,
}

#[derive(Debug)]
struct Glue {
    owner: usize,
    tail: Box<[u8]>,
}

impl Referral {
    pub(crate) fn servers(&self) -> u16 {
        self.servers
    }

    pub(crate) fn glue(&self) -> u16 {
        self.glue.len() as u16
    }

    pub(crate) fn wire_len(&self) -> usize {
        self.wire_len
    }

    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.authority);
        for glue in &self.glue {
            // Less than 2^14 because of MAX_AUTHORITY_LEN.
            let pointer = POINTER | (start + glue.owner) as u16;
            out.extend_from_slice(&pointer.to_be_bytes());
            out.extend_from_slice(&glue.tail);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct ReferralBuilder {
    authority: Vec<u8>,
    servers: Vec<(Name, usize)>,
}

impl ReferralBuilder {
    /// Adds a server name in canonical form unless it is present. Returns false if there is no room.
    pub(crate) fn add(&mut self, server: &Name, ttl: u32) -> bool {
        if self.servers.iter().any(|(known, _)| known == server) {
            return true;
        }
        let name = server.as_wire();
        let owner = Name::root();
        let record = [
            owner.as_wire(),
            &RecordType::NS.0.to_be_bytes(),
            &RecordClass::IN.0.to_be_bytes(),
            &ttl.to_be_bytes(),
            &(name.len() as u16).to_be_bytes(),
            name,
        ]
        .concat();
        let end = self.authority.len() + record.len();
        if end > MAX_AUTHORITY_LEN {
            return false;
        }
        self.authority.extend_from_slice(&record);
        self.servers.push((server.clone(), end - name.len()));
        true
    }

    pub(crate) fn finish(self, store: &ZoneStore) -> Option<Referral> {
        if self.servers.is_empty() {
            return None;
        }
        let mut referral = Referral {
            servers: self.servers.len() as u16,
            wire_len: self.authority.len(),
            authority: self.authority,
            glue: Vec::new(),
        };
        for (server, owner) in self.servers {
            let node = store.find(server.as_wire());
            let rrsets = node.iter().flat_map(|node| node.rrsets());
            for tail in rrsets.flat_map(|rrset| rrset.tails()) {
                let wire_len = referral.wire_len + POINTER_LEN + tail.len();
                // Deviation: RFC 9471 section 3.1 requires all glue of such a referral, or TC. Glue beyond
                // this limit is thousands of addresses, which do not fit even over TCP, so TC would only
                // cause a retry.
                if wire_len > MAX_RECORDS_LEN {
                    return Some(referral);
                }
                referral.wire_len = wire_len;
                let tail = tail.into();
                referral.glue.push(Glue { owner, tail });
            }
        }
        Some(referral)
    }
}

/// The tag bits of a compression pointer (RFC 1035 section 4.1.4). The other 14 bits are an offset.
const POINTER: u16 = 0xC000;

const POINTER_LEN: usize = 2;

/// The limit for NS records in bytes, so that a pointer reaches their names even after the longest question.
const MAX_AUTHORITY_LEN: usize = 0x3FFF - HEADER_LEN - (Name::MAX_LEN + 4);
