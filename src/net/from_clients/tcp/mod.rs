//! The server side of DNS over TCP (RFC 7766): listeners, connections, framing. It passes each message to a
//! handler and writes the responses in any order. Encrypted connections (RFC 7858) differ only by a handshake
//! ([`tls`](super::tls), `stream.rs`); HTTP has requests instead of frames ([`http`](super::http)), chosen by
//! ALPN or the listener.
//!
//! A connection is one task of the worker that accepted it (`connection.rs`). All connections of a section
//! share [`ConnectionTable`] (`table.rs`): the count per client, making room, and the number of unsent bytes.
//! A [`Responder`] is the reply channel to one connection, usable from any thread (`responder.rs`). `limit/`
//! has the policies.

pub(in crate::net::from_clients) mod connection;
pub(in crate::net::from_clients) mod moved;
pub(in crate::net::from_clients) mod proxied;
pub(in crate::net::from_clients) mod responder;
pub(in crate::net::from_clients) mod served;
pub(in crate::net::from_clients) mod stream;
pub(in crate::net::from_clients) mod table;

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
pub(in crate::net::from_clients) use self::responder::{ResponseOutput, ToListener, WayBack};
pub use self::served::ServedAddresses;
use self::stream::ClientStream;
pub use self::table::ConnectionTable;
pub(in crate::net::from_clients) use self::table::{ConnectionSlot, Wake};
use super::http::{HttpClient, HttpConnection, HttpVersion};
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
    TcpService { address, counters, spoken, tls, proxies }: TcpService,
    table: Arc<ConnectionTable>,
    served: watch::Receiver<ServedAddresses>,
    admits: impl Fn(IpAddr) -> bool,
    handle: impl Fn(&[u8], &Responder) + 'static,
) {
    let handle = Rc::new(handle);
    let mut connections = JoinSet::new();
    let accept = |(stream, peer): (TcpStream, SocketAddr), input: Option<Vec<u8>>, connections: &mut JoinSet<()>| {
        if !admits(peer.ip()) {
            return;
        }
        // Only plain DNS connections move between processes.
        let protocols = spoken.get();
        let (transport, is_certain) =
            if input.is_some() { (Transport::Tcp, true) } else { protocols.transport(tls.is_some()) };
        let now = Instant::now();
        let may_shake = !transport.is_encrypted() || table.admits_handshake(peer.ip(), now);
        let Some(place) = may_shake.then(|| table.enter(peer.ip(), now)).flatten() else {
            counters.connections.fate(transport, ConnectionFate::Refused);
            counters.dropped(DropReason::Overload);
            return;
        };
        if input.is_none() && is_certain {
            counters.connections.fate(transport, ConnectionFate::Accepted);
        }
        let (handle, served, counters, tls) = (Rc::clone(&handle), served.clone(), Arc::clone(&counters), tls.clone());
        // A connection from another process may belong to another address of the section, or to one that only
        // the other process had.
        let is_elsewhere = address.socket.ip().is_unspecified() || input.is_some();
        let local = if is_elsewhere { stream.local_addr().ok() } else { None };
        let local = local.map(|socket| ListenAddress { socket, ..address });
        let local = local.filter(|&local| served.borrow().covers(local)).unwrap_or(address);
        // The socket does not carry the client's address, so another process could not know it.
        let is_proxied = proxies.are_any() && stream.peer_addr().is_ok_and(|proxy| proxy != peer);
        connections.spawn_local(async move {
            let mut open = OpenConnectionCount::new(&counters, transport);
            let begun = match (input, tls) {
                (Some(input), _) => Begun::Dns(DnsConnection::adopted(ClientStream::Plain(stream), place, input)),
                (None, None) => match &protocols.http {
                    None => Begun::Dns(DnsConnection::new(ClientStream::Plain(stream), place, now)),
                    Some(path) => Begun::Http(HttpClient {
                        stream: ClientStream::Plain(stream),
                        version: HttpVersion::Unknown,
                        path: path.clone(),
                        place,
                        peer,
                        accepted: now,
                    }),
                },
                (None, Some(tls)) => {
                    let shaken = begin_tls(stream, &place, &tls, local, served.clone(), (&counters, transport)).await;
                    let by_http = shaken.as_ref().and_then(|shaken| by_http(shaken, &protocols));
                    let spoken = if by_http.is_some() { Transport::Https } else { transport };
                    if !is_certain {
                        counters.connections.fate(spoken, ConnectionFate::Accepted);
                        open = open.by(spoken);
                    }
                    let Some(shaken) = shaken else { return };
                    counters.connections.shaken(spoken, shaken.kind());
                    let stream = ClientStream::shaken(shaken);
                    match by_http {
                        None => Begun::Dns(DnsConnection::new(stream, place, now)),
                        Some((version, path)) => {
                            Begun::Http(HttpClient { stream, version, place, path, peer, accepted: now })
                        }
                    }
                }
            };
            let transport = open.transport;
            let ended = match begun {
                Begun::Dns(connection) => {
                    let connection = if is_proxied { connection.staying() } else { connection };
                    connection.run(peer, local, served, &*handle).await
                }
                Begun::Http(client) => {
                    HttpConnection::new(client, Arc::clone(&counters), handle).run(local, served).await
                }
            };
            if ended.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
                counters.connections.fate(transport, ConnectionFate::TimedOut);
            }
        });
    };
    let adopt = |MovedConnection { input, socket, .. }: MovedConnection, connections: &mut JoinSet<()>| {
        let stream = watched(socket.into()).and_then(|stream| Ok((stream.peer_addr()?, stream)));
        if let Ok((peer, stream)) = stream {
            accept((stream, peer), Some(input), connections);
        }
    };
    let mut headers = Headers::new(Arc::clone(&proxies), table.first_query());
    let mut left = served.clone();
    let mut logged_at: Option<Instant> = None;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => {
                    match headers.take(accepted) {
                        HeaderOutcome::Client(accepted) => accept(accepted, None, &mut connections),
                        HeaderOutcome::Awaited => {}
                        HeaderOutcome::Refused => counters.dropped(DropReason::Overload),
                    }
                    // Accept once between two polls, so that datagrams do not wait for many new connections.
                    yield_now().await;
                }
                // The connection stays in the kernel's queue, so an immediate retry would spin. Open
                // connections are served meanwhile.
                Err(error) if is_exhausted(&error) => {
                    if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= SILENCE) {
                        logged_at = Some(Instant::now());
                        tracing::warn!(listener = table.name(), %error, "cannot accept connections, trying again");
                    }
                    let _ = timeout(BREATH, served.clone().wait_for(|served| !served.has(address))).await;
                }
                Err(_) => {}
            },
            header = headers.next() => match header {
                Some(passed_on) => accept(passed_on, None, &mut connections),
                None => counters.dropped(DropReason::Proxy),
            },
            moved = table.adopted() => adopt(moved, &mut connections),
            Some(ended) = connections.join_next(), if !connections.is_empty() => pass_on(ended),
            _ = left.wait_for(|served| !served.has(address)) => break,
        }
    }
    // The runtime must stop watching the socket, even if other processes hold it.
    let listener = listener.into_std();
    let is_passed_on = served.borrow().is_passed_on(address);
    if let Ok(listener) = listener
        && !is_passed_on
    {
        // Clients in the kernel's queue connected before the end, so accept them. Ask the kernel directly,
        // because the runtime may not know about them yet.
        while let Ok(accepted) = listener.accept().and_then(|(stream, peer)| Ok((watched(stream)?, peer))) {
            if let HeaderOutcome::Client(accepted) = headers.take(accepted) {
                accept(accepted, None, &mut connections);
            }
        }
        // A close would leave the socket listening in other processes that hold it. The shutdown ends
        // listening at once, and the accepted clients are served to the end.
        let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
    }
    // PROXY headers that have arrived, or arrive within a moment.
    let end = Instant::now() + BREATH;
    while let Ok(Some(passed_on)) = timeout_at(end.into(), headers.next()).await {
        accept(passed_on, None, &mut connections);
    }
    while let Some(ended) = connections.join_next().await {
        pass_on(ended);
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

enum Begun {
    Dns(DnsConnection),
    Http(HttpClient),
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

    fn by(self, transport: Transport) -> Self {
        Self::new(self.counters, transport)
    }
}

impl Drop for OpenConnectionCount<'_> {
    fn drop(&mut self) {
        self.counters.connections.closed(self.transport);
    }
}

