//! Nearly all tests that stand outside of the crate, in one binary, so that `cargo test` links once. A file is a module:
//! `cargo test --test it races::` runs one of them.
//!
//! Apart stand `allocations`, which replaces the allocator of its process, and `tidy` and `instruction_guard`, which read files
//! and need no crate.

mod addresses;
mod admin;
mod authority;
mod balance;
mod busy_poll;
mod cache;
mod cache_model;
mod cached;
mod carried;
mod changes;
mod chaos;
mod ctl;
mod ctl_cache;
mod docs;
mod failover;
mod ferret;
mod forging;
mod fuzz;
mod health;
mod hedges;
mod hostile;
mod identity;
mod in_flight;
mod lifecycle;
mod lookup;
mod manual;
mod messages;
mod moved;
mod nsd;
mod package;
mod persist;
mod probes;
mod processes;
mod race_seeds;
mod races;
mod record_text;
mod rfc_1034;
mod rfc_1982;
mod rfc_1995;
mod rfc_1996;
mod rfc_2181;
mod rfc_2308;
mod rfc_4035;
mod rfc_4592;
mod rfc_5155;
mod rfc_5936;
mod rfc_6672;
mod rfc_7873;
mod rfc_8767;
mod rfc_8945;
mod rfc_9018;
mod rfc_9471;
mod rfc_9520;
mod service_manager;
mod shifts;
mod simulate;
mod stale;
mod support;
mod tcp;
mod transfer_peers;
mod transfers;
mod wire_oracle;
#[cfg(feature = "faults")]
mod workers;
mod zone_checks;
mod zone_model;
mod zones;
