//! The AF_XDP sockets of one worker, the links of received datagrams, and the ways to backends.
//!
//! A received datagram carries the number of its link, for the response. Without a link the response leaves
//! by the listener's ordinary socket. A query leaves by the interface of the kernel's route ([`NextHops`]),
//! if the reply arrives by AF_XDP too ([`HeldPort`]).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, OwnedMutexGuard};

use crate::filter::XdpFilter;
use crate::frame::{Checksums, EthernetLink};
use crate::socket::Xsk;

/// Enough for the hosts of a small network or its routers. Others get late responses by ordinary sockets.
const MAX_LINKS: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 12;

/// One less than fits, because the number is never zero.
const GENERATIONS: u16 = (1 << (u16::BITS - PLACE_BITS)) - 1;

const IDLE: Duration = Duration::from_secs(60);

/// Bounds the cost of a flood of new links.
const MAX_LOOKS: usize = 8;

/// The number of a link, valid only within its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkId(
    /// The place, a few bits of its generation, plus 1. Two bytes, because each query in flight has one.
    NonZeroU16,
);

impl LinkId {
    fn new(index: usize, generation: u16) -> Option<Self> {
        let place = u16::try_from(index).ok().filter(|_| index < MAX_LINKS)?;
        NonZeroU16::new(((generation % GENERATIONS) << PLACE_BITS | place) + 1).map(Self)
    }

    fn index(self) -> usize {
        usize::from(self.0.get() - 1) % MAX_LINKS
    }
}

/// A socket that one worker at a time uses. The process keeps it when a worker ends, also by a panic.
pub type SharedXsk = Arc<Mutex<Xsk>>;

/// The path of a datagram to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The index of the interface.
    pub interface: u32,
    /// Our source address.
    pub source: IpAddr,
    /// The Ethernet addresses, from us to the host or a router.
    pub link: EthernetLink,
}

/// The next hops of the hosts that are reached by AF_XDP interfaces. Other hosts are reached by ordinary
/// sockets, which also make the kernel resolve the neighbor.
pub type NextHops = HashMap<IpAddr, NextHop>;

/// A socket of a worker, with its interface.
pub struct WorkerSocket {
    /// A number that this worker never reuses.
    pub number: u32,
    /// The index of the interface.
    pub interface: u32,
    /// The checksums of received datagrams.
    pub checksums: Checksums,
    /// The socket, which this worker uses until it drops the guard.
    pub xsk: OwnedMutexGuard<Xsk>,
    filter: Arc<XdpFilter>,
    stuck: Notify,
}

impl WorkerSocket {
    /// Hands all queued frames to the kernel.
    pub fn flush(&self) {
        self.xsk.flush();
        if self.xsk.is_stuck() {
            self.stuck.notify_one();
        }
    }

    /// Waits until the interface is full. The caller must [`flush`](Self::flush) again some time later.
    pub async fn stuck(&self) {
        self.stuck.notified().await;
    }

    /// Returns true if this is the socket.
    pub fn is(&self, socket: &SharedXsk) -> bool {
        Arc::ptr_eq(OwnedMutexGuard::mutex(&self.xsk), socket)
    }
}

/// A local port of a connected socket. While this lives, the program redirects datagrams from `remote` to it.
/// Drop this before the socket is closed, because another socket may get the port then.
pub struct HeldPort {
    filter: Arc<XdpFilter>,
    /// The address of the socket.
    pub local: SocketAddr,
    /// The address of the peer.
    pub remote: SocketAddr,
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        self.filter.release(self.local);
    }
}

/// The AF_XDP sockets of one worker; empty without `[xdp]`.
#[derive(Default)]
pub struct Bypass {
    worker: u32,
    next_hops: RefCell<Arc<NextHops>>,
    all: RefCell<Vec<Rc<WorkerSocket>>>,
    next_number: Cell<u32>,
    links: RefCell<LinkTable>,
    is_gro_off: bool,
    scratch: RefCell<Vec<u8>>,
}

#[derive(Default)]
struct LinkTable {
    all: Vec<KnownLink>,
    numbers: HashMap<(u32, EthernetLink), LinkId>,
    last: Option<((u32, EthernetLink), LinkId)>,
    hand: usize,
}

