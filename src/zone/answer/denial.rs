//! Denial: which NSEC or NSEC3 records of a signed zone prove what is not there (RFC 4035 section 3.1.3, RFC 5155
//! section 7.2).

use super::nsec3::Hashed;
use crate::wire::{RecordType, suffixes};
use crate::zone::store::names::{NameBuf, canonical_order, next_closer};
use crate::zone::store::{At, Mark, Node, Store};

/// How a zone proves that something is not there.
#[derive(Debug)]
pub(in crate::zone) enum Denial {
    /// It is not signed.
    None,
    /// By the gaps between its names: the nodes with NSEC records, in canonical order.
    Nsec(Box<[At]>),
    /// By the gaps between their hashes.
    Nsec3(Hashed),
}

/// What is to be proved of a folded name.
#[derive(Clone, Copy)]
pub(in crate::zone) enum Claim<'n> {
    /// It is there, the type is not; or it is a delegation that is not signed.
    Nodata { name: &'n [u8] },
    /// It is not there, and no wildcard matches.
    Nxdomain {
        name: &'n [u8],
        /// Octets of its closest encloser.
        encloser_len: usize,
    },
    /// It is not there, a wildcard matches, and the type is not there.
    WildcardNodata {
        name: &'n [u8],
        /// Octets of its closest encloser.
        encloser_len: usize,
    },
    /// It is not there: the answer comes from a wildcard.
    Expanded {
        name: &'n [u8],
        /// Octets of its closest encloser.
        encloser_len: usize,
    },
}

/// The nodes whose NSEC or NSEC3 records prove a claim.
#[derive(Default)]
pub(in crate::zone) struct Proof<'a>([Option<Node<'a>>; 3]);

impl<'a> Proof<'a> {
    /// The nodes, each once.
    pub(in crate::zone) fn nodes(&self) -> impl Iterator<Item = Node<'a>> {
        self.0.iter().flatten().copied()
    }

    /// Adds a node, unless it is there.
    fn add(&mut self, node: Option<Node<'a>>) {
        let Some(node) = node.filter(|node| self.nodes().all(|known| known.at() != node.at())) else {
            return;
        };
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(node);
        }
    }
}

impl Denial {
    /// How the zone with these records proves things.
    pub(in crate::zone) fn of(store: &Store, apex: &[u8]) -> Self {
        if let Some(hashed) = Hashed::of(store, apex) {
            return Self::Nsec3(hashed);
        }
        if store.find(apex).is_none_or(|node| node.rrset(RecordType::NSEC).is_none()) {
            return Self::None;
        }
        let has_nsec = |node: &Node<'_>| !node.has(Mark::Occluded) && node.rrset(RecordType::NSEC).is_some();
        let mut chain: Vec<At> = store.nodes().filter(has_nsec).map(|node| node.at()).collect();
        chain.sort_unstable_by(|a, b| canonical_order(store.node(*a).name(), store.node(*b).name()));
        Self::Nsec(chain.into())
    }

    /// The type of the records that prove things.
    pub(in crate::zone) fn rtype(&self) -> Option<RecordType> {
        match self {
            Self::None => None,
            Self::Nsec(_) => Some(RecordType::NSEC),
            Self::Nsec3(_) => Some(RecordType::NSEC3),
        }
    }

    /// How often an NSEC3 hash is hashed again.
    pub(in crate::zone) fn iterations(&self) -> Option<u16> {
        match self {
            Self::None | Self::Nsec(_) => None,
            Self::Nsec3(hashed) => Some(hashed.iterations()),
        }
    }

    /// The records that prove a claim.
    pub(in crate::zone) fn prove<'a>(&self, store: &'a Store, claim: Claim<'_>) -> Proof<'a> {
        match self {
            Self::None => Proof::default(),
            Self::Nsec(chain) => prove_by_gaps(chain, store, claim),
            Self::Nsec3(hashed) => prove_by_hashes(hashed, store, claim),
        }
    }
}

/// The NSEC records that prove a claim (RFC 4035 section 3.1.3.1 to section 3.1.3.4).
fn prove_by_gaps<'a>(chain: &[At], store: &'a Store, claim: Claim<'_>) -> Proof<'a> {
    let at_or_before = |name: &[u8]| {
        let behind = chain.partition_point(|at| canonical_order(store.node(*at).name(), name).is_le());
        // The apex is first and not behind any name of the zone.
        chain.get(behind.saturating_sub(1)).map(|at| store.node(*at))
    };
    let mut proof = Proof::default();
    match claim {
        Claim::Nodata { name } | Claim::Expanded { name, .. } => proof.add(at_or_before(name)),
        // Where the wildcard is there, the record at it shows its types; where not, the one before it that it is not.
        Claim::Nxdomain { name, encloser_len } | Claim::WildcardNodata { name, encloser_len } => {
            proof.add(at_or_before(name));
            proof.add(wildcard(name, encloser_len).and_then(|wildcard| at_or_before(wildcard.as_wire())));
        }
    }
    proof
}

/// The NSEC3 records that prove a claim (RFC 5155 section 7.2.2 to section 7.2.7).
fn prove_by_hashes<'a>(hashed: &Hashed, store: &'a Store, claim: Claim<'_>) -> Proof<'a> {
    let find = |name: &[u8]| hashed.find(store, name);
    let mut proof = Proof::default();
    match claim {
        Claim::Nodata { name } => match find(name) {
            Ok(matching) => proof.add(Some(matching)),
            // Opt-out: neither the name nor, maybe, what is above it has a record of its own.
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

/// Adds the closest encloser proof (RFC 5155 section 7.2.1): the record of the closest encloser that has one, and the one that
/// covers the next closer name.
fn prove_encloser<'a>(
    find: &impl Fn(&[u8]) -> Result<Node<'a>, Node<'a>>,
    name: &[u8],
    encloser_len: usize,
    proof: &mut Proof<'a>,
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

/// The record of a name, or else the one that covers it.
fn either<'a>(found: Result<Node<'a>, Node<'a>>) -> Node<'a> {
    match found {
        Ok(node) | Err(node) => node,
    }
}

/// The wildcard below the suffix of a name that has so many octets.
fn wildcard(name: &[u8], encloser_len: usize) -> Option<NameBuf> {
    suffixes(name).find(|suffix| suffix.len() == encloser_len).and_then(NameBuf::wildcard_below)
}
