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
mod fetch;
mod in_flight;
pub mod plan;
mod pool;
pub mod serve;

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rand::rngs::SmallRng;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

pub use self::in_flight::Client;

use self::claims::{Claims, WorkerId};
use self::in_flight::{InFlight, RaceRef, Start, Waiter};
use self::plan::{News, Plan, SharedPool, Sign};
use self::pool::Pool;
use crate::metrics::{Counters, Dropped, Source, Transport};
use crate::net::batch::{BATCH, Datagram, RecvBatch, SendBatch};
use crate::net::exchange::{Event, Exchange, Link, Refused};
use crate::net::tcp::Responder;
use crate::policy::race::{AttemptId, BackendIndex, Heard, OptRefusal, Outcome, Race, Step};
use crate::policy::timers::Timers;
use crate::policy::{Dispatch, Rank, Silence};
use crate::wire::{self, ClientForm, ExtendedError, Query, QuestionKey, Rcode, RecordType, Rejected, Reply};

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
    orphans: Vec<Ticket>,
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
}

/// A UDP socket to clients, with the responses that wait to leave.
struct Listener {
    /// The socket; `serve` reads it.
    socket: Rc<UdpSocket>,
    /// Responses of this turn.
    responses: SendBatch,
}

impl Listener {
    /// Sends what waits. Not by way of the runtime: responses do not wait for a socket to become writable.
    fn flush(&mut self, counters: &Counters) {
        self.responses.flush(&*self.socket, |_, _| counters.dropped(Dropped::Unsent));
    }
}

