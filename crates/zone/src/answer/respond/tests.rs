//! Responses of tables, checked byte by byte and with another library.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use dns::{Name, Transport};
use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use proptest::prelude::*;

use super::*;
use crate::Miss;

/// The UDP size of the server in these tests.
const OWN_UDP_SIZE: u16 = 1232;

/// Hosts: one has too many addresses for 512 bytes, another too many for any datagram.
fn table() -> String {
    let addresses = |host: &str, count: u32| {
        (1..=count).map(|n| format!("{host} 198.51.{}.{} A\n", n / 256, n % 256)).collect::<String>()
    };
    let hosts = "www.example.org 192.0.2.1 A\nwww.example.org 192.0.2.2 A\nwww.example.org 2001:db8::1 AAAA\n\
                 v4.example.org 192.0.2.4 A\n";
    [hosts, &addresses("many.example.org", 40), &addresses("most.example.org", 500)].concat()
}

fn zone_db(text: &str, miss: Miss) -> ZoneDb {
    ZoneDb::build(&[("table".into(), text.into())], 300, miss).expect("a table without errors")
}

/// A client query that a test can change.
#[derive(Clone)]
struct Asked {
    name: Name,
    qtype: RecordType,
    qclass: RecordClass,
    flags: [u8; 2],
    /// The UDP size and DO bit of an OPT record.
    edns: Option<(u16, bool)>,
}

/// Returns a plain query with RD.
fn asked(name: &str, qtype: RecordType) -> Asked {
    Asked { name: name.parse().expect("a name"), qtype, qclass: RecordClass::IN, flags: [0x01, 0], edns: None }
}

impl Asked {
    fn question(&self) -> Vec<u8> {
        let (qtype, qclass) = (self.qtype.0.to_be_bytes(), self.qclass.0.to_be_bytes());
        [self.name.as_wire(), &qtype, &qclass].concat()
    }

    fn message(&self) -> Vec<u8> {
        let counts = [0, 1, 0, 0, 0, 0, 0, u8::from(self.edns.is_some())];
        let mut message = [&[0xAB, 0xCD][..], &self.flags, &counts, &self.question()].concat();
        if let Some((udp_size, dnssec_ok)) = self.edns {
            OptRecord::new(udp_size, dnssec_ok).append(&mut message);
        }
        message
    }

    /// Returns the response in wire form, from a buffer with old contents, or `None` for silence.
    fn respond(&self, zone_db: &ZoneDb, transport: Transport) -> Option<Vec<u8>> {
        let mut out = vec![0xFF; 100];
        match respond(zone_db, &self.message(), transport, OWN_UDP_SIZE, &mut out) {
            Reaction::Respond(_) => Some(out),
            Reaction::Silent => None,
            Reaction::Malformed => panic!("the query is well-formed"),
        }
    }
}

/// Formats a response as one line: rcode, flags, and records as `section: owner type data`.
fn line(response: &[u8]) -> String {
    let header = Header::read(response).expect("a header");
    let message = Message::from_vec(response).expect("a message");
    let flags = [
        (header.is_authoritative(), " aa"),
        (header.is_truncated(), " tc"),
        (header.recursion_desired(), " rd"),
        (header.recursion_available(), " ra"),
        (header.authentic_data(), " ad"),
        (header.checking_disabled(), " cd"),
    ];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let sections = [("an", &message.answers), ("ns", &message.authorities), ("ar", &message.additionals)];
    let records: String = sections
        .iter()
        .flat_map(|(section, records)| records.iter().map(move |record| (section, record)))
        .map(|(section, record)| {
            assert_eq!(record.ttl, 300);
            format!("; {section} {} {}", record.name, record.data)
        })
        .collect();
    format!("{}{flags}{records}", header.rcode())
}

