//! `wire/` against hickory-proto: what either reads, the other must read alike.
//!
//! Messages are generated, and some are damaged. Of each, `wire/` must accept just those that hickory's
//! readers find to be well built, must see in them what hickory sees, and must write what hickory reads back
//! as promised.

mod generate;
mod oracle;

use dns::{
    ClientForm, OptionCode, QueryRejection, QuestionKey, Rcode, Reply, read_query, read_reply, write_error,
    write_query, write_response,
};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use proptest::prelude::*;

use generate::{Spec, apply, damage, query, reply};
use oracle::{Structure, options, records};

/// Our own UDP size.
const OWN_UDP_SIZE: u16 = 1232;

/// Options that are about a hop.
const ABOUT_HOP: [u16; 4] = [8, 10, 11, 12];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn queries_are_taken_and_asked_on(spec in query()) {
        let octets = spec.to_wire();
        let theirs = Message::from_vec(&octets).expect("hickory reads it");
        let ours = read_query(&octets).expect("a query");
        prop_assert_eq!(ours.header.id(), theirs.metadata.id);
        prop_assert!(oracle::name(ours.question.qname()).eq_case(theirs.queries[0].name()));

        let mut out = Vec::new();
        let opt_start = write_query(&ours, OWN_UDP_SIZE, &mut out);
        let asked = Message::from_vec(&out).expect("hickory reads it");
        prop_assert_eq!(asked.metadata.id, 0);
        prop_assert_eq!(asked.metadata.recursion_desired, theirs.metadata.recursion_desired);
        prop_assert_eq!(asked.metadata.authentic_data, theirs.metadata.authentic_data);
        prop_assert_eq!(asked.metadata.checking_disabled, theirs.metadata.checking_disabled);
        prop_assert!(asked.queries[0].name().eq_case(theirs.queries[0].name()));
        prop_assert_eq!(&asked.queries, &theirs.queries);
        prop_assert_eq!(records(&asked), [vec![], vec![], vec![]]);
        check_opt(&spec, &asked, spec.opt.is_some().then(|| dnssec_ok(&spec)))?;
        let without_opt = out.len() == opt_start;
        prop_assert_eq!(without_opt, spec.opt.is_none());
    }

    #[test]
    fn replies_are_relayed(asking in query(), replying in reply(), shout: bool, limit in 512..1500_usize) {
        let (asked, replied) = (asking.to_wire(), replying_to(&asking, replying, shout));
        let form = ClientForm::of(&read_query(&asked).expect("a query"));
        let octets = replied.to_wire();
        let ours = read_reply(&octets).expect("a reply");
        let theirs = Message::from_vec(&octets).expect("hickory reads it");
        check_reply(&ours, &Structure::read(&octets).expect("well built"))?;
        prop_assert!(ours.answers_question(read_query(&asked).expect("a query").question.as_wire()));

        let mut out = Vec::new();
        write_response(&ours, &form, OWN_UDP_SIZE, usize::from(u16::MAX), &mut out);
        let response = Message::from_vec(&out).expect("hickory reads it");
        let rcode = match u16::from(theirs.metadata.response_code) {
            16.. if asking.opt.is_none() => ResponseCode::ServFail,
            _ => theirs.metadata.response_code,
        };
        let mut expected = theirs.metadata;
        expected.id = asking.id;
        expected.response_code = rcode;
        prop_assert_eq!(response.metadata, expected);
        prop_assert!(response.queries[0].name().eq_case(&oracle::name(read_query(&asked).expect("a query").question.qname())));
        prop_assert_eq!(records(&response), records(&theirs));
        check_opt(&replied, &response, asking.opt.is_some().then(|| dnssec_ok(&asking)))?;

        write_response(&ours, &form, OWN_UDP_SIZE, limit, &mut out);
        prop_assert!(out.len() <= limit);
        let short = Message::from_vec(&out).expect("hickory reads it");
        let ([answers, authority, additional], [all_answers, all_authority, all_additional]) = (records(&short), records(&theirs));
        prop_assert_eq!(short.edns.is_some(), asking.opt.is_some());
        let is_cut = short.metadata.truncation && !theirs.metadata.truncation;
        if !is_cut && (&answers, &authority) == (&all_answers, &all_authority) {
            prop_assert!(all_additional.starts_with(&additional));
            prop_assert!(!ours.is_referral() || additional == all_additional);
        } else {
            prop_assert!(short.metadata.truncation);
            prop_assert_eq!([answers, authority, additional], [vec![], vec![], vec![]]);
        }
    }

    #[test]
    fn damaged_queries_are_judged_alike(spec in query(), damage in damage()) {
        let mut octets = spec.to_wire();
        apply(&damage, &mut octets);
        check_any_query(&octets)?;
    }

    #[test]
    fn damaged_replies_are_judged_alike(asking in query(), replying in reply(), damage in damage()) {
        let mut octets = replying_to(&asking, replying, false).to_wire();
        apply(&damage, &mut octets);
        check_any_reply(&octets)?;
    }

    #[test]
    fn noise_is_judged_alike(octets in prop::collection::vec(any::<u8>(), 0..80), head in prop::sample::select(vec![0, 0x8000_u16])) {
        let counts = [octets.len() % 2, octets.len() % 3, octets.len() % 2, octets.len() % 3].map(|count| count as u8);
        let [b0, b1] = head.to_be_bytes();
        let [q, a, n, r] = counts;
        let message = [&[1, 2, b0, b1, 0, q, 0, a, 0, n, 0, r], &octets[..]].concat();
        for octets in [&octets, &message] {
            check_any_query(octets)?;
            check_any_reply(octets)?;
        }
    }
}

