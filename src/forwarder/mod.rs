//! The LS of one worker: an [`Engine`] with sockets, connections and a clock.
//!
//! ```text
//!   listeners ──▶ receive: read (wire), route ──┐                       ┌──▶ responses: listeners, pacing, TCP clients
//!   TCP clients ──▶ receive ────────────────────┤     ┌──────────┐      ├──▶ net::backend_sockets
//!   other workers ──▶ receive ──────────────────┼────▶│  engine  │──────┼──▶ fetches: whole answers by TCP
//!   net::backend_sockets ──▶ tick ──────────────┤     └──────────┘  Io  ├──▶ by_tcp: attempts that forgers must not answer
//!   the alarm ──▶ tick ─────────────────────────┘    (outside.rs)       └──▶ other workers, the prober
//! ```
//!
//! What is to be done is decided in the engine; here bytes come and go. A [`Forwarder`] is one worker's: single-threaded, and
//! never waits. It is handed datagrams and the time in ticks; at the end of each tick everything that was queued leaves in
//! batches. Reading sockets is `serve`'s business.

mod allowance;
mod by_tcp;
mod client;
mod explain;
mod fetch;
mod fetches;
mod outside;
mod paced;
mod receive;
mod responses;
pub mod serve;
mod tick;

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Sender, UnboundedSender};

pub use self::client::{Client, DatagramWay, Peer, ProxiedClient};
pub use self::explain::{Asked, Operator};

use self::by_tcp::{BY_TCP, ByTcp};
use self::fetches::Fetches;
use self::outside::{Outside, USUAL_QUERY};
use self::paced::Paced;
use self::receive::TOGETHER;
use self::responses::{Listener, Way};
use crate::engine::single_flight::WorkerId;
use crate::engine::{self, Engine, LearntBackend, Seeds};
use crate::limit::{OwnAddresses, Pacing};
use crate::metrics::{Counters, Dropped};
use crate::net::backend_sockets::BackendSockets;
use crate::net::batch::{BATCH, SendBatch};
use crate::net::tasks::Tasks;
use crate::net::udp::Socket;
use crate::net::xdp::WorkerSockets;
use crate::policy::query_slots::SocketId;
use crate::state::{ForwarderState, HealthEvent};
use crate::taps::WorkerTaps;
use crate::wire::QuestionKey;

/// What the workers of one LS share.
#[derive(Debug)]
pub struct Shared {
    /// What their engines share.
    pub engines: Arc<engine::Shared>,
    /// The way to each worker, by number; each has room for [`HAND_OVERS`].
    pub workers: Vec<Sender<HandOver>>,
    /// For each worker, the queries that were handed over to it and that it has not taken yet.
    pub on_the_way: Vec<AtomicUsize>,
    /// What each client is sent at once.
    pub pacing: Pacing,
    /// The way to the prober.
    pub health_events: UnboundedSender<HealthEvent>,
}

/// A query for whose question another worker runs the races.
#[derive(Debug)]
pub struct HandOver {
    /// The query as it came.
    message: Vec<u8>,
    /// Who asked.
    client: Client,
}

/// What a worker's LS is linked with.
pub struct Links {
    /// What it shares with the other workers.
    pub shared: Arc<Shared>,
    /// Where no client is.
    pub own: Arc<OwnAddresses>,
    /// For how many sockets to backends it has room.
    pub backend_sockets: usize,
    /// Connections by which it may fetch answers from backends.
    pub fetches: usize,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To be told when the last race is over.
    pub idle: Rc<Notify>,
    /// The tasks of this worker.
    pub tasks: Tasks,
    /// What observes queries.
    pub taps: Rc<WorkerTaps>,
    /// The worker's sockets of AF_XDP.
    pub xsks: Rc<WorkerSockets>,
}

/// One worker's LS.
pub struct Forwarder {
    /// Decides.
    engine: Engine<Client>,
    /// What it decides with: sockets, connections, and the ways to others.
    outside: Outside,
    /// Where no client is.
    own: Arc<OwnAddresses>,
    /// Told when the last race is over.
    idle: Rc<Notify>,
    /// Backend sockets that may have more than was read in this tick.
    unread: Vec<SocketId>,
    /// Messages of one read from a connection.
    messages: Vec<u8>,
    /// The folded questions of messages that are being taken.
    folded: Vec<u8>,
}

