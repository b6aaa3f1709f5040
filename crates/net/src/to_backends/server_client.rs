//! A client of one server over a stream, encrypted or plain, for occasional queries: probes, replica
//! comparison, `lookup`.
//!
//! A task drives a [`BackendConnection`] (TLS, HTTP, QUIC) over a socket here; in
//! [`backend_sockets`](crate::to_backends::sockets) the worker's turn does.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dns::address::StreamServer;
use dns::{Header, first_message};
use tokio::io::Interest;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::sleep_until;

use super::tls::{BackendTls, ClientTls};
use crate::proxy_protocol::ClientHeader;
use crate::sys::bind;
use crate::to_backends::connection::{
    BackendConnection, ConnectionFailure, ConnectionState, FailedQuery, StreamProtocol,
};

/// The reason why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server is unreachable, or ended the connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The server did not prove its identity, with the reason.
    #[error("{0}")]
    Untrusted(String),
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => error,
            ConnectError::Untrusted(problem) => Self::new(io::ErrorKind::PermissionDenied, problem),
        }
    }
}

/// A server with everything that a connection to it needs.
#[derive(Clone, Debug)]
pub struct ServerTarget {
    /// The address of the server.
    pub address: SocketAddr,
    /// The protocol of connections.
    pub protocol: StreamProtocol,
    /// The TLS configuration, or the reason why there is none; `None` without TLS.
    pub tls: Option<Result<Arc<ClientTls>, String>>,
    /// True if the server requires a PROXY header.
    pub wants_header: bool,
}

impl ServerTarget {
    /// Makes the target of a server.
    pub fn new(server: &StreamServer, wants_header: bool, tls: &BackendTls) -> Self {
        let tls = server.address.scheme.is_encrypted().then(|| tls.of(server));
        Self { address: server.address.socket, protocol: StreamProtocol::of(server), tls, wants_header }
    }

    /// Returns the TLS configuration.
    ///
    /// # Errors
    /// If there must be one and is none. This is no fault of the server.
    pub fn tls(&self) -> io::Result<Option<&ClientTls>> {
        self.tls.as_ref().map(|tls| tls.as_deref().map_err(|problem| io::Error::other(problem.clone()))).transpose()
    }

    /// Connects for our own queries.
    pub async fn connect(&self) -> Result<ServerClient, ConnectError> {
        let mut client = ServerClient::connect(self.address, &self.protocol, self.tls()?).await?;
        if self.wants_header {
            client.begin_with(&ClientHeader::own());
        }
        Ok(client)
    }
}

/// A stream client of one server.
pub struct ServerClient {
    socket: ServerSocket,
    connection: Box<dyn BackendConnection>,
    heard: VecDeque<ServerHeard>,
    room: Box<[u8]>,
}

enum ServerSocket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// An event from a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerHeard {
    /// A message.
    Message(Vec<u8>),
    /// A query that gets no reply.
    Failed(FailedQuery),
}

impl ServerClient {
    /// Connects to a server, encrypted if the parameters for that are given.
    pub async fn connect(
        server: SocketAddr,
        protocol: &StreamProtocol,
        tls: Option<&ClientTls>,
    ) -> Result<Self, ConnectError> {
        let mut connection = protocol.begin(tls, server, Instant::now()).map_err(io::Error::other)?;
        let socket = match protocol.is_by_udp() {
            true => {
                let socket = bind::asking(server.is_ipv6())?;
                socket.connect(server).await?;
                // The runtime does not know yet that the socket is writable, and datagrams would be lost.
                socket.writable().await?;
                ServerSocket::Udp(socket)
            }
            false => {
                let stream = TcpStream::connect(server).await?;
                // RFC 7766 section 8: each message leaves by itself.
                let _ = stream.set_nodelay(true);
                connection.connected();
                ServerSocket::Tcp(stream)
            }
        };
        let room = vec![0; READ].into_boxed_slice();
        let mut client = Self { socket, connection, heard: VecDeque::new(), room };
        while client.connection.state() != ConnectionState::Open {
            client.go_on().await?;
        }
        Ok(client)
    }

    /// Queues a PROXY header, for TCP servers that require one before the first query.
    pub fn begin_with(&mut self, header: &ClientHeader) {
        self.connection.queue_frames(&header.octets);
    }

    /// Queues a query, which leaves at the next call of `next`. Its reply has the same ID.
    pub fn queue(&mut self, query: &[u8]) -> io::Result<()> {
        Ok(self.connection.queue(query).ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Waits for the next event. Cancel safe.
    pub(crate) async fn next(&mut self) -> io::Result<ServerHeard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            self.go_on().await?;
        }
    }

