//! The connections of one section of the config, over all its listeners and workers.
//!
//! A connection has a [`Seat`] here until it ends or has to make room (`limit/connections.rs`). The lock
//! covers only that: queries and responses touch only the atomics of their seat, and the unsent total.
//!
//! # Unsent bytes
//!
//! The bytes of a response count, for its connection and in total, from when it is made until the kernel has
//! accepted it.
//!
//! 1. A connection gets no further query while more than [`WAITING`] bytes are unsent. So with immediate
//!    answers (cache, authority), a client that does not read holds that and one message.
//! 2. Answers of backends may arrive all at once, up to `in_flight` messages. So all connections together may
//!    hold `unsent` bytes, and one of them as much as that leaves free: a dynamic threshold (Choudhury and
//!    Hahne, 1998), under which one that does not read gets half of all, ten get an eleventh each, and there
//!    is always room for one more. A connection whose response does not fit is closed and counted.
//! 3. Clients that do not read must not shut out clients that read: a response to a client without unsent
//!    bytes may use all that is left. If that is not enough, connections make room by most unsent bytes times
//!    connections of their client.
//! 4. A query is not handed over while its connection has unsent bytes and the largest response might not
//!    fit, so a client that reads is slowed down and not closed.

use std::future::pending;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};

use super::moved::{AdoptedConnections, MovedConnection, WayOut};
use super::responder::ToListener;

use limit::{ClientConnection, Clients, ConnectionRules, ConnectionUse, HandshakeRates, TableFullness, make_room};
use metrics::{Limit, LimitCounters};

/// The connections of one section.
#[derive(Debug)]
pub struct ConnectionTable {
    limited: Arc<LimitCounters>,
    start: Instant,
    clients: Arc<Clients>,
    table: Mutex<SeatTable>,
    pressure: watch::Sender<TableFullness>,
    unsent: AtomicUsize,
    most_unsent: AtomicUsize,
    way_out: watch::Sender<Option<WayOut>>,
    adopted: AdoptedConnections,
}

#[derive(Debug)]
struct SeatTable {
    /// The current rules; `max` is resolved to a number.
    rules: ConnectionRules,
    seats: Vec<(Arc<Seat>, ClientConnection)>,
    next_look: usize,
    handshakes: HandshakeRates,
}

