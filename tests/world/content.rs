//! The content of the zone `w.` at each version: a few names whose addresses contain the version of their
//! last change, and names that come and go.

use std::sync::Arc;
use std::time::Duration;

use dns::{Name, RecordType};
use zone::{FilePlace, Record, Records, Zone, ZoneBuilder};

/// The names `n0.w.`, `n1.w.` and so on.
pub(crate) const NAMES: usize = 12;

/// The TTL of positive answers, seconds.
pub(crate) const TTL: u32 = 4;

/// The TTL of negative answers, seconds.
pub(crate) const NEGATIVE_TTL: u32 = 2;

/// The names that never change, so that differences are shorter than the zone.
const STEADY: u8 = 24;

/// The time between two looks of a secondary.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);

/// The name that exists in each version.
const LASTING: usize = NAMES - 1;

/// The first version. A change may be older than a version by two.
pub(crate) const FIRST: u32 = 10;

pub(crate) fn apex() -> Name {
    "w.".parse().expect("a name")
}

pub(crate) fn name(number: usize) -> Name {
    format!("n{number}.w.").parse().expect("a name")
}

/// Returns the version of the last change of a name's address; `None` if the name does not exist.
pub(crate) fn changed_at(version: u32, number: usize) -> Option<u32> {
    let turn = version + number as u32;
    (!turn.is_multiple_of(5) || number == LASTING).then(|| version - turn % 3)
}

pub(crate) fn address(version: u32, number: usize) -> [u8; 4] {
    let [_, _, high, low] = version.to_be_bytes();
    [10, high, low, number as u8]
}

/// Makes a version of the zone.
pub(crate) fn zone(version: u32) -> Arc<Zone> {
    build(records(version).iter()).expect("a sound zone")
}

pub(crate) fn build<'a>(records: impl Iterator<Item = Record<'a>>) -> Option<Arc<Zone>> {
    let mut builder = ZoneBuilder::new(&apex());
    records.for_each(|record| builder.add(&record, FilePlace::default()));
    builder.finish().ok().map(|(zone, _)| Arc::new(zone))
}

fn records(version: u32) -> Records {
    let apex = apex();
    // Retry 1 s, expire 20 s.
    let numbers = [version, REFRESH.as_secs() as u32, 1, 20, NEGATIVE_TTL].map(u32::to_be_bytes).concat();
    let soa = [&b"\x02ns\x01w\0\x01h\0"[..], &numbers].concat();
    let mut records = Records::new();
    let mut push = |owner: &Name, rtype, rdata: &[u8]| {
        records.push(Record { owner: owner.as_wire(), rtype, ttl: TTL, rdata });
    };
    push(&apex, RecordType::SOA, &soa);
    push(&apex, RecordType::NS, b"\x02ns\x01w\0");
    push(&"ns.w.".parse().expect("a name"), RecordType::A, &[10, 0, 0, 53]);
    for number in 0..NAMES {
        if let Some(changed) = changed_at(version, number) {
            push(&name(number), RecordType::A, &address(changed, number));
        }
    }
    for number in 0..STEADY {
        push(&format!("s{number}.w.").parse().expect("a name"), RecordType::A, &[10, 0, 1, number]);
    }
    records
}
