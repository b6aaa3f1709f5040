//! The LS: the story of one query.
//!
//! ```text
//!   take (intake) ──▶ read (wire) ──▶ route ──▶ in memory (cache)? ──yes──▶ respond
//!                                         │ no
//!                                         ▼
//!                              equal one in flight? ──yes──▶ join its race
//!                                         │ no
//!                                         ▼
//!                   claim (claims) ──▶ start a race (policy::race) ──▶ drive ◀── reply, ICMP error, time
//!                                                                        │
//!                        ask a backend (net::backend_sockets) ◀─────────────────┤
//!                        wait (policy::timers) ◀─────────────────────────┤
//!                        finish: remember it (cache), one response to each waiter ◀─┘
//! ```
//!
//! A [`Forwarder`] is one worker's: single-threaded, and never waits. It is handed datagrams and the time in turns; at the
//! end of each turn everything that was queued leaves in batches. Reading sockets is `serve`'s business.

mod admit;
mod again;
mod allowance;
mod by_tcp;
pub mod claims;
mod client;
mod entry;
mod explain;
mod fetch;
mod fetches;
mod in_flight;
mod intake;
mod memory;
mod paced;
mod pool;
mod proof;
mod races;
mod responses;
pub mod serve;
pub mod shortage;
mod slots;
mod turns;

use std::cell::{OnceCell, RefCell};
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Sender, UnboundedSender};

pub use self::client::{Client, Peer};

use self::by_tcp::{BY_TCP, ByTcp};
use self::claims::{Claims, WorkerId};
use self::fetches::Fetches;
use self::in_flight::InFlight;
use self::intake::TOGETHER;
use self::paced::Paced;
use self::pool::Pool;
use self::proof::{Proof, Secret};
use self::responses::{Listener, Way};
use self::shortage::Shortage;
use self::slots::RaceRef;
use crate::limit::{Clients, OwnAddresses, Pacing};
use crate::metrics::{Counters, Dropped, Limited};
use crate::net::backend_sockets::{BackendSockets, Refused, SlotState};
use crate::net::batch::{BATCH, SendBatch};
use crate::net::tasks::Tasks;
use crate::net::udp::Socket;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, BackendIndex, MAX_ATTEMPTS};
use crate::policy::timers::Timers;
use crate::state::{ForwarderState, HealthEvent, HealthSignal, SharedBackend, SharedPool};
use crate::wire::{QuestionFlags, QuestionHasher, QuestionKey};

/// What the workers of one LS share.
#[derive(Debug)]
pub struct Shared {
    /// Which worker runs the races of a question.
    pub claims: Claims,
    /// Hashes questions, the same for all workers and unknown to clients. Of good quality, for one hash serves the cache, the
    /// table of races and the claims, and each takes other bits of it.
    pub hasher: QuestionHasher,
    /// The way to each worker, by number; each has room for [`HAND_OVERS`].
    pub workers: Vec<Sender<HandOver>>,
    /// For each worker, the queries that were handed over to it and that it has not taken yet.
    pub on_the_way: Vec<AtomicUsize>,
    /// What each client holds.
    pub clients: Arc<Clients>,
    /// What each is sent at once.
    pub pacing: Pacing,
    /// How often clients met a limit.
    pub limited: Arc<Limited>,
    /// What the log was told of attempts that could not leave.
    pub shortage: Shortage,
    /// The way to the prober.
    pub health_events: UnboundedSender<HealthEvent>,
}

impl Shared {
    /// The hash of a folded question without its flags, by which it is found wherever it is looked for.
    pub fn hash(&self, question: &[u8]) -> u64 {
        self.hasher.hash_one(question)
    }
}

/// A query for whose question another worker runs the races.
#[derive(Debug)]
pub struct HandOver {
    /// The query as it came.
    message: Vec<u8>,
    /// Who asked.
    client: Client,
}

/// What a worker's LS is linked with.
pub struct Links {
    /// What it shares with the other workers.
    pub shared: Arc<Shared>,
    /// Its UDP sockets.
    pub sockets: Vec<Rc<Socket>>,
    /// Where no client is.
    pub own: Arc<OwnAddresses>,
    /// For how many sockets to backends it has room.
    pub backend_sockets: usize,
    /// Connections by which it may fetch answers from backends.
    pub fetches: usize,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To be told when the last race is over.
    pub idle: Rc<Notify>,
    /// The tasks of this worker.
    pub tasks: Tasks,
}

