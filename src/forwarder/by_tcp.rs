//! Asking by TCP where replies by UDP are being forged, or a backend refuses the cookie that it has given: an attempt that goes on
//! over a connection of its own, which nobody can join who does not see it. It needs no cookie.
//!
//! Rare, so it may take a task and a connection. The race does not see it: its attempt goes on waiting.

use std::io;
use std::net::SocketAddr;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::pool::pool_at;
use super::proof::Proof;
use super::races::is_badcookie;
use super::{Forwarder, Outstanding};
use crate::metrics::Cause;
use crate::net::tasks::{TaskKind, Tasks};
use crate::wire;

/// How many attempts of one worker are being made by TCP.
///
/// Who forges for more questions than that at a time, and knows the ports of all, delays the rest.
pub(super) struct ByTcp {
    /// So many now.
    now: usize,
    /// So many at most.
    most: usize,
    /// The tasks of this worker.
    tasks: Tasks,
}

impl ByTcp {
    /// None, and so many at most, whose tasks are among these.
    pub(super) fn new(most: usize, tasks: Tasks) -> Self {
        Self { now: 0, most, tasks }
    }

    /// Begins one, if there is room.
    fn begin(&mut self) -> bool {
        let has_room = self.now < self.most;
        self.now += usize::from(has_room);
        has_room
    }

    /// One is over.
    fn end(&mut self) {
        self.now -= 1;
    }
}

impl Forwarder {
    /// Asks the backend of an attempt by TCP. Returns whether that may be.
    pub(super) fn ask_by_tcp(&mut self, outstanding: Outstanding, cause: Cause, now: std::time::Instant) -> bool {
        let (at, attempt) = (outstanding.race, outstanding.attempt());
        let Some(entry) = self.in_flight.get(at).filter(|entry| !entry.is_fetching) else { return false };
        let Some(asked) = entry.race.attempt(attempt).filter(|asked| asked.open) else { return false };
        if !self.by_tcp.begin() {
            return false;
        }
        let pool = pool_at(&mut self.pools, entry.pool);
        let edns = asked.edns && !pool.is_without_opt(asked.backend, now);
        let mut query = Vec::new();
        entry.write_query(edns, &mut query);
        let question = entry.question().to_vec();
        let address = pool.shared.backends[asked.backend.get()].address;
        let (patience, deadline) = (pool.shared.rules().attempt_timeout, Instant::from_std(entry.race.deadline()));
        pool.counters(asked.backend).again[cause as usize].increment();
        let this = self.this.get().cloned().unwrap_or_default();
        self.by_tcp.tasks.start_and_leave(TaskKind::Fetch, async move {
            let reply = timeout(patience, ask(address, query, &question));
            let reply = timeout_at(deadline, reply).await.ok().and_then(Result::ok).and_then(Result::ok);
            if let Some(this) = this.upgrade() {
                this.borrow_mut().on_reply_by_tcp(outstanding, reply.as_deref());
            }
        });
        true
    }

    /// Takes the reply by TCP, or that there is none: then there is another try by UDP, which a forger may have tired of.
    fn on_reply_by_tcp(&mut self, outstanding: Outstanding, reply: Option<&[u8]>) {
        let now = std::time::Instant::now();
        self.by_tcp.end();
        let entry = self.in_flight.get(outstanding.race).filter(|entry| !entry.is_fetching);
        if entry.and_then(|entry| entry.race.attempt(outstanding.attempt())).is_some_and(|asked| asked.open) {
            match reply.and_then(|reply| wire::read_reply(reply).ok()) {
                // No word for a race nor for a client, neither of which knows of cookies to backends.
                Some(reply) if is_badcookie(&reply) && outstanding.proof().has(Proof::COOKIE) => {
                    self.ask_elsewhere_or_fail(outstanding, now)
                }
                Some(reply) => self.judge(outstanding, &reply, now),
                None => self.ask_elsewhere_or_fail(outstanding, now),
            }
        }
        self.end_turn(now);
    }
}

/// Asks a backend over a connection, and waits for the reply. What answers something else is read past.
async fn ask(address: SocketAddr, mut query: Vec<u8>, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let id = rand::rng().random();
    wire::set_id(&mut query, id);
    // RFC 1035 section 4.2.2: two octets of length before each message.
    let length = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&length, &query[..]].concat()).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await?;
        let is_answer = wire::read_reply(&message)
            .is_ok_and(|reply| reply.header().id() == id && reply.answers_question(question) && !reply.is_truncated());
        if is_answer {
            return Ok(message);
        }
    }
}

/// Of so many connections to backends one is for this.
pub(super) const BY_TCP: usize = 8;
