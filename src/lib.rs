//! Hedgerow: a tail-tolerant DNS forwarder and load balancer.

pub mod cli;
pub mod config;
pub mod forwarder;
pub mod net;
pub mod policy;
pub mod sim;
pub mod wire;
pub mod zone;
