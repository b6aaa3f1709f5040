//! The answer of a zone: the algorithm of RFC 1034 section 4.3.2, written into a response as it goes.
//!
//! 1. The name leads somewhere in its zone (`lookup.rs`).
//! 2. Records are there: they are the answer, and addresses of the hosts that they point at go along.
//! 3. An alias is there, or a DNAME record above: it is written, and the builder starts anew with the name that it points at,
//!    if that is in a zone of ours and was not met before.
//! 4. The name is delegated: the NS records of the cut, DS records or the proof that there are none, and glue.
//! 5. Otherwise the SOA record, and if the client wants DNSSEC records, the proof that there is nothing.
//!
//! Whatever belongs to the answer and does not fit ends the builder with TC; other addresses are just left out.

use super::denial::Claim;
use super::lookup::Match;
use super::writer::{NoRoom, Owner, Section, Writer};
use crate::wire::{Query, Rcode, RecordType, eq_ignore_case};
use crate::zone::store::names::{NameBuf, is_at_or_below, labels_above};
use crate::zone::store::target::target;
use crate::zone::store::{Mark, Node, Rrset, hash};
use crate::zone::zone::Zone;
use crate::zone::zone_db::ZoneDb;

/// What the header of a response says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) struct Verdict {
    /// How the query went.
    pub(in crate::zone) rcode: Rcode,
    /// AA.
    pub(in crate::zone) authoritative: bool,
    /// TC.
    pub(in crate::zone) truncated: bool,
}

/// Answers a query, whose name, here in canonical form, is in this zone of the zone database.
pub(in crate::zone) fn answer<'c>(
    zone_db: &'c ZoneDb,
    zone: &'c Zone,
    query: &Query<'_>,
    folded: &[u8],
    writer: &mut Writer<'_>,
) -> Verdict {
    let found = zone.find(folded, query.question.qtype());
    if let Some(rrset) = plain_answer(found, query)
        && writer.push(Section::Answer, Owner::Question, rrset).is_ok()
    {
        return Verdict { rcode: Rcode::NOERROR, authoritative: true, truncated: false };
    }
    let mut builder = AnswerBuilder {
        zone_db,
        qtype: query.question.qtype(),
        dnssec_ok: query.dnssec_ok(),
        writer,
        rcode: Rcode::NOERROR,
        authoritative: true,
        links: Links::default(),
    };
    let here = Here { zone, name: query.question.qname(), folded, owner: Owner::Question };
    let truncated = builder.tell(here, found).is_err();
    Verdict { rcode: builder.rcode, authoritative: builder.authoritative, truncated }
}

/// The RRset that is all there is to say: addresses or texts of the name itself, for a client that does not want DNSSEC
/// records. That is most of what is ever asked for.
fn plain_answer<'c>(found: Match<'c>, query: &Query<'_>) -> Option<Rrset<'c>> {
    let qtype = query.question.qtype();
    match found {
        Match::Exact(node) if (is_address(qtype) || qtype == RecordType::TXT) && !query.dnssec_ok() => {
            node.rrset(qtype)
        }
        Match::Exact(_) | Match::Wildcard { .. } | Match::Cut(_) | Match::Dname(_) | Match::Missing { .. } => None,
    }
}

/// One query on its way through zones.
struct AnswerBuilder<'c, 'w, 'o> {
    /// All zones.
    zone_db: &'c ZoneDb,
    /// What is asked for.
    qtype: RecordType,
    /// Whether the client wants DNSSEC records.
    dnssec_ok: bool,
    /// The response.
    writer: &'w mut Writer<'o>,
    /// How the query went, so far. RFC 6604 section 3: what it says is about the last name of a chain.
    rcode: Rcode,
    /// Whether the first name is ours. RFC 1035 section 4.1.1: AA is about that name.
    authoritative: bool,
    /// What was followed.
    links: Links<'c>,
}

/// The chain of aliases so far.
#[derive(Default)]
struct Links<'c> {
    count: usize,
    /// The hash of each alias or DNAME owner, to end loops. One that two names share would end a chain early, which only
    /// makes the client ask for the rest.
    met: [u32; MAX_LINKS],
    /// Where answers came from wildcards.
    expansions: [Option<Expansion<'c>>; MAX_LINKS],
}

/// An answer that came from a wildcard.
#[derive(Clone, Copy)]
struct Expansion<'c> {
    /// The wildcard's zone.
    zone: &'c Zone,
    /// Where in the response the name that was asked for stands.
    name_at: usize,
    /// Octets of its closest encloser.
    encloser_len: usize,
}

/// Where a name was found, and how it may be written.
#[derive(Clone, Copy)]
struct Here<'c, 'n> {
    /// The zone that the name is in.
    zone: &'c Zone,
    /// The name, in the case of the client or of the zone.
    name: &'n [u8],
    folded: &'n [u8],
    owner: Owner<'n>,
}