/// A reply to that query, which echoes its question, perhaps in another case.
fn replying_to(asking: &Spec, replying: Spec, shout: bool) -> Spec {
    let mut qname = asking.qname.clone();
    if shout {
        qname.iter_mut().for_each(|label| label.make_ascii_uppercase());
    }
    Spec { qname, qtype: asking.qtype, ..replying }
}

/// DO of a message that was generated.
fn dnssec_ok(spec: &Spec) -> bool {
    spec.opt.as_ref().is_some_and(|(opt, _)| opt.dnssec_ok)
}

/// Checks that a message has an OPT record of our own with this DO, or none, and those options of `from` that
/// pass.
fn check_opt(from: &Spec, message: &Message, dnssec_ok: Option<bool>) -> Result<(), TestCaseError> {
    let edns = message.edns.as_ref();
    prop_assert_eq!(edns.map(|edns| edns.flags().dnssec_ok), dnssec_ok);
    if let Some(edns) = edns {
        prop_assert_eq!((edns.max_payload(), edns.version()), (OWN_UDP_SIZE, 0));
        let mut passing = from.opt.as_ref().map_or(vec![], |(opt, _)| opt.options.clone());
        passing.retain(|(code, _)| !ABOUT_HOP.contains(code));
        prop_assert_eq!(options(edns), passing);
    }
    Ok(())
}

/// Checks that a reply is what hickory finds it to be.
fn check_reply(ours: &Reply<'_>, theirs: &Structure) -> Result<(), TestCaseError> {
    let (header, counts) = (ours.header(), theirs.header.counts);
    let metadata = theirs.header.metadata;
    prop_assert_eq!(header.id(), metadata.id);
    prop_assert_eq!(header.is_authoritative(), metadata.authoritative);
    prop_assert_eq!(header.is_truncated(), metadata.truncation);
    prop_assert_eq!(header.recursion_available(), metadata.recursion_available);
    prop_assert_eq!(
        [header.ancount(), header.nscount(), header.arcount()],
        [counts.answers, counts.authorities, counts.additionals]
    );
    let question = ours.question().expect("not bare");
    prop_assert!(oracle::name(question.qname()).eq_case(&theirs.qname));
    prop_assert_eq!([question.qtype().0, question.qclass().0], theirs.qtype);
    let edns = ours.edns().map(|edns| {
        let high = u32::from(edns.extended_rcode) << 24 | u32::from(edns.version) << 16;
        (edns.udp_size, high | u32::from(edns.dnssec_ok) << 15)
    });
    prop_assert_eq!(edns, theirs.opt.map(|(class, ttl)| (class, ttl & 0xFFFF_8000)));
    Ok(())
}

