//! One socket on its way to be a connection, or being it: its non-blocking system calls, and what their errors mean.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use super::StreamWay;
use crate::metrics::LostCause;
use crate::net::backend_connection::{BackendConnection, Broken, ConnectionState};
use crate::net::batch::{RecvBatch, SendBatch};
use crate::net::bind;
use crate::net::options::{enable_gro, unacknowledged_for};
use crate::net::refusal::{connect_problem, is_unreachable};
use crate::policy::query_slots::SocketId;

/// A socket and what goes through it.
pub(super) struct Dial {
    socket: DialSocket,
    pub(super) stream: Box<dyn BackendConnection>,
    pub(super) began: Instant,
    /// It is over, by something that has come behind messages that nobody has taken yet.
    ended: Option<Fault>,
}

/// What octets go through.
enum DialSocket {
    Tcp(TcpStream),
    /// Connected, so that nobody else is heard.
    Udp(UdpSocket),
}

/// Why a dial or a connection is over.
#[derive(Debug)]
pub(super) enum Fault {
    /// The other side has closed it.
    Closed,
    /// The kernel says so.
    Socket(io::Error),
    /// What came cannot be.
    Broken(Broken),
    /// What was sent is not acknowledged.
    Stalled,
    /// There was no sign of life, or no handshake in time.
    Timeout,
}

impl Dial {
    /// Begins one.
    pub(super) fn begin(
        address: SocketAddr,
        way: &StreamWay,
        epoll: &OwnedFd,
        number: SocketId,
        now: Instant,
    ) -> io::Result<Self> {
        let tls = match &way.tls {
            Some(source) => {
                Some(source().ok_or_else(|| io::Error::other("it is not known by what to tell who it is"))?)
            }
            None => None,
        };
        let stream = way.protocol.begin(tls.as_deref(), address, now).map_err(io::Error::other)?;
        let event = epoll::EventData::new_u64(number.0.into());
        let socket = if way.protocol.is_by_udp() {
            // The handshake tells who replies, so that any port that the kernel draws is good enough.
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

    /// Goes on as far as it can with one read. Returns whether there may be more to read. By datagrams nothing is written:
    /// [`write_batched`](Self::write_batched) follows when all of the turn were heard, for one acknowledgement stands for many.
    pub(super) fn advance(&mut self, room: &mut Room, now: Instant) -> Result<bool, Fault> {
        match (&self.socket, room.datagrams.as_deref_mut()) {
            (DialSocket::Tcp(_), _) => self.advance_stream(&mut room.octets, now),
            (DialSocket::Udp(_), Some((batch, _))) => self.hear_datagrams(batch, now),
            (DialSocket::Udp(_), None) => Ok(false),
        }
    }

    /// How far it is.
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
                    // The backend may keep TCP open all the same. What came before the end is taken first.
                    let is_open = self.stream.state() == ConnectionState::Open;
                    self.ended = Some(Fault::Closed).filter(|_| is_open);
                    return if is_open { Ok(true) } else { Err(Fault::Closed) };
                }
                // A handshake goes on at once.
                self.write(now).map_err(Fault::Socket)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Fault::Socket(error)),
        }
    }

    /// Hears what datagrams have come, by one call.
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

    /// Writes what the kernel takes. What it does not, epoll tells of when it does.
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

    /// The same, of datagrams all by as few calls as can be.
    pub(super) fn write_batched(&mut self, room: &mut Room, now: Instant) -> io::Result<()> {
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

    /// Says that it is over, if the other side still takes that.
    pub(super) fn say_good_bye(&mut self, now: Instant) {
        if self.stream.state() != ConnectionState::Dialling {
            self.stream.close(now);
            // Nobody waits for it to arrive.
            let _ = self.write(now);
        }
    }

    /// Whether it goes by datagrams.
    pub(super) fn is_by_udp(&self) -> bool {
        matches!(self.socket, DialSocket::Udp(_))
    }

    /// How long something that was sent is not acknowledged.
    pub(super) fn unacknowledged_for(&self, now: Instant) -> Option<Duration> {
        match &self.socket {
            DialSocket::Tcp(socket) => unacknowledged_for(socket),
            DialSocket::Udp(_) => self.stream.unacknowledged_for(now),
        }
    }
}

/// Where what comes and goes is for the time of a call; all connections of a worker have it in turn.
#[derive(Default)]
pub(super) struct Room {
    /// What a stream brings.
    octets: Box<[u8]>,
    /// Datagrams that come and that go, if some backend is asked by them.
    datagrams: Option<Box<(RecvBatch, SendBatch)>>,
}

impl Room {
    /// Makes room for connections of this kind.
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

/// Whether a datagram that could not be sent is as good as one that was lost on the way, and nothing else is wrong.
fn is_lost(error: &io::Error) -> bool {
    let goes_on = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
    !goes_on && !is_unreachable(error)
}

impl Fault {
    /// Why an open connection was lost, and what TLS has against it.
    pub(super) fn lost(self) -> (LostCause, Option<String>) {
        match self {
            Self::Closed => (LostCause::Closed, None),
            Self::Socket(_) => (LostCause::Reset, None),
            Self::Broken(Broken::Tls(problem)) => (LostCause::Tls, Some(problem)),
            Self::Broken(Broken::Protocol) => (LostCause::Protocol, None),
            Self::Broken(Broken::Ended) => (LostCause::Closed, None),
            Self::Broken(Broken::Reset) => (LostCause::Reset, None),
            Self::Broken(Broken::TimedOut) => (LostCause::Timeout, None),
            Self::Broken(Broken::Goaway) => (LostCause::Goaway, None),
            Self::Stalled => (LostCause::Stalled, None),
            Self::Timeout => (LostCause::Timeout, None),
        }
    }

    /// Why there was no connection, and whether somebody has refused it.
    pub(super) fn failed(self) -> (String, bool) {
        match self {
            Self::Closed | Self::Broken(Broken::Ended | Broken::Goaway | Broken::Reset) => {
                ("it closed the connection in the handshake".to_owned(), false)
            }
            Self::Socket(error) => (connect_problem(&error), is_unreachable(&error)),
            Self::Broken(Broken::Tls(problem)) => (problem, true),
            Self::Broken(Broken::Protocol) => ("it sent something that is no DNS".to_owned(), false),
            Self::Stalled | Self::Timeout | Self::Broken(Broken::TimedOut) => {
                ("the connection was not open in time".to_owned(), false)
            }
        }
    }
}

/// All that may happen, told once: sockets are read until they are empty and written until they are full.
const EDGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::OUT).union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);

/// Octets that are received at once: a TLS record.
const READ: usize = 16 * 1024;

/// Datagrams that come or go by one call, where segments count as one.
const DATAGRAMS: usize = 16;

/// Octets of the longest datagram: we say that we take no longer ones, and send none.
const MAX_DATAGRAM: usize = 1_500;
