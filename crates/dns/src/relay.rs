//! Relayed responses: a backend's reply in the form of one client.
//!
//! Relaying changes the ID, the case of the QNAME and the OPT record. If the response is too long, it loses
//! parts in order of their value to the client: EDE, then optional additional records, then, with TC, all
//! records.

use super::body::{read_name, records};
use super::codes::Rcode;
use super::edns::{OptRecord, OptionPassing};
use super::expand;
use super::form::ClientForm;
use super::header::{Flag, Header, set_id};
use super::reply::{Reply, read_reply};

/// Writes a backend's reply to the client's question into `out`, with at most `limit` bytes, at least 512.
pub fn write_response(reply: &Reply<'_>, form: &ClientForm, own_udp_size: u16, limit: usize, out: &mut Vec<u8>) {
    let mut draft = Draft::of(reply, form, own_udp_size);
    out.clear();
    append_without_opt(reply, limit, out);
    if draft.is_over(limit, out) {
        draft = draft.cut(reply, limit, out);
    }
    if let Some(opt) = draft.opt {
        opt.append(out);
        draft.counts[3] += 1;
    }
    draft.header.with_counts(draft.counts).overwrite(out);
    let qname_len = reply.question().map_or(0, |question| question.qname().len());
    form.restore_question_case(qname_len, out);
}

struct Draft<'a> {
    header: Header,
    counts: [u16; 4],
    opt: Option<OptRecord<'a>>,
}

impl<'a> Draft<'a> {
    fn of(reply: &Reply<'a>, form: &'a ClientForm, own_udp_size: u16) -> Self {
        let (header, rcode) = (reply.header(), reply.rcode());
        let opt = form.edns.map(|edns| {
            let options = reply.edns().map_or(&[][..], |edns| edns.options);
            let opt = OptRecord::new(own_udp_size, edns.dnssec_ok).with_rcode(rcode);
            let opt = opt.with_version(edns.asks.version()).with_cookie(form.cookie.as_ref());
            opt.with_options(options, OptionPassing::BeyondHop)
        });
        let additional = header.arcount() - u16::from(reply.opt().is_some());
        Self {
            header: header.with_id(form.id).with_rcode(form.header_rcode(rcode)),
            counts: [header.qdcount(), header.ancount(), header.nscount(), additional],
            opt,
        }
    }

    fn is_over(&self, limit: usize, out: &[u8]) -> bool {
        out.len() + self.opt_len() > limit
    }

    fn opt_len(&self) -> usize {
        self.opt.map_or(0, |opt| opt.wire_len())
    }

    #[cold]
    fn cut(mut self, reply: &Reply<'_>, limit: usize, out: &mut Vec<u8>) -> Self {
        // RFC 8914 section 3: EDE options go before other data does.
        self.opt = self.opt.map(|opt| opt.with_passing(OptionPassing::BeyondHopWithoutErrors));
        // RFC 2181 section 9: extra data is left out without TC. RFC 9471 section 3.1: referrals keep glue.
        if self.is_over(limit, out) && !reply.is_referral() {
            let room = limit.saturating_sub(self.opt_len());
            self.counts[3] = drop_additional(out, reply.additional_start(), room);
        }
        // Deviation: RFC 6891 section 6.1.1 requires an OPT record in every response to a query with one, and
        // RFC 7873 section 5.2.3 a cookie. But a reply that is too long for TCP with them could not be sent
        // at all.
        if limit == MAX_MESSAGE && self.is_over(limit, out) {
            self.opt = self.opt.map(|opt| opt.with_cookie(None));
        }
        if limit == MAX_MESSAGE && self.is_over(limit, out) && reply.rcode().0 <= Rcode::MAX_IN_HEADER {
            self.opt = None;
        }
        if self.is_over(limit, out) {
            out.truncate(reply.answers_start());
            self.header = self.header.with(Flag::Truncated, true);
            self.counts = [self.counts[0], 0, 0, 0];
            self.opt = self.opt.map(|opt| opt.with_passing(OptionPassing::BeyondHop));
        }
        if self.is_over(limit, out) {
            self.opt = self.opt.map(|opt| opt.with_passing(OptionPassing::Nothing));
        }
        self
    }
}

/// Shortens a response to the header with TC, the question and the OPT record.
pub fn shorten(response: &mut Vec<u8>) {
    let Ok(reply) = read_reply(response) else { return };
    let (start, opt) = (reply.answers_start(), reply.opt().map(|opt| opt.start..opt.end));
    let counts = [reply.header().qdcount(), 0, 0, opt.is_some().into()];
    let header = reply.header().with(Flag::Truncated, true).with_counts(counts);
    let opt = opt.unwrap_or_default();
    let end = start + opt.len();
    response.copy_within(opt, start);
    response.truncate(end);
    header.overwrite(response);
}

