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

use dns::{Name, Rcode, RecordType, Transport};
use net::to_backends::client::UdpClient;
use net::to_backends::connection::StreamProtocol;
use net::to_backends::server_client::ServerClient;
use tokio::time;

use super::connection::LookupConnections;
use super::message::{LookupReply, write_query};

#[derive(Debug)]
pub(super) struct LookupServer {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
    pub(super) tries: u8,
    pub(super) connections: Option<LookupConnections>,
}

impl LookupServer {
    /// Asks one question. An error is local (no socket available), never caused by the server.
    pub(super) async fn ask(
        &self,
        name: &Name,
        rtype: RecordType,
        effort: &mut LookupEffort,
    ) -> io::Result<Result<LookupAnswer, TryFailure>> {
        let started = Instant::now();
        let mut outcome = Err(TryFailure::Silent);
        for _ in 0..self.tries {
            effort.tries += 1;
            outcome = self.try_once(name, rtype, &mut effort.ignored).await?;
            if outcome.is_ok() {
                break;
            }
        }
        effort.elapsed += started.elapsed();
        Ok(outcome)
    }

    async fn try_once(
        &self,
        name: &Name,
        rtype: RecordType,
        ignored: &mut u64,
    ) -> io::Result<Result<LookupAnswer, TryFailure>> {
        let mut reply = match self.query(name, rtype, true, ignored).await? {
            Ok(reply) => reply,
            Err(lost) => return Ok(Err(lost)),
        };
        // RFC 6891 section 7: servers without EDNS return FORMERR, some NOTIMP; if the reply contains OPT,
        // the error has another reason. If the retry brings no better reply, the failure stands.
        if matches!(reply.rcode, Rcode::FORMERR | Rcode::NOTIMP)
            && reply.opt.is_none()
            && let Ok(plain) = self.query(name, rtype, false, ignored).await?
        {
            reply = plain;
        }
        let transport = self.connections.as_ref().map_or(Transport::Udp, LookupConnections::transport);
        // RFC 7766 section 5: a truncated reply is retried by TCP. Part of an RRset is no answer.
        if transport == Transport::Udp && reply.header.is_truncated() {
            return Ok(self.ask_tcp(name, rtype).await.map_err(|_| TryFailure::Truncated));
        }
        Ok(Ok(LookupAnswer { reply, transport }))
    }

    async fn query(
        &self,
        name: &Name,
        rtype: RecordType,
        with_opt: bool,
        ignored: &mut u64,
    ) -> io::Result<Result<LookupReply, TryFailure>> {
        let Some(connections) = &self.connections else {
            return self.ask_udp(&write_query(rand::random(), name, rtype, with_opt), ignored).await;
        };
        let asked = self.in_time(connections.ask(write_query(0, name, rtype, with_opt))).await;
        let read = |(query, message): (Vec<u8>, Vec<u8>)| LookupReply::read(&message, &query);
        Ok(asked.and_then(|asked| read(asked).ok_or(TryFailure::Unreachable)))
    }

    /// Sends a query by UDP and waits for a matching reply; counts any other datagram in `ignored`.
    async fn ask_udp(&self, query: &[u8], ignored: &mut u64) -> io::Result<Result<LookupReply, TryFailure>> {
        let client = UdpClient::bind(self.address)?;
        let mut reply = None;
        let talk = async {
            client.connect().await?;
            client.send(query).await?;
            let is_reply = |message: &[u8]| {
                reply = LookupReply::read(message, query);
                *ignored += u64::from(reply.is_none());
                reply.is_some()
            };
            client.receive(&mut [0; MAX_DATAGRAM], is_reply).await
        };
        let done = self.in_time(talk).await;
        Ok(done.and_then(|_| reply.ok_or(TryFailure::Silent)))
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

/// The cost of a look-up: tries, time, and datagrams that were no reply.
#[derive(Debug, Default)]
pub(super) struct LookupEffort {
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
