//! Names on the stack, and the canonical order of names.
//!
//! All functions expect valid, uncompressed wire names from parsed questions or checked records. They never
//! allocate.

use std::cmp::Ordering;

use dns::{Name, eq_ignore_case, fold, suffixes};

#[derive(Clone)]
pub(crate) struct NameBuf {
    len: usize,
    octets: [u8; Name::MAX_LEN],
}

impl NameBuf {
    #[inline]
    pub(crate) fn root() -> Self {
        Self { len: 1, octets: [0; Name::MAX_LEN] }
    }

    /// Copies a name and keeps its case. A name that is too long becomes the root.
    #[inline]
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut buf = Self::root();
        if let Some(room) = buf.octets.get_mut(..name.len()) {
            room.copy_from_slice(name);
            buf.len = name.len();
        }
        buf
    }

    /// Returns the canonical form of a name (RFC 4034 section 6.2).
    #[inline]
    pub(crate) fn folded(name: &[u8]) -> Self {
        let mut buf = Self::root();
        buf.fold_from(name);
        buf
    }

    /// Turns a root name into the canonical form of `name`, because a returned buffer would be copied.
    #[inline]
    pub(crate) fn fold_from(&mut self, name: &[u8]) {
        if let Some(room) = self.octets.get_mut(..name.len()) {
            room.copy_from_slice(name);
            fold(room);
            self.len = name.len();
        }
    }

    pub(crate) fn joined(labels: &[u8], name: &[u8]) -> Option<Self> {
        let len = labels.len() + name.len();
        let mut octets = [0; Name::MAX_LEN];
        let (front, behind) = octets.get_mut(..len)?.split_at_mut(labels.len());
        front.copy_from_slice(labels);
        behind.copy_from_slice(name);
        Some(Self { len, octets })
    }

    /// Returns the source of synthesis below a closest encloser (RFC 4592 section 3.3.1): its asterisk label.
    pub(crate) fn wildcard_below(encloser: &[u8]) -> Option<Self> {
        Self::joined(ASTERISK, encloser)
    }

    pub(crate) fn as_wire(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

/// The asterisk label (RFC 4592 section 2.1.1).
pub(crate) const ASTERISK: &[u8] = b"\x01*";

/// Returns true if a name equals `above` or is below it, ignoring case.
pub(crate) fn is_at_or_below(name: &[u8], above: &[u8]) -> bool {
    suffix_of_len(name, above.len()).is_some_and(|suffix| eq_ignore_case(suffix, above))
}

pub(crate) fn suffix_of_len(name: &[u8], len: usize) -> Option<&[u8]> {
    suffixes(name).find(|suffix| suffix.len() <= len).filter(|suffix| suffix.len() == len)
}

pub(crate) fn labels_above(name: &[u8], suffix_len: usize) -> &[u8] {
    &name[..name.len().saturating_sub(suffix_len)]
}

/// Returns the next closer name (RFC 5155 section 1.3): one label longer than the closest encloser.
pub(crate) fn next_closer(name: &[u8], encloser_len: usize) -> &[u8] {
    suffixes(name).take_while(|suffix| suffix.len() > encloser_len).last().unwrap_or(name)
}

pub(crate) fn leading_name(octets: &[u8]) -> &[u8] {
    let rest = suffixes(octets).last().map_or(0, <[u8]>::len);
    octets.get(..octets.len() + 1 - rest.max(1)).unwrap_or(octets)
}

/// Compares folded names in canonical order (RFC 4034 section 6.1).
pub(crate) fn canonical_order(a: &[u8], b: &[u8]) -> Ordering {
    let (a_starts, a_count) = label_starts(a);
    let (b_starts, b_count) = label_starts(b);
    let label = |name: &'_ [u8], start: u8| -> (usize, usize) {
        let start = usize::from(start);
        (start + 1, start + 1 + usize::from(name[start]))
    };
    let pairs = a_starts[..a_count].iter().rev().zip(b_starts[..b_count].iter().rev());
    for (&a_start, &b_start) in pairs {
        let ((a_from, a_to), (b_from, b_to)) = (label(a, a_start), label(b, b_start));
        match a[a_from..a_to].cmp(&b[b_from..b_to]) {
            Ordering::Equal => {}
            unequal @ (Ordering::Less | Ordering::Greater) => return unequal,
        }
    }
    a_count.cmp(&b_count)
}

fn label_starts(name: &[u8]) -> ([u8; MAX_LABELS], usize) {
    let mut starts = [0; MAX_LABELS];
    let mut count = 0;
    for (slot, suffix) in starts.iter_mut().zip(suffixes(name).take_while(|suffix| suffix.len() > 1)) {
        *slot = (name.len() - suffix.len()) as u8;
        count += 1;
    }
    (starts, count)
}

const MAX_LABELS: usize = Name::MAX_LEN / 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Vec<u8> {
        text.parse::<Name>().expect("a name").as_wire().to_vec()
    }

    #[test]
    fn names_are_in_canonical_order() {
        // RFC 4034 section 6.1.
        let order = [
            "example",
            "a.example",
            "yljkjljk.a.example",
            "z.a.example",
            "zabc.a.example",
            "z.example",
            r"\001.z.example",
            "*.z.example",
            r"\200.z.example",
        ];
        for pair in order.windows(2) {
            assert_eq!(canonical_order(&wire(pair[0]), &wire(pair[1])), Ordering::Less, "{pair:?}");
            assert_eq!(canonical_order(&wire(pair[1]), &wire(pair[0])), Ordering::Greater, "{pair:?}");
        }
        assert_eq!(canonical_order(&[0], &wire("example")), Ordering::Less);
        assert_eq!(canonical_order(&wire("a.b"), &wire("a.b")), Ordering::Equal);
    }

    #[test]
    fn names_are_taken_apart_and_joined() {
        let name = wire("a.b.example");
        assert!(
            is_at_or_below(&name, &wire("B.example")) && is_at_or_below(&name, &name) && is_at_or_below(&name, &[0])
        );
        assert!(!is_at_or_below(&wire("ab.example"), &wire("b.example")) && !is_at_or_below(&wire("example"), &name));
        assert_eq!(next_closer(&name, wire("example").len()), wire("b.example"));
        assert_eq!(labels_above(&name, wire("example").len()), b"\x01a\x01b");
        assert_eq!(leading_name(&[&name[..], b"rest"].concat()), name);
        assert_eq!(leading_name(b"\0rest"), b"\0");
        let joined = NameBuf::joined(b"\x01*", &wire("b.example")).expect("short");
        assert_eq!(joined.as_wire(), wire("*.b.example"));
        assert!(NameBuf::joined(&b"\x01a".repeat(127), &wire("b")).is_none());
        assert_eq!(NameBuf::folded(&wire("A.eXample")).as_wire(), wire("a.example"));
    }
}
