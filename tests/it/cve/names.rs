//! Names and records that parsers of other servers read wrongly, or that cost them too much.

use super::*;
use crate::forging::check;

const CNAME: u16 = 5;
const MX: u16 = 15;
const DNAME: u16 = 39;
const DS: u16 = 43;
const RRSIG: u16 = 46;
const DNSKEY: u16 = 48;
const NSEC: u16 = 47;
const NSEC3: u16 = 50;

/// A record whose fields are written as they are, with this length of its data.
fn raw(owner: &[u8], rtype: u16, length: u16, data: &[u8]) -> Vec<u8> {
    let [rtype, class, length] = [rtype, IN, length].map(u16::to_be_bytes);
    [owner, &rtype, &class, &60_u32.to_be_bytes(), &length, data].concat()
}

/// A reply with these records as its answers.
fn with_records(records: Vec<Vec<u8>>) -> Script {
    Script::new(move |seen| {
        let counts = [1, u16::try_from(records.len()).expect("few"), 0, 0];
        Some([header(seen.id(), QR | RD, counts), question_of(&seen.bytes).to_vec(), records.concat()].concat())
    })
}

#[test]
fn names_and_data_that_end_elsewhere_make_a_reply_void() {
    let address = ipv4(FORGED);
    // CVE-2026-2291 (dnsmasq): a name that is longer than its buffer; 255 octets, and another label before
    // them.
    let long = raw(&wire_name(&longest_name()), TXT, 1, &[0]);
    let question = 12 + wire_name("www.example.org").len() + 4;
    let longer = [&[9][..], &[b'b'; 9], &[0xC0, question as u8]].concat();
    check(with_records(vec![long, raw(&longer, A, 4, &address)]));
    // CVE-2026-5172 (dnsmasq): an address that is longer than the message.
    check(with_records(vec![raw(&[0xC0, 12], A, u16::MAX, &address)]));
    check(with_records(vec![raw(&[0xC0, 12], A, 5, &address)]));
    // CVE-2026-81642 (Unbound): the owner of a DNSKEY record is a pointer into its data.
    let inside = [0xC0, (question + 12) as u8];
    check(with_records(vec![raw(&inside, DNSKEY, 24, &[&[1, 0, 3, 8][..], &[0; 20]].concat())]));
}

