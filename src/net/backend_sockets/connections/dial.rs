//! One socket on its way to be a connection, or being it: its non-blocking system calls, and what their errors mean.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll;
use socket2::{Domain, Protocol, Socket, Type};

use super::StreamWay;
use crate::metrics::LostCause;
use crate::net::backend_connection::{BackendConnection, Broken, ConnectionState};
use crate::net::refusal::{connect_problem, is_unreachable};
use crate::policy::query_slots::SocketId;

/// A socket and what goes through it.
pub(super) struct Dial {
    pub(super) socket: TcpStream,
    pub(super) stream: BackendConnection,
    pub(super) began: Instant,
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
                let tls = source().ok_or_else(|| io::Error::other("it is not known by what to tell who it is"))?;
                Some(tls.begin().map_err(io::Error::other)?)
            }
            None => None,
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(number.0.into()), EDGES)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self { socket: socket.into(), stream: BackendConnection::new(tls), began: now })
    }

    /// Goes on as far as it can with one read. Returns whether there may be more to read.
    pub(super) fn advance(&mut self, room: &mut [u8]) -> Result<bool, Fault> {
        if self.stream.state() == ConnectionState::Dialling {
            if let Some(error) = self.socket.take_error().map_err(Fault::Socket)? {
                return Err(Fault::Socket(error));
            }
            if self.socket.peer_addr().is_err() {
                return Ok(false);
            }
            self.stream.connected();
        }
        self.write().map_err(Fault::Socket)?;
        match self.socket.read(room) {
            Ok(0) => Err(Fault::Closed),
            Ok(octets) => {
                self.stream.hear(room.get(..octets).unwrap_or_default()).map_err(Fault::Broken)?;
                // A handshake goes on at once.
                self.write().map_err(Fault::Socket)?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(Fault::Socket(error)),
        }
    }

    /// Writes what the kernel takes. What it does not, epoll tells of when it does.
    pub(super) fn write(&mut self) -> io::Result<()> {
        loop {
            let output = self.stream.output();
            if output.is_empty() {
                return Ok(());
            }
            match self.socket.write(output) {
                Ok(written) => self.stream.wrote(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that it is over, if the other side still takes that.
    pub(super) fn say_good_bye(&mut self) {
        if self.stream.state() != ConnectionState::Dialling {
            self.stream.close();
            // Nobody waits for it to arrive.
            let _ = self.write();
        }
    }
}

impl Fault {
    /// Why an open connection was lost, and what TLS has against it.
    pub(super) fn lost(self) -> (LostCause, Option<String>) {
        match self {
            Self::Closed => (LostCause::Closed, None),
            Self::Socket(_) => (LostCause::Reset, None),
            Self::Broken(Broken::Tls(problem)) => (LostCause::Tls, Some(problem)),
            Self::Broken(Broken::Protocol) => (LostCause::Protocol, None),
            Self::Stalled => (LostCause::Stalled, None),
            Self::Timeout => (LostCause::Timeout, None),
        }
    }

    /// Why there was no connection, and whether somebody has refused it.
    pub(super) fn failed(self) -> (String, bool) {
        match self {
            Self::Closed => ("it closed the connection in the handshake".to_owned(), false),
            Self::Socket(error) => (connect_problem(&error), is_unreachable(&error)),
            Self::Broken(Broken::Tls(problem)) => (problem, true),
            Self::Broken(Broken::Protocol) => ("it sent something that is no DNS".to_owned(), false),
            Self::Stalled | Self::Timeout => ("the connection was not open in time".to_owned(), false),
        }
    }
}

/// All that may happen, told once: sockets are read until they are empty and written until they are full.
const EDGES: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::OUT).union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ET);
