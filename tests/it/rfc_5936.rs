//! RFC 5936: AXFR, out and in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use dns::{Flag, Header, Message, Name, Rcode, RecordType};
use proptest::prelude::*;
use tempfile::TempDir;
use testkit::{Client, Server, framed};
use zone::Record;
use zone::transfer::{
    MESSAGE_LIMIT, Records, TransferError, TransferKind, TransferProgress, TransferReader, TransferResult,
    TransferWriter, read_transfer_query, whole, write_transfer_query,
};

use crate::support::transfers::{ID, ZONE, accept_query, query, response, soa_rdata, version, with_header, zone};

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
fn section_2_1_a_query_has_a_question_and_nothing_else() {
    let mut out = Vec::new();
    write_transfer_query(ID, &zone(), None, &mut out);
    assert_eq!(out, query(RecordType::AXFR));
}

#[test]
fn section_2_1_1_flags_of_a_query_are_ignored_and_not_copied() {
    use Flag::{AuthenticData, Authoritative, CheckingDisabled, RecursionAvailable, RecursionDesired, Truncated};
    let all = [Authoritative, Truncated, RecursionDesired, RecursionAvailable, AuthenticData, CheckingDisabled];
    let odd = |header: Header| all.into_iter().fold(header, |header, flag| header.with(flag, true));
    let query = with_header(query(RecordType::AXFR), odd);
    let read = read_transfer_query(&query).expect("flags have no meaning here");
    let records = version(1, [1]);
    let mut out = Vec::new();
    TransferWriter::new(read.header, &read.question, records.iter(), MESSAGE_LIMIT).next_message(&mut out);
    // QR, AA and RD; no other flag, opcode QUERY, rcode NOERROR.
    assert_eq!(out[2..4], [0x85, 0]);
    let sections = Header::read(&out).map(|header| (header.ancount(), header.nscount(), header.arcount()));
    assert_eq!(sections, Some((2, 0, 0)));
}

#[test]
fn section_2_2_1_a_client_ignores_aa_ra_ad_and_cd() {
    let [message] = &axfr(&version(1, [1]), MESSAGE_LIMIT)[..] else { panic!("one message") };
    let odd = with_header(message.clone(), |header| {
        let header = header.with(Flag::Authoritative, false).with(Flag::RecursionAvailable, true);
        header.with(Flag::AuthenticData, true).with(Flag::CheckingDisabled, true)
    });
    assert!(matches!(read(&[odd], usize::MAX), Ok(TransferProgress::Done(_))));
}

#[test]
fn section_3_all_records_of_a_zone_are_sent_glue_and_occluded_ones_too() {
    let text = "z. 300 SOA a. b. 1 2 3 4 5\nz. NS a.\ncut.z. NS ns.cut.z.\ncut.z. NS ns.other.\ncut.z. DS\n\
                ns.cut.z. A 192.0.2.1\nns.cut.z. AAAA 2001:db8::1\nhidden.cut.z. TXT occluded\n*.z. A 192.0.2.2\n\
                d.z. DNAME e.\nwww.z. A 192.0.2.3\n";
    let zone = crate::support::zones::zone(text);
    let mut sent: Vec<_> = whole(zone.soa().expect("an SOA record"), zone.iter())
        .map(|record| format!("{} {}", Name::from_wire(record.owner).expect("a name"), record.rtype))
        .collect();
    sent.sort();
    let expected = [
        "*.z. A",
        "cut.z. DS",
        "cut.z. NS",
        "cut.z. NS",
        "d.z. DNAME",
        "hidden.cut.z. TXT",
        "ns.cut.z. A",
        "ns.cut.z. AAAA",
        "www.z. A",
        "z. NS",
        "z. SOA",
        "z. SOA",
    ];
    assert_eq!(sent, expected);
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

/// A version that loads, with the host `www`, as a response to AXFR.
fn loadable(serial: u32, more: &[Record<'_>]) -> Vec<u8> {
    let mut records = version(serial, []);
    records.push(Record { owner: ZONE, rtype: RecordType::NS, ttl: 300, rdata: b"\x02ns\x05other\0" });
    let host = [192, 0, 2, serial as u8];
    records.push(Record { owner: b"\x03www\x07example\0", rtype: RecordType::A, ttl: 300, rdata: &host });
    more.iter().for_each(|record| records.push(*record));
    axfr(&records, MESSAGE_LIMIT).remove(0)
}

/// A secondary of a primary at this address.
fn secondary(primary: SocketAddr, folder: &TempDir) -> Server {
    let file = folder.path().join("saved.zone");
    Server::start(&format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example', primaries = ['{primary}'], \
         file = '{}' }}]\n",
        file.display()
    ))
}

#[test]
fn section_4_1_1_the_connection_ends_with_the_transfer() {
    let (primary, folder) = (TcpListener::bind("127.0.0.1:0").unwrap(), TempDir::new().unwrap());
    let secondary = secondary(primary.local_addr().unwrap(), &folder);
    let (mut connection, query) = accept_query(&primary);
    let id = Header::read(&query).unwrap().id();
    connection.write_all(&framed(&with_header(loadable(1, &[]), |header| header.with_id(id)))).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap(), 0, "the secondary closes");
    secondary.process.wait_for_log("transferred zone=example. serial=1 ");
}

#[test]
fn section_6_a_broken_transfer_leaves_the_previous_version() {
    use testkit::{A, Asked as _, Backend, NOERROR, SOA, Script, until};
    // The first AXFR gets a version, and each later query a newer one with a record of another zone.
    let mut had = false;
    let primary = Backend::new(Script::new(move |seen| {
        let is_first = seen.bytes[21..23] == [0, 252] && !std::mem::replace(&mut had, true);
        let stranger = Record { owner: b"\x05other\0", rtype: RecordType::A, ttl: 300, rdata: &[0; 4] };
        let mut reply = if is_first { loadable(1, &[]) } else { loadable(2, &[stranger]) };
        reply[..2].copy_from_slice(&seen.bytes[..2]);
        reply[21..23].copy_from_slice(&seen.bytes[21..23]);
        Some(reply)
    }));
    let folder = TempDir::new().unwrap();
    let secondary = secondary(primary.address(), &folder);
    secondary.process.wait_for_log("transferred zone=example. serial=1 ");
    let client = Client::of(secondary.listener("ts"));
    let notify = testkit::query("example", SOA).flags(0).opcode(4);
    assert_eq!(client.ask(&notify).rcode(), NOERROR);
    // IXFR fails, and then AXFR.
    let failures = || secondary.process.log().matches("the transfer from the primary failed").count();
    until("both have failed", || (failures() == 2).then_some(()));
    for _ in 0..50 {
        assert_eq!(client.ask(&testkit::query("www.example", A)).answers(), ["192.0.2.1"]);
    }
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
