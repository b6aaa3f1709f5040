//! Catalogs of RFC 9432: reading a version, ownership of members, and producing.

use std::collections::{HashMap, HashSet};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::transfer::Serial;
use crate::transfer::catalog::producer::label_of;
use crate::{FilePlace, Miss, Tables, Zone, ZoneBuilder};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// The wire form of a TXT record of one string.
fn string(text: &str) -> Vec<u8> {
    [&[text.len() as u8][..], text.as_bytes()].concat()
}

/// Makes a catalog zone of these records below `cat.`: owner, `PTR` or `TXT`, and text.
fn zone_of(records: &[(&str, &str, &str)]) -> Zone {
    let apex = name("cat.");
    let mut builder = ZoneBuilder::new(&apex);
    let mut add = |owner: &Name, rtype, rdata: &[u8]| {
        builder.add(&Record { owner: owner.as_wire(), rtype, ttl: 0, rdata }, FilePlace::default());
    };
    add(&apex, RecordType::SOA, &[&[0; 5][..], &[1], &[0; 16]].concat());
    add(&apex, RecordType::NS, b"\x07invalid\0");
    for (owner, rtype, said) in records {
        let owner = name(&format!("{owner}.cat."));
        match *rtype {
            "PTR" => add(&owner, RecordType::PTR, name(said).as_wire()),
            "TXT" => add(&owner, RecordType::TXT, &said.split('|').flat_map(string).collect::<Vec<_>>()),
            "A" => add(&owner, RecordType::A, &[192, 0, 2, 1]),
            other => panic!("{other}"),
        }
    }
    builder.finish().map(|(zone, _)| zone).unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn read(records: &[(&str, &str, &str)]) -> Result<Catalog, CatalogFault> {
    Catalog::read(&name("CAT."), zone_of(records).iter())
}

/// The `version` record of every test catalog.
const VERSION: (&str, &str, &str) = ("version", "TXT", "2");

#[test]
fn what_a_catalog_says_is_read() {
    let catalog = read(&[
        ("VERSION", "TXT", "2"),
        ("M1.zones", "PTR", "A.example."),
        ("m2.ZONES", "PTR", "b.example."),
        ("group.m2.zones", "TXT", "red"),
        ("group.m2.zones", "TXT", "bl|ue"),
        ("coo.m2.zones", "PTR", "Other."),
        // Unknown records, or records in unknown places (RFC 9432 section 3).
        ("m1.zones", "TXT", "text"),
        ("m1.zones", "A", ""),
        ("m3.zones", "A", ""),
        ("group.m3.zones", "TXT", "unused"),
        ("coo.m3.zones", "PTR", "nobodys."),
        ("group.m1.zones", "PTR", "red."),
        ("coo.m1.zones", "TXT", "other."),
        ("colour.m1.zones", "TXT", "green"),
        ("x.ext.m1.zones", "TXT", "private"),
        ("x.ext", "TXT", "private"),
        ("zones", "PTR", "no.label."),
        ("m1.zone", "PTR", "no.zone."),
        ("a.b.m1.zones", "PTR", "too.deep."),
        ("groups", "TXT", "red"),
    ])
    .expect("it is right");
    let mut members: Vec<_> = catalog.members.iter().collect();
    members.sort_by_key(|(zone, _)| zone.to_string());
    let member = |label: &str, groups: &[&str], coo: Option<&str>| CatalogEntry {
        label: label.as_bytes().into(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        coo: coo.map(name),
    };
    let expected = [
        (name("a.example."), member("m1", &[], None)),
        (name("b.example."), member("m2", &["blue", "red"], Some("other."))),
    ];
    assert_eq!(members, expected.iter().map(|(zone, member)| (zone, member)).collect::<Vec<_>>());
}

#[test]
fn broken_catalogs_are_told() {
    let one = ("m1.zones", "PTR", "a.");
    let check = |records: &[(&str, &str, &str)], expected: &str| {
        assert_eq!(read(records).expect_err("it is broken").to_string(), expected, "{records:?}");
    };
    check(&[one], "it has no version record (TXT \"2\")");
    check(&[one, ("version", "A", "")], "it has no version record (TXT \"2\")");
    check(&[one, ("x.version", "TXT", "2")], "it has no version record (TXT \"2\")");
    check(&[one, VERSION, ("version", "TXT", "1")], "it has more than one version record");
    check(&[one, VERSION, ("version", "TXT", "|2")], "it has more than one version record");
    check(&[one, ("version", "TXT", "1")], "its version is \"1\", not \"2\"");
    check(&[one, ("version", "TXT", "3")], "its version is \"3\", not \"2\"");
    check(&[one, ("version", "TXT", "2|2")], "its version is \"22\", not \"2\"");
    check(&[VERSION, one, ("m1.zones", "PTR", "b.")], "m1.zones lists more than one zone");
    check(&[VERSION, one, ("m2.zones", "PTR", "A.")], "it lists a. more than once");
    check(
        &[VERSION, one, ("coo.m1.zones", "PTR", "b."), ("coo.m1.zones", "PTR", "c.")],
        "coo.m1.zones has more than one record",
    );
    // A repeated record is one record: an RRset has no duplicates (RFC 2181 section 5).
    assert!(read(&[VERSION, VERSION, one, one]).is_ok());
    assert_eq!(read(&[VERSION]), Ok(Catalog::default()), "an empty one is right");
}

/// A version that lists these zones: `zone=label`, with `>catalog` for a `coo`.
fn version(members: &str) -> Catalog {
    let member = |text: &str| {
        let (text, coo) = text.split_once('>').map_or((text, None), |(text, coo)| (text, Some(name(coo))));
        let (zone, label) = text.split_once('=').expect("a zone and its label");
        (name(zone), CatalogEntry { label: label.as_bytes().into(), groups: Vec::new(), coo })
    };
    Catalog { members: members.split_whitespace().map(member).collect() }
}

/// A consumer of these catalogs, without limits.
fn consumer(catalogs: &[&str]) -> Consumer {
    let mut consumer = Consumer::default();
    consumer.set_rules(rules(catalogs), ReservedNames::default());
    consumer
}

fn rules_of(catalog: &Name, allow: Vec<Name>) -> CatalogRules {
    CatalogRules { catalog: catalog.clone(), allow, max_members: CatalogRules::MAX_MEMBERS }
}

fn rules(catalogs: &[&str]) -> Vec<CatalogRules> {
    catalogs.iter().map(|catalog| rules_of(&name(catalog), Vec::new())).collect()
}

/// Returns the changes as text: `-zone` for removed zones, `+zone` for set zones.
fn reported(changes: &CatalogChanges) -> String {
    let gone = changes.gone.iter().map(|(zone, _)| format!("-{zone}"));
    let set = changes.set.iter().map(|(zone, owned)| format!("+{zone}{}", owned.catalog));
    let mut reported: Vec<_> = gone.chain(set).collect();
    reported.sort();
    reported.join(" ")
}

#[test]
fn zones_come_and_go_with_the_catalog() {
    let mut consumer = consumer(&["cat."]);
    let cat = name("cat.");
    let mut take = |text: &str| reported(&consumer.on_version(&cat, Ok(version(text))));
    assert_eq!(take("a.=1 b.=2"), "+a.cat. +b.cat.");
    assert_eq!(take("a.=1 b.=2"), "");
    assert_eq!(take("a.=1 c.=3"), "+c.cat. -b.");
    assert_eq!(take("a.=other c.=3"), "+a.cat. -a.", "another label begins anew");
    assert_eq!(take(""), "-a. -c.");
}

#[test]
fn a_broken_version_changes_nothing() {
    let mut consumer = consumer(&["cat."]);
    let cat = name("cat.");
    consumer.on_version(&cat, Ok(version("a.=1")));
    assert!(consumer.on_version(&cat, Err(CatalogFault::NoVersion)).is_empty());
    assert_eq!(consumer.catalogs().next(), Some((&cat, &CatalogCondition::Broken(CatalogFault::NoVersion))));
    assert_eq!(consumer.accept(&cat), Err(CatalogAcceptError::Broken(CatalogFault::NoVersion)));
    assert_eq!(consumer.members().len(), 1);
    assert_eq!(reported(&consumer.on_version(&cat, Ok(version("b.=1")))), "+b.cat. -a.");
    assert_eq!(consumer.catalogs().next(), Some((&cat, &CatalogCondition::Good)));
}

#[test]
fn a_zone_moves_when_both_sides_say_so() {
    let (a, b) = (name("a."), name("b."));
    let check = |steps: &[(&Name, &str, &str)]| {
        let mut consumer = consumer(&["a.", "b."]);
        for (catalog, members, expected) in steps {
            assert_eq!(
                reported(&consumer.on_version(catalog, Ok(version(members)))),
                *expected,
                "{catalog}: {members}"
            );
        }
        consumer
    };
    // The old owner names it first, and nothing happens before the new one lists it (RFC 9432 section 4.3.1).
    check(&[(&a, "z.=1", "+z.a."), (&a, "z.=1>b.", "+z.a."), (&b, "z.=1", "+z.b."), (&a, "", "")]);
    // Another label on the new side: the zone starts again.
    check(&[(&a, "z.=1>b.", "+z.a."), (&b, "z.=2", "+z.b. -z."), (&a, "", "")]);
    // The new catalog lists it first: the zone stays until the old owner gives it away.
    check(&[(&a, "z.=1", "+z.a."), (&b, "z.=1", ""), (&a, "z.=1>b.", "+z.b.")]);
    // The zone is given to another catalog.
    check(&[(&a, "z.=1>c.", "+z.a."), (&b, "z.=1", "")]);
    // The old owner removes it without `coo`: the zone starts again.
    check(&[(&a, "z.=1", "+z.a."), (&b, "z.=1", ""), (&a, "", "+z.b. -z.")]);
    // Each gives it to the other: the zone stays.
    check(&[(&a, "z.=1>b.", "+z.a."), (&b, "z.=1>a.", "")]);
    // The second catalog of the config lists it first, and keeps it.
    let consumer = check(&[(&b, "z.=1", "+z.b."), (&a, "z.=1", "")]);
    assert_eq!(consumer.members()[&name("z.")].catalog, b);
}

fn zones_of(zones: &str) -> ReservedNames {
    ReservedNames { zones: zones.split_whitespace().map(name).collect(), tables: None }
}

#[test]
fn a_catalog_takes_no_names_from_the_config_unless_allow_names_them() {
    let table = [("t".to_owned(), b"www.table.example 192.0.2.3 A\n".to_vec())];
    let tables = Tables::build(&table, 300, Miss::Refused).expect("it is right");
    let reserved = ReservedNames { tables: Some(tables.into()), ..zones_of("corp.example. deep.corp.example.") };
    let listed = "example. corp.example. www.corp.example. x.deep.corp.example. xcorp.example. table.example. \
                  www.table.example. a.www.table.example. .";
    let listed: String =
        listed.split_whitespace().enumerate().map(|(label, zone)| format!("{zone}={label} ")).collect();
    let safe = "a.www.table.example. xcorp.example.";
    for (allow, more) in [
        ("", ""),
        // A name above does not name the zones of the config there.
        ("example.", ""),
        (".", "."),
        ("example. table.example.", "table.example."),
        ("example. www.table.example.", "www.table.example."),
        ("example. corp.example.", "www.corp.example."),
        ("example. www.corp.example.", "www.corp.example."),
        ("example. deep.corp.example.", "x.deep.corp.example."),
        ("example. x.deep.corp.example. example.", "x.deep.corp.example."),
        ("example. .", "."),
    ] {
        let (mut consumer, cat) = (Consumer::default(), name("cat."));
        let rules = rules_of(&cat, allow.split_whitespace().map(name).collect());
        consumer.set_rules(vec![rules], reserved.clone());
        let changes = consumer.on_version(&cat, Ok(version(&listed)));
        let mut had: Vec<_> = consumer.members().keys().map(ToString::to_string).collect();
        had.sort();
        let mut expected: Vec<_> = safe.split(' ').chain(more.split_whitespace()).collect();
        // The zone covers the host of the table: `allow` must have its exact name.
        if allow.split(' ').any(|name| name == "example.") {
            expected.push("example.");
        }
        expected.sort_unstable();
        assert_eq!(had, expected, "{allow}");
        assert_eq!(changes.notes.len(), 9 - had.len(), "{allow}: each that is left out is reported");
    }
    let note =
        Note::Enclosed { catalog: "cat.".into(), zone: "www.corp.example.".into(), apex: "corp.example.".into() };
    assert_eq!(
        note.to_string(),
        "catalog cat. lists www.corp.example., which is below corp.example. of the config: left out unless allow names it"
    );
}

#[test]
fn the_config_wins_and_limits() {
    let mut consumer = Consumer::default();
    let cat = name("cat.");
    let allow = vec![name("example.")];
    let reserved = zones_of("mine.example.");
    consumer.set_rules(vec![rules_of(&cat, allow)], reserved);
    let listed = "example.=1 a.example.=2 xexample.=3 com.=4 mine.example.=5";
    let changes = consumer.on_version(&cat, Ok(version(listed)));
    assert_eq!(reported(&changes), "+a.example.cat. +example.cat.");
    let notes: Vec<_> = changes.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "catalog cat. lists com., which its allow does not name: left out",
            "catalog cat. lists xexample., which its allow does not name: left out",
            "catalog cat. lists mine.example., which the config has: the config wins",
        ]
    );
    assert!(consumer.on_version(&cat, Ok(version(listed))).notes.is_empty(), "reported once");
    // The config has one more zone, and one less.
    let changes = consumer.set_rules(rules(&["cat."]), zones_of("a.example."));
    assert_eq!(reported(&changes), "+com.cat. +mine.example.cat. +xexample.cat. -a.example.");
    assert_eq!(reported(&consumer.set_rules(Vec::new(), ReservedNames::default())).matches('-').count(), 4);
}

