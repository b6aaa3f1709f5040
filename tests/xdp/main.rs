//! Runs the same scenarios by sockets and by AF_XDP, over veth pairs between network namespaces, and expects
//! the same answers, counters and limits.
//!
//! Run `cargo test --test xdp` as root. Each test runs in a separate namespace, which is removed with
//! everything in it when the test ends. A test that the machine does not support is skipped with a message,
//! or fails if `HEDGEROW_REQUIRED` is set. A test name ends with `by_socket` or `by_xdp`, which is how the
//! server receives datagrams.

mod authority;
mod backends;
mod check;
mod failover;
mod faults;
mod forwarder;
mod frames;
mod listeners;
mod oracle;
mod random;
mod rings;
mod sizes;
mod wire;
mod world;
