//! Network namespaces, and hosts made of them.

pub mod hosts;
pub mod namespace;
pub mod one_address;
