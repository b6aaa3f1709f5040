//! The turns of fetches at backends, and the connections that carry them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limit::{DynamicThreshold, FairQueue};
use metrics::{Counters, DropReason};
use net::proxy_protocol::ClientHeader;
use net::tasks::{TaskKind, Tasks};
use net::to_backends::connection::LearnedIdleTimeout;
use net::to_backends::shared_client::{ClientEnd, SharedClient, UnmatchedReply};
use tokio::sync::{Notify, oneshot};

use super::connect;

/// The connections of all fetches of a worker, and the queues for them.
pub(super) struct FetchPool {
    tasks: Tasks,
    counters: Arc<Counters>,
    /// Notified when a connection has ended or may be idle.
    freed: Notify,
    shares: RefCell<FetchShares>,
}

struct FetchShares {
    backends: HashMap<SocketAddr, FetchBackend>,
    queued_of_parties: DynamicThreshold<Party>,
    queued_for_backends: DynamicThreshold<SocketAddr>,
    connections: DynamicThreshold<SocketAddr>,
    serial: u64,
}

/// The client of a fetch: an IPv4 address or an IPv6 prefix.
type Party = IpAddr;

struct FetchBackend {
    queue: FairQueue<Party, (u64, oneshot::Sender<()>)>,
    places: DynamicThreshold<Party>,
    connections: Vec<Rc<SharedClient>>,
    idle: LearnedIdleTimeout,
    /// The backend closes connections after one reply: until then each query has its own connection.
    one_at_a_time_until: Option<Instant>,
}

/// The turn of a fetch at a backend: queued, and then with a place. Dropping it leaves.
pub(super) struct FetchTurn {
    pool: Rc<FetchPool>,
    address: SocketAddr,
    party: Party,
    serial: u64,
    granted: oneshot::Receiver<()>,
}

/// The connections that a query may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionChoice {
    /// The least loaded connection, or a new one if that is busy.
    Any,
    /// A connection that was not in use before, if possible.
    Fresh,
    /// An open connection, because no other can be opened.
    Present,
}

impl FetchPool {
    /// Creates a pool for at most this many connections.
    pub(super) fn new(connections: usize, tasks: Tasks, counters: Arc<Counters>) -> Rc<Self> {
        let shares = RefCell::new(FetchShares {
            backends: HashMap::new(),
            queued_of_parties: DynamicThreshold::new(QUEUE),
            queued_for_backends: DynamicThreshold::new(QUEUE),
            connections: DynamicThreshold::new(connections),
            serial: 0,
        });
        Rc::new(Self { tasks, counters, freed: Notify::new(), shares })
    }

    /// Returns true if the queue for a backend has room for another fetch of a client.
    pub(super) fn may_wait(&self, client: Option<IpAddr>, address: SocketAddr) -> bool {
        let (party, shares) = (party_of(client), self.shares.borrow());
        let of_party = shares.backends.get(&address).map_or(0, |backend| backend.queue.len_of(party));
        let queued = &shares.queued_for_backends;
        of_party < queued.free().saturating_sub(queued.of(&address)) && shares.queued_of_parties.fits(&party)
    }

    /// Queues a fetch for a backend, even above the limits, which apply to new fetches only.
    pub(super) fn enqueue(self: &Rc<Self>, client: Option<IpAddr>, address: SocketAddr, is_alone: bool) -> FetchTurn {
        let party = party_of(client);
        let (grant, granted) = oneshot::channel();
        let shares = &mut *self.shares.borrow_mut();
        shares.serial += 1;
        shares.queued_of_parties.take(party);
        shares.queued_for_backends.take(address);
        if shares.backends.len() >= BACKENDS_KNOWN {
            shares.backends.retain(|_, backend| !backend.queue.is_empty() || !backend.connections.is_empty());
        }
        let backend = shares.backends.entry(address).or_insert_with(FetchBackend::new);
        let pipeline = if is_alone || backend.is_one_at_a_time() { 1 } else { PIPELINE };
        backend.places.set_places(CONNECTIONS_A_BACKEND * pipeline);
        backend.queue.push(party, (shares.serial, grant));
        shares.grant_places(address);
        FetchTurn { pool: Rc::clone(self), address, party, serial: shares.serial, granted }
    }

    /// Returns true if a backend has connections.
    pub(super) fn is_connected(&self, address: SocketAddr) -> bool {
        self.shares.borrow().connections.of(&address) > 0
    }

    /// Waits for a connection of a backend. With a header, no other query uses it.
    pub(super) async fn connection(
        self: &Rc<Self>,
        address: SocketAddr,
        header: Option<&ClientHeader>,
        choice: ConnectionChoice,
    ) -> Rc<SharedClient> {
        loop {
            match self.choose(address, header, choice) {
                Some(connection) => return connection,
                None => self.freed.notified().await,
            }
        }
    }

