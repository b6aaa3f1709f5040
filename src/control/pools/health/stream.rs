//! Stream probes: the question goes over a kept connection, and now and then over a fresh one, as clients'
//! queries do.
//!
//! If the backend has closed the kept connection, the same probe goes over a fresh one at once.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;

use net::refusal::connect_problem;
use net::to_backends::server_client::{ConnectError, ServerClient, ServerTarget};
use tokio::sync::OwnedSemaphorePermit;

#[derive(Default)]
pub(super) struct KeptConnection {
    client: Option<ServerClient>,
    probes: u32,
}

impl KeptConnection {
    /// Returns `None` if a fresh connection is due.
    pub(super) fn take(&mut self) -> Option<ServerClient> {
        self.client.take().filter(|_| self.probes < PROBES)
    }

    fn keep(&mut self, client: ServerClient, is_fresh: bool) {
        self.probes = if is_fresh { 1 } else { self.probes + 1 };
        self.client = Some(client);
    }
}

type Talk = dyn Future<Output = Result<ProbedBy, ConnectError>>;

pub(super) struct StreamProbe {
    /// `None` after a failure, which counts as silence.
    talk: Option<Pin<Box<Talk>>>,
    _place: OwnedSemaphorePermit,
}

struct ProbedBy {
    client: ServerClient,
    is_fresh: bool,
    reply: Vec<u8>,
}

pub(super) enum StreamHeard {
    Reply(Vec<u8>),
    /// The reason why a connection failed, or reached another server.
    Refused(String),
}

impl StreamProbe {
    /// A fresh connection begins with a PROXY header if configured.
    pub(super) fn begin(
        kept: Option<ServerClient>,
        server: ServerTarget,
        query: Vec<u8>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let talk = async move {
            if let Some(mut client) = kept
                && let Ok(reply) = client.ask(&query).await
            {
                return Ok(ProbedBy { client, is_fresh: false, reply });
            }
            let mut client = server.connect().await?;
            let reply = client.ask(&query).await?;
            Ok(ProbedBy { client, is_fresh: true, reply })
        };
        Self { talk: Some(Box::pin(talk)), _place: place }
    }

    /// Waits for ever if there is no result.
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

/// The number of probes per connection. The tenth probe tests if the backend accepts new connections, which
/// old ones do not show (dnsdist issue 17707).
const PROBES: u32 = 9;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use dns::address::{BackendAddress, ServerIdentity};
    use dns::{Name, RecordType, write_plain_query};
    use net::to_backends::connection::StreamProtocol;
    use net::to_backends::tls::{ClientTls, TlsRoots, TrustRules};
    use testkit::{CertificateAuthority, TcpPeer};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// A server that counts its connections and closes each after this many replies.
    async fn serve(listener: TcpListener, replies: usize, connections: &std::cell::Cell<usize>) {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            connections.set(connections.get() + 1);
            let mut client = TcpPeer::over(stream);
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
        let server = ServerTarget {
            address: server,
            protocol: StreamProtocol::default(),
            tls: tls.map(Ok),
            wants_header: false,
        };
        StreamProbe::begin(kept.take(), server, query, place).heard(kept).await
    }

    /// Makes this many probes of a server that closes connections after some replies; returns the number of
    /// connections.
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
        let (ours, others) = (CertificateAuthority::new(), CertificateAuthority::new());
        let rules = TrustRules {
            identity: ServerIdentity { name: Some("dns.example".to_owned()), ..ServerIdentity::default() },
            roots: Some(TlsRoots::of_pem(ours.pem().as_bytes()).expect("PEM")),
            address: address.ip(),
            alpn: vec![b"dot".to_vec()],
            certificate: None,
            early_data: false,
            needs_tls_1_3: false,
        };
        let tls = Arc::new(ClientTls::new(&rules).expect("rules"));
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
        let StreamHeard::Refused(why) = heard else { panic!("another server answers") };
        assert_eq!(why, "the certificate is not signed by a trusted authority");
        drop(listener);
        let StreamHeard::Refused(why) = probe(address, None, &mut kept).await else { panic!("no server is there") };
        assert_eq!(why, "it takes no connections (connection refused)");
        assert!(kept.take().is_none());
    }
}
