//! Clients: single ones of each transport, load, and a client with a forged address.

mod client;
mod forger;
pub mod http2;
mod load;
pub mod quic_client;
mod tls;

pub use client::{Client, TcpClient, framed};
pub use forger::Forger;
pub use load::{Load, Report, load_answer, load_table, percentile};
pub use tls::TlsClient;
