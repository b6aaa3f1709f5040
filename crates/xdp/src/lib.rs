//! AF_XDP: datagrams that bypass the kernel's network stack.
//!
//! An XDP program ([`filter`]) redirects frames to the socket of their queue ([`socket`]), where a worker
//! reads and writes them ([`frame`]). All other frames go through the kernel. [`Bypass`] holds the sockets of
//! one worker, and the links on which responses and queries leave.
//!
//! This crate owns frames, rings, XDP programs, and requests to the kernel about interfaces, routes and
//! neighbors. It never reads a DNS message, and never decides which interface to use or which query to
//! answer.

pub mod bpf;
mod bypass;
pub mod filter;
pub mod frame;
pub mod netlink;
pub mod program;
pub mod rights;
pub mod socket;
pub mod sources;

pub use self::bypass::{Bypass, HeldPort, NextHop, NextHops, SharedXsk, WorkerSocket};

/// The warning for operators who set `[xdp]`.
pub const EXPERIMENTAL: &str = "[xdp] is experimental: in one measurement 1.4 % of the answers were lost and the cause is not known; see docs/src/xdp.md";
