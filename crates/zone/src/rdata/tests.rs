//! Tests RDATA of every type as text, canonical text and wire form.

use dns::RecordType;
use proptest::prelude::*;

use super::*;
use crate::Record;
use crate::load::master::{ZoneFileContext, ZoneFileSource, read as read_zone};

/// Reads the RDATA of one record.
fn wire(rtype: &str, text: &str) -> Result<(RecordType, Vec<u8>), String> {
    let source = ZoneFileSource { name: "zone".to_owned(), octets: format!("a. 1 {rtype} {text}\n").into_bytes() };
    let mut found = None;
    let mut include = |path: &str| Err(path.to_owned());
    let mut sink = |record: Record<'_>, _| found = Some((record.rtype, record.rdata.to_vec()));
    let task = ZoneFileContext { origin: None, default_ttl: None, include: &mut include };
    read_zone(&source, task, &mut sink).map_err(|errors| errors.to_string())?;
    found.ok_or_else(|| "no record".to_owned())
}

/// Every type with a text form: the input, and its canonical form if that differs.
const CASES: &[(&str, &str, &str)] = &[
    ("A", "192.0.2.1", ""),
    ("AAAA", "2001:DB8:0:0::1", "2001:db8::1"),
    ("AAAA", "::ffff:192.0.2.1", ""),
    ("NS", "Ns.Example.", ""),
    ("MD", "a.", ""),
    ("MF", "a.", ""),
    ("CNAME", r"a\.b\032c.", ""),
    ("DNAME", ".", ""),
    ("MB", "a.", ""),
    ("MG", "a.", ""),
    ("MR", "a.", ""),
    ("PTR", "a.b.", ""),
    ("SOA", "a. b. 4294967295 1h 1d 1w2d 0", "a. b. 4294967295 3600 86400 777600 0"),
    ("HINFO", r#"a "b c""#, r#""a" "b c""#),
    ("MINFO", "a. b.", ""),
    ("MX", "0 .", ""),
    ("TXT", r#"a "b" \"c\255"#, r#""a" "b" "\"c\255""#),
    ("SPF", r#""v=spf1 -all""#, ""),
    ("NINFO", r#""a""#, ""),
    ("AVC", r#""a""#, ""),
    ("RESINFO", r#""qnamemin" "exterr=15,16""#, ""),
    ("WALLET", r#""ETH" "0x1""#, ""),
    ("CLA", r#""a""#, ""),
    ("RP", "a. b.", ""),
    ("AFSDB", "1 a.", ""),
    ("X25", "311061700956", r#""311061700956""#),
    ("ISDN", "150862028003217 004", r#""150862028003217" "004""#),
    ("ISDN", r#""150862028003217""#, ""),
    ("RT", "2 a.", ""),
    ("NSAP", "0x47.0005.80", "0x47000580"),
    ("PX", "10 a. b.", ""),
    ("GPOS", r#""-32.6882" "116.8652" "10.0""#, ""),
    ("LOC", "52 22 23 N 4 53 32 E -2 0 10000 10", "52 22 23.000 N 4 53 32.000 E -2.00m 0m 10000m 10m"),
    ("LOC", "90 S 180 w 42849672.95m", "90 0 0.000 S 180 0 0.000 W 42849672.95m 1m 10000m 10m"),
    ("LOC", "0 0 0.001 n 0 59 59.999 e 0.5m 0.05m", "0 0 0.001 N 0 59 59.999 E 0.50m 0.05m 10000m 10m"),
    ("EID", "e32c 6f78", "E32C6F78"),
    ("NIMLOC", "75234159EAC457800920", ""),
    ("SRV", "0 5 443 a.", ""),
    ("NAPTR", r#"100 50 s http+E2U "" _http._tcp.a."#, r#"100 50 "s" "http+E2U" "" _http._tcp.a."#),
    ("KX", "10 a.", ""),
    ("CERT", "PGP 1 RSASHA256 AQID BA==", "3 1 8 AQIDBA=="),
    ("APL", "1:192.168.32.0/21 !1:192.168.38.0/28 2:FF00::/8", "1:192.168.32.0/21 !1:192.168.38.0/28 2:ff00::/8"),
    ("APL", "1:0.0.0.0/0", ""),
    ("APL", "", ""),
    (
        "DS",
        "60485 5 1 2bb183 af5f2258 8179a53b0a98631fad1a292118",
        "60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118",
    ),
    ("CDS", "0 0 0 00", ""),
    ("DLV", "1 RSASHA1 1 AB", "1 5 1 AB"),
    ("TA", "1 5 1 AB", ""),
    ("SSHFP", "2 1 123456789ABCDEF67890123456789ABCDEF67890", ""),
    ("IPSECKEY", "10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==", ""),
    ("IPSECKEY", "10 0 2 . AQID", ""),
    ("IPSECKEY", "10 2 2 2001:db8::1 AQID", ""),
    ("IPSECKEY", "10 3 0 a.", ""),
    ("RRSIG", "A 5 3 86400 20030322173103 20030220173103 2642 a. AQID", ""),
    (
        "RRSIG",
        "TYPE65280 ED25519 3 1d 1048354263 0 2642 a. AQID",
        "TYPE65280 15 3 86400 20030322173103 19700101000000 2642 a. AQID",
    ),
    ("SIG", "A 5 3 86400 21060207062815 20000229000000 2642 a. AQID", ""),
    ("NSEC", "b. TYPE1234 RRSIG A MX NSEC A", "b. A MX RRSIG NSEC TYPE1234"),
    ("NSEC", "b. CAA", ""),
    ("KEY", "256 3 5 AQID", ""),
    ("KEY", "49152 3 0", ""),
    ("DNSKEY", "256 3 ECDSAP256SHA256 ( AQ ID )", "256 3 13 AQID"),
    ("CDNSKEY", "0 3 0 AA==", ""),
    ("RKEY", "0 3 5 AQID", ""),
    ("DHCID", "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA=", ""),
    ("OPENPGPKEY", "AQID", ""),
    ("HHIT", "AQID", ""),
    ("BRID", "AQID", ""),
    (
        "NSEC3",
        "1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr MX DNSKEY NS",
        "1 1 12 AABBCCDD 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR NS MX DNSKEY",
    ),
    ("NSEC3", "1 0 0 - 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR", ""),
    ("NSEC3PARAM", "1 0 12 AABBCCDD", ""),
    ("NSEC3PARAM", "1 0 0 -", ""),
    ("TLSA", "3 1 1 AB", ""),
    ("SMIMEA", "3 0 0 AB", ""),
    ("HIP", "2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc a. b.", ""),
    ("HIP", "2 AB AQID", ""),
    ("TALINK", "a. b.", ""),
    ("CSYNC", "66 3 A NS AAAA", ""),
    ("CSYNC", "66 0", ""),
    ("ZONEMD", "2018031500 1 1 AB", ""),
    ("SVCB", "0 a.", ""),
    ("HTTPS", "1 . alpn=h3,h2 port=8443", r#"1 . alpn="h3,h2" port=8443"#),
    (
        "SVCB",
        r#"16 a. ipv6hint="2001:db8::1,::ffff:198.51.100.100" ipv4hint=192.0.2.1 ech=AQID mandatory=ipv4hint,alpn alpn="f\\\\oo\\,bar,h2" no-default-alpn ohttp dohpath=/q{?dns} key667="a \210b" key65534"#,
        r#"16 a. mandatory=alpn,ipv4hint alpn="f\\\\oo\\,bar,h2" no-default-alpn ipv4hint=192.0.2.1 ech=AQID ipv6hint=2001:db8::1,::ffff:198.51.100.100 dohpath="/q{?dns}" ohttp key667="a \210b" key65534"#,
    ),
    ("DSYNC", "CDS NOTIFY 5359 a.", "CDS 1 5359 a."),
    ("NID", "10 14:4fff:ff20:ee64", "10 0014:4fff:ff20:ee64"),
    ("L32", "10 10.1.2.0", ""),
    ("L64", "10 2001:0db8:1140:1000", ""),
    ("LP", "10 a.", ""),
    ("EUI48", "00-00-5E-00-53-2a", "00-00-5e-00-53-2a"),
    ("EUI64", "00-00-5e-ef-10-00-00-2a", ""),
    ("URI", r#"10 1 "ftp://ftp1.example.com/public""#, ""),
    ("CAA", "0 issue ca.example;policy=ev", r#"0 issue "ca.example""#),
    ("CAA", r#"128 iodef """#, ""),
    ("DOA", "0 1 2 \"\" aHR0", ""),
    ("DOA", "0 1 2 \"text/html\" -", ""),
    ("AMTRELAY", "10 0 1 203.0.113.15", ""),
    ("AMTRELAY", "10 1 2 2001:db8::15", ""),
    ("AMTRELAY", "128 1 3 a.", ""),
    ("AMTRELAY", "10 0 0 .", ""),
    ("IPN", "3735928559", ""),
    ("TYPE65280", r"\# 3 abcdef", ""),
    ("NULL", r"\# 1 00", ""),
];

#[test]
fn every_type_reads_and_prints() {
    for (rtype, text, canonical) in CASES {
        let (number, octets) = wire(rtype, text).unwrap_or_else(|errors| panic!("{rtype} {text}\n{errors}"));
        let expected = if canonical.is_empty() { text } else { canonical };
        let printed = rdata_to_text(number, &octets);
        let expected = if expected.is_empty() { r"\# 0" } else { expected };
        assert_eq!(printed, expected.to_string().trim(), "{rtype} {text}");
        assert_eq!(wire(rtype, &printed), Ok((number, octets)), "{rtype} {printed}");
    }
}

#[test]
fn every_type_with_a_text_form_is_in_the_table() {
    for (name, rtype) in RecordType::NAMED {
        let tested = CASES.iter().any(|(tested, ..)| tested == name);
        assert!(tested || read::form_with_text(*rtype).is_none(), "{name}");
    }
}

#[test]
fn wire_form_is_what_the_standards_say() {
    let check = |rtype: &str, text: &str, expected: &[u8]| {
        assert_eq!(wire(rtype, text).map(|(_, octets)| octets).as_deref(), Ok(expected), "{rtype} {text}");
    };
    check("MX", "10 Mx.a.", b"\0\x0a\x02Mx\x01a\0");
    check("APL", "1:192.168.32.0/21 !1:192.168.38.0/28", b"\0\x01\x15\x03\xc0\xa8\x20\0\x01\x1c\x83\xc0\xa8\x26");
    check(
        "NSEC",
        "h.e. A MX RRSIG NSEC TYPE1234",
        b"\x01h\x01e\0\0\x06\x40\x01\0\0\0\x03\x04\x1b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x20",
    );
    check("SVCB", r#"1 a. key667="hello\210qoo""#, b"\0\x01\x01a\0\x02\x9b\0\x09hello\xd2qoo");
    check("SVCB", r#"16 . alpn="f\\\\oo\\,bar,h2""#, b"\0\x10\0\0\x01\0\x0c\x08f\\oo,bar\x02h2");
    check("HIP", "2 ABCD AQID", b"\x02\x02\0\x03\xab\xcd\x01\x02\x03");
    check("AMTRELAY", "10 1 3 a.", b"\x0a\x83\x01a\0");
    check("LOC", "42 21 54 N 71 06 18 W -24m 30m", b"\0\x33\x16\x13\x89\x17\x2d\xd0\x70\xbe\x15\xf0\0\x98\x8d\x20");
    check(
        "RRSIG",
        "A 5 3 86400 20030322173103 20030220173103 2642 . AQID",
        b"\0\x01\x05\x03\0\x01\x51\x80\x3e\x7c\x9d\xd7\x3e\x55\x10\xd7\x0a\x52\0\x01\x02\x03",
    );
    check("CAA", "0 issue \"\"", b"\0\x05issue");
    check("EUI48", "00-00-5e-00-53-2a", b"\0\0\x5e\0\x53\x2a");
    check("NSEC3PARAM", "1 0 1 -", b"\x01\0\0\x01\0");
}

#[test]
fn parameters_of_services_have_their_forms() {
    let long = format!("alpn={}", "a".repeat(256));
    for wrong in [
        "alpn",
        "alpn=",
        "alpn=h2,,h3",
        &long,
        "no-default-alpn=h2 alpn=h3",
        "no-default-alpn",
        "port",
        "port=",
        "port=65536",
        "port=-1",
        "ipv4hint=",
        "ipv4hint=2001:db8::1",
        "ipv4hint=192.0.2.1,",
        "ipv6hint=192.0.2.1",
        "ipv6hint",
        "mandatory",
        "mandatory=",
        "mandatory=mandatory",
        "mandatory=alpn,alpn alpn=h2",
        "mandatory=port",
        "ech=",
        "key65535=a",
        "key01=a",
        "key65536=a",
        "unheard=a",
    ] {
        assert!(wire("SVCB", &format!("1 . {wrong}")).is_err(), "{wrong}");
    }
    for right in [
        "alpn=h2",
        "port=65535",
        "ipv4hint=192.0.2.1,192.0.2.2",
        "mandatory=port port=0",
        "key65534",
        "key0=port port=1",
    ] {
        assert!(wire("SVCB", &format!("1 . {right}")).is_ok(), "{right}");
    }
}

proptest! {
    #[test]
    fn any_data_of_any_type_print_and_read_back(
        index in 0..RecordType::NAMED.len(),
        octets in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let rtype = RecordType::NAMED[index].1;
        prop_assume!(!rtype.is_meta() && rtype != RecordType(0));
        let text = rdata_to_text(rtype, &octets);
        let name = rtype.to_string();
        if read::form_with_text(rtype).is_some() && !write::fits(rtype, &octets) {
            prop_assert!(wire(&name, &text).is_err(), "{} {}", name, text);
        } else {
            prop_assert_eq!(wire(&name, &text), Ok((rtype, octets)), "{} {}", name, text);
        }
    }

    #[test]
    fn no_text_is_too_odd(rtype in 0..300_u16, text in r#"[ -~\n]{0,40}"#) {
        drop(wire(&format!("TYPE{rtype}"), &text));
        drop(wire("", &text));
    }
}
