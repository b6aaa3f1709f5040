//! Changes that an operator makes while the server runs: backends come, go, drain, and are set up or down by hand.
//!
//! A change is a new state, handed to the workers as a reload is: races that run end by the old one. Backends come and go by
//! hand until the config is read again; what a backend is set to by hand outlasts that too, as long as the config has
//! the backend. Nothing is written to a file.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::authorities::ServedAuthority;
use super::{Command, ReloadNotice, Server};
use crate::address::BackendAddress;
use crate::admin::{Change, FleetOrder, Question, Refused};
use crate::config::{BackendConfig, PoolConfig};
use crate::discover::{Order, OrderWord};
use crate::discoverer::{EtcdAccess, write_order};
use crate::engine::Explaining;
use crate::forwarder::Asked;
use crate::net::tasks::TaskKind;
use crate::state::{ManualHealth, SharedBackend};

/// The fate of the last backend of a pool that is drained or set down.
const STILL_ASKED: &str = "it is still asked, since no other backend takes queries";

impl Server {
    /// Carries a change out, and says what was done.
    pub(super) fn change(&mut self, change: Change) -> Result<String, Refused> {
        match change {
            Change::Reload | Change::Processes(_) | Change::Order(_) => {
                Err(Refused::Invalid(format!("{change:?} is no change of the config")))
            }
            Change::Add { pool, address, weight } => self.add(&pool, address, weight),
            Change::Drain { pool, backend, is_forced } => {
                let backend = self.backend(&pool, &backend)?;
                let is_last = self.is_last(&pool, &backend, is_forced)?;
                backend.drain();
                self.notify(&pool);
                if is_last {
                    return Ok(format!("{} of pool {pool} drains, but {STILL_ASKED}", backend.name));
                }
                Ok(format!("{} of pool {pool} finishes what it has and gets no more queries", backend.name))
            }
            Change::Remove { pool, backend } => self.remove(&pool, &backend),
            Change::Accept { name } => self.accept(&name),
            Change::Set { pool, backend, to, is_forced } => {
                let backend = self.backend(&pool, &backend)?;
                let is_last = to == ManualHealth::Down && self.is_last(&pool, &backend, is_forced)?;
                backend.set_manual(to);
                self.notify(&pool);
                Ok(match to {
                    ManualHealth::Auto => format!("{} of pool {pool} is as its probes find it", backend.name),
                    ManualHealth::Up => format!("{} of pool {pool} is up, by hand", backend.name),
                    ManualHealth::Down if is_last => {
                        format!("{} of pool {pool} is down, by hand, but {STILL_ASKED}", backend.name)
                    }
                    ManualHealth::Down => format!("{} of pool {pool} is down, by hand", backend.name),
                })
            }
        }
    }

    /// Takes what is doubted, of the members of a pool or of a catalog.
    fn accept(&mut self, name: &str) -> Result<String, Refused> {
        match self.membership.accept(name) {
            Some(0) => {
                return Err(Refused::Conflict(format!(
                    "all members of pool {name} are listed: there is nothing to accept"
                )));
            }
            Some(held) => return Ok(format!("{held} members of pool {name} that are not listed any more go")),
            None => {}
        }
        self.accept_catalog(name).unwrap_or_else(|| {
            let catalogs = self.authorities.iter().flat_map(ServedAuthority::catalogs).map(|known| known.catalog);
            let known: Vec<_> = self.membership.pools().map(str::to_owned).chain(catalogs).collect();
            Err(Refused::no_such("pool with sources, or catalog,", name, known.iter().map(String::as_str)))
        })
    }

    /// Has a worker ask a question for an operator: the one that is known to have it, or else whichever takes queries, which says if
    /// another has it.
    pub(super) fn explain(&self, question: Question) -> Result<(), Refused> {
        let Question { name, qtype, is_fresh, worker, events } = question;
        if self.state.is_none() {
            return Err(Refused::NotFound("there is no forwarder: the config has no [forwarder]".to_owned()));
        }
        let ways = self.workers.ways();
        let number = usize::from(worker.unwrap_or(0));
        let how = Explaining { is_fresh, is_handed_over: worker.is_some() };
        let asked = Asked { name, qtype, how, events };
        let told = ways.get(number).is_some_and(|way| way.send(Command::Explain(Box::new(asked))).is_ok());
        if told { Ok(()) } else { Err(Refused::Conflict(format!("worker {number} does not take queries"))) }
    }

