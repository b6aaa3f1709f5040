//! RFC 4592: wildcards, with the zone and the questions of its section 2.2.1.

use crate::support::zones::*;

/// The zone of RFC 4592 section 2.2.1.
const ZONE: &str = "\
example. 3600 IN SOA ns.example.com. host.example. 1 2 3 4 300
example. 3600 IN NS ns.example.com.
example. 3600 IN NS ns.example.net.
*.example. 3600 IN TXT \"this is a wildcard\"
*.example. 3600 IN MX 10 host1.example.
sub.*.example. 3600 IN TXT \"this is not a wildcard\"
host1.example. 3600 IN A 192.0.2.1
_ssh._tcp.host1.example. 3600 IN SRV 0 0 22 host1.example.
_ssh._tcp.host2.example. 3600 IN SRV 0 0 22 host1.example.
subdel.example. 3600 IN NS ns.example.com.
subdel.example. 3600 IN NS ns.example.net.
";

/// Asks the zone, and compares the response in brief.
#[track_caller]
fn check(qname: &str, qtype: &str, expected: &str) {
    assert_eq!(asked(qname, qtype).of(&zone_db(&[ZONE])).brief(), expected, "{qname} {qtype}");
}

/// Nothing of this type, but the name is there.
const NODATA: &str = "NOERROR QR AA; ns example. SOA";
const NXDOMAIN: &str = "NXDOMAIN QR AA; ns example. SOA";
/// The response to names below the zone cut.
const REFERRAL: &str = "NOERROR QR; ns subdel.example. NS; ns subdel.example. NS";

#[test]
fn section_2_1_2_other_labels_with_an_asterisk_are_no_wildcards() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\nthe*.z. TXT \"a\"\n**.z. TXT \"b\"\n";
    let zone_db = zone_db(&[zone]);
    assert_eq!(asked("x.z.", "TXT").of(&zone_db).brief(), "NXDOMAIN QR AA; ns z. SOA");
    assert_eq!(asked("**.z.", "TXT").of(&zone_db).brief(), "NOERROR QR AA; an **.z. TXT");
}

#[test]
fn section_2_2_1_synthesized() {
    check("host3.example.", "MX", "NOERROR QR AA; an host3.example. MX; ar host1.example. A");
    check("host3.example.", "A", NODATA);
    check("foo.bar.example.", "TXT", "NOERROR QR AA; an foo.bar.example. TXT");
}

#[test]
fn section_2_2_1_not_synthesized() {
    check("host1.example.", "MX", NODATA);
    check("sub.*.example.", "MX", NODATA);
    check("_telnet._tcp.host1.example.", "SRV", NXDOMAIN);
    check("host.subdel.example.", "A", REFERRAL);
    check("ghost.*.example.", "MX", NXDOMAIN);
}

#[test]
fn section_2_2_2_empty_non_terminals_exist() {
    check("_tcp.host1.example.", "SRV", NODATA);
    check("_tcp.host2.example.", "SRV", NODATA);
    check("host2.example.", "MX", NODATA);
    check("x.host2.example.", "MX", NXDOMAIN);
}

#[test]
fn section_2_3_an_asterisk_asked_for_is_a_name_as_any_other() {
    check("*.example.", "TXT", "NOERROR QR AA; an *.example. TXT");
    check("*.example.", "A", NODATA);
    // The asterisk label has no meaning in a question.
    check("*.bar.example.", "TXT", "NOERROR QR AA; an *.bar.example. TXT");
    check("*.host1.example.", "TXT", NXDOMAIN);
}

#[test]
fn section_4_4_a_wildcard_alias_is_followed() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\n*.z. CNAME host.x.z.\nhost.x.z. A 192.0.2.1\nloop.y.z. A 192.0.2.2\n";
    let check = |qname: &str, qtype: &str, expected: &str| {
        assert_eq!(asked(qname, qtype).of(&zone_db(&[zone])).line(), expected);
    };
    check("a.z.", "A", "NOERROR QR AA; an a.z. 300 IN CNAME host.x.z.; an host.x.z. 300 IN A 192.0.2.1");
    check("a.z.", "CNAME", "NOERROR QR AA; an a.z. 300 IN CNAME host.x.z.");
    check("q.x.z.", "A", "NXDOMAIN QR AA; ns z. 60 IN SOA a. b. 1 2 3 4 60");
}

#[test]
fn section_4_2_servers_at_a_wildcard_are_those_of_the_name() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\n*.z. NS ns.elsewhere.\n";
    let response = asked("a.b.z.", "A").of(&zone_db(&[zone]));
    assert_eq!(response.line(), "NOERROR QR; ns a.b.z. 300 IN NS ns.elsewhere.");
}

#[test]
fn section_4_9_a_wildcard_may_be_an_empty_non_terminal() {
    let zone = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\nsub.*.z. A 192.0.2.1\n";
    assert_eq!(asked("x.z.", "A").of(&zone_db(&[zone])).brief(), "NOERROR QR AA; ns z. SOA");
}
