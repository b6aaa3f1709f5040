//! Responses without records that hedgerow makes, because no backend replied or the message was rejected.

use super::body::{OptBounds, records};
use super::codes::{ExtendedError, Opcode, Rcode, RecordType};
use super::cookie::Cookie;
use super::edns::{Edns, OptRecord};
use super::form::ClientForm;
use super::header::Header;
use super::local::{LocalResponse, write_local};
use super::query::Query;
use super::question::Question;
use super::relay::MAX_MESSAGE;

/// Writes a response without records into `out`: the given rcode and RA, AA clear, the question in the case
/// of the client, and an OPT record with the Extended DNS Error and its text if the client sent one.
pub fn write_synthesized(
    question_wire: &[u8],
    form: &ClientForm,
    rcode: Rcode,
    error: Option<(ExtendedError, &str)>,
    recursion_available: bool,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) {
    let response = LocalResponse { recursion_available, error, ..LocalResponse::new(rcode) };
    write_local(question_wire, form, &response, [], (own_udp_size, MAX_MESSAGE), out);
}

/// Writes the response to a rejected message into `out`. `out` stays empty if the message is shorter than a
/// header or has QR set. The response has the ID and opcode, for QUERY also RD and CD. It echoes the question
/// for QUERY and NOTIFY, which has the same layout (RFC 1996 section 3). It has an OPT record, with the given
/// cookie, if the message has one, even with broken options or beside another (RFC 6891 section 7). BADVERS
/// always has an OPT record, which carries a part of it.
pub fn write_error(message: &[u8], rcode: Rcode, cookie: Option<&Cookie>, own_udp_size: u16, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = Header::read(message).filter(|header| !header.is_response()) else {
        return;
    };
    let question = echoed_question(message, header);
    let opt = question
        .and_then(|question| find_opt(message, header, question.end()))
        .map(|(opt, _)| OptRecord::new(own_udp_size, opt.edns.dnssec_ok).with_cookie(cookie))
        .or_else(|| (rcode.0 > Rcode::MAX_IN_HEADER).then(|| OptRecord::new(own_udp_size, false)))
        .map(|opt| opt.with_rcode(rcode));

    let counts = [u16::from(question.is_some()), 0, 0, u16::from(opt.is_some())];
    let header = header.to_response().with_rcode(rcode).with_counts(counts);
    out.extend_from_slice(&header.to_wire());
    if let Some(question) = question {
        out.extend_from_slice(question.as_wire());
    }
    if let Some(opt) = opt {
        opt.append(out);
    }
}

/// Writes REFUSED into `out` for a client that is not allowed, with the reason if its query has EDNS. `query`
/// is the parsed message, if it is valid.
pub fn write_prohibited(
    message: &[u8],
    query: Option<&Query<'_>>,
    cookie: Option<&Cookie>,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) {
    let Some(query) = query else { return write_error(message, Rcode::REFUSED, cookie, own_udp_size, out) };
    let (form, error) = (ClientForm::of(query).with_cookie(cookie.copied()), (ExtendedError::PROHIBITED, ""));
    // RA is clear: recursion is not available to this client.
    write_synthesized(query.question.as_wire(), &form, Rcode::REFUSED, Some(error), false, own_udp_size, out);
}

/// Returns the OPT record of a rejected message, for its options, if it is the only one and valid. `None` for
/// later versions, because their options may have another layout.
pub fn edns_of_rejected(message: &[u8]) -> Option<Edns<'_>> {
    let header = Header::read(message).filter(|header| !header.is_response())?;
    let question = echoed_question(message, header)?;
    let (OptBounds { edns, .. }, is_only) = find_opt(message, header, question.end())?;
    (is_only && edns.version == 0 && edns.is_sound()).then_some(edns)
}

/// Returns the extended errors of a response (RFC 8914 section 2).
pub fn extended_errors(response: &[u8]) -> impl Iterator<Item = ExtendedError> {
    let question = Question::read(response);
    let header = Header::read(response);
    let opt = header.zip(question).and_then(|(header, question)| find_opt(response, header, question.end()));
    opt.into_iter().flat_map(|(opt, _)| opt.edns.extended_errors())
}

fn echoed_question(message: &[u8], header: Header) -> Option<Question<'_>> {
    let has_question = matches!(header.opcode(), Opcode::QUERY | Opcode::NOTIFY) && header.qdcount() == 1;
    has_question.then(|| Question::read(message)).flatten()
}