    /// Receives the next message, whatever its query is.
    ///
    /// # Errors
    /// If the connection ends, or the server returns an error of its transport.
    pub async fn receive(&mut self) -> io::Result<Vec<u8>> {
        match self.next().await? {
            ServerHeard::Message(message) => Ok(message),
            ServerHeard::Failed(failed) => Err(io::Error::other(failed.problem)),
        }
    }

    /// Sends a query, and waits for the reply with its ID.
    pub async fn ask(&mut self, query: &[u8]) -> io::Result<Vec<u8>> {
        self.queue(query)?;
        let asked = Header::read(query).map(Header::id);
        loop {
            match self.next().await? {
                ServerHeard::Message(message) => {
                    let header = Header::read(&message);
                    // A late reply to an earlier query may arrive first.
                    if header.is_some_and(|header| header.is_response() && Some(header.id()) == asked) {
                        self.acknowledge();
                        return Ok(message);
                    }
                }
                ServerHeard::Failed(FailedQuery { id, problem }) if Some(id) == asked => {
                    return Err(io::Error::other(problem));
                }
                ServerHeard::Failed(_) => {}
            }
        }
    }

    /// Acknowledges the reply at once where the kernel does not. Otherwise the server would resend it until
    /// the next query.
    fn acknowledge(&mut self) {
        if matches!(self.socket, ServerSocket::Udp(_)) {
            self.connection.ping();
            let _ = self.write();
        }
    }

    async fn go_on(&mut self) -> Result<(), ConnectError> {
        self.write()?;
        let interest = match &self.socket {
            ServerSocket::Tcp(_) if self.connection.unwritten() > 0 => Interest::READABLE.add(Interest::WRITABLE),
            // QUIC resends datagrams that the kernel does not accept.
            ServerSocket::Tcp(_) | ServerSocket::Udp(_) => Interest::READABLE,
        };
        let timer = self.connection.next_timer();
        let at = timer.unwrap_or_else(Instant::now);
        let happened = tokio::select! {
            ready = self.socket.ready(interest) => {
                ready?;
                self.read()
            }
            () = sleep_until(at.into()), if timer.is_some() => self.connection.on_timer(Instant::now()).map_err(ended),
        };
        if happened.is_err() {
            let _ = self.write();
        }
        happened?;
        self.take_heard();
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        loop {
            let output = self.connection.output(Instant::now());
            if output.is_empty() {
                return Ok(());
            }
            match self.socket.send(output) {
                Ok(written) => self.connection.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn read(&mut self) -> Result<(), ConnectError> {
        match self.socket.receive(&mut self.room) {
            Ok(0) if matches!(self.socket, ServerSocket::Tcp(_)) => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            Ok(octets) => {
                let octets = self.room.get(..octets).unwrap_or_default();
                self.connection.hear(octets, Instant::now()).map_err(ended)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_heard(&mut self) {
        let mut frames = Vec::new();
        self.connection.take_messages(&mut frames);
        let mut rest = frames.as_slice();
        while let Some((message, end)) = first_message(rest) {
            self.heard.push_back(ServerHeard::Message(message.to_vec()));
            rest = rest.get(end..).unwrap_or_default();
        }
        let Some(news) = self.connection.take_news() else { return };
        let lost = |id| FailedQuery { id, problem: "it has not looked at the query".to_owned() };
        let failed = news.failed.into_iter().chain(news.lost.into_iter().map(lost));
        self.heard.extend(failed.map(ServerHeard::Failed));
    }

    /// Returns true if the server accepts no further queries on this connection.
    pub(crate) fn is_ending(&self) -> bool {
        self.connection.is_ending()
    }
}

impl Drop for ServerClient {
    fn drop(&mut self) {
        self.connection.close(Instant::now());
        let _ = self.write();
    }
}

impl ServerSocket {
    async fn ready(&self, interest: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.ready(interest).await.map(drop),
            Self::Udp(socket) => socket.ready(interest).await.map(drop),
        }
    }

    fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read(room),
            Self::Udp(socket) => socket.try_recv(room),
        }
    }

    fn send(&self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(octets),
            Self::Udp(socket) => socket.try_send(octets),
        }
    }
}

fn ended(broken: ConnectionFailure) -> ConnectError {
    match broken {
        ConnectionFailure::Tls(problem) => ConnectError::Untrusted(problem),
        ConnectionFailure::Protocol => ConnectError::Io(io::ErrorKind::InvalidData.into()),
        ConnectionFailure::TimedOut => ConnectError::Io(io::ErrorKind::TimedOut.into()),
        ConnectionFailure::Ended | ConnectionFailure::Reset | ConnectionFailure::Goaway => {
            ConnectError::Io(io::ErrorKind::ConnectionReset.into())
        }
    }
}

const READ: usize = 64 << 10;
