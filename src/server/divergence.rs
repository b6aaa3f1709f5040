//! What members of pools answer differently, for whoever asks the admin server.

use std::sync::Arc;

use super::Server;
use crate::admin::Refused;
use crate::sight::divergence::Divergences;
use crate::state::SharedPool;

impl Server {
    /// What is known of one pool, or of all.
    ///
    /// # Errors
    /// If there is no such pool.
    pub(super) fn divergences(&self, pool: Option<&str>) -> Result<Divergences, Refused> {
        Ok(self.comparisons.show(self.pools_meant(pool)?.into_iter()))
    }

    /// The pool of this name, or all.
    ///
    /// # Errors
    /// If there is no such pool.
    pub(super) fn pools_meant(&self, name: Option<&str>) -> Result<Vec<&Arc<SharedPool>>, Refused> {
        let pools = self.state.as_ref().map_or(&[][..], |state| &state.pools);
        let meant: Vec<_> = pools.iter().filter(|pool| name.is_none_or(|name| pool.config.name == name)).collect();
        match name {
            Some(name) if meant.is_empty() => {
                Err(Refused::no_such("pool", name, pools.iter().map(|pool| &*pool.config.name)))
            }
            Some(_) | None => Ok(meant),
        }
    }
}
