//! RFC 9471: glue belongs to its referral. And what else has to fit, or not.

use crate::support::zones::*;

/// A delegation to so many servers below it, each with so many addresses, and to one server beside it.
fn zone(servers: usize, addresses: usize) -> String {
    let mut text = "z. 300 SOA a. b. 1 2 3 4 60\nz. NS ns.other.\nsub.z. NS ns.beside.z.\n".to_owned();
    for address in 0..40 {
        text += &format!("ns.beside.z. A 198.51.100.{address}\n");
    }
    for server in 0..servers {
        text += &format!("sub.z. NS ns{server}.sub.z.\n");
        for address in 0..addresses {
            text += &format!("ns{server}.sub.z. A 192.0.2.{address}\n");
        }
    }
    text
}

/// Returns true if a referral by UDP is truncated, and the number of its addresses.
fn referral(servers: usize, addresses: usize) -> (bool, usize) {
    let response = asked("x.sub.z.", "A").of(&zone_db(&[&zone(servers, addresses)]));
    assert_eq!(response.sections[1].len(), servers + 1);
    assert!(response.octets.len() <= 512);
    (response.header.is_truncated(), response.sections[2].len())
}

#[test]
fn section_3_1_all_glue_below_the_cut_or_tc() {
    assert_eq!(referral(2, 3), (false, 6));
    assert_eq!(referral(10, 1), (false, 10));
    let (is_truncated, glue) = referral(10, 3);
    assert!(is_truncated && glue < 30);
}

#[test]
fn section_3_2_addresses_of_other_servers_may_be_left_out() {
    // The 40 addresses of ns.beside.z do not fit and are left out, and TC is not set.
    assert_eq!(referral(1, 1), (false, 1));
    let whole = asked("x.sub.z.", "A").by_tcp().of(&zone_db(&[&zone(1, 1)]));
    assert_eq!((whole.header.is_truncated(), whole.sections[2].len()), (false, 41));
}

#[test]
fn answers_are_cut_between_rrsets() {
    // RFC 2181 section 9.
    let many: String = (0..60).map(|n| format!("many.z. A 192.0.2.{n}\n")).collect();
    let text = format!("{}to.z. CNAME many.z.\nz. MX 10 many.z.\n{many}", zone(0, 0));
    let check = |qname: &str, qtype: &str, expected: &str| {
        assert_eq!(asked(qname, qtype).of(&zone_db(&[&text])).brief(), expected);
    };
    check("many.z.", "A", "NOERROR QR AA TC");
    check("to.z.", "A", "NOERROR QR AA TC; an to.z. CNAME");
    // Addresses beside an MX record are a courtesy.
    check("z.", "MX", "NOERROR QR AA; an z. MX");
    let whole = asked("to.z.", "A").by_tcp().of(&zone_db(&[&text]));
    assert_eq!((whole.header.is_truncated(), whole.sections[0].len()), (false, 61));
}

#[test]
fn the_largest_answer_passes_by_tcp() {
    let hosts: String = (0..1300).map(|n| format!("z. MX {n} mail{n}.{}.z.\n", "x".repeat(20))).collect();
    let zone_db = zone_db(&[&format!("{}{hosts}", zone(0, 0))]);
    let response = asked("z.", "MX").by_tcp().of(&zone_db);
    assert_eq!((response.header.is_truncated(), response.sections[0].len()), (false, 1300));
    assert!(asked("z.", "MX").of(&zone_db).header.is_truncated());
}
