//! The connections of one section of the config, over all its listeners and workers.
//!
//! A connection has a [`Seat`] here from when it is accepted until it ends or has to make room (`limit/connections.rs` says
//! which one does). The lock is held for that and for nothing else: queries and responses touch only the atomics of their own
//! seat, and the count of octets that wait.
//!
//! # Octets that wait
//!
//! From when a response is made until the kernel has taken it, its octets count, for its connection and in all.
//!
//! 1. A connection is handed no further query while more than [`WAITING`] octets wait for its client: read, answer, write, go
//!    on. So one that does not read holds that and one message, where answers are made at once (the cache, an authority).
//! 2. What backends are asked for may come all at once, up to `in_flight` messages. So all connections together may hold
//!    `unsent` octets, and one of them as much as that leaves free: a dynamic threshold (Choudhury and Hahne, 1998), under
//!    which one that does not read gets half of all, ten get an eleventh each, and there is always room for one more. Whose
//!    response does not fit is closed, and counted; the kernel tells its client, which would have waited for it.
//! 3. Who reads is not shut out by those who do not: a response to a client for which nothing waits has what is left of all, and if
//!    that is not enough, those make room for it that have most waiting, times the connections of their client.
//! 4. A query is not handed over while its connection waits for its client already and the largest response might not fit: who
//!    reads is slowed down and not closed.

use std::future::pending;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};

use super::moved::{Adopted, MovedConnection, WayOut};
use super::responder::ToListener;

use crate::limit::{Clients, Connected, ConnectionRules, ConnectionUse, HandshakeRates, Pressure, make_room};
use crate::metrics::{Limit, Limited};

/// The connections of one section.
#[derive(Debug)]
pub struct Connections {
    /// Limits that were met.
    limited: Arc<Limited>,
    /// The beginning of time.
    start: Instant,
    /// How many connections each client has.
    clients: Arc<Clients>,
    /// Who is connected.
    table: Mutex<Table>,
    /// How full the table is; every connection hears of changes.
    pressure: watch::Sender<Pressure>,
    /// Octets that wait for clients.
    unsent: AtomicUsize,
    /// How many may.
    most_unsent: AtomicUsize,
    /// Where connections go that fall idle, once they are to leave; every connection hears of it.
    way_out: watch::Sender<Option<WayOut>>,
    /// Those that another process has given up.
    adopted: Adopted,
}

/// Who is connected.
#[derive(Debug)]
struct Table {
    /// What is allowed; `max` is the number itself.
    rules: ConnectionRules,
    /// In no order; each with what counts it for its client.
    seats: Vec<(Arc<Seat>, Connected)>,
    /// Where the next look for somebody who makes room begins.
    next_look: usize,
    handshakes: HandshakeRates,
}

