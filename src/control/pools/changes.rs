//! Changes by an operator while the server runs: add, remove, drain backends, or set them up or down.
//!
//! A change is a new state for the workers, like a reload; running races finish with the old one. Added and
//! removed backends last until the next reload. The state of a backend set by an operator lasts as long as
//! the config has the backend. Nothing is written to a file.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use config::BackendConfig;
use dns::address::BackendAddress;
use engine::state::{ManualHealth, SharedBackend};
use net::tasks::TaskKind;
use tokio::sync::oneshot;

use super::ServerPools;
use crate::admin::naming;
use crate::admin::{ChangeRefusal, ExplainQuestion, FleetOrder, ServerChange};
use crate::control::pools::discover::{BackendOrder, OrderWord};
use crate::control::pools::discoverer::{EtcdAccess, write_order};
use crate::worker::ForwarderCommand;
use crate::worker::forwarder::ExplainRequest;

fn until(backend: &SharedBackend) -> String {
    let until = backend.manual_until().map(humantime::format_rfc3339_seconds);
    until.map_or_else(String::new, |until| format!(" until {until}"))
}

/// The fate of the last backend of a pool that is drained or set down.
const STILL_ASKED: &str = "it still gets queries, since no other backend takes them";

impl ServerPools {
    pub(in crate::control) fn change(&mut self, change: ServerChange) -> Result<String, ChangeRefusal> {
        match change {
            ServerChange::Reload
            | ServerChange::Processes(_)
            | ServerChange::Order(_)
            | ServerChange::Accept { .. } => {
                Err(ChangeRefusal::Invalid(format!("{change:?} is no change of the config")))
            }
            ServerChange::Add { pool, address, weight } => self.add(&pool, address, weight),
            ServerChange::Drain { pool, backend, lasts, is_forced } => {
                let backend = self.backend(&pool, &backend)?;
                let is_last = self.is_last(&pool, &backend, is_forced)?;
                backend.drain(lasts);
                self.notify(&pool);
                let until = until(&backend);
                if is_last {
                    return Ok(format!("{} of pool {pool} drains{until}, but {STILL_ASKED}", backend.name));
                }
                Ok(format!("{} of pool {pool} gets no new queries{until}, and finishes its pending ones", backend.name))
            }
            ServerChange::Remove { pool, backend } => self.remove(&pool, &backend),
            ServerChange::Set { pool, backend, to, lasts, is_forced } => {
                let backend = self.backend(&pool, &backend)?;
                let is_last = to == ManualHealth::Down && self.is_last(&pool, &backend, is_forced)?;
                backend.set_manual(to, lasts);
                self.notify(&pool);
                let until = until(&backend);
                Ok(match to {
                    ManualHealth::Auto => format!("{} of pool {pool} follows its probes", backend.name),
                    ManualHealth::Up => format!("{} of pool {pool} is set up by hand{until}", backend.name),
                    ManualHealth::Down if is_last => {
                        format!("{} of pool {pool} is set down by hand{until}, but {STILL_ASKED}", backend.name)
                    }
                    ManualHealth::Down => format!("{} of pool {pool} is set down by hand{until}", backend.name),
                })
            }
        }
    }

    /// Accepts the doubtful list of a pool; `None` if there is no such pool with sources.
    pub(in crate::control) fn accept(&mut self, name: &str) -> Option<Result<String, ChangeRefusal>> {
        Some(match self.membership.accept(name)? {
            0 => Err(ChangeRefusal::Conflict(format!(
                "all members of pool {name} are listed: there is nothing to accept"
            ))),
            held => Ok(format!("{held} members of pool {name} that are no longer listed are removed")),
        })
    }

    /// Returns the names of the pools with sources.
    pub(in crate::control) fn with_sources(&self) -> impl Iterator<Item = &str> {
        self.membership.pools.iter().map(|pool| pool.name.as_str())
    }

