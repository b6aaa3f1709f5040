//! What the tests of hedgerow are made of: scripted backends, clients, certificates, name servers of others,
//! network namespaces, runs of the program, and messages made byte by byte.
//!
//! Everything binds port 0 and returns its address. Everything waits for a condition with a deadline.
//!
//! The crate knows no type of hedgerow: tests use the program as a user does, by its command line, its
//! config, its sockets and its JSON. So it depends on no other crate of the workspace, and the tests of every
//! crate may use it. It never contains a test, and no program depends on it.

#![forbid(unsafe_code)]
#![allow(clippy::new_without_default, reason = "a port or a key is taken: that is no default")]

mod backends;
mod certificates;
mod clients;
mod daemon;
mod machines;
mod message;
mod page;
pub mod peers;
mod program;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

pub use backends::*;
pub use certificates::{CertificateAuthority, Leaf};
pub use clients::*;
pub use daemon::{Daemon, find_program, need_program};
pub use machines::*;
pub use message::*;
pub use page::*;
pub use program::*;

/// How long a test waits for what must happen. Far above what it takes even on a busy machine: only a
/// failing test ever waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a number of milliseconds.
pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns an address of this host whose port is free by UDP and by TCP, for servers that cannot report the
/// port that the system gave them. The port is below the system's own range, from which another test would
/// soon take it. No other test of this process gets the same.
pub fn free_address() -> std::net::SocketAddr {
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
pub fn leave_out(test: &str, why: &str) {
    assert!(std::env::var_os("HEDGEROW_REQUIRED").is_none(), "{test} cannot be tested: {why}");
    eprintln!("{test}: not tested, {why}");
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
