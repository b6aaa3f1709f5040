//! The engine of one forwarder worker, without I/O. Input: queries, replies, ICMP errors and time. Output:
//! queries to backends, responses to clients, cache entries and the next wake-up.
//!
//! ```text
//!    on_query ──▶ cached? ──yes──▶ respond                    the Io: sockets or models
//!                   │ no                                                   ▲
//!                   ▼                                                      │ send, respond, fetch
//!        equal one in flight? ──yes──▶ join its race ──┐                   │
//!                   │ no                               │    ┌──────────────┴───────────┐
//!                   ▼                                  ├───▶│ ActiveRace:              │──▶ over: cache it,
//!          single-flight owner? ──no──▶ hand over      │    │ a race during one event, │    respond to all,
//!                   │ yes                              │    │ steps by hedge::race     │    quarantine slots
//!                   ▼                                  │    └──────────────────────────┘
//!                start a race ─────────────────────────┤
//!     on_reply, on_unreachable, on_unsent, on_time ────┘
//! ```
//!
//! An [`Engine`] is single-threaded and never blocks. An event is a method of a [`Tick`], which lends the
//! engine an [`Io`] and the time; all randomness comes from seeds, so equal events cause equal actions. The
//! engine acts through the [`Io`], in order; bytes are views of the input or written in place by closures.
//! The entry of a race is looked up once an event and lent to an `ActiveRace` with its pool.
//!
//! At the end of a tick the driver sends the queue, reports failures, calls [`end`](Tick::end), and wakes the
//! engine at [`next_due`](Engine::next_due).
//!
//! Beside it: [`state`], what workers share about pools and backends; [`cache`]; and [`sim`], which drives
//! the same engine with modeled backends. This crate never opens a socket, never reads a clock, and starts
//! nothing.

#![forbid(unsafe_code)]

mod active_race;
mod asked;
mod attempt;
mod audit;
pub mod cache;
mod cached;
#[cfg(test)]
#[path = "tests/client.rs"]
mod client;
mod compact_table;
mod entry;
mod events;
mod explain;
pub mod explanation;
mod finish;
mod in_flight;
pub mod io;
mod learnt;
mod passing;
mod pool;
mod pools;
mod proof;
mod queries;
pub mod query_slots;
mod reply;
mod responses;
pub mod shortage;
pub mod sim;
pub mod single_flight;
mod slots;
pub mod slow;
pub mod state;
mod subnet;
pub mod trace;
mod zones;
mod sync {
    //! The atomics of lock-free state. The models in `loom/` have those of loom in their place.

    pub(crate) use std::sync::atomic::{AtomicU32, Ordering};

    pub(crate) use limit::zeroed;
}

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Rank;
use dns::QuestionHasher;
use hedge::BackendIndex;
use hedge::backend_load::AttemptEnd;
use hedge::timers::Timers;
use limit::Clients;
use metrics::{Counters, LimitCounters, PoolCounters};
use rand::SeedableRng;
use rand::rngs::SmallRng;

pub use self::attempt::{AttemptSlots, Outstanding, QuarantinedAttempt};
pub use self::cached::{HashedQuestion, LookupReason, prefetch_memory};
pub use self::entry::Waiter;
pub use self::explain::{LateReport, RaceClients, RaceReport, RaceResult};
pub use self::io::{
    AskedFor, ClientHandle, Destination, FetchFrom, FetchQuery, Io, NotSent, ResponseOrigin, ResponseSummary,
    SentAttempt, TcpQuery,
};
pub use self::learnt::LearntBackend;
pub use self::queries::{QueryPath, ValidQuery};
pub use self::reply::rank;
pub use self::slots::RaceRef;
pub use self::subnet::SentSubnet;

use self::active_race::ActiveRace;
use self::in_flight::InFlight;
use self::pool::Pool;
use self::pools::{PoolSlot, Pools};
use self::proof::Secret;
use self::query_slots::SocketSetId;
use self::shortage::Shortage;
use self::single_flight::{SingleFlight, WorkerId};
use self::state::{ForwarderState, HealthSignal, SharedBackend, SharedPool};

/// A race among the backends of a pool.
pub type Race = hedge::race::Race<Rank>;

/// The state that the engines of all workers share.
#[derive(Debug)]
pub struct SharedEngineState {
    /// The claims of workers to the races of questions.
    pub single_flight: SingleFlight,
    /// The hasher of questions, equal for all workers and unknown to clients. The cache, the table of races
    /// and single-flight use different bits of one hash, so it must be of good quality.
    pub hasher: QuestionHasher,
    /// The counts of each client.
    pub clients: Arc<Clients>,
    /// The counters of limits that clients met.
    pub limited: Arc<LimitCounters>,
    /// The log state of local shortages.
    pub shortage: Shortage,
    /// The end of the time in which a new process works off the backlog in the sockets.
    pub catching_up_until: Option<Instant>,
}

