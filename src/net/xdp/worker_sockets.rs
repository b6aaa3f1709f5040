//! The AF_XDP sockets of one worker, one for each queue that it serves, the links by which datagrams came, and the ways to backends.
//!
//! A datagram that came by AF_XDP bears the number of its link, so that its response can leave the way it came. Where the
//! socket has gone meanwhile, or another link has the place, or so many links are in use that a new one gets no number, the response
//! leaves by the ordinary socket of its listener.
//!
//! A query to a backend leaves by any socket of the interface by which the kernel would have it leave (`next_hops.rs`), as long as the
//! reply comes back by AF_XDP too (`held.rs`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::filter::Filter;
use super::frame::{Checksums, Link};
use super::held::Held;
use super::next_hops::NextHops;
use super::socket::{Unqueued, Xsk};

/// Links that one worker knows: the hosts of a small network, or its routers. Who sends from more Ethernet addresses is answered by
/// ordinary sockets where a backend has to be asked.
const MAX_LINKS: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 12;

/// The generations of a place that are told apart: one fewer than there is room for, since the number is above zero.
const GENERATIONS: u16 = (1 << (u16::BITS - PLACE_BITS)) - 1;

/// For how long an unused link keeps its place where others want one.
const IDLE: Duration = Duration::from_secs(60);

/// Links that are looked at to find the place of one that is idle: a flood of new links costs no more.
const MAX_LOOKS: usize = 8;

/// The number of a link that a worker knows. It means nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(
    /// The place in the table, how many links have had it before (a few bits of that, since a place changes hands once in [`IDLE`] at
    /// most), and 1: each query in flight has one, in two octets.
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

/// Where a socket waits for its next worker. The process keeps it, whatever becomes of workers.
pub type Home = Arc<Mutex<Option<Xsk>>>;

/// A socket in use; it goes home when it is dropped, also by a panic, and closes if there is no home any more.
pub struct LentXsk {
    /// There until it is dropped.
    xsk: Option<Xsk>,
    home: Weak<Mutex<Option<Xsk>>>,
}

impl LentXsk {
    /// Takes a socket from its home, if it is there.
    pub fn take(home: &Home) -> Option<Self> {
        let xsk = home.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Self { xsk: Some(xsk), home: Arc::downgrade(home) })
    }

    /// The socket.
    pub fn xsk(&self) -> &Xsk {
        self.xsk.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for LentXsk {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            *home.lock().unwrap_or_else(PoisonError::into_inner) = self.xsk.take();
        }
    }
}

/// A socket of a worker, and the interface that it is on.
pub struct WorkerSocket {
    /// No other of this worker has, or had, this number.
    pub number: u32,
    /// The index of the interface.
    pub interface: u32,
    /// Those of the datagrams that it receives.
    pub checksums: Checksums,
    /// The program of the interface.
    filter: Arc<Filter>,
    lent: LentXsk,
    /// Told when the interface takes no more.
    stuck: Notify,
}

impl WorkerSocket {
    /// The socket.
    pub fn xsk(&self) -> &Xsk {
        self.lent.xsk()
    }

    /// Hands all that is queued to the kernel.
    pub fn flush(&self) {
        let xsk = self.xsk();
        xsk.flush();
        if xsk.is_stuck() {
            self.stuck.notify_one();
        }
    }

    /// Waits until the interface takes no more of what is queued: it is to be asked again by a [`flush`](Self::flush) some time later.
    pub async fn stuck(&self) {
        self.stuck.notified().await;
    }

    /// Whether this is its home.
    pub fn is_from(&self, home: &Home) -> bool {
        ptr::eq(self.lent.home.as_ptr(), Arc::as_ptr(home))
    }
}

/// The way of datagrams from a socket of ours to a backend.
pub struct BackendWay {
    socket: Rc<WorkerSocket>,
    link: Link,
    from: SocketAddr,
    to: SocketAddr,
}

impl BackendWay {
    /// Queues a datagram for the next [`flush`](WorkerSockets::flush).
    ///
    /// # Errors
    /// If it cannot leave as one frame, or none is free.
    #[inline]
    pub fn push(&self, payload: &[u8]) -> Result<(), Unqueued> {
        self.socket.xsk().push(self.link, self.from, self.to, payload)
    }
}

/// The AF_XDP sockets of one worker; none if the config says nothing of them.
pub struct WorkerSockets {
    /// The number of the worker.
    worker: u32,
    next_hops: RefCell<Arc<NextHops>>,
    all: RefCell<Vec<Rc<WorkerSocket>>>,
    next_number: Cell<u32>,
    links: RefCell<Links>,
    /// Whether no socket is to have GRO.
    is_gro_off: Cell<bool>,
    /// A response on its way into a frame.
    scratch: RefCell<Vec<u8>>,
}

/// The links that are known.
#[derive(Default)]
struct Links {
    /// By place.
    all: Vec<KnownLink>,
    numbers: HashMap<(u32, Link), LinkId>,
    /// The last one, which mostly is the next.
    last: Option<((u32, Link), LinkId)>,
    /// The place that is looked at next for one that is idle.
    hand: usize,
}

/// A link that is known.
struct KnownLink {
    id: LinkId,
    generation: u16,
    /// The socket, and the way from there.
    key: (u32, Link),
    used: Instant,
}

