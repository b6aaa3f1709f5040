//! The connections to backends that are asked by stream. [`BackendConnection`] implements the protocols; this
//! module has the sockets and the rules:
//!
//! 1. A query takes the open connection with the fewest pending queries. If those are many, another
//!    connection is opened, up to `max`.
//! 2. Without an open connection the query waits for a dial. After 250 ms without an answer a second dial
//!    starts, and the first to finish is the connection (happy eyeballs, with one address). During the
//!    back-off after a failed dial queries are refused, except those to the only backend of a pool, which
//!    wait.
//! 3. A silent connection is suspicious ([`SilenceClock`]): it gets no new query, is pinged, and is given up
//!    without a response; at once, if the backend acknowledges nothing.
//! 4. An idle connection is closed after a while ([`LearnedIdleTimeout`]), except one that stays warm.
//! 5. With `max_age`, a connection of nearly that age is replaced: another one is dialled, and once that is
//!    open, the old one gets no new query and is closed after its pending replies. If the dial fails, the old
//!    one stays in use.
//! 6. If the backend requires client addresses, a connection begins with a header and carries the queries of
//!    that client alone. At the limit, the connection that is idle for the longest time is closed.
//! 7. The end of a connection with pending queries is reported ([`EndedConnection`]); without such queries no
//!    backend is blamed.

mod check;
mod dial;
mod hear;
mod queue;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::ConnectionPoolRules;
use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use metrics::{BackendConnectionCounters, LostCause};
use rand::rngs::StdRng;

use self::dial::{Dial, SharedBuffers};
use crate::proxy_protocol::ClientHeader;
use crate::to_backends::connection::{
    AskedIds, ConnectionBackoff, LearnedIdleTimeout, SilenceClock, StreamProtocol, silence_limit,
};
use crate::to_backends::tls::ClientTls;

/// The settings for a backend that is asked by stream.
pub struct StreamWay {
    /// The protocol of the connections.
    pub protocol: StreamProtocol,
    /// Returns the current TLS settings, if they are available; `None` for plain TCP.
    pub tls: Option<Box<TlsSource>>,
    /// The limits and timeouts of its connections.
    pub rules: ConnectionPoolRules,
    /// True if the pool has no other backend: during the back-off, queries wait for the next dial.
    pub is_alone: bool,
    /// The maximum wait for the response to a ping.
    pub health_timeout: Duration,
    /// The maximum back-off after failed dials.
    pub health_interval: Duration,
    /// True if each connection begins with a header, and carries the queries of that client alone.
    pub names_clients: bool,
    /// The query that serves as a ping, with any ID.
    pub sign_of_life: Vec<u8>,
    /// The counters of its connections.
    pub counters: Arc<BackendConnectionCounters>,
}

/// Returns the current TLS settings of a backend, which a reload may change.
pub type TlsSource = dyn Fn() -> Option<Arc<ClientTls>>;

/// The end of a connection or of some of its queries.
#[derive(Debug)]
pub struct EndedConnection {
    /// The set of the backend.
    pub socket_set: SocketSetId,
    /// The slots of the queries, which are free.
    pub slots: Vec<QuerySlot>,
    /// The kind of the end.
    pub how: ConnectionEnd,
}

/// The kind of the end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// An open connection is lost, because of this cause and perhaps TLS problem.
    Lost(LostCause, Option<String>),
    /// The connection stays open, but these queries failed with errors, of which this is one.
    Rejected(String),
    /// The connection could not be opened.
    Failed {
        /// A description of the problem.
        problem: String,
        /// True if the backend is unreachable or not the expected one.
        is_refused: bool,
    },
}

/// The connections of one worker to the backends that are asked by stream.
pub struct ConnectionPool {
    sets: Vec<Option<Box<StreamSet>>>,
    places: Vec<Option<Box<PooledConnection>>>,
    free: Vec<SocketId>,
    /// Numbers that become free once no caller can hold a reply that was received under them.
    closed: Vec<SocketId>,
    dirty: Vec<SocketId>,
    ended: Vec<EndedConnection>,
    next_check: Option<Instant>,
    /// The time of the last query, input or check.
    now: Instant,
    room: SharedBuffers,
    message: Vec<u8>,
    epoll: Rc<OwnedFd>,
    rng: StdRng,
}

struct StreamSet {
    address: SocketAddr,
    way: StreamWay,
    connections: Vec<SocketId>,
    backoff: ConnectionBackoff,
    patience: LearnedIdleTimeout,
    /// The number of successive connections that opened and received nothing.
    barren: u8,
    was_refused: bool,
    last_query: Option<Instant>,
    /// The silence after which a connection is suspicious.
    limit: Duration,
    paused_until: Option<Instant>,
}

/// One connection: up to two dials, one of which becomes it.
struct PooledConnection {
    set_id: SocketSetId,
    whose: Whose,
    dials: Dials,
    /// The time when it was opened; `None` while it is dialled.
    opened: Option<Instant>,
    /// The IDs of the taken slots.
    taken: Vec<u16>,
    asked: AskedIds,
    clock: SilenceClock,
    /// The time when it was opened, or its last slot became free.
    idle_since: Instant,
    heard: u32,
    is_retired: bool,
    /// The part of `max_age` after which it is replaced, random so that not all are dialled at once.
    lifetime: f32,
}

