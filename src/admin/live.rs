//! `/api/v1/live`, which streams each second to its subscribers, and `/api/v1/history`.
//!
//! A stream of server-sent events (the `EventSource` of the HTML standard) has no end, so streams have
//! separate slots ([`MAX_STREAMS`]), some of them for the unix socket alone. A client that does not read
//! loses its connection (`deadline`) or its stream, and gets the missed seconds when it reconnects.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::authorization::RequestOrigin;
use super::routes::{HttpError, SharedServer, parameters};
use super::{AdminRequest, LiveSubscriber};
use crate::control::observe::sight::Event;
use crate::control::observe::sight::live::{HistoryFigures, Span};

#[derive(Clone, Copy, Debug)]
pub(super) struct LiveStream;

#[derive(Debug)]
pub(super) struct LiveStreams {
    common: Arc<Semaphore>,
    /// Reserved for the unix socket, because any user of this host can hold all the others.
    kept: Arc<Semaphore>,
}

impl LiveStreams {
    pub(super) fn new(all: usize, has_socket: bool) -> Self {
        let kept = if has_socket { all.div_ceil(KEPT) } else { 0 };
        Self { common: Arc::new(Semaphore::new(all - kept)), kept: Arc::new(Semaphore::new(kept)) }
    }

    pub(super) fn take(&self, peer: RequestOrigin) -> Option<OwnedSemaphorePermit> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let kept = match peer {
            RequestOrigin::Owner(_) => take(&self.kept),
            RequestOrigin::Host(_) => None,
        };
        kept.or_else(|| take(&self.common))
    }
}

pub(super) async fn second(
    State(server): SharedServer,
    Extension(peer): Extension<RequestOrigin>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let query = query.unwrap_or_default();
    if parameters(&query).any(|(name, value)| name == "once" && value != "0") {
        let second = server.read(|server| server.second()).await?.ok_or_else(HttpError::ending)?;
        return Ok(([(header::CACHE_CONTROL, "no-store")], Json(second)).into_response());
    }
    let place = server.streams.take(peer).ok_or_else(|| HttpError::unavailable(NO_PLACE))?;
    // A newly created `EventSource` cannot send the header.
    let asked = parameters(&query).find(|(name, _)| *name == "last_event_id").map(|(_, id)| id);
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).or(asked);
    let last = last.and_then(|id| id.trim().parse().ok());
    let (seconds, events) = mpsc::channel(BUFFERED);
    let ask = |missed: oneshot::Sender<_>| AdminRequest::Seconds(LiveSubscriber { last, missed, seconds });
    let missed = server.ask(ask).await?;
    let first = Bytes::from_static(RETRY.as_bytes());
    let waiting = std::iter::once(first).chain(missed.iter().map(written)).collect();
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Disables buffering in nginx.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (head, Body::new(Events { waiting, events, _place: place })).into_response();
    response.extensions_mut().insert(LiveStream);
    Ok(response)
}

pub(super) async fn history(
    State(server): SharedServer,
    RawQuery(query): RawQuery,
) -> Result<Json<HistoryFigures>, HttpError> {
    let span = match parameters(&query.unwrap_or_default()).find(|(name, _)| *name == "span") {
        None | Some((_, "10m")) => Span::TenMinutes,
        Some((_, "24h")) => Span::Day,
        Some((_, other)) => return Err(format!("span {other:?}: expected 10m or 24h").into()),
    };
    server.read(move |server| server.history(span)).await?.map(Json).ok_or_else(HttpError::ending)
}

fn written(event: &Event) -> Bytes {
    // JSON has no line breaks, which would end the event.
    let mut text = String::with_capacity(event.data.len() + 64);
    let _ = write!(text, "id: {}\nevent: second\ndata: {}\n\n", event.id, event.data);
    text.into()
}

struct Events {
    waiting: VecDeque<Bytes>,
    events: mpsc::Receiver<Event>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(octets) = self.waiting.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(octets))));
        }
        self.events.poll_recv(cx).map(|event| event.map(|event| Ok(Frame::data(written(&event)))))
    }
}

pub(super) const MAX_STREAMS: usize = 32;
const KEPT: usize = 8;
const BUFFERED: usize = 8;
pub(super) const NO_STREAM: &str = "the maximum number of streams is open";
const NO_PLACE: &str = "the maximum number of live streams is open; /api/v1/live?once gives one second";
const RETRY: &str = "retry: 1000\n\n";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn some_places_are_kept_for_the_socket() {
        let host = RequestOrigin::Host(Ipv4Addr::LOCALHOST.into());
        for (all, has_socket, by_host, by_owner) in
            [(32, true, 28, 4), (32, false, 32, 0), (5, true, 4, 1), (0, true, 0, 0)]
        {
            let streams = LiveStreams::new(all, has_socket);
            let taken = |peer| std::iter::from_fn(|| streams.take(peer)).collect::<Vec<_>>();
            let (hosts, owners) = (taken(host), taken(RequestOrigin::Owner(0)));
            assert_eq!((hosts.len(), owners.len()), (by_host, by_owner), "of {all}");
            drop((hosts, owners));
            assert_eq!(taken(RequestOrigin::Owner(0)).len(), all, "without anyone else");
        }
    }
}
