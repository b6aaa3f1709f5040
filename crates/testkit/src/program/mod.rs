//! Runs of the program: its commands, its config, its admin server, and all processes of one start.

mod admin;
mod authority;
mod config;
pub mod encrypted_pool;
pub mod lookup;
mod server;
mod service_manager;
pub mod tree;

pub use admin::{Admin, Metrics};
pub use authority::Authority;
pub use config::{Asked, Forwarder, NamedClients, Weighted};
pub use server::{Process, Server, copy_program, program};
pub use service_manager::ServiceManager;