/// A reply at hand, which the race may let win.
#[derive(Clone, Copy)]
struct AtHand<'a> {
    /// The attempt that it answers.
    attempt: AttemptId,
    /// The reply.
    reply: &'a Reply<'a>,
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
        let earlier = self.pools.iter().flatten().rfind(is_earlier);
        let pool = Pool::new(Arc::clone(shared), &mut self.exchange, earlier, now);
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
                pool.links().for_each(|link| self.exchange.remove(link));
            }
        }
    }

    /// Whether no race runs, none fetches its answer by TCP, and no query is on its way from another worker.
    pub fn is_idle(&self) -> bool {
        self.in_flight.len() == 0 && self.shared.on_the_way[usize::from(self.me.0)].load(Relaxed) == 0
    }

    // ------------------------------------------------------------------------------------------------ queries

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
        let queries = pool.shared.count_queries(1);
        if health.every_queries > 0 && queries.is_multiple_of(health.every_queries.into()) {
            let all = 0..pool.shared.backends.len();
            all.for_each(|backend| tell(&self.shared, &pool.shared, backend, Sign::ProbeDue));
        }
        let race = Race::start(&pool.field(), &pool.candidates(&mut self.rng), now);
        let start = Start { race, pool: place, hash, is_claimed: claim.is_ok(), flags };
        let waiter = Waiter { client, form, queries: 1 };
        let at = self.in_flight.insert(start, waiter, |out| wire::write_query(query, own_udp_size, out));
        self.drive(at, None, now);
    }

    /// Lets a query wait for a race that runs already. The client's own query, sent again, is a hint of loss.
    fn join(&mut self, at: RaceRef, client: Client, form: ClientForm, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let is_same = |waiter: &&mut Waiter| match (&waiter.client, &client) {
            (Client::Udp { listener, peer, .. }, Client::Udp { listener: same_listener, peer: same_peer, .. }) => {
                waiter.form.id == form.id && peer == same_peer && listener == same_listener
            }
            _ => false,
        };
        if let Some(waiter) = entry.waiters.iter_mut().take(RETRANSMISSIONS_SEEN).find(is_same) {
            waiter.queries += 1;
            if !entry.is_fetching {
                entry.race.on_retransmission();
                self.drive(at, None, now);
            }
            return;
        }
        entry.waiters.push(Waiter { client, form, queries: 1 });
    }

    // ------------------------------------------------------------------------------------------------ races

    /// Does what a race says until it waits or is over.
    fn drive(&mut self, at: RaceRef, at_hand: Option<AtHand<'_>>, now: Instant) {
        loop {
            let Some(entry) = self.in_flight.get_mut(at).filter(|entry| !entry.is_fetching) else { return };
            let pool = pool_at(&mut self.pools, entry.pool);
            match entry.race.next_step(&pool.field(), now) {
                Step::Ask { attempt, backend, edns, .. } => self.ask(at, attempt, backend, edns, now),
                Step::WaitUntil(until) => {
                    if entry.armed.is_none_or(|armed| until < armed) {
                        entry.armed = Some(until);
                        self.timers.push(until, at);
                    }
                    return;
                }
                Step::Finished(outcome) => return self.finish(at, outcome, at_hand, now),
            }
        }
    }

    /// Makes an attempt: queues the query for a backend.
    fn ask(&mut self, at: RaceRef, attempt: AttemptId, backend: BackendIndex, edns: bool, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        let link = pool.link(backend);
        if self.exchange.is_full(link) {
            self.exchange.flush(&mut self.refused);
        }
        let ticket = Ticket { race: at, attempt, pool: entry.pool };
        let has_opt = edns && !pool.is_without_opt(backend, now);
        let (query, opt_at) = (&entry.query, entry.opt_at);
        let queued = self.exchange.queue(link, ticket, now, |out| match has_opt {
            true => out.extend_from_slice(query),
            false => wire::write_without_opt(query, opt_at, out),
        });
        match queued {
            Ok(key) => entry.set_ticket(attempt, key),
            // No socket is left: as far as this query goes, the backend cannot be asked.
            Err(_) => entry.race.on_failure(attempt),
        }
    }

    /// Takes the datagrams that a backend socket has received.
    fn hear_batch(&mut self, socket: u32, batch: &RecvBatch, now: Instant) {
        for index in 0..batch.len() {
            match batch.datagram(index) {
                Some(datagram) if !datagram.is_truncated => self.hear(socket, datagram.bytes, now),
                _ => self.counters.dropped(Dropped::Malformed),
            }
        }
    }

    /// Takes one reply.
    ///
    /// RFC 5452 section 9.1: ID, addresses and question must all agree. What does not is likely a forgery attempt: it is
    /// counted and the wait goes on; failing the attempt would hand the forger a cheap win.
    fn hear(&mut self, socket: u32, message: &[u8], now: Instant) {
        let Some((key, waiting)) =
            wire::Header::read(message).and_then(|header| self.exchange.find(socket, header.id()))
        else {
            return self.counters.dropped(Dropped::Spoofed);
        };
        let (ticket, latency, is_late) = (waiting.ticket, now.saturating_duration_since(waiting.sent), waiting.is_late);
        let link = waiting.link;
        let Ok(reply) = wire::read_reply(message) else {
            return self.counters.dropped(Dropped::Malformed);
        };
        let entry = self.in_flight.get_mut(ticket.race).filter(|entry| !is_late && !entry.is_fetching);
        let Some(entry) = entry else {
            // The question is gone with its race. A latency learnt from a forgery would need its ID and port all the same.
            self.counters.dropped(Dropped::Late);
            self.exchange.settle(key, now);
            return self.learn(ticket.pool, link, latency, now);
        };
        if reply.is_bare_failure() {
            // It lacks the question, and so proves little: the true reply may still come.
            if is_opt_refusal(&reply) && entry.opt_at < entry.query.len() {
                entry.race.on_bare_opt_refused(ticket.attempt);
            } else {
                entry.race.on_bare_failure(ticket.attempt);
            }
            return self.drive(ticket.race, None, now);
        }
        if !reply.answers_question(entry.question()) {
            return self.counters.dropped(Dropped::Spoofed);
        }
        self.exchange.settle(key, now);
        entry.tickets[usize::from(ticket.attempt.0)] = None;
        self.learn(ticket.pool, link, latency, now);
        self.judge(ticket, &reply, now);
    }

    /// Lets a race judge a reply that passed every check.
    fn judge(&mut self, ticket: Ticket, reply: &Reply<'_>, now: Instant) {
        let Ticket { race: at, attempt, pool } = ticket;
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let has_opt = entry.opt_at < entry.query.len();
        let asked = entry.race.attempt(attempt);
        if has_opt && is_opt_refusal(reply) && entry.race.on_opt_refused(attempt) == OptRefusal::AskedAgain {
            return self.drive(at, None, now);
        }
        if has_opt
            && !is_opt_refusal(reply)
            && let Some(asked) = asked
            && !asked.edns
        {
            pool_at(&mut self.pools, pool).remember_without_opt(asked.backend, now);
        }
        match entry.race.on_reply(attempt, rank(reply), now) {
            Heard::Accepted | Heard::NotNeeded => {}
            Heard::Kept => {
                entry.kept.clear();
                entry.kept.extend_from_slice(reply.as_wire());
            }
        }
        self.drive(at, Some(AtHand { attempt, reply }), now);
    }

    /// Learns from a reply: how long the backend takes, and that it is alive.
    fn learn(&mut self, place: u16, link: Link, latency: Duration, now: Instant) {
        let Some(pool) = self.pools.get_mut(usize::from(place)).and_then(Option::as_mut) else { return };
        let Some(backend) = pool.backend(link) else { return };
        let index = usize::from(backend.0);
        pool.latency[index].record(latency, now);
        if !pool.shared.backends[index].is_up() {
            // Any reply at all is life.
            pool.shared.set_up(index, true);
            tell(&self.shared, &pool.shared, index, Sign::Replied);
        }
    }

    /// A race is over: responds to all who wait, or has the whole answer fetched for those who came by TCP.
    fn finish(&mut self, at: RaceRef, outcome: Outcome, at_hand: Option<AtHand<'_>>, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        for key in entry.tickets.iter_mut().filter_map(Option::take) {
            self.exchange.abandon(key, now);
        }
        let pool = pool_at(&mut self.pools, entry.pool);
        let rules = pool.shared.rules();
        for attempt in entry.race.attempts() {
            let is_silent = attempt.open && now.saturating_duration_since(attempt.asked_at) >= rules.attempt_timeout;
            let backend = usize::from(attempt.backend.0);
            if is_silent && pool.shared.backends[backend].suspect() {
                tell(&self.shared, &pool.shared, backend, Sign::Silent);
            }
        }
        match outcome {
            Outcome::Reply(attempt) => {
                if rules.dispatch == Dispatch::Hedge {
                    pool.shared.budget.earn(1);
                }
                let winner = entry.race.attempt(attempt).map_or(BackendIndex(0), |winner| winner.backend);
                match at_hand.filter(|at_hand| at_hand.attempt == attempt) {
                    Some(AtHand { reply, .. }) => self.respond_with(at, winner, reply),
                    None => {
                        // Out of the entry for the time of the borrow; its buffer goes back.
                        let kept = std::mem::take(&mut entry.kept);
                        if let Ok(reply) = wire::read_reply(&kept) {
                            self.respond_with(at, winner, &reply);
                        }
                        if let Some(entry) = self.in_flight.get_mut(at) {
                            entry.kept = kept;
                        }
                    }
                }
            }
            Outcome::Failed => self.respond_synthesized(at, Source::Error, Some(Rcode::SERVFAIL), None),
            Outcome::Nothing => {
                let is_up = |backend: BackendIndex| pool.shared.backends[usize::from(backend.0)].is_up();
                // RFC 8914 sections 4.23 and 4.30: silence and death are told apart.
                let (word, ede) = if entry.race.attempts().any(|attempt| is_up(attempt.backend)) {
                    (rules.on_timeout, ExtendedError::SYNTHESIZED)
                } else {
                    (rules.on_all_down, ExtendedError::NO_REACHABLE_AUTHORITY)
                };
                self.respond_synthesized(at, Source::Synthesized, rcode_of(word), Some(ede));
            }
        }
        if self.in_flight.get(at).is_some_and(|entry| !entry.is_fetching) {
            self.remove(at);
        }
    }

    /// Forgets a race that is over.
    fn remove(&mut self, at: RaceRef) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let (hash, is_claimed, place) = (entry.hash, entry.is_claimed, entry.pool);
        if is_claimed {
            self.shared.claims.release(hash);
        }
        self.in_flight.remove(at);
        let pool = pool_at(&mut self.pools, place);
        pool.in_flight -= 1;
        if pool.in_flight == 0 && !self.pool_places.contains(&place) {
            self.remove_unused_pools();
        }
    }

    // ------------------------------------------------------------------------------------------------ responses

    /// Gives the winning reply to all who wait. A TC reply is all that a UDP client needs, for it comes back; whoever came
    /// by TCP gets the whole answer, fetched by TCP.
    fn respond_with(&mut self, at: RaceRef, winner: BackendIndex, reply: &Reply<'_>) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let is_truncated = reply.is_truncated();
        let mut waiters = std::mem::take(&mut entry.waiters);
        let (listeners, counters, own_udp_size) = (&mut self.listeners, &self.counters, self.plan.edns_udp_size);
        waiters.retain(|waiter| {
            let needs_more = is_truncated && waiter.client.transport() == Transport::Tcp;
            if !needs_more {
                counters.responses(Source::Backend, waiter.queries.into());
                let limit = limit(&waiter.client, &waiter.form, own_udp_size);
                let fill = |out: &mut Vec<u8>| wire::write_response(reply, &waiter.form, own_udp_size, limit, out);
                respond(listeners, counters, &waiter.client, fill);
            }
            needs_more
        });
        let must_fetch = !waiters.is_empty();
        entry.waiters = waiters;
        if must_fetch {
            entry.is_fetching = true;
            self.fetch(at, winner);
        }
    }

    /// Gives a response without records to all who wait; `None` is no response at all.
    fn respond_synthesized(&mut self, at: RaceRef, source: Source, rcode: Option<Rcode>, ede: Option<ExtendedError>) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let own_udp_size = self.plan.edns_udp_size;
        for waiter in &entry.waiters {
            let Some(rcode) = rcode else {
                (0..waiter.queries).for_each(|_| self.counters.dropped(Dropped::Unanswered));
                respond(&mut self.listeners, &self.counters, &waiter.client, |_| {});
                continue;
            };
            self.counters.responses(source, waiter.queries.into());
            respond(&mut self.listeners, &self.counters, &waiter.client, |out| {
                wire::write_synthesized(entry.question(), &waiter.form, rcode, ede, true, own_udp_size, out);
            });
        }
    }

    /// Answers a message that cannot race.
    fn refuse(&mut self, message: &[u8], rcode: Rcode, client: &Client) {
        self.counters.responses(Source::Error, 1);
        let own_udp_size = self.plan.edns_udp_size;
        respond(&mut self.listeners, &self.counters, client, |out| {
            wire::write_error(message, rcode, own_udp_size, out);
        });
    }

    /// Says nothing, which a connection has to be told.
    fn respond_nothing(&self, client: &Client) {
        match client {
            Client::Udp { .. } => {}
            Client::Tcp(responder) => responder.respond(|_| {}),
        }
    }

    // ------------------------------------------------------------------------------------------------ turns

    /// Takes what the exchange has: replies, ICMP errors, the alarm.
    pub fn hear_backends(&mut self, events: &mut Vec<Event>, batch: &mut RecvBatch, now: Instant) -> bool {
        let has_more = self.exchange.ready(events);
        for event in events.drain(..) {
            match event {
                Event::Alarm => self.on_time(now),
                Event::Socket(socket) => self.drain_socket(socket, batch, now),
            }
        }
        self.end_turn(now);
        has_more
    }

    /// Reads a backend socket until it is empty.
    fn drain_socket(&mut self, socket: u32, batch: &mut RecvBatch, now: Instant) {
        loop {
            match self.exchange.recv(socket, batch) {
                Ok(received) => {
                    self.hear_batch(socket, batch, now);
                    if received < batch.capacity() {
                        return;
                    }
                }
                Err((link, true)) => self.on_unreachable(link, now),
                Err((_, false)) => {}
            }
        }
    }

    /// Looks at the races whose time has come.
    fn on_time(&mut self, now: Instant) {
        while let Some((at_time, at)) = self.timers.pop_due(now) {
            let Some(entry) = self.in_flight.get_mut(at) else { continue };
            if entry.armed == Some(at_time) {
                entry.armed = None;
                self.drive(at, None, now);
            }
        }
        self.refresh_pools(now);
    }

    /// Looks at the state of all backends.
    pub fn refresh_all(&mut self, now: Instant) {
        self.refresh_pools(now);
        self.end_turn(now);
    }

    /// Adapts all pools.
    fn refresh_pools(&mut self, now: Instant) {
        for place in 0..self.pools.len() as u16 {
            self.refresh(place, now);
        }
    }

    /// ICMP says that a backend is unreachable: proof of death, and the end of all its attempts.
    fn on_unreachable(&mut self, link: Link, now: Instant) {
        let found = self.pools.iter().enumerate().find_map(|(place, pool)| {
            let pool = pool.as_ref()?;
            Some((place as u16, Arc::clone(&pool.shared), usize::from(pool.backend(link)?.0)))
        });
        let Some((place, shared, backend)) = found else { return };
        if shared.set_up(backend, false) {
            tracing::warn!(pool = shared.config.name, backend = shared.backends[backend].name, "down: unreachable");
        }
        tell(&self.shared, &shared, backend, Sign::Unreachable);
        self.refresh(place, now);
        // It may have been down before: what was asked of it all the same has failed too.
        self.fail_all(link, now);
    }

    /// Adapts to changes of the backends' state. What waits for one that went down will not be answered.
    fn refresh(&mut self, place: u16, now: Instant) {
        let Some(pool) = self.pools.get_mut(usize::from(place)).and_then(Option::as_mut) else { return };
        let mut dead = Vec::new();
        pool.refresh(|backend| dead.push(backend));
        let links: Vec<_> = dead.into_iter().map(|backend| pool.link(backend)).collect();
        links.into_iter().for_each(|link| self.fail_all(link, now));
    }

    /// Fails all attempts that wait for a backend.
    fn fail_all(&mut self, link: Link, now: Instant) {
        let mut orphans = std::mem::take(&mut self.orphans);
        self.exchange.take_waiting(link, &mut orphans);
        for orphan in orphans.drain(..) {
            self.fail(orphan, now);
        }
        self.orphans = orphans;
    }

    /// Fails one attempt.
    fn fail(&mut self, ticket: Ticket, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(ticket.race).filter(|entry| !entry.is_fetching) else { return };
        entry.tickets[usize::from(ticket.attempt.0)] = None;
        entry.race.on_failure(ticket.attempt);
        self.drive(ticket.race, None, now);
    }

    /// Ends a turn: everything that was queued leaves, and the alarm is set for what is next.
    fn end_turn(&mut self, now: Instant) {
        loop {
            self.exchange.flush(&mut self.refused);
            let Some(refused) = self.refused.pop() else { break };
            if refused.is_unreachable {
                self.on_unreachable(refused.link, now);
            }
            self.fail(refused.ticket, now);
        }
        for listener in self.listeners.iter_mut().filter(|listener| !listener.responses.is_empty()) {
            listener.flush(&self.counters);
        }
        self.exchange.tidy(now);
        self.timers.discard(|at_time, at| self.in_flight.get(*at).is_none_or(|entry| entry.armed != Some(at_time)));
        let next = [self.timers.peek(), self.exchange.next_tidy()].into_iter().flatten().min();
        if let Some(next) = next {
            self.exchange.wake_at(next, now);
        }
        if self.is_idle() {
            self.idle.notify_waiters();
        }
    }
}

