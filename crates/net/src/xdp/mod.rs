//! AF_XDP: datagrams that bypass the kernel's network stack.
//!
//! A program (`filter.rs`) redirects frames to the socket of their queue (`socket.rs`), where a worker reads
//! and writes them (`frame.rs`). All other frames go through the kernel.
//!
//! The rest of the program knows [`Bypass`] and [`BypassPorts`] only. A build without the cargo feature `xdp`
//! has `absent.rs` in place of this module.

pub mod bpf;
mod bypass;
pub mod filter;
pub mod frame;
pub mod netlink;
mod ports;
pub mod program;
pub mod rights;
pub mod socket;
pub mod sources;

pub use self::bypass::{Bypass, NextHop, NextHops, SharedXsk, WorkerSocket};
#[cfg(test)]
pub(super) use self::ports::BY_KERNEL_EVERY;
pub use self::ports::BypassPorts;

/// The warning for operators who set `[xdp]`.
pub const EXPERIMENTAL: &str = "[xdp] is experimental: in one measurement 1.4 % of the answers were lost and the cause is not known; see docs/src/xdp.md";
