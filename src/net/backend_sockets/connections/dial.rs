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
use crate::net::bind;
use crate::net::options::unacknowledged_for;
use crate::net::refusal::{connect_problem, is_unreachable};
use crate::policy::query_slots::SocketId;

/// A socket and what goes through it.
pub(super) struct Dial {
    socket: DialSocket,
    pub(super) stream: Box<dyn BackendConnection>,
    pub(super) began: Instant,
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
        Ok(Self { socket, stream, began: now })
    }

    /// Goes on as far as it can with one read. Returns whether there may be more to read.
    pub(super) fn advance(&mut self, room: &mut [u8], now: Instant) -> Result<bool, Fault> {
        if self.stream.state() == ConnectionState::Dialling {
            if !self.socket.is_connected().map_err(Fault::Socket)? {
                return Ok(false);
            }
            self.stream.connected();
        }
        self.write(now).map_err(Fault::Socket)?;
        match self.socket.receive(room) {
            Ok(0) if self.socket.has_end() => Err(Fault::Closed),
            Ok(octets) => {
                self.stream.hear(room.get(..octets).unwrap_or_default(), now).map_err(Fault::Broken)?;
                // A handshake goes on at once.
                self.write(now).map_err(Fault::Socket)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Fault::Socket(error)),
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

impl DialSocket {
    /// Whether the other side has answered, as far as the kernel asks for that.
    fn is_connected(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(socket) => match socket.take_error()? {
                Some(error) => Err(error),
                None => Ok(socket.peer_addr().is_ok()),
            },
            Self::Udp(_) => Ok(true),
        }
    }

    fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(room),
            Self::Udp(socket) => socket.recv(room),
        }
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(octets),
            Self::Udp(socket) => match socket.send(octets) {
                Err(error) if is_lost(&error) => Ok(octets.len()),
                sent => sent,
            },
        }
    }

    /// Whether nothing more comes after nothing.
    fn has_end(&self) -> bool {
        matches!(self, Self::Tcp(_))
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
