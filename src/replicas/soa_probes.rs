//! Finds out which versions of zones the members of pools of replicas have: one task for each pool, on the control thread.
//!
//! What replies tell, workers tell [`SharedSerials`](crate::state::SharedSerials). A member that was not heard about a zone in use is
//! asked for its SOA record here, which counts as a probe; and who has been older than others for too long is behind from then on.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::sleep_until;

use super::ask::{Asked, Member, ask};
use crate::net::clock;
use crate::net::tasks::{Task, TaskKind, Tasks};
use crate::policy::BackendIndex;
use crate::policy::serials::{Source, Version};
use crate::sight::serials as shown;
use crate::state::{ForwarderState, PoolState, SharedBackend, SharedPool};
use crate::wire::{QuestionFlags, RecordClass, RecordType, display_name, read_reply};

/// The SOA probes of all pools of replicas.
pub struct SoaProbes {
    watches: HashMap<*const PoolState, Watch>,
    /// How many queries may be out at a time.
    places: Arc<Semaphore>,
    tasks: Tasks,
}

/// The SOA probes of a pool, and their task.
struct Watch {
    prober: Rc<Prober>,
    /// Ends with this value.
    _task: Task,
}

impl SoaProbes {
    /// Of no pools yet. The tasks are among these; each query takes one of these places. Must be used within a `LocalSet`.
    pub fn new(tasks: Tasks, places: Arc<Semaphore>) -> Self {
        Self { watches: HashMap::new(), places, tasks }
    }

    /// Asks the members of pools of this state, and no others. What is known of pools that stay is kept.
    pub fn set_state(&mut self, state: &ForwarderState) {
        let mut earlier = std::mem::take(&mut self.watches);
        for pool in state.pools.iter().filter(|pool| pool.config.replicas) {
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

    /// Asks nobody any more.
    pub fn stop(&mut self) {
        self.watches.clear();
    }

    fn watch(&self, pool: &Arc<SharedPool>) -> Watch {
        let prober = Rc::new(Prober {
            pool: RefCell::new(Arc::clone(pool)),
            places: Arc::clone(&self.places),
            tasks: self.tasks.clone(),
        });
        let task = self.tasks.start(TaskKind::Replicas, Rc::clone(&prober).run());
        Watch { prober, _task: task }
    }
}

/// What is known of the versions at these pools.
pub fn show<'p>(pools: impl Iterator<Item = &'p Arc<SharedPool>>) -> shown::Serials {
    let mut all = shown::Serials::default();
    for pool in pools {
        match pool.config.replicas {
            true => all.zones.extend(show_pool(pool)),
            false => all.no_replicas.push(pool.config.name.clone()),
        }
    }
    all
}

/// What is known of the versions at the members of a pool.
fn show_pool(pool: &SharedPool) -> Vec<shown::Zone> {
    let member = |version: &Version| {
        let backend = pool.find(BackendIndex(u16::try_from(version.member.0).ok()?))?;
        Some(shown::Member {
            backend: backend.name.clone(),
            serial: version.serial,
            heard: clock::unix_seconds(version.heard),
            older_since: version.older_for.map(clock::unix_seconds),
            behind: backend.is_behind(),
        })
    };
    let zones = pool.state.serials.versions(Instant::now()).into_iter().map(|versions| shown::Zone {
        pool: pool.config.name.clone(),
        zone: display_name(&versions.zone).to_string(),
        newest: versions.newest,
        in_use: versions.is_in_use,
        members: versions.said.iter().filter_map(member).collect(),
    });
    zones.collect()
}

/// Asks the members of one pool.
struct Prober {
    /// The pool as it is now.
    pool: RefCell<Arc<SharedPool>>,
    /// See [`SoaProbes`].
    places: Arc<Semaphore>,
    tasks: Tasks,
}

impl Prober {
    /// Asks for ever.
    async fn run(self: Rc<Self>) {
        loop {
            let now = Instant::now();
            let pool = Arc::clone(&self.pool.borrow());
            let serials = &pool.state.serials;
            serials.set_members(&pool, now);
            for (backend, zone) in serials.ask(now) {
                self.tasks.start_and_leave(TaskKind::Replicas, Rc::clone(&self).ask(backend, zone));
            }
            self.note_behind(&pool, now);
            sleep_until((now + LOOK).into()).await;
        }
    }

    /// Asks a member for the SOA record of a zone.
    async fn ask(self: Rc<Self>, backend: Arc<SharedBackend>, zone: Box<[u8]>) {
        // Without a place now it is asked the next time: nothing waits for one and becomes more and more.
        let Ok(_place) = self.places.try_acquire() else { return };
        backend.probes.increment();
        let mut question = zone.into_vec();
        question.extend_from_slice(&RecordType::SOA.0.to_be_bytes());
        question.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
        let deadline = Instant::now() + self.pool.borrow().rules().health.timeout;
        let asked = Asked { question: &question, flags: QuestionFlags::default(), edns: None };
        let reply = ask(&Member::of(&backend), &asked, deadline).await;
        let told = reply.ok().and_then(|reply| read_reply(&reply).ok()?.answered_serial());
        if let Some(told) = told.filter(|told| question.starts_with(told.zone.as_wire())) {
            let pool = Arc::clone(&self.pool.borrow());
            pool.state.serials.hear(&told, backend.index, Source::Probe, Instant::now());
        }
    }

    /// Notes who is behind now, and tells the workers and the log of who was not before, or is not any more.
    fn note_behind(&self, pool: &SharedPool, now: Instant) {
        let behind = pool.state.serials.behind(pool.config.max_lag, now);
        for backend in &pool.backends {
            let is_behind = behind.contains(&backend.index);
            if !backend.set_behind(is_behind) {
                continue;
            }
            pool.state.announce(backend);
            let (pool, backend) = (&pool.config.name, &backend.name);
            match is_behind {
                true => tracing::warn!(pool, backend, "behind: has an older version of a zone for longer than max_lag"),
                false => tracing::info!(pool, backend, "not behind any more"),
            }
        }
    }

    /// The members are no replicas any more: nobody is behind, and nothing is known.
    fn forget(&self) {
        let pool = self.pool.borrow();
        pool.state.serials.forget();
        for backend in pool.backends.iter().filter(|backend| backend.set_behind(false)) {
            pool.state.announce(backend);
        }
    }
}

/// How often it is looked whom to ask, and who is behind.
const LOOK: Duration = Duration::from_millis(100);
