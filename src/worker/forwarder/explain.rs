//! The operator's side of an explained question: the query, and the events that are sent back.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use data_encoding::BASE64;
use dns::address::ListenAddress;
use dns::{Name, RecordClass, RecordType, Transport};
use engine::explanation::{Event, ExplainedResponse};
use engine::{LateReport, RaceReport, ResponseSummary};
use net::sys::clock;
use tokio::sync::mpsc::UnboundedSender;

use super::outside::WorkerIo;

/// A question to explain.
#[derive(Debug)]
pub struct ExplainRequest {
    /// The queried name.
    pub name: Name,
    /// The queried type.
    pub qtype: RecordType,
    /// The client for which rules are applied.
    pub client: ExplainedClient,
    /// True if backends are asked even if the cache has an answer.
    pub is_fresh: bool,
    /// True if another worker named this one as the owner of the question.
    pub is_handed_over: bool,
    /// The reply channel for events.
    pub events: UnboundedSender<Event>,
}

/// The client in whose place an operator asks.
#[derive(Clone, Copy, Debug)]
pub struct ExplainedClient {
    /// The address of the client.
    pub ip: IpAddr,
    /// The listener; `None` for none.
    pub listener: Option<ListenAddress>,
    /// The transport of the query.
    pub transport: Transport,
}

impl Default for ExplainedClient {
    fn default() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), listener: None, transport: Transport::Udp }
    }
}

/// The client of an explained question: an operator.
#[derive(Clone, Debug)]
pub struct Operator(pub(super) UnboundedSender<Event>);

impl Operator {
    pub(super) fn send(&self, event: Event) {
        // The operator may have disconnected.
        let _ = self.0.send(event);
    }

    pub(super) fn take_response(
        &self,
        since: Instant,
        now: Instant,
        ResponseSummary { source, rcode }: ResponseSummary,
        message: &[u8],
    ) {
        self.send(Event::Response(ExplainedResponse {
            source: source.label().to_owned(),
            rcode: rcode.to_string(),
            took_ms: now.saturating_duration_since(since).as_micros() as f64 / 1e3,
            message: BASE64.encode(message),
            // The admin thread adds them.
            records: Vec::new(),
        }));
    }
}

pub(super) struct ExplainedRace {
    pub(super) hash: u64,
    pub(super) operator: Operator,
}

impl WorkerIo {
    /// Reports a finished race to the operator. Returns true if late replies are to be reported as well.
    pub(super) fn explain_race(&self, report: &RaceReport<'_>) -> bool {
        let Some(ExplainedRace { operator, .. }) = self.explained.as_ref() else { return false };
        let at = clock::unix_seconds(report.took());
        operator.send(Event::Over(Box::new(report.slow_race(at))));
        true
    }

    pub(super) fn explain_late(&self, late: &LateReport<'_>) {
        if let Some(ExplainedRace { operator, .. }) =
            self.explained.as_ref().filter(|explained| explained.hash == late.hash)
        {
            operator.send(Event::Late(late.late_reply(clock::unix_seconds(late.took()))));
        }
    }
}

/// Returns the query as a client would send it.
pub(super) fn explained_query(name: &Name, qtype: RecordType, udp_size: u16) -> Vec<u8> {
    // RFC 1035 section 4.1.1: ID 0, RD, one question and one additional record.
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    message.extend_from_slice(name.as_wire());
    message.extend_from_slice(&qtype.0.to_be_bytes());
    message.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
    // RFC 6891 section 6.1.2: an OPT record of the root, without options.
    message.extend_from_slice(&[0, 0, 41]);
    message.extend_from_slice(&udp_size.to_be_bytes());
    message.extend_from_slice(&[0; 6]);
    message
}