    /// Makes a worker explain a question: the one known to handle it, or any other, which reports the right
    /// one.
    pub(in crate::control) fn explain(&self, question: ExplainQuestion) -> Result<(), ChangeRefusal> {
        let ExplainQuestion { name, qtype, client, is_fresh, worker, events } = question;
        if self.state.is_none() {
            return Err(ChangeRefusal::NotFound("there is no forwarder: the config has no [forwarder]".to_owned()));
        }
        let rules = self.state.as_ref().and_then(|state| state.rules.as_ref());
        if let Some((listener, rules)) = client.listener.zip(rules)
            && rules.listener_at(listener).is_none()
        {
            return Err(ChangeRefusal::NotFound(format!("{listener} is no listener of the forwarder, as bound")));
        }
        let number = usize::from(worker.unwrap_or(0));
        let is_handed_over = worker.is_some();
        let asked = ExplainRequest { name, qtype, client, is_fresh, is_handed_over, events };
        let is_sent = self.links.workers.send(number, ForwarderCommand::Explain(Box::new(asked)));
        if is_sent { Ok(()) } else { Err(ChangeRefusal::Conflict(format!("worker {number} does not take queries"))) }
    }

    /// Writes an order to all forwarders into etcd. `answer` receives the result once it is written.
    pub(in crate::control) fn order(&self, order: FleetOrder, answer: oneshot::Sender<Result<String, ChangeRefusal>>) {
        let (access, order, about) = match self.prepare_order(&order) {
            Ok(prepared) => prepared,
            Err(refused) => return drop(answer.send(Err(refused))),
        };
        let FleetOrder { pool, backend, lasts, .. } = about;
        let here =
            format!("hedgerow ctl {} {pool} {backend}", order.as_ref().map_or("auto", |order| order.order.label()));
        let done = match &order {
            Some(order) => format!("all forwarders get the order to {} {backend} of pool {pool}", order.order.label()),
            None => format!("{backend} of pool {pool} has no order any more"),
        };
        let write = write_order(access, self.links.tasks.clone(), (pool, backend), order, lasts);
        self.links.tasks.start_and_leave(TaskKind::Discovery, async move {
            let written = write.await.map(|()| done);
            let refused = |error| ChangeRefusal::Conflict(format!("{error}; for this forwarder alone: {here}"));
            let _ = answer.send(written.map_err(refused));
        });
    }

    fn prepare_order(
        &self,
        order: &FleetOrder,
    ) -> Result<(Rc<EtcdAccess>, Option<BackendOrder>, FleetOrder), ChangeRefusal> {
        let FleetOrder { pool, backend, order: word, by, lasts, is_forced } = order;
        let none = || ChangeRefusal::Conflict("orders need etcd: add [etcd] to the config".to_owned());
        let access = Rc::clone(self.membership.discoverer.access().ok_or_else(none)?);
        // Use the name, which all forwarders share.
        let known = self.backend(pool, backend);
        let name = match (&known, word) {
            (Ok(known), _) => known.name.clone(),
            // An order for a removed backend can be withdrawn.
            (Err(_), None) => backend.clone(),
            (Err(refused), Some(_)) => return Err(refused.clone()),
        };
        if let (Some(OrderWord::Drain | OrderWord::Down), Ok(meant), false) = (word, &known, is_forced)
            && !self.has_another(pool, meant)
        {
            let reason = format!("no other backend of pool {pool} takes queries; add --force to do it anyway");
            return Err(ChangeRefusal::Conflict(reason));
        }
        let now = SystemTime::now();
        let time = |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string();
        let until = lasts.map(|lasts| time(now + lasts));
        let written = word.map(|order| BackendOrder { order, by: by.clone(), at: time(now), until });
        Ok((access, written, FleetOrder { backend: name, ..order.clone() }))
    }

    fn has_another(&self, pool: &str, meant: &Arc<SharedBackend>) -> bool {
        let state = self.state.as_ref().and_then(|state| state.pool(pool));
        let takes = |other: &Arc<SharedBackend>| !Arc::ptr_eq(other, meant) && other.takes_queries();
        state.iter().flat_map(|pool| &pool.backends).any(takes)
    }

    /// Returns true if this backend is the last of its pool that takes queries; an error unless forced.
    fn is_last(&self, pool: &str, meant: &Arc<SharedBackend>, is_forced: bool) -> Result<bool, ChangeRefusal> {
        let is_last = meant.takes_queries() && !self.has_another(pool, meant);
        if is_last && !is_forced {
            let name = &meant.name;
            let reason = format!(
                "{name} is the last backend of pool {pool} that is up: {STILL_ASKED}; add --force to do it anyway"
            );
            return Err(ChangeRefusal::Conflict(reason));
        }
        Ok(is_last)
    }

