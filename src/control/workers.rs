//! The workers of a server: their parts, their command channels and their replacement.
//!
//! A worker that panics ends alone and loses its queries in flight. The listening sockets, the counters and
//! the hand-over queue belong to the process. The control thread releases the worker's share of common state,
//! and starts a new worker from the current state (`replacement.rs` decides when).

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, mem};

use config::ForwarderConfig;
use dns::QuestionHasher;
use engine::LearntBackend;
use engine::shortage::Shortage;
use engine::single_flight::{SingleFlight, WorkerId};
use engine::state::{ForwarderState, HealthEvent};
use limit::{Clients, OwnAddresses, Pacing};
use metrics::Counters;
use net::from_clients::tcp::ConnectionTable;
use net::sys::busy_poll::BusyPoll;
use net::sys::descriptors::Shares;
use net::to_backends::tls::BackendTls;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::{Mutex, oneshot};
use tokio::time::sleep_until;

use super::Interfaces;
use super::observe::ServerObservers;
use super::pools::ServerPools;
use super::process::{Listening, SectionName, ServerProcess};
use super::replacement::Replacement;
use super::zones::{ServedAuthority, ServerZones};
use crate::worker::authority::ReceivedNotify;
use crate::worker::forwarder::{HAND_OVERS, SharedForwarder};
use crate::worker::heartbeat::Heartbeat;
use crate::worker::{
    self, AddressChange, AuthorityParts, ForwarderCommand, ForwarderParts, HandedOver, LostWorker, WorkerCommand,
    WorkerParts,
};

pub(super) struct Workers {
    all: Vec<WorkerThread>,
    channels: WorkerChannels,
    links: WorkerLinks,
    hand_overs: Option<HandOvers>,
    lost_sender: UnboundedSender<LostWorker>,
    lost: UnboundedReceiver<LostWorker>,
    replaced: u64,
}

/// The command channels of all workers. Clones share them, and so have those of replaced workers.
#[derive(Clone)]
pub(super) struct WorkerChannels {
    count: usize,
    /// Empty before the start.
    all: Rc<RefCell<Vec<UnboundedSender<WorkerCommand>>>>,
}

struct WorkerThread {
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
    replacement: Replacement,
    heartbeat: Heartbeat,
    ended: Option<LostWorker>,
}

pub(super) struct WorkerLinks {
    pub(super) shares: Shares,
    pub(super) tls: Arc<BackendTls>,
    hasher: QuestionHasher,
    health: UnboundedSender<HealthEvent>,
    notifies: UnboundedSender<ReceivedNotify>,
    /// The end of the time for the backlog, if a previous process served.
    catching_up_until: Option<Instant>,
}

/// The signals of workers to the control thread.
pub(super) struct WorkerSignals {
    /// At most one of each signal for each backend: see `SharedBackend::is_first`.
    pub(super) health: UnboundedReceiver<HealthEvent>,
    /// At most one for each zone and primary: see `authority::PendingNotifies`.
    pub(super) notifies: UnboundedReceiver<ReceivedNotify>,
}

/// The parts of the server, from which a worker starts.
pub(super) struct WorkerStart<'a> {
    pub(super) pools: &'a ServerPools,
    pub(super) zones: &'a ServerZones,
    pub(super) observe: &'a ServerObservers,
    pub(super) process: &'a ServerProcess,
    pub(super) interfaces: &'a Interfaces,
}

/// The forwarder that all workers share, and the queue of each worker.
struct HandOvers {
    shared: Arc<SharedForwarder>,
    queues: Vec<HandedOver>,
}

impl WorkerChannels {
    pub(super) fn new(count: usize) -> Self {
        Self { count, all: Rc::default() }
    }

    /// Returns the number of workers.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Sends a command to one worker. Returns true if the worker receives it.
    pub(super) fn send(&self, worker: usize, command: impl Into<WorkerCommand>) -> bool {
        self.all.borrow().get(worker).is_some_and(|channel| channel.send(command.into()).is_ok())
    }

    /// Sends a command to all workers. A dead worker ignores it, because its replacement starts with the
    /// current state.
    pub(super) fn broadcast<C: Into<WorkerCommand>>(&self, command: impl Fn() -> C) {
        self.all.borrow().iter().for_each(|channel| drop(channel.send(command().into())));
    }

    /// Sends each worker its part of a change.
    pub(super) fn send_each<T, C: Into<WorkerCommand>>(&self, parts: Vec<T>, command: impl Fn(T) -> C) {
        self.all.borrow().iter().zip(parts).for_each(|(channel, part)| drop(channel.send(command(part).into())));
    }

    /// Sends all workers a command with a reply channel.
    pub(super) fn ask<T, C: Into<WorkerCommand>>(
        &self,
        command: impl Fn(oneshot::Sender<T>) -> C,
    ) -> Vec<oneshot::Receiver<T>> {
        let (replies, received): (Vec<_>, Vec<_>) = (0..self.count).map(|_| oneshot::channel()).unzip();
        self.send_each(replies, command);
        received
    }
}

