//! A connected socket to a backend, its unpredictable port, and the rate of renewals.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use engine::query_slots::SocketSetId;
use rand::RngExt;
use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};

use super::sent::SentIds;
use crate::sys::bind::SOCKET_BUFFER;
use crate::sys::options::ignore_path_mtu;

pub(super) struct BackendSocket {
    pub(super) udp: UdpSocket,
    pub(super) set_id: SocketSetId,
    pub(super) opened: Instant,
    pub(super) batches: u32,
    /// The value of `batches` at the last check of the socket's age.
    pub(super) batches_before: u32,
    /// The IDs of its outstanding messages.
    pub(super) sent: SentIds,
    pub(super) is_retired: bool,
    pub(super) near_misses: u8,
    /// True after too many near misses: replies to this socket are ignored.
    pub(super) is_void: bool,
    pub(super) is_spent: bool,
    /// True if a renewal opened it for a single message: its first batch takes no other.
    pub(super) is_for_one: bool,
}

/// The rate of renewals, which limits them to half a percent of a worker's time: a renewal costs six system
/// calls, some 10 µs, and the query waits for most of that.
pub(super) struct Renewals {
    pub(super) credit: u32,
    pub(super) since: Option<Instant>,
}

impl Renewals {
    pub(super) fn new() -> Self {
        Self { credit: Self::BURST, since: None }
    }

    pub(super) fn allow(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_micros() / Self::EVERY.as_micros();
        if earned > 0 {
            self.credit = self.credit.saturating_add(earned.min(u128::from(Self::BURST)) as u32).min(Self::BURST);
            self.since = Some(now);
        }
        let allowed = self.credit > 0;
        self.credit -= u32::from(allowed);
        allowed
    }

    /// 500 renewals per second. Up to that rate, every query leaves from its own port.
    pub(super) const EVERY: Duration = Duration::from_millis(2);
    /// Maximum credit, reached after two seconds without renewals: some 10 ms of work.
    pub(super) const BURST: u32 = 1024;
}

/// Opens a non-blocking socket connected to `address` from a random port that is not `reserved`.
pub(super) fn connected(
    address: SocketAddr,
    reserved: impl Fn(u16) -> bool,
    rng: &mut StdRng,
) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    ignore_path_mtu(&socket, address.is_ipv6());
    let mut attempts_left = PORT_ATTEMPTS;
    loop {
        attempts_left -= 1;
        // RFC 5452 section 9.2: use as many ports as possible.
        let port = rng.random_range(UNPRIVILEGED..=u16::MAX);
        let bound = if reserved(port) {
            Err(io::ErrorKind::AddrInUse.into())
        } else {
            socket.bind(&SocketAddr::new(any, port).into())
        };
        match bound {
            Ok(()) => break,
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || attempts_left == 0 => return Err(error),
            Err(_) => {}
        }
    }
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Attempts per socket. With half of all ports in use, all fail once in four billion cases.
const PORT_ATTEMPTS: u32 = 32;

pub(super) const UNPRIVILEGED: u16 = 1024;