/// Sends one response, or queues it for the end of the turn.
fn respond(listeners: &mut [Listener], counters: &Counters, client: &Client, fill: impl FnOnce(&mut Vec<u8>)) {
    match client {
        Client::Tcp(responder) => responder.respond(fill),
        Client::Udp { listener, peer, local } => {
            let Some(listener) = listeners.get_mut(usize::from(*listener)) else { return };
            if listener.responses.is_full() {
                listener.flush(counters);
            }
            listener.responses.push_unless_empty(*peer, *local, fill);
        }
    }
}

/// How long a response may be, octets.
fn limit(client: &Client, form: &ClientForm, own_udp_size: u16) -> usize {
    match client {
        Client::Udp { .. } => form.udp_limit(own_udp_size),
        Client::Tcp(_) => usize::from(u16::MAX),
    }
}

/// Tells the prober. If it is gone, the process is ending.
fn tell(shared: &Shared, pool: &Arc<SharedPool>, backend: usize, what: Sign) {
    let _ = shared.news.send(News { pool: Arc::clone(pool), backend, what });
}

/// The pool of a race, which is kept for as long as it has races.
fn pool_at(pools: &mut [Option<Pool>], place: u16) -> &mut Pool {
    pools[usize::from(place)].as_mut().expect("a pool with races is kept")
}

