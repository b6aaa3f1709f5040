//! The server side of DNS over QUIC (RFC 9250), by `quinn-proto`, which has no sockets, tasks or clock.
//!
//! A worker has one task per address (`serve.rs`, `worker.rs`), which owns all connections
//! (`connections.rs`) as values and does batched I/O. Connections share the table of TCP
//! ([`ConnectionTable`](super::tcp::ConnectionTable)), and each query has a
//! [`Responder`](super::tcp::Responder) for its stream (`query_stream.rs`).
//!
//! The kernel spreads datagrams over workers by addresses, but a client may change its address. So connection
//! IDs name their worker (`connection_id.rs`), and [`QuicListener`] passes datagrams to that worker.
//! Datagrams of another process are dropped.
//!
//! Handshake steps go through the worker's gate, like those of TLS. From 32 pending steps on, clients have to
//! validate their address (Retry).

mod connection;
mod connection_id;
mod connections;
mod listener;
mod query_stream;
mod resumption;
mod serve;
mod streams;
mod worker;

pub use listener::{QuicListener, QuicServer};
pub use query_stream::{QueryStream, Violation, whole_query};
pub use serve::{QuicListenerPart, serve};
