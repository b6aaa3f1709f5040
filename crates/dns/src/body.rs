//! The records behind the question of a message, and its one OPT record.

use std::hash::Hasher;

use super::codes::RecordType;
use super::edns::Edns;
use super::header::{HEADER_LEN, Header};
use super::name::Name;

#[derive(Clone, Copy, Debug)]
pub(super) struct MessageBounds<'a> {
    pub(super) answers: usize,
    pub(super) authority: usize,
    pub(super) additional: usize,
    pub(super) opt: Option<OptBounds<'a>>,
    pub(super) is_signed: bool,
    pub(super) has_authority_ns: bool,
    pub(super) has_authority_soa: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OptBounds<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) edns: Edns<'a>,
}

impl<'a> MessageBounds<'a> {
    /// Walks the records behind the question, which ends at `at`.
    ///
    /// Returns `None` if a record does not fit, bytes are left, or an OPT record is not alone (RFC 6891
    /// section 6.1.1), not owned by the root or not in the additional section. The caller checks the options.
    ///
    /// Also returns `None` if the owners have more compression pointers to follow than the message has bytes.
    /// A sender needs a few for each, and thousands of long chains would cost milliseconds (CVE-2026-96405).
    pub(super) fn read(message: &'a [u8], header: Header, at: usize) -> Option<Self> {
        let mut body = Self {
            answers: at,
            authority: at,
            additional: at,
            opt: None,
            is_signed: false,
            has_authority_ns: false,
            has_authority_soa: false,
        };
        let (mut at, mut jumps) = (at, message.len());
        for _ in 0..header.ancount() {
            at = RecordBounds::read_within(message, at, &mut jumps)?.not_opt()?.end;
        }
        body.authority = at;
        for _ in 0..header.nscount() {
            let record = RecordBounds::read_within(message, at, &mut jumps)?.not_opt()?;
            body.has_authority_ns |= record.rtype == RecordType::NS;
            body.has_authority_soa |= record.rtype == RecordType::SOA;
            at = record.end;
        }
        body.additional = at;
        for _ in 0..header.arcount() {
            let record = RecordBounds::read_within(message, at, &mut jumps)?;
            if record.rtype == RecordType::OPT {
                let opt = OptBounds::read(message, &record)?;
                if body.opt.replace(opt).is_some() {
                    return None;
                }
            }
            body.is_signed |= record.rtype == RecordType::TSIG;
            at = record.end;
        }
        (at == message.len()).then_some(body)
    }
}

