//! Clients: one UDP socket or one TCP connection each.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::PATIENCE;
use crate::message::{Query, Response};

/// How long a server is waited for that may not be there.
const SOON: Duration = crate::ms(200);

/// A client over UDP. Its socket is connected, so it hears only what comes from the address it asked.
pub struct Client {
    /// Connected to the server.
    socket: UdpSocket,
}

impl Client {
    /// Creates a client with a new port.
    pub fn of(server: SocketAddr) -> Self {
        let local = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local).expect("a port is free");
        socket.connect(server).expect("loopback can be reached");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        Self { socket }
    }

    /// Creates a client with this local address and a new port.
    pub fn at(local: &str, server: SocketAddr) -> Self {
        let local: IpAddr = local.parse().expect("an address");
        let socket = UdpSocket::bind((local, 0)).expect("an address of this host, and a free port");
        socket.connect(server).expect("the server can be reached");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        Self { socket }
    }

    /// Returns the address of the client.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Sends and waits for the response, which must carry the query's ID.
    pub fn ask(&self, query: &Query) -> Response {
        self.send(query);
        let response = self.receive();
        assert_eq!(response.id(), query.id, "the response to another query: {response:?}");
        response
    }

    /// Returns the response if the server listens and responds soon: for a server that is still starting.
    pub fn try_ask(&self, query: &Query) -> Option<Response> {
        self.socket.set_read_timeout(Some(SOON)).expect("a timeout above zero");
        self.socket.send(&query.to_vec()).ok()?;
        let mut buffer = [0; 65_535];
        // What comes late for an earlier query is not what is waited for.
        loop {
            let length = self.socket.recv(&mut buffer).ok()?;
            let response = Response { bytes: buffer[..length].to_vec() };
            if response.id() == query.id {
                return Some(response);
            }
        }
    }

    /// Sends, and does not wait.
    pub fn send(&self, query: &Query) {
        self.send_bytes(&query.to_vec());
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send(bytes).expect("loopback takes a datagram");
    }

    /// Asserts that there is nothing to hear: sends one more query and wants its response first. Both
    /// take the same way through the server, so an answer to what was sent before would come earlier.
    pub fn receive_only(&self, fence: &Query) -> Response {
        self.ask(fence)
    }

    /// Waits for the next response.
    pub fn receive(&self) -> Response {
        let mut buffer = [0; 65_535];
        let length = loop {
            match self.socket.recv(&mut buffer) {
                // A signal to this process, a child's end say, cuts a wait with a timeout short.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.expect("a response in time"),
            }
        };
        Response { bytes: buffer[..length].to_vec() }
    }
}

/// A client over TCP.
pub struct TcpClient {
    stream: TcpStream,
}

impl TcpClient {
    /// Connects from a new port.
    pub fn of(server: SocketAddr) -> Self {
        Self::on(TcpStream::connect(server).expect("the server listens"))
    }

    /// Connects from another address of this host. With a small `window`, the client accepts few bytes that
    /// it does not read.
    pub fn with_window(local: IpAddr, window: usize, server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(window).expect("a TCP socket has a buffer");
        socket.bind(&SocketAddr::new(local, 0).into()).expect("a port is free");
        socket.connect(&server.into()).expect("the server listens");
        Self::on(socket.into())
    }

    /// Connects from another address of this machine, as another client.
    pub fn from(address: &str, server: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).expect("a socket");
        let from: SocketAddr = format!("{address}:0").parse().expect("an address");
        socket.bind(&from.into()).expect("all of 127.0.0.0/8 is ours");
        socket.connect(&server.into()).expect("the server listens");
        Self::on(socket.into())
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        // Else the kernel would gather single bytes into larger segments.
        stream.set_nodelay(true).expect("a TCP socket can do so");
        Self { stream }
    }

    /// Sends and waits for the response, which must carry the query's ID.
    pub fn ask(&mut self, query: &Query) -> Response {
        self.send(std::slice::from_ref(query));
        let response = self.receive();
        assert_eq!(response.id(), query.id, "the response to another query: {response:?}");
        response
    }

    /// The response to `query`, if the connection lives as long.
    pub fn try_ask(&mut self, query: &Query) -> Option<Response> {
        self.stream.write_all(&framed(&query.to_vec())).ok()?;
        self.try_receive().ok()
    }

    /// Sends all of them in one write, which is one segment while they are few.
    pub fn send(&mut self, queries: &[Query]) {
        let bytes: Vec<u8> = queries.iter().flat_map(|query| framed(&query.to_vec())).collect();
        self.send_bytes(&bytes);
    }

    /// Sends bytes as they are: the caller has framed them.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes octets");
    }

    /// Sends bytes as they are, if the server lets it: it may close the connection at some of them.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) {
        let _closed: io::Result<()> = self.stream.write_all(bytes);
    }

    /// Sends each byte in a separate segment.
    pub fn send_octet_by_octet(&mut self, query: &Query) {
        for octet in framed(&query.to_vec()) {
            self.send_bytes(&[octet]);
        }
    }

    /// Says that no more will be sent, and stays to listen.
    pub fn close_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Waits for the next response.
    pub fn receive(&mut self) -> Response {
        self.try_receive().expect("a response in time")
    }

    /// Receives so many responses, whatever their order; sorted by ID.
    pub fn receive_all(&mut self, count: usize) -> Vec<Response> {
        let mut responses: Vec<_> = (0..count).map(|_| self.receive()).collect();
        responses.sort_by_key(Response::id);
        responses
    }

    /// Waits until the server has closed the connection, and asserts that it said nothing more.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let ended = self.stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "nothing more was expected, but came: {rest:?}");
        // A server that closes with bytes of ours unread resets the connection.
        if let Err(e) = ended {
            assert_eq!(e.kind(), ErrorKind::ConnectionReset, "the connection stayed open");
        }
    }

    /// Returns true if the server closes the connection within this time, without a word.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout above zero");
        let read = self.stream.read(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        match read {
            Ok(octets) => octets == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    /// The next response, unless the connection ends or patience does.
    pub fn try_receive(&mut self) -> io::Result<Response> {
        let mut length = [0; 2];
        self.stream.read_exact(&mut length)?;
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        self.stream.read_exact(&mut bytes)?;
        Ok(Response { bytes })
    }
}

/// A message behind its length, as it goes over TCP (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}
