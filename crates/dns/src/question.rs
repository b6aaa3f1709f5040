//! The question section: one name, type and class (RFC 1035 section 4.1.2).

use super::codes::{RecordClass, RecordType};
use super::header::HEADER_LEN;
use super::name;

/// The question of a message, in wire form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    wire: &'a [u8],
    qtype: RecordType,
    qclass: RecordClass,
}

impl<'a> Question<'a> {
    /// Reads the question behind the header. Rejects a compressed name: there is no earlier name.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let octets = message.get(HEADER_LEN..)?;
        let name_len = name::wire_len(octets).ok()?;
        let &[t0, t1, c0, c1] = octets.get(name_len..)?.first_chunk()?;
        Some(Self {
            wire: octets.get(..name_len + FIXED_LEN)?,
            qtype: RecordType(u16::from_be_bytes([t0, t1])),
            qclass: RecordClass(u16::from_be_bytes([c0, c1])),
        })
    }

    /// Returns the name in wire form, in its original case.
    pub fn qname(&self) -> &'a [u8] {
        qname(self.wire)
    }

    /// Returns the QTYPE.
    pub fn qtype(&self) -> RecordType {
        self.qtype
    }

    /// Returns the QCLASS.
    pub fn qclass(&self) -> RecordClass {
        self.qclass
    }

    /// Returns name, type and class in wire form.
    pub fn as_wire(&self) -> &'a [u8] {
        self.wire
    }

    pub(super) fn is(&self, question_wire: &[u8]) -> bool {
        // Type and class are compared exactly: HTTPS is 65, and so is `A`.
        self.wire.last_chunk::<FIXED_LEN>() == question_wire.last_chunk()
            && name::eq_ignore_case(self.qname(), qname(question_wire))
    }

    pub(super) fn end(&self) -> usize {
        HEADER_LEN + self.wire.len()
    }
}

pub(super) fn qname(question_wire: &[u8]) -> &[u8] {
    question_wire.split_last_chunk::<FIXED_LEN>().map_or(&[], |(name, _)| name)
}

const FIXED_LEN: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::sample::{QUESTION, message};
    use super::*;

    #[test]
    fn questions_are_read() {
        let octets = message(0, [1, 0, 0, 0], &[QUESTION, b"rest"]);
        let question = Question::read(&octets).expect("a question");
        assert_eq!(question.qname(), b"\x03www\x07Example\x03org\0");
        assert_eq!(question.qtype(), RecordType::A);
        assert_eq!(question.qclass(), RecordClass::IN);
        assert_eq!(question.as_wire(), QUESTION);
        assert_eq!(question.end(), HEADER_LEN + QUESTION.len());
    }

    #[test]
    fn broken_questions_are_refused() {
        let check = |question: &[u8]| {
            let octets = message(0, [1, 0, 0, 0], &[question]);
            assert_eq!(Question::read(&octets), None, "{question:?}");
        };
        check(b"");
        check(b"\0\0\x01\0");
        check(b"\x03ww\0\0\x01\0\x01");
        check(b"\x03www\xC0\x0C\0\x01\0\x01");
        check(b"\xC0\x0C\0\x01\0\x01");
        check(b"\x41a\0\0\x01\0\x01");
        check(&[&b"\x01a".repeat(128)[..], b"\0\0\x01\0\x01"].concat());
    }

    #[test]
    fn only_the_case_of_the_name_may_differ() {
        let check = |a: &[u8], b: &[u8], expected: bool| {
            let octets = message(0, [1, 0, 0, 0], &[a]);
            let question = Question::read(&octets).expect("a question");
            assert_eq!(question.is(b), expected, "{a:?} {b:?}");
        };
        check(b"\x01a\0\0\x01\0\x01", b"\x01A\0\0\x01\0\x01", true);
        check(b"\x01a\0\0\x01\0\x01", b"\x01b\0\0\x01\0\x01", false);
        check(b"\x01a\0\0\x01\0\x01", b"\0\0\x01\0\x01", false);
        check(b"\x01a\0\0\x01\0\x01", b"\x01a\0\0\x01\0\x03", false);
        check(b"\x01a\0\0\x01\0\x01", b"", false);
        // HTTPS (65) and TYPE97 differ as `A` and `a` do.
        check(b"\x01a\0\0\x41\0\x01", b"\x01a\0\0\x61\0\x01", false);
    }
}
