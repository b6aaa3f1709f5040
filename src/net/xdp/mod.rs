//! AF_XDP: datagrams that bypass the kernel's network stack.
//!
//! A program (`filter.rs`) redirects frames to the socket of their queue (`socket.rs`), where a worker reads
//! and writes them (`frame.rs`). All other frames go through the kernel.

pub mod bpf;
mod bypass;
pub mod filter;
pub mod frame;
mod held_ports;
pub mod netlink;
mod next_hops;
pub mod program;
pub mod rights;
pub mod socket;
pub mod sources;

pub use self::bypass::{Home, KernelBypass, LentXsk, WorkerSocket};
#[cfg(test)]
pub(super) use self::held_ports::BY_KERNEL_EVERY;
pub use self::held_ports::HeldPorts;
pub use self::next_hops::{NextHop, NextHops};

/// The warning for operators who set `[xdp]`.
pub const EXPERIMENTAL: &str = "[xdp] is experimental: in one measurement 1.4 % of the answers were lost and the cause is not known; see docs/src/xdp.md";
