//! The question section: one name, type and class (RFC 1035 section 4.1.2).

use super::codes::{RecordClass, RecordType};
use super::header::HEADER_LEN;
use super::name;

/// The question of a message, as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// Name, type and class.
    wire: &'a [u8],
    /// What is asked for.
    qtype: RecordType,
    /// In which class.
    qclass: RecordClass,
}

impl<'a> Question<'a> {
    /// Reads the question behind the header.
    ///
    /// A compressed name is refused: nothing precedes it that a pointer might mean.
    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let octets = message.get(HEADER_LEN..)?;
        let name_len = name::wire_len(octets).ok()?;
        let &[t0, t1, c0, c1] = octets.get(name_len..)?.first_chunk()?;
        Some(Self {
            wire: octets.get(..name_len + FIXED_LEN)?,
            qtype: RecordType(u16::from_be_bytes([t0, t1])),
            qclass: RecordClass(u16::from_be_bytes([c0, c1])),
        })
    }

    /// The name in wire form, in the case that it was sent in.
    pub fn qname(&self) -> &'a [u8] {
        qname(self.wire)
    }

    /// The type asked for.
    pub fn qtype(&self) -> RecordType {
        self.qtype
    }

    /// The class asked for.
    pub fn qclass(&self) -> RecordClass {
        self.qclass
    }

    /// Name, type and class in wire form.
    pub fn as_wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Whether this is that other question (in wire form), case aside.
    pub(super) fn is(&self, question_wire: &[u8]) -> bool {
        // Type and class are compared exactly: HTTPS is 65, and so is `A`.
        self.wire.last_chunk::<FIXED_LEN>() == question_wire.last_chunk()
            && name::eq_ignore_case(self.qname(), qname(question_wire))
    }

    /// Where it ends in its message.
    pub(super) fn end(&self) -> usize {
        HEADER_LEN + self.wire.len()
    }
}

/// The name of a question in wire form.
pub(super) fn qname(question_wire: &[u8]) -> &[u8] {
    question_wire
        .split_last_chunk::<FIXED_LEN>()
        .map_or(&[], |(name, _)| name)
}

/// Octets of type and class.
const FIXED_LEN: usize = 4;
