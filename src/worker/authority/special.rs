//! Messages to an authority that are more than a plain query: NOTIFY, transfers, and signed messages.
//!
//! TSIG is checked first; then comes the response, signed if the query was. A transfer by TCP is only decided
//! on here; [`Transfer::send`] then writes it message by message, as the client takes them.

use std::net::IpAddr;
use std::sync::Arc;

use dns::{
    Cookie, Flag, HEADER_LEN, Header, Message, Name, Opcode, OptRecord, Query, QueryRejection, Rcode, RecordType,
    Transport, rewrite_header, write_error,
};
use limit::RefusedSources;
use metrics::{DropReason, Limit};
use net::sys::clock::unix_now;
use tokio::sync::mpsc::Sender;
use zone::transfer::tsig::{self, ServerChain, TsigRefusal, verify_query};
use zone::transfer::{
    MESSAGE_LIMIT, Serial, TransferKind, TransferOffer, TransferQuery, TransferWriter, differences, read_notify,
    read_transfer_query, whole, write_datagram,
};
use zone::{Reaction, Record, Zone, respond_to};

use super::state::{AuthorityState, ZoneTransfers};
use super::{AuthorityArrival, AuthorityLinks, UDP_SIZE};

/// Returns true if a message is more than a plain query.
pub(super) fn is_special(read: &Result<Query<'_>, QueryRejection>, message: &[u8]) -> bool {
    match read {
        Ok(query) => query.is_signed || matches!(query.question.qtype(), RecordType::AXFR | RecordType::IXFR),
        // RFC 8945 section 5.3: the response to a signed query is signed, also if it is an error.
        Err(QueryRejection::Answer(_)) => is_notify(message) || tsig::is_signed(message),
        Err(QueryRejection::Short | QueryRejection::NotAQuery) => false,
    }
}

fn is_notify(message: &[u8]) -> bool {
    Header::read(message).is_some_and(|header| header.opcode() == Opcode::NOTIFY)
}

pub(super) struct Special<'a> {
    pub(super) authority: usize,
    pub(super) state: &'a AuthorityState,
    pub(super) arrival: &'a AuthorityArrival<'a>,
    pub(super) links: &'a AuthorityLinks,
}

pub(super) enum SpecialOutcome {
    Dropped(DropReason),
    Reaction(Reaction),
    Transfer(Box<Transfer>),
}

enum PlannedResponse {
    Written(Reaction),
    Transfer(Arc<Zone>, Arc<ZoneTransfers>),
}

