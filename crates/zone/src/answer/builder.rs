//! Answers from a zone: the algorithm of RFC 1034 section 4.3.2, written into a response step by step.
//!
//! 1. `lookup.rs` finds where the name leads in its zone.
//! 2. If the RRset exists, it is the answer. Addresses of the hosts in its RDATA go into the additional
//!    section.
//! 3. A CNAME record, or a DNAME record above the name, is written. The builder then starts again with the
//!    target name, if that is in a hosted zone and not yet in the chain.
//! 4. If the name is delegated, the builder writes the NS records of the cut, the DS records or the proof of
//!    their absence, and glue.
//! 5. Otherwise the builder writes the SOA record and, if the client sets DO, the denial proof.
//!
//! If required records do not fit, the response ends with TC. Optional addresses are left out.

use std::ptr;

use crate::zone::Zone;
use dns::{Query, Rcode, RecordType, eq_ignore_case};

use super::denial::Claim;
use super::lookup::NameMatch;
use super::writer::{NoRoom, RecordOwner, ResponseSection, ResponseWriter};
use crate::store::names::{NameBuf, is_at_or_below, labels_above};
use crate::store::target::target;
use crate::store::{NodeMark, Rrset, ZoneNode, hash};
use crate::zone_db::ZoneDb;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnswerVerdict {
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    pub(crate) truncated: bool,
}

/// Answers a query whose name, here in canonical form, is in this zone of the zone database.
pub(crate) fn answer<'c>(
    zone_db: &'c ZoneDb,
    zone: &'c Zone,
    query: &Query<'_>,
    folded: &[u8],
    writer: &mut ResponseWriter<'_>,
) -> AnswerVerdict {
    let found = zone.find(folded, query.question.qtype());
    if let Some(rrset) = plain_answer(found, query)
        && writer.push(ResponseSection::Answer, RecordOwner::Question, rrset).is_ok()
    {
        return AnswerVerdict { rcode: Rcode::NOERROR, authoritative: true, truncated: false };
    }
    let mut builder = AnswerBuilder {
        zone_db,
        qtype: query.question.qtype(),
        dnssec_ok: query.dnssec_ok(),
        writer,
        rcode: Rcode::NOERROR,
        authoritative: true,
        links: AliasChain::default(),
        proven: ProvenNodes::default(),
    };
    let here = Here { zone, name: query.question.qname(), folded, owner: RecordOwner::Question };
    let truncated = builder.answer(here, found).is_err();
    AnswerVerdict { rcode: builder.rcode, authoritative: builder.authoritative, truncated }
}

/// The RRset that alone answers a client without DO. Most queries take this path.
fn plain_answer<'c>(found: NameMatch<'c>, query: &Query<'_>) -> Option<Rrset<'c>> {
    let qtype = query.question.qtype();
    match found {
        NameMatch::Exact(node) if (is_address(qtype) || qtype == RecordType::TXT) && !query.dnssec_ok() => {
            node.rrset(qtype)
        }
        NameMatch::Exact(_)
        | NameMatch::Wildcard { .. }
        | NameMatch::Cut(_)
        | NameMatch::Dname(_)
        | NameMatch::Missing { .. } => None,
    }
}

struct AnswerBuilder<'c, 'w, 'o> {
    zone_db: &'c ZoneDb,
    qtype: RecordType,
    dnssec_ok: bool,
    writer: &'w mut ResponseWriter<'o>,
    /// Describes the last name of a chain (RFC 6604 section 3).
    rcode: Rcode,
    /// True if the first name is in a hosted zone, because AA is about that name (RFC 1035 section 4.1.1).
    authoritative: bool,
    links: AliasChain<'c>,
    proven: ProvenNodes<'c>,
}

/// The names of the nodes whose denial records are written.
#[derive(Default)]
struct ProvenNodes<'c> {
    count: usize,
    names: [&'c [u8]; MAX_PROVEN],
}

#[derive(Default)]
struct AliasChain<'c> {
    count: usize,
    /// The hashes of all owners in the chain, to end loops. A collision only ends the chain early.
    met: [u32; MAX_LINKS],
    expansions: [Option<Expansion<'c>>; MAX_LINKS],
}

