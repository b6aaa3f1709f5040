//! RFC 8945: TSIG, on both sides.

use std::io::{Read, Write};
use std::net::TcpListener;

use dns::{Header, Rcode, RecordType};
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use net::sys::clock::unix_now;
use proptest::prelude::*;
use tempfile::TempDir;
use testkit::{Client, Server};
use zone::transfer::tsig::{
    Algorithm, ClientChain, ROOM, ServerChain, TsigFailure, TsigKey, TsigKeys, sign_query, verify_query,
};
use zone::transfer::{TransferError, TransferKind, TransferProgress, TransferReader, whole};

use crate::support::transfers::{ID, accept_query, query, response, version, with_header, zone};

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
        // Section 5.3.2: MAC size 0, the original ID, the error, other length 0.
        let unsigned = [[0, 0], ID.to_be_bytes(), error.to_be_bytes(), [0, 0]].concat();
        assert_eq!(out.ends_with(&unsigned), error != 18);
    };
    let refused = |error| Err(TsigFailure::Refused(Rcode(error)));
    check(&named("nobody", Algorithm::HmacSha256), NOW, 17, refused(17));
    check(&named("key.example", Algorithm::HmacSha512), NOW, 17, refused(17));
    check(&named("key.example", Algorithm::HmacSha256), NOW, 16, refused(16));
    // The key comes before the MAC, and the MAC before the time.
    check(&named("nobody", Algorithm::HmacSha256), NOW + 301, 17, refused(17));
    check(&named("key.example", Algorithm::HmacSha256), NOW + 301, 16, refused(16));
    // Section 5.2.3: signed, and so believed, whatever the clocks say.
    check(&key(), NOW + 301, 18, Err(TsigFailure::OtherClock(NOW + 301)));
    check(&key(), NOW - 301, 18, Err(TsigFailure::OtherClock(NOW - 301)));
    for now in [NOW - 300, NOW + 300] {
        assert!(verify_query(&keys(), &signed(&key(), NOW).0, now).unwrap().is_some());
    }
}

#[test]
fn section_5_2_3_badtime_has_the_times_of_both_sides() {
    let (query, _) = signed(&key(), NOW);
    let now = NOW + 1_000;
    let mut out = Vec::new();
    verify_query(&keys(), &query, now).expect_err("refused").write(&query, now, &mut out);
    let time = |time: u64| time.to_be_bytes()[2..].to_vec();
    let end = out.split_off(out.len() - 54);
    // Time Signed and Fudge of the query, the MAC, the original ID, the error, and the time of the server.
    let (head, tail) = ([time(NOW), vec![1, 44, 0, 32]].concat(), [&ID.to_be_bytes()[..], &[0, 18, 0, 6]].concat());
    assert_eq!((&end[..10], &end[42..48], &end[48..]), (&head[..], &tail[..], &time(now)[..]));
}

/// The key of the servers below.
const KEY: &str = "[keys.k]\nsecret = 'dGhlIHNlY3JldCBvZiBhbGwgdGhlIHRlc3Rz'\n";

/// A query signed with a key, and what verifies its response.
fn signed_now(query: &testkit::Query, name: &str) -> (Vec<u8>, ClientChain) {
    let key = TsigKey::new(&name.parse().unwrap(), Algorithm::HmacSha256, b"the secret of all the tests");
    let mut message = query.to_vec();
    let chain = sign_query(&key, unix_now(), &mut message);
    (message, chain)
}

/// An authority with a zone whose NXDOMAIN just fits into a datagram without EDNS.
fn authority() -> Server {
    let long = |letter: &str| [letter.repeat(60), letter.repeat(60), letter.repeat(60)].join(".");
    let text = format!("@ 300 SOA {}. {}. 1 3600 3600 86400 60\n@ NS ns.elsewhere.\n", long("a"), long("b"));
    let config = format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ file = 'z.zone', origin = 'example.org' }}]\n"
    );
    Server::start_with_files(&config, &[("z.zone", &text)])
}

#[test]
fn section_5_3_every_response_to_a_signed_query_is_signed() {
    let server = authority();
    let check = |query: &testkit::Query, flags: u16, rcode: u16| {
        let (message, mut chain) = signed_now(query, "k");
        let client = Client::of(server.listener("ts"));
        client.send_bytes(&message);
        let response = client.receive();
        assert_eq!(chain.verify(&response.bytes, unix_now()), Ok(()), "{response:?}");
        assert_eq!((response.has(flags), response.rcode()), (true, rcode), "{response:?}");
        response
    };
    check(&testkit::query("example.org", testkit::SOA), testkit::AA, testkit::NOERROR);
    check(&testkit::query("elsewhere", testkit::A), testkit::QR, testkit::REFUSED);
    check(&testkit::query("example.org", testkit::SOA).opcode(5), testkit::QR, testkit::NOTIMP);
    check(&testkit::query("example.org", testkit::SOA).edns(1232).version(1), testkit::QR, 16);
    // NXDOMAIN fits without a signature; with one it is cut, and the rcode is NOERROR.
    let missing = testkit::query("missing-host-name.example.org", testkit::A);
    let whole = Client::of(server.listener("ts")).ask(&missing);
    assert_eq!((whole.has(testkit::TC), whole.rcode()), (false, testkit::NXDOMAIN));
    let cut = check(&missing, testkit::TC, testkit::NOERROR);
    assert_eq!(
        Header::read(&cut.bytes).map(|header| (header.ancount(), header.nscount(), header.arcount())),
        Some((0, 0, 1))
    );
    // An unsigned query gets an unsigned response.
    assert_eq!(Header::read(&whole.bytes).map(Header::arcount), Some(0));
}

