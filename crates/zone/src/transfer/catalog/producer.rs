//! Produces a catalog of the shared zones, with a new version only if they changed.

use dns::{Name, RecordType};

use crate::{FilePlace, Record, Zone, ZoneBuilder};

use crate::transfer::Serial;
use crate::transfer::tsig::TsigKey;

/// A zone to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedZone {
    /// The name of the zone, in lower case.
    pub zone: Name,
    /// The group, if there is one: at most 255 bytes.
    pub group: Option<String>,
}

/// Returns the label of a zone in catalogs: half of a SHA-256 of its name, so it is unique and never changes.
pub(crate) fn label_of(zone: &Name) -> String {
    let digest = TsigKey::digest(zone.folded().as_wire());
    digest.iter().take(LABEL / 2).map(|octet| format!("{octet:02x}")).collect()
}

/// Returns the next version of a catalog with these zones; `None` if the previous version has the same
/// content. The serial is `now`, in seconds since 1970, or the previous serial plus one.
pub fn produce(
    catalog: &Name,
    zones: impl IntoIterator<Item = ListedZone>,
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

fn build(catalog: &Name, zones: impl IntoIterator<Item = ListedZone>, serial: Serial) -> Option<Zone> {
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
        builder.add(&Record { owner: &owner, rtype, ttl: 0, rdata }, FilePlace::default());
    };
    // RFC 9432 section 4.1: a catalog has no real name server.
    let times = [serial.0, REFRESH, RETRY, EXPIRE, 0].map(u32::to_be_bytes).concat();
    add(&[], RecordType::SOA, &[NOBODY, NOBODY, &times].concat());
    add(&[], RecordType::NS, NOBODY);
    add(&[b"version"], RecordType::TXT, b"\x012");
    for ListedZone { zone, group } in zones {
        let label = label_of(&zone);
        add(&[label.as_bytes(), b"zones"], RecordType::PTR, zone.folded().as_wire());
        if let Some(group) = group.filter(|group| group.len() <= usize::from(u8::MAX)) {
            let text = [&[group.len() as u8][..], group.as_bytes()].concat();
            add(&[b"group", label.as_bytes(), b"zones"], RecordType::TXT, &text);
        }
    }
    builder.finish().ok().map(|(zone, _)| zone)
}

/// Maximum bytes of a catalog name, because its entries need room in front of it.
pub const MAX_CATALOG_NAME: usize = 200;

const LABEL: usize = 32;

const NOBODY: &[u8] = b"\x07invalid\0";

/// Seconds between two SOA queries, because a NOTIFY may be lost.
const REFRESH: u32 = 3_600;

const RETRY: u32 = 60;

/// Practically never, as in the example of RFC 9432.
const EXPIRE: u32 = 2_147_483_646;
