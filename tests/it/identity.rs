//! A server reveals of its identity only the configured values (RFC 4892, RFC 5001).

use dns::{Header, OptionCode, Rcode, RecordClass, Transport, read_query};
use zone::{Identity, IdentityText, ZoneDb, respond};

use crate::support::zones::*;

/// A zone to ask.
const ZONE: &str = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.elsewhere.\n";

/// A zone database that says something of its server.
fn reported() -> ZoneDb {
    let text = |text: &str| IdentityText::new(text.as_bytes());
    zone_db(&[ZONE]).with_identity(Identity { version: text("hedgerow 1"), id: text("ts1"), nsid: text("node") })
}

#[test]
fn version_and_id_are_told_if_they_are_set() {
    let check = |zone_db: &ZoneDb, qname: &str, qtype: &str, expected: Option<&str>| {
        let response = Asked { qclass: RecordClass::CH, ..asked(qname, qtype) }.of(zone_db);
        let expected_line = expected
            .map_or_else(|| "REFUSED QR".to_owned(), |text| format!("NOERROR QR AA; an {qname} 0 IN TXT \"{text}\""));
        assert_eq!(response.line(), expected_line, "{qname} {qtype}");
    };
    check(&reported(), "version.bind.", "TXT", Some("hedgerow 1"));
    check(&reported(), "VERSION.server.", "ANY", Some("hedgerow 1"));
    check(&reported(), "id.server.", "TXT", Some("ts1"));
    check(&reported(), "hostname.bind.", "TXT", Some("ts1"));
    check(&reported(), "version.bind.", "A", None);
    check(&reported(), "authors.bind.", "TXT", None);
    for qname in ["version.bind.", "id.server."] {
        check(&zone_db(&[ZONE]), qname, "TXT", None);
    }
    // In class IN it is a name as any other.
    assert_eq!(asked("version.bind.", "TXT").of(&reported()).line(), "REFUSED QR");
}

#[test]
fn the_identifier_goes_to_those_who_ask_for_it() {
    let ask = |zone_db: &ZoneDb, options: &[u8]| {
        let mut query = asked("z.", "SOA").with_do().message();
        let rdlength = query.len() - 2;
        query[rdlength..].copy_from_slice(&(options.len() as u16).to_be_bytes());
        query.extend_from_slice(options);
        let mut out = Vec::new();
        respond(zone_db, &query, Transport::Udp, UDP_SIZE, &mut out);
        let header = Header::read(&out).expect("a header");
        assert_eq!((header.rcode(), header.ancount(), header.arcount()), (Rcode::NOERROR, 1, 1));
        // Read as if it were a query, which checks all of it.
        out[2] &= 0x7F;
        let edns = read_query(&out).expect("a sound message").edns.expect("an OPT record");
        edns.iter_options().map(|(code, data)| (code, data.to_vec())).collect::<Vec<_>>()
    };
    let nsid = [0, 3, 0, 0];
    assert_eq!(ask(&reported(), &nsid), [(OptionCode::NSID, b"node".to_vec())]);
    assert_eq!(ask(&reported(), &[]), []);
    assert_eq!(ask(&zone_db(&[ZONE]), &nsid), []);
}

#[test]
fn texts_are_one_character_string() {
    assert!(IdentityText::new(&[b'x'; 255]).is_some() && IdentityText::new(&[b'x'; 256]).is_none());
    assert_eq!(IdentityText::new(b"x").expect("short").as_octets(), b"x");
}