    fn choose(
        self: &Rc<Self>,
        address: SocketAddr,
        header: Option<&ClientHeader>,
        choice: ConnectionChoice,
    ) -> Option<Rc<SharedClient>> {
        let shares = &mut *self.shares.borrow_mut();
        let backend = shares.backends.entry(address).or_insert_with(FetchBackend::new);
        if header.is_some() || backend.is_one_at_a_time() {
            return self.open(shares, address, header);
        }
        backend.connections.retain(|connection| !connection.is_retired());
        // The most recently used idle connection, so that the others can expire.
        let order = |connection: &&Rc<SharedClient>| (connection.pending(), connection.idle_for());
        let kept = backend.connections.iter().min_by_key(order).cloned();
        let is_enough = kept.as_ref().is_some_and(|kept| match choice {
            ConnectionChoice::Any => kept.pending() < SPREAD,
            ConnectionChoice::Fresh => kept.pending() < SPREAD && !kept.has_heard(),
            ConnectionChoice::Present => true,
        });
        if is_enough {
            return kept;
        }
        let opened = self.open(shares, address, None);
        if let (Some(opened), Some(backend)) = (&opened, shares.backends.get_mut(&address)) {
            backend.connections.push(Rc::clone(opened));
        }
        opened.or(kept)
    }

    /// Opens a connection, if the limits permit it.
    fn open(
        self: &Rc<Self>,
        shares: &mut FetchShares,
        address: SocketAddr,
        header: Option<&ClientHeader>,
    ) -> Option<Rc<SharedClient>> {
        let (has, free) = (shares.connections.of(&address), shares.connections.free());
        // Every backend may have one connection. Further ones must leave room for backends without any.
        if has >= CONNECTIONS_A_BACKEND || free == 0 || has * CONNECTIONS_A_BACKEND > free {
            if has == 0 {
                shares.make_room();
            }
            return None;
        }
        shares.connections.take(address);
        let idle = shares.backends.get(&address).map_or(IDLE, |backend| backend.idle.idle(IDLE));
        let counters = Arc::clone(&self.counters);
        let (client, driven) = SharedClient::begin(connect(address, header.cloned()), idle, move |reply| {
            counters.dropped(match reply {
                UnmatchedReply::Late => DropReason::Late,
                UnmatchedReply::Unknown => DropReason::Spoofed,
            });
        });
        let pool = Rc::clone(self);
        self.tasks.start_and_leave(TaskKind::Fetch, async move { pool.ended(address, &driven.await) });
        Some(Rc::new(client))
    }

    fn ended(&self, address: SocketAddr, end: &ClientEnd) {
        let shares = &mut *self.shares.borrow_mut();
        shares.connections.give_back(&address);
        if let Some(backend) = shares.backends.get_mut(&address) {
            backend.connections.retain(|connection| !connection.is_retired());
            match end {
                ClientEnd::Lost { is_for_one: true, .. } => {
                    backend.one_at_a_time_until = Some(Instant::now() + ONE_AT_A_TIME);
                }
                // RFC 7766 section 6.2.3: the backend's idle timeout is shorter than ours.
                ClientEnd::Lost { idle: Some(idle), .. } => backend.idle.closed_after(*idle),
                ClientEnd::Lost { .. } | ClientEnd::Unconnected | ClientEnd::Closed => {}
            }
        }
        self.freed.notify_waiters();
    }
}

impl FetchShares {
    /// Gives the free places of a backend to the fetches whose turn it is.
    fn grant_places(&mut self, address: SocketAddr) {
        let Some(FetchBackend { queue, places, .. }) = self.backends.get_mut(&address) else { return };
        while let Some((party, (_, grant))) = queue.pop(|party| places.fits(&party)) {
            places.take(party);
            self.queued_of_parties.give_back(&party);
            self.queued_for_backends.give_back(&address);
            let _ = grant.send(());
        }
    }

    /// Retires the longest idle connection, which then ends.
    fn make_room(&mut self) {
        let all = self.backends.values_mut().flat_map(|backend| {
            let longest = backend.connections.iter().filter_map(|connection| connection.idle_for()).max();
            longest.map(|idle| (idle, backend))
        });
        if let Some((idle, backend)) = all.max_by_key(|(idle, _)| *idle) {
            backend.connections.retain(|connection| connection.idle_for().is_none_or(|other| other < idle));
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
        }
    }

    fn is_one_at_a_time(&self) -> bool {
        self.one_at_a_time_until.is_some_and(|until| Instant::now() < until)
    }
}

impl FetchTurn {
    /// Returns true if the fetch need not wait.
    pub(super) fn has_come(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Waits for a place.
    pub(super) async fn come(&mut self) {
        let _ = (&mut self.granted).await;
    }
}

impl Drop for FetchTurn {
    fn drop(&mut self) {
        let shares = &mut *self.pool.shares.borrow_mut();
        let Some(backend) = shares.backends.get_mut(&self.address) else { return };
        if backend.queue.remove(self.party, |(serial, _)| *serial == self.serial) {
            shares.queued_of_parties.give_back(&self.party);
            shares.queued_for_backends.give_back(&self.address);
        } else {
            backend.places.give_back(&self.party);
            shares.grant_places(self.address);
            self.pool.freed.notify_waiters();
        }
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

/// Backends with recorded state. Above this number, unused ones are forgotten.
const BACKENDS_KNOWN: usize = 1024;

#[cfg(test)]
mod tests;
