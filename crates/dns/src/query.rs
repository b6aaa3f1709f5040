//! Queries of clients: their parts, their form for a backend, and the key by which two are equal.

use super::body::MessageBounds;
use super::codes::{Opcode, OptionCode, Rcode, RecordClass, RecordType};
use super::cookie::CookiePair;
use super::edns::{Edns, OPT_FIXED_LEN, OptRecord, OptionPassing, empty_option, set_rest_length};
use super::form::limit;
use super::header::{Flag, Header, rewrite_header};
use super::hop::add_opt;
use super::name::{Name, fold};
use super::question::Question;
use super::transport::Transport;

/// A completely checked query of a client.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The header.
    pub header: Header,
    /// The question.
    pub question: Question<'a>,
    /// The OPT record, if there is one. Its version is 0.
    pub edns: Option<Edns<'a>>,
    /// True if the query carries a TSIG record, which is not verified yet.
    pub is_signed: bool,
}

impl Query<'_> {
    /// Returns true if the client accepts DNSSEC records.
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Returns the longest response to the client by a transport.
    pub fn limit(&self, transport: Transport, own_udp_size: u16) -> usize {
        limit(transport, self.edns.map(|edns| edns.udp_size), own_udp_size)
    }

    /// Appends the folded question to `out` and returns its flags: the parts of a [`QuestionKey`].
    pub fn fold_question(&self, out: &mut Vec<u8>) -> QuestionFlags {
        let start = out.len();
        out.extend_from_slice(self.question.as_wire());
        let qname = start..start + self.question.qname().len();
        fold(out.get_mut(qname).unwrap_or_default());
        QuestionFlags::of(self)
    }
}

/// RD, CD and DO as a byte: the flags that distinguish questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuestionFlags(u8);

impl QuestionFlags {
    const RECURSION_DESIRED: u8 = 1;
    const CHECKING_DISABLED: u8 = 1 << 1;
    const DNSSEC_OK: u8 = 1 << 2;

    const SIGNED: u8 = 1 << 7;

    /// Returns the flags of a query, without the one for TSIG.
    pub(crate) fn of(query: &Query<'_>) -> Self {
        Self(
            (u8::from(query.header.recursion_desired()) * Self::RECURSION_DESIRED)
                | (u8::from(query.header.checking_disabled()) * Self::CHECKING_DISABLED)
                | (u8::from(query.dnssec_ok()) * Self::DNSSEC_OK),
        )
    }

    /// Makes flags from a byte. Unassigned bits are cleared.
    pub fn of_octet(octet: u8) -> Self {
        Self(octet & (Self::RECURSION_DESIRED | Self::CHECKING_DISABLED | Self::DNSSEC_OK))
    }

    /// Returns the flags as a byte.
    pub fn octet(self) -> u8 {
        self.0
    }

    /// Clears RD, which changes the servers that are asked, but not the answer.
    pub fn without_recursion_desired(self) -> Self {
        Self(self.0 & !Self::RECURSION_DESIRED)
    }

    /// Sets the TSIG flag. No [`QuestionKey`] has this flag, so such a query shares nothing.
    pub fn signed(self) -> Self {
        Self(self.0 | Self::SIGNED)
    }

    /// Returns true if the query carries a TSIG record.
    pub fn is_signed(self) -> bool {
        self.0 & Self::SIGNED != 0
    }

    /// Returns true if RD is set.
    pub fn recursion_desired(self) -> bool {
        self.0 & Self::RECURSION_DESIRED != 0
    }

    /// Returns true if CD is set.
    pub fn checking_disabled(self) -> bool {
        self.0 & Self::CHECKING_DISABLED != 0
    }

    /// Returns true if DO is set.
    pub fn dnssec_ok(self) -> bool {
        self.0 & Self::DNSSEC_OK != 0
    }
}

/// The reason to reject a datagram as a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryRejection {
    /// The datagram is shorter than a header, so there is no ID for an answer.
    Short,
    /// QR is set. An answer could start a loop of two servers.
    NotAQuery,
    /// [`write_error`](super::write_error) answers it with this rcode.
    Answer(Rcode),
}

