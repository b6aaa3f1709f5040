//! RFC 5936: AXFR, out and in.

use dns::{Flag, Header, Message, Name, Rcode, RecordType};
use proptest::prelude::*;
use zone::Record;
use zone::transfer::{
    MESSAGE_LIMIT, Records, TransferError, TransferKind, TransferProgress, TransferReader, TransferResult, whole,
};

use crate::support::transfers::{ID, ZONE, query, response, soa_rdata, version, with_header, zone};

/// The response to AXFR with this version.
fn axfr(records: &Records, limit: usize) -> Vec<Vec<u8>> {
    response(RecordType::AXFR, whole(records.first().unwrap(), records.iter()), limit)
}

/// Reads messages as an AXFR, with so much memory.
fn read(messages: &[Vec<u8>], limit: usize) -> Result<TransferProgress, TransferError> {
    let mut reader = TransferReader::new(zone(), ID, TransferKind::Axfr, None, limit);
    let mut progress = TransferProgress::More;
    for message in messages {
        progress = reader.take(message, 0)?;
    }
    Ok(progress)
}

/// A response of these records in one message.
fn of(records: &[(&[u8], RecordType, &[u8])]) -> Vec<Vec<u8>> {
    let records = records.iter().map(|&(owner, rtype, rdata)| Record { owner, rtype, ttl: 1, rdata });
    response(RecordType::AXFR, records, MESSAGE_LIMIT)
}

#[test]
fn section_2_2_the_soa_is_first_and_last() {
    let check = |messages: Vec<Vec<u8>>, expected: TransferError| {
        assert_eq!(read(&messages, usize::MAX), Err(expected));
    };
    let (one, two) = (soa_rdata(1), soa_rdata(2));
    let host = (&b"\x01h\x07example\0"[..], RecordType::A, &[0; 4][..]);
    let (one, two) = (&one[..], &two[..]);
    let soa = |rdata| (ZONE, RecordType::SOA, rdata);
    check(of(&[host, soa(one)]), TransferError::NoSoaFirst);
    check(of(&[soa(one), host, soa(two)]), TransferError::OutOfOrder);
    check(of(&[soa(one), host, soa(one), host]), TransferError::OutOfOrder);
    check(of(&[soa(one), host, (host.0, RecordType::SOA, one)]), TransferError::OutOfOrder);
    check(of(&[soa(one), host, soa(&[0])]), TransferError::NotOurs);
    assert_eq!(read(&of(&[soa(one), host]), usize::MAX), Ok(TransferProgress::More));
    // Nothing may follow in another message either.
    let done = of(&[soa(one), host, soa(one)]);
    check([&done[..], &done[..]].concat(), TransferError::Over);
}

#[test]
fn section_2_2_1_headers_and_questions_are_checked() {
    let [message] = &axfr(&version(1, [1]), MESSAGE_LIMIT)[..] else { panic!("one message") };
    let check = |change: fn(Header) -> Header, expected: TransferError| {
        assert_eq!(read(&[with_header(message.clone(), change)], usize::MAX), Err(expected));
    };
    check(|header| header.with_id(ID + 1), TransferError::NotOurs);
    check(|header| header.with(Flag::Response, false), TransferError::NotOurs);
    check(|header| header.with(Flag::Truncated, true), TransferError::NotOurs);
    check(|header| header.with_rcode(Rcode::REFUSED), TransferError::Refused(Rcode::REFUSED));
    check(|header| header.with_rcode(Rcode::NOTAUTH), TransferError::Refused(Rcode::NOTAUTH));
    let other = Name::from_wire(b"\x05other\0").unwrap();
    let mut reader = TransferReader::new(other, ID, TransferKind::Axfr, None, usize::MAX);
    assert_eq!(reader.take(message, 0), Err(TransferError::NotOurs));
    let mut reader = TransferReader::new("EXAMPLE".parse().unwrap(), ID, TransferKind::Axfr, None, usize::MAX);
    assert!(matches!(reader.take(message, 0), Ok(TransferProgress::Done(_))));
    // A message without an answer brings nothing and could come forever.
    let empty = with_header(query(RecordType::AXFR), |header| header.with(Flag::Response, true));
    assert_eq!(read(&[empty], usize::MAX), Err(TransferError::Empty));
}

