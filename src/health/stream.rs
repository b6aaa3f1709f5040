//! Probes by stream: the question goes over a connection that is kept, and now and then over a fresh one, as clients' queries would
//! if theirs were gone.
//!
//! A kept connection that the backend has closed meanwhile speaks against nobody: the same probe goes over a fresh one at once.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::OwnedSemaphorePermit;

use crate::net::backend_connection::StreamProtocol;
use crate::net::client::ConnectError;
use crate::net::refusal::connect_problem;
use crate::net::server_client::ServerClient;
use crate::net::tls::ClientTls;

/// The connection of one backend's probes.
#[derive(Default)]
pub(super) struct KeptConnection {
    client: Option<ServerClient>,
    /// Probes that it has had.
    probes: u32,
}

impl KeptConnection {
    /// The connection for the next probe; none if that is to go over a fresh one.
    pub(super) fn take(&mut self) -> Option<ServerClient> {
        self.client.take().filter(|_| self.probes < PROBES)
    }

    /// Keeps the connection over which a probe was replied to.
    fn keep(&mut self, client: ServerClient, is_fresh: bool) {
        self.probes = if is_fresh { 1 } else { self.probes + 1 };
        self.client = Some(client);
    }
}

/// Question and reply, with the connection if there is none yet.
type Talk = dyn Future<Output = Result<ProbedBy, ConnectError>>;

/// A probe that is out.
pub(super) struct StreamProbe {
    /// None: it has come to nothing, and is waited for as if nothing had come.
    talk: Option<Pin<Box<Talk>>>,
    /// Its place among those that are out.
    _place: OwnedSemaphorePermit,
}

/// The connection over which a probe was replied to.
struct ProbedBy {
    client: ServerClient,
    is_fresh: bool,
    reply: Vec<u8>,
}

/// What came of a probe.
pub(super) enum StreamHeard {
    /// It was replied to, with this.
    Reply(Vec<u8>),
    /// No connection is taken, or it is somebody else who takes it: why.
    Refused(String),
}

impl StreamProbe {
    /// Asks a server this question, over a connection that is kept if there is one. A fresh one begins with a header, if the server
    /// wants to know who asks.
    pub(super) fn begin(
        kept: Option<ServerClient>,
        (server, protocol, wants_header): (SocketAddr, Arc<StreamProtocol>, bool),
        tls: Option<Arc<ClientTls>>,
        query: Vec<u8>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let talk = async move {
            if let Some(mut client) = kept
                && let Ok(reply) = client.ask(&query).await
            {
                return Ok(ProbedBy { client, is_fresh: false, reply });
            }
            let mut client = ServerClient::connect(server, &protocol, tls.as_deref()).await?;
            if wants_header {
                client.say_own();
            }
            let reply = client.ask(&query).await?;
            Ok(ProbedBy { client, is_fresh: true, reply })
        };
        Self { talk: Some(Box::pin(talk)), _place: place }
    }

    /// Waits for what comes of it; for ever, if that says nothing.
    pub(super) async fn heard(&mut self, kept: &mut KeptConnection) -> StreamHeard {
        poll_fn(|context| {
            let Some(talk) = &mut self.talk else { return Poll::Pending };
            let Poll::Ready(said) = talk.as_mut().poll(context) else { return Poll::Pending };
            self.talk = None;
            match said {
                Ok(ProbedBy { client, is_fresh, reply }) => {
                    kept.keep(client, is_fresh);
                    Poll::Ready(StreamHeard::Reply(reply))
                }
                Err(ConnectError::Untrusted(problem)) => Poll::Ready(StreamHeard::Refused(problem)),
                Err(ConnectError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    Poll::Ready(StreamHeard::Refused(connect_problem(&error)))
                }
                Err(ConnectError::Io(_)) => Poll::Pending,
            }
        })
        .await
    }
}

/// Probes over one connection: the tenth shows whether new ones are taken, which old ones do not tell (dnsdist issue 17707).
const PROBES: u32 = 9;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::address::BackendAddress;
    use crate::net::client::TcpClient;
    use crate::net::tls::tests::{Authority, rules};
    use crate::wire::{Name, RecordType, write_plain_query};

    /// A server that counts the connections that it has, and closes each after so many replies.
    async fn serve(listener: TcpListener, replies: usize, connections: &std::cell::Cell<usize>) {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            connections.set(connections.get() + 1);
            let mut client = TcpClient::over(stream);
            for _ in 0..replies {
                let Ok(mut message) = client.receive().await else { break };
                message[2] |= 0x80;
                client.send(&message).await.expect("it is sent");
            }
        }
    }

    async fn probe(server: SocketAddr, tls: Option<Arc<ClientTls>>, kept: &mut KeptConnection) -> StreamHeard {
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("a place");
        let mut query = Vec::new();
        write_plain_query(rand::random(), &Name::root(), RecordType::NS, &mut query);
        StreamProbe::begin(kept.take(), (server, Arc::default(), false), tls, query, place).heard(kept).await
    }

    /// Makes so many probes of a server that closes after so many replies; returns how many connections that took.
    async fn connections_of(probes: usize, replies: usize) -> usize {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let (address, connections) = (listener.local_addr().expect("an address"), std::cell::Cell::new(0));
        let mut kept = KeptConnection::default();
        let all = async {
            for _ in 0..probes {
                assert!(matches!(probe(address, None, &mut kept).await, StreamHeard::Reply(_)));
            }
        };
        tokio::select! {
            () = serve(listener, replies, &connections) => {}
            () = all => {}
        }
        connections.get()
    }

    #[tokio::test]
    async fn the_tenth_goes_over_a_fresh_connection() {
        assert_eq!(connections_of(9, 100).await, 1);
        assert_eq!(connections_of(10, 100).await, 2);
        assert_eq!(connections_of(18, 100).await, 2);
        assert_eq!(connections_of(19, 100).await, 3);
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_speaks_against_nobody() {
        assert_eq!(connections_of(6, 2).await, 3);
    }

    #[tokio::test]
    async fn who_takes_no_connection_or_is_somebody_else_says_so_at_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = BackendAddress::from(listener.local_addr().expect("an address")).socket;
        let (ours, others) = (Authority::new(), Authority::new());
        let tls = Arc::new(ClientTls::new(&rules(&ours, Some("dns.example"))).expect("rules"));
        let acceptor = TlsAcceptor::from(others.leaf(&["dns.example"]).server());
        let mut kept = KeptConnection::default();
        let accept = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            let _ = acceptor.accept(stream).await;
            std::future::pending().await
        };
        let heard = tokio::select! {
            never = accept => never,
            heard = probe(address, Some(tls), &mut kept) => heard,
        };
        let StreamHeard::Refused(why) = heard else { panic!("it is somebody else") };
        assert_eq!(why, "its certificate is from nobody whom we trust");
        drop(listener);
        let StreamHeard::Refused(why) = probe(address, None, &mut kept).await else { panic!("nobody is there") };
        assert_eq!(why, "it takes no connections (connection refused)");
        assert!(kept.take().is_none());
    }
}
