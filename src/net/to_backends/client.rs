//! A small DNS client for occasional queries: `lookup`, probes, secondaries, NOTIFY. Client queries use
//! [`crate::net::to_backends::sockets`] and [`super::streams`] instead, which share sockets and connections.
//!
//! [`UdpClient`] receives from one server on a random port; its caller decides which datagrams are replies
//! ([`is_reply_to`](crate::wire::is_reply_to)). [`TcpClient`] exchanges framed messages over any stream. The
//! caller handles truncated replies, timeouts and errors.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout_at;

use crate::net::sys::{bind, options};
use crate::wire::append_frame;

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

    /// Makes the kernel keep the datagrams of ICMP errors (see [`options::keep_errors`]).
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
}

/// A client of one server over a stream.
#[derive(Debug)]
pub struct TcpClient<S = TcpStream> {
    stream: BufReader<S>,
}

impl TcpClient {
    /// Connects to a server.
    pub async fn connect(server: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(server).await.map(Self::over)
    }
}

/// The reason why there is no connection to a server.
#[derive(Debug)]
pub enum ConnectError {
    /// The server is unreachable, or ended the connection.
    Io(io::Error),
    /// The server did not prove its identity, with the reason.
    Untrusted(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => error,
            ConnectError::Untrusted(problem) => Self::new(io::ErrorKind::PermissionDenied, problem),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TcpClient<S> {
    /// Creates a client over a TCP or TLS stream.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(READ_AHEAD, stream) }
    }

    /// Sends a query.
    pub async fn send(&mut self, query: &[u8]) -> io::Result<()> {
        // RFC 7766 section 8: length and message in one write, so that they leave in one segment.
        let mut frame = Vec::new();
        append_frame(query, &mut frame).ok_or(io::ErrorKind::InvalidInput)?;
        self.stream.write_all(&frame).await
    }

    /// Receives the next message.
    pub async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        self.stream.read_exact(&mut message).await?;
        Ok(message)
    }
}

/// The read buffer in bytes, large because of transfers.
const READ_AHEAD: usize = 64 << 10;

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

    #[tokio::test]
    async fn messages_go_over_any_stream_in_their_frames() {
        let (near, mut far) = tokio::io::duplex(1 << 17);
        let mut client = TcpClient::over(near);
        client.send(b"query").await.expect("it is sent");
        let mut sent = [0; 7];
        far.read_exact(&mut sent).await.expect("a frame");
        assert_eq!(&sent, b"\0\x05query");
        far.write_all(b"\0\x01a\0\0\0\x02bc\0").await.expect("it is sent");
        drop(far);
        for expected in [&b"a"[..], b"", b"bc"] {
            assert_eq!(client.receive().await.expect("a message"), expected);
        }
        assert_eq!(client.receive().await.expect_err("half a length").kind(), io::ErrorKind::UnexpectedEof);
        let too_long = client.send(&vec![0; 65_536]).await.expect_err("no frame is so long");
        assert_eq!(too_long.kind(), io::ErrorKind::InvalidInput);
    }
}
