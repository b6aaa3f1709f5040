//! RFC 5155: a zone whose names are hashed, with its appendix A as the zone and its appendix B as the
//! questions. Of NSEC3 records only owner and parameters count here.

use crate::support::zones::*;

/// The zone of RFC 5155 appendix A, but for signatures.
const NAMES: &str = "\
example. 3600 SOA ns1.example. bugs.x.w.example. 1 3600 300 3600000 3600
example. NS ns1.example.
example. NS ns2.example.
example. MX 1 xx.example.
example. NSEC3PARAM 12 aabbccdd
2t7b4g4vsa5smi47k61mv5bv1a22bojr.example. A 192.0.2.127
a.example. NS ns1.a.example.
a.example. NS ns2.a.example.
a.example. DS 58470
ns1.a.example. A 192.0.2.5
ns2.a.example. A 192.0.2.6
ai.example. A 192.0.2.9
c.example. NS ns1.c.example.
c.example. NS ns2.c.example.
ns1.c.example. A 192.0.2.7
ns2.c.example. A 192.0.2.8
ns1.example. A 192.0.2.1
ns2.example. A 192.0.2.2
*.w.example. MX 1 ai.example.
x.w.example. MX 1 xx.example.
x.y.w.example. MX 1 xx.example.
xx.example. A 192.0.2.10
";

/// The hashes of the names of the zone, `c.example` opted out: example, a, ns1, x.y.w, ai, x.w, y.w, w, ns2,
/// *.w, xx.
const HASHES: [&str; 12] = [
    "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom",
    "2t7b4g4vsa5smi47k61mv5bv1a22bojr",
    "2vptu5timamqttgl4luu9kg21e0aor3s",
    "35mthgpgcu1qg68fab165klnsnk3dpvl",
    "b4um86eghhds6nea196smvmlo4ors995",
    "gjeqe526plbf1g8mklp59enfd789njgi",
    "ji6neoaepv8b5o6k4ev33abha8ht9fgc",
    "k8udemvp1j2f7eg6jebps17vp3n8i58h",
    "kohar7mbb8dc2ce8a9qvl8hon4k53uhi",
    "q04jkcevqvmu85r014c7dkba38o0ji5r",
    "r53bq7cc2uvmubfu5ocmm6pers9tk9en",
    "t644ebqk9bibcna874givr6joj62mlhv",
];

fn zone() -> String {
    let hashes = HASHES.map(|hash| format!("{hash}.example. NSEC3 1 12 aabbccdd\n{hash}.example. RRSIG NSEC3\n"));
    format!("{NAMES}{}", hashes.concat())
}

/// Asks the zone with DO. Compares the head of the response, and the first letters of the hashes in its
/// authority section.
#[track_caller]
fn check(qname: &str, qtype: &str, head: &str, expected: &[&str]) {
    let response = asked(qname, qtype).with_do().of(&zone_db(&[&zone()]));
    assert_eq!(format!("{} {}", response.rcode(), response.flags()), head, "{qname} {qtype}");
    let proofs = response.sections[1].iter().filter(|line| line.contains(" NSEC3 "));
    let found: Vec<&str> = proofs.map(|line| &line[..6]).collect();
    assert_eq!(found, expected, "{qname} {qtype}");
    let signatures = response.sections[1].iter().filter(|line| line.ends_with(" RRSIG NSEC3"));
    assert_eq!(signatures.count(), expected.len());
}

#[test]
fn appendix_b_1_name_error() {
    check("a.c.x.w.example.", "A", "NXDOMAIN QR AA", &["b4um86", "0p9mha", "35mthg"]);
}

#[test]
fn appendix_b_2_no_data_error() {
    check("ns1.example.", "MX", "NOERROR QR AA", &["2t7b4g"]);
}

#[test]
fn appendix_b_2_1_no_data_error_empty_non_terminal() {
    check("y.w.example.", "A", "NOERROR QR AA", &["ji6neo"]);
}

#[test]
fn appendix_b_3_referral_to_an_opt_out_unsigned_zone() {
    check("mc.c.example.", "MX", "NOERROR QR", &["0p9mha", "35mthg"]);
    check("c.example.", "DS", "NOERROR QR AA", &["0p9mha", "35mthg"]);
    check("mc.a.example.", "MX", "NOERROR QR", &[]);
}

#[test]
fn appendix_b_4_wildcard_expansion() {
    check("a.z.w.example.", "MX", "NOERROR QR AA", &["q04jkc"]);
}

