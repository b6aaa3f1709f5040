//! Asks one member of a pool a question: by UDP with a new socket and ID, and by TCP if the reply is
//! truncated; a stream backend on a new connection. A member without EDNS is asked without it, as clients'
//! queries are.

use std::io;
use std::time::Instant;

use dns::address::Scheme;
use dns::{Header, OwnEdns, QuestionFlags, Rcode, is_reply_to, write_own_query};
use engine::state::SharedBackend;
use net::proxy_protocol::ClientHeader;
use net::to_backends::client::UdpClient;
use net::to_backends::server_client::ServerTarget;
use net::to_backends::tls::BackendTls;
use tokio::time::timeout_at;

/// The question for a member.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaQuestion<'a> {
    /// Name, type and class in wire form.
    pub question: &'a [u8],
    /// The flags RD, CD and DO.
    pub flags: QuestionFlags,
    /// The OPT record, if the query has one.
    pub edns: Option<OwnEdns>,
}

/// A member, with its transport.
#[derive(Clone, Debug)]
pub struct ReplicaMember {
    scheme: Scheme,
    server: ServerTarget,
}

impl ReplicaMember {
    /// Makes a member from a backend.
    pub fn of(backend: &SharedBackend, tls: &BackendTls) -> Self {
        let server = ServerTarget::new(&backend.stream_server(), backend.wants_header, tls);
        Self { scheme: backend.address.scheme, server }
    }
}

/// Asks a member, and returns its complete reply, with matching ID and question (RFC 5452 section 9.1).
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] after the deadline, or the error of the network or the socket.
pub async fn ask(member: &ReplicaMember, asked: &ReplicaQuestion<'_>, deadline: Instant) -> io::Result<Vec<u8>> {
    timeout_at(deadline.into(), async {
        let reply = ask_once(member, asked, deadline).await?;
        let rcode = Header::read(&reply).map(Header::rcode);
        // RFC 6891 section 7: FORMERR; older servers send NOTIMP.
        let may_be_refusal = asked.edns.is_some() && matches!(rcode, Some(Rcode::FORMERR | Rcode::NOTIMP));
        if !may_be_refusal {
            return Ok(reply);
        }
        ask_once(member, &ReplicaQuestion { edns: None, ..*asked }, deadline).await
    })
    .await?
}

