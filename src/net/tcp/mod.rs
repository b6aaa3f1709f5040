//! DNS over TCP, the server's side (RFC 7766): listeners, connections, framing. Hands each message to a handler and writes
//! what comes back, in whatever order it comes. Knows nothing of names.
//!
//! What is encrypted is the same behind a handshake (`handshake.rs`, `stream.rs`): DNS over TLS (RFC 7858). What comes by HTTP has no frames
//! but requests (`http/`); whether it does, the handshake says, or the listener (`protocols.rs`).
//!
//! A connection is one task of the worker that accepted it (`connection.rs`). What connections of all workers have in common
//! stands in [`Connections`] (`table.rs`): how many there are and of whom, which one makes room for another, and how many
//! octets wait for clients to read. A [`Responder`] leads back to one connection from whichever thread has its response
//! (`responder.rs`). What is decided about them is decided in `limit/`.

mod connection;
mod handshake;
pub mod http;
mod moved;
mod protocols;
mod proxied;
mod responder;
mod served;
mod stream;
mod table;

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

use self::connection::Connection;
pub use self::handshake::Gate;
use self::handshake::{Shaken, shake_hands};
use self::http::{HttpClient, HttpConnection, Version};
pub use self::moved::MovedConnection;
use self::protocols::{H2, HTTP_1};
pub use self::protocols::{Protocols, Spoken};
use self::proxied::{Headers, Taken};
pub use self::responder::{Content, Responder};
pub(super) use self::responder::{Response, ToListener, WayBack};
pub use self::served::Served;
use self::stream::Stream;
pub use self::table::Connections;
pub(super) use self::table::{ConnectionSlot, Wake};
use super::proxy_protocol::Proxies;
use super::tasks::pass_on;
use super::tls_server::TlsListener;
use crate::address::{HttpPath, ListenAddress};
use crate::metrics::{ConnectionFate, Counters, Dropped};
use crate::wire::Transport;

