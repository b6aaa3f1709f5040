//! The workers of a server: what each is made of, the way to it, and who takes its place when it dies.
//!
//! A worker that panics ends alone. What belongs to the process outlives it: its listening sockets, its counters, the queue of what
//! others hand over to it. What it had in common with the other workers is given back, and a new one is made of what is in
//! force by then (`replacement.rs` says when). Lost is what it had in flight.

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep_until;

use super::Xdp;
use super::authorities::ServedAuthority;
use super::carried::Learnt;
use super::connections::Tables;
use super::heartbeat::Heartbeat;
use super::listeners::{Listeners, SectionName};
use super::replacement::Replacement;
use super::sections::HandOvers;
use super::worker::{self, AuthorityParts, Change, Command, ForwarderParts, LostWorker, Parts};
use crate::authority::ReceivedNotify;
use crate::config::{Config, ForwarderConfig};
use crate::engine;
use crate::engine::single_flight::WorkerId;
use crate::limit::OwnAddresses;
use crate::metrics::Counters;
use crate::net::busy_poll::BusyPoll;
use crate::net::descriptors::Shares;
use crate::net::tcp::Connections;
use crate::state::{ForwarderState, HealthEvent};
use crate::taps::TapSet;
use crate::wire::QuestionHasher;

/// All workers.
pub(super) struct Workers {
    count: usize,
    /// By number.
    all: Vec<Worker>,
    ways: Ways,
    links: Links,
    /// What they share if there is an LS.
    hand_overs: Option<HandOvers>,
    /// Where one tells that it has ended.
    lost_sender: UnboundedSender<LostWorker>,
    /// Which have ended, and why.
    lost: UnboundedReceiver<LostWorker>,
    /// How many were replaced so far.
    replaced: u64,
}

/// The ways to the workers, by number.
type Ways = Rc<RefCell<Vec<UnboundedSender<Command>>>>;

/// One worker, and what outlives it.
struct Worker {
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
    replacement: Replacement,
    heartbeat: Heartbeat,
    /// Why it has ended, until it is replaced.
    ended: Option<LostWorker>,
}

/// What all workers are linked with for as long as the server lives.
pub(super) struct Links {
    pub(super) shares: Shares,
    /// Hashes questions, as the cache does.
    pub(super) hasher: QuestionHasher,
    /// Where goes what they met of backends.
    pub(super) health_events: UnboundedSender<HealthEvent>,
    /// Where NOTIFY goes.
    pub(super) notifies: UnboundedSender<ReceivedNotify>,
    /// The end of the time for the backlog, if another process has served before.
    pub(super) catching_up_until: Option<Instant>,
}

/// What is in force, and a worker begins with.
pub(super) struct InForce<'a> {
    pub(super) config: &'a Config,
    pub(super) state: Option<&'a Arc<ForwarderState>>,
    pub(super) authorities: &'a [ServedAuthority],
    pub(super) connections: &'a Tables,
    pub(super) listeners: &'a Listeners,
    /// Where no client is.
    pub(super) own: &'a Arc<OwnAddresses>,
    /// What observes queries, if anything does.
    pub(super) taps: &'a Option<Arc<TapSet>>,
    /// The interfaces that are served by AF_XDP already, if there are any.
    pub(super) xdp: Option<&'a Xdp>,
}

/// What has become of a worker.
pub(super) enum WorkerEvent {
    /// It has ended.
    Ended(LostWorker),
    /// It is time to replace it.
    Due(WorkerId),
}

impl Workers {
    /// What so many workers will share; none of them runs yet.
    pub(super) fn new(count: usize, config: &Config, connections: &Tables, links: Links) -> Self {
        let forwarder = config.forwarder.as_ref().zip(connections.forwarder());
        let hand_overs = forwarder.map(|(forwarder, table)| links.hand_overs(forwarder, table, count));
        // At most one for each life of a worker.
        let (lost_sender, lost) = unbounded_channel();
        Self { count, all: Vec::new(), ways: Ways::default(), links, hand_overs, lost_sender, lost, replaced: 0 }
    }

    /// Starts them. Returns what each counts. `learnt`: what they are to know from the beginning.
    ///
    /// # Errors
    /// If a thread or a descriptor cannot be had.
    pub(super) fn start(&mut self, in_force: &InForce<'_>, learnt: Option<&Learnt>) -> io::Result<Vec<Arc<Counters>>> {
        for number in 0..self.count {
            let counters = Arc::default();
            let (way, thread) = self.start_one(number, in_force, &counters)?;
            if let Some(learnt) = learnt.and_then(|learnt| learnt.of_worker(number)) {
                let _ = way.send(Command::Learn(learnt));
            }
            self.ways.borrow_mut().push(way);
            let (replacement, heartbeat) = (Replacement::default(), Heartbeat::new(Instant::now()));
            self.all.push(Worker { thread, counters, replacement, heartbeat, ended: None });
        }
        self.wait_until_begun();
        Ok(self.all.iter().map(|worker| Arc::clone(&worker.counters)).collect())
    }

