//! A connection to one server that concurrent queries share: queries are pipelined, and replies arrive in any
//! order (RFC 7766 section 6.2.1.1). A task of the caller drives it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dns::{is_reply_to, set_id};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use super::server_client::{ConnectError, ServerClient, ServerHeard};

/// A connection that concurrent queries share. It closes when it is dropped and no query is pending.
#[derive(Debug)]
pub struct SharedClient {
    queries: mpsc::UnboundedSender<Vec<u8>>,
    pending: Arc<Mutex<PendingQueries>>,
}

/// The end of a connection.
#[derive(Debug)]
pub enum ClientEnd {
    /// The connection was idle, or no longer in use.
    Closed,
    /// The connection failed to open.
    Unconnected,
    /// The server closed the connection, or it broke.
    Lost {
        /// The time without a pending query, if none was pending and the connection had been in use.
        idle: Option<Duration>,
        /// True if the server replied to one query and read none of those behind it.
        is_for_one: bool,
    },
}

/// A message that no pending query waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmatchedReply {
    /// Most likely the reply to an abandoned query.
    Late,
    /// No query has this ID and question.
    Unknown,
}

#[derive(Debug)]
struct PendingQueries {
    by_id: HashMap<u16, PendingQuery>,
    /// The number of queries that were given up and whose reply may still arrive.
    abandoned: usize,
    heard: u32,
    heard_at: Instant,
    idle_since: Instant,
    is_retired: bool,
    /// The reason why the connection failed to open.
    unconnected: Option<io::Error>,
}

#[derive(Debug)]
struct PendingQuery {
    query: Vec<u8>,
    since: Instant,
    reply: oneshot::Sender<Vec<u8>>,
}

impl SharedClient {
    /// Creates a client of the server that `connecting` connects to, and the work of its task. Queries may
    /// be asked at once. The connection closes after `idle` without a query.
    pub fn begin(
        connecting: impl Future<Output = Result<ServerClient, ConnectError>>,
        idle: Duration,
        on_unmatched: impl Fn(UnmatchedReply),
    ) -> (Self, impl Future<Output = ClientEnd>) {
        let (queries, queued) = mpsc::unbounded_channel();
        let now = Instant::now();
        let pending = Arc::new(Mutex::new(PendingQueries {
            by_id: HashMap::new(),
            abandoned: 0,
            heard: 0,
            heard_at: now,
            idle_since: now,
            is_retired: false,
            unconnected: None,
        }));
        let shared = Arc::clone(&pending);
        let driven = async move {
            let end = match connecting.await {
                Ok(client) => drive(client, queued, &shared, idle, on_unmatched).await,
                Err(error) => {
                    lock(&shared).unconnected = Some(error.into());
                    ClientEnd::Unconnected
                }
            };
            // The queue is gone, so these are all queries that were ever asked.
            let mut pending = lock(&shared);
            pending.is_retired = true;
            pending.by_id.clear();
            end
        };
        (Self { queries, pending }, driven)
    }

    /// Sends a query under a new ID. Returns it with the reply, which has the same ID and question.
    ///
    /// # Errors
    /// If the connection could not be opened or ends before the reply, or the query is too long.
    pub async fn ask(&self, mut query: Vec<u8>) -> io::Result<(Vec<u8>, Vec<u8>)> {
        if query.len() > usize::from(u16::MAX) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (sender, reply) = oneshot::channel();
        let id = lock(&self.pending).enter(&mut query, sender);
        let _pending = PendingQueryGuard { client: self, id, since: Instant::now() };
        self.queries.send(query.clone()).map_err(|_| self.ended())?;
        let reply = reply.await.map_err(|_| self.ended())?;
        Ok((query, reply))
    }

    fn ended(&self) -> io::Error {
        match &lock(&self.pending).unconnected {
            Some(error) => error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
            None => io::ErrorKind::ConnectionReset.into(),
        }
    }

    /// Returns true if the connection must get no further queries: it is over, or it stalls.
    pub fn is_retired(&self) -> bool {
        lock(&self.pending).is_retired
    }

    /// Returns the number of pending queries.
    pub fn pending(&self) -> usize {
        lock(&self.pending).by_id.len()
    }

    /// Returns the time without a pending query, or `None` if one is pending.
    pub fn idle_for(&self) -> Option<Duration> {
        lock(&self.pending).idle_since().map(|since| since.elapsed())
    }

