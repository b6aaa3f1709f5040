//! The connection over which all names are asked by stream: queries of many look-ups at once, replies in whatever order they come
//! (RFC 7766 section 6.2.1.1). One that has brought nothing since a query was sent that nobody replied to is left alone, and the next
//! query goes over another.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::net::client::ConnectError;
use crate::net::tls::ClientTls;
use crate::wire::{append_frame, set_id};

/// The way to one server by stream.
#[derive(Debug)]
pub(super) struct Connections {
    server: SocketAddr,
    /// What is needed to ask by TLS, if that is to be.
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
    /// Frames to be written.
    frames: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Mutex<Waiting>,
    /// It brings nothing any more.
    is_over: AtomicBool,
    /// Its tasks, which end with it.
    tasks: Mutex<Vec<AbortHandle>>,
}

/// Who waits on a connection.
#[derive(Debug)]
struct Waiting {
    by_id: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    /// When the last reply came.
    heard_at: Instant,
}

impl Connections {
    /// To this server, by TLS if what that needs is given.
    pub(super) fn new(server: SocketAddr, tls: Option<ClientTls>) -> Self {
        Self { server, tls, current: tokio::sync::Mutex::default() }
    }

    /// Whether nobody on the way can read along.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
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
        let mut frame = Vec::new();
        append_frame(&query, &mut frame).ok_or(io::ErrorKind::InvalidInput)?;
        let _patience = Patience { connection: &connection, id, since: Instant::now() };
        connection.frames.send(frame).map_err(|_| io::ErrorKind::ConnectionReset)?;
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
        let stream = TcpStream::connect(self.server).await?;
        let _ = stream.set_nodelay(true);
        let connection = match &self.tls {
            None => Connection::over(stream),
            Some(tls) => match tls.connect(stream).await {
                Ok(stream) => Connection::over(stream),
                Err(error) => {
                    if let ConnectError::Untrusted(problem) = &error {
                        current.untrusted = Some(problem.clone());
                    }
                    return Err(error.into());
                }
            },
        };
        current.connection = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

impl Connection {
    /// Over a stream, with a task that reads and one that writes.
    fn over<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> Arc<Self> {
        let (mut reader, mut writer) = split(stream);
        let (frames, mut queued) = mpsc::unbounded_channel::<Vec<u8>>();
        let waiting = Mutex::new(Waiting { by_id: HashMap::new(), heard_at: Instant::now() });
        let connection = Arc::new(Self { frames, waiting, is_over: AtomicBool::new(false), tasks: Mutex::default() });
        let (hearing, ending) = (Arc::downgrade(&connection), Arc::downgrade(&connection));
        let read = tokio::spawn(async move {
            while let Ok(length) = reader.read_u16().await {
                let mut message = vec![0; usize::from(length)];
                if reader.read_exact(&mut message).await.is_err() {
                    break;
                }
                let Some(connection) = hearing.upgrade() else { return };
                connection.hear(message);
            }
            if let Some(connection) = hearing.upgrade() {
                connection.end();
            }
        });
        let write = tokio::spawn(async move {
            while let Some(mut octets) = queued.recv().await {
                // All that has come by now leaves by one write.
                while let Ok(more) = queued.try_recv() {
                    octets.extend(more);
                }
                if writer.write_all(&octets).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
            if let Some(connection) = ending.upgrade() {
                connection.end();
            }
        });
        let tasks = vec![read.abort_handle(), write.abort_handle()];
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

    /// A message has come.
    fn hear(&self, message: Vec<u8>) {
        let mut waiting = self.waiting();
        waiting.heard_at = Instant::now();
        let id = message.first_chunk().map(|octets| u16::from_be_bytes(*octets));
        if let Some(sender) = id.and_then(|id| waiting.by_id.remove(&id)) {
            let _ = sender.send(message);
        }
    }

    /// It brings nothing any more: who waits hears so.
    fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.waiting().by_id.clear();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(AbortHandle::abort);
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

    #[tokio::test]
    async fn replies_find_who_waits_for_them_and_a_stall_costs_one_try() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let connections = Arc::new(Connections::new(listener.local_addr().expect("an address"), None));
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
            first.send(query).await.expect("it is sent");
        }
        for asked in asked {
            let (query, reply) = asked.await.expect("no panic").expect("a reply");
            assert_eq!(query, reply);
        }
        // The same connection says nothing more: who gives up sends the next one elsewhere.
        let silent = timeout(Duration::from_millis(50), connections.ask(QUERY.to_vec())).await;
        assert!(silent.is_err());
        let next = ask();
        let (stream, _) = listener.accept().await.expect("another connection");
        let mut second = TcpClient::over(stream);
        let query = second.receive().await.expect("a query");
        second.send(&query).await.expect("it is sent");
        assert_eq!(next.await.expect("no panic").expect("a reply").1, query);
        // Closed: who waits hears so, and a third is made.
        let lost = ask();
        second.receive().await.expect("a query");
        drop(second);
        assert!(lost.await.expect("no panic").is_err());
    }
}