/// Asks once, without a retry without OPT.
async fn ask_once(member: &ReplicaMember, asked: &ReplicaQuestion<'_>, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut query = Vec::new();
    write_own_query(rand::random(), asked.question, asked.flags, asked.edns, &mut query);
    let ReplicaMember { scheme, server } = member;
    if !scheme.is_stream() {
        let reply = ask_by_udp(server, &query, deadline).await?;
        if !Header::read(&reply).is_some_and(Header::is_truncated) {
            return Ok(reply);
        }
    }
    let mut client = server.connect().await?;
    let reply = client.ask(&query).await?;
    // The connection carries one query, so any other message is an error.
    if is_reply_to(&reply, &query) { Ok(reply) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sends a query by UDP, and once more if no reply has come in half of the time, because a datagram may be
/// lost.
async fn ask_by_udp(server: &ServerTarget, query: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let header = if server.wants_header { ClientHeader::own().octets } else { Vec::new() };
    let datagram = [&header[..], query].concat();
    let now = Instant::now();
    let half = now + deadline.saturating_duration_since(now) / 2;
    UdpClient::bind(server.address)?.exchange(&datagram, [half, deadline], |message| is_reply_to(message, query)).await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use dns::{Flag, read_query, read_reply};
    use net::to_backends::connection::StreamProtocol;
    use testkit::TcpPeer;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;

    /// The question `www.` A IN.
    const QUESTION: &[u8] = b"\x03www\0\0\x01\0\x01";

    /// The behavior of a test server.
    #[derive(Clone, Copy, Debug)]
    enum Way {
        Say(Rcode),
        /// Replies FORMERR to OPT.
        OldServer,
        /// Replies to the second datagram only.
        SecondOnly,
        /// Truncates replies by UDP.
        Cut,
        /// Replies by TCP only.
        Stream,
        /// Expects a PROXY header of kind LOCAL, and truncates replies by UDP.
        Headed,
        /// Sends a wrong ID and a wrong question first.
        Forged,
        Silent,
    }

    /// Returns a reply to a query: the header and the question.
    fn reply_to(query: &[u8], rcode: Rcode, is_cut: bool) -> Vec<u8> {
        let header = Header::read(query).expect("a header").to_response().with_rcode(rcode);
        let header = header.with(Flag::Truncated, is_cut).with_counts([1, 0, 0, 0]);
        [&header.to_wire()[..], read_query(query).expect("a query").question.as_wire()].concat()
    }

    /// Asks a server with this behavior; returns its reply and the number of its queries.
    async fn play(way: Way, patience: Duration) -> (io::Result<Rcode>, usize) {
        // A port that is free for one transport may be in use for the other.
        let (socket, listener) = loop {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
            if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("an address")).await {
                break (socket, listener);
            }
        };
        let address = socket.local_addr().expect("an address");
        let scheme = if matches!(way, Way::Stream) { Scheme::Tcp } else { Scheme::Plain };
        let wants_header = matches!(way, Way::Headed);
        let server = ServerTarget { address, protocol: StreamProtocol::default(), tls: None, wants_header };
        let member = ReplicaMember { scheme, server };
        let edns = Some(OwnEdns { udp_size: 1232, wants_version: true });
        let asked = ReplicaQuestion { question: QUESTION, flags: QuestionFlags::default(), edns };
        let mut queries = 0;
        let serve = async {
            let mut buffer = [0; 512];
            if matches!(way, Way::Stream) {
                let (stream, _) = listener.accept().await.expect("a connection");
                let mut client = TcpPeer::over(stream);
                let query = client.receive().await.expect("a query");
                client.send(&reply_to(&query, Rcode::NXDOMAIN, false)).await.expect("it is sent");
            }
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.expect("a query");
                let header = if wants_header { ClientHeader::own().octets } else { Vec::new() };
                let query = buffer[..length].strip_prefix(&header[..]).expect("the header");
                queries += 1;
                let has_opt = read_query(query).expect("a query").edns.is_some();
                let reply = match way {
                    Way::Say(rcode) => reply_to(query, rcode, false),
                    Way::OldServer if has_opt => reply_to(query, Rcode::FORMERR, false),
                    Way::SecondOnly if queries == 1 => continue,
                    Way::OldServer | Way::SecondOnly | Way::Stream => reply_to(query, Rcode::NOERROR, false),
                    Way::Silent => continue,
                    Way::Cut | Way::Headed => {
                        socket.send_to(&reply_to(query, Rcode::NOERROR, true), from).await.expect("it is sent");
                        let (mut stream, _) = listener.accept().await.expect("a connection");
                        let mut came = vec![0; header.len()];
                        stream.read_exact(&mut came).await.expect("the header");
                        assert_eq!(came, header);
                        let mut client = TcpPeer::over(stream);
                        let query = client.receive().await.expect("a query");
                        client.send(&reply_to(&query, Rcode::NXDOMAIN, false)).await.expect("it is sent");
                        continue;
                    }
                    Way::Forged => {
                        let mut forged = reply_to(query, Rcode::REFUSED, false);
                        forged[0] ^= 1;
                        socket.send_to(&forged, from).await.expect("it is sent");
                        forged[0] ^= 1;
                        forged[14] ^= 1;
                        socket.send_to(&forged, from).await.expect("it is sent");
                        reply_to(query, Rcode::NOERROR, false)
                    }
                };
                socket.send_to(&reply, from).await.expect("it is sent");
            }
        };
        let said = tokio::select! {
            () = serve => unreachable!("it serves for ever"),
            said = ask(&member, &asked, Instant::now() + patience) => said,
        };
        (said.map(|reply| read_reply(&reply).expect("a reply").rcode()), queries)
    }

    #[tokio::test]
    async fn a_member_is_asked_until_it_has_said_something_whole() {
        const LONG: Duration = Duration::from_secs(30);
        let check = async |way, patience, rcode, queries| {
            let (said, seen) = play(way, patience).await;
            assert_eq!((said.ok(), seen), (Some(rcode), queries), "{way:?}");
        };
        check(Way::Say(Rcode::NOERROR), LONG, Rcode::NOERROR, 1).await;
        check(Way::Say(Rcode::SERVFAIL), LONG, Rcode::SERVFAIL, 1).await;
        check(Way::Say(Rcode::FORMERR), LONG, Rcode::FORMERR, 2).await;
        check(Way::OldServer, LONG, Rcode::NOERROR, 2).await;
        check(Way::Cut, LONG, Rcode::NXDOMAIN, 1).await;
        check(Way::Headed, LONG, Rcode::NXDOMAIN, 1).await;
        check(Way::Stream, LONG, Rcode::NXDOMAIN, 0).await;
        check(Way::Forged, LONG, Rcode::NOERROR, 1).await;
        check(Way::SecondOnly, Duration::from_millis(200), Rcode::NOERROR, 2).await;
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let (said, queries) = play(Way::Silent, Duration::from_millis(20)).await;
        assert_eq!((said.map_err(|error| error.kind()), queries), (Err(io::ErrorKind::TimedOut), 2));
    }
}
