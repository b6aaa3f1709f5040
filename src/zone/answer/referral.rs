//! The referral: where an authority sends the client for names that are not in its tables.
//!
//! It comes from the `HOST - NS` lines, is owned by the root, and brings the addresses of its hosts
//! along (glue) if the tables have them. Compiled once; a response only copies it.

use crate::wire::{HEADER_LEN, Name, RecordClass, RecordType};
use crate::zone::store::{MAX_RECORDS_LEN, Store};

/// NS records of the root and their glue, ready to be copied behind a question.
#[derive(Debug)]
pub(in crate::zone) struct Referral {
    /// The NS records in wire form, without compression.
    authority: Vec<u8>,
    servers: u16,
    /// Addresses of the servers.
    glue: Vec<Glue>,
    /// Octets of all of it.
    wire_len: usize,
}

/// One address of a name server.
#[derive(Debug)]
struct Glue {
    /// Where in [`Referral::authority`] the server's name is.
    owner: usize,
    /// The record from behind its owner on.
    tail: Box<[u8]>,
}

impl Referral {
    /// Number of NS records.
    pub(in crate::zone) fn servers(&self) -> u16 {
        self.servers
    }

    /// Number of glue records.
    pub(in crate::zone) fn glue(&self) -> u16 {
        self.glue.len() as u16
    }

    /// How many octets [`append`](Self::append) appends.
    pub(in crate::zone) fn wire_len(&self) -> usize {
        self.wire_len
    }

    /// Appends the authority section and the additional section to a message that has a question.
    pub(in crate::zone) fn append(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.authority);
        for glue in &self.glue {
            // Below 2^14, by MAX_AUTHORITY_LEN.
            let pointer = POINTER | (start + glue.owner) as u16;
            out.extend_from_slice(&pointer.to_be_bytes());
            out.extend_from_slice(&glue.tail);
        }
    }
}

/// A referral whose servers are being collected.
#[derive(Debug, Default)]
pub(in crate::zone) struct ReferralBuilder {
    /// As in [`Referral`].
    authority: Vec<u8>,
    /// The servers, and where in `authority` their names are.
    servers: Vec<(Name, usize)>,
}

impl ReferralBuilder {
    /// Adds a server, whose name is in canonical form, unless it is there already. Says whether there was room.
    pub(in crate::zone) fn add(&mut self, server: &Name, ttl: u32) -> bool {
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

    /// Compiles the referral, with glue from the store. `None` if it has no servers.
    pub(in crate::zone) fn finish(self, store: &Store) -> Option<Referral> {
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
                // Deviation: RFC 9471 section 3.1 wants all glue of such a referral, or TC. This is glue that even
                // TCP cannot carry, thousands of addresses, and TC would only have it asked for again.
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

/// The first bits of a compression pointer (RFC 1035 section 4.1.4); the other 14 are an offset.
const POINTER: u16 = 0xC000;

/// Octets of a pointer.
const POINTER_LEN: usize = 2;

/// Octets that NS records may have in all, so that pointers to the names in them reach even behind the longest question.
const MAX_AUTHORITY_LEN: usize = 0x3FFF - HEADER_LEN - (Name::MAX_LEN + 4);