    /// Gives an order to all LS by etcd. Who has asked is told when it stands there.
    pub(super) fn order(&self, order: FleetOrder, answer: oneshot::Sender<Result<String, Refused>>) {
        let (access, order, about) = match self.prepare_order(&order) {
            Ok(prepared) => prepared,
            Err(refused) => return drop(answer.send(Err(refused))),
        };
        let FleetOrder { pool, backend, lasts, .. } = about;
        let here =
            format!("hedgerow ctl {} {pool} {backend}", order.as_ref().map_or("auto", |order| order.order.label()));
        let done = match &order {
            Some(order) => format!("all LS are ordered to {} {backend} of pool {pool}", order.order.label()),
            None => format!("{backend} of pool {pool} is under no order any more"),
        };
        let write = write_order(access, self.tasks.clone(), (pool, backend), order, lasts);
        self.tasks.start_and_leave(TaskKind::Discovery, async move {
            let written = write.await.map(|()| done);
            let refused = |error| Refused::Conflict(format!("{error}; for this LS alone: {here}"));
            let _ = answer.send(written.map_err(refused));
        });
    }

    /// What is to be written, if anything may be.
    fn prepare_order(&self, order: &FleetOrder) -> Result<(Rc<EtcdAccess>, Option<Order>, FleetOrder), Refused> {
        let FleetOrder { pool, backend, order: word, by, lasts, is_forced } = order;
        let none = || Refused::Conflict("there is no etcd to give orders by: the config has no [etcd]".to_owned());
        let access = Rc::clone(self.membership.access().ok_or_else(none)?);
        // By its name, for that is what all LS call it.
        let known = self.backend(pool, backend);
        let name = match (&known, word) {
            (Ok(known), _) => known.name.clone(),
            // An order for one that is gone can be taken back.
            (Err(_), None) => backend.clone(),
            (Err(refused), Some(_)) => return Err(refused.clone()),
        };
        if let (Some(OrderWord::Drain | OrderWord::Down), Ok(meant), false) = (word, &known, is_forced)
            && !self.has_another(pool, meant)
        {
            let reason = format!("nobody else of pool {pool} takes queries; --force orders it even so");
            return Err(Refused::Conflict(reason));
        }
        let now = SystemTime::now();
        let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
        let until = lasts.map(|lasts| time(now + lasts));
        let written = word.map(|order| Order { order, by: by.clone(), at: time(now), until });
        Ok((access, written, FleetOrder { backend: name, ..order.clone() }))
    }

    /// True if a backend of a pool other than this one takes queries.
    fn has_another(&self, pool: &str, meant: &Arc<SharedBackend>) -> bool {
        let state = self.state.as_ref().and_then(|state| state.pool(pool));
        let takes = |other: &Arc<SharedBackend>| !Arc::ptr_eq(other, meant) && other.takes_queries();
        state.iter().flat_map(|pool| &pool.backends).any(takes)
    }

    /// True if this backend is the last of its pool that takes queries.
    ///
    /// # Errors
    /// If it is, and the change is not forced.
    fn is_last(&self, pool: &str, meant: &Arc<SharedBackend>, is_forced: bool) -> Result<bool, Refused> {
        let is_last = meant.takes_queries() && !self.has_another(pool, meant);
        if is_last && !is_forced {
            let name = &meant.name;
            let reason =
                format!("{name} is the last backend of pool {pool} that is up: {STILL_ASKED}; --force does it");
            return Err(Refused::Conflict(reason));
        }
        Ok(is_last)
    }

    /// Adds a backend to a pool. It gets queries once a probe has found it up.
    fn add(&mut self, pool: &str, address: BackendAddress, weight: u16) -> Result<String, Refused> {
        let config = self.pool_config(pool)?;
        if config.backends.iter().any(|known| known.address == address) {
            return Err(Refused::Conflict(format!("pool {pool} has {address} already")));
        }
        let name = address.to_string();
        if let Some(known) = config.backends.iter().find(|known| known.name == name) {
            return Err(Refused::Conflict(format!("pool {pool} calls {} {name} already", known.address)));
        }
        config.backends.push(BackendConfig { weight, ..BackendConfig::at(address) });
        self.put_in_force();
        Ok(format!("{address} is in pool {pool}; it gets queries once a probe has found it up"))
    }