impl ConnectionTable {
    /// Creates an empty table. `listener` is the name of the section, and `rules.max` must not be 0.
    pub fn new(listener: &str, rules: ConnectionRules, clients: Arc<Clients>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            limited: Arc::new(LimitCounters::new(listener)),
            start: now,
            clients,
            table: Mutex::new(SeatTable {
                rules,
                seats: Vec::new(),
                next_look: 0,
                handshakes: HandshakeRates::default(),
            }),
            pressure: watch::Sender::default(),
            unsent: AtomicUsize::new(0),
            most_unsent: AtomicUsize::new(rules.unsent),
            way_out: watch::Sender::default(),
            adopted: AdoptedConnections::default(),
        })
    }

    /// Returns the name of the section.
    pub fn name(&self) -> &str {
        self.limited.listener()
    }

    /// Returns the counters of limits that were met, also of limits that do not concern connections.
    pub fn limited(&self) -> Arc<LimitCounters> {
        Arc::clone(&self.limited)
    }

    /// Replaces the rules. Open connections keep the timeouts that they were opened with.
    pub fn set_rules(&self, rules: ConnectionRules) {
        self.most_unsent.store(rules.unsent, Relaxed);
        let mut table = self.lock();
        table.rules = rules;
        self.publish_pressure(&table);
    }

    /// Makes every connection leave when it is idle: it reads nothing more, and queries in flight are
    /// answered. `section` becomes the section name of the moved connections.
    pub fn move_out(&self, section: String, to: UnboundedSender<MovedConnection>) {
        self.way_out.send_replace(Some(WayOut { section, to }));
    }

    /// Accepts a connection from another process, for a worker of the section.
    pub fn adopt(&self, moved: MovedConnection) {
        self.adopted.push(moved);
    }

    /// Waits for the next adopted connection. Cancel safe.
    pub(crate) async fn adopted(&self) -> MovedConnection {
        self.adopted.next().await
    }

    pub(crate) fn first_query(&self) -> Duration {
        self.lock().rules.first_query
    }

    /// Returns true if a client may begin one more handshake in this second.
    pub(crate) fn admits_handshake(&self, client: IpAddr, now: Instant) -> bool {
        let (hash, second) = (self.clients.hash(client), (self.millis(now) / 1000) as u32);
        let mut table = self.lock();
        let limit = table.rules.handshakes;
        let is_admitted = table.handshakes.admit(hash, second, limit);
        if !is_admitted {
            self.limited.count(Limit::Connections);
        }
        is_admitted
    }

    pub(crate) fn enter(self: &Arc<Self>, client: IpAddr, now: Instant) -> Option<ConnectionSlot> {
        self.enter_as(client, Wake::Task(Notify::new()), now)
    }

    pub(crate) fn enter_as(self: &Arc<Self>, client: IpAddr, wake: Wake, now: Instant) -> Option<ConnectionSlot> {
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
        self.publish_pressure(&table);
        let (pressure, way_out) = (self.pressure.subscribe(), self.way_out.subscribe());
        Some(ConnectionSlot { seat, rules: table.rules, pressure, way_out })
    }

    fn leave(&self, seat: &Seat) {
        let mut table = self.lock();
        if let Some(position) = seat.position() {
            table.remove(position);
            self.publish_pressure(&table);
        }
    }

    fn publish_pressure(&self, table: &SeatTable) {
        let (open, max) = (table.seats.len(), table.rules.max);
        self.pressure.send_if_modified(|pressure| {
            let next = pressure.next(open, max);
            std::mem::replace(pressure, next) != next
        });
    }

    pub(crate) fn pressure(&self) -> watch::Receiver<TableFullness> {
        self.pressure.subscribe()
    }

    fn free(&self) -> usize {
        self.most_unsent.load(Relaxed).saturating_sub(self.unsent.load(Relaxed))
    }

    /// Closes connections that do not read, the largest first, until the total is within the limit.
    fn reclaim(&self, newcomer: &Seat) -> bool {
        let mut table = self.lock();
        // Loaded in each round, because another thread may have made room.
        while self.unsent.load(Relaxed) > self.most_unsent.load(Relaxed) {
            let Some(position) = table.largest(newcomer) else { break };
            let seat = table.remove(position);
            seat.forgive();
            seat.close();
            self.limited.count(Limit::Unsent);
        }
        self.publish_pressure(&table);
        self.unsent.load(Relaxed) <= self.most_unsent.load(Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64
    }

    /// Locks the table. A poisoned lock is harmless: the table is consistent after every step.
    fn lock(&self) -> MutexGuard<'_, SeatTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeatTable {
    /// Closes a connection for a client that will then hold `newcomer` of them.
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

    /// Returns the index of the connection with the most unsent bytes times connections of its client; `None`
    /// if all is read. The search continues through the table until it finds one.
    fn largest(&mut self, newcomer: &Seat) -> Option<usize> {
        let weight = |(seat, client): &(Arc<Seat>, ClientConnection)| {
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

    fn remove(&mut self, position: usize) -> Arc<Seat> {
        let (seat, _connected) = self.seats.swap_remove(position);
        seat.position.store(GONE, Relaxed);
        if let Some((moved, _)) = self.seats.get(position) {
            moved.position.store(position, Relaxed);
        }
        // Releases memory after a peak.
        if self.seats.capacity() > 2 * LOOKED_AT && self.seats.len() < self.seats.capacity() / 4 {
            self.seats.shrink_to(self.seats.len() * 2);
        }
        seat
    }
}

#[derive(Debug)]
pub(crate) struct Seat {
    connections: Arc<ConnectionTable>,
    position: AtomicUsize,
    waiting: AtomicUsize,
    /// The lowest bit is set if the connection is busy; the rest is the time in milliseconds of the last
    /// change or query.
    usage: AtomicU64,
    is_closed: AtomicBool,
    wake: Wake,
}

#[derive(Debug)]
pub(crate) enum Wake {
    Task(Notify),
    Listener(UnboundedSender<ToListener>, u64),
}

impl Seat {
    pub(crate) fn admit(&self, octets: usize) -> bool {
        if octets == 0 {
            return true;
        }
        let is_first = self.waiting() == 0;
        self.add(octets);
        let (unsent, most) = (self.connections.unsent.load(Relaxed), self.connections.most_unsent.load(Relaxed));
        // Add first and check after: of two threads, neither can miss the bytes of the other.
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

    pub(crate) fn add(&self, octets: usize) {
        // The total goes first: it then includes whatever `forgive` subtracts, and never falls below zero.
        self.connections.unsent.fetch_add(octets, AcqRel);
        self.waiting.fetch_add(octets, AcqRel);
    }

    pub(crate) fn settle(&self, octets: usize) {
        if octets > 0 {
            // The count is lower if the connection was closed in the meantime to make room.
            let left = |waiting: usize| Some(waiting.saturating_sub(octets));
            let before = self.waiting.fetch_update(AcqRel, Relaxed, left).unwrap_or_default();
            self.connections.unsent.fetch_sub(before.min(octets), Relaxed);
        }
    }

    /// Stops counting a connection that is closing. Its task frees the bytes in a moment, and until then no
    /// other connection has to close.
    fn forgive(&self) {
        let octets = self.waiting.swap(0, AcqRel);
        self.connections.unsent.fetch_sub(octets, Relaxed);
    }

    pub(crate) fn has_room(&self) -> bool {
        let waiting = self.waiting();
        waiting == 0 || waiting <= WAITING && waiting + MAX_MESSAGE <= self.connections.free()
    }

    pub(crate) fn set_standing(&self, is_busy: bool, now: Instant) {
        self.usage.store(self.connections.millis(now) << 1 | u64::from(is_busy), Relaxed);
    }

    /// Returns an idle time as it is with so many connections as there are now.
    pub(crate) fn shrink(&self, idle: Duration) -> Duration {
        self.connections.pressure.borrow().shrink(idle)
    }

    pub(crate) fn close(&self) {
        let was_closed = self.is_closed.swap(true, Relaxed);
        match &self.wake {
            Wake::Task(wake) => wake.notify_one(),
            // Send once only, so that the queue never has more entries than there are connections.
            Wake::Listener(..) if was_closed => {}
            Wake::Listener(listener, connection) => drop(listener.send(ToListener::Close(*connection))),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Relaxed)
    }

    pub(crate) async fn closed(&self) {
        while !self.is_closed() {
            match &self.wake {
                Wake::Task(wake) => wake.notified().await,
                Wake::Listener(..) => pending().await,
            }
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    fn position(&self) -> Option<usize> {
        Some(self.position.load(Relaxed)).filter(|&position| position != GONE)
    }

    fn usage(&self, held: u32, now: u64) -> ConnectionUse {
        let usage = self.usage.load(Relaxed);
        ConnectionUse { held, is_busy: usage & 1 == 1, quiet: Duration::from_millis(now.saturating_sub(usage >> 1)) }
    }
}

#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    pub(crate) seat: Arc<Seat>,
    pub(crate) rules: ConnectionRules,
    pub(crate) pressure: watch::Receiver<TableFullness>,
    pub(crate) way_out: watch::Receiver<Option<WayOut>>,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.seat.connections.leave(&self.seat);
    }
}

pub(crate) const WAITING: usize = 64 << 10;

const MAX_MESSAGE: usize = 65_535;

/// The limit of connections that one search examines: tens of microseconds. In a larger table the next search
/// continues where the last one ended; a client with a large part of the table is in every window.
const LOOKED_AT: usize = 1024;

const GONE: usize = usize::MAX;
