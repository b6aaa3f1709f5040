//! Replies: what a backend sent, checked from the first octet to the last, and what kind of reply it is.

use super::body::{Body, Opt};
use super::codes::{ExtendedError, Opcode, OptionCode, Rcode};
use super::cookie::CookieOption;
use super::edns::Edns;
use super::header::{Flag, HEADER_LEN, Header};
use super::question::Question;

/// A backend's reply, sound to its last octet, or a bare failure.
///
/// It is not yet known to belong to a query: the ID and [`Reply::answers_question`] tell (RFC 5452 section 9.1).
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The whole message.
    message: &'a [u8],
    header: Header,
    /// Its question; `None` if the reply is bare.
    question: Option<Question<'a>>,
    /// Where its sections are.
    body: Body<'a>,
}

/// A datagram that is no reply: it is counted and dropped, whatever part of it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Takes a backend's message as a reply.
pub fn read_reply(message: &[u8]) -> Result<Reply<'_>, Malformed> {
    check_reply(message).ok_or(Malformed)
}

/// The code of the first extended error of a response (RFC 8914 section 2), if it has one.
pub fn extended_error(response: &[u8]) -> Option<u16> {
    if Header::read(response)?.arcount() == 0 {
        return None;
    }
    let mut options = check_reply(response)?.edns()?.iter_options();
    let (_, data) = options.find(|(code, _)| *code == OptionCode::EXTENDED_ERROR)?;
    data.first_chunk().map(|code| u16::from_be_bytes(*code))
}

fn check_reply(message: &[u8]) -> Option<Reply<'_>> {
    let header = Header::read(message)?;
    if !header.is_response() || header.opcode() != Opcode::QUERY {
        return None;
    }
    let question = match header.qdcount() {
        // Some servers answer FORMERR, NOTIMP or REFUSED with a header and nothing else. Without records the counts
        // behind the question must be zero too, or the walk below would fail.
        0 if message.len() == HEADER_LEN && header.rcode() != Rcode::NOERROR => None,
        1 => Some(Question::read(message)?),
        _ => return None,
    };
    let records = question.map_or(HEADER_LEN, |question| question.end());
    let body = Body::read(message, header, records)?;
    // RFC 6891 section 6.1.3: whatever version a responder names, it writes in the version of the query, ours: 0.
    if body.opt.is_some_and(|opt| !opt.edns.is_sound()) {
        return None;
    }
    Some(Reply { message, header, question, body })
}

impl<'a> Reply<'a> {
    /// The whole message.
    pub fn as_wire(&self) -> &'a [u8] {
        self.message
    }

    /// The header.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The question; `None` if the reply is a bare failure.
    pub fn question(&self) -> Option<Question<'a>> {
        self.question
    }

    /// The whole rcode, with the bits that the OPT record adds (RFC 6891 section 6.1.3).
    pub fn rcode(&self) -> Rcode {
        let high = self.edns().map_or(0, |edns| edns.extended_rcode);
        Rcode(u16::from(high) << 4 | self.header.rcode().0)
    }

    /// The OPT record, if there is one.
    pub fn edns(&self) -> Option<Edns<'a>> {
        self.body.opt.map(|opt| opt.edns)
    }

    /// Its COOKIE option, if it has a sound one.
    pub fn cookie(&self) -> Option<CookieOption<'a>> {
        self.edns()?.cookie().ok().flatten()
    }

    /// The codes of its extended errors (RFC 8914 section 2); several are possible.
    pub fn extended_errors(&self) -> impl Iterator<Item = ExtendedError> + use<'a> {
        self.edns().into_iter().flat_map(|edns| edns.extended_errors())
    }

    /// Whether it bears a TSIG record, which nobody here has verified.
    pub fn is_signed(&self) -> bool {
        self.body.is_signed
    }

    /// Whether it is a header with a failure and nothing else, not even the question.
    pub fn is_bare_failure(&self) -> bool {
        self.question.is_none()
    }

    /// Whether the reply is to this question (in wire form), whatever the case.
    pub fn answers_question(&self, question_wire: &[u8]) -> bool {
        self.question.is_some_and(|question| question.is(question_wire))
    }

    /// TC: the backend had more to say.
    pub fn is_truncated(&self) -> bool {
        self.header.is_truncated()
    }

    /// AA: from an authority for the name.
    pub fn is_authoritative(&self) -> bool {
        self.header.is_authoritative()
    }

    /// AD: the backend claims to have validated all of it (RFC 4035 section 3.2.3).
    pub fn is_authentic(&self) -> bool {
        self.header.authentic_data()
    }

    /// The same without AD: of a backend whose AD is not trusted (RFC 4035 section 4.9.3). Its octets are as they came.
    pub fn without_authentic(self) -> Self {
        Self { header: self.header.with(Flag::AuthenticData, false), ..self }
    }

    /// Appends the message with the header that the reply has now.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header.to_wire());
        out.extend_from_slice(self.message.get(HEADER_LEN..).unwrap_or_default());
    }

    /// Whether the answer section has records.
    pub fn has_answers(&self) -> bool {
        self.header.ancount() > 0
    }

    /// Whether the reply names other servers to ask instead of answering.
    ///
    /// RFC 2308 section 2.2 tells it from NODATA: NS records in the authority section and no SOA. AA is the mark of an
    /// authority that says something of its own (RFC 1034 section 4.3.2 step 3b leaves it clear).
    pub fn is_referral(&self) -> bool {
        self.rcode() == Rcode::NOERROR
            && !self.has_answers()
            && !self.is_authoritative()
            && self.body.has_authority_ns
            && !self.body.has_authority_soa
    }

    /// Whether the authority section has an SOA record.
    pub(super) fn has_authority_soa(&self) -> bool {
        self.body.has_authority_soa
    }

    /// Where the answer section starts: behind the question.
    pub fn answers_start(&self) -> usize {
        self.body.answers
    }

    /// Where the authority section starts.
    pub fn authority_start(&self) -> usize {
        self.body.authority
    }

    /// Where the additional section starts.
    pub fn additional_start(&self) -> usize {
        self.body.additional
    }

    /// The OPT record and its place.
    pub(super) fn opt(&self) -> Option<Opt<'a>> {
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
        // A responder may name the highest version that it knows.
        check(&message(REPLY, [1, 0, 0, 1], &[QUESTION, &opt(0, 1, b"")]), true);
        // Bare: a failure, and nothing at all behind it.
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