impl<'a> OptBounds<'a> {
    pub(super) fn read(message: &'a [u8], record: &RecordBounds) -> Option<Self> {
        if message.get(record.start..record.owner_end)? != [0] {
            return None;
        }
        Some(Self {
            start: record.start,
            end: record.end,
            edns: Edns::read(message.get(record.owner_end..record.end)?)?,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RecordBounds {
    pub(super) start: usize,
    pub(super) owner_end: usize,
    pub(super) rdata: usize,
    pub(super) end: usize,
    pub(super) rtype: RecordType,
}

impl RecordBounds {
    pub(super) fn read(message: &[u8], at: usize) -> Option<Self> {
        Self::behind(message, at, skip_name(message, at)?)
    }

    /// Reads a record, and takes the pointers that its owner has from the number that may be followed.
    fn read_within(message: &[u8], at: usize, jumps: &mut usize) -> Option<Self> {
        let owner_end =
            if message.get(at..at + 2) == Some(&QUESTION_POINTER) { at + 2 } else { walk_within(message, at, jumps)? };
        Self::behind(message, at, owner_end)
    }

    #[inline]
    fn behind(message: &[u8], at: usize, owner_end: usize) -> Option<Self> {
        let &[t0, t1, _, _, _, _, _, _, l0, l1] = message.get(owner_end..)?.first_chunk()?;
        let rdata = owner_end + RECORD_FIXED_LEN;
        let end = rdata + usize::from(u16::from_be_bytes([l0, l1]));
        (end <= message.len()).then_some(Self {
            start: at,
            owner_end,
            rdata,
            end,
            rtype: RecordType(u16::from_be_bytes([t0, t1])),
        })
    }

    fn not_opt(self) -> Option<Self> {
        (self.rtype != RecordType::OPT).then_some(self)
    }
}

/// Returns the records from this offset to the end of the message, or to the first that is cut short.
pub(super) fn records(message: &[u8], mut at: usize) -> impl Iterator<Item = RecordBounds> {
    std::iter::from_fn(move || {
        let record = RecordBounds::read(message, at)?;
        at = record.end;
        Some(record)
    })
}

/// Returns the end of the possibly compressed name at `at` if the name is valid.
pub(super) fn skip_name(message: &[u8], at: usize) -> Option<usize> {
    // Nearly every owner in a reply is a pointer to the question, which is already checked.
    if message.get(at..at + 2) == Some(&QUESTION_POINTER) {
        return Some(at + 2);
    }
    walk_name(message, at, |_| {})
}

/// Returns the end of a valid name, and takes its pointers from the number that may be followed. The function
/// is separate because most owners are a pointer to the question.
#[inline(never)]
fn walk_within(message: &[u8], at: usize, jumps: &mut usize) -> Option<usize> {
    let count = || {
        *jumps = jumps.checked_sub(1)?;
        Some(())
    };
    walk_counting(message, at, |_| {}, count)
}

pub(super) fn read_name(message: &[u8], at: usize) -> Option<Name> {
    let mut name = Name::root();
    let mut fits = true;
    walk_name(message, at, |label| fits &= name.push_label(label).is_ok())?;
    fits.then_some(name)
}

pub(super) fn hash_name(message: &[u8], at: usize, hasher: &mut impl Hasher) {
    walk_name(message, at, |label| {
        let mut folded = [0; 1 + Name::MAX_LABEL_LEN];
        folded[0] = label.len() as u8;
        if let Some(place) = folded.get_mut(..=label.len()) {
            place[1..].copy_from_slice(label);
            place[1..].make_ascii_lowercase();
            hasher.write(place);
        }
    });
}

pub(super) fn labels_of_name(message: &[u8], at: usize) -> Option<usize> {
    let mut count = 0;
    walk_name(message, at, |_| count += 1)?;
    Some(count)
}

/// Follows the name at `start` to its root, passes each label to `on_label`, and returns where the name ends
/// in place. Every pointer must point before the labels that led to it, and its target must not run into
/// them, so there is no loop. The bound on jumps stops a message with one long chain of pointers and
/// thousands of owners at its end.
pub(super) fn walk_name<'a>(message: &'a [u8], start: usize, on_label: impl FnMut(&'a [u8])) -> Option<usize> {
    walk_counting(message, start, on_label, || Some(()))
}

#[inline]
fn walk_counting<'a>(
    message: &'a [u8],
    start: usize,
    mut on_label: impl FnMut(&'a [u8]),
    mut on_jump: impl FnMut() -> Option<()>,
) -> Option<usize> {
    let mut at = start;
    let mut segment = start;
    let mut bound = message.len();
    let mut end = None;
    let mut name_len = 1;
    let mut jumps = 0;
    loop {
        if at >= bound {
            return None;
        }
        match NamePiece::read(message, at)? {
            NamePiece::Label(label) => {
                name_len += 1 + label.len();
                if name_len > Name::MAX_LEN {
                    return None;
                }
                on_label(label);
                at += 1 + label.len();
            }
            NamePiece::Pointer(target) => {
                jumps += 1;
                on_jump()?;
                if !(HEADER_LEN..segment).contains(&target) || jumps > MAX_JUMPS {
                    return None;
                }
                end.get_or_insert(at + 2);
                bound = segment;
                segment = target;
                at = target;
            }
            NamePiece::Root => return Some(end.unwrap_or(at + 1)),
        }
    }
}

pub(super) enum NamePiece<'a> {
    Label(&'a [u8]),
    Pointer(usize),
    Root,
}

impl<'a> NamePiece<'a> {
    pub(super) fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let (&first, rest) = message.get(at..)?.split_first()?;
        match first {
            0 => Some(Self::Root),
            1..=0x3F => Some(Self::Label(rest.get(..usize::from(first))?)),
            // RFC 6891 section 5 withdrew 01; 10 was never assigned.
            0x40..=0xBF => None,
            0xC0..=0xFF => {
                let target = u16::from_be_bytes([first & 0x3F, *rest.first()?]);
                Some(Self::Pointer(usize::from(target)))
            }
        }
    }
}

/// A pointer to the name of the question (RFC 1035 section 4.1.4).
const QUESTION_POINTER: [u8; 2] = [0xC0, HEADER_LEN as u8];

const RECORD_FIXED_LEN: usize = 10;

/// The longest name has 127 labels, and a sender needs at most one pointer behind each.
const MAX_JUMPS: usize = 127;

#[cfg(test)]
mod tests {
    use super::super::sample::{EXAMPLE, QUESTION, RECORDS, REPLY, WWW, a, message, opt, record};
    use super::*;

    fn body(counts: [u16; 4], parts: &[&[u8]]) -> Option<[usize; 3]> {
        let octets = message(REPLY, counts, &[&[QUESTION], parts].concat());
        let header = Header::read(&octets)?;
        let body = MessageBounds::read(&octets, header, RECORDS)?;
        Some([body.answers, body.authority, body.additional])
    }

    #[test]
    fn sections_are_found_and_the_rest_is_refused() {
        let check = |counts: [u16; 4], parts: &[&[u8]], expected: Option<[usize; 3]>| {
            let starts = expected.map(|starts| starts.map(|start| RECORDS + start));
            assert_eq!(body(counts, parts), starts, "{counts:?} {parts:?}");
        };
        let (a, opt) = (&a(WWW)[..], &opt(0, 0, b"")[..]);
        check([1, 0, 0, 0], &[], Some([0, 0, 0]));
        check([1, 1, 0, 0], &[a], Some([0, 16, 16]));
        check([1, 1, 2, 1], &[a, a, a, a], Some([0, 16, 48]));
        check([1, 1, 0, 2], &[a, opt, a], Some([0, 16, 16]));
        // RFC 3597 section 3: empty RDATA is valid for an unknown type.
        check([1, 1, 0, 0], &[&record(WWW, RecordType(65280), b"")], Some([0, 12, 12]));
        // Counts that are too high or too low.
        check([1, 2, 0, 0], &[a], None);
        check([1, u16::MAX, u16::MAX, u16::MAX], &[a, a], None);
        check([1, 0, 0, 0], &[a], None);
        check([1, 1, 0, 0], &[a, b"\0"], None);
        // RDLENGTH beyond the end, and a record that is cut inside its fixed part.
        check([1, 1, 0, 0], &[&a[..15]], None);
        check([1, 1, 0, 0], &[&a[..11]], None);
        // OPT in the wrong section, twice, owned by a name (even if the name is a pointer to a root).
        check([1, 1, 0, 0], &[opt], None);
        check([1, 0, 1, 0], &[opt], None);
        check([1, 0, 0, 2], &[opt, opt], None);
        check([1, 0, 0, 1], &[&[WWW, &opt[1..]].concat()], None);
        check([1, 0, 0, 1], &[&[&[0xC0, 28], &opt[1..]].concat()], None);
    }

    #[test]
    fn names_are_followed_strictly_backwards() {
        let check = |owner: &[u8], expected: Option<&str>| {
            let octets = message(REPLY, [1, 1, 0, 0], &[QUESTION, owner]);
            let name = read_name(&octets, RECORDS).map(|name| name.to_string());
            assert_eq!(name.as_deref(), expected, "{owner:?}");
            let end = expected.map(|_| octets.len());
            assert_eq!(skip_name(&octets, RECORDS), end, "{owner:?}");
        };
        check(b"\0", Some("."));
        check(WWW, Some("www.Example.org."));
        check(EXAMPLE, Some("Example.org."));
        check(&[b"\x02ns", EXAMPLE].concat(), Some("ns.Example.org."));
        // A label that starts in the class of the question, covers the first byte here, and finds a root
        // behind it.
        check(&[1, 0, 0xC0, RECORDS as u8 - 1], None);
        // To itself, to its own first label, ahead, into the header, beyond the end, cut.
        check(&[0xC0, RECORDS as u8], None);
        check(&[1, b'a', 0xC0, RECORDS as u8], None);
        check(&[0xC0, RECORDS as u8 + 2, 0], None);
        check(&[0xC0, 11], None);
        check(&[0xFF, 0xFF], None);
        check(&[0xC0], None);
        check(b"", None);
        check(b"\x02n", None);
        check(b"\x40", None);
        check(b"\x80", None);
    }

    #[test]
    fn names_are_bounded_through_pointers() {
        // The name of the question has 17 bytes; with 119 labels of one byte in front it has 255.
        let check = |labels: usize, fits: bool| {
            let owner = [&b"\x01a".repeat(labels)[..], WWW].concat();
            let octets = message(REPLY, [1, 1, 0, 0], &[QUESTION, &owner]);
            assert_eq!(skip_name(&octets, RECORDS).is_some(), fits, "{labels}");
        };
        check(119, true);
        check(120, false);
    }

    #[test]
    fn chains_of_pointers_are_bounded() {
        // Each pointer leads to the previous one, the first to the question.
        let check = |pointers: usize, fits: bool| {
            let mut octets = message(REPLY, [1, 0, 0, 0], &[QUESTION]);
            for index in 0..pointers {
                let target = if index == 0 { HEADER_LEN } else { octets.len() - 2 };
                octets.extend_from_slice(&(0xC000 | target as u16).to_be_bytes());
            }
            let last = octets.len() - 2;
            assert_eq!(skip_name(&octets, last).is_some(), fits, "{pointers}");
        };
        check(1, true);
        check(MAX_JUMPS, true);
        check(MAX_JUMPS + 1, false);
        check(8_000, false);
    }

    #[test]
    fn pointers_of_all_owners_together_are_bounded() {
        // The first owners are a chain of pointers; each further owner has the whole chain to follow.
        let check = |depth: usize, further: usize, fits: bool| {
            let mut octets = message(REPLY, [1, (depth + further) as u16, 0, 0], &[QUESTION]);
            for index in 0..depth + further {
                let target = if index == 0 { HEADER_LEN } else { RECORDS + 16 * (index.min(depth) - 1) };
                octets.extend(a(&(0xC000 | target as u16).to_be_bytes()));
            }
            let header = Header::read(&octets).expect("a header");
            assert_eq!(MessageBounds::read(&octets, header, RECORDS).is_some(), fits, "{depth} {further}");
        };
        // A record of this kind has 16 octets.
        check(30, 0, true);
        check(15, 3000, true);
        check(18, 3000, false);
        check(120, 0, false);
        check(120, 3000, false);
    }
}
