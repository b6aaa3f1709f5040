//! The turns of fetches at backends, and the connections that carry them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::connect;
use crate::limit::{DynamicThreshold, FairQueue};
use crate::metrics::{Counters, DropReason};
use crate::net::proxy_protocol::ClientHeader;
use crate::net::refusal::SendRefusal;
use crate::net::tasks::{TaskKind, Tasks};
use crate::net::to_backends::connection::LearnedIdleTimeout;
use crate::net::to_backends::server_client::ConnectError;
use crate::net::to_backends::shared_client::{ClientEnd, SharedClient, UnmatchedReply};

/// The connections of all fetches of a worker, and the queues for them.
pub(super) struct FetchPool {
    tasks: Tasks,
    counters: Arc<Counters>,
    shares: RefCell<FetchShares>,
}

struct FetchShares {
    backends: BTreeMap<SocketAddr, FetchBackend>,
    queued_of_parties: DynamicThreshold<Party>,
    queued_for_backends: DynamicThreshold<SocketAddr>,
    connections: DynamicThreshold<SocketAddr>,
    serial: u64,
}

/// The client of a fetch: an IPv4 address or an IPv6 prefix.
type Party = IpAddr;

struct FetchBackend {
    queue: FairQueue<Party, QueuedFetch>,
    places: DynamicThreshold<Party>,
    connections: Vec<Rc<FetchConnection>>,
    idle: LearnedIdleTimeout,
    /// The backend closes connections after one reply: until then each connection carries one query.
    one_at_a_time_until: Option<Instant>,
    /// Local resources for connections were missing: until then the existing connections must suffice.
    wanting_until: Option<Instant>,
}

struct QueuedFetch {
    serial: u64,
    header: Option<ClientHeader>,
    is_resent: bool,
    grant: oneshot::Sender<FetchPlace>,
}

struct FetchConnection {
    client: SharedClient,
    /// The number of places that fetches have here.
    taken: Cell<usize>,
    idle_since: Cell<Instant>,
    failure: Cell<Option<ConnectFailure>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectFailure {
    OfBackend,
    /// A local resource was missing, which is no fault of the backend.
    Ours,
}

/// The turn of a queued fetch. Dropping it leaves the queue.
pub(super) struct FetchTurn {
    pool: Rc<FetchPool>,
    address: SocketAddr,
    party: Party,
    serial: u64,
    grant: oneshot::Receiver<FetchPlace>,
}

/// The place of a query on a connection. Dropping it makes room.
pub(super) struct FetchPlace {
    pool: Rc<FetchPool>,
    address: SocketAddr,
    party: Party,
    connection: Rc<FetchConnection>,
}

/// The outcome of a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlaceOutcome {
    Reply(Vec<u8>),
    Silent,
    /// The connection was lost.
    Lost,
    /// No connection could be opened.
    Unconnected,
    /// A local resource for the connection was missing.
    Unsent {
        /// True if the backend has other connections.
        has_others: bool,
    },
}

impl FetchPool {
    /// Creates a pool for at most this many connections.
    pub(super) fn new(connections: usize, tasks: Tasks, counters: Arc<Counters>) -> Rc<Self> {
        let shares = RefCell::new(FetchShares {
            backends: BTreeMap::new(),
            queued_of_parties: DynamicThreshold::new(QUEUE),
            queued_for_backends: DynamicThreshold::new(QUEUE),
            connections: DynamicThreshold::new(connections),
            serial: 0,
        });
        Rc::new(Self { tasks, counters, shares })
    }

    /// Returns true if the queue for a backend has room for another fetch of a client.
    pub(super) fn may_wait(&self, client: Option<IpAddr>, address: SocketAddr) -> bool {
        let (party, shares) = (party_of(client), self.shares.borrow());
        let of_party = shares.backends.get(&address).map_or(0, |backend| backend.queue.len_of(party));
        let queued = &shares.queued_for_backends;
        of_party < queued.free().saturating_sub(queued.of(&address)) && shares.queued_of_parties.fits(&party)
    }

