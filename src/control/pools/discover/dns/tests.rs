//! Look-ups with replies that are put together here.

use dns::{HEADER_LEN, Header, write_plain_query};
use proptest::prelude::*;

use super::*;

/// A record of a reply: section, owner, type, TTL, RDATA.
type Part<'a> = (Section, &'a str, RecordType, u32, Vec<u8>);

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A reply to what is asked now.
fn reply(resolution: &DnsResolution, rcode: Rcode, parts: &[Part<'_>]) -> Vec<u8> {
    let DnsQuestion { name: qname, rtype } = resolution.question().expect("something is asked");
    let mut message = Vec::new();
    write_plain_query(7, qname, *rtype, &mut message);
    let count = |section| parts.iter().filter(|part| part.0 == section).count() as u16;
    let counts = [1, count(Section::Answer), count(Section::Authority), count(Section::Additional)];
    let mut header = Header::new(7).with_counts(counts).with_rcode(rcode).to_wire();
    header[2] |= 0x80;
    message[..HEADER_LEN].copy_from_slice(&header);
    for section in [Section::Answer, Section::Authority, Section::Additional] {
        for (_, owner, rtype, ttl, rdata) in parts.iter().filter(|part| part.0 == section) {
            message.extend(name(owner).as_wire());
            message.extend(rtype.0.to_be_bytes());
            message.extend([0, 1]);
            message.extend(ttl.to_be_bytes());
            message.extend((rdata.len() as u16).to_be_bytes());
            message.extend(rdata);
        }
    }
    message
}

fn a(owner: &str, ttl: u32, last: u8) -> Part<'_> {
    (Section::Answer, owner, RecordType::A, ttl, vec![192, 0, 2, last])
}

fn aaaa(owner: &str, ttl: u32, last: u8) -> Part<'_> {
    let mut rdata = vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rdata.push(last);
    (Section::Answer, owner, RecordType::AAAA, ttl, rdata)
}

fn cname<'a>(owner: &'a str, target: &str) -> Part<'a> {
    (Section::Answer, owner, RecordType::CNAME, 60, name(target).as_wire().to_vec())
}

fn srv<'a>(owner: &'a str, priority: u16, weight: u16, port: u16, target: &str) -> Part<'a> {
    let head: Vec<u8> = [priority, weight, port].iter().flat_map(|field| field.to_be_bytes()).collect();
    (Section::Answer, owner, RecordType::SRV, 60, [head, name(target).as_wire().to_vec()].concat())
}

fn additional(part: Part<'_>) -> Part<'_> {
    (Section::Additional, part.1, part.2, part.3, part.4)
}

fn host(port: u16) -> DnsResolution {
    DnsResolution::new(&DnsTarget::Host { name: name("ts.example"), port })
}

fn service() -> DnsResolution {
    DnsResolution::new(&DnsTarget::Service(name("_dns._udp.example")))
}

/// Returns the current question as text.
fn asked(resolution: &DnsResolution) -> String {
    resolution.question().map_or_else(String::new, |question| format!("{} {}", question.name, question.rtype))
}

/// Members and refusals, as text.
fn found(resolution: DnsResolution) -> (Vec<String>, u64) {
    assert_eq!(resolution.question(), None);
    let resolved = resolution.finish();
    let text = |(place, entry): Item| match entry {
        Ok(entry) => match entry.weight {
            Some(weight) => format!("{} {weight}", entry.address),
            None => entry.address.to_string(),
        },
        Err(reason) => format!("{place}: {reason}"),
    };
    (resolved.items.into_iter().map(text).collect(), resolved.ttl.as_secs())
}

/// Takes a reply that is no failure.
fn take(resolution: &mut DnsResolution, rcode: Rcode, parts: &[Part<'_>]) {
    let reply = reply(resolution, rcode, parts);
    resolution.on_reply(&reply).expect("it is no failure");
}

#[test]
fn a_host_is_all_its_addresses() {
    let mut resolution = host(5301);
    assert_eq!(asked(&resolution), "ts.example. A");
    take(&mut resolution, Rcode::NOERROR, &[a("TS.example", 300, 1), a("ts.example", 30, 2), a("other.example", 1, 3)]);
    assert_eq!(asked(&resolution), "ts.example. AAAA");
    take(&mut resolution, Rcode::NOERROR, &[aaaa("ts.example", 60, 1)]);
    let addresses = ["192.0.2.1:5301", "192.0.2.2:5301", "[2001:db8::1]:5301"];
    assert_eq!(found(resolution), (addresses.map(str::to_owned).to_vec(), 30));
}

#[test]
fn aliases_are_followed_within_a_reply_and_beyond() {
    let mut resolution = host(53);
    take(
        &mut resolution,
        Rcode::NOERROR,
        &[cname("ts.example", "b.example"), cname("b.example", "c.example"), a("c.example", 90, 1)],
    );
    take(&mut resolution, Rcode::NOERROR, &[cname("ts.example", "b.example")]);
    assert_eq!(asked(&resolution), "b.example. AAAA");
    take(&mut resolution, Rcode::NOERROR, &[aaaa("b.example", 90, 7)]);
    assert_eq!(found(resolution), (vec!["192.0.2.1:53".to_owned(), "[2001:db8::7]:53".to_owned()], 60));
    // In a circle.
    let mut resolution = host(53);
    for _ in 0..=MAX_ALIASES {
        assert!(resolution.question().is_some_and(|question| question.rtype == RecordType::A));
        let other = if asked(&resolution).starts_with("ts") { "b.example" } else { "ts.example" };
        let from = resolution.question().expect("asked").name.to_string();
        take(&mut resolution, Rcode::NOERROR, &[cname(&from, other)]);
    }
    assert_eq!(asked(&resolution), "ts.example. AAAA");
}

#[test]
fn a_name_that_is_not_there_is_an_empty_list_and_a_failure_is_none() {
    let soa = [name("n").as_wire(), name("h").as_wire(), &[0; 16], &7_u32.to_be_bytes()].concat();
    let soa = || (Section::Authority, "example", RecordType::SOA, 60, soa.clone());
    for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
        let mut resolution = host(53);
        take(&mut resolution, rcode, &[soa()]);
        take(&mut resolution, rcode, &[soa()]);
        assert_eq!(found(resolution), (Vec::new(), 7));
    }
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP] {
        let mut resolution = host(53);
        let reply = reply(&resolution, rcode, &[]);
        assert_eq!(resolution.on_reply(&reply), Err(format!("ts.example. A: {rcode}")));
    }
    let mut resolution = host(53);
    let mut broken = reply(&resolution, Rcode::NOERROR, &[a("ts.example", 1, 1)]);
    broken.truncate(broken.len() - 1);
    assert_eq!(resolution.on_reply(&broken), Err("ts.example. A: a broken reply".to_owned()));
}

