//! Zone transfer: how replicas keep themselves. Messages and records in, messages and records out, and when to do what.
//!
//! ```text
//! primary    change ─▶ Journal ─┬─▶ notify::NotifyAttempts ─ NOTIFY ──▶ secondary::Secondary     secondary
//!                               │                          ◀── SOA ───  (when, whom, AXFR or IXFR)
//!                               └─▶ offer ─▶ Writer ──── messages ────▶ Reader ─▶ Records, Differences
//!                                            ServerChain ── TSIG ─────▶ ClientChain
//! ```
//!
//! `catalog` has zones that list zones (RFC 9432): which of them are had, and what we list ourselves.
//!
//! This room opens no socket and reads no clock: whoever drives it sends what it writes and tells it what came and when.

pub mod acl;
pub mod catalog;
mod difference;
mod notify;
mod offer;
mod reader;
mod records;
#[cfg(test)]
mod sample;
mod secondary;
mod serial;
pub mod tsig;
mod writer;

pub use acl::AccessList;
pub use difference::{Difference, Inexact, Journal};
pub use notify::{Notify, NotifyAttempts, NotifyStep, Targets, is_notify_response, read_notify, write_notify};
pub use offer::{Offer, TransferQuery, read_soa_reply, read_transfer_query, write_transfer_query};
pub use reader::{Progress, Reader, Received, TransferError, TransferKind};
pub use records::{Records, Soa};
pub use secondary::{Secondary, SecondaryStep, Service, Version};
pub use serial::Serial;
pub use writer::{MESSAGE_LIMIT, Writer, differences, soa_alone, whole, write_datagram};