impl<'c> AnswerBuilder<'c, '_, '_> {
    /// Tells the whole builder of a name that leads there.
    fn tell(&mut self, here: Here<'c, '_>, found: Match<'c>) -> Result<(), NoRoom> {
        let mut next = self.step(here, found)?;
        while let Some(name) = next {
            let folded = NameBuf::folded(name.as_wire());
            // RFC 1034 section 4.3.2, step 2. What is not in our zones the client asks others for.
            let zone = self.zone_db.zone_of(folded.as_wire(), self.qtype).filter(|zone| zone.is_served());
            let Some(zone) = zone else { break };
            let owner = Owner::Name(name.as_wire());
            let here = Here { zone, name: name.as_wire(), folded: folded.as_wire(), owner };
            next = self.step(here, zone.find(folded.as_wire(), self.qtype))?;
        }
        if self.writer.counts()[Section::Authority as usize] == 0 {
            self.prove_expansions()?;
        }
        Ok(())
    }

    /// Says what there is to say of one name that leads there, and where to go on.
    fn step(&mut self, here: Here<'c, '_>, found: Match<'c>) -> Result<Option<NameBuf>, NoRoom> {
        match found {
            Match::Exact(node) => self.say(here, node, None),
            Match::Wildcard { node, encloser_len } => self.say(here, node, Some(encloser_len)),
            Match::Cut(cut) => self.refer(here, cut, Owner::Name(cut.name())).map(|()| None),
            Match::Dname(node) => self.rename(here, node),
            Match::Missing { encloser_len } => {
                self.rcode = Rcode::NXDOMAIN;
                self.deny(here, Claim::Nxdomain { name: here.folded, encloser_len }).map(|()| None)
            }
        }
    }

