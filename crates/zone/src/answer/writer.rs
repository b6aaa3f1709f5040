//! Writes the records of a response after its question. Each RRset is written whole or not at all.

use dns::{HEADER_LEN, RdataForm, RecordClass, RecordType, eq_ignore_case, suffixes};

use crate::store::names::{NameBuf, leading_name};
use crate::store::{QNAME_POINTER, Rrset};

pub(crate) struct ResponseWriter<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
    counts: [u16; 3],
    known: KnownNames,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseSection {
    Answer,
    Authority,
    Additional,
}

#[derive(Clone, Copy)]
pub(crate) enum RecordOwner<'n> {
    Question,
    Name(&'n [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl<'o> ResponseWriter<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>, limit: usize) -> Self {
        Self { out, limit, counts: [0; 3], known: KnownNames::new() }
    }

    pub(crate) fn counts(&self) -> [u16; 3] {
        self.counts
    }

    /// Writes an RRset. Returns the offset of its first owner name in the message.
    pub(crate) fn push(
        &mut self,
        section: ResponseSection,
        owner: RecordOwner<'_>,
        rrset: Rrset<'_>,
    ) -> Result<usize, NoRoom> {
        let start = self.out.len();
        let form = RdataForm::of_compressed(rrset.rtype);
        match (owner, form) {
            (RecordOwner::Question, None) => {
                if start + rrset.octets.len() > self.limit {
                    return Err(NoRoom);
                }
                self.out.extend_from_slice(rrset.octets);
            }
            (RecordOwner::Question | RecordOwner::Name(_), form) => {
                for tail in rrset.tails() {
                    self.write_owner(owner);
                    match form {
                        None => self.out.extend_from_slice(tail),
                        Some(form) => self.write_tail(tail, form),
                    }
                    if self.out.len() > self.limit {
                        return Err(self.take_back(start));
                    }
                }
            }
        }
        self.counts[section as usize] += rrset.count;
        Ok(if owner.is_question() { HEADER_LEN } else { start })
    }

    pub(crate) fn push_cname(&mut self, owner: RecordOwner<'_>, ttl: u32, target: &[u8]) -> Result<(), NoRoom> {
        let start = self.out.len();
        self.write_owner(owner);
        self.out.extend_from_slice(&RecordType::CNAME.0.to_be_bytes());
        self.out.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let rdlength = self.out.len();
        self.out.extend_from_slice(&[0, 0]);
        self.write_name(target);
        self.patch_rdlength(rdlength);
        if self.out.len() > self.limit {
            return Err(self.take_back(start));
        }
        self.counts[ResponseSection::Answer as usize] += 1;
        Ok(())
    }

    pub(crate) fn name_at(&self, at: usize) -> NameBuf {
        let mut name = [0; 255];
        let mut len = 0;
        for label in labels_at(self.out, at) {
            if let Some(room) = name.get_mut(len..len + 1 + label.len()) {
                room[0] = label.len() as u8;
                room[1..].copy_from_slice(label);
                len += room.len();
            }
        }
        NameBuf::new(name.get(..=len).unwrap_or(&[0]))
    }

    fn write_owner(&mut self, owner: RecordOwner<'_>) {
        match owner {
            RecordOwner::Question => self.out.extend_from_slice(&QNAME_POINTER),
            RecordOwner::Name(name) => self.write_name(name),
        }
    }

    fn write_tail(&mut self, tail: &[u8], form: &RdataForm) {
        let rdlength = self.out.len() + TAIL_LEN - 2;
        let Some((fixed, mut rest)) = tail.split_at_checked(TAIL_LEN + form.octets) else {
            return self.out.extend_from_slice(tail);
        };
        self.out.extend_from_slice(fixed);
        for _ in 0..form.names {
            let name = leading_name(rest);
            self.write_name(name);
            rest = &rest[name.len()..];
        }
        self.out.extend_from_slice(rest);
        self.patch_rdlength(rdlength);
    }

    fn patch_rdlength(&mut self, at: usize) {
        let len = (self.out.len() - at - 2) as u16;
        self.out[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }

    fn write_name(&mut self, name: &[u8]) {
        if self.known.count == 0 {
            self.known.note_name(HEADER_LEN, question_name(self.out));
        }
        for suffix in suffixes(name) {
            if suffix.len() == 1 {
                break;
            }
            if let Some(at) = self.known.find(self.out, suffix) {
                return self.out.extend_from_slice(&(POINTER | at).to_be_bytes());
            }
            self.known.note(self.out.len(), suffix.len());
            self.out.extend_from_slice(&suffix[..=usize::from(suffix[0])]);
        }
        self.out.push(0);
    }

    fn take_back(&mut self, start: usize) -> NoRoom {
        self.out.truncate(start);
        self.known.forget(start);
        NoRoom
    }
}

impl RecordOwner<'_> {
    fn is_question(self) -> bool {
        matches!(self, Self::Question)
    }
}

/// Names for compression: enough for typical responses, few enough for a linear search.
struct KnownNames {
    count: usize,
    names: [(u16, u8); 32],
}

impl KnownNames {
    fn new() -> Self {
        Self { count: 0, names: [(0, 0); 32] }
    }

    fn note_name(&mut self, at: usize, name: &[u8]) {
        for suffix in suffixes(name).filter(|suffix| suffix.len() > 1) {
            self.note(at + name.len() - suffix.len(), suffix.len());
        }
    }

    /// Notes a name, if a pointer of 14 bits reaches it (RFC 1035 section 4.1.4).
    fn note(&mut self, at: usize, len: usize) {
        if let (Ok(at @ ..POINTER_END), Ok(len)) = (u16::try_from(at), u8::try_from(len))
            && let Some(free) = self.names.get_mut(self.count)
        {
            *free = (at, len);
            self.count += 1;
        }
    }

    fn find(&self, message: &[u8], name: &[u8]) -> Option<u16> {
        let candidates = self.names[..self.count].iter().filter(|(_, len)| usize::from(*len) == name.len());
        candidates.map(|(at, _)| *at).find(|at| is_at(message, usize::from(*at), name))
    }

    fn forget(&mut self, start: usize) {
        self.count = self.names[..self.count].partition_point(|(at, _)| usize::from(*at) < start);
    }
}

fn is_at(message: &[u8], at: usize, name: &[u8]) -> bool {
    let mut labels = labels_at(message, at);
    let same = suffixes(name)
        .take_while(|suffix| suffix.len() > 1)
        .all(|suffix| labels.next().is_some_and(|label| eq_ignore_case(label, &suffix[1..=usize::from(suffix[0])])));
    same && labels.next().is_none()
}

fn labels_at(message: &[u8], mut at: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            match message.get(at).copied()? {
                0 => return None,
                len @ 1..=63 => {
                    let label = message.get(at + 1..at + 1 + usize::from(len));
                    at += 1 + usize::from(len);
                    return label;
                }
                high => {
                    let target = usize::from(u16::from_be_bytes([high & 0x3F, *message.get(at + 1)?]));
                    // Pointers go backwards, which rules out loops.
                    at = Some(target).filter(|target| *target < at)?;
                }
            }
        }
    })
}

fn question_name(message: &[u8]) -> &[u8] {
    message.get(HEADER_LEN..).map_or(&[], leading_name)
}

/// The tag bits of a compression pointer (RFC 1035 section 4.1.4). The other 14 bits are an offset.
const POINTER: u16 = 0xC000;

const POINTER_END: u16 = 0x4000;

const TAIL_LEN: usize = 10;
