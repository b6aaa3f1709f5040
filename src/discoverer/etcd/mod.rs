//! etcd by its JSON gateway: a client of it, and what follows the keys below a prefix.

mod client;
mod follow;
mod http;
mod order;
mod register;
mod sign;

pub use self::client::EtcdAccess;
pub(super) use self::follow::{Follower, Heard};
pub use self::order::{OrderError, write_order};
pub use self::register::{Registered, Registration};
pub(super) use self::sign::Signs;
