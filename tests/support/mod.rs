//! What the socket tests are built from: scripted backends, the real server, clients, and messages
//! made octet by octet. Everything binds port 0 and hands its address back; everything waits for a
//! condition with a deadline. Nothing here knows a type of hedgerow: the tests meet it as a user does.

// Each file below `tests/` is a crate of its own and uses another part of this module, so what one of
// them leaves aside is not dead; nor can anything here be reached from outside of its crate.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod authority;
mod backend;
mod client;
mod config;
mod forger;
mod http;
mod load;
mod message;
pub mod namespace;
mod script;
mod server;

use std::time::Duration;

pub use authority::Authority;
pub use backend::{Backend, Closed, Seen};
pub use client::{Client, TcpClient, framed};
pub use config::{Asked, Forwarder, Weighted};
pub use forger::Forger;
pub use http::{Admin, Answer, Metrics};
pub use load::{Load, Report, load_table, percentile};
pub use message::*;
pub use script::*;
pub use server::{Process, Server};

/// How long a test waits for what must happen. Far above what it takes even on a busy machine: only a
/// failing test ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// So many milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// An address of this host whose port is free by UDP and by TCP, for who cannot tell which one the system gave. It is below
/// those that the system gives out: another test would soon have one of them.
pub fn free_address() -> std::net::SocketAddr {
    loop {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], rand::random_range(10_000..32_000)));
        if std::net::UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Repeats `attempt` until it gives a value; for what the server does in its own time, such as finding
/// a backend dead. Each attempt is a question and its answer, so this does not spin.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
    }
}
