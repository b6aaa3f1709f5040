//! Explains a question for an operator: runs it like a client's query and returns events.

use std::time::Instant;

use data_encoding::BASE64;
use dns::{Name, RecordClass, RecordType, Transport};
use engine::explanation::{Event, ExplainedResponse};
use engine::state::Target;
use engine::{HashedQuestion, LateReport, LookupReason, RaceReport, ResponseSummary, ValidQuery};
use metrics::ResponseSource;
use net::sys::clock;
use tokio::sync::mpsc::UnboundedSender;

use super::outside::WorkerIo;
use super::{Forwarder, ReplyChannel};

/// A question to explain.
#[derive(Debug)]
pub struct ExplainRequest {
    /// The queried name.
    pub name: Name,
    /// The queried type.
    pub qtype: RecordType,
    /// True if backends are asked even if the cache has an answer.
    pub is_fresh: bool,
    /// True if another worker named this one as the owner of the question.
    pub is_handed_over: bool,
    /// The reply channel for events.
    pub events: UnboundedSender<Event>,
}

/// The client of an explained question: an operator.
#[derive(Clone, Debug)]
pub struct Operator(UnboundedSender<Event>);

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
        }));
    }
}

pub(super) struct ExplainedRace {
    hash: u64,
    operator: Operator,
}

impl Forwarder {
    /// Runs a question for an operator and reports its events. One question runs at a time.
    pub fn explain(&mut self, asked: ExplainRequest, now: Instant) {
        let ExplainRequest { name, qtype, is_fresh, is_handed_over, events } = asked;
        let operator = Operator(events);
        let udp_size = self.outside.state.edns_udp_size;
        let message = query(&name, qtype, udp_size);
        let Ok(query) = dns::read_query(&message) else { return operator.send(Event::NoResponse) };
        let mut folded = Vec::new();
        let flags = query.fold_question(&mut folded);
        let hash = self.outside.shared.engines.hash(&folded);
        let question = HashedQuestion { octets: &folded, flags, hash };
        if self.outside.state.routes.target(question.qname()) == Target::Own {
            operator.send(Event::Own);
            let (zone, mut response) = (&self.outside.state.resolver_arpa, Vec::new());
            if let Some(rcode) = zone.respond((&message, &query), None, Transport::Tcp, udp_size, &mut response) {
                let summary = ResponseSummary { source: ResponseSource::Authority, rcode };
                operator.take_response(now, now, summary, &response);
            }
            return;
        }
        let Some((suffix, pool)) = self.outside.state.routes.route(question.qname()) else {
            return operator.send(Event::NoRoute);
        };
        let route = dns::display_name(suffix).to_string();
        let pool_name = self.outside.state.pools[pool.0].config.name.clone();
        self.outside.explained = Some(ExplainedRace { hash, operator: operator.clone() });
        let reason = if is_fresh { LookupReason::Ignore } else { LookupReason::HandedOver };
        let (message, query) = (&message[..], &query);
        let valid = ValidQuery { message, query, cookie: None, question, pool, reason, is_handed_over };
        let client = ReplyChannel::Admin(operator.clone());
        match self.tick(now).explain(valid, client) {
            Ok(mut plan) => {
                self.outside.counters.explained.increment();
                plan.route = route;
                operator.send(Event::Planned { pool: pool_name, plan: Box::new(plan) });
            }
            Err(owner) => operator.send(Event::Elsewhere(owner.0)),
        }
        self.end_tick(now);
    }
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

fn query(name: &Name, qtype: RecordType, udp_size: u16) -> Vec<u8> {
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
