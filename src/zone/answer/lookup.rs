//! Where a name leads within a zone: step 3 of the algorithm of RFC 1034 section 4.3.2.
//!
//! The name itself is looked for first, which is one hash and mostly the end of it. If it is not there, or hidden, its
//! suffixes follow, longest first. Since every name above an owner has a node, the first suffix that is found is the closest
//! encloser (RFC 4592 section 3.3.1), and marks say all else: whether that is a cut, whether it is hidden by one further up,
//! whether there is an asterisk below it.

use crate::wire::{RecordType, suffixes};
use crate::zone::store::names::NameBuf;
use crate::zone::store::{Mark, Node};
use crate::zone::zone::Zone;

/// Where a name leads.
#[derive(Clone, Copy)]
pub(in crate::zone) enum Match<'a> {
    /// The name is there.
    Exact(Node<'a>),
    /// The name is not there, but a wildcard that it matches.
    Wildcard {
        /// The source of synthesis.
        node: Node<'a>,
        /// Octets of the closest encloser.
        encloser_len: usize,
    },
    /// The name is delegated to the servers at this cut.
    Cut(Node<'a>),
    /// The name is below this one, whose DNAME record gives it away.
    Dname(Node<'a>),
    /// The name is not there.
    Missing {
        /// Octets of the closest encloser.
        encloser_len: usize,
    },
}

impl Zone {
    /// Where a folded name at or below the apex leads, asked for this type.
    pub(in crate::zone) fn find(&self, name: &[u8], qtype: RecordType) -> Match<'_> {
        for suffix in suffixes(name) {
            let is_whole = suffix.len() == name.len();
            let Some(node) =
                self.store.find(suffix).filter(|node| !node.has(Mark::Occluded) && !node.has(Mark::Hashed))
            else {
                continue;
            };
            if node.has(Mark::Cut) {
                // RFC 4035 section 3.1.4.1: DS records are the business of the parent, of which this is the last name.
                let is_ours = is_whole && qtype == RecordType::DS;
                return if is_ours { Match::Exact(node) } else { Match::Cut(node) };
            }
            if is_whole {
                return Match::Exact(node);
            }
            if node.has(Mark::Dname) {
                return Match::Dname(node);
            }
            let encloser_len = suffix.len();
            if node.has(Mark::Wildcard)
                && let Some(wildcard) = NameBuf::wildcard_below(suffix)
                && let Some(node) = self.store.find(wildcard.as_wire())
            {
                return Match::Wildcard { node, encloser_len };
            }
            return Match::Missing { encloser_len };
        }
        // Not reached for names in the zone, since there is always an apex.
        Match::Missing { encloser_len: self.apex().as_wire().len() }
    }

    /// The node with the addresses of a folded host name in the zone: its own, be it glue, or that of a wildcard.
    pub(in crate::zone) fn host(&self, name: &[u8]) -> Option<Node<'_>> {
        self.store.find(name).or_else(|| match self.find(name, RecordType::A) {
            Match::Wildcard { node, .. } if !self.is_signed() => Some(node),
            // The proof that belongs to an expanded wildcard would be more than the address is worth.
            Match::Wildcard { .. } | Match::Exact(_) | Match::Cut(_) | Match::Dname(_) | Match::Missing { .. } => None,
        })
    }
}
