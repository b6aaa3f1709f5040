//! RFC 3597: unknown types, and the data of known types, in zones. What passes is in `messages.rs`.

use crate::support::zones::{asked, zone_db};

const APEX: &str = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\n";

#[test]
fn section_3_data_of_known_types_keep_their_octets() {
    let zone = format!("{APEX}_http._tcp.z. SRV 0 0 80 Mail.Z.\nt.z. TXT \"MiXed\"\n");
    let zone_db = zone_db(&[&zone]);
    let response = asked("_http._tcp.z.", "SRV").of(&zone_db);
    // A target of SRV is not compressed, although the question has the same end.
    assert!(response.octets.ends_with(b"\0\0\0\0\0\x50\x04Mail\x01Z\0"), "{response:?}");
    assert!(asked("T.z.", "TXT").of(&zone_db).octets.ends_with(b"\x05MiXed"));
}

#[test]
fn section_6_data_of_unknown_types_are_compared_by_octets() {
    // The third record is the first one again.
    let zone = format!("{APEX}a.z. TYPE65280 \\# 3 016100\na.z. TYPE65280 \\# 3 014100\na.z. TYPE65280 \\# 3 016100\n");
    let response = asked("a.z.", "TYPE65280").of(&zone_db(&[&zone]));
    let expected = ["a.z. 300 IN TYPE65280 [01, 61, 00]", "a.z. 300 IN TYPE65280 [01, 41, 00]"];
    assert_eq!(response.sections[0], expected);
}