/// Reads a client's message as a query. The rcode for opcodes other than QUERY, also NOTIFY, is NOTIMP.
pub fn read_query(message: &[u8]) -> Result<Query<'_>, QueryRejection> {
    let header = Header::read(message).ok_or(QueryRejection::Short)?;
    if header.is_response() {
        return Err(QueryRejection::NotAQuery);
    }
    // The layout of other opcodes is unknown, so NOTIMP comes before any FORMERR.
    if header.opcode() != Opcode::QUERY {
        return Err(QueryRejection::Answer(Rcode::NOTIMP));
    }
    let broken = QueryRejection::Answer(Rcode::FORMERR);
    // RFC 9619 section 4: QDCOUNT above 1 is a format error. QDCOUNT 0 is one here too, because routing needs
    // a name. Deviation: RFC 7873 section 5.4 allows 0 in a query for a cookie; here any response carries a
    // cookie.
    if header.qdcount() != 1 {
        return Err(broken);
    }
    let question = Question::read(message).ok_or(broken)?;
    let body = MessageBounds::read(message, header, question.end()).ok_or(broken)?;
    let edns = body.opt.map(|opt| opt.edns);
    if let Some(edns) = edns {
        // RFC 6891 section 6.1.3. The layout of options in a later version is unknown.
        if edns.version > 0 {
            return Err(QueryRejection::Answer(Rcode::BADVERS));
        }
        if !edns.is_sound() {
            return Err(broken);
        }
    }
    Ok(Query { header, question, edns, is_signed: body.is_signed })
}

/// Writes the query to a backend into `out`, with ID 0, and returns the offset of its OPT record, or the end.
/// The query keeps RD, AD and CD, DO and the options beyond the hop, because OPT concerns one hop (RFC 6891
/// section 6.1.1). Options that exceed `own_udp_size` bytes, at least 512, are left out.
pub fn write_query(query: &Query<'_>, own_udp_size: u16, out: &mut Vec<u8>) -> usize {
    let additional = u16::from(query.edns.is_some());
    let header = [Flag::RecursionDesired, Flag::AuthenticData, Flag::CheckingDisabled]
        .into_iter()
        .fold(Header::new(0), |header, flag| header.with(flag, query.header.has(flag)))
        .with_counts([1, 0, 0, additional]);

    out.clear();
    out.extend_from_slice(&header.to_wire());
    out.extend_from_slice(query.question.as_wire());
    let opt_start = out.len();
    if let Some(edns) = query.edns {
        let opt = OptRecord::new(own_udp_size, edns.dnssec_ok);
        if edns.options.is_empty() {
            opt.append(out);
        } else {
            let limit = usize::from(own_udp_size).max(MIN_LIMIT);
            opt.with_options(edns.options, OptionPassing::Query).append_within(limit, out);
        }
    }
    opt_start
}

/// Adds cookies to a query to a backend, whose OPT record is the last, at `opt_at`, or is added if that is
/// the end. The limit of [`write_query`] applies: options of the client that no longer fit are left out.
pub fn add_cookie(query: &mut Vec<u8>, opt_at: usize, cookie: &CookiePair, own_udp_size: u16) {
    // A client without EDNS gets as much of a longer reply as fits, and the cache keeps all of it.
    add_opt(query, opt_at, own_udp_size);
    let options = opt_at + OPT_FIXED_LEN;
    if query.len() + cookie.wire_len() > usize::from(own_udp_size).max(MIN_LIMIT) {
        query.truncate(options);
    }
    cookie.append(query);
    set_rest_length(query, options);
}

/// The key under which queries share a race, as bytes: the folded question, RD, CD and DO.
#[derive(Clone, Debug)]
pub struct QuestionKey {
    len: usize,
    octets: [u8; Self::MAX_LEN],
}

impl QuestionKey {
    /// The longest key: a whole name, type, class, flags.
    pub const MAX_LEN: usize = Name::MAX_LEN + 5;

    /// Makes the key of a query.
    pub fn of(query: &Query<'_>) -> Self {
        let question = query.question.as_wire();
        let mut octets = [0; Self::MAX_LEN];
        octets[..question.len()].copy_from_slice(question);
        fold(&mut octets[..query.question.qname().len()]);
        octets[question.len()] = QuestionFlags::of(query).octet();
        Self { len: question.len() + 1, octets }
    }