impl Special<'_> {
    pub(super) fn react(&self, out: &mut Vec<u8>) -> SpecialOutcome {
        let AuthorityArrival { message, read, cookie, client, .. } = self.arrival;
        let now = unix_now();
        let chain = match verify_query(&self.state.keys, message, now) {
            Ok(chain) => chain,
            Err(refusal) => {
                match is_notify(message) {
                    true => {
                        self.refuse_notify(now, "its signature does not hold; compare keys and clocks of both servers")
                    }
                    false => self.log_refusal(&refusal, now),
                }
                refusal.write(message, now, out);
                return SpecialOutcome::Reaction(Reaction::Respond(refusal.rcode));
            }
        };
        let planned = match read {
            Ok(query) if matches!(query.question.qtype(), RecordType::AXFR | RecordType::IXFR) => {
                self.transfer(query, chain.as_ref(), out)
            }
            Err(QueryRejection::Answer(rcode)) if !is_notify(message) => Err(*rcode),
            Ok(_) => Ok(PlannedResponse::Written(self.answer(out))),
            Err(_) => Err(self.take_notify(chain.as_ref(), now)),
        };
        let reaction = match planned {
            Ok(PlannedResponse::Transfer(zone, transfers)) => {
                let (client, query, opt) = (client.ip(), message.to_vec(), self.opt());
                let transfer = Transfer { client, query, opt, zone, transfers, chain };
                return SpecialOutcome::Transfer(Box::new(transfer));
            }
            Ok(PlannedResponse::Written(reaction)) => reaction,
            Err(rcode) => {
                write_error(message, rcode, cookie.as_ref(), UDP_SIZE, out);
                // RFC 1996 section 4.7: the response to a NOTIFY has AA.
                if rcode == Rcode::NOERROR {
                    rewrite_header(out, |header| header.with(Flag::Authoritative, true));
                }
                Reaction::Respond(rcode)
            }
        };
        if let Some(chain) = chain.filter(|_| !out.is_empty()) {
            self.sign(chain, now, out);
        }
        SpecialOutcome::Reaction(reaction)
    }

    fn answer(&self, out: &mut Vec<u8>) -> Reaction {
        let AuthorityArrival { message, read, cookie, transport, .. } = self.arrival;
        respond_to(&self.state.zone_db, read, cookie.as_ref(), message, *transport, UDP_SIZE, out)
    }

    /// Returns the OPT record of the messages of a transfer; empty if the query has none.
    fn opt(&self) -> Vec<u8> {
        let AuthorityArrival { read, cookie, .. } = self.arrival;
        let mut opt = Vec::new();
        if let Some(edns) = read.as_ref().ok().and_then(|query| query.edns) {
            OptRecord::new(UDP_SIZE, edns.dnssec_ok).with_cookie(cookie.as_ref()).append(&mut opt);
        }
        opt
    }

    /// Signs a response. If it becomes too long, a response with TC=1 and NOERROR replaces it (RFC 8945
    /// section 5.3).
    fn sign(&self, mut chain: ServerChain, now: u64, out: &mut Vec<u8>) {
        let before = chain.clone();
        chain.sign(now, out);
        let limit = match &self.arrival.read {
            Ok(query) => query.limit(self.arrival.transport, UDP_SIZE),
            Err(_) => usize::from(u16::MAX),
        };
        if out.len() > limit {
            truncate(self.arrival.message, self.arrival.cookie.as_ref(), out);
            rewrite_header(out, |header| header.with_rcode(Rcode::NOERROR));
            chain = before;
            chain.sign(now, out);
        }
    }

    fn transfer(
        &self,
        query: &Query<'_>,
        chain: Option<&ServerChain>,
        out: &mut Vec<u8>,
    ) -> Result<PlannedResponse, Rcode> {
        let zone_db = &self.state.zone_db;
        let zone = Name::from_wire(query.question.qname()).ok().and_then(|name| zone_db.zone(&name));
        let Some(zone) = zone else {
            // RFC 5936 section 2.2.1. A table is no zone, and an authority with only tables refuses.
            return Err(if zone_db.zones().is_empty() { Rcode::REFUSED } else { Rcode::NOTAUTH });
        };
        let transfers = self.state.transfers.get(zone.apex());
        let key = chain.map(ServerChain::key);
        let allows = |transfers: &&Arc<ZoneTransfers>| transfers.transfer_to.allows(self.arrival.client.ip(), key);
        let transfers = transfers.filter(allows).ok_or(Rcode::REFUSED)?;
        let soa = zone.soa().filter(|_| zone.is_served()).ok_or(Rcode::SERVFAIL)?;
        let TransferQuery { header, question, asked } = read_transfer_query(self.arrival.message)?;
        match (self.arrival.transport, asked) {
            // RFC 9103 section 7.4: by TLS as by TCP; RFC 9250 section 5.6: by QUIC too.
            (Transport::Tcp | Transport::Tls | Transport::Quic, TransferKind::Axfr | TransferKind::Ixfr { .. }) => {
                Ok(PlannedResponse::Transfer(Arc::clone(zone), Arc::clone(transfers)))
            }
            // RFC 5936 section 4.2: there is no AXFR by UDP. RFC 8484 section 6: an HTTP response is one
            // message, which a transfer may exceed.
            (Transport::Udp, TransferKind::Axfr) | (Transport::Https | Transport::Http, _) => Err(Rcode::REFUSED),
            (Transport::Udp, TransferKind::Ixfr { .. }) => {
                let room = if chain.is_some() { tsig::ROOM } else { 0 };
                let limit = query.limit(Transport::Udp, UDP_SIZE).saturating_sub(room);
                match TransferOffer::choose(asked, &transfers.journal, Serial(zone.serial()), transfers.size) {
                    TransferOffer::Steps(steps) => {
                        write_datagram(header, &question, &self.opt(), soa, differences(soa, steps), limit, out);
                    }
                    // RFC 1995 section 2: the SOA alone means either no new version, or to use TCP.
                    TransferOffer::UpToDate | TransferOffer::Whole => {
                        write_datagram(header, &question, &self.opt(), soa, std::iter::once(soa), limit, out);
                    }
                }
                Ok(PlannedResponse::Written(Reaction::Respond(Rcode::NOERROR)))
            }
        }
    }

    /// Logs a query whose signature is refused, unless a line of the last minute names its sender (RFC 8945
    /// section 5.2).
    fn log_refusal(&self, refusal: &TsigRefusal, now: u64) {
        let client = self.arrival.client.ip();
        if REFUSED.is_due(client, now) {
            let error = refusal.error_name();
            tracing::warn!(%client, error, "signed query refused: compare keys and clocks of both servers");
        }
    }

    /// Counts a refused NOTIFY. Logs it unless a line of the last minute names its sender.
    fn refuse_notify(&self, now: u64, reason: &str) {
        self.links.limited.count(Limit::Notify);
        let client = self.arrival.client.ip();
        if REFUSED.is_due(client, now) {
            let zone = Message::read(self.arrival.message).ok().and_then(|message| message.question);
            let zone = zone.and_then(|question| Name::from_wire(question.qname()).ok()).unwrap_or_else(Name::root);
            tracing::warn!(%zone, %client, "NOTIFY refused: {reason}");
        }
    }

    fn take_notify(&self, chain: Option<&ServerChain>, now: u64) -> Rcode {
        if self.state.transfers.values().all(|transfers| transfers.source.is_none()) {
            // This authority is not secondary for any zone.
            self.refuse_notify(now, "this authority has no secondary zone");
            return Rcode::REFUSED;
        }
        let notify = match read_notify(self.arrival.message) {
            Ok(notify) => notify,
            Err(rcode) => return rcode,
        };
        let zone = notify.zone.folded();
        let Some(source) = self.state.transfers.get(&zone).and_then(|transfers| transfers.source.as_ref()) else {
            self.refuse_notify(now, "the zone is not a secondary zone of this authority");
            return Rcode::REFUSED;
        };
        // RFC 1996 section 3.10 ignores NOTIFY from unknown hosts; REFUSED shows a misconfigured one at once.
        let Some(primary) = source.notified_by(self.arrival.client.ip(), chain.map(ServerChain::key)) else {
            self.refuse_notify(
                now,
                match source.tsig {
                    Some(_) => {
                        "it is not signed with the tsig key of the zone; sign it, or add the sender to notify_from"
                    }
                    None => "the sender is not a primary of the zone; add it to notify_from",
                },
            );
            return Rcode::REFUSED;
        };
        let Some(notify) = source.places.notify(self.authority, zone, primary, notify.serial) else {
            return Rcode::NOERROR;
        };
        match self.links.notifies.send(notify) {
            Ok(()) => Rcode::NOERROR,
            // The server ends. The sender will retry, here or at the successor (RFC 1996 section 3.12: only
            // NOERROR ends it).
            Err(_) => Rcode::SERVFAIL,
        }
    }
}

