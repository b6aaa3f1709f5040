//! A small UDP client for occasional queries: `lookup`, probes, secondaries, NOTIFY. Client queries use
//! [`crate::to_backends::sockets`] instead, which shares sockets.
//!
//! [`UdpClient`] receives from one server on a random port; its caller decides which datagrams are replies
//! ([`is_reply_to`](dns::is_reply_to)), and handles truncated replies, timeouts and errors.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use crate::sys::{bind, options};

/// A UDP client of one server.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    server: SocketAddr,
}

impl UdpClient {
    /// Binds a socket to a random port (RFC 5452 section 9.2) without connecting it.
    pub fn bind(server: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: bind::asking(server.is_ipv6())?, server })
    }

    /// Connects the socket, so that it receives from this server only and reports ICMP errors.
    pub async fn connect(&self) -> io::Result<()> {
        self.socket.connect(self.server).await
    }

    /// Makes the kernel keep the datagrams of ICMP errors (see `options::keep_errors`).
    pub fn keep_errors(&self) {
        options::keep_errors(&self.socket, self.server.is_ipv6());
    }

    /// Returns the socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Returns the local address of queries.
    pub fn local_ip(&self) -> io::Result<IpAddr> {
        self.socket.local_addr().map(|local| local.ip())
    }

    /// Sends a query.
    ///
    /// # Errors
    /// An error of this call, or an ICMP error of an earlier query.
    pub async fn send(&self, query: &[u8]) -> io::Result<()> {
        self.socket.send(query).await.map(drop)
    }

    /// Waits for a reply and returns its length. Other datagrams are skipped: they are likely forged (RFC
    /// 5452 section 9.1), and failing would let the forger win.
    ///
    /// # Errors
    /// An ICMP error of a query.
    pub async fn receive(&self, buffer: &mut [u8], mut is_reply: impl FnMut(&[u8]) -> bool) -> io::Result<usize> {
        loop {
            let len = self.socket.recv(buffer).await?;
            if is_reply(buffer.get(..len).unwrap_or_default()) {
                return Ok(len);
            }
        }
    }

    /// Waits for a reply until a deadline.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline, or an ICMP error of a query.
    pub async fn receive_by(
        &self,
        deadline: Instant,
        buffer: &mut [u8],
        is_reply: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<usize> {
        timeout_at(deadline.into(), self.receive(buffer, is_reply)).await?
    }

    /// Connects, sends a datagram, and returns the reply. If none comes in time, it sends the datagram again,
    /// once for each of these times, because datagrams may be lost.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after the last time, or an ICMP error of a query.
    pub async fn exchange(
        &self,
        datagram: &[u8],
        times: impl IntoIterator<Item = Instant>,
        is_reply: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<u8>> {
        self.connect().await?;
        let mut buffer = vec![0; MAX_REPLY];
        for until in times {
            self.send(datagram).await?;
            match self.receive_by(until, &mut buffer, &is_reply).await {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                length => {
                    buffer.truncate(length?);
                    return Ok(buffer);
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Bytes of the longest reply that is read whole: no query here offers more.
const MAX_REPLY: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    /// Connects a client to a socket.
    async fn client_of(server: &UdpSocket) -> UdpClient {
        let client = UdpClient::bind(server.local_addr().expect("an address")).expect("a socket");
        client.connect().await.expect("loopback");
        client
    }

    #[tokio::test]
    async fn what_is_no_reply_and_what_comes_from_elsewhere_is_read_past() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let client = client_of(&server).await;
        client.send(b"query").await.expect("it is sent");
        let (mut buffer, mut seen) = ([0; 16], Vec::new());
        let (_, from) = server.recv_from(&mut buffer).await.expect("a query");
        stranger.send_to(b"stranger", from).await.expect("it is sent");
        server.send_to(b"forged", from).await.expect("it is sent");
        server.send_to(b"reply", from).await.expect("it is sent");
        let is_reply = |message: &[u8]| {
            seen.push(message.to_vec());
            message == b"reply"
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        assert_eq!(client.receive_by(deadline, &mut buffer, is_reply).await.expect("a reply"), 5);
        assert_eq!(seen, [b"forged".to_vec(), b"reply".to_vec()]);
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let client = client_of(&server).await;
        client.send(b"query").await.expect("it is sent");
        let deadline = Instant::now() + Duration::from_millis(5);
        let error = client.receive_by(deadline, &mut [0; 16], |_| true).await.expect_err("no server replies");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(Instant::now() >= deadline);
    }
}