fn many(count: usize) -> String {
    (0..count).map(|zone| format!("z{zone}.=l{zone} ")).collect()
}

#[test]
fn the_loss_of_most_zones_is_doubted() {
    let cat = name("cat.");
    for (before, after, is_doubted) in
        [(8, 4, false), (8, 3, true), (8, 0, true), (7, 0, false), (9, 4, true), (9, 5, false), (1_000, 499, true)]
    {
        let mut consumer = consumer(&["cat."]);
        consumer.on_version(&cat, Ok(version(&many(before))));
        let changes = consumer.on_version(&cat, Ok(version(&format!("{} new.=n", many(after)))));
        assert_eq!(changes.is_empty(), is_doubted, "{before} to {after}");
        let members = if is_doubted { before } else { after + 1 };
        assert_eq!(consumer.members().len(), members, "{before} to {after}");
    }
}

#[test]
fn another_label_counts_as_lost() {
    let cat = name("cat.");
    for (zones, relabeled, is_doubted) in [(8, 4, false), (8, 5, true), (7, 7, false), (10, 10, true)] {
        let mut consumer = consumer(&["cat."]);
        consumer.on_version(&cat, Ok(version(&many(zones))));
        let label = |zone: usize| if zone < relabeled { format!("other{zone}") } else { format!("l{zone}") };
        let others: String = (0..zones).map(|zone| format!("z{zone}.={} ", label(zone))).collect();
        let changes = consumer.on_version(&cat, Ok(version(&others)));
        assert_eq!(changes.gone.len(), if is_doubted { 0 } else { relabeled }, "{relabeled} of {zones}");
        let condition =
            if is_doubted { CatalogCondition::Doubted { lost: relabeled, of: zones } } else { CatalogCondition::Good };
        assert_eq!(consumer.catalogs().next(), Some((&cat, &condition)), "{relabeled} of {zones}");
    }
}

