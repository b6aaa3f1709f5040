//! `/api/v1/live`, which tells each second to whoever listens, and `/api/v1/history`.
//!
//! A stream of server-sent events (the `EventSource` of the HTML standard) has no end. So those who listen have places of their own, of
//! which there are [`MAX_STREAMS`], some of them for the unix socket alone; a client that does not read loses its connection (`deadline`) or its stream, and
//! gets what it has missed when it comes again.

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

use super::authorization::Origin;
use super::routes::{HttpError, Server};
use super::{Listener, Request};
use crate::sight::Event;
use crate::sight::live::{History, Span};

/// Marks a response that has no end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream;

/// Places for those who listen.
#[derive(Debug)]
pub(super) struct Streams {
    /// For all.
    common: Arc<Semaphore>,
    /// For the unix socket: any user of this host can hold all the others.
    kept: Arc<Semaphore>,
}

impl Streams {
    /// So many places. Some of them are kept for the unix socket if there is one.
    pub(super) fn new(all: usize, has_socket: bool) -> Self {
        let kept = if has_socket { all.div_ceil(KEPT) } else { 0 };
        Self { common: Arc::new(Semaphore::new(all - kept)), kept: Arc::new(Semaphore::new(kept)) }
    }

    /// Takes a place, if there is one for this peer.
    fn take(&self, peer: Origin) -> Option<OwnedSemaphorePermit> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let kept = match peer {
            Origin::Owner => take(&self.kept),
            Origin::Host(_) => None,
        };
        kept.or_else(|| take(&self.common))
    }
}

/// `/api/v1/live`.
pub(super) async fn second(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Origin>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    if parameters(query.as_deref()).any(|(name, value)| name == "once" && value != "0") {
        let second = server.ask(Request::Second).await?;
        return Ok(([(header::CACHE_CONTROL, "no-store")], Json(second)).into_response());
    }
    let place = server.streams.take(peer).ok_or(HttpError::NoPlace)?;
    // An `EventSource` that is made anew has no way to send the header.
    let asked = parameters(query.as_deref()).find(|(name, _)| *name == "last_event_id").map(|(_, id)| id);
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).or(asked);
    let last = last.and_then(|id| id.trim().parse().ok());
    let (seconds, events) = mpsc::channel(BUFFERED);
    let ask = |missed: oneshot::Sender<_>| Request::Seconds(Listener { last, missed, seconds });
    let missed = server.ask(ask).await?;
    let first = Bytes::from_static(RETRY.as_bytes());
    let waiting = std::iter::once(first).chain(missed.iter().map(written)).collect();
    let head = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Asks nginx not to wait for more.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let mut response = (head, Body::new(Events { waiting, events, _place: place })).into_response();
    response.extensions_mut().insert(Stream);
    Ok(response)
}

/// `/api/v1/history`.
pub(super) async fn history(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Result<Json<History>, HttpError> {
    let span = match parameters(query.as_deref()).find(|(name, _)| *name == "span") {
        None | Some((_, "10m")) => Span::TenMinutes,
        Some((_, "24h")) => Span::Day,
        Some((_, other)) => return Err(HttpError::Invalid(format!("span {other:?}: expected 10m or 24h"))),
    };
    server.ask(|way_back| Request::History(span, way_back)).await.map(Json)
}

/// The parameters of a query, each with its value.
fn parameters(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query.unwrap_or_default().split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// An event as it is sent.
fn written(event: &Event) -> Bytes {
    // JSON has no line breaks, which would end the event.
    let mut text = String::with_capacity(event.data.len() + 64);
    let _ = write!(text, "id: {}\nevent: second\ndata: {}\n\n", event.id, event.data);
    text.into()
}

/// The body of a stream.
struct Events {
    /// What is sent first.
    waiting: VecDeque<Bytes>,
    /// What comes.
    events: mpsc::Receiver<Event>,
    /// Dropped with it.
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

/// Those who listen at once.
pub(super) const MAX_STREAMS: usize = 32;
/// One place of so many is kept for the unix socket.
const KEPT: usize = 8;
/// Seconds that wait for a client that does not take them.
const BUFFERED: usize = 8;
/// How soon a client comes again that has lost its stream, in ms.
const RETRY: &str = "retry: 1000\n\n";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn some_places_are_kept_for_the_socket() {
        let host = Origin::Host(Ipv4Addr::LOCALHOST.into());
        for (all, has_socket, by_host, by_owner) in
            [(32, true, 28, 4), (32, false, 32, 0), (5, true, 4, 1), (0, true, 0, 0)]
        {
            let streams = Streams::new(all, has_socket);
            let taken = |peer| std::iter::from_fn(|| streams.take(peer)).collect::<Vec<_>>();
            let (hosts, owners) = (taken(host), taken(Origin::Owner));
            assert_eq!((hosts.len(), owners.len()), (by_host, by_owner), "of {all}");
            drop((hosts, owners));
            assert_eq!(taken(Origin::Owner).len(), all, "without anyone else");
        }
    }
}