    /// Queues a fetch for a backend, even above the limits, which apply to new fetches only. With a header, or
    /// if its last connection was lost, it gets a fresh connection.
    pub(super) fn enqueue(
        self: &Rc<Self>,
        client: Option<IpAddr>,
        address: SocketAddr,
        header: Option<ClientHeader>,
        is_resent: bool,
    ) -> FetchTurn {
        let party = party_of(client);
        let (sender, grant) = oneshot::channel();
        let serial = {
            let shares = &mut *self.shares.borrow_mut();
            shares.serial += 1;
            shares.queued_of_parties.take(party);
            shares.queued_for_backends.take(address);
            if shares.backends.len() >= BACKENDS_KNOWN {
                let connections = &shares.connections;
                shares.backends.retain(|address, backend| !backend.queue.is_empty() || connections.of(address) > 0);
            }
            let queued = QueuedFetch { serial: shares.serial, header, is_resent, grant: sender };
            shares.backends.entry(address).or_insert_with(FetchBackend::new).queue.push(party, queued);
            shares.serial
        };
        self.dispatch(address);
        FetchTurn { pool: Rc::clone(self), address, party, serial, grant }
    }

    /// After a place or connection at a backend is freed, serves the queues. Backends without a connection
    /// come first.
    fn go_on(self: &Rc<Self>, address: SocketAddr) {
        let waiting: Vec<_> = {
            let FetchShares { backends, connections, .. } = &*self.shares.borrow();
            let waiting = backends.iter().filter(|(_, backend)| !backend.queue.is_empty());
            waiting.map(|(address, _)| *address).filter(|address| connections.of(address) == 0).collect()
        };
        waiting.into_iter().chain([address]).for_each(|address| self.dispatch(address));
    }

    fn dispatch(self: &Rc<Self>, address: SocketAddr) {
        while let Some((grant, place)) = self.next_place(address) {
            // An abandoned place is free again.
            let _ = grant.send(place);
        }
    }

    /// Takes the next fetch from the queue, if there is a place for it.
    fn next_place(self: &Rc<Self>, address: SocketAddr) -> Option<(oneshot::Sender<FetchPlace>, FetchPlace)> {
        let now = Instant::now();
        let shares = &mut *self.shares.borrow_mut();
        let FetchBackend { queue, places, .. } = shares.backends.get(&address)?;
        let QueuedFetch { header, is_resent, .. } = queue.peek(|party| places.fits(&party))?;
        let (header, is_resent) = (header.clone(), *is_resent);
        let connection = match header {
            // The connection carries this client's header, and no other query may use it.
            Some(header) => self.open(shares, address, Some(header), now)?,
            None => self.choose(shares, address, is_resent, now)?,
        };
        let FetchBackend { queue, places, .. } = shares.backends.get_mut(&address)?;
        let (party, queued) = queue.pop(|party| places.fits(&party))?;
        places.take(party);
        shares.queued_of_parties.give_back(&party);
        shares.queued_for_backends.give_back(&address);
        connection.taken.update(|taken| taken + 1);
        Some((queued.grant, FetchPlace { pool: Rc::clone(self), address, party, connection }))
    }

    /// Returns a connection for the next query: the least loaded one, or a new one if that is busy or none
    /// exists.
    fn choose(
        self: &Rc<Self>,
        shares: &mut FetchShares,
        address: SocketAddr,
        is_resent: bool,
        now: Instant,
    ) -> Option<Rc<FetchConnection>> {
        let backend = shares.backends.get_mut(&address)?;
        let pipeline = if backend.is_one_at_a_time(now) { 1 } else { PIPELINE };
        backend.connections.retain(|connection| !connection.client.is_retired());
        // The most recently used idle connection, so that the others can expire.
        let order = |connection: &&Rc<FetchConnection>| (connection.taken.get(), now - connection.idle_since.get());
        let with_place = backend.connections.iter().filter(|connection| connection.taken.get() < pipeline);
        let kept = with_place.min_by_key(order).cloned();
        let is_enough = kept
            .as_ref()
            .is_some_and(|kept| kept.taken.get() < SPREAD.min(pipeline) && !(is_resent && kept.client.has_heard()));
        if is_enough {
            return kept;
        }
        let opened = self.open(shares, address, None, now);
        if let Some((opened, backend)) = opened.as_ref().zip(shares.backends.get_mut(&address)) {
            backend.connections.push(Rc::clone(opened));
        }
        opened.or(kept)
    }

