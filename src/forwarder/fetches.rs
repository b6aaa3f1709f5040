//! The fetches of one worker: the queue for TCP, the connections, and the assignment of fetches to them.
//!
//! ```text
//!   add ──▶ queued for a backend ──place──▶ sent ──reply──▶ taken, and over
//!              │  ▲                           │
//!   patience   │  └── its connection was lost ┤
//!              ▼      (once)                  │ patience, a bad reply, lost again
//!        the next backend ◀───────────────────┘
//! ```
//!
//! Clients take turns. No client and no backend may hold more slots on connections, slots in the queue or
//! connections than are free ([`DynamicThreshold`]). [`super::fetch`] judges the replies.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::engine::{FetchFrom, FetchQuery, RaceRef};
use crate::limit::{DynamicThreshold, FairQueue};
use crate::net::tasks::Tasks;
use crate::net::to_backends::streams::{StreamConnection, StreamEnd, StreamKey, StreamMatch, StreamReport, Streams};
use crate::policy::timers::Timers;
use crate::wire;

/// The client of a fetch: an IPv4 address or an IPv6 prefix.
pub(super) type Party = IpAddr;

pub(super) struct Fetches {
    streams: Streams<RaceRef>,
    /// All fetches, by the slot number of their race.
    all: BTreeMap<u32, Fetch>,
    timers: Timers<RaceRef>,
    backends: BTreeMap<SocketAddr, FetchBackend>,
    queued_of_parties: DynamicThreshold<Party>,
    queued_for_backends: DynamicThreshold<SocketAddr>,
    connections: DynamicThreshold<SocketAddr>,
}

pub(super) struct Fetch {
    at: RaceRef,
    party: Party,
    pub(super) query: FetchQuery,
    /// The PROXY header at the start of a connection, for a backend that wants one.
    header: Vec<u8>,
    asked: usize,
    stage: FetchStage,
    due: Instant,
    /// True after a resend to the same backend because of a lost connection.
    is_resent: bool,
    has_left: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FetchStage {
    Nowhere,
    Queued,
    Sent { on: StreamKey, id: u16, since: Instant },
}

struct FetchBackend {
    queue: FairQueue<Party, RaceRef>,
    places: DynamicThreshold<Party>,
    idle: Duration,
    /// The backend closes connections after one reply: until then each connection carries one query.
    one_at_a_time_until: Option<Instant>,
    /// Local resources for connections were missing: until then the existing connections must suffice.
    wanting_until: Option<Instant>,
    /// True if the backend has no connection, and all permitted connections are in use.
    is_waiting_for_room: bool,
}

impl FetchBackend {
    fn new() -> Self {
        Self {
            queue: FairQueue::new(),
            places: DynamicThreshold::new(CONNECTIONS_A_BACKEND * PIPELINE),
            idle: IDLE,
            one_at_a_time_until: None,
            wanting_until: None,
            is_waiting_for_room: false,
        }
    }

    fn is_one_at_a_time(&self, now: Instant) -> bool {
        self.one_at_a_time_until.is_some_and(|until| now < until)
    }

