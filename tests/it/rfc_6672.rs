//! RFC 6672: DNAME records.

use crate::support::zones::*;

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
