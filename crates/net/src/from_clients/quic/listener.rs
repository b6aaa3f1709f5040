//! State shared by workers: keys, QUIC parameters, and inboxes for datagrams that arrived at the wrong
//! worker.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use limit::ConnectionRules;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use rand::TryRng;
use rand::rngs::SysRng;
use ring::{hkdf, hmac};
use tokio::sync::Notify;
use tokio_rustls::rustls::server::ServerSessionMemoryCache;

use super::connection_id::{ConnectionIds, DatagramDestination, Generator};
use super::resumption::{Sessions, Tickets};
use crate::from_clients::tls::TlsListener;
use crate::sys::batch::{Datagram, LocalAddress};

/// The keys of all QUIC listeners. Workers share them; another process has different keys.
pub struct QuicServer {
    ids: ConnectionIds,
    /// For stateless resets (RFC 9000 section 10.3).
    reset_key: Arc<hmac::Key>,
    /// For address validation tokens (RFC 9000 section 8.1).
    token_key: Arc<hkdf::Prk>,
}

impl fmt::Debug for QuicServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicServer")
    }
}

impl QuicServer {
    /// Generates new keys.
    pub fn new() -> io::Result<Self> {
        let mut ids = [0; 2];
        for part in &mut ids {
            *part = SysRng.try_next_u64().map_err(io::Error::other)?;
        }
        let mut keys = [[0; KEY]; 2];
        for key in &mut keys {
            SysRng.try_fill_bytes(key).map_err(io::Error::other)?;
        }
        let [reset, token] = keys;
        Ok(Self {
            ids: ConnectionIds::new(ids),
            reset_key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)),
            token_key: Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&token)),
        })
    }
}

/// One QUIC address, served by all workers.
#[derive(Debug)]
pub struct QuicListener {
    server: Arc<QuicServer>,
    tls: Arc<TlsListener>,
    boxes: Box<[Inbox]>,
    /// The config of the latest rules.
    latest: Mutex<Option<(ConnectionRules, Arc<ServerConfig>)>>,
}

#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) waiting: ArrayQueue<PassedOn>,
    pub(super) filled: Notify,
}

#[derive(Debug)]
pub(super) struct PassedOn {
    pub(super) octets: Vec<u8>,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<LocalAddress>,
}

impl QuicListener {
    /// Creates a listener with one inbox per worker.
    pub fn new(server: &Arc<QuicServer>, tls: &Arc<TlsListener>, workers: usize) -> Self {
        let made = || Inbox { waiting: ArrayQueue::new(MAX_PASSED_ON), filled: Notify::new() };
        Self {
            server: Arc::clone(server),
            tls: Arc::clone(tls),
            boxes: (0..workers).map(|_| made()).collect(),
            latest: Mutex::new(None),
        }
    }

    pub(super) fn endpoint(&self, worker: u16) -> Endpoint {
        let mut config = EndpointConfig::new(Arc::clone(&self.server.reset_key) as _);
        let ids = self.server.ids;
        config.cid_generator(move || Box::new(Generator { ids, worker }));
        // Each connection gets its rules when it is accepted; these apply before.
        Endpoint::new(Arc::new(config), Some(self.config(&ConnectionRules::default())), false, None)
    }

    pub(super) fn destination(&self, datagram: &[u8]) -> DatagramDestination {
        self.server.ids.destination(datagram)
    }

    pub(super) fn pass_on(&self, worker: u16, datagram: Datagram<'_>) -> bool {
        let Some(to) = self.boxes.get(usize::from(worker)) else { return false };
        let Datagram { bytes, peer, path, .. } = datagram;
        let is_passed = to.waiting.push(PassedOn { octets: bytes.to_vec(), peer, local: path.local() }).is_ok();
        to.filled.notify_one();
        is_passed
    }

    pub(super) fn box_of(&self, worker: u16) -> Option<&Inbox> {
        self.boxes.get(usize::from(worker))
    }

