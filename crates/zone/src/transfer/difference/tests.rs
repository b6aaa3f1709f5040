//! Differences between random small zones: applied to the old zone they give the new zone, and condensed they
//! give the same.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::sample::{a, soa};
use super::*;

/// A zone of this serial with these hosts.
fn zone(serial: u32, hosts: &BTreeSet<u8>) -> Records {
    let hosts: Vec<_> = hosts.iter().map(|&host| a(host, 300)).collect();
    let soa = soa(serial);
    std::iter::once(soa.as_record()).chain(hosts.iter().map(|host| host.as_record())).collect()
}

fn in_order(records: &Records) -> Vec<Record<'_>> {
    sorted(records.iter())
}

fn versions() -> impl Strategy<Value = Vec<BTreeSet<u8>>> {
    prop::collection::vec(prop::collection::btree_set(0..12_u8, 0..12), 2..7)
}

proptest! {
    #[test]
    fn a_difference_leads_to_the_new_version(versions in versions()) {
        let zones: Vec<_> = (1..).zip(&versions).map(|(serial, hosts)| zone(serial, hosts)).collect();
        for pair in zones.windows(2) {
            let step = Difference::between(pair[0].iter(), pair[1].iter()).unwrap();
            let applied = step.apply(pair[0].iter()).unwrap();
            prop_assert_eq!(in_order(&applied), in_order(&pair[1]));
        }
    }

    #[test]
    fn steps_condensed_are_what_lies_between_the_ends(versions in versions()) {
        let zones: Vec<_> = (1..).zip(&versions).map(|(serial, hosts)| zone(serial, hosts)).collect();
        let steps: Vec<_> =
            zones.windows(2).map(|pair| Difference::between(pair[0].iter(), pair[1].iter()).unwrap()).collect();
        let (first, last) = (&zones[0], &zones[zones.len() - 1]);
        let condensed = Difference::condensed(&steps).unwrap();
        prop_assert_eq!(&condensed, &Difference::between(first.iter(), last.iter()).unwrap());
        let applied = condensed.apply(first.iter()).unwrap();
        prop_assert_eq!(in_order(&applied), in_order(last));
    }

    #[test]
    fn a_difference_fits_no_other_version(old in prop::collection::btree_set(0..6_u8, 0..6), other in prop::collection::btree_set(0..6_u8, 0..6)) {
        let new = BTreeSet::from([7]);
        let (from, to) = (zone(1, &old), zone(2, &new));
        let step = Difference::between(from.iter(), to.iter()).unwrap();
        let other_zone = zone(1, &other);
        // All records of `old` are removed, so the difference applies exactly to zones that have all of them.
        prop_assert_eq!(step.apply(other_zone.iter()).is_ok(), old.is_subset(&other));
        let later = zone(3, &old);
        prop_assert!(step.apply(later.iter()).is_err());
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let (one, two) = (zone(1, &BTreeSet::from([1])), zone(2, &BTreeSet::from([1, 2])));
    let step = Difference::between(one.iter(), two.iter()).unwrap();
    assert_eq!(step.apply(two.iter()), Err(Inexact::Missing));
    let already = zone(1, &BTreeSet::from([1, 2]));
    assert_eq!(step.apply(already.iter()), Err(Inexact::Repeated));
    assert_eq!(Difference::condensed([&step, &step]), Err(Inexact::NotInARow));
    assert_eq!(Difference::condensed([]), Err(Inexact::NoSoa));
    assert_eq!(Difference::new(Records::new(), two.clone()), Err(Inexact::NoSoa));
    let two_soas = one.iter().chain(one.iter()).collect();
    assert_eq!(Difference::new(two_soas, two), Err(Inexact::NoSoa));
}

#[test]
fn a_new_ttl_is_a_new_record() {
    let with_ttl = |serial, ttl| [soa(serial), a(1, ttl)];
    let (old, new) = (with_ttl(1, 300), with_ttl(2, 60));
    let [old, new] = [&old, &new].map(|side| side.iter().map(|owned| owned.as_record()).collect::<Records>());
    let step = Difference::between(old.iter(), new.iter()).unwrap();
    assert_eq!((step.removed.iter().len(), step.added.iter().len()), (2, 2));
}

#[test]
fn a_journal_keeps_the_last_steps_in_a_row() {
    let step = |from: u32, to: u32| {
        let hosts = |serial: u32| BTreeSet::from([serial as u8]);
        Difference::between(zone(from, &hosts(from)).iter(), zone(to, &hosts(to)).iter()).unwrap()
    };
    let starts = |journal: &Journal, serial| {
        journal.since(Serial(serial)).map(|steps| steps.map(|step| step.from.0).collect::<Vec<_>>())
    };
    let mut journal = Journal::new(3, usize::MAX);
    assert!(journal.steps.is_empty() && starts(&journal, 1).is_none());
    for serial in 1..6 {
        journal.push(step(serial, serial + 1));
    }
    assert_eq!(starts(&journal, 4), Some(vec![4, 5]));
    assert_eq!((starts(&journal, 2), starts(&journal, 6), journal.steps.len()), (None, None, 3));
    // A version from another source.
    journal.push(step(9, 10));
    assert_eq!((starts(&journal, 4), starts(&journal, 9)), (None, Some(vec![9])));

    let mut small = Journal::new(100, 2 * step(1, 2).size());
    (1..9).for_each(|serial| small.push(step(serial, serial + 1)));
    assert_eq!((small.steps.len(), starts(&small, 7)), (2, Some(vec![7, 8])));
    small.push(step(9, 10));
    assert!(small.size <= 2 * step(1, 2).size());
    let mut none = Journal::new(100, 1);
    none.push(step(1, 2));
    assert!(none.steps.is_empty() && none.size == 0);
}
