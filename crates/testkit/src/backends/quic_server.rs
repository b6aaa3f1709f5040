//! An in-memory QUIC server for tests, which sends what the test requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    HashedConnectionIdGenerator, ServerConfig, StreamEvent, StreamId, TransportConfig, VarInt,
};
use ring::hmac;
use tokio_rustls::rustls;

/// A query that the server received.
#[derive(Clone, Debug)]
pub struct TestQuicQuery {
    pub(crate) connection: ConnectionHandle,
    /// The stream of the query.
    pub stream: StreamId,
    /// The whole content of the stream.
    pub frame: Vec<u8>,
    /// True if the query came as early data.
    pub is_early: bool,
}

/// A QUIC server without a socket and a clock.
pub struct TestQuicServer {
    endpoint: Endpoint,
    /// The open connections.
    pub connections: HashMap<ConnectionHandle, Connection>,
    heard: HashMap<(ConnectionHandle, StreamId), Vec<u8>>,
    /// The received queries, until the test removes them.
    pub queries: Vec<TestQuicQuery>,
    /// The streams that the client stopped, each with its code.
    pub cancelled: Vec<(StreamId, VarInt)>,
    /// The reasons of the connections that ended.
    pub ends: Vec<ConnectionError>,
    /// True if clients must prove their address by a Retry.
    pub retries: bool,
    /// True if the server refuses new connections.
    pub refuses: bool,
    responses: Vec<(SocketAddr, Vec<u8>)>,
}

/// Returns the config for QUIC: these protocols, early data, and session tickets.
pub fn tls(config: &Arc<rustls::ServerConfig>, alpn: &[&[u8]]) -> rustls::ServerConfig {
    let mut config = rustls::ServerConfig::clone(config);
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
    config.max_early_data_size = u32::MAX;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(256);
    config
}

impl TestQuicServer {
    /// Creates a server; `change` changes its transport parameters.
    pub fn new(tls: rustls::ServerConfig, change: impl FnOnce(&mut TransportConfig)) -> Self {
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1_000));
        change(&mut transport);
        config.transport_config(Arc::new(transport));
        let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])));
        endpoint.cid_generator(|| Box::new(HashedConnectionIdGenerator::from_key(7)));
        Self {
            // All endpoints have the same keys for IDs and stateless resets.
            endpoint: Endpoint::new(Arc::new(endpoint), Some(Arc::new(config)), false, None),
            connections: HashMap::new(),
            heard: HashMap::new(),
            queries: Vec::new(),
            cancelled: Vec::new(),
            ends: Vec::new(),
            retries: false,
            refuses: false,
            responses: Vec::new(),
        }
    }

    /// Receives a datagram.
    pub fn hear(&mut self, peer: SocketAddr, datagram: &[u8], now: Instant) {
        let mut response = Vec::new();
        match self.endpoint.handle(now, peer, None, None, BytesMut::from(datagram), &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = self.connections.get_mut(&handle) {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if self.refuses {
                    let _ = self.endpoint.refuse(incoming, &mut response);
                    self.responses.push((peer, response));
                } else if self.retries && !incoming.remote_address_validated() {
                    let _ = self.endpoint.retry(incoming, &mut response).unwrap();
                    self.responses.push((peer, response));
                } else {
                    match self.endpoint.accept(incoming, now, &mut response, None) {
                        Ok((handle, connection)) => drop(self.connections.insert(handle, connection)),
                        Err(_) => self.responses.push((peer, response)),
                    }
                }
            }
            Some(DatagramEvent::Response(_)) => self.responses.push((peer, response)),
            None => {}
        }
    }

    /// Runs the timers that are due, and reads all streams.
    pub fn turn(&mut self, now: Instant) {
        let handles: Vec<_> = self.connections.keys().copied().collect();
        for handle in handles {
            let connection = self.connections.get_mut(&handle).unwrap();
            if connection.poll_timeout().is_some_and(|at| at <= now) {
                connection.handle_timeout(now);
            }
            let mut readable = Vec::new();
            while let Some(event) = connection.poll() {
                match event {
                    Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                        while let Some(stream) = connection.streams().accept(Dir::Bi) {
                            readable.push(stream);
                        }
                    }
                    Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                    Event::Stream(StreamEvent::Stopped { id, error_code }) => self.cancelled.push((id, error_code)),
                    Event::ConnectionLost { reason } => self.ends.push(reason),
                    _ => {}
                }
            }
            for stream in readable {
                let mut recv = connection.recv_stream(stream);
                let Ok(mut chunks) = recv.read(true) else { continue };
                let heard = self.heard.entry((handle, stream)).or_default();
                loop {
                    match chunks.next(usize::MAX) {
                        Ok(Some(chunk)) => heard.extend_from_slice(&chunk.bytes),
                        Ok(None) => {
                            let frame = std::mem::take(heard);
                            drop(chunks);
                            let is_early = connection.is_handshaking();
                            self.queries.push(TestQuicQuery { connection: handle, stream, frame, is_early });
                            break;
                        }
                        Err(_) => break,
                    }
                }
            }
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    connection.handle_event(event);
                }
            }
            if connection.is_drained() {
                self.connections.remove(&handle);
            }
        }
    }

    /// Returns the datagrams to send, each with its destination.
    pub fn datagrams(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagrams = std::mem::take(&mut self.responses);
        for connection in self.connections.values_mut() {
            loop {
                let mut datagram = Vec::new();
                let Some(transmit) = connection.poll_transmit(now, 1, &mut datagram) else { break };
                datagrams.push((transmit.destination, datagram));
            }
        }
        datagrams
    }

    /// Returns the time of the next timer.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        self.connections.values_mut().filter_map(Connection::poll_timeout).min()
    }

    /// Writes to the stream of a query, and ends the stream if `is_all`.
    pub fn say(&mut self, query: &TestQuicQuery, octets: &[u8], is_all: bool) {
        let Some(connection) = self.connections.get_mut(&query.connection) else { return };
        let written = connection.send_stream(query.stream).write(octets).unwrap_or(0);
        assert_eq!(written, octets.len(), "there is room in tests");
        if is_all {
            connection.send_stream(query.stream).finish().unwrap();
        }
    }

    /// Responds with the query itself.
    pub fn echo(&mut self, query: &TestQuicQuery) {
        let mut frame = query.frame.clone();
        frame[4] |= 0x80;
        self.say(query, &frame, true);
    }

    /// Resets the stream of a query.
    pub fn reset(&mut self, query: &TestQuicQuery, code: u32) {
        let connection = self.connections.get_mut(&query.connection).unwrap();
        connection.send_stream(query.stream).reset(VarInt::from_u32(code)).unwrap();
    }

    pub(crate) fn close_one(&mut self, connection: ConnectionHandle, code: u32, now: Instant) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.close(now, VarInt::from_u32(code), Bytes::new());
        }
    }

    /// Closes all connections.
    pub fn close(&mut self, code: u32, now: Instant) {
        let connections: Vec<_> = self.connections.keys().copied().collect();
        connections.into_iter().for_each(|connection| self.close_one(connection, code, now));
    }
}