/// Asks for a name that has this reply, by UDP and TCP, twice for the cache; then all others are served.
fn check_harmless(script: Script) {
    let backend = Backend::new(answer(TRUE).except("odd", script));
    let config = Forwarder::to(&[&backend], "timeout = '2s'\non_timeout = 'servfail'").cache("").to_toml();
    let server = Server::start_as(&format!("{config}[query_log]\nto = 'stderr'\n"), &[], |_| {});
    for _ in 0..2 {
        let asked = query("odd.example", A).dnssec_ok();
        assert_eq!(server.client().ask(&asked).question(), asked.question());
        assert_eq!(server.tcp_client().ask(&asked).question(), asked.question());
    }
    assert_served(&server);
    let log = server.process.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn records_that_validators_and_printers_misread_pass_by() {
    let odd = || [0xC0, 12];
    // CVE-2026-2291 (dnsmasq): octets that need an escape in text, in the longest name.
    let label = [&[63][..], &[b'.'; 21], &[0; 21], &[b'\\'; 21]].concat();
    let escaped = [&label.repeat(3)[..], &[61], &[0xFF; 61], &[0]].concat();
    check_harmless(with_records(vec![raw(&odd(), CNAME, 255, &escaped), raw(&escaped, A, 4, &ipv4(FORGED))]));
    // CVE-2026-5172 (dnsmasq): an address of two octets, and one without.
    check_harmless(with_records(vec![raw(&odd(), A, 2, &[192, 0]), raw(&odd(), A, 0, &[])]));
    // CVE-2026-56416 (Unbound): a name in data that is longer than the data.
    check_harmless(with_records(vec![raw(&odd(), MX, 4, &[0, 1, 63, b'a']), raw(&odd(), NS, 2, &[5, b'a'])]));
    // CVE-2026-42959 (Unbound): a DNAME record several times, aliases, and records without signatures.
    let dname = raw(&wire_name("example"), DNAME, 13, &wire_name("other.dname"));
    let alias = raw(&odd(), CNAME, 17, &wire_name("odd.other.dname"));
    check_harmless(with_records(vec![dname.clone(), dname.clone(), alias.clone(), dname, alias]));
    // CVE-2026-123607 (Hickory DNS): NSEC3 with an SOA record that is not above the name.
    let hashed = [&[1, 0, 0, 0, 0, 20][..], &[7; 20], &[0, 1, 0x40]].concat();
    check_harmless(reply(move |reply| {
        let numbers = [1_u32, 3600, 600, 86_400, 60].map(u32::to_be_bytes).concat();
        let soa = record("far.elsewhere", SOA, &[wire_name("ns"), wire_name("h"), numbers].concat());
        let owner = format!("{}.far.elsewhere", "a".repeat(32));
        reply.rcode(NXDOMAIN).with_flags(AA).authority(soa).authority(record(&owner, NSEC3, &hashed))
    }));
    // CVE-2026-12725 (dnsmasq): unknown algorithms overflowed a buffer of the query log.
    let unknown = |rtype: u16, data: &[u8]| raw(&odd(), rtype, data.len() as u16, data);
    check_harmless(with_records(vec![
        unknown(DS, &[&[0xFF, 0xFF, 250, 250][..], &[1; 200]].concat()),
        unknown(DNSKEY, &[&[1, 0, 3, 250][..], &[1; 200]].concat()),
        unknown(RRSIG, &[0, 1, 250, 255]),
        unknown(NSEC, &[0, 0, 0]),
    ]));
}

#[test]
fn the_time_for_a_long_reply_does_not_depend_on_its_names() {
    const COUNT: usize = 40;
    // CVE-2026-44390 (Unbound): large RRsets whose names share nothing made compression slow.
    let strange: Vec<_> = (0..2500).map(|i| raw(&[0xC0, 12], NS, 7, &wire_name(&format!("z{i:04}")))).collect();
    // CVE-2024-8508 (Unbound): many names with common suffixes.
    let alike = |i: usize| wire_name(&format!("{:02}.{:02}.b.c.d.e.f", i / 50, i % 50));
    let alike: Vec<_> = (0..2000).map(|i| raw(&[0xC0, 12], NS, 17, &alike(i))).collect();
    // CVE-2026-96405 (Unbound): each owner is a pointer to the pointer before it. The longest name needs 127.
    let start = 12 + wire_name("a.example").len() + 4;
    let chained = |depth: usize| {
        let pointer = move |i: usize| (0xC000 | if i == 0 { 12 } else { start + 16 * (i.min(depth) - 1) }) as u16;
        (0..4000).map(move |i| raw(&pointer(i).to_be_bytes(), A, 4, &ipv4(TRUE))).collect()
    };
    let chained_data = |rtype: u16| {
        let pointer = move |i: usize| (0xC000 | if i == 0 { 12 } else { start + 12 + 14 * (i.min(120) - 1) }) as u16;
        (0..4000).map(move |i| raw(&[0xC0, 12], rtype, 2, &pointer(i).to_be_bytes())).collect()
    };
    for (what, records, rcode) in [
        ("chained servers", chained_data(NS), NOERROR),
        ("chained aliases", chained_data(CNAME), NOERROR),
        ("strange", strange, NOERROR),
        ("alike", alike, NOERROR),
        ("chained", chained(15), NOERROR),
        ("chained by 120", chained(120), SERVFAIL),
        ("chained by 1000", chained(1000), SERVFAIL),
    ] {
        let backend = Backend::new(truncated().by_tcp(with_records(records)).except("served", answer(TRUE)));
        let keys = "timeout = '5s'\nattempt_timeout = '300ms'\non_timeout = 'servfail'";
        let server = Forwarder::to(&[&backend], keys).cache("size = '64MiB'").start();
        let mut client = server.tcp_client();
        let before = cpu_time(&server);
        for round in 0..COUNT {
            let name = format!("{}.example", char::from(b'a' + (round / 2) as u8));
            let response = client.ask(&query(&name, NS).edns(1232));
            assert_eq!((response.rcode(), response.bytes.len() > 40_000), (rcode, rcode == NOERROR), "{what}");
        }
        let spent = cpu_time(&server) - before;
        // An unoptimized build needs less than 15 ms for a reply of 64 KiB.
        assert!(spent < ms(60) * COUNT as u32, "{what}: {spent:?}");
        assert_served(&server);
    }
}

#[test]
fn the_longest_replies_pass_and_never_grow_beyond_their_frame() {
    for size in [65_535, 65_534, 65_530, 65_520, 65_510, 65_500] {
        // CVE-2026-81634 (Unbound): the longest name with a large reply. CVE-2026-27853 (dnsdist): a reply
        // that becomes longer than 65,535 octets when it is changed.
        let long = Script::new(move |seen| {
            let start = [header(seen.id(), QR | RD, [1, 0, 0, 0]), question_of(&seen.bytes).to_vec()].concat();
            let rest = size - start.len() - 12;
            let chunks = raw(&[0xC0, 12], TXT, rest as u16, &vec![0; rest]);
            let mut reply = [start, chunks].concat();
            reply[7] = 1;
            Some(reply)
        });
        let backend = Backend::new(truncated().by_tcp(long).except("served", answer(TRUE)));
        let server = Forwarder::to(&[&backend], "timeout = '5s'").cache("").start();
        let plain = query(&longest_name(), TXT);
        let with_cookie = plain.clone().option(COOKIE, b"01234567").option(PADDING, &[0; 100]);
        for asked in [&plain, &with_cookie, &plain, &with_cookie] {
            let response = server.tcp_client().ask(asked);
            assert_eq!(response.question(), asked.question());
            assert!(response.has(TC) || response.bytes.len() >= size, "{size}: {} octets", response.bytes.len());
        }
        assert_served(&server);
    }
}

#[test]
fn labels_of_any_octets_count_towards_the_limit_of_their_zone() {
    // CVE-2026-33597 (dnsdist): an invalid label kept the detection of random subdomains from running.
    let backend = Backend::new(silent().except("served", answer(TRUE)));
    let keys = "timeout = '20s'\nattempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend], keys).keys("limits = { per_zone = 10 }").admin().start();
    let client = server.client();
    for number in 0..30_u8 {
        // The first label has two octets that are replaced: by a dot, a zero, or whatever comes.
        let mut message = query(&format!("xx{number}.zone.example"), A).to_vec();
        message[13..15]
            .copy_from_slice([[b'.', b'.'], [0, 0], [0xFF, b'\\'], [b' ', b'\n']][usize::from(number % 4)].as_slice());
        client.send_bytes(&message);
    }
    assert!((0..20).all(|_| client.receive().rcode() == SERVFAIL));
    let labels = [("listener", "forwarder"), ("limit", "zone")];
    assert_eq!(server.admin().metrics().sum("hedgerow_limited_total", &labels), 20);
    assert_served(&server);
}

#[test]
fn a_name_that_does_not_exist_hides_no_other_name() {
    // CVE-2026-44687 (Unbound): NXDOMAIN of a parent hid a forwarded zone below it, by one label.
    let public = Backend::new(nxdomain());
    let corporate = Backend::new(answer(TRUE));
    let config = Forwarder::new().pool("all", ".", &[&public], "").pool("corp", "corp.example", &[&corporate], "");
    let server = config.cache("").start();
    let client = server.client();
    for name in ["example", "xcorp.example", "p.example", "a.b.example"] {
        assert_eq!((0..2).map(|_| client.ask(&query(name, A)).rcode()).collect::<Vec<_>>(), [NXDOMAIN; 2], "{name}");
    }
    for name in ["corp.example", "www.corp.example", "a.b.corp.example"] {
        assert_eq!(client.ask(&query(name, A)).answers(), [TRUE], "{name}");
    }
}