impl Connections {
    /// Without any connection. `listener` is the name of the section, and `rules.max` not 0.
    pub fn new(listener: &str, rules: ConnectionRules, clients: Arc<Clients>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            limited: Arc::new(Limited::new(listener)),
            start: now,
            clients,
            table: Mutex::new(Table { rules, seats: Vec::new(), next_look: 0, handshakes: HandshakeRates::default() }),
            pressure: watch::Sender::default(),
            unsent: AtomicUsize::new(0),
            most_unsent: AtomicUsize::new(rules.unsent),
            way_out: watch::Sender::default(),
            adopted: Adopted::default(),
        })
    }

    /// The name of the section.
    pub fn name(&self) -> &str {
        self.limited.listener()
    }

    /// Limits that were met, those included that have nothing to do with connections.
    pub fn limited(&self) -> Arc<Limited> {
        Arc::clone(&self.limited)
    }

    /// Puts other rules in force. Connections that are open keep the times that they were opened with.
    pub fn set_rules(&self, rules: ConnectionRules) {
        self.most_unsent.store(rules.unsent, Relaxed);
        let mut table = self.lock();
        table.rules = rules;
        self.tell_pressure(&table);
    }

    /// Has every connection leave, as it falls idle between two messages: no more is read of it, and what is in flight is answered.
    /// `section` is what they are told to belong to.
    pub fn move_out(&self, section: String, to: UnboundedSender<MovedConnection>) {
        self.way_out.send_replace(Some(WayOut { section, to }));
    }

    /// Takes a connection that another process has given up. Some worker of the section serves it, if its client may connect.
    pub fn adopt(&self, moved: MovedConnection) {
        self.adopted.push(moved);
    }

    /// The next of those. Loses nothing if it is dropped.
    pub(super) async fn adopted(&self) -> MovedConnection {
        self.adopted.next().await
    }

    /// How long a fresh connection may take to its first query.
    pub(super) fn first_query(&self) -> Duration {
        self.lock().rules.first_query
    }

    /// Whether a client may begin one more handshake in this second.
    pub(in crate::net) fn admits_handshake(&self, client: IpAddr, now: Instant) -> bool {
        let (hash, second) = (self.clients.hash(client), (self.millis(now) / 1000) as u32);
        let mut table = self.lock();
        let limit = table.rules.handshakes;
        let is_admitted = table.handshakes.admit(hash, second, limit);
        if !is_admitted {
            self.limited.count(Limit::Connections);
        }
        is_admitted
    }

    /// Lets a client connect, if it may. Another connection may have to make room.
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr, now: Instant) -> Option<ConnectionSlot> {
        self.enter_as(client, Wake::Task(Notify::new()), now)
    }

    /// The same for a connection that is woken in this way.
    pub(in crate::net) fn enter_as(
        self: &Arc<Self>,
        client: IpAddr,
        wake: Wake,
        now: Instant,
    ) -> Option<ConnectionSlot> {
        let mut table = self.lock();
        let per_client = if table.rules.per_client == 0 { u32::MAX } else { table.rules.per_client };
        let Some(connected) = self.clients.connect(client, per_client) else {
            self.limited.count(Limit::Connections);
            return None;
        };
        if table.seats.len() >= table.rules.max {
            self.limited.count(Limit::Connections);
            if !table.make_room(connected.siblings(), self.millis(now)) {
                return None;
            }
        }
        let seat = Arc::new(Seat {
            connections: Arc::clone(self),
            position: AtomicUsize::new(table.seats.len()),
            waiting: AtomicUsize::new(0),
            usage: AtomicU64::new(self.millis(now) << 1),
            is_closed: AtomicBool::new(false),
            wake,
        });
        table.seats.push((Arc::clone(&seat), connected));
        self.tell_pressure(&table);
        let (pressure, way_out) = (self.pressure.subscribe(), self.way_out.subscribe());
        Some(ConnectionSlot { seat, rules: table.rules, pressure, way_out })
    }

    /// A connection has ended.
    fn leave(&self, seat: &Seat) {
        let mut table = self.lock();
        if let Some(position) = seat.position() {
            table.remove(position);
            self.tell_pressure(&table);
        }
    }

    /// Tells all connections if the table has become fuller or emptier by a step.
    fn tell_pressure(&self, table: &Table) {
        let (open, max) = (table.seats.len(), table.rules.max);
        self.pressure.send_if_modified(|pressure| {
            let next = pressure.next(open, max);
            std::mem::replace(pressure, next) != next
        });
    }

    /// How full the table is, and when that changes.
    pub(in crate::net) fn pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }

    /// Octets that may still be made to wait.
    fn free(&self) -> usize {
        self.most_unsent.load(Relaxed).saturating_sub(self.unsent.load(Relaxed))
    }

    /// Closes those that do not read, the largest first, until no more waits than may; whether that was done.
    fn reclaim(&self, newcomer: &Seat) -> bool {
        let mut table = self.lock();
        // Asked anew each time, for another thread may have made the room that this one needs.
        while self.unsent.load(Relaxed) > self.most_unsent.load(Relaxed) {
            let Some(position) = table.largest(newcomer) else { break };
            let seat = table.remove(position);
            seat.forgive();
            seat.close();
            self.limited.count(Limit::Unsent);
        }
        self.tell_pressure(&table);
        self.unsent.load(Relaxed) <= self.most_unsent.load(Relaxed)
    }

    /// Milliseconds since the beginning of time.
    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }

    /// The table. Nothing that may panic is done with it, and it is right after every step.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Closes a connection for a client that will then hold `newcomer` of them; whether there was one.
    fn make_room(&mut self, newcomer: u32, now: u64) -> bool {
        let count = self.seats.len();
        let first = self.next_look % count.max(1);
        let window = count.min(LOOKED_AT);
        self.next_look = first + window;
        let looked_at = self.seats.iter().cycle().skip(first).take(window);
        let Some(chosen) = make_room(looked_at.map(|(seat, client)| seat.usage(client.siblings(), now)), newcomer)
        else {
            return false;
        };
        self.remove((first + chosen) % count).close();
        true
    }

    /// The place of the connection that has the most octets waiting, times the connections of its client; none if all is read. The
    /// look goes on through the table until one is found.
    fn largest(&mut self, newcomer: &Seat) -> Option<usize> {
        let weight = |(seat, client): &(Arc<Seat>, Connected)| {
            let is_other = !std::ptr::eq(&raw const **seat, newcomer);
            if is_other { seat.waiting().saturating_mul(client.siblings() as usize) } else { 0 }
        };
        let count = self.seats.len();
        for _ in 0..count.div_ceil(LOOKED_AT) {
            let first = self.next_look % count;
            let looked_at = self.seats.iter().enumerate().cycle().skip(first).take(count.min(LOOKED_AT));
            let weighed = looked_at.map(|(position, held)| (weight(held), position)).filter(|(weight, _)| *weight > 0);
            if let Some((_, position)) = weighed.max() {
                return Some(position);
            }
            self.next_look = first + LOOKED_AT;
        }
        None
    }

    /// Takes a seat away. It is no part of the table from now on, even if its connection takes a moment to hear of it.
    fn remove(&mut self, position: usize) -> Arc<Seat> {
        let (seat, _connected) = self.seats.swap_remove(position);
        seat.position.store(GONE, Relaxed);
        if let Some((moved, _)) = self.seats.get(position) {
            moved.position.store(position, Relaxed);
        }
        // Memory shrinks again after a peak.
        if self.seats.capacity() > 2 * LOOKED_AT && self.seats.len() < self.seats.capacity() / 4 {
            self.seats.shrink_to(self.seats.len() * 2);
        }
        seat
    }
}

