//! Queries to backends and other servers.
//!
//! | part | content |
//! |---|---|
//! | [`sockets`] | a worker's UDP sockets and stream connections to its backends |
//! | [`connection`] | a connection as a value: bytes in, messages out, for any stream transport |
//! | `tcp`, `http`, `quic` | the protocols of such a connection |
//! | [`tls`] | trust, names and configuration of TLS to servers |
//! | [`streams`] | connections for replies that are fetched whole by TCP |
//! | [`client`], [`server_client`] | clients of one server for probes, transfers and tools |

pub mod client;
pub mod connection;
mod http;
mod quic;
pub mod server_client;
pub mod sockets;
pub mod streams;
mod tcp;
pub mod tls;