#[test]
fn answers_have_the_records_and_flags_that_belong_to_them() {
    let zone_db = zone_db(&table(), Miss::Nxdomain);
    let check = |asked: Asked, expected: &str| {
        for transport in [Transport::Udp, Transport::Tcp] {
            let response = asked.respond(&zone_db, transport).expect("a response");
            assert_eq!(line(&response), expected);
            assert_eq!(response[..2], [0xAB, 0xCD]);
            // The response echoes the question byte by byte.
            assert!(response[HEADER_LEN..].starts_with(&asked.question()));
        }
    };
    let www = asked("wWw.Example.org", RecordType::A);
    check(www.clone(), "NOERROR aa rd; an wWw.Example.org. 192.0.2.1; an wWw.Example.org. 192.0.2.2");
    check(
        Asked { flags: [0, 0x30], ..www.clone() },
        "NOERROR aa; an wWw.Example.org. 192.0.2.1; an wWw.Example.org. 192.0.2.2",
    );
    check(asked("www.example.org", RecordType::AAAA), "NOERROR aa rd; an www.example.org. 2001:db8::1");
    check(asked("v4.example.org", RecordType::AAAA), "NOERROR aa rd");
    check(asked("v4.example.org", RecordType(65280)), "NOERROR aa rd");
    check(asked("v4.example.org", RecordType::ANY), "NOERROR aa rd; an v4.example.org. 192.0.2.4");
    check(asked("v6.example.org", RecordType::A), "NXDOMAIN aa rd");
    check(asked("example.org", RecordType::A), "NOERROR rd");
    check(asked(".", RecordType::NS), "REFUSED rd");
    for qclass in [RecordClass::CH, RecordClass::NONE, RecordClass::ANY, RecordClass(7)] {
        check(Asked { qclass, ..www.clone() }, "REFUSED rd");
    }
    for qtype in [RecordType::AXFR, RecordType::IXFR, RecordType::TKEY, RecordType::MAILA, RecordType::OPT] {
        check(Asked { qtype, ..www.clone() }, "REFUSED rd");
    }
}

#[test]
fn silence_is_for_misses_only() {
    let zone_db = zone_db(&table(), Miss::Silent);
    let check = |asked: Asked, expected: bool| {
        assert_eq!(asked.respond(&zone_db, Transport::Udp).is_some(), expected, "{}", asked.name);
    };
    check(asked("v6.example.org", RecordType::A), false);
    check(asked("example.org", RecordType::A), false);
    check(asked(".", RecordType::A), false);
    check(asked(".", RecordType::NS), true);
    check(asked("v4.example.org", RecordType::AAAA), true);
    check(Asked { qclass: RecordClass::CH, ..asked("v6.example.org", RecordType::A) }, true);
    check(asked("v6.example.org", RecordType::AXFR), true);
}

#[test]
fn referrals_bring_glue_that_points_at_its_server() {
    let table = "ns.example - NS\nx - NS\nother.test - NS\nx 192.0.2.9 A\nns.example 192.0.2.5 A\n\
                 ns.example 2001:db8::5 AAAA";
    let zone_db = zone_db(table, Miss::Silent);
    let expected = "NOERROR rd; ns . ns.example.; ns . x.; ns . other.test.; ar ns.example. 192.0.2.5; \
                    ar ns.example. 2001:db8::5; ar x. 192.0.2.9";
    // The longest name moves everything after it the farthest.
    for name in [".", "nothing.example", &"a.".repeat(127)] {
        for qtype in [RecordType::A, RecordType::NS] {
            let response = asked(name, qtype).respond(&zone_db, Transport::Tcp).expect("a response");
            assert_eq!(line(&response), expected);
        }
    }
}

