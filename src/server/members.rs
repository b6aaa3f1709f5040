//! The members of pools that come by themselves: what sources tell goes to rosters, what those decide goes into force.
//!
//! News are gathered: however many there are, no more than five states a second come of them. What the config has and what was added by
//! hand stands in [`Server::pools`](Server); the members that sources list come behind it, in the order of their addresses, so that all
//! LS of a fleet have them in the same order.

mod registrations;
mod saved;
mod show;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::sleep_until;

pub(super) use self::registrations::{Lease, Registrations};
use self::saved::Saving;
pub(super) use self::saved::read_saved;
use super::Server;
use super::listeners::{Listeners, SectionName};
use crate::address::BackendAddress;
use crate::config::{BackendConfig, Config, PoolConfig};
use crate::discover::saved::SavedMembers;
use crate::discover::{Change, Fixed, Member, News, Order, Orders, Origin, Roster, RosterRules, Settled, Source};
use crate::discoverer::{Discoverer, EtcdAccess, SourceSpec, Told};
use crate::limit::OwnAddresses;
use crate::load::EtcdSecrets;
use crate::metrics::PoolSnapshot;
use crate::net::bind::is_of_this_host;
use crate::net::tasks::Tasks;

/// Who is a member, and what is ordered.
pub(super) struct Membership {
    discoverer: Discoverer,
    told: Receiver<Told>,
    pools: Vec<PoolRoster>,
    orders: Orders,
    /// Orders that are wrong, by their places: each is told once.
    wrong_orders: HashSet<String>,
    /// Why orders cannot be asked for, if they cannot.
    orders_failure: Option<String>,
    /// Told when a backend stands otherwise.
    wake: Rc<Notify>,
    /// Whether there is something to settle.
    is_due: bool,
    /// When it was settled last.
    settled: Option<Instant>,
    saving: Saving,
    pub(super) registrations: Registrations,
}

/// The roster of one pool.
struct PoolRoster {
    name: String,
    roster: Roster,
    specs: Vec<SourceSpec>,
    /// The config has some already.
    has_backends: bool,
    /// How often what has become of members, by source.
    changes: HashMap<(Origin, Change), u64>,
}

impl Membership {
    /// Nobody is asked yet. `own` are the addresses that we listen on. Must be used within a `LocalSet`.
    pub(super) fn new(tasks: &Tasks, own: Rc<dyn Fn() -> OwnAddresses>) -> Self {
        let (sender, told) = channel(MAX_TOLD);
        Self {
            discoverer: Discoverer::new(tasks.clone(), sender, own),
            told,
            pools: Vec::new(),
            orders: Orders::default(),
            wrong_orders: HashSet::new(),
            orders_failure: None,
            wake: Rc::default(),
            is_due: false,
            settled: None,
            saving: Saving::default(),
            registrations: Registrations::new(tasks.clone()),
        }
    }

    /// Adds the changes of members that another process has counted.
    pub(super) fn add_counted(&mut self, counted: &[PoolSnapshot]) {
        for pool in &mut self.pools {
            let sources =
                counted.iter().filter(|counted| counted.name == pool.name).flat_map(|counted| &counted.sources);
            for source in sources {
                for (change, count) in Change::ALL.into_iter().zip(source.changes) {
                    *pool.changes.entry((source.origin, change)).or_default() += count;
                }
            }
        }
    }

    /// Asks the sources of a config. What is known of those that stay is kept; of those that are new, `saved` may know something.
    pub(super) fn set_config(&mut self, config: &Config, secrets: EtcdSecrets, saved: Option<&SavedMembers>) {
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
        self.saving.set_folder(config.state_dir.clone());
        self.is_due = true;
    }

    /// What is told when a backend stands otherwise.
    pub(super) fn wake(&self) -> Rc<Notify> {
        Rc::clone(&self.wake)
    }

    /// Makes members of those who were saved, before anybody is asked.
    pub(super) fn restore_members(&mut self, pools: &[PoolConfig], configured: &[PoolConfig]) {
        for pool in &mut self.pools {
            let fixed = fixed_of(pools, configured, &pool.name);
            pool.roster.settle(Instant::now(), &fixed, |_| false, |_| false);
        }
    }

