//! Discovered members of pools: sources report to rosters, and the control thread applies the decisions of
//! the rosters.
//!
//! News are batched into at most five states a second. [`PoolConfigs`] has the backends of the config and
//! of operators; members listed by sources follow in the order of their addresses, so that all
//! forwarders of a fleet agree on the order.

mod saved;
mod show;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use config::{BackendConfig, Config, PoolConfig};
use dns::address::BackendAddress;
use limit::OwnAddresses;
use metrics::PoolSnapshot;
use net::sys::bind::is_of_this_host;
use net::tasks::Tasks;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::sleep_until;

use self::saved::Saving;
pub(super) use self::saved::read_saved;
use super::{PoolConfigs, ServerPools};
use crate::control::pools::discover::saved::SavedMembers;
use crate::control::pools::discover::{
    BackendOrder, DiscoveredMember, MemberOrigin, MembershipChange, Orders, PoolSource, Roster, RosterRules,
    Settlement, SourceNews,
};
use crate::control::pools::discoverer::{Discoverer, DiscoveryReport, EtcdAccess, SourceSpec};
use crate::control::process::{Listeners, SectionName};
use crate::load::{EtcdSecrets, reaches};

pub(in crate::control) struct Membership {
    pub(in crate::control) discoverer: Discoverer,
    reports: Receiver<DiscoveryReport>,
    pub(super) pools: Vec<PoolRoster>,
    orders: Orders,
    wrong_orders: HashSet<String>,
    orders_failure: Option<String>,
    pub(super) wake: Rc<Notify>,
    is_due: bool,
    settled: Option<Instant>,
    saving: Saving,
    pub(super) own: OwnListeners,
}

/// The bound addresses of the forwarder, which no source may list.
type OwnListeners = Rc<RefCell<Vec<SocketAddr>>>;

pub(super) struct PoolRoster {
    pub(super) name: String,
    roster: Roster,
    specs: Vec<SourceSpec>,
    has_backends: bool,
    changes: HashMap<(MemberOrigin, MembershipChange), u64>,
}

impl Membership {
    /// Builds the membership without sources. `own` are the addresses of the forwarder. Must be used within a
    /// `LocalRuntime`.
    pub(super) fn new(tasks: &Tasks, own: Vec<SocketAddr>) -> Self {
        let (sender, reports) = channel(MAX_REPORTS);
        let own: OwnListeners = Rc::new(RefCell::new(own));
        let shared = Rc::clone(&own);
        let addresses = move || OwnAddresses::new(shared.borrow().iter().copied());
        Self {
            discoverer: Discoverer::new(tasks.clone(), sender, Rc::new(addresses)),
            reports,
            pools: Vec::new(),
            orders: Orders::default(),
            wrong_orders: HashSet::new(),
            orders_failure: None,
            wake: Rc::default(),
            is_due: false,
            settled: None,
            saving: Saving::default(),
            own,
        }
    }

    pub(in crate::control) fn add_counted(&mut self, counted: &[PoolSnapshot]) {
        for pool in &mut self.pools {
            let sources =
                counted.iter().filter(|counted| counted.name == pool.name).flat_map(|counted| &counted.sources);
            for source in sources {
                for (change, count) in MembershipChange::ALL.into_iter().zip(source.changes) {
                    *pool.changes.entry((source.origin, change)).or_default() += count;
                }
            }
        }
    }

