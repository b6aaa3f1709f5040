//! RFC 8945: TSIG, on both sides.

use dns::{Header, Rcode, RecordType};
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use proptest::prelude::*;
use zone::transfer::tsig::{
    Algorithm, ClientChain, ROOM, ServerChain, TsigFailure, TsigKey, TsigKeys, sign_query, verify_query,
};
use zone::transfer::{TransferError, TransferKind, TransferProgress, TransferReader, whole};

use crate::support::transfers::{ID, query, response, version, with_header, zone};

const NOW: u64 = 1_700_000_000;

/// The key of most tests.
fn key() -> TsigKey {
    TsigKey::new(&"Key.example".parse().unwrap(), Algorithm::HmacSha256, b"a secret of 32 octets, or nearly")
}

/// The keys of the server.
fn keys() -> TsigKeys {
    TsigKeys::new(vec![key()])
}

/// A signed query, and what verifies its response.
fn signed(key: &TsigKey, now: u64) -> (Vec<u8>, ClientChain) {
    let mut message = query(RecordType::AXFR);
    let chain = sign_query(key, now, &mut message);
    (message, chain)
}

/// Both sides after a query that was taken.
fn exchange() -> (ClientChain, ServerChain) {
    let (message, client) = signed(&key(), NOW);
    (client, verify_query(&keys(), &message, NOW).unwrap().unwrap())
}

/// Messages of a response, unsigned.
fn messages() -> Vec<Vec<u8>> {
    let records = version(1, 0..200);
    response(RecordType::AXFR, whole(records.first().unwrap(), records.iter()), 400)
}

#[test]
fn another_implementation_agrees() {
    for (ours, theirs) in
        [(Algorithm::HmacSha256, TsigAlgorithm::HmacSha256), (Algorithm::HmacSha512, TsigAlgorithm::HmacSha512)]
    {
        let name = hickory_proto::rr::Name::from_ascii("key.example.").unwrap();
        let signer = TSigner::new(b"secret".to_vec(), theirs, name, 300).unwrap();
        let key = TsigKey::new(&"key.example".parse().unwrap(), ours, b"secret");
        let (query, _) = signed(&key, NOW);
        let (mac, time, _) = signer.verify_message_byte(&query, None, true).unwrap();
        assert_eq!(time, NOW);
        let mut server = verify_query(&TsigKeys::new(vec![key]), &query, NOW).unwrap().unwrap();
        let mut previous = mac;
        for (index, mut message) in messages().into_iter().enumerate() {
            server.sign(NOW, &mut message);
            (previous, _, _) = signer.verify_message_byte(&message, Some(&previous), index == 0).unwrap();
        }
    }
}

#[test]
fn section_5_1_the_record_is_the_last_and_the_only_one() {
    let (good, _) = signed(&key(), NOW);
    let unsigned = query(RecordType::AXFR);
    let record = &good[unsigned.len()..];
    let check = |arcount: u16, records: &[&[u8]], expected: Option<Rcode>| {
        let octets = [&unsigned[..], &records.concat()].concat();
        let octets = with_header(octets, |header| header.with_counts([1, 0, 0, arcount]));
        let found = verify_query(&keys(), &octets, NOW).map(drop_chain).map_err(|refusal| refusal.rcode);
        assert_eq!(found.err(), expected, "{arcount} {}", records.len());
    };
    let other = b"\0\0\x01\0\x01\0\0\0\0\0\x04\x7F\0\0\x01";
    check(0, &[], None);
    check(1, &[record], None);
    check(2, &[record, record], Some(Rcode::FORMERR));
    check(2, &[record, other], Some(Rcode::FORMERR));
    check(1, &[&record[..record.len() - 1]], Some(Rcode::FORMERR));
    // What was added after signing is not signed.
    check(2, &[other, record], Some(Rcode::NOTAUTH));
}

/// Forgets a chain, which has no `PartialEq`.
fn drop_chain(chain: Option<ServerChain>) -> bool {
    chain.is_some()
}

#[test]
fn section_5_2_bad_keys_macs_and_clocks_are_told() {
    let named = |name: &str, algorithm| TsigKey::new(&name.parse().unwrap(), algorithm, b"another secret");
    let check = |key: &TsigKey, now: u64, error: u16, reported: Result<(), TsigFailure>| {
        let (query, mut client) = signed(key, NOW);
        let refusal = verify_query(&keys(), &query, now).expect_err("refused");
        assert_eq!((refusal.rcode, refusal.error), (Rcode::NOTAUTH, Rcode(error)));
        let mut out = Vec::new();
        refusal.write(&query, now, &mut out);
        let header = Header::read(&out).unwrap();
        assert_eq!((header.id(), header.rcode(), header.arcount()), (ID, Rcode::NOTAUTH, 1));
        assert_eq!(client.verify(&out, now), reported);
    };
    let refused = |error| Err(TsigFailure::Refused(Rcode(error)));
    check(&named("nobody", Algorithm::HmacSha256), NOW, 17, refused(17));
    check(&named("key.example", Algorithm::HmacSha512), NOW, 17, refused(17));
    check(&named("key.example", Algorithm::HmacSha256), NOW, 16, refused(16));
    // Section 5.2.3: signed, and so believed, whatever the clocks say.
    check(&key(), NOW + 301, 18, refused(18));
    check(&key(), NOW - 301, 18, refused(18));
    for now in [NOW - 300, NOW + 300] {
        assert!(verify_query(&keys(), &signed(&key(), NOW).0, now).unwrap().is_some());
    }
}

