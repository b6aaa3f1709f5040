//! By-hand changes and states of backends: what outlives a crash, for it is small and told as it changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::Server;
use super::super::members::Lease;
use crate::address::BackendAddress;
use crate::config::{BackendConfig, PoolConfig};
use crate::discover::saved::SavedMembers;
use crate::policy::health::HealthState;
use crate::state::{ForwarderState, SharedBackend, SharedPool, Standing};

/// By-hand changes and states of the backends of all pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// By the names of the pools.
    pools: Vec<KnownPool>,
    /// What sources list, and what is ordered.
    #[serde(default)]
    pub(in crate::server) members: Option<SavedMembers>,
    /// The leases of authorities that are registered.
    #[serde(default)]
    pub(in crate::server) leases: Vec<Lease>,
}

/// The same of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct KnownPool {
    /// Its name.
    name: String,
    /// Backends that it has, but not by the config.
    added: Vec<BackendConfig>,
    /// Backends that it has by the config alone.
    removed: Vec<BackendAddress>,
    /// How each backend stands.
    backends: Vec<(String, BackendAddress, Standing)>,
}

impl Known {
    /// The pools of a config with what was added and removed by hand. No pool loses its last backend.
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

    /// Has the backends of a state stand as they did. One that is new in a pool that was there is not asked before a probe has found
    /// it up, as after a reload. Says whether any stands otherwise than before.
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
    /// Of a pool that was configured so.
    fn of(pool: &SharedPool, fixed: &PoolConfig, configured: &[PoolConfig]) -> Self {
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

impl Server {
    /// By-hand changes and states of backends, as of now.
    pub fn known(&self) -> Known {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        let known = |pool: &Arc<SharedPool>| {
            let fixed = self.pools.iter().find(|fixed| fixed.name == pool.config.name)?;
            Some(KnownPool::of(pool, fixed, &self.configured))
        };
        Known {
            pools: pools.filter_map(known).collect(),
            members: Some(self.membership.to_save()),
            leases: self.membership.registrations.leases(),
        }
    }

    /// Takes what has changed by hand, and what was found of backends, since this process was told first.
    pub fn take_known(&mut self, known: &Known) {
        self.pools = known.changed(&self.configured);
        self.put_in_force();
        let Some(state) = self.state.clone() else { return };
        let changed: HashSet<_> = known.set_standings(&state).iter().map(Arc::as_ptr).collect();
        self.prober.begin_anew(&state, |backend| changed.contains(&std::ptr::from_ref(backend)));
        self.refresh();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// The address of a backend, by its last octet.
    fn address(number: u8) -> BackendAddress {
        BackendAddress::from(([192, 0, 2, number], 53))
    }

    /// The pool of a config with these backends.
    fn pools(numbers: &[u8]) -> Vec<PoolConfig> {
        let backends: Vec<_> = numbers.iter().map(|&number| format!("'{}'", address(number))).collect();
        let text = format!("[forwarder]\n[pools.a]\nbackends = [{}]\n", backends.join(", "));
        Config::parse(&text, "c.toml", Path::new("")).expect("a config").pools
    }

    /// Checks which backends a pool has that the config gives some of, after so many were added and removed by hand.
    fn check(configured: &[u8], added: &[u8], removed: &[u8], expected: &[u8]) {
        let added = added.iter().map(|&n| BackendConfig { weight: 5, ..BackendConfig::at(address(n)) });
        let removed = removed.iter().map(|&number| address(number)).collect();
        let pool = |name: &str| KnownPool {
            name: name.to_owned(),
            added: added.clone().collect(),
            removed: Vec::clone(&removed),
            backends: Vec::new(),
        };
        let found = |known: &Known| -> Vec<BackendAddress> {
            known.changed(&pools(configured))[0].backends.iter().map(|backend| backend.address).collect()
        };
        let expected: Vec<_> = expected.iter().map(|&number| address(number)).collect();
        let known = |pools| Known { pools, ..Known::default() };
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
        // The config that is read by now has gone the same way.
        check(&[2, 3], &[3], &[1], &[2, 3]);
        // It has gone another: no pool is left without a backend.
        check(&[1], &[], &[1], &[1]);
        check(&[1], &[3], &[1], &[3]);
        check(&[4], &[], &[1, 2], &[4]);
    }
}
