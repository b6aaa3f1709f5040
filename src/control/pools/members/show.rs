//! Reports of members, sources and orders.

use std::collections::HashSet;
use std::time::Instant;

use config::PoolConfig;
use metrics::{PoolSnapshot, SourceSnapshot};

use super::{Membership, PoolRoster};
use crate::control::pools::discover::{MemberOrigin, MembershipChange, PoolSource};

impl Membership {
    /// Adds the origins, orders and sources of members. `configured` has the pools of the config file.
    pub(in crate::control) fn show(&self, configured: &[PoolConfig], pools: &mut [PoolSnapshot]) {
        let now = Instant::now();
        for pool in pools {
            let roster = self.pool(&pool.name);
            let by_file = configured.iter().filter(|config| config.name == pool.name);
            let by_file: HashSet<_> =
                by_file.flat_map(|config| &config.backends).map(|backend| backend.address).collect();
            for backend in &mut pool.backends {
                let origins = roster.and_then(|known| known.roster.origins(&backend.address));
                backend.membership.origin = match origins {
                    Some((origins, _)) => origins.iter().collect(),
                    None if by_file.contains(&backend.address) => vec![MemberOrigin::Config],
                    None => vec![MemberOrigin::Hand],
                };
                backend.membership.is_listed = roster.is_some_and(|known| known.roster.is_listed(&backend.address));
                backend.membership.order = self.order(&pool.name, &backend.name, &backend.address).cloned();
            }
            pool.sources = roster.map(|known| known.show(now)).unwrap_or_default();
        }
    }
}

impl PoolRoster {
    fn show(&self, now: Instant) -> Vec<SourceSnapshot> {
        let show = |source: &PoolSource| {
            let spec = self.specs.iter().find(|spec| spec.origin() == source.origin);
            let count = |change| self.changes.get(&(source.origin, change)).copied().unwrap_or(0);
            SourceSnapshot {
                origin: source.origin,
                source: spec.map(ToString::to_string).unwrap_or_default(),
                state: source.state(),
                failure: source.failure.clone(),
                age: source.confirmed.map(|at| now.saturating_duration_since(at)),
                members: self.roster.count_of(source.origin) as u64,
                refused: source.refused.iter().map(|one| (one.entry.clone(), one.reason.clone())).collect(),
                refused_count: source.refused_count as u64,
                changes: MembershipChange::ALL.map(count),
            }
        };
        self.roster.sources().iter().map(show).collect()
    }
}
