//! Checks that need the whole zone: occluded records and the hosts that records point at.

use crate::zone::Zone;
use dns::{RecordType, suffixes};

use super::diagnostics::{Diagnostics, ZoneError, ZoneWarning};
use crate::answer::lookup::NameMatch;
use crate::store::names::{ASTERISK, NameBuf, is_at_or_below};
use crate::store::target::target;
use crate::store::{NodeMark, NodePlaces, Rrset, ZoneNode};

pub(crate) fn check(zone: &Zone, places: &NodePlaces, diagnostics: &mut Diagnostics) {
    for node in zone.store.nodes().filter(ZoneNode::is_owner) {
        if node.has(NodeMark::Occluded) {
            check_occluded(zone, node, places, diagnostics);
            continue;
        }
        let borders = [(NodeMark::Cut, RecordType::NS), (NodeMark::Dname, RecordType::DNAME)];
        for (_, rtype) in borders.iter().filter(|(mark, _)| node.has(*mark) && node.name().starts_with(ASTERISK)) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::AtWildcard(*rtype));
        }
        if borders.iter().all(|(mark, _)| node.has(*mark)) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::DnameAtCut);
        }
        for rrset in node.rrsets().filter(|rrset| matches!(rrset.rtype, RecordType::NS | RecordType::MX)) {
            check_targets(zone, node, rrset, places, diagnostics);
        }
    }
    if let Some(iterations) = zone.denial.iterations() {
        let place = zone.store.find(zone.apex().as_wire()).map(|node| places.of(node)).unwrap_or_default();
        if iterations > MAX_ITERATIONS {
            diagnostics.errors.add(
                place,
                zone.apex().as_wire(),
                ZoneError::Iterations { count: iterations, limit: MAX_ITERATIONS },
            );
        } else if iterations > MAX_VALIDATED_ITERATIONS {
            diagnostics.warnings.add(place, zone.apex().as_wire(), ZoneWarning::Iterations(iterations));
        }
    }
}

fn check_occluded(zone: &Zone, node: ZoneNode<'_>, places: &NodePlaces, diagnostics: &mut Diagnostics) {
    let above = suffixes(node.name()).skip(1).filter_map(|above| zone.store.find(above));
    let mut borders = above.filter(|above| !above.has(NodeMark::Occluded));
    let border = borders.find(|above| above.has(NodeMark::Cut) || above.has(NodeMark::Dname));
    if border.is_some_and(|border| !border.has(NodeMark::Cut)) {
        return diagnostics.errors.add(places.of(node), node.name(), ZoneError::BelowDname);
    }
    let is_glue = |rtype| matches!(rtype, RecordType::A | RecordType::AAAA);
    for rrset in node.rrsets().filter(|rrset| !is_glue(rrset.rtype)) {
        diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::Occluded(rrset.rtype));
    }
}

fn check_targets(
    zone: &Zone,
    node: ZoneNode<'_>,
    rrset: Rrset<'_>,
    places: &NodePlaces,
    diagnostics: &mut Diagnostics,
) {
    for host in rrset.rdata().filter_map(|rdata| target(rrset.rtype, node.name(), rdata)) {
        let folded = NameBuf::folded(host);
        if !is_at_or_below(folded.as_wire(), zone.apex().as_wire()) {
            continue;
        }
        let found = match zone.find(folded.as_wire(), RecordType::A) {
            NameMatch::Exact(found) | NameMatch::Wildcard { node: found, .. } => Some(found),
            // Addresses below the cut of this RRset are glue. Those below another cut belong to that zone.
            NameMatch::Cut(cut) if cut.at() != node.at() => continue,
            NameMatch::Cut(_) => zone.store.find(folded.as_wire()),
            NameMatch::Dname(_) | NameMatch::Missing { .. } => None,
        };
        let has = |rtype| found.is_some_and(|found| found.rrset(rtype).is_some());
        if has(RecordType::CNAME) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::Alias(rrset.rtype, host.into()));
        } else if rrset.rtype == RecordType::NS && !has(RecordType::A) && !has(RecordType::AAAA) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::NoAddress(host.into()));
        }
    }
}

/// The most NSEC3 iterations of a zone that is served. Each negative answer hashes up to three names that
/// often, so with 65,535 a query for a missing name takes 10 ms of a worker. RFC 5155 section 10.3 allows 150
/// for the shortest keys; RFC 9276 section 3.1 requires 0.
const MAX_ITERATIONS: u16 = 150;

/// The most iterations that validators accept, by agreement of their authors (RFC 9276 section 3.2).
const MAX_VALIDATED_ITERATIONS: u16 = 50;
