//! The stream connection that all look-ups share: queries are pipelined, and replies arrive in any order (RFC
//! 7766 section 6.2.1.1). A connection that has delivered nothing since an unanswered query was sent counts
//! as stalled, and the next query uses a new one.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::address::Scheme;
use crate::net::to_backends::connection::StreamProtocol;
use crate::net::to_backends::server_client::{ConnectError, ServerClient, ServerHeard};
use crate::net::to_backends::tls::ClientTls;
use crate::wire::{Transport, set_id};

#[derive(Debug)]
pub(super) struct LookupConnections {
    server: SocketAddr,
    scheme: Scheme,
    protocol: StreamProtocol,
    tls: Option<ClientTls>,
    /// Locked while a connection is made, so that concurrent queries make only one.
    current: tokio::sync::Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    connection: Option<Arc<LookupConnection>>,
    untrusted: Option<String>,
}

#[derive(Debug)]
struct LookupConnection {
    queries: mpsc::UnboundedSender<Vec<u8>>,
    pending: Arc<Mutex<PendingQueries>>,
    /// The task that reads and writes; dropping the connection aborts it.
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct PendingQueries {
    by_id: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    heard_at: Instant,
    is_over: bool,
}

impl LookupConnections {
    pub(super) fn new(server: SocketAddr, scheme: Scheme, protocol: StreamProtocol, tls: Option<ClientTls>) -> Self {
        Self { server, scheme, protocol, tls, current: tokio::sync::Mutex::default() }
    }

    pub(super) fn transport(&self) -> Transport {
        match self.scheme {
            Scheme::Plain | Scheme::Tcp => Transport::Tcp,
            Scheme::Tls => Transport::Tls,
            Scheme::Https => Transport::Https,
            Scheme::Http => Transport::Http,
            Scheme::Quic => Transport::Quic,
        }
    }

    pub(super) async fn untrusted(&self) -> Option<String> {
        self.current.lock().await.untrusted.clone()
    }

    /// Sends a query under a new ID and waits for its reply. If the caller drops the future early, a silent
    /// connection counts as stalled.
    pub(super) async fn ask(&self, mut query: Vec<u8>) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let connection = self.open().await?;
        let (sender, reply) = oneshot::channel();
        let id = connection.pending().enter(sender);
        set_id(&mut query, id);
        let _patience = PendingQueryGuard { connection: &connection, id, since: Instant::now() };
        connection.queries.send(query.clone()).map_err(|_| io::ErrorKind::ConnectionReset)?;
        let reply = reply.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
        Ok((query, reply))
    }

    async fn open(&self) -> io::Result<Arc<LookupConnection>> {
        let mut current = self.current.lock().await;
        if let Some(untrusted) = &current.untrusted {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, untrusted.clone()));
        }
        if let Some(connection) = current.connection.as_ref().filter(|known| !known.pending().is_over) {
            return Ok(Arc::clone(connection));
        }
        let client =
            ServerClient::connect(self.server, &self.protocol, self.tls.as_ref()).await.inspect_err(|error| {
                if let ConnectError::Untrusted(problem) = error {
                    current.untrusted = Some(problem.clone());
                }
            })?;
        let connection = Arc::new(LookupConnection::over(client));
        current.connection = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

impl LookupConnection {
    fn over(mut client: ServerClient) -> Self {
        let (queries, mut queued) = mpsc::unbounded_channel::<Vec<u8>>();
        let pending = PendingQueries { by_id: HashMap::new(), heard_at: Instant::now(), is_over: false };
        let pending = Arc::new(Mutex::new(pending));
        let (mut tasks, shared) = (JoinSet::new(), Arc::clone(&pending));
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    query = queued.recv() => {
                        // All queued queries are sent by one write.
                        let more = std::iter::from_fn(|| queued.try_recv().ok());
                        if query.into_iter().chain(more).any(|query| client.queue(&query).is_err()) {
                            break;
                        }
                    }
                    heard = client.next() => {
                        let Ok(heard) = heard else { break };
                        lock(&shared).hear(heard, client.is_ending());
                    }
                }
            }
            let mut pending = lock(&shared);
            pending.is_over = true;
            pending.by_id.clear();
        });
        Self { queries, pending, _task: tasks }
    }

    fn pending(&self) -> MutexGuard<'_, PendingQueries> {
        lock(&self.pending)
    }
}

