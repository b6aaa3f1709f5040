//! What an engine has done for it: the one trait between decisions and the world.
//!
//! `forwarder` implements it with sockets and connections, `sim` with modelled backends and a clock of its own. Nothing here
//! waits, and nothing calls back into the engine: what could not be done at once is reported later, as an event.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{Outstanding, Quarantined, TakenSlot};
use super::entry::Waiter;
use super::explain::{LateReport, RaceReport};
use super::slots::RaceRef;
use crate::cache::ResponseFor;
use crate::metrics::{Source, Want};
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};
use crate::policy::race::{Attempt, BackendIndex, Kind, Race};
use crate::state::{HealthSignal, SharedBackend, SharedPool};
use crate::wire::{Rcode, Reply, Transport};

use super::single_flight::WorkerId;

/// A client, as whoever moves its bytes knows it: who asked, and the way back.
pub trait Client: Clone {
    /// Its address.
    fn ip(&self) -> IpAddr;

    /// How it asked.
    fn transport(&self) -> Transport;

    /// Whether it is an operator who has a question explained: no figure of clients counts that.
    fn is_admin(&self) -> bool;

    /// Whether two queries came from one socket to one of our addresses. By TCP nothing is sent twice.
    fn is_same_socket(&self, other: &Self) -> bool;
}

/// The I/O of an engine.
pub trait Io {
    /// Its clients.
    type Client: Client;

    /// Makes a backend known, to which there will be sockets or connections.
    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId;

    /// Forgets a backend and its sockets. Returns how many queries to it were in flight or quarantined.
    fn remove_backend(&mut self, sockets: SocketSetId) -> usize;

    /// Whether a backend is asked by stream and has no open connection. Never so by UDP.
    fn is_cold(&self, sockets: SocketSetId) -> bool;

    /// Connects to a backend that is cold, unless somebody does so already.
    fn dial(&mut self, sockets: SocketSetId, now: Instant);

    /// When the connection with this number was opened; `None` by UDP.
    fn opened(&self, socket: SocketId) -> Option<Instant>;