/// How a reply ranks (CONTRACT.md, Races).
fn rank(reply: &Reply<'_>) -> Rank {
    match reply.rcode() {
        Rcode::NOERROR if reply.is_truncated() || reply.has_answers() || reply.is_referral() => Rank::Positive,
        Rcode::NOERROR if reply.header().is_authoritative() => Rank::NodataAuthoritative,
        Rcode::NOERROR => Rank::Nodata,
        Rcode::NXDOMAIN if reply.is_truncated() => Rank::Positive,
        Rcode::NXDOMAIN => Rank::Nxdomain,
        _ => Rank::Failure,
    }
}

/// Whether a reply may say that its sender knows no EDNS (RFC 6891 section 7: FORMERR; older servers: NOTIMP).
fn is_opt_refusal(reply: &Reply<'_>) -> bool {
    matches!(reply.rcode(), Rcode::FORMERR | Rcode::NOTIMP) && reply.edns().is_none()
}

/// The rcode that a config word stands for; `None` is no response at all.
fn rcode_of(word: Silence) -> Option<Rcode> {
    match word {
        Silence::Nxdomain => Some(Rcode::NXDOMAIN),
        Silence::Servfail => Some(Rcode::SERVFAIL),
        Silence::Refused => Some(Rcode::REFUSED),
        Silence::Drop => None,
    }
}

/// Octets of type and class in a question.
const QTYPE_QCLASS: usize = 4;

/// Among how many waiters of one race a retransmission is looked for; so many clients at once need no further hint.
const RETRANSMISSIONS_SEEN: usize = 256;
