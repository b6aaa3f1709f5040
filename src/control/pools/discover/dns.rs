//! Members from a DNS name: A and AAAA records of a host, or SRV records of a service (RFC 2782).
//!
//! A [`DnsResolution`] is one look-up without I/O: it returns the next question, takes the reply, and ends
//! with the list and its lifetime. It follows CNAMEs (RFC 1034 section 3.6.2). A name that does not exist is
//! an empty list; a look-up without a usable reply is a failure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use config::DnsTarget;
use dns::{Message, Name, Rcode, RecordClass, RecordType, Section, SectionRecord};

use super::entry::MemberEntry;
use super::listing::Item;

/// The shortest lifetime of a list, so that a name server cannot cause more than one look-up a second.
pub const MIN_TTL: Duration = Duration::from_secs(1);

/// The longest lifetime of a list: moved members are found within that.
pub const MAX_TTL: Duration = Duration::from_secs(300);

/// The lifetime of a list with TTL 0, or without a TTL.
pub const USUAL_TTL: Duration = Duration::from_secs(5);

/// The next question of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuestion {
    /// The queried name.
    pub name: Name,
    /// The queried type: A, AAAA or SRV.
    pub rtype: RecordType,
}

/// The result of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolutionResult {
    /// The members, right or wrong.
    pub items: Vec<Item>,
    /// The lifetime of the result.
    pub ttl: Duration,
}

/// A look-up without I/O.
#[derive(Debug)]
pub struct DnsResolution {
    questions: VecDeque<Pending>,
    services: Vec<ServiceRecord>,
    excess: usize,
    addresses: BTreeMap<Vec<u8>, BTreeSet<IpAddr>>,
    address_count: usize,
    host: Option<(Name, u16)>,
    ttl: Option<u32>,
}

#[derive(Debug)]
struct Pending {
    question: DnsQuestion,
    /// The original owner of the addresses, before CNAMEs.
    of: Name,
    aliases: usize,
}

#[derive(Clone, Debug)]
struct ServiceRecord {
    priority: u16,
    weight: u16,
    port: u16,
    target: Name,
}

impl DnsResolution {
    /// Begins the look-up of a configured target.
    pub fn new(target: &DnsTarget) -> Self {
        let mut resolution = Self {
            questions: VecDeque::new(),
            services: Vec::new(),
            excess: 0,
            addresses: BTreeMap::new(),
            address_count: 0,
            host: None,
            ttl: None,
        };
        match target {
            DnsTarget::Host { name, port } => {
                resolution.host = Some((name.clone(), *port));
                resolution.ask_addresses(name);
            }
            DnsTarget::Service(name) => resolution.ask(name, RecordType::SRV),
        }
        resolution
    }

    /// Returns the current question; `None` at the end.
    pub fn question(&self) -> Option<&DnsQuestion> {
        self.questions.front().map(|pending| &pending.question)
    }