#[test]
fn a_catalog_gives_so_many_zones_and_those_that_it_has_first() {
    let (mut consumer, cat) = (Consumer::default(), name("cat."));
    let at_most = |max_members| vec![CatalogRules { max_members, ..rules_of(&cat, Vec::new()) }];
    let words = |changes: &CatalogChanges| changes.notes.iter().map(ToString::to_string).collect::<Vec<_>>();
    consumer.set_rules(at_most(3), zones_of("mine."));
    let changes = consumer.on_version(&cat, Ok(version("x.=1 y.=2 z.=3 mine.=4")));
    assert_eq!(changes.set.len(), 3, "a zone of the config takes no place");
    let changes = consumer.on_version(&cat, Ok(version("a.=5 b.=6 y.=2 z.=3")));
    assert_eq!(reported(&changes), "+a.cat. -x.", "new ones in order of their names");
    assert_eq!(words(&changes), ["catalog cat. lists 1 zones more than its max_members of 3: left out"]);
    assert!(consumer.on_version(&cat, Ok(version("a.=5 b.=6 y.=2 z.=3"))).notes.is_empty(), "reported once");
    assert_eq!(reported(&consumer.set_rules(at_most(4), ReservedNames::default())), "+b.cat.", "a reload gives more");
    assert_eq!(reported(&consumer.set_rules(at_most(1), ReservedNames::default())), "-b. -y. -z.");
}

