//! Members from a DNS name. The resolvers are asked by TCP, because some cut UDP answers without TC; by UDP
//! if they refuse TCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use config::DnsTarget;
use dns::{Header, is_reply_to, write_recursive_query};
use hedge::backoff::Backoff;
use limit::OwnAddresses;
use net::tasks::blocking;
use net::to_backends::client::UdpClient;
use net::to_backends::connection::StreamProtocol;
use net::to_backends::server_client::ServerClient;
use tokio::time::{sleep_until, timeout};

use super::{FIRST_BACKOFF, random_wait};
use crate::control::pools::discover::SourceNews;
use crate::control::pools::discover::dns::{DnsQuestion, DnsResolution, ResolutionResult};

/// A name that lists members, and its resolvers.
pub(super) struct DnsSource {
    pub(super) target: Box<DnsTarget>,
    /// If empty, the resolvers of /etc/resolv.conf.
    pub(super) resolvers: Vec<SocketAddr>,
    /// hedgerow's listeners, which must not be asked: they would ask this process in turn.
    pub(super) own: Rc<dyn Fn() -> OwnAddresses>,
}

enum ResolverTransport {
    Tcp(Box<ServerClient>),
    Udp(SocketAddr),
}

impl DnsSource {
    pub(super) async fn run(self, report: impl AsyncFn(SourceNews)) {
        let mut backoff = Backoff::new(FIRST_BACKOFF);
        loop {
            match self.resolve().await {
                Ok(ResolutionResult { items, ttl }) => {
                    backoff.reset();
                    report(SourceNews::Listed(items)).await;
                    sleep_until((Instant::now() + ttl).into()).await;
                }
                Err(reason) => {
                    report(SourceNews::Failed(reason)).await;
                    sleep_until((Instant::now() + random_wait(&mut backoff)).into()).await;
                }
            }
        }
    }

    /// Asks one resolver after the other, until one has a result.
    async fn resolve(&self) -> Result<ResolutionResult, String> {
        let resolvers = match self.resolvers.is_empty() {
            false => self.resolvers.clone(),
            true => blocking(system_resolvers).await?,
        };
        let own = (self.own)();
        let mut last = format!("{}: there is no resolver to ask", self.target);
        for resolver in resolvers {
            if own.are_source(resolver.ip(), resolver.port(), None) {
                last = format!("{resolver} is a listener of this process: name another in `resolvers`");
                continue;
            }
            match timeout(PATIENCE, self.ask(resolver)).await {
                Ok(Ok(resolved)) => return Ok(resolved),
                Ok(Err(reason)) => last = format!("{resolver}: {reason}"),
                Err(_) => last = format!("{resolver}: no reply within {} s", PATIENCE.as_secs()),
            }
        }
        Err(last)
    }

    async fn ask(&self, resolver: SocketAddr) -> Result<ResolutionResult, String> {
        let mut resolution = DnsResolution::new(&self.target);
        let mut way = ResolverTransport::open(resolver).await.map_err(|error| error.to_string())?;
        while let Some(question) = resolution.question().cloned() {
            let reply = match timeout(REPLY, way.exchange(&question)).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("no reply within {} s", REPLY.as_secs())),
            };
            resolution.on_reply(&reply)?;
        }
        Ok(resolution.finish())
    }
}

impl ResolverTransport {
    async fn open(resolver: SocketAddr) -> io::Result<Self> {
        let connected = timeout(REPLY, ServerClient::connect(resolver, &StreamProtocol::Frames, None)).await;
        match connected.map(|connected| connected.map_err(io::Error::from)) {
            Ok(Ok(client)) => Ok(Self::Tcp(Box::new(client))),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Self::Udp(resolver)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TCP connection timed out")),
        }
    }

    async fn exchange(&mut self, question: &DnsQuestion) -> io::Result<Vec<u8>> {
        let query = || {
            let mut query = Vec::new();
            write_recursive_query(rand::random(), &question.name, question.rtype, None, &mut query);
            query
        };
        let resolver = match self {
            Self::Tcp(client) => {
                let query = query();
                client.queue(&query)?;
                loop {
                    let reply = client.receive().await?;
                    if is_reply_to(&reply, &query) {
                        return Ok(reply);
                    }
                }
            }
            Self::Udp(resolver) => *resolver,
        };
        let mut buffer = vec![0; MAX_REPLY];
        loop {
            // A new ID and port each time: a forger must start again (RFC 5452 section 9.2).
            let (query, client) = (query(), UdpClient::bind(resolver)?);
            client.connect().await?;
            client.send(&query).await?;
            let until = Instant::now() + SEND_AGAIN;
            match client.receive_by(until, &mut buffer, |message| is_reply_to(message, &query)).await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
                length => buffer.truncate(length?),
            }
            if Header::read(&buffer).is_some_and(Header::is_truncated) {
                return Err(io::Error::other("the reply is truncated, and the server refuses TCP"));
            }
            return Ok(buffer);
        }
    }
}

fn system_resolvers() -> Result<Vec<SocketAddr>, String> {
    let text = std::fs::read_to_string(RESOLV_CONF).map_err(|error| format!("{RESOLV_CONF}: {error}"))?;
    let resolvers = resolvers_of(&text);
    match resolvers.is_empty() {
        // resolv.conf(5): the default is the name server on the local machine.
        true => Ok(vec![SocketAddr::from(([127, 0, 0, 1], 53))]),
        false => Ok(resolvers),
    }
}

fn resolvers_of(text: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        // Cuts the zone of a link-local address: fe80::1%eth0.
        let ip = words.next().filter(|_| is_server)?.split('%').next()?.parse::<IpAddr>().ok()?;
        Some(SocketAddr::new(ip, 53))
    };
    text.lines().filter_map(of_line).collect()
}

const RESOLV_CONF: &str = "/etc/resolv.conf";

const PATIENCE: Duration = Duration::from_secs(10);

const REPLY: Duration = Duration::from_secs(3);

const SEND_AGAIN: Duration = Duration::from_secs(1);

/// Bytes of the longest UDP reply: these queries have no EDNS.
const MAX_REPLY: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read() {
        let text = "# a comment\nnameserver 192.0.2.1\nsearch example\n nameserver\t2001:db8::1 # more\nnameserver x\n\
                    nameserver fe80::1%eth0\n";
        let expected =
            ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1]:53"].map(|text| text.parse().expect("an address"));
        assert_eq!(resolvers_of(text), expected);
        assert_eq!(resolvers_of(""), []);
    }

    #[tokio::test]
    async fn a_repeat_by_udp_has_another_id_and_another_port() {
        let resolver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let mut way = ResolverTransport::Udp(resolver.local_addr().expect("it is bound"));
        let target = DnsTarget::Host { name: "ts.example".parse().expect("a name"), port: 53 };
        let question = DnsResolution::new(&target).question().cloned().expect("the first");
        let server = async {
            let (mut first, mut second) = ([0; MAX_REPLY], [0; MAX_REPLY]);
            let (_, from) = resolver.recv_from(&mut first).await.expect("a query");
            let (length, again) = resolver.recv_from(&mut second).await.expect("the query once more");
            assert_ne!((from.port(), &first[..2]), (again.port(), &second[..2]));
            second[2] |= 0x80;
            resolver.send_to(&second[..length], again).await.expect("loopback takes it");
            second[..2].to_vec()
        };
        let (reply, id) = tokio::join!(way.exchange(&question), server);
        assert_eq!(reply.expect("a reply")[..2], id);
    }
}