    pub(super) fn config(&self, rules: &ConnectionRules) -> Arc<ServerConfig> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((of, config)) if of == rules => Arc::clone(config),
            Some(_) | None => {
                let config = Arc::new(self.make_config(rules));
                *latest = Some((*rules, Arc::clone(&config)));
                config
            }
        }
    }

    fn make_config(&self, rules: &ConnectionRules) -> ServerConfig {
        let mut tls = (*self.tls.config()).clone();
        if rules.early_data {
            // Only stored sessions allow early data, and each only once, so a replay gets no answer. A change
            // of the rules starts a new session store, because the limits that an early client relies on must
            // not shrink (RFC 9000 section 7.4.1).
            tls.session_storage = Arc::new(Sessions(ServerSessionMemoryCache::new(MAX_SESSIONS)));
            tls.max_early_data_size = u32::MAX;
        } else {
            tls.ticketer = Arc::new(Tickets(Arc::clone(&self.tls.ticketer)));
        }
        // A client uses one ticket at a time, and gets another with each connection.
        tls.send_tls13_tickets = 1;
        let crypto = QuicServerConfig::try_from(tls).expect("ring has AES-128-GCM, which QUIC begins with");
        let mut config = ServerConfig::new(Arc::new(crypto), Arc::clone(&self.server.token_key) as _);
        config.transport_config(Arc::new(transport(rules)));
        config.migration(true);
        // Tokens for later connections would let an observer link a client's connections. The handshake
        // requests a Retry where needed.
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0);
        config.validation_token_config(tokens);
        config.max_incoming(MAX_WAITING + 1);
        // Early queries that arrive before the first handshake step.
        config.incoming_buffer_size(16 << 10);
        config.incoming_buffer_size_total(1 << 20);
        config
    }
}

/// Returns the QUIC transport parameters. Those that bound the resources of an unknown client are explicit;
/// recovery and congestion control (RFC 9002, RFC 9438) are the defaults.
fn transport(rules: &ConnectionRules) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // A stream is a query (RFC 9250 section 4.2).
    transport.max_concurrent_bidi_streams(VarInt::from_u32(u32::try_from(rules.in_flight).unwrap_or(u32::MAX)));
    // DoQ has none. One is allowed, so that the client gets a DoQ error code.
    transport.max_concurrent_uni_streams(VarInt::from_u32(1));
    // Slightly longer than our own idle timeout: our close then reaches the client, and not every datagram
    // keeps the connection open.
    transport.max_idle_timeout(IdleTimeout::try_from(rules.idle + LAST_WORD).ok());
    // One of the longest messages with its length, but not two.
    transport.stream_receive_window(VarInt::from_u32(MAX_FRAMED));
    // Unread data, mainly out of order: two of the longest messages, or two thousand usual queries.
    transport.receive_window(VarInt::from_u32(2 * MAX_FRAMED));
    transport.send_window(MAX_UNACKNOWLEDGED);
    // Streams are short, so sending them in sequence needs fewer frames.
    transport.send_fairness(false);
    // Every path carries this (RFC 9000 section 14). Responses are short, so MTU discovery would cost more
    // datagrams than it saves.
    transport.initial_mtu(MTU);
    transport.min_mtu(MTU);
    transport.mtu_discovery_config(None);
    // A ClientHello with a large key share, out of order.
    transport.crypto_buffer_size(16 << 10);
    // The spin bit shows the round-trip time to observers.
    transport.allow_spin(false);
    // DoQ has no datagrams.
    transport.datagram_receive_buffer_size(None);
    transport.datagram_send_buffer_size(0);
    // `SendBatch` segments datagrams of several connections in one call.
    transport.enable_segmentation_offload(false);
    transport
}

const KEY: usize = 64;

const MAX_PASSED_ON: usize = 256;

/// The limit of pending handshakes, above which clients are refused; also the limit within QUIC.
pub(super) const MAX_WAITING: usize = 256;

const MAX_SESSIONS: usize = 4096;

const LAST_WORD: Duration = Duration::from_secs(1);

const MAX_FRAMED: u32 = 65_537;

const MAX_UNACKNOWLEDGED: u64 = 256 << 10;

const MTU: u16 = 1200;
