//! What is wrong with a zone as a whole, what is odd about it, and where.

use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::{Diagnostics, ZoneBuilder};

use crate::support::zones::*;

/// The start of a zone that is right.
const START: &str = "z. 300 SOA ns.elsewhere. h.z. 1 2 3 4 60\nz. NS ns.elsewhere.\n";

/// The errors and warnings of a zone, as `LINE: OWNER: TEXT`.
fn diagnostics(text: &str) -> [Vec<String>; 2] {
    let found = match try_zone(text) {
        Ok((_, diagnostics)) | Err(diagnostics) => diagnostics,
    };
    let Diagnostics { errors, warnings } = found;
    let errors = errors.iter().map(|found| format!("{}: {found}", found.place.line)).collect();
    let warnings = warnings.iter().map(|found| format!("{}: {found}", found.place.line)).collect();
    [errors, warnings]
}

/// Compares the errors of a zone that starts well.
#[track_caller]
fn check_errors(rest: &str, expected: &[&str]) {
    let [errors, _] = diagnostics(&format!("{START}{rest}"));
    assert_eq!(errors, expected);
    assert_eq!(try_zone(&format!("{START}{rest}")).is_ok(), expected.is_empty());
}

/// Compares the warnings of a zone that starts well, and is loaded.
#[track_caller]
fn check_warnings(rest: &str, expected: &[&str]) {
    let [errors, warnings] = diagnostics(&format!("{START}{rest}"));
    assert_eq!((errors, warnings), (Vec::new(), expected.iter().map(|text| (*text).to_owned()).collect()));
}

#[test]
fn a_zone_has_one_soa_record_and_its_servers() {
    assert_eq!(
        diagnostics("z. 300 NS ns.elsewhere.\n")[0],
        ["1: z.: no SOA record: a zone has exactly one, at its apex"]
    );
    assert_eq!(
        diagnostics("z. 300 SOA a. b. 1 2 3 4 60\n")[0],
        ["1: z.: no NS record: a zone names its servers at its apex"]
    );
    assert_eq!(diagnostics("z. 300 A 192.0.2.1\n")[0].len(), 2);
    check_errors(
        "z. SOA a. b. 2 2 3 4 60\n",
        &["3: z.: a second SOA record that differs from the first, expected one"],
    );
    check_errors(
        "sub.z. SOA a. b. 2 2 3 4 60\n",
        &["3: sub.z.: SOA record below the apex: a zone has exactly one, at its apex"],
    );
}

#[test]
fn records_are_in_their_zone() {
    check_errors(
        "a.z. A 192.0.2.1\nb.y. A 192.0.2.1\nza. A 192.0.2.1\n",
        &[
            "4: b.y.: not in zone z.: remove the record, or write a name that ends in the zone's",
            "5: za.: not in zone z.: remove the record, or write a name that ends in the zone's",
        ],
    );
}

#[test]
fn an_alias_has_no_other_data() {
    let text = "CNAME and A records at one name: a name with a CNAME record has no other data";
    check_errors("a.z. CNAME b.z.\nb.z. A 192.0.2.1\na.z. A 192.0.2.1\n", &[&format!("5: a.z.: {text}")]);
    check_errors("a.z. A 192.0.2.1\na.z. CNAME b.z.\n", &[&format!("4: a.z.: {text}")]);
    check_errors(
        "a.z. CNAME b.z.\na.z. CNAME c.z.\n",
        &["4: a.z.: a second CNAME record that differs from the first, expected one"],
    );
    check_errors(
        "z. CNAME b.z.\n",
        &["3: z.: CNAME and SOA records at one name: a name with a CNAME record has no other data"],
    );
    // RFC 4035 section 2.5: what signs it may stand beside it. And a record said twice counts once.
    check_errors("a.z. CNAME b.z.\na.z. RRSIG CNAME\na.z. NSEC b.z.\na.z. CNAME B.z.\n", &[]);
}

#[test]
fn a_dname_record_has_its_subtree_for_itself() {
    check_errors(
        "a.z. DNAME b.z.\nx.a.z. A 192.0.2.1\ny.x.a.z. A 192.0.2.1\n",
        &[
            "4: x.a.z.: records below a name with a DNAME record, which gives all names below it away",
            "5: y.x.a.z.: records below a name with a DNAME record, which gives all names below it away",
        ],
    );
    check_errors(
        "a.z. DNAME b.z.\na.z. DNAME c.z.\n",
        &["4: a.z.: a second DNAME record that differs from the first, expected one"],
    );
    check_errors("z. DNAME y.\n", &[]);
    check_errors("a.z. DNAME b.z.\na.z. A 192.0.2.1\n", &[]);
}

