//! Datagrams to and from backends by AF_XDP. The kernel sockets still reserve the ports and receive ICMP
//! errors. They also carry the datagrams that AF_XDP cannot: no frame is free, the next hop has changed, or
//! replies arrive at the queue of another worker.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::BackendSockets;
use crate::net::sys::batch::SendBatch;
use crate::net::xdp::{HeldPort, WorkerSockets};
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};

pub(super) struct ByXdp {
    xsks: Rc<WorkerSockets>,
    ports: Ports,
}

impl ByXdp {
    pub(super) fn new(xsks: Rc<WorkerSockets>) -> Self {
        Self { xsks, ports: Ports::default() }
    }

    #[inline]
    pub(super) fn is_gro_off(&self) -> bool {
        self.xsks.is_gro_off()
    }

    /// Sends the messages that can leave from a held port. The rest stays in the batch, with its slots.
    #[inline(never)]
    pub(super) fn divert(&self, held: &HeldPort, batch: &mut SendBatch, slots: &mut Vec<QuerySlot>) {
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

    pub(super) fn release(&mut self, held: HeldPort) {
        self.ports.remove(held.local());
    }
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Returns the socket for a datagram from `remote` to `local` that arrived by AF_XDP.
    #[inline]
    pub fn socket_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        let number = self.by_xdp.ports.get(local)?;
        let socket = self.sockets.get(number.index())?.as_ref()?;
        socket.held.as_ref()?.is_between(local, remote).then_some(number)
    }

    #[inline]
    pub(super) fn hold(
        &mut self,
        (set_id, number): (SocketSetId, SocketId),
        udp: &UdpSocket,
        now: Instant,
    ) -> Option<Box<HeldPort>> {
        if self.by_xdp.xsks.are_any() { self.hold_if_reached((set_id, number), udp, now) } else { None }
    }

    #[cold]
    fn hold_if_reached(
        &mut self,
        (set_id, number): (SocketSetId, SocketId),
        udp: &UdpSocket,
        now: Instant,
    ) -> Option<Box<HeldPort>> {
        let set = self.set(set_id);
        // The kernel does not see AF_XDP frames, and does not probe a neighbor that seems unused, so it would
        // never detect a neighbor that is gone or has a new Ethernet address (RFC 4861 section 7.3.1). So one
        // socket per interval bypasses AF_XDP.
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

#[derive(Default)]
struct Ports(
    /// First IPv4, then IPv6: the socket number plus one. Unwritten memory takes no space.
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

const PORTS: usize = 1 << u16::BITS;

/// Interval of sockets that bypass AF_XDP: the kernel keeps an unused neighbor for up to 30 s.
const BY_KERNEL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
