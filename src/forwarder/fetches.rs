//! The fetches of one worker: what is to be asked by TCP, which connection carries it, and what waits for a place on one.
//!
//! ```text
//!   add ──▶ queued for a backend ──place──▶ sent ──reply──▶ taken, and over
//!              │  ▲                           │
//!   patience   │  └── its connection was lost ┤
//!              ▼      (once)                  │ patience, a bad reply, lost again
//!        the next backend ◀───────────────────┘
//! ```
//!
//! Nobody may have so much of this that others have none: clients have their turns one after the other, and of places on
//! connections, of places in the queue and of connections no client and no backend holds more than is free
//! ([`DynamicThreshold`]). Here is only what is asked where; what a reply is worth, [`super::fetch`] says.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::engine::{FetchFrom, FetchQuery, RaceRef};
use crate::limit::{DynamicThreshold, FairQueue};
use crate::net::streams::{Connection, End, Heard, Report, StreamKey, Streams};
use crate::net::tasks::Tasks;
use crate::policy::timers::Timers;
use crate::wire;

/// Whom a fetch is for: an address of IPv4 or a prefix of IPv6.
pub(super) type Party = IpAddr;

/// The fetches of one worker.
pub(super) struct Fetches {
    /// The connections.
    streams: Streams<RaceRef>,
    /// All fetches, by the number of the place of their race.
    all: BTreeMap<u32, Fetch>,
    /// When they have to be looked at.
    timers: Timers<RaceRef>,
    /// The backends that are asked, or were of late.
    backends: BTreeMap<SocketAddr, Backend>,
    /// Places in the queue, by party.
    queued_of_parties: DynamicThreshold<Party>,
    /// Places in the queue, by backend.
    queued_for_backends: DynamicThreshold<SocketAddr>,
    /// Connections, by backend.
    connections: DynamicThreshold<SocketAddr>,
}

pub(super) struct Fetch {
    at: RaceRef,
    party: Party,
    /// What is asked.
    pub(super) query: FetchQuery,
    /// What a connection begins with to a backend that wants to know who asks.
    header: Vec<u8>,
    /// The place in the order of its backends of the one that is asked.
    asked: usize,
    stage: Stage,
    /// When it has to be looked at.
    due: Instant,
    /// Its connection was lost, and it was queued for the same backend once more.
    is_resent: bool,
    /// Some backend could be asked.
    has_left: bool,
}

/// Where a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Between two places.
    Nowhere,
    /// It waits for a place.
    Queued,
    /// It waits for a reply.
    Sent {
        /// On this connection.
        on: StreamKey,
        id: u16,
        /// Since then.
        since: Instant,
    },
}

struct Backend {
    /// What waits for a place on its connections.
    queue: FairQueue<Party, RaceRef>,
    /// Places on its connections, by party.
    places: DynamicThreshold<Party>,
    /// How long a connection is kept while nobody waits on it.
    idle: Duration,
    /// It was seen to close connections after one reply: it gets one query on each until then.
    one_at_a_time_until: Option<Instant>,
    /// Connections could not be had for want of our own: those that there are must do until then.
    wanting_until: Option<Instant>,
    /// It has no connection, and all that there may be are taken.
    is_waiting_for_room: bool,
}

impl Backend {
    /// One that nothing is known of.
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

    /// Whether it gets one query on each connection.
    fn is_one_at_a_time(&self, now: Instant) -> bool {
        self.one_at_a_time_until.is_some_and(|until| now < until)
    }

    /// Learns from the end of a connection.
    fn learn(&mut self, connection: &Connection<RaceRef>, end: &End, now: Instant) {
        match (end, connection.idle_since()) {
            // RFC 7766 section 6.2.3: it keeps idle connections for less time than we do.
            (End::Lost(_), Some(since)) if connection.heard() > 0 => {
                self.idle = (now.saturating_duration_since(since) / 2).max(MIN_IDLE);
            }
            (End::Lost(_), None) => {
                // It read one query and not those behind it.
                let was_pipelined = connection.waiting().iter().any(|waiting| waiting.since <= connection.heard_at());
                if connection.heard() == 1 && was_pipelined {
                    self.one_at_a_time_until = Some(now + ONE_AT_A_TIME);
                }
            }
            (End::Closed, Some(_)) if !connection.is_retired() => self.idle = (self.idle * 2).min(IDLE),
            (End::Unconnected(error), _) if is_want(error) => self.wanting_until = Some(now + BREATH),
            (End::Lost(_) | End::Closed | End::Unconnected(_), _) => {}
        }
    }
}