/// The logged senders of refused NOTIFYs and signatures, for all workers.
static REFUSED: RefusedSources = RefusedSources::empty();

/// Replaces a response by TC=1 with the question, OPT record and cookie for its query.
pub(super) fn truncate(query: &[u8], cookie: Option<&Cookie>, response: &mut Vec<u8>) {
    let Some(header) = Header::read(response) else { return };
    write_error(query, header.rcode(), cookie, UDP_SIZE, response);
    if let (Some(short), Some(octets)) = (Header::read(response), response.first_chunk_mut::<HEADER_LEN>()) {
        let authoritative = header.is_authoritative();
        *octets = short.with(Flag::Truncated, true).with(Flag::Authoritative, authoritative).to_wire();
    }
}

pub(super) struct Transfer {
    client: IpAddr,
    query: Vec<u8>,
    /// The OPT record of each message, or nothing.
    opt: Vec<u8>,
    /// The version to send, whatever comes meanwhile.
    zone: Arc<Zone>,
    transfers: Arc<ZoneTransfers>,
    chain: Option<ServerChain>,
}

impl Transfer {
    /// Sends all messages, each after the client has taken the previous one.
    pub(super) async fn send(self, parts: Sender<Vec<u8>>) {
        let Self { client, query, opt, zone, transfers, chain } = self;
        let (Ok(query), Some(soa)) = (read_transfer_query(&query), zone.soa()) else {
            return;
        };
        let (how, is_sent) =
            match TransferOffer::choose(query.asked, &transfers.journal, Serial(zone.serial()), transfers.size) {
                TransferOffer::UpToDate => {
                    ("SOA alone", send_all(&query, opt, std::iter::once(soa), chain, parts).await)
                }
                TransferOffer::Steps(steps) => {
                    ("IXFR", send_all(&query, opt, differences(soa, steps), chain, parts).await)
                }
                TransferOffer::Whole => ("AXFR", send_all(&query, opt, whole(soa, zone.iter()), chain, parts).await),
            };
        let (zone, serial) = (zone.apex(), zone.serial());
        match is_sent {
            true => tracing::info!(%zone, serial, %client, how, "transfer sent"),
            false => tracing::info!(%zone, serial, %client, how, "transfer broken off"),
        }
    }
}

async fn send_all<'a>(
    query: &TransferQuery<'_>,
    opt: Vec<u8>,
    records: impl Iterator<Item = Record<'a>>,
    mut chain: Option<ServerChain>,
    parts: Sender<Vec<u8>>,
) -> bool {
    let mut writer = TransferWriter::new(query.header, &query.question, records, MESSAGE_LIMIT).with_opt(opt);
    let mut message = Vec::new();
    while writer.next_message(&mut message) {
        if let Some(chain) = &mut chain {
            chain.sign(unix_now(), &mut message);
        }
        if parts.send(std::mem::take(&mut message)).await.is_err() {
            return false;
        }
    }
    true
}
