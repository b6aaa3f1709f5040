//! Tests for datagrams that leave by AF_XDP, on a socket that is bound to no interface. They require
//! privileges: without them the tests are skipped with a message, or fail if `HEDGEROW_REQUIRED` is set.

use std::env;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use af_xdp::filter::XdpFilter;
use af_xdp::frame::{Checksums, EthernetLink};
use af_xdp::socket::{Copying, FrameCounts, Xsk};
use af_xdp::{NextHop, NextHops, SharedXsk};
use metrics::Want;
use tokio::sync::Mutex;

use super::super::*;
use super::WorkerSockets;
use crate::refusal::SendRefusal;
use crate::to_backends::sockets::UnsentMessage;
use crate::xdp::BY_KERNEL_EVERY;

/// The sockets to a backend that an interface with AF_XDP reaches.
struct Fixture {
    sockets: WorkerSockets,
    set_id: SocketSetId,
    backend: UdpSocket,
    bypass: Rc<Bypass>,
    filter: Arc<XdpFilter>,
    shared: SharedXsk,
    xsk: u32,
    counts: Arc<FrameCounts>,
    /// The time, which only the test advances.
    now: Instant,
}

impl Fixture {
    /// Opens the fixture so that its next socket uses AF_XDP. `None` if the kernel denies it.
    fn new(mtu: u32) -> Option<Self> {
        let xsk = Xsk::new(0, Arc::new(AtomicU32::new(mtu)), Copying::Auto);
        let (filter, xsk) = match (XdpFilter::load(OURS, 2, 1), xsk) {
            (Ok(filter), Ok(xsk)) => (Arc::new(filter), xsk),
            (Err(error), _) | (_, Err(error)) => {
                assert!(error.raw_os_error() == Some(libc::EPERM), "{error}");
                assert!(env::var_os("HEDGEROW_REQUIRED").is_none(), "who may make no such socket cannot test it");
                eprintln!("queries by AF_XDP are not tested: {error}");
                return None;
            }
        };
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_nonblocking(true).unwrap();
        let bypass = Rc::new(Bypass::new(1, false));
        let counts = Arc::clone(xsk.counts());
        let shared: SharedXsk = Arc::new(Mutex::new(xsk));
        let xsk = bypass.add(INTERFACE, Checksums::MaybePartial, Arc::clone(&filter), &shared).unwrap().number;
        let mut sockets = WorkerSockets::new(1000, 64, Rc::clone(&bypass));
        let set_id = sockets.add(backend.local_addr().unwrap());
        let mut this = Self { sockets, set_id, backend, bypass, filter, shared, xsk, counts, now: Instant::now() };
        this.leave_by(INTERFACE, "127.0.0.1");
        // The first socket bypasses AF_XDP.
        let slot = this.send(0);
        assert!(!this.is_held(slot) && this.received() == [slot.id()]);
        Some(this)
    }

    /// Routes the backend over this interface, with this source address.
    fn leave_by(&self, interface: u32, source: &str) {
        let link = EthernetLink { ours: OURS, theirs: [2, 0, 0, 0, 0, 2] };
        let hop = NextHop { interface, source: source.parse().unwrap(), link };
        let hops = NextHops::from([(self.backend.local_addr().unwrap().ip(), hop)]);
        self.bypass.set_next_hops(Arc::new(hops));
    }

    /// Queues a message of this length.
    fn queue(&mut self, user_data: u32, length: usize) -> QuerySlot {
        self.sockets.queue(self.set_id, user_data, (None, None), self.now, |out| out.resize(length, 0)).unwrap()
    }

    /// Sends the queued messages; returns those that were refused.
    fn flush(&mut self) -> Vec<UnsentMessage> {
        let mut refused = Vec::new();
        self.sockets.flush(&mut refused);
        refused
    }

    /// Sends a message from its own socket.
    fn send(&mut self, user_data: u32) -> QuerySlot {
        let slot = self.queue(user_data, 20);
        assert!(self.flush().is_empty());
        slot
    }

