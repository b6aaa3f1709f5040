//! Denial of existence: the NSEC or NSEC3 records of a signed zone that prove absence (RFC 4035 section
//! 3.1.3, RFC 5155 section 7.2).

use dns::{RecordType, suffixes};

use super::nsec3::Nsec3Chain;
use crate::store::names::{NameBuf, canonical_order, next_closer};
use crate::store::{At, NodeMark, ZoneNode, ZoneStore};

#[derive(Debug)]
pub(crate) enum Denial {
    None,
    Nsec(Box<[At]>),
    Nsec3(Nsec3Chain),
}

#[derive(Clone, Copy)]
pub(crate) enum Claim<'n> {
    /// The name exists without the type, or it is an unsigned delegation.
    Nodata { name: &'n [u8] },
    /// The name does not exist, and no wildcard matches.
    Nxdomain { name: &'n [u8], encloser_len: usize },
    /// The name does not exist, and the matching wildcard lacks the type.
    WildcardNodata { name: &'n [u8], encloser_len: usize },
    /// The name does not exist, and the answer comes from a wildcard.
    Expanded { name: &'n [u8], encloser_len: usize },
}

#[derive(Default)]
pub(crate) struct DenialProof<'a>([Option<ZoneNode<'a>>; 3]);

impl<'a> DenialProof<'a> {
    pub(crate) fn nodes(&self) -> impl Iterator<Item = ZoneNode<'a>> {
        self.0.iter().flatten().copied()
    }

    fn add(&mut self, node: Option<ZoneNode<'a>>) {
        let Some(node) = node.filter(|node| self.nodes().all(|known| known.at() != node.at())) else {
            return;
        };
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(node);
        }
    }
}

impl Denial {
    pub(crate) fn of(store: &ZoneStore, apex: &[u8]) -> Self {
        if let Some(hashed) = Nsec3Chain::of(store, apex) {
            return Self::Nsec3(hashed);
        }
        if store.find(apex).is_none_or(|node| node.rrset(RecordType::NSEC).is_none()) {
            return Self::None;
        }
        let has_nsec = |node: &ZoneNode<'_>| !node.has(NodeMark::Occluded) && node.rrset(RecordType::NSEC).is_some();
        let mut chain: Vec<At> = store.nodes().filter(has_nsec).map(|node| node.at()).collect();
        chain.sort_unstable_by(|a, b| canonical_order(store.node(*a).name(), store.node(*b).name()));
        Self::Nsec(chain.into())
    }

    pub(crate) fn rtype(&self) -> Option<RecordType> {
        match self {
            Self::None => None,
            Self::Nsec(_) => Some(RecordType::NSEC),
            Self::Nsec3(_) => Some(RecordType::NSEC3),
        }
    }

    pub(crate) fn iterations(&self) -> Option<u16> {
        match self {
            Self::None | Self::Nsec(_) => None,
            Self::Nsec3(hashed) => Some(hashed.iterations()),
        }
    }

    pub(crate) fn prove<'a>(&self, store: &'a ZoneStore, claim: Claim<'_>) -> DenialProof<'a> {
        match self {
            Self::None => DenialProof::default(),
            Self::Nsec(chain) => prove_by_gaps(chain, store, claim),
            Self::Nsec3(hashed) => prove_by_hashes(hashed, store, claim),
        }
    }
}

/// Finds the NSEC records that prove a claim (RFC 4035 section 3.1.3.1 to section 3.1.3.4).
fn prove_by_gaps<'a>(chain: &[At], store: &'a ZoneStore, claim: Claim<'_>) -> DenialProof<'a> {
    let at_or_before = |name: &[u8]| {
        let behind = chain.partition_point(|at| canonical_order(store.node(*at).name(), name).is_le());
        chain.get(behind.saturating_sub(1)).map(|at| store.node(*at))
    };
    let mut proof = DenialProof::default();
    match claim {
        Claim::Nodata { name } | Claim::Expanded { name, .. } => proof.add(at_or_before(name)),
        // If the wildcard exists, its record lists its types. If not, the one before proves absence.
        Claim::Nxdomain { name, encloser_len } | Claim::WildcardNodata { name, encloser_len } => {
            proof.add(at_or_before(name));
            proof.add(wildcard(name, encloser_len).and_then(|wildcard| at_or_before(wildcard.as_wire())));
        }
    }
    proof
}

/// Finds the NSEC3 records that prove a claim (RFC 5155 section 7.2.2 to section 7.2.7).
fn prove_by_hashes<'a>(hashed: &Nsec3Chain, store: &'a ZoneStore, claim: Claim<'_>) -> DenialProof<'a> {
    let find = |name: &[u8]| hashed.find(store, name);
    let mut proof = DenialProof::default();
    match claim {
        Claim::Nodata { name } => match find(name) {
            Ok(matching) => proof.add(Some(matching)),
            // Opt-out: the name has no record, and names above it may have none.
            Err(_) => prove_encloser(&find, name, name.len(), &mut proof),
        },
        Claim::Expanded { name, encloser_len } => {
            proof.add(Some(either(find(next_closer(name, encloser_len)))));
        }
        Claim::Nxdomain { name, encloser_len } | Claim::WildcardNodata { name, encloser_len } => {
            prove_encloser(&find, name, encloser_len, &mut proof);
            proof.add(wildcard(name, encloser_len).map(|wildcard| either(find(wildcard.as_wire()))));
        }
    }
    proof
}

/// Adds the closest encloser proof (RFC 5155 section 7.2.1) with the next closer name.
fn prove_encloser<'a>(
    find: &impl Fn(&[u8]) -> Result<ZoneNode<'a>, ZoneNode<'a>>,
    name: &[u8],
    encloser_len: usize,
    proof: &mut DenialProof<'a>,
) {
    for encloser in suffixes(name).filter(|suffix| suffix.len() <= encloser_len) {
        if let Ok(matching) = find(encloser) {
            proof.add(Some(matching));
            if encloser.len() < name.len() {
                proof.add(Some(either(find(next_closer(name, encloser.len())))));
            }
            return;
        }
    }
}

fn either<'a>(found: Result<ZoneNode<'a>, ZoneNode<'a>>) -> ZoneNode<'a> {
    match found {
        Ok(node) | Err(node) => node,
    }
}

fn wildcard(name: &[u8], encloser_len: usize) -> Option<NameBuf> {
    suffixes(name).find(|suffix| suffix.len() == encloser_len).and_then(NameBuf::wildcard_below)
}
