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
use std::slice;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use af_xdp::filter::XdpFilter;
use af_xdp::frame::{self, Checksums, EthernetLink, UdpFrame};
use af_xdp::netlink::{self, Reach, Requests};
use af_xdp::socket::{BATCH, Frame};
use af_xdp::sources::{SourceVerdict, Sources};
use af_xdp::{NextHops, SharedXsk, WorkerSocket};
use net::Bypass;
use net::sys::batch::{Datagram, LocalAddress, ReplyPath, watch};
use net::sys::busy_poll::BusyPoll;
use net::tasks::{Endless, LostTask, TaskKind};
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep_until;

use crate::worker::forwarder::Forwarder;

/// The AF_XDP sockets of a worker with their tasks, and the receivers of the datagrams.
pub(crate) struct FrameReaders {
    bypass: Rc<Bypass>,
    listeners: RefCell<Vec<Weak<FrameListener>>>,
    /// The forwarder, which has ports to backends, and earlier ones that are ending.
    forwarders: RefCell<Vec<Weak<RefCell<Forwarder>>>>,
    readers: RefCell<Vec<FrameReader>>,
    sources: RefCell<Sources>,
    requests: RefCell<Option<Requests>>,
}

struct FrameReader {
    socket: Rc<WorkerSocket>,
    task: Endless,
}

/// The sockets that a worker must read, and the next hops of its datagrams.
pub(crate) struct FrameCommand {
    pub(super) sockets: Vec<DeviceSocket>,
    pub(super) next_hops: Arc<NextHops>,
}

impl fmt::Debug for FrameCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameCommand").field("next_hops", &self.next_hops).finish_non_exhaustive()
    }
}

pub(super) struct DeviceSocket {
    pub(super) interface: u32,
    pub(super) checksums: Checksums,
    pub(super) filter: Arc<XdpFilter>,
    pub(super) xsk: SharedXsk,
}

/// The receiver of datagrams to one address, while it lives.
pub(crate) struct FrameListener {
    /// The bound address; unspecified for all addresses of this machine.
    address: SocketAddr,
    take: Box<dyn Fn(FrameDatagrams<'_>)>,
}

/// The datagrams to one address, among those that arrived together.
#[derive(Clone)]
pub(crate) struct FrameDatagrams<'f> {
    arrivals: slice::Iter<'f, Option<FrameArrival<'f>>>,
    to: SocketAddr,
}

impl<'f> Iterator for FrameDatagrams<'f> {
    type Item = Datagram<'f>;

    fn next(&mut self) -> Option<Datagram<'f>> {
        let to = self.to;
        self.arrivals.by_ref().flatten().find(|arrival| arrival.to == to).map(|arrival| arrival.datagram)
    }
}

#[derive(Clone, Copy)]
struct FrameArrival<'f> {
    datagram: Datagram<'f>,
    to: SocketAddr,
    came: EthernetLink,
}

impl FrameReaders {
    pub(crate) fn new(worker: u32, is_gro_off: bool) -> Self {
        Self {
            bypass: Rc::new(Bypass::new(worker, is_gro_off)),
            listeners: RefCell::default(),
            forwarders: RefCell::default(),
            readers: RefCell::default(),
            sources: RefCell::default(),
            requests: RefCell::default(),
        }
    }

    pub(crate) fn bypass(&self) -> &Rc<Bypass> {
        &self.bypass
    }

    /// Adds a forwarder, which gets the replies of its backends while it lives.
    pub(crate) fn add_forwarder(&self, forwarder: &Rc<RefCell<Forwarder>>) {
        add(&self.forwarders, forwarder);
    }