    /// Takes a backend out of a pool. What it was asked, it may still answer.
    fn remove(&mut self, pool: &str, backend: &str) -> Result<String, Refused> {
        let address = self.backend(pool, backend)?.address;
        if self.membership.is_listed(pool, &address) {
            let reason =
                format!("{backend} is listed by a source, which would bring it back: drain it, or take it out there");
            return Err(Refused::Conflict(reason));
        }
        let config = self.pool_config(pool)?;
        if config.backends.len() == 1 && config.discover.is_none() {
            let reason = format!("{backend} is the only backend of pool {pool}; add another first, or drain it");
            return Err(Refused::Conflict(reason));
        }
        config.backends.retain(|known| known.address != address);
        self.put_in_force();
        Ok(format!("{backend} is no longer in pool {pool}"))
    }

    /// The config of a pool, to be changed.
    fn pool_config(&mut self, name: &str) -> Result<&mut PoolConfig, Refused> {
        let names: Vec<String> = self.pools.iter().map(|pool| pool.name.clone()).collect();
        let pool = self.pools.iter_mut().find(|pool| pool.name == name);
        pool.ok_or_else(|| Refused::no_such("pool", name, names.iter().map(String::as_str)))
    }

    /// A backend by its name or address.
    fn backend(&self, pool: &str, backend: &str) -> Result<Arc<SharedBackend>, Refused> {
        let pools: Vec<&str> = self.pools.iter().map(|pool| &*pool.name).collect();
        let found = self.state.as_ref().and_then(|state| state.pool(pool));
        let found = found.ok_or_else(|| Refused::no_such("pool", pool, pools))?;
        let is_meant = |known: &&Arc<SharedBackend>| known.name == backend || known.address.to_string() == backend;
        let names: Vec<&str> = found.backends.iter().map(|known| &*known.name).collect();
        let meant = found.backends.iter().find(is_meant).cloned();
        meant.ok_or_else(|| Refused::no_such("backend", backend, names))
    }

    /// Lets the workers know that a backend of a pool stands otherwise.
    fn notify(&self, pool: &str) {
        if let Some(pool) = self.state.as_ref().and_then(|state| state.pool(pool)) {
            pool.state.announce_all();
        }
        // Who is held is held while it is up.
        self.membership.wake().notify_one();
        self.refresh();
    }

    /// Puts the pools as they are configured now in force.
    pub(super) fn put_in_force(&mut self) {
        let Some(earlier) = &self.state else { return };
        let state = Arc::new(earlier.with_pools(&self.pools_with_members(), self.workers.len()));
        self.set_state(state);
        self.obey();
    }
}

/// What of the changes by hand, that is from `configured` to `running`, is undone where the pools of `new` come into force.
pub(super) fn undone<'a>(
    configured: &'a [PoolConfig],
    running: &'a [PoolConfig],
    new: &'a [PoolConfig],
) -> Vec<ReloadNotice> {
    let mut notices = Vec::new();
    for running in running {
        let name = &running.name;
        let of = |pools: &'a [PoolConfig]| pools.iter().find(|pool| pool.name == *name);
        // A pool that goes as a whole was told to go.
        let (Some(configured), Some(new)) = (of(configured), of(new)) else { continue };
        // There may be thousands of them.
        let [of_config, of_running, of_new] = [configured, running, new]
            .map(|pool| pool.backends.iter().map(|backend| backend.address).collect::<HashSet<BackendAddress>>());
        let added = running.backends.iter().filter(|backend| !of_config.contains(&backend.address));
        for backend in added.filter(|backend| !of_new.contains(&backend.address)) {
            notices.push(ReloadNotice::Gone { pool: name.clone(), backend: backend.name.clone() });
        }
        let removed = configured.backends.iter().filter(|backend| !of_running.contains(&backend.address));
        for backend in removed.filter(|backend| of_new.contains(&backend.address)) {
            notices.push(ReloadNotice::Back { pool: name.clone(), backend: backend.name.clone() });
        }
    }
    notices
}
