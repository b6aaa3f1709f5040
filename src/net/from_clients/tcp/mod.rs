//! The server side of DNS over TCP (RFC 7766): listeners, connections, framing. It passes each message to a
//! handler and writes the responses in any order. Encrypted connections (RFC 7858) differ only by a handshake
//! ([`tls`](super::tls), `stream.rs`); HTTP has requests instead of frames ([`http`](super::http)), chosen by
//! ALPN or the listener.
//!
//! A connection is one task of the worker that accepted it (`connection.rs`). All connections of a section
//! share [`ConnectionTable`] (`table.rs`): the count per client, making room, and the number of unsent bytes.
//! A [`Responder`] is the reply channel to one connection, usable from any thread (`responder.rs`). `limit/`
//! has the policies.

pub(crate) mod connection;
pub(crate) mod moved;
pub(crate) mod proxied;
pub(crate) mod responder;
pub(crate) mod served;
pub(crate) mod stream;
pub(crate) mod table;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep_until, timeout, timeout_at};

use self::connection::DnsConnection;
pub use self::moved::MovedConnection;
use self::proxied::{HeaderOutcome, Headers};
pub use self::responder::{Cacheability, Responder};
pub(crate) use self::responder::{ResponseOutput, ToListener, WayBack};
pub use self::served::ServedAddresses;
use self::stream::ClientStream;
pub use self::table::ConnectionTable;
pub(crate) use self::table::{ConnectionSlot, Wake};
use super::account::ConnectionAccount;
use super::http::{HttpConnection, HttpVersion};
pub use super::tls::handshake::Gate;
use super::tls::handshake::{Shaken, shake_hands};
use super::tls::protocols::{H2, HTTP_1};
pub use super::tls::protocols::{Protocols, Spoken};
use crate::address::{HttpPath, ListenAddress};
use crate::metrics::{ConnectionFate, Counters, DropReason};
use crate::net::from_clients::tls::TlsListener;
use crate::net::proxy_protocol::Proxies;
use crate::net::tasks::pass_on;
use crate::wire::Transport;

/// Accepts connections while the address of the listener is served, then lets them finish. Connections to an
/// address that is no longer covered finish at once.
///
/// A client that `admits` rejects is closed at once. `handle` gets each message and calls its [`Responder`]
/// once.
pub async fn serve(
    listener: TcpListener,
    service: TcpService,
    table: Arc<ConnectionTable>,
    served: watch::Receiver<ServedAddresses>,
    admits: impl Fn(IpAddr) -> bool,
    handle: impl Fn(&[u8], &Responder) + 'static,
) {
    let headers = Headers::new(Arc::clone(&service.proxies), table.first_query());
    let (handle, connections) = (Rc::new(handle), JoinSet::new());
    let mut acceptor = TcpAcceptor { service, table, served, admits, handle, headers, connections };
    acceptor.accept_all(&listener).await;
    acceptor.finish(listener).await;
}

struct TcpAcceptor<A, H> {
    service: TcpService,
    table: Arc<ConnectionTable>,
    served: watch::Receiver<ServedAddresses>,
    admits: A,
    handle: Rc<H>,
    headers: Headers,
    connections: JoinSet<()>,
}