#[test]
fn a_doubt_ends_by_the_next_version_or_by_hand() {
    let cat = name("cat.");
    let doubting = || {
        let mut consumer = consumer(&["cat."]);
        consumer.on_version(&cat, Ok(version(&many(10))));
        assert!(consumer.on_version(&cat, Ok(version("z0.=l0 new.=n"))).is_empty());
        assert_eq!(consumer.catalogs().next(), Some((&cat, &CatalogCondition::Doubted { lost: 9, of: 10 })));
        consumer
    };
    let mut accepted = doubting();
    assert_eq!(accepted.accept(&name("other.")), Err(CatalogAcceptError::Unknown));
    let changes = accepted.accept(&cat).expect("it is doubted");
    assert_eq!((changes.gone.len(), changes.set.len(), accepted.members().len()), (9, 1, 2));
    assert_eq!(accepted.accept(&cat), Err(CatalogAcceptError::NotDoubted));
    let mut mended = doubting();
    assert_eq!(reported(&mended.on_version(&cat, Ok(version(&many(9))))), "-z9.");
    assert_eq!(mended.accept(&cat), Err(CatalogAcceptError::NotDoubted));
    let mut broken = doubting();
    assert!(broken.on_version(&cat, Err(CatalogFault::NoVersion)).is_empty());
    assert_eq!(broken.accept(&cat), Err(CatalogAcceptError::Broken(CatalogFault::NoVersion)));
    // A removal from the config by the operator is never doubted.
    assert_eq!(doubting().set_rules(Vec::new(), ReservedNames::default()).gone.len(), 10);
}

