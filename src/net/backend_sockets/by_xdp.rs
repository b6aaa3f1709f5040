//! Datagrams to backends and from them by AF_XDP.
//!
//! Each socket is the kernel's as ever: that reserves its random port and hears ICMP errors. Where the backend is reached by an interface with
//! AF_XDP, the port is held besides, so that datagrams pass by that socket in both ways. Whatever does not, or not any more, goes by
//! the socket: what finds no frame free, a backend whose next hop has changed, replies that arrive at the queue of another worker.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::BackendSockets;
use crate::net::batch::SendBatch;
use crate::net::xdp::{Held, WorkerSockets};
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};

/// The worker's sockets of AF_XDP, and who has which port.
pub(super) struct ByXdp {
    xsks: Rc<WorkerSockets>,
    ports: Ports,
}

impl ByXdp {
    /// Nothing is held yet.
    pub(super) fn new(xsks: Rc<WorkerSockets>) -> Self {
        Self { xsks, ports: Ports::default() }
    }

    /// Whether no socket is to have GRO.
    #[inline]
    pub(super) fn is_gro_off(&self) -> bool {
        self.xsks.is_gro_off()
    }

    /// Sends of a batch what can leave from a port that is held; the rest stays in it, and its slots.
    #[inline(never)]
    pub(super) fn divert(&self, held: &Held, batch: &mut SendBatch, slots: &mut Vec<QuerySlot>) {
        let Some(way) = self.xsks.way_from(held) else { return };
        let mut left = 0;
        batch.retain(|index, datagram| {
            let stays = way.push(datagram).is_err();
            if stays {
                slots.swap(left, index);
                left += 1;
            }
            stays
        });
        slots.truncate(left);
    }

    /// A port is the kernel's alone again.
    pub(super) fn release(&mut self, held: Held) {
        self.ports.remove(held.local());
    }
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// The socket that a datagram from `remote` to `local` is for, if it came by AF_XDP.
    #[inline]
    pub fn socket_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        let number = self.by_xdp.ports.get(local)?;
        let socket = self.sockets.get(number.index())?.as_ref()?;
        socket.held.as_ref()?.is_between(local, remote).then_some(number)
    }

    /// Has the datagrams of a socket that is being opened go by AF_XDP, if its backend can be reached so.
    #[inline]
    pub(super) fn hold(
        &mut self,
        (set_id, number): (SocketSetId, SocketId),
        udp: &UdpSocket,
        now: Instant,
    ) -> Option<Box<Held>> {
        if self.by_xdp.xsks.are_any() { self.hold_if_reached((set_id, number), udp, now) } else { None }
    }

    #[cold]
    fn hold_if_reached(
        &mut self,
        (set_id, number): (SocketSetId, SocketId),
        udp: &UdpSocket,
        now: Instant,
    ) -> Option<Box<Held>> {
        let set = self.set(set_id);
        // The kernel does not see our frames, and asks for no neighbor that it thinks nobody uses: that one has gone, or has another
        // Ethernet address, it would never find out (RFC 4861 section 7.3.1). So now and then a socket is its own.
        if set.by_kernel_at.is_none_or(|at| at <= now) {
            set.by_kernel_at = Some(now + BY_KERNEL_EVERY);
            return None;
        }
        let remote = set.address;
        let held = self.by_xdp.xsks.hold(udp.local_addr().ok()?, remote)?;
        self.by_xdp.ports.insert(held.local(), number);
        Some(Box::new(held))
    }
}

/// Whose each local port is.
#[derive(Default)]
struct Ports(
    /// Those of IPv4, then those of IPv6, each one more than the number of its socket; empty until there is one. Memory that was never
    /// written takes no room.
    Box<[Option<NonZeroU32>]>,
);

impl Ports {
    #[inline]
    fn get(&self, local: SocketAddr) -> Option<SocketId> {
        let taken = (*self.0.get(Self::index(local))?)?;
        Some(SocketId(taken.get() - 1))
    }

    fn insert(&mut self, local: SocketAddr, number: SocketId) {
        if self.0.is_empty() {
            self.0 = vec![None; 2 * PORTS].into_boxed_slice();
        }
        self.0[Self::index(local)] = NonZeroU32::new(number.0 + 1);
    }

    fn remove(&mut self, local: SocketAddr) {
        if let Some(place) = self.0.get_mut(Self::index(local)) {
            *place = None;
        }
    }

    fn index(local: SocketAddr) -> usize {
        usize::from(local.port()) + if local.is_ipv6() { PORTS } else { 0 }
    }
}

/// Port numbers that there are.
const PORTS: usize = 1 << u16::BITS;

/// How often one socket to a backend is the kernel's alone: the kernel keeps a neighbor for 30 s at most without a look at it.
const BY_KERNEL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
