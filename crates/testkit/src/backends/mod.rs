//! Scripted backends: by UDP and TCP, by TLS, by HTTPS, and by QUIC.

mod backend;
mod https;
mod quic;
pub mod quic_server;
mod script;
mod stream;
mod tcp_peer;

pub use backend::{Backend, Closed, Seen};
pub use https::{HttpManner, HttpsBackend};
pub use quic::{QuicBackend, QuicManner};
pub use script::*;
pub use stream::{Manner, StreamBackend};
pub use tcp_peer::TcpPeer;

/// The name in the certificates of scripted backends.
const NAME: &str = "dns.example";
