//! Clients by TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::{PATIENCE, Query, Response, framed};

/// A client by TLS.
pub struct TlsClient {
    session: ClientConnection,
    socket: TcpStream,
}

impl TlsClient {
    /// Connects to a server whose certificate must carry this name, and completes the handshake.
    pub fn of(server: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        Self::try_of(server, config, name).expect("a server that is who it says")
    }

    /// Connects to a server that may refuse.
    pub fn try_of(server: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        Self::try_over(TcpStream::connect(server)?, config, name)
    }

    /// Makes a handshake over an existing connection.
    pub fn over(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Self {
        Self::try_over(socket, config, name).expect("a server that is who it says")
    }

    /// Makes a handshake over an existing connection to a server that may refuse.
    pub fn try_over(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let mut client = Self::begun(socket, config, name);
        while client.session.is_handshaking() {
            client.session.complete_io(&mut client.socket)?;
        }
        Ok(client)
    }

    /// Says the first word of the handshake, and does not wait.
    pub fn send_hello(&mut self) {
        self.send_bytes(b"");
    }

    /// Goes through with the handshake.
    pub fn shake_hands(&mut self) {
        while self.session.is_handshaking() {
            self.session.complete_io(&mut self.socket).expect("a server that is who it says");
        }
    }

    /// Connected, without a word of the handshake.
    pub fn connected(server: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        Self::begun(TcpStream::connect(server).expect("the server listens"), config, name)
    }

    fn begun(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
        socket.set_nodelay(true).expect("a TCP socket can do so");
        let name = name.to_owned().try_into().expect("a name");
        Self { session: ClientConnection::new(Arc::clone(config), name).expect("a good config"), socket }
    }

    /// The certificate that the server has shown.
    pub fn shown(&self) -> Vec<u8> {
        self.session.peer_certificates().and_then(|chain| chain.first()).expect("a complete handshake").to_vec()
    }

    /// Returns true if the handshake was made by a ticket.
    pub fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The protocol that was agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Sends queries, all by one record.
    pub fn send(&mut self, queries: &[Query]) {
        let octets: Vec<u8> = queries.iter().flat_map(|query| framed(&query.to_vec())).collect();
        self.send_bytes(&octets);
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, octets: &[u8]) {
        self.session.writer().write_all(octets).expect("there is room");
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket).expect("the server takes it");
        }
    }

    /// Says that nothing more comes.
    pub fn close_sending(&mut self) {
        self.session.send_close_notify();
        self.send_bytes(b"");
    }

    /// Waits for the next response.
    pub fn receive(&mut self) -> Response {
        let mut length = [0; 2];
        self.read_exact(&mut length);
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        self.read_exact(&mut bytes);
        Response { bytes }
    }

    /// Sends and waits for the response, which must carry the query's ID.
    pub fn ask(&mut self, query: &Query) -> Response {
        self.send(std::slice::from_ref(query));
        let response = self.receive();
        assert_eq!(response.id(), query.id);
        response
    }

    /// Waits for the end of the connection: whether the server has said so by TLS, as it ought to.
    pub fn wait_for_end(&mut self) -> bool {
        loop {
            match self.read(&mut [0; 512]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the server does not end"),
                Err(_) => return false,
            }
        }
    }

    /// All that comes until the end, as text.
    pub fn rest(&mut self) -> String {
        let (mut octets, mut part) = (Vec::new(), [0; 512]);
        while let Ok(length @ 1..) = self.read(&mut part) {
            octets.extend_from_slice(&part[..length]);
        }
        String::from_utf8_lossy(&octets).into_owned()
    }

    fn read_exact(&mut self, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let length = self.read(buffer).expect("a response in time");
            assert!(length > 0, "the server has ended");
            buffer = &mut buffer[length..];
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.session.read_tls(&mut self.socket)?;
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
    }
}
