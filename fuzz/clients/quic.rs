//! Clients by QUIC: the protocol is `quinn-proto`, and the script decides what they send.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use dns::first_message;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, StreamEvent,
    StreamId, TransportConfig, VarInt,
};
use tokio_rustls::rustls::ClientConfig as TlsConfig;

use super::settle;
use super::world::Service;

/// Some connections from one socket.
pub struct QuicClient {
    endpoint: Endpoint,
    connections: HashMap<ConnectionHandle, Connection>,
    socket: UdpSocket,
    /// The address by which the server knows the client, until it moves.
    pub peer: Option<SocketAddr>,
    /// The address to which datagrams go; the server answers from its own.
    pub to: SocketAddr,
    server: SocketAddr,
    streams: Vec<(ConnectionHandle, StreamId)>,
    sent: HashMap<(ConnectionHandle, StreamId), Vec<u8>>,
    received: HashMap<(ConnectionHandle, StreamId), Vec<u8>>,
    stopped: HashSet<(ConnectionHandle, StreamId)>,
    pub is_reading: bool,
}

impl QuicClient {
    /// Begins some connections.
    pub fn begin(server: SocketAddr, tls: &Arc<TlsConfig>, count: usize, has_small_window: bool, source: u8) -> Self {
        let socket =
            UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1 + source % 4], 0))).expect("loopback can be bound");
        socket.set_nonblocking(true).expect("a socket need not block");
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let crypto = QuicClientConfig::try_from(Arc::clone(tls)).expect("TLS 1.3 with AES");
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport.mtu_discovery_config(None);
        if has_small_window {
            transport.stream_receive_window(VarInt::from_u32(1000));
        }
        config.transport_config(Arc::new(transport));
        let connections = (0..count.max(1)).map(|_| {
            let begun = endpoint.connect(Instant::now(), config.clone(), server, "dns.example");
            begun.expect("a good config")
        });
        let connections = connections.collect();
        let peer = socket.local_addr().ok();
        let (streams, sent, received, stopped) = (Vec::new(), HashMap::new(), HashMap::new(), HashSet::new());
        let is_reading = true;
        Self { endpoint, connections, socket, peer, to: server, server, streams, sent, received, stopped, is_reading }
    }

    /// Lets all connections live while the server does all that it can.
    pub async fn drive(&mut self, service: &Service, rounds: u32) {
        for _ in 0..rounds {
            self.send();
            settle(3).await;
            self.receive();
            self.work(service);
        }
        self.send();
        self.check_asked(service);
    }

    /// Checks that each query that the service got is the only one of a stream.
    fn check_asked(&self, service: &Service) {
        let asked = service.asked.borrow();
        let Some(asked) = self.peer.and_then(|peer| asked.get(&peer)) else { return };
        let mut sent: Vec<_> = self.sent.values().filter_map(|octets| first_message(octets)).collect();
        for message in asked {
            let position = sent.iter().position(|(sent, _)| sent == message);
            sent.swap_remove(position.unwrap_or_else(|| panic!("{message:?} was not sent")));
        }
    }

    pub fn send(&mut self) {
        let mut out = Vec::new();
        for quic in self.connections.values_mut() {
            while let Some(transmit) = quic.poll_transmit(Instant::now(), 1, &mut out) {
                let _ = self.socket.send_to(&out[..transmit.size], self.to);
                out.clear();
            }
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        let mut out = Vec::new();
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            assert!(from == self.server || from == self.to, "the server answers from {from}");
            let octets = BytesMut::from(&buffer[..length]);
            match self.endpoint.handle(Instant::now(), self.server, None, None, octets, &mut out) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    self.connections.get_mut(&handle).expect("a known one").handle_event(event);
                }
                Some(DatagramEvent::NewConnection(_)) => panic!("the server is no client"),
                Some(DatagramEvent::Response(_)) | None => out.clear(),
            }
        }
    }

    fn work(&mut self, service: &Service) {
        let mut readable = Vec::new();
        for (handle, quic) in &mut self.connections {
            quic.handle_timeout(Instant::now());
            while let Some(event) = quic.poll_endpoint_events() {
                if let Some(answer) = self.endpoint.handle_event(*handle, event) {
                    quic.handle_event(answer);
                }
            }
            while let Some(event) = quic.poll() {
                if let Event::Stream(StreamEvent::Readable { id }) = event {
                    readable.push((*handle, id));
                }
            }
        }
        if self.is_reading {
            readable.extend(&self.streams);
            readable.retain(|(_, id)| id.dir() == Dir::Bi);
            readable.into_iter().for_each(|stream| self.read(stream, service));
        }
    }

    fn read(&mut self, at: (ConnectionHandle, StreamId), service: &Service) {
        let Some(quic) = self.connections.get_mut(&at.0) else { return };
        assert!(self.streams.contains(&at), "the server opens no streams");
        let octets = self.received.entry(at).or_default();
        let mut stream = quic.recv_stream(at.1);
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            octets.extend_from_slice(&chunk.bytes);
        }
        let _ = chunks.finalize();
        while let Some((message, end)) = first_message(octets) {
            assert!(service.take_given(self.peer, message), "a response that is not for it: {message:?}");
            octets.drain(..end);
        }
    }

    fn some(&mut self) -> Option<ConnectionHandle> {
        self.connections.keys().min_by_key(|handle| handle.0).copied()
    }

    /// Opens a stream and sends octets on it.
    pub fn open(&mut self, octets: &[u8], is_end: bool, is_bidirectional: bool) {
        let Some(handle) = self.some() else { return };
        let Some(quic) = self.connections.get_mut(&handle) else { return };
        let dir = if is_bidirectional { Dir::Bi } else { Dir::Uni };
        let Some(id) = quic.streams().open(dir) else { return };
        self.streams.push((handle, id));
        self.write(octets, is_end);
    }

    /// Sends octets on the latest stream.
    pub fn write(&mut self, octets: &[u8], is_end: bool) {
        let Some(&(handle, id)) = self.streams.last() else { return };
        let Some(quic) = self.connections.get_mut(&handle) else { return };
        let mut stream = quic.send_stream(id);
        let written = stream.write(octets).unwrap_or_default();
        self.sent.entry((handle, id)).or_default().extend_from_slice(&octets[..written]);
        if is_end {
            let _ = stream.finish();
        }
    }

    pub fn reset(&mut self) {
        if let Some(&(handle, id)) = self.streams.last()
            && let Some(quic) = self.connections.get_mut(&handle)
        {
            let _ = quic.send_stream(id).reset(VarInt::from_u32(3));
        }
    }

    pub fn stop(&mut self) {
        if let Some(&(handle, id)) = self.streams.last()
            && id.dir() == Dir::Bi
            && let Some(quic) = self.connections.get_mut(&handle)
            && self.stopped.insert((handle, id))
        {
            let _ = quic.recv_stream(id).stop(VarInt::from_u32(3));
        }
    }

    /// Continues from another port, as behind a NAT that has forgotten the client.
    pub fn move_on(&mut self) {
        self.socket = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        self.socket.set_nonblocking(true).expect("a socket need not block");
        self.peer = None;
    }

    pub fn ping(&mut self) {
        self.connections.values_mut().for_each(Connection::ping);
    }

    pub fn update_keys(&mut self) {
        let connected = self.connections.values_mut().filter(|quic| !quic.is_handshaking() && !quic.is_closed());
        connected.for_each(Connection::force_key_update);
    }

    /// Sends a datagram of no protocol. One with a long header has the length of an Initial.
    pub fn send_raw(&self, octets: &[u8]) {
        let mut octets = octets.to_vec();
        if octets.first().is_some_and(|first| first & 0x80 != 0) {
            octets.resize(1200, 0);
        }
        let _ = self.socket.send_to(&octets, self.to);
    }

    pub fn close(&mut self) {
        for quic in self.connections.values_mut() {
            quic.close(Instant::now(), VarInt::from_u32(0), bytes::Bytes::new());
        }
        self.send();
    }
}