#[test]
fn a_service_is_its_targets_of_the_lowest_priority() {
    let mut resolution = service();
    assert_eq!(asked(&resolution), "_dns._udp.example. SRV");
    let owner = "_dns._udp.example";
    take(
        &mut resolution,
        Rcode::NOERROR,
        &[
            srv(owner, 10, 5, 5301, "a.example"),
            srv(owner, 10, 0, 5302, "b.example"),
            srv(owner, 20, 5, 5303, "c.example"),
            additional(a("A.example", 20, 1)),
            additional(aaaa("a.example", 20, 1)),
        ],
    );
    assert_eq!(asked(&resolution), "b.example. A");
    take(&mut resolution, Rcode::NOERROR, &[a("b.example", 200, 2)]);
    take(&mut resolution, Rcode::NOERROR, &[]);
    let members = ["192.0.2.1:5301 5", "[2001:db8::1]:5301 5", "192.0.2.2:5302 1"];
    assert_eq!(found(resolution), (members.map(str::to_owned).to_vec(), 20));
}

#[test]
fn weights_are_kept_in_proportion() {
    for (weight, largest, expected) in [
        (0, 0, 1),
        (1, 1, 1),
        (1000, 1000, 1000),
        (7, 1000, 7),
        (0, 1000, 1),
        (65_535, 65_535, 1000),
        (1, 65_535, 1),
        (32_768, 65_535, 500),
    ] {
        assert_eq!(scaled(weight, largest), expected, "{weight} of {largest}");
    }
}

#[test]
fn what_nobody_can_be_asked_at_is_told() {
    let owner = "_dns._udp.example";
    let mut resolution = service();
    let parts = [srv(owner, 1, 1, 0, "a.example"), srv(owner, 1, 1, 53, "b.example"), srv(owner, 1, 1, 53, ".")];
    take(&mut resolution, Rcode::NOERROR, &parts);
    while resolution.question().is_some() {
        take(&mut resolution, Rcode::NOERROR, &[]);
    }
    let reported = [
        "a.example.:0: port 0: expected a port from 1 to 65535, since port 0 cannot be reached",
        "b.example.: it has no address",
    ];
    assert_eq!(found(resolution).0, reported);
    let mut resolution = host(53);
    let zero = (Section::Answer, "ts.example", RecordType::A, 0, vec![0, 0, 0, 0]);
    take(&mut resolution, Rcode::NOERROR, &[zero, a("ts.example", 0, 1)]);
    take(&mut resolution, Rcode::NXDOMAIN, &[]);
    let reported = ["ts.example. 0.0.0.0:53: 0.0.0.0: expected the address of one host", "192.0.2.1:53"];
    assert_eq!(found(resolution), (reported.map(str::to_owned).to_vec(), 5), "TTL 0 is 5 s");
}

#[test]
fn times_are_within_bounds() {
    for (ttl, expected) in [(0, 5), (1, 1), (299, 299), (86_400, 300)] {
        let mut resolution = host(53);
        take(&mut resolution, Rcode::NOERROR, &[a("ts.example", ttl, 1)]);
        take(&mut resolution, Rcode::NOERROR, &[]);
        assert_eq!(found(resolution).1, expected);
    }
}

proptest! {
    #[test]
    fn no_reply_ends_anything(octets in proptest::collection::vec(any::<u8>(), 0..100), flips in 0_usize..400) {
        let _ = service().on_reply(&octets);
        let mut resolution = service();
        let parts = [srv("_dns._udp.example", 1, 1, 53, "b.example"), additional(a("b.example", 1, 1))];
        let mut message = reply(&resolution, Rcode::NOERROR, &parts);
        let at = flips % (message.len() * 8);
        message[at / 8] ^= 1 << (at % 8);
        if resolution.on_reply(&message).is_ok() && resolution.question().is_none() {
            let _ = resolution.finish();
        }
    }
}
