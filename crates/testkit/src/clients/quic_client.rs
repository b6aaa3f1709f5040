//! A scripted QUIC client, right or wrong: the protocol is `quinn-proto`, the socket blocks.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    ReadError, Side, StreamEvent, StreamId, TransportConfig, VarInt,
};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{self, ClientConfig as TlsConfig};

use crate::CertificateAuthority;
use crate::message::{Query, Response};
use crate::{PATIENCE, framed};

/// A client by QUIC.
pub struct QuicClient {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: Connection,
    socket: UdpSocket,
    server: SocketAddr,
    /// The bytes received on each stream, and its end: a FIN, or a reset with this code.
    streams: HashMap<StreamId, (Vec<u8>, Option<End>)>,
    is_connected: bool,
    lost: Option<ConnectionError>,
}

/// The end of a stream: FIN, or a reset with this code.
type End = Result<(), u64>;

/// Returns the config of a QUIC client that trusts this authority and speaks these protocols. The client
/// offers early data where it can.
pub fn quic_config(authorities: &CertificateAuthority, alpn: &[&str]) -> Arc<TlsConfig> {
    let mut config = TlsConfig::clone(&authorities.trusted_by(alpn, &[&TLS13]));
    config.enable_early_data = true;
    Arc::new(config)
}

impl QuicClient {
    /// Connects to a server whose certificate must carry this name.
    pub fn of(server: SocketAddr, config: &Arc<TlsConfig>, name: &str) -> Self {
        let mut client = Self::begun(server, config, name);
        client.shake_hands().expect("a server that is who it says");
        client
    }

    /// Sends only the first flight of the handshake.
    pub fn begun(server: SocketAddr, config: &Arc<TlsConfig>, name: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let crypto = QuicClientConfig::try_from(Arc::clone(config)).expect("TLS 1.3 with AES");
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport.mtu_discovery_config(None);
        config.transport_config(Arc::new(transport));
        let (handle, quic) = endpoint.connect(Instant::now(), config, server, name).expect("a good config");
        let streams = HashMap::new();
        let mut client = Self { endpoint, handle, quic, socket, server, streams, is_connected: false, lost: None };
        client.flush();
        client
    }

    /// Goes through with the handshake.
    pub fn shake_hands(&mut self) -> Result<(), ConnectionError> {
        self.drive("a handshake", |client| match &client.lost {
            Some(error) => Some(Err(error.clone())),
            None => client.is_connected.then_some(Ok(())),
        })
    }

    /// Returns true if early data could be sent.
    pub fn has_early_data(&self) -> bool {
        self.quic.has_0rtt()
    }

    /// Returns true if the server has accepted the early data.
    pub fn is_early_data_taken(&self) -> bool {
        self.quic.accepted_0rtt()
    }

