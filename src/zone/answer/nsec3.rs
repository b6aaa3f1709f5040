//! NSEC3: the chain of hashed names of a signed zone, and the hash (RFC 5155 section 5).

use std::cmp::Ordering;

use sha1::{Digest, Sha1};

use crate::wire::RecordType;
use crate::zone::store::{At, Mark, Node, Store};

/// The NSEC3 records of a zone, in order of their hashes.
#[derive(Debug)]
pub(in crate::zone) struct Hashed {
    /// How often a hash is hashed again.
    iterations: u16,
    /// Hashed along with each name.
    salt: Box<[u8]>,
    /// The nodes.
    chain: Box<[At]>,
}

/// A hash as owner names of NSEC3 records have it: Base32 with the extended hex alphabet, in lower case.
type HashLabel = [u8; 32];

impl Hashed {
    /// The chain that the NSEC3PARAM record of the apex speaks of (RFC 5155 section 4), if it is there.
    pub(in crate::zone) fn of(store: &Store, apex: &[u8]) -> Option<Self> {
        let params = store.find(apex)?.rrset(RecordType::NSEC3PARAM)?;
        // RFC 5155 section 4.1.2: with other flags than 0 the record is not to be used.
        params.rdata().filter_map(Params::read).filter(|params| params.flags == 0).find_map(|params| {
            let is_in_chain = |node: &Node<'_>| {
                // The owner may be a name besides (RFC 5155 appendix A has one that is).
                let mut found = node.rrset(RecordType::NSEC3).into_iter().flat_map(|nsec3| nsec3.rdata());
                !node.has(Mark::Occluded)
                    && found.any(|rdata| Params::read(rdata).is_some_and(|found| found.agrees(&params)))
            };
            let mut chain: Vec<At> = store.nodes().filter(is_in_chain).map(|node| node.at()).collect();
            chain.sort_unstable_by_key(|at| store.node(*at).name());
            let (iterations, salt) = (params.iterations, params.salt.into());
            (!chain.is_empty()).then(|| Self { iterations, salt, chain: chain.into() })
        })
    }

    /// How often a hash is hashed again.
    pub(in crate::zone) fn iterations(&self) -> u16 {
        self.iterations
    }

    /// The NSEC3 record of a folded name; where there is none, the one that covers its hash.
    pub(in crate::zone) fn find<'s>(&self, store: &'s Store, name: &[u8]) -> Result<Node<'s>, Node<'s>> {
        let hash = self.hash(name);
        let compare = |at: &At| -> Ordering {
            let label = store.node(*at).name().get(1..=hash.len()).unwrap_or_default();
            label.cmp(&hash)
        };
        match self.chain.binary_search_by(compare) {
            Ok(index) => Ok(store.node(self.chain[index])),
            // The record before, or in front of the first one the last, whose interval goes round.
            Err(index) => Err(store.node(self.chain[index.checked_sub(1).unwrap_or(self.chain.len() - 1)])),
        }
    }

    /// The hash of a folded name.
    fn hash(&self, name: &[u8]) -> HashLabel {
        let mut digest = Sha1::new().chain_update(name).chain_update(&self.salt).finalize();
        for _ in 0..self.iterations {
            digest = Sha1::new().chain_update(digest).chain_update(&self.salt).finalize();
        }
        base32(&digest.into())
    }
}

/// What NSEC3 and NSEC3PARAM records begin with (RFC 5155 section 3.2, section 4.2).
#[derive(PartialEq, Eq)]
struct Params<'a> {
    /// Opt-out, in NSEC3 records.
    flags: u8,
    /// How often a hash is hashed again.
    iterations: u16,
    /// Hashed along with each name.
    salt: &'a [u8],
}

impl<'a> Params<'a> {
    /// Reads RDATA whose algorithm is SHA-1, the only one there is (RFC 5155 section 11).
    fn read(rdata: &'a [u8]) -> Option<Self> {
        let (&[SHA1, flags, i0, i1, salt_len], rest) = rdata.split_first_chunk()? else {
            return None;
        };
        let salt = rest.get(..usize::from(salt_len))?;
        Some(Self { flags, iterations: u16::from_be_bytes([i0, i1]), salt })
    }

    /// Whether both make the same hashes.
    fn agrees(&self, other: &Self) -> bool {
        (self.iterations, self.salt) == (other.iterations, other.salt)
    }
}

/// Writes a digest in Base32 (RFC 4648 section 7), whose letters sort as the octets do.
fn base32(digest: &[u8; 20]) -> HashLabel {
    let mut label = [0; 32];
    for (text, octets) in label.chunks_mut(8).zip(digest.chunks(5)) {
        let bits = octets.iter().fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
        for (place, letter) in text.iter_mut().enumerate() {
            *letter = ALPHABET[(bits >> (35 - 5 * place)) as usize & 31];
        }
    }
    label
}

/// The digits of Base32.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The number of SHA-1 among NSEC3 hash algorithms.
const SHA1: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Name;

    #[test]
    fn names_have_the_hashes_of_the_standard() {
        let hashed = Hashed { iterations: 12, salt: [0xAA, 0xBB, 0xCC, 0xDD].into(), chain: [].into() };
        // RFC 5155 appendix A.
        for (name, expected) in [
            ("example", "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom"),
            ("a.example", "35mthgpgcu1qg68fab165klnsnk3dpvl"),
            ("ai.example", "gjeqe526plbf1g8mklp59enfd789njgi"),
            ("*.w.example", "r53bq7cc2uvmubfu5ocmm6pers9tk9en"),
        ] {
            let name: Name = name.parse().expect("a name");
            assert_eq!(hashed.hash(name.as_wire()), expected.as_bytes(), "{name}");
        }
    }
}
