//! Races in the JSON of OTLP: a trace for each, with a span for the query and a child span for each attempt.
//!
//! Attribute names follow the semantic conventions of OpenTelemetry, or begin with `hedgerow`. The span of an
//! attempt without a reply ends with the race; a late reply ends it later.

use std::collections::HashMap;
use std::net::SocketAddr;

use dns::address::BackendAddress;
use engine::slow::{Fate, RaceOutcome, SlowAttempt, SlowRace};
use serde::Serialize;
use serde_json::{Value, json};

/// The addresses of backends by pool and name. Backends without a name appear by address.
pub(super) type Backends = HashMap<(String, String), SocketAddr>;

/// Builds the body of a request with these races and their trace IDs.
pub(super) fn body<'a>(races: impl Iterator<Item = (u128, &'a SlowRace)>, host: &str, backends: &Backends) -> Vec<u8> {
    let spans: Vec<Value> = races.flat_map(|(id, race)| Trace { id, race, backends }.spans()).collect();
    let version = env!("CARGO_PKG_VERSION");
    let resource =
        [text("service.name", "hedgerow"), text("service.version", version), text("service.instance.id", host)];
    let scope = json!({ "name": "hedgerow", "version": version });
    let message = json!({
        "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }],
    });
    message.to_string().into_bytes()
}

struct Trace<'a> {
    id: u128,
    race: &'a SlowRace,
    backends: &'a Backends,
}

impl Trace<'_> {
    fn spans(&self) -> Vec<Value> {
        let attempts = self.race.attempts.iter().enumerate();
        let attempts = attempts.map(|(number, attempt)| self.attempt(number as u64 + 1, attempt));
        std::iter::once(self.query()).chain(attempts).collect()
    }

    /// Returns a span ID: part of the trace ID, and never zero.
    fn span_id(&self, number: u64) -> String {
        format!("{:016x}", (self.id as u64 & !0xFF) | (number + 1))
    }

    /// Returns the nanoseconds since 1970 at this time after the start of the race, which is known to the
    /// microsecond.
    fn nanos(&self, after_ms: f64) -> u64 {
        ((self.race.at * 1e6).round() as u64 + (after_ms * 1e3).round() as u64) * 1_000
    }

    fn span(&self, number: u64, name: &str, kind: u8, (from_ms, to_ms): (f64, f64), attributes: Vec<Value>) -> Value {
        json!({
            "traceId": format!("{:032x}", self.id.max(1)),
            "spanId": self.span_id(number),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": self.nanos(from_ms).to_string(),
            "endTimeUnixNano": self.nanos(to_ms.max(from_ms)).to_string(),
            "attributes": attributes,
        })
    }

    fn query(&self) -> Value {
        let race = self.race;
        let name = Some(&race.name).filter(|name| !name.is_empty());
        let is_error = matches!(race.outcome, RaceOutcome::Failed | RaceOutcome::MadeUp);
        let mut attributes = Vec::new();
        attributes.extend(name.map(|name| text("dns.question.name", name)));
        attributes.extend([
            text("hedgerow.question.type", &race.qtype),
            text("hedgerow.pool", &race.pool),
            text("hedgerow.outcome", race.outcome.label()),
        ]);
        attributes.extend(race.rcode.as_ref().map(|rcode| text("hedgerow.rcode", rcode)));
        attributes.extend(race.winner.as_ref().map(|winner| text("hedgerow.winner", winner)));
        attributes.extend([
            integer("hedgerow.waiters", race.waiters),
            integer("hedgerow.hedges_denied", race.obstacles.hedges_denied),
            json!({ "key": "hedgerow.all_down", "value": { "boolValue": race.obstacles.all_down } }),
            text("hedgerow.why", &race.why),
        ]);
        attributes.extend(is_error.then(|| text("error.type", race.outcome.label())));
        let mut span = self.span(0, "dns query", SERVER, (0.0, race.took_ms), attributes);
        if is_error {
            span["status"] = error(&race.why);
        }
        span
    }

    fn attempt(&self, number: u64, attempt: &SlowAttempt) -> Value {
        let SlowAttempt { backend, kind, at_ms, took_ms, fate, rank } = attempt;
        let known = || self.backends.get(&(self.race.pool.clone(), backend.clone())).copied();
        let address = backend.parse::<BackendAddress>().ok().map(|address| address.socket).or_else(known);
        let mut attributes = Vec::new();
        attributes.extend(address.into_iter().flat_map(|address: SocketAddr| {
            let (ip, port) = (address.ip().to_string(), address.port());
            [
                text("server.address", &ip),
                integer("server.port", port),
                text("network.peer.address", ip),
                integer("network.peer.port", port),
            ]
        }));
        attributes.extend([
            text("network.transport", "udp"),
            text("hedgerow.backend", backend),
            text("hedgerow.attempt.kind", kind),
            text("hedgerow.attempt.fate", fate.label()),
        ]);
        attributes.extend(rank.as_ref().map(|rank| text("hedgerow.attempt.rank", rank)));
        let is_error = matches!(fate, Fate::Failed | Fate::Unreachable | Fate::Lost | Fate::Silent);
        attributes.extend(is_error.then(|| text("error.type", fate.label())));
        let ended_ms = took_ms.map_or(self.race.took_ms, |took| at_ms + took);
        let mut span = self.span(number, "dns attempt", CLIENT, (*at_ms, ended_ms), attributes);
        span["parentSpanId"] = self.span_id(0).into();
        if is_error {
            span["status"] = error(fate.label());
        }
        span
    }
}