/// Turns a response to a client without a server cookie into a short BADCOOKIE response (RFC 7873 section
/// 5.2.3). The response has an OPT record because it has a cookie.
pub fn ask_for_cookie(response: &mut Vec<u8>) {
    shorten(response);
    let Ok(reply) = read_reply(response) else { return };
    let Some(start) = reply.opt().map(|opt| opt.start) else { return };
    let header = reply.header().with(Flag::Truncated, false).with_rcode(Rcode::BADCOOKIE);
    header.overwrite(response);
    // RFC 6891 section 6.1.3: the first byte of the TTL has the upper bits of the rcode.
    if let Some(extended) = response.get_mut(start + 5) {
        *extended = (Rcode::BADCOOKIE.0 >> 4) as u8;
    }
}

/// Writes a backend's reply into `out` unchanged except for the ID, for a client whose query carries a TSIG
/// record (RFC 8945 section 5.5). The signature covers all other bytes.
pub fn write_unchanged(reply: &Reply<'_>, id: u16, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(reply.as_wire());
    set_id(out, id);
}

/// Copies a reply without its OPT record. Stops early when `out` is longer than `limit`.
fn append_without_opt(reply: &Reply<'_>, limit: usize, out: &mut Vec<u8>) {
    let message = reply.as_wire();
    let Some(opt) = reply.opt() else {
        out.extend_from_slice(message);
        return;
    };
    out.extend_from_slice(message.get(..opt.start).unwrap_or_default());
    expand::append_records(message, opt.end, opt.start, limit, out);
}

/// Removes additional records from the end until at most `room` bytes are left, and returns the number that
/// remain. RFC 2181 section 9: an RRset that does not fit is removed as a whole, or the client would take the
/// rest for all of it.
fn drop_additional(out: &mut Vec<u8>, additional: usize, room: usize) -> u16 {
    let mut rrset = None;
    let mut rrset_start = (additional, 0);
    for (kept, record) in (0..).zip(records(out, additional)) {
        let key = Some((read_name(out, record.start).map(|owner| owner.folded()), record.rtype));
        if key != rrset {
            rrset = key;
            rrset_start = (record.start, kept);
        }
        if record.end > room {
            break;
        }
    }
    let (end, kept) = rrset_start;
    out.truncate(end);
    kept
}

