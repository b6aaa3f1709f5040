//! The checks of a zone that need all of it: what hides what, and where name servers are.

use super::diagnostics::{Diagnostics, ZoneError, ZoneWarning};
use crate::wire::{RecordType, suffixes};
use crate::zone::answer::lookup::Match;
use crate::zone::store::names::{ASTERISK, NameBuf, is_at_or_below};
use crate::zone::store::target::target;
use crate::zone::store::{Mark, Node, Places, Rrset};
use crate::zone::zone::Zone;

/// Adds what is wrong or odd with a compiled zone.
pub(in crate::zone) fn check(zone: &Zone, places: &Places, diagnostics: &mut Diagnostics) {
    for node in zone.store.nodes().filter(Node::is_owner) {
        if node.has(Mark::Occluded) {
            check_occluded(zone, node, places, diagnostics);
            continue;
        }
        if node.has(Mark::Cut) && node.name().starts_with(ASTERISK) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::WildcardCut);
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

/// Checks a node with records below a cut or a DNAME record.
fn check_occluded(zone: &Zone, node: Node<'_>, places: &Places, diagnostics: &mut Diagnostics) {
    let above = suffixes(node.name()).skip(1).filter_map(|above| zone.store.find(above));
    let mut borders = above.filter(|above| !above.has(Mark::Occluded));
    let border = borders.find(|above| above.has(Mark::Cut) || above.has(Mark::Dname));
    if border.is_some_and(|border| !border.has(Mark::Cut)) {
        return diagnostics.errors.add(places.of(node), node.name(), ZoneError::BelowDname);
    }
    let is_glue = |rtype| matches!(rtype, RecordType::A | RecordType::AAAA);
    for rrset in node.rrsets().filter(|rrset| !is_glue(rrset.rtype)) {
        diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::Occluded(rrset.rtype));
    }
}

/// Checks the hosts that records point at, as far as they are in the zone.
fn check_targets(zone: &Zone, node: Node<'_>, rrset: Rrset<'_>, places: &Places, diagnostics: &mut Diagnostics) {
    for host in rrset.rdata().filter_map(|rdata| target(rrset.rtype, node.name(), rdata)) {
        let folded = NameBuf::folded(host);
        if !is_at_or_below(folded.as_wire(), zone.apex().as_wire()) {
            continue;
        }
        let found = match zone.find(folded.as_wire(), RecordType::A) {
            Match::Exact(found) | Match::Wildcard { node: found, .. } => Some(found),
            // Below the cut that this RRset makes addresses are glue; below another they are that zone's concern.
            Match::Cut(cut) if cut.at() != node.at() => continue,
            Match::Cut(_) => zone.store.find(folded.as_wire()),
            Match::Dname(_) | Match::Missing { .. } => None,
        };
        let has = |rtype| found.is_some_and(|found| found.rrset(rtype).is_some());
        if has(RecordType::CNAME) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::Alias(rrset.rtype, host.into()));
        } else if rrset.rtype == RecordType::NS && !has(RecordType::A) && !has(RecordType::AAAA) {
            diagnostics.warnings.add(places.of(node), node.name(), ZoneWarning::NoAddress(host.into()));
        }
    }
}

/// NSEC3 iterations of a zone that is served. Each negative answer hashes that often for each of up to three names, so with
/// 65,535 whoever asks for names that do not exist buys 10 ms of a worker with each query. RFC 5155 section 10.3 allows 150 to
/// the shortest keys; RFC 9276 section 3.1 wants 0.
const MAX_ITERATIONS: u16 = 150;

/// Iterations that validators still take, by what their authors agreed on (RFC 9276 section 3.2).
const MAX_VALIDATED_ITERATIONS: u16 = 50;