    /// Opens a connection, if the limits permit it.
    fn open(
        self: &Rc<Self>,
        shares: &mut FetchShares,
        address: SocketAddr,
        header: Option<ClientHeader>,
        now: Instant,
    ) -> Option<Rc<FetchConnection>> {
        let FetchShares { backends, connections, .. } = shares;
        let backend = backends.get_mut(&address)?;
        let (has, free) = (connections.of(&address), connections.free());
        let is_wanting = has > 0 && backend.wanting_until.is_some_and(|until| now < until);
        if is_wanting || has >= CONNECTIONS_A_BACKEND {
            return None;
        }
        // Every backend may have one connection. Further ones must leave room for backends without any.
        if free == 0 || has * CONNECTIONS_A_BACKEND > free {
            if has == 0 {
                shares.make_room();
            }
            return None;
        }
        connections.take(address);
        let counters = Arc::clone(&self.counters);
        let (client, driven) = SharedClient::begin(connect(address, header), backend.idle.idle(IDLE), move |reply| {
            counters.dropped(match reply {
                UnmatchedReply::Late => DropReason::Late,
                UnmatchedReply::Unknown => DropReason::Spoofed,
            });
        });
        let (taken, idle_since, failure) = (Cell::new(0), Cell::new(now), Cell::new(None));
        let opened = Rc::new(FetchConnection { client, taken, idle_since, failure });
        let (pool, connection) = (Rc::clone(self), Rc::downgrade(&opened));
        self.tasks.start_and_leave(TaskKind::Fetch, async move {
            let end = driven.await;
            pool.ended(address, &connection, &end);
        });
        Some(opened)
    }

    fn ended(self: &Rc<Self>, address: SocketAddr, connection: &Weak<FetchConnection>, end: &ClientEnd) {
        let failure = match end {
            ClientEnd::Unconnected(ConnectError::Io(error)) if is_want(error) => Some(ConnectFailure::Ours),
            ClientEnd::Unconnected(_) => Some(ConnectFailure::OfBackend),
            ClientEnd::Closed | ClientEnd::Lost { .. } => None,
        };
        if let Some(connection) = connection.upgrade() {
            connection.failure.set(failure);
        }
        {
            let shares = &mut *self.shares.borrow_mut();
            shares.connections.give_back(&address);
            if let Some(backend) = shares.backends.get_mut(&address) {
                backend.connections.retain(|other| !std::ptr::eq(Rc::as_ptr(other), connection.as_ptr()));
                backend.learn(end, failure, Instant::now());
            }
        }
        self.go_on(address);
    }
}

impl FetchShares {
    /// Retires the longest idle connection.
    fn make_room(&mut self) {
        let all = self.backends.values_mut().flat_map(|backend| {
            let idle = backend.connections.iter().filter(|connection| connection.taken.get() == 0);
            idle.map(|connection| connection.idle_since.get()).min().map(|since| (since, backend))
        });
        if let Some((since, backend)) = all.min_by_key(|(since, _)| *since) {
            backend.connections.retain(|connection| connection.taken.get() > 0 || connection.idle_since.get() > since);
        }
    }
}

impl FetchBackend {
    fn new() -> Self {
        Self {
            queue: FairQueue::new(),
            places: DynamicThreshold::new(CONNECTIONS_A_BACKEND * PIPELINE),
            connections: Vec::new(),
            idle: LearnedIdleTimeout::default(),
            one_at_a_time_until: None,
            wanting_until: None,
        }
    }

    fn is_one_at_a_time(&self, now: Instant) -> bool {
        self.one_at_a_time_until.is_some_and(|until| now < until)
    }

