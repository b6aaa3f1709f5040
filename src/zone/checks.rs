//! The checks of a zone that need all of it: what hides what, and where name servers are.

use super::flaw::{Caution, Findings, Flaw};
use super::layout::target;
use super::lookup::Match;
use super::names::{ASTERISK, NameBuf, is_at_or_below};
use super::store::{Mark, Node, Places, Rrset};
use super::zone::Zone;
use crate::wire::{RecordType, suffixes};

/// Adds what is wrong or odd with a compiled zone.
pub(super) fn check(zone: &Zone, places: &Places, findings: &mut Findings) {
    for node in zone.store.nodes().filter(Node::is_owner) {
        if node.has(Mark::Occluded) {
            check_occluded(zone, node, places, findings);
            continue;
        }
        if node.has(Mark::Cut) && node.name().starts_with(ASTERISK) {
            findings.cautions.add(places.of(node), node.name(), Caution::WildcardCut);
        }
        for rrset in node.rrsets().filter(|rrset| matches!(rrset.rtype, RecordType::NS | RecordType::MX)) {
            check_targets(zone, node, rrset, places, findings);
        }
    }
    if let Some(iterations) = zone.denial.iterations() {
        let place = zone.store.find(zone.apex().as_wire()).map(|node| places.of(node)).unwrap_or_default();
        if iterations > MAX_ITERATIONS {
            findings.flaws.add(
                place,
                zone.apex().as_wire(),
                Flaw::Iterations { count: iterations, limit: MAX_ITERATIONS },
            );
        } else if iterations > MAX_VALIDATED_ITERATIONS {
            findings.cautions.add(place, zone.apex().as_wire(), Caution::Iterations(iterations));
        }
    }
}

/// Checks a node with records below a cut or a DNAME record.
fn check_occluded(zone: &Zone, node: Node<'_>, places: &Places, findings: &mut Findings) {
    let above = suffixes(node.name()).skip(1).filter_map(|above| zone.store.find(above));
    let mut borders = above.filter(|above| !above.has(Mark::Occluded));
    let border = borders.find(|above| above.has(Mark::Cut) || above.has(Mark::Dname));
    if border.is_some_and(|border| !border.has(Mark::Cut)) {
        return findings.flaws.add(places.of(node), node.name(), Flaw::BelowDname);
    }
    let is_glue = |rtype| matches!(rtype, RecordType::A | RecordType::AAAA);
    for rrset in node.rrsets().filter(|rrset| !is_glue(rrset.rtype)) {
        findings.cautions.add(places.of(node), node.name(), Caution::Occluded(rrset.rtype));
    }
}

/// Checks the hosts that records point at, as far as they are in the zone.
fn check_targets(zone: &Zone, node: Node<'_>, rrset: Rrset<'_>, places: &Places, findings: &mut Findings) {
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
            findings.cautions.add(places.of(node), node.name(), Caution::Alias(rrset.rtype, host.into()));
        } else if rrset.rtype == RecordType::NS && !has(RecordType::A) && !has(RecordType::AAAA) {
            findings.cautions.add(places.of(node), node.name(), Caution::NoAddress(host.into()));
        }
    }
}

/// NSEC3 iterations of a zone that is served. Each negative answer hashes that often for each of up to three names, so with
/// 65,535 whoever asks for names that do not exist buys 10 ms of a worker with each query. RFC 5155 section 10.3 allows 150 to
/// the shortest keys; RFC 9276 section 3.1 wants 0.
const MAX_ITERATIONS: u16 = 150;

/// Iterations that validators still take, by what their authors agreed on (RFC 9276 section 3.2).
const MAX_VALIDATED_ITERATIONS: u16 = 50;