    /// Adds a receiver of datagrams to this address.
    pub(crate) fn listen(&self, address: SocketAddr, take: impl Fn(FrameDatagrams<'_>) + 'static) -> Rc<FrameListener> {
        let listener = Rc::new(FrameListener { address, take: Box::new(take) });
        add(&self.listeners, &listener);
        listener
    }

    /// Returns the listener for a destination: a specific address is preferred to a wildcard.
    fn listener(&self, to: SocketAddr) -> Option<Rc<FrameListener>> {
        let listeners = self.listeners.borrow();
        let mut live = listeners.iter().filter_map(Weak::upgrade);
        let exact = live.find(|listener| listener.address == to);
        exact.or_else(|| {
            listeners.iter().filter_map(Weak::upgrade).find(|listener| is_wildcard_of(listener.address, to))
        })
    }

    pub(crate) fn obey(self: &Rc<Self>, command: FrameCommand, busy_poll: BusyPoll) -> io::Result<()> {
        let FrameCommand { sockets, next_hops } = command;
        self.bypass.set_next_hops(next_hops);
        let is_wanted = |reader: &FrameReader| sockets.iter().any(|wanted| reader.socket.is(&wanted.xsk));
        let readers = std::mem::take(&mut *self.readers.borrow_mut());
        let (mut readers, leave): (Vec<_>, Vec<_>) = readers.into_iter().partition(is_wanted);
        for FrameReader { socket, task } in leave {
            drop(task);
            // The XDP program sends nothing to this socket any more, or soon will not.
            while self.receive(&socket) {}
            self.bypass.remove(socket.number);
        }
        for DeviceSocket { interface, checksums, filter, xsk } in sockets {
            let Some(socket) = self.bypass.add(interface, checksums, filter, &xsk) else { continue };
            let watched = watch(socket.xsk.as_fd().try_clone_to_owned()?)?;
            let mut task = Endless::new(TaskKind::Listener);
            task.start(Rc::clone(self).read(Rc::clone(&socket), watched, busy_poll));
            readers.push(FrameReader { socket, task });
        }
        *self.readers.borrow_mut() = readers;
        self.sources.borrow_mut().clear();
        Ok(())
    }

    pub(crate) fn poll_lost(&self, cx: &mut Context<'_>) -> Poll<LostTask> {
        let mut readers = self.readers.borrow_mut();
        readers.iter_mut().map(|reader| reader.task.poll_lost(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

fn add<T>(table: &RefCell<Vec<Weak<T>>>, new: &Rc<T>) {
    let mut table = table.borrow_mut();
    table.retain(|known| known.strong_count() > 0);
    table.push(Rc::downgrade(new));
}

impl FrameReaders {
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
            while turns < MAX_TURNS && self.receive(&socket) {
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

    /// Receives a batch of frames, and returns true if there were any.
    fn receive(&self, socket: &WorkerSocket) -> bool {
        socket.xsk.receive(|frames| self.take(socket, frames)) > 0
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
            let same = FrameDatagrams { arrivals: arrivals.iter(), to };
            match self.listener(to) {
                Some(listener) => (listener.take)(same),
                // The listener or the backend port was just removed.
                None => invalid += same.count() as u64,
            }
            for arrival in &mut arrivals {
                arrival.take_if(|arrival| arrival.to == to);
            }
        }
        if invalid > 0 {
            socket.xsk.count_invalid(invalid);
        }
    }

    fn take_replies(&self, arrivals: &mut [Option<FrameArrival<'_>>], now: Instant) {
        for forwarder in self.forwarders.borrow().iter().filter_map(Weak::upgrade) {
            let mut forwarder = forwarder.borrow_mut();
            let mut is_any = false;
            for arrival in &mut *arrivals {
                let reply = arrival.take_if(|FrameArrival { datagram, to, .. }| {
                    forwarder.take_reply(datagram.peer, *to, datagram.bytes, now)
                });
                is_any |= reply.is_some();
            }
            if is_any {
                forwarder.end_tick(now);
            }
        }
    }

    /// Sets the path of each response, and drops queries from sources that are no other host.
    /// Returns the number of drops.
    fn judge_sources(&self, socket: &WorkerSocket, arrivals: &mut [Option<FrameArrival<'_>>], now: Instant) -> u64 {
        let mut sources = self.sources.borrow_mut();
        let mut dropped = 0;
        for place in arrivals {
            let Some(arrival) = place else { continue };
            let source = arrival.datagram.peer.ip();
            match sources.judge(source, socket.interface, now, || self.ask(source)) {
                SourceVerdict::Link => {
                    let path = &mut arrival.datagram.path;
                    let link = self.bypass.link((socket.number, arrival.came), now);
                    *path = link.map_or(*path, |link| ReplyPath::by_link(path.local(), link));
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

fn arrive<'f>(socket: &WorkerSocket, frame: &UdpFrame<'f>) -> FrameArrival<'f> {
    let &UdpFrame { link: came, source, destination: to, payload: bytes } = frame;
    let path = ReplyPath::by_socket(Some(LocalAddress::new(to.ip(), socket.interface)));
    let peer = match source {
        SocketAddr::V6(mut source) if source.ip().is_unicast_link_local() => {
            source.set_scope_id(socket.interface);
            source.into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => source,
    };
    FrameArrival { datagram: Datagram { bytes, peer, path, is_truncated: false }, to, came }
}

fn is_wildcard_of(bound: SocketAddr, to: SocketAddr) -> bool {
    bound.ip().is_unspecified() && bound.port() == to.port() && bound.is_ipv4() == to.is_ipv4()
}

/// The delay before retrying an interface that accepts no more frames: it is busy or down.
const RETRY: Duration = Duration::from_millis(1);

/// Batches taken from one socket before other tasks have their turn.
const MAX_TURNS: usize = 4;