    fn learn(&mut self, connection: &StreamConnection<RaceRef>, end: &StreamEnd, now: Instant) {
        match (end, connection.idle_since()) {
            // RFC 7766 section 6.2.3: the backend's idle timeout is shorter than ours.
            (StreamEnd::Lost(_), Some(since)) if connection.heard() > 0 => {
                self.idle = (now.saturating_duration_since(since) / 2).max(MIN_IDLE);
            }
            (StreamEnd::Lost(_), None) => {
                // The backend read one query and not those behind it.
                let was_pipelined = connection.waiting().iter().any(|waiting| waiting.since <= connection.heard_at());
                if connection.heard() == 1 && was_pipelined {
                    self.one_at_a_time_until = Some(now + ONE_AT_A_TIME);
                }
            }
            (StreamEnd::Closed, Some(_)) if !connection.is_retired() => self.idle = (self.idle * 2).min(IDLE),
            (StreamEnd::Unconnected(error), _) if is_want(error) => self.wanting_until = Some(now + BREATH),
            (StreamEnd::Lost(_) | StreamEnd::Closed | StreamEnd::Unconnected(_), _) => {}
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchStep {
    Waits,
    Over {
        /// True if no query was sent because slots or descriptors were missing.
        is_unsent: bool,
    },
}

impl Fetches {
    /// Creates an empty set for at most this many connections. Connection events go to `report`.
    pub(super) fn new(
        connections: usize,
        tasks: Tasks,
        report: impl Fn(StreamKey, StreamReport<'_>) + 'static,
    ) -> io::Result<Self> {
        Ok(Self {
            streams: Streams::new(tasks, report)?,
            all: BTreeMap::new(),
            timers: Timers::new(),
            backends: BTreeMap::new(),
            queued_of_parties: DynamicThreshold::new(QUEUE),
            queued_for_backends: DynamicThreshold::new(QUEUE),
            connections: DynamicThreshold::new(connections),
        })
    }

    /// Adds a fetch, and sends it at once if a slot is free. Returns false if the queue is full.
    pub(super) fn add(&mut self, at: RaceRef, query: FetchQuery, header: Vec<u8>, now: Instant) -> bool {
        let party = query.client.map_or(NOBODY, party_of);
        let Some(FetchFrom { address, .. }) = query.backends.first().copied() else { return false };
        let may_wait = self.may_wait(party, address);
        let due = (now + query.patience).min(query.deadline);
        let stage = FetchStage::Nowhere;
        let fetch = Fetch { at, party, query, header, asked: 0, stage, due, is_resent: false, has_left: false };
        self.all.insert(at.index(), fetch);
        self.timers.push(due, at);
        self.enqueue(at);
        self.dispatch(address, now);
        if !may_wait && self.get(at).is_some_and(|fetch| fetch.stage == FetchStage::Queued) {
            self.end(at, now);
            return false;
        }
        true
    }

    pub(super) fn get(&self, at: RaceRef) -> Option<&Fetch> {
        self.all.get(&at.index()).filter(|fetch| fetch.at == at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<RaceRef> {
        while let Some((due, at)) = self.timers.pop_due(now) {
            if self.get(at).is_some_and(|fetch| fetch.due == due) {
                return Some(at);
            }
        }
        None
    }

    pub(super) fn next_due(&mut self) -> Option<Instant> {
        let all = &self.all;
        let is_meant =
            |due, at: &RaceRef| all.get(&at.index()).is_some_and(|fetch| fetch.at == *at && fetch.due == due);
        self.timers.discard(|due, at| !is_meant(due, at));
        self.timers.peek()
    }

    /// Handles a due fetch, which moves to the next backend if it has waited long enough.
    pub(super) fn on_due(&mut self, at: RaceRef, now: Instant) -> FetchStep {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return FetchStep::Over { is_unsent: false } };
        let patience = fetch.query.patience;
        let patient_until = match fetch.stage {
            FetchStage::Sent { since, .. } => since + patience,
            // The last backend may still answer: the fetch keeps its place in the queue.
            FetchStage::Queued if fetch.asked + 1 == fetch.query.backends.len() => now + patience,
            FetchStage::Queued | FetchStage::Nowhere => now,
        };
        let until = patient_until.min(fetch.query.deadline);
        if now < until {
            fetch.due = until;
            self.timers.push(until, at);
            return FetchStep::Waits;
        }
        if let FetchStage::Sent { on, since, .. } = fetch.stage
            && let Some(connection) = self.streams.get(on)
            && (connection.heard_at() <= since || connection.late() >= PIPELINE)
        {
            // Nothing has arrived for that long, so later queries would wait in vain too; or too many replies
            // are pending.
            self.streams.retire(on, now);
        }
        self.pass_on(at, now)
    }

    pub(super) fn pass_on(&mut self, at: RaceRef, now: Instant) -> FetchStep {
        self.withdraw(at, now);
        let Some(fetch) = self.all.get_mut(&at.index()) else { return FetchStep::Over { is_unsent: false } };
        fetch.asked += 1;
        fetch.is_resent = false;
        match fetch.query.backends.get(fetch.asked).copied() {
            Some(FetchFrom { address, .. }) if now < fetch.query.deadline => {
                fetch.due = (now + fetch.query.patience).min(fetch.query.deadline);
                self.timers.push(fetch.due, at);
                self.enqueue(at);
                self.dispatch(address, now);
                FetchStep::Waits
            }
            _ => {
                let is_unsent = !fetch.has_left;
                self.all.remove(&at.index());
                FetchStep::Over { is_unsent }
            }
        }
    }

    pub(super) fn hear(&mut self, key: StreamKey, id: u16, now: Instant) -> StreamMatch<RaceRef> {
        self.streams.hear(key, id, now)
    }

    pub(super) fn settle(&mut self, at: RaceRef, now: Instant) {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return };
        let FetchStage::Sent { on, id, .. } = std::mem::replace(&mut fetch.stage, FetchStage::Nowhere) else { return };
        fetch.has_left = true;
        let (address, party) = (fetch.address(), fetch.party);
        self.streams.settle(on, id, now);
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.places.give_back(&party);
            if backend.is_one_at_a_time(now) {
                self.streams.retire(on, now);
            }
        }
        self.go_on(address, now);
    }

    pub(super) fn end(&mut self, at: RaceRef, now: Instant) {
        self.withdraw(at, now);
        self.all.remove(&at.index());
    }

    /// Ends a connection: resends its fetches, and returns those that must move to another backend.
    pub(super) fn lose(&mut self, key: StreamKey, end: &StreamEnd, now: Instant) -> Vec<RaceRef> {
        let Some(connection) = self.streams.remove(key) else { return Vec::new() };
        let address = connection.address();
        self.connections.give_back(&address);
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.learn(&connection, end, now);
        }
        if matches!(end, StreamEnd::Lost(_)) {
            // The same cause, such as a restart, may have ended the idle connections too, unnoticed.
            let is_suspect = |(_, other): &(StreamKey, &StreamConnection<_>)| {
                other.address() == address && other.idle_since().is_some() && other.heard() > 0
            };
            let suspects: Vec<_> = self.streams.iter().filter(is_suspect).map(|(key, _)| key).collect();
            suspects.into_iter().for_each(|suspect| self.streams.retire(suspect, now));
        }
        let others = self.connections.of(&address) > 0;
        let mut failed = Vec::new();
        for waiting in connection.waiting() {
            let at = waiting.user_data;
            let Some(fetch) = self.all.get_mut(&at.index()) else { continue };
            fetch.stage = FetchStage::Nowhere;
            if let Some(backend) = self.backends.get_mut(&address) {
                backend.places.give_back(&fetch.party);
            }
            let is_again = match end {
                // RFC 7766 section 6.2.4: pending queries are resent when their connection closes.
                StreamEnd::Lost(_) | StreamEnd::Closed => !std::mem::replace(&mut fetch.is_resent, true),
                StreamEnd::Unconnected(error) => is_want(error) && others,
            };
            fetch.has_left |= !matches!(end, StreamEnd::Unconnected(error) if is_want(error));
            if is_again {
                self.enqueue(at);
            } else {
                failed.push(at);
            }
        }
        self.go_on(address, now);
        failed
    }

    /// Returns true if the queue for a backend has room for another fetch of a party.
    fn may_wait(&self, party: Party, address: SocketAddr) -> bool {
        let of_party = self.backends.get(&address).map_or(0, |backend| backend.queue.len_of(party));
        let left = self.queued_for_backends.free().saturating_sub(self.queued_for_backends.of(&address));
        of_party < left && self.queued_of_parties.fits(&party)
    }

    fn withdraw(&mut self, at: RaceRef, now: Instant) {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return };
        let (address, party) = (fetch.address(), fetch.party);
        let Some(backend) = self.backends.get_mut(&address) else { return };
        match std::mem::replace(&mut fetch.stage, FetchStage::Nowhere) {
            FetchStage::Nowhere => return,
            FetchStage::Queued => {
                backend.queue.remove(party, &at);
                self.queued_of_parties.give_back(&party);
                self.queued_for_backends.give_back(&address);
            }
            FetchStage::Sent { on, id, .. } => {
                fetch.has_left = true;
                backend.places.give_back(&party);
                self.streams.abandon(on, id, now);
            }
        }
        self.go_on(address, now);
    }

    /// Queues a fetch for its current backend, even above the limits, which apply to new fetches only.
    fn enqueue(&mut self, at: RaceRef) {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return };
        let (address, party) = (fetch.address(), fetch.party);
        fetch.stage = FetchStage::Queued;
        self.queued_of_parties.take(party);
        self.queued_for_backends.take(address);
        if self.backends.len() >= BACKENDS_KNOWN {
            let connections = &self.connections;
            self.backends.retain(|address, backend| !backend.queue.is_empty() || connections.of(address) > 0);
        }
        self.backends.entry(address).or_insert_with(FetchBackend::new).queue.push(party, at);
    }