#[test]
fn section_2_2_1_the_question_goes_with_the_first_message_and_aa_is_set() {
    let messages = axfr(&version(1, 0..200), 1_000);
    assert!(messages.len() > 3);
    for (index, octets) in messages.iter().enumerate() {
        let message = Message::read(octets).unwrap();
        assert_eq!(message.question.is_some(), index == 0);
        assert!(message.header.is_authoritative() && message.header.is_response() && message.header.id() == ID);
    }
    // A later message that has no question cannot be the first.
    assert_eq!(read(&messages[1..], usize::MAX), Err(TransferError::NotOurs));
}

#[test]
fn section_3_1_records_are_of_the_zone_and_are_data() {
    let soa = soa_rdata(1);
    for (owner, rtype) in [
        (&b"\x05other\0"[..], RecordType::A),
        (b"\x0Abadexample\0", RecordType::A),
        (ZONE, RecordType::TSIG),
        (ZONE, RecordType::ANY),
    ] {
        let messages = of(&[(ZONE, RecordType::SOA, &soa), (owner, rtype, &[0; 4])]);
        assert_eq!(read(&messages, usize::MAX), Err(TransferError::NotOfTheZone), "{owner:?}");
    }
}

/// RFC 2181 section 8.
#[test]
fn a_ttl_with_its_highest_bit_set_is_zero() {
    let soa = soa_rdata(1);
    let record = |rtype, ttl, rdata| Record { owner: ZONE, rtype, ttl, rdata };
    let records = [
        record(RecordType::SOA, 0x7FFF_FFFF, &soa[..]),
        record(RecordType::A, 0x8000_0000, &[192, 0, 2, 1]),
        record(RecordType::TXT, u32::MAX, b"\x01a"),
        record(RecordType::SOA, 0x7FFF_FFFF, &soa),
    ];
    let messages = response(RecordType::AXFR, records.into_iter(), MESSAGE_LIMIT);
    let Ok(TransferProgress::Done(TransferResult::Whole(received))) = read(&messages, usize::MAX) else {
        panic!("a whole zone")
    };
    assert_eq!(received.iter().map(|record| record.ttl).collect::<Vec<_>>(), [0x7FFF_FFFF, 0, 0]);
}

#[test]
fn a_transfer_is_bounded() {
    let messages = axfr(&version(1, 0..200), 1_000);
    assert!(matches!(read(&messages, 20_000), Ok(TransferProgress::Done(_))));
    assert_eq!(read(&messages, 5_000), Err(TransferError::TooLarge));
}

proptest! {
    #[test]
    fn what_is_sent_is_received(hosts in prop::collection::vec(any::<u8>(), 0..100), limit in 80..3_000_usize) {
        let records = version(1, hosts);
        let messages = axfr(&records, limit);
        for cut in 0..messages.len() {
            let progress = read(&messages[..cut], usize::MAX);
            prop_assert_eq!(progress, Ok(TransferProgress::More));
        }
        prop_assert_eq!(read(&messages, usize::MAX), Ok(TransferProgress::Done(TransferResult::Whole(records))));
    }

    #[test]
    fn no_octets_do_harm(mut messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..4), flips in prop::collection::vec((0..4_usize, any::<prop::sample::Index>(), any::<u8>()), 0..12)) {
        let _ = read(&messages, 10_000);
        messages = axfr(&version(1, 0..20), 150);
        for (index, at, octet) in flips {
            if let Some(message) = messages.get_mut(index) {
                let at = at.index(message.len());
                message[at] = octet;
            }
        }
        let _ = read(&messages, 10_000);
    }
}