    /// Queues a query for a backend: `write` is told its place and writes it, with any ID.
    ///
    /// # Errors
    /// If it cannot leave.
    fn send(
        &mut self,
        to: Destination<'_, Self::Client>,
        outstanding: Outstanding,
        attempt: &SentAttempt<'_>,
        now: Instant,
        write: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, NotSent>;

    /// What waits on this socket for a message with this ID.
    fn find(&self, socket: SocketId, id: u16) -> Option<(QuerySlot, TakenSlot)>;

    /// Whether this ID was in use on this socket not long ago.
    fn was_in_use(&self, socket: SocketId, id: u16) -> bool;

    /// A reply came that is believed, to an attempt that is waited for or was.
    fn heard(&mut self, attempt: &SentAttempt<'_>, sent: Instant, reply: &Reply<'_>, now: Instant);

    /// The reply came: the slot is free.
    fn release(&mut self, slot: QuerySlot, now: Instant);

    /// Nobody needs the reply any more, but the slot stays taken for a while; `note` says what is to be known of it then.
    fn quarantine(&mut self, slot: QuerySlot, now: Instant, note: impl FnOnce(Outstanding) -> Quarantined);

    /// Nobody waits for the reply, nor wants to know of it: the query was sent once more from elsewhere.
    fn withdraw(&mut self, slot: QuerySlot);

    /// Sends nothing more from the socket of a slot, if there is another: somebody may know its port.
    fn shun(&mut self, slot: QuerySlot);

    /// Counts a datagram on this socket that answers nothing that was asked there, and says whether there were too many.
    fn is_suspicious(&mut self, socket: SocketId) -> bool;

    /// Believes nothing on this socket any more, and takes back all that waits there.
    fn void(&mut self, socket: SocketId, now: Instant, taken: &mut Vec<TakenSlot>);

    /// The backend that a socket leads to.
    fn set_of(&self, socket: SocketId) -> Option<SocketSetId>;

    /// Tells of the queries that an ICMP error on this socket is about, of each once.
    fn tell_struck(&mut self, socket: SocketId, told: &mut Vec<Outstanding>);

    /// Takes those back, quarantined ones included.
    fn take_struck(&mut self, socket: SocketId, taken: &mut Vec<TakenSlot>);

    /// Takes back all queries to a backend, quarantined ones included.
    fn take_waiting(&mut self, sockets: SocketSetId, taken: &mut Vec<TakenSlot>);

    /// Asks by TCP what forgers must not answer. Returns whether there is room for that; if so,
    /// [`on_reply_by_tcp`](super::Engine::on_reply_by_tcp) tells what came.
    fn ask_by_tcp(&mut self, outstanding: Outstanding, query: TcpQuery, asked_for: AskedFor<'_, Self::Client>) -> bool;

    /// Fetches a whole answer by TCP. Returns whether there is room for that; if so, [`on_fetched`](super::Engine::on_fetched) or
    /// [`on_fetch_failed`](super::Engine::on_fetch_failed) tells what came of it.
    fn fetch(&mut self, race: RaceRef, query: FetchQuery, asked_for: AskedFor<'_, Self::Client>, now: Instant) -> bool;

    /// Responds to a client: `write` writes the response in the form that the client wants, and says what it is; `None`, if there
    /// is none, and the client waits on.
    fn respond(
        &mut self,
        waiter: &Waiter<Self::Client>,
        resolution: &Resolution<'_>,
        now: Instant,
        write: impl FnOnce(&ResponseFor<'_>, &mut Vec<u8>) -> Option<Said>,
    );

    /// A client that has waited gets no response.
    fn respond_nothing(
        &mut self,
        waiter: &Waiter<Self::Client>,
        resolution: &Resolution<'_>,
        question: &[u8],
        now: Instant,
    );

    /// Hands a query over to the worker that races for its question.
    fn hand_over(&mut self, to: WorkerId, message: &[u8], client: Self::Client);

    /// Tells the prober what a query has met.
    fn tell_prober(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal);

    /// A race is over, and those who wait for it are about to be answered. Returns whether replies that still come to its attempts
    /// are to be told as well.
    fn race_over(&mut self, report: RaceReport<'_>) -> bool;

    /// A reply has come to an attempt whose race was over, and is to be told.
    fn late_reply(&mut self, late: LateReport<'_>);
}

/// Where a query goes, and what that is told of who asks.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a, C> {
    /// The backend.
    pub sockets: SocketSetId,
    /// By stream it goes by another connection than this, if one can be had: there an earlier attempt of the same race waits.
    pub avoid: Option<SocketId>,
    /// Who asks.
    pub asked_for: AskedFor<'a, C>,
}

/// Whom a backend is told that a query comes from (`proxy_protocol`).
#[derive(Clone, Copy, Debug)]
pub enum AskedFor<'a, C> {
    /// It is told nothing.
    Untold,
    /// No client: we ask for ourselves.
    Ourselves,
    /// This client.
    Client(&'a C),
}

/// Why a query could not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is no way to the backend.
    Unreachable,
    /// For want of something of our own.
    Want(Want),
    /// As many queries wait on each connection to the backend as may, or for one to be opened.
    Full,
}

/// An attempt as it is sent, for who observes.
#[derive(Clone, Copy, Debug)]
pub struct SentAttempt<'a> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool.
    pub pool: &'a SharedPool,
    /// Who is asked.
    pub backend: BackendIndex,
    /// Why.
    pub kind: Kind,
    /// When its race began; of one that is over, when the attempt was made.
    pub since: Instant,
}

/// How a response has come about, for who observes.
#[derive(Clone, Copy, Debug)]
pub struct Resolution<'a> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool that was to answer.
    pub pool: &'a SharedPool,
    /// How many attempts were made by then.
    pub attempts: u8,
    /// Whether a hedge was among them.
    pub is_hedged: bool,
    /// Whose reply it is, and why that was asked.
    pub winner: Option<(BackendIndex, Kind)>,
    /// A limit kept the query from its race.
    pub is_limited: bool,
}

impl<'a> Resolution<'a> {
    /// Without a race, or before there is one.
    pub(super) fn at_once(hash: u64, pool: &'a SharedPool) -> Self {
        Self { hash, pool, attempts: 0, is_hedged: false, winner: None, is_limited: false }
    }

    /// By a race so far.
    pub(super) fn of_race(hash: u64, pool: &'a SharedPool, race: &Race, winner: Option<&Attempt>) -> Self {
        let (attempts, is_hedged) = race.tally();
        let winner = winner.map(|winner| (winner.backend, winner.kind));
        Self { hash, pool, attempts, is_hedged, winner, is_limited: false }
    }
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// Where that comes from.
    pub source: Source,
    /// Its response code.
    pub rcode: Rcode,
}

/// A query that is asked by TCP.
#[derive(Debug)]
pub struct TcpQuery {
    /// Whom to ask.
    pub address: SocketAddr,
    /// The query, with any ID.
    pub message: Vec<u8>,
    /// Its question.
    pub question: Vec<u8>,
    /// How long the backend is waited for.
    pub patience: Duration,
    /// Until when it matters.
    pub deadline: Instant,
}

/// What is to be fetched, and from whom.
#[derive(Debug)]
pub struct FetchQuery {
    /// Whom to ask, in order.
    pub backends: Vec<FetchFrom>,
    /// The query as it goes to backends.
    pub message: Vec<u8>,
    /// Where the OPT record starts in it.
    pub opt_at: usize,
    /// Its question.
    pub question: Vec<u8>,
    /// How long one backend is waited for.
    pub patience: Duration,
    /// Until when it matters.
    pub deadline: Instant,
    /// The client that waits for it, if one came by TCP.
    pub client: Option<IpAddr>,
}

/// A backend of which an answer may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// Where it is asked.
    pub address: SocketAddr,
    /// Whether with OPT.
    pub with_opt: bool,
    /// True if AD of its answer is trusted.
    pub is_ad_trusted: bool,
    /// Whether a header is to tell it who asks.
    pub wants_header: bool,
}
