//! What follows the question: records, section by section, and the one OPT among them.
//!
//! [`Body::read`] walks all records once. It takes nothing on trust: a count is only an upper bound that ends at the first
//! record that does not fit, and names are followed within bounds.

use super::codes::RecordType;
use super::edns::Edns;
use super::header::{HEADER_LEN, Header};
use super::name::Name;

/// The borders of the sections of a message that is sound to its last octet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body<'a> {
    /// Where the answer section starts: behind the question.
    pub(super) answers: usize,
    /// Where the authority section starts.
    pub(super) authority: usize,
    /// Where the additional section starts.
    pub(super) additional: usize,
    /// The OPT record.
    pub(super) opt: Option<Opt<'a>>,
    /// Whether the authority section has an NS record.
    pub(super) has_authority_ns: bool,
    /// Whether the authority section has an SOA record.
    pub(super) has_authority_soa: bool,
}

/// An OPT record and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt<'a> {
    /// Its first octet.
    pub(super) start: usize,
    /// Behind its last octet.
    pub(super) end: usize,
    /// What it says.
    pub(super) edns: Edns<'a>,
}

impl<'a> Body<'a> {
    /// Walks the records behind the question, which ends at `at`.
    ///
    /// `None` if a record does not fit, octets are left, or an OPT record is not alone (RFC 6891 section 6.1.1), not owned
    /// by the root or not in the additional section. Whether its options are sound is the caller's question.
    pub(super) fn read(message: &'a [u8], header: Header, at: usize) -> Option<Self> {
        let mut body = Self {
            answers: at,
            authority: at,
            additional: at,
            opt: None,
            has_authority_ns: false,
            has_authority_soa: false,
        };
        let mut at = at;
        for _ in 0..header.ancount() {
            at = Record::read(message, at)?.not_opt()?.end;
        }
        body.authority = at;
        for _ in 0..header.nscount() {
            let record = Record::read(message, at)?.not_opt()?;
            body.has_authority_ns |= record.rtype == RecordType::NS;
            body.has_authority_soa |= record.rtype == RecordType::SOA;
            at = record.end;
        }
        body.additional = at;
        for _ in 0..header.arcount() {
            let record = Record::read(message, at)?;
            if record.rtype == RecordType::OPT {
                let opt = Opt::read(message, &record)?;
                if body.opt.replace(opt).is_some() {
                    return None;
                }
            }
            at = record.end;
        }
        (at == message.len()).then_some(body)
    }
}

impl<'a> Opt<'a> {
    /// Reads an OPT record, which only the root may own (RFC 6891 section 6.1.2).
    pub(super) fn read(message: &'a [u8], record: &Record) -> Option<Self> {
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

/// Where the parts of a record stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Its first octet, the owner's.
    pub(super) start: usize,
    /// Behind the owner: type, class, TTL and RDLENGTH follow.
    pub(super) owner_end: usize,
    /// Behind those: the RDATA.
    pub(super) rdata: usize,
    /// Behind the RDATA.
    pub(super) end: usize,
    /// Its type.
    pub(super) rtype: RecordType,
}

impl Record {
    /// Reads the borders of the record at `at`. The question's name must have been found sound before.
    pub(super) fn read(message: &[u8], at: usize) -> Option<Self> {
        let owner_end = skip_name(message, at)?;
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

    /// This record, unless it is an OPT, which belongs into the additional section (RFC 6891 section 6.1.1).
    fn not_opt(self) -> Option<Self> {
        (self.rtype != RecordType::OPT).then_some(self)
    }
}

/// The end of the possibly compressed name at `at`, if the name is sound.
pub(super) fn skip_name(message: &[u8], at: usize) -> Option<usize> {
    // Nearly every owner in a reply is a pointer to the question, which has been checked already.
    if message.get(at..at + 2) == Some(&QUESTION_POINTER) {
        return Some(at + 2);
    }
    walk_name(message, at, |_| {})
}

/// The possibly compressed name at `at`, without compression.
pub(super) fn read_name(message: &[u8], at: usize) -> Option<Name> {
    let mut name = Name::root();
    let mut fits = true;
    walk_name(message, at, |label| fits &= name.push_label(label).is_ok())?;
    fits.then_some(name)
}

/// Follows the name at `start` to its root, shows each label on the way, and says where the name ends at `start`'s place.
///
/// Every pointer must go to before the labels that led to it, so there is no loop. Still, without a bound on the jumps a
/// message could hold one long chain of pointers and thousands of owners at its end.
fn walk_name<'a>(
    message: &'a [u8],
    start: usize,
    mut on_label: impl FnMut(&'a [u8]),
) -> Option<usize> {
    let mut at = start;
    let mut segment = start;
    let mut end = None;
    let mut name_len = 1;
    let mut jumps = 0;
    loop {
        match Piece::read(message, at)? {
            Piece::Label(label) => {
                name_len += 1 + label.len();
                if name_len > Name::MAX_LEN {
                    return None;
                }
                on_label(label);
                at += 1 + label.len();
            }
            Piece::Pointer(target) => {
                jumps += 1;
                if !(HEADER_LEN..segment).contains(&target) || jumps > MAX_JUMPS {
                    return None;
                }
                end.get_or_insert(at + 2);
                segment = target;
                at = target;
            }
            Piece::Root => return Some(end.unwrap_or(at + 1)),
        }
    }
}

/// One step of a name in a message.
pub(super) enum Piece<'a> {
    /// A label, without its length octet.
    Label(&'a [u8]),
    /// The rest of the name stands there.
    Pointer(usize),
    /// The end.
    Root,
}

impl<'a> Piece<'a> {
    /// Reads the step at `at`.
    pub(super) fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let (&first, rest) = message.get(at..)?.split_first()?;
        match first {
            0 => Some(Self::Root),
            1..=0x3F => Some(Self::Label(rest.get(..usize::from(first))?)),
            // RFC 6891 section 5: 01 and 10 are label types that never came into use.
            0x40..=0xBF => None,
            0xC0..=0xFF => {
                let target = u16::from_be_bytes([first & 0x3F, *rest.first()?]);
                Some(Self::Pointer(usize::from(target)))
            }
        }
    }
}

/// A pointer to the question's name (RFC 1035 section 4.1.4).
const QUESTION_POINTER: [u8; 2] = [0xC0, HEADER_LEN as u8];

/// Octets of type, class, TTL and RDLENGTH.
const RECORD_FIXED_LEN: usize = 10;

/// Jumps in one name: the longest name has 127 labels, and a sender needs at most one pointer behind each.
const MAX_JUMPS: usize = 127;