    fn learn(&mut self, end: &ClientEnd, failure: Option<ConnectFailure>, now: Instant) {
        match end {
            ClientEnd::Lost { is_for_one: true, .. } => self.one_at_a_time_until = Some(now + ONE_AT_A_TIME),
            // RFC 7766 section 6.2.3: the backend's idle timeout is shorter than ours.
            ClientEnd::Lost { idle: Some(idle), .. } => self.idle.closed_after(*idle),
            ClientEnd::Unconnected(_) if failure == Some(ConnectFailure::Ours) => {
                self.wanting_until = Some(now + BREATH);
            }
            ClientEnd::Lost { .. } | ClientEnd::Unconnected(_) | ClientEnd::Closed => {}
        }
    }
}

impl FetchTurn {
    /// Returns true if the fetch need not wait.
    pub(super) fn has_come(&self) -> bool {
        !self.grant.is_empty()
    }

    /// Waits for a place.
    pub(super) async fn come(&mut self) -> FetchPlace {
        match (&mut self.grant).await {
            Ok(place) => place,
            // A backend with a queue is not forgotten.
            Err(_) => pending().await,
        }
    }
}

impl Drop for FetchTurn {
    fn drop(&mut self) {
        let shares = &mut *self.pool.shares.borrow_mut();
        let Some(backend) = shares.backends.get_mut(&self.address) else { return };
        if backend.queue.remove(self.party, |queued| queued.serial == self.serial) {
            shares.queued_of_parties.give_back(&self.party);
            shares.queued_for_backends.give_back(&self.address);
        }
    }
}

impl FetchPlace {
    /// Sends a query, and waits for its reply.
    pub(super) async fn ask(self, query: Vec<u8>, patience: Duration) -> PlaceOutcome {
        let asked = timeout(patience, self.connection.client.ask(query)).await;
        match (asked, self.connection.failure.get()) {
            (Ok(Ok((_, reply))), _) => PlaceOutcome::Reply(reply),
            (Err(_), _) => PlaceOutcome::Silent,
            (Ok(Err(_)), None) => PlaceOutcome::Lost,
            (Ok(Err(_)), Some(ConnectFailure::OfBackend)) => PlaceOutcome::Unconnected,
            (Ok(Err(_)), Some(ConnectFailure::Ours)) => {
                PlaceOutcome::Unsent { has_others: self.pool.shares.borrow().connections.of(&self.address) > 0 }
            }
        }
    }
}

impl Drop for FetchPlace {
    fn drop(&mut self) {
        let now = Instant::now();
        self.connection.taken.update(|taken| taken - 1);
        self.connection.idle_since.set(now);
        if let Some(backend) = self.pool.shares.borrow_mut().backends.get_mut(&self.address) {
            backend.places.give_back(&self.party);
            if backend.is_one_at_a_time(now) {
                backend.connections.retain(|other| !Rc::ptr_eq(other, &self.connection));
            }
        }
        self.pool.go_on(self.address);
    }
}

/// Returns the party of a client address. One holder has many IPv6 addresses, so a /56 is one party.
fn party_of(client: Option<IpAddr>) -> Party {
    match client {
        Some(IpAddr::V4(ip)) => ip.into(),
        Some(IpAddr::V6(ip)) => Ipv6Addr::from_bits(ip.to_bits() & !(u128::MAX >> 56)).into(),
        None => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Returns true if a connect failed because a local resource was missing.
fn is_want(error: &io::Error) -> bool {
    error.raw_os_error().is_some() && matches!(SendRefusal::of(error), SendRefusal::Unsent(_))
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

/// The time for which a backend that closes after one query gets one per connection. Few are ever fixed.
const ONE_AT_A_TIME: Duration = Duration::from_secs(600);

/// The pause between further connects to a backend, after the process ran out of descriptors or ports.
const BREATH: Duration = Duration::from_millis(100);

/// Backends with recorded state. Above this number, unused ones are forgotten.
const BACKENDS_KNOWN: usize = 1024;

#[cfg(test)]
mod tests;
