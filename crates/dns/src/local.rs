//! Responses with records that hedgerow makes: of rules, local names and special names.

use super::codes::{ExtendedError, Rcode, RecordClass, RecordType};
use super::edns::{MAX_ERROR, OptRecord, OptionPassing, extended_error_with_text, set_rest_length};
use super::form::ClientForm;
use super::header::{Flag, HEADER_LEN};
use super::question::qname;

/// A response that hedgerow makes, without its answer records.
#[derive(Clone, Copy, Debug)]
pub struct LocalResponse<'a> {
    /// The rcode.
    pub rcode: Rcode,
    /// AA: true for names that hedgerow serves, false for an answer in place of the real one.
    pub is_authoritative: bool,
    /// RA: true unless recursion is not available to the client.
    pub recursion_available: bool,
    /// The SOA record of a negative answer.
    pub soa: Option<LocalSoa<'a>>,
    /// The Extended DNS Error and its text, for a client with EDNS.
    pub error: Option<(ExtendedError, &'a str)>,
}

impl LocalResponse<'_> {
    /// Makes a response with RA that is not authoritative, without an SOA record or an error.
    pub fn new(rcode: Rcode) -> Self {
        Self { rcode, is_authoritative: false, recursion_available: true, soa: None, error: None }
    }
}

/// The SOA record in the authority section, for which stubs keep a negative answer (RFC 2308 section 3).
#[derive(Clone, Copy, Debug)]
pub struct LocalSoa<'a> {
    /// The owner and MNAME: the name of the query or one of its ancestors, in wire form.
    pub owner: &'a [u8],
    /// The TTL and minimum, seconds.
    pub ttl: u32,
}

/// A record whose owner is the name of the query.
#[derive(Clone, Copy, Debug)]
pub struct LocalRecord<'a> {
    /// The type.
    pub rtype: RecordType,
    /// The TTL, seconds.
    pub ttl: u32,
    /// The data, with names that are not compressed, or point into the question.
    pub rdata: &'a [u8],
}

/// Writes a response into `out`: the question in the case of the client, the records, and an OPT record if
/// the client sent one. A response that would be longer than `limit` bytes, at least 512, has TC and no
/// records.
pub fn write_local<'r>(
    question_wire: &[u8],
    form: &ClientForm,
    response: &LocalResponse<'_>,
    answers: impl IntoIterator<Item = LocalRecord<'r>>,
    (own_udp_size, limit): (u16, usize),
    out: &mut Vec<u8>,
) {
    let &LocalResponse { rcode, is_authoritative, recursion_available, soa, error } = response;
    let qname_len = qname(question_wire).len();
    out.clear();
    out.extend_from_slice(&[0; HEADER_LEN]);
    out.extend_from_slice(question_wire);
    form.restore_question_case(qname_len, out);
    let mut room = [0; MAX_ERROR];
    let mut opt = form.edns.map(|edns| {
        let options = error.map_or(&[][..], |(error, text)| extended_error_with_text(error, text, &mut room));
        let opt = OptRecord::new(own_udp_size, edns.dnssec_ok).with_rcode(rcode);
        opt.with_cookie(form.cookie.as_ref()).with_options(options, OptionPassing::All)
    });

    let records_at = out.len();
    let mut counts = [1, 0, 0, u16::from(opt.is_some())];
    for LocalRecord { rtype, ttl, rdata } in answers {
        if out.len() > limit {
            break;
        }
        append_record(name_pointer(HEADER_LEN), rtype, ttl, &[rdata], out);
        counts[1] += 1;
    }
    if let Some(LocalSoa { owner, ttl }) = soa {
        let owner = name_pointer(HEADER_LEN + qname_len.saturating_sub(owner.len()));
        append_record(owner, RecordType::SOA, ttl, &[&owner, &soa_behind_mname(ttl)], out);
        counts[2] = 1;
    }
    let is_over = |opt: Option<OptRecord<'_>>, out: &[u8]| out.len() + opt.map_or(0, |opt| opt.wire_len()) > limit;
    if is_over(opt, out) {
        // RFC 8914 section 3: EDE options go before other data does.
        opt = opt.map(|opt| opt.with_passing(OptionPassing::BeyondHopWithoutErrors));
    }
    let is_cut = is_over(opt, out);
    if is_cut {
        out.truncate(records_at);
        (counts[1], counts[2]) = (0, 0);
    }
    if let Some(opt) = opt {
        opt.append(out);
    }
    let header = form.response_header().with(Flag::Authoritative, is_authoritative);
    let header = header.with(Flag::RecursionAvailable, recursion_available).with(Flag::Truncated, is_cut);
    header.with_rcode(form.header_rcode(rcode)).with_counts(counts).overwrite(out);
}

/// Returns the data of an SOA record whose owner is the name of the query.
pub fn local_soa_rdata(ttl: u32) -> [u8; 2 + SOA_BEHIND_MNAME] {
    let mut rdata = [0; 2 + SOA_BEHIND_MNAME];
    let (mname, rest) = rdata.split_at_mut(2);
    mname.copy_from_slice(&name_pointer(HEADER_LEN));
    rest.copy_from_slice(&soa_behind_mname(ttl));
    rdata
}

