//! RFC 2181, as far as it concerns what is kept: one test a clause.

use engine::cache::CacheLookup;

use crate::support::cache::*;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

#[test]
fn section_5_2_ttls_that_differ_in_an_rrset_are_the_lowest() {
    let subject = Subject::new();
    assert!(subject.keep(&answer(&[300, 100, 200])));
    assert_eq!(subject.fresh_ttls(), Some(vec![100, 100, 100]));
}

#[test]
fn section_5_2_other_rrsets_keep_their_own() {
    let mut subject = Subject::new();
    let mut message = answer(&[300]);
    message.add_authority(ns(900));
    assert!(subject.keep(&message));
    subject.pass(10);
    let (_, response) = subject.ask(&query("www.example.org.", RecordType::A));
    let response = response.expect("a response");
    assert_eq!((response.answers[0].ttl, response.authorities[0].ttl), (290, 890));
    // But the message is one entry, and goes when its first record does.
    subject.pass(290);
    assert_eq!(subject.fresh_ttls(), None);
}

#[test]
fn section_5_4_1_no_record_is_given_out_for_another_question() {
    let subject = Subject::new();
    let mut message = answer(&[300]);
    message.add_authority(ns(300));
    message.add_additional(a("ns.example.org.", 300, 9));
    assert!(subject.keep(&message));
    for (qname, qtype) in [("ns.example.org.", RecordType::A), ("example.org.", RecordType::NS)] {
        assert_eq!(subject.ask(&query(qname, qtype)).0, CacheLookup::Nothing, "{qname}");
    }
}

#[test]
fn section_5_4_1_a_referral_is_no_answer() {
    let subject = Subject::new();
    let mut message = reply("www.example.org.", RecordType::A, ResponseCode::NoError);
    message.metadata.authoritative = false;
    message.add_authority(ns(300));
    assert!(!subject.keep(&message));
}

#[test]
fn section_8_a_ttl_with_its_highest_bit_set_is_zero() {
    for (ttl, kept) in [(0x7FFF_FFFF, true), (0x8000_0000, false), (u32::MAX, false), (0, false)] {
        assert_eq!(Subject::new().keep(&answer(&[ttl])), kept, "{ttl:#x}");
    }
}

#[test]
fn section_9_what_is_truncated_is_not_kept() {
    let mut message = answer(&[300]);
    message.metadata.truncation = true;
    assert!(!Subject::new().keep(&message));
}