    /// Waits until there is something to settle. What is heard meanwhile is taken in. Loses nothing if it is dropped.
    pub(super) async fn due(&mut self) {
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
                Some(told) = self.told.recv() => self.take(told),
                () = self.wake.notified() => self.is_due |= !self.pools.is_empty(),
                () = wait => {
                    self.is_due = false;
                    self.settled = Some(Instant::now());
                    return;
                }
            }
        }
    }

    /// Whether each source of pools that have nobody has been asked once.
    pub(super) fn has_asked(&self) -> bool {
        let is_asked = |pool: &PoolRoster| {
            pool.has_backends
                || pool.roster.members().next().is_some()
                || pool.roster.sources().iter().all(|source| source.confirmed.is_some() || source.failure.is_some())
        };
        self.pools.iter().all(is_asked)
    }

    /// The etcd that orders go to.
    pub(super) fn access(&self) -> Option<&Rc<EtcdAccess>> {
        self.discoverer.access()
    }

    /// Whether a source lists a backend, or has listed one that is held.
    pub(super) fn is_listed(&self, pool: &str, address: &BackendAddress) -> bool {
        let roster = self.pools.iter().find(|known| known.name == pool).map(|known| &known.roster);
        roster.is_some_and(|roster| roster.is_listed(address) || roster.members().any(|(member, _)| member == *address))
    }

    /// The order for a backend.
    pub(super) fn order(&self, pool: &str, name: &str, address: &BackendAddress) -> Option<&Order> {
        if self.orders == Orders::default() {
            return None;
        }
        self.orders.find(pool, name, &address.to_string())
    }

    /// Takes what somebody has told.
    fn take(&mut self, told: Told) {
        match told {
            Told::Source(spec, news) => self.take_news(&spec, news),
            Told::Orders(News::Listed(all)) => {
                let earlier = std::mem::take(&mut self.orders);
                let changes = all.into_iter().map(|(place, order)| (place, Some(order)));
                self.take_orders(changes.collect());
                self.is_due |= self.orders != earlier;
            }
            Told::Orders(News::Changed(changes)) => {
                self.take_orders(changes);
                self.is_due = true;
            }
            Told::Orders(News::Confirmed) => self.orders_failure = None,
            Told::Orders(News::Failed(reason)) => {
                if self.orders_failure.is_none() {
                    tracing::warn!(reason, "etcd cannot be asked for orders: those in force stay");
                }
                self.orders_failure = Some(reason);
            }
        }
    }

    fn take_orders(&mut self, changes: Vec<(String, Option<Result<Order, String>>)>) {
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
                        tracing::warn!(place, reason, "an order in etcd is wrong and is not obeyed");
                    }
                }
            }
        }
    }

    fn take_news(&mut self, spec: &SourceSpec, news: News) {
        let now = Instant::now();
        let pools = self.pools.iter_mut().filter(|pool| pool.specs.contains(spec));
        for pool in pools {
            let origin = spec.origin();
            let was = pool.failure_of(origin);
            self.is_due |= pool.roster.on_news(origin, news.clone(), now);
            let is = pool.failure_of(origin);
            match (&was, &is) {
                (None, Some(reason)) => {
                    // Who waits for the first word of it waits no longer.
                    self.is_due = true;
                    tracing::warn!(pool = pool.name, source = %spec, reason, "a source of members cannot be asked: its members stay");
                }
                (Some(_), None) => {
                    tracing::info!(pool = pool.name, source = %spec, "a source of members says what it lists")
                }
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
    }

    /// Ends orders whose time is over by our clock: etcd would have ended them if it could be heard. Says whether there was one.
    fn end_orders(&mut self, now: SystemTime) -> bool {
        let is_in_force = |order: &Order| {
            let until = order.until.as_deref().and_then(|until| humantime::parse_rfc3339(until).ok());
            until.is_none_or(|until| now < until)
        };
        self.orders.retain(is_in_force)
    }

    /// The pools that have sources.
    pub(super) fn pools(&self) -> impl Iterator<Item = &str> {
        self.pools.iter().map(|pool| pool.name.as_str())
    }

    /// Says that the list of a pool is right. Returns how many are held until now; none, if there is no such pool.
    pub(super) fn accept(&mut self, pool: &str) -> Option<usize> {
        let pool = self.pools.iter_mut().find(|known| known.name == pool)?;
        let held = pool.roster.accept();
        self.is_due = true;
        Some(held)
    }
}

impl PoolRoster {
    /// Why a source cannot be asked, if it cannot.
    fn failure_of(&self, origin: Origin) -> Option<String> {
        self.roster.sources().iter().find(|source| source.origin == origin)?.failure.clone()
    }

    /// Takes what was saved of sources that were never heard of.
    fn restore(&mut self, saved: &SavedMembers) {
        for spec in &self.specs {
            let is_unheard = |source: &&Source| source.origin == spec.origin() && source.confirmed.is_none();
            if self.roster.sources().iter().any(|source| is_unheard(&source))
                && let Some(known) = saved.find(&self.name, spec.origin(), &spec.to_string())
            {
                let confirmed = saved::instant_of(known.confirmed);
                self.roster.restore(spec.origin(), known.members.clone(), confirmed);
            }
        }
    }

    /// Counts what has become of members, and tells.
    fn tell(&mut self, settled: &Settled) {
        let pool = &self.name;
        for (_, origin, change) in &settled.changes {
            *self.changes.entry((*origin, *change)).or_default() += 1;
        }
        for (address, origin, change) in settled.changes.iter().take(MAX_LINES) {
            let (source, what) = (origin.label(), change.label());
            match change {
                Change::Joined | Change::Left => tracing::info!(pool, backend = %address, source, "{what}"),
                Change::Held => {
                    tracing::info!(pool, backend = %address, source, "not listed any more: it stays while it is up, for a while");
                }
            }
        }
        if settled.changes.len() > MAX_LINES {
            tracing::info!(pool, "{} members more have come or gone", settled.changes.len() - MAX_LINES);
        }
        for (origin, refusal) in settled.refused.iter().take(MAX_LINES) {
            let (source, entry, reason) = (origin.label(), &refusal.entry, &refusal.reason);
            tracing::warn!(pool, source, entry, reason, "an entry is refused");
        }
        if settled.refused.len() > MAX_LINES {
            tracing::warn!(pool, "{} entries more are refused: see ctl members", settled.refused.len() - MAX_LINES);
        }
        if let Some(doubt) = settled.doubt {
            tracing::error!(
                pool,
                listed = doubt.listed,
                held = doubt.held,
                "the list of members is doubted: of those that are up it lacks more than it has. Nobody who is up goes; \
                 `hedgerow ctl accept {pool}` takes it as it is"
            );
        }
        if settled.is_doubt_over {
            tracing::info!(pool, "the list of members is doubted no more");
        }
    }
}

impl Server {
    /// Has each source asked once, if there are pools of which nobody is known yet: so that who asks as soon as we are ready is
    /// answered. It is not waited long.
    pub async fn ask_sources(&mut self) {
        let deadline = Instant::now() + FIRST_PATIENCE;
        while !self.membership.has_asked() {
            tokio::select! {
                () = self.membership.due() => self.settle_members(),
                () = sleep_until(deadline.into()) => return,
            }
        }
    }

    /// Decides who is a member, and puts that in force.
    pub(super) fn settle_members(&mut self) {
        let (now, mut is_change) = (Instant::now(), false);
        let own = Rc::clone(&self.own_forwarder);
        let is_own = |address: &BackendAddress| is_own_listener(&own.borrow(), address);
        for pool in &mut self.membership.pools {
            let fixed = fixed_of(&self.pools, &self.configured, &pool.name);
            let shared = self.state.as_ref().and_then(|state| state.pool(&pool.name));
            let up = shared.iter().flat_map(|shared| &shared.backends).filter(|backend| backend.is_up());
            let up: HashSet<BackendAddress> = up.map(|backend| backend.address).collect();
            let settled = pool.roster.settle(now, &fixed, |address| up.contains(address), is_own);
            pool.tell(&settled);
            is_change |= settled.is_change;
        }
        if is_change {
            // Whose new state obeys by itself.
            self.put_in_force();
            self.membership.saving.want();
        } else {
            self.obey();
        }
        self.save_members();
    }

    /// Has the backends stand as orders and they themselves say.
    pub(super) fn obey(&mut self) {
        let Some(state) = &self.state else { return };
        let mut is_change = false;
        for pool in &state.pools {
            let roster = self.membership.pools.iter().find(|known| known.name == pool.config.name);
            let announced = &pool.state;
            for backend in &pool.backends {
                let order = self.membership.order(&pool.config.name, &backend.name, &backend.address);
                let is_leaving =
                    roster.and_then(|known| known.roster.origins(&backend.address)).is_some_and(|told| told.1);
                if backend.set_told(order.map(|order| order.order), is_leaving) {
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
                            "{state}: as it says itself, or no order any more"
                        ),
                    }
                    announced.announce(backend);
                    is_change = true;
                }
            }
        }
        if is_change {
            self.refresh();
        }
    }

    /// Does what is due each second.
    pub(super) fn tick_members(&mut self) {
        if self.membership.end_orders(SystemTime::now()) {
            self.obey();
        }
        self.save_members();
        self.note_served_zones();
    }

    /// The pools with all who are members of them, in the order of the config, by hand, by address.
    pub(super) fn pools_with_members(&self) -> Vec<PoolConfig> {
        with_members(&self.pools, &self.membership)
    }
}