struct Dials {
    begun: Instant,
    both: [Option<Dial>; DIALS],
    is_doubled: bool,
    /// Frames that wait for the connection to open.
    waiting: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    All,
    /// The queries of the client in its header, or hedgerow's queries.
    Of(Option<IpAddr>),
}

impl Whose {
    fn of(header: Option<&ClientHeader>) -> Self {
        header.map_or(Self::All, |header| Self::Of(header.client))
    }
}

impl PooledConnection {
    fn new(set_id: SocketSetId, dial: Option<Dial>, begun: Instant, header: Option<&ClientHeader>) -> Box<Self> {
        let waiting = header.map(|header| header.octets.clone()).unwrap_or_default();
        Box::new(Self {
            set_id,
            whose: Whose::of(header),
            dials: Dials { begun, both: [dial, None], is_doubled: false, waiting },
            opened: None,
            taken: Vec::new(),
            asked: AskedIds::new(),
            clock: SilenceClock::default(),
            idle_since: begun,
            heard: 0,
            is_retired: false,
            lifetime: 1.0,
        })
    }

    fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Returns the time at which another connection must replace it, if there is one.
    fn renewal(&self, rules: &ConnectionPoolRules) -> Option<Instant> {
        let opened = self.opened.filter(|_| !self.is_retired)?;
        rules.max_age.map(|max_age| opened + max_age.mul_f32(self.lifetime))
    }

    fn open_dial(&mut self) -> Option<&mut Dial> {
        if self.is_open() { self.dials.iter_mut().next() } else { None }
    }

    fn unwritten(&self) -> usize {
        self.dials.waiting.len() + self.dials.iter().map(|dial| dial.stream.unwritten()).sum::<usize>()
    }

    /// Returns true if it accepts another query now.
    fn has_room(&self) -> bool {
        let takes_more = !self.is_open() || self.dials.iter().all(|dial| dial.stream.has_room());
        takes_more && self.unwritten() <= MAX_UNWRITTEN
    }

    /// Returns true if queries that have no other connection may wait here.
    fn may_hold(&self) -> bool {
        self.is_open() && self.dials.iter().all(|dial| dial.stream.may_hold()) && self.unwritten() <= MAX_UNWRITTEN
    }

    fn is_stalled(&self, now: Instant) -> bool {
        let is_silent = self.clock.lasts(now).is_some_and(|lasts| lasts >= UNACKNOWLEDGED);
        let unacknowledged = || self.dials.iter().find_map(|dial| dial.unacknowledged_for(now));
        is_silent && unacknowledged().is_some_and(|since| since >= UNACKNOWLEDGED)
    }
}

impl Dials {
    fn iter(&self) -> impl Iterator<Item = &Dial> {
        self.both.iter().flatten()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Dial> {
        self.both.iter_mut().flatten()
    }

    fn get_mut(&mut self, which: usize) -> Option<&mut Dial> {
        self.both.get_mut(which)?.as_mut()
    }

    fn take(&mut self, which: usize) -> Option<Dial> {
        self.both.get_mut(which)?.take()
    }

    fn are_begun(&self) -> bool {
        self.both.iter().any(Option::is_some)
    }
}

impl StreamSet {
    fn new(address: SocketAddr, way: StreamWay) -> Self {
        Self {
            address,
            connections: Vec::with_capacity(2 * usize::from(way.rules.max)),
            way,
            backoff: ConnectionBackoff::new(),
            patience: LearnedIdleTimeout::default(),
            barren: 0,
            was_refused: false,
            last_query: None,
            limit: silence_limit(None),
            paused_until: None,
        }
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Notes that a connection was useful.
    fn note_useful(&mut self) {
        self.backoff.succeeded();
        self.barren = 0;
    }

    /// Returns the time of the next dial if queries may wait for it: it is soon and no other backend exists.
    fn awaited_dial(&self, now: Instant) -> Option<Instant> {
        let is_soon = |at: &Instant| at.saturating_duration_since(now) <= self.way.rules.connect_timeout;
        self.backoff.until(now).filter(|_| self.way.is_alone).filter(is_soon)
    }

    /// Returns the time until which a connection stays open without queries.
    fn warm_until(&self) -> Option<Instant> {
        let is_kept_warm = self.way.rules.warm && !self.way.names_clients;
        self.last_query.filter(|_| is_kept_warm).map(|last| last + WARM)
    }

    fn begin_dial(&self, epoll: &OwnedFd, number: SocketId, now: Instant) -> io::Result<Dial> {
        Dial::begin(self.address, &self.way, epoll, number, now)
    }
}

/// The first number of a connection: UDP sockets use the lower numbers.
pub(super) const FIRST: u32 = 0xC000;

fn place_of(number: SocketId) -> Option<usize> {
    number.0.checked_sub(FIRST).map(|place| place as usize)
}

const DIALS: usize = 2;

const MAX_UNWRITTEN: usize = 256 * 1024;

const UNACKNOWLEDGED: Duration = Duration::from_millis(500);

/// A backend that had no queries for this time need not stay warm.
const WARM: Duration = Duration::from_secs(60);
