//! RFC 2308, negative caching: one test a clause.

use std::time::Duration;

use config::CacheRules;
use engine::cache::CacheLookup;

use crate::support::cache::*;
use crate::support::zones::{asked, zone_db};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{RData, Record, RecordType};

/// The time to live of the SOA record that a negative answer to `www.example.org` A has now; `None` if there
/// is no answer.
fn soa_ttl(subject: &Subject) -> Option<u32> {
    match subject.ask(&query("www.example.org.", RecordType::A)) {
        (CacheLookup::Fresh { .. }, Some(response)) => Some(response.authorities[0].ttl),
        _ => None,
    }
}

#[test]
fn section_2_1_an_nxdomain_of_a_chain_is_kept_with_its_aliases() {
    let subject = Subject::new();
    let mut message = negative(ResponseCode::NXDomain, 600, 900);
    message.add_answer(alias("www.example.org.", 300, "gone.example.org."));
    assert!(subject.keep(&message));
    assert_eq!(subject.fresh_ttls(), Some(vec![300]));
    // It is about this question, not about the name at the end of the chain.
    assert_eq!(subject.ask(&query("gone.example.org.", RecordType::A)).0, CacheLookup::Nothing);
}

#[test]
fn section_3_the_soa_goes_out_with_the_lesser_of_its_two_times() {
    for (ttl, minimum, expected) in [(3600, 900, 900), (600, 900, 600)] {
        let subject = Subject::new();
        assert!(subject.keep(&negative(ResponseCode::NXDomain, ttl, minimum)));
        assert_eq!(soa_ttl(&subject), Some(expected), "{ttl} {minimum}");
    }
}

#[test]
fn section_3_the_signature_has_the_time_of_the_soa() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. RRSIG SOA\nz. NS ns.other.\nz. NSEC z.\n";
    let response = asked("z.", "TXT").with_do().of(&zone_db(&[zone]));
    let expected = ["z. 60 IN SOA a. b. 1 2 3 4 60", "z. 60 IN RRSIG SOA", "z. 300 IN NSEC z."];
    assert_eq!(response.sections[1], expected);
}

#[test]
fn section_4_the_minimum_is_no_bound() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 3600\nz. NS ns.other.\na.z. 5 A 192.0.2.1\n";
    assert_eq!(asked("a.z.", "A").of(&zone_db(&[zone])).line(), "NOERROR QR AA; an a.z. 5 IN A 192.0.2.1");
}

#[test]
fn section_5_negatives_last_for_the_lesser_of_ttl_and_minimum() {
    for rcode in [ResponseCode::NXDomain, ResponseCode::NoError] {
        for (ttl, minimum, expected) in [(3600, 900, 900), (600, 900, 600)] {
            let mut subject = Subject::new();
            assert!(subject.keep(&negative(rcode, ttl, minimum)));
            subject.pass(expected - 1);
            assert_eq!(soa_ttl(&subject), Some(1), "{rcode} {ttl} {minimum}");
            subject.pass(1);
            assert_eq!(soa_ttl(&subject), None, "{rcode} {ttl} {minimum}");
        }
    }
}

#[test]
fn section_5_without_an_soa_negatives_are_not_kept() {
    for rcode in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let subject = Subject::new();
        assert!(!subject.keep(&reply("www.example.org.", RecordType::A, rcode)), "{rcode}");
        assert_eq!(subject.ask(&query("www.example.org.", RecordType::A)).0, CacheLookup::Nothing);
    }
    // An NXDOMAIN whose aliases have times to live has none itself.
    let mut message = reply("www.example.org.", RecordType::A, ResponseCode::NXDomain);
    message.add_answer(alias("www.example.org.", 300, "gone.example.org."));
    assert!(!Subject::new().keep(&message));
}

#[test]
fn section_5_negatives_are_bounded() {
    let mut subject = Subject::with(CacheRules { max_negative_ttl: Duration::from_secs(60), ..CacheRules::default() });
    assert!(subject.keep(&negative(ResponseCode::NXDomain, 86_400, 86_400)));
    assert_eq!(soa_ttl(&subject), Some(60));
    subject.pass(60);
    assert_eq!(soa_ttl(&subject), None);
    // Answers with data are not.
    assert!(subject.keep(&answer(&[3600])));
    assert_eq!(subject.fresh_ttls(), Some(vec![3600]));
    // The bound of all answers holds for negatives too.
    let subject = Subject::with(CacheRules { max_ttl: Duration::from_secs(60), ..CacheRules::default() });
    assert!(subject.keep(&negative(ResponseCode::NXDomain, 86_400, 86_400)));
    assert_eq!(soa_ttl(&subject), Some(60));
    assert_eq!(CacheRules::default().max_negative_ttl, Duration::from_secs(3 * 3600));
}

#[test]
fn section_5_a_nodata_is_of_its_type_alone() {
    let subject = Subject::new();
    assert!(subject.keep(&negative(ResponseCode::NoError, 300, 300)));
    assert_eq!(subject.ask(&query("www.example.org.", RecordType::AAAA)).0, CacheLookup::Nothing);
}

#[test]
fn section_6_the_soa_is_given_out_and_counts_down() {
    let mut subject = Subject::new();
    assert!(subject.keep(&negative(ResponseCode::NXDomain, 300, 300)));
    subject.pass(100);
    let (found, response) = subject.ask(&query("www.example.org.", RecordType::A));
    let response = response.expect("a response");
    assert_eq!(found, CacheLookup::Fresh { is_refresh_due: false });
    assert_eq!(response.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(response.authorities[0].ttl, 200);
    // Of the cache, not of the authority.
    assert!(!response.metadata.authoritative);
}

#[test]
fn section_6_proofs_are_given_out_with_the_soa() {
    let mut subject = Subject::new();
    let mut message = negative(ResponseCode::NXDomain, 300, 300);
    let nsec = RData::Unknown { code: RecordType::NSEC, rdata: NULL::with(vec![0, 0, 1, 0x40]) };
    message.add_authority(Record::from_rdata(name("example.org."), 300, nsec));
    assert!(subject.keep(&message));
    subject.pass(100);
    let (_, response) = subject.ask(&query("www.example.org.", RecordType::A));
    let records = response.expect("a response").authorities;
    let records: Vec<_> = records.iter().map(|record| (record.record_type(), record.ttl)).collect();
    assert_eq!(records, [(RecordType::SOA, 200), (RecordType::NSEC, 200)]);
}

#[test]
fn section_7_1_a_server_failure_is_remembered_for_five_minutes_at_most() {
    // The bounds of `failure_ttl` are held by the config; here they are what is obeyed.
    let mut subject = Subject::with(CacheRules { failure_ttl: Duration::from_secs(300), ..CacheRules::default() });
    assert!(subject.keep(&reply("www.example.org.", RecordType::A, ResponseCode::ServFail)));
    subject.pass(299);
    assert!(matches!(subject.ask(&query("www.example.org.", RecordType::A)).0, CacheLookup::Failed(_)));
    subject.pass(1);
    assert_eq!(subject.ask(&query("www.example.org.", RecordType::A)).0, CacheLookup::Nothing);
}