/// Accepts connections as long as the address of the listener is among those that are served, then lets them finish: at once those
/// to whose address nobody connects any more.
///
/// Whom `admits` does not take, its connection is closed at once. `handle` gets each message and owes its [`Responder`] one
/// call.
pub async fn serve(
    listener: TcpListener,
    Service { address, counters, spoken, tls, proxies }: Service,
    table: Arc<Connections>,
    served: watch::Receiver<Served>,
    admits: impl Fn(IpAddr) -> bool,
    handle: impl Fn(&[u8], &Responder) + 'static,
) {
    let handle = Rc::new(handle);
    let mut connections = JoinSet::new();
    let accept = |(stream, peer): (TcpStream, SocketAddr), input: Option<Vec<u8>>, connections: &mut JoinSet<()>| {
        if !admits(peer.ip()) {
            return;
        }
        // Only what is not encrypted ever moves, and no HTTP.
        let protocols = spoken.get();
        let (transport, is_certain) =
            if input.is_some() { (Transport::Tcp, true) } else { protocols.transport(tls.is_some()) };
        let now = Instant::now();
        let may_shake = !transport.is_encrypted() || table.admits_handshake(peer.ip(), now);
        let Some(place) = may_shake.then(|| table.enter(peer.ip(), now)).flatten() else {
            counters.connections.fate(transport, ConnectionFate::Refused);
            counters.dropped(Dropped::Overload);
            return;
        };
        if input.is_none() && is_certain {
            counters.connections.fate(transport, ConnectionFate::Accepted);
        }
        let (handle, served, counters, tls) = (Rc::clone(&handle), served.clone(), Arc::clone(&counters), tls.clone());
        // Who was connected to another process may have another address of the section, or one that only that process had.
        let is_elsewhere = address.socket.ip().is_unspecified() || input.is_some();
        let local = if is_elsewhere { stream.local_addr().ok() } else { None };
        let local = local.map(|socket| ListenAddress { socket, ..address });
        let local = local.filter(|&local| served.borrow().covers(local)).unwrap_or(address);
        // The address of the client is in no socket: another process would not know it.
        let is_proxied = proxies.are_any() && stream.peer_addr().is_ok_and(|proxy| proxy != peer);
        connections.spawn_local(async move {
            let mut open = Open::new(&counters, transport);
            let begun = match (input, tls) {
                (Some(input), _) => Begun::Dns(Connection::adopted(Stream::Plain(stream), place, input)),
                (None, None) => match &protocols.http {
                    None => Begun::Dns(Connection::new(Stream::Plain(stream), place, now)),
                    Some(path) => Begun::Http(HttpClient {
                        stream: Stream::Plain(stream),
                        version: Version::Unknown,
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
                    let stream = Stream::shaken(shaken);
                    match by_http {
                        None => Begun::Dns(Connection::new(stream, place, now)),
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
            // An error of a connection is its end; there is nobody to tell.
            if ended.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
                counters.connections.fate(transport, ConnectionFate::TimedOut);
            }
        });
    };
    let adopt = |MovedConnection { input, socket, .. }: MovedConnection, connections: &mut JoinSet<()>| {
        let stream = watched(socket.into()).and_then(|stream| Ok((stream.peer_addr()?, stream)));
        // One whose client has gone on the way is no loss.
        if let Ok((peer, stream)) = stream {
            accept((stream, peer), Some(input), connections);
        }
    };
    let mut headers = Headers::new(Arc::clone(&proxies), table.first_query());
    let mut left = served.clone();
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => {
                    match headers.take(accepted) {
                        Taken::Client(accepted) => accept(accepted, None, &mut connections),
                        Taken::Awaited => {}
                        Taken::Refused => counters.dropped(Dropped::Overload),
                    }
                    // One between two looks at all sockets: however many connect at once, datagrams do not wait for all of them.
                    yield_now().await;
                }
                // The connection is still there to be accepted, so asking again at once would spin: who is connected is served
                // on, who connects waits in the kernel's queue until there is a descriptor again.
                Err(error) if is_exhausted(&error) => {
                    if told.is_none_or(|told| told.elapsed() >= SILENCE) {
                        told = Some(Instant::now());
                        tracing::warn!(listener = table.name(), %error, "cannot accept connections, trying again");
                    }
                    let _ = timeout(BREATH, served.clone().wait_for(|served| !served.has(address))).await;
                }
                Err(_) => {}
            },
            header = headers.next() => match header {
                Some(passed_on) => accept(passed_on, None, &mut connections),
                None => counters.dropped(Dropped::Proxy),
            },
            moved = table.adopted() => adopt(moved, &mut connections),
            Some(ended) = connections.join_next(), if !connections.is_empty() => pass_on(ended),
            _ = left.wait_for(|served| !served.has(address)) => break,
        }
    }
    // The runtime watches it no more, whoever else holds it.
    let listener = listener.into_std();
    let is_passed_on = served.borrow().is_passed_on(address);
    if let Ok(listener) = listener
        && !is_passed_on
    {
        // Whoever is in the kernel's queue has connected before the end: take them along. The kernel is asked itself, for the
        // runtime may not have heard of them yet.
        while let Ok(accepted) = listener.accept().and_then(|(stream, peer)| Ok((watched(stream)?, peer))) {
            if let Taken::Client(accepted) = headers.take(accepted) {
                accept(accepted, None, &mut connections);
            }
        }
        // Closed it would go on for the others that hold it: so it listens no more, and who connects now hears so at once, while
        // those who have connected are served to the end.
        let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
    }
    // Headers that have come by now, or come at once.
    let end = Instant::now() + BREATH;
    while let Ok(Some(passed_on)) = timeout_at(end.into(), headers.next()).await {
        accept(passed_on, None, &mut connections);
    }
    while let Some(ended) = connections.join_next().await {
        pass_on(ended);
    }
}

/// What a listener speaks, and where its connections are counted.
#[derive(Debug)]
pub struct Service {
    /// Where it listens, really bound.
    pub address: ListenAddress,
    /// Those of the worker.
    pub counters: Arc<Counters>,
    /// What is spoken there.
    pub spoken: Arc<Spoken>,
    /// TLS, if it is encrypted, and what keeps its handshakes from queries.
    pub tls: Option<(Arc<TlsListener>, Rc<Gate>)>,
    /// Who passes connections on to it.
    pub proxies: Arc<Proxies>,
}

/// A connection that has begun, and what it speaks.
enum Begun {
    Dns(Connection),
    Http(HttpClient),
}

/// Which version of HTTP a client speaks whose handshake is complete, and under which path it may ask; none if it speaks DNS in frames. Who
/// has offered nothing speaks what was there first: DNS, or else HTTP/1.1.
fn by_http(shaken: &Shaken, protocols: &Protocols) -> Option<(Version, HttpPath)> {
    let path = protocols.http.clone()?;
    match shaken.session.alpn_protocol() {
        Some(H2) => Some((Version::Http2, path)),
        Some(HTTP_1) => Some((Version::Http1, path)),
        Some(_) => None,
        None => (!protocols.is_dns).then_some((Version::Http1, path)),
    }
}

/// A connection that counts as open.
struct Open<'c> {
    counters: &'c Counters,
    transport: Transport,
}

impl<'c> Open<'c> {
    fn new(counters: &'c Counters, transport: Transport) -> Self {
        counters.connections.opened(transport);
        Self { counters, transport }
    }

    /// The same connection, now that it is known how its queries come.
    fn by(self, transport: Transport) -> Self {
        Self::new(self.counters, transport)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.counters.connections.closed(self.transport);
    }
}

/// Shakes hands with a client that has just connected; none if nothing came of it. All that goes by `first_query`, and one that has
/// to make room does so at once. Where its address is served no more, the client has a moment left for its query.
async fn begin_tls(
    stream: TcpStream,
    place: &ConnectionSlot,
    (tls, gate): &(Arc<TlsListener>, Rc<Gate>),
    local: ListenAddress,
    mut served: watch::Receiver<Served>,
    (counters, transport): (&Counters, Transport),
) -> Option<Shaken> {
    // Each step of a handshake is a message of its own, and the client waits for it.
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
            tracing::trace!(%error, "a handshake came to nothing");
            counters.connections.fate(transport, ConnectionFate::HandshakeFailed);
            None
        }
        Err(_) => {
            counters.connections.fate(transport, ConnectionFate::TimedOut);
            None
        }
    }
}

/// Lets the runtime watch a connection that it has not accepted itself.
fn watched(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

/// Whether `accept` failed for want of descriptors or memory.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// How long nothing is accepted after the process was found to be out of descriptors, and how long a handshake may go on where its address
/// is served no more.
const BREATH: Duration = Duration::from_millis(100);

/// How long the log is silent about that after it was told.
const SILENCE: Duration = Duration::from_secs(1);
