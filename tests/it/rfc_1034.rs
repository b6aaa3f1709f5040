//! RFC 1034 section 4.3.2: the algorithm of an authority, and what later documents say of its steps.

use dns::{HEADER_LEN, Rcode, RecordClass, Transport};
use zone::{Miss, Reaction, respond};

use crate::support::zones::*;

/// A zone with a bit of everything.
const ZONE: &str = "\
z. 300 SOA ns.z. host.z. 7 2 3 4 60
z. NS ns.z.
z. NS ns.elsewhere.
z. MX 10 mail.z.
z. MX 20 mail.z.
ns.z. A 192.0.2.1
ns.z. AAAA 2001:db8::1
mail.z. A 192.0.2.2
one.z. CNAME two.z.
two.z. CNAME mail.z.
out.z. CNAME www.elsewhere.
gone.z. CNAME nowhere.z.
none.z. CNAME ns.sub.z.
ring.z. CNAME ring2.z.
ring2.z. CNAME ring.z.
self.z. CNAME self.z.
deep.a.b.z. TXT \"deep\"
sub.z. NS ns.sub.z.
sub.z. NS ns.z.
sub.z. DS 1
ns.sub.z. A 192.0.2.9
hidden.sub.z. TXT \"hidden\"
strange.z. TYPE65280 \\# 2 abcd
_http._tcp.z. SRV 0 0 80 mail.z.
";

/// A zone below that one, and one beside it.
const CHILD: &str = "c.sub.z. 300 SOA ns.c.sub.z. host.z. 9 2 3 4 500\nc.sub.z. NS ns.elsewhere.\nw.c.sub.z. A 192.0.2.33\nback.c.sub.z. CNAME mail.z.\n";

/// Asks the zone, and compares the response.
#[track_caller]
fn check(qname: &str, qtype: &str, expected: &str) {
    assert_eq!(asked(qname, qtype).of(&zone_db(&[ZONE])).line(), expected, "{qname} {qtype}");
}

/// The authority section of a negative answer: RFC 2308 section 3, with the lesser of TTL and MINIMUM.
const SOA: &str = "ns z. 60 IN SOA ns.z. host.z. 7 2 3 4 60";

#[test]
fn what_is_there_is_answered_with_the_addresses_of_its_hosts() {
    check("mail.z.", "A", "NOERROR QR AA; an mail.z. 300 IN A 192.0.2.2");
    check("z.", "SOA", "NOERROR QR AA; an z. 300 IN SOA ns.z. host.z. 7 2 3 4 60");
    check(
        "z.",
        "NS",
        "NOERROR QR AA; an z. 300 IN NS ns.z.; an z. 300 IN NS ns.elsewhere.; ar ns.z. 300 IN A 192.0.2.1; \
         ar ns.z. 300 IN AAAA 2001:db8::1",
    );
    check(
        "z.",
        "MX",
        "NOERROR QR AA; an z. 300 IN MX 10 mail.z.; an z. 300 IN MX 20 mail.z.; ar mail.z. 300 IN A 192.0.2.2",
    );
    check(
        "_http._tcp.z.",
        "SRV",
        "NOERROR QR AA; an _http._tcp.z. 300 IN SRV 0 0 80 mail.z.; ar mail.z. 300 IN A 192.0.2.2",
    );
    // RFC 3597 section 3: unknown types are treated like all others.
    check("strange.z.", "TYPE65280", "NOERROR QR AA; an strange.z. 300 IN TYPE65280 [ab, cd]");
}

#[test]
fn aliases_are_followed_and_loops_end() {
    let chain = "an one.z. 300 IN CNAME two.z.; an two.z. 300 IN CNAME mail.z.";
    check("one.z.", "A", &format!("NOERROR QR AA; {chain}; an mail.z. 300 IN A 192.0.2.2"));
    check("one.z.", "CNAME", "NOERROR QR AA; an one.z. 300 IN CNAME two.z.");
    check("one.z.", "TXT", &format!("NOERROR QR AA; {chain}; {SOA}"));
    check("out.z.", "A", "NOERROR QR AA; an out.z. 300 IN CNAME www.elsewhere.");
    // RFC 6604 section 3: the rcode is about the last name.
    check("gone.z.", "A", &format!("NXDOMAIN QR AA; an gone.z. 300 IN CNAME nowhere.z.; {SOA}"));
    check("self.z.", "A", "NOERROR QR AA; an self.z. 300 IN CNAME self.z.");
    check("ring.z.", "A", "NOERROR QR AA; an ring.z. 300 IN CNAME ring2.z.; an ring2.z. 300 IN CNAME ring.z.");
    // An alias to what is delegated: the answer is ours, what follows is not.
    let referral = "ns sub.z. 300 IN NS ns.sub.z.; ns sub.z. 300 IN NS ns.z.; ar ns.sub.z. 300 IN A 192.0.2.9; \
                    ar ns.z. 300 IN A 192.0.2.1; ar ns.z. 300 IN AAAA 2001:db8::1";
    check("none.z.", "A", &format!("NOERROR QR AA; an none.z. 300 IN CNAME ns.sub.z.; {referral}"));
}

#[test]
fn long_chains_are_left_to_the_client() {
    let links: String = (0..20).map(|number| format!("l{number}.z. CNAME l{}.z.\n", number + 1)).collect();
    let response = asked("l0.z.", "A").of(&zone_db(&[&format!("{ZONE}{links}")]));
    assert_eq!((response.rcode(), response.sections[0].len()), (Rcode::NOERROR, 16));
}