impl SharedEngineState {
    /// Returns the hash of a folded question without its flags, which identifies it everywhere.
    pub fn hash(&self, question: &[u8]) -> u64 {
        self.hasher.hash_one(question)
    }
}

/// The seeds of an engine's randomness.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The seed of policies; no secret depends on it.
    pub policy: u64,
    /// The seed of proofs, which must be unpredictable.
    pub proof: [u8; 16],
    /// The seed of message IDs, which must be unpredictable.
    pub ids: [u8; 32],
}

/// The engine of one worker.
pub struct Engine<C: ClientHandle> {
    worker: EngineWorker,
    pool_slots: Vec<PoolSlot>,
    pools: Pools,
    /// True if an earlier plan's races are over, so that it can be removed.
    has_ended_plans: bool,
    in_flight: InFlight<C>,
    slots: AttemptSlots,
    timers: Timers<RaceRef>,
    rng: SmallRng,
    is_draining: bool,
    scratch: Vec<u8>,
}

struct EngineWorker {
    me: WorkerId,
    shared: Arc<SharedEngineState>,
    state: Arc<ForwarderState>,
    counters: Arc<Counters>,
    secret: Secret,
}

impl EngineWorker {
    fn counters_of<'p>(&self, pool: &'p SharedPool) -> &'p PoolCounters {
        &pool.state.counters[usize::from(self.me.0)]
    }
}

impl<C: ClientHandle> Engine<C> {
    /// Creates an engine without queries in flight. [`Tick::set_state`] adds its pools.
    pub fn new(
        me: WorkerId,
        shared: Arc<SharedEngineState>,
        counters: Arc<Counters>,
        state: Arc<ForwarderState>,
        seeds: Seeds,
    ) -> Self {
        let in_flight = InFlight::new(Arc::clone(&shared.clients));
        Self {
            worker: EngineWorker { me, shared, state, counters, secret: Secret::new(&seeds.proof) },
            pool_slots: Vec::new(),
            pools: Pools::default(),
            has_ended_plans: false,
            in_flight,
            slots: AttemptSlots::new(seeds.ids),
            timers: Timers::new(),
            rng: SmallRng::seed_from_u64(seeds.policy),
            is_draining: false,
            scratch: Vec::with_capacity(SCRATCH),
        }
    }

    /// Lends the engine its I/O for events at this time.
    pub fn tick<'e, I: Io<Client = C>>(&'e mut self, io: &'e mut I, now: Instant) -> Tick<'e, I> {
        Tick { engine: self, io, now }
    }

    /// Returns the active state.
    pub(crate) fn state(&self) -> &Arc<ForwarderState> {
        &self.worker.state
    }

    /// Returns the number of queries in flight.
    pub(crate) fn len(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns true if no query is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stops refresh races, so that the work can come to an end.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Returns the slots of the queries whose reply may still come.
    pub(crate) fn slots(&self) -> &AttemptSlots {
        &self.slots
    }

    /// Returns the next time at which [`on_time`](Tick::on_time) or [`end`](Tick::end) has work.
    pub fn next_due(&self) -> Option<Instant> {
        [self.timers.peek(), self.slots.next_end()].into_iter().flatten().min()
    }

    /// Returns true if [`on_time`](Tick::on_time) has a race to run.
    pub fn is_race_due(&self, now: Instant) -> bool {
        self.timers.peek().is_some_and(|due| due <= now)
    }

    /// Handles the end of a slot's quarantine without a reply. If a later reply is to be reported, returns
    /// the record for a longer quarantine.
    fn on_quarantine_over(&mut self, late: &QuarantinedAttempt, now: Instant) -> Option<QuarantinedAttempt> {
        let is_charged = late.is_charged?;
        if let Some(pool) = self.pools.get_mut(late.pool) {
            let waited = now.saturating_duration_since(late.sent);
            pool.regret_tally().still_silent(late.beaten, waited);
            pool.ended(late.backend, AttemptEnd::Silence(waited), is_charged, now);
        }
        late.is_reported.then_some(QuarantinedAttempt { is_charged: None, ..*late })
    }

    /// Returns the 99th percentile of the latency of the backend with these sockets; `None` if too few
    /// attempts were answered.
    pub fn p99(&self, sockets: SocketSetId) -> Option<Duration> {
        let (slot, index) = self.owner(sockets)?;
        self.pools.get(slot)?.latency[index.get()].quantile(0.99)
    }

    fn owner(&self, sockets: SocketSetId) -> Option<(PoolSlot, BackendIndex)> {
        self.pools.iter().find_map(|(slot, pool)| Some((slot, pool.backend_of(sockets)?)))
    }

    fn remove(&mut self, at: RaceRef) {
        let Some(entry) = self.in_flight.get(at) else { return };
        if entry.origin.is_claimed {
            self.worker.shared.single_flight.release(entry.hash);
        }
        let (slot, plan) = (entry.origin.pool, entry.origin.plan);
        self.in_flight.remove(at);
        // After the last race of an old plan or pool, the end of the tick removes that.
        let pool = self.pools.at(slot);
        self.has_ended_plans |= pool.race_over(plan);
        self.worker.counters_of(&pool.plan.shared).in_flight.subtract(1);
    }
}

/// An engine with its I/O at one time. Its methods are the events.
pub struct Tick<'e, I: Io> {
    engine: &'e mut Engine<I::Client>,
    io: &'e mut I,
    now: Instant,
}

