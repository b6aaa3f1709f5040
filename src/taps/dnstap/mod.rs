//! dnstap: a frame for each message that is chosen, of clients, of backends, or of the authorities' clients.
//!
//! In the worker a message is chosen and its frame is made (`message.rs`); the writer sends frames on as they are (`output.rs`,
//! `frames.rs`).

mod frames;
mod message;
mod output;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::message::{Attempt, Endpoint, Message, MessageType, server_fields};
pub(super) use self::output::Frames;
use super::buffers::{Appender, Exchange};
use super::choice::Share;
use super::privacy::cut_client;
use super::{AttemptMessage, Side};
use crate::config::{ClientDetail, DnstapConfig, NameDetail};
use crate::wire::Transport;

/// dnstap as workers see it.
#[derive(Debug)]
pub(super) struct Dnstap {
    pub(super) config: DnstapConfig,
    share: Share,
    pub(super) exchange: Arc<Exchange>,
    /// What every frame begins with: who we are.
    server: Vec<u8>,
}

/// A message of a client of ours, or to one.
#[derive(Clone, Copy)]
pub(super) struct ClientMessage<'a> {
    pub(super) side: Side,
    pub(super) client: SocketAddr,
    /// The address that it has asked, as far as it is known.
    pub(super) local: Option<SocketAddr>,
    pub(super) transport: Transport,
    pub(super) query_time: Duration,
    /// When the response was made, if this is one.
    pub(super) response_time: Option<Duration>,
    pub(super) octets: &'a [u8],
}

impl Dnstap {
    /// For so many workers. `host`: the name of this host.
    pub(super) fn new(config: &DnstapConfig, host: &str, workers: usize) -> Self {
        let identity = config.identity.as_deref().unwrap_or(host);
        Self {
            config: config.clone(),
            share: Share::new(config.sample),
            exchange: Arc::new(Exchange::new(config.buffer, workers)),
            server: server_fields(identity, concat!("hedgerow ", env!("CARGO_PKG_VERSION"))),
        }
    }

    /// Whether messages of clients of this side are told, to the question of this number.
    pub(super) fn chooses(&self, side: Side, number: u64) -> bool {
        let is_asked_for = match side {
            Side::Forwarder => self.config.messages.client,
            Side::Authority => self.config.messages.authority,
        };
        is_asked_for && self.share.has(number)
    }

    /// Whether messages of backends are told, to the question of this number.
    pub(super) fn chooses_backends(&self, number: u64) -> bool {
        self.config.messages.backend && self.share.has(number)
    }

    /// Appends a message of a client, or to one. Returns whether there was room.
    pub(super) fn append(&self, appender: &mut Appender, message: &ClientMessage<'_>) -> bool {
        let &ClientMessage { side, client, local, transport, query_time, response_time, octets } = message;
        let kind = match (side, response_time) {
            (Side::Forwarder, None) => MessageType::ClientQuery,
            (Side::Forwarder, Some(_)) => MessageType::ClientResponse,
            (Side::Authority, None) => MessageType::AuthQuery,
            (Side::Authority, Some(_)) => MessageType::AuthResponse,
        };
        // A port tells one client of a prefix from another.
        let port = (self.config.client == ClientDetail::Full).then(|| client.port());
        let ip = cut_client(self.config.client, client.ip()).map(|cut| cut.ip);
        let asker = Endpoint { ip, port };
        let asked = local.map_or_else(Endpoint::default, |local| endpoint(local.ip(), local.port()));
        let octets = self.told(octets);
        let message = Message { kind, transport, asker, asked, query_time, response_time, octets, attempt: None };
        self.append_message(appender, &message)
    }

    /// Appends a message of a backend, or to one. Returns whether there was room.
    pub(super) fn append_attempt(
        &self,
        appender: &mut Appender,
        attempt: &AttemptMessage<'_>,
        query_time: Duration,
        response_time: Option<Duration>,
    ) -> bool {
        let AttemptMessage { pool, backend, address, kind, octets, .. } = *attempt;
        let message = Message {
            kind: match response_time {
                None => MessageType::ForwarderQuery,
                Some(_) => MessageType::ForwarderResponse,
            },
            transport: Transport::Udp,
            // From which of many ports it was asked is the business of whoever sends it.
            asker: Endpoint::default(),
            asked: endpoint(address.ip(), address.port()),
            query_time,
            response_time,
            octets: self.told(octets),
            attempt: Some(Attempt { pool, backend, kind }),
        };
        self.append_message(appender, &message)
    }

    fn append_message(&self, appender: &mut Appender, message: &Message<'_>) -> bool {
        appender.append(self.server.len() + message.max_len(), |out| message.write(&self.server, out))
    }

    /// The octets of a message, if they may be told.
    fn told<'m>(&self, octets: &'m [u8]) -> Option<&'m [u8]> {
        (self.config.names != NameDetail::None).then_some(octets)
    }
}

fn endpoint(ip: IpAddr, port: u16) -> Endpoint {
    Endpoint { ip: Some(ip.to_canonical()), port: Some(port) }
}
