//! Fetching a whole answer by TCP, for a client that came by TCP and whose backend's reply was truncated (RFC 7766
//! section 5). Rare, so it may take a task and a connection of its own. What fails here costs only this answer: a backend
//! without TCP is not taken for dead.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::Forwarder;
use super::pool::pool_at;
use super::races::rank;
use super::responses::Word;
use super::slots::RaceRef;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, BackendIndex};
use crate::wire;

impl Forwarder {
    /// Starts to fetch the whole answer of a race, from the backend whose reply was truncated or else from another.
    pub(super) fn fetch(&mut self, at: RaceRef, winner: AttemptId, now: std::time::Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let Some(winner) = entry.race.attempt(winner) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        let shared = &pool.shared;
        let others = (0..shared.backends.len() as u16).map(BackendIndex);
        let others = others.filter(|other| *other != winner.backend && shared.backends[other.get()].takes_queries());
        let others = others.map(|other| (other, !pool.is_without_opt(other, now)));
        let backends = std::iter::once((winner.backend, winner.edns && !pool.is_without_opt(winner.backend, now)));
        let address = |(backend, edns): (BackendIndex, bool)| (shared.backends[backend.get()].address, edns);
        let mut query = Vec::new();
        let opt_at = entry.write_query(true, &mut query);
        let job = Job {
            backends: backends.chain(others).map(address).collect(),
            query,
            opt_at,
            question: entry.question().to_vec(),
            patience: shared.rules().attempt_timeout,
        };
        let deadline = Instant::from_std(entry.race.deadline());
        let this = self.this.clone();
        tokio::task::spawn_local(async move {
            let message = timeout_at(deadline, job.run()).await.ok().flatten();
            if let Some(this) = this.upgrade() {
                this.borrow_mut().on_fetched(at, message.as_deref());
            }
        });
    }

    /// Ends a race whose answer was fetched, or could not be.
    fn on_fetched(&mut self, at: RaceRef, message: Option<&[u8]>) {
        let now = std::time::Instant::now();
        match message.and_then(|message| wire::read_reply(message).ok()) {
            Some(reply) => {
                self.remember_whole(at, &reply, now);
                self.respond_whole(at, &reply, now);
            }
            None => {
                self.respond_stale(at, now);
                self.respond_word(at, Word::NOT_WHOLE, now);
            }
        }
        self.remove(at);
        self.end_turn(now);
    }
}

/// What to fetch, and where.
struct Job {
    /// Whom to ask, in order, and whether with OPT; first the one whose reply was truncated.
    backends: Vec<(SocketAddr, bool)>,
    /// The query as it goes to backends.
    query: Vec<u8>,
    /// Where the OPT record starts in it.
    opt_at: usize,
    /// Its question.
    question: Vec<u8>,
    /// How long one backend is waited for.
    patience: Duration,
}

impl Job {
    /// Asks one backend after the other until one gives a whole answer.
    async fn run(self) -> Option<Vec<u8>> {
        // What is to be fetched is known to exist, so another's word that it does not is worth nothing.
        let least = std::iter::once(Rank::Nodata).chain(std::iter::repeat(Rank::Positive));
        for ((address, edns), least) in self.backends.iter().zip(least) {
            if let Ok(Ok(message)) = timeout(self.patience, self.ask(*address, *edns, least)).await {
                return Some(message);
            }
        }
        None
    }

    /// Asks one backend for a whole reply of this rank at least. Replies to anything else are read past.
    async fn ask(&self, address: SocketAddr, edns: bool, least: Rank) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address).await?;
        let id = rand::rng().random();
        let mut query = Vec::with_capacity(self.query.len());
        match edns {
            true => query.extend_from_slice(&self.query),
            false => wire::write_without_opt(&self.query, self.opt_at, &mut query),
        }
        wire::set_id(&mut query, id);
        // RFC 1035 section 4.2.2: two octets of length before each message.
        let length = (query.len() as u16).to_be_bytes();
        stream.write_all(&[&length, &query[..]].concat()).await?;
        loop {
            let length = stream.read_u16().await?;
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await?;
            let Ok(reply) = wire::read_reply(&message) else { continue };
            if reply.header().id() != id || !reply.answers_question(&self.question) {
                continue;
            }
            if reply.is_truncated() || rank(&reply) < least {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return Ok(message);
        }
    }
}
