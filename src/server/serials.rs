//! Which versions of zones the members of pools have, for whoever asks the admin server.

use super::Server;
use crate::admin::Refused;
use crate::replicas;
use crate::sight::serials::Serials;

impl Server {
    /// What is known of one pool, or of all.
    ///
    /// # Errors
    /// If there is no such pool.
    pub(super) fn serials(&self, pool: Option<&str>) -> Result<Serials, Refused> {
        Ok(replicas::show_serials(self.pools_meant(pool)?.into_iter()))
    }
}
