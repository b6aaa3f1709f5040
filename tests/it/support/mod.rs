//! What the socket tests are built from: scripted backends, the real server, clients, and messages made byte
//! by byte. Everything binds port 0 and hands its address back; everything waits for a condition with a
//! deadline. Nothing of this knows a type of hedgerow: the tests meet it as a user does.
//!
//! Tests of one room share a file beside that, which does know its types: [`admin_site`], [`cache`],
//! [`scenario_record`],
//! [`transfers`] and [`zones`]; [`browser`], [`encrypted_peers`], [`hosts`], [`lookup`] and [`peers`] run
//! commands.

pub(crate) mod admin_site;
mod authority;
mod backend;
pub(crate) mod browser;
pub(crate) mod cache;
pub(crate) mod catalog_peers;
pub(crate) mod certificates;
mod client;
mod config;
pub(crate) mod encrypted_peers;
pub(crate) mod encrypted_pool;
pub(crate) mod etcd;
mod forger;
pub(crate) mod hosts;
mod http;
pub(crate) mod http2;
mod https_backend;
mod load;
pub(crate) mod lookup;
mod message;
pub(crate) mod namespace;
pub(crate) mod one_address;
pub(crate) mod peers;
mod quic_backend;
pub(crate) mod quic_client;
pub(crate) mod running;
pub(crate) mod scenario_record;
mod script;
mod server;
mod service_manager;
pub(crate) mod stand_in;
mod stream_backend;
pub(crate) mod transfers;
pub(crate) mod tree;
pub(crate) mod zones;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

pub(crate) use authority::Authority;
pub(crate) use backend::{Backend, Closed, Seen};
pub(crate) use client::{Client, TcpClient, framed};
pub(crate) use config::{Asked, Forwarder, NamedClients, Weighted};
pub(crate) use forger::Forger;
pub(crate) use http::{Admin, Metrics};
pub(crate) use https_backend::{HttpManner, HttpsBackend};
pub(crate) use load::{Load, Report, load_answer, load_table, percentile};
pub(crate) use message::*;
pub(crate) use quic_backend::{QuicBackend, QuicManner};
pub(crate) use script::*;
pub(crate) use server::{Process, Server, copy_program};
pub(crate) use service_manager::ServiceManager;
pub(crate) use stream_backend::{Manner, StreamBackend, TestAuthority};

/// How long a test waits for what must happen. Far above what it takes even on a busy machine: only a
/// failing test ever waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns an address of this host whose port is free by UDP and by TCP, for servers that cannot report the
/// port that the system gave them. The port is below the system's own range, from which another test would
/// soon take it. No other test of this process gets the same.
pub(crate) fn free_address() -> std::net::SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(rand::random_range(0..COUNT)));
    loop {
        let port = FIRST + NEXT.fetch_add(1, Relaxed) % COUNT;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port")));
        if std::net::UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Prints that a check is left out because this machine lacks something. That is a failure where
/// `HEDGEROW_REQUIRED` is set, because there all that tests need must be installed.
pub(crate) fn leave_out(test: &str, why: &str) {
    assert!(std::env::var_os("HEDGEROW_REQUIRED").is_none(), "{test} cannot be tested: {why}");
    eprintln!("{test}: not tested, {why}");
}

/// Repeats `attempt` until it gives a value; for what the server does in its own time, such as finding
/// a backend dead. Each attempt is a question and its answer, so this does not spin.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
    }
}
