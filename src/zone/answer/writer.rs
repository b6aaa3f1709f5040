//! Writes the records of a response behind its question, RRset by RRset, each whole or not at all.
//!
//! Owner names are compressed, and the names in RDATA of the types where that is allowed. A record that belongs to the
//! question's name and has no such names is copied as it lies in the store, which is most of what is ever sent.

use crate::wire::{HEADER_LEN, RdataForm, RecordClass, RecordType, eq_ignore_case, suffixes};
use crate::zone::store::names::{NameBuf, leading_name};
use crate::zone::store::{QNAME_POINTER, Rrset};

/// A response behind its question.
pub(in crate::zone) struct Writer<'o> {
    /// The message so far: header and question, then records.
    out: &'o mut Vec<u8>,
    /// How long the message may become.
    limit: usize,
    /// Records in the answer, authority and additional section.
    counts: [u16; 3],
    /// Names that others may point at.
    known: Known,
}

/// A section of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) enum Section {
    /// What was asked for.
    Answer,
    /// Who to ask, or why there is no answer.
    Authority,
    /// What will be asked for next.
    Additional,
}

/// The owner of records in a response.
#[derive(Clone, Copy)]
pub(in crate::zone) enum Owner<'n> {
    /// The name of the question.
    Question,
    /// This name.
    Name(&'n [u8]),
}

/// Something did not fit, and nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) struct NoRoom;

impl<'o> Writer<'o> {
    /// Writes behind the header and question in `out`, up to so many octets.
    pub(in crate::zone) fn new(out: &'o mut Vec<u8>, limit: usize) -> Self {
        Self { out, limit, counts: [0; 3], known: Known::new() }
    }

    /// How many records each section has.
    pub(in crate::zone) fn counts(&self) -> [u16; 3] {
        self.counts
    }

    /// Writes an RRset. Returns where its first owner name is in the message.
    pub(in crate::zone) fn push(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rrset: Rrset<'_>,
    ) -> Result<usize, NoRoom> {
        let start = self.out.len();
        let form = RdataForm::of_compressed(rrset.rtype);
        match (owner, form) {
            (Owner::Question, None) => {
                if start + rrset.octets.len() > self.limit {
                    return Err(NoRoom);
                }
                self.out.extend_from_slice(rrset.octets);
            }
            (Owner::Question | Owner::Name(_), form) => {
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

    /// Writes the CNAME record that a DNAME record implies.
    pub(in crate::zone) fn push_cname(&mut self, owner: Owner<'_>, ttl: u32, target: &[u8]) -> Result<(), NoRoom> {
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
        self.counts[Section::Answer as usize] += 1;
        Ok(())
    }

    /// The name that was written at a place, in full.
    pub(in crate::zone) fn name_at(&self, at: usize) -> NameBuf {
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

    /// Writes an owner name.
    fn write_owner(&mut self, owner: Owner<'_>) {
        match owner {
            Owner::Question => self.out.extend_from_slice(&QNAME_POINTER),
            Owner::Name(name) => self.write_name(name),
        }
    }

    /// Writes what follows an owner name, with the names in its RDATA compressed.
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

    /// Sets the RDLENGTH at a place to what is behind it.
    fn patch_rdlength(&mut self, at: usize) {
        let len = (self.out.len() - at - 2) as u16;
        self.out[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// Writes a name, as a pointer from where its rest is known.
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

    /// Takes back what was written from a place on.
    fn take_back(&mut self, start: usize) -> NoRoom {
        self.out.truncate(start);
        self.known.forget(start);
        NoRoom
    }
}

impl Owner<'_> {
    /// Whether this is the name of the question.
    fn is_question(self) -> bool {
        matches!(self, Self::Question)
    }
}

/// Names in a message that others may point at: so many that typical responses find theirs, so few that a search is short.
struct Known {
    count: usize,
    /// Where each starts, and its length when written in full.
    names: [(u16, u8); 32],
}

impl Known {
    /// None yet.
    fn new() -> Self {
        Self { count: 0, names: [(0, 0); 32] }
    }

    /// Notes a name and all its suffixes but the root.
    fn note_name(&mut self, at: usize, name: &[u8]) {
        for suffix in suffixes(name).filter(|suffix| suffix.len() > 1) {
            self.note(at + name.len() - suffix.len(), suffix.len());
        }
    }

    /// Notes a name of so many octets. A pointer has 14 bits (RFC 1035 section 4.1.4): what is further away is not noted.
    fn note(&mut self, at: usize, len: usize) {
        if let (Ok(at @ ..POINTER_END), Ok(len)) = (u16::try_from(at), u8::try_from(len))
            && let Some(free) = self.names.get_mut(self.count)
        {
            *free = (at, len);
            self.count += 1;
        }
    }

    /// Where a name stands in the message.
    fn find(&self, message: &[u8], name: &[u8]) -> Option<u16> {
        let candidates = self.names[..self.count].iter().filter(|(_, len)| usize::from(*len) == name.len());
        candidates.map(|(at, _)| *at).find(|at| is_at(message, usize::from(*at), name))
    }

    /// Forgets the names from a place on.
    fn forget(&mut self, start: usize) {
        self.count = self.names[..self.count].partition_point(|(at, _)| usize::from(*at) < start);
    }
}

/// Whether a name stands at a place of a message, in any case.
fn is_at(message: &[u8], at: usize, name: &[u8]) -> bool {
    let mut labels = labels_at(message, at);
    let same = suffixes(name)
        .take_while(|suffix| suffix.len() > 1)
        .all(|suffix| labels.next().is_some_and(|label| eq_ignore_case(label, &suffix[1..=usize::from(suffix[0])])));
    same && labels.next().is_none()
}

/// The labels of the name at a place of our own message, pointers followed.
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
                    // Pointers go backwards, or this would be no name.
                    at = Some(target).filter(|target| *target < at)?;
                }
            }
        }
    })
}

/// The name of the question of a message.
fn question_name(message: &[u8]) -> &[u8] {
    message.get(HEADER_LEN..).map_or(&[], leading_name)
}

/// The first bits of a compression pointer (RFC 1035 section 4.1.4); the other 14 are an offset.
const POINTER: u16 = 0xC000;

/// Offsets that a pointer reaches are below this.
const POINTER_END: u16 = 0x4000;

/// Octets of a record between its owner and its RDATA.
const TAIL_LEN: usize = 10;
