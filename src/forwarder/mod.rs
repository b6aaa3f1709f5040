//! The LS: the story of one query.
//!
//! ```text
//!   take ──▶ read (wire) ──▶ route ──▶ equal one in flight? ──yes──▶ join its race
//!                                         │ no
//!                                         ▼
//!                   claim (claims) ──▶ start a race (policy::race) ──▶ drive ◀── reply, ICMP error, time
//!                                                                        │
//!                        ask a backend (net::exchange) ◀─────────────────┤
//!                        wait (policy::timers) ◀─────────────────────────┤
//!                        finish: one response to each waiter ◀───────────┘
//! ```
//!
//! A [`Forwarder`] is one worker's: single-threaded, and never waits. It is handed datagrams and the time in turns; at the
//! end of each turn everything that was queued leaves in batches. Reading sockets is `serve`'s business.

pub mod claims;
mod explain;
mod fetch;
mod in_flight;
mod pool;
mod races;
mod responses;
pub mod serve;
mod turns;

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use foldhash::fast::RandomState;
use rand::rngs::SmallRng;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

pub use self::in_flight::Client;

use self::claims::{Claims, WorkerId};
use self::in_flight::{InFlight, RaceRef, Start, Waiter};
use self::pool::{Pool, pool_at};
use self::responses::Listener;
use crate::metrics::{Counters, Dropped, Transport};
use crate::net::batch::{BATCH, Datagram, RecvBatch, SendBatch};
use crate::net::exchange::{Exchange, Refused, Waiting};
use crate::net::tcp::Responder;
use crate::plan::{News, Plan, SharedBackend, SharedPool, Sign};
use crate::policy::race::{AttemptId, Race};
use crate::policy::timers::Timers;
use crate::wire::{self, ClientForm, Query, QuestionKey, Rcode, RecordType, Rejected};

/// What the workers of one LS share.
#[derive(Debug)]
pub struct Shared {
    /// Which worker runs the races of a question.
    pub claims: Claims,
    /// Hashes questions, the same for all workers and unknown to clients.
    pub hasher: RandomState,
    /// The way to each worker, by number.
    pub workers: Vec<UnboundedSender<HandOver>>,
    /// For each worker, the queries that were handed over to it and that it has not taken yet.
    pub on_the_way: Vec<AtomicUsize>,
    /// The way to the prober.
    pub news: UnboundedSender<News>,
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
    pub sockets: Vec<Rc<UdpSocket>>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To be told when the last race is over.
    pub idle: Rc<Notify>,
}

/// One worker's LS.
pub struct Forwarder {
    /// This worker's number.
    me: WorkerId,
    /// What it shares with the others.
    shared: Arc<Shared>,
    /// Itself, for tasks that come back later.
    this: Weak<RefCell<Self>>,
    /// The config in force.
    plan: Arc<Plan>,
    /// For each pool of the plan, its place in `pools`.
    pool_places: Vec<u16>,
    /// This worker's part of pools, those of earlier plans included while they have races; `None` is free.
    pools: Vec<Option<Pool>>,
    /// The sockets to the backends, and who waits on them.
    exchange: Exchange<Ticket>,
    /// Queries in flight.
    in_flight: InFlight,
    /// When races have to be looked at.
    timers: Timers<RaceRef>,
    /// The sockets to the clients.
    listeners: Vec<Listener>,
    /// What is counted.
    counters: Arc<Counters>,
    /// Told when the last race is over.
    idle: Rc<Notify>,
    /// For policies; nothing secret comes from it.
    rng: SmallRng,
    /// Messages that could not be sent, to be looked at before the turn ends.
    refused: Vec<Refused<Ticket>>,
    /// Attempts of a dead backend, to be failed.
    orphans: Vec<Waiting<Ticket>>,
    /// Backend sockets that may have more than was read in this turn.
    unread: Vec<u32>,
}

/// What the exchange keeps for an attempt.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    /// The race.
    race: RaceRef,
    /// Its attempt.
    attempt: AttemptId,
    /// The worker's number of its pool, which outlives the race.
    pool: u16,
    /// Its race was over before its reply came, and the latency of its backend has been charged with that.
    is_charged: bool,
}

