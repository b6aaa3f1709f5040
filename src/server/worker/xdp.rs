//! What a worker receives by AF_XDP, and to which of its sections each datagram goes.
//!
//! One task for each socket of the worker. It receives up to [`BATCH`] frames without a system call, reads each as a datagram, and hands all
//! that are for the same listener on together, as a listener's own socket does with what it receives.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::authority::{self, Authority};
use crate::forwarder::Forwarder;
use crate::net::batch::{BATCH, Datagram, LocalAddress, SendBatch, watch};
use crate::net::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, Lost, TaskKind};
use crate::net::udp::Socket;
use crate::net::xdp::filter::Filter;
use crate::net::xdp::frame::{self, Checksums, Link, UdpFrame};
use crate::net::xdp::netlink::{self, Reach, Requests};
use crate::net::xdp::socket::Frame;
use crate::net::xdp::sources::{Sources, Verdict};
use crate::net::xdp::{Home, LentXsk, LinkId, WorkerSocket, WorkerSockets};

/// A worker's sockets of AF_XDP, and its listeners to which datagrams go that they receive.
pub(super) struct XdpTargets {
    sockets: Rc<WorkerSockets>,
    /// By the number of the address.
    listeners: RefCell<Vec<(u16, Rc<Listener>)>>,
    /// The LS, which has ports to backends, and those before that are ending.
    forwarders: RefCell<Vec<Weak<RefCell<Forwarder>>>>,
    /// What reads each socket.
    readers: RefCell<Vec<Reader>>,
    sources: RefCell<Sources>,
    /// The way to ask the kernel for routes to sources; none until it is needed.
    requests: RefCell<Option<Requests>>,
}

/// A socket with the task that reads it.
struct Reader {
    socket: Rc<WorkerSocket>,
    task: Endless,
}

/// A socket that a worker is to have.
pub(in crate::server) struct XdpSocket {
    /// The index of the interface.
    pub(in crate::server) interface: u32,
    /// Those of the datagrams that it receives.
    pub(in crate::server) checksums: Checksums,
    /// The program of the interface.
    pub(in crate::server) filter: Arc<Filter>,
    pub(in crate::server) home: Home,
}

/// A listener that datagrams may be for.
struct Listener {
    /// As it is bound: unspecified for all addresses of this machine.
    address: SocketAddr,
    target: Target,
}

/// Who takes the datagrams of a listener.
pub(super) enum Target {
    /// The LS, at the listener of this number.
    Forwarder { forwarder: Rc<RefCell<Forwarder>>, listener: u16 },
    /// A TS, which sends by this socket what cannot leave by AF_XDP.
    Authority { authority: Rc<Authority>, socket: Rc<Socket>, responses: Box<RefCell<SendBatch>> },
}

impl fmt::Debug for XdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpSocket").field("interface", &self.interface).finish_non_exhaustive()
    }
}

impl Target {
    /// A TS with the socket of its listener.
    pub(super) fn authority(authority: Rc<Authority>, socket: Rc<Socket>) -> Self {
        Self::Authority { authority, socket, responses: Box::new(RefCell::new(authority::outbox())) }
    }
}

/// A datagram that came by AF_XDP.
#[derive(Clone, Copy)]
struct Arrival<'f> {
    datagram: Datagram<'f>,
    /// Where it was sent to.
    to: SocketAddr,
    /// The way that its frame came.
    came: Link,
    /// The way of a response, if it may leave by AF_XDP.
    link: Option<LinkId>,
}

impl XdpTargets {
    /// No socket and no listener yet, of the worker of this number.
    pub(super) fn new(worker: u32) -> Self {
        Self {
            sockets: Rc::new(WorkerSockets::new(worker)),
            listeners: RefCell::default(),
            forwarders: RefCell::default(),
            readers: RefCell::default(),
            sources: RefCell::default(),
            requests: RefCell::default(),
        }
    }

    /// The sockets.
    pub(super) fn sockets(&self) -> &Rc<WorkerSockets> {
        &self.sockets
    }

    /// Replies of its backends go to this LS for as long as it lives.
    pub(super) fn add_forwarder(&self, forwarder: &Rc<RefCell<Forwarder>>) {
        let mut forwarders = self.forwarders.borrow_mut();
        forwarders.retain(|forwarder| forwarder.strong_count() > 0);
        forwarders.push(Rc::downgrade(forwarder));
    }

