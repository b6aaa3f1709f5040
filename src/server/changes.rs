//! Changes that an operator makes while the server runs: backends come, go, drain, and are set up or down by hand.
//!
//! A change is a new state, handed to the workers as a reload is: races that run end by the old one. Backends come and go by
//! hand until the config is read again; what a backend is set to by hand outlasts that too, as long as the config has
//! the backend. Nothing is written to a file.

use std::net::SocketAddr;
use std::sync::Arc;

use super::authorities::ServedAuthority;
use super::{Command, ReloadNotice, Server};
use crate::admin::{Change, Question, Refused};
use crate::config::{BackendConfig, PoolConfig};
use crate::engine::Explaining;
use crate::forwarder::Asked;
use crate::state::{ManualHealth, SharedBackend};

impl Server {
    /// Carries a change out, and says what was done.
    pub(super) fn change(&mut self, change: Change) -> Result<String, Refused> {
        match change {
            Change::Reload | Change::Processes(_) => {
                Err(Refused::Invalid(format!("{change:?} is no change of the config")))
            }
            Change::Add { pool, address, weight } => self.add(&pool, address, weight),
            Change::Drain { pool, backend } => {
                let backend = self.backend(&pool, &backend)?;
                backend.drain();
                self.notify(&pool);
                Ok(format!("{} of pool {pool} finishes what it has and gets no more queries", backend.name))
            }
            Change::Remove { pool, backend } => self.remove(&pool, &backend),
            Change::Accept { name } => self.accept(&name),
            Change::Set { pool, backend, to } => {
                let backend = self.backend(&pool, &backend)?;
                backend.set_manual(to);
                self.notify(&pool);
                Ok(match to {
                    ManualHealth::Auto => format!("{} of pool {pool} is as its probes find it", backend.name),
                    ManualHealth::Up => format!("{} of pool {pool} is up, by hand", backend.name),
                    ManualHealth::Down => format!("{} of pool {pool} is down, by hand", backend.name),
                })
            }
        }
    }

    /// Takes what is doubted of a catalog.
    fn accept(&mut self, name: &str) -> Result<String, Refused> {
        let refused = |known: &[String]| Refused::no_such("catalog", name, known.iter().map(String::as_str));
        self.accept_catalog(name).unwrap_or_else(|| {
            let catalogs = self.authorities.iter().flat_map(ServedAuthority::catalogs).map(|known| known.catalog);
            Err(refused(&catalogs.collect::<Vec<_>>()))
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

    /// Adds a backend to a pool. It gets queries once a probe has found it up.
    fn add(&mut self, pool: &str, address: SocketAddr, weight: u16) -> Result<String, Refused> {
        let config = self.pool_config(pool)?;
        if config.backends.iter().any(|known| known.address == address) {
            return Err(Refused::Conflict(format!("pool {pool} has {address} already")));
        }
        let name = address.to_string();
        if let Some(known) = config.backends.iter().find(|known| known.name == name) {
            return Err(Refused::Conflict(format!("pool {pool} calls {} {name} already", known.address)));
        }
        config.backends.push(BackendConfig { address, name, weight });
        self.put_in_force();
        Ok(format!("{address} is in pool {pool}; it gets queries once a probe has found it up"))
    }

    /// Takes a backend out of a pool. What it was asked, it may still answer.
    fn remove(&mut self, pool: &str, backend: &str) -> Result<String, Refused> {
        let address = self.backend(pool, backend)?.address;
        let config = self.pool_config(pool)?;
        if config.backends.len() == 1 {
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
            pool.state.announce();
        }
        self.refresh();
    }

    /// Puts the pools as they are configured now in force.
    pub(super) fn put_in_force(&mut self) {
        let Some(earlier) = &self.state else { return };
        let state = Arc::new(earlier.with_pools(&self.pools, self.workers.len()));
        self.set_state(state);
    }
}

/// What of the changes by hand, that is from `configured` to `running`, is undone where the pools of `new` come into force.
pub(super) fn undone(configured: &[PoolConfig], running: &[PoolConfig], new: &[PoolConfig]) -> Vec<ReloadNotice> {
    let mut notices = Vec::new();
    for running in running {
        let name = &running.name;
        let of = |pools: &[PoolConfig]| pools.iter().find(|pool| pool.name == *name).map(|pool| pool.backends.clone());
        // A pool that goes as a whole was told to go.
        let (Some(configured), Some(new)) = (of(configured), of(new)) else { continue };
        let has = |backends: &[BackendConfig], one: &BackendConfig| backends.iter().any(|b| b.address == one.address);
        let added = running.backends.iter().filter(|backend| !has(&configured, backend));
        for backend in added.filter(|backend| !has(&new, backend)) {
            notices.push(ReloadNotice::Gone { pool: name.clone(), backend: backend.name.clone() });
        }
        let removed = configured.iter().filter(|backend| !has(&running.backends, backend));
        for backend in removed.filter(|backend| has(&new, backend)) {
            notices.push(ReloadNotice::Back { pool: name.clone(), backend: backend.name.clone() });
        }
    }
    notices
}