/// Checks any octets as a query: accepted by both or by none, and answered soundly in either case.
fn check_any_query(octets: &[u8]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    let theirs = Structure::read(octets).filter(|theirs| theirs.is(MessageType::Query));
    match read_query(octets) {
        Ok(query) => {
            let theirs = theirs.expect("hickory accepts it too");
            prop_assert!(oracle::name(query.question.qname()).eq_case(&theirs.qname));
            prop_assert_eq!(query.edns.is_some(), theirs.opt.is_some());
            write_query(&query, OWN_UDP_SIZE, &mut out);
            let again = read_query(&out).expect("what we ask is a query");
            prop_assert!(again.question == query.question);
            prop_assert_eq!(again.dnssec_ok(), query.dnssec_ok());
            prop_assert!(QuestionKey::of(&again) == QuestionKey::of(&query));
        }
        Err(QueryRejection::Short) => prop_assert!(octets.len() < 12),
        Err(QueryRejection::NotAQuery) => prop_assert!(octets[2] & 0x80 != 0),
        Err(QueryRejection::Answer(rcode)) => {
            let is_later =
                theirs.as_ref().is_some_and(|theirs| theirs.opt.is_some_and(|(_, ttl)| ttl >> 16 & 0xFF > 0));
            prop_assert_eq!(rcode == Rcode::BADVERS, is_later);
            prop_assert!(is_later || theirs.is_none() || points_into_header(octets), "hickory accepts it");
            write_error(octets, rcode, None, OWN_UDP_SIZE, &mut out);
            let error = Message::from_vec(&out).expect("hickory reads an error");
            prop_assert_eq!(u16::from(error.metadata.response_code), rcode.0);
            prop_assert_eq!(error.metadata.message_type, MessageType::Response);
            prop_assert_eq!(error.metadata.id.to_be_bytes(), [octets[0], octets[1]]);
        }
    }
    Ok(())
}

/// Checks any octets as a reply: accepted by both or by none, and relayed with the same records.
fn check_any_reply(octets: &[u8]) -> Result<(), TestCaseError> {
    let theirs = Structure::read(octets).filter(|theirs| theirs.is(MessageType::Response));
    let Ok(ours) = read_reply(octets) else {
        prop_assert!(theirs.is_none() || points_into_header(octets), "hickory accepts it");
        return Ok(());
    };
    if ours.is_bare_failure() {
        prop_assert_eq!(octets.len(), 12);
        return Ok(());
    }
    check_reply(&ours, &theirs.expect("hickory accepts it too"))?;

    // A client of the same ID and spelling, with EDNS, whose question is the reply's.
    let question = ours.question().expect("not bare").as_wire();
    let asked =
        [&octets[..2], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 1], question, &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
    let form = ClientForm::of(&read_query(&asked).expect("a query"));
    let mut out = Vec::new();
    write_response(&ours, &form, OWN_UDP_SIZE, usize::from(u16::MAX), &mut out);
    let relayed = read_reply(&out).expect("what is relayed is sound");
    prop_assert_eq!(relayed.rcode(), ours.rcode());
    let passes = |code: OptionCode| !ABOUT_HOP.contains(&code.0);
    let passed = ours.edns().into_iter().flat_map(|edns| edns.iter_options()).filter(|(code, _)| passes(*code));
    prop_assert!(relayed.edns().into_iter().flat_map(|edns| edns.iter_options()).eq(passed));

    // A name that points into the header depends on the header's current bytes.
    if points_into_header(octets) {
        return Ok(());
    }
    // hickory looks into RDATA and options, and may refuse what we pass; never the other way round.
    if let Ok(before) = Message::from_vec(octets) {
        let after = Message::from_vec(&out).expect("hickory reads the response too");
        prop_assert_eq!(records(&before), records(&after));
    }
    Ok(())
}

/// Returns true if two bytes of a message look like a compression pointer into the header, where `wire/` lets
/// no name go.
fn points_into_header(octets: &[u8]) -> bool {
    let records = octets.get(12..).unwrap_or_default();
    records.windows(2).any(|pair| pair[0] == 0xC0 && pair[1] < 12)
}
