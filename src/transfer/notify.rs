//! NOTIFY (RFC 1996): a primary tells its secondaries that a zone has changed.
//!
//! [`Targets`] says whom to tell, [`NotifyAttempts`] when, [`write_notify`] and [`read_notify`] how. The response to a NOTIFY
//! is a header and the question: `wire::write_error` with NOERROR, or what else there is to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::offer::{append_record, set_counts};
use super::records::Soa;
use super::serial::Serial;
use crate::wire::{
    Flag, Header, Message, Name, Opcode, Rcode, RecordClass, RecordType, Section, eq_ignore_case, write_plain_query,
};
use crate::zone::Record;

/// A NOTIFY that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The zone that changed.
    pub zone: Name,
    /// The serial of its new version: a hint, which anybody may have forged (RFC 1996 section 3.7).
    pub serial: Option<Serial>,
}

/// Takes a NOTIFY; its TSIG has been seen to. Whether its sender is a primary of the zone is the caller's question: RFC 1996
/// section 3.10 has others ignored. The rcode says what is wrong with it.
pub fn read_notify(octets: &[u8]) -> Result<Notify, Rcode> {
    let message = Message::read(octets).map_err(|_| Rcode::FORMERR)?;
    let header = message.header;
    if header.opcode() != Opcode::NOTIFY {
        return Err(Rcode::NOTIMP);
    }
    let question = message.question.filter(|_| !header.is_response()).ok_or(Rcode::FORMERR)?;
    // RFC 1996 section 3.4: SOA is the one type that there is a NOTIFY for.
    if question.qtype() != RecordType::SOA || question.qclass() != RecordClass::IN {
        return Err(Rcode::NOTIMP);
    }
    let zone = Name::from_wire(question.qname()).map_err(|_| Rcode::FORMERR)?;
    let mut serial = None;
    for record in message.records() {
        let record = record.map_err(|_| Rcode::FORMERR)?;
        if record.section == Section::Answer && eq_ignore_case(record.owner.as_wire(), zone.as_wire()) {
            let plain = Record { owner: zone.as_wire(), rtype: record.rtype, ttl: 0, rdata: &record.rdata };
            serial = serial.or_else(|| Soa::of(&plain).map(|soa| soa.serial));
        }
    }
    Ok(Notify { zone, serial })
}

/// Writes a NOTIFY into `out`, with the new SOA record as a hint.
pub fn write_notify(id: u16, zone: &Name, soa: Option<Record<'_>>, out: &mut Vec<u8>) {
    write_plain_query(id, zone, RecordType::SOA, out);
    if let Some(record) = &soa {
        append_record(zone.as_wire(), record, out);
    }
    set_counts(out, [1, u16::from(soa.is_some()), 0, 0]);
    if let (Some(header), Some(octets)) = (Header::read(out), out.first_chunk_mut()) {
        // RFC 1996 section 4.5: AA is set.
        *octets = header.with_opcode(Opcode::NOTIFY).with(Flag::Authoritative, true).to_wire();
    }
}

/// Whether this is the response to the NOTIFY with this ID. Any rcode ends the matter (RFC 1996 section 3.12): the
/// secondary is there and has heard.
pub fn is_notify_response(octets: &[u8], id: u16) -> bool {
    Header::read(octets)
        .is_some_and(|header| header.is_response() && header.opcode() == Opcode::NOTIFY && header.id() == id)
}

/// Whom a primary tells, besides those that it is told to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Addresses of name servers that the zone itself has.
    pub addresses: Vec<IpAddr>,
    /// Name servers whose addresses are elsewhere.
    pub unresolved: Vec<Name>,
}

impl Targets {
    /// The servers in the zone's NS records but the primary named in its SOA (RFC 1996 section 2.1), none twice.
    pub fn of<'a>(apex: &Name, records: impl Iterator<Item = Record<'a>> + Clone) -> Self {
        let is_apex = |record: &Record<'_>| eq_ignore_case(record.owner, apex.as_wire());
        let mut at_apex = records.clone().filter(is_apex);
        let primary = at_apex.find_map(|record| Soa::of(&record)).map(|soa| soa.mname);
        let servers = records.clone().filter(|record| record.rtype == RecordType::NS && is_apex(record));
        let servers = servers.filter(|server| !primary.is_some_and(|primary| eq_ignore_case(primary, server.rdata)));
        let mut targets = Self::default();
        for server in servers {
            let own = records.clone().filter(|record| eq_ignore_case(record.owner, server.rdata));
            let known: Vec<_> = own.filter_map(|record| address(&record)).collect();
            if known.is_empty() {
                targets.unresolved.extend(Name::from_wire(server.rdata));
            }
            let new = |address: &IpAddr| !targets.addresses.contains(address);
            let new: Vec<_> = known.into_iter().filter(new).collect();
            targets.addresses.extend(new);
        }
        targets
    }
}

/// The address in a record, if it has one.
fn address(record: &Record<'_>) -> Option<IpAddr> {
    match record.rtype {
        RecordType::A => <[u8; 4]>::try_from(record.rdata).ok().map(|octets| Ipv4Addr::from(octets).into()),
        RecordType::AAAA => <[u8; 16]>::try_from(record.rdata).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// Tells one server of one change, until it has responded or was told often enough. A later change has attempts of its own,
/// which take the place of these.
///
/// ```text
///   due ──Send──▶ waiting ──on_response──▶ finished
///    ▲              │ 1 s, 2 s, 4 s ... of silence
///    └──────────────┤
///                   └─ after the last Send ──▶ given up
/// ```
#[derive(Clone, Debug)]
pub struct NotifyAttempts {
    /// When the server is told next and how often it was; `None` once that is over.
    next: Option<(Instant, u8)>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyStep {
    /// Send a NOTIFY.
    Send,
    /// Nothing before this time, unless a response comes.
    WaitUntil(Instant),
    /// The server was told often enough, and never responded.
    GiveUp,
    /// It has responded.
    Finished,
}

impl NotifyAttempts {
    /// The server is to be told from now on.
    pub fn new(now: Instant) -> Self {
        Self { next: Some((now, 0)) }
    }

    /// The server has responded.
    pub fn on_response(&mut self) {
        self.next = None;
    }

    /// What to do now; to be called until it says to wait or that it is over.
    pub fn next_step(&mut self, now: Instant) -> NotifyStep {
        match self.next {
            None => NotifyStep::Finished,
            Some((due, _)) if now < due => NotifyStep::WaitUntil(due),
            Some((_, SENDS)) => NotifyStep::GiveUp,
            Some((_, sent)) => {
                // RFC 1996 section 3.6 would wait a minute each time; a lost datagram need not cost that.
                self.next = Some((now + FIRST_SILENCE * (1 << sent), sent + 1));
                NotifyStep::Send
            }
        }
    }
}

/// How often a server is told: over a bit more than two minutes in all.
const SENDS: u8 = 7;

/// How long the first response is waited for; each later one twice as long.
const FIRST_SILENCE: Duration = Duration::from_secs(1);