    /// Starts the sources of a config. Remaining sources keep their state; new ones may take it from `saved`.
    pub(in crate::control) fn set_config(
        &mut self,
        config: &Config,
        secrets: EtcdSecrets,
        saved: Option<&SavedMembers>,
    ) {
        let mut earlier = std::mem::take(&mut self.pools);
        let pools = config.forwarder.iter().flat_map(|_| &config.pools);
        for pool in pools {
            let Some(discover) = &pool.discover else { continue };
            let specs = SourceSpec::of(discover);
            let rules = RosterRules { max: discover.max, hold: discover.hold, allow: discover.allow.clone() };
            let known = earlier.iter().position(|known| known.name == pool.name).map(|at| earlier.swap_remove(at));
            let mut known = known.unwrap_or_else(|| PoolRoster {
                name: pool.name.clone(),
                roster: Roster::new(rules.clone(), []),
                specs: Vec::new(),
                has_backends: false,
                changes: HashMap::new(),
            });
            let kept: Vec<_> = specs.iter().map(|spec| (spec.origin(), known.specs.contains(spec))).collect();
            known.roster.set_rules(rules, &kept);
            known.specs = specs;
            known.has_backends = !pool.backends.is_empty();
            if let Some(saved) = saved {
                known.restore(saved);
            }
            self.pools.push(known);
        }
        if let Some(saved) = saved {
            self.orders = saved.orders.clone();
        }
        let EtcdSecrets { password, roots } = secrets;
        let access = config.etcd.clone().map(|config| EtcdAccess { config, password, roots });
        if access.is_none() {
            self.orders = Orders::default();
        }
        let specs = self.pools.iter().flat_map(|pool| pool.specs.clone()).collect();
        self.discoverer.set_sources(specs, access, config.forwarder.is_some());
        self.saving.set_folder(config.process.state_dir.clone());
        self.is_due = true;
    }

    pub(super) fn restore_members(&mut self, configs: &PoolConfigs) {
        for pool in &mut self.pools {
            let fixed = configs.fixed(&pool.name);
            pool.roster.settle(Instant::now(), &fixed, |_| false, |_| false);
        }
    }