#[test]
fn what_was_had_before_a_restart_counts() {
    let (cat, mut before) = (name("cat."), consumer(&["cat."]));
    before.on_version(&cat, Ok(version(&many(10))));
    let listed: HashMap<_, _> =
        before.owned_by(&cat).map(|(zone, owned)| (zone.clone(), owned.member.clone())).collect();
    let restored = || {
        let mut consumer = Consumer::default();
        consumer.restore(&cat, listed.clone());
        assert_eq!(consumer.set_rules(rules(&["cat."]), ReservedNames::default()).set.len(), 10);
        consumer
    };
    assert_eq!(restored().members(), before.members());
    assert!(restored().on_version(&cat, Ok(version(&many(10)))).is_empty(), "nothing begins anew");
    assert!(restored().on_version(&cat, Err(CatalogFault::NoVersion)).is_empty());
    assert!(restored().on_version(&cat, Ok(version("z1.=l1"))).is_empty(), "doubted");
    let another = many(10).replace("z3.=l3", "z3.=other");
    assert_eq!(reported(&restored().on_version(&cat, Ok(version(&another)))), "+z3.cat. -z3.");
}

/// Random versions of three catalogs, some of them broken: every member is in the last good version of its
/// catalog, the changes lead from the old members to the new ones, and the same inputs have the same result.
#[test]
fn any_versions_of_any_catalogs() {
    let catalogs = ["a.", "b.", "c."];
    for seed in 0..2_000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut consumer, mut twin) = (consumer(&catalogs), consumer(&catalogs));
        let mut good: HashMap<&str, Catalog> = HashMap::new();
        let mut had: HashMap<Name, MemberZone> = HashMap::new();
        for _ in 0..30 {
            let catalog = catalogs[rng.random_range(0..3)];
            let zones = rng.random_range(0..16);
            let mut text = String::new();
            for zone in 0..zones {
                if rng.random_bool(0.8) {
                    let coo = catalogs[rng.random_range(0..3)];
                    let coo = if rng.random_bool(0.2) { format!(">{coo}") } else { String::new() };
                    text += &format!("z{zone}.=l{}{coo} ", rng.random_range(0..2) + zone * 10);
                }
            }
            let input = if rng.random_bool(0.1) { Err(CatalogFault::NoVersion) } else { Ok(version(&text)) };
            let mut changes = consumer.on_version(&name(catalog), input.clone());
            assert_eq!(twin.on_version(&name(catalog), input.clone()).notes, changes.notes, "seed {seed}");
            let is_good =
                consumer.catalogs().any(|(name, is)| *name == self::name(catalog) && *is == CatalogCondition::Good);
            match input {
                Ok(version) if is_good => drop(good.insert(catalog, version)),
                Ok(_) if rng.random_bool(0.3) => {
                    let version = version(&text);
                    changes = consumer.accept(&name(catalog)).expect("it is doubted");
                    twin.accept(&name(catalog)).expect("it is doubted there too");
                    good.insert(catalog, version);
                }
                Ok(_) | Err(_) => assert!(changes.is_empty(), "seed {seed}"),
            }
            for (zone, owned) in &changes.gone {
                assert_eq!(had.remove(zone).as_ref(), Some(owned), "seed {seed}");
            }
            for (zone, owned) in &changes.set {
                let before = had.insert(zone.clone(), owned.clone());
                // A zone that stays keeps its label.
                assert!(before.is_none_or(|before| before.member.label == owned.member.label), "seed {seed}");
            }
            assert_eq!(had, *consumer.members(), "seed {seed}");
            assert_eq!(had, *twin.members(), "seed {seed}");
            let listed: HashSet<&Name> = good.values().flat_map(|catalog| catalog.members.keys()).collect();
            assert_eq!(listed, had.keys().collect(), "seed {seed}");
            for (zone, owned) in &had {
                let catalog = &good[owned.catalog.to_string().as_str()];
                assert_eq!(catalog.members.get(zone), Some(&owned.member), "seed {seed}");
            }
        }
    }
}