/// What has become of a fetch whose time had come, or whose backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It waits, here or with another backend.
    Waits,
    /// Nobody is left to ask, or no time.
    Over {
        /// It never left, for want of our own: of places, or of descriptors.
        is_unsent: bool,
    },
}

impl Fetches {
    /// No fetch, and so many connections at most, whose tasks are among these. `report` is told of what comes on them.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub(super) fn new(
        connections: usize,
        tasks: Tasks,
        report: impl Fn(StreamKey, Report<'_>) + 'static,
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

    /// Adds a fetch, which is sent at once if there is a place. Returns whether there is room for it; if not, nothing is fetched.
    ///
    /// `header` goes ahead of it where a backend wants to know who asks.
    pub(super) fn add(&mut self, at: RaceRef, query: FetchQuery, header: Vec<u8>, now: Instant) -> bool {
        let party = query.client.map_or(NOBODY, party_of);
        let Some(FetchFrom { address, .. }) = query.backends.first().copied() else { return false };
        let may_wait = self.may_wait(party, address);
        let due = (now + query.patience).min(query.deadline);
        let stage = Stage::Nowhere;
        let fetch = Fetch { at, party, query, header, asked: 0, stage, due, is_resent: false, has_left: false };
        self.all.insert(at.index(), fetch);
        self.timers.push(due, at);
        self.enqueue(at);
        self.dispatch(address, now);
        if !may_wait && self.get(at).is_some_and(|fetch| fetch.stage == Stage::Queued) {
            self.end(at, now);
            return false;
        }
        true
    }

    /// A fetch, unless it is over.
    pub(super) fn get(&self, at: RaceRef) -> Option<&Fetch> {
        self.all.get(&at.index()).filter(|fetch| fetch.at == at)
    }

    /// Takes out a fetch whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<RaceRef> {
        while let Some((due, at)) = self.timers.pop_due(now) {
            if self.get(at).is_some_and(|fetch| fetch.due == due) {
                return Some(at);
            }
        }
        None
    }

