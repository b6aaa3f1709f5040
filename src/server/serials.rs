//! Reports the zone versions of pool members to the admin server.

use super::Server;
use crate::admin::ChangeRefusal;
use crate::replicas;
use crate::sight::serials::Serials;

impl Server {
    pub(super) fn serials(&self, pool: Option<&str>) -> Result<Serials, ChangeRefusal> {
        Ok(replicas::show_serials(self.pools_meant(pool)?.into_iter()))
    }
}
