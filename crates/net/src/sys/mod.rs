//! System calls: batches of datagrams, binding, socket options, descriptors and clocks.

pub mod batch;
pub mod bind;
pub mod busy_poll;
pub mod clock;
pub mod descriptors;
mod gro;
pub mod group;
mod gso;
pub mod memory;
pub mod options;
pub mod slice;