/// Performs a TLS handshake within the `first_query` time limit; `None` if it fails. A connection that has to
/// make room ends at once.
async fn begin_tls(
    stream: TcpStream,
    place: &ConnectionSlot,
    (tls, gate): &(Arc<TlsListener>, Rc<Gate>),
    local: ListenAddress,
    mut served: watch::Receiver<ServedAddresses>,
    (counters, transport): (&Counters, Transport),
) -> Option<Shaken> {
    // The client waits for each handshake message, so Nagle's algorithm would only delay it.
    let _ = stream.set_nodelay(true);
    let seat = Arc::clone(&place.seat);
    let end = async {
        let _ = served.wait_for(|served| !served.covers(local)).await;
        sleep_until((Instant::now() + BREATH).into()).await;
    };
    let shaken = tokio::select! {
        shaken = timeout(place.rules.first_query, shake_hands(stream, tls, gate)) => shaken,
        () = seat.closed() => return None,
        () = end => return None,
    };
    match shaken {
        Ok(Ok(shaken)) => Some(shaken),
        Ok(Err(error)) => {
            tracing::trace!(%error, "a handshake failed");
            counters.connections.fate(transport, ConnectionFate::HandshakeFailed);
            None
        }
        Err(_) => {
            counters.connections.fate(transport, ConnectionFate::TimedOut);
            None
        }
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
