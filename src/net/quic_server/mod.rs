//! DNS over QUIC, the server's side (RFC 9250): by `quinn-proto`, which knows the protocol and has no sockets, tasks nor clock.
//!
//! A worker has one task for an address (`serve.rs`, `worker.rs`): datagrams are received and sent in batches, as those of UDP are, and all connections
//! are values of that task, with one alarm for the earliest that is due. A connection (`connection.rs`) has its place among those by TCP
//! ([`Connections`](super::tcp::Connections)), and each query a [`Responder`](super::tcp::Responder) that leads back to its stream.
//! What is allowed on a stream stands in `query_stream.rs`.
//!
//! The kernel spreads datagrams over workers by addresses, QUIC knows connections by their IDs, and a client may change its address: so
//! IDs name their worker (`connection_id.rs`), and what another worker gets is passed on through [`QuicListener`] before QUIC sees it.
//! What is of another process is dropped.
//!
//! Steps of handshakes go through the worker's gate as those of TLS do. From when 32 of them wait, clients have to show
//! that their address is theirs (Retry) before anything is kept of them.

mod connection;
mod connection_id;
mod listener;
mod query_stream;
mod resumption;
mod serve;
mod stream;
mod worker;

pub use listener::{QuicListener, QuicServer};
pub use query_stream::{QueryStream, Violation, whole_query};
pub use serve::{Listening, serve};
