//! The engine of one LS worker, without I/O: queries, replies, ICMP errors and time come in; who is asked, what each client is
//! told, what is kept in the cache and when to wake up come out.
//!
//! ```text
//!    on_query ──▶ cached? ──yes──▶ respond                                 the Io: sockets in `forwarder`, models in `sim`
//!                   │ no                                                     ▲
//!                   ▼                                                        │ send, quarantine, respond, fetch ...
//!        equal one in flight? ──yes──▶ join its race ──┐                     │
//!                   │ no                               │    ┌────────────────┴─────────────────┐
//!                   ▼                                  ├───▶│ ActiveRace: one race, one event  │──▶ over: remember it,
//!          single-flight owner? ──no──▶ hand over      │    │ drive: policy::race says what to │    respond to all who wait,
//!                   │ yes                              │    │ do, and it is done               │    quarantine its slots
//!                   ▼                                  │    └──────────────────────────────────┘
//!                start a race ─────────────────────────┤
//!     on_reply, on_unreachable, on_unsent, on_time ────┘
//! ```
//!
//! An [`Engine`] is single-threaded and never waits. `now` is an argument of each event, and all chance comes from seeds that it
//! is made with, so that the same events make the same actions. What it wants done it asks of an [`Io`], at once and in
//! order; bytes go there as views of what came, or are written in place by closures. The entry of a race is looked up
//! once an event, and lent to an `ActiveRace` with its pool.
//!
//! At the end of a tick whoever drives it sends what is queued, reports what could not leave, and then calls
//! [`end_tick`](Engine::end_tick); it wakes the engine at [`next_due`](Engine::next_due).

mod active_race;
mod again;
mod asked;
mod attempt;
mod audit;
mod cached;
mod compared;
mod connections;
mod dispatch;
mod entry;
mod explain;
mod fallback;
mod finish;
mod in_flight;
pub mod io;
mod learnt;
mod plan;
mod pool;
mod pools;
mod proof;
mod reply;
pub mod shortage;
pub mod single_flight;
mod slots;
mod time;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use self::asked::Explaining;
pub use self::attempt::{Outstanding, Quarantined, TakenSlot};
pub use self::cached::{HashedQuestion, Reason, prefetch_memory};
pub use self::dispatch::ValidQuery;
pub use self::entry::Waiter;
pub use self::explain::{LateReport, RaceReport};
pub use self::finish::response_limit;
pub use self::io::{
    AskedFor, Client, Destination, FetchFrom, FetchQuery, Io, NotSent, Resolution, Said, SentAttempt, TcpQuery,
};
pub use self::learnt::LearntBackend;
pub use self::reply::rank;
pub use self::slots::RaceRef;

use self::active_race::ActiveRace;
use self::in_flight::InFlight;
use self::pool::Pool;
use self::pools::{PoolSlot, Pools};
use self::proof::Secret;
use self::shortage::Shortage;
use self::single_flight::{SingleFlight, WorkerId};
use crate::limit::Clients;
use crate::metrics::{Counters, Limited, PoolCounters};
use crate::policy::timers::Timers;
use crate::state::{ForwarderState, HealthSignal, SharedBackend, SharedPool};
use crate::wire::QuestionHasher;

/// What the engines of all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Which worker runs the races of a question.
    pub single_flight: SingleFlight,
    /// Hashes questions, the same for all workers and unknown to clients. Of good quality, for one hash serves the cache, the
    /// table of races and single-flight, and each takes other bits of it.
    pub hasher: QuestionHasher,
    /// What each client holds.
    pub clients: Arc<Clients>,
    /// How often clients met a limit.
    pub limited: Arc<Limited>,
    /// What the log was told of attempts that could not leave.
    pub shortage: Shortage,
    /// The end of the time in which a process that takes over answers the backlog that waits in the sockets.
    pub catching_up_until: Option<Instant>,
}

impl Shared {
    /// The hash of a folded question without its flags, by which it is found wherever it is looked for.
    pub fn hash(&self, question: &[u8]) -> u64 {
        self.hasher.hash_one(question)
    }
}

/// Where the chance of an engine comes from.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// For policies; nothing secret comes from it.
    pub policy: u64,
    /// For what replies must bear, which nobody may foresee.
    pub proof: [u8; 16],
}

/// The engine of one worker.
pub struct Engine<C: Client> {
    /// What all its races look at.
    worker: Worker,
    /// For each pool of the state, its slot in `pools`.
    pool_slots: Vec<PoolSlot>,
    /// This worker's part of pools, those of earlier states included while they have races.
    pools: Pools,
    /// Races of an earlier state of a pool are over: what only they knew is to be forgotten.
    has_ended_plans: bool,
    /// Queries in flight.
    in_flight: InFlight<C>,
    /// When races have to be looked at.
    timers: Timers<RaceRef>,
    /// For policies.
    rng: SmallRng,
    /// Starts no more races that nobody waits for.
    is_draining: bool,
    /// Where messages are written that nobody is sent.
    scratch: Vec<u8>,
    /// Room for queries that are taken back.
    taken: Vec<TakenSlot>,
    /// Room for attempts that ICMP errors are about.
    struck: Vec<Outstanding>,
}