    /// Queues a message and moves it to another socket.
    fn send_from(&mut self, number: SocketId) -> QuerySlot {
        let filling = self.sockets.udp.spare.take(number);
        self.sockets.udp.set(self.set_id).filling = Some(filling);
        self.sockets.udp.dirty.push(self.set_id);
        let slot = self.send(0);
        assert_eq!(slot.socket(), number);
        slot
    }

    /// Returns the IDs that the backend has received. Loopback delivers at once.
    fn received(&self) -> Vec<u16> {
        let mut message = [0; 2048];
        let receive = || {
            self.backend.recv(&mut message).ok()?;
            Some(u16::from_be_bytes([message[0], message[1]]))
        };
        std::iter::from_fn(receive).collect()
    }

    /// Returns the number of messages sent as frames.
    fn frames(&self) -> u64 {
        self.bypass.flush();
        self.counts.sent.load(Relaxed)
    }

    fn local(&self, slot: QuerySlot) -> SocketAddr {
        self.sockets.udp.sockets[slot.socket().index()].as_ref().unwrap().udp.local_addr().unwrap()
    }

    /// Returns true if the port of a message is held.
    fn is_held(&self, slot: QuerySlot) -> bool {
        let (local, remote) = (self.local(slot), self.backend.local_addr().unwrap());
        let is_held = self.filter.holds(local);
        assert_eq!(self.sockets.udp.socket_between(local, remote), is_held.then_some(slot.socket()));
        is_held
    }
}

#[test]
fn queries_leave_by_frames_but_for_one_socket_a_second() {
    let Some(mut fixture) = Fixture::new(1500) else { return };
    for frames in 1..10 {
        let slot = fixture.send(0);
        assert!(fixture.is_held(slot));
        assert_eq!((fixture.received(), fixture.frames()), (vec![], frames));
    }
    // One socket bypasses AF_XDP, so that the kernel sees that the neighbor is in use.
    fixture.now += BY_KERNEL_EVERY;
    let by_kernel = fixture.send(0);
    assert!(!fixture.is_held(by_kernel));
    assert_eq!((fixture.received(), fixture.frames()), (vec![by_kernel.id()], 9));
    let slot = fixture.send(0);
    assert!(fixture.is_held(slot));
    assert_eq!((fixture.received(), fixture.frames()), (vec![], 10));
}

#[test]
fn only_what_the_backend_sends_to_the_port_is_for_its_socket() {
    let Some(mut fixture) = Fixture::new(1500) else { return };
    let slot = fixture.send(0);
    let (local, remote) = (fixture.local(slot), fixture.backend.local_addr().unwrap());
    let other_port = |address: SocketAddr| SocketAddr::new(address.ip(), address.port() ^ 1);
    let other_ip = |address: SocketAddr| SocketAddr::new([127, 0, 0, 2].into(), address.port());
    let other_family = SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), local.port());
    let between = |local, remote| fixture.sockets.udp.socket_between(local, remote);
    assert_eq!(between(local, remote), Some(slot.socket()));
    for (local, remote) in [
        (other_port(local), remote),
        (other_ip(local), remote),
        (other_family, remote),
        (local, other_port(remote)),
        (local, other_ip(remote)),
        (remote, local),
    ] {
        assert_eq!(between(local, remote), None, "{remote} to {local}");
    }
}

#[test]
fn ports_are_held_until_their_sockets_are_closed() {
    let Some(mut fixture) = Fixture::new(1500) else { return };
    let slots = [0; 5].map(|_| fixture.send(0));
    let ports = slots.map(|slot| fixture.local(slot));
    assert!(slots.into_iter().all(|slot| fixture.is_held(slot)));
    // The socket is idle, and others are open.
    fixture.sockets.release(slots[0], fixture.now);
    let remote = fixture.backend.local_addr().unwrap();
    let held = |fixture: &Fixture| {
        ports.map(|local| {
            let is_held = fixture.filter.holds(local);
            assert_eq!(fixture.sockets.udp.socket_between(local, remote).is_some(), is_held);
            is_held
        })
    };
    assert_eq!(held(&fixture), [false, true, true, true, true]);
    fixture.sockets.remove(fixture.set_id);
    assert_eq!(held(&fixture), [false; 5]);
    // Dropping the sockets releases all ports.
    let mut fixture = Fixture::new(1500).expect("there was one just now");
    let slot = fixture.send(0);
    let (local, Fixture { sockets, filter, .. }) = (fixture.local(slot), fixture);
    assert!(filter.holds(local));
    drop(sockets);
    assert!(!filter.holds(local));
}

