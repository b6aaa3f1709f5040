//! RFC 8767, stale answers: one test a clause. What races do meanwhile is the forwarder's.

use std::time::Duration;

use config::CacheRules;
use engine::cache::CacheLookup;

use crate::support::cache::*;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

/// Looks `www.example.org` A up.
fn ask(subject: &Subject) -> (CacheLookup, Option<Message>) {
    subject.ask(&edns_query("www.example.org.", RecordType::A))
}

/// The Extended DNS Errors of a response.
fn errors(response: &Message) -> Vec<u16> {
    let options = response.edns.as_ref().expect("OPT in, OPT out").options().as_ref();
    let code = |option: &EdnsOption| match option {
        EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes([data[0], data[1]])),
        _ => None,
    };
    options.iter().filter(|(kind, _)| *kind == EdnsCode::Unknown(15)).filter_map(|(_, option)| code(option)).collect()
}

#[test]
fn section_4_a_stale_answer_has_a_ttl_of_30_seconds() {
    let mut subject = Subject::new();
    assert!(subject.keep(&answer(&[60, 60])));
    subject.pass(60);
    let (found, response) = ask(&subject);
    assert_eq!(found, CacheLookup::Stale { is_race_due: true });
    let response = response.expect("a response");
    assert_eq!(response.answers.iter().map(|record| record.ttl).collect::<Vec<_>>(), [30, 30]);
    assert_eq!(errors(&response), [3]);
}

#[test]
fn section_4_a_stale_nxdomain_is_told_apart() {
    let mut subject = Subject::new();
    assert!(subject.keep(&negative(ResponseCode::NXDomain, 60, 60)));
    subject.pass(60);
    let (_, response) = ask(&subject);
    assert_eq!(errors(&response.expect("a response")), [19]);
}

#[test]
fn section_4_the_ttl_is_not_above_seven_days() {
    let subject = Subject::new();
    assert!(subject.keep(&answer(&[1 << 30])));
    assert_eq!(subject.fresh_ttls(), Some(vec![86_400]));
}

#[test]
fn section_5_stale_data_is_kept_until_the_maximum_stale_timer() {
    let mut subject = Subject::with(CacheRules { stale: Duration::from_secs(100), ..CacheRules::default() });
    assert!(subject.keep(&answer(&[60])));
    for (passed, expected) in [
        (59, CacheLookup::Fresh { is_refresh_due: false }),
        (1, CacheLookup::Stale { is_race_due: true }),
        (99, CacheLookup::Stale { is_race_due: true }),
        (1, CacheLookup::Nothing),
    ] {
        subject.pass(passed);
        assert_eq!(ask(&subject).0, expected);
    }
}

#[test]
fn section_5_a_failed_refresh_is_not_tried_again_for_30_seconds() {
    let mut subject = Subject::new();
    assert!(subject.keep(&answer(&[60])));
    subject.pass(60);
    for failure in [ResponseCode::ServFail, ResponseCode::NoError] {
        assert_eq!(ask(&subject).0, CacheLookup::Stale { is_race_due: true });
        match failure {
            ResponseCode::ServFail => {
                subject.keep(&reply("www.example.org.", RecordType::A, failure));
            }
            _ => subject.keep_silence(&query("www.example.org.", RecordType::A)),
        }
        for (passed, is_race_due) in [(0, false), (29, false), (1, true)] {
            subject.pass(passed);
            assert_eq!(ask(&subject).0, CacheLookup::Stale { is_race_due });
        }
    }
    // The same of failures that are not remembered themselves.
    assert!(subject.note_failure(&query("www.example.org.", RecordType::A)));
    assert_eq!(ask(&subject).0, CacheLookup::Stale { is_race_due: false });
    assert!(!subject.note_failure(&query("other.example.org.", RecordType::A)));
    assert_eq!(subject.cache.stats().entries, 1);
    // An answer ends that.
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    assert!(subject.keep(&answer(&[60])));
    assert_eq!(ask(&subject).0, CacheLookup::Fresh { is_refresh_due: false });
    subject.pass(60);
    assert_eq!(ask(&subject).0, CacheLookup::Stale { is_race_due: true });
}

#[test]
fn section_6_a_failure_does_not_displace_an_answer() {
    let mut subject = Subject::new();
    assert!(subject.keep(&answer(&[60])));
    subject.pass(30);
    subject.keep(&reply("www.example.org.", RecordType::A, ResponseCode::ServFail));
    assert_eq!(ask(&subject).0, CacheLookup::Fresh { is_refresh_due: false });
}

#[test]
fn stale_answers_can_be_off() {
    let mut subject = Subject::with(CacheRules { stale: Duration::ZERO, ..CacheRules::default() });
    assert!(subject.keep(&answer(&[60])));
    subject.pass(60);
    assert_eq!(ask(&subject).0, CacheLookup::Nothing);
    subject.keep_silence(&query("www.example.org.", RecordType::A));
    assert!(matches!(ask(&subject).0, CacheLookup::Failed(_)));
}
