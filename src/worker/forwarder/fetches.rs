//! Fetches of whole answers by TCP, for a TCP client whose backend's reply was truncated (RFC 7766 section
//! 5), and attempts by TCP, if UDP replies are being forged or a backend rejects its own cookie. A failure
//! costs only this answer: a backend without TCP does not count as down.
//!
//! Each is a task, because both are rare. A fetch asks one backend after the other:
//!
//! ```text
//!   enqueue ──▶ turn ──▶ query on a connection ──▶ a whole reply
//!      ▲          │ patience      │  ▲ │
//!      │          │     once more └──┘ │ patience, a bad reply, the connection is lost again
//!      └──────────┴── next backend ◀───┘
//! ```
//!
//! Clients take turns. No client and no backend may hold more slots on connections, slots in the queue or
//! connections than are free ([`DynamicThreshold`](limit::DynamicThreshold)).
//!
//! An attempt by TCP has a separate connection, which an off-path attacker cannot join, so no cookie is
//! needed. The attempt in the race continues to wait.

mod turns;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Rank;
use engine::{FetchFrom, FetchQuery, Outstanding, RaceRef, TcpQuery, rank};
use metrics::{Counters, FetchResult};
use net::proxy_protocol::ClientHeader;
use net::tasks::{TaskKind, Tasks};
use net::to_backends::connection::StreamProtocol;
use net::to_backends::server_client::{ConnectError, ServerClient};
use tokio::time::{timeout, timeout_at};

use self::turns::{ConnectionChoice, FetchPool, FetchTurn};
use super::Forwarder;

/// The fetches and the attempts by TCP of one worker.
pub(super) struct Fetches {
    pool: Rc<FetchPool>,
    attempts: Rc<Cell<usize>>,
    max_attempts: usize,
    tasks: Tasks,
    forwarder: Rc<OnceCell<Weak<RefCell<Forwarder>>>>,
}

impl Fetches {
    /// Creates a set for at most this many connections. `forwarder` gets the results.
    pub(super) fn new(
        connections: usize,
        tasks: Tasks,
        counters: Arc<Counters>,
        forwarder: Rc<OnceCell<Weak<RefCell<Forwarder>>>>,
    ) -> Self {
        let max_attempts = connections / BY_TCP;
        let pool = FetchPool::new(connections - max_attempts, tasks.clone(), counters);
        Self { pool, attempts: Rc::default(), max_attempts, tasks, forwarder }
    }

    /// Starts a fetch. Returns false if the queue is full.
    pub(super) fn start(&self, race: RaceRef, query: FetchQuery, header: Option<ClientHeader>) -> bool {
        let fetch = Fetch { pool: Rc::clone(&self.pool), query, header, has_left: Cell::new(false) };
        let Some(turn) = fetch.first_turn() else { return false };
        let forwarder = self.forwarder();
        self.tasks.start_and_leave(TaskKind::Fetch, async move {
            let reply = timeout_at(fetch.query.deadline.into(), fetch.run(turn)).await;
            let failure = if fetch.has_left.get() { FetchResult::Failed } else { FetchResult::Unsent };
            if let Some(forwarder) = forwarder.upgrade() {
                forwarder.borrow_mut().on_fetch_over(race, reply.ok().flatten().ok_or(failure));
            }
        });
        true
    }

    /// Starts an attempt by TCP. Returns false at the limit.
    pub(super) fn start_attempt(&self, attempt: Outstanding, query: TcpQuery, header: Option<ClientHeader>) -> bool {
        if self.attempts.get() >= self.max_attempts {
            return false;
        }
        self.attempts.update(|attempts| attempts + 1);
        let (attempts, forwarder) = (Rc::clone(&self.attempts), self.forwarder());
        self.tasks.start_and_leave(TaskKind::Fetch, async move {
            let until = query.deadline.min(Instant::now() + query.patience);
            let reply = timeout_at(until.into(), ask_alone(query, header)).await;
            attempts.update(|attempts| attempts - 1);
            if let Some(forwarder) = forwarder.upgrade() {
                forwarder.borrow_mut().on_reply_by_tcp(attempt, reply.ok().and_then(Result::ok));
            }
        });
        true
    }

    fn forwarder(&self) -> Weak<RefCell<Forwarder>> {
        self.forwarder.get().cloned().unwrap_or_default()
    }
}

struct Fetch {
    pool: Rc<FetchPool>,
    query: FetchQuery,
    /// The PROXY header for a backend that requires one.
    header: Option<ClientHeader>,
    /// True if a query was sent, so that a failure is not ours.
    has_left: Cell<bool>,
}

