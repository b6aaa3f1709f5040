//! etcd by its JSON gateway: a client, and the follower of keys below a prefix.

mod client;
mod follow;
mod http;
mod order;
mod register;
mod sign;

pub use self::client::EtcdAccess;
pub(super) use self::follow::{Follower, FollowerEvent};
pub use self::order::{OrderError, write_order};
pub use self::register::{Registration, RegistrationSettings};
pub(super) use self::sign::Signs;
