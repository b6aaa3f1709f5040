//! The local ports of sockets to backends whose datagrams use AF_XDP. The kernel sockets still reserve the
//! ports and receive ICMP errors. They also carry the datagrams that AF_XDP cannot: no frame is free, the
//! next hop has changed, or replies arrive at the queue of another worker.

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bypass::KernelBypass;
use super::filter::XdpFilter;
use crate::net::sys::batch::SendBatch;
use crate::policy::query_slots::{QuerySlot, SocketId};

/// The held ports of one worker's sockets to backends. While a port is held, the program redirects the
/// replies to it. Release a port before its socket is closed, because another socket may get the port then.
pub struct HeldPorts {
    bypass: Rc<KernelBypass>,
    by_port: PortNumbers,
    by_socket: Vec<Option<Box<HeldPort>>>,
}

struct HeldPort {
    filter: Arc<XdpFilter>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        self.filter.release(self.local);
    }
}

impl HeldPorts {
    /// Creates an empty set of ports for datagrams by this bypass.
    pub fn new(bypass: Rc<KernelBypass>) -> Self {
        Self { bypass, by_port: PortNumbers::default(), by_socket: Vec::new() }
    }

    /// The bypass of these ports.
    pub fn bypass(&self) -> &KernelBypass {
        &self.bypass
    }

    /// Holds the port of a socket to the backend at `remote`, if AF_XDP reaches it, except once per interval.
    /// `by_kernel_at` is the time for that exception.
    #[inline]
    pub fn hold(
        &mut self,
        number: SocketId,
        udp: &UdpSocket,
        remote: SocketAddr,
        by_kernel_at: &mut Option<Instant>,
        now: Instant,
    ) {
        if self.bypass.is_active() {
            self.hold_if_reached(number, udp, remote, by_kernel_at, now);
        }
    }

    #[cold]
    fn hold_if_reached(
        &mut self,
        number: SocketId,
        udp: &UdpSocket,
        remote: SocketAddr,
        by_kernel_at: &mut Option<Instant>,
        now: Instant,
    ) {
        // The kernel does not see AF_XDP frames, and does not probe a neighbor that seems unused, so it would
        // never detect a neighbor that is gone or has a new Ethernet address (RFC 4861 section 7.3.1). So one
        // socket per interval bypasses AF_XDP.
        if by_kernel_at.is_none_or(|at| at <= now) {
            *by_kernel_at = Some(now + BY_KERNEL_EVERY);
            return;
        }
        let Ok(local) = udp.local_addr() else { return };
        let Some((socket, _)) = self.bypass.way(local, remote) else { return };
        let filter = Arc::clone(&socket.filter);
        filter.hold(self.bypass.worker, local, remote);
        self.by_port.insert(local, number);
        if self.by_socket.len() <= number.index() {
            self.by_socket.resize_with(number.index() + 1, || None);
        }
        self.by_socket[number.index()] = Some(Box::new(HeldPort { filter, local, remote }));
    }

    /// Releases the port of a socket, if it is held.
    pub fn release(&mut self, number: SocketId) {
        if let Some(held) = self.by_socket.get_mut(number.index()).and_then(Option::take) {
            self.by_port.remove(held.local);
        }
    }

    /// Sends the messages of a socket that can leave by AF_XDP. The rest stays in the batch, with its slots.
    #[inline]
    pub fn divert(&self, number: SocketId, batch: &mut SendBatch, slots: &mut Vec<QuerySlot>) {
        if let Some(Some(held)) = self.by_socket.get(number.index()) {
            self.divert_from(held, batch, slots);
        }
    }

    #[inline(never)]
    fn divert_from(&self, held: &HeldPort, batch: &mut SendBatch, slots: &mut Vec<QuerySlot>) {
        let HeldPort { filter, local, remote } = held;
        let Some((socket, link)) = self.bypass.way(*local, *remote) else { return };
        // Replies would not arrive by AF_XDP.
        if !Arc::ptr_eq(filter, &socket.filter) {
            return;
        }
        let mut left = 0;
        batch.retain(|index, datagram| {
            let stays = socket.xsk().push(link, *local, *remote, datagram).is_err();
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
    #[inline]
    pub fn socket_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        let number = self.by_port.get(local)?;
        let held = self.by_socket.get(number.index())?.as_ref()?;
        let is = |ours: SocketAddr, other: SocketAddr| ours.ip() == other.ip() && ours.port() == other.port();
        (is(held.local, local) && is(held.remote, remote)).then_some(number)
    }
}

#[derive(Default)]
struct PortNumbers(
    /// First IPv4, then IPv6: the socket number plus one. Unwritten memory takes no space.
    Box<[Option<NonZeroU32>]>,
);

impl PortNumbers {
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
pub(in crate::net) const BY_KERNEL_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_of_each_family_is_anothers() {
        let mut ports = PortNumbers::default();
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = ["10.0.0.1:1024", "10.0.0.1:65535", "[2001:db8::1]:1024", "[2001:db8::1]:65535"].map(address);
        assert!(all.iter().all(|local| ports.get(*local).is_none()));
        ports.remove(all[0]);
        for (number, local) in (0..).zip(all) {
            ports.insert(local, SocketId(number));
        }
        assert_eq!(all.map(|local| ports.get(local).map(|number| number.0)), [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(ports.get(address("10.0.0.1:1025")), None);
        ports.remove(all[0]);
        assert_eq!(all.map(|local| ports.get(local).is_some()), [false, true, true, true]);
    }
}