impl<I: Io> Tick<'_, I> {
    /// Activates another state. Running races keep their rules.
    pub fn set_state(&mut self, state: Arc<ForwarderState>) {
        self.engine.pool_slots = state.pools.iter().map(|shared| self.pool_slot(shared)).collect();
        self.engine.worker.state = state;
        self.remove_unused_pools();
    }

    fn pool_slot(&mut self, shared: &Arc<SharedPool>) -> PoolSlot {
        let Self { engine: Engine { pools, worker, slots, .. }, io, now } = self;
        let known = pools.find(|pool| Arc::ptr_eq(&pool.plan.shared.state, &shared.state));
        let Some(slot) = known else {
            return pools.insert(Pool::new(Arc::clone(shared), *io, worker.me, *now));
        };
        let pool = pools.at(slot);
        if !Arc::ptr_eq(&pool.plan.shared, shared) {
            pool.set_plan(*io, slots, Arc::clone(shared), *now);
        }
        slot
    }

    fn remove_unused_pools(&mut self) {
        for slot in self.engine.pools.slots() {
            let is_current = self.engine.pool_slots.contains(&slot);
            if let Some(pool) = self.engine.pools.take_if(slot, |pool| !is_current && pool.is_idle()) {
                pool.forget(self.io, &mut self.engine.slots, self.now);
            }
        }
    }

    /// Lends a race to `event` and removes it if that ends it. `None` if it is over already.
    fn with_race<T>(&mut self, at: RaceRef, event: impl FnOnce(&mut ActiveRace<'_, I>) -> T) -> Option<T> {
        let Engine { worker, pools, in_flight, slots, timers, scratch, .. } = &mut *self.engine;
        let (entry, spills) = in_flight.lend(at)?;
        let (slot, pool) = (entry.origin.pool, pools.at(entry.origin.pool));
        pool.work_by(entry.origin.plan);
        let (io, now) = (&mut *self.io, self.now);
        let (took, is_over) = (None, false);
        let mut race = ActiveRace { at, entry, spills, pool, worker, slots, timers, scratch, io, now, took, is_over };
        let result = event(&mut race);
        let is_over = race.is_over;
        pools.at(slot).resume();
        if is_over {
            self.engine.remove(at);
        }
        Some(result)
    }

    /// Ends a tick, after the queue was sent and failures were reported. Ends the quarantines that are over.
    pub fn end(&mut self) {
        // Only now, because queries taken back in this tick may still count for such a pool.
        if self.engine.pools.len() > self.engine.pool_slots.len() {
            self.remove_unused_pools();
        }
        let Self { engine: Engine { pools, in_flight, slots, timers, has_ended_plans, .. }, io, now } = self;
        if std::mem::take(has_ended_plans) {
            pools.iter_mut().for_each(|pool| pool.forget_left(*io, slots, *now));
        }
        timers.discard(|due, at| in_flight.get(*at).is_none_or(|entry| entry.armed() != Some(due)));
        debug_assert!(
            in_flight.len() > 0 || pools.iter().all(|(_, pool)| pool.is_not_waited_for()),
            "what is waited for belongs to a race"
        );
        while let Some((slot, late)) = self.engine.slots.pop_ended(self.now) {
            match self.engine.on_quarantine_over(&late, self.now) {
                Some(note) => self.engine.slots.prolong(slot, self.now, note),
                None => self.io.free(slot, self.now),
            }
        }
    }
}

fn signal_prober<I: Io>(io: &mut I, backend: &Arc<SharedBackend>, signal: HealthSignal) {
    if backend.is_first(signal) {
        io.signal_prober(backend, signal);
    }
}

const QTYPE_QCLASS: usize = 4;

const SCRATCH: usize = 4096;