/// Finds the first OPT record of a message that need not be valid behind its question. Also returns true if
/// it is the only one.
fn find_opt(message: &[u8], header: Header, at: usize) -> Option<(OptBounds<'_>, bool)> {
    let before = usize::from(header.ancount()) + usize::from(header.nscount());
    let all = before + usize::from(header.arcount());
    let records = records(message, at).take(all).enumerate();
    let mut found = None;
    for (index, record) in records.filter(|(_, record)| record.rtype == RecordType::OPT) {
        let opt = OptBounds::read(message, &record)?;
        if index < before {
            return None;
        }
        found = Some(found.map_or((opt, true), |(first, _)| (first, false)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::query::read_query;
    use super::super::sample::*;
    use super::*;

    #[test]
    fn synthesized_responses_have_the_form_of_the_query() {
        let check = |query: &[u8], rcode, error, recursion_available, expected: &[u8]| {
            let form = ClientForm::of(&read_query(query).expect("a query"));
            let mut out = b"left over".to_vec();
            let folded = QUESTION.to_ascii_lowercase();
            write_synthesized(&folded, &form, rcode, error, recursion_available, 1232, &mut out);
            assert_eq!(out, expected);
        };
        let error = Some((ExtendedError::NO_REACHABLE_AUTHORITY, ""));
        let option = b"\0\x0F\0\x02\0\x16";
        let answer = |bits, opt: &[u8]| message(bits, [1, 0, 0, u16::from(!opt.is_empty())], &[QUESTION, opt]);
        check(&plain(), Rcode::NXDOMAIN, error, true, &answer(0x8183, b""));
        check(&plain(), Rcode::BADVERS, None, false, &answer(0x8102, b""));
        check(&with_edns(), Rcode::NXDOMAIN, error, true, &answer(0x8193, &our_opt(0, option)));
        check(&with_edns(), Rcode::REFUSED, None, false, &answer(0x8115, &our_opt(0, b"")));
        check(&with_edns(), Rcode::BADVERS, None, false, &answer(0x8110, &our_opt(1, b"")));
    }

    #[test]
    fn who_is_prohibited_is_told_if_it_has_edns() {
        let check = |octets: &[u8], expected: &[u8]| {
            let mut out = b"left over".to_vec();
            write_prohibited(octets, read_query(octets).ok().as_ref(), None, 1232, &mut out);
            assert_eq!(out, expected, "{octets:?}");
        };
        let option = b"\0\x0F\0\x02\0\x12";
        check(&plain(), &message(0x8105, [1, 0, 0, 0], &[QUESTION]));
        check(&with_edns(), &message(0x8115, [1, 0, 0, 1], &[QUESTION, &our_opt(0, option)]));
        check(&message(0, [1, 0, 0, 0], &[QUESTION, b"junk"]), &message(0x8005, [1, 0, 0, 0], &[QUESTION]));
        check(&plain()[..11], b"");
    }

    #[test]
    fn errors_echo_what_can_be_read() {
        let check = |octets: &[u8], rcode, expected: &[u8]| {
            let mut out = b"left over".to_vec();
            write_error(octets, rcode, None, 1232, &mut out);
            assert_eq!(out, expected, "{octets:?}");
        };
        let (sound, unsound) = (&opt(0, 0, b"")[..], &opt(0, 0, b"\0")[..]);
        let ours = &our_opt(0, b"")[..];
        let echo = |bits, opt: &[u8]| message(bits, [1, 0, 0, u16::from(!opt.is_empty())], &[QUESTION, opt]);
        let formerr = Rcode::FORMERR;
        // No ID for an answer, or a possible loop.
        check(&plain()[..11], formerr, b"");
        check(&message(REPLY, [1, 0, 0, 0], &[QUESTION]), formerr, b"");
        check(&plain(), Rcode::REFUSED, &echo(0x8105, b""));
        check(&message(0x0100, [0; 4], &[b"junk"]), formerr, &message(0x8101, [0; 4], &[]));
        check(&message(0x0110, [2, 0, 0, 0], &[QUESTION, QUESTION]), formerr, &message(0x8111, [0; 4], &[]));
        check(&message(0, [1, 0, 0, 0], &[QUESTION, b"junk"]), formerr, &echo(0x8001, b""));
        // An OPT record in the right section is answered, whatever is wrong with its options or behind it.
        check(&message(0, [1, 0, 0, 1], &[QUESTION, sound, b"junk"]), formerr, &echo(0x8001, ours));
        check(&message(0, [1, 0, 0, 9], &[QUESTION, sound]), formerr, &echo(0x8001, ours));
        check(&message(0, [1, 0, 0, 2], &[QUESTION, sound, sound]), formerr, &echo(0x8001, ours));
        check(&message(0, [1, 0, 0, 1], &[QUESTION, unsound]), formerr, &echo(0x8001, ours));
        check(&message(0, [1, 1, 0, 0], &[QUESTION, sound]), formerr, &echo(0x8001, b""));
        // BADVERS has one in any case.
        let later = &opt(0, 1, b"??")[..];
        check(&message(0, [1, 0, 0, 1], &[QUESTION, later]), Rcode::BADVERS, &echo(0x8000, &our_opt(1, b"")));
        let mut no_do = our_opt(1, b"");
        no_do[7] = 0;
        check(&plain(), Rcode::BADVERS, &echo(0x8100, &no_do));
        // Only the header of other opcodes is read, but NOTIFY has the layout of QUERY.
        check(&message(0x2810, [1, 0, 0, 0], &[QUESTION]), Rcode::NOTIMP, &message(0xA804, [0; 4], &[]));
        check(&message(0x2000, [1, 0, 0, 0], &[QUESTION]), Rcode::REFUSED, &echo(0xA005, b""));
    }
}
