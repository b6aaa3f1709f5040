//! Sockets: binding, receiving and sending of datagrams and streams.

pub mod backend_connection;
pub mod backend_sockets;
pub mod batch;
pub mod bind;
pub mod busy_poll;
pub mod client;
pub mod clock;
pub mod descriptors;
mod gro;
mod gso;
pub mod listening;
pub mod options;
mod pressure;
pub mod proxy_protocol;
pub mod quic_server;
pub mod refusal;
pub mod server_client;
pub mod streams;
pub mod tasks;
pub mod tcp;
pub mod tls;
pub mod tls_server;
pub mod udp;
pub mod xdp;