fn text(key: &str, value: impl Serialize) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Builds a numeric attribute. Numbers of 64 bits are strings in this JSON.
fn integer(key: &str, value: impl Into<u64>) -> Value {
    json!({ "key": key, "value": { "intValue": value.into().to_string() } })
}

fn error(message: &str) -> Value {
    json!({ "code": STATUS_ERROR, "message": message })
}

const SERVER: u8 = 2;

const CLIENT: u8 = 3;

const STATUS_ERROR: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::observe::sight::sample_race;

    const ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

    fn spans(race: &SlowRace, backends: &Backends) -> Vec<Value> {
        let body = body([(ID, race)].into_iter(), "host", backends);
        let message: Value = serde_json::from_slice(&body).expect("JSON");
        message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("a list").clone()
    }

    #[test]
    fn a_race_is_a_trace() {
        let ts2 = "[2001:db8::2]:53".parse().expect("an address");
        let backends = Backends::from([(("ts".to_owned(), "ts2".to_owned()), ts2)]);
        let body = body([(ID, &sample_race())].into_iter(), "ls1.example", &backends);
        let message: Value = serde_json::from_slice(&body).expect("JSON");
        let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let integer = |key: &str, value: &str| json!({ "key": key, "value": { "intValue": value } });
        let version = env!("CARGO_PKG_VERSION");
        let why = "ts1 silent; hedge to ts2 denied for 180 ms: budget spent; ts2 replied in 2 ms";
        let expected = json!({ "resourceSpans": [{
            "resource": { "attributes": [
                text("service.name", "hedgerow"),
                text("service.version", version),
                text("service.instance.id", "ls1.example"),
            ] },
            "scopeSpans": [{ "scope": { "name": "hedgerow", "version": version }, "spans": [
                {
                    "traceId": "0123456789abcdef0011223344556677",
                    "spanId": "0011223344556601",
                    "name": "dns query",
                    "kind": 2,
                    "startTimeUnixNano": "1790000000250000000",
                    "endTimeUnixNano": "1790000000436000000",
                    "attributes": [
                        text("dns.question.name", "www.example.org."),
                        text("hedgerow.question.type", "A"),
                        text("hedgerow.pool", "ts"),
                        text("hedgerow.outcome", "won"),
                        text("hedgerow.rcode", "NOERROR"),
                        text("hedgerow.winner", "ts2"),
                        integer("hedgerow.waiters", "1"),
                        integer("hedgerow.hedges_denied", "1"),
                        { "key": "hedgerow.all_down", "value": { "boolValue": false } },
                        text("hedgerow.why", why),
                    ],
                },
                {
                    "traceId": "0123456789abcdef0011223344556677",
                    "spanId": "0011223344556602",
                    "parentSpanId": "0011223344556601",
                    "name": "dns attempt",
                    "kind": 3,
                    "startTimeUnixNano": "1790000000250000000",
                    "endTimeUnixNano": "1790000000436000000",
                    "attributes": [
                        text("network.transport", "udp"),
                        text("hedgerow.backend", "ts1"),
                        text("hedgerow.attempt.kind", "first"),
                        text("hedgerow.attempt.fate", "silent"),
                        text("error.type", "silent"),
                    ],
                    "status": { "code": 2, "message": "silent" },
                },
                {
                    "traceId": "0123456789abcdef0011223344556677",
                    "spanId": "0011223344556603",
                    "parentSpanId": "0011223344556601",
                    "name": "dns attempt",
                    "kind": 3,
                    "startTimeUnixNano": "1790000000434000000",
                    "endTimeUnixNano": "1790000000436000000",
                    "attributes": [
                        text("server.address", "2001:db8::2"),
                        integer("server.port", "53"),
                        text("network.peer.address", "2001:db8::2"),
                        integer("network.peer.port", "53"),
                        text("network.transport", "udp"),
                        text("hedgerow.backend", "ts2"),
                        text("hedgerow.attempt.kind", "hedge"),
                        text("hedgerow.attempt.fate", "won"),
                        text("hedgerow.attempt.rank", "positive"),
                    ],
                },
            ] }],
        }] });
        assert_eq!(message, expected);
    }

    #[test]
    fn what_failed_says_so_and_a_late_reply_ends_after_its_race() {
        let mut race = sample_race();
        race.outcome = RaceOutcome::MadeUp;
        (race.attempts[0].fate, race.attempts[0].took_ms) = (Fate::Late, Some(400.0));
        race.attempts[0].backend = "192.0.2.1:5301".to_owned();
        race.name = String::new();
        let spans = spans(&race, &Backends::default());
        assert_eq!(spans[0]["status"], json!({ "code": 2, "message": race.why }));
        let keys = |span: &Value| {
            let attributes = span["attributes"].as_array().expect("a list").iter();
            attributes.map(|attribute| attribute["key"].as_str().expect("a key").to_owned()).collect::<Vec<_>>()
        };
        assert!(!keys(&spans[0]).contains(&"dns.question.name".to_owned()), "there is no name");
        assert_eq!(keys(&spans[0]).last().map(String::as_str), Some("error.type"));
        assert_eq!(spans[1]["endTimeUnixNano"], "1790000000650000000");
        assert_eq!(spans[1]["attributes"][1], json!({ "key": "server.port", "value": { "intValue": "5301" } }));
        assert_eq!(spans[1].get("status"), None);
    }
}