struct KnownLink {
    id: LinkId,
    generation: u16,
    key: (u32, EthernetLink),
    used: Instant,
}

impl LinkTable {
    fn number(&mut self, key: (u32, EthernetLink), now: Instant) -> Option<LinkId> {
        let known = match self.last {
            Some((last, id)) if last == key => Some(id),
            Some(_) | None => self.numbers.get(&key).copied(),
        };
        let id = known.or_else(|| self.add(key, now))?;
        if let Some(known) = self.all.get_mut(id.index()) {
            known.used = now;
        }
        self.last = Some((key, id));
        Some(id)
    }

    fn add(&mut self, key: (u32, EthernetLink), now: Instant) -> Option<LinkId> {
        let id = if let Some(id) = LinkId::new(self.all.len(), 0) {
            self.all.push(KnownLink { id, generation: 0, key, used: now });
            id
        } else {
            let index = self.idle(now)?;
            let place = self.all.get_mut(index)?;
            let generation = place.generation.wrapping_add(1);
            let id = LinkId::new(index, generation)?;
            self.numbers.remove(&place.key);
            *place = KnownLink { id, generation, key, used: now };
            self.last = None;
            id
        };
        self.numbers.insert(key, id);
        Some(id)
    }

    fn idle(&mut self, now: Instant) -> Option<usize> {
        for _ in 0..MAX_LOOKS {
            let index = self.hand;
            self.hand = (index + 1) % MAX_LINKS;
            if self.all.get(index).is_some_and(|link| now.saturating_duration_since(link.used) >= IDLE) {
                return Some(index);
            }
        }
        None
    }

    fn get(&self, id: LinkId) -> Option<(u32, EthernetLink)> {
        self.all.get(id.index()).filter(|link| link.id == id).map(|link| link.key)
    }
}

impl Bypass {
    /// Creates an empty set for a worker. `is_gro_off` disables GRO: a generic program runs after it, and
    /// would read coalesced datagrams as one.
    pub fn new(worker: u32, is_gro_off: bool) -> Self {
        Self { worker, is_gro_off, ..Self::default() }
    }

    /// Adds a socket of an interface with this program. `None` if another worker uses it, or this one
    /// already.
    pub fn add(
        &self,
        interface: u32,
        checksums: Checksums,
        filter: Arc<XdpFilter>,
        socket: &SharedXsk,
    ) -> Option<Rc<WorkerSocket>> {
        let xsk = Arc::clone(socket).try_lock_owned().ok()?;
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let socket = Rc::new(WorkerSocket { number, interface, checksums, xsk, filter, stuck: Notify::new() });
        self.all.borrow_mut().push(Rc::clone(&socket));
        Some(socket)
    }

    /// Returns true if sockets must not use GRO.
    #[inline]
    pub fn is_gro_off(&self) -> bool {
        self.is_gro_off
    }

    /// Removes a socket.
    pub fn remove(&self, number: u32) {
        self.all.borrow_mut().retain(|socket| socket.number != number);
    }

    /// Sets the next hops for datagrams to backends.
    pub fn set_next_hops(&self, next_hops: Arc<NextHops>) {
        *self.next_hops.borrow_mut() = next_hops;
    }

    /// Returns true if there are any sockets.
    pub fn is_active(&self) -> bool {
        !self.all.borrow().is_empty()
    }

    /// The current way of datagrams from a local socket to a backend.
    fn way(&self, from: SocketAddr, to: SocketAddr) -> Option<(Rc<WorkerSocket>, EthernetLink)> {
        // Otherwise the route changed after the connect; the kernel handles that.
        let hop = self.next_hops.borrow().get(&to.ip()).copied().filter(|hop| hop.source == from.ip())?;
        let all = self.all.borrow();
        let socket = all.iter().find(|socket| socket.interface == hop.interface)?;
        Some((Rc::clone(socket), hop.link))
    }