    /// Datagrams to this address go to `target` from now on.
    pub(super) fn add(&self, number: u16, address: SocketAddr, target: Target) {
        self.listeners.borrow_mut().push((number, Rc::new(Listener { address, target })));
    }

    /// None do any more.
    pub(super) fn remove(&self, number: u16) {
        self.listeners.borrow_mut().retain(|(other, _)| *other != number);
    }

    /// The listener for what came to an address: one of just that address before one of all.
    fn listener(&self, to: SocketAddr) -> Option<Rc<Listener>> {
        let listeners = self.listeners.borrow();
        let find = |is_it: &dyn Fn(SocketAddr) -> bool| {
            listeners.iter().find(|(_, listener)| is_it(listener.address)).map(|(_, listener)| Rc::clone(listener))
        };
        find(&|address| address == to).or_else(|| find(&|address| is_wildcard_of(address, to)))
    }

    /// Reads these sockets from now on, and no others.
    ///
    /// # Errors
    /// If the runtime's own descriptors are exhausted.
    pub(super) fn read_only(self: &Rc<Self>, wanted: &[XdpSocket], busy_poll: BusyPoll) -> io::Result<()> {
        let is_wanted = |reader: &Reader| wanted.iter().any(|wanted| reader.socket.is_from(&wanted.home));
        let readers = std::mem::take(&mut *self.readers.borrow_mut());
        let (stay, leave): (Vec<_>, Vec<_>) = readers.into_iter().partition(is_wanted);
        for Reader { socket, task } in leave {
            drop(task);
            // The program hands nothing to it any more, or soon will not.
            while socket.xsk().receive(|frames| self.take(&socket, frames)) > 0 {}
            self.sockets.remove(socket.number);
        }
        let mut readers = stay;
        for XdpSocket { interface, checksums, filter, home } in wanted {
            // One that stays is not at home, and neither is what a worker before has not let go of.
            let Some(lent) = LentXsk::take(home) else { continue };
            let socket = self.sockets.add(*interface, *checksums, Arc::clone(filter), lent);
            let watched = watch(socket.xsk().as_fd().try_clone_to_owned()?)?;
            let mut task = Endless::new(TaskKind::Listener);
            task.start(Rc::clone(self).read(Rc::clone(&socket), watched, busy_poll));
            readers.push(Reader { socket, task });
        }
        *self.readers.borrow_mut() = readers;
        self.sources.borrow_mut().clear();
        Ok(())
    }

