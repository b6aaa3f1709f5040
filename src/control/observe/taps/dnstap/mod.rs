//! dnstap: a frame for each chosen message of clients, of backends, or of the authorities' clients.
//!
//! The worker chooses a message and builds it (`message.rs`); the writer only sends it.

pub(super) mod frames;
mod message;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{ClientDetail, DnstapConfig, DnstapTarget, NameDetail};
use metrics::Tap;

use self::message::{DnstapAttempt, DnstapEndpoint, DnstapMessage, MessageType, server_fields};
use super::buffers::{Appender, BufferExchange};
use super::choice::Share;
use super::privacy::cut_client;
use super::sinks::{Collector, Framing, RecordFile, Sink};
use super::writer::{RecordTap, host_name};
use super::{AttemptMessage, Side, TapQuery};

#[derive(Debug)]
pub(super) struct Dnstap {
    pub(super) config: DnstapConfig,
    share: Share,
    pub(super) exchange: Arc<BufferExchange>,
    /// The encoded identity and version, with which every frame begins.
    server: Vec<u8>,
}

impl Dnstap {
    pub(super) fn new(config: &DnstapConfig, workers: usize) -> Self {
        let identity = config.identity.clone().unwrap_or_else(host_name);
        Self {
            config: config.clone(),
            share: Share::new(config.sample),
            exchange: Arc::new(BufferExchange::new(Framing::Frames, config.buffer, workers)),
            server: server_fields(&identity, concat!("hedgerow ", env!("CARGO_PKG_VERSION"))),
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

    /// Appends the query of a client, or the response that `query` has as its message. Returns false if there
    /// is no room.
    pub(super) fn append(
        &self,
        appender: &mut Appender,
        query: &TapQuery<'_>,
        query_time: Duration,
        response_time: Option<Duration>,
    ) -> bool {
        let &TapQuery { side, client, local, transport, message, .. } = query;
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
        let octets = self.visible(message);
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

impl RecordTap for Dnstap {
    fn tap(&self) -> Tap {
        Tap::Dnstap
    }

    fn exchange(&self) -> &Arc<BufferExchange> {
        &self.exchange
    }

    fn sink(&self) -> Option<Box<dyn Sink>> {
        Some(match &self.config.to {
            DnstapTarget::File(path) => Box::new(RecordFile::new(Framing::Frames, path.clone(), None, 1)),
            to @ (DnstapTarget::Unix(_) | DnstapTarget::Tcp(_)) => Box::new(Collector::new(to.clone())),
        })
    }
}

fn endpoint(ip: IpAddr, port: u16) -> DnstapEndpoint {
    DnstapEndpoint { ip: Some(ip.to_canonical()), port: Some(port) }
}