    /// Adds a backend to a pool. It gets queries once a probe has found it up.
    fn add(&mut self, pool: &str, address: BackendAddress, weight: u16) -> Result<String, ChangeRefusal> {
        let config = self.configs.pool(pool)?;
        if config.backends.iter().any(|known| known.address == address) {
            return Err(ChangeRefusal::Conflict(format!("pool {pool} has {address} already")));
        }
        let name = address.to_string();
        if let Some(known) = config.backends.iter().find(|known| known.name == name) {
            return Err(ChangeRefusal::Conflict(format!("pool {pool} calls {} {name} already", known.address)));
        }
        let edits = self.configs.edits.entry(pool.to_owned()).or_default();
        edits.added.push(BackendConfig { weight, ..BackendConfig::at(address) });
        self.put_in_force();
        Ok(format!("{address} is in pool {pool}; it gets queries once a probe has found it up"))
    }

    fn remove(&mut self, pool: &str, backend: &str) -> Result<String, ChangeRefusal> {
        let address = self.backend(pool, backend)?.address;
        if self.membership.is_listed(pool, &address) {
            let reason =
                format!("{backend} is listed by a source, which would bring it back: drain it, or take it out there");
            return Err(ChangeRefusal::Conflict(reason));
        }
        let config = self.configs.pool(pool)?;
        if config.backends.len() == 1 && config.discover.is_none() {
            let reason = format!("{backend} is the only backend of pool {pool}; add another first, or drain it");
            return Err(ChangeRefusal::Conflict(reason));
        }
        let edits = self.configs.edits.entry(pool.to_owned()).or_default();
        edits.added.retain(|known| known.address != address);
        let mut configured = self.configs.file.iter().filter(|config| config.name == pool);
        if configured.any(|config| config.backends.iter().any(|known| known.address == address)) {
            edits.removed.push(address);
        }
        self.put_in_force();
        Ok(format!("{backend} is no longer in pool {pool}"))
    }

    fn backend(&self, pool: &str, backend: &str) -> Result<Arc<SharedBackend>, ChangeRefusal> {
        let pools: Vec<&str> = self.configs.file.iter().map(|pool| &*pool.name).collect();
        let found = self.state.as_ref().and_then(|state| state.pool(pool));
        let found = found.ok_or_else(|| ChangeRefusal::no_such("pool", pool, pools))?;
        let known = found.backends.iter().map(|known| (&*known.name, known.address));
        match *naming::find(backend, known.clone()) {
            [place] => Ok(Arc::clone(&found.backends[place])),
            [] => Err(ChangeRefusal::no_such("backend", backend, known.map(|(name, _)| name))),
            ref several => {
                let names: Vec<_> = several.iter().map(|place| &*found.backends[*place].name).collect();
                let names = names.join(", ");
                Err(ChangeRefusal::Conflict(format!("{backend:?} may be any of {names}: name one of them")))
            }
        }
    }

    /// Ends the settings of operators whose time is over.
    pub(super) fn end_settings(&self, now: SystemTime) {
        for pool in self.shared() {
            let over: Vec<_> = pool.backends.iter().filter(|backend| backend.end_manual(now)).collect();
            for backend in &over {
                let (pool, backend) = (&pool.config.name, &backend.name);
                tracing::info!(pool, backend, "the setting by hand has ended: probes decide again");
            }
            if !over.is_empty() {
                self.notify(&pool.config.name);
            }
        }
    }

    fn notify(&self, pool: &str) {
        if let Some(pool) = self.state.as_ref().and_then(|state| state.pool(pool)) {
            pool.state.announce_all();
        }
        // A member is held only while it is up, so settle the members again.
        self.membership.wake.notify_one();
        self.links.refresh();
    }

    pub(in crate::control) fn put_in_force(&mut self) {
        let Some(earlier) = &self.state else { return };
        let state = Arc::new(earlier.with_pools(
            &self.membership.with_members(&self.configs.running()),
            self.links.workers.count(),
            Instant::now(),
        ));
        self.set_state(state);
        self.obey();
    }
}
