//! Delivery of one batch to a collector by HTTP: a new connection each time, because batches are seconds
//! apart, and one time limit.

use std::time::Duration;

use config::OtlpTarget;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use net::http_client::{self, HttpError};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeliveryError {
    /// The collector is overloaded; retry later.
    Later(String),
    /// The collector rejects the batch.
    Never(String),
}

/// Posts a batch. Returns the collector's warning, if it accepted the batch with one.
pub(super) async fn post(target: &OtlpTarget, body: Vec<u8>) -> Result<Option<String>, DeliveryError> {
    let never = |error: HttpError| DeliveryError::Never(format!("{}: {error}", target.address));
    match timeout(PATIENCE, exchange(target, body)).await {
        Ok(Ok((status, answer))) => read(status, &answer),
        Ok(Err(error)) => Err(never(error)),
        Err(_) => Err(never(format!("no answer within {} s", PATIENCE.as_secs()).into())),
    }
}

async fn exchange(target: &OtlpTarget, body: Vec<u8>) -> Result<(StatusCode, Bytes), HttpError> {
    let stream = TcpStream::connect(target.address).await?;
    let request = http_client::request(Method::POST, &target.path, &target.address.to_string());
    http_client::exchange(stream, request.body(Full::new(Bytes::from(body)))?, MAX_ANSWER).await
}

fn read(status: StatusCode, answer: &[u8]) -> Result<Option<String>, DeliveryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CollectorResponse {
        partial_success: Option<PartialSuccess>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct PartialSuccess {
        rejected_spans: Value,
        error_message: String,
    }
    match status {
        _ if status.is_success() => {
            let partial =
                serde_json::from_slice::<CollectorResponse>(answer).ok().and_then(|answer| answer.partial_success);
            let PartialSuccess { rejected_spans, error_message } = partial.unwrap_or_default();
            // Numbers of 64 bits are strings in this JSON, but some collectors send numbers.
            let rejected = rejected_spans.as_u64().or_else(|| rejected_spans.as_str()?.parse().ok()).unwrap_or(0);
            let is_content = rejected == 0 && error_message.is_empty();
            let message: String = error_message.chars().take(MAX_MESSAGE).collect();
            Ok((!is_content).then(|| format!("the collector has rejected {rejected} spans: {message:?}")))
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(DeliveryError::Later(format!("the collector says {status}"))),
        _ => Err(DeliveryError::Never(format!("the collector says {status}"))),
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

const MAX_ANSWER: usize = 64 << 10;

/// The maximum length in characters of a collector's message in the log.
const MAX_MESSAGE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let ok = |answer: &str| read(StatusCode::OK, answer.as_bytes()).expect("it was taken");
        for content in
            ["", "{}", "nonsense", "{\"partialSuccess\":{}}", "{\"partialSuccess\":{\"rejectedSpans\":\"0\"}}"]
        {
            assert_eq!(ok(content), None, "{content}");
        }
        let complaint = Some("the collector has rejected 3 spans: \"too old\"".to_owned());
        assert_eq!(ok("{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"too old\"}}"), complaint);
        assert_eq!(ok("{\"partialSuccess\":{\"rejectedSpans\":3,\"errorMessage\":\"too old\"}}"), complaint);
        assert_eq!(read(StatusCode::ACCEPTED, b""), Ok(None));
    }

    #[test]
    fn who_has_no_time_is_told_from_who_does_not_want_it() {
        for (status, is_later) in
            [(429, true), (502, true), (503, true), (504, true), (400, false), (500, false), (302, false)]
        {
            let answer = read(StatusCode::from_u16(status).expect("a status"), b"");
            assert_eq!(matches!(answer, Err(DeliveryError::Later(_))), is_later, "{status}: {answer:?}");
            assert!(answer.is_err(), "{status}");
        }
    }
}
