//! etcd by its JSON gateway: a client, the follower of keys below a prefix, and the writer of orders.

mod client;
mod follow;
mod http;
mod register;
mod sign;

use std::rc::Rc;
use std::time::Duration;

use net::tasks::Tasks;

pub use self::client::EtcdAccess;
use self::client::EtcdClient;
pub(super) use self::follow::Follower;
pub use self::register::{Registration, RegistrationSettings};
pub(super) use self::sign::Signs;
use crate::control::pools::discover::etcd::{self, EtcdError};
use crate::control::pools::discover::{BackendOrder, Orders, order_json};

/// The order could not be written to etcd.
#[derive(Debug, thiserror::Error)]
#[error("etcd: {0}")]
pub struct OrderError(EtcdError);

/// Writes an order for a backend of a pool, with an optional lifetime. `None` removes it.
pub async fn write_order(
    access: Rc<EtcdAccess>,
    tasks: Tasks,
    (pool, backend): (String, String),
    order: Option<BackendOrder>,
    lasts: Option<Duration>,
) -> Result<(), OrderError> {
    let key = format!("{}{}", access.orders_prefix(), Orders::place(&pool, &backend));
    let mut client = EtcdClient::new(access, tasks);
    let write = async {
        let Some(order) = order else { return client.call(&etcd::delete(&key)).await.map(drop) };
        let lease = match lasts {
            None => None,
            Some(lasts) => Some(etcd::read_grant(&client.call(&etcd::grant(lasts.as_secs().max(1))).await?)?),
        };
        client.call(&etcd::put(&key, &order_json(&order), lease)).await.map(drop)
    };
    write.await.map_err(OrderError)
}
