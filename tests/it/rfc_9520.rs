//! RFC 9520, failures that are remembered: one test a clause.

use std::time::Duration;

use config::CacheRules;
use config::limits;
use engine::cache::{CacheLookup, CachedFailure, PoolId};

use crate::support::cache::*;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

/// Looks `www.example.org` A up.
fn ask(subject: &Subject) -> CacheLookup {
    subject.ask(&query("www.example.org.", RecordType::A)).0
}

#[test]
fn section_2_1_a_servfail_is_remembered_as_it_came() {
    let subject = Subject::new();
    let failure = reply("www.example.org.", RecordType::A, ResponseCode::ServFail);
    assert!(subject.keep(&failure));
    let (found, response) = subject.ask(&query("WWW.example.org.", RecordType::A));
    assert_eq!(found, CacheLookup::Failed(CachedFailure::Servfail));
    let response = response.expect("a response");
    assert_eq!((response.metadata.id, response.metadata.response_code), (4711, ResponseCode::ServFail));
}

#[test]
fn section_2_1_the_records_of_a_failure_are_not() {
    let subject = Subject::new();
    let mut failure = reply("www.example.org.", RecordType::A, ResponseCode::ServFail);
    failure.add_authority(soa(300, 300));
    assert!(subject.keep(&failure));
    let (_, response) = subject.ask(&edns_query("www.example.org.", RecordType::A));
    assert!(response.expect("a response").authorities.is_empty());
}

#[test]
fn section_2_2_what_is_about_the_query_is_not_remembered() {
    for rcode in [ResponseCode::Refused, ResponseCode::FormErr, ResponseCode::NotImp, ResponseCode::YXDomain] {
        let subject = Subject::new();
        assert!(!subject.keep(&reply("www.example.org.", RecordType::A, rcode)), "{rcode}");
        assert_eq!(ask(&subject), CacheLookup::Nothing, "{rcode}");
    }
}

#[test]
fn section_2_3_silence_is_remembered() {
    let subject = Subject::new();
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    let (found, response) = subject.ask(&query("www.example.org.", RecordType::A));
    assert_eq!((found, response.is_none()), (CacheLookup::Failed(CachedFailure::Silence), true));
}

#[test]
fn section_3_2_failures_last_from_one_second_to_five_minutes() {
    assert_eq!(limits::FAILURE_TTL.min, Duration::from_secs(1));
    assert_eq!(limits::FAILURE_TTL.max, Duration::from_secs(300));
    let mut subject = Subject::with(CacheRules { failure_ttl: Duration::from_secs(1), ..CacheRules::default() });
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    subject.now += Duration::from_millis(999);
    assert_eq!(ask(&subject), CacheLookup::Failed(CachedFailure::Silence));
    subject.now += Duration::from_millis(1);
    assert_eq!(ask(&subject), CacheLookup::Nothing);
}

#[test]
fn section_3_2_a_failure_is_of_its_question_and_pool_alone() {
    let subject = Subject::new();
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    for other in [query("www.example.org.", RecordType::AAAA), query("example.org.", RecordType::A)] {
        assert_eq!(subject.ask(&other).0, CacheLookup::Nothing);
    }
    let octets = query("www.example.org.", RecordType::A).to_vec().expect("a message");
    assert_eq!(subject.ask_octets(&octets, PoolId::of("other"), 512, true).0, CacheLookup::Nothing);
}

#[test]
fn section_3_2_an_answer_ends_a_failure() {
    let subject = Subject::new();
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    // The late true answer of a race that had been answered without it.
    assert!(subject.keep(&answer(&[300])));
    assert_eq!(ask(&subject), CacheLookup::Fresh { is_refresh_due: false });
}