    /// Whether a task is lost that reads.
    pub(super) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<Lost> {
        let mut readers = self.readers.borrow_mut();
        readers.iter_mut().map(|reader| reader.task.poll_lost(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

impl XdpTargets {
    /// Takes what a socket receives, for as long as it is polled.
    async fn read(
        self: Rc<Self>,
        socket: Rc<WorkerSocket>,
        watched: AsyncFd<OwnedFd>,
        mut busy_poll: BusyPoll,
    ) -> io::Result<()> {
        loop {
            let mut ready = tokio::select! {
                ready = busy_poll.wait(watched.readable()) => ready?,
                () = socket.stuck() => {
                    sleep_until((Instant::now() + RETRY).into()).await;
                    socket.flush();
                    continue;
                }
            };
            let mut turns = 0;
            // The ring costs no call to look at, so it is emptied for sure. Then whatever comes is a new edge for the runtime.
            while turns < MAX_TURNS && socket.xsk().receive(|frames| self.take(&socket, frames)) > 0 {
                turns += 1;
            }
            if turns > 0 {
                busy_poll.renew();
            }
            if turns < MAX_TURNS {
                ready.clear_ready();
            } else {
                // There may be more, but others have their turn first.
                yield_now().await;
            }
        }
    }

    /// Hands frames on: first replies to queries of ours, or a hedge could be paid for an attempt whose reply is here; then queries, those
    /// of one listener together.
    fn take(&self, socket: &WorkerSocket, frames: &[Frame]) {
        let now = Instant::now();
        let mut arrivals = [const { None }; BATCH];
        let mut invalid = 0;
        for (arrival, frame) in arrivals.iter_mut().zip(frames) {
            *arrival = frame::read(frame, socket.checksums).map(|frame| arrive(socket, &frame));
            invalid += u64::from(arrival.is_none());
        }
        self.take_replies(&mut arrivals, now);
        invalid += self.judge_sources(socket, &mut arrivals, now);
        while let Some(to) = arrivals.iter().flatten().map(|arrival| arrival.to).next() {
            let same = arrivals.iter().flatten().filter(|arrival| arrival.to == to);
            match self.listener(to).as_deref().map(|listener| &listener.target) {
                Some(Target::Forwarder { forwarder, listener }) => {
                    let datagrams = same.map(|arrival| (arrival.datagram, arrival.link));
                    forwarder.borrow_mut().take_datagrams(*listener, datagrams, now);
                }
                Some(Target::Authority { authority, socket, responses }) => {
                    let by_xdp = |arrival: &Arrival<'_>| arrival.link.map(|link| (arrival.to.port(), link));
                    let datagrams = same.map(|arrival| (arrival.datagram, by_xdp(arrival)));
                    authority.answer_datagrams(socket, datagrams, &mut responses.borrow_mut());
                }
                // The listener has just left, or the port to a backend.
                None => invalid += same.count() as u64,
            }
            arrivals
                .iter_mut()
                .filter(|arrival| arrival.is_some_and(|arrival| arrival.to == to))
                .for_each(|arrival| *arrival = None);
        }
        if invalid > 0 {
            socket.xsk().count_invalid(invalid);
        }
    }

    /// Takes what backends have sent to ports of ours, all of it in one tick.
    fn take_replies(&self, arrivals: &mut [Option<Arrival<'_>>], now: Instant) {
        for forwarder in self.forwarders.borrow().iter().filter_map(Weak::upgrade) {
            let mut forwarder = forwarder.borrow_mut();
            let mut is_any = false;
            for arrival in &mut *arrivals {
                let is_reply = arrival.is_some_and(|Arrival { datagram, to, .. }| {
                    forwarder.take_reply_by_xdp(datagram.peer, to, datagram.bytes, now)
                });
                if is_reply {
                    *arrival = None;
                    is_any = true;
                }
            }
            if is_any {
                forwarder.end_tick(now);
            }
        }
    }

    /// Gives each query the way of its response, and drops those that come from no other host. The number of these.
    fn judge_sources(&self, socket: &WorkerSocket, arrivals: &mut [Option<Arrival<'_>>], now: Instant) -> u64 {
        let mut sources = self.sources.borrow_mut();
        let mut dropped = 0;
        for place in arrivals {
            let Some(arrival) = place else { continue };
            let source = arrival.datagram.peer.ip();
            match sources.judge(source, socket.interface, now, || self.ask(source)) {
                Verdict::Link => arrival.link = self.sockets.link(socket.number, arrival.came, now),
                Verdict::Route => {}
                Verdict::Drop => {
                    *place = None;
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// Asks the kernel for the way to a source; none if it does not answer.
    fn ask(&self, source: IpAddr) -> Option<Reach> {
        let mut kept = self.requests.borrow_mut();
        let mut requests = kept.take().or_else(|| Requests::open().ok())?;
        let reach = netlink::reach(&mut requests, source).ok()?;
        *kept = Some(requests);
        Some(reach)
    }
}

/// A datagram with the way that it came.
fn arrive<'f>(socket: &WorkerSocket, frame: &UdpFrame<'f>) -> Arrival<'f> {
    let &UdpFrame { link: came, source, destination: to, payload: bytes } = frame;
    let local = Some(LocalAddress::new(to.ip(), socket.interface));
    let peer = match source {
        SocketAddr::V6(mut source) if source.ip().is_unicast_link_local() => {
            source.set_scope_id(socket.interface);
            source.into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => source,
    };
    let datagram = Datagram { bytes, peer, local, is_truncated: false };
    Arrival { datagram, to, came, link: None }
}

/// Whether a listener on all addresses hears what came to one of them.
fn is_wildcard_of(bound: SocketAddr, to: SocketAddr) -> bool {
    bound.ip().is_unspecified() && bound.port() == to.port() && bound.is_ipv4() == to.is_ipv4()
}

/// After how long an interface that takes no more is asked again: it is busy, or down.
const RETRY: Duration = Duration::from_millis(1);

/// Batches that are taken of one socket before others have their turn.
const MAX_TURNS: usize = 4;
