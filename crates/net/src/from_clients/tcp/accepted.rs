//! An accepted connection until it can serve queries: the PROXY header, the limits, the handshake.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use dns::Transport;
use dns::address::ListenAddress;
use metrics::{ConnectionFate, Counters, DropReason, ShakenBy};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use super::connection::ConnectionTask;
use super::exchange::Exchange;
use super::moved::MovedConnection;
use super::responder::WayBack;
use super::stream::{ClientStream, SocketOrTls};
use super::{BREATH, watched};
use crate::from_clients::account::ConnectionAccount;
use crate::from_clients::http::HttpVersion;
use crate::from_clients::service::{ConnectionService, ServedAddresses};
use crate::from_clients::tls::TlsListener;
use crate::from_clients::tls::handshake::shake_hands;
use crate::from_clients::tls::protocols::Protocols;
use crate::proxy_protocol::{Proxies, receive_header};

/// The protocols of a TCP listener.
#[derive(Debug)]
pub struct TcpProtocols {
    /// The protocols of the address. A reload changes them for new connections.
    pub spoken: Arc<ArcSwap<Protocols>>,
    /// The TLS configuration, if the listener is encrypted.
    pub tls: Option<Arc<TlsListener>>,
    /// The proxies that may pass connections to the listener.
    pub proxies: Arc<Proxies>,
}

pub(super) struct TcpService {
    pub(super) service: ConnectionService,
    protocols: TcpProtocols,
    headers: Semaphore,
}

impl TcpService {
    pub(super) fn new(service: ConnectionService, protocols: TcpProtocols) -> Self {
        Self { service, protocols, headers: Semaphore::new(MAX_HEADERS) }
    }

    pub(super) fn is_passed_on(&self) -> bool {
        self.service.served.borrow().is_passed_on(self.service.address)
    }

    /// Serves a connection to its end.
    pub(super) async fn take(self: Rc<Self>, mut stream: TcpStream, peer: SocketAddr) {
        if !self.protocols.proxies.has(peer.ip()) {
            return self.serve(stream, peer, false, None).await;
        }
        if let Some(client) = self.receive_header(&mut stream, peer).await {
            // The socket does not carry the client's address, so another process could not know it.
            self.serve(stream, client, client != peer, None).await;
        }
    }

    /// Serves a connection from another process.
    pub(super) async fn adopt(self: Rc<Self>, MovedConnection { input, socket, .. }: MovedConnection) {
        let stream = watched(socket.into()).and_then(|stream| Ok((stream.peer_addr()?, stream)));
        if let Ok((peer, stream)) = stream {
            self.serve(stream, peer, false, Some(input)).await;
        }
    }

    /// Returns the client that a proxy names in a header; `None` without a valid header in time, or with one
    /// that names this host.
    async fn receive_header(&self, stream: &mut TcpStream, proxy: SocketAddr) -> Option<SocketAddr> {
        let ConnectionService { address, counters, table, .. } = &self.service;
        let Ok(_awaited) = self.headers.try_acquire() else {
            counters.dropped(DropReason::Overload);
            return None;
        };
        let named = tokio::select! {
            named = timeout(table.first_query(), receive_header(stream)) => named.ok().and_then(Result::ok),
            () = self.unserved(|served| !served.has(*address)) => return None,
        };
        let client = named.and_then(|named| self.protocols.proxies.client(named, proxy));
        if client.is_none() {
            counters.dropped(DropReason::Proxy);
        }
        client
    }

