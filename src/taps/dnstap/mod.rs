//! dnstap: a frame for each chosen message of clients, of backends, or of the authorities' clients.
//!
//! The worker chooses a message and builds its frame (`message.rs`); the writer forwards frames unchanged
//! (`output.rs`, `frames.rs`).

mod frames;
mod message;
mod output;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::message::{DnstapAttempt, DnstapEndpoint, DnstapMessage, MessageType, server_fields};
pub(super) use self::output::Frames;
use super::buffers::{Appender, BufferExchange};
use super::choice::Share;
use super::privacy::cut_client;
use super::{AttemptMessage, Side};
use crate::config::{ClientDetail, DnstapConfig, NameDetail};
use crate::wire::Transport;

#[derive(Debug)]
pub(super) struct Dnstap {
    pub(super) config: DnstapConfig,
    share: Share,
    pub(super) exchange: Arc<BufferExchange>,
    /// The encoded identity and version, with which every frame begins.
    server: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(super) struct ClientMessage<'a> {
    pub(super) side: Side,
    pub(super) client: SocketAddr,
    pub(super) local: Option<SocketAddr>,
    pub(super) transport: Transport,
    pub(super) query_time: Duration,
    pub(super) response_time: Option<Duration>,
    pub(super) octets: &'a [u8],
}

impl Dnstap {
    /// Creates dnstap for this number of workers. `host` is the name of the machine.
    pub(super) fn new(config: &DnstapConfig, host: &str, workers: usize) -> Self {
        let identity = config.identity.as_deref().unwrap_or(host);
        Self {
            config: config.clone(),
            share: Share::new(config.sample),
            exchange: Arc::new(BufferExchange::new(config.buffer, workers)),
            server: server_fields(identity, concat!("hedgerow ", env!("CARGO_PKG_VERSION"))),
        }
    }

    /// Returns true if client messages of this side are tapped for the question with this number.
    pub(super) fn chooses(&self, side: Side, number: u64) -> bool {
        let is_asked_for = match side {
            Side::Forwarder => self.config.messages.client,
            Side::Authority => self.config.messages.authority,
        };
        is_asked_for && self.share.has(number)
    }

    /// Returns true if backend messages are tapped for the question with this number.
    pub(super) fn chooses_backends(&self, number: u64) -> bool {
        self.config.messages.backend && self.share.has(number)
    }

    /// Appends a message from or to a client. Returns false if there is no room.
    pub(super) fn append(&self, appender: &mut Appender, message: &ClientMessage<'_>) -> bool {
        let &ClientMessage { side, client, local, transport, query_time, response_time, octets } = message;
        let kind = match (side, response_time) {
            (Side::Forwarder, None) => MessageType::ClientQuery,
            (Side::Forwarder, Some(_)) => MessageType::ClientResponse,
            (Side::Authority, None) => MessageType::AuthQuery,
            (Side::Authority, Some(_)) => MessageType::AuthResponse,
        };
        // A port distinguishes clients within a prefix.
        let port = (self.config.client == ClientDetail::Full).then(|| client.port());
        let ip = cut_client(self.config.client, client.ip()).map(|cut| cut.ip);
        let asker = DnstapEndpoint { ip, port };
        let asked = local.map_or_else(DnstapEndpoint::default, |local| endpoint(local.ip(), local.port()));
        let octets = self.visible(octets);
        let message = DnstapMessage { kind, transport, asker, asked, query_time, response_time, octets, attempt: None };
        self.append_message(appender, &message)
    }

    /// Appends a message from or to a backend. Returns false if there is no room.
    pub(super) fn append_attempt(
        &self,
        appender: &mut Appender,
        attempt: &AttemptMessage<'_>,
        query_time: Duration,
        response_time: Option<Duration>,
    ) -> bool {
        let AttemptMessage { pool, backend, address, transport, kind, octets, .. } = *attempt;
        let message = DnstapMessage {
            kind: match response_time {
                None => MessageType::ForwarderQuery,
                Some(_) => MessageType::ForwarderResponse,
            },
            transport,
            // No local address: queries leave from many sockets, and an attempt does not record which.
            asker: DnstapEndpoint::default(),
            asked: endpoint(address.ip(), address.port()),
            query_time,
            response_time,
            octets: self.visible(octets),
            attempt: Some(DnstapAttempt { pool, backend, kind }),
        };
        self.append_message(appender, &message)
    }

    fn append_message(&self, appender: &mut Appender, message: &DnstapMessage<'_>) -> bool {
        appender.append(self.server.len() + message.max_len(), |out| message.write(&self.server, out))
    }

    /// Returns the message, unless the config hides names, which it contains.
    fn visible<'m>(&self, octets: &'m [u8]) -> Option<&'m [u8]> {
        (self.config.names != NameDetail::None).then_some(octets)
    }
}

fn endpoint(ip: IpAddr, port: u16) -> DnstapEndpoint {
    DnstapEndpoint { ip: Some(ip.to_canonical()), port: Some(port) }
}