#[test]
fn the_largest_referral_points_right_behind_the_longest_name() {
    let hosts: Vec<_> = (0..268).map(|n| format!("{}.n{n:05}", "x".repeat(40))).collect();
    let table: String = hosts.iter().map(|host| format!("{host} - NS\n{host} 192.0.2.1 A\n")).collect();
    let zone_db = zone_db(&table, Miss::Silent);
    let asked = asked(&"a.".repeat(127), RecordType::A);
    let response = asked.respond(&zone_db, Transport::Tcp).expect("a response");
    let message = Message::from_vec(&response).expect("a message");
    let owners: Vec<_> = message.additionals.iter().map(|record| record.name.to_string()).collect();
    assert_eq!(owners, hosts.iter().map(|host| format!("{host}.")).collect::<Vec<_>>());
    let short = Asked { edns: Some((4096, false)), ..asked }.respond(&zone_db, Transport::Udp).expect("a response");
    assert_eq!(line(&short), "NOERROR tc rd");
}

#[test]
fn responses_keep_to_the_size_that_the_client_takes() {
    let zone_db = zone_db(&table(), Miss::Silent);
    let check = |name: &str, edns: Option<u16>, transport: Transport, expected: Option<usize>| {
        let asked = Asked { edns: edns.map(|size| (size, true)), ..asked(name, RecordType::A) };
        let response = asked.respond(&zone_db, transport).expect("a response");
        let header = Header::read(&response).expect("a header");
        assert_eq!(header.is_truncated(), expected.is_none(), "{name} {edns:?} {transport:?}");
        assert_eq!(usize::from(header.ancount()), expected.unwrap_or(0));
        let message = Message::from_vec(&response).expect("a message");
        let opt = message.edns.as_ref().map(|edns| (edns.max_payload(), edns.flags().dnssec_ok));
        assert_eq!(opt, edns.map(|_| (OWN_UDP_SIZE, true)));
    };
    // 40 addresses are 674 bytes, 685 with OPT; 500 are 8045.
    check("many.example.org", None, Transport::Udp, None);
    check("many.example.org", Some(0), Transport::Udp, None);
    check("many.example.org", Some(684), Transport::Udp, None);
    check("many.example.org", Some(685), Transport::Udp, Some(40));
    check("many.example.org", Some(65535), Transport::Udp, Some(40));
    check("many.example.org", None, Transport::Tcp, Some(40));
    check("most.example.org", Some(65535), Transport::Udp, None);
    check("most.example.org", Some(512), Transport::Tcp, Some(500));
    check("v4.example.org", Some(0), Transport::Udp, Some(1));
}

#[test]
fn what_is_no_query_is_dropped_or_told_so() {
    let zone_db = zone_db(&table(), Miss::Silent);
    let good = asked("v4.example.org", RecordType::A).message();
    let check = |message: &[u8], expected: Result<Rcode, Reaction>| {
        let mut out = vec![0xFF; 100];
        let found = match respond(&zone_db, message, Transport::Udp, OWN_UDP_SIZE, &mut out) {
            Reaction::Respond(_) => Ok(Header::read(&out).expect("a header").rcode()),
            other => Err(other),
        };
        assert_eq!(found, expected, "{message:?}");
        assert_eq!(out.is_empty(), expected.is_err());
    };
    let with = |index: usize, octet: u8| {
        let mut message = good.clone();
        message[index] = octet;
        message
    };
    check(&good, Ok(Rcode::NOERROR));
    check(&[], Err(Reaction::Malformed));
    check(&good[..11], Err(Reaction::Malformed));
    check(&with(2, 0x81), Err(Reaction::Malformed));
    check(&with(2, 0x10), Ok(Rcode::NOTIMP));
    check(&with(2, 0x28), Ok(Rcode::NOTIMP));
    check(&with(5, 2), Ok(Rcode::FORMERR));
    check(&good[..20], Ok(Rcode::FORMERR));
    check(&[&good[..], &[0]].concat(), Ok(Rcode::FORMERR));
    // NOTIFY gets REFUSED with its question.
    let notify = with(2, 0x20);
    check(&notify, Ok(Rcode::REFUSED));
    let mut out = Vec::new();
    respond(&zone_db, &notify, Transport::Udp, OWN_UDP_SIZE, &mut out);
    assert_eq!(out[HEADER_LEN..], notify[HEADER_LEN..]);
}

