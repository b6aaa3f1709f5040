//! Sockets: binding, receiving and sending of datagrams and streams. This crate moves bytes, counts, and
//! reports what failed. It never decides which backend to ask or what to answer.
//!
//! | part | content |
//! |---|---|
//! | [`from_clients`] | listeners and connections of clients: `udp`, `tcp`, `tls`, `http`, `quic` |
//! | [`to_backends`] | sockets and connections to backends: `tcp`, `tls`, `http`, `quic`, and their pools |
//! | [`sys`] | system calls: batches, socket options, descriptors, the clock |
//! | [`tasks`] | the set of all tasks of one thread |
//! | [`http_client`] | requests to etcd, collectors and the admin server |
//! | [`proxy_protocol`], [`refusal`] | the PROXY header of both directions; failed sends and their reasons |

#[cfg(feature = "faults")]
pub mod faults;
pub mod from_clients;
pub mod http_client;
pub mod proxy_protocol;
pub mod refusal;
pub mod sys;
pub mod tasks;
pub mod to_backends;
#[cfg(feature = "xdp")]
#[path = "xdp/ports.rs"]
mod xdp;
#[cfg(not(feature = "xdp"))]
#[path = "xdp/absent.rs"]
mod xdp;

pub use self::xdp::Bypass;
use self::xdp::BypassPorts;