    /// Returns true if the connection has received a message.
    pub fn has_heard(&self) -> bool {
        lock(&self.pending).heard > 0
    }
}

async fn drive(
    mut client: ServerClient,
    mut queued: mpsc::UnboundedReceiver<Vec<u8>>,
    pending: &Mutex<PendingQueries>,
    idle: Duration,
    on_unmatched: impl Fn(UnmatchedReply),
) -> ClientEnd {
    loop {
        let idle_end = lock(pending).idle_since().unwrap_or_else(Instant::now) + idle;
        tokio::select! {
            query = queued.recv() => {
                let Some(query) = query else { return ClientEnd::Closed };
                // All queued queries are sent by one write.
                let more = std::iter::from_fn(|| queued.try_recv().ok());
                for query in std::iter::once(query).chain(more) {
                    // A query that is too long for the protocol has no reply.
                    let _ = client.queue(&query);
                }
            }
            heard = client.next() => {
                let Ok(heard) = heard else { return lock(pending).lost() };
                let unmatched = lock(pending).hear(heard, client.is_ending());
                unmatched.into_iter().for_each(&on_unmatched);
            }
            () = sleep_until(idle_end.into()) => {
                if lock(pending).idle_since().is_some_and(|since| since.elapsed() >= idle) && queued.is_empty() {
                    return ClientEnd::Closed;
                }
            }
        }
    }
}

fn lock(pending: &Mutex<PendingQueries>) -> MutexGuard<'_, PendingQueries> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PendingQueries {
    /// Registers a query and sets its unique ID. One of the 65,536 is always free, because callers have fewer
    /// queries in flight.
    fn enter(&mut self, query: &mut [u8], reply: oneshot::Sender<Vec<u8>>) -> u16 {
        let mut id: u16 = rand::random();
        while self.by_id.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        set_id(query, id);
        self.by_id.insert(id, PendingQuery { query: query.to_vec(), since: Instant::now(), reply });
        id
    }

    fn remove(&mut self, id: u16) -> Option<PendingQuery> {
        let removed = self.by_id.remove(&id)?;
        self.idle_since = Instant::now();
        Some(removed)
    }

    fn idle_since(&self) -> Option<Instant> {
        self.by_id.is_empty().then_some(self.idle_since)
    }

    /// Records an event of the server. A reply to another question is read past, as by UDP.
    fn hear(&mut self, heard: ServerHeard, is_ending: bool) -> Option<UnmatchedReply> {
        self.heard = self.heard.saturating_add(1);
        self.heard_at = Instant::now();
        self.is_retired |= is_ending;
        let message = match heard {
            ServerHeard::Message(message) => message,
            ServerHeard::Failed(failed) => {
                // Dropping its sender ends the query.
                self.remove(failed.id);
                return None;
            }
        };
        let id = message.first_chunk().map_or(0, |octets| u16::from_be_bytes(*octets));
        if self.by_id.get(&id).is_some_and(|pending| is_reply_to(&message, &pending.query))
            && let Some(pending) = self.remove(id)
        {
            let _ = pending.reply.send(message);
            return None;
        }
        let is_late = self.abandoned > 0;
        self.abandoned = self.abandoned.saturating_sub(1);
        Some(if is_late { UnmatchedReply::Late } else { UnmatchedReply::Unknown })
    }

    fn lost(&self) -> ClientEnd {
        let idle = self.idle_since().filter(|_| self.heard > 0).map(|since| since.elapsed());
        let is_for_one = self.heard == 1 && self.by_id.values().any(|pending| pending.since <= self.heard_at);
        ClientEnd::Lost { idle, is_for_one }
    }
}

/// A guard of a pending query: if it is dropped without a reply, the connection may be stalled.
struct PendingQueryGuard<'a> {
    client: &'a SharedClient,
    id: u16,
    since: Instant,
}

impl Drop for PendingQueryGuard<'_> {
    fn drop(&mut self) {
        let mut pending = lock(&self.client.pending);
        if pending.remove(self.id).is_some() {
            pending.abandoned += 1;
            // Nothing arrived since this query was sent, so later ones would wait in vain too; or too many
            // replies are missing.
            pending.is_retired |= pending.heard_at <= self.since || pending.abandoned >= MAX_ABANDONED;
        }
    }
}

const MAX_ABANDONED: usize = 32;

#[cfg(test)]
mod tests;
