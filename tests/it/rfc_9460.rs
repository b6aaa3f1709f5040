//! RFC 9460: SVCB and HTTPS records of an authority.

use testkit::{Backend, Forwarder, record, reply};

use crate::support::zones::*;

/// The type of services by HTTPS.
const HTTPS: u16 = 65;

/// A service that is an alias, one of its own name, one elsewhere, one that is off, and one below a cut.
const ZONE: &str = "\
z. 300 SOA a. b. 1 2 3 4 5
z. NS a.
z. HTTPS \\# 9 0000 03737663 017a 00
z. RRSIG HTTPS
svc.z. HTTPS \\# 3 0001 00
svc.z. RRSIG HTTPS
svc.z. A 192.0.2.1
svc.z. RRSIG A
svc.z. AAAA 2001:db8::1
own.z. HTTPS \\# 3 0001 00
own.z. A 192.0.2.2
own.z. SVCB \\# 9 0001 03737663 017a 00
away.z. HTTPS \\# 9 0001 03737663 0178 00
off.z. HTTPS \\# 3 0000 00
cut.z. NS ns.cut.z.
ns.cut.z. A 192.0.2.3
ns.cut.z. HTTPS \\# 3 0001 00
below.z. HTTPS \\# 14 0001 026e73 03637574 017a 00
";

#[test]
fn section_4_1_targets_have_their_addresses_and_services_in_the_additional_section() {
    let zone_db = zone_db(&[ZONE]);
    for (qname, qtype, expected) in [
        ("z.", "HTTPS", "an z. HTTPS; ar svc.z. HTTPS; ar svc.z. A; ar svc.z. AAAA"),
        ("own.z.", "HTTPS", "an own.z. HTTPS; ar own.z. A"),
        // Each type has its own aliases (section 2.4.2).
        ("own.z.", "SVCB", "an own.z. SVCB; ar svc.z. A; ar svc.z. AAAA"),
        ("away.z.", "HTTPS", "an away.z. HTTPS"),
        ("off.z.", "HTTPS", "an off.z. HTTPS"),
        // What stands below a cut is glue at most.
        ("below.z.", "HTTPS", "an below.z. HTTPS; ar ns.cut.z. A"),
    ] {
        let response = asked(qname, qtype).of(&zone_db);
        assert_eq!(response.brief(), format!("NOERROR QR AA; {expected}"), "{qname} {qtype}");
    }
    // Section 2.2: the target is not compressed.
    let octets = asked("z.", "HTTPS").of(&zone_db).octets;
    assert!(octets.windows(9).any(|window| window == b"\0\0\x03svc\x01z\0"), "{octets:?}");
}

#[test]
fn section_4_3_additional_records_have_their_signatures() {
    let response = asked("z.", "HTTPS").with_do().of(&zone_db(&[ZONE]));
    let additional = ["svc.z. HTTPS", "svc.z. RRSIG HTTPS", "svc.z. A", "svc.z. RRSIG A", "svc.z. AAAA"];
    let expected = additional.map(|record| format!("; ar {record}")).concat();
    assert_eq!(response.brief(), format!("NOERROR QR AA; an z. HTTPS; an z. RRSIG HTTPS{expected}"));
}

#[test]
fn section_4_3_a_forwarder_passes_unknown_keys_and_malformed_values() {
    // A key of private use, then a port of three octets, then keys in the wrong order.
    let data = b"\0\x01\0\xFF\x01\0\x02ab\0\x03\0\x03abc\0\x01\0\0";
    let backend = Backend::new(reply(move |reply| reply.answer(record("@", HTTPS, data))));
    let server = Forwarder::to(&[&backend], "").cache("").start();
    for _ in 0..2 {
        let response = server.client().ask(&testkit::query("www.example", HTTPS));
        assert!(response.bytes.windows(data.len()).any(|window| window == data), "{response:?}");
    }
    assert_eq!(backend.queries().len(), 1, "the second response is from the cache");
}

#[test]
fn section_4_4_and_7_3_services_are_asked_with_client_subnet_and_dns64_leaves_them() {
    let hint = b"\0\x01\0\0\x04\0\x04\xC0\0\x02\x21";
    let backend = Backend::new(reply(move |reply| reply.answer(record("@", HTTPS, hint))));
    let server = Forwarder::to(&[&backend], "client_subnet = 'pass'\ndns64 = '64:ff9b::/96'").start();
    let network = [0, 1, 24, 0, 198, 51, 100];
    let asked = testkit::query("www.example", HTTPS).edns(1232).option(8, &network);
    let response = server.client().ask(&asked);
    assert!(response.bytes.windows(hint.len()).any(|window| window == hint), "{response:?}");
    let sent = backend.wait_for(1)[0].options().expect("an OPT record");
    assert!(sent.contains(&(8, network.to_vec())), "{sent:?}");
}