    /// Says what a node has for a name. It is the name's own, or that of a wildcard below an encloser of so many octets.
    fn say(&mut self, here: Here<'c, '_>, node: Node<'c>, wildcard: Option<usize>) -> Result<Option<NameBuf>, NoRoom> {
        if wildcard.is_some() && node.has(Mark::Cut) && self.qtype != RecordType::DS {
            // RFC 4592 section 4.2 leaves open what this means; a client can only go on with a cut at or above the name.
            return self.refer(here, node, here.owner).map(|()| None);
        }
        let qtype = self.qtype;
        let mut found = node.rrsets().filter(|rrset| is_asked_for(qtype, rrset.rtype));
        if let Some(rrset) = found.next() {
            if rrset.rtype == RecordType::DNAME && self.links.has(hash(here.folded)) {
                // It led back to itself, and is in the answer already.
                return Ok(None);
            }
            self.push_signed(Section::Answer, here.owner, rrset, node, wildcard.map(|len| (here.zone, len)))?;
            // Signatures, by the types that they sign, are the one type with several RRsets at a name.
            if qtype == RecordType::RRSIG {
                for rrset in found {
                    self.writer.push(Section::Answer, here.owner, rrset)?;
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
            self.push_signed(Section::Answer, here.owner, cname, node, wildcard.map(|len| (here.zone, len)))?;
            return Ok(cname.rdata().next().map(NameBuf::new));
        }
        let claim = match wildcard {
            None => Claim::Nodata { name: here.folded },
            Some(encloser_len) => Claim::WildcardNodata { name: here.folded, encloser_len },
        };
        self.deny(here, claim).map(|()| None)
    }

    /// Writes a DNAME record and the CNAME record that it implies for a name below (RFC 6672 section 3.2).
    fn rename(&mut self, here: Here<'c, '_>, node: Node<'c>) -> Result<Option<NameBuf>, NoRoom> {
        let Some(dname) = node.rrset(RecordType::DNAME) else { return Ok(None) };
        let Some(to) = dname.rdata().next() else { return Ok(None) };
        // One substitution by each DNAME record: what leads below itself would go on until names are too long.
        if !self.links.add(hash(node.name())) {
            return Ok(None);
        }
        self.push_signed(Section::Answer, Owner::Name(node.name()), dname, node, None)?;
        let Some(target) = NameBuf::joined(labels_above(here.name, node.name().len()), to) else {
            // RFC 6672 section 2.2: a name that becomes too long has no substitute.
            self.rcode = Rcode::YXDOMAIN;
            return Ok(None);
        };
        // RFC 6672 section 3.1: with the TTL of the DNAME record, and without a signature.
        self.writer.push_cname(here.owner, dname.ttl(), target.as_wire())?;
        let ends_here = is_asked_for(self.qtype, RecordType::CNAME) || eq_ignore_case(target.as_wire(), here.folded);
        Ok((!ends_here).then_some(target))
    }

    /// Writes a referral to the servers of a cut, under this name.
    fn refer(&mut self, here: Here<'c, '_>, cut: Node<'c>, owner: Owner<'_>) -> Result<(), NoRoom> {
        if self.links.count == 0 {
            // RFC 1034 section 4.3.2, step 3b: what is delegated is not ours to speak of with authority.
            self.authoritative = false;
        }
        let Some(servers) = cut.rrset(RecordType::NS) else { return Ok(()) };
        // RFC 4035 section 3.1.4: NS records of a cut are not signed, DS records are, or it is proved that there are none.
        self.writer.push(Section::Authority, owner, servers)?;
        if self.dnssec_ok {
            match cut.rrset(RecordType::DS) {
                Some(ds) => self.push_signed(Section::Authority, owner, ds, cut, None)?,
                None => self.prove(here.zone, Claim::Nodata { name: cut.name() })?,
            }
            self.prove_expansions()?;
        }
        self.add_addresses(here, servers, Some(cut))
    }

    /// Writes what a negative answer has: the SOA record (RFC 2308 section 3) and proof.
    fn deny(&mut self, here: Here<'c, '_>, claim: Claim<'_>) -> Result<(), NoRoom> {
        let owner = Owner::Name(here.zone.apex().as_wire());
        self.writer.push(Section::Authority, owner, here.zone.negative())?;
        if self.dnssec_ok {
            if let Some(signatures) = here.zone.negative_signatures() {
                self.writer.push(Section::Authority, owner, signatures)?;
            }
            self.prove(here.zone, claim)?;
            self.prove_expansions()?;
        }
        Ok(())
    }

    /// Writes the proof that what came from wildcards was not there itself (RFC 4035 section 3.1.3.3, RFC 5155
    /// section 7.2.6).
    fn prove_expansions(&mut self) -> Result<(), NoRoom> {
        for index in 0..MAX_LINKS {
            if let Some(Expansion { zone, name_at, encloser_len }) = self.links.expansions[index].take() {
                let name = NameBuf::folded(self.writer.name_at(name_at).as_wire());
                self.prove(zone, Claim::Expanded { name: name.as_wire(), encloser_len })?;
            }
        }
        Ok(())
    }

    /// Writes the records that prove a claim.
    fn prove(&mut self, zone: &'c Zone, claim: Claim<'_>) -> Result<(), NoRoom> {
        let Some(rtype) = zone.denial.rtype() else { return Ok(()) };
        for node in zone.denial.prove(&zone.store, claim).nodes() {
            if let Some(rrset) = node.rrset(rtype) {
                self.push_signed(Section::Authority, Owner::Name(node.name()), rrset, node, None)?;
            }
        }
        Ok(())
    }

    /// Writes an RRset of a node, and its signatures if the client wants them. If it comes from a wildcard of a zone, below
    /// an encloser of so many octets, that will have to be proved.
    fn push_signed(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        rrset: Rrset<'c>,
        node: Node<'c>,
        wildcard: Option<(&'c Zone, usize)>,
    ) -> Result<(), NoRoom> {
        let name_at = self.writer.push(section, owner, rrset)?;
        if !self.dnssec_ok {
            return Ok(());
        }
        if let Some((zone, encloser_len)) = wildcard.filter(|(zone, _)| zone.is_signed()) {
            self.links.expand(Expansion { zone, name_at, encloser_len });
        }
        // RFC 4035 section 3.1.1: signatures belong to what they sign.
        match node.signatures(rrset.rtype) {
            Some(signatures) => self.writer.push(section, owner, signatures).map(drop),
            None => Ok(()),
        }
    }

    /// Writes the addresses of the hosts that records point at, as far as this zone has them.
    ///
    /// RFC 9471 section 3: of a referral those of servers below the cut have to be there, or TC. All others may be left out.
    fn add_addresses(&mut self, here: Here<'c, '_>, rrset: Rrset<'c>, cut: Option<Node<'c>>) -> Result<(), NoRoom> {
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
                    let pushed = self.push_signed(Section::Additional, Owner::Name(host), rrset, node, None);
                    if pushed.is_err() && is_needed {
                        return pushed;
                    }
                }
            }
        }
        Ok(())
    }
}

impl<'c> Links<'c> {
    /// Whether an alias or DNAME owner was met before, by the hash of its name.
    fn has(&self, hash: u32) -> bool {
        self.met[..self.count].contains(&hash)
    }

    /// Adds an alias or DNAME owner by the hash of its name, unless it was met before or the chain is long enough.
    fn add(&mut self, hash: u32) -> bool {
        if self.has(hash) {
            return false;
        }
        let Some(free) = self.met.get_mut(self.count) else { return false };
        *free = hash;
        self.count += 1;
        true
    }

    /// Notes that an answer came from a wildcard.
    fn expand(&mut self, expansion: Expansion<'c>) {
        if let Some(free) = self.expansions.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(expansion);
        }
    }
}

/// Whether records of a type answer a question for another.
fn is_asked_for(qtype: RecordType, rtype: RecordType) -> bool {
    // RFC 8482 section 4.1: one RRset is answer enough to ANY. Not a signature, which says least by itself.
    rtype == qtype || (qtype == RecordType::ANY && rtype != RecordType::RRSIG)
}

/// Whether records of a type are addresses.
fn is_address(rtype: RecordType) -> bool {
    matches!(rtype, RecordType::A | RecordType::AAAA)
}

/// How many aliases of one chain are followed for a client, which can ask for the rest. More than resolvers commonly put up
/// with.
const MAX_LINKS: usize = 16;
