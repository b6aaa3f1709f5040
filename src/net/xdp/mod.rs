//! AF_XDP: datagrams that bypass the kernel's network stack.
//!
//! A program (`filter.rs`) redirects frames to the socket of their queue (`socket.rs`), where a worker reads
//! and writes them (`frame.rs`). All other frames go through the kernel.

pub mod bpf;
pub mod filter;
pub mod frame;
mod held;
pub mod netlink;
mod next_hops;
pub mod program;
pub mod rights;
pub mod socket;
pub mod sources;
mod worker_sockets;

pub use self::held::HeldPort;
pub use self::next_hops::{NextHop, NextHops};
pub use self::worker_sockets::{BackendWay, Home, LentXsk, LinkId, WorkerSocket, WorkerSockets};

/// The warning for operators who set `[xdp]`.
pub const EXPERIMENTAL: &str = "[xdp] is experimental: in one measurement 1.4 % of the answers were lost and the cause is not known; see docs/src/xdp.md";