fn listed(zone: &str, group: Option<&str>) -> ListedZone {
    ListedZone { zone: name(zone), group: group.map(str::to_owned) }
}

#[test]
fn what_is_written_is_read() {
    let zones = [listed("a.example.", None), listed("b.example.", Some("red")), listed(".", None)];
    let zone = produce(&name("Cat.example."), zones.clone(), None, Serial(7)).expect("there was none");
    assert_eq!((zone.apex(), zone.serial()), (&name("cat.example."), 7));
    let catalog = Catalog::read(zone.apex(), zone.iter()).expect("it is right");
    assert_eq!(catalog.members.len(), 3);
    for ListedZone { zone, group } in zones {
        let member = &catalog.members[&zone];
        assert_eq!((&*member.label, member.groups.first()), (label_of(&zone).as_bytes(), group.as_ref()), "{zone}");
    }
    let empty = produce(&name("cat."), [], None, Serial(1)).expect("there was none");
    assert_eq!(Catalog::read(empty.apex(), empty.iter()), Ok(Catalog::default()));
    // The longest possible names.
    let long = [63, 63, 63, 61].map(|len| "a".repeat(len)).join(".");
    let catalog = [63, 63, 63, 6].map(|len| "c".repeat(len)).join(".");
    assert!(name(&catalog).as_wire().len() == MAX_CATALOG_NAME);
    assert!(produce(&name(&catalog), [listed(&long, Some("red"))], None, Serial(1)).is_some());
}

