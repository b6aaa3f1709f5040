//! RFC 4035: a zone that was signed elsewhere, with its appendix A as the zone and its appendix B as the
//! questions. Signatures say here only which type they are for, which is all that an authority looks at.

use dns::{Header, Rcode, Transport};

use crate::support::zones::*;

/// The zone of RFC 4035 appendix A.
const ZONE: &str = "\
example. 3600 SOA ns1.example. bugs.x.w.example. 1081539377 3600 300 3600000 1800
example. RRSIG SOA
example. NS ns1.example.
example. NS ns2.example.
example. RRSIG NS
example. MX 1 xx.example.
example. RRSIG MX
example. NSEC a.example.
example. RRSIG NSEC
a.example. NS ns1.a.example.
a.example. NS ns2.a.example.
a.example. DS 57855
a.example. RRSIG DS
a.example. NSEC ai.example.
a.example. RRSIG NSEC
ns1.a.example. A 192.0.2.5
ns2.a.example. A 192.0.2.6
ai.example. A 192.0.2.9
ai.example. RRSIG A
ai.example. NSEC b.example.
ai.example. RRSIG NSEC
b.example. NS ns1.b.example.
b.example. NS ns2.b.example.
b.example. NSEC ns1.example.
b.example. RRSIG NSEC
ns1.b.example. A 192.0.2.7
ns2.b.example. A 192.0.2.8
ns1.example. A 192.0.2.1
ns1.example. RRSIG A
ns1.example. NSEC ns2.example.
ns1.example. RRSIG NSEC
ns2.example. A 192.0.2.2
ns2.example. RRSIG A
ns2.example. NSEC *.w.example.
ns2.example. RRSIG NSEC
*.w.example. MX 1 ai.example.
*.w.example. RRSIG MX
*.w.example. NSEC x.w.example.
*.w.example. RRSIG NSEC
x.w.example. MX 1 xx.example.
x.w.example. RRSIG MX
x.w.example. NSEC x.y.w.example.
x.w.example. RRSIG NSEC
x.y.w.example. MX 1 xx.example.
x.y.w.example. RRSIG MX
x.y.w.example. NSEC xx.example.
x.y.w.example. RRSIG NSEC
xx.example. A 192.0.2.10
xx.example. RRSIG A
xx.example. AAAA 2001:db8::f00:baaa
xx.example. RRSIG AAAA
xx.example. NSEC example.
xx.example. RRSIG NSEC
";

/// Asks the zone with DO, and compares the response in brief.
#[track_caller]
fn check(qname: &str, qtype: &str, expected: &str) {
    assert_eq!(asked(qname, qtype).with_do().of(&zone_db(&[ZONE])).brief(), expected, "{qname} {qtype}");
}

#[test]
fn appendix_b_1_answer() {
    check(
        "x.w.example.",
        "MX",
        "NOERROR QR AA; an x.w.example. MX; an x.w.example. RRSIG MX; ar xx.example. A; ar xx.example. RRSIG A; \
         ar xx.example. AAAA; ar xx.example. RRSIG AAAA",
    );
}

#[test]
fn appendix_b_2_name_error() {
    check(
        "ml.example.",
        "A",
        "NXDOMAIN QR AA; ns example. SOA; ns example. RRSIG SOA; ns b.example. NSEC; ns b.example. RRSIG NSEC; \
         ns example. NSEC; ns example. RRSIG NSEC",
    );
}

#[test]
fn appendix_b_3_no_data_error() {
    let nodata = |name: &str| {
        format!("NOERROR QR AA; ns example. SOA; ns example. RRSIG SOA; ns {name} NSEC; ns {name} RRSIG NSEC")
    };
    check("ns1.example.", "MX", &nodata("ns1.example."));
    // Names without records of their own are covered by the one before.
    check("w.example.", "MX", &nodata("ns2.example."));
    check("y.w.example.", "MX", &nodata("x.w.example."));
}

#[test]
fn appendix_b_4_referral_to_signed_zone() {
    check(
        "mc.a.example.",
        "MX",
        "NOERROR QR; ns a.example. NS; ns a.example. NS; ns a.example. DS; ns a.example. RRSIG DS; ar ns1.a.example. A; \
         ar ns2.a.example. A",
    );
}

