//! Queries from clients: one listener for each address and transport, and their connections.
//!
//! | part | transport |
//! |---|---|
//! | [`udp`] | datagrams, with the defense against overload ([`pressure`]) |
//! | [`tcp`] | DNS over TCP (RFC 7766); the table of connections that all stream transports share |
//! | [`tls`] | certificates and handshakes of TLS (RFC 7858) |
//! | [`http`] | DNS over HTTPS (RFC 8484), HTTP/1.1 and HTTP/2 |
//! | [`quic`] | DNS over QUIC (RFC 9250) |
//! | `account.rs` | what all stream transports keep of a connection: queries in flight, clock, end |
//! | [`service`] | what a listener of connections needs, by TCP and QUIC |
//! | [`listening`] | the sockets of all listeners, which outlive a reload |

mod account;
pub mod http;
pub mod listening;
pub mod pressure;
pub mod quic;
pub mod service;
pub mod tcp;
pub mod tls;
pub mod udp;
