//! The forwarder of one worker: an [`Engine`] with sockets, connections and a clock.
//!
//! ```text
//!   listeners ──▶ receive: read (wire), route ──┐                       ┌──▶ responses: UDP, TCP
//!   TCP clients ──▶ receive ────────────────────┤     ┌──────────┐      ├──▶ net::backend_sockets
//!   other workers ──▶ receive ──────────────────┼────▶│  engine  │──────┼──▶ fetches: whole answers by TCP
//!   net::backend_sockets ──▶ tick ──────────────┤     └──────────┘  Io  │    and attempts by TCP
//!   the alarm ──▶ tick ─────────────────────────┘    (outside.rs)       └──▶ other workers, the prober
//! ```
//!
//! The engine decides; this module moves bytes. A [`Forwarder`] is single-threaded and never waits. It
//! handles datagrams and timers in ticks, and sends everything queued in batches at the end of each tick.
//! `worker` reads the sockets.

mod allowance;
mod client;
mod derived;
mod dns64;
mod explain;
mod fetches;
mod outside;
mod paced;
mod receive;
mod recording;
mod responses;
mod rules;
mod tick;

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Sender, UnboundedSender};

pub use self::client::{DatagramWay, Peer, ProxiedClient, ReplyChannel};
pub use self::derived::{Derivation, DerivedQuery};
pub use self::explain::{ExplainRequest, ExplainedClient, Operator};
use self::recording::RaceRecording;
pub use self::recording::RecordRequest;

use dns::QuestionKey;
use engine::single_flight::WorkerId;
use engine::state::{ForwarderState, HealthEvent};
use engine::{Engine, LearntBackend, Seeds, Tick};
use limit::{OwnAddresses, Pacing};
use metrics::{Counters, DropReason};
use net::Bypass;
use net::from_clients::udp::ListenerSocket;
use net::sys::batch::{BATCH, SendBatch};
use net::tasks::Tasks;
use net::to_backends::sockets::{BackendSockets, Event};
use net::to_backends::tls::BackendTls;

use self::fetches::Fetches;
use self::outside::{USUAL_QUERY, WorkerIo};
use self::receive::TOGETHER;
use self::responses::{ClientOutput, ResponseListener};
use crate::control::observe::taps::WorkerTaps;

/// The state that the workers of one forwarder share.
#[derive(Debug)]
pub struct SharedForwarder {
    /// The state that their engines share.
    pub engines: Arc<engine::SharedEngineState>,
    /// The channel to each worker, by number; each has room for [`HAND_OVERS`].
    pub workers: Vec<Sender<HandOver>>,
    /// For each worker, the queries in its channel.
    pub on_the_way: Vec<AtomicUsize>,
    /// The limit on the responses that one client gets at once.
    pub pacing: Pacing,
    /// The channel to the prober.
    pub health_events: UnboundedSender<HealthEvent>,
    /// The TLS configurations of backends.
    pub tls: Arc<BackendTls>,
}

/// A query whose question another worker owns.
#[derive(Debug)]
pub struct HandOver {
    message: Vec<u8>,
    client: ReplyChannel,
}

/// The dependencies of a worker's forwarder.
pub struct ForwarderLinks {
    /// The state shared with the other workers.
    pub shared: Arc<SharedForwarder>,
    /// Local addresses, where no client can be.
    pub own: Arc<OwnAddresses>,
    /// The maximum number of backend sockets.
    pub backend_sockets: usize,
    /// The maximum number of connections for fetches.
    pub fetches: usize,
    /// The worker's counters.
    pub counters: Arc<Counters>,
    /// Notified when the last race is over.
    pub idle: Rc<Notify>,
    /// The tasks of this worker.
    pub tasks: Tasks,
    /// The taps that observe queries.
    pub taps: Rc<WorkerTaps>,
    /// The worker's way past the kernel.
    pub bypass: Rc<Bypass>,
}

/// The forwarder of one worker.
pub struct Forwarder {
    engine: Engine<ReplyChannel>,
    outside: WorkerIo,
    own: Arc<OwnAddresses>,
    idle: Rc<Notify>,
    unread: Vec<Event>,
    messages: Vec<u8>,
    folded: Vec<u8>,
}

