//! DNS over HTTP (RFC 8484): HTTP/2 and HTTP/1.1, encrypted or plain.
//!
//! ```text
//!   stream ◀──▶ http2 (h2) or http1 (hyper)
//!                   │ requests        ▲ responses
//!                   ▼ (request.rs)    │ (response.rs)
//!                 exchange ──▶ handler ──▶ Responder
//! ```
//!
//! A connection is one task with one `Responder`, as with DNS frames; a query carries its stream number. When
//! the address ends, an HTTP/2 client gets GOAWAY twice, so that requests sent before the first one arrives
//! are answered. An HTTP/1.1 client gets `connection: close` in the current response.

pub(crate) mod http1;
pub(crate) mod http2;
pub mod request;
pub mod response;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    Http2,
    /// Detected from the first bytes.
    Unknown,
}