/// One worker's LS.
pub struct Forwarder {
    /// This worker's number.
    me: WorkerId,
    /// What it shares with the others.
    shared: Arc<Shared>,
    /// Itself, for tasks that come back later.
    this: Rc<OnceCell<Weak<RefCell<Self>>>>,
    /// The config in force.
    state: Arc<ForwarderState>,
    /// For each pool of the state, its place in `pools`.
    pool_places: Vec<u16>,
    /// This worker's part of pools, those of earlier plans included while they have races; `None` is free.
    pools: Vec<Option<Pool>>,
    /// The sockets to the backends, and who waits on them.
    backend_sockets: BackendSockets<Outstanding, Quarantined>,
    /// Queries in flight.
    in_flight: InFlight,
    /// Whole answers that are fetched by TCP.
    fetches: Fetches,
    /// When races have to be looked at.
    timers: Timers<RaceRef>,
    /// The way out to the clients.
    way: Way,
    /// Where no client is.
    own: Arc<OwnAddresses>,
    /// What is counted.
    counters: Arc<Counters>,
    /// Told when the last race is over.
    idle: Rc<Notify>,
    /// For policies; nothing secret comes from it.
    rng: SmallRng,
    /// What makes replies hard to forge.
    secret: Secret,
    /// Messages that could not be sent, to be looked at before the turn ends.
    refused: Vec<Refused<Outstanding, Quarantined>>,
    /// Attempts of a dead backend, to be failed.
    orphans: Vec<SlotState<Outstanding, Quarantined>>,
    /// What waited on a socket that is void, to be asked again.
    voided: Vec<SlotState<Outstanding, Quarantined>>,
    /// Attempts that are being made by TCP.
    by_tcp: ByTcp,
    /// Attempts that ICMP errors are about, to be told so.
    struck: Vec<Outstanding>,
    /// Backend sockets that may have more than was read in this turn.
    unread: Vec<u32>,
    /// Where messages are written that nobody is sent.
    scratch: Vec<u8>,
    /// The folded questions of messages that are being taken.
    folded: Vec<u8>,
}

/// What is kept in the query slot of an attempt whose race runs: which that is, and how it was sent. All else is there.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    /// The race.
    race: RaceRef,
    /// Its attempt, in the lowest bits, and what the reply must bear: one octet, for there may be a hundred thousand of these.
    tag: u8,
}

impl Outstanding {
    /// Of an attempt whose reply must bear this.
    fn new(race: RaceRef, attempt: AttemptId, proof: Proof) -> Self {
        Self { race, tag: attempt.0 | proof.bits() << Self::ATTEMPT_BITS }
    }

    /// The attempt.
    fn attempt(self) -> AttemptId {
        AttemptId(self.tag & ((1 << Self::ATTEMPT_BITS) - 1))
    }

    /// What its reply must bear.
    fn proof(self) -> Proof {
        Proof::of_bits(self.tag >> Self::ATTEMPT_BITS)
    }

    /// Bits that the number of an attempt takes.
    const ATTEMPT_BITS: u32 = MAX_ATTEMPTS.trailing_zeros();
}

/// What is kept in the query slot of an attempt whose race was over before its reply came.
#[derive(Clone, Copy, Debug)]
struct Quarantined {
    /// When it was made.
    sent: Instant,
    /// The hash of the question that was asked.
    hash: u64,
    /// The worker's number of its pool, which outlives the race.
    pool: u16,
    /// Whom it went to.
    backend: BackendIndex,
    /// The latency of its backend has been charged with that.
    is_charged: bool,
    /// RD, CD and DO of the query.
    flags: QuestionFlags,
    /// What its reply must bear.
    proof: Proof,
    /// A reply of a higher rank than this is better than what the race had come to.
    above: Option<Rank>,
}

