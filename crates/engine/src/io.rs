//! The engine's I/O: the one trait between decisions and the outside world.
//!
//! `forwarder` implements it with sockets and connections, `sim` with modelled backends and a clock. No
//! method blocks or calls back into the engine; failures are reported later, as events.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::{Cookie, Rcode, Reply, ShownCookie, Transport};
use hedge::race::{Attempt, AttemptKind, BackendIndex};
use metrics::{ResponseSource, Want};

use super::Race;
use super::attempt::Outstanding;
use super::entry::Waiter;
use super::explain::{LateReport, RaceReport};
use super::query_slots::{QuerySlot, SocketId, SocketSetId};
use super::slots::RaceRef;
use crate::state::{HealthSignal, SharedBackend, SharedPool};

/// A client as the I/O layer knows it: the party that asked, and its reply channel.
pub trait ClientHandle: Clone {
    /// Returns the client's address.
    fn ip(&self) -> IpAddr;

    /// Returns the transport of the query.
    fn transport(&self) -> Transport;

    /// Returns true for an operator with an explained question, which no client statistic counts.
    fn is_admin(&self) -> bool;

    /// Returns true if two queries came from one socket to one of our addresses.
    fn is_same_socket(&self, other: &Self) -> bool;
}

/// The I/O of an engine. The methods with a body are those of a world without forgers, cookies and observers.
pub trait Io {
    /// The type of its clients.
    type Client: ClientHandle;

    /// Adds a backend, with sockets or connections.
    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId;

    /// Removes a backend and its sockets. Lists the slots of its pending queries.
    fn remove_backend(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>);

    /// Returns true if a stream backend has no open connection. Always false for UDP.
    fn is_cold(&self, sockets: SocketSetId) -> bool;

    /// Connects to a cold backend, unless a connection is being opened.
    fn dial(&mut self, sockets: SocketSetId, now: Instant);

    /// Returns the time at which a connection was opened; `None` for UDP.
    fn opened(&self, socket: SocketId) -> Option<Instant>;

