//! One question to the server until it replies: tries, EDNS fallback, TCP.
//!
//! ```text
//! A try, with a fresh ID and from a fresh port:
//!   ask by UDP with OPT, wait up to `timeout` for a reply that matches
//!   FORMERR or NOTIMP without OPT in it?   ask once more without OPT
//!   TC?                                    ask again by TCP, with another `timeout`
//! The first try that ends with a whole reply ends the exchange; after the last one it is lost.
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time;

use super::connection::LookupConnections;
use super::message::{LookupReply, write_query};
use crate::net::to_backends::client::UdpClient;
use crate::net::to_backends::connection::StreamProtocol;
use crate::net::to_backends::server_client::ServerClient;
use crate::wire::{Name, Rcode, RecordType, Transport};

#[derive(Debug)]
pub(super) struct LookupServer {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
    pub(super) tries: u8,
    pub(super) connections: Option<LookupConnections>,
}

impl LookupServer {
    /// Asks one question. An error is local (no socket available), never caused by the server.
    pub(super) async fn ask(&self, name: &Name, rtype: RecordType) -> io::Result<LookupExchange> {
        let started = Instant::now();
        let mut exchange =
            LookupExchange { outcome: Err(TryFailure::Silent), tries: 0, elapsed: Duration::ZERO, ignored: 0 };
        while exchange.tries < u32::from(self.tries) {
            exchange.tries += 1;
            exchange.outcome = self.try_once(name, rtype, &mut exchange.ignored).await?;
            if exchange.outcome.is_ok() {
                break;
            }
        }
        exchange.elapsed = started.elapsed();
        Ok(exchange)
    }

    async fn try_once(
        &self,
        name: &Name,
        rtype: RecordType,
        ignored: &mut u64,
    ) -> io::Result<Result<LookupAnswer, TryFailure>> {
        let by_stream = self.connections.as_ref();
        let asked = match by_stream {
            Some(connections) => self.ask_stream(connections, name, rtype, true).await,
            None => self.ask_udp(name, rtype, true, ignored).await?,
        };
        let mut reply = match asked {
            Ok(reply) => reply,
            Err(lost) => return Ok(Err(lost)),
        };
        // RFC 6891 section 7: servers without EDNS return FORMERR, some NOTIMP; if the reply contains OPT,
        // the error has another reason. If the retry brings no better reply, the failure stands.
        if matches!(reply.rcode, Rcode::FORMERR | Rcode::NOTIMP)
            && reply.opt.is_none()
            && let Ok(plain) = match by_stream {
                Some(connections) => self.ask_stream(connections, name, rtype, false).await,
                None => self.ask_udp(name, rtype, false, ignored).await?,
            }
        {
            reply = plain;
        }
        if let Some(connections) = by_stream {
            return Ok(Ok(LookupAnswer { reply, transport: connections.transport() }));
        }
        // RFC 7766 section 5: a truncated reply is retried by TCP. Part of an RRset is no answer.
        if reply.header.is_truncated() {
            return Ok(self.ask_tcp(name, rtype).await.map_err(|_| TryFailure::Truncated));
        }
        Ok(Ok(LookupAnswer { reply, transport: Transport::Udp }))
    }

    /// Sends a query by UDP and waits for a matching reply; counts any other datagram in `ignored`.
    async fn ask_udp(
        &self,
        name: &Name,
        rtype: RecordType,
        with_opt: bool,
        ignored: &mut u64,
    ) -> io::Result<Result<LookupReply, TryFailure>> {
        let client = UdpClient::bind(self.address)?;
        let query = write_query(rand::random(), name, rtype, with_opt);
        let mut reply = None;
        let talk = async {
            client.connect().await?;
            client.send(&query).await?;
            let is_reply = |message: &[u8]| {
                reply = LookupReply::read(message, &query);
                *ignored += u64::from(reply.is_none());
                reply.is_some()
            };
            client.receive(&mut [0; MAX_DATAGRAM], is_reply).await
        };
        let done = self.in_time(talk).await;
        Ok(done.and_then(|_| reply.ok_or(TryFailure::Silent)))
    }

    async fn ask_stream(
        &self,
        connections: &LookupConnections,
        name: &Name,
        rtype: RecordType,
        with_opt: bool,
    ) -> Result<LookupReply, TryFailure> {
        let talk = connections.ask(write_query(0, name, rtype, with_opt));
        let (query, message) = self.in_time(talk).await?;
        LookupReply::read(&message, &query).ok_or(TryFailure::Unreachable)
    }

    async fn ask_tcp(&self, name: &Name, rtype: RecordType) -> Result<LookupAnswer, TryFailure> {
        let query = write_query(rand::random(), name, rtype, true);
        let talk = async {
            let mut client = ServerClient::connect(self.address, &StreamProtocol::Frames, None).await?;
            client.queue(&query)?;
            let message = client.receive().await?;
            LookupReply::read(&message, &query).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let reply = self.in_time(talk).await?;
        Ok(LookupAnswer { reply, transport: Transport::Tcp })
    }

    async fn in_time<T>(&self, talk: impl Future<Output = io::Result<T>>) -> Result<T, TryFailure> {
        match time::timeout(self.timeout, talk).await {
            Ok(Ok(brought)) => Ok(brought),
            Ok(Err(_)) => Err(TryFailure::Unreachable),
            Err(_) => Err(TryFailure::Silent),
        }
    }
}

#[derive(Debug)]
pub(super) struct LookupExchange {
    pub(super) outcome: Result<LookupAnswer, TryFailure>,
    pub(super) tries: u32,
    pub(super) elapsed: Duration,
    pub(super) ignored: u64,
}

#[derive(Debug)]
pub(super) struct LookupAnswer {
    pub(super) reply: LookupReply,
    pub(super) transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TryFailure {
    Silent,
    /// An ICMP error, or a refused or broken connection: no server listens there.
    Unreachable,
    Truncated,
}

/// The receive buffer size, well above the advertised UDP size.
const MAX_DATAGRAM: usize = 4096;
