//! Queries to backends and other servers.
//!
//! | part | content |
//! |---|---|
//! | [`sockets`] | a worker's UDP sockets and stream connections to its backends |
//! | [`connection`] | a connection as a value: bytes in, messages out, for any stream transport |
//! | `tcp`, `http`, `quic` | the protocols of such a connection |
//! | [`tls`] | trust, names and configuration of TLS to servers |
//! | [`client`], [`server_client`] | clients of one server for probes, transfers and tools |
//! | [`shared_client`] | such a client that concurrent queries share, for fetches and tools |

pub mod client;
pub mod connection;
mod http;
mod quic;
pub mod server_client;
pub mod shared_client;
pub mod sockets;
mod tcp;
pub mod tls;
