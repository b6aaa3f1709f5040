//! A small DNS client, for whoever asks a server now and then: `lookup`, probes, secondaries, NOTIFY. Queries of clients go over
//! [`super::backend_sockets`] and [`super::streams`] instead, which share sockets and connections among many.
//!
//! [`UdpClient`] hears one server only, from a random port of its own, and takes what its caller says is a reply;
//! [`is_reply_to`](crate::wire::is_reply_to) says that of ID and question. [`TcpClient`] sends and receives messages in their
//! frames, over any stream. What follows a truncated reply, silence or an error is for the caller to say.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout_at;

use super::{bind, options};
use crate::wire::append_frame;

/// Asks one server by UDP.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    server: SocketAddr,
}

impl UdpClient {
    /// A client with a socket on a random port (RFC 5452 section 9.2), which is not connected yet.
    ///
    /// # Errors
    /// If this machine has no socket to give: that says nothing about the server.
    pub fn bind(server: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: bind::asking(server.is_ipv6())?, server })
    }

    /// Makes the socket hear this server alone, and tell of ICMP errors.
    ///
    /// # Errors
    /// If no way leads to the server.
    pub async fn connect(&self) -> io::Result<()> {
        self.socket.connect(self.server).await
    }

    /// Has the kernel keep the datagrams that ICMP errors are about, for [`options::keep_errors`].
    pub fn keep_errors(&self) {
        options::keep_errors(&self.socket, self.server.is_ipv6());
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The address that queries leave from.
    ///
    /// # Errors
    /// If the socket is not connected.
    pub fn local_ip(&self) -> io::Result<IpAddr> {
        self.socket.local_addr().map(|local| local.ip())
    }

    /// Sends a query.
    ///
    /// # Errors
    /// Its own, or an ICMP error about an earlier one.
    pub async fn send(&self, query: &[u8]) -> io::Result<()> {
        self.socket.send(query).await.map(drop)
    }

    /// Waits for a reply, whose length it returns. What is none is read past: it is likely a forgery (RFC 5452 section 9.1), and
    /// to fail would hand the forger a cheap win.
    ///
    /// # Errors
    /// An ICMP error about a query.
    pub async fn receive(&self, buffer: &mut [u8], mut is_reply: impl FnMut(&[u8]) -> bool) -> io::Result<usize> {
        loop {
            let len = self.socket.recv(buffer).await?;
            if is_reply(buffer.get(..len).unwrap_or_default()) {
                return Ok(len);
            }
        }
    }

    /// The same until a deadline.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] after that, and an ICMP error about a query.
    pub async fn receive_by(
        &self,
        deadline: Instant,
        buffer: &mut [u8],
        is_reply: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<usize> {
        timeout_at(deadline.into(), self.receive(buffer, is_reply)).await?
    }
}

/// Asks one server over a stream.
#[derive(Debug)]
pub struct TcpClient<S = TcpStream> {
    /// The stream, which is read ahead.
    stream: BufReader<S>,
}

impl TcpClient {
    /// A connection to a server.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn connect(server: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(server).await.map(Self::over)
    }
}

/// Why there is no connection to a server.
#[derive(Debug)]
pub enum ConnectError {
    /// It cannot be reached, or ends the connection.
    Io(io::Error),
    /// It does not show that it is the one that is meant: why.
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
    /// A client over a stream, of TCP or of what is within that.
    pub fn over(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(READ_AHEAD, stream) }
    }

    /// Sends a query.
    ///
    /// # Errors
    /// If the connection is lost, or no frame holds the query.
    pub async fn send(&mut self, query: &[u8]) -> io::Result<()> {
        // RFC 7766 section 8: length and message in one write, so that they leave in one segment.
        let mut frame = Vec::new();
        append_frame(query, &mut frame).ok_or(io::ErrorKind::InvalidInput)?;
        self.stream.write_all(&frame).await
    }

    /// The next message.
    ///
    /// # Errors
    /// If the connection ends before its end.
    pub async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let length = self.stream.read_u16().await?;
        let mut message = vec![0; usize::from(length)];
        self.stream.read_exact(&mut message).await?;
        Ok(message)
    }
}

/// Octets read from a stream at a time: transfers are long.
const READ_AHEAD: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;

    /// A client of a socket, connected.
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
        let error = client.receive_by(deadline, &mut [0; 16], |_| true).await.expect_err("nobody replies");
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