impl<A: Fn(IpAddr) -> bool, H: Fn(&[u8], &Responder) + 'static> TcpAcceptor<A, H> {
    /// Accepts connections until the address is no longer served.
    async fn accept_all(&mut self, listener: &TcpListener) {
        let address = self.service.address;
        let mut left = self.served.clone();
        let mut logged_at: Option<Instant> = None;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => {
                        if !self.take(accepted) {
                            self.service.counters.dropped(DropReason::Overload);
                        }
                        // Accept once between two polls, so that datagrams do not wait for many new
                        // connections.
                        yield_now().await;
                    }
                    // The connection stays in the kernel's queue, so an immediate retry would spin. Open
                    // connections are served meanwhile.
                    Err(error) if is_exhausted(&error) => {
                        if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= SILENCE) {
                            logged_at = Some(Instant::now());
                            tracing::warn!(listener = self.table.name(), %error, "cannot accept connections, trying again");
                        }
                        let _ = timeout(BREATH, self.served.clone().wait_for(|served| !served.has(address))).await;
                    }
                    Err(_) => {}
                },
                header = self.headers.next() => match header {
                    Some((stream, peer)) => self.accept(stream, peer, None),
                    None => self.service.counters.dropped(DropReason::Proxy),
                },
                MovedConnection { input, socket, .. } = self.table.adopted() => {
                    let stream = watched(socket.into()).and_then(|stream| Ok((stream.peer_addr()?, stream)));
                    if let Ok((peer, stream)) = stream {
                        self.accept(stream, peer, Some(input));
                    }
                }
                Some(ended) = self.connections.join_next(), if !self.connections.is_empty() => pass_on(ended),
                _ = left.wait_for(|served| !served.has(address)) => return,
            }
        }
    }

    /// Serves the accepted connections to their end.
    async fn finish(mut self, listener: TcpListener) {
        // The runtime must stop watching the socket, even if other processes hold it.
        let listener = listener.into_std();
        let is_passed_on = self.served.borrow().is_passed_on(self.service.address);
        if let Ok(listener) = listener
            && !is_passed_on
        {
            // Clients in the kernel's queue connected before the end, so accept them. Ask the kernel
            // directly, because the runtime may not know about them yet.
            while let Ok(accepted) = listener.accept().and_then(|(stream, peer)| Ok((watched(stream)?, peer))) {
                self.take(accepted);
            }
            // A close would leave the socket listening in other processes that hold it. The shutdown ends
            // listening at once, and the accepted clients are served to the end.
            let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
        }
        // PROXY headers that have arrived, or arrive within a moment.
        let end = Instant::now() + BREATH;
        while let Ok(Some((stream, peer))) = timeout_at(end.into(), self.headers.next()).await {
            self.accept(stream, peer, None);
        }
        while let Some(ended) = self.connections.join_next().await {
            pass_on(ended);
        }
    }

    /// Accepts a connection now or after its PROXY header. Returns false if too many headers are pending.
    fn take(&mut self, accepted: (TcpStream, SocketAddr)) -> bool {
        match self.headers.take(accepted) {
            HeaderOutcome::Client((stream, peer)) => self.accept(stream, peer, None),
            HeaderOutcome::Awaited => {}
            HeaderOutcome::Refused => return false,
        }
        true
    }

    /// Serves a connection if the limits allow it. One from another process has `input`.
    fn accept(&mut self, stream: TcpStream, peer: SocketAddr, input: Option<Vec<u8>>) {
        if !(self.admits)(peer.ip()) {
            return;
        }
        let TcpService { address, counters, spoken, tls, proxies } = &self.service;
        let protocols = spoken.get();
        // Only plain DNS connections move between processes.
        let (transport, is_certain) =
            if input.is_some() { (Transport::Tcp, true) } else { protocols.transport(tls.is_some()) };
        let accepted = Instant::now();
        let may_shake = !transport.is_encrypted() || self.table.admits_handshake(peer.ip(), accepted);
        let Some(slot) = may_shake.then(|| self.table.enter(peer.ip(), accepted)).flatten() else {
            counters.connections.fate(transport, ConnectionFate::Refused);
            counters.dropped(DropReason::Overload);
            return;
        };
        if input.is_none() && is_certain {
            counters.connections.fate(transport, ConnectionFate::Accepted);
        }
        // A connection from another process may belong to another address of the section, or to one that only
        // the other process had.
        let is_elsewhere = address.socket.ip().is_unspecified() || input.is_some();
        let local = if is_elsewhere { stream.local_addr().ok() } else { None };
        let local = local.map(|socket| ListenAddress { socket, ..*address });
        let local = local.filter(|&local| self.served.borrow().covers(local)).unwrap_or(*address);
        let mut account = ConnectionAccount::new(slot, accepted);
        if input.is_some() {
            // The client may be between two queries, so the time limit for the first query does not apply.
            account.skip_first_query(accepted);
        }
        let connection = AcceptedConnection {
            peer,
            local,
            account,
            // The socket does not carry the client's address, so another process could not know it.
            is_proxied: proxies.are_any() && stream.peer_addr().is_ok_and(|proxy| proxy != peer),
            protocols,
            transport,
            is_certain,
            counters: Arc::clone(counters),
            served: self.served.clone(),
            handle: Rc::clone(&self.handle),
        };
        let tls = tls.clone().filter(|_| input.is_none());
        self.connections.spawn_local(connection.serve(stream, tls, input));
    }
}

struct AcceptedConnection<H> {
    peer: SocketAddr,
    local: ListenAddress,
    account: ConnectionAccount,
    is_proxied: bool,
    protocols: Arc<Protocols>,
    transport: Transport,
    /// False if the handshake decides on the transport.
    is_certain: bool,
    counters: Arc<Counters>,
    served: watch::Receiver<ServedAddresses>,
    handle: Rc<H>,
}

