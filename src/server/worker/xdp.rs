//! Datagrams that a worker receives by AF_XDP, and their distribution to its sections.
//!
//! One task per socket receives up to [`BATCH`] frames without a system call, parses the datagrams, and
//! passes all for the same listener on together, like a listener's own socket does.

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
use crate::net::from_clients::udp::ListenerSocket;
use crate::net::sys::batch::{BATCH, Datagram, LocalAddress, ReplyPath, SendBatch, watch};
use crate::net::sys::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, LostTask, TaskKind};
use crate::net::xdp::filter::XdpFilter;
use crate::net::xdp::frame::{self, Checksums, EthernetLink, UdpFrame};
use crate::net::xdp::netlink::{self, Reach, Requests};
use crate::net::xdp::socket::Frame;
use crate::net::xdp::sources::{SourceVerdict, Sources};
use crate::net::xdp::{Home, KernelBypass, LentXsk, WorkerSocket};

pub(super) struct XdpTargets {
    bypass: Rc<KernelBypass>,
    listeners: RefCell<Vec<(u16, Rc<XdpListener>)>>,
    /// The forwarder, which has ports to backends, and earlier ones that are ending.
    forwarders: RefCell<Vec<Weak<RefCell<Forwarder>>>>,
    readers: RefCell<Vec<XdpReader>>,
    sources: RefCell<Sources>,
    requests: RefCell<Option<Requests>>,
}

struct XdpReader {
    socket: Rc<WorkerSocket>,
    task: Endless,
}

pub(in crate::server) struct XdpSocket {
    pub(in crate::server) interface: u32,
    pub(in crate::server) checksums: Checksums,
    pub(in crate::server) filter: Arc<XdpFilter>,
    pub(in crate::server) home: Home,
}

struct XdpListener {
    /// The bound address; unspecified for all addresses of this machine.
    address: SocketAddr,
    target: XdpTarget,
}

pub(super) enum XdpTarget {
    Forwarder { forwarder: Rc<RefCell<Forwarder>>, listener: u16 },
    Authority { authority: Rc<Authority>, socket: Rc<ListenerSocket>, responses: Box<RefCell<SendBatch>> },
}

impl fmt::Debug for XdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XdpSocket").field("interface", &self.interface).finish_non_exhaustive()
    }
}

impl XdpTarget {
    pub(super) fn authority(authority: Rc<Authority>, socket: Rc<ListenerSocket>) -> Self {
        Self::Authority { authority, socket, responses: Box::new(RefCell::new(authority::outbox())) }
    }
}

#[derive(Clone, Copy)]
struct XdpArrival<'f> {
    datagram: Datagram<'f>,
    to: SocketAddr,
    came: EthernetLink,
}

impl XdpTargets {
    pub(super) fn new(worker: u32) -> Self {
        Self {
            bypass: Rc::new(KernelBypass::new(worker)),
            listeners: RefCell::default(),
            forwarders: RefCell::default(),
            readers: RefCell::default(),
            sources: RefCell::default(),
            requests: RefCell::default(),
        }
    }

    pub(super) fn bypass(&self) -> &Rc<KernelBypass> {
        &self.bypass
    }

    /// Adds a forwarder, which gets the replies of its backends while it lives.
    pub(super) fn add_forwarder(&self, forwarder: &Rc<RefCell<Forwarder>>) {
        let mut forwarders = self.forwarders.borrow_mut();
        forwarders.retain(|forwarder| forwarder.strong_count() > 0);
        forwarders.push(Rc::downgrade(forwarder));
    }

    pub(super) fn add(&self, number: u16, address: SocketAddr, target: XdpTarget) {
        self.listeners.borrow_mut().push((number, Rc::new(XdpListener { address, target })));
    }

    pub(super) fn remove(&self, number: u16) {
        self.listeners.borrow_mut().retain(|(other, _)| *other != number);
    }

    /// Returns the listener for a destination: a specific address is preferred to a wildcard.
    fn listener(&self, to: SocketAddr) -> Option<Rc<XdpListener>> {
        let listeners = self.listeners.borrow();
        let find = |is_it: &dyn Fn(SocketAddr) -> bool| {
            listeners.iter().find(|(_, listener)| is_it(listener.address)).map(|(_, listener)| Rc::clone(listener))
        };
        find(&|address| address == to).or_else(|| find(&|address| is_wildcard_of(address, to)))
    }