#[test]
fn records_said_twice_and_unequal_ttls_are_put_right() {
    check_warnings(
        "a.z. 300 A 192.0.2.1\na.z. 300 A 192.0.2.1\na.z. 100 A 192.0.2.2\n",
        &[
            "4: a.z.: this A record is there already, it counts once",
            "5: a.z.: A records differ in their TTLs, all get the lowest",
        ],
    );
    let zone = zone_db(&[&format!("{START}a.z. 300 A 192.0.2.1\na.z. 100 A 192.0.2.2\n")]);
    let expected = "NOERROR QR AA; an a.z. 100 IN A 192.0.2.1; an a.z. 100 IN A 192.0.2.2";
    assert_eq!(asked("a.z.", "A").of(&zone).line(), expected);
}

#[test]
fn servers_in_the_zone_have_addresses() {
    check_warnings(
        "z. NS ns.z.\nsub.z. NS ns.sub.z.\nsub.z. NS alias.z.\nsub.z. NS ns.other.z.\nalias.z. CNAME sub.z.\n\
         other.z. NS ns.elsewhere.\n",
        &[
            "1: z.: name server ns.z. has no address in this zone",
            "4: sub.z.: name server ns.sub.z. has no address in this zone",
            "4: sub.z.: NS record points at alias.z., which is an alias, expected a host",
        ],
    );
    check_warnings("z. NS ns.z.\nns.z. AAAA 2001:db8::1\nsub.z. NS ns.sub.z.\nns.sub.z. A 192.0.2.1\n", &[]);
    check_warnings("z. NS ns.z.\n*.z. A 192.0.2.1\n", &[]);
}

#[test]
fn what_nobody_will_see_is_told() {
    check_warnings(
        "sub.z. NS ns.elsewhere.\nsub.z. A 192.0.2.1\na.sub.z. A 192.0.2.1\na.sub.z. TXT hidden\n",
        &["5: a.sub.z.: TXT records below a zone cut are never answered"],
    );
    check_warnings(
        "*.z. NS ns.elsewhere.\n",
        &["3: *.z.: NS records at a wildcard: servers differ in what they make of them"],
    );
    check_warnings(
        "*.z. DNAME elsewhere.\n",
        &["3: *.z.: DNAME records at a wildcard: servers differ in what they make of them"],
    );
}

#[test]
fn iterations_of_hashes_have_a_bound() {
    let signed = |count: u16| format!("z. NSEC3PARAM {count} aabb\nhash.z. NSEC3 0 {count} aabb\n");
    check_warnings(&signed(50), &[]);
    let odd = "NSEC3 with 150 iterations: validators give up on many, expected 0";
    check_warnings(&signed(150), &[&format!("1: z.: {odd}")]);
    let wrong = "NSEC3 with 151 iterations, expected at most 150: sign the zone with 0 (RFC 9276)";
    check_errors(&signed(151), &[&format!("1: z.: {wrong}")]);
}

#[test]
fn findings_name_the_file_that_they_are_in() {
    let source = ZoneFileSource { name: "z.zone".into(), octets: b"$INCLUDE sub.zone\n".into() };
    let mut builder = ZoneBuilder::new(&name("z."));
    let mut include =
        |name: &str| Ok(ZoneFileSource { name: name.into(), octets: b"  \n\na.y. 300 A 192.0.2.1\n".into() });
    let task = ZoneFileContext { origin: Some(&name("z.")), default_ttl: None, include: &mut include };
    let read = master::read(&source, task, &mut |record, place| builder.add(&record, place)).expect("sound lines");
    let Err(found) = builder.finish() else { panic!("a record out of zone") };
    let first = found.errors.iter().next().expect("a error").in_files(&read.files);
    assert!(first.starts_with("sub.zone:3:1: a.y.: not in zone z.: "), "{first}");
}

#[test]
fn findings_are_listed_up_to_what_anybody_would_read() {
    let many: String = (0..1100).map(|number| format!("a{number}.y. A 192.0.2.1\n")).collect();
    let Err(found) = try_zone(&format!("{START}{many}")) else { panic!("records out of zone") };
    assert_eq!((found.errors.count(), found.errors.iter().count()), (1100, 1000));
}

#[test]
fn records_come_back_in_canonical_order() {
    let zone =
        zone(&format!("{START}b.z. TXT b\nz.z. A 192.0.2.1\na.B.z. A 192.0.2.1\nb.z. A 192.0.2.2\n*.z. A 192.0.2.3\n"));
    let owners: Vec<_> = zone.canonical().map(|record| format!("{} {}", name_of(record.owner), record.rtype)).collect();
    assert_eq!(owners, ["z. SOA", "z. NS", "*.z. A", "b.z. A", "b.z. TXT", "a.b.z. A", "z.z. A"]);
    assert_eq!(zone.iter().count(), 7);
    assert_eq!((zone.serial(), zone.owners(), zone.records()), (1, 5, 7));
    assert_eq!(zone.soa().map(|soa| soa.ttl), Some(300));
}

/// A wire name as text.
fn name_of(wire: &[u8]) -> String {
    dns::display_name(wire).to_string()
}
