//! Tests the contents, order and memory of a store.

use std::collections::BTreeMap;

use dns::{Name, RecordType};
use proptest::prelude::*;

use super::*;

/// Returns a name in canonical form.
fn name(text: &str) -> Vec<u8> {
    text.parse::<Name>().expect("a name").folded().as_wire().to_vec()
}

fn add(builder: &mut StoreBuilder, owner: &str, rtype: RecordType, ttl: u32, rdata: &[u8]) -> AddOutcome {
    builder.open(&name(owner), FilePlace::default());
    builder.add(rtype, ttl, rdata).expect("room")
}

#[test]
fn records_are_ready_octets_in_the_order_they_came() {
    let mut builder = StoreBuilder::default();
    let www = "www.example";
    add(&mut builder, www, RecordType::TXT, 1, b"\x01b");
    add(&mut builder, www, RecordType::A, 0x0102_0304, &[192, 0, 2, 1]);
    add(&mut builder, "other.example", RecordType::A, 1, &[192, 0, 2, 9]);
    add(&mut builder, www, RecordType::TXT, 1, b"\x02aa");
    assert_eq!(add(&mut builder, www, RecordType::TXT, 1, b"\x01b"), AddOutcome::Duplicate);
    builder.fill_gaps(1);
    let (store, _) = builder.finish();
    let node = store.find(&name("WWW.example")).expect("an owner");
    let found: Vec<_> = node.rrsets().map(|rrset| (rrset.rtype, rrset.count, rrset.octets.to_vec())).collect();
    let text = b"\xC0\x0C\0\x10\0\x01\0\0\0\x01\0\x02\x01b\xC0\x0C\0\x10\0\x01\0\0\0\x01\0\x03\x02aa";
    let address = b"\xC0\x0C\0\x01\0\x01\x01\x02\x03\x04\0\x04\xC0\0\x02\x01";
    assert_eq!(found, [(RecordType::TXT, 2, text.to_vec()), (RecordType::A, 1, address.to_vec())]);
    let tails: Vec<_> = node.rrsets().flat_map(|rrset| rrset.tails()).map(<[u8]>::len).collect();
    assert_eq!(tails, [12, 13, 14]);
    assert_eq!((store.owners(), store.records()), (2, 4));
}

#[test]
fn an_rrset_has_the_lowest_of_its_ttls() {
    let mut builder = StoreBuilder::default();
    for (ttl, expected) in [(300, AddOutcome::New), (100, AddOutcome::OtherTtl), (200, AddOutcome::OtherTtl)] {
        assert_eq!(add(&mut builder, "a", RecordType::A, ttl, &[0, 0, 0, ttl as u8]), expected, "{ttl}");
    }
    let (store, _) = builder.finish();
    let rrset = store.find(&name("a")).and_then(|node| node.rrset(RecordType::A)).expect("addresses");
    let ttls: Vec<_> = rrset.tails().map(|tail| tail[4..8].to_vec()).collect();
    assert_eq!((rrset.count, rrset.ttl(), ttls), (3, 100, vec![vec![0, 0, 0, 100]; 3]));
}

#[test]
fn signatures_stand_apart_by_the_type_they_sign() {
    let mut builder = StoreBuilder::default();
    add(&mut builder, "a", RecordType::RRSIG, 1, b"\0\x01one");
    add(&mut builder, "a", RecordType::RRSIG, 2, b"\0\x1Ctwo");
    add(&mut builder, "a", RecordType::RRSIG, 1, b"\0\x01three");
    let (store, _) = builder.finish();
    let node = store.find(&name("a")).expect("an owner");
    let counts = [RecordType::A, RecordType::AAAA, RecordType::MX]
        .map(|covered| node.signatures(covered).map(|rrset| (rrset.count, rrset.ttl())));
    assert_eq!(counts, [Some((2, 1)), Some((1, 2)), None]);
}

#[test]
fn what_is_above_an_owner_is_known_and_owns_nothing() {
    let mut builder = StoreBuilder::default();
    for owner in ["a.b.c.example", "c.example", "d.c.example", "other"] {
        add(&mut builder, owner, RecordType::A, 1, &[0; 4]);
    }
    builder.fill_gaps(1);
    let (store, _) = builder.finish();
    let check = |text: &str, expected: Option<bool>| {
        assert_eq!(store.find(&name(text)).map(|node| node.is_owner()), expected, "{text}");
    };
    check("a.b.c.example", Some(true));
    check("b.c.example", Some(false));
    check("c.example", Some(true));
    check("example", Some(false));
    check(".", Some(false));
    check("b.example", None);
    check("x.other", None);
    check("xample", None);
    assert!(store.find(&[]).is_none());
    assert!(store.find(&[0; 256]).is_none());
}

#[test]
fn a_name_with_one_address_costs_little() {
    let mut builder = StoreBuilder::default();
    let count = 100_000;
    for number in 0..count {
        add(&mut builder, &format!("host{number:07}.example.org"), RecordType::A, 300, &[192, 0, 2, 1]);
    }
    builder.fill_gaps(1);
    let (store, _) = builder.finish();
    let each = store.octets() / count;
    assert!(each <= 80, "{each} octets a name");
}

proptest! {
    /// Compares a store with a map for records in any order, with repeated owners and alternating types.
    #[test]
    fn a_store_holds_what_a_map_does(
        records in prop::collection::vec((0..8_usize, 0..3_u16, 0..5_u8), 0..200),
    ) {
        let owners = ["a", "b.a", "c.b.a", "d", "e.d", "*.d", "f.g.h", "i"];
        let mut builder = StoreBuilder::default();
        let mut map: BTreeMap<(usize, u16), Vec<u8>> = BTreeMap::new();
        for &(owner, rtype, octet) in &records {
            let known = map.entry((owner, rtype)).or_default();
            let expected = if known.contains(&octet) { AddOutcome::Duplicate } else { AddOutcome::New };
            prop_assert_eq!(add(&mut builder, owners[owner], RecordType(16 + rtype), 1, &[1, octet]), expected);
            if expected == AddOutcome::New {
                known.push(octet);
            }
        }
        builder.fill_gaps(1);
        let (store, places) = builder.finish();
        prop_assert_eq!(store.records(), map.values().map(Vec::len).sum::<usize>());
        prop_assert_eq!(store.nodes().count(), places.0.len());
        for (&(owner, rtype), octets) in &map {
            let node = store.find(&name(owners[owner])).expect("an owner");
            let rrset = node.rrset(RecordType(16 + rtype)).expect("a type that was added");
            prop_assert_eq!(rrset.rdata().map(|rdata| rdata[1]).collect::<Vec<_>>(), octets.clone());
            prop_assert_eq!(usize::from(rrset.count), octets.len());
        }
    }
}