    /// Makes the key of a question in wire form, with the flags of its query; `None` if it is no question.
    pub fn of_parts(question: &[u8], flags: QuestionFlags) -> Option<Self> {
        let mut octets = [0; Self::MAX_LEN];
        octets.get_mut(..question.len())?.copy_from_slice(question);
        let qname = question.len().checked_sub(QTYPE_QCLASS)?;
        fold(&mut octets[..qname]);
        *octets.get_mut(question.len())? = flags.octet();
        Some(Self { len: question.len() + 1, octets })
    }

    /// Returns the bytes to hash and compare.
    pub fn as_octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }
}

const QTYPE_QCLASS: usize = 4;

/// The UDP size that every server accepts (RFC 1035 section 2.3.4).
pub(super) const MIN_LIMIT: usize = 512;

impl PartialEq for QuestionKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_octets() == other.as_octets()
    }
}

impl Eq for QuestionKey {}

/// Writes `query` into `out` without the OPT record at `opt_start`, for a server without EDNS (RFC 6891
/// section 6.2.2). If `opt_start` is the end, the query has no OPT record and is copied.
pub fn write_without_opt(query: &[u8], opt_start: usize, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(query.get(..opt_start).unwrap_or(query));
    if opt_start < query.len() {
        rewrite_header(out, |header| header.with_counts([header.qdcount(), header.ancount(), header.nscount(), 0]));
    }
}

/// Writes a query without OPT and with RD=0 into `out`: the form that every server understands.
pub fn write_plain_query(id: u16, qname: &Name, qtype: RecordType, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&Header::new(id).with_counts([1, 0, 0, 0]).to_wire());
    out.extend_from_slice(qname.as_wire());
    out.extend_from_slice(&qtype.0.to_be_bytes());
    out.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
}

/// The OPT record of a query that hedgerow makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnEdns {
    /// The largest UDP message that hedgerow accepts.
    pub udp_size: u16,
    /// True if the query asks for the version of the zone (RFC 9660 section 2.1).
    pub wants_version: bool,
}

/// Writes a query of hedgerow into `out`: a question in wire form with the flags of a client's query except
/// TSIG. Without an OPT record there is no DO (RFC 3225 section 3).
pub fn write_own_query(id: u16, question: &[u8], flags: QuestionFlags, edns: Option<OwnEdns>, out: &mut Vec<u8>) {
    let header = Header::new(id)
        .with(Flag::RecursionDesired, flags.recursion_desired())
        .with(Flag::CheckingDisabled, flags.checking_disabled())
        .with_counts([1, 0, 0, u16::from(edns.is_some())]);
    out.clear();
    out.extend_from_slice(&header.to_wire());
    out.extend_from_slice(question);
    if let Some(edns) = edns {
        let version = empty_option(OptionCode::ZONEVERSION);
        let options = if edns.wants_version { &version[..] } else { &[] };
        OptRecord::new(edns.udp_size, flags.dnssec_ok()).with_options(options, OptionPassing::All).append(out);
    }
}