#[test]
fn section_5_2_2_1_short_macs_are_refused() {
    // The MAC of 32 octets is cut to `len`; RDLENGTH and MAC size are set to match.
    let check = |len: usize, rcode: Rcode, error: u16| {
        let (full, _) = signed(&key(), NOW);
        let mac_end = full.len() - 6;
        let mut cut = [&full[..mac_end - 32 + len], &full[mac_end..]].concat();
        let mac_size = mac_end - 32 - 2;
        cut[mac_size + 1] = len as u8;
        let rdlength = query(RecordType::AXFR).len() + b"\x03key\x07example\0".len() + 8;
        cut[rdlength + 1] -= 32 - len as u8;
        let refusal = verify_query(&keys(), &cut, NOW).expect_err("refused");
        assert_eq!((refusal.rcode, refusal.error), (rcode, Rcode(error)), "{len}");
    };
    check(0, Rcode::FORMERR, 0);
    check(15, Rcode::FORMERR, 0);
    check(16, Rcode::NOTAUTH, 22);
    check(31, Rcode::NOTAUTH, 22);
}

#[test]
fn section_5_3_1_a_stream_is_signed_throughout() {
    let (mut client, mut server) = exchange();
    let mut all = messages();
    for message in &mut all {
        let before = message.len();
        server.sign(NOW, message);
        assert!(message.len() <= before + ROOM);
        assert_eq!(client.verify(message, NOW), Ok(()));
    }
    assert_eq!(client.finish(), Ok(()));

    // One left out, two swapped, one repeated.
    let (mut client, mut server) = exchange();
    let mut all = messages();
    all.iter_mut().for_each(|message| server.sign(NOW, message));
    assert_eq!(client.verify(&all[0], NOW), Ok(()));
    for wrong in [2, 0] {
        assert_eq!(client.clone().verify(&all[wrong], NOW), Err(TsigFailure::BadMac));
    }
    // Time does not go back.
    let (mut client, mut server) = exchange();
    let mut all = messages();
    server.sign(NOW + 5, &mut all[0]);
    server.sign(NOW + 4, &mut all[1]);
    assert_eq!(client.verify(&all[0], NOW), Ok(()));
    assert_eq!(client.verify(&all[1], NOW), Err(TsigFailure::BadTime));
}

#[test]
fn section_5_3_1_the_first_and_the_last_are_signed() {
    let (mut client, _) = exchange();
    assert_eq!(client.verify(&messages()[0], NOW), Err(TsigFailure::Missing));

    let (mut client, mut server) = exchange();
    let mut all = messages();
    server.sign(NOW, &mut all[0]);
    assert_eq!(client.verify(&all[0], NOW), Ok(()));
    for _ in 0..99 {
        assert_eq!(client.verify(&all[1], NOW), Ok(()));
        assert_eq!(client.finish(), Err(TsigFailure::Missing));
    }
    assert_eq!(client.verify(&all[1], NOW), Err(TsigFailure::Missing));
}

#[test]
fn a_transfer_is_believed_only_with_its_last_signature() {
    let read = |sign_last: bool| {
        let (client, mut server) = exchange();
        let mut reader = TransferReader::new(zone(), ID, TransferKind::Axfr, Some(client), usize::MAX);
        let mut all = messages();
        let last = all.len() - 1;
        let mut progress = Ok(TransferProgress::More);
        for (index, message) in all.iter_mut().enumerate() {
            if index < last || sign_last {
                server.sign(NOW, message);
            }
            progress = reader.take(message, NOW);
        }
        progress
    };
    assert!(matches!(read(true), Ok(TransferProgress::Done(_))));
    assert_eq!(read(false), Err(TransferError::Tsig(TsigFailure::Missing)));
}

#[test]
fn secrets_are_not_printed() {
    let printed = format!("{:?} {:?} {:?}", key(), keys(), exchange());
    assert!(printed.contains("withheld") && !printed.contains("secret of"), "{printed}");
    let octets = b"a secret of".map(|octet| octet.to_string()).join(", ");
    assert!(!printed.contains(&octets), "{printed}");
}

proptest! {
    #[test]
    fn no_octet_can_be_changed(at: prop::sample::Index, change in 1..=255_u8) {
        let (mut query, _) = signed(&key(), NOW);
        let at = at.index(query.len());
        // The ID may be changed on the way (section 5.1); the case of names does not matter.
        let is_letter = query[at].is_ascii_alphabetic() && change == 0x20;
        query[at] ^= change;
        let verified = verify_query(&keys(), &query, NOW);
        prop_assert!(at < 2 || is_letter || !matches!(verified, Ok(Some(_))), "{}", at);
    }

    #[test]
    fn no_octets_do_harm(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refusal) = verify_query(&keys(), &octets, NOW) {
            refusal.write(&octets, NOW, &mut Vec::new());
        }
        let _ = exchange().0.verify(&octets, NOW);
    }
}
