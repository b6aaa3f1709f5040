//! Hedgerow: a tail-tolerant DNS forwarder and load balancer, and the authoritative servers behind it.
//!
//! Bytes come in, a race is run, one response goes out. What decides is a pure value without sockets or clock, the engine of a
//! worker; everything around it moves bytes in batches and allocates nothing on the way.
//!
//! ```text
//!                     control thread                                  worker threads, one runtime each
//!        ┌──────────────────────────────────────┐        ┌─────────────────────────────────────────────────┐
//!        │ cli ──▶ server ──▶ listeners, start, │commands│  net::udp ─┐ net::quic_server     ┌▶ net::batch │
//! signals│           │        commit, drain ────┼───────▶│  net::tcp ─┤ (TLS, HTTP too)      │  (sendmmsg) │ clients
//!   HTTP │ admin ◀───┤                          │        │            ▼        responses     │             │
//!        │           │      cache ◀─────────────┼─locks──┼▶        forwarder ───────────────┘             │
//!        │        health ──▶ state (up, down)◀──┼─atomics┼▶   events │  ▲  │ queries                       │
//!        │           ▲                          │        │           ▼  │  ▼                               │
//!        │           └──────── health events ◀──┼────────┼──      engine │ net::backend_sockets (IDs) ◀─────┼▶ backends
//!        └──────────────▲───────────────────────┘        │   (policy::race) └── Io                         │
//!         reload thread: load                            │  authority ──▶ zone::respond                    │ (TS)
//!                                                        └─────────────────────────────────────────────────┘
//! ```
//!
//! # The path of a query through the LS
//!
//! 1. A listener becomes readable; up to 64 datagrams, each perhaps coalesced of many by GRO, are received by one call (`net/udp.rs`,
//!    `net/batch.rs`) and handed out 64 datagrams at a time (`net/gro.rs`). By an interface of `[xdp]` up to 64 frames are read where the kernel
//!    has put them, and their responses leave as frames (`net/xdp/`, `server/worker/xdp.rs`). Where more come than can be answered, the oldest
//!    are dropped (`net/pressure.rs`). A query by TCP comes from its connection's task (`net/tcp/`), by TLS too, after
//!    a handshake of which one step is made between two looks at the sockets (`net/tcp/handshake.rs`, `net/tls_server/`), and by
//!    HTTP as a request, one of many of its connection (`net/tcp/http/`). By QUIC it is a stream of a connection that one task a worker
//!    has with all others of its sockets (`net/quic_server/`). Who asks through a proxy says so first (`net/proxy_protocol.rs`). `now` is taken once for each chunk of them.
//! 2. Each is read as a view of its bytes, or refused (`wire/query.rs`); its cookie is checked, and another made if need be
//!    (`limit/cookies.rs`); the route's pool is found (`state/`). That is done for a few at a time, and then a large cache
//!    fetches what it will look at for these (`forwarder/receive.rs`, `cache/memory_prefetch.rs`). From here on the engine
//!    decides (`engine/mod.rs`); what it wants done, it asks of its `Io` (`engine/io.rs`, `forwarder/outside.rs`).
//! 3. If the cache has a good answer, that is copied into a response, and the way ends here (`engine/cached.rs`, `cache/`).
//! 4. If an equal query is in flight, this one joins its race (`engine/dispatch.rs`, `engine/in_flight.rs`). If another
//!    worker has it, that worker gets it (single-flight, `engine/single_flight.rs`).
//! 5. Otherwise a race starts among the pool's backends, in the order that `policy/balance.rs` gives. The race says whom
//!    to ask, until when to wait, when it is over (`policy/race.rs`), and is obeyed (`engine/active_race.rs`).
//!    What could not leave for want of something of our own is no failure of a backend (`engine/shortage.rs`).
//! 6. Queries to one backend leave by one call, from a random one of its sockets, each with an ID of its own
//!    (`net/backend_sockets.rs`, `policy/query_slots.rs`), and with the backend's cookies, if probes have found that it gives
//!    them (`state/backend_cookies.rs`). Those of one length are segments of one datagram to the kernel, which cuts it apart
//!    (GSO, `net/gso.rs`).
//!    Where the kernel would have them leave by an interface with AF_XDP, they leave as frames, and from the same ports
//!    (`net/backend_sockets/by_xdp.rs`).
//!    To a backend by stream they leave on one of its connections, by one write for all of a turn (`net/backend_sockets/connections/`,
//!    and as a value without sockets `net/backend_connection/`); what waits on one that ends is asked elsewhere (`engine/connections.rs`).
//! 7. A reply is matched by socket, ID and question, and by what else it must bear (`engine/reply.rs`, `engine/proof.rs`); if
//!    too many do not match, their socket is void and what waits on it is asked again (`engine/again.rs`). If a connection ends, what
//!    waits on it is lost, and each race asks the next backend at once (`engine/connections.rs`). A reply is ranked, and
//!    handed to the race. When that is over, what it has come to is remembered, its slots are quarantined, and each client that
//!    waits gets the reply in its own form: ID, case, EDNS, size (`engine/finish.rs`, `forwarder/responses.rs`,
//!    `wire/relay.rs`). If it fails or takes long, they get what is stale instead. A truncated reply is fetched whole for clients
//!    by TCP, over connections that are kept (`forwarder/fetches.rs`, `net/streams.rs`).
//! 8. At the end of the tick everything that was queued leaves, and the alarm is set for what is next (`forwarder/tick.rs`).
//!
//! A query to one of our own TS takes the first step and then `zone::respond`, bytes to bytes (`authority/mod.rs`). If there are
//! many names, `zone::prefetch_memory` has fetched before what the queries of the batch will read.
//!
//! Zone files are read before anything is bound, and again at a reload, those that have changed (`load/zones.rs`): several
//! at a time, and a large one by two threads, of which one reads and the other builds (`load/parallel.rs`). A
//! `zone::ZoneDb` is all that one TS knows: zones, which a reload shares with the one before, and tables. A reload reads on a
//! thread of its own, and compares there what it has read with what is in force; the control thread then swaps the two
//! (`server/reload.rs`). Addresses, authorities and the LS come and go by that: listening sockets belong to the process
//! (`server/listeners.rs`), sections begin, move and end in the workers (`server/sections.rs`, `server/worker/`), and workers
//! agree on when an address is read. Signals have a thread of their own as well (`signals.rs`).
//!
//! What observes queries gets records through buffers that change hands with one thread at the end of a turn (`taps/`). It may lose
//! records, and never delays a query.
//!
//! With `watch` one more thread looks at the files now and then, and asks for a reload when they say something else (`load/watch`,
//! `server/watch.rs`).
//!
//! What a server knows, has learnt and counted goes to the process that serves after it (`server/carried`), the cache as the octets
//! that are saved of it, and the TCP connections of clients, each as it falls idle (`net/tcp/moved.rs`).
//!
//! The interfaces of `[xdp]` are attached, and followed as the kernel changes them, on the control thread, which gives workers their sockets and the next
//! hops of backends (`server/xdp/`).
//!
//! Who an encrypted backend must be stands in its address and in the config (`address/`); what a connection to it needs is made of that once
//! for all workers (`net/tls/`, `state/backend.rs`). The files of certificates are looked at each minute (`server/certificates.rs`).
//!
//! Zones also come from other servers and go there. On the control thread, `secondary` asks primaries when
//! `transfer::Secondary` says so, makes zones of what they send, and hands them to `server/authorities.rs`, which makes a new
//! state of the authority; `notify` tells who has copies. A worker takes NOTIFY, passes it on, and sends
//! transfers message by message as each client takes them (`authority/special.rs`, `net/tcp/`). Which zones there are may be told by
//! others, in catalog zones, and told to others (`transfer/catalog/`, `server/authorities/catalogs.rs`).
//!
//! Members of pools may come by themselves: on the control thread `discoverer` asks etcd, names and files, `discover` decides who is a
//! member and why, and what it has decided goes into force as a change by hand does (`server/members.rs`). An authority tells in etcd where
//! it is, for as long as it serves. No query waits for any of that.
//!
//! Members with the same data are to say the same. Where replies to one question differ, a worker leaves that question beside the state of
//! the pool (`engine/compared.rs`, `state/compared.rs`); on the control thread `replicas` asks all members, a recent question now and then
//! as well, and `policy/divergence.rs` says what of it lasts. Which versions of zones they have is told by their replies
//! (`engine/pool/versions.rs`) or asked for (`replicas/soa_probes.rs`), and kept beside that (`state/serials.rs`, `policy/serials.rs`).
//!
//! What there is to see of all this and to change in it while it runs goes through `admin` (HTTP), which asks the control
//! thread; `hedgerow ctl` is a client of that. Once a second the control thread shows all counters to `sight`, which keeps what was
//! added, judges it, and tells whoever listens (`server/seen.rs`).
//!
//! The service manager that has started the process may have passed listening sockets, and keeps ours; it is told how we do
//! (`service_manager/`).
//!
//! With `[supervisor]` that is one process of several: a supervisor starts and watches it, and standbys hold the same listening
//! sockets and wait for its lock (`supervisor/`). Which process is started, told or killed next a pure machine says
//! (`supervisor/tree.rs`).
//!
//! What all this decides stands in `engine/` and `policy/`, and needs no network to be tried: `sim/` drives the same engine among
//! modelled backends, a million queries in a matter of seconds, for `hedgerow simulate` and for the tests.
//!
//! # Invariants
//!
//! - `config`, `discover`, `wire`, `policy`, `cache`, `zone`, `transfer`, `limit`, `engine`, `sim` and `sight` are pure: `now`, bytes and a
//!   seeded generator are arguments. `tests/tidy.rs` holds that, and that arrows between rooms point down only.
//! - A worker owns everything that its queries touch. Between workers nothing is shared on the hot path but atomics (the state
//!   of backends, the turn of round-robin, the hedge budget, single-flight) and the cache, whose locks are many and held for one copy.
//! - After warm-up a query by UDP, forwarded or answered from the cache or a zone, allocates nothing, starts no task and
//!   logs nothing (`tests/allocations.rs`). Without a cache it takes no lock. A query for whose question another worker has a race
//!   is handed over to that, for which its octets are copied: one allocation.
//! - What was made up is never kept, nor is what failed a check; what one pool said answers for no other. Nothing is made up
//!   where somebody who was to be asked could not be.
//! - Every query that is taken gets one response, by its deadline, whatever backends, reloads and signals do; or it is
//!   counted as dropped, with the reason.
//! - What replicas say is compared beside races, and changes none. What a worker leaves of it has no room, or somebody is looking there
//!   just now: then it is not reported, and nobody waits.
//! - No task ends unseen: each is in a set that its thread polls (`net/tasks.rs`), and what is lost ends that thread, since a socket
//!   that nobody reads is worse than none. A worker is replaced (`server/workers.rs`); the control thread ends the process. It waits
//!   for no disk once it is ready, but for what it saves at the end.
//! - What a message can cause is never an error: it is an outcome, counted, then dropped or answered as the RFC says.
//! - `unsafe` stands in `net/batch.rs`, `net/batch/control.rs`, `net/options.rs`, `net/xdp/bpf.rs` and `net/xdp/socket.rs` alone.
//!
//! # What is deliberately absent
//!
//! Recursion, DNSSEC validation, a scripting language, blocking lists, a plug-in system. A decode and re-encode of messages
//! that only pass through. A trait whose only purpose is that a test can fake something: that of
//! an engine's I/O has two makers in the program, `forwarder` and `sim`.

pub mod address;
pub mod admin;
pub mod authority;
pub mod cache;
pub mod cli;
pub mod config;
pub mod discover;
pub mod discoverer;
pub mod engine;
#[cfg(feature = "faults")]
pub mod faults;
pub mod files;
pub mod forwarder;
pub mod health;
pub mod limit;
pub mod load;
pub mod log_linear;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod policy;
pub mod replicas;
pub mod secondary;
pub mod server;
pub mod service_manager;
pub mod sight;
pub mod signals;
pub mod sim;
pub mod state;
pub mod supervisor;
mod sync;
pub mod taps;
pub mod transfer;
pub mod wire;
pub mod zone;