#[test]
fn section_5_2_refused_signatures_are_logged() {
    let server = authority();
    let (message, mut chain) = signed_now(&testkit::query("example.org", testkit::SOA), "other");
    let client = Client::of(server.listener("ts"));
    client.send_bytes(&message);
    assert_eq!(chain.verify(&client.receive().bytes, unix_now()), Err(TsigFailure::Refused(Rcode::BADKEY)));
    let line = server.process.wait_for_log("signed query refused");
    assert!(line.contains("client=127.0.0.1") && line.contains("BADKEY"), "{line}");
}

#[test]
fn section_5_3_1_a_connection_with_an_unsigned_message_is_closed() {
    let primary = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = TempDir::new().unwrap();
    let secondary = Server::start(&format!(
        "{KEY}[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', tsig = 'k', \
         primaries = ['{}'], file = '{}' }}]\n",
        primary.local_addr().unwrap(),
        folder.path().join("saved.zone").display()
    ));
    let (mut connection, query) = accept_query(&primary);
    let question = testkit::question_of(&query);
    let response = [&query[..2], &[0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0], question].concat();
    connection.write_all(&testkit::framed(&response)).unwrap();
    assert_eq!(connection.read(&mut [0]).unwrap(), 0, "the secondary closes");
    secondary.process.wait_for_log("it is not signed");
}

#[test]
fn section_5_3_a_truncated_soa_reply_is_repeated_by_tcp() {
    use testkit::*;
    // By UDP all is cut. By TCP AXFR gets the first version, and all else the second.
    let primary = Backend::new(Script::new(|seen| {
        let reply = reply_to(&seen.bytes);
        if !seen.tcp {
            return Some(reply.with_flags(AA | TC).to_vec());
        }
        let is_axfr = question_of(&seen.bytes).ends_with(&[0, 252, 0, 1]);
        let numbers = [if is_axfr { 1 } else { 2 }, 3600, 3600, 86_400, 60].map(u32::to_be_bytes).concat();
        let soa = || record("example.org", SOA, &[&b"\x01a\0\x01b\0"[..], &numbers].concat());
        let reply = reply.with_flags(AA).answer(soa()).answer(record("example.org", NS, b"\x01a\0"));
        Some(reply.answer(soa()).to_vec())
    }));
    let folder = TempDir::new().unwrap();
    let secondary = Server::start(&format!(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', primaries = ['{}'], \
         file = '{}' }}]\n",
        primary.address(),
        folder.path().join("saved.zone").display()
    ));
    secondary.process.wait_for_log("transferred zone=example.org. serial=1 ");
    let notify = query("example.org", SOA).flags(0).opcode(4);
    assert_eq!(Client::of(secondary.listener("ts")).ask(&notify).rcode(), NOERROR);
    secondary.process.wait_for_log("transferred zone=example.org. serial=2 ");
}

#[test]
fn section_5_2_2_1_short_macs_are_refused() {
    // The MAC of 32 octets is cut to `len`; RDLENGTH and MAC size are set to match.
    let check = |len: usize, now: u64, rcode: Rcode, error: u16| {
        let (full, _) = signed(&key(), NOW);
        let mac_end = full.len() - 6;
        let mut cut = [&full[..mac_end - 32 + len], &full[mac_end..]].concat();
        let mac_size = mac_end - 32 - 2;
        cut[mac_size + 1] = len as u8;
        let rdlength = query(RecordType::AXFR).len() + b"\x03key\x07example\0".len() + 8;
        cut[rdlength + 1] -= 32 - len as u8;
        let refusal = verify_query(&keys(), &cut, now).expect_err("refused");
        assert_eq!((refusal.rcode, refusal.error), (rcode, Rcode(error)), "{len}");
    };
    check(0, NOW, Rcode::FORMERR, 0);
    check(15, NOW, Rcode::FORMERR, 0);
    check(16, NOW, Rcode::NOTAUTH, 22);
    check(31, NOW, Rcode::NOTAUTH, 22);
    // The time comes before the truncation.
    check(31, NOW + 301, Rcode::NOTAUTH, 18);
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
