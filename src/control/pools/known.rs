//! Changes by an operator and states of backends. They survive a crash, because each change is sent to
//! standbys.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use config::{BackendConfig, PoolConfig};
use dns::address::BackendAddress;
use engine::state::{ForwarderState, SharedBackend, Standing};
use hedge::health::HealthState;
use serde::{Deserialize, Serialize};

use super::PoolConfigs;
use crate::admin::ChangeRefusal;
use crate::control::pools::discover::FixedBackend;
use crate::control::pools::discover::saved::SavedMembers;
use crate::control::zones::Lease;

/// Changes by an operator and states of backends of all pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CarriedPools {
    pub(super) pools: Vec<KnownPool>,
    #[serde(default)]
    pub(in crate::control) members: Option<SavedMembers>,
    #[serde(default)]
    pub(in crate::control) leases: Vec<Lease>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct KnownPool {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) edits: PoolEdits,
    pub(super) backends: Vec<(String, BackendAddress, Standing)>,
}

/// The changes of a pool's backends by operators.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PoolEdits {
    pub(super) added: Vec<BackendConfig>,
    /// Backends that only the config has.
    pub(super) removed: Vec<BackendAddress>,
}

impl PoolEdits {
    /// Changes a pool of the config. It does not lose its last backend unless sources list others.
    pub(super) fn apply(&self, config: &PoolConfig) -> PoolConfig {
        let mut config = config.clone();
        let removed: HashSet<_> = self.removed.iter().collect();
        let is_kept = |backend: &BackendConfig| !removed.contains(&backend.address);
        if config.discover.is_some() || !self.added.is_empty() || config.backends.iter().any(is_kept) {
            config.backends.retain(is_kept);
        }
        let mut addresses: HashSet<_> = config.backends.iter().map(|backend| backend.address).collect();
        let mut names: HashSet<_> = config.backends.iter().map(|backend| backend.name.clone()).collect();
        for added in &self.added {
            if !addresses.contains(&added.address) && !names.contains(&added.name) {
                addresses.insert(added.address);
                names.insert(added.name.clone());
                config.backends.push(added.clone());
            }
        }
        config
    }
}

impl PoolConfigs {
    /// Returns the pools of the config with the changes by operators.
    pub(super) fn running(&self) -> Vec<PoolConfig> {
        self.file.iter().map(|pool| self.edited(pool)).collect()
    }

    /// Returns a pool with its changes by operators.
    pub(super) fn pool(&self, name: &str) -> Result<PoolConfig, ChangeRefusal> {
        let names = self.file.iter().map(|pool| pool.name.as_str());
        let pool = self.file.iter().find(|pool| pool.name == name);
        pool.map(|pool| self.edited(pool)).ok_or_else(|| ChangeRefusal::no_such("pool", name, names))
    }

    fn edited(&self, pool: &PoolConfig) -> PoolConfig {
        self.edits.get(&pool.name).map_or_else(|| pool.clone(), |edits| edits.apply(pool))
    }

    /// Returns the backends of a pool that no source can remove.
    pub(super) fn fixed(&self, name: &str) -> Vec<FixedBackend> {
        let configured = self.file.iter().filter(|pool| pool.name == name).flat_map(|pool| &pool.backends);
        let configured: HashSet<_> = configured.map(|known| known.address).collect();
        let fixed = |backend: BackendConfig| {
            let is_by_hand = !configured.contains(&backend.address);
            FixedBackend { address: backend.address, name: backend.name, is_by_hand }
        };
        self.pool(name).into_iter().flat_map(|pool| pool.backends).map(fixed).collect()
    }

    /// Lists the changes by operators that the pools of another config file undo.
    pub(super) fn undone_by(&self, new: &[PoolConfig]) -> Vec<String> {
        let mut notices = Vec::new();
        for configured in self.file.iter().filter(|pool| self.edits.contains_key(&pool.name)) {
            let name = &configured.name;
            // The config may remove the whole pool on purpose.
            let Some(new) = new.iter().find(|pool| pool.name == *name) else { continue };
            let running = self.edited(configured);
            // A pool may have thousands of backends.
            let [of_config, of_running, of_new] = [configured, &running, new]
                .map(|pool| pool.backends.iter().map(|backend| backend.address).collect::<HashSet<_>>());
            let added = running.backends.iter().filter(|backend| !of_config.contains(&backend.address));
            let gone = added.filter(|backend| !of_new.contains(&backend.address));
            notices.extend(gone.map(|backend| format!("{}, added to pool {name} by hand, is gone", backend.name)));
            let removed = configured.backends.iter().filter(|backend| !of_running.contains(&backend.address));
            let back = removed.filter(|backend| of_new.contains(&backend.address));
            notices.extend(back.map(|backend| format!("{}, removed from pool {name} by hand, is back", backend.name)));
        }
        notices
    }
}

impl CarriedPools {
    /// Returns the pools of a config with the backends added and removed by operators.
    pub fn changed(&self, configured: &[PoolConfig]) -> Vec<PoolConfig> {
        PoolConfigs { file: configured.to_vec(), edits: self.edits() }.running()
    }

    /// Returns the changes by operators of each pool.
    pub(super) fn edits(&self) -> HashMap<String, PoolEdits> {
        self.pools.iter().map(|pool| (pool.name.clone(), pool.edits.clone())).collect()
    }

    /// Restores the states of backends. A new backend in a known pool waits for a probe, like after a reload.
    /// Returns the backends with a changed state.
    pub(in crate::control) fn set_standings(&self, state: &ForwarderState) -> Vec<Arc<SharedBackend>> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Config;

    use super::*;

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
            edits: PoolEdits { added: added.clone().collect(), removed: Vec::clone(&removed) },
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