#[test]
fn what_is_delegated_is_referred_with_glue() {
    let referral = "ns sub.z. 300 IN NS ns.sub.z.; ns sub.z. 300 IN NS ns.z.; ar ns.sub.z. 300 IN A 192.0.2.9; \
                    ar ns.z. 300 IN A 192.0.2.1; ar ns.z. 300 IN AAAA 2001:db8::1";
    for (qname, qtype) in
        [("sub.z.", "A"), ("sub.z.", "NS"), ("ns.sub.z.", "A"), ("hidden.sub.z.", "TXT"), ("x.sub.z.", "DS")]
    {
        check(qname, qtype, &format!("NOERROR QR; {referral}"));
    }
    // RFC 4035 section 3.1.4.1: DS records are at the parent's side.
    check("sub.z.", "DS", "NOERROR QR AA; an sub.z. 300 IN DS ");
    check("mail.z.", "DS", &format!("NOERROR QR AA; {SOA}"));
}

#[test]
fn what_is_not_there_is_denied() {
    check("nowhere.z.", "A", &format!("NXDOMAIN QR AA; {SOA}"));
    check("x.mail.z.", "A", &format!("NXDOMAIN QR AA; {SOA}"));
    check("mail.z.", "AAAA", &format!("NOERROR QR AA; {SOA}"));
    // RFC 8020 section 2: what is above a name is there.
    check("a.b.z.", "A", &format!("NOERROR QR AA; {SOA}"));
    check("b.z.", "A", &format!("NOERROR QR AA; {SOA}"));
    check("c.b.z.", "A", &format!("NXDOMAIN QR AA; {SOA}"));
    check("elsewhere.", "A", "REFUSED QR");
    check(".", "NS", "REFUSED QR");
}

#[test]
fn any_is_answered_with_one_rrset() {
    // RFC 8482 section 4.1.
    check("ns.z.", "ANY", "NOERROR QR AA; an ns.z. 300 IN A 192.0.2.1");
    check("one.z.", "ANY", "NOERROR QR AA; an one.z. 300 IN CNAME two.z.");
    check("b.z.", "ANY", &format!("NOERROR QR AA; {SOA}"));
}

#[test]
fn owners_are_spelled_as_they_were_asked() {
    let response = asked("MaiL.z.", "A").of(&zone_db(&[ZONE]));
    assert_eq!(response.line(), "NOERROR QR AA; an MaiL.z. 300 IN A 192.0.2.2");
    assert_eq!(response.octets[HEADER_LEN..HEADER_LEN + 8], *b"\x04MaiL\x01z\0");
}

#[test]
fn names_are_compressed() {
    let response = asked("x.sub.z.", "A").of(&zone_db(&[ZONE]));
    // Header and question are 25 octets; NS records of 2 + 10 + 5 and 2 + 10 + 5, the addresses 2 + 10 + 4
    // each and 16.
    assert_eq!(response.octets.len(), 25 + 17 + 17 + 16 + 16 + 28);
}

#[test]
fn the_deepest_zone_answers() {
    let zones = zone_db(&[ZONE, CHILD]);
    let check = |qname: &str, qtype: &str, expected: &str| {
        assert_eq!(asked(qname, qtype).of(&zones).brief(), expected, "{qname} {qtype}");
    };
    check("w.c.sub.z.", "A", "NOERROR QR AA; an w.c.sub.z. A");
    check("x.c.sub.z.", "A", "NXDOMAIN QR AA; ns c.sub.z. SOA");
    check("back.c.sub.z.", "A", "NOERROR QR AA; an back.c.sub.z. CNAME; an mail.z. A");
    // The parent's side of the cut is in the zone above, which delegates that name in turn.
    check("c.sub.z.", "DS", "NOERROR QR; ns sub.z. NS; ns sub.z. NS; ar ns.sub.z. A; ar ns.z. A; ar ns.z. AAAA");
    check("z.", "DS", "NOERROR QR AA; ns z. SOA");
    // Without the zone above, the child says that it has none.
    assert_eq!(asked("c.sub.z.", "DS").of(&zone_db(&[CHILD])).brief(), "NOERROR QR AA; ns c.sub.z. SOA");
}

#[test]
fn tables_answer_what_no_zone_encloses() {
    let table = "mail.z 192.0.2.77 A\nwww.elsewhere 192.0.2.78 A\n";
    let both = zone_db_with_table(&[ZONE], table, Miss::Nxdomain);
    let check = |qname: &str, expected: &str| assert_eq!(asked(qname, "A").of(&both).line(), expected, "{qname}");
    check("mail.z.", "NOERROR QR AA; an mail.z. 300 IN A 192.0.2.2");
    check("www.elsewhere.", "NOERROR QR AA; an www.elsewhere. 300 IN A 192.0.2.78");
    check("nowhere.", "NXDOMAIN QR AA");
    let silent = zone_db_with_table(&[ZONE], table, Miss::Silent);
    let mut out = Vec::new();
    let query = asked("nowhere.", "A").message();
    assert_eq!(respond(&silent, &query, Transport::Udp, UDP_SIZE, &mut out), Reaction::Silent);
    assert!(out.is_empty());
    assert_eq!(asked("nowhere.z.", "A").of(&silent).brief(), "NXDOMAIN QR AA; ns z. SOA");
    // Without any table, `miss` has no say.
    assert_eq!(asked("nowhere.", "A").of(&zone_db_with_table(&[ZONE], "", Miss::Silent)).line(), "REFUSED QR");
}

#[test]
fn other_classes_and_operations_are_refused() {
    for qclass in [RecordClass::CH, RecordClass::ANY, RecordClass::NONE, RecordClass(7)] {
        let response = Asked { qclass, ..asked("mail.z.", "A") }.of(&zone_db(&[ZONE]));
        assert_eq!(response.line(), "REFUSED QR");
    }
    for qtype in ["AXFR", "IXFR", "MAILB", "OPT", "TSIG"] {
        check("z.", qtype, "REFUSED QR");
    }
}
