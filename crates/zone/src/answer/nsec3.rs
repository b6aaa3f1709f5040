//! NSEC3: the chain of hashed names of a signed zone, and the hash (RFC 5155 section 5).

use std::cmp::Ordering;

use data_encoding::BASE32_DNSSEC;
use dns::RecordType;
use sha1::{Digest, Sha1};

use crate::store::{At, NodeMark, ZoneNode, ZoneStore};

#[derive(Debug)]
pub(crate) struct Nsec3Chain {
    iterations: u16,
    salt: Box<[u8]>,
    chain: Box<[At]>,
}

/// A hash in the form of NSEC3 owner names: Base32 with the extended hex alphabet, in lower case.
type HashLabel = [u8; 32];

impl Nsec3Chain {
    /// The chain that the NSEC3PARAM record of the apex names (RFC 5155 section 4), if it exists.
    pub(crate) fn of(store: &ZoneStore, apex: &[u8]) -> Option<Self> {
        let params = store.find(apex)?.rrset(RecordType::NSEC3PARAM)?;
        // RFC 5155 section 4.1.2: a server must ignore an NSEC3PARAM record with nonzero flags.
        params.rdata().filter_map(Params::read).filter(|params| params.flags == 0).find_map(|params| {
            let is_in_chain = |node: &ZoneNode<'_>| {
                // The owner may also be an ordinary name (RFC 5155 appendix A has an example).
                let mut found = node.rrset(RecordType::NSEC3).into_iter().flat_map(|nsec3| nsec3.rdata());
                !node.has(NodeMark::Occluded)
                    && found.any(|rdata| Params::read(rdata).is_some_and(|found| found.agrees(&params)))
            };
            let mut chain: Vec<At> = store.nodes().filter(is_in_chain).map(|node| node.at()).collect();
            chain.sort_unstable_by_key(|at| store.node(*at).name());
            let (iterations, salt) = (params.iterations, params.salt.into());
            (!chain.is_empty()).then(|| Self { iterations, salt, chain: chain.into() })
        })
    }

    pub(crate) fn iterations(&self) -> u16 {
        self.iterations
    }

    /// Finds the NSEC3 record of a folded name. `Err` is the record that covers its hash.
    pub(crate) fn find<'s>(&self, store: &'s ZoneStore, name: &[u8]) -> Result<ZoneNode<'s>, ZoneNode<'s>> {
        let hash = self.hash(name);
        let compare = |at: &At| -> Ordering {
            let label = store.node(*at).name().get(1..=hash.len()).unwrap_or_default();
            label.cmp(&hash)
        };
        match self.chain.binary_search_by(compare) {
            Ok(index) => Ok(store.node(self.chain[index])),
            // The previous record covers the hash. The interval of the last record wraps around.
            Err(index) => Err(store.node(self.chain[index.checked_sub(1).unwrap_or(self.chain.len() - 1)])),
        }
    }

    fn hash(&self, name: &[u8]) -> HashLabel {
        let mut digest = Sha1::new().chain_update(name).chain_update(&self.salt).finalize();
        for _ in 0..self.iterations {
            digest = Sha1::new().chain_update(digest).chain_update(&self.salt).finalize();
        }
        let mut label = [0; 32];
        BASE32_DNSSEC.encode_mut(&digest, &mut label);
        label
    }
}

/// The leading fields of NSEC3 and NSEC3PARAM records (RFC 5155 section 3.2, section 4.2).
#[derive(PartialEq, Eq)]
struct Params<'a> {
    flags: u8,
    iterations: u16,
    salt: &'a [u8],
}

impl<'a> Params<'a> {
    /// Reads RDATA with algorithm SHA-1, the only one defined (RFC 5155 section 11).
    fn read(rdata: &'a [u8]) -> Option<Self> {
        let (&[SHA1, flags, i0, i1, salt_len], rest) = rdata.split_first_chunk()? else {
            return None;
        };
        let salt = rest.get(..usize::from(salt_len))?;
        Some(Self { flags, iterations: u16::from_be_bytes([i0, i1]), salt })
    }

    fn agrees(&self, other: &Self) -> bool {
        (self.iterations, self.salt) == (other.iterations, other.salt)
    }
}

/// The only hash algorithm that is defined (RFC 5155 section 11).
pub(crate) const SHA1: u8 = 1;

#[cfg(test)]
mod tests {
    use dns::Name;

    use super::*;

    #[test]
    fn names_have_the_hashes_of_the_standard() {
        let hashed = Nsec3Chain { iterations: 12, salt: [0xAA, 0xBB, 0xCC, 0xDD].into(), chain: [].into() };
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