impl Forwarder {
    /// A worker's LS.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(me: WorkerId, links: Links, plan: Arc<Plan>, now: Instant) -> io::Result<Rc<RefCell<Self>>> {
        let Links { shared, sockets, counters, idle } = links;
        let response_size = usize::from(plan.edns_udp_size);
        let listener = |socket| Listener { socket, responses: SendBatch::new(BATCH, response_size) };
        let listeners = sockets.into_iter().map(listener).collect();
        let exchange = Exchange::new()?;
        let rng = rand::make_rng();
        let forwarder = Rc::new_cyclic(|this| {
            RefCell::new(Self {
                me,
                shared,
                this: Weak::clone(this),
                plan: Arc::clone(&plan),
                pool_places: Vec::new(),
                pools: Vec::new(),
                exchange,
                in_flight: InFlight::new(),
                timers: Timers::new(),
                listeners,
                counters,
                idle,
                rng,
                refused: Vec::with_capacity(BATCH),
                orphans: Vec::new(),
                unread: Vec::new(),
            })
        });
        forwarder.borrow_mut().set_plan(plan, now);
        Ok(forwarder)
    }

    /// Puts another plan in force. Races that run end by the rules that they began with.
    pub fn set_plan(&mut self, plan: Arc<Plan>, now: Instant) {
        let places = plan.pools.iter().map(|shared| self.pool_place(shared, now)).collect();
        self.pool_places = places;
        self.plan = plan;
        self.remove_unused_pools();
    }

    /// This worker's part of a pool: the one it has, or a new one.
    fn pool_place(&mut self, shared: &Arc<SharedPool>, now: Instant) -> u16 {
        let has = |pool: &Option<Pool>| pool.as_ref().is_some_and(|pool| Arc::ptr_eq(&pool.shared, shared));
        if let Some(place) = self.pools.iter().position(has) {
            return place as u16;
        }
        let is_earlier = |pool: &&Pool| pool.shared.config.name == shared.config.name;
        // Of the plan in force: an older one may have races still, but has learnt nothing of late.
        let in_force = self.pool_places.iter().filter_map(|&place| self.pools[usize::from(place)].as_ref());
        let earlier = in_force.into_iter().find(is_earlier);
        let pool = Pool::new(Arc::clone(shared), &mut self.exchange, earlier, self.me, now);
        let place = self.pools.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pools.push(None);
            self.pools.len() - 1
        });
        self.pools[place] = Some(pool);
        place as u16
    }

    /// Forgets pools that are in no plan and have no races.
    fn remove_unused_pools(&mut self) {
        for place in 0..self.pools.len() {
            let is_current = self.pool_places.contains(&(place as u16));
            if let Some(pool) = self.pools[place].take_if(|pool| !is_current && pool.in_flight == 0) {
                pool.forget(&mut self.exchange);
            }
        }
    }

    /// Whether no race runs, none fetches its answer by TCP, and no query is on its way from another worker.
    pub fn is_idle(&self) -> bool {
        self.in_flight.len() == 0 && self.shared.on_the_way[usize::from(self.me.0)].load(Relaxed) == 0
    }

    /// Takes the datagrams that a listener has received.
    pub fn take_batch(&mut self, listener: u16, batch: &RecvBatch, now: Instant) {
        for datagram in (0..batch.len()).filter_map(|index| batch.datagram(index)) {
            let Datagram { bytes, peer, local, .. } = datagram;
            self.take(bytes, Client::Udp { listener, peer, local }, now);
        }
        self.end_turn(now);
    }

    /// Takes a query that came by TCP.
    pub fn take_stream_query(&mut self, message: &[u8], responder: &Responder, now: Instant) {
        self.take(message, Client::Tcp(responder.clone()), now);
        self.end_turn(now);
    }

    /// Takes a query that another worker has handed over.
    pub fn take_handed_over(&mut self, query: &HandOver, now: Instant) {
        self.shared.on_the_way[usize::from(self.me.0)].fetch_sub(1, Relaxed);
        if let Ok(read) = wire::read_query(&query.message) {
            self.race(&query.message, &read, query.client.clone(), true, now);
        }
        self.end_turn(now);
    }

    /// Takes one query: answers it at once if there is something wrong with it, else lets it race.
    fn take(&mut self, message: &[u8], client: Client, now: Instant) {
        let query = match wire::read_query(message) {
            Ok(query) => query,
            // Nothing that answers these is safe: two servers could answer each other for ever.
            Err(Rejected::Short | Rejected::NotAQuery) => {
                self.counters.dropped(Dropped::Malformed);
                return self.respond_nothing(&client);
            }
            Err(Rejected::Answer(rcode)) => {
                self.counters.query(client.transport());
                return self.refuse(message, rcode, &client);
            }
        };
        self.counters.query(client.transport());
        // A zone transfer is between a secondary and its primary; through a balancer it would mix zones.
        if matches!(query.question.qtype(), RecordType::AXFR | RecordType::IXFR) {
            return self.refuse(message, Rcode::REFUSED, &client);
        }
        self.race(message, &query, client, false, now);
    }

    /// Lets a sound query race: in the race of an equal one, or in one of its own, here or on another worker.
    fn race(&mut self, message: &[u8], query: &Query<'_>, client: Client, is_handed_over: bool, now: Instant) {
        let key = QuestionKey::of(query);
        let Some((&flags, question)) = key.as_octets().split_last() else { return };
        let hash = self.shared.hasher.hash_one(key.as_octets());
        let form = ClientForm::of(query);
        if let Some(at) = self.in_flight.find(hash, question, flags) {
            return self.join(at, client, form, now);
        }
        let qname = &question[..question.len() - QTYPE_QCLASS];
        let Some(pool) = self.plan.routes.find(qname) else {
            return self.refuse(message, Rcode::REFUSED, &client);
        };
        let claim = self.shared.claims.take(hash, self.me);
        if let Err(holder) = claim
            && !is_handed_over
            && let Some(worker) = self.shared.workers.get(usize::from(holder.0))
        {
            // It will find the race to join; or, if that is over by then, start another.
            self.shared.on_the_way[usize::from(holder.0)].fetch_add(1, Relaxed);
            let _ = worker.send(HandOver { message: message.to_vec(), client });
            return;
        }
        let place = self.pool_places[pool];
        self.refresh(place, now);
        let own_udp_size = self.plan.edns_udp_size;
        let pool = pool_at(&mut self.pools, place);
        pool.in_flight += 1;
        let health = &pool.shared.rules().health;
        let queries = pool.shared.state.count_query();
        if health.every_queries > 0 && queries.is_multiple_of(health.every_queries.into()) {
            pool.shared.backends.iter().for_each(|backend| tell(&self.shared, backend, Sign::ProbeDue));
        }
        pool.shared.state.counters[usize::from(self.me.0)].in_flight.increment();
        let candidates = pool.candidates(qname, &self.shared.hasher, &mut self.rng, now);
        let race = Race::start(&pool.field(), &candidates, now);
        let start = Start { race, pool: place, hash, is_claimed: claim.is_ok(), flags, started: now };
        let waiter = Waiter { client, form, queries: 1, since: now };
        let at = self.in_flight.insert(start, waiter, |out| wire::write_query(query, own_udp_size, out));
        self.drive(at, None, now);
    }

    /// Lets a query wait for a race that runs already. The client's own query, sent again, is a hint of loss.
    fn join(&mut self, at: RaceRef, client: Client, form: ClientForm, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let is_same = |waiter: &&mut Waiter| waiter.form.id == form.id && waiter.client.is_same_socket(&client);
        if let Some(waiter) = entry.waiters.iter_mut().take(RETRANSMISSIONS_SEEN).find(is_same) {
            waiter.queries += 1;
            // It may have been put in another form, and the client may know only the last.
            waiter.form = form;
            if !entry.is_fetching {
                entry.race.on_retransmission();
                self.drive(at, None, now);
            }
            return;
        }
        let waiter = Waiter { client, form, queries: 1, since: now };
        if entry.is_fetching && waiter.client.transport() == Transport::Udp {
            return self.respond_meanwhile(at, &waiter, now);
        }
        entry.waiters.push(waiter);
    }
}

/// Tells the prober. If it is gone, the process is ending.
fn tell(shared: &Shared, backend: &Arc<SharedBackend>, what: Sign) {
    let _ = shared.news.send(News { backend: Arc::clone(backend), what });
}

/// Octets of type and class in a question.
const QTYPE_QCLASS: usize = 4;

/// Among how many waiters of one race a retransmission is looked for; so many clients at once need no further hint.
const RETRANSMISSIONS_SEEN: usize = 256;
