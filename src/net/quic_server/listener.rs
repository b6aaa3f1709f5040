//! What workers share: keys, the rules of QUIC, and boxes for datagrams that came to the wrong worker.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use quinn_proto::congestion::CubicConfig;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use rand::TryRng;
use rand::rngs::SysRng;
use ring::{hkdf, hmac};
use tokio::sync::Notify;
use tokio_rustls::rustls::server::ServerSessionMemoryCache;

use super::connection_id::{ConnectionIds, Destination, Generator};
use super::resumption::{NoTickets, Sessions, Tickets};
use crate::limit::ConnectionRules;
use crate::net::batch::{Datagram, LocalAddress};
use crate::net::tls_server::TlsListener;

/// The keys of all listeners by QUIC, for as long as the process lives: workers share them, and another process has others.
pub struct QuicServer {
    ids: ConnectionIds,
    /// Of stateless resets (RFC 9000 section 10.3).
    reset_key: Arc<hmac::Key>,
    /// Of the tokens by which clients show that an address is theirs (RFC 9000 section 8.1).
    token_key: Arc<hkdf::Prk>,
}

impl fmt::Debug for QuicServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuicServer")
    }
}

impl QuicServer {
    /// With new keys.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
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

/// One address that is listened on by QUIC, by all workers.
#[derive(Debug)]
pub struct QuicListener {
    server: Arc<QuicServer>,
    tls: Arc<TlsListener>,
    /// One a worker.
    boxes: Box<[Inbox]>,
    /// The rules for new connections, as they were last made.
    rules: Mutex<Option<(Terms, Arc<ServerConfig>)>>,
}

/// Datagrams for one worker that came to another.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: ArrayQueue<PassedOn>,
    /// Told of each that is put in.
    pub(super) filled: Notify,
}

/// A datagram that came to another worker.
#[derive(Debug)]
pub(super) struct PassedOn {
    pub(super) octets: Vec<u8>,
    pub(super) peer: SocketAddr,
    pub(super) local: Option<LocalAddress>,
}

/// What of the rules of connections QUIC itself holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Terms {
    in_flight: usize,
    idle_ms: u64,
    early_data: bool,
}

impl QuicListener {
    /// For so many workers.
    pub fn new(server: &Arc<QuicServer>, tls: &Arc<TlsListener>, workers: usize) -> Self {
        let made = || Inbox { waiting: ArrayQueue::new(MAX_PASSED_ON), filled: Notify::new() };
        Self {
            server: Arc::clone(server),
            tls: Arc::clone(tls),
            boxes: (0..workers).map(|_| made()).collect(),
            rules: Mutex::new(None),
        }
    }

    /// The endpoint of one worker.
    pub(super) fn endpoint(&self, worker: u16) -> Endpoint {
        let mut config = EndpointConfig::new(Arc::clone(&self.server.reset_key) as _);
        let ids = self.server.ids;
        config.cid_generator(move || Box::new(Generator { ids, worker }));
        // The rules of each connection are told when it is accepted; these are what is asked before.
        Endpoint::new(Arc::new(config), Some(self.config(&ConnectionRules::default())), false, None)
    }

    /// Whose a datagram is.
    pub(super) fn destination(&self, datagram: &[u8]) -> Destination {
        self.server.ids.destination(datagram)
    }

    /// Passes a datagram on to another worker; whether there is one, and room.
    pub(super) fn pass_on(&self, worker: u16, datagram: Datagram<'_>) -> bool {
        let Some(to) = self.boxes.get(usize::from(worker)) else { return false };
        let Datagram { bytes, peer, local, .. } = datagram;
        let is_passed = to.waiting.push(PassedOn { octets: bytes.to_vec(), peer, local }).is_ok();
        to.filled.notify_one();
        is_passed
    }

    /// Where a worker finds what others have passed on to it.
    pub(super) fn box_of(&self, worker: u16) -> Option<&Inbox> {
        self.boxes.get(usize::from(worker))
    }