fn lock(pending: &Mutex<PendingQueries>) -> MutexGuard<'_, PendingQueries> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PendingQueries {
    /// Registers a pending query and returns its unique ID. One of the 65,536 is always free, because at most
    /// 65,535 names are in flight.
    fn enter(&mut self, sender: oneshot::Sender<Vec<u8>>) -> u16 {
        let mut id: u16 = rand::random();
        while self.by_id.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.by_id.insert(id, sender);
        id
    }

    fn hear(&mut self, heard: ServerHeard, is_last: bool) {
        self.heard_at = Instant::now();
        self.is_over |= is_last;
        match heard {
            ServerHeard::Message(message) => {
                let id = message.first_chunk().map(|octets| u16::from_be_bytes(*octets));
                if let Some(sender) = id.and_then(|id| self.by_id.remove(&id)) {
                    let _ = sender.send(message);
                }
            }
            // Dropping the sender wakes the pending query.
            ServerHeard::Failed(failed) => drop(self.by_id.remove(&failed.id)),
        }
    }
}

/// A guard of a pending query: if dropped without a reply, it removes the query and checks for a stall.
struct PendingQueryGuard<'a> {
    connection: &'a LookupConnection,
    id: u16,
    since: Instant,
}

impl Drop for PendingQueryGuard<'_> {
    fn drop(&mut self) {
        let mut pending = self.connection.pending();
        let has_given_up = pending.by_id.remove(&self.id).is_some();
        // Nothing arrived since this query was sent: the connection stalls.
        pending.is_over |= has_given_up && pending.heard_at < self.since;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::net::to_backends::client::tests::TcpPeer;

    const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";

    fn by_tcp(server: SocketAddr) -> LookupConnections {
        LookupConnections::new(server, Scheme::Tcp, StreamProtocol::Frames, None)
    }

    /// Returns the reply to a query: the query with QR set.
    fn reply_to(query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[tokio::test]
    async fn replies_find_who_waits_for_them_and_a_stall_costs_one_try() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let connections = Arc::new(by_tcp(listener.local_addr().expect("an address")));
        let ask = || {
            let connections = Arc::clone(&connections);
            tokio::spawn(async move { connections.ask(QUERY.to_vec()).await })
        };
        let asked: Vec<_> = (0..3).map(|_| ask()).collect();
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut first = TcpPeer::over(stream);
        let mut queries = Vec::new();
        for _ in 0..3 {
            queries.push(first.receive().await.expect("a query"));
        }
        for query in queries.iter().rev() {
            first.send(&reply_to(query)).await.expect("it is sent");
        }
        for asked in asked {
            let (query, reply) = asked.await.expect("no panic").expect("a reply");
            assert_eq!(reply_to(&query), reply);
        }
        // The same connection is now silent: after this timeout the next query uses another one.
        let silent = timeout(Duration::from_millis(50), connections.ask(QUERY.to_vec())).await;
        assert!(silent.is_err());
        let next = ask();
        let (stream, _) = listener.accept().await.expect("another connection");
        let mut second = TcpPeer::over(stream);
        let query = second.receive().await.expect("a query");
        second.send(&reply_to(&query)).await.expect("it is sent");
        assert_eq!(next.await.expect("no panic").expect("a reply").1, reply_to(&query));
        // The server closes the connection: the pending query fails, and the next one uses a third
        // connection.
        let lost = ask();
        second.receive().await.expect("a query");
        drop(second);
        assert!(lost.await.expect("no panic").is_err());
    }
}
