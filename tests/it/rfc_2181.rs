//! RFC 2181: one test a clause. What is sent is in `rfc_1034.rs` and `rfc_9471.rs` too.

use engine::cache::CacheLookup;

use crate::support::cache::*;
use crate::support::zones::{asked, zone_db};
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
    for (qname, qtype) in
        [("ns.example.org.", RecordType::A), ("example.org.", RecordType::NS), ("www.example.org.", RecordType::SIG)]
    {
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
fn section_5_5_a_proof_of_two_things_stands_once() {
    // The NSEC record of the wildcard proves both that `a.b.z` does not exist and that `q.z` does not.
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. RRSIG SOA\nz. NS ns.other.\nz. NSEC *.b.z.\nz. RRSIG NSEC\n\
                *.b.z. CNAME q.z.\n*.b.z. RRSIG CNAME\n*.b.z. NSEC z.\n*.b.z. RRSIG NSEC\n";
    let response = asked("a.b.z.", "A").with_do().of(&zone_db(&[zone]));
    assert_eq!(
        response.brief(),
        "NXDOMAIN QR AA; an a.b.z. CNAME; an a.b.z. RRSIG CNAME; ns z. SOA; ns z. RRSIG SOA; ns *.b.z. NSEC; \
         ns *.b.z. RRSIG NSEC; ns z. NSEC; ns z. RRSIG NSEC"
    );
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

#[test]
fn section_10_2_an_address_may_have_several_names() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\n1.z. PTR one.other.\n1.z. PTR two.other.\n";
    let response = asked("1.z.", "PTR").of(&zone_db(&[zone]));
    assert_eq!(response.line(), "NOERROR QR AA; an 1.z. 300 IN PTR one.other.; an 1.z. 300 IN PTR two.other.");
}

#[test]
fn section_10_3_an_alias_gets_no_additional_records() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\nz. MX 10 alias.z.\nalias.z. CNAME host.z.\n\
                host.z. A 192.0.2.1\n";
    let response = asked("z.", "MX").of(&zone_db(&[zone]));
    assert_eq!(response.line(), "NOERROR QR AA; an z. 300 IN MX 10 alias.z.");
}
