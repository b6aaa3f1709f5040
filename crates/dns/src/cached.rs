//! Cached messages: the form of a reply in the cache, and its TTLs when it is stored and when it is sent.
//!
//! A cached message has its name folded, its ID and RD zero, AA clear, RA set, and keeps only the Extended
//! DNS Errors of its OPT record.

use super::body::{RecordBounds, read_name, records};
use super::codes::{ExtendedError, RecordType};
use super::edns::{OptRecord, OptionPassing, extended_error_option, set_length};
use super::form::ClientForm;
use super::header::{Flag, HEADER_LEN, Header, rewrite_header};
use super::name::fold;
use super::query::Query;
use super::question::Question;
use super::relay::{MAX_MESSAGE, write_response};
use super::reply::{Reply, read_reply};

/// Bounds of the TTLs of a cached message, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlBounds {
    /// Lower bound. A TTL of 0 stays 0.
    pub min: u32,
    /// Upper bound.
    pub max: u32,
    /// Upper bound of the SOA record of a negative reply; `None` if the reply is not negative.
    pub max_negative: Option<u32>,
}

/// Freshness of a cached message when it is sent, which decides its TTLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The TTLs have not expired.
    Fresh {
        /// Seconds since the reply arrived. They are subtracted from the TTLs.
        age: u32,
    },
    /// The TTLs have expired, and there is no newer reply (serve-stale, RFC 8767).
    Stale {
        /// The new TTL of all records, in seconds.
        ttl: u32,
        /// The error for a client with EDNS.
        error: ExtendedError,
    },
    /// The message is a failure and has no TTLs.
    Failure {
        /// The error for a client with EDNS.
        error: ExtendedError,
    },
}

/// Writes a reply into `out` as a cached message; `out` stays empty if the reply is a bare failure.
pub fn write_cacheable(reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.clear();
    let Some(question) = reply.question() else { return };
    let plain = ClientForm::of(&Query { header: Header::new(0), question, edns: None, is_signed: false });
    write_response(reply, &plain, 0, MAX_MESSAGE, out);
    // RFC 6891 section 6.1.1: OPT records are not cached. Deviation: the errors in them (RFC 8914) are kept,
    // because they concern the answer and not the hop.
    let errors = reply.edns().map(|edns| OptRecord::new(0, false).with_options(edns.options, OptionPassing::Errors));
    let errors = errors.filter(|opt| opt.has_options() && out.len() + opt.wire_len() <= MAX_MESSAGE);
    if let Some(opt) = errors {
        opt.append(out);
    }
    rewrite_header(out, |header| {
        let additional = header.arcount() + u16::from(errors.is_some());
        header
            .with_counts([header.qdcount(), header.ancount(), header.nscount(), additional])
            // RFC 1035 section 4.1.1: AA and RA describe the responding server, which is a cache here.
            .with(Flag::Authoritative, false)
            .with(Flag::RecursionAvailable, true)
            .with(Flag::RecursionDesired, false)
    });
    if let Some(qname) = out.get_mut(HEADER_LEN..HEADER_LEN + question.qname().len()) {
        fold(qname);
    }
}