/// What all races of an engine look at, and none changes.
struct Worker {
    /// The worker's number.
    me: WorkerId,
    /// What it shares with the others.
    shared: Arc<Shared>,
    /// The state in force.
    state: Arc<ForwarderState>,
    /// What is counted.
    counters: Arc<Counters>,
    /// What makes replies hard to forge.
    secret: Secret,
}

impl Worker {
    /// What this worker counts of a pool.
    fn counters_of<'p>(&self, pool: &'p SharedPool) -> &'p PoolCounters {
        &pool.state.counters[usize::from(self.me.0)]
    }
}

impl<C: Client> Engine<C> {
    /// An engine in which nothing is in flight.
    pub fn new<I: Io<Client = C>>(
        io: &mut I,
        me: WorkerId,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        state: Arc<ForwarderState>,
        seeds: Seeds,
        now: Instant,
    ) -> Self {
        let clients = Arc::clone(&shared.clients);
        let mut engine = Self {
            worker: Worker { me, shared, state: Arc::clone(&state), counters, secret: Secret::new(&seeds.proof) },
            pool_slots: Vec::new(),
            pools: Pools::default(),
            has_ended_plans: false,
            in_flight: InFlight::new(clients),
            timers: Timers::new(),
            rng: SmallRng::seed_from_u64(seeds.policy),
            is_draining: false,
            scratch: Vec::with_capacity(SCRATCH),
            taken: Vec::new(),
            struck: Vec::new(),
        };
        engine.set_state(io, state, now);
        engine
    }

    /// Puts another state in force. Races that run end by the rules that they began with.
    pub fn set_state<I: Io<Client = C>>(&mut self, io: &mut I, state: Arc<ForwarderState>, now: Instant) {
        let slots = state.pools.iter().map(|shared| self.pool_slot(io, shared, now)).collect();
        self.pool_slots = slots;
        self.worker.state = state;
        self.remove_unused_pools(io, now);
    }

    /// This worker's part of a pool: the one it has, by another plan if need be, or a new one.
    fn pool_slot<I: Io<Client = C>>(&mut self, io: &mut I, shared: &Arc<SharedPool>, now: Instant) -> PoolSlot {
        let known = self.pools.find(|pool| Arc::ptr_eq(&pool.shared.state, &shared.state));
        let Some(slot) = known else {
            return self.pools.insert(Pool::new(Arc::clone(shared), io, self.worker.me, now));
        };
        let pool = self.pools.at(slot);
        if !Arc::ptr_eq(&pool.shared, shared) {
            pool.set_plan(io, Arc::clone(shared), now);
        }
        slot
    }

    /// Forgets pools that are in no state and have no races.
    fn remove_unused_pools<I: Io<Client = C>>(&mut self, io: &mut I, now: Instant) {
        for slot in self.pools.slots() {
            let is_current = self.pool_slots.contains(&slot);
            if let Some(pool) = self.pools.take_if(slot, |pool| !is_current && pool.is_idle()) {
                pool.forget(io, now);
            }
        }
    }

    /// The state in force.
    pub fn state(&self) -> &Arc<ForwarderState> {
        &self.worker.state
    }

    /// Queries in flight.
    pub fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts no more races that nobody waits for: there is an end to come to.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Lends a race to what happens to it, and forgets it if that ends it. `None` if it is over already.
    fn with_race<I: Io<Client = C>, T>(
        &mut self,
        io: &mut I,
        at: RaceRef,
        now: Instant,
        event: impl FnOnce(&mut ActiveRace<'_, I>) -> T,
    ) -> Option<T> {
        let (entry, spills) = self.in_flight.lend(at)?;
        let (slot, pool) = (entry.pool, self.pools.at(entry.pool));
        pool.work_by(entry.plan);
        let (worker, timers, scratch) = (&self.worker, &mut self.timers, &mut self.scratch);
        let mut race = ActiveRace { at, entry, spills, pool, worker, timers, scratch, io, now, is_over: false };
        let result = event(&mut race);
        let is_over = race.is_over;
        self.pools.at(slot).resume();
        if is_over {
            self.remove(at);
        }
        Some(result)
    }

    /// Forgets a race that is over.
    fn remove(&mut self, at: RaceRef) {
        let Some(entry) = self.in_flight.get(at) else { return };
        if entry.is_claimed {
            self.worker.shared.single_flight.release(entry.hash);
        }
        let (slot, plan) = (entry.pool, entry.plan);
        self.in_flight.remove(at);
        // If it was the last of a plan or of a pool that is in no state, the end of the tick forgets that.
        let pool = self.pools.at(slot);
        self.has_ended_plans |= pool.race_over(plan);
        self.worker.counters_of(&pool.shared).in_flight.subtract(1);
    }
}

/// Tells the prober, unless it was told and has not acted on it yet.
fn tell_prober<I: Io>(io: &mut I, backend: &Arc<SharedBackend>, signal: HealthSignal) {
    if backend.is_first(signal) {
        io.tell_prober(backend, signal);
    }
}

/// Octets of type and class in a question.
const QTYPE_QCLASS: usize = 4;

/// Octets for which `scratch` has room at once: the longest reply by UDP.
const SCRATCH: usize = 4096;