pub(super) enum WorkerEvent {
    Ended(LostWorker),
    Due(WorkerId),
}

impl Workers {
    pub(super) fn new(
        channels: WorkerChannels,
        shares: Shares,
        hasher: QuestionHasher,
        tls: Arc<BackendTls>,
        catching_up_until: Option<Instant>,
    ) -> (Self, WorkerSignals) {
        let (health_sender, health) = unbounded_channel();
        let (notify_sender, notifies) = unbounded_channel();
        let links =
            WorkerLinks { shares, tls, hasher, health: health_sender, notifies: notify_sender, catching_up_until };
        // At most one for each life of a worker.
        let (lost_sender, lost) = unbounded_channel();
        let this = Self { all: Vec::new(), channels, links, hand_overs: None, lost_sender, lost, replaced: 0 };
        (this, WorkerSignals { health, notifies })
    }

    /// Starts a worker for each of these counters. `learnt` returns what a worker knows from the start.
    pub(super) fn start(
        &mut self,
        in_force: &WorkerStart<'_>,
        counters: Vec<Arc<Counters>>,
        learnt: impl Fn(usize) -> Option<Vec<LearntBackend>>,
    ) -> io::Result<()> {
        for (number, counters) in counters.into_iter().enumerate() {
            let (channel, thread) = self.start_one(number, in_force, &counters)?;
            if let Some(learnt) = learnt(number).filter(|learnt| !learnt.is_empty()) {
                let _ = channel.send(WorkerCommand::Forwarder(ForwarderCommand::Learn(learnt)));
            }
            self.channels.all.borrow_mut().push(channel);
            let (replacement, heartbeat) = (Replacement::default(), Heartbeat::new(Instant::now()));
            self.all.push(WorkerThread { thread, counters, replacement, heartbeat, ended: None });
        }
        self.wait_until_begun();
        Ok(())
    }

