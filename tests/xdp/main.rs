//! The same scenarios by sockets and by AF_XDP, over veth pairs between network namespaces: same answers, same counters, same limits.
//!
//! `cargo test --test xdp`, as root; each test runs in a namespace of its own, and all that it makes there ends with it. Where the
//! machine does not let that be, it is said, and is a failure where `HEDGEROW_REQUIRED` is set. `by_socket` and `by_xdp` at the end of a
//! name say how the server took its datagrams.

mod authority;
mod backends;
mod check;
mod faults;
mod forwarder;
mod frames;
mod listeners;
mod oracle;
mod random;
mod rings;
mod sizes;
mod supervisor;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "it is that of all tests, and these need a part of it")]
mod support;
mod wire;
mod world;