/// Writes a query with RD=1 for a resolver into `out`, with an OPT record if `opt` is set.
pub fn write_recursive_query(id: u16, qname: &Name, qtype: RecordType, opt: Option<&OptRecord<'_>>, out: &mut Vec<u8>) {
    write_plain_query(id, qname, qtype, out);
    let counts = [1, 0, 0, u16::from(opt.is_some())];
    rewrite_header(out, |header| header.with(Flag::RecursionDesired, true).with_counts(counts));
    if let Some(opt) = opt {
        opt.append(out);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cookie::CookieOption;
    use super::super::sample::{QUESTION, REPLY, WWW, a, message, opt};
    use super::*;

    #[test]
    fn messages_are_taken_or_rejected_in_this_order() {
        let check = |octets: &[u8], expected: Result<(), QueryRejection>| {
            assert_eq!(read_query(octets).map(drop), expected, "{octets:?}");
        };
        let answer = |rcode| Err(QueryRejection::Answer(rcode));
        let (a, opt0) = (&a(WWW)[..], &opt(0, 0, b"")[..]);
        check(&[], Err(QueryRejection::Short));
        check(&message(REPLY, [1, 0, 0, 0], &[QUESTION])[..11], Err(QueryRejection::Short));
        check(&message(REPLY, [1, 0, 0, 0], &[QUESTION]), Err(QueryRejection::NotAQuery));
        check(&message(REPLY | 0x2000, [9; 4], &[]), Err(QueryRejection::NotAQuery));
        check(&message(0x2000, [9; 4], &[]), answer(Rcode::NOTIMP));
        check(&message(0x2000, [1, 0, 0, 0], &[QUESTION]), answer(Rcode::NOTIMP));
        check(&message(0, [0, 0, 0, 0], &[]), answer(Rcode::FORMERR));
        check(&message(0, [2, 0, 0, 0], &[QUESTION, QUESTION]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 0], &[b"\xC0\x0C\0\x01\0\x01"]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 0], &[QUESTION, b"\0"]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 1], &[QUESTION]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 2], &[QUESTION, opt0, opt0]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, b"\0\x03\0\x01")]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 1], &[QUESTION, &opt(0, 1, b"")]), answer(Rcode::BADVERS));
        check(&message(0, [1, 0, 0, 1], &[QUESTION, &opt(0, 1, b"\x01")]), answer(Rcode::BADVERS));
        check(&message(0, [1, 0, 0, 1], &[QUESTION, &opt(0, 1, b""), b"\0"]), answer(Rcode::FORMERR));
        check(&message(0, [1, 0, 0, 0], &[QUESTION]), Ok(()));
        check(&message(0x0130, [1, 0, 0, 1], &[QUESTION, opt0]), Ok(()));
        // The form of IXFR: a record in the authority section.
        check(&message(0, [1, 0, 1, 1], &[QUESTION, a, opt0]), Ok(()));
        // The root, ANY, CH, and unknown values.
        check(&message(0, [1, 0, 0, 0], &[b"\0\0\x02\0\x01"]), Ok(()));
        check(&message(0, [1, 0, 0, 0], &[b"\x07version\x04bind\0\0\xFF\0\x03"]), Ok(()));
        check(&message(0, [1, 0, 0, 0], &[b"\x01\xFF\0\xFF\0\xFE\xFE"]), Ok(()));
    }

    #[test]
    fn backends_get_the_question_and_our_opt() {
        let check = |octets: &[u8], expected: &[u8], expected_opt: usize| {
            let query = read_query(octets).expect("a query");
            let mut out = b"left over".to_vec();
            assert_eq!(write_query(&query, 1232, &mut out), expected_opt);
            assert_eq!(out, expected);
        };
        let plain = message(0x0100, [1, 0, 0, 0], &[QUESTION]);
        let backend = [b"\0\0\x01\0\0\x01\0\0\0\0\0\0", QUESTION].concat();
        check(&plain, &backend, backend.len());

        // Every flag that a query can have, a record, an OPT with a cookie and an unknown option.
        let options = b"\0\x0A\0\x01c\xFD\xE9\0\x01x";
        let full = message(0x07FF, [1, 1, 0, 1], &[QUESTION, &a(WWW), &opt(7, 0, options)]);
        let opt = b"\0\0\x29\x04\xD0\0\0\x80\0\0\x05\xFD\xE9\0\x01x";
        let backend = [b"\0\0\x01\x30\0\x01\0\0\0\0\0\x01", QUESTION, opt].concat();
        check(&full, &backend, backend.len() - opt.len());
    }

    #[test]
    fn options_that_make_a_query_too_long_stay_behind() {
        let option =
            |code: u8, length: usize| [&[0xFD, code], &(length as u16).to_be_bytes()[..], &vec![code; length]].concat();
        let check = |options: &[&[u8]], limit: u16, expected: &[u8]| {
            let octets = message(0, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, &options.concat())]);
            let query = read_query(&octets).expect("a query");
            let mut out = Vec::new();
            write_query(&query, limit, &mut out);
            assert!(out.len() <= usize::from(limit).max(512), "{}", out.len());
            let written = read_query(&out).expect("sound").edns.expect("with OPT");
            let codes: Vec<_> = written.iter_options().map(|(code, _)| code.0 as u8).collect();
            assert_eq!((&codes[..], written.dnssec_ok), (expected, true));
        };
        let room = 1232 - 12 - QUESTION.len() - 11;
        check(&[&option(1, 100), &option(2, 100)], 1232, &[1, 2]);
        check(&[&option(1, room - 4)], 1232, &[1]);
        check(&[&option(1, room - 3)], 1232, &[]);
        // Each option that fits is forwarded, independent of the options before it.
        check(&[&option(1, 60_000), &option(2, 1000), &option(3, 500), &option(4, 0)], 1232, &[2, 4]);
        // Options for the hop take no room.
        check(&[b"\0\x0C\xC3\x50", &[0; 50_000], &option(2, 1000)], 1232, &[2]);
        check(&[&option(1, 600), &option(2, 300)], 0, &[2]);
        // The longest question leaves room for an OPT record.
        let name = [
            &b"\x3fZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ".repeat(3),
            &b"\x3dZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ\0"[..],
        ]
        .concat();
        let octets = message(0, [1, 0, 0, 1], &[&name, b"\0\x01\0\x01", &opt(0, 0, &option(1, 60_000))]);
        let mut out = Vec::new();
        write_query(&read_query(&octets).expect("a query"), 512, &mut out);
        assert_eq!((name.len(), out.len()), (255, 12 + 259 + 11));
    }

    #[test]
    fn queries_that_may_share_a_race_have_one_key() {
        let base = message(0, [1, 0, 0, 0], &[QUESTION]);
        let check = |other: &[u8], expected: bool| {
            let [a, b] = [&base, other].map(|octets| QuestionKey::of(&read_query(octets).expect("a query")));
            assert_eq!(a == b, expected, "{other:?}");
            let mut folded = b"before".to_vec();
            let flags = read_query(other).expect("a query").fold_question(&mut folded);
            folded.push(flags.octet());
            assert_eq!(folded.strip_prefix(b"before"), Some(b.as_octets()));
        };
        let mut no_do = opt(0, 0, b"\0\x0A\0\x01c");
        no_do[7] = 0;
        check(&message(0, [1, 0, 0, 0], &[&QUESTION.to_ascii_lowercase()]), true);
        check(&message(0x0020, [1, 0, 0, 1], &[QUESTION, &no_do]), true);
        check(&message(0x0100, [1, 0, 0, 0], &[QUESTION]), false);
        check(&message(0x0010, [1, 0, 0, 0], &[QUESTION]), false);
        check(&message(0, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, b"")]), false);
        check(&message(0, [1, 0, 0, 0], &[b"\x03wwx\x07example\x03org\0\0\x01\0\x01"]), false);
        check(&message(0, [1, 0, 0, 0], &[b"\x03www\x07example\x03org\0\0\x1C\0\x01"]), false);
        check(&message(0, [1, 0, 0, 0], &[b"\x03www\x07example\x03org\0\0\x01\0\x03"]), false);
    }

    #[test]
    fn cookies_join_the_options_or_bring_an_opt_record() {
        let given = CookieOption { client: *b"CLIENT01", server: &[7; 32] };
        let pair = CookiePair::given(given).expect("a pair");
        let unknown = |len: usize| [&b"\xFD\xE9"[..], &(len as u16).to_be_bytes(), &vec![1; len]].concat();
        // Bytes of the client's options that are left, and of the whole.
        let check = |options: Option<&[u8]>, own_udp_size: u16, left: usize, len: usize| {
            let records = options.map(|options| opt(0, 0, options)).unwrap_or_default();
            let octets = message(0x0130, [1, 0, 0, options.is_some().into()], &[QUESTION, &records]);
            let mut out = Vec::new();
            let opt_at = write_query(&read_query(&octets).expect("a query"), own_udp_size, &mut out);
            let without = out.clone();
            add_cookie(&mut out, opt_at, &pair, own_udp_size);
            let query = read_query(&out).expect("a query");
            assert_eq!((query.header.arcount(), query.question.as_wire()), (1, QUESTION));
            let edns = query.edns.expect("an OPT record");
            assert_eq!(
                (edns.udp_size, edns.dnssec_ok, edns.cookie()),
                (own_udp_size, options.is_some(), Ok(Some(given)))
            );
            assert_eq!((edns.options.len() - pair.wire_len(), out.len()), (left, len));
            assert!(
                left == 0
                    || out.starts_with(&without[..opt_at]) && out[opt_at + 11..].starts_with(&without[opt_at + 11..])
            );
        };
        // The question takes 33 bytes with the header, the OPT record 11, the cookies 44.
        check(None, 1232, 0, 88);
        check(Some(b""), 1232, 0, 88);
        check(Some(&unknown(4)), 1232, 8, 96);
        check(Some(&unknown(1140)), 1232, 1144, 1232);
        check(Some(&unknown(1141)), 1232, 0, 88);
        check(Some(&unknown(420)), 512, 424, 512);
        check(Some(&unknown(421)), 512, 0, 88);
    }

    #[test]
    fn the_longest_key_fits_and_types_are_not_folded() {
        let name = [&b"\x01Z".repeat(127)[..], b"\0"].concat();
        let octets = message(0, [1, 0, 0, 0], &[&name, b"\0\x41\0\x41"]);
        let key = QuestionKey::of(&read_query(&octets).expect("a query"));
        assert_eq!(key.as_octets().len(), QuestionKey::MAX_LEN);
        assert!(key.as_octets().ends_with(b"\x01z\0\0\x41\0\x41\0"));
    }

    #[test]
    fn a_plain_query_reads_as_what_was_asked() {
        let mut message = Vec::new();
        write_plain_query(7, &"Www.example.org".parse().unwrap(), RecordType::NS, &mut message);
        let query = read_query(&message).unwrap();
        assert_eq!((query.header.id(), query.question.qtype()), (7, RecordType::NS));
        assert_eq!(query.question.qname(), b"\x03Www\x07example\x03org\x00");
        assert!(query.edns.is_none() && !query.header.recursion_desired());
    }

    #[test]
    fn a_recursive_query_desires_recursion_and_may_have_opt() {
        for opt in [None, Some(OptRecord::new(1232, false))] {
            let mut message = Vec::new();
            write_recursive_query(7, &"www.example.org".parse().unwrap(), RecordType::SRV, opt.as_ref(), &mut message);
            let query = read_query(&message).unwrap();
            assert_eq!((query.header.id(), query.question.qtype()), (7, RecordType::SRV));
            assert!(query.header.recursion_desired());
            assert_eq!(query.edns.is_some(), opt.is_some());
        }
    }

    #[test]
    fn without_opt_all_else_stays() {
        let with_opt = b"\x00\x01\x01\x10\x00\x01\x00\x00\x00\x00\x00\x01\x01a\x00\x00\x01\x00\x01\
            \x00\x00\x29\x10\x00\x00\x00\x80\x00\x00\x00";
        let (mut query, mut plain) = (Vec::new(), Vec::new());
        let opt_start = write_query(&read_query(with_opt).unwrap(), 1232, &mut query);
        assert!(opt_start < query.len());
        write_without_opt(&query, opt_start, &mut plain);
        let read = read_query(&plain).unwrap();
        assert!(read.edns.is_none() && read.header.recursion_desired() && read.header.checking_disabled());
        assert_eq!(plain.len(), opt_start);
    }

    #[test]
    fn queries_of_our_own_say_what_a_client_said() {
        let check = |octet: u8, edns: Option<(u16, bool)>| {
            let flags = QuestionFlags::of_octet(octet);
            let edns = edns.map(|(udp_size, wants_version)| OwnEdns { udp_size, wants_version });
            let mut out = b"rest".to_vec();
            write_own_query(7, QUESTION, flags, edns, &mut out);
            let query = read_query(&out).expect("a query");
            assert_eq!((query.header.id(), query.question.as_wire()), (7, QUESTION));
            let expected = if edns.is_some() { octet } else { octet & !QuestionFlags::DNSSEC_OK };
            assert_eq!(QuestionFlags::of(&query).octet(), expected);
            assert_eq!(query.edns.map(|edns| edns.udp_size), edns.map(|edns| edns.udp_size));
            let options = query.edns.iter().flat_map(Edns::iter_options).collect::<Vec<_>>();
            let asks = edns.is_some_and(|edns| edns.wants_version);
            assert_eq!(options, if asks { vec![(OptionCode::ZONEVERSION, &b""[..])] } else { vec![] });
        };
        for octet in 0..8 {
            check(octet, None);
            check(octet, Some((1232, false)));
            check(octet, Some((4096, true)));
        }
    }
}
