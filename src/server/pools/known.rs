//! Changes by an operator and states of backends. They survive a crash, because each change is sent to
//! standbys.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::address::BackendAddress;
use crate::config::{BackendConfig, PoolConfig};
use crate::discover::saved::SavedMembers;
use crate::policy::health::HealthState;
use crate::server::zones::Lease;
use crate::state::{ForwarderState, SharedBackend, SharedPool, Standing};

/// Changes by an operator and states of backends of all pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarriedPools {
    pub(super) pools: Vec<KnownPool>,
    #[serde(default)]
    pub(in crate::server) members: Option<SavedMembers>,
    #[serde(default)]
    pub(in crate::server) leases: Vec<Lease>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KnownPool {
    name: String,
    added: Vec<BackendConfig>,
    /// Backends that only the config has.
    removed: Vec<BackendAddress>,
    backends: Vec<(String, BackendAddress, Standing)>,
}

impl CarriedPools {
    /// Returns the pools of a config with the backends added and removed by operators. No pool loses its last
    /// backend.
    pub fn changed(&self, configured: &[PoolConfig]) -> Vec<PoolConfig> {
        let change = |config: &PoolConfig| {
            let mut config = config.clone();
            let Some(known) = self.pool(&config.name) else { return config };
            let mut addresses: HashSet<_> = config.backends.iter().map(|backend| backend.address).collect();
            let mut names: HashSet<_> = config.backends.iter().map(|backend| backend.name.clone()).collect();
            for added in &known.added {
                if addresses.contains(&added.address) || names.contains(&added.name) {
                    continue;
                }
                addresses.insert(added.address);
                names.insert(added.name.clone());
                config.backends.push(added.clone());
            }
            let removed: HashSet<_> = known.removed.iter().collect();
            if config.backends.iter().any(|backend| !removed.contains(&backend.address)) {
                config.backends.retain(|backend| !removed.contains(&backend.address));
            }
            config
        };
        configured.iter().map(change).collect()
    }

    /// Restores the states of backends. A new backend in a known pool waits for a probe, like after a reload.
    /// Returns the backends with a changed state.
    pub(in crate::server) fn set_standings(&self, state: &ForwarderState) -> Vec<Arc<SharedBackend>> {
        let mut changed = Vec::new();
        for pool in &state.pools {
            let Some(known) = self.pool(&pool.config.name) else { continue };
            let standings: HashMap<(BackendAddress, &str), Standing> =
                known.backends.iter().map(|(name, address, standing)| ((*address, &**name), *standing)).collect();
            for backend in &pool.backends {
                let was = backend.standing();
                let known = standings.get(&(backend.address, &*backend.name));
                let standing = known.copied().unwrap_or(Standing { health: HealthState::New, ..was });
                if standing != was {
                    backend.set_standing(standing);
                    changed.push(Arc::clone(backend));
                }
            }
            pool.state.announce_all();
        }
        changed
    }

    fn pool(&self, name: &str) -> Option<&KnownPool> {
        self.pools.iter().find(|pool| pool.name == name)
    }
}

impl KnownPool {
    pub(super) fn of(pool: &SharedPool, fixed: &PoolConfig, configured: &[PoolConfig]) -> Self {
        let by_file = configured.iter().find(|config| config.name == pool.config.name);
        let by_file = by_file.map_or(&[][..], |config| &config.backends);
        let addresses = |backends: &[BackendConfig]| -> HashSet<BackendAddress> {
            backends.iter().map(|backend| backend.address).collect()
        };
        let (configured, running) = (addresses(by_file), addresses(&fixed.backends));
        let added = fixed.backends.iter().filter(|backend| !configured.contains(&backend.address));
        let removed = by_file.iter().map(|backend| backend.address);
        let standing = |backend: &Arc<SharedBackend>| (backend.name.clone(), backend.address, backend.standing());
        Self {
            name: pool.config.name.clone(),
            added: added.cloned().collect(),
            removed: removed.filter(|address| !running.contains(address)).collect(),
            backends: pool.backends.iter().map(standing).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn address(number: u8) -> BackendAddress {
        BackendAddress::from(([192, 0, 2, number], 53))
    }

    fn pools(numbers: &[u8]) -> Vec<PoolConfig> {
        let backends: Vec<_> = numbers.iter().map(|&number| format!("'{}'", address(number))).collect();
        let text = format!("[forwarder]\n[pools.a]\nbackends = [{}]\n", backends.join(", "));
        Config::parse(&text, "c.toml", Path::new("")).expect("a config").pools
    }

    /// Checks the backends of a pool after operators added and removed some.
    fn check(configured: &[u8], added: &[u8], removed: &[u8], expected: &[u8]) {
        let added = added.iter().map(|&n| BackendConfig { weight: 5, ..BackendConfig::at(address(n)) });
        let removed = removed.iter().map(|&number| address(number)).collect();
        let pool = |name: &str| KnownPool {
            name: name.to_owned(),
            added: added.clone().collect(),
            removed: Vec::clone(&removed),
            backends: Vec::new(),
        };
        let found = |known: &CarriedPools| -> Vec<BackendAddress> {
            known.changed(&pools(configured))[0].backends.iter().map(|backend| backend.address).collect()
        };
        let expected: Vec<_> = expected.iter().map(|&number| address(number)).collect();
        let known = |pools| CarriedPools { pools, ..CarriedPools::default() };
        assert_eq!(found(&known(vec![pool("gone"), pool("a")])), expected);
        assert_eq!(
            found(&known(vec![pool("gone")])),
            pools(configured)[0].backends.iter().map(|b| b.address).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_was_changed_by_hand_is_changed_again() {
        check(&[1, 2], &[], &[], &[1, 2]);
        check(&[1, 2], &[3], &[1], &[2, 3]);
        // The new config has made the same change.
        check(&[2, 3], &[3], &[1], &[2, 3]);
        // The config has changed otherwise: no pool is left without a backend.
        check(&[1], &[], &[1], &[1]);
        check(&[1], &[3], &[1], &[3]);
        check(&[4], &[], &[1, 2], &[4]);
    }
}
