//! `/api/v1/record`, which streams the latencies of races as text (`engine::trace`).

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use config::words;
use engine::trace::RaceTrace;
use hyper::body::Frame;
use percent_encoding::percent_decode_str;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::AdminRequest;
use super::authorization::RequestOrigin;
use super::live::{LiveStream, NO_STREAM};
use super::routes::{HttpError, SharedServer, parameters};
use crate::worker::forwarder::RecordRequest;

pub(super) async fn record(
    State(server): SharedServer,
    Extension(peer): Extension<RequestOrigin>,
    RawQuery(query): RawQuery,
) -> Result<Response, HttpError> {
    let query = query.unwrap_or_default();
    let parameter = |wanted| {
        let value = parameters(&query).find(|(name, _)| *name == wanted).map(|(_, value)| value);
        value.map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let value = parameter("for").unwrap_or_else(|| "60s".to_owned());
    let lasts = words::duration(&value).ok().filter(|lasts| DURATIONS.contains(lasts));
    let lasts = lasts.ok_or_else(|| format!("for {value:?}: expected 1s to 10m"))?;
    let place = server.streams.take(peer).ok_or_else(|| HttpError::unavailable(NO_STREAM))?;
    let (to, texts) = mpsc::channel(BUFFERED);
    let dropped = Arc::<AtomicU64>::default();
    let request = RecordRequest { pool: parameter("pool"), to, dropped: Arc::clone(&dropped) };
    server.ask(|answer| AdminRequest::Record(request, lasts, answer)).await??;
    let body = Body::new(RecordingBody { head: Some(RaceTrace::head(lasts)), texts, dropped, _place: place });
    let head = [(header::CONTENT_TYPE, "text/plain"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (head, body).into_response();
    response.extensions_mut().insert(LiveStream);
    Ok(response)
}

struct RecordingBody {
    head: Option<String>,
    texts: mpsc::Receiver<String>,
    dropped: Arc<AtomicU64>,
    _place: OwnedSemaphorePermit,
}

impl hyper::body::Body for RecordingBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |text: String| Ok(Frame::data(Bytes::from(text)));
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(frame(head)));
        }
        self.texts.poll_recv(cx).map(|text| {
            let dropped = || match self.dropped.swap(0, Relaxed) {
                0 => None,
                bytes => Some(format!("# dropped {bytes} bytes, because the reader was too slow\n")),
            };
            text.or_else(dropped).map(frame)
        })
    }
}

const DURATIONS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// The batches of 32 KiB that wait for a slow reader.
const BUFFERED: usize = 128;