/// What a connection shares with who responds to it, and with who looks for room.
#[derive(Debug)]
pub(in crate::net) struct Seat {
    /// Where it belongs.
    connections: Arc<Connections>,
    /// Its place in the table, written under the lock; [`GONE`] if it has none any more.
    position: AtomicUsize,
    /// Octets that wait for the client.
    waiting: AtomicUsize,
    /// Whether it is busy, in the lowest bit, and since when it is so or had its last query, in milliseconds.
    usage: AtomicU64,
    /// It is to be closed at once.
    is_closed: AtomicBool,
    wake: Wake,
}

/// Who has to be woken when a connection is to be closed.
#[derive(Debug)]
pub(in crate::net) enum Wake {
    /// Its own task.
    Task(Notify),
    /// The task that has all connections of a listener, which knows it by this number.
    Listener(UnboundedSender<ToListener>, u64),
}

impl Seat {
    /// Counts a response that was made, if there is room for it.
    pub(super) fn admit(&self, octets: usize) -> bool {
        if octets == 0 {
            return true;
        }
        let is_first = self.waiting() == 0;
        self.add(octets);
        let (unsent, most) = (self.connections.unsent.load(Relaxed), self.connections.most_unsent.load(Relaxed));
        // Counted first and asked then: of two threads, neither can miss what the other has added.
        let is_admitted = match unsent.checked_sub(most) {
            Some(excess) if is_first => excess == 0 || self.connections.reclaim(self),
            Some(_) => false,
            None => is_first || self.waiting() <= most - unsent,
        };
        if !is_admitted {
            self.settle(octets);
            self.connections.limited.count(Limit::Unsent);
        }
        is_admitted
    }

