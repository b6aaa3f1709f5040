//! AF_XDP: datagrams that pass by the kernel's network stack.
//!
//! A program at the driver (`filter.rs`) hands frames with datagrams for us to the socket of their queue (`socket.rs`), where a worker reads them
//! (`frame.rs`) and writes others. All else goes its way through the kernel, and so does everything when no socket is there.

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

pub use self::held::Held;
pub use self::next_hops::{NextHop, NextHops};
pub use self::worker_sockets::{BackendWay, Home, LentXsk, LinkId, WorkerSocket, WorkerSockets};

/// The state of `[xdp]`, for operators.
pub const EXPERIMENTAL: &str = "[xdp] is experimental: in one measurement 1.4 % of the answers were lost and the cause is not known; see docs/src/xdp.md";
