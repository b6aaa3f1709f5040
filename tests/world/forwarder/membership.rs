//! The members of a forwarder's pool: follows the model of etcd and merges its news into the roster.

use std::time::{Duration, Instant};

use config::{BackendConfig, Config, PoolConfig};
use engine::state::ForwarderState;
use hedgerow::control::pools::discover::{MemberEntry, MemberOrigin, Roster, RosterRules, SourceNews};

use super::io::address_of;
use crate::world::AUTHORITIES;
use crate::world::etcd::{Etcd, FOLLOWED};

/// The least time between two settlements.
const GATHER: Duration = Duration::from_millis(200);

/// The time after which a follower asks again after a failure, and confirms its list.
const AGAIN: Duration = Duration::from_millis(500);

pub(crate) struct Membership {
    roster: Option<Roster>,
    /// The revision of the last news; `None` without a list.
    revision: Option<u64>,
    is_due: bool,
    settled: Option<Instant>,
    next_look: Option<Instant>,
}

fn rules_of(config: &Config) -> Option<RosterRules> {
    let discover = config.pools.iter().find_map(|pool| pool.discover.as_ref())?;
    Some(RosterRules { max: discover.max, hold: discover.hold, allow: discover.allow.clone() })
}

impl Membership {
    pub(super) fn new(config: &Config) -> Self {
        let roster = rules_of(config).map(|rules| Roster::new(rules, [MemberOrigin::Etcd]));
        Self { roster, revision: None, is_due: false, settled: None, next_look: None }
    }

    pub(super) fn set_config(&mut self, config: &Config) {
        match (&mut self.roster, rules_of(config)) {
            (Some(roster), Some(rules)) => roster.set_rules(rules, &[(MemberOrigin::Etcd, true)]),
            (roster, rules) => {
                *roster = rules.map(|rules| Roster::new(rules, [MemberOrigin::Etcd]));
                self.revision = None;
            }
        }
        self.is_due = true;
    }

    /// Follows etcd: a list first, then its changes, and a list again after a failure.
    pub(crate) fn follow(&mut self, etcd: &Etcd, now: Instant) {
        let Some(roster) = &mut self.roster else { return };
        if self.next_look.is_some_and(|at| now < at) && self.revision.is_some_and(|known| known == etcd.revision) {
            return;
        }
        self.next_look = Some(now + AGAIN);
        let news = match (etcd.is_up(), self.revision) {
            (false, _) => SourceNews::Failed("no endpoint answers".to_owned()),
            (true, Some(known)) if known == etcd.revision => SourceNews::Confirmed,
            (true, Some(known)) if known >= etcd.compacted => SourceNews::Changed(etcd.changes_since(known)),
            (true, _) => SourceNews::Listed(etcd.list()),
        };
        self.revision = etcd.is_up().then_some(etcd.revision);
        self.is_due |= roster.on_news(MemberOrigin::Etcd, news, now);
    }

    pub(super) fn on_health(&mut self) {
        self.is_due |= self.roster.is_some();
    }

    /// Settles the members if that is due. Returns true if they have changed.
    pub(super) fn settle(&mut self, now: Instant, state: &ForwarderState) -> bool {
        let Some(roster) = &mut self.roster else { return false };
        let is_time = roster.next_time().is_some_and(|at| at <= now);
        let is_rested = self.settled.is_none_or(|settled| settled + GATHER <= now);
        if !(is_time || self.is_due) || !is_rested {
            return false;
        }
        (self.is_due, self.settled) = (false, Some(now));
        let is_up = |address: &dns::address::BackendAddress| {
            state
                .pools
                .iter()
                .flat_map(|pool| &pool.backends)
                .any(|backend| backend.address == *address && backend.is_up())
        };
        roster.settle(now, &[], is_up, |_| false).is_change
    }

    pub(super) fn next_time(&self) -> Option<Instant> {
        let roster = self.roster.as_ref()?;
        let rested = self.settled.map(|settled| settled + GATHER);
        let due = self.is_due.then_some(rested).flatten();
        let next = roster.next_time().map(|at| rested.map_or(at, |rested| rested.max(at)));
        [due, next, self.next_look].into_iter().flatten().min()
    }

    /// Adds the members to the pool that discovers them.
    pub(super) fn add_members(&self, pools: &mut [PoolConfig]) {
        let Some(roster) = &self.roster else { return };
        for pool in pools.iter_mut().filter(|pool| pool.discover.is_some()) {
            let members = roster.members().filter(|(_, member)| !member.is_draining);
            pool.backends.extend(members.map(|(address, member)| BackendConfig {
                name: member.name.clone(),
                weight: member.weight,
                ..BackendConfig::at(address)
            }));
        }
    }

    /// Checks that the roster lists exactly the keys of etcd, if it has had the time to learn them.
    pub(super) fn audit(&self, etcd: &Etcd, begun: Instant, now: Instant) {
        let Some(roster) = self.roster.as_ref().filter(|_| etcd.is_steady(now) && begun + FOLLOWED <= now) else {
            return;
        };
        for host in AUTHORITIES {
            let address = format!("{}:53", address_of(host)).parse().expect("an address");
            let is_key = etcd.keys.contains_key(&host.to_string());
            assert_eq!(roster.is_listed(&address), is_key, "host {host} is listed as etcd has it");
        }
    }

    /// Returns the addresses of the members, if the pool discovers them.
    pub(crate) fn members(&self) -> Option<Vec<String>> {
        let roster = self.roster.as_ref()?;
        Some(roster.members().map(|(address, _)| address.to_string()).collect())
    }
}

/// Makes the entry of a member from its JSON, as etcd stores it.
pub(crate) fn entry(json: &str) -> Result<MemberEntry, String> {
    MemberEntry::from_json(json.as_bytes())
}