    /// Waits until all workers have what they need, so that the server reports ready only then. A failed
    /// worker reports its end, and a slow one is not waited for, because clients are waiting.
    fn wait_until_begun(&self) {
        let (replies, begun): (Vec<_>, Vec<_>) = self.all.iter().map(|_| sync_channel(1)).unzip();
        self.channels.send_each(replies, WorkerCommand::SayBegun);
        let deadline = Instant::now() + BEGIN_PATIENCE;
        for begun in begun {
            let _ = begun.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Starts a worker, or its replacement, with all current sections. Returns its command channel and its
    /// thread.
    fn start_one(
        &self,
        number: usize,
        in_force: &WorkerStart<'_>,
        counters: &Arc<Counters>,
    ) -> io::Result<(UnboundedSender<WorkerCommand>, JoinHandle<()>)> {
        let WorkerStart { pools, zones, observe, process, interfaces } = in_force;
        let Listening { listeners, own, connections } = &process.listening;
        // Unbounded: only the control thread sends, at the pace of operators, probes and transfers, and must
        // not block.
        let (channel, commands) = unbounded_channel();
        let change = |name| {
            let section = listeners.section(&name);
            section.map(|section| AddressChange::begin(section, number, self.channels.count)).transpose()
        };
        let forwarder = pools.state.as_ref().zip(connections.of(&SectionName::Forwarder)).zip(self.hand_overs.as_ref());
        if let (Some(((state, table), hand_overs)), Some(change)) = (forwarder, change(SectionName::Forwarder)?) {
            let parts = self.links.forwarder(hand_overs, number, (state, table, own), change);
            let _ = channel.send(parts);
        }
        for served in &zones.authorities {
            if let Some((table, change)) = connections.of(&served.section()).zip(change(served.section())?) {
                let _ = channel.send(self.links.authority(served, table, own, change));
            }
        }
        if let Some(command) = interfaces.command(number) {
            let _ = channel.send(WorkerCommand::Frames(command));
        }
        let config = &process.started_with;
        let busy_poll = BusyPoll::new(config.process.busy_poll);
        let (id, counters) = (WorkerId(number as u16), Arc::clone(counters));
        let (taps, is_gro_off) = (observe.taps.set().clone(), config.has_interfaces());
        let parts = WorkerParts { id, commands, counters, busy_poll, taps, is_gro_off };
        Ok((channel, worker::start(parts, self.lost_sender.clone())?))
    }

    /// Begins the forwarder in all workers.
    pub(super) fn begin_forwarder(
        &mut self,
        config: &ForwarderConfig,
        state: &Arc<ForwarderState>,
        listening: &Listening,
        changes: Vec<AddressChange>,
    ) {
        let Some(table) = listening.connections.of(&SectionName::Forwarder) else { return };
        let hand_overs = self.links.hand_overs(config, table, self.channels.count);
        let parts = changes.into_iter().enumerate().collect();
        self.channels.send_each(parts, |(number, change)| {
            self.links.forwarder(&hand_overs, number, (state, table, &listening.own), change)
        });
        self.hand_overs = Some(hand_overs);
    }

    /// Begins an authority in all workers.
    pub(super) fn begin_authority(&self, served: &ServedAuthority, listening: &Listening, changes: Vec<AddressChange>) {
        if let Some(table) = listening.connections.of(&served.section()) {
            self.channels.send_each(changes, |change| self.links.authority(served, table, &listening.own, change));
        }
    }

    pub(super) fn forget_forwarder(&mut self) {
        self.hand_overs = None;
    }

    pub(super) fn links(&self) -> &WorkerLinks {
        &self.links
    }

    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    pub(super) fn add_replaced(&mut self, replaced: u64) {
        self.replaced += replaced;
    }

    pub(super) fn engines(&self) -> Option<&Arc<engine::SharedEngineState>> {
        self.hand_overs.as_ref().map(|hand_overs| &hand_overs.shared.engines)
    }

    /// Waits until a worker ends or is to be replaced. Cancel safe.
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

    /// Handles the end of a worker: releases its share of common state and schedules the replacement.
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

    /// Starts a replacement with the number, sockets and counters of the ended worker.
    pub(super) fn replace(&mut self, id: WorkerId, in_force: &WorkerStart<'_>, now: Instant) {
        let number = usize::from(id.0);
        let started = self.start_one(number, in_force, &self.all[number].counters);
        let worker = &mut self.all[number];
        match started {
            Ok((channel, thread)) => {
                self.channels.all.borrow_mut()[number] = channel;
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

    pub(super) fn ping(&mut self, now: Instant) {
        for (number, worker) in self.all.iter_mut().enumerate() {
            if let Some(ping) = worker.heartbeat.ask(now) {
                self.channels.send(number, WorkerCommand::Ping(ping));
            }
        }
    }

    /// Describes a worker that makes no progress, if there is one.
    pub(super) fn stall(&self, now: Instant) -> Option<String> {
        let stalled = self.all.iter().enumerate().filter(|(_, worker)| worker.replacement.due().is_none());
        let mut stalled = stalled.filter_map(|(number, worker)| Some((number, worker.heartbeat.stalled_for(now)?)));
        stalled.next().map(|(number, time)| format!("worker {number} has made no progress for {} s", time.as_secs()))
    }

    /// Waits until all threads have ended, as commanded. May wait forever.
    pub(super) fn join(&mut self) -> (impl FnOnce() + Send + use<>, UnboundedReceiver<LostWorker>) {
        let lost = mem::replace(&mut self.lost, unbounded_channel().1);
        let threads: Vec<_> = mem::take(&mut self.all).into_iter().map(|worker| worker.thread).collect();
        (move || threads.into_iter().for_each(|thread| drop(thread.join())), lost)
    }
}

impl WorkerLinks {
    fn hand_overs(&self, config: &ForwarderConfig, table: &ConnectionTable, workers: usize) -> HandOvers {
        let (hand_over, handed_over): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel(HAND_OVERS)).unzip();
        let engines = engine::SharedEngineState {
            single_flight: SingleFlight::new(workers),
            hasher: self.hasher.clone(),
            clients: Arc::new(Clients::new(config.limits.in_flight as usize, rand::random())),
            limited: table.limited(),
            shortage: Shortage::new(Instant::now()),
            catching_up_until: self.catching_up_until,
        };
        let shared = SharedForwarder {
            engines: Arc::new(engines),
            workers: hand_over,
            on_the_way: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            pacing: Pacing::new(rand::random(), Instant::now()),
            health_events: self.health.clone(),
            tls: Arc::clone(&self.tls),
        };
        let queues = handed_over.into_iter().map(|queue| Arc::new(Mutex::new(queue))).collect();
        HandOvers { shared: Arc::new(shared), queues }
    }

    fn forwarder(
        &self,
        hand_overs: &HandOvers,
        number: usize,
        (state, table, own): (&Arc<ForwarderState>, &Arc<ConnectionTable>, &Arc<OwnAddresses>),
        change: AddressChange,
    ) -> WorkerCommand {
        WorkerCommand::BeginForwarder(Box::new(ForwarderParts {
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

    fn authority(
        &self,
        served: &ServedAuthority,
        table: &Arc<ConnectionTable>,
        own: &Arc<OwnAddresses>,
        change: AddressChange,
    ) -> WorkerCommand {
        WorkerCommand::BeginAuthority(AuthorityParts {
            number: served.number,
            state: Arc::clone(&served.state),
            own: Arc::clone(own),
            limited: table.limited(),
            notifies: self.notifies.clone(),
            change,
            connections: Arc::clone(table),
        })
    }
}

/// The longest wait for workers to begin before the server is ready without them.
const BEGIN_PATIENCE: Duration = Duration::from_secs(1);