    /// Waits until all have all that they need, so that nothing can be wanting once the server is ready. One that cannot begin is
    /// found to have ended, and one that takes long is not waited for: its clients are.
    fn wait_until_begun(&self) {
        let ask = |way: &UnboundedSender<Command>| {
            let (said, begun) = sync_channel(1);
            let _ = way.send(Command::SayBegun(said));
            begun
        };
        let begun: Vec<_> = self.ways.borrow().iter().map(ask).collect();
        let deadline = Instant::now() + BEGIN_PATIENCE;
        for begun in begun {
            let _ = begun.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Starts the worker of this number, or another in its place: it begins with all sections that are in force. Returns the way
    /// to it, and its thread.
    fn start_one(
        &self,
        number: usize,
        in_force: &InForce<'_>,
        counters: &Arc<Counters>,
    ) -> io::Result<(UnboundedSender<Command>, JoinHandle<()>)> {
        let InForce { config, state, authorities, connections, listeners, own, taps, xdp } = in_force;
        // The control thread alone sends, at the pace of operators, probes and transfers, and must not wait for a worker.
        let (way, commands) = unbounded_channel();
        let change =
            |name| listeners.section(&name).map(|section| Change::begin(section, number, self.count)).transpose();
        let forwarder = state.zip(connections.forwarder()).zip(self.hand_overs.as_ref());
        if let (Some(((state, table), hand_overs)), Some(change)) = (forwarder, change(SectionName::Forwarder)?) {
            let _ = way.send(self.links.forwarder(hand_overs, number, (state, table, own), change));
        }
        for served in *authorities {
            let name = SectionName::Authority(served.name().to_owned());
            if let Some((table, change)) = connections.authority(served.name()).zip(change(name)?) {
                let _ = way.send(self.links.authority(served, table, own, change));
            }
        }
        if let Some(xdp) = xdp {
            let _ = way.send(Command::SetXdp(xdp.of_worker(number)));
        }
        let busy_poll = BusyPoll::new(config.busy_poll);
        let (id, counters) = (WorkerId(number as u16), Arc::clone(counters));
        let (taps, has_xdp) = (Option::clone(taps), config.xdp.is_some());
        let parts = Parts { id, commands, counters, busy_poll, taps, has_xdp };
        Ok((way, worker::start(parts, self.lost_sender.clone())?))
    }

    /// Has all be an LS.
    pub(super) fn begin_forwarder(
        &mut self,
        config: &ForwarderConfig,
        in_force: (&Arc<ForwarderState>, &Arc<Connections>, &Arc<OwnAddresses>),
        changes: Vec<Change>,
    ) {
        let hand_overs = self.links.hand_overs(config, in_force.1, self.count);
        for (number, (way, change)) in self.ways.borrow().iter().zip(changes).enumerate() {
            let _ = way.send(self.links.forwarder(&hand_overs, number, in_force, change));
        }
        self.hand_overs = Some(hand_overs);
    }

    /// Has all be an authority.
    pub(super) fn begin_authority(
        &self,
        served: &ServedAuthority,
        table: &Arc<Connections>,
        own: &Arc<OwnAddresses>,
        changes: Vec<Change>,
    ) {
        for (way, change) in self.ways.borrow().iter().zip(changes) {
            let _ = way.send(self.links.authority(served, table, own, change));
        }
    }

    /// Tells each its part of how the addresses of a section change.
    pub(super) fn tell_each(&self, changes: Vec<Change>, command: impl Fn(Change) -> Command) {
        self.ways.borrow().iter().zip(changes).for_each(|(way, change)| drop(way.send(command(change))));
    }

    /// There is no LS any more, but for what it finishes.
    pub(super) fn forget_forwarder(&mut self) {
        self.hand_overs = None;
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many were replaced so far.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Adds those of the process before.
    pub(super) fn add_replaced(&mut self, replaced: u64) {
        self.replaced += replaced;
    }

    /// What the engines of all workers share, if there is an LS.
    pub(super) fn engines(&self) -> Option<&Arc<engine::Shared>> {
        self.hand_overs.as_ref().map(|hand_overs| &hand_overs.shared.engines)
    }

    /// Tells all workers. One that has died hears nothing: what takes its place begins with what is in force then.
    pub(super) fn tell(&self, command: impl Fn() -> Command) {
        self.ways.borrow().iter().for_each(|way| drop(way.send(command())));
    }

    /// The ways to those that live.
    pub(super) fn ways(&self) -> Vec<UnboundedSender<Command>> {
        self.ways.borrow().clone()
    }

    /// Has the workers look at the health of the backends again, and whoever tells other processes of it.
    pub(super) fn refresher(&self, known_changes: Rc<Notify>) -> Rc<dyn Fn()> {
        let ways = Rc::clone(&self.ways);
        Rc::new(move || {
            known_changes.notify_one();
            ways.borrow().iter().for_each(|way| drop(way.send(Command::Refresh)));
        })
    }

    /// Waits until one has ended, or is to be replaced. Loses nothing if it is dropped.
    pub(super) async fn next_event(&mut self) -> WorkerEvent {
        let due = self.all.iter().enumerate().filter_map(|(number, worker)| Some((worker.replacement.due()?, number)));
        let due = due.min();
        let time = async {
            match due {
                Some((at, _)) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            Some(lost) = self.lost.recv() => WorkerEvent::Ended(lost),
            () = time => WorkerEvent::Due(WorkerId(due.map_or(0, |(_, number)| number) as u16)),
        }
    }

    /// A worker has ended. What it held in common with others is given back; its place is to be filled.
    pub(super) fn on_end(&mut self, lost: LostWorker, state: Option<&Arc<ForwarderState>>, now: Instant) {
        let number = usize::from(lost.id.0);
        if let Some(engines) = self.engines() {
            engines.single_flight.release_all(lost.id);
        }
        if let Some(state) = state {
            state.forget_in_flight(number);
        }
        let worker = &mut self.all[number];
        worker.counters.connections.close_all();
        worker.replacement.on_death(now);
        worker.ended = Some(lost);
    }

    /// Has another take the place of one that has ended, with its number, sockets and counters.
    pub(super) fn replace(&mut self, id: WorkerId, in_force: &InForce<'_>, now: Instant) {
        let number = usize::from(id.0);
        let started = self.start_one(number, in_force, &self.all[number].counters);
        let worker = &mut self.all[number];
        match started {
            Ok((way, thread)) => {
                self.ways.borrow_mut()[number] = way;
                (worker.thread, worker.heartbeat) = (thread, Heartbeat::new(now));
                worker.replacement.on_replaced(now);
                self.replaced += 1;
                if let Some(LostWorker { lost, .. }) = worker.ended.take() {
                    tracing::error!(task = lost.kind.label(), "worker {number} {}; replaced", lost.how);
                }
            }
            Err(error) => {
                worker.replacement.on_failure(now);
                if let Some(LostWorker { lost, .. }) = worker.ended.take() {
                    tracing::error!(task = lost.kind.label(), %error, "worker {number} {}; cannot be replaced yet", lost.how);
                }
            }
        }
    }

    /// Asks all workers whether they make progress.
    pub(super) fn ping(&mut self, now: Instant) {
        for (worker, way) in self.all.iter_mut().zip(self.ways.borrow().iter()) {
            if let Some(ping) = worker.heartbeat.ask(now) {
                let _ = way.send(Command::Ping(ping));
            }
        }
    }

    /// What is to be said of a worker that makes no progress, if there is one.
    pub(super) fn stall(&self, now: Instant) -> Option<String> {
        let stalled = self.all.iter().enumerate().filter(|(_, worker)| worker.replacement.due().is_none());
        let mut stalled = stalled.filter_map(|(number, worker)| Some((number, worker.heartbeat.stalled_for(now)?)));
        stalled.next().map(|(number, time)| format!("worker {number} has made no progress for {} s", time.as_secs()))
    }

    /// Waits until all threads have ended, as they were told to. May take for ever.
    pub(super) fn join(&mut self) -> (impl FnOnce() + Send + use<>, UnboundedReceiver<LostWorker>) {
        let lost = mem::replace(&mut self.lost, unbounded_channel().1);
        let threads: Vec<_> = mem::take(&mut self.all).into_iter().map(|worker| worker.thread).collect();
        (move || threads.into_iter().for_each(|thread| drop(thread.join())), lost)
    }
}

impl Links {
    /// What workers share that begin to be an LS. `table` are its connections.
    fn hand_overs(&self, config: &ForwarderConfig, table: &Connections, workers: usize) -> HandOvers {
        HandOvers::new(config, table, self.hasher.clone(), self.health_events.clone(), workers, self.catching_up_until)
    }

    /// Has the worker of this number be an LS.
    fn forwarder(
        &self,
        hand_overs: &HandOvers,
        number: usize,
        (state, table, own): (&Arc<ForwarderState>, &Arc<Connections>, &Arc<OwnAddresses>),
        change: Change,
    ) -> Command {
        Command::BeginForwarder(Box::new(ForwarderParts {
            shared: Arc::clone(&hand_overs.shared),
            state: Arc::clone(state),
            own: Arc::clone(own),
            handed_over: Arc::clone(&hand_overs.queues[number]),
            change,
            backend_sockets: self.shares.backend_sockets,
            connections: Arc::clone(table),
            fetches: self.shares.fetches,
        }))
    }

    /// Has a worker be an authority.
    fn authority(
        &self,
        served: &ServedAuthority,
        table: &Arc<Connections>,
        own: &Arc<OwnAddresses>,
        change: Change,
    ) -> Command {
        Command::BeginAuthority(AuthorityParts {
            number: served.number(),
            state: Arc::clone(served.state()),
            own: Arc::clone(own),
            limited: table.limited(),
            notifies: self.notifies.clone(),
            change,
            connections: Arc::clone(table),
        })
    }
}

/// How long workers may take to begin before the server is ready without them.
const BEGIN_PATIENCE: Duration = Duration::from_secs(1);