/// Clamps the TTLs of a cached message and returns the smallest in seconds. Returns `None` if no record has a
/// TTL, or if changed TTLs would break a name that leads into one.
pub fn clamp_ttls(message: &mut [u8], bounds: TtlBounds) -> Option<u32> {
    let mut lowest: Option<u32> = None;
    let mut is_lowered = false;
    let mut before: Option<(RecordBounds, u32)> = None;
    let mut rrset_start = 0;
    let (start, count) = records_of(message);
    let mut at = start;
    for _ in 0..count {
        let Some(record) = RecordBounds::read(message, at) else { break };
        at = record.end;
        if record.rtype == RecordType::OPT {
            continue;
        }
        let mut ttl = clamped_ttl(message, &record, bounds);
        let same = before.filter(|(before, _)| is_same_rrset(message, before, &record));
        match same {
            // RFC 2181 section 5.2: TTLs that differ within an RRset are all taken as the lowest of them.
            Some((_, of_rrset)) if of_rrset <= ttl => ttl = of_rrset,
            Some(_) => {
                lower_ttls(message, rrset_start, record.start, ttl);
                is_lowered = true;
            }
            None => rrset_start = record.start,
        }
        set_ttl(message, &record, ttl);
        lowest = Some(lowest.map_or(ttl, |lowest| lowest.min(ttl)));
        before = Some((record, ttl));
    }
    // The walk reads on after it set a TTL, so it ends early if the new TTL has broken a name.
    let end = |message: &[u8]| records(message, start).take(count).last().map_or(start, |record| record.end);
    let is_whole = at == message.len() && !(is_lowered && end(message) != message.len());
    lowest.filter(|_| is_whole)
}

/// Returns the smallest TTL of a valid message, or `None` if no record has one. A negative reply lasts no
/// longer than the MINIMUM field of its SOA record (RFC 2308 section 5).
pub fn least_ttl(message: &[u8]) -> Option<u32> {
    let has_answers = Header::read(message).is_some_and(|header| header.ancount() > 0);
    let bounds = TtlBounds { min: 0, max: u32::MAX, max_negative: (!has_answers).then_some(u32::MAX) };
    let (start, count) = records_of(message);
    let records = records(message, start).take(count).filter(|record| record.rtype != RecordType::OPT);
    records.map(|record| clamped_ttl(message, &record, bounds)).min()
}

/// Writes a cached message into `out` as a response for one client, like [`write_response`].
pub fn write_cached(
    cached: &Reply<'_>,
    freshness: Freshness,
    form: &ClientForm,
    own_udp_size: u16,
    limit: usize,
    out: &mut Vec<u8>,
) {
    write_response(cached, form, own_udp_size, limit, out);
    rewrite_header(out, |header| form.adapt(header));
    let mut at = cached.answers_start();
    while let Some(record) = RecordBounds::read(out, at) {
        at = record.end;
        match freshness {
            Freshness::Fresh { .. } | Freshness::Stale { .. } if record.rtype == RecordType::OPT => {}
            Freshness::Failure { .. } => {}
            Freshness::Fresh { age } => {
                let ttl = ttl_of(out, &record).saturating_sub(age);
                set_ttl(out, &record, ttl);
            }
            Freshness::Stale { ttl, .. } => set_ttl(out, &record, ttl),
        }
    }
    match freshness {
        Freshness::Stale { error, .. } | Freshness::Failure { error } => append_error(out, error, form, limit),
        Freshness::Fresh { .. } => {}
    }
}

/// Subtracts the time that a reply has spent in HTTP caches from its TTLs (RFC 8484 section 5.1). A reply
/// with TSIG stays unchanged, because the signature covers the TTLs.
pub fn subtract_age(reply: &mut [u8], age: u32) {
    if !read_reply(reply).is_ok_and(|reply| !reply.is_signed()) {
        return;
    }
    let (mut at, count) = records_of(reply);
    for _ in 0..count {
        let Some(record) = RecordBounds::read(reply, at) else { return };
        at = record.end;
        if record.rtype != RecordType::OPT {
            let ttl = ttl_of(reply, &record).saturating_sub(age);
            set_ttl(reply, &record, ttl);
        }
    }
}

fn append_error(out: &mut Vec<u8>, error: ExtendedError, form: &ClientForm, limit: usize) {
    let option = extended_error_option(error);
    // RFC 8914 section 3: EDE options go before other data does.
    if form.edns.is_none() || out.len() + option.len() > limit {
        return;
    }
    let (start, count) = records_of(out);
    let last = records(out, start).take(count).last();
    let Some(opt) = last.filter(|record| record.rtype == RecordType::OPT) else { return };
    set_length(out, opt.rdata, opt.end - opt.rdata + option.len());
    out.extend_from_slice(&option);
}

