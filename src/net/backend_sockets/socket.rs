//! One connected socket to a backend: how it is made, on a port that nobody can foresee, and how often it may be renewed for
//! no other reason than that.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};

use super::sent::SentIds;
use crate::net::bind::SOCKET_BUFFER;
use crate::net::options::ignore_path_mtu;
use crate::net::xdp::Held;
use crate::policy::query_slots::SocketSetId;

/// One connected socket.
pub(super) struct BackendSocket {
    /// Its port, if datagrams go by AF_XDP. Dropped before the socket.
    pub(super) held: Option<Box<Held>>,
    pub(super) udp: UdpSocket,
    /// The set that it belongs to.
    pub(super) set_id: SocketSetId,
    pub(super) opened: Instant,
    /// Batches sent from it.
    pub(super) batches: u32,
    /// Those of them that had been sent when its age was looked at.
    pub(super) batches_before: u32,
    /// How many of its query slots are taken.
    pub(super) taken_slots: u32,
    /// The IDs of those.
    pub(super) sent: SentIds,
    /// Not chosen any more; closed when nothing waits on it.
    pub(super) is_retired: bool,
    /// How many replies with a wrong ID or to another question have come to it.
    pub(super) near_misses: u8,
    /// They were too many: nothing that comes to it is believed any more.
    pub(super) is_void: bool,
    /// To be retired as soon as its backend has another.
    pub(super) is_spent: bool,
    /// A renewal has opened it for a single message: its first batch takes no other, and it is spent when nothing waits on it.
    pub(super) is_for_one: bool,
}

impl BackendSocket {
    /// One of its slots is free again.
    pub(super) fn free_one(&mut self) {
        self.taken_slots -= 1;
        if self.taken_slots == 0 {
            self.sent.clear();
        }
    }
}

/// How often sockets may be renewed for their own sake, so that in the long run this takes no more than half a percent of a worker's
/// time: a renewal costs six system calls, some 10 µs, and the query that leaves from the new socket waits for most of that.
pub(super) struct Renewals {
    /// Renewals that may be made at once.
    pub(super) credit: u32,
    /// When credit was last given.
    pub(super) since: Option<Instant>,
}

impl Renewals {
    /// Full credit.
    pub(super) fn new() -> Self {
        Self { credit: Self::BURST, since: None }
    }

    /// Takes a credit, if there is one.
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

    /// The rate: 500 a second. Up to that rate, every query leaves from a port of its own.
    pub(super) const EVERY: Duration = Duration::from_millis(2);
    /// Those that may be made at once, after two seconds without any: some 10 ms of work. A thousand queries leave from a port each,
    /// one after another or in a burst.
    pub(super) const BURST: u32 = 1024;
}

/// A non-blocking socket connected to `address` from a random port that is not `reserved`.
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
        // RFC 5452 section 9.2: over as many ports as can be used.
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

/// How many random ports are tried for one socket. Even on a host with half of all ports taken, all of them fail once
/// in four billion.
const PORT_ATTEMPTS: u32 = 32;

/// The first port that needs no privilege.
pub(super) const UNPRIVILEGED: u16 = 1024;