    /// After a backend's slot or connection is freed, sends its queued fetches and those that wait for room.
    fn go_on(&mut self, address: SocketAddr, now: Instant) {
        let waiting = self.backends.iter().filter(|(_, backend)| backend.is_waiting_for_room);
        let waiting: Vec<_> = waiting.map(|(address, _)| *address).collect();
        // Backends without a connection come first.
        waiting.into_iter().chain([address]).for_each(|address| self.dispatch(address, now));
    }

    fn dispatch(&mut self, address: SocketAddr, now: Instant) {
        while let Some(backend) = self.backends.get_mut(&address) {
            backend.is_waiting_for_room = false;
            let places = &backend.places;
            let next = backend.queue.peek(|party| places.fits(&party)).and_then(|at| self.all.get(&at.index()));
            let Some(fetch) = next else { return };
            let header = fetch.wants_header().then(|| fetch.header.clone());
            let on = match &header {
                Some(header) => self.open(address, header, now),
                None => self.choose(address, fetch.is_resent, now),
            };
            let Some(on) = on else { return };
            let Some(backend) = self.backends.get_mut(&address) else { return };
            let places = &backend.places;
            let Some((party, at)) = backend.queue.pop(|party| places.fits(&party)) else { return };
            backend.places.take(party);
            self.queued_of_parties.give_back(&party);
            self.queued_for_backends.give_back(&address);
            let Some(fetch) = self.all.get_mut(&at.index()) else { continue };
            let query = &fetch.query;
            let id = self.streams.queue(on, at, now, |out| match query.backends[fetch.asked].with_opt {
                true => out.extend_from_slice(&query.message),
                false => wire::write_without_opt(&query.message, query.opt_at, out),
            });
            fetch.stage = match id {
                Some(id) => FetchStage::Sent { on, id, since: now },
                // The query is longer than a frame: no backend can be queried, and the fetch times out.
                None => {
                    self.backends.entry(address).or_insert_with(FetchBackend::new).places.give_back(&party);
                    FetchStage::Nowhere
                }
            };
            if header.is_some() {
                // The connection carries this client's header, and no other client may use it.
                self.streams.retire(on, now);
            }
        }
    }

