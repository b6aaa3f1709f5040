//! HTTP/1.1 requests to other programs: etcd, collectors of traces, and the admin server.

use std::error::Error;
use std::io;
use std::pin::pin;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::http::request;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// An error of a connection, a request or a response.
pub type HttpError = Box<dyn Error + Send + Sync>;

/// A function that gets a part of a body.
pub type TakePiece<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// Returns a request with the headers that all requests have.
pub fn request(method: Method, path: &str, host: &str) -> request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("hedgerow/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json")
}

/// Sends the only request of a connection. Returns the status and the body of the response, at most `max`
/// bytes.
///
/// # Errors
/// If the connection ends before the response, or the response is invalid or too long.
pub async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    max: usize,
) -> Result<(StatusCode, Bytes), HttpError> {
    download(stream, request, max, None).await
}

/// Sends the only request of a connection, as [`exchange`] does. `take` gets the body of a successful
/// response in pieces, of any length, and the returned body is empty.
///
/// # Errors
/// As [`exchange`], and the errors of `take`.
pub async fn download(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    max: usize,
    take: Option<TakePiece<'_>>,
) -> Result<(StatusCode, Bytes), HttpError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async move {
        let response = sender.send_request(request).await?;
        let (status, mut body) = (response.status(), response.into_body());
        let Some(take) = take.filter(|_| status.is_success()) else {
            return Ok((status, read_body(body, max).await?));
        };
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                take(&piece)?;
            }
        }
        Ok((status, Bytes::new()))
    };
    let (mut answered, mut connection) = (pin!(answered), pin!(connection));
    let mut is_connected = true;
    loop {
        // Poll the connection first: its data at the end is the response.
        tokio::select! {
            biased;
            _ = &mut connection, if is_connected => is_connected = false,
            answer = &mut answered => return answer,
        }
    }
}

/// Reads a whole body of at most `max` bytes.
///
/// # Errors
/// If the connection ends early, or with [`LengthLimitError`].
pub async fn read_body(body: Incoming, max: usize) -> Result<Bytes, HttpError> {
    Ok(Limited::new(body, max).collect().await?.to_bytes())
}

/// Returns true if a body was too long.
pub fn is_too_long(error: &HttpError) -> bool {
    error.is::<LengthLimitError>()
}