/// Returns the offset of the first record, and the number of records.
fn records_of(message: &[u8]) -> (usize, usize) {
    let header = Header::read(message).unwrap_or_default();
    let counts = [header.ancount(), header.nscount(), header.arcount()];
    let start = Question::read(message).map_or(HEADER_LEN, |question| question.end());
    (start, counts.into_iter().map(usize::from).sum())
}

fn clamped_ttl(message: &[u8], record: &RecordBounds, bounds: TtlBounds) -> u32 {
    let ttl = ttl_of(message, record);
    // RFC 2181 section 8: a TTL with the highest bit set is taken as 0. Deviation: RFC 8767 section 4 takes
    // it for a very long time. 68 years is never intended, and a record that is not kept is never wrong.
    if ttl == 0 || ttl > i32::MAX as u32 {
        return 0;
    }
    let ttl = match bounds.max_negative {
        // RFC 2308 section 5: the lesser of the TTL and MINIMUM, the last field.
        Some(max) if record.rtype == RecordType::SOA => {
            let minimum = message.get(record.rdata..record.end).and_then(|rdata| rdata.last_chunk());
            ttl.min(minimum.map_or(0, |minimum| u32::from_be_bytes(*minimum))).min(max)
        }
        Some(_) | None => ttl,
    };
    if ttl == 0 { 0 } else { ttl.clamp(bounds.min, bounds.max) }
}

/// RFC 4034 section 3 ties each RRSIG to the RRset that it signs, so RRSIG records are separate.
fn is_same_rrset(message: &[u8], a: &RecordBounds, b: &RecordBounds) -> bool {
    let class = |record: &RecordBounds| message.get(record.owner_end + 2..record.owner_end + 4);
    if a.rtype != b.rtype || a.rtype == RecordType::RRSIG || class(a) != class(b) {
        return false;
    }
    // Nearly always both owners are the same pointer.
    message.get(a.start..a.owner_end) == message.get(b.start..b.owner_end)
        || read_name(message, a.start).map(|name| name.folded())
            == read_name(message, b.start).map(|name| name.folded())
}

fn lower_ttls(message: &mut [u8], from: usize, to: usize, ttl: u32) {
    let mut at = from;
    while at < to
        && let Some(record) = RecordBounds::read(message, at)
    {
        set_ttl(message, &record, ttl);
        at = record.end;
    }
}

fn ttl_of(message: &[u8], record: &RecordBounds) -> u32 {
    let octets = message.get(record.owner_end + TTL_AT..).and_then(|octets| octets.first_chunk());
    octets.map_or(0, |octets| u32::from_be_bytes(*octets))
}

fn set_ttl(message: &mut [u8], record: &RecordBounds, ttl: u32) {
    let octets = message.get_mut(record.owner_end + TTL_AT..).and_then(|octets| octets.first_chunk_mut());
    if let Some(octets) = octets {
        *octets = ttl.to_be_bytes();
    }
}

