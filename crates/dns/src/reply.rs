//! Replies of backends: complete checks, and the kind of a reply.

use super::body::{MessageBounds, OptBounds, RecordBounds, records};
use super::codes::{ExtendedError, Opcode, Rcode};
use super::cookie::CookieOption;
use super::edns::Edns;
use super::header::{Flag, HEADER_LEN, Header};
use super::question::Question;

/// A completely checked reply of a backend, or a bare failure. It is not matched to a query yet.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    message: &'a [u8],
    header: Header,
    question: Option<Question<'a>>,
    body: MessageBounds<'a>,
}

/// The error for a datagram that is no reply. The caller counts and drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedReply;

/// Reads a backend's message as a reply.
pub fn read_reply(message: &[u8]) -> Result<Reply<'_>, MalformedReply> {
    check_reply(message).ok_or(MalformedReply)
}

/// Returns the code of the first extended error of a response (RFC 8914 section 2).
pub fn extended_error(response: &[u8]) -> Option<u16> {
    if Header::read(response)?.arcount() == 0 {
        return None;
    }
    check_reply(response)?.extended_errors().next().map(|error| error.0)
}

fn check_reply(message: &[u8]) -> Option<Reply<'_>> {
    let header = Header::read(message)?;
    if !header.is_response() || header.opcode() != Opcode::QUERY {
        return None;
    }
    let question = match header.qdcount() {
        // Some servers answer FORMERR, NOTIMP or REFUSED with a header only. The other counts must be zero
        // too, or the walk below fails.
        0 if message.len() == HEADER_LEN && header.rcode() != Rcode::NOERROR => None,
        1 => Some(Question::read(message)?),
        _ => return None,
    };
    let records = question.map_or(HEADER_LEN, |question| question.end());
    let body = MessageBounds::read(message, header, records)?;
    // RFC 6891 section 6.1.3: a responder writes in the version of the query, 0, even if it names another.
    if body.opt.is_some_and(|opt| !opt.edns.is_sound()) {
        return None;
    }
    Some(Reply { message, header, question, body })
}

impl<'a> Reply<'a> {
    /// Returns the whole message.
    pub fn as_wire(&self) -> &'a [u8] {
        self.message
    }

    /// Returns the header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// Returns the question; `None` if the reply is a bare failure.
    pub fn question(&self) -> Option<Question<'a>> {
        self.question
    }

    /// Returns the whole rcode, with the bits of the OPT record (RFC 6891 section 6.1.3).
    pub fn rcode(&self) -> Rcode {
        let high = self.edns().map_or(0, |edns| edns.extended_rcode);
        Rcode(u16::from(high) << 4 | self.header.rcode().0)
    }

    /// Returns the OPT record, if there is one.
    pub fn edns(&self) -> Option<Edns<'a>> {
        self.body.opt.map(|opt| opt.edns)
    }

    /// Returns the COOKIE option, if there is a valid one.
    pub fn cookie(&self) -> Option<CookieOption<'a>> {
        self.edns()?.cookie().ok().flatten()
    }

    /// Returns the codes of the extended errors (RFC 8914 section 2).
    pub fn extended_errors(&self) -> impl Iterator<Item = ExtendedError> + use<'a> {
        self.edns().into_iter().flat_map(|edns| edns.extended_errors())
    }

    /// Returns true if the reply carries a TSIG record, which is not verified here.
    pub fn is_signed(&self) -> bool {
        self.body.is_signed
    }

    /// Returns true if the reply is a header with a failure and nothing else.
    pub fn is_bare_failure(&self) -> bool {
        self.question.is_none()
    }

    /// Returns true if the reply is to this question (in wire form), ignoring case.
    pub fn answers_question(&self, question_wire: &[u8]) -> bool {
        self.question.is_some_and(|question| question.is(question_wire))
    }

    /// Returns true if TC is set: the backend had more data.
    pub fn is_truncated(&self) -> bool {
        self.header.is_truncated()
    }

    /// Returns true if AA is set.
    pub(crate) fn is_authoritative(&self) -> bool {
        self.header.is_authoritative()
    }

    /// Returns true if AD is set: the backend claims to have validated all data (RFC 4035 section 3.2.3).
    pub fn is_authentic(&self) -> bool {
        self.header.authentic_data()
    }

    /// Clears AD of a backend that is not trusted (RFC 4035 section 4.9.3), but not in the wire form.
    pub fn without_authentic(self) -> Self {
        Self { header: self.header.with(Flag::AuthenticData, false), ..self }
    }

    /// Appends the message with the present header of the reply.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header.to_wire());
        out.extend_from_slice(self.message.get(HEADER_LEN..).unwrap_or_default());
    }

    /// Returns true if the answer section has records.
    pub fn has_answers(&self) -> bool {
        self.header.ancount() > 0
    }

    /// Returns true if the reply is a referral to other servers. RFC 2308 section 2.2: unlike NODATA it has
    /// NS records in the authority section and no SOA. AA marks data of an authority (RFC 1034 section 4.3.2
    /// step 3b leaves it clear).
    pub fn is_referral(&self) -> bool {
        self.rcode() == Rcode::NOERROR
            && !self.has_answers()
            && !self.is_authoritative()
            && self.body.has_authority_ns
            && !self.body.has_authority_soa
    }

    pub(super) fn has_authority_soa(&self) -> bool {
        self.body.has_authority_soa
    }

    /// Returns the offset of the answer section.
    pub fn answers_start(&self) -> usize {
        self.body.answers
    }

    /// Returns the offset of the authority section.
    pub(crate) fn authority_start(&self) -> usize {
        self.body.authority
    }

    /// Returns the offset of the additional section.
    pub(crate) fn additional_start(&self) -> usize {
        self.body.additional
    }

    /// The records of the answer section.
    pub(super) fn answers(&self) -> impl Iterator<Item = RecordBounds> + use<'a> {
        records(self.message, self.body.answers).take(self.header.ancount().into())
    }

    pub(super) fn opt(&self) -> Option<OptBounds<'a>> {
        self.body.opt
    }
}