    /// The protocol that was agreed on.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        let data = self.quic.crypto_session().handshake_data()?;
        data.downcast::<quinn_proto::crypto::rustls::HandshakeData>().ok()?.protocol
    }

    /// The certificate that the server has shown.
    pub fn shown(&self) -> Vec<u8> {
        let identity = self.quic.crypto_session().peer_identity().expect("a complete handshake");
        let chain = identity.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().expect("certificates");
        chain.first().expect("a leaf").to_vec()
    }

    /// Opens a stream; it must be allowed.
    pub fn open(&mut self) -> StreamId {
        self.drive("a stream", |client| {
            assert!(client.lost.is_none(), "{:?}", client.lost);
            client.quic.streams().open(Dir::Bi)
        })
    }

    /// Opens one, if the server lets us now.
    pub fn try_open(&mut self, dir: Dir) -> Option<StreamId> {
        self.quic.streams().open(dir)
    }

    /// Sends bytes on a stream, with its end or without.
    pub fn send(&mut self, stream: StreamId, octets: &[u8], is_end: bool) {
        self.write(stream, octets, is_end);
        self.flush();
    }

    /// Writes to a stream without sending a datagram yet.
    pub fn write(&mut self, stream: StreamId, octets: &[u8], is_end: bool) {
        let mut sender = self.quic.send_stream(stream);
        let written = if octets.is_empty() { Ok(0) } else { sender.write(octets) };
        assert_eq!(written.ok(), Some(octets.len()), "the windows are wide enough");
        if is_end {
            sender.finish().expect("it was open");
        }
    }

    /// Gives up what was not sent yet of a stream.
    pub fn reset(&mut self, stream: StreamId, code: u32) {
        let _ = self.quic.send_stream(stream).reset(VarInt::from_u32(code));
    }

    /// Does not want what comes on a stream.
    pub fn stop(&mut self, stream: StreamId, code: u32) {
        let _ = self.quic.recv_stream(stream).stop(VarInt::from_u32(code));
    }

    /// Opens a stream with a query.
    pub fn begin(&mut self, query: &Query) -> StreamId {
        let stream = self.open();
        self.send(stream, &framed(&query.to_vec()), true);
        stream
    }

    /// Sends a query, and waits for its response.
    pub fn ask(&mut self, query: &Query) -> Response {
        let stream = self.begin(query);
        let response = self.receive(stream).expect("a response");
        assert_eq!(response.id(), 0);
        response
    }

    /// Waits for the one message of a stream, or the code by which that was reset.
    pub fn receive(&mut self, stream: StreamId) -> Result<Response, u64> {
        let mut messages = self.receive_all(stream)?;
        assert_eq!(messages.len(), 1, "one message");
        Ok(messages.remove(0))
    }

    /// Waits for all messages of a stream.
    pub fn receive_all(&mut self, stream: StreamId) -> Result<Vec<Response>, u64> {
        let octets = self.drive("the end of a stream", |client| {
            if let Some((octets, Some(end))) = client.streams.get(&stream) {
                return Some(end.map(|()| octets.clone()));
            }
            assert!(client.lost.is_none(), "{:?}", client.lost);
            None
        })?;
        let (mut messages, mut rest) = (Vec::new(), &octets[..]);
        while let Some((length, after)) = rest.split_first_chunk() {
            let (message, after) = after.split_at(u16::from_be_bytes(*length).into());
            messages.push(Response { bytes: message.to_vec() });
            rest = after;
        }
        assert!(rest.is_empty(), "{rest:?}");
        Ok(messages)
    }

    /// Waits for the end of the connection: the code that the server has said, if it is one of DoQ.
    pub fn wait_for_close(&mut self) -> Option<u64> {
        match self.drive("the end of the connection", |client| client.lost.clone()) {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
            _ => None,
        }
    }

    /// Why it has ended, if it has.
    pub fn lost(&self) -> Option<&ConnectionError> {
        self.lost.as_ref()
    }

    /// Goes on from another port, as behind a NAT that forgets.
    pub fn move_on(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    }

    /// Sends a PING frame.
    pub fn ping(&mut self) {
        self.quic.ping();
        self.flush();
    }

    /// Takes what comes for so long.
    pub fn listen_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.drive("nothing", |_| (Instant::now() >= end).then_some(()));
    }

    /// Sends what is to be sent.
    pub fn flush(&mut self) {
        let mut out = Vec::new();
        while let Some(transmit) = self.quic.poll_transmit(Instant::now(), 1, &mut out) {
            self.socket.send_to(&out[..transmit.size], transmit.destination).expect("loopback takes it");
            out.clear();
        }
    }

    /// Lets the connection live until something has happened.
    pub(crate) fn drive<T>(&mut self, what: &str, mut until: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 2048];
        loop {
            self.work();
            if let Some(found) = until(self) {
                self.flush();
                return found;
            }
            self.flush();
            let now = Instant::now();
            assert!(now < deadline, "{what}: in vain");
            let wake = self.quic.poll_timeout().unwrap_or(deadline).min(now + Duration::from_millis(20));
            let wait = wake.saturating_duration_since(now).max(Duration::from_millis(1));
            self.socket.set_read_timeout(Some(wait)).expect("a timeout above zero");
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => self.take(from, &buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.quic.handle_timeout(Instant::now());
                }
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, from: SocketAddr, octets: &[u8]) {
        assert_eq!(from, self.server, "the server answers from where it was asked");
        let mut out = Vec::new();
        let event = self.endpoint.handle(Instant::now(), from, None, None, BytesMut::from(octets), &mut out);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.quic.handle_event(event);
        }
    }

    fn work(&mut self) {
        self.quic.handle_timeout(Instant::now());
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(answer) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(answer);
            }
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                _ => {}
            }
        }
    }

    fn read(&mut self, id: StreamId) {
        assert_eq!(id.initiator(), Side::Client, "the server opens no streams");
        let (octets, end) = self.streams.entry(id).or_default();
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => octets.extend_from_slice(&chunk.bytes),
                Ok(None) => break *end = Some(Ok(())),
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => break *end = Some(Err(code.into_inner())),
            }
        }
        let _ = chunks.finalize();
    }
}
