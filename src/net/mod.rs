//! Sockets: how datagrams and streams are bound, received and sent. Knows nothing of names and races.

pub mod batch;
pub mod bind;
pub mod clock;
pub mod descriptors;
pub mod exchange;
pub mod options;
mod portion;
mod pressure;
pub mod refusal;
pub mod streams;
pub mod tasks;
pub mod tcp;
mod train;
pub mod udp;
pub mod vigil;
