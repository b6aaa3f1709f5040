//! A question that an operator has explained, by HTTP: one at a time, ten a second at most, and asked of the worker that has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::routes::{HttpError, Server};
use super::{Refused, Request};
use crate::config::words;
use crate::net::clock;
use crate::sight::explain::{Event, Explained, Transcript};
use crate::wire::{Name, RecordType};

/// A question, and how it is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The type.
    pub qtype: RecordType,
    /// Backends are asked even if the cache has an answer.
    pub is_fresh: bool,
    /// The worker that has said to be the right one is known: its number.
    pub worker: Option<u16>,
    /// Where it is told what happens.
    pub events: UnboundedSender<Event>,
}

/// Who has a question explained now.
#[derive(Debug, Default)]
pub(super) struct ExplainTurn(Mutex<Option<Interval>>);

impl ExplainTurn {
    /// Waits until nobody else has a question explained, and until it is time for another.
    async fn take(&self) -> MutexGuard<'_, Option<Interval>> {
        let mut turn = self.0.lock().await;
        let pace = turn.get_or_insert_with(|| {
            let mut pace = interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        pace.tick().await;
        turn
    }
}

/// A question as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
    #[serde(default = "address", rename = "type")]
    qtype: String,
    #[serde(default)]
    fresh: bool,
}

/// The default of a type.
fn address() -> String {
    "A".to_owned()
}

/// `POST /api/v1/explain`.
pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Explained>, HttpError> {
    let (name, qtype, is_fresh) = read(&body?).map_err(HttpError::Invalid)?;
    let told = timeout(PATIENCE, async {
        let _turn = server.explain_turn.take().await;
        follow(&server, &name, qtype, is_fresh).await
    });
    told.await.unwrap_or(Err(HttpError::StillGoing("the question is not answered yet"))).map(Json)
}

/// Reads a question.
fn read(body: &[u8]) -> Result<(Name, RecordType, bool), String> {
    let Asked { name, qtype, fresh } = serde_json::from_slice(body).map_err(|error| {
        format!("{error}; expected JSON such as {{\"name\": \"www.example.org\", \"type\": \"A\"}}")
    })?;
    let read = words::domain_name(&name).map_err(|expected| format!("name {name:?}: {expected}"))?;
    let qtype = words::record_type(&qtype).map_err(|expected| format!("type {qtype:?}: {expected}"))?;
    if matches!(qtype, RecordType::AXFR | RecordType::IXFR) {
        return Err(format!("type {qtype}: a zone transfer is no question, ask a server of the zone"));
    }
    Ok((read, qtype, fresh))
}

/// Has a question asked, and takes what happens until there is no more.
async fn follow(server: &Server, name: &Name, qtype: RecordType, is_fresh: bool) -> Result<Explained, HttpError> {
    let mut worker = None;
    // A worker that races for the question may have ended the race by the time that it is asked, and then it asks itself.
    loop {
        let (events, mut told) = unbounded_channel();
        let question = Question { name: name.clone(), qtype, is_fresh, worker, events };
        server.ask(|answer| Request::Explain(Box::new(question), answer)).await?.map_err(HttpError::Refused)?;
        let transcript = Transcript::new(name.to_string(), qtype.to_string(), clock::unix_seconds(Duration::ZERO));
        match take_all(transcript, &mut told).await? {
            Followed::Told(explained) => return Ok(*explained),
            Followed::Elsewhere(owner) => worker = Some(owner),
        }
    }
}

/// What has come of a question.
enum Followed {
    Told(Box<Explained>),
    /// Another worker has it.
    Elsewhere(u16),
}

/// Takes what happens until nothing more is to come.
async fn take_all(mut transcript: Transcript, told: &mut UnboundedReceiver<Event>) -> Result<Followed, HttpError> {
    let mut over = None;
    loop {
        let since = over.map_or(Duration::ZERO, |over: Instant| over.elapsed());
        let event = match transcript.patience(since) {
            Some(Duration::ZERO) => break,
            Some(patience) => {
                over.get_or_insert_with(Instant::now);
                match timeout(patience, told.recv()).await {
                    Ok(event) => event,
                    Err(_) => break,
                }
            }
            None => told.recv().await,
        };
        match event {
            Some(Event::Elsewhere(owner)) => return Ok(Followed::Elsewhere(owner)),
            Some(event) => transcript.take(event),
            // The worker is gone, with its race.
            None => return Err(HttpError::Refused(Refused::Conflict("the worker that had it has ended".to_owned()))),
        }
    }
    Ok(Followed::Told(Box::new(transcript.finish())))
}

/// The time from one question to the next.
const PACE: Duration = Duration::from_millis(100);

/// How long a client is made to wait: for its turn, for the pool's `timeout`, and for late replies. Less than `hedgerow ctl` waits.
const PATIENCE: Duration = Duration::from_secs(55);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_or_explained() {
        let (name, qtype, is_fresh) = read(br#"{"name": "www.example.org"}"#).expect("a question");
        assert_eq!((name.to_string().as_str(), qtype, is_fresh), ("www.example.org.", RecordType::A, false));
        let (_, qtype, is_fresh) = read(br#"{"name": "a", "type": "aaaa", "fresh": true}"#).expect("a question");
        assert_eq!((qtype, is_fresh), (RecordType::AAAA, true));
        for (body, expected) in [
            (&b""[..], "expected JSON such as"),
            (br#"{"name": "a..b"}"#, "name \"a..b\": "),
            (br#"{"name": "a", "type": "NONE"}"#, "type \"NONE\": "),
            (br#"{"name": "a", "type": "AXFR"}"#, "a zone transfer is no question"),
            (br#"{"name": "a", "pool": "ts"}"#, "unknown field `pool`"),
        ] {
            let error = read(body).map(drop).expect_err("it makes no sense");
            assert!(error.contains(expected), "{error}");
        }
    }
}