#[test]
fn what_is_written_has_the_form_of_section_4() {
    let zone = produce(&name("cat."), [listed("a.example.", Some("red"))], None, Serial(7)).expect("there was none");
    let label = label_of(&name("a.example."));
    let owner = |labels: &str| name(&format!("{labels}cat.")).as_wire().to_vec();
    let written: Vec<_> =
        zone.iter().map(|record| (record.owner.to_vec(), record.rtype, record.rdata.to_vec())).collect();
    for expected in [
        (owner(""), RecordType::NS, b"\x07invalid\0".to_vec()),
        (owner("version."), RecordType::TXT, string("2")),
        (owner(&format!("{label}.zones.")), RecordType::PTR, name("a.example.").as_wire().to_vec()),
        (owner(&format!("group.{label}.zones.")), RecordType::TXT, string("red")),
    ] {
        assert!(written.contains(&expected), "{expected:?} in {written:?}");
    }
    // These and the SOA record are all.
    assert_eq!(written.len(), 5);
    assert!(zone.iter().all(|record| record.ttl == 0));
}

#[test]
fn the_serial_changes_with_what_is_listed_and_with_nothing_else() {
    let cat = name("cat.");
    let next = |earlier: Option<&Zone>, zones: &[ListedZone], now| {
        produce(&cat, zones.iter().cloned(), earlier, Serial(now)).map(|zone| (zone.serial(), zone))
    };
    let [a, b, red] = [listed("a.", None), listed("b.", None), listed("a.", Some("red"))];
    let (_, first) = next(None, &[a.clone(), b.clone()], 100).expect("there was none");
    assert!(next(Some(&first), &[a.clone(), b.clone()], 500).is_none());
    assert!(next(Some(&first), &[b.clone(), a.clone()], 500).is_none(), "in another order");
    for zones in [vec![a.clone()], vec![red, b.clone()], vec![]] {
        assert_eq!(next(Some(&first), &zones, 500).map(|(serial, _)| serial), Some(500), "{zones:?}");
        // Two changes within a second, or after the clock was set back.
        assert_eq!(next(Some(&first), &zones, 100).map(|(serial, _)| serial), Some(101), "{zones:?}");
        assert_eq!(next(Some(&first), &zones, 5).map(|(serial, _)| serial), Some(101), "{zones:?}");
    }
    let other = Zone::unserved(&cat);
    assert_eq!(next(Some(&other), &[a], 9).map(|(serial, _)| serial), Some(9), "none that is served");
}

#[test]
fn labels_are_the_same_for_ever_and_nobody_elses() {
    assert_eq!(label_of(&name("Example.org.")), label_of(&name("example.ORG.")));
    let labels: HashSet<_> = (0..10_000).map(|zone| label_of(&name(&format!("z{zone}.example.")))).collect();
    assert!(labels.len() == 10_000 && labels.iter().all(|label| label.len() == 32));
    // Secondaries keep the label: another one would have all zones transferred again.
    assert_eq!(label_of(&name("example.org.")), "b9f2e076c4e8e24a87ff1c1f55c21312");
}