impl Forwarder {
    /// A worker's LS.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the system no randomness.
    pub fn new(me: WorkerId, links: Links, state: Arc<ForwarderState>, now: Instant) -> io::Result<Rc<RefCell<Self>>> {
        let Links { shared, backend_sockets, fetches, own, counters, idle, tasks, taps, xsks } = links;
        // Connections come back to the forwarder, which is not there yet.
        let this = Rc::new(OnceCell::<Weak<RefCell<Self>>>::new());
        let owner = Rc::clone(&this);
        let by_tcp = fetches / BY_TCP;
        let fetches = Fetches::new(fetches - by_tcp, tasks.clone(), move |key, report| {
            if let Some(forwarder) = owner.get().and_then(Weak::upgrade) {
                forwarder.borrow_mut().on_stream(key, report, Instant::now());
            }
        })?;
        let mut seeds = Seeds { policy: rand::random(), proof: [0; 16] };
        SysRng.try_fill_bytes(&mut seeds.proof).map_err(io::Error::other)?;
        let engines = Arc::clone(&shared.engines);
        let mut outside = Outside {
            me,
            this: Rc::clone(&this),
            state: Arc::clone(&state),
            shared,
            backend_sockets: BackendSockets::new(backend_sockets, USUAL_QUERY, Rc::clone(&xsks))?,
            refused: Vec::with_capacity(BATCH),
            fetches,
            by_tcp: ByTcp::new(by_tcp, tasks),
            way: Way { listeners: Vec::new(), xsks, paced: Paced::default(), is_draining: false },
            by_stream: Vec::new(),
            counters: Arc::clone(&counters),
            taps,
            explained: None,
        };
        let engine = Engine::new(&mut outside, me, engines, counters, state, seeds, now);
        let folded = Vec::with_capacity(TOGETHER * QuestionKey::MAX_LEN);
        let forwarder = Rc::new(RefCell::new(Self {
            engine,
            outside,
            own,
            idle,
            unread: Vec::new(),
            messages: Vec::new(),
            folded,
        }));
        let _ = this.set(Rc::downgrade(&forwarder));
        Ok(forwarder)
    }

    /// The descriptor that becomes readable when [`hear_backends`](Self::hear_backends) has something to do.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.outside.backend_sockets.watched()
    }

    /// Puts another state in force. Races that run end by the rules that they began with.
    pub fn set_state(&mut self, state: Arc<ForwarderState>, now: Instant) {
        self.outside.state = Arc::clone(&state);
        self.outside.refresh_stream_ways();
        self.engine.set_state(&mut self.outside, state, now);
    }

    /// What is known of so many backends of the state in force, for a successor.
    pub fn learnt(&self, first: usize, most: usize, now: Instant) -> Vec<LearntBackend> {
        self.engine.learnt(first, most, now)
    }

    /// Takes what a worker of another process has learnt.
    pub fn learn(&mut self, learnt: &[LearntBackend], now: Instant) {
        self.engine.learn(learnt, now);
    }

    /// Responds to the clients of the listener of this number and address by this socket. All workers have the same listeners, by the same numbers.
    pub fn add_listener(&mut self, number: u16, address: SocketAddr, socket: Rc<Socket>) {
        let listeners = &mut self.outside.way.listeners;
        let place = usize::from(number);
        if listeners.len() <= place {
            listeners.resize_with(place + 1, || None);
        }
        let responses = SendBatch::new(BATCH, usize::from(self.outside.state.edns_udp_size));
        listeners[place] = Some(Listener { socket, address, responses });
    }

    /// Nothing is owed to the clients of this listener any more.
    pub fn remove_listener(&mut self, number: u16) {
        let Outside { way, counters, .. } = &mut self.outside;
        way.flush(counters, Instant::now());
        if let Some(listener) = way.listeners.get_mut(usize::from(number)) {
            *listener = None;
        }
    }

    /// No client is at any of these addresses.
    pub fn set_own_addresses(&mut self, own: Arc<OwnAddresses>) {
        self.own = own;
    }

    /// Whether no race runs, none fetches its answer by TCP, and no query is on its way from another worker.
    pub fn is_idle(&self) -> bool {
        let Outside { me, shared, way, .. } = &self.outside;
        self.engine.is_empty() && way.paced.is_empty() && shared.on_the_way[usize::from(me.0)].load(Relaxed) == 0
    }

    /// Whether a client at this address may connect. That one may not is counted.
    pub fn may_connect(&self, client: IpAddr) -> bool {
        let is_welcome = self.outside.state.access.may_connect(client);
        if !is_welcome {
            self.outside.counters.dropped(Dropped::Denied);
        }
        is_welcome
    }

    /// Starts no more races that nobody waits for: there is an end to come to.
    pub fn drain(&mut self) {
        self.engine.drain();
        self.outside.way.is_draining = true;
        self.outside.way.flush(&self.outside.counters, Instant::now());
    }
}

/// Queries that wait for a worker that others hand them over to: some 10 ms of its work, and a few hundred kB.
pub const HAND_OVERS: usize = 1024;
