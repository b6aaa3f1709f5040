//! RFC 6672: DNAME records.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{RData, Record, RecordType};

use crate::support::cache::{Subject, a, alias, name, reply};
use crate::support::zones::{asked, try_zone, zone_db};

/// Subtrees that are elsewhere.
fn zone() -> String {
    let long = format!("{0}.{0}.{0}.{1}.", "x".repeat(63), "y".repeat(53));
    format!(
        "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\n\
         old.z. 200 DNAME new.z.\nold.z. A 192.0.2.1\nhost.new.z. 300 A 192.0.2.2\nalias.new.z. CNAME host.old.z.\n\
         far.z. 100 DNAME elsewhere.\nlong.z. DNAME {long}\nself.z. DNAME a.self.z.\n"
    )
}

/// Asks the zone, and compares the response.
#[track_caller]
fn check(qname: &str, qtype: &str, expected: &str) {
    assert_eq!(asked(qname, qtype).of(&zone_db(&[&zone()])).line(), expected, "{qname} {qtype}");
}

#[test]
fn section_2_3_the_owner_is_not_renamed() {
    check("old.z.", "A", "NOERROR QR AA; an old.z. 200 IN A 192.0.2.1");
    check("old.z.", "DNAME", "NOERROR QR AA; an old.z. 200 IN DNAME new.z.");
    check("old.z.", "TXT", "NOERROR QR AA; ns z. 60 IN SOA a. b. 1 2 3 4 60");
}

#[test]
fn section_3_1_names_below_get_an_alias_with_the_ttl_of_the_dname() {
    let renamed = "an old.z. 200 IN DNAME new.z.; an Host.old.z. 200 IN CNAME Host.new.z.";
    check("Host.old.z.", "A", &format!("NOERROR QR AA; {renamed}; an Host.new.z. 300 IN A 192.0.2.2"));
    check("Host.old.z.", "CNAME", &format!("NOERROR QR AA; {renamed}"));
    check("x.far.z.", "A", "NOERROR QR AA; an far.z. 100 IN DNAME elsewhere.; an x.far.z. 100 IN CNAME x.elsewhere.");
    check(
        "no.old.z.",
        "A",
        "NXDOMAIN QR AA; an old.z. 200 IN DNAME new.z.; an no.old.z. 200 IN CNAME no.new.z.; \
         ns z. 60 IN SOA a. b. 1 2 3 4 60",
    );
}

#[test]
fn section_2_2_names_that_become_too_long_have_no_substitute() {
    let qname = format!("{}.long.z.", "l".repeat(60));
    let response = asked(&qname, "A").by_tcp().of(&zone_db(&[&zone()]));
    assert_eq!(response.brief(), "YXDOMAIN QR AA; an long.z. DNAME");
}

#[test]
fn what_leads_below_itself_ends() {
    check("x.self.z.", "A", "NOERROR QR AA; an self.z. 100 IN DNAME a.self.z.; an x.self.z. 100 IN CNAME x.a.self.z.");
}

#[test]
fn section_2_3_a_dname_at_a_cut_is_a_warning_and_the_cut_applies() {
    let text = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\nz. DNAME y.\n";
    let Ok((_, diagnostics)) = try_zone(text) else { panic!("at the apex it is right") };
    assert!(diagnostics.warnings.is_empty());
    let text = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\na.z. DNAME y.\na.z. NS ns.elsewhere.\n";
    let Ok((_, diagnostics)) = try_zone(text) else { panic!("a warning is no error") };
    let warnings: Vec<_> = diagnostics.warnings.iter().map(ToString::to_string).collect();
    let expected = "a.z.: a DNAME record at a zone cut is never answered, the names below belong to the child zone";
    assert_eq!(warnings, [expected]);
    assert_eq!(asked("x.a.z.", "A").of(&zone_db(&[text])).line(), "NOERROR QR; ns a.z. 300 IN NS ns.elsewhere.");
}

#[test]
fn section_2_4_a_name_has_no_dname_beside_a_cname() {
    let apex = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\n";
    assert!(try_zone(&format!("{apex}a.z. DNAME y.\na.z. CNAME y.\n")).is_err());
    assert!(try_zone(&format!("{apex}a.z. CNAME y.\na.z. DNAME y.\n")).is_err());
}

#[test]
fn section_2_5_the_target_is_not_compressed() {
    let response = asked("host.old.z.", "A").of(&zone_db(&[&zone()]));
    let dname = b"\0\x27\0\x01\0\0\0\xC8\0\x07\x03new\x01z\0";
    assert!(response.octets.windows(dname.len()).any(|octets| octets == dname), "{response:?}");
}

#[test]
fn section_3_1_an_alias_with_ttl_0_is_not_kept() {
    for (ttl, is_kept) in [(300, true), (0, false)] {
        let mut message = reply("www.example.org.", RecordType::A, ResponseCode::NoError);
        let dname = RData::Unknown { code: RecordType::DNAME, rdata: NULL::with(b"\x07example\x03net\0".into()) };
        message.add_answer(Record::from_rdata(name("example.org."), 300, dname));
        message.add_answer(alias("www.example.org.", ttl, "www.example.net."));
        message.add_answer(a("www.example.net.", 300, 1));
        assert_eq!(Subject::new().keep(&message), is_kept, "{ttl}");
    }
}