impl Links {
    /// The number of a link, in a free place or that of one that is idle.
    fn number(&mut self, key: (u32, Link), now: Instant) -> Option<LinkId> {
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

    fn add(&mut self, key: (u32, Link), now: Instant) -> Option<LinkId> {
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

    /// The next place, of a few, whose link is idle.
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

    /// The socket and the way of a number, unless another link has its place.
    fn get(&self, id: LinkId) -> Option<(u32, Link)> {
        self.all.get(id.index()).filter(|link| link.id == id).map(|link| link.key)
    }
}

impl WorkerSockets {
    /// None yet, of the worker of this number.
    pub fn new(worker: u32) -> Self {
        Self {
            worker,
            next_hops: RefCell::default(),
            all: RefCell::default(),
            next_number: Cell::default(),
            links: RefCell::default(),
            is_gro_off: Cell::default(),
            scratch: RefCell::default(),
        }
    }

    /// Adds a socket, of an interface with this program.
    pub fn add(&self, interface: u32, checksums: Checksums, filter: Arc<Filter>, lent: LentXsk) -> Rc<WorkerSocket> {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let socket = Rc::new(WorkerSocket { number, interface, checksums, filter, lent, stuck: Notify::new() });
        self.all.borrow_mut().push(Rc::clone(&socket));
        socket
    }

    /// Has no socket of this worker ask the kernel for GRO: a generic program runs behind that, and would take for one datagram what is coalesced.
    pub fn switch_gro_off(&self) {
        self.is_gro_off.set(true);
    }

    /// Whether no socket is to have GRO.
    #[inline]
    pub fn is_gro_off(&self) -> bool {
        self.is_gro_off.get()
    }

    /// Lets go of a socket.
    pub fn remove(&self, number: u32) {
        self.all.borrow_mut().retain(|socket| socket.number != number);
    }

    /// Datagrams to backends leave by these next hops from now on.
    pub fn set_next_hops(&self, next_hops: Arc<NextHops>) {
        *self.next_hops.borrow_mut() = next_hops;
    }

    /// Whether there are any.
    pub fn are_any(&self) -> bool {
        !self.all.borrow().is_empty()
    }

    /// Has what `remote` sends to `local`, a socket that is connected there, come by AF_XDP; not if the way there is another.
    pub fn hold(&self, local: SocketAddr, remote: SocketAddr) -> Option<Held> {
        let BackendWay { socket, .. } = self.way(local, remote)?;
        Some(Held::new(Arc::clone(&socket.filter), self.worker, local, remote))
    }

    /// The way from a port that is held to its backend as it is now; none if replies would not come back that way.
    pub fn way_from(&self, held: &Held) -> Option<BackendWay> {
        self.way(held.local(), held.remote()).filter(|way| held.is_in(&way.socket.filter))
    }

    fn way(&self, from: SocketAddr, to: SocketAddr) -> Option<BackendWay> {
        // One that has another source was connected when the way was another, and may have an address that is not ours any more: what
        // the kernel does with it is right.
        let hop = self.next_hops.borrow().to(to.ip()).filter(|hop| hop.source == from.ip())?;
        let all = self.all.borrow();
        let socket = all.iter().find(|socket| socket.interface == hop.interface)?;
        Some(BackendWay { socket: Rc::clone(socket), link: hop.link, from, to })
    }

    /// The number of a link; none if too many are in use.
    pub fn link(&self, socket: u32, link: Link, now: Instant) -> Option<LinkId> {
        self.links.borrow_mut().number((socket, link), now)
    }

    /// Queues a response for the next [`flush`](Self::flush): `fill` writes it, and if it writes nothing, there is none. What cannot
    /// leave that way goes to `otherwise`.
    pub fn push(
        &self,
        link: LinkId,
        (from, to): (SocketAddr, SocketAddr),
        fill: impl FnOnce(&mut Vec<u8>),
        otherwise: impl FnOnce(&[u8]),
    ) {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        fill(&mut scratch);
        if !scratch.is_empty() && self.push_frame(link, (from, to), &scratch).is_err() {
            otherwise(&scratch);
        }
    }

    fn push_frame(&self, link: LinkId, (from, to): (SocketAddr, SocketAddr), payload: &[u8]) -> Result<(), Unqueued> {
        let Some((number, link)) = self.links.borrow().get(link) else {
            return Err(Unqueued::NoRoom);
        };
        let all = self.all.borrow();
        let socket = all.iter().find(|socket| socket.number == number).ok_or(Unqueued::NoRoom)?;
        socket.xsk().push(link, from, to, payload)
    }

    /// Hands all that is queued to the kernel.
    pub fn flush(&self) {
        self.all.borrow().iter().for_each(|socket| socket.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_links_leave_their_places_to_new_ones() {
        let sockets = WorkerSockets::new(0);
        let start = Instant::now();
        let link =
            |number: usize| Link { ours: [2, 0, 0, 0, 0, 1], theirs: [2, 0, 0, 1, (number >> 8) as u8, number as u8] };
        let get = |number, after| sockets.link(0, link(number), start + after);
        let ids: Vec<_> = (0..MAX_LINKS).map(|number| get(number, Duration::ZERO).expect("there is room")).collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!((id.index(), get(number, Duration::ZERO)), (number, Some(*id)));
        }
        assert_eq!(get(MAX_LINKS, IDLE / 2), None, "all are in use");
        assert_eq!(sockets.link(1, link(0), start), None, "another socket, another link");
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
        let sockets = WorkerSockets::new(0);
        let link = sockets.link(0, Link { ours: [2; 6], theirs: [4; 6] }, Instant::now()).expect("there is room");
        let addresses = ("192.0.2.1:53".parse().unwrap(), "192.0.2.2:1024".parse().unwrap());
        let mut other = Vec::new();
        sockets.push(link, addresses, |out| out.extend([1, 2]), |message| other = message.to_vec());
        assert_eq!(other, [1, 2], "its socket is not there");
        sockets.push(link, addresses, |_| {}, |_| panic!("there is nothing"));
    }
}
