//! Hedgerow: a DNS forwarder that hides slow and dead servers from clients, and authoritative servers.
//!
//! `docs/src/architecture.md` describes the path of a query, the threads, and where to add things.
//! The contract beside it lists what must not change, `docs/src/decisions.md` gives the reasons.
//!
//! Pure code decides, and a thin shell does the I/O. The engine of a worker has no socket and no clock: its
//! inputs are bytes, the time and a seeded generator.
//!
//! # Modules
//!
//! The path of a query:
//!
//! - `net`: sockets, batches of datagrams, connections from clients and to backends, AF_XDP.
//! - the crate `dns`: DNS messages, read and edited in place, and the addresses of servers.
//! - `forwarder`: one worker's forwarder, the shell around its engine.
//! - `engine`: the pure part of a forwarder: cache, single-flight, races, responses.
//! - the crate `hedge`: race, balance, hedge delay and budget, health.
//! - `cache`, `limit`, `state`: the cache; limits, access and cookies; what workers share about pools and
//!   backends.
//! - `authority`, `zone`: one worker's authority; zones, from master files and tables to answers.
//!
//! The control thread and what it drives:
//!
//! - `server`: starts, reloads and drains; owns the listening sockets and the workers.
//! - `config`, `load`: from TOML to checked values; reads the files that the config names.
//! - `health`, `discoverer` with `discover`, `replicas`: probes, members of pools, replicas that disagree.
//! - `secondary` with `transfer`, `notify`: zones from and for other servers.
//! - `admin`, `metrics`, `sight`, `taps`: HTTP API, counters, verdict and history, query log, dnstap and
//!   traces.
//! - `supervisor`, `service_manager`: several processes, systemd.
//!
//! Commands: `cli`. Modeled backends for `hedgerow simulate` and the tests: `sim`.
//!
//! # Invariants
//!
//! - `config`, `discover`, `cache`, `transfer`, `limit`, `zone`, `engine`, `sim`
//!   and `sight` are pure. A module uses only the modules below it. `tests/tidy.rs` checks both.
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
//!   replaced (`server/workers.rs`); a lost task of the control thread ends the process.
//! - After the start, the control thread waits for no disk until it saves state at the end.
//! - Bad input from the network is no error: hedgerow counts it, then drops it or answers as the RFC
//!   requires.
//! - `unsafe` is allowed only in `net/sys/batch.rs`, `net/sys/batch/control.rs`, `net/sys/options.rs`,
//!   `net/xdp/bpf.rs` and `net/xdp/socket.rs`.
//!
//! # Not included
//!
//! Recursion, DNSSEC validation, a scripting language, block lists, plug-ins. Messages that only pass through
//! are not decoded and encoded again. No trait exists only so that a test can fake something: the trait for
//! the I/O of an engine has two implementations in the program, `forwarder` and `sim`.

pub mod admin;
pub mod authority;
pub mod cli;
pub mod discover;
pub mod discoverer;
pub mod files;
pub mod forwarder;
pub mod health;
pub mod load;
pub mod notify;
pub mod replicas;
pub mod secondary;
pub mod server;
pub mod service_manager;
pub mod sight;
pub mod signals;
pub mod supervisor;
pub mod taps;