#[test]
fn appendix_b_5_wildcard_no_data_error() {
    check("a.z.w.example.", "AAAA", "NOERROR QR AA", &["k8udem", "q04jkc", "r53bq7"]);
}

#[test]
fn appendix_b_6_ds_child_zone_no_data_error() {
    check("example.", "DS", "NOERROR QR AA", &["0p9mha"]);
}

#[test]
fn section_7_2_8_owners_of_nsec3_records_are_no_names() {
    let response = asked("0p9mhaveqvm6t7vbl5lop2u3t2rp3tom.example.", "NSEC3").of(&zone_db(&[&zone()]));
    assert_eq!(response.brief(), "NXDOMAIN QR AA; ns example. SOA");
    // But where one is a name as well, it is there.
    let response = asked("2t7b4g4vsa5smi47k61mv5bv1a22bojr.example.", "A").of(&zone_db(&[&zone()]));
    assert_eq!(response.rcode().to_string(), "NOERROR");
}

#[test]
fn section_7_2_7_an_unsigned_delegation_with_a_record_of_its_own_is_denied_by_it() {
    // H(c.example), as in appendix A.
    let own = "4g6p9u5gvfshp30pqecj98b3maqbn1ck.example. NSEC3 0 12 aabbccdd\n";
    let zone_db = zone_db(&[&format!("{}{own}", zone())]);
    for (qname, qtype) in [("mc.c.example.", "MX"), ("c.example.", "DS")] {
        let response = asked(qname, qtype).with_do().of(&zone_db);
        let proofs: Vec<_> = response.sections[1].iter().filter(|line| line.contains(" NSEC3 ")).collect();
        assert!(proofs.len() == 1 && proofs[0].starts_with("4g6p9u5g"), "{qname} {qtype} {proofs:?}");
    }
}

#[test]
fn section_7_2_all_records_of_a_response_have_the_same_parameters() {
    // Records of two other chains, right behind those that the answer needs.
    let others = "35mthgpgcu1qg68fab165klnsnk3dpvm.example. NSEC3 1 12 aabbccde\n\
                  0p9mhaveqvm6t7vbl5lop2u3t2rp3ton.example. NSEC3 1 11 aabbccdd\n";
    let response = asked("a.c.x.w.example.", "A").with_do().of(&zone_db(&[&format!("{}{others}", zone())]));
    let proofs = response.sections[1].iter().filter(|line| line.contains(" NSEC3 ")).map(|line| &line[..32]);
    let found: Vec<_> = proofs.collect();
    assert_eq!(
        found,
        ["b4um86eghhds6nea196smvmlo4ors995", "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom", "35mthgpgcu1qg68fab165klnsnk3dpvl"]
    );
}

#[test]
fn section_4_1_2_parameters_with_flags_are_ignored() {
    let flagged = zone().replace("NSEC3PARAM 12 aabbccdd", "NSEC3PARAM \\# 9 01 01 000c 04 aabbccdd");
    let response = asked("a.c.x.w.example.", "A").with_do().of(&zone_db(&[&flagged]));
    assert!(!response.sections[1].iter().any(|line| line.contains(" NSEC3 ")), "{:?}", response.sections);
    // Beside others, these count.
    let both = format!("example. NSEC3PARAM \\# 9 01 01 000c 04 aabbccde\n{}", zone());
    let response = asked("a.c.x.w.example.", "A").with_do().of(&zone_db(&[&both]));
    assert_eq!(response.sections[1].iter().filter(|line| line.contains(" NSEC3 ")).count(), 3);
}

#[test]
fn section_7_4_a_zone_with_an_unknown_hash_algorithm_alone_is_refused() {
    let unknown = zone().replace("NSEC3PARAM 12 aabbccdd", "NSEC3PARAM \\# 9 02 00 000c 04 aabbccdd");
    let Err(found) = try_zone(&unknown) else { panic!("it cannot be served") };
    let error = found.errors.iter().next().expect("an error").to_string();
    assert!(error.ends_with("NSEC3PARAM with an unknown hash algorithm, expected 1 (SHA-1)"), "{error}");
}

#[test]
fn section_10_2_a_dname_record_at_the_apex_has_nsec3_records_below() {
    let hash = HASHES[0];
    let signed = format!("{hash}.z. NSEC3 0 0 -\n{hash}.z. RRSIG NSEC3\n");
    let text = format!("z. 300 SOA a. b. 1 2 3 4 5\nz. NS a.\nz. DNAME y.\nz. NSEC3PARAM 0 -\n{signed}");
    assert!(try_zone(&text).is_ok());
    assert!(try_zone(&format!("{text}x.z. A 192.0.2.1\n")).is_err());
}