    /// Waits until a settlement is due, and takes in reports meanwhile. Cancel safe.
    pub(in crate::control) async fn due(&mut self) {
        loop {
            let next = match self.is_due {
                true => self.settled.map(|settled| settled + GATHER).or_else(|| Some(Instant::now())),
                false => self.pools.iter().filter_map(|pool| pool.roster.next_time()).min(),
            };
            let wait = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => self.take(report),
                () = self.wake.notified() => self.is_due |= !self.pools.is_empty(),
                () = wait => {
                    self.is_due = false;
                    self.settled = Some(Instant::now());
                    return;
                }
            }
        }
    }

    /// Returns true if every source of a pool without members has been asked once.
    pub(in crate::control) fn has_asked(&self) -> bool {
        let is_asked = |pool: &PoolRoster| {
            pool.has_backends
                || pool.roster.members().next().is_some()
                || pool.roster.sources().iter().all(|source| source.confirmed.is_some() || source.failure.is_some())
        };
        self.pools.iter().all(is_asked)
    }

    fn pool(&self, name: &str) -> Option<&PoolRoster> {
        self.pools.iter().find(|known| known.name == name)
    }

    pub(in crate::control) fn is_listed(&self, pool: &str, address: &BackendAddress) -> bool {
        self.pool(pool)
            .map(|known| &known.roster)
            .is_some_and(|roster| roster.is_listed(address) || roster.members().any(|(member, _)| member == *address))
    }

    pub(in crate::control) fn order(&self, pool: &str, name: &str, address: &BackendAddress) -> Option<&BackendOrder> {
        if self.orders == Orders::default() {
            return None;
        }
        self.orders.find(pool, name, &address.to_string())
    }

    /// Returns these pools with all members, in the order: config, operators, addresses.
    pub(super) fn with_members(&self, pools: &[PoolConfig]) -> Vec<PoolConfig> {
        let with = |config: &PoolConfig| {
            let mut config = config.clone();
            let roster = self.pool(&config.name);
            let backend = |(address, member): (BackendAddress, &DiscoveredMember)| BackendConfig {
                name: member.name.clone(),
                weight: member.weight,
                ..BackendConfig::at(address)
            };
            config.backends.extend(roster.iter().flat_map(|pool| pool.roster.members()).map(backend));
            config
        };
        pools.iter().map(with).collect()
    }

    fn take(&mut self, report: DiscoveryReport) {
        match report {
            DiscoveryReport::Source(spec, news) => self.take_news(&spec, news),
            DiscoveryReport::Orders(SourceNews::Listed(all)) => {
                let earlier = std::mem::take(&mut self.orders);
                let changes = all.into_iter().map(|(place, order)| (place, Some(order)));
                self.take_orders(changes.collect());
                self.is_due |= self.orders != earlier;
            }
            DiscoveryReport::Orders(SourceNews::Changed(changes)) => {
                self.take_orders(changes);
                self.is_due = true;
            }
            DiscoveryReport::Orders(SourceNews::Confirmed) => self.orders_failure = None,
            DiscoveryReport::Orders(SourceNews::Failed(reason)) => {
                if self.orders_failure.is_none() {
                    tracing::warn!(reason, "orders cannot be read from etcd, so the previous orders stay");
                }
                self.orders_failure = Some(reason);
            }
        }
    }

    fn take_orders(&mut self, changes: Vec<(String, Option<Result<BackendOrder, String>>)>) {
        self.orders_failure = None;
        for (place, order) in changes {
            match order.transpose() {
                Ok(order) => {
                    self.wrong_orders.remove(&place);
                    self.orders.set(&place, order);
                }
                Err(reason) => {
                    self.orders.set(&place, None);
                    if self.wrong_orders.len() < Orders::MAX && self.wrong_orders.insert(place.clone()) {
                        tracing::warn!(place, reason, "an order in etcd is invalid and ignored");
                    }
                }
            }
        }
    }

    fn take_news(&mut self, spec: &SourceSpec, news: SourceNews) {
        let now = Instant::now();
        let pools = self.pools.iter_mut().filter(|pool| pool.specs.contains(spec));
        for pool in pools {
            let origin = spec.origin();
            let was = pool.failure_of(origin);
            self.is_due |= pool.roster.on_news(origin, news.clone(), now);
            let is = pool.failure_of(origin);
            match (&was, &is) {
                (None, Some(reason)) => {
                    // The start no longer waits for the first report of this source.
                    self.is_due = true;
                    tracing::warn!(pool = pool.name, source = %spec, reason, "a source of members cannot be read, so its previous members stay");
                }
                (Some(_), None) => {
                    tracing::info!(pool = pool.name, source = %spec, "a source of members can be read again")
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
    }

    /// Removes orders that have expired by our clock, in case etcd is unreachable. Returns true if there was
    /// one.
    pub(super) fn end_orders(&mut self, now: SystemTime) -> bool {
        let is_in_force = |order: &BackendOrder| {
            let until = order.until.as_deref().and_then(|until| humantime::parse_rfc3339(until).ok());
            until.is_none_or(|until| now < until)
        };
        self.orders.retain(is_in_force)
    }

    /// Accepts the doubtful list of a pool. Returns the number of members held until now; `None` if there is
    /// no such pool.
    pub(in crate::control) fn accept(&mut self, pool: &str) -> Option<usize> {
        let pool = self.pools.iter_mut().find(|known| known.name == pool)?;
        let held = pool.roster.accept();
        self.is_due = true;
        Some(held)
    }
}

impl PoolRoster {
    fn failure_of(&self, origin: MemberOrigin) -> Option<String> {
        self.roster.sources().iter().find(|source| source.origin == origin)?.failure.clone()
    }

    fn restore(&mut self, saved: &SavedMembers) {
        for spec in &self.specs {
            let is_unheard = |source: &&PoolSource| source.origin == spec.origin() && source.confirmed.is_none();
            if self.roster.sources().iter().any(|source| is_unheard(&source))
                && let Some(known) = saved.find(&self.name, spec.origin(), &spec.to_string())
            {
                let confirmed = saved::instant_of(known.confirmed);
                self.roster.restore(spec.origin(), known.members.clone(), confirmed);
            }
        }
    }

    fn log(&mut self, settled: &Settlement) {
        let pool = &self.name;
        for (_, origin, change) in &settled.changes {
            *self.changes.entry((*origin, *change)).or_default() += 1;
        }
        for (address, origin, change) in settled.changes.iter().take(MAX_LINES) {
            let (source, what) = (origin.label(), change.label());
            match change {
                MembershipChange::Joined | MembershipChange::Left => {
                    tracing::info!(pool, backend = %address, source, "{what}")
                }
                MembershipChange::Held => {
                    tracing::info!(pool, backend = %address, source, "no longer listed: the backend stays for a while if it is up");
                }
            }
        }
        if settled.changes.len() > MAX_LINES {
            tracing::info!(pool, "{} more members joined or left", settled.changes.len() - MAX_LINES);
        }
        for (origin, refusal) in settled.refused.iter().take(MAX_LINES) {
            let (source, entry, reason) = (origin.label(), &refusal.entry, &refusal.reason);
            tracing::warn!(pool, source, entry, reason, "an entry of a member source is invalid and ignored");
        }
        if settled.refused.len() > MAX_LINES {
            tracing::warn!(
                pool,
                "{} more entries are invalid and ignored: see hedgerow ctl members",
                settled.refused.len() - MAX_LINES
            );
        }
        if let Some(doubt) = settled.doubt {
            tracing::error!(
                pool,
                listed = doubt.listed,
                held = doubt.held,
                "the new list of members lacks more than half of the backends that are up, so these stay; if the list is right, \
                 run `hedgerow ctl accept {pool}`"
            );
        }
        if settled.is_doubt_over {
            tracing::info!(pool, "the list of members is accepted again");
        }
    }
}

impl ServerPools {
    /// Asks each source once if a pool has no known members, so that queries can be answered as soon as the
    /// server is ready. The wait is short.
    pub async fn ask_sources(&mut self) {
        let deadline = Instant::now() + FIRST_PATIENCE;
        while !self.membership.has_asked() {
            tokio::select! {
                () = self.membership.due() => self.settle_members(),
                () = sleep_until(deadline.into()) => return,
            }
        }
    }

    pub(in crate::control) fn settle_members(&mut self) {
        let (now, mut is_change) = (Instant::now(), false);
        let own = Rc::clone(&self.membership.own);
        let is_own = |address: &BackendAddress| own.borrow().iter().any(|own| reaches(*own, address, is_of_this_host));
        for pool in &mut self.membership.pools {
            let fixed = self.configs.fixed(&pool.name);
            let shared = self.state.as_ref().and_then(|state| state.pool(&pool.name));
            let up = shared.iter().flat_map(|shared| &shared.backends).filter(|backend| backend.is_up());
            let up: HashSet<BackendAddress> = up.map(|backend| backend.address).collect();
            let settled = pool.roster.settle(now, &fixed, |address| up.contains(address), is_own);
            pool.log(&settled);
            is_change |= settled.is_change;
        }
        if is_change {
            // Applying a state obeys the orders, too.
            self.put_in_force();
            self.membership.saving.is_wanted = true;
        } else {
            self.obey();
        }
        self.membership.save(&self.links.tasks);
    }

    pub(in crate::control) fn obey(&mut self) {
        let Some(state) = &self.state else { return };
        let mut is_change = false;
        for pool in &state.pools {
            let roster = self.membership.pool(&pool.config.name);
            let announced = &pool.state;
            for backend in &pool.backends {
                let order = self.membership.order(&pool.config.name, &backend.name, &backend.address);
                let is_leaving =
                    roster.and_then(|known| known.roster.origins(&backend.address)).is_some_and(|origins| origins.1);
                if backend.set_order(order.map(|order| order.order), is_leaving) {
                    let (pool, state) = (&pool.config.name, backend.state().label());
                    match order {
                        Some(order) => tracing::info!(
                            pool,
                            backend = backend.name,
                            by = order.by,
                            "{state}: ordered to {}",
                            order.order.label()
                        ),
                        None => tracing::info!(
                            pool,
                            backend = backend.name,
                            "{state}: the order has ended, or the backend announced it"
                        ),
                    }
                    announced.announce(backend);
                    is_change = true;
                }
            }
        }
        if is_change {
            self.links.refresh();
        }
    }
}

pub(in crate::control) fn own_forwarder(listeners: &Listeners) -> Vec<SocketAddr> {
    let section = listeners.section(&SectionName::Forwarder);
    section.iter().flat_map(|section| &section.addresses).map(|address| address.bound()).collect()
}

const GATHER: Duration = Duration::from_millis(200);

const FIRST_PATIENCE: Duration = Duration::from_millis(500);

/// The most queued reports; sources wait for space.
const MAX_REPORTS: usize = 64;

const MAX_LINES: usize = 20;