impl Forwarder {
    /// Creates a worker's forwarder.
    pub fn new(
        me: WorkerId,
        links: ForwarderLinks,
        state: Arc<ForwarderState>,
        now: Instant,
    ) -> io::Result<Rc<RefCell<Self>>> {
        let ForwarderLinks { shared, backend_sockets, fetches, own, counters, idle, tasks, taps, bypass } = links;
        // Fetches refer to the forwarder, which does not exist yet.
        let this = Rc::new(OnceCell::<Weak<RefCell<Self>>>::new());
        let mut seeds = Seeds { policy: rand::random(), proof: [0; 16], ids: [0; 32] };
        SysRng.try_fill_bytes(&mut seeds.proof).map_err(io::Error::other)?;
        SysRng.try_fill_bytes(&mut seeds.ids).map_err(io::Error::other)?;
        let engines = Arc::clone(&shared.engines);
        let mut outside = WorkerIo {
            me,
            state: Arc::clone(&state),
            shared,
            backend_sockets: BackendSockets::new(backend_sockets, USUAL_QUERY, bypass)?,
            refused: Vec::with_capacity(BATCH),
            fetches: Fetches::new(fetches, tasks, Arc::clone(&counters), Rc::clone(&this)),
            way: ClientOutput::default(),
            by_stream: Vec::new(),
            counters: Arc::clone(&counters),
            taps,
            explained: None,
            recording: RaceRecording::default(),
        };
        let mut engine = Engine::new(me, engines, counters, Arc::clone(&state), seeds);
        engine.tick(&mut outside, now).set_state(state);
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

    fn tick(&mut self, now: Instant) -> Tick<'_, WorkerIo> {
        self.engine.tick(&mut self.outside, now)
    }

    /// Returns the descriptor that is readable when [`hear_backends`](Self::hear_backends) has work.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.outside.backend_sockets.watched()
    }

    /// Replaces the state. Running races keep their rules.
    pub fn set_state(&mut self, state: Arc<ForwarderState>, now: Instant) {
        self.outside.state = Arc::clone(&state);
        self.outside.refresh_stream_ways();
        self.tick(now).set_state(state);
    }

    /// Returns the learnt state of `most` backends from index `first`, for a successor.
    pub fn learnt(&mut self, first: usize, most: usize, now: Instant) -> Vec<LearntBackend> {
        self.engine.learnt(first, most, now)
    }

    /// Begins to record races, or ends that.
    pub fn record(&mut self, request: Option<RecordRequest>, now: Instant) {
        self.outside.recording.set(request, now);
    }

    /// Adds the state that a worker of another process has learnt.
    pub fn learn(&mut self, learnt: &[LearntBackend], now: Instant) {
        self.engine.learn(learnt, now);
    }

    /// Adds a listener with its socket. All workers have the same listeners with the same numbers.
    pub fn add_listener(&mut self, number: u16, socket: Rc<ListenerSocket>) {
        let listeners = &mut self.outside.way.listeners;
        let place = usize::from(number);
        if listeners.len() <= place {
            listeners.resize_with(place + 1, || None);
        }
        let responses = SendBatch::new(BATCH, usize::from(self.outside.state.edns_udp_size));
        listeners[place] = Some(ResponseListener { socket, responses });
    }

    /// Removes a listener. Its clients get no further responses.
    pub fn remove_listener(&mut self, number: u16) {
        let WorkerIo { way, counters, .. } = &mut self.outside;
        way.flush(counters, Instant::now());
        if let Some(listener) = way.listeners.get_mut(usize::from(number)) {
            *listener = None;
        }
    }

    /// Replaces the local addresses, where no client can be.
    pub fn set_own_addresses(&mut self, own: Arc<OwnAddresses>) {
        self.own = own;
    }

    /// Returns true if no race or fetch is running and no query is pending from another worker.
    pub fn is_idle(&self) -> bool {
        let WorkerIo { me, shared, way, .. } = &self.outside;
        self.engine.is_empty() && way.paced.is_empty() && shared.on_the_way[usize::from(me.0)].load(Relaxed) == 0
    }

    /// Returns true if a client at this address may connect. Counts denied clients.
    pub fn may_connect(&self, client: IpAddr) -> bool {
        let is_welcome = self.outside.state.access.may_connect(client);
        if !is_welcome {
            self.outside.counters.dropped(DropReason::Denied);
        }
        is_welcome
    }

    /// Stops starting races without clients, so that the forwarder becomes idle.
    pub fn drain(&mut self) {
        self.engine.drain();
        self.outside.way.is_draining = true;
        self.outside.way.flush(&self.outside.counters, Instant::now());
    }
}

/// Queries in the channel to a worker: some 10 ms of its work, and a few hundred kB.
pub const HAND_OVERS: usize = 1024;