/// RFC 6303 section 3: the mailbox and the numbers of zones that are served locally.
fn soa_behind_mname(minimum: u32) -> [u8; SOA_BEHIND_MNAME] {
    let mut octets = [0; SOA_BEHIND_MNAME];
    let (rname, numbers) = octets.split_at_mut(NOBODY.len());
    rname.copy_from_slice(NOBODY);
    for (place, number) in numbers.chunks_exact_mut(4).zip([1, 3600, 1200, 604_800, minimum]) {
        place.copy_from_slice(&u32::to_be_bytes(number));
    }
    octets
}

fn append_record(owner: [u8; 2], rtype: RecordType, ttl: u32, rdata: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(&owner);
    out.extend_from_slice(&rtype.0.to_be_bytes());
    out.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&[0; 2]);
    let at = out.len();
    rdata.iter().for_each(|part| out.extend_from_slice(part));
    set_rest_length(out, at);
}

/// Returns a compression pointer (RFC 1035 section 4.1.4) to an offset of at most 16383.
pub(super) fn name_pointer(at: usize) -> [u8; 2] {
    (POINTER | at as u16).to_be_bytes()
}

const POINTER: u16 = 0xC000;

/// The mailbox of locally served zones (RFC 6303 section 3).
const NOBODY: &[u8] = b"\x06nobody\x07invalid\0";

const SOA_BEHIND_MNAME: usize = NOBODY.len() + 20;

#[cfg(test)]
mod tests {
    use super::super::header::Header;
    use super::super::query::read_query;
    use super::super::sample::*;
    use super::*;

    fn respond(query: &[u8], response: &LocalResponse<'_>, answers: &[LocalRecord<'_>], limit: usize) -> Vec<u8> {
        let form = ClientForm::of(&read_query(query).expect("a query"));
        let mut out = b"left over".to_vec();
        let folded = QUESTION.to_ascii_lowercase();
        write_local(&folded, &form, response, answers.iter().copied(), (1232, limit), &mut out);
        out
    }

    const ADDRESS: LocalRecord<'_> = LocalRecord { rtype: RecordType::A, ttl: 300, rdata: &[192, 0, 2, 1] };

    #[test]
    fn answers_have_the_name_of_the_query_as_owner() {
        let response = LocalResponse { is_authoritative: true, ..LocalResponse::new(Rcode::NOERROR) };
        let answered = respond(&plain(), &response, &[ADDRESS, ADDRESS], 512);
        assert_eq!(answered, message(0x8580, [1, 2, 0, 0], &[QUESTION, &a(WWW), &a(WWW)]));
        let answered = respond(&with_edns(), &response, &[ADDRESS], 512);
        assert_eq!(answered, message(0x8590, [1, 1, 0, 1], &[QUESTION, &a(WWW), &our_opt(0, b"")]));
    }

    #[test]
    fn negative_answers_have_an_soa_record_of_the_zone() {
        let numbers = [1, 3600, 1200, 604_800, 300].map(u32::to_be_bytes).concat();
        let check = |owner: &[u8], pointer: &[u8]| {
            let soa = Some(LocalSoa { owner, ttl: 300 });
            let error = Some((ExtendedError::BLOCKED, ""));
            let response = LocalResponse { soa, error, ..LocalResponse::new(Rcode::NXDOMAIN) };
            let rdata = [pointer, b"\x06nobody\x07invalid\0", &numbers].concat();
            let opt = our_opt(0, b"\0\x0F\0\x02\0\x0F");
            let expected = [QUESTION, &record(pointer, RecordType::SOA, &rdata), &opt];
            assert_eq!(respond(&with_edns(), &response, &[], 512), message(0x8193, [1, 0, 1, 1], &expected));
        };
        check(b"\x03www\x07example\x03org\0", WWW);
        check(b"\x07example\x03org\0", EXAMPLE);
        check(b"\0", &[0xC0, 28]);
        assert_eq!(local_soa_rdata(300)[..], [WWW, b"\x06nobody\x07invalid\0", &numbers].concat());
    }

    #[test]
    fn long_answers_lose_the_error_and_then_all_records() {
        let error = Some((ExtendedError::OTHER, "a text"));
        let response = LocalResponse { error, ..LocalResponse::new(Rcode::NOERROR) };
        // The question ends at 33, each record takes 16 bytes, the OPT record 11, the error 12.
        let check = |records: usize, edns, answers: u16, is_cut: bool, length: usize| {
            let query = if edns { with_edns() } else { plain() };
            let out = respond(&query, &response, &vec![ADDRESS; records], 512);
            let header = Header::read(&out).expect("a header");
            assert_eq!((header.ancount(), header.is_truncated(), out.len()), (answers, is_cut, length), "{records}");
        };
        check(29, false, 29, false, 497);
        check(30, false, 0, true, 33);
        check(28, true, 28, false, 504);
        check(29, true, 29, false, 508);
        check(30, true, 0, true, 44);
    }
}
