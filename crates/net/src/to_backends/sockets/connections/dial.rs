//! One socket of a connection: its non-blocking system calls and their errors.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use engine::query_slots::SocketId;
use metrics::LostCause;
use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use super::StreamWay;
use crate::refusal::{connect_problem, is_unreachable};
use crate::sys::batch::{RecvBatch, SendBatch};
use crate::sys::bind;
use crate::sys::options::{enable_gro, unacknowledged_for};
use crate::to_backends::connection::{BackendConnection, ConnectionFailure, ConnectionState};

pub(super) struct Dial {
    socket: DialSocket,
    pub(super) stream: Box<dyn BackendConnection>,
    pub(super) began: Instant,
    /// The reason for the end. Messages received before it are still to be taken.
    ended: Option<Fault>,
}

enum DialSocket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

#[derive(Debug)]
pub(super) enum Fault {
    Closed,
    Socket(io::Error),
    Broken(ConnectionFailure),
    Stalled,
    /// A ping was not answered, or the handshake took too long.
    Timeout,
}

impl Dial {
    pub(super) fn begin(
        address: SocketAddr,
        way: &StreamWay,
        epoll: &OwnedFd,
        number: SocketId,
        now: Instant,
    ) -> io::Result<Self> {
        let tls = match &way.tls {
            Some(source) => {
                Some(source().ok_or_else(|| io::Error::other("no trust anchors are configured for this backend"))?)
            }
            None => None,
        };
        let stream = way.protocol.begin(tls.as_deref(), address, now).map_err(io::Error::other)?;
        let event = epoll::EventData::new_u64(number.0.into());
        let socket = if way.protocol.is_by_udp() {
            // The handshake authenticates replies, so any port that the kernel picks is sufficient.
            let socket = bind::asking_one(address)?;
            enable_gro(&socket);
            epoll::add(epoll, &socket, event, EDGES)?;
            DialSocket::Udp(socket)
        } else {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            socket.set_tcp_nodelay(true)?;
            epoll::add(epoll, &socket, event, EDGES)?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                Ok(()) | Err(_) => {}
            }
            DialSocket::Tcp(socket.into())
        };
        Ok(Self { socket, stream, began: now, ended: None })
    }

    /// Advances with one read. Returns true if there may be more to read. For QUIC,
    /// [`write_batched`](Self::write_batched) must follow, because one acknowledgement covers all datagrams
    /// of a turn.
    pub(super) fn advance(&mut self, room: &mut SharedBuffers, now: Instant) -> Result<bool, Fault> {
        match (&self.socket, room.datagrams.as_deref_mut()) {
            (DialSocket::Tcp(_), _) => self.advance_stream(&mut room.octets, now),
            (DialSocket::Udp(_), Some((batch, _))) => self.hear_datagrams(batch, now),
            (DialSocket::Udp(_), None) => Ok(false),
        }
    }

    pub(super) fn state(&self) -> ConnectionState {
        if self.ended.is_some() { ConnectionState::Open } else { self.stream.state() }
    }

    fn advance_stream(&mut self, room: &mut [u8], now: Instant) -> Result<bool, Fault> {
        let DialSocket::Tcp(socket) = &self.socket else { return Ok(false) };
        if let Some(fault) = self.ended.take() {
            return Err(fault);
        }
        if self.stream.state() == ConnectionState::Dialling {
            if let Some(error) = socket.take_error().map_err(Fault::Socket)? {
                return Err(Fault::Socket(error));
            }
            if socket.peer_addr().is_err() {
                return Ok(false);
            }
            self.stream.connected();
        }
        self.write(now).map_err(Fault::Socket)?;
        let DialSocket::Tcp(socket) = &mut self.socket else { return Ok(false) };
        match socket.read(room) {
            Ok(0) => Err(Fault::Closed),
            Ok(octets) => {
                self.stream.hear(room.get(..octets).unwrap_or_default(), now).map_err(Fault::Broken)?;
                if self.stream.has_ended() {
                    // The backend may keep TCP open all the same. Earlier messages are taken first.
                    let is_open = self.stream.state() == ConnectionState::Open;
                    self.ended = Some(Fault::Closed).filter(|_| is_open);
                    return if is_open { Ok(true) } else { Err(Fault::Closed) };
                }
                self.write(now).map_err(Fault::Socket)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Fault::Socket(error)),
        }
    }

    fn hear_datagrams(&mut self, batch: &mut RecvBatch, now: Instant) -> Result<bool, Fault> {
        let Self { socket: DialSocket::Udp(socket), stream, ended, .. } = self else { return Ok(false) };
        if let Some(fault) = ended.take() {
            return Err(fault);
        }
        match batch.recv(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(Fault::Socket(error)),
        }
        let mut was_open = stream.state() == ConnectionState::Open;
        let mut heard = Ok(());
        batch.each_chunk(|chunk| {
            let datagrams = (0..chunk.len()).filter_map(|index| chunk.datagram(index));
            for datagram in datagrams.filter(|datagram| !datagram.is_truncated) {
                if heard.is_ok() {
                    was_open |= stream.state() == ConnectionState::Open;
                    heard = stream.hear(datagram.bytes, now);
                }
            }
        });
        match heard {
            Ok(()) => Ok(batch.is_full()),
            Err(broken) if was_open => {
                *ended = Some(Fault::Broken(broken));
                Ok(true)
            }
            Err(broken) => Err(Fault::Broken(broken)),
        }
    }

    pub(super) fn write(&mut self, now: Instant) -> io::Result<()> {
        loop {
            let output = self.stream.output(now);
            if output.is_empty() {
                return Ok(());
            }
            match self.socket.send(output) {
                Ok(written) => self.stream.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all pending datagrams with as few calls as possible.
    pub(super) fn write_batched(&mut self, room: &mut SharedBuffers, now: Instant) -> io::Result<()> {
        let (DialSocket::Udp(socket), Some((_, batch))) = (&self.socket, room.datagrams.as_deref_mut()) else {
            return self.write(now);
        };
        loop {
            while !batch.is_full() {
                let output = self.stream.output(now);
                let octets = output.len();
                if octets == 0 {
                    break;
                }
                batch.push(None, None, |datagram| datagram.extend_from_slice(output));
                self.stream.wrote(octets);
            }
            let is_all = !batch.is_full();
            let mut is_refused = false;
            let waited = batch.flush(socket, |_, error| is_refused |= is_unreachable(error));
            if is_refused || waited.is_some_and(|error| is_unreachable(&error)) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if is_all {
                return Ok(());
            }
        }
    }

    pub(super) fn say_good_bye(&mut self, now: Instant) {
        if self.stream.state() != ConnectionState::Dialling {
            self.stream.close(now);
            let _ = self.write(now);
        }
    }

    pub(super) fn is_by_udp(&self) -> bool {
        matches!(self.socket, DialSocket::Udp(_))
    }

    pub(super) fn unacknowledged_for(&self, now: Instant) -> Option<Duration> {
        match &self.socket {
            DialSocket::Tcp(socket) => unacknowledged_for(socket),
            DialSocket::Udp(_) => self.stream.unacknowledged_for(now),
        }
    }
}

/// Buffers that all connections of a worker share, each for the time of a call.
#[derive(Default)]
pub(super) struct SharedBuffers {
    octets: Box<[u8]>,
    datagrams: Option<Box<(RecvBatch, SendBatch)>>,
}

impl SharedBuffers {
    pub(super) fn make_for(&mut self, is_by_udp: bool) {
        if is_by_udp && self.datagrams.is_none() {
            let batches = (RecvBatch::for_gro(DATAGRAMS, MAX_DATAGRAM), SendBatch::new(DATAGRAMS, MAX_DATAGRAM));
            self.datagrams = Some(Box::new(batches));
        } else if !is_by_udp && self.octets.is_empty() {
            self.octets = vec![0; READ].into_boxed_slice();
        }
    }
}

impl DialSocket {
    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(octets),
            Self::Udp(socket) => match socket.send(octets) {
                Err(error) if is_lost(&error) => Ok(octets.len()),
                sent => sent,
            },
        }
    }
}