    /// The rules of QUIC for a connection under these rules.
    pub(super) fn config(&self, rules: &ConnectionRules) -> Arc<ServerConfig> {
        let terms =
            Terms { in_flight: rules.in_flight, idle_ms: rules.idle.as_millis() as u64, early_data: rules.early_data };
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((for_terms, config)) if *for_terms == terms => Arc::clone(config),
            Some(_) | None => {
                let config = Arc::new(self.make_config(terms));
                *known = Some((terms, Arc::clone(&config)));
                config
            }
        }
    }

    fn make_config(&self, terms: Terms) -> ServerConfig {
        let mut tls = (*self.tls.config()).clone();
        if terms.early_data {
            // Early data is taken of sessions that are kept alone, each once: so nobody is answered twice here. They are other
            // sessions with each change of the rules, since those that an early client goes by must not have become narrower
            // (RFC 9000 section 7.4.1).
            tls.session_storage = Arc::new(Sessions(ServerSessionMemoryCache::new(MAX_SESSIONS)));
            tls.ticketer = Arc::new(NoTickets);
            tls.max_early_data_size = u32::MAX;
        } else {
            tls.ticketer = Arc::new(Tickets(Arc::clone(&tls.ticketer)));
        }
        // A client takes one of them at a time, and gets another with each connection.
        tls.send_tls13_tickets = 1;
        let crypto = QuicServerConfig::try_from(tls).expect("ring has AES-128-GCM, which QUIC begins with");
        let mut config = ServerConfig::new(Arc::new(crypto), Arc::clone(&self.server.token_key) as _);
        config.transport_config(Arc::new(transport(terms)));
        config.migration(true);
        // Tokens for later connections would tell one of a client's from another's; the handshake asks for a Retry where that matters.
        let mut tokens = ValidationTokenConfig::default();
        tokens.sent(0);
        config.validation_token_config(tokens);
        config.max_incoming(MAX_WAITING + 1);
        // What comes before the first step of a handshake is made: early queries.
        config.incoming_buffer_size(16 << 10);
        config.incoming_buffer_size_total(1 << 20);
        config
    }
}

impl Inbox {
    /// The next datagram.
    pub(super) fn take(&self) -> Option<PassedOn> {
        self.waiting.pop()
    }
}

/// The parameters of QUIC, all of them said outright: what a stranger can have of us is decided here.
fn transport(terms: Terms) -> TransportConfig {
    let mut transport = TransportConfig::default();
    // A stream is a query (RFC 9250 section 4.2).
    transport.max_concurrent_bidi_streams(VarInt::from_u32(u32::try_from(terms.in_flight).unwrap_or(u32::MAX)));
    // There are none in DoQ. One is let through, so that its client hears what it did wrong in the words of DoQ.
    transport.max_concurrent_uni_streams(VarInt::from_u32(1));
    // A moment more than we wait ourselves: so a client hears that it is the end, and not everything that comes is a sign of life to us.
    transport.max_idle_timeout(VarInt::from_u64(terms.idle_ms + LAST_WORD_MS).ok().map(IdleTimeout::from));
    // The longest message and its length, and not two of them on one stream.
    transport.stream_receive_window(VarInt::from_u32(MAX_FRAMED));
    // What may wait unread, above all out of order: two of those, or two thousand queries of a usual size.
    transport.receive_window(VarInt::from_u32(2 * MAX_FRAMED));
    // What a client has not acknowledged, whatever it could take.
    transport.send_window(MAX_UNACKNOWLEDGED);
    // Streams are short: one after the other is fewer pieces.
    transport.send_fairness(false);
    // RFC 9002 section 6.1 and RFC 9002 section 6.2.2.
    transport.packet_threshold(3);
    transport.time_threshold(9.0 / 8.0);
    transport.initial_rtt(std::time::Duration::from_millis(333));
    transport.persistent_congestion_threshold(3);
    // What every way carries (RFC 9000 section 14). Responses are short, so that to look for more would cost more datagrams than it
    // saves.
    transport.initial_mtu(MTU);
    transport.min_mtu(MTU);
    transport.mtu_discovery_config(None);
    transport.pad_to_mtu(false);
    transport.ack_frequency_config(None);
    // Idle connections end.
    transport.keep_alive_interval(None);
    // A ClientHello with a large key share, out of order.
    transport.crypto_buffer_size(16 << 10);
    // It tells whoever looks how far away a client is.
    transport.allow_spin(false);
    // DoQ has no datagrams.
    transport.datagram_receive_buffer_size(None);
    transport.datagram_send_buffer_size(0);
    // RFC 9438.
    transport.congestion_controller_factory(Arc::new(CubicConfig::default()));
    // Datagrams of several connections leave by one call: `SendBatch` puts them together.
    transport.enable_segmentation_offload(false);
    transport
}

/// Octets of a key.
const KEY: usize = 64;

/// Datagrams that wait for a worker that is not the one they came to: clients that have moved are few, and what is lost is sent again.
const MAX_PASSED_ON: usize = 256;

/// Handshakes that wait, above which clients are refused; also what QUIC itself lets wait.
pub(super) const MAX_WAITING: usize = 256;

/// Sessions that are kept for early data, of some hundred octets each: the oldest one goes.
const MAX_SESSIONS: usize = 4096;

/// How much longer than we a client may wait for something to happen.
const LAST_WORD_MS: u64 = 1_000;

/// Octets of the longest message in its frame.
const MAX_FRAMED: u32 = 65_537;

/// Octets of responses that one client has not acknowledged.
const MAX_UNACKNOWLEDGED: u64 = 256 << 10;

/// Octets of a datagram.
const MTU: u16 = 1200;