    /// Serves a client if the limits allow it. A connection from another process has input.
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, is_proxied: bool, moved: Option<Vec<u8>>) {
        let ConnectionService { counters, served, handle, .. } = &self.service;
        let protocols = self.protocols.spoken.load_full();
        // Only plain DNS connections move between processes.
        let tls = self.protocols.tls.as_ref().filter(|_| moved.is_none());
        let (transport, is_certain) = match moved {
            Some(_) => (Transport::Tcp, true),
            None => protocols.transport(tls.is_some()),
        };
        let Some(account) = self.admit(peer, transport, moved.is_some()) else { return };
        if moved.is_none() && is_certain {
            counters.connections.fate(transport, ConnectionFate::Accepted);
        }
        let local = self.local_address(&stream, moved.is_some());
        let asked = stream.local_addr().ok();
        // Responses and handshake messages are written whole, so Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        // The kernel would buffer megabytes for a client that does not read, and report nothing until a third
        // of them is gone, so a slow client would seem to read nothing. Bytes in transit do not count.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_IN_KERNEL);
        let mut open = OpenConnectionCount::new(counters, transport);
        let (io, http) = match tls {
            None => {
                let path = protocols.http.clone().filter(|_| moved.is_none());
                (SocketOrTls::Plain(stream), path.map(|path| (HttpVersion::Unknown, path)))
            }
            Some(tls) => {
                let shaken = self.begin_tls(stream, tls, &account, local, transport).await;
                let http = shaken.as_ref().and_then(|tls| protocols.http_by_alpn(tls.get_ref().1.alpn_protocol()));
                if !is_certain {
                    let spoken = if http.is_some() { Transport::Https } else { transport };
                    counters.connections.fate(spoken, ConnectionFate::Accepted);
                    open = OpenConnectionCount::new(counters, spoken);
                }
                let Some(tls) = shaken else { return };
                counters.connections.shaken(open.transport, kind_of(&tls));
                (SocketOrTls::Tls(Box::new(tls)), http)
            }
        };
        let stream = ClientStream::new(io, moved.unwrap_or_default());
        let way = WayBack { peer, asked, transport: open.transport, idle: account.slot.rules.idle };
        let flow = Rc::clone(&stream.flow);
        let exchange = Exchange::new(account, way, Arc::clone(counters), Rc::clone(handle), flow);
        let connection = ConnectionTask::new(stream, http, exchange, is_proxied);
        let ended = connection.run(local, served.clone()).await;
        if ended.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
            counters.connections.fate(open.transport, ConnectionFate::TimedOut);
        }
    }

    fn admit(&self, peer: SocketAddr, transport: Transport, is_moved: bool) -> Option<ConnectionAccount> {
        let ConnectionService { counters, table, admits, .. } = &self.service;
        if !admits(peer.ip()) {
            return None;
        }
        let now = Instant::now();
        let may_shake = !transport.is_encrypted() || table.admits_handshake(peer.ip(), now);
        let Some(slot) = may_shake.then(|| table.enter(peer.ip(), now)).flatten() else {
            counters.connections.fate(transport, ConnectionFate::Refused);
            counters.dropped(DropReason::Overload);
            return None;
        };
        let mut account = ConnectionAccount::new(slot, now);
        if is_moved {
            // The client may be between two queries, so the time limit for the first query does not apply.
            account.clock.on_activity(now);
        }
        Some(account)
    }

    /// Returns the address that must be served while a connection lasts. A connection from another process
    /// may belong to another address of the section, or to one that only the other process had.
    fn local_address(&self, stream: &TcpStream, is_moved: bool) -> ListenAddress {
        let address = self.service.address;
        let is_elsewhere = address.socket.ip().is_unspecified() || is_moved;
        let local = if is_elsewhere { stream.local_addr().ok() } else { None };
        let local = local.map(|socket| ListenAddress { socket, ..address });
        local.filter(|&local| self.service.served.borrow().covers(local)).unwrap_or(address)
    }

    /// Performs a TLS handshake within the `first_query` time limit; `None` if it fails. A connection that
    /// has to make room ends at once.
    async fn begin_tls(
        &self,
        stream: TcpStream,
        tls: &TlsListener,
        account: &ConnectionAccount,
        local: ListenAddress,
        transport: Transport,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = shake_hands(stream, tls, &self.service.gate);
        let fate = tokio::select! {
            shaken = timeout(account.slot.rules.first_query, handshake) => match shaken {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => {
                    tracing::trace!(%error, "a handshake failed");
                    ConnectionFate::HandshakeFailed
                }
                Err(_) => ConnectionFate::TimedOut,
            },
            () = account.slot.seat.closed() => return None,
            () = self.unserved(|served| !served.covers(local)) => return None,
        };
        self.service.counters.connections.fate(transport, fate);
        None
    }

    /// Waits until a moment after the end of an address.
    async fn unserved(&self, is_over: impl Fn(&ServedAddresses) -> bool) {
        let _ = self.service.served.clone().wait_for(is_over).await;
        sleep_until((Instant::now() + BREATH).into()).await;
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

fn kind_of(tls: &TlsStream<TcpStream>) -> ShakenBy {
    match tls.get_ref().1.handshake_kind() {
        Some(HandshakeKind::Resumed) => ShakenBy::Resumed,
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) | None => ShakenBy::Full,
    }
}

/// The limit of pending PROXY headers per listener and worker. Only configured proxies get here, and they
/// send the header first.
const MAX_HEADERS: usize = 256;

const UNSENT_IN_KERNEL: u32 = 64 << 10;