#[test]
fn appendix_b_5_referral_to_unsigned_zone() {
    check(
        "mc.b.example.",
        "MX",
        "NOERROR QR; ns b.example. NS; ns b.example. NS; ns b.example. NSEC; ns b.example. RRSIG NSEC; \
         ar ns1.b.example. A; ar ns2.b.example. A",
    );
}

#[test]
fn appendix_b_6_wildcard_expansion() {
    check(
        "a.z.w.example.",
        "MX",
        "NOERROR QR AA; an a.z.w.example. MX; an a.z.w.example. RRSIG MX; ns x.y.w.example. NSEC; \
         ns x.y.w.example. RRSIG NSEC; ar ai.example. A; ar ai.example. RRSIG A",
    );
}

#[test]
fn appendix_b_7_wildcard_no_data_error() {
    check(
        "a.z.w.example.",
        "AAAA",
        "NOERROR QR AA; ns example. SOA; ns example. RRSIG SOA; ns x.y.w.example. NSEC; ns x.y.w.example. RRSIG NSEC; \
         ns *.w.example. NSEC; ns *.w.example. RRSIG NSEC",
    );
}

#[test]
fn appendix_b_8_ds_child_zone_no_data_error() {
    let nodata = "NOERROR QR AA; ns example. SOA; ns example. RRSIG SOA; ns example. NSEC; ns example. RRSIG NSEC";
    check("example.", "DS", nodata);
    check("a.example.", "DS", "NOERROR QR AA; an a.example. DS; an a.example. RRSIG DS");
    check(
        "b.example.",
        "DS",
        "NOERROR QR AA; ns example. SOA; ns example. RRSIG SOA; ns b.example. NSEC; ns b.example. RRSIG NSEC",
    );
}

#[test]
fn section_3_1_1_without_do_nothing_is_added_but_what_is_asked_for() {
    let check = |qname: &str, qtype: &str, expected: &str| {
        assert_eq!(asked(qname, qtype).of(&zone_db(&[ZONE])).brief(), expected, "{qname} {qtype}");
    };
    check("xx.example.", "A", "NOERROR QR AA; an xx.example. A");
    check("ml.example.", "A", "NXDOMAIN QR AA; ns example. SOA");
    check("a.z.w.example.", "MX", "NOERROR QR AA; an a.z.w.example. MX; ar ai.example. A");
    check("ns1.example.", "NSEC", "NOERROR QR AA; an ns1.example. NSEC");
    check("ns1.example.", "RRSIG", "NOERROR QR AA; an ns1.example. RRSIG A; an ns1.example. RRSIG NSEC");
}

#[test]
fn section_3_1_1_signatures_belong_to_what_they_sign_or_tc() {
    let mut zone = ZONE.to_owned();
    for number in 0..60 {
        zone += &format!("big.example. A 192.0.2.{number}\n");
    }
    zone += "big.example. RRSIG A\nxx.example. MX 1 big.example.\nxx.example. RRSIG MX\n";
    let small = |qname: &str, qtype: &str, size: u16| Asked { edns: Some((size, true)), ..asked(qname, qtype) };
    // 60 addresses are 1,002 octets with header, question and OPT; their signature is 44 more.
    let response = small("big.example.", "A", 1010).of(&zone_db(&[&zone]));
    assert!(response.header.is_truncated());
    let response = small("big.example.", "A", 1232).of(&zone_db(&[&zone]));
    assert!(!response.header.is_truncated());
    let response = small("xx.example.", "MX", 512).of(&zone_db(&[&zone]));
    assert_eq!(response.brief(), "NOERROR QR AA; an xx.example. MX; an xx.example. RRSIG MX");
}

#[test]
fn section_3_1_6_ad_and_cd_are_clear() {
    let mut query = asked("xx.example.", "A").with_do().message();
    query[3] |= 0x30;
    let mut out = Vec::new();
    zone::respond(&zone_db(&[ZONE]), &query, Transport::Udp, UDP_SIZE, &mut out);
    let header = Header::read(&out).expect("a header");
    assert_eq!(header.rcode(), Rcode::NOERROR);
    assert!(!header.authentic_data() && !header.checking_disabled());
}
