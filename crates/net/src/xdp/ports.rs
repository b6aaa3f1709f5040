//! The local ports of sockets to backends whose datagrams use AF_XDP. The kernel sockets still reserve the
//! ports and receive ICMP errors. They also carry the datagrams that AF_XDP cannot: no frame is free, the
//! next hop has changed, or replies arrive at the queue of another worker.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use af_xdp::Bypass;
use af_xdp::HeldPort;
use engine::query_slots::{QuerySlot, SocketId};
use foldhash::fast::FixedState;

use crate::sys::batch::SendBatch;

/// The held ports of one worker's sockets to backends. While a port is held, the program redirects the
/// replies to it. Release a port before its socket is closed, because another socket may get the port then.
pub(crate) struct BypassPorts {
    bypass: Rc<Bypass>,
    by_address: HashMap<(IpAddr, u16), SocketId, FixedState>,
    by_socket: HashMap<SocketId, HeldPort, FixedState>,
}

impl BypassPorts {
    /// Creates an empty set of ports for datagrams by this bypass.
    pub(crate) fn new(bypass: Rc<Bypass>) -> Self {
        Self { bypass, by_address: HashMap::default(), by_socket: HashMap::default() }
    }

    /// The bypass of these ports.
    pub(crate) fn bypass(&self) -> &Bypass {
        &self.bypass
    }

    /// Holds the port of a socket to the backend at `remote`, if AF_XDP reaches it, except once per interval.
    /// `by_kernel_at` is the time for that exception.
    pub(crate) fn hold(
        &mut self,
        number: SocketId,
        udp: &UdpSocket,
        remote: SocketAddr,
        by_kernel_at: &mut Option<Instant>,
        now: Instant,
    ) {
        if !self.bypass.is_active() {
            return;
        }
        // The kernel does not see AF_XDP frames, and does not probe a neighbor that seems unused, so it would
        // never detect a neighbor that is gone or has a new Ethernet address (RFC 4861 section 7.3.1). So one
        // socket per interval bypasses AF_XDP.
        if by_kernel_at.is_none_or(|at| at <= now) {
            *by_kernel_at = Some(now + BY_KERNEL_EVERY);
            return;
        }
        let Ok(local) = udp.local_addr() else { return };
        let Some(held) = self.bypass.hold(local, remote) else { return };
        self.by_address.insert((local.ip(), local.port()), number);
        self.by_socket.insert(number, held);
    }

    /// Releases the port of a socket, if it is held.
    pub(crate) fn release(&mut self, number: SocketId) {
        if let Some(held) = self.by_socket.remove(&number) {
            self.by_address.remove(&(held.local.ip(), held.local.port()));
        }
    }

    /// Sends the messages of a socket that can leave by AF_XDP. The rest stays in the batch, with its slots.
    pub(crate) fn divert(&self, number: SocketId, batch: &mut SendBatch, slots: &mut Vec<QuerySlot>) {
        let Some(send) = self.by_socket.get(&number).and_then(|held| self.bypass.sender(held)) else { return };
        let mut left = 0;
        batch.retain(|index, datagram| {
            let stays = !send(datagram);
            if stays {
                slots.swap(left, index);
                left += 1;
            }
            stays
        });
        slots.truncate(left);
    }

    /// Returns the socket for a datagram that came by AF_XDP from `remote` to `local`, if its port is held
    /// for that backend (RFC 5452 section 9.1).
    pub(crate) fn socket_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        let number = *self.by_address.get(&(local.ip(), local.port()))?;
        let backend = self.by_socket.get(&number)?.remote;
        (backend.ip() == remote.ip() && backend.port() == remote.port()).then_some(number)
    }
}

/// Interval of sockets that bypass AF_XDP: the kernel keeps an unused neighbor for up to 30 s.
pub(crate) const BY_KERNEL_EVERY: Duration = Duration::from_secs(1);