/// Returns true if a send error only means that this datagram is lost.
fn is_lost(error: &io::Error) -> bool {
    let goes_on = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
    !goes_on && !is_unreachable(error)
}

impl Fault {
    pub(super) fn lost(self) -> (LostCause, Option<String>) {
        match self {
            Self::Closed => (LostCause::Closed, None),
            Self::Socket(_) => (LostCause::Reset, None),
            Self::Broken(ConnectionFailure::Tls(problem)) => (LostCause::Tls, Some(problem)),
            Self::Broken(ConnectionFailure::Protocol) => (LostCause::Protocol, None),
            Self::Broken(ConnectionFailure::Ended) => (LostCause::Closed, None),
            Self::Broken(ConnectionFailure::Reset) => (LostCause::Reset, None),
            Self::Broken(ConnectionFailure::TimedOut) => (LostCause::Timeout, None),
            Self::Broken(ConnectionFailure::Goaway) => (LostCause::Goaway, None),
            Self::Stalled => (LostCause::Stalled, None),
            Self::Timeout => (LostCause::Timeout, None),
        }
    }

    /// Returns the problem of a failed dial, and true if the backend is unreachable or not the expected one.
    pub(super) fn failed(self) -> (String, bool) {
        match self {
            Self::Closed
            | Self::Broken(ConnectionFailure::Ended | ConnectionFailure::Goaway | ConnectionFailure::Reset) => {
                ("it closed the connection in the handshake".to_owned(), false)
            }
            Self::Socket(error) => (connect_problem(&error), is_unreachable(&error)),
            Self::Broken(ConnectionFailure::Tls(problem)) => (problem, true),
            Self::Broken(ConnectionFailure::Protocol) => ("it sent data that is not DNS".to_owned(), false),
            Self::Stalled | Self::Timeout | Self::Broken(ConnectionFailure::TimedOut) => {
                ("the connection was not open in time".to_owned(), false)
            }
        }
    }
}

/// Edge-triggered, because sockets are read until they are empty and written until they are full.
const EDGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::OUT).union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);

/// Bytes per read: a TLS record.
const READ: usize = 16 * 1024;

const DATAGRAMS: usize = 16;

/// Bytes of the longest datagram: hedgerow announces this limit, and sends no longer ones.
const MAX_DATAGRAM: usize = 1_500;