impl Forwarder {
    /// A worker's LS.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the system no randomness.
    pub fn new(me: WorkerId, links: Links, state: Arc<ForwarderState>, now: Instant) -> io::Result<Rc<RefCell<Self>>> {
        let Links { shared, sockets, backend_sockets, fetches, own, counters, idle, tasks } = links;
        let response_size = usize::from(state.edns_udp_size);
        let listener = |socket| Listener { socket, responses: SendBatch::new(BATCH, response_size) };
        let listeners = sockets.into_iter().map(listener).collect();
        let backend_sockets = BackendSockets::new(backend_sockets)?;
        // Connections come back to the forwarder, which is not there yet.
        let itself = Rc::new(OnceCell::<Weak<RefCell<Self>>>::new());
        let owner = Rc::clone(&itself);
        let by_tcp = fetches / BY_TCP;
        let fetches = Fetches::new(fetches - by_tcp, tasks.clone(), move |key, report| {
            if let Some(forwarder) = owner.get().and_then(Weak::upgrade) {
                forwarder.borrow_mut().hear_stream(key, report, Instant::now());
            }
        })?;
        let rng = rand::make_rng();
        let secret = Secret::new()?;
        let forwarder = Rc::new(RefCell::new(Self {
            me,
            this: Rc::clone(&itself),
            state: Arc::clone(&state),
            pool_places: Vec::new(),
            pools: Vec::new(),
            backend_sockets,
            in_flight: InFlight::new(Arc::clone(&shared.clients)),
            shared,
            fetches,
            timers: Timers::new(),
            way: Way { listeners, paced: Paced::default(), is_draining: false },
            own,
            counters,
            idle,
            rng,
            secret,
            refused: Vec::with_capacity(BATCH),
            orphans: Vec::new(),
            voided: Vec::new(),
            by_tcp: ByTcp::new(by_tcp, tasks),
            struck: Vec::new(),
            unread: Vec::new(),
            scratch: Vec::with_capacity(SCRATCH),
            folded: Vec::with_capacity(TOGETHER * QuestionKey::MAX_LEN),
        }));
        let _ = itself.set(Rc::downgrade(&forwarder));
        forwarder.borrow_mut().set_state(state, now);
        Ok(forwarder)
    }

    /// Puts another state in force. Races that run end by the rules that they began with.
    pub fn set_state(&mut self, state: Arc<ForwarderState>, now: Instant) {
        let places = state.pools.iter().map(|shared| self.pool_place(shared, now)).collect();
        self.pool_places = places;
        self.state = state;
        self.remove_unused_pools();
    }

    /// This worker's part of a pool: the one it has, or a new one.
    fn pool_place(&mut self, shared: &Arc<SharedPool>, now: Instant) -> u16 {
        let has = |pool: &Option<Pool>| pool.as_ref().is_some_and(|pool| Arc::ptr_eq(&pool.shared, shared));
        if let Some(place) = self.pools.iter().position(has) {
            return place as u16;
        }
        let is_earlier = |pool: &&Pool| pool.shared.config.name == shared.config.name;
        // Of the state in force: an older one may have races still, but has learnt nothing of late.
        let in_force = self.pool_places.iter().filter_map(|&place| self.pools[usize::from(place)].as_ref());
        let earlier = in_force.into_iter().find(is_earlier);
        let pool = Pool::new(Arc::clone(shared), &mut self.backend_sockets, earlier, self.me, now);
        let place = self.pools.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pools.push(None);
            self.pools.len() - 1
        });
        self.pools[place] = Some(pool);
        place as u16
    }

    /// Forgets pools that are in no state and have no races.
    fn remove_unused_pools(&mut self) {
        for place in 0..self.pools.len() {
            let is_current = self.pool_places.contains(&(place as u16));
            if let Some(pool) = self.pools[place].take_if(|pool| !is_current && pool.in_flight == 0) {
                pool.forget(&mut self.backend_sockets);
            }
        }
    }

    /// Whether no race runs, none fetches its answer by TCP, and no query is on its way from another worker.
    pub fn is_idle(&self) -> bool {
        self.in_flight.len() == 0
            && self.way.paced.is_empty()
            && self.shared.on_the_way[usize::from(self.me.0)].load(Relaxed) == 0
    }

    /// Whether a client at this address may connect. That one may not is counted.
    pub fn may_connect(&self, client: IpAddr) -> bool {
        let is_welcome = self.state.access.may_connect(client);
        if !is_welcome {
            self.counters.dropped(Dropped::Denied);
        }
        is_welcome
    }

    /// Starts no more races that nobody waits for: there is an end to come to.
    pub fn drain(&mut self) {
        self.way.is_draining = true;
        self.way.flush(&self.counters, Instant::now());
    }
}

/// Tells the prober, unless it was told and has not acted on it yet. If it is gone, the process is ending.
fn tell(shared: &Shared, backend: &Arc<SharedBackend>, what: HealthSignal) {
    if backend.is_first(what) {
        let _ = shared.health_events.send(HealthEvent { backend: Arc::clone(backend), what });
    }
}

/// Queries that wait for a worker that others hand them over to: some 10 ms of its work, and a few hundred kB.
pub const HAND_OVERS: usize = 1024;

/// Octets of type and class in a question.
const QTYPE_QCLASS: usize = 4;

/// Octets for which `scratch` has room at once: the longest reply by UDP.
const SCRATCH: usize = 4096;
