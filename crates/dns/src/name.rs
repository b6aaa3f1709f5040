//! Domain names in uncompressed wire form: length byte, label, ... , root (RFC 1035 section 3.1).
//!
//! On the hot path a name is a `&[u8]` of its message, as the functions here take it. [`Name`] is for names
//! of configuration and zones. Case is kept and compared exactly unless a function states otherwise.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// An owned name, stored inline so that it never allocates.
#[derive(Clone)]
pub struct Name {
    len: u8,
    octets: [u8; Self::MAX_LEN],
}

impl Name {
    /// The longest name, root label included (RFC 1035 section 2.3.4).
    pub const MAX_LEN: usize = 255;

    /// The longest label (RFC 1035 section 2.3.4).
    pub const MAX_LABEL_LEN: usize = 63;

    /// Returns the root, `.`.
    pub fn root() -> Self {
        Self { len: 1, octets: [0; Self::MAX_LEN] }
    }

    /// Makes a name from its whole wire form, without compression.
    pub fn from_wire(wire: &[u8]) -> Result<Self, NameError> {
        if wire_len(wire)? != wire.len() {
            return Err(NameError::OctetsLeft);
        }
        let mut name = Self::root();
        name.octets[..wire.len()].copy_from_slice(wire);
        name.len = wire.len() as u8;
        Ok(name)
    }

    /// Returns the name of the PTR records of an address (RFC 1035 section 3.5, RFC 3596 section 2.5).
    pub fn reverse_of(address: IpAddr) -> Self {
        let mut name = Self::root();
        let mut push = |label: &[u8]| {
            let at = usize::from(name.len) - 1;
            name.octets[at] = label.len() as u8;
            name.octets[at + 1..][..label.len()].copy_from_slice(label);
            name.len += 1 + label.len() as u8;
        };
        match address {
            IpAddr::V4(address) => {
                address.octets().iter().rev().for_each(|octet| push(octet.to_string().as_bytes()));
                push(b"in-addr");
            }
            IpAddr::V6(address) => {
                let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
                nibbles.for_each(|nibble| push(format!("{nibble:x}").as_bytes()));
                push(b"ip6");
            }
        }
        push(b"arpa");
        name
    }

    /// Returns the wire form, root label included.
    pub fn as_wire(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }

    /// Returns the name in ASCII lower case: its canonical form (RFC 4034 section 6.2).
    pub fn folded(&self) -> Self {
        let mut name = self.clone();
        fold(&mut name.octets);
        name
    }

    /// Returns true for the root.
    pub fn is_root(&self) -> bool {
        self.len == 1
    }

    /// Returns the name without its first label; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        Self::from_wire(suffixes(self.as_wire()).nth(1)?).ok()
    }

    /// Returns the labels from left to right, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(self.as_wire())
    }

    /// Returns true if this name equals `other` or is below it, ignoring case.
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        suffixes(self.as_wire()).any(|suffix| eq_ignore_case(suffix, other.as_wire()))
    }

    pub(super) fn push_label(&mut self, label: &[u8]) -> Result<(), NameError> {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        if label.len() > Self::MAX_LABEL_LEN {
            return Err(NameError::LabelTooLong);
        }
        let root = usize::from(self.len) - 1;
        let end = root + 1 + label.len();
        if end >= Self::MAX_LEN {
            return Err(NameError::TooLong);
        }
        self.octets[root] = label.len() as u8;
        self.octets[root + 1..end].copy_from_slice(label);
        self.len = end as u8 + 1;
        Ok(())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_wire() == other.as_wire()
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_wire().hash(state);
    }
}

/// The error for something that is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty text.
    #[error("empty name: write \".\" for the root")]
    Empty,
    /// Two dots in a row, or a leading dot.
    #[error("empty label: dots stand between labels, one at a time")]
    EmptyLabel,
    /// A label over 63 bytes.
    #[error("label longer than 63 octets")]
    LabelTooLong,
    /// A name over 255 bytes.
    #[error("name longer than 255 octets")]
    TooLong,
    /// `\` without a character, or with a number above 255.
    #[error("bad escape: write \\ and a character, or \\ and three digits up to 255")]
    BadEscape,
    /// A blank or control character that is not escaped.
    #[error("{0:?} in a name: write it as \\{code:03} if it is meant", code = u32::from(*.0))]
    Unescaped(char),
    /// A character that is not ASCII.
    #[error("{0:?} in a name: write the label in Punycode (xn--...)")]
    NotAscii(char),
    /// The wire form ends inside the name.
    #[error("wire form ends inside the name")]
    CutShort,
    /// The wire form has a compression pointer or an unassigned label type.
    #[error("wire form has a compression pointer or an unknown label type")]
    NotALabel,
    /// The wire form continues behind the root label.
    #[error("wire form goes on behind the root label")]
    OctetsLeft,
}

/// Folds a wire name to lower case. Label lengths are below 64 and `A` is 65, so all bytes are alike.
pub fn fold(wire_name: &mut [u8]) {
    wire_name.make_ascii_lowercase();
}

