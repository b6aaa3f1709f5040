//! NOTIFY (RFC 1996): a primary informs its secondaries about a new version of a zone.
//!
//! [`servers_to_notify`] selects the secondaries and [`NotifyAttempts`] the times; [`write_notify`] and
//! [`read_notify`] are the messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::Record;
use dns::{
    Flag, Header, Message, Name, Opcode, Rcode, RecordClass, RecordType, Section, eq_ignore_case, rewrite_header,
    write_plain_query,
};

use super::offer::{append_record, read_question};
use super::records::{Serial, Soa};

/// A received NOTIFY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The zone that changed.
    pub zone: Name,
    /// The serial of the new version: a hint that may be forged (RFC 1996 section 3.7).
    pub serial: Option<Serial>,
}

/// Reads a NOTIFY whose TSIG is verified, or returns the rcode of its error. The caller checks that the
/// sender is a primary of the zone (RFC 1996 section 3.10: other senders are ignored).
pub fn read_notify(octets: &[u8]) -> Result<Notify, Rcode> {
    let (message, question) = read_question(octets, Opcode::NOTIFY)?;
    // RFC 1996 section 3.4: SOA is the only type with a NOTIFY.
    if question.qtype() != RecordType::SOA || question.qclass() != RecordClass::IN {
        return Err(Rcode::NOTIMP);
    }
    let zone = Name::from_wire(question.qname()).map_err(|_| Rcode::FORMERR)?;
    let serial = Soa::serial_in(&message, Section::Answer, zone.as_wire())?;
    Ok(Notify { zone, serial })
}

/// Writes a NOTIFY into `out`, with the new SOA record as a hint.
pub fn write_notify(id: u16, zone: &Name, soa: Option<Record<'_>>, out: &mut Vec<u8>) {
    write_plain_query(id, zone, RecordType::SOA, out);
    if let Some(record) = &soa {
        append_record(zone.as_wire(), record, out);
    }
    let counts = [1, u16::from(soa.is_some()), 0, 0];
    // RFC 1996 section 4.5: AA is set.
    rewrite_header(out, |header| {
        header.with_opcode(Opcode::NOTIFY).with(Flag::Authoritative, true).with_counts(counts)
    });
}

/// Returns true if this is the response to the NOTIFY of this zone with this ID. Any rcode ends the attempts
/// (RFC 1996 section 3.12), because the secondary has received the NOTIFY. An error may omit the question.
pub fn is_notify_response(octets: &[u8], id: u16, zone: &Name) -> bool {
    let is_of_zone =
        |message: Message<'_>| message.question.is_none_or(|question| eq_ignore_case(question.qname(), zone.as_wire()));
    Header::read(octets)
        .is_some_and(|header| header.is_response() && header.opcode() == Opcode::NOTIFY && header.id() == id)
        && Message::read(octets).is_ok_and(is_of_zone)
}

/// Collects the addresses of the name servers that a primary notifies besides the configured ones: those in
/// the zone's NS records, without the primary in its SOA (RFC 1996 section 2.1) and without duplicates. A
/// name server without an address in the zone is left out.
pub fn servers_to_notify<'a>(apex: &Name, records: impl Iterator<Item = Record<'a>> + Clone) -> Vec<IpAddr> {
    let is_apex = |record: &Record<'_>| eq_ignore_case(record.owner, apex.as_wire());
    let primary = records.clone().filter(is_apex).find_map(|record| Soa::of(&record)).map(|soa| soa.mname);
    let servers = records.clone().filter(|record| record.rtype == RecordType::NS && is_apex(record));
    let servers = servers.filter(|server| !primary.is_some_and(|primary| eq_ignore_case(primary, server.rdata)));
    let mut addresses = Vec::new();
    for server in servers {
        let own = records.clone().filter(|record| eq_ignore_case(record.owner, server.rdata));
        for address in own.filter_map(|record| address(&record)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}

fn address(record: &Record<'_>) -> Option<IpAddr> {
    match record.rtype {
        RecordType::A => <[u8; 4]>::try_from(record.rdata).ok().map(|octets| Ipv4Addr::from(octets).into()),
        RecordType::AAAA => <[u8; 16]>::try_from(record.rdata).ok().map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// The attempts to notify one server of one change, until it responds or they are used up.
///
/// ```text
///   due ──Send──▶ waiting ──on_response──▶ finished
///    ▲              │ 1 s, 2 s, 4 s ... of silence
///    └──────────────┤
///                   └─ after the last Send ──▶ given up
/// ```
#[derive(Clone, Debug)]
pub struct NotifyAttempts {
    next: Option<(Instant, u8)>,
}

/// The next step of the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyStep {
    /// Send a NOTIFY.
    Send,
    /// Wait until this time or a response.
    WaitUntil(Instant),
    /// All attempts were sent without a response.
    GiveUp,
    /// The server has responded.
    Finished,
}

impl NotifyAttempts {
    /// Starts the attempts now.
    pub fn new(now: Instant) -> Self {
        Self { next: Some((now, 0)) }
    }

    /// Ends the attempts after a response.
    pub fn on_response(&mut self) {
        self.next = None;
    }

    /// Returns the present step. Call it until it returns a wait or the end.
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

/// Attempts for one server: a bit more than two minutes in all.
const SENDS: u8 = 7;

const FIRST_SILENCE: Duration = Duration::from_secs(1);