    /// Counts octets that there must be room for.
    pub(in crate::net) fn add(&self, octets: usize) {
        // In all first: what `forgive` takes from there is in it by then, and it falls never below zero.
        self.connections.unsent.fetch_add(octets, AcqRel);
        self.waiting.fetch_add(octets, AcqRel);
    }

    pub(in crate::net) fn settle(&self, octets: usize) {
        if octets > 0 {
            // Less than that if the connection was closed for another client in the meantime.
            let left = |waiting: usize| Some(waiting.saturating_sub(octets));
            let before = self.waiting.fetch_update(AcqRel, Relaxed, left).unwrap_or_default();
            self.connections.unsent.fetch_sub(before.min(octets), Relaxed);
        }
    }

    /// Counts nothing of a connection that closes any more: its task frees it in a moment, and until then no other connection need
    /// close.
    fn forgive(&self) {
        let octets = self.waiting.swap(0, AcqRel);
        self.connections.unsent.fetch_sub(octets, Relaxed);
    }

    /// Whether the response to one more query may be made to wait.
    pub(in crate::net) fn has_room(&self) -> bool {
        let waiting = self.waiting();
        waiting == 0 || waiting <= WAITING && waiting + MAX_MESSAGE <= self.connections.free()
    }

    /// The connection is busy, or idle, as of now.
    pub(in crate::net) fn set_standing(&self, is_busy: bool, now: Instant) {
        self.usage.store(self.connections.millis(now) << 1 | u64::from(is_busy), Relaxed);
    }

    /// Has the connection closed, without waiting for anything.
    pub(super) fn close(&self) {
        let was_closed = self.is_closed.swap(true, Relaxed);
        match &self.wake {
            Wake::Task(wake) => wake.notify_one(),
            // Once only, so that no more wait there than there are connections.
            Wake::Listener(..) if was_closed => {}
            Wake::Listener(listener, connection) => drop(listener.send(ToListener::Close(*connection))),
        }
    }

    /// Whether it is to be closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }

    /// Returns when it is to be closed.
    pub(super) async fn closed(&self) {
        while !self.is_closed() {
            match &self.wake {
                Wake::Task(wake) => wake.notified().await,
                Wake::Listener(..) => pending().await,
            }
        }
    }

    /// Octets that wait for the client.
    fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Its place in the table.
    fn position(&self) -> Option<usize> {
        Some(self.position.load(Relaxed)).filter(|&position| position != GONE)
    }

    /// How it stands beside others.
    fn usage(&self, held: u32, now: u64) -> ConnectionUse {
        let usage = self.usage.load(Relaxed);
        ConnectionUse { held, is_busy: usage & 1 == 1, quiet: Duration::from_millis(now.saturating_sub(usage >> 1)) }
    }
}

/// A connection's place in the table, until it is dropped.
#[derive(Debug)]
pub(in crate::net) struct ConnectionSlot {
    /// What it shares with others.
    pub(in crate::net) seat: Arc<Seat>,
    /// The rules when it was opened.
    pub(in crate::net) rules: ConnectionRules,
    /// How full the table is.
    pub(super) pressure: watch::Receiver<Pressure>,
    /// Where it goes when it falls idle, if it is to leave.
    pub(super) way_out: watch::Receiver<Option<WayOut>>,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.seat.connections.leave(&self.seat);
    }
}

/// Octets that may wait for one client before it gets another query answered.
pub(super) const WAITING: usize = 64 << 10;

/// Octets of the largest message.
const MAX_MESSAGE: usize = 65_535;

/// Connections that are looked at, at most, to find the one that makes room: tens of microseconds. In a larger table the look
/// goes on where the last one ended, and who holds a large part of it is in every window.
const LOOKED_AT: usize = 1024;

/// The place of a seat that is not in the table any more.
const GONE: usize = usize::MAX;