#[cfg(test)]
mod tests {
    use super::super::codes::RecordType;
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, a, message, opt, record};
    use super::*;

    #[test]
    fn replies_are_taken_or_malformed() {
        let check = |octets: &[u8], taken: bool| {
            assert_eq!(read_reply(octets).is_ok(), taken, "{octets:?}");
        };
        let a = &a(WWW)[..];
        check(&message(REPLY, [1, 1, 0, 1], &[QUESTION, a, &opt(0, 0, b"")]), true);
        check(&message(REPLY, [1, 0, 0, 0], &[QUESTION]), true);
        check(&[], false);
        check(&message(REPLY, [1, 0, 0, 0], &[QUESTION])[..11], false);
        check(&message(0, [1, 0, 0, 0], &[QUESTION]), false);
        check(&message(REPLY | 0x2000, [1, 0, 0, 0], &[QUESTION]), false);
        check(&message(REPLY, [2, 0, 0, 0], &[QUESTION, QUESTION]), false);
        check(&message(REPLY, [1, 1, 0, 0], &[QUESTION]), false);
        check(&message(REPLY, [1, 0, 0, 0], &[QUESTION, a]), false);
        check(&message(REPLY, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, b"\0\x03\0\x01")]), false);
        // A responder may name its highest version.
        check(&message(REPLY, [1, 0, 0, 1], &[QUESTION, &opt(0, 1, b"")]), true);
        // A bare failure has no bytes behind the header.
        check(&message(REPLY | 5, [0; 4], &[]), true);
        check(&message(REPLY, [0; 4], &[]), false);
        check(&message(REPLY | 5, [0, 0, 0, 1], &[]), false);
        check(&message(REPLY | 5, [0, 0, 0, 1], &[&opt(0, 0, b"")]), false);
        check(&message(REPLY | 5, [0; 4], &[b"\0"]), false);
    }

    #[test]
    fn a_reply_tells_its_kind() {
        let check = |bits: u16, counts: [u16; 4], parts: &[&[u8]], rcode: Rcode, referral: bool| {
            let octets = message(REPLY | bits, counts, &[&[QUESTION], parts].concat());
            let reply = read_reply(&octets).expect("a reply");
            assert_eq!((reply.rcode(), reply.is_referral()), (rcode, referral), "{octets:?}");
            assert_eq!(reply.has_answers(), counts[1] > 0);
            assert!(!reply.is_bare_failure() && reply.answers_question(QUESTION));
        };
        let ns = &record(EXAMPLE, RecordType::NS, WWW)[..];
        let soa = &record(EXAMPLE, RecordType::SOA, &[0; 22])[..];
        check(0, [1, 1, 0, 0], &[&a(WWW)], Rcode::NOERROR, false);
        check(0, [1, 0, 1, 0], &[ns], Rcode::NOERROR, true);
        check(0, [1, 0, 2, 0], &[ns, soa], Rcode::NOERROR, false);
        check(0, [1, 0, 1, 0], &[soa], Rcode::NOERROR, false);
        check(0, [1, 0, 0, 1], &[ns], Rcode::NOERROR, false);
        check(0x0400, [1, 0, 1, 0], &[ns], Rcode::NOERROR, false);
        check(0, [1, 1, 1, 0], &[&a(WWW), ns], Rcode::NOERROR, false);
        check(3, [1, 0, 1, 0], &[ns], Rcode::NXDOMAIN, false);
        check(0, [1, 0, 1, 1], &[ns, &opt(1, 0, b"")], Rcode::BADVERS, false);
        check(7, [1, 0, 0, 1], &[&opt(1, 0, b"")], Rcode::BADCOOKIE, false);
    }

    #[test]
    fn a_reply_loses_ad_and_nothing_else() {
        let octets = message(REPLY | 0x0420, [1, 1, 0, 0], &[QUESTION, &a(WWW)]);
        let reply = read_reply(&octets).expect("a reply");
        let check = |reply: Reply<'_>, expected: &[u8]| {
            let mut out = vec![7];
            reply.append_to(&mut out);
            assert_eq!(out.split_first(), Some((&7, expected)));
        };
        check(reply, &octets);
        check(reply.without_authentic(), &message(REPLY | 0x0400, [1, 1, 0, 0], &[QUESTION, &a(WWW)]));
        assert!(reply.is_authentic() && !reply.without_authentic().is_authentic());
    }

    #[test]
    fn a_bare_failure_answers_no_question() {
        let octets = message(REPLY | 5, [0; 4], &[]);
        let reply = read_reply(&octets).expect("a bare failure");
        assert!(reply.is_bare_failure() && !reply.answers_question(QUESTION));
        assert_eq!(reply.rcode(), Rcode::REFUSED);
    }
}
