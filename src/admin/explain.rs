//! `POST /api/v1/explain`: traces a question for an operator, one at a time and at most ten a second.

use std::net::IpAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use config::{listen_address, words};
use data_encoding::BASE64;
use dns::{Message, Name, RecordType, SectionRecord, Transport};
use engine::explanation::{Event, Explanation, Transcript};
use engine::state::carries;
use net::sys::clock;
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};
use zone::rdata_to_text;

use super::AdminRequest;
use super::routes::{AdminServer, HttpError, RequestBody, SharedServer, read_json};
use crate::worker::forwarder::ExplainedClient;

/// A question to explain.
#[derive(Clone, Debug)]
pub struct ExplainQuestion {
    /// The queried name.
    pub name: Name,
    /// The queried type.
    pub qtype: RecordType,
    /// The client for which rules are applied.
    pub client: ExplainedClient,
    /// True if backends are queried even when the cache has an answer.
    pub is_fresh: bool,
    /// The number of the worker that runs the race, if an earlier attempt found it.
    pub worker: Option<u16>,
    /// The channel that receives the events.
    pub events: UnboundedSender<Event>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainParameters {
    name: String,
    #[serde(default = "address", rename = "type")]
    qtype: String,
    #[serde(default)]
    fresh: bool,
    client: Option<IpAddr>,
    listener: Option<String>,
    transport: Option<Transport>,
}

fn address() -> String {
    "A".to_owned()
}

pub(super) async fn explain(State(server): SharedServer, body: RequestBody) -> Result<Json<Explanation>, HttpError> {
    let (name, qtype, client, is_fresh) = read(&body?)?;
    let explained = timeout(PATIENCE, async {
        let mut earliest = server.explain_turn.lock().await;
        sleep_until(*earliest).await;
        *earliest = Instant::now() + PACE;
        follow(&server, &name, qtype, (client, is_fresh)).await
    });
    let too_slow = || format!("the question was not answered in {} s; ask again", PATIENCE.as_secs());
    let mut explained = explained.await.unwrap_or_else(|_| Err(HttpError::too_slow(too_slow())))?;
    if let Some(response) = &mut explained.response {
        response.records = records(&response.message);
    }
    Ok(Json(explained))
}

/// Returns the first records of a message in base64 as lines of a master file, without OPT.
fn records(message: &str) -> Vec<String> {
    let octets = BASE64.decode(message.as_bytes()).unwrap_or_default();
    let Ok(message) = Message::read(&octets) else { return Vec::new() };
    let records = message.records().lenient().map_while(Result::ok).filter(|record| record.rtype != RecordType::OPT);
    let line = |SectionRecord { owner, ttl, rtype, rdata, .. }| {
        format!("{owner} {ttl} {rtype} {}", rdata_to_text(rtype, &rdata))
    };
    records.map(line).take(MAX_RECORDS).collect()
}

fn read(body: &[u8]) -> Result<(Name, RecordType, ExplainedClient, bool), String> {
    let ExplainParameters { name, qtype, fresh, client, listener, transport } =
        read_json(body, "{\"name\": \"www.example.org\", \"type\": \"A\"}")?;
    let read = words::domain_name(&name).map_err(|expected| format!("name {name:?}: {expected}"))?;
    let qtype = words::record_type(&qtype).map_err(|expected| format!("type {qtype:?}: {expected}"))?;
    if matches!(qtype, RecordType::AXFR | RecordType::IXFR) {
        return Err(format!("type {qtype}: a zone transfer cannot be explained, ask a server of the zone"));
    }
    let usual = ExplainedClient::default();
    let listener = listener.map(|text| match listen_address(&text) {
        Ok(url) => Ok(url.address),
        Err(expected) => Err(format!("listener {text:?}: {expected}")),
    });
    let (ip, listener) = (client.unwrap_or(usual.ip), listener.transpose()?);
    // A listener with a scheme has one transport.
    let by_listener =
        listener.and_then(|at| Transport::ALL.into_iter().find(|transport| carries(at.scheme, *transport)));
    let transport = transport.or(by_listener).unwrap_or(usual.transport);
    Ok((read, qtype, ExplainedClient { ip, listener, transport }, fresh))
}

async fn follow(
    server: &AdminServer,
    name: &Name,
    qtype: RecordType,
    (client, is_fresh): (ExplainedClient, bool),
) -> Result<Explanation, HttpError> {
    let mut worker = None;
    // A worker may end its race for the question before the request arrives. It then runs its own race.
    'question: loop {
        let (events, mut received) = unbounded_channel();
        let question = ExplainQuestion { name: name.clone(), qtype, client, is_fresh, worker, events };
        server.ask(|answer| AdminRequest::Explain(Box::new(question), answer)).await??;
        let mut transcript = Transcript::new(name.to_string(), qtype.to_string(), clock::unix_seconds(Duration::ZERO));
        let mut over = None;
        loop {
            let since = over.map_or(Duration::ZERO, |over: Instant| over.elapsed());
            let event = match transcript.patience(since) {
                Some(Duration::ZERO) => return Ok(transcript.finish()),
                Some(patience) => {
                    over.get_or_insert_with(Instant::now);
                    match timeout(patience, received.recv()).await {
                        Ok(event) => event,
                        Err(_) => return Ok(transcript.finish()),
                    }
                }
                None => received.recv().await,
            };
            match event {
                Some(Event::Elsewhere(owner)) => {
                    worker = Some(owner);
                    continue 'question;
                }
                Some(event) => transcript.take(event),
                None => {
                    return Err(HttpError(StatusCode::CONFLICT, "the worker that had it has ended".to_owned()));
                }
            }
        }
    }
}