#[test]
fn what_does_not_fit_into_a_frame_leaves_by_the_socket() {
    let Some(mut fixture) = Fixture::new(200) else { return };
    let lengths = [20, 300, 172, 173, 70_000, 20];
    let slots: Vec<_> = (0..).zip(lengths).map(|(number, length)| fixture.queue(number, length)).collect();
    let refused = fixture.flush();
    // The longest message cannot be sent, and is returned itself.
    let why = SendRefusal::Unsent(Want::Size);
    assert_eq!(refused, [UnsentMessage { slot: slots[4], socket_set: fixture.set_id, why }]);
    assert_eq!((fixture.received(), fixture.frames()), (vec![slots[1].id(), slots[3].id()], 3));
    let waits =
        |slot: &QuerySlot| fixture.sockets.udp.find(slot.socket())?.sent.all().contains(&slot.id()).then_some(());
    let waits: Vec<_> = slots.iter().map(|slot| waits(slot).is_some()).collect();
    assert_eq!(waits, [true, true, true, true, false, true]);
}

#[test]
fn what_finds_no_frame_free_leaves_by_the_socket() {
    let Some(mut fixture) = Fixture::new(1500) else { return };
    let slot = fixture.send(0);
    let (local, remote) = (fixture.local(slot), fixture.backend.local_addr().unwrap());
    let link = EthernetLink { ours: OURS, theirs: [2, 0, 0, 0, 0, 2] };
    let link = fixture.bypass.link((fixture.xsk, link), fixture.now).expect("there is room");
    let mut is_full = false;
    while !is_full {
        fixture.bypass.push(link, (local, remote), |out| out.resize(20, 0), |_| is_full = true);
    }
    let slots = [1, 2, 3].map(|number| fixture.queue(number, 20));
    assert!(fixture.flush().is_empty());
    assert_eq!(fixture.received(), slots.map(QuerySlot::id));
    assert!(fixture.is_held(slots[0]));
}

#[test]
fn sockets_are_the_kernels_while_the_way_is_another() {
    let Some(mut fixture) = Fixture::new(1500) else { return };
    let held = fixture.send(0);
    assert!(fixture.is_held(held));
    let changes: [fn(&Fixture); 3] = [
        |fixture| fixture.bypass.set_next_hops(Arc::default()),
        |fixture| fixture.leave_by(INTERFACE + 1, "127.0.0.1"),
        |fixture| fixture.leave_by(INTERFACE, "127.0.0.2"),
    ];
    for (change, frames) in changes.into_iter().zip(1..) {
        change(&fixture);
        let from_before = fixture.send_from(held.socket());
        let fresh = fixture.send(0);
        assert!(!fixture.is_held(fresh));
        assert_eq!((fixture.received(), fixture.frames()), (vec![from_before.id(), fresh.id()], frames));
        fixture.leave_by(INTERFACE, "127.0.0.1");
        fixture.send_from(held.socket());
        assert_eq!((fixture.received(), fixture.frames()), (vec![], frames + 1));
    }
    // Another program has the interface: it returns no replies.
    fixture.bypass.remove(fixture.xsk);
    let without = fixture.send_from(held.socket());
    let filter = Arc::new(XdpFilter::load(OURS, 2, 1).unwrap());
    let again = fixture.bypass.add(INTERFACE, Checksums::MaybePartial, Arc::clone(&filter), &fixture.shared);
    assert!(again.is_some());
    let before = fixture.send_from(held.socket());
    assert_eq!((fixture.received(), fixture.frames()), (vec![without.id(), before.id()], 4));
    let fresh = fixture.send(0);
    assert!(filter.holds(fixture.local(fresh)));
    assert_eq!((fixture.received(), fixture.frames()), (vec![], 5));
}

/// The interface that reaches the backend.
const INTERFACE: u32 = 7;

/// The Ethernet address of the interface.
const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