#[derive(Clone, Copy)]
struct Expansion<'c> {
    zone: &'c Zone,
    name_at: usize,
    encloser_len: usize,
}

#[derive(Clone, Copy)]
struct Here<'c, 'n> {
    zone: &'c Zone,
    name: &'n [u8],
    folded: &'n [u8],
    owner: RecordOwner<'n>,
}

impl<'c> AnswerBuilder<'c, '_, '_> {
    fn answer(&mut self, here: Here<'c, '_>, found: NameMatch<'c>) -> Result<(), NoRoom> {
        let mut next = self.step(here, found)?;
        while let Some(name) = next {
            let folded = NameBuf::folded(name.as_wire());
            // RFC 1034 section 4.3.2, step 2. The client resolves targets outside the hosted zones by itself.
            let zone = self.zone_db.zone_of(folded.as_wire(), self.qtype).filter(|zone| zone.is_served());
            let Some(zone) = zone else { break };
            let owner = RecordOwner::Name(name.as_wire());
            let here = Here { zone, name: name.as_wire(), folded: folded.as_wire(), owner };
            next = self.step(here, zone.find(folded.as_wire(), self.qtype))?;
        }
        if self.writer.counts()[ResponseSection::Authority as usize] == 0 {
            self.prove_expansions()?;
        }
        Ok(())
    }

    fn step(&mut self, here: Here<'c, '_>, found: NameMatch<'c>) -> Result<Option<NameBuf>, NoRoom> {
        match found {
            NameMatch::Exact(node) => self.say(here, node, None),
            NameMatch::Wildcard { node, encloser_len } => self.say(here, node, Some(encloser_len)),
            NameMatch::Cut(cut) => self.refer(here, cut, RecordOwner::Name(cut.name())).map(|()| None),
            NameMatch::Dname(node) => self.rename(here, node),
            NameMatch::Missing { encloser_len } => {
                self.rcode = Rcode::NXDOMAIN;
                self.deny(here, Claim::Nxdomain { name: here.folded, encloser_len }).map(|()| None)
            }
        }
    }

    /// Writes the records of a node. `wildcard` is the closest encloser's length if the node is one.
    fn say(
        &mut self,
        here: Here<'c, '_>,
        node: ZoneNode<'c>,
        wildcard: Option<usize>,
    ) -> Result<Option<NameBuf>, NoRoom> {
        if wildcard.is_some() && node.has(NodeMark::Cut) && self.qtype != RecordType::DS {
            // RFC 4592 section 4.2 leaves this open. A client can only follow a cut at or above the name.
            return self.refer(here, node, here.owner).map(|()| None);
        }
        let qtype = self.qtype;
        let mut found = node.rrsets().filter(|rrset| is_asked_for(qtype, rrset.rtype));
        if let Some(rrset) = found.next() {
            if rrset.rtype == RecordType::DNAME && self.links.has(hash(here.folded)) {
                return Ok(None);
            }
            self.push_signed(ResponseSection::Answer, here.owner, rrset, node, wildcard.map(|len| (here.zone, len)))?;
            // RRSIG is the only type with several RRsets at a name, one per signed type.
            if qtype == RecordType::RRSIG {
                for rrset in found {
                    self.writer.push(ResponseSection::Answer, here.owner, rrset)?;
                }
            }
            if rrset.rdata().any(|rdata| target(rrset.rtype, here.name, rdata).is_some()) {
                self.prove_expansions()?;
                return self.add_addresses(here, rrset, None).map(|()| None);
            }
            return Ok(None);
        }
        if let Some(cname) = node.rrset(RecordType::CNAME) {
            if !self.links.add(hash(here.folded)) {
                return Ok(None);
            }
            self.push_signed(ResponseSection::Answer, here.owner, cname, node, wildcard.map(|len| (here.zone, len)))?;
            return Ok(cname.rdata().next().map(NameBuf::new));
        }
        let claim = match wildcard {
            None => Claim::Nodata { name: here.folded },
            Some(encloser_len) => Claim::WildcardNodata { name: here.folded, encloser_len },
        };
        self.deny(here, claim).map(|()| None)
    }

