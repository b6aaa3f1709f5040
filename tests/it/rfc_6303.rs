//! RFC 6303: the zones that the forwarder answers itself. How to disable that is in `local_names.rs`.

use hickory_proto::rr::RData;
use testkit::*;

/// A forwarder whose only backend has a public address and does not answer.
fn start() -> Server {
    Server::start("[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.p]\nbackends = ['203.0.113.1:53']\n")
}

/// The zones of section 4 without those of 172.16.0.0/12.
const ZONES: &[&str] = &[
    "10.in-addr.arpa",
    "168.192.in-addr.arpa",
    "0.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
    "b.e.f.ip6.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
];

#[test]
fn section_4_all_zones_are_answered_here() {
    let server = start();
    let client = server.client();
    let ranges = (16..=31).map(|octet| format!("{octet}.172.in-addr.arpa"));
    for apex in ZONES.iter().map(|&apex| apex.to_owned()).chain(ranges) {
        let response = client.ask(&query(&apex, SOA));
        let owners: Vec<_> = response.message().answers.iter().map(|record| record.name.to_string()).collect();
        assert_eq!((response.rcode(), response.has(AA), owners), (NOERROR, true, vec![format!("{apex}.")]));
        assert_eq!(client.ask(&query(&format!("x.{apex}"), A)).rcode(), NXDOMAIN, "{apex}");
    }
}

#[test]
fn section_3_the_soa_has_its_minimum_as_ttl() {
    let authorities = start().client().ask(&query("1.0.0.10.in-addr.arpa", A)).message().authorities;
    let [record] = &authorities[..] else { panic!("one record: {authorities:?}") };
    let RData::SOA(soa) = &record.data else { panic!("an SOA record: {record}") };
    assert_eq!((record.ttl, soa.minimum), (300, 300));
}