    pub(super) fn read_only(self: &Rc<Self>, wanted: &[XdpSocket], busy_poll: BusyPoll) -> io::Result<()> {
        let is_wanted = |reader: &XdpReader| wanted.iter().any(|wanted| reader.socket.is_from(&wanted.home));
        let readers = std::mem::take(&mut *self.readers.borrow_mut());
        let (stay, leave): (Vec<_>, Vec<_>) = readers.into_iter().partition(is_wanted);
        for XdpReader { socket, task } in leave {
            drop(task);
            // The XDP program sends nothing to this socket any more, or soon will not.
            while socket.xsk().receive(|frames| self.take(&socket, frames)) > 0 {}
            self.bypass.remove(socket.number);
        }
        let mut readers = stay;
        for XdpSocket { interface, checksums, filter, home } in wanted {
            // A socket already in use here, or still held by a previous worker, cannot be taken.
            let Some(lent) = LentXsk::take(home) else { continue };
            let socket = self.bypass.add(*interface, *checksums, Arc::clone(filter), lent);
            let watched = watch(socket.xsk().as_fd().try_clone_to_owned()?)?;
            let mut task = Endless::new(TaskKind::Listener);
            task.start(Rc::clone(self).read(Rc::clone(&socket), watched, busy_poll));
            readers.push(XdpReader { socket, task });
        }
        *self.readers.borrow_mut() = readers;
        self.sources.borrow_mut().clear();
        Ok(())
    }

    pub(super) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<LostTask> {
        let mut readers = self.readers.borrow_mut();
        readers.iter_mut().map(|reader| reader.task.poll_lost(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

impl XdpTargets {
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
            // Checking the ring costs no system call, so empty it. Then further frames are a new edge for the
            // runtime.
            while turns < MAX_TURNS && socket.xsk().receive(|frames| self.take(&socket, frames)) > 0 {
                turns += 1;
            }
            if turns > 0 {
                busy_poll.renew();
            }
            if turns < MAX_TURNS {
                ready.clear_ready();
            } else {
                // There may be more, but other tasks have their turn first.
                yield_now().await;
            }
        }
    }

    /// Passes frames on: first replies of backends, because a hedge could be spent on an attempt whose reply
    /// has arrived; then queries, grouped by listener.
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
            let same = arrivals.iter().flatten().filter(|arrival| arrival.to == to).map(|arrival| arrival.datagram);
            match self.listener(to).as_deref().map(|listener| &listener.target) {
                Some(XdpTarget::Forwarder { forwarder, listener }) => {
                    forwarder.borrow_mut().take_datagrams(*listener, same, now);
                }
                Some(XdpTarget::Authority { authority, socket, responses }) => {
                    authority.answer_datagrams(socket, same, &mut responses.borrow_mut());
                }
                // The listener or the backend port was just removed.
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

    fn take_replies(&self, arrivals: &mut [Option<XdpArrival<'_>>], now: Instant) {
        for forwarder in self.forwarders.borrow().iter().filter_map(Weak::upgrade) {
            let mut forwarder = forwarder.borrow_mut();
            let mut is_any = false;
            for arrival in &mut *arrivals {
                let is_reply = arrival.is_some_and(|XdpArrival { datagram, to, .. }| {
                    forwarder.take_reply(datagram.peer, to, datagram.bytes, now)
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

    /// Sets the path of each response, and drops queries from sources that are no other host.
    /// Returns the number of drops.
    fn judge_sources(&self, socket: &WorkerSocket, arrivals: &mut [Option<XdpArrival<'_>>], now: Instant) -> u64 {
        let mut sources = self.sources.borrow_mut();
        let mut dropped = 0;
        for place in arrivals {
            let Some(arrival) = place else { continue };
            let source = arrival.datagram.peer.ip();
            match sources.judge(source, socket.interface, now, || self.ask(source)) {
                SourceVerdict::Link => {
                    let local = arrival.datagram.path.local();
                    arrival.datagram.path = self.bypass.path(local, (socket.number, arrival.came), now);
                }
                SourceVerdict::Route => {}
                SourceVerdict::Drop => {
                    *place = None;
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// Asks the kernel for the route to a source; `None` if it does not answer.
    fn ask(&self, source: IpAddr) -> Option<Reach> {
        let mut kept = self.requests.borrow_mut();
        let mut requests = kept.take().or_else(|| Requests::open().ok())?;
        let reach = netlink::reach(&mut requests, source).ok()?;
        *kept = Some(requests);
        Some(reach)
    }
}

fn arrive<'f>(socket: &WorkerSocket, frame: &UdpFrame<'f>) -> XdpArrival<'f> {
    let &UdpFrame { link: came, source, destination: to, payload: bytes } = frame;
    let path = ReplyPath::by_socket(Some(LocalAddress::new(to.ip(), socket.interface)));
    let peer = match source {
        SocketAddr::V6(mut source) if source.ip().is_unicast_link_local() => {
            source.set_scope_id(socket.interface);
            source.into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => source,
    };
    XdpArrival { datagram: Datagram { bytes, peer, path, is_truncated: false }, to, came }
}

fn is_wildcard_of(bound: SocketAddr, to: SocketAddr) -> bool {
    bound.ip().is_unspecified() && bound.port() == to.port() && bound.is_ipv4() == to.is_ipv4()
}

/// The delay before retrying an interface that accepts no more frames: it is busy or down.
const RETRY: Duration = Duration::from_millis(1);

/// Batches taken from one socket before other tasks have their turn.
const MAX_TURNS: usize = 4;
