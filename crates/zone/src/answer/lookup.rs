//! Lookup of a name within a zone: step 3 of the algorithm of RFC 1034 section 4.3.2.
//!
//! The lookup tries the name itself first, which takes one hash and mostly succeeds, and then its suffixes,
//! longest first. Every name above an owner has a node, so the first suffix found is the closest encloser
//! (RFC 4592 section 3.3.1).

use crate::zone::Zone;
use dns::{RecordType, suffixes};

use crate::store::names::NameBuf;
use crate::store::{NodeMark, ZoneNode};

#[derive(Clone, Copy)]
pub(crate) enum NameMatch<'a> {
    Exact(ZoneNode<'a>),
    Wildcard { node: ZoneNode<'a>, encloser_len: usize },
    Cut(ZoneNode<'a>),
    Dname(ZoneNode<'a>),
    Missing { encloser_len: usize },
}

impl Zone {
    pub(crate) fn find(&self, name: &[u8], qtype: RecordType) -> NameMatch<'_> {
        for suffix in suffixes(name) {
            let is_whole = suffix.len() == name.len();
            let Some(node) =
                self.store.find(suffix).filter(|node| !node.has(NodeMark::Occluded) && !node.has(NodeMark::Hashed))
            else {
                continue;
            };
            if node.has(NodeMark::Cut) {
                // RFC 4035 section 3.1.4.1: DS records of a cut belong to the parent zone.
                let is_ours = is_whole && qtype == RecordType::DS;
                return if is_ours { NameMatch::Exact(node) } else { NameMatch::Cut(node) };
            }
            if is_whole {
                return NameMatch::Exact(node);
            }
            if node.has(NodeMark::Dname) {
                return NameMatch::Dname(node);
            }
            let encloser_len = suffix.len();
            if node.has(NodeMark::Wildcard)
                && let Some(wildcard) = NameBuf::wildcard_below(suffix)
                && let Some(node) = self.store.find(wildcard.as_wire())
            {
                return NameMatch::Wildcard { node, encloser_len };
            }
            return NameMatch::Missing { encloser_len };
        }
        NameMatch::Missing { encloser_len: self.apex().as_wire().len() }
    }

    /// The node with the addresses of a folded host name: its own, perhaps glue, or a wildcard.
    pub(crate) fn host(&self, name: &[u8]) -> Option<ZoneNode<'_>> {
        self.store.find(name).or_else(|| match self.find(name, RecordType::A) {
            NameMatch::Wildcard { node, .. } if !self.is_signed() => Some(node),
            // The proof of a wildcard expansion would cost more than the address is worth.
            NameMatch::Wildcard { .. }
            | NameMatch::Exact(_)
            | NameMatch::Cut(_)
            | NameMatch::Dname(_)
            | NameMatch::Missing { .. } => None,
        })
    }
}
