//! The stream connection that all look-ups share. If it stalls, the next query uses a new one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dns::Transport;
use dns::address::Scheme;
use net::to_backends::connection::StreamProtocol;
use net::to_backends::server_client::{ConnectError, ServerClient};
use net::to_backends::shared_client::SharedClient;
use net::to_backends::tls::ClientTls;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

#[derive(Debug)]
pub(super) struct LookupConnections {
    server: SocketAddr,
    scheme: Scheme,
    protocol: StreamProtocol,
    tls: Option<ClientTls>,
    /// Locked while a connection is made, so that concurrent queries make only one.
    current: Mutex<CurrentConnection>,
}

#[derive(Debug, Default)]
struct CurrentConnection {
    client: Option<Arc<SharedClient>>,
    untrusted: Option<String>,
    tasks: JoinSet<()>,
}

impl LookupConnections {
    pub(super) fn new(server: SocketAddr, scheme: Scheme, protocol: StreamProtocol, tls: Option<ClientTls>) -> Self {
        Self { server, scheme, protocol, tls, current: Mutex::default() }
    }

    pub(super) fn transport(&self) -> Transport {
        match self.scheme {
            Scheme::Plain | Scheme::Tcp => Transport::Tcp,
            Scheme::Tls => Transport::Tls,
            Scheme::Https => Transport::Https,
            Scheme::Http => Transport::Http,
            Scheme::Quic => Transport::Quic,
        }
    }

    pub(super) async fn untrusted(&self) -> Option<String> {
        self.current.lock().await.untrusted.clone()
    }

    /// Sends a query under a new ID and returns it with its reply. If the caller drops the future early, a
    /// silent connection counts as stalled.
    pub(super) async fn ask(&self, query: Vec<u8>) -> io::Result<(Vec<u8>, Vec<u8>)> {
        self.open().await?.ask(query).await
    }

    async fn open(&self) -> io::Result<Arc<SharedClient>> {
        let CurrentConnection { client, untrusted, tasks } = &mut *self.current.lock().await;
        if let Some(problem) = untrusted {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem.clone()));
        }
        if let Some(client) = client.as_ref().filter(|known| !known.is_retired()) {
            return Ok(Arc::clone(client));
        }
        let connected = ServerClient::connect(self.server, &self.protocol, self.tls.as_ref()).await;
        let connected = connected.inspect_err(|error| {
            if let ConnectError::Untrusted(problem) = error {
                *untrusted = Some(problem.clone());
            }
        })?;
        let (fresh, driven) = SharedClient::begin(async { Ok(connected) }, IDLE, |_| ());
        tasks.spawn(async { _ = driven.await });
        Ok(Arc::clone(client.insert(Arc::new(fresh))))
    }
}

/// No server keeps an idle connection for longer.
const IDLE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use testkit::TcpPeer;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    const QUERY: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01";

    fn by_tcp(server: SocketAddr) -> LookupConnections {
        LookupConnections::new(server, Scheme::Tcp, StreamProtocol::Frames, None)
    }

    /// Returns the reply to a query: the query with QR set.
    fn reply_to(query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[tokio::test]
    async fn replies_find_who_waits_for_them_and_a_stall_costs_one_try() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let connections = Arc::new(by_tcp(listener.local_addr().expect("an address")));
        let ask = || {
            let connections = Arc::clone(&connections);
            tokio::spawn(async move { connections.ask(QUERY.to_vec()).await })
        };
        let asked: Vec<_> = (0..3).map(|_| ask()).collect();
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut first = TcpPeer::over(stream);
        let mut queries = Vec::new();
        for _ in 0..3 {
            queries.push(first.receive().await.expect("a query"));
        }
        for query in queries.iter().rev() {
            first.send(&reply_to(query)).await.expect("it is sent");
        }
        for asked in asked {
            let (query, reply) = asked.await.expect("no panic").expect("a reply");
            assert_eq!(reply_to(&query), reply);
        }
        // The same connection is now silent: after this timeout the next query uses another one.
        let silent = timeout(Duration::from_millis(50), connections.ask(QUERY.to_vec())).await;
        assert!(silent.is_err());
        let next = ask();
        let (stream, _) = listener.accept().await.expect("another connection");
        let mut second = TcpPeer::over(stream);
        let query = second.receive().await.expect("a query");
        second.send(&reply_to(&query)).await.expect("it is sent");
        assert_eq!(next.await.expect("no panic").expect("a reply").1, reply_to(&query));
        // The server closes the connection: the pending query fails, and the next one uses a third
        // connection.
        let lost = ask();
        second.receive().await.expect("a query");
        drop(second);
        assert!(lost.await.expect("no panic").is_err());
    }
}
