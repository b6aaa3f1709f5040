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

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time;

use super::message::{Asked, Reply};
use crate::net::bind;
use crate::wire::{Name, Rcode, RecordType};

/// The server and how it is asked.
#[derive(Debug)]
pub(super) struct Server {
    /// Its address.
    pub(super) address: SocketAddr,
    /// How long each try may take.
    pub(super) timeout: Duration,
    /// How many tries one question gets, at least one.
    pub(super) tries: u8,
    /// Ask by TCP at once.
    pub(super) tcp_only: bool,
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

    /// One try.
    async fn try_once(&self, name: &Name, rtype: RecordType, ignored: &mut u64) -> io::Result<Result<Answer, Lost>> {
        if self.tcp_only {
            return Ok(self.ask_tcp(name, rtype).await);
        }
        let mut reply = match self.ask_udp(name, rtype, true, ignored).await? {
            Ok(reply) => reply,
            Err(lost) => return Ok(Err(lost)),
        };
        // RFC 6891 section 7: servers that do not know OPT say FORMERR, some NOTIMP; one that sends OPT
        // itself means what it says. If nothing better comes, the failure stands.
        if matches!(reply.rcode, Rcode::FORMERR | Rcode::NOTIMP)
            && reply.opt.is_none()
            && let Ok(plain) = self.ask_udp(name, rtype, false, ignored).await?
        {
            reply = plain;
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
        // RFC 5452 section 9.2: ports are as unpredictable as IDs. The kernel picks a random free one, and
        // since the socket is connected drops what does not come from the server and reports ICMP errors.
        let socket = bind::asking(self.address.is_ipv6())?;
        let asked = Asked { id: rand::random(), name, rtype };
        let talk = async {
            socket.connect(self.address).await?;
            socket.send(&asked.to_wire(with_opt)).await?;
            let mut buffer = [0; MAX_DATAGRAM];
            loop {
                let length = socket.recv(&mut buffer).await?;
                match Reply::read(buffer.get(..length).unwrap_or_default(), &asked) {
                    Some(reply) => return Ok::<_, io::Error>(reply),
                    // Likely a forgery attempt or a broken server: failing the try would hand the forger
                    // a cheap win.
                    None => *ignored += 1,
                }
            }
        };
        Ok(self.in_time(talk).await)
    }

    /// Asks by TCP (RFC 7766 section 8: two octets of length in front).
    async fn ask_tcp(&self, name: &Name, rtype: RecordType) -> Result<Answer, Lost> {
        let asked = Asked { id: rand::random(), name, rtype };
        let talk = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let query = asked.to_wire(true);
            let length = u16::try_from(query.len()).map_err(io::Error::other)?;
            // One write, so that length and query leave in one segment.
            stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat()).await?;
            let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
            stream.read_exact(&mut bytes).await?;
            Reply::read(&bytes, &asked).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        let reply = self.in_time(talk).await?;
        Ok(Answer { reply, transport: Transport::Tcp })
    }

    /// What `talk` brings within `timeout`.
    async fn in_time(&self, talk: impl Future<Output = io::Result<Reply>>) -> Result<Reply, Lost> {
        match time::timeout(self.timeout, talk).await {
            Ok(Ok(reply)) => Ok(reply),
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
    /// The reply.
    pub(super) reply: Reply,
    /// How it came.
    pub(super) transport: Transport,
}

/// How a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// In a datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

impl Transport {
    /// The word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
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
