//! Hedgerow: a DNS forwarder that hides slow and dead servers from clients, and authoritative servers.
//!
//! `docs/src/architecture.md` describes the path of a query, the threads, and where to add things.
//! The contract beside it lists what must not change, `docs/src/decisions.md` gives the reasons.
//!
//! Pure code decides, and a thin shell does the I/O. The libraries are below `crates/`, each with a README;
//! the compiler holds the borders between them:
//!
//! ```text
//!   this program ──▶ net ──▶ engine ──▶ config ──▶ zone ──▶ limit ──▶ dns
//!                                └──▶ metrics        └──▶ hedge
//! ```
//!
//! All in this picture but `net` are pure: no socket, no clock, no runtime (`tests/tidy/crates.rs`).
//!
//! # Modules
//!
//! - `worker`: one worker thread. `worker::forwarder` is the shell around an engine, `worker::authority`
//!   answers from zones.
//! - `control`: the control thread, in four parts: `pools` (members, probes, replicas), `zones`
//!   (authorities, secondaries, catalogs), `observe` (verdict and history, query log, dnstap, traces),
//!   `process` (listeners, reload, drain).
//! - `admin`: the HTTP API and the page. `load`: the files that the config names.
//! - `supervisor`, `service_manager`: several processes, systemd. `cli`: the commands.
//!
//! # Invariants
//!
//! - A worker owns everything that its queries touch. Workers share only atomics (`state`, single-flight,
//!   limits) and the cache, whose locks are many and held for one copy.
//! - After warm-up, a query by UDP allocates nothing, starts no task and logs nothing
//!   (`tests/allocations.rs`). Without a cache it takes no lock. A query that is passed to another worker
//!   costs one allocation.
//! - The cache keeps no made-up answer and no reply that failed a check. A reply from one pool answers for no
//!   other pool. hedgerow makes up no answer if a backend could not be asked for lack of local resources.
//! - Each accepted query gets one response by its deadline, whatever backends, reloads and signals do, or
//!   hedgerow counts it as dropped, with the reason.
//! - The comparison of replicas changes no race and delays no query.
//! - Each task is in a set that its thread polls (`net/tasks.rs`). A lost task ends its thread. A worker is
//!   replaced (`control/workers.rs`); a lost task of the control thread ends the process.
//! - After the start, the control thread waits for no disk until it saves state at the end.
//! - Bad input from the network is no error: hedgerow counts it, then drops it or answers as the RFC
//!   requires.
//! - `unsafe` is allowed only in the files that `UNSAFE_FILES` in `tests/tidy.rs` lists.
//!
//! # Not included
//!
//! Recursion, DNSSEC validation, a scripting language, plug-ins. Messages that only pass through
//! are not decoded and encoded again. No trait exists only so that a test can fake something: the trait for
//! the I/O of an engine has two implementations, `worker::forwarder` and the simulator.

pub mod admin;
pub mod cli;
pub mod control;
pub mod files;
pub mod load;
pub mod service_manager;
pub mod signals;
pub mod supervisor;
pub mod worker;