const TTL_AT: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::query::read_query;
    use super::super::sample::*;
    use super::*;

    const FREE: TtlBounds = TtlBounds { min: 0, max: u32::MAX, max_negative: None };

    #[test]
    fn a_name_that_leads_into_a_time_to_live_is_not_kept() {
        // The TTL of the first record is also read as a name: a root, or with other TTLs a label that is cut.
        let ttl_at = RECORDS + WWW.len() + TTL_AT;
        let owner = (0xC000 | (ttl_at as u16 + 1)).to_be_bytes();
        let first = lasting(a(WWW), WWW.len(), 0x0100_003C);
        let octets = message(REPLY, [1, 2, 0, 0], &[QUESTION, &first, &a(&owner)]);
        let mut cached = Vec::new();
        write_cacheable(&read_reply(&octets).unwrap(), &mut cached);
        assert!(clamp_ttls(&mut cached.clone(), FREE).is_some());
        assert_eq!(clamp_ttls(&mut cached, TtlBounds { max: 86_400, ..FREE }), None);
        assert!(read_reply(&cached).is_err());
    }

    fn lasting(mut record: Vec<u8>, owner_len: usize, ttl: u32) -> Vec<u8> {
        record[owner_len + 4..owner_len + 8].copy_from_slice(&ttl.to_be_bytes());
        record
    }

    fn a_for(ttl: u32) -> Vec<u8> {
        lasting(a(WWW), WWW.len(), ttl)
    }

    fn cached(reply: &[u8]) -> Vec<u8> {
        let mut out = b"left over".to_vec();
        write_cacheable(&read_reply(reply).expect("a reply"), &mut out);
        out
    }

    #[test]
    fn a_failure_says_that_it_is_remembered() {
        let failure = cached(&message(REPLY | 2, [1, 0, 0, 0], &[QUESTION]));
        let failure = read_reply(&failure).expect("a reply");
        let check = |query: &[u8], expected: &[u8]| {
            let form = ClientForm::of(&read_query(query).expect("a query"));
            let mut out = Vec::new();
            write_cached(
                &failure,
                Freshness::Failure { error: ExtendedError::CACHED_ERROR },
                &form,
                1232,
                512,
                &mut out,
            );
            assert!(out.ends_with(expected) && out[3] & 0xF == 2, "{out:?}");
        };
        check(&plain(), QUESTION);
        check(&with_edns(), b"\0\x06\0\x0F\0\x02\0\x0D");
    }

    #[test]
    fn what_is_kept_is_nobodys() {
        let folded = QUESTION.to_ascii_lowercase();
        let mut expected =
            message(0x80A0, [1, 1, 0, 1], &[&folded, &a(WWW), b"\0\0\x29\0\0\0\0\0\0\0\x06\0\x0F\0\x02\0\x16"]);
        expected[..2].copy_from_slice(&[0, 0]);
        let options = b"\0\x0A\0\x01c\0\x0F\0\x02\0\x16\xFD\xE9\0\0";
        let reply = message(0x8520, [1, 1, 0, 1], &[QUESTION, &a(WWW), &opt(0, 0, options)]);
        assert_eq!(cached(&reply), expected);
        // Without errors there is no OPT record.
        let reply = message(0x8520, [1, 1, 0, 1], &[QUESTION, &a(WWW), &opt(0, 0, b"\0\x0A\0\x01c")]);
        assert_eq!(read_reply(&cached(&reply)).expect("a reply").header().arcount(), 0);
        // Padding (RFC 7830) is of one message, be it beside an error that is kept.
        let padded = b"\0\x0C\0\x03\0\0\0";
        let reply = message(0x8520, [1, 1, 0, 1], &[QUESTION, &a(WWW), &opt(0, 0, padded)]);
        assert_eq!(read_reply(&cached(&reply)).expect("a reply").header().arcount(), 0);
        let options = [&padded[..], b"\0\x0F\0\x02\0\x16"].concat();
        let reply = message(0x8520, [1, 1, 0, 1], &[QUESTION, &a(WWW), &opt(0, 0, &options)]);
        assert_eq!(cached(&reply), expected);
        // Padding (RFC 7830) belongs to one message, even beside an error that is kept.
        assert_eq!(cached(&message(REPLY | 2, [0; 4], &[])), b"");
    }

    #[test]
    fn ttls_are_clamped() {
        let check = |ttls: &[u32], bounds: TtlBounds, expected: &[u32]| {
            let records: Vec<u8> = ttls.iter().flat_map(|&ttl| a_for(ttl)).collect();
            let mut octets = message(REPLY, [1, ttls.len() as u16, 0, 0], &[QUESTION, &records]);
            let lowest = clamp_ttls(&mut octets, bounds);
            assert_eq!(lowest, expected.iter().min().copied(), "{ttls:?}");
            let kept = super::super::body::records(&octets, RECORDS);
            let found: Vec<_> = kept.map(|record| ttl_of(&octets, &record)).collect();
            assert_eq!(found, expected, "{ttls:?}");
        };
        check(&[], FREE, &[]);
        check(&[300], FREE, &[300]);
        check(&[0x8000_0000], FREE, &[0]);
        check(&[0x7FFF_FFFF], FREE, &[0x7FFF_FFFF]);
        check(&[300, 200, 400], FREE, &[200, 200, 200]);
        check(&[300, 200, 100], FREE, &[100, 100, 100]);
        check(&[5], TtlBounds { min: 60, ..FREE }, &[60]);
        check(&[0], TtlBounds { min: 60, ..FREE }, &[0]);
        check(&[500], TtlBounds { max: 60, ..FREE }, &[60]);
    }

    #[test]
    fn a_message_lasts_as_long_as_its_shortest_record() {
        let soa = |ttl: u32, minimum: u32| {
            let rdata = [&b"\0\0"[..], &[0; 16], &minimum.to_be_bytes()].concat();
            [&b"\0\0\x06\0\x01"[..], &ttl.to_be_bytes(), &(rdata.len() as u16).to_be_bytes(), &rdata].concat()
        };
        let opt = b"\0\0\x29\x10\0\0\0\0\0\0\0".to_vec();
        for (counts, records, expected) in [
            ([1, 0, 0, 0], vec![], None),
            ([1, 0, 0, 1], vec![opt.clone()], None),
            ([1, 2, 0, 1], vec![a_for(300), a_for(60), opt], Some(60)),
            ([1, 1, 1, 0], vec![a_for(300), soa(200, 5)], Some(200)),
            ([1, 0, 1, 0], vec![soa(200, 5)], Some(5)),
            ([1, 0, 1, 0], vec![soa(3, 5)], Some(3)),
            ([1, 1, 0, 0], vec![a_for(u32::MAX)], Some(0)),
        ] {
            let octets = message(REPLY, counts, &[QUESTION, &records.concat()]);
            assert_eq!(least_ttl(&octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn rrsets_settle_one_by_one() {
        let records = [a_for(300), lasting(a(EXAMPLE), 2, 100), lasting(a(QUESTION.split_at(17).0), 17, 50)].concat();
        let mut octets = message(REPLY, [1, 3, 0, 0], &[QUESTION, &records]);
        let before = octets.clone();
        assert_eq!(clamp_ttls(&mut octets, FREE), Some(50));
        assert_eq!(octets, before);
        // The same owner, spelled out and in another case.
        let upper = b"\x03WWW\x07EXAMPLE\x03ORG\0";
        let records = [a_for(300), lasting(a(upper), 17, 50)].concat();
        let mut octets = message(REPLY, [1, 2, 0, 0], &[QUESTION, &records]);
        clamp_ttls(&mut octets, FREE);
        assert_eq!(octets, message(REPLY, [1, 2, 0, 0], &[QUESTION, &a_for(50), &lasting(a(upper), 17, 50)]));
        // RRSIG records beside each other sign different RRsets.
        let sig = |ttl| lasting(record(WWW, RecordType::RRSIG, &[0; 20]), 2, ttl);
        let mut octets = message(REPLY, [1, 2, 0, 0], &[QUESTION, &sig(300), &sig(50)]);
        let before = octets.clone();
        assert_eq!(clamp_ttls(&mut octets, FREE), Some(50));
        assert_eq!(octets, before);
    }

    #[test]
    fn the_age_of_a_reply_is_taken_from_its_ttls() {
        let tsig = b"\x01k\0\0\xFA\0\xFF\0\0\0\0\0\0";
        let check = |tail: &[u8], age: u32, ttls: [u32; 2]| {
            let counts = [1, 2, 0, u16::from(!tail.is_empty())];
            let reply = |[one, two]: [u32; 2]| {
                message(REPLY, counts, &[QUESTION, &a_for(one), &lasting(a(EXAMPLE), 2, two), tail])
            };
            let mut octets = reply([300, 20]);
            subtract_age(&mut octets, age);
            assert_eq!(octets, reply(ttls), "{age}");
        };
        check(b"", 0, [300, 20]);
        check(&our_opt(0, b""), 19, [281, 1]);
        check(b"", 21, [279, 0]);
        check(b"", u32::MAX, [0, 0]);
        check(tsig, 21, [300, 20]);
        let mut broken = message(REPLY, [1, 2, 0, 0], &[QUESTION, &a_for(300)]);
        let before = broken.clone();
        subtract_age(&mut broken, 7);
        assert_eq!(broken, before);
    }

    #[test]
    fn an_soa_lasts_as_long_as_it_says() {
        let check = |ttl: u32, minimum: u32, max: u32, expected: u32| {
            let rdata = [&[0; 18][..], &minimum.to_be_bytes()].concat();
            let soa = lasting(record(EXAMPLE, RecordType::SOA, &rdata), 2, ttl);
            let mut octets = message(REPLY | 3, [1, 0, 1, 0], &[QUESTION, &soa]);
            let bounds = TtlBounds { max_negative: Some(max), ..FREE };
            assert_eq!(clamp_ttls(&mut octets, bounds), Some(expected), "{ttl} {minimum} {max}");
        };
        check(3600, 900, 10_800, 900);
        check(600, 900, 10_800, 600);
        check(86_400, 86_400, 10_800, 10_800);
        check(3600, 0, 10_800, 0);
    }

    #[test]
    fn responses_have_aged() {
        let check = |query: &[u8], freshness: Freshness, limit: usize, expected: &[u8]| {
            let mut reply = message(0x8580, [1, 2, 0, 0], &[QUESTION, &a_for(300), &lasting(a(EXAMPLE), 2, 20)]);
            reply = cached(&reply);
            let form = ClientForm::of(&read_query(query).expect("a query"));
            let mut out = b"left over".to_vec();
            write_cached(&read_reply(&reply).expect("a reply"), freshness, &form, 1232, limit, &mut out);
            assert_eq!(out, expected, "{freshness:?}");
        };
        let answers = |bits, ttls: [u32; 2], opt: &[u8]| {
            let counts = [1, 2, 0, u16::from(!opt.is_empty())];
            message(bits, counts, &[QUESTION, &a_for(ttls[0]), &lasting(a(EXAMPLE), 2, ttls[1]), opt])
        };
        check(&plain(), Freshness::Fresh { age: 0 }, 512, &answers(0x8180, [300, 20], b""));
        check(&plain(), Freshness::Fresh { age: 19 }, 512, &answers(0x8180, [281, 1], b""));
        check(&plain(), Freshness::Fresh { age: 21 }, 512, &answers(0x8180, [279, 0], b""));
        check(
            &message(0, [1, 0, 0, 0], &[QUESTION]),
            Freshness::Fresh { age: 1 },
            512,
            &answers(0x8080, [299, 19], b""),
        );
        let stale = Freshness::Stale { ttl: 30, error: ExtendedError::STALE };
        check(&plain(), stale, 512, &answers(0x8180, [30, 30], b""));
        let reported = our_opt(0, b"\0\x0F\0\x02\0\x03");
        check(&with_edns(), stale, 512, &answers(0x8180, [30, 30], &reported));
        // 33 bytes of question, 32 of answers, 11 of OPT: the error just does not fit.
        let full = 12 + 21 + 32 + 11 + 5;
        check(&with_edns(), stale, full, &answers(0x8180, [30, 30], &our_opt(0, b"")));
    }
}