    /// Writes a DNAME record and the CNAME record that it implies for a name below (RFC 6672 section 3.2).
    fn rename(&mut self, here: Here<'c, '_>, node: ZoneNode<'c>) -> Result<Option<NameBuf>, NoRoom> {
        let Some(dname) = node.rrset(RecordType::DNAME) else { return Ok(None) };
        let Some(to) = dname.rdata().next() else { return Ok(None) };
        // Once per DNAME record, because a target below its own owner would grow without end.
        if !self.links.add(hash(node.name())) {
            return Ok(None);
        }
        self.push_signed(ResponseSection::Answer, RecordOwner::Name(node.name()), dname, node, None)?;
        let Some(target) = NameBuf::joined(labels_above(here.name, node.name().len()), to) else {
            // RFC 6672 section 2.2: a substitution that makes the name too long fails.
            self.rcode = Rcode::YXDOMAIN;
            return Ok(None);
        };
        // RFC 6672 section 3.1: the CNAME record has the TTL of the DNAME record and no signature.
        self.writer.push_cname(here.owner, dname.ttl(), target.as_wire())?;
        let ends_here = is_asked_for(self.qtype, RecordType::CNAME) || eq_ignore_case(target.as_wire(), here.folded);
        Ok((!ends_here).then_some(target))
    }

    fn refer(&mut self, here: Here<'c, '_>, cut: ZoneNode<'c>, owner: RecordOwner<'_>) -> Result<(), NoRoom> {
        if self.links.count == 0 {
            // RFC 1034 section 4.3.2, step 3b: the authority is not authoritative for delegated names.
            self.authoritative = false;
        }
        let Some(servers) = cut.rrset(RecordType::NS) else { return Ok(()) };
        // RFC 4035 section 3.1.4: a cut's DS records are signed, its NS records are not.
        self.writer.push(ResponseSection::Authority, owner, servers)?;
        if self.dnssec_ok {
            match cut.rrset(RecordType::DS) {
                Some(ds) => self.push_signed(ResponseSection::Authority, owner, ds, cut, None)?,
                None => self.prove(here.zone, Claim::Nodata { name: cut.name() })?,
            }
            self.prove_expansions()?;
        }
        self.add_addresses(here, servers, Some(cut))
    }

    /// Writes the authority section of a negative answer: the SOA record (RFC 2308 section 3) and the proof.
    fn deny(&mut self, here: Here<'c, '_>, claim: Claim<'_>) -> Result<(), NoRoom> {
        let owner = RecordOwner::Name(here.zone.apex().as_wire());
        self.writer.push(ResponseSection::Authority, owner, here.zone.negative())?;
        if self.dnssec_ok {
            if let Some(signatures) = here.zone.negative_signatures() {
                self.writer.push(ResponseSection::Authority, owner, signatures)?;
            }
            self.prove(here.zone, claim)?;
            self.prove_expansions()?;
        }
        Ok(())
    }

    /// Proves that wildcard answers have no exact match (RFC 4035 section 3.1.3.3, RFC 5155 section 7.2.6).
    fn prove_expansions(&mut self) -> Result<(), NoRoom> {
        for index in 0..MAX_LINKS {
            if let Some(Expansion { zone, name_at, encloser_len }) = self.links.expansions[index].take() {
                let name = NameBuf::folded(self.writer.name_at(name_at).as_wire());
                self.prove(zone, Claim::Expanded { name: name.as_wire(), encloser_len })?;
            }
        }
        Ok(())
    }

    fn prove(&mut self, zone: &'c Zone, claim: Claim<'_>) -> Result<(), NoRoom> {
        let Some(rtype) = zone.denial.rtype() else { return Ok(()) };
        for node in zone.denial.prove(&zone.store, claim).nodes() {
            if let Some(rrset) = node.rrset(rtype).filter(|_| self.proven.add(node.name())) {
                self.push_signed(ResponseSection::Authority, RecordOwner::Name(node.name()), rrset, node, None)?;
            }
        }
        Ok(())
    }