pub(super) struct WholeReply {
    pub(super) message: Vec<u8>,
    pub(super) is_ad_trusted: bool,
}

impl Fetch {
    /// Queues the fetch for its first backend. Returns `None` if it had to wait and the queue is full.
    fn first_turn(&self) -> Option<FetchTurn> {
        let first = self.query.backends.first()?;
        let may_wait = self.pool.may_wait(self.query.client, first.address);
        let turn = self.enqueue(first);
        (may_wait || turn.has_come()).then_some(turn)
    }

    fn enqueue(&self, from: &FetchFrom) -> FetchTurn {
        self.pool.enqueue(self.query.client, from.address, from.wants_header)
    }

    /// Asks one backend after the other. Returns `None` if none has a whole answer.
    async fn run(&self, first: FetchTurn) -> Option<WholeReply> {
        let FetchQuery { backends, message, opt_at, .. } = &self.query;
        let mut first = Some(first);
        for (number, from) in backends.iter().enumerate() {
            let mut query = message.clone();
            if !from.with_opt {
                query.clear();
                dns::write_without_opt(message, *opt_at, &mut query);
            }
            let turn = first.take().unwrap_or_else(|| self.enqueue(from));
            let Some(message) = self.ask(turn, from, query, number + 1 == backends.len()).await else { continue };
            // The answer is known to exist, so another backend's negative reply has no weight.
            let least = if number > 0 { Rank::Positive } else { Rank::Nodata };
            if dns::read_reply(&message).is_ok_and(|reply| !reply.is_truncated() && rank(&reply) >= least) {
                return Some(WholeReply { message, is_ad_trusted: from.is_ad_trusted });
            }
        }
        None
    }

    /// Asks one backend, and once more if the connection is lost (RFC 7766 section 6.2.4).
    async fn ask(&self, mut turn: FetchTurn, from: &FetchFrom, query: Vec<u8>, is_last: bool) -> Option<Vec<u8>> {
        let patience = self.query.patience;
        let header = self.header.as_ref().filter(|_| from.wants_header);
        // The last backend may still answer, so the fetch keeps its place in its queue.
        let until = if is_last { self.query.deadline } else { Instant::now() + patience };
        let (mut choice, mut is_resent) = (ConnectionChoice::Any, false);
        timeout_at(until.into(), turn.come()).await.ok()?;
        loop {
            let connection = self.pool.connection(from.address, header, choice);
            let connection = timeout_at(until.into(), connection).await.ok()?;
            let had_left = self.has_left.replace(true);
            match timeout(patience, connection.ask(query.clone())).await.ok()? {
                Ok((_, reply)) => return Some(reply),
                Err(error) if is_want(&error) => {
                    self.has_left.set(had_left);
                    if !self.pool.is_connected(from.address) {
                        return None;
                    }
                    choice = ConnectionChoice::Present;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !is_resent => {
                    (choice, is_resent) = (ConnectionChoice::Fresh, true);
                }
                Err(_) => return None,
            }
        }
    }
}

/// Returns true if a connect failed because a local resource was missing, which is no fault of the backend.
fn is_want(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EADDRINUSE)
            | Some(libc::EPERM | libc::EACCES)
    )
}

/// Queries a backend over a connection of its own. Skips replies to other questions.
async fn ask_alone(query: TcpQuery, header: Option<ClientHeader>) -> Result<Vec<u8>, ConnectError> {
    let TcpQuery { address, message: mut query, question, .. } = query;
    let mut client = connect(address, header).await?;
    let id = rand::random();
    dns::set_id(&mut query, id);
    client.queue(&query)?;
    loop {
        let message = client.receive().await?;
        let is_answer = dns::read_reply(&message)
            .is_ok_and(|reply| reply.header().id() == id && reply.answers_question(&question) && !reply.is_truncated());
        if is_answer {
            return Ok(message);
        }
    }
}

async fn connect(address: SocketAddr, header: Option<ClientHeader>) -> Result<ServerClient, ConnectError> {
    let connected = timeout(CONNECT, ServerClient::connect(address, &StreamProtocol::Frames, None)).await;
    let mut client = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    header.iter().for_each(|header| client.begin_with(header));
    Ok(client)
}

/// One of this many connections is reserved for attempts by TCP.
const BY_TCP: usize = 8;

/// The time limit of a connect: longer than any path on Earth takes with one SYN lost (RFC 6298: resent after
/// 1 s). Pending queries have deadlines of their own.
const CONNECT: Duration = Duration::from_secs(3);