/// The longest message, because TCP has two bytes for the length (RFC 1035 section 4.2.2).
pub(super) const MAX_MESSAGE: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::super::codes::RecordType;
    use super::super::query::read_query;
    use super::super::reply::read_reply;
    use super::super::sample::*;
    use super::*;

    fn response(query: &[u8], reply: &[u8], limit: usize) -> Vec<u8> {
        let form = ClientForm::of(&read_query(query).expect("a query"));
        let mut out = b"left over".to_vec();
        write_response(&read_reply(reply).expect("a reply"), &form, 1232, limit, &mut out);
        assert!(out.len() <= limit);
        out
    }

    #[test]
    fn relaying_changes_id_case_and_opt() {
        let check = |query: &[u8], reply: &[u8], expected: &[u8]| {
            assert_eq!(response(query, reply, 1232), expected, "{reply:?}");
        };
        let upper = QUESTION.to_ascii_uppercase();
        let mut other_id = message(0x85F0, [1, 1, 0, 0], &[&upper, &a(WWW)]);
        other_id[..2].copy_from_slice(&[0xAB, 0xCD]);
        check(&plain(), &other_id, &message(0x85F0, [1, 1, 0, 0], &[QUESTION, &a(WWW)]));

        // A response has an OPT record exactly if the query has one, independent of the backend.
        let without = message(REPLY, [1, 1, 0, 0], &[QUESTION, &a(WWW)]);
        let options = b"\0\x0A\0\x01c\0\x0F\0\x02\0\x16";
        let with = message(REPLY, [1, 1, 0, 1], &[QUESTION, &a(WWW), &opt(0, 0, options)]);
        let errors = b"\0\x0F\0\x02\0\x16";
        let ours = |options| message(REPLY, [1, 1, 0, 1], &[QUESTION, &a(WWW), &our_opt(0, options)]);
        check(&plain(), &with, &without);
        check(&with_edns(), &with, &ours(errors));
        check(&with_edns(), &without, &ours(b""));
    }

    #[test]
    fn who_is_asked_for_a_cookie_gets_nothing_else() {
        let ours =
            |extended: u8| [&[0, 0, 41, 4, 0xD0, extended, 0, 0x80, 0, 0, 12, 0, 10, 0, 8][..], b"CLIENT01"].concat();
        let mut response = message(REPLY | 3, [1, 1, 0, 2], &[QUESTION, &a(WWW), &a(WWW), &ours(0)]);
        ask_for_cookie(&mut response);
        assert_eq!(response, message(REPLY | 7, [1, 0, 0, 1], &[QUESTION, &ours(1)]));
        assert_eq!(read_reply(&response).map(|reply| reply.rcode()), Ok(Rcode::BADCOOKIE));
    }

    #[test]
    fn extended_rcodes_need_an_opt() {
        let reply = message(REPLY | 7, [1, 0, 0, 1], &[QUESTION, &opt(1, 0, b"")]);
        let check = |query: &[u8], expected: &[u8]| assert_eq!(response(query, &reply, 512), expected);
        check(&with_edns(), &message(REPLY | 7, [1, 0, 0, 1], &[QUESTION, &our_opt(1, b"")]));
        check(&plain(), &message(REPLY | 2, [1, 0, 0, 0], &[QUESTION]));
    }

    #[test]
    fn records_behind_an_opt_move() {
        let check = |behind: &[&[u8]], expected: &[&[u8]]| {
            let count = behind.len() as u16;
            let options = b"\0\x0A\0\x20--------------------------------";
            let opt = opt(0, 0, options);
            let parts = [&[QUESTION, &opt], behind].concat();
            let reply = message(REPLY, [1, 0, 0, count + 1], &parts);
            let plain_parts = [&[QUESTION], expected].concat();
            let expected_plain = message(REPLY, [1, 0, 0, count], &plain_parts);
            assert_eq!(response(&plain(), &reply, 1232), expected_plain, "{behind:?}");
            let ours = our_opt(0, b"");
            let edns_parts = [&plain_parts[..], &[&ours]].concat();
            let expected_edns = message(REPLY, [1, 0, 0, count + 1], &edns_parts);
            assert_eq!(response(&with_edns(), &reply, 1232), expected_edns, "{behind:?}");
        };
        // The OPT record starts at 33, its options at 44, and the next record at 80.
        let owner = &[b"\x02ns", EXAMPLE].concat()[..];
        let (to_first, to_opt, to_label): (&[u8], &[u8], &[u8]) = (&[0xC0, 80], &[0xC0, 33], &[1, b'x', 0xC0, 80]);
        let x = &[b"\x01x", owner].concat()[..];
        let mx = |name: &[u8]| [b"\0\x0A", name].concat();
        let naptr = |name: &[u8]| [b"\0\x01\0\x02\x01u\x03sip\0", name].concat();
        let soa = |a: &[u8], b: &[u8]| [a, b, &[7; 20]].concat();
        let check_type = |rtype, rdata: &[u8], moved: &[u8]| {
            check(&[&a(owner), &record(to_label, rtype, rdata)], &[&a(owner), &record(x, rtype, moved)]);
        };
        check(&[&a(WWW), &a(EXAMPLE)], &[&a(WWW), &a(EXAMPLE)]);
        check(&[&a(owner), &a(to_first)], &[&a(owner), &a(owner)]);
        // A name that starts in the question's class and runs into the OPT record: one label, and the OPT's
        // 0x00 type byte.
        check(&[&a(&[0xC0, 32])], &[&a(b"\x01\0\0")]);
        // A pointer may lead to the root label of the OPT record, which is removed; the name stays the root.
        check(&[&a(to_opt)], &[&a(b"\0")]);
        check_type(RecordType::NS, to_first, owner);
        check_type(RecordType::MX, &mx(to_label), &mx(x));
        check_type(RecordType::SRV, &[&[0; 6], to_first].concat(), &[&[0; 6], owner].concat());
        check_type(RecordType::NAPTR, &naptr(to_first), &naptr(owner));
        check_type(RecordType::SOA, &soa(to_first, WWW), &soa(owner, WWW));
        check_type(RecordType::SOA, &soa(WWW, to_label), &soa(WWW, x));
        // Bytes that look like a pointer are none in types without names, nor where the layout does not fit.
        check_type(RecordType::A, &[0xC0, 80, 0xC0, 80], &[0xC0, 80, 0xC0, 80]);
        check_type(RecordType(65280), to_first, to_first);
        check_type(RecordType::MX, b"\0", b"\0");
        check_type(RecordType::NAPTR, b"\0\0\0\0\xFF", b"\0\0\0\0\xFF");
        check_type(RecordType::SOA, to_first, to_first);
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_worth() {
        // The rest of a reply: answers, authority, additional, TC, and bytes of options.
        let check = |parts: &[Vec<u8>], counts: [u16; 4], limit: usize, expected: ([u16; 4], bool, usize)| {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let reply = message(REPLY, counts, &[&[QUESTION][..], &parts].concat());
            let out = response(&with_edns(), &reply, limit);
            let left = read_reply(&out).expect("a response is sound");
            let header = left.header();
            let counts = [header.qdcount(), header.ancount(), header.nscount(), header.arcount()];
            let options = left.edns().map_or(0, |edns| edns.options.len());
            assert_eq!((counts, header.is_truncated(), options), expected);
        };
        let txt = |owner: &[u8], len| record(owner, RecordType::TXT, &vec![b'x'; len]);
        let ns = record(EXAMPLE, RecordType::NS, WWW);
        let error = b"\0\x0F\0\x02\0\x16";
        let own = |len: usize| [&b"\xFD\xE9"[..], &(len as u16).to_be_bytes(), &vec![0; len]].concat();
        // The question takes 33 bytes, a TXT record of 400 takes 412, the OPT record of hedgerow 11.
        let long = txt(WWW, 400);
        let answer = |options: &[u8]| vec![long.clone(), opt(0, 0, options)];
        check(&answer(b""), [1, 1, 0, 1], 512, ([1, 1, 0, 1], false, 0));
        check(&answer(&own(52)), [1, 1, 0, 1], 512, ([1, 1, 0, 1], false, 56));
        check(&answer(&[error, &own(46)[..]].concat()), [1, 1, 0, 1], 512, ([1, 1, 0, 1], false, 56));
        check(&answer(&[error, &own(47)[..]].concat()), [1, 1, 0, 1], 512, ([1, 1, 0, 1], false, 51));
        check(&answer(&own(53)), [1, 1, 0, 1], 512, ([1, 0, 0, 1], true, 57));
        check(&answer(&own(500)), [1, 1, 0, 1], 512, ([1, 0, 0, 1], true, 0));
        // Optional records are removed from the end, an RRset at a time, and without TC.
        let extra = |tail: &[Vec<u8>]| [std::slice::from_ref(&long), tail].concat();
        check(&extra(&[a(WWW), a(EXAMPLE)]), [1, 1, 0, 2], 488, ([1, 1, 0, 3], false, 0));
        check(&extra(&[a(WWW), a(EXAMPLE)]), [1, 1, 0, 2], 487, ([1, 1, 0, 2], false, 0));
        check(&extra(&[a(WWW), a(EXAMPLE)]), [1, 1, 0, 2], 471, ([1, 1, 0, 1], false, 0));
        check(&extra(&[a(EXAMPLE), a(WWW), a(&QUESTION[..17])]), [1, 1, 0, 3], 500, ([1, 1, 0, 2], false, 0));
        check(&extra(&[a(WWW), txt(WWW, 9), a(EXAMPLE)]), [1, 1, 0, 3], 500, ([1, 1, 0, 3], false, 0));
        // The answer itself is never removed without TC, nor is a referral's glue.
        check(&extra(&[a(WWW)]), [1, 1, 0, 1], 455, ([1, 0, 0, 1], true, 0));
        check(&extra(&[a(WWW)]), [1, 0, 1, 1], 471, ([1, 0, 1, 1], false, 0));
        let glue = [ns, long.clone(), a(WWW)];
        check(&glue, [1, 0, 1, 2], 486, ([1, 0, 1, 3], false, 0));
        check(&glue, [1, 0, 1, 2], 485, ([1, 0, 0, 1], true, 0));
    }

    #[test]
    fn opt_gives_way_to_what_only_just_fits_into_tcp() {
        let txt = |len: usize| record(WWW, RecordType::TXT, &vec![b'x'; len]);
        // The question takes 33 bytes, each record 12 and its data, the OPT record of hedgerow 11.
        for (len, additional) in [(5479, 1), (5480, 0), (5490, 0)] {
            let reply = message(REPLY, [1, 2, 0, 0], &[QUESTION, &txt(60_000 - 12), &txt(len)]);
            let out = response(&with_edns(), &reply, MAX_MESSAGE);
            let header = read_reply(&out).expect("a response is sound").header();
            assert_eq!((header.ancount(), header.arcount(), header.is_truncated()), (2, additional, false), "{len}");
        }
    }

    #[test]
    fn tc_of_the_backend_stays() {
        let reply = message(0x8200, [1, 0, 0, 0], &[QUESTION]);
        assert_eq!(response(&plain(), &reply, 512), reply);
    }
}