/// Pools with all who are members of them.
pub(super) fn with_members(pools: &[PoolConfig], membership: &Membership) -> Vec<PoolConfig> {
    let with = |config: &PoolConfig| {
        let mut config = config.clone();
        let roster = membership.pools.iter().find(|pool| pool.name == config.name);
        let backend = |(address, member): (BackendAddress, &Member)| BackendConfig {
            name: member.name.clone(),
            weight: member.weight,
            ..BackendConfig::at(address)
        };
        config.backends.extend(roster.iter().flat_map(|pool| pool.roster.members()).map(backend));
        config
    };
    pools.iter().map(with).collect()
}

/// The backends of a pool that no source can take away.
fn fixed_of(pools: &[PoolConfig], configured: &[PoolConfig], name: &str) -> Vec<Fixed> {
    let of = |pools: &[PoolConfig]| pools.iter().find(|pool| pool.name == name).map(|pool| pool.backends.clone());
    let configured = of(configured).unwrap_or_default();
    let configured: HashSet<_> = configured.into_iter().map(|known| known.address).collect();
    let fixed = |backend: BackendConfig| {
        let is_by_hand = !configured.contains(&backend.address);
        Fixed { address: backend.address, name: backend.name, is_by_hand }
    };
    of(pools).unwrap_or_default().into_iter().map(fixed).collect()
}

/// Where the forwarder listens.
pub(super) fn own_forwarder(listeners: &Listeners) -> Vec<SocketAddr> {
    let section = listeners.section(&SectionName::Forwarder);
    section.iter().flat_map(|section| &section.addresses).map(|address| address.bound()).collect()
}

/// Whether a backend at an address would be the forwarder itself.
fn is_own_listener(own: &[SocketAddr], address: &BackendAddress) -> bool {
    let ip = address.ip().to_canonical();
    own.iter().any(|own| {
        let is_same = own.ip().to_canonical() == ip;
        own.port() == address.port()
            && (is_same || own.ip().is_unspecified() && (ip.is_loopback() || is_of_this_host(ip)))
    })
}

/// A state at most so often.
const GATHER: Duration = Duration::from_millis(200);

/// How long sources are waited for at the start.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);

/// What was heard and waits to be taken. Who has more to tell waits.
const MAX_TOLD: usize = 64;

/// Lines of the log about one settlement, of each kind.
const MAX_LINES: usize = 20;