    /// When the next one has to be looked at.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        let all = &self.all;
        let is_meant =
            |due, at: &RaceRef| all.get(&at.index()).is_some_and(|fetch| fetch.at == *at && fetch.due == due);
        self.timers.discard(|due, at| !is_meant(due, at));
        self.timers.peek()
    }

    /// The time of a fetch has come: it goes on to the next backend if it has waited long enough for this one.
    pub(super) fn on_due(&mut self, at: RaceRef, now: Instant) -> Next {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return Next::Over { is_unsent: false } };
        let patience = fetch.query.patience;
        let patient_until = match fetch.stage {
            Stage::Sent { since, .. } => since + patience,
            // It may wait on where it is: nobody else could answer.
            Stage::Queued if fetch.asked + 1 == fetch.query.backends.len() => now + patience,
            Stage::Queued | Stage::Nowhere => now,
        };
        let until = patient_until.min(fetch.query.deadline);
        if now < until {
            fetch.due = until;
            self.timers.push(until, at);
            return Next::Waits;
        }
        if let Stage::Sent { on, since, .. } = fetch.stage
            && let Some(connection) = self.streams.get(on)
            && (connection.heard_at() <= since || connection.late() >= PIPELINE)
        {
            // Nothing came for so long, and what is sent after this would wait in vain too; or too much is owed.
            self.streams.retire(on, now);
        }
        self.pass_on(at, now)
    }

    /// The backend that was asked does not give the answer: the next one is asked, or nobody.
    pub(super) fn pass_on(&mut self, at: RaceRef, now: Instant) -> Next {
        self.withdraw(at, now);
        let Some(fetch) = self.all.get_mut(&at.index()) else { return Next::Over { is_unsent: false } };
        fetch.asked += 1;
        fetch.is_resent = false;
        match fetch.query.backends.get(fetch.asked).copied() {
            Some(FetchFrom { address, .. }) if now < fetch.query.deadline => {
                fetch.due = (now + fetch.query.patience).min(fetch.query.deadline);
                self.timers.push(fetch.due, at);
                self.enqueue(at);
                self.dispatch(address, now);
                Next::Waits
            }
            _ => {
                let is_unsent = !fetch.has_left;
                self.all.remove(&at.index());
                Next::Over { is_unsent }
            }
        }
    }

    /// For which fetch a message is that came on a connection.
    pub(super) fn hear(&mut self, key: StreamKey, id: u16, now: Instant) -> Heard<RaceRef> {
        self.streams.hear(key, id, now)
    }

    /// The reply to a fetch has come: its ID and its place are free, whatever the reply is worth.
    pub(super) fn settle(&mut self, at: RaceRef, now: Instant) {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return };
        let Stage::Sent { on, id, .. } = std::mem::replace(&mut fetch.stage, Stage::Nowhere) else { return };
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

    /// The fetch is over.
    pub(super) fn end(&mut self, at: RaceRef, now: Instant) {
        self.withdraw(at, now);
        self.all.remove(&at.index());
    }

    /// A connection has ended. What waited on it is sent once more; returned is what cannot be, and has to ask another.
    pub(super) fn lose(&mut self, key: StreamKey, end: &End, now: Instant) -> Vec<RaceRef> {
        let Some(connection) = self.streams.remove(key) else { return Vec::new() };
        let address = connection.address();
        self.connections.give_back(&address);
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.learn(&connection, end, now);
        }
        if matches!(end, End::Lost(_)) {
            // What ended this one, a restart say, may have ended those too on which nobody waits, and nobody would know.
            let is_suspect = |(_, other): &(StreamKey, &Connection<_>)| {
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
            fetch.stage = Stage::Nowhere;
            if let Some(backend) = self.backends.get_mut(&address) {
                backend.places.give_back(&fetch.party);
            }
            let is_again = match end {
                // RFC 7766 section 6.2.4: what was not answered when a connection closed is asked again.
                End::Lost(_) | End::Closed => !std::mem::replace(&mut fetch.is_resent, true),
                End::Unconnected(error) => is_want(error) && others,
            };
            fetch.has_left |= !matches!(end, End::Unconnected(error) if is_want(error));
            if is_again {
                self.enqueue(at);
            } else {
                failed.push(at);
            }
        }
        self.go_on(address, now);
        failed
    }

    /// Whether one more fetch of a party may wait for a place with a backend. No backend has more of the queue than is free,
    /// and of what a backend may have still no party has more than is left for others there.
    fn may_wait(&self, party: Party, address: SocketAddr) -> bool {
        let of_party = self.backends.get(&address).map_or(0, |backend| backend.queue.len_of(party));
        let left = self.queued_for_backends.free().saturating_sub(self.queued_for_backends.of(&address));
        of_party < left && self.queued_of_parties.fits(&party)
    }

    /// Takes a fetch away from where it is.
    fn withdraw(&mut self, at: RaceRef, now: Instant) {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return };
        let (address, party) = (fetch.address(), fetch.party);
        let Some(backend) = self.backends.get_mut(&address) else { return };
        match std::mem::replace(&mut fetch.stage, Stage::Nowhere) {
            Stage::Nowhere => return,
            Stage::Queued => {
                backend.queue.remove(party, &at);
                self.queued_of_parties.give_back(&party);
                self.queued_for_backends.give_back(&address);
            }
            Stage::Sent { on, id, .. } => {
                fetch.has_left = true;
                backend.places.give_back(&party);
                self.streams.abandon(on, id, now);
            }
        }
        self.go_on(address, now);
    }

    /// Queues a fetch for the backend whose turn it is. Also above the bounds, which are for new ones.
    fn enqueue(&mut self, at: RaceRef) {
        let Some(fetch) = self.all.get_mut(&at.index()) else { return };
        let (address, party) = (fetch.address(), fetch.party);
        fetch.stage = Stage::Queued;
        self.queued_of_parties.take(party);
        self.queued_for_backends.take(address);
        if self.backends.len() >= BACKENDS_KNOWN {
            let connections = &self.connections;
            self.backends.retain(|address, backend| !backend.queue.is_empty() || connections.of(address) > 0);
        }
        self.backends.entry(address).or_insert_with(Backend::new).queue.push(party, at);
    }

    /// A place, or a connection, of this backend is free: what waits for it goes on, and so do those that wait for room.
    fn go_on(&mut self, address: SocketAddr, now: Instant) {
        let waiting = self.backends.iter().filter(|(_, backend)| backend.is_waiting_for_room);
        let waiting: Vec<_> = waiting.map(|(address, _)| *address).collect();
        // Those that have none first.
        waiting.into_iter().chain([address]).for_each(|address| self.dispatch(address, now));
    }

    /// Sends what waits for a backend, as long as there are places.
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
                Some(id) => Stage::Sent { on, id, since: now },
                // Longer than a frame: nobody can be asked this, which its time will tell.
                None => {
                    self.backends.entry(address).or_insert_with(Backend::new).places.give_back(&party);
                    Stage::Nowhere
                }
            };
            if header.is_some() {
                // It is this client's, who may have no other answer.
                self.streams.retire(on, now);
            }
        }
    }

    /// The connection for the next query to a backend: the one with the fewest that wait, or another if they are many or if
    /// there is none. What is sent once more takes a fresh one.
    fn choose(&mut self, address: SocketAddr, is_resent: bool, now: Instant) -> Option<StreamKey> {
        let backend = self.backends.get_mut(&address)?;
        let pipeline = if backend.is_one_at_a_time(now) { 1 } else { PIPELINE };
        let has_place = |(_, connection): &(StreamKey, &Connection<_>)| {
            connection.address() == address && !connection.is_retired() && connection.waiting().len() < pipeline
        };
        // Of those that are idle the one used last, so that the others can end.
        let order =
            |connection: &Connection<_>| (connection.waiting().len(), connection.idle_since().map(|at| now - at));
        let kept = self.streams.iter().filter(has_place).min_by_key(|(_, connection)| order(connection));
        let kept = kept.map(|(key, connection)| (key, connection.waiting().len(), connection.heard() > 0));
        let is_wanted = match kept {
            None => true,
            Some((_, waiting, is_used)) => waiting >= SPREAD.min(pipeline) || (is_resent && is_used),
        };
        let kept = kept.map(|(key, _, _)| key);
        if is_wanted { self.open(address, &[], now).or(kept) } else { kept }
    }

    /// Another connection to a backend, which begins with these octets, if one may be had.
    fn open(&mut self, address: SocketAddr, ahead: &[u8], now: Instant) -> Option<StreamKey> {
        let backend = self.backends.get_mut(&address)?;
        let has = self.connections.of(&address);
        let is_wanting = has > 0 && backend.wanting_until.is_some_and(|until| now < until);
        if is_wanting || has >= CONNECTIONS_A_BACKEND {
            return None;
        }
        // The first is for whoever comes; more are not had by a few backends at the cost of those that have none.
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

    /// Closes the connection on which nobody has waited for the longest time.
    fn make_room(&mut self, now: Instant) {
        let idle = self.streams.iter().filter(|(_, connection)| !connection.is_retired());
        let idle = idle.filter_map(|(key, connection)| connection.idle_since().map(|since| (since, key)));
        if let Some((_, key)) = idle.min_by_key(|(since, _)| *since) {
            self.streams.retire(key, now);
        }
    }
}