    /// Returns a connection for the next query: the least loaded one, or a new one if that is busy or none
    /// exists. A resend takes a fresh connection.
    fn choose(&mut self, address: SocketAddr, is_resent: bool, now: Instant) -> Option<StreamKey> {
        let backend = self.backends.get_mut(&address)?;
        let pipeline = if backend.is_one_at_a_time(now) { 1 } else { PIPELINE };
        let has_place = |(_, connection): &(StreamKey, &StreamConnection<_>)| {
            connection.address() == address && !connection.is_retired() && connection.waiting().len() < pipeline
        };
        // The most recently used idle connection, so that the others can expire.
        let order =
            |connection: &StreamConnection<_>| (connection.waiting().len(), connection.idle_since().map(|at| now - at));
        let kept = self.streams.iter().filter(has_place).min_by_key(|(_, connection)| order(connection));
        let kept = kept.map(|(key, connection)| (key, connection.waiting().len(), connection.heard() > 0));
        let is_wanted = match kept {
            None => true,
            Some((_, waiting, is_used)) => waiting >= SPREAD.min(pipeline) || (is_resent && is_used),
        };
        let kept = kept.map(|(key, _, _)| key);
        if is_wanted { self.open(address, &[], now).or(kept) } else { kept }
    }

    /// Opens a connection that begins with `ahead`, if the limits permit it.
    fn open(&mut self, address: SocketAddr, ahead: &[u8], now: Instant) -> Option<StreamKey> {
        let backend = self.backends.get_mut(&address)?;
        let has = self.connections.of(&address);
        let is_wanting = has > 0 && backend.wanting_until.is_some_and(|until| now < until);
        if is_wanting || has >= CONNECTIONS_A_BACKEND {
            return None;
        }
        // Every backend may have one connection. Further ones must leave room for backends without any.
        let free = self.connections.free();
        if free > 0 && has * CONNECTIONS_A_BACKEND <= free {
            self.connections.take(address);
            return Some(self.streams.open(address, backend.idle, ahead, now));
        }
        if has == 0 {
            backend.is_waiting_for_room = true;
            self.make_room(now);
        }
        None
    }