    /// Writes an RRset with its signatures if the client wants them. `wildcard` needs a proof later.
    fn push_signed(
        &mut self,
        section: ResponseSection,
        owner: RecordOwner<'_>,
        rrset: Rrset<'c>,
        node: ZoneNode<'c>,
        wildcard: Option<(&'c Zone, usize)>,
    ) -> Result<(), NoRoom> {
        let name_at = self.writer.push(section, owner, rrset)?;
        if !self.dnssec_ok {
            return Ok(());
        }
        if let Some((zone, encloser_len)) = wildcard.filter(|(zone, _)| zone.is_signed()) {
            self.links.expand(Expansion { zone, name_at, encloser_len });
        }
        // RFC 4035 section 3.1.1: signatures go with the RRset that they sign.
        match node.signatures(rrset.rtype) {
            Some(signatures) => self.writer.push(section, owner, signatures).map(drop),
            None => Ok(()),
        }
    }

    /// Writes the addresses of target hosts. RFC 9471 section 3: those below the cut of a referral are
    /// required, or TC.
    fn add_addresses(&mut self, here: Here<'c, '_>, rrset: Rrset<'c>, cut: Option<ZoneNode<'c>>) -> Result<(), NoRoom> {
        for is_needed in [true, false] {
            for (index, rdata) in rrset.rdata().enumerate() {
                let Some(host) = target(rrset.rtype, here.name, rdata) else { continue };
                let folded = NameBuf::folded(host);
                let folded = folded.as_wire();
                if cut.is_some_and(|cut| is_at_or_below(folded, cut.name())) != is_needed
                    || !is_at_or_below(folded, here.zone.apex().as_wire())
                {
                    continue;
                }
                let mut earlier = rrset.rdata().take(index).filter_map(|rdata| target(rrset.rtype, here.name, rdata));
                if earlier.any(|known| eq_ignore_case(known, host)) {
                    continue;
                }
                let Some(node) = here.zone.host(folded) else { continue };
                for rrset in node.rrsets().filter(|rrset| is_address(rrset.rtype)) {
                    let pushed =
                        self.push_signed(ResponseSection::Additional, RecordOwner::Name(host), rrset, node, None);
                    if pushed.is_err() && is_needed {
                        return pushed;
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'c> ProvenNodes<'c> {
    /// Adds the name of a node. Returns false if it is present, because an RRset stands once in a response
    /// (RFC 2181 section 5.5).
    fn add(&mut self, name: &'c [u8]) -> bool {
        // The same name at a cut and at the apex below belongs to two nodes, so its place in memory counts.
        if self.names.iter().any(|known| ptr::eq(*known, name)) {
            return false;
        }
        if let Some(free) = self.names.get_mut(self.count) {
            *free = name;
            self.count += 1;
        }
        true
    }
}

impl<'c> AliasChain<'c> {
    fn has(&self, hash: u32) -> bool {
        self.met[..self.count].contains(&hash)
    }

    fn add(&mut self, hash: u32) -> bool {
        if self.has(hash) {
            return false;
        }
        let Some(free) = self.met.get_mut(self.count) else { return false };
        *free = hash;
        self.count += 1;
        true
    }

    fn expand(&mut self, expansion: Expansion<'c>) {
        if let Some(free) = self.expansions.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(expansion);
        }
    }
}

fn is_asked_for(qtype: RecordType, rtype: RecordType) -> bool {
    // RFC 8482 section 4.1: one RRset is enough for ANY. A signature alone is useless.
    rtype == qtype || (qtype == RecordType::ANY && rtype != RecordType::RRSIG)
}

fn is_address(rtype: RecordType) -> bool {
    matches!(rtype, RecordType::A | RecordType::AAAA)
}

/// Longer than most resolvers accept. The client can ask for the rest of a chain.
const MAX_LINKS: usize = 16;

/// One node for each wildcard of a chain, and three for its end.
const MAX_PROVEN: usize = MAX_LINKS + 3;
