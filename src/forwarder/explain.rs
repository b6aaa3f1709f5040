//! A question that an operator has explained: it is asked as a client would ask it, and what happens to it goes back as events.

use std::time::Instant;

use data_encoding::BASE64;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;

use super::outside::Outside;
use super::{Client, Forwarder};
use crate::engine::{Explaining, HashedQuestion, LateReport, RaceReport, Said, ValidQuery};
use crate::metrics::Source;
use crate::net::clock;
use crate::sight::explain::{Event, Response};
use crate::sight::slow::ToldRace;
use crate::state::Target;
use crate::wire::{self, Name, RecordClass, RecordType, Transport};

/// What is asked.
#[derive(Debug)]
pub struct Asked {
    /// The name.
    pub name: Name,
    /// The type.
    pub qtype: RecordType,
    /// How.
    pub how: Explaining,
    /// The way back.
    pub events: UnboundedSender<Event>,
}

/// Who has a question explained, as a client.
#[derive(Clone, Debug)]
pub struct Operator(UnboundedSender<Event>);

impl Operator {
    /// Tells what has happened.
    pub(super) fn tell(&self, event: Event) {
        // Who does not wait any more is told nothing.
        let _ = self.0.send(event);
    }

    /// Takes the response that `write` writes, if it writes one.
    pub(super) fn take_response(&self, since: Instant, now: Instant, write: impl FnOnce(&mut Vec<u8>) -> Option<Said>) {
        let mut message = Vec::new();
        let Some(Said { source, rcode }) = write(&mut message) else { return };
        self.tell(Event::Response(Response {
            source: source.label().to_owned(),
            rcode: rcode.to_string(),
            took_ms: now.saturating_duration_since(since).as_micros() as f64 / 1e3,
            message: BASE64.encode(&message),
        }));
    }
}

/// The question that is being explained.
pub(super) struct Explained {
    /// Its hash.
    hash: u64,
    operator: Operator,
}

impl Forwarder {
    /// Asks a question for an operator, and tells what happens to it. One at a time.
    pub fn explain(&mut self, asked: Asked, now: Instant) {
        let Asked { name, qtype, how, events } = asked;
        let operator = Operator(events);
        let udp_size = self.outside.state.edns_udp_size;
        let message = query(&name, qtype, udp_size);
        let Ok(query) = wire::read_query(&message) else { return operator.tell(Event::NoResponse) };
        let mut folded = Vec::new();
        let flags = query.fold_question(&mut folded);
        let hash = self.outside.shared.engines.hash(&folded);
        let question = HashedQuestion { octets: &folded, flags, hash };
        if self.outside.state.routes.target(question.qname()) == Target::Own {
            operator.tell(Event::Own);
            let zone = self.outside.state.resolver_arpa.clone();
            return operator.take_response(now, now, |out| {
                let rcode = zone.respond((&message, &query), None, Transport::Tcp, udp_size, out)?;
                Some(Said { source: Source::Authority, rcode })
            });
        }
        let Some((suffix, pool)) = self.outside.state.routes.route(question.qname()) else {
            return operator.tell(Event::NoRoute);
        };
        let route = wire::display_name(suffix).to_string();
        let pool_name = self.outside.state.pools[pool.0].config.name.clone();
        self.outside.explained = Some(Explained { hash, operator: operator.clone() });
        let valid = ValidQuery { message: &message, query: &query, cookie: None, question, pool };
        let client = Client::Admin(operator.clone());
        match self.engine.explain(&mut self.outside, valid, client, how, now) {
            Ok(mut plan) => {
                self.outside.counters.explained.increment();
                plan.route = route;
                operator.tell(Event::Planned { pool: pool_name, plan: Box::new(plan) });
            }
            Err(owner) => operator.tell(Event::Elsewhere(owner.0)),
        }
        self.end_tick(now);
    }
}

impl Outside {
    /// Tells the operator of a race that is over. Returns whether late replies are to be told as well.
    pub(super) fn explain_race(&self, report: &RaceReport<'_>) -> bool {
        let Some(Explained { operator, .. }) = self.explained.as_ref() else { return false };
        let at = clock::unix_seconds(report.took());
        let Some(ToldRace { race, .. }) = as_value(&report.told(at)) else { return false };
        operator.tell(Event::Over(Box::new(race)));
        true
    }

    /// Tells the operator of a late reply to the question that is being explained.
    pub(super) fn explain_late(&self, late: &LateReport<'_>) {
        if let Some(Explained { operator, .. }) =
            self.explained.as_ref().filter(|explained| explained.hash == late.hash)
            && let Some(reply) = as_value(&late.told(clock::unix_seconds(late.took())))
        {
            operator.tell(Event::Late(reply));
        }
    }
}

/// What is told, as a value of its own.
fn as_value<T: DeserializeOwned>(told: &impl Serialize) -> Option<T> {
    serde_json::from_value(serde_json::to_value(told).ok()?).ok()
}

/// The query of a client that speaks EDNS and wants recursion.
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