impl<H: Fn(&[u8], &Responder) + 'static> AcceptedConnection<H> {
    async fn serve(self, stream: TcpStream, tls: Option<(Arc<TlsListener>, Rc<Gate>)>, input: Option<Vec<u8>>) {
        let counters = Arc::clone(&self.counters);
        let mut open = OpenConnectionCount::new(&counters, self.transport);
        let (stream, http) = match &tls {
            None => {
                let path = self.protocols.http.clone().filter(|_| input.is_none());
                (ClientStream::Plain(stream), path.map(|path| (HttpVersion::Unknown, path)))
            }
            Some((tls, gate)) => {
                // The client waits for each handshake message, so Nagle's algorithm would only delay it.
                let _ = stream.set_nodelay(true);
                let shaken = self.begin_tls(shake_hands(stream, tls, gate)).await;
                let http = shaken.as_ref().and_then(|shaken| by_http(shaken, &self.protocols));
                let spoken = if http.is_some() { Transport::Https } else { self.transport };
                if !self.is_certain {
                    counters.connections.fate(spoken, ConnectionFate::Accepted);
                    open = OpenConnectionCount::new(&counters, spoken);
                }
                let Some(shaken) = shaken else { return };
                counters.connections.shaken(spoken, shaken.kind());
                (ClientStream::shaken(shaken), http)
            }
        };
        let Self { peer, local, account, is_proxied, served, handle, .. } = self;
        let ended = match http {
            None => {
                let connection = DnsConnection::new(stream, account, input.unwrap_or_default(), is_proxied);
                connection.run(peer, local, served, &*handle).await
            }
            Some(http) => {
                let connection = HttpConnection::new(stream, http, account, peer, self.counters, handle);
                connection.run(local, served).await
            }
        };
        if ended.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
            counters.connections.fate(open.transport, ConnectionFate::TimedOut);
        }
    }

    /// Performs a TLS handshake within the `first_query` time limit; `None` if it fails. A connection that
    /// has to make room ends at once.
    async fn begin_tls(&self, handshake: impl Future<Output = io::Result<Shaken>>) -> Option<Shaken> {
        let (seat, mut served, local) = (Arc::clone(&self.account.slot.seat), self.served.clone(), self.local);
        let end = async {
            let _ = served.wait_for(|served| !served.covers(local)).await;
            sleep_until((Instant::now() + BREATH).into()).await;
        };
        let fate = tokio::select! {
            shaken = timeout(self.account.rules().first_query, handshake) => match shaken {
                Ok(Ok(shaken)) => return Some(shaken),
                Ok(Err(error)) => {
                    tracing::trace!(%error, "a handshake failed");
                    ConnectionFate::HandshakeFailed
                }
                Err(_) => ConnectionFate::TimedOut,
            },
            () = seat.closed() => return None,
            () = end => return None,
        };
        self.counters.connections.fate(self.transport, fate);
        None
    }
}

/// The protocols of a listener and its shared state.
#[derive(Debug)]
pub struct TcpService {
    /// The address of the listener, as bound.
    pub address: ListenAddress,
    /// The counters of the worker.
    pub counters: Arc<Counters>,
    /// The protocols of the address.
    pub spoken: Arc<Spoken>,
    /// The TLS configuration and the handshake gate, if the listener is encrypted.
    pub tls: Option<(Arc<TlsListener>, Rc<Gate>)>,
    /// The proxies that may pass connections to the listener.
    pub proxies: Arc<Proxies>,
}

/// Returns the HTTP version and path of a connection, or `None` for DNS frames, which come first without
/// ALPN.
fn by_http(shaken: &Shaken, protocols: &Protocols) -> Option<(HttpVersion, HttpPath)> {
    let path = protocols.http.clone()?;
    match shaken.session.alpn_protocol() {
        Some(H2) => Some((HttpVersion::Http2, path)),
        Some(HTTP_1) => Some((HttpVersion::Http1, path)),
        Some(_) => None,
        None => (!protocols.is_dns).then_some((HttpVersion::Http1, path)),
    }
}

struct OpenConnectionCount<'c> {
    counters: &'c Counters,
    transport: Transport,
}

impl<'c> OpenConnectionCount<'c> {
    fn new(counters: &'c Counters, transport: Transport) -> Self {
        counters.connections.opened(transport);
        Self { counters, transport }
    }
}

impl Drop for OpenConnectionCount<'_> {
    fn drop(&mut self) {
        self.counters.connections.closed(self.transport);
    }
}

fn watched(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// The pause of accepting after the process ran out of descriptors, and the time left for handshakes once the
/// address is no longer served.
const BREATH: Duration = Duration::from_millis(100);

const SILENCE: Duration = Duration::from_secs(1);