/// Generates similar names: one to three labels of four choices.
fn any_host() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "B", "c", "Www"]), 1..4).prop_map(|labels| labels.join("."))
}

/// Generates a few addresses of both families.
fn any_address() -> impl Strategy<Value = IpAddr> {
    (any::<bool>(), 0..4_u8).prop_map(|(is_v4, n)| {
        if is_v4 { IpAddr::from([192, 0, 2, n]) } else { IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]) }
    })
}

proptest! {
    /// Checks tables, split over files in any way, against a plain map of their lines.
    #[test]
    fn tables_answer_as_a_map_does(
        lines in prop::collection::vec((any_host(), any_address(), any::<bool>()), 0..30),
        questions in prop::collection::vec((any_host(), any::<bool>()), 1..20),
    ) {
        let mut map: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut texts = [String::new(), String::new()];
        for (host, address, in_second) in &lines {
            map.entry(host.to_lowercase()).or_default().insert(*address);
            let rtype = if address.is_ipv4() { "A" } else { "aaaa" };
            texts[usize::from(*in_second)] += &format!("{host}\t{address} {rtype}\r\n");
        }
        let sources = texts.map(|text| ("table".to_owned(), text.into_bytes()));
        let zone_db = ZoneDb::build(&sources, 300, Miss::Nxdomain).expect("tables without errors");
        prop_assert_eq!(zone_db.hosts(), map.len());
        prop_assert_eq!(zone_db.records(), map.values().map(BTreeSet::len).sum::<usize>());

        for (name, wants_v4) in &questions {
            let qtype = if *wants_v4 { RecordType::A } else { RecordType::AAAA };
            let response = asked(name, qtype).respond(&zone_db, Transport::Tcp).expect("misses are not silent");
            let message = Message::from_vec(&response).expect("a message");
            let found: BTreeSet<_> = message.answers.iter().map(|record| match &record.data {
                RData::A(address) => IpAddr::V4(address.0),
                RData::AAAA(address) => IpAddr::V6(address.0),
                other => panic!("{other} is no address"),
            }).collect();
            prop_assert_eq!(found.len(), message.answers.len());

            let folded = name.to_lowercase();
            let known = map.get(&folded);
            let expected: BTreeSet<_> = known.into_iter().flatten()
                .filter(|address| address.is_ipv4() == *wants_v4).copied().collect();
            prop_assert_eq!(found, expected);
            let is_above = map.keys().any(|host| host.ends_with(&format!(".{folded}")));
            let header = Header::read(&response).expect("a header");
            let rcode = if known.is_some() || is_above { Rcode::NOERROR } else { Rcode::NXDOMAIN };
            prop_assert_eq!(header.rcode(), rcode);
            prop_assert_eq!(header.is_authoritative(), known.is_some() || !is_above);
        }
    }

    /// Checks that random bytes and modified queries never cause a panic, and that each response fits.
    #[test]
    fn any_message_is_survived(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        changes in prop::collection::vec((0..60_usize, any::<u8>()), 0..6),
        is_noise in any::<bool>(),
    ) {
        static CATALOG: LazyLock<ZoneDb> = LazyLock::new(|| zone_db(&table(), Miss::Silent));
        let asked = Asked { edns: Some((1232, true)), ..asked("most.example.org", RecordType::A) };
        let mut message = if is_noise { noise } else { asked.message() };
        for (index, octet) in changes {
            if let Some(target) = message.get_mut(index) {
                *target = octet;
            }
        }
        let mut out = Vec::new();
        match respond(&CATALOG, &message, Transport::Udp, OWN_UDP_SIZE, &mut out) {
            Reaction::Respond(_) => {
                prop_assert!(out.len() >= HEADER_LEN && out.len() <= usize::from(OWN_UDP_SIZE));
                prop_assert_eq!(&out[..2], &message[..2]);
            }
            Reaction::Silent | Reaction::Malformed => prop_assert!(out.is_empty()),
        }
    }
}