    fn make_room(&mut self, now: Instant) {
        let idle = self.streams.iter().filter(|(_, connection)| !connection.is_retired());
        let idle = idle.filter_map(|(key, connection)| connection.idle_since().map(|since| (since, key)));
        if let Some((_, key)) = idle.min_by_key(|(since, _)| *since) {
            self.streams.retire(key, now);
        }
    }
}

impl Fetch {
    /// Returns true if an earlier backend was queried, whose reply shows that an answer exists.
    pub(super) fn is_passed_on(&self) -> bool {
        self.asked > 0
    }

    fn address(&self) -> SocketAddr {
        self.query.backends[self.asked].address
    }

    pub(super) fn is_ad_trusted(&self) -> bool {
        self.query.backends[self.asked].is_ad_trusted
    }

    fn wants_header(&self) -> bool {
        self.query.backends[self.asked].wants_header
    }
}

/// Returns the party of a client address. One holder has many IPv6 addresses, so a /56 is one party.
pub(super) fn party_of(client: IpAddr) -> Party {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> 56)).into(),
    }
}

pub(super) const NOBODY: Party = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Returns true if a connect failed because a local resource was missing, which is no fault of the backend.
fn is_want(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EADDRINUSE)
            | Some(libc::EPERM | libc::EACCES)
    )
}

/// Connections of one worker to one backend. RFC 7766 section 6.2.2 recommends one where that suffices. More
/// help if a backend answers in order and one answer is slow.
const CONNECTIONS_A_BACKEND: usize = 4;

/// Pending queries on one connection. Servers process several dozen at once (Unbound and BIND answer out of
/// order; our authority takes 128), and this many short answers take one round trip.
const PIPELINE: usize = 32;

/// Pending queries on each connection before another is opened.
const SPREAD: usize = 8;

/// Queued fetches of one worker. Four connections at 100 ms per answer give a thousand answers a second, so a
/// longer queue would outlast the clients.
const QUEUE: usize = 1024;

/// The idle timeout. Knot DNS and our authority close after 10 s; with a shorter time we close first, and no
/// query meets a closing connection.
const IDLE: Duration = Duration::from_secs(8);

/// The smallest idle timeout for a backend that closes earlier. A smaller one gains nothing.
const MIN_IDLE: Duration = Duration::from_millis(100);

/// The time for which a backend that closes after one query gets one per connection. Few are ever fixed.
const ONE_AT_A_TIME: Duration = Duration::from_secs(600);

/// The pause between further connects to a backend, after the process ran out of descriptors or ports.
const BREATH: Duration = Duration::from_millis(100);

/// Backends with recorded state. Above this number, unused ones are forgotten.
const BACKENDS_KNOWN: usize = 1024;

#[cfg(test)]
mod tests;
