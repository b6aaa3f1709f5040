//! Finds the zone versions of the members of replica pools: one task for each pool, on the control thread.
//!
//! Workers report the versions in replies to [`SharedSerials`](engine::state::SharedSerials). This task asks
//! members without a recent report for the SOA record of a zone in use, which counts as a probe. A member
//! with an old version for too long is behind.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::{QuestionFlags, RecordClass, RecordType, display_name, read_reply};
use engine::state::serial_table::{LastSerial, SerialSource};
use engine::state::{ForwarderState, PoolState, SharedBackend, SharedPool};
use net::sys::clock;
use net::tasks::{Task, TaskKind};
use tokio::time::sleep_until;

use super::ReplicaLinks;
use super::ask::{ReplicaMember, ReplicaQuestion, ask};
use crate::control::observe::sight::serials as shown;

/// The SOA probes of all pools of replicas.
pub struct SoaProbes {
    watches: HashMap<*const PoolState, SoaProbeTask>,
    links: ReplicaLinks,
}

struct SoaProbeTask {
    prober: Rc<SoaProber>,
    _task: Task,
}

impl SoaProbes {
    /// Makes a value without pools. Each query takes a place of the links. Must be used within a
    /// `LocalRuntime`.
    pub fn new(links: ReplicaLinks) -> Self {
        Self { watches: HashMap::new(), links }
    }

    /// Sets the pools. Pools that stay keep their data.
    pub fn set_state(&mut self, state: &ForwarderState) {
        let mut earlier = std::mem::take(&mut self.watches);
        for pool in state.pools.iter().filter(|pool| pool.config.replicas.enabled) {
            let place = Arc::as_ptr(&pool.state);
            let watch = match earlier.remove(&place) {
                Some(watch) => {
                    watch.prober.pool.replace(Arc::clone(pool));
                    watch
                }
                None => self.watch(pool),
            };
            pool.state.serials.set_members(pool, Instant::now());
            self.watches.insert(place, watch);
        }
        earlier.into_values().for_each(|watch| watch.prober.forget());
    }

    /// Stops all probes.
    pub fn stop(&mut self) {
        self.watches.clear();
    }

    fn watch(&self, pool: &Arc<SharedPool>) -> SoaProbeTask {
        let prober = Rc::new(SoaProber { pool: RefCell::new(Arc::clone(pool)), links: self.links.clone() });
        let task = self.links.tasks.start(TaskKind::Replicas, Rc::clone(&prober).run());
        SoaProbeTask { prober, _task: task }
    }
}

/// Returns the known versions at these pools.
pub fn show<'p>(pools: impl Iterator<Item = &'p Arc<SharedPool>>) -> shown::Serials {
    let mut all = shown::Serials::default();
    for pool in pools {
        match pool.config.replicas.enabled {
            true => all.zones.extend(show_pool(pool)),
            false => all.no_replicas.push(pool.config.name.clone()),
        }
    }
    all
}

fn show_pool(pool: &SharedPool) -> Vec<shown::PoolZone> {
    let member = |version: &LastSerial| {
        let backend = pool.find(version.member)?;
        Some(shown::MemberSerial {
            backend: backend.name.clone(),
            serial: version.serial,
            heard: clock::unix_seconds(version.heard),
            older_since: version.older_for.map(clock::unix_seconds),
            behind: backend.is_behind(),
        })
    };
    let zones = pool.state.serials.versions(Instant::now()).into_iter().map(|versions| shown::PoolZone {
        pool: pool.config.name.clone(),
        zone: display_name(&versions.zone).to_string(),
        newest: versions.newest,
        in_use: versions.is_in_use,
        members: versions.said.iter().filter_map(member).collect(),
    });
    zones.collect()
}

struct SoaProber {
    pool: RefCell<Arc<SharedPool>>,
    links: ReplicaLinks,
}

impl SoaProber {
    async fn run(self: Rc<Self>) {
        loop {
            let now = Instant::now();
            let pool = Arc::clone(&self.pool.borrow());
            let serials = &pool.state.serials;
            serials.set_members(&pool, now);
            for (backend, zone) in serials.ask(now) {
                self.links.tasks.start_and_leave(TaskKind::Replicas, Rc::clone(&self).ask(backend, zone));
            }
            self.note_behind(&pool, now);
            sleep_until((now + LOOK).into()).await;
        }
    }

    async fn ask(self: Rc<Self>, backend: Arc<SharedBackend>, zone: Box<[u8]>) {
        // Without a free place the member is asked the next time, so that no queue grows.
        let Ok(_place) = self.links.places.try_acquire() else { return };
        backend.probes.increment();
        let mut question = zone.into_vec();
        question.extend_from_slice(&RecordType::SOA.0.to_be_bytes());
        question.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
        let deadline = Instant::now() + self.pool.borrow().rules().health.timeout;
        let asked = ReplicaQuestion { question: &question, flags: QuestionFlags::default(), edns: None };
        let reply = ask(&ReplicaMember::of(&backend, &self.links.tls), &asked, deadline).await;
        let reported = reply.ok().and_then(|reply| read_reply(&reply).ok()?.answered_serial());
        if let Some(reported) = reported.filter(|reported| question.starts_with(reported.zone.as_wire())) {
            let pool = Arc::clone(&self.pool.borrow());
            pool.state.serials.hear(&reported, backend.index, SerialSource::Probe, Instant::now());
        }
    }

    /// Finds the members that are behind, and reports changes to the workers and the log.
    fn note_behind(&self, pool: &SharedPool, now: Instant) {
        let behind = pool.state.serials.behind(pool.config.replicas.max_lag, now);
        for backend in &pool.backends {
            let is_behind = behind.contains(&backend.index);
            if !backend.set_behind(is_behind) {
                continue;
            }
            pool.state.announce(backend);
            let (pool, backend) = (&pool.config.name, &backend.name);
            match is_behind {
                true => tracing::warn!(pool, backend, "the backend is behind: its zone is older than max_lag allows"),
                false => tracing::info!(pool, backend, "the backend is no longer behind"),
            }
        }
    }

    /// Clears all data, because the members are no longer replicas.
    fn forget(&self) {
        let pool = self.pool.borrow();
        pool.state.serials.forget();
        for backend in pool.backends.iter().filter(|backend| backend.set_behind(false)) {
            pool.state.announce(backend);
        }
    }
}

const LOOK: Duration = Duration::from_millis(100);
