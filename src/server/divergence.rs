//! What members of pools answer differently, for whoever asks the admin server.

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
        let pools = self.state.as_ref().map_or(&[][..], |state| &state.pools);
        if let Some(name) = pool
            && !pools.iter().any(|pool| pool.config.name == name)
        {
            return Err(Refused::no_such("pool", name, pools.iter().map(|pool| &*pool.config.name)));
        }
        let is_meant = |shared: &SharedPool| pool.is_none_or(|name| shared.config.name == name);
        Ok(self.comparisons.show(pools.iter().filter(|shared| is_meant(shared))))
    }
}
