//! Reports different answers of pool members to the admin server.

use std::sync::Arc;

use super::Server;
use crate::admin::ChangeRefusal;
use crate::sight::divergence::Divergences;
use crate::state::SharedPool;

impl Server {
    pub(super) fn divergences(&self, pool: Option<&str>) -> Result<Divergences, ChangeRefusal> {
        Ok(self.comparisons.show(self.pools_meant(pool)?.into_iter()))
    }

    pub(super) fn pools_meant(&self, name: Option<&str>) -> Result<Vec<&Arc<SharedPool>>, ChangeRefusal> {
        let pools = self.state.as_ref().map_or(&[][..], |state| &state.pools);
        let meant: Vec<_> = pools.iter().filter(|pool| name.is_none_or(|name| pool.config.name == name)).collect();
        match name {
            Some(name) if meant.is_empty() => {
                Err(ChangeRefusal::no_such("pool", name, pools.iter().map(|pool| &*pool.config.name)))
            }
            Some(_) | None => Ok(meant),
        }
    }
}