const PACE: Duration = Duration::from_millis(100);

/// Records of the response as text. A message by TCP has room for thousands.
const MAX_RECORDS: usize = 64;

/// Covers the turn, the pool's `timeout` and late replies. It must stay below the timeout of `hedgerow ctl`.
const PATIENCE: Duration = Duration::from_secs(55);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_records_of_a_response_are_text() {
        let answer = b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01";
        let opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
        let message = |answers: usize| {
            let head = [0, 0, 0x84, 0, 0, 1, 0, answers as u8, 0, 0, 0, 1];
            BASE64.encode(&[&head[..], b"\x01a\0\0\x01\0\x01", &answer.repeat(answers), opt].concat())
        };
        assert_eq!(records(&message(2)), ["a. 300 A 192.0.2.1"; 2]);
        assert_eq!(records(&message(100)).len(), MAX_RECORDS);
        assert_eq!(records("!"), [""; 0]);
    }

    #[test]
    fn questions_are_read_or_explained() {
        let (name, qtype, _, is_fresh) = read(br#"{"name": "www.example.org"}"#).expect("a question");
        assert_eq!((name.to_string().as_str(), qtype, is_fresh), ("www.example.org.", RecordType::A, false));
        let (_, qtype, client, is_fresh) = read(
            br#"{"name": "a", "type": "aaaa", "fresh": true, "client": "192.0.2.1", "listener": "tls://127.0.0.1"}"#,
        )
        .expect("a question");
        assert_eq!((qtype, is_fresh), (RecordType::AAAA, true));
        assert_eq!((client.ip.to_string().as_str(), client.transport), ("192.0.2.1", Transport::Tls));
        for (body, expected) in [
            (&b""[..], "expected JSON such as"),
            (br#"{"name": "a..b"}"#, "name \"a..b\": "),
            (br#"{"name": "a", "type": "NONE"}"#, "type \"NONE\": "),
            (br#"{"name": "a", "type": "AXFR"}"#, "a zone transfer cannot be explained"),
            (br#"{"name": "a", "listener": "b"}"#, "listener \"b\": "),
            (br#"{"name": "a", "pool": "ts"}"#, "unknown field `pool`"),
        ] {
            let error = read(body).map(drop).expect_err("it makes no sense");
            assert!(error.contains(expected), "{error}");
        }
    }
}