    /// Chooses the socket or connection for the next query to a backend.
    ///
    /// # Errors
    /// The reason why none can be sent.
    fn choose(&mut self, to: &Destination<'_, Self::Client>, now: Instant) -> Result<SocketId, NotSent>;

    /// Returns true if the connection may use this ID. By UDP, each ID that is not taken may be used.
    fn permits(&self, _slot: QuerySlot) -> bool {
        true
    }

    /// Queues a query for a backend, in a slot of the socket just chosen. `write` writes it, with any ID.
    ///
    /// # Errors
    /// The reason why it cannot be sent. The query is then not outstanding.
    fn send(
        &mut self,
        slot: QuerySlot,
        to: &Destination<'_, Self::Client>,
        outstanding: Outstanding,
        attempt: &SentAttempt<'_>,
        now: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotSent>;

    /// Reports an accepted reply to a running or past attempt.
    fn heard(&mut self, _attempt: &SentAttempt<'_>, _sent: Instant, _reply: &Reply<'_>, _now: Instant) {}

    /// Frees a slot whose reply arrived or is no longer needed.
    fn free(&mut self, slot: QuerySlot, now: Instant);

    /// Frees the slots of all queries to a backend that is down, and lists them.
    fn take_back(&mut self, sockets: SocketSetId, lost: &mut Vec<QuerySlot>);

    /// Stops sending from a socket, if there is another: an attacker may know its port.
    fn shun(&mut self, _socket: SocketId) {}

    /// Counts a datagram on this socket that matches no query. Returns the number so far.
    fn count_near_miss(&mut self, _socket: SocketId) -> u8 {
        0
    }

    /// Voids a socket: ignores its datagrams, frees the slots of all its queries and lists them.
    fn void(&mut self, _socket: SocketId, _now: Instant, _lost: &mut Vec<QuerySlot>) {}

    /// Asks by TCP after suspected forgery. Returns true if there is room; the reply then arrives by
    /// [`on_reply_by_tcp`](super::Tick::on_reply_by_tcp).
    fn ask_by_tcp(&mut self, outstanding: Outstanding, query: TcpQuery, asked_for: AskedFor<'_, Self::Client>) -> bool;

    /// Fetches a whole answer by TCP. Returns true if there is room; the result then arrives by
    /// [`on_fetched`](super::Tick::on_fetched) or [`on_fetch_failed`](super::Tick::on_fetch_failed).
    fn fetch(&mut self, race: RaceRef, query: FetchQuery, asked_for: AskedFor<'_, Self::Client>, now: Instant) -> bool;

    /// Returns the whole cookie of a client that has waited, if cookies are on.
    fn late_cookie(&self, _client: &Self::Client, _shown: ShownCookie) -> Option<Cookie> {
        None
    }

    /// Sends a response to a client. It may exchange the buffer of the message for another one.
    fn respond(
        &mut self,
        waiter: &Waiter<Self::Client>,
        resolution: &ResponseOrigin<'_>,
        summary: ResponseSummary,
        message: &mut Vec<u8>,
        now: Instant,
    );

    /// Ends the wait of a client without a response.
    fn respond_nothing(
        &mut self,
        waiter: &Waiter<Self::Client>,
        resolution: &ResponseOrigin<'_>,
        question: &[u8],
        now: Instant,
    );

    /// Sends the prober a signal about a backend.
    fn signal_prober(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal);

    /// Reports a finished race, before its clients get responses. Returns true if late replies to its
    /// attempts are to be reported too.
    fn race_over(&mut self, report: RaceReport<'_>) -> bool;

    /// Reports a late reply.
    fn late_reply(&mut self, _late: LateReport<'_>) {}
}

/// The destination of a query, and the client that it reports to the backend.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a, C> {
    /// The sockets of the backend.
    pub sockets: SocketSetId,
    /// The connection of an earlier attempt of the same race; a stream query uses another one if possible.
    pub avoid: Option<SocketId>,
    /// The client to report.
    pub asked_for: AskedFor<'a, C>,
}

/// The client that a query reports to its backend (`proxy_protocol`).
#[derive(Clone, Copy, Debug)]
pub enum AskedFor<'a, C> {
    /// No client is reported.
    Hidden,
    /// The server asks for itself.
    Ourselves,
    /// The client that asks.
    Client(&'a C),
}

/// The reason why a query could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The backend is not reachable.
    Unreachable,
    /// A local resource is missing.
    Want(Want),
    /// All connections to the backend, or the queue for a new one, are full.
    Full,
}

/// A sent attempt, for observers.
#[derive(Clone, Copy, Debug)]
pub struct SentAttempt<'a> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool of the race.
    pub pool: &'a SharedPool,
    /// The backend that is asked.
    pub backend: BackendIndex,
    /// The reason of the attempt.
    pub kind: AttemptKind,
    /// The start of the race; of a finished race, the time of the attempt.
    pub since: Instant,
}

/// The way in which a response came about, for observers.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOrigin<'a> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool of the query.
    pub pool: &'a SharedPool,
    /// The number of attempts so far.
    pub attempts: u8,
    /// True if one of them was a hedge.
    pub is_hedged: bool,
    /// The backend that won, and the reason of its attempt.
    pub winner: Option<(BackendIndex, AttemptKind)>,
    /// True if a limit prevented a race.
    pub is_limited: bool,
}

impl<'a> ResponseOrigin<'a> {
    pub(super) fn at_once(hash: u64, pool: &'a SharedPool) -> Self {
        Self { hash, pool, attempts: 0, is_hedged: false, winner: None, is_limited: false }
    }

    pub(super) fn of_race(hash: u64, pool: &'a SharedPool, race: &Race, winner: Option<&Attempt>) -> Self {
        let (attempts, is_hedged) = race.tally();
        let winner = winner.map(|winner| (winner.backend, winner.kind));
        Self { hash, pool, attempts, is_hedged, winner, is_limited: false }
    }
}

/// The result that a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSummary {
    /// The source of the response.
    pub source: ResponseSource,
    /// The response code.
    pub rcode: Rcode,
}

/// A query for TCP.
#[derive(Debug)]
pub struct TcpQuery {
    /// The address of the backend.
    pub address: SocketAddr,
    /// The query, with any ID.
    pub message: Vec<u8>,
    /// The question in wire form.
    pub question: Vec<u8>,
    /// The time to wait for the backend.
    pub patience: Duration,
    /// The time after which the reply is useless.
    pub deadline: Instant,
}

/// A whole answer to fetch, and its backends.
#[derive(Debug)]
pub struct FetchQuery {
    /// The backends, in order.
    pub backends: Vec<FetchFrom>,
    /// The query for backends.
    pub message: Vec<u8>,
    /// The offset of its OPT record.
    pub opt_at: usize,
    /// The question in wire form.
    pub question: Vec<u8>,
    /// The time to wait for one backend.
    pub patience: Duration,
    /// The time after which the answer is useless.
    pub deadline: Instant,
    /// A TCP client that waits for it, if any.
    pub client: Option<IpAddr>,
}

/// A backend for a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The address of the backend.
    pub address: SocketAddr,
    /// True if the query has an OPT record.
    pub with_opt: bool,
    /// True if AD of its answer is trusted.
    pub is_ad_trusted: bool,
    /// True if a header reports the client.
    pub wants_header: bool,
}
