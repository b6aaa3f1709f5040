//! Hedgerow: a tail-tolerant DNS forwarder and load balancer.

pub mod authority;
pub mod cli;
pub mod config;
pub mod forwarder;
pub mod metrics;
pub mod net;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod server;
pub mod sim;
pub mod wire;
pub mod zone;