impl Fetch {
    /// Whether a backend was asked before the present one, whose reply shows that there is an answer.
    pub(super) fn is_passed_on(&self) -> bool {
        self.asked > 0
    }

    /// The backend whose turn it is.
    fn address(&self) -> SocketAddr {
        self.query.backends[self.asked].address
    }

    /// True if AD of its answer is trusted.
    pub(super) fn is_ad_trusted(&self) -> bool {
        self.query.backends[self.asked].is_ad_trusted
    }

    /// Whether that wants to know who asks.
    fn wants_header(&self) -> bool {
        self.query.backends[self.asked].wants_header
    }
}

/// Whom fetches for a client at this address are for: as one holder has many addresses of IPv6, all of a /56 are one.
pub(super) fn party_of(client: IpAddr) -> Party {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> 56)).into(),
    }
}

/// The party of fetches that no client waits for.
pub(super) const NOBODY: Party = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Whether a connection could not be made for want of our own, which says nothing about the backend.
fn is_want(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EADDRINUSE)
            | Some(libc::EPERM | libc::EACCES)
    )
}

/// Connections of one worker to one backend. RFC 7766 section 6.2.2 asks for one where that does; more help where a backend
/// answers in order and one answer takes long.
const CONNECTIONS_A_BACKEND: usize = 4;

/// Queries that wait on one connection. Servers read on while they work on some dozens (Unbound and BIND answer out of order;
/// ours takes 128), and this many short answers take a round trip, not a place in a queue.
const PIPELINE: usize = 32;

/// Queries that wait on each connection before another is opened.
const SPREAD: usize = 8;

/// Fetches of one worker that wait for a place: at a thousand answers a second, which four connections give at 100 ms each,
/// what waits in it longer is of no more use to its client.
const QUEUE: usize = 1024;

/// How long a connection is kept while nobody waits on it: less than the 10 s after which Knot DNS and our own TS close, so that as a
/// rule it is we who close, and no query meets a connection that is closing.
const IDLE: Duration = Duration::from_secs(8);

/// The least of that for a backend that closes earlier: below it nothing is left to be gained.
const MIN_IDLE: Duration = Duration::from_millis(100);

/// How long a backend gets one query on a connection after it was seen to close after the first. Such servers are rarely
/// mended.
const ONE_AT_A_TIME: Duration = Duration::from_secs(600);

/// How long no further connection is tried to a backend that has one, after the process was out of descriptors or ports.
const BREATH: Duration = Duration::from_millis(100);

/// Backends about which something is remembered; above that those that nobody uses are forgotten.
const BACKENDS_KNOWN: usize = 1024;

#[cfg(test)]
mod tests;