    /// Holds the port of a local socket that is connected to `remote`, if AF_XDP reaches that.
    pub fn hold(&self, local: SocketAddr, remote: SocketAddr) -> Option<HeldPort> {
        let (socket, _) = self.way(local, remote)?;
        let filter = Arc::clone(&socket.filter);
        filter.hold(self.worker, local, remote);
        Some(HeldPort { filter, local, remote })
    }

    /// Returns the sender of datagrams from a held port, if replies would arrive by AF_XDP. It returns false
    /// if only an ordinary socket may send the datagram.
    pub fn sender(&self, &HeldPort { ref filter, local, remote }: &HeldPort) -> Option<impl Fn(&[u8]) -> bool> {
        let (socket, link) = self.way(local, remote)?;
        Arc::ptr_eq(filter, &socket.filter).then_some(move |bytes: &[u8]| socket.xsk.push(link, local, remote, bytes))
    }

    /// The number of the link of a datagram that came to a socket of this number, for the response. `None` if
    /// too many links are in use.
    pub fn link(&self, came: (u32, EthernetLink), now: Instant) -> Option<NonZeroU16> {
        self.links.borrow_mut().number(came, now).map(|LinkId(link)| link)
    }

    /// Queues the response that `fill` writes, if any. If that fails, it goes to `otherwise`.
    pub fn push(
        &self,
        link: NonZeroU16,
        (from, to): (SocketAddr, SocketAddr),
        fill: impl FnOnce(&mut Vec<u8>),
        otherwise: impl FnOnce(&[u8]),
    ) {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        fill(&mut scratch);
        if scratch.is_empty() {
            return;
        }
        let all = self.all.borrow();
        let is_queued = self.links.borrow().get(LinkId(link)).is_some_and(|(number, link)| {
            let socket = all.iter().find(|socket| socket.number == number);
            socket.is_some_and(|socket| socket.xsk.push(link, from, to, &scratch))
        });
        if !is_queued {
            otherwise(&scratch);
        }
    }

    /// Hands all queued frames to the kernel.
    pub fn flush(&self) {
        self.all.borrow().iter().for_each(|socket| socket.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_links_leave_their_places_to_new_ones() {
        let sockets = Bypass::default();
        let start = Instant::now();
        let link = |number: usize| EthernetLink {
            ours: [2, 0, 0, 0, 0, 1],
            theirs: [2, 0, 0, 1, (number >> 8) as u8, number as u8],
        };
        let id = |socket, number, now| sockets.links.borrow_mut().number((socket, link(number)), now);
        let get = |number, after| id(0, number, start + after);
        let ids: Vec<_> = (0..MAX_LINKS).map(|number| get(number, Duration::ZERO).expect("there is room")).collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!((id.index(), get(number, Duration::ZERO)), (number, Some(*id)));
        }
        assert_eq!(get(MAX_LINKS, IDLE / 2), None, "all are in use");
        assert_eq!(id(1, 0, start), None, "another socket, another link");
        assert_eq!(get(0, IDLE), Some(ids[0]), "its use keeps it");
        let others: Vec<_> =
            (1..MAX_LINKS).map(|number| get(MAX_LINKS + number, IDLE).expect("an idle place")).collect();
        assert_eq!(get(0, IDLE), Some(ids[0]));
        let links = sockets.links.borrow();
        assert!(ids[1..].iter().all(|id| links.get(*id).is_none()), "an old number is not that of a new link");
        assert_eq!(links.get(others[0]).map(|(_, link)| link.theirs[4]), Some(link(MAX_LINKS + 1).theirs[4]));
        assert_eq!(links.numbers.len(), MAX_LINKS);
    }

    #[test]
    fn what_cannot_leave_goes_elsewhere() {
        let sockets = Bypass::default();
        let came = (0, EthernetLink { ours: [2; 6], theirs: [4; 6] });
        let link = sockets.link(came, Instant::now()).expect("there is room");
        let addresses = ("192.0.2.1:53".parse().unwrap(), "192.0.2.2:1024".parse().unwrap());
        let mut other = Vec::new();
        sockets.push(link, addresses, |out| out.extend([1, 2]), |message| other = message.to_vec());
        assert_eq!(other, [1, 2], "its socket is not there");
        sockets.push(link, addresses, |_| {}, |_| panic!("there is nothing"));
    }
}
