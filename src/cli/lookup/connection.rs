//! The connection over which all names are asked by stream: queries of many look-ups at once, replies in whatever order they come
//! (RFC 7766 section 6.2.1.1). One that has brought nothing since a query was sent that nobody replied to is left alone, and the next
//! query goes over another.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::address::Scheme;
use crate::net::backend_connection::StreamProtocol;
use crate::net::client::ConnectError;
use crate::net::server_client::{ServerClient, ServerHeard};
use crate::net::tls::ClientTls;
use crate::wire::{Transport, set_id};

/// The way to one server by stream.
#[derive(Debug)]
pub(super) struct Connections {
    server: SocketAddr,
    scheme: Scheme,
    protocol: StreamProtocol,
    /// What is needed to ask where all is encrypted.
    tls: Option<ClientTls>,
    /// Held while a connection is made, so that one is made and not a hundred.
    current: tokio::sync::Mutex<Current>,
}

/// What the next query goes over.
#[derive(Debug, Default)]
struct Current {
    connection: Option<Arc<Connection>>,
    /// Why nothing is asked of the server: it is not the one that is meant.
    untrusted: Option<String>,
}

/// One connection.
#[derive(Debug)]
struct Connection {
    /// Queries to be written.
    queries: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Mutex<Waiting>,
    /// It brings nothing any more.
    is_over: AtomicBool,
    /// What reads and writes, and ends with it.
    tasks: Mutex<JoinSet<()>>,
}

/// Who waits on a connection.
#[derive(Debug)]
struct Waiting {
    by_id: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    /// When the last reply came.
    heard_at: Instant,
}

impl Connections {
    /// To this server, by this transport; encrypted if what that needs is given.
    pub(super) fn new(server: SocketAddr, scheme: Scheme, protocol: StreamProtocol, tls: Option<ClientTls>) -> Self {
        Self { server, scheme, protocol, tls, current: tokio::sync::Mutex::default() }
    }

    /// How it is asked.
    pub(super) fn transport(&self) -> Transport {
        match self.scheme {
            Scheme::Plain | Scheme::Tcp => Transport::Tcp,
            Scheme::Tls => Transport::Tls,
            Scheme::Https => Transport::Https,
            Scheme::Http => Transport::Http,
            Scheme::Quic => Transport::Quic,
        }
    }

    /// Why nothing was asked of the server, if it was not the one that is meant.
    pub(super) async fn untrusted(&self) -> Option<String> {
        self.current.lock().await.untrusted.clone()
    }

    /// Asks a question, whose ID is drawn here. Who does not wait to the end makes the next one wonder about the connection.
    ///
    /// # Errors
    /// If there is no connection to be had, or it ends.
    pub(super) async fn ask(&self, mut query: Vec<u8>) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let connection = self.open().await?;
        let (sender, reply) = oneshot::channel();
        let id = connection.enter(sender);
        set_id(&mut query, id);
        let _patience = Patience { connection: &connection, id, since: Instant::now() };
        connection.queries.send(query.clone()).map_err(|_| io::ErrorKind::ConnectionReset)?;
        let reply = reply.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
        Ok((query, reply))
    }

    /// The connection for the next query.
    async fn open(&self) -> io::Result<Arc<Connection>> {
        let mut current = self.current.lock().await;
        if let Some(untrusted) = &current.untrusted {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, untrusted.clone()));
        }
        if let Some(connection) = current.connection.as_ref().filter(|known| !known.is_over.load(Relaxed)) {
            return Ok(Arc::clone(connection));
        }
        let client = match ServerClient::connect(self.server, &self.protocol, self.tls.as_ref()).await {
            Ok(client) => client,
            Err(error) => {
                if let ConnectError::Untrusted(problem) = &error {
                    current.untrusted = Some(problem.clone());
                }
                return Err(error.into());
            }
        };
        let connection = Connection::over(client);
        current.connection = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

impl Connection {
    /// By this client, which a task has from now on.
    fn over(mut client: ServerClient) -> Arc<Self> {
        let (queries, mut queued) = mpsc::unbounded_channel::<Vec<u8>>();
        let waiting = Mutex::new(Waiting { by_id: HashMap::new(), heard_at: Instant::now() });
        let connection = Arc::new(Self { queries, waiting, is_over: AtomicBool::new(false), tasks: Mutex::default() });
        let hearing = Arc::downgrade(&connection);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    query = queued.recv() => {
                        // All that has come by now leaves by one write.
                        let more = std::iter::from_fn(|| queued.try_recv().ok());
                        if query.into_iter().chain(more).any(|query| client.queue(&query).is_err()) {
                            break;
                        }
                    }
                    heard = client.next() => {
                        let (Ok(heard), Some(connection)) = (heard, hearing.upgrade()) else { break };
                        connection.hear(heard);
                        if client.is_ending() {
                            connection.is_over.store(true, Relaxed);
                        }
                    }
                }
            }
            if let Some(connection) = hearing.upgrade() {
                connection.end();
            }
        });
        *connection.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        connection
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place; returns its ID, which no other has. Of 65,536 there is always one: no more names are in flight than 65,535.
    fn enter(&self, sender: oneshot::Sender<Vec<u8>>) -> u16 {
        let mut waiting = self.waiting();
        let mut id: u16 = rand::random();
        while waiting.by_id.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        waiting.by_id.insert(id, sender);
        id
    }

    /// A message has come, or that none will.
    fn hear(&self, heard: ServerHeard) {
        let mut waiting = self.waiting();
        waiting.heard_at = Instant::now();
        match heard {
            ServerHeard::Message(message) => {
                let id = message.first_chunk().map(|octets| u16::from_be_bytes(*octets));
                if let Some(sender) = id.and_then(|id| waiting.by_id.remove(&id)) {
                    let _ = sender.send(message);
                }
            }
            // Who waits hears that nobody sends any more.
            ServerHeard::Failed(failed) => drop(waiting.by_id.remove(&failed.id)),
        }
    }

    /// It brings nothing any more: who waits hears so.
    fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.waiting().by_id.clear();
    }
}

/// Somebody who waits for a reply, until he has it or gives up.
struct Patience<'a> {
    connection: &'a Connection,
    id: u16,
    since: Instant,
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        let mut waiting = self.connection.waiting();
        let has_given_up = waiting.by_id.remove(&self.id).is_some();
        if has_given_up && waiting.heard_at < self.since {
            // Nothing came since this query was sent: it stalls.
            self.connection.is_over.store(true, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::net::client::TcpClient;

    const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";

    fn by_tcp(server: SocketAddr) -> Connections {
        Connections::new(server, Scheme::Tcp, StreamProtocol::Frames, None)
    }

    /// The reply to a query: the same with QR.
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
        let mut first = TcpClient::over(stream);
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
        // The same connection says nothing more: who gives up sends the next one elsewhere.
        let silent = timeout(Duration::from_millis(50), connections.ask(QUERY.to_vec())).await;
        assert!(silent.is_err());
        let next = ask();
        let (stream, _) = listener.accept().await.expect("another connection");
        let mut second = TcpClient::over(stream);
        let query = second.receive().await.expect("a query");
        second.send(&reply_to(&query)).await.expect("it is sent");
        assert_eq!(next.await.expect("no panic").expect("a reply").1, reply_to(&query));
        // Closed: who waits hears so, and a third is made.
        let lost = ask();
        second.receive().await.expect("a query");
        drop(second);
        assert!(lost.await.expect("no panic").is_err());
    }
}
