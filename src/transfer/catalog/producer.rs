//! A catalog of our own: written from the zones that are shared, and another version only if those are others.

use crate::transfer::Serial;
use crate::transfer::tsig::Key;
use crate::wire::{Name, RecordType};
use crate::zone::{Place, Record, Zone, ZoneBuilder};

/// A zone that is to be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, in lower case.
    pub zone: Name,
    /// Its group, if it has one: at most 255 octets.
    pub group: Option<String>,
}

/// The label of a zone in catalogs: the same for ever, whatever else is listed, and no two zones have one in common, for it is half
/// of a SHA-256 of the name.
pub fn label_of(zone: &Name) -> String {
    let digest = Key::digest(zone.folded().as_wire());
    digest.iter().take(LABEL / 2).map(|octet| format!("{octet:02x}")).collect()
}

/// The next version of a catalog that lists these zones; `None` if the version before says the same. The serial is `now`, the
/// seconds since 1970, or else one more than before: so it grows even if the version before is lost.
pub fn produce(
    catalog: &Name,
    zones: impl IntoIterator<Item = Listed>,
    earlier: Option<&Zone>,
    now: Serial,
) -> Option<Zone> {
    let earlier = earlier.filter(|zone| zone.is_served() && zone.apex() == catalog);
    let serial = match earlier.map(|zone| Serial(zone.serial())) {
        Some(known) if !now.is_newer_than(known) => Serial(known.0.wrapping_add(1)),
        Some(_) | None => now,
    };
    let zone = build(catalog, zones, serial)?;
    let content = |zone: &Zone| {
        let records = zone.canonical().filter(|record| record.rtype != RecordType::SOA);
        records.map(|record| (record.owner.to_vec(), record.rtype, record.rdata.to_vec())).collect::<Vec<_>>()
    };
    let is_same = earlier.is_some_and(|earlier| content(earlier) == content(&zone));
    (!is_same).then_some(zone)
}

/// Builds a version.
fn build(catalog: &Name, zones: impl IntoIterator<Item = Listed>, serial: Serial) -> Option<Zone> {
    let apex = catalog.folded();
    let mut builder = ZoneBuilder::new(&apex);
    let mut add = |labels: &[&[u8]], rtype, rdata: &[u8]| {
        let mut owner = Vec::with_capacity(Name::MAX_LEN);
        for label in labels {
            owner.push(label.len() as u8);
            owner.extend_from_slice(label);
        }
        owner.extend_from_slice(apex.as_wire());
        // RFC 9432 section 4.1: the TTL has no meaning.
        builder.add(&Record { owner: &owner, rtype, ttl: 0, rdata }, Place::default());
    };
    // RFC 9432 section 4.1: nobody is a name server of it.
    let times = [serial.0, REFRESH, RETRY, EXPIRE, 0].map(u32::to_be_bytes).concat();
    add(&[], RecordType::SOA, &[NOBODY, NOBODY, &times].concat());
    add(&[], RecordType::NS, NOBODY);
    add(&[b"version"], RecordType::TXT, b"\x012");
    for Listed { zone, group } in zones {
        let label = label_of(&zone);
        add(&[label.as_bytes(), b"zones"], RecordType::PTR, zone.folded().as_wire());
        if let Some(group) = group.filter(|group| group.len() <= usize::from(u8::MAX)) {
            let text = [&[group.len() as u8][..], group.as_bytes()].concat();
            add(&[b"group", label.as_bytes(), b"zones"], RecordType::TXT, &text);
        }
    }
    builder.finish().ok().map(|(zone, _)| zone)
}

/// Octets of the longest name of a catalog of our own: what it says of a zone needs room in front of it.
pub const MAX_CATALOG_NAME: usize = 200;

/// Octets of a label.
const LABEL: usize = 32;

/// A name that nobody has (RFC 2606 section 2).
const NOBODY: &[u8] = b"\x07invalid\0";

/// Seconds between two looks: a NOTIFY may be lost.
const REFRESH: u32 = 3_600;

/// Seconds to the next look after one in vain.
const RETRY: u32 = 60;

/// Seconds for which a catalog is good without a word of us: as RFC 9432 has it in its example, for ever.
const EXPIRE: u32 = 2_147_483_646;
