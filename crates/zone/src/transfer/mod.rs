//! Zone transfer between replicas: messages, records and timing.
//!
//! ```text
//! primary    change ─▶ Journal ─┬─▶ notify::NotifyAttempts ─ NOTIFY ──▶ secondary::Secondary     secondary
//!                               │                          ◀── SOA ───  (when, whom, AXFR or IXFR)
//!                               └─▶ offer ─▶ TransferWriter ─ messages ▶ TransferReader ─▶ Whole, Steps
//!                                            ServerChain ── TSIG ─────▶ ClientChain
//! ```
//!
//! `catalog` has zones that list zones (RFC 9432). This module opens no socket and reads no clock.

pub mod acl;
pub mod catalog;
mod difference;
mod notify;
mod offer;
mod reader;
mod records;
#[cfg(test)]
#[path = "tests/sample.rs"]
mod sample;
mod secondary;
pub mod tsig;
mod writer;

pub use crate::Records;
pub use acl::AccessList;
pub use difference::{Difference, Inexact, Journal};
pub use notify::{
    Notify, NotifyAttempts, NotifyStep, is_notify_response, read_notify, servers_to_notify, write_notify,
};
pub use offer::{TransferOffer, TransferQuery, read_soa_reply, read_transfer_query, write_transfer_query};
pub use reader::{TransferError, TransferKind, TransferProgress, TransferReader, TransferResult};
pub use records::{Serial, Soa};
pub use secondary::{Secondary, SecondaryStep, SecondaryVersion, ZoneService};
pub use writer::{MESSAGE_LIMIT, TransferWriter, differences, whole, write_datagram};