    /// Takes the reply to the current question. Fails if it is a failure or malformed: the result is unknown.
    pub fn on_reply(&mut self, reply: &[u8]) -> Result<(), String> {
        let Some(pending) = self.questions.pop_front() else { return Ok(()) };
        let DnsQuestion { name, rtype } = &pending.question;
        let problem = |what: String| format!("{name} {rtype}: {what}");
        let message = Message::read(reply).map_err(|_| problem("a broken reply".to_owned()))?;
        let rcode = message.header.rcode();
        if !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
            return Err(problem(rcode.to_string()));
        }
        let records = message.records().collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|_| problem("a broken reply".to_owned()))?;
        let owner = self.follow(&pending, &records);
        let found: Vec<_> = answers(&records, *rtype, &owner).collect();
        if found.is_empty() {
            self.on_nothing(pending, owner, rcode, &records);
        } else if *rtype == RecordType::SRV {
            self.take_services(&found, &records);
        } else {
            self.take_addresses(&pending.of, &found);
        }
        Ok(())
    }

    /// Returns the members, once there is no question left.
    pub fn finish(self) -> ResolutionResult {
        let addresses_of = |name: &Name| self.addresses.get(&key_of(name)).into_iter().flatten().copied();
        let mut items: Vec<Item> = Vec::new();
        if let Some((name, port)) = &self.host {
            items.extend(addresses_of(name).map(|ip| item(name, SocketAddr::new(ip, *port), None)));
        }
        let largest = self.services.iter().map(|service| service.weight).max().unwrap_or(0);
        for service in &self.services {
            if service.port == 0 {
                let reason = "port 0: expected a port from 1 to 65535, since port 0 cannot be reached";
                items.push((format!("{}:0", service.target), Err(reason.to_owned())));
                continue;
            }
            if addresses_of(&service.target).next().is_none() {
                items.push((service.target.to_string(), Err("it has no address".to_owned())));
            }
            let weight = scaled(service.weight, largest);
            let at = |ip| item(&service.target, SocketAddr::new(ip, service.port), Some(weight));
            items.extend(addresses_of(&service.target).map(at));
        }
        if self.excess > 0 {
            let reason =
                format!("ignored: {MAX_SERVICES} services and {MAX_ADDRESSES} addresses of one name are the limit");
            items.push((format!("{} more", self.excess), Err(reason)));
        }
        let ttl = match self.ttl {
            None | Some(0) => USUAL_TTL,
            Some(seconds) => Duration::from_secs(seconds.into()).clamp(MIN_TTL, MAX_TTL),
        };
        ResolutionResult { items, ttl }
    }

    fn ask(&mut self, name: &Name, rtype: RecordType) {
        let question = DnsQuestion { name: name.clone(), rtype };
        self.questions.push_back(Pending { question, of: name.clone(), aliases: 0 });
    }

    fn ask_addresses(&mut self, name: &Name) {
        self.ask(name, RecordType::A);
        self.ask(name, RecordType::AAAA);
    }

    fn follow(&mut self, pending: &Pending, records: &[SectionRecord]) -> Name {
        let mut owner = pending.question.name.clone();
        for _ in 0..MAX_ALIASES {
            let Some(alias) = answers(records, RecordType::CNAME, &owner).next() else { break };
            let Ok(target) = Name::from_wire(&alias.rdata) else { break };
            self.note_ttl(alias.ttl);
            owner = target;
        }
        owner
    }

    fn on_nothing(&mut self, pending: Pending, owner: Name, rcode: Rcode, records: &[SectionRecord]) {
        let is_alias = owner.folded() != pending.question.name.folded();
        // A server that has only the alias does not know the records of its target.
        if is_alias && rcode == Rcode::NOERROR && pending.aliases < MAX_ALIASES {
            let question = DnsQuestion { name: owner, rtype: pending.question.rtype };
            self.questions.push_front(Pending { question, of: pending.of, aliases: pending.aliases + 1 });
            return;
        }
        // RFC 2308 section 5: the lesser of the SOA's own TTL and its MINIMUM.
        let soa = records.iter().find(|record| record.section == Section::Authority && record.rtype == RecordType::SOA);
        let minimum = |soa: &SectionRecord| Some(u32::from_be_bytes(*soa.rdata.last_chunk()?));
        if let Some(ttl) = soa.and_then(|soa| Some(minimum(soa)?.min(soa.ttl))) {
            self.note_ttl(ttl);
        }
    }

    fn take_services(&mut self, found: &[&SectionRecord], records: &[SectionRecord]) {
        found.iter().for_each(|record| self.note_ttl(record.ttl));
        let mut services: Vec<_> = found.iter().filter_map(|record| ServiceRecord::of(&record.rdata)).collect();
        let lowest = services.iter().map(|service| service.priority).min();
        // RFC 2782: a target of "." means that there is no such service.
        services.retain(|service| Some(service.priority) == lowest && !service.target.is_root());
        self.excess = services.len().saturating_sub(MAX_SERVICES);
        services.truncate(MAX_SERVICES);
        let mut known: BTreeMap<Vec<u8>, Vec<&SectionRecord>> = BTreeMap::new();
        for record in records.iter().filter(|record| matches!(record.rtype, RecordType::A | RecordType::AAAA)) {
            known.entry(key_of(&record.owner)).or_default().push(record);
        }
        let mut targets = BTreeSet::new();
        for service in services.iter().filter(|service| targets.insert(key_of(&service.target))) {
            match known.get(&key_of(&service.target)) {
                Some(known) => self.take_addresses(&service.target, known),
                None => self.ask_addresses(&service.target),
            }
        }
        self.services = services;
    }

    fn take_addresses(&mut self, of: &Name, found: &[&SectionRecord]) {
        let owner = key_of(of);
        for record in found {
            let ip = match (record.rtype, &*record.rdata) {
                (RecordType::A, rdata) => <[u8; 4]>::try_from(rdata).ok().map(IpAddr::from),
                (RecordType::AAAA, rdata) => <[u8; 16]>::try_from(rdata).ok().map(IpAddr::from),
                _ => None,
            };
            let Some(ip) = ip else { continue };
            self.note_ttl(record.ttl);
            if self.address_count < MAX_ADDRESSES {
                self.address_count += usize::from(self.addresses.entry(owner.clone()).or_default().insert(ip));
            } else {
                self.excess += 1;
            }
        }
    }

    fn note_ttl(&mut self, ttl: u32) {
        self.ttl = Some(self.ttl.map_or(ttl, |known| known.min(ttl)));
    }
}

impl ServiceRecord {
    fn of(rdata: &[u8]) -> Option<Self> {
        let (head, target) = rdata.split_first_chunk::<6>()?;
        let [priority, weight, port] = [0, 2, 4].map(|at| u16::from_be_bytes([head[at], head[at + 1]]));
        Some(Self { priority, weight, port, target: Name::from_wire(target).ok()? })
    }
}

fn answers<'r>(
    records: &'r [SectionRecord],
    rtype: RecordType,
    owner: &Name,
) -> impl Iterator<Item = &'r SectionRecord> {
    let owner = owner.folded();
    records.iter().filter(move |record| {
        record.section == Section::Answer
            && record.rtype == rtype
            && record.class == RecordClass::IN
            && record.owner.folded() == owner
    })
}

fn key_of(name: &Name) -> Vec<u8> {
    name.folded().as_wire().to_vec()
}

fn item(name: &Name, address: SocketAddr, weight: Option<u16>) -> Item {
    let ip = address.ip();
    let is_host = !ip.is_unspecified() && !ip.is_multicast();
    let reason = format!("{ip}: expected the address of one host");
    let entry = is_host.then(|| MemberEntry { weight, ..MemberEntry::at(address.into()) }).ok_or(reason);
    (format!("{name} {address}"), entry)
}

/// Scales the weight of a service to hedgerow's bounds. RFC 2782: 0 is hardly ever chosen, which is 1 here.
fn scaled(weight: u16, largest: u16) -> u16 {
    let most = u32::from(config::limits::WEIGHT.max);
    let scaled = u32::from(weight) * most / u32::from(largest).max(most);
    (scaled as u16).max(config::limits::WEIGHT.min)
}

const MAX_ALIASES: usize = 8;

const MAX_SERVICES: usize = 1000;

/// The largest number of addresses in one look-up: as many as a pool may have members.
const MAX_ADDRESSES: usize = 10_000;

#[cfg(test)]
mod tests;
