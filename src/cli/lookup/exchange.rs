//! One question put to the server until it replies: tries, EDNS fallback, TCP. Knows nothing of CNAME
//! chains, lists or output.
//!
//! ```text
//! A try, with a fresh ID and from a fresh port:
//!   ask by UDP with OPT, wait up to `timeout` for a reply that matches
//!   FORMERR or NOTIMP without OPT in it?   ask once more without OPT
//!   TC?                                    ask again by TCP, which has `timeout` of its own
//! The first try that ends with a whole reply ends the exchange; after the last one it is lost.
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time;

use super::connection::Connections;
use super::message::{Reply, write_query};
use crate::net::client::{TcpClient, UdpClient};
use crate::wire::{Name, Rcode, RecordType, Transport};

/// The server and how it is asked.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// How long each try may take.
    pub(super) timeout: Duration,
    /// How many tries one question gets, at least one.
    pub(super) tries: u8,
    /// The connection by which it is asked, if that is to be by stream.
    pub(super) connections: Option<Connections>,
}

impl Server {
    /// Asks one question. An error is one of this machine (no socket to be had), never of the server.
    pub(super) async fn ask(&self, name: &Name, rtype: RecordType) -> io::Result<Exchange> {
        let started = Instant::now();
        let mut exchange = Exchange { outcome: Err(Lost::Silent), tries: 0, elapsed: Duration::ZERO, ignored: 0 };
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

    async fn try_once(&self, name: &Name, rtype: RecordType, ignored: &mut u64) -> io::Result<Result<Answer, Lost>> {
        let by_stream = self.connections.as_ref();
        let asked = match by_stream {
            Some(connections) => self.ask_stream(connections, name, rtype, true).await,
            None => self.ask_udp(name, rtype, true, ignored).await?,
        };
        let mut reply = match asked {
            Ok(reply) => reply,
            Err(lost) => return Ok(Err(lost)),
        };
        // RFC 6891 section 7: servers that do not know OPT say FORMERR, some NOTIMP; one that sends OPT
        // itself means what it says. If nothing better comes, the failure stands.
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
            return Ok(Ok(Answer { reply, transport: connections.transport() }));
        }
        // RFC 7766 section 5: a truncated reply is asked for again by TCP. Part of an RRset is no answer.
        if reply.header.is_truncated() {
            return Ok(self.ask_tcp(name, rtype).await.map_err(|_| Lost::Truncated));
        }
        Ok(Ok(Answer { reply, transport: Transport::Udp }))
    }

    /// Asks by UDP and waits for a reply that matches; anything else is counted in `ignored`.
    async fn ask_udp(
        &self,
        name: &Name,
        rtype: RecordType,
        with_opt: bool,
        ignored: &mut u64,
    ) -> io::Result<Result<Reply, Lost>> {
        let client = UdpClient::bind(self.address)?;
        let query = write_query(rand::random(), name, rtype, with_opt);
        let mut reply = None;
        let talk = async {
            client.connect().await?;
            client.send(&query).await?;
            let is_reply = |message: &[u8]| {
                reply = Reply::read(message, &query);
                *ignored += u64::from(reply.is_none());
                reply.is_some()
            };
            client.receive(&mut [0; MAX_DATAGRAM], is_reply).await
        };
        let done = self.in_time(talk).await;
        Ok(done.and_then(|_| reply.ok_or(Lost::Silent)))
    }

    /// Asks over the connection that all names share.
    async fn ask_stream(
        &self,
        connections: &Connections,
        name: &Name,
        rtype: RecordType,
        with_opt: bool,
    ) -> Result<Reply, Lost> {
        let talk = connections.ask(write_query(0, name, rtype, with_opt));
        let (query, message) = self.in_time(talk).await?;
        Reply::read(&message, &query).ok_or(Lost::Unreachable)
    }

    async fn ask_tcp(&self, name: &Name, rtype: RecordType) -> Result<Answer, Lost> {
        let query = write_query(rand::random(), name, rtype, true);
        let talk = async {
            let mut client = TcpClient::connect(self.address).await?;
            client.send(&query).await?;
            let message = client.receive().await?;
            Reply::read(&message, &query).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let reply = self.in_time(talk).await?;
        Ok(Answer { reply, transport: Transport::Tcp })
    }

    /// What `talk` brings within `timeout`.
    async fn in_time<T>(&self, talk: impl Future<Output = io::Result<T>>) -> Result<T, Lost> {
        match time::timeout(self.timeout, talk).await {
            Ok(Ok(brought)) => Ok(brought),
            Ok(Err(_)) => Err(Lost::Unreachable),
            Err(_) => Err(Lost::Silent),
        }
    }
}

/// What asking one question came to.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The reply, or why there is none.
    pub(super) outcome: Result<Answer, Lost>,
    /// Tries made.
    pub(super) tries: u32,
    /// From the first query to the end.
    pub(super) elapsed: Duration,
    /// Datagrams that came but did not match or did not parse.
    pub(super) ignored: u64,
}

/// A whole reply.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// How it came.
    pub(super) transport: Transport,
}

/// Why the last try brought no whole reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing came in time.
    Silent,
    /// An ICMP error or a refused or broken connection: nobody serves there.
    Unreachable,
    /// UDP brought a truncated reply, TCP nothing.
    Truncated,
}

/// Room for a datagram, well above the UDP size that we offer.
const MAX_DATAGRAM: usize = 4096;