/// Returns true if two wire names are equal but for ASCII case (RFC 4343 section 3).
pub fn eq_ignore_case(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// Iterates over a name and its ancestors: `www.example.`, `example.`, `.`. Ends early at an invalid name.
pub fn suffixes(wire_name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let first = (!wire_name.is_empty()).then_some(wire_name);
    std::iter::successors(first, |rest| match rest.first() {
        None | Some(0) => None,
        Some(&len) => rest.get(1 + usize::from(len)..).filter(|rest| !rest.is_empty()),
    })
}

/// The labels of a name in wire form from left to right, without the root.
pub fn labels(wire_name: &[u8]) -> impl Iterator<Item = &[u8]> {
    suffixes(wire_name).map_while(|rest| {
        let (&len, rest) = rest.split_first()?;
        (len > 0).then(|| rest.get(..usize::from(len))).flatten()
    })
}

pub(super) fn wire_len(octets: &[u8]) -> Result<usize, NameError> {
    let mut at = 0;
    loop {
        let len = match octets.get(at) {
            None => return Err(NameError::CutShort),
            Some(0) => break,
            Some(&len) if usize::from(len) <= Name::MAX_LABEL_LEN => usize::from(len),
            // RFC 1035 section 4.1.4: 11 is a pointer, 01 and 10 are not in use.
            Some(_) => return Err(NameError::NotALabel),
        };
        at += 1 + len;
        if at >= Name::MAX_LEN {
            return Err(NameError::TooLong);
        }
    }
    Ok(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn reverse_names_have_the_address_backwards() {
        let reverse = |address: &str| Name::reverse_of(address.parse().expect("an address")).to_string();
        assert_eq!(reverse("192.0.2.10"), "10.2.0.192.in-addr.arpa.");
        let zeros = "0.".repeat(22);
        assert_eq!(reverse("2001:db8::af"), format!("f.a.{zeros}8.b.d.0.1.0.0.2.ip6.arpa."));
    }

    #[test]
    fn wire_form_is_taken_or_refused() {
        let check = |wire: &[u8], expected: Result<(), NameError>| {
            assert_eq!(Name::from_wire(wire).map(drop), expected, "{wire:?}");
        };
        check(b"\0", Ok(()));
        check(b"\x03www\x07example\0", Ok(()));
        check(b"", Err(NameError::CutShort));
        check(b"\x03ww", Err(NameError::CutShort));
        check(b"\x03www", Err(NameError::CutShort));
        check(b"\x03www\0\0", Err(NameError::OctetsLeft));
        check(b"\xC0\x0C", Err(NameError::NotALabel));
        check(b"\x40", Err(NameError::NotALabel));
        check(b"\x80", Err(NameError::NotALabel));
        // 127 labels of one byte are 255 bytes; three labels of 63 and one of 62 are 256.
        check(&[b"\x01a".repeat(127), vec![0]].concat(), Ok(()));
        check(&[b"\x01a".repeat(128), vec![0]].concat(), Err(NameError::TooLong));
        let long = [&[63][..], &[b'a'; 63]].concat();
        let tail = |len: u8| [vec![len], vec![b'b'; usize::from(len)], vec![0]].concat();
        check(&[long.repeat(3), tail(61)].concat(), Ok(()));
        check(&[long.repeat(3), tail(62)].concat(), Err(NameError::TooLong));
    }

    #[test]
    fn pushed_labels_have_the_limits_of_the_wire() {
        let mut longest = Name::root();
        for _ in 0..127 {
            longest.push_label(b"a").expect("fits");
        }
        assert_eq!(longest.as_wire().len(), Name::MAX_LEN);
        assert_eq!(Name::from_wire(longest.as_wire()), Ok(longest.clone()));
        assert_eq!(longest.push_label(b"a"), Err(NameError::TooLong));
        assert_eq!(Name::root().push_label(&[b'a'; 64]), Err(NameError::LabelTooLong));
        assert_eq!(Name::root().push_label(b""), Err(NameError::EmptyLabel));
    }

    #[test]
    fn equality_is_exact_and_folding_is_canonical() {
        assert_ne!(name("WWW.Example.org"), name("www.example.org"));
        assert_eq!(name("WWW.Example.org").folded(), name("www.example.org"));
        assert!(eq_ignore_case(name("WWW.Example").as_wire(), name("www.eXAMPLE").as_wire()));
        // Only ASCII letters have a case: `[` and `{` are as far apart as `A` and `a`.
        assert!(!eq_ignore_case(name("[").as_wire(), name("{").as_wire()));
    }

    #[test]
    fn names_below_share_whole_labels() {
        let check = |below: &str, above: &str, expected: bool| {
            assert_eq!(name(below).is_at_or_below(&name(above)), expected, "{below} {above}");
        };
        check("www.example.org", "example.org", true);
        check("WWW.EXAMPLE.ORG", "example.org", true);
        check("example.org", "example.org", true);
        check("example.org", ".", true);
        check(".", ".", true);
        check(".", "org", false);
        check("org", "example.org", false);
        check("badexample.org", "example.org", false);
        // The bytes of `\003org` end like the wire form of `org`, but inside a label.
        check("a\\003org", "org", false);
    }

    #[test]
    fn parents_and_labels() {
        let www = name("www.example.org");
        assert_eq!(www.parent(), Some(name("example.org")));
        assert_eq!(name("org").parent(), Some(Name::root()));
        assert_eq!(Name::root().parent(), None);
        assert_eq!(www.labels().collect::<Vec<_>>(), [&b"www"[..], b"example", b"org"]);
        assert_eq!(Name::root().labels().count(), 0);
        assert!(Name::root().is_root() && !www.is_root());
        let all: Vec<_> = suffixes(www.as_wire()).map(<[u8]>::len).collect();
        assert_eq!(all, [17, 13, 5, 1]);
        assert_eq!(suffixes(b"\x05ab").count(), 1);
        assert_eq!(suffixes(b"").count(), 0);
    }
}
