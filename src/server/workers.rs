//! The workers of a server: their parts, their command channels and their replacement.
//!
//! A worker that panics ends alone and loses its queries in flight. The listening sockets, the counters and
//! the hand-over queue belong to the process. The control thread releases the worker's share of common state,
//! and starts a new worker from the current state (`replacement.rs` decides when).

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
use super::connections::ConnectionTables;
use super::heartbeat::Heartbeat;
use super::listeners::{Listeners, SectionName};
use super::replacement::Replacement;
use super::sections::HandOvers;
use super::worker::{self, AddressChange, AuthorityParts, ForwarderParts, LostWorker, WorkerCommand, WorkerParts};
use crate::authority::ReceivedNotify;
use crate::config::{Config, ForwarderConfig};
use crate::engine;
use crate::engine::single_flight::WorkerId;
use crate::limit::OwnAddresses;
use crate::metrics::Counters;
use crate::net::from_clients::tcp::ConnectionTable;
use crate::net::sys::busy_poll::BusyPoll;
use crate::net::sys::descriptors::Shares;
use crate::net::to_backends::tls::BackendTls;
use crate::state::{ForwarderState, HealthEvent};
use crate::taps::TapSet;
use crate::wire::QuestionHasher;

pub(super) struct Workers {
    count: usize,
    all: Vec<WorkerThread>,
    ways: Ways,
    links: WorkerLinks,
    hand_overs: Option<HandOvers>,
    lost_sender: UnboundedSender<LostWorker>,
    lost: UnboundedReceiver<LostWorker>,
    replaced: u64,
}

type Ways = Rc<RefCell<Vec<UnboundedSender<WorkerCommand>>>>;

struct WorkerThread {
    thread: JoinHandle<()>,
    counters: Arc<Counters>,
    replacement: Replacement,
    heartbeat: Heartbeat,
    ended: Option<LostWorker>,
}

pub(super) struct WorkerLinks {
    pub(super) shares: Shares,
    pub(super) hasher: QuestionHasher,
    pub(super) health_events: UnboundedSender<HealthEvent>,
    pub(super) tls: Arc<BackendTls>,
    pub(super) notifies: UnboundedSender<ReceivedNotify>,
    /// The end of the time for the backlog, if a previous process served.
    pub(super) catching_up_until: Option<Instant>,
}

pub(super) struct WorkerStart<'a> {
    pub(super) config: &'a Config,
    pub(super) state: Option<&'a Arc<ForwarderState>>,
    pub(super) authorities: &'a [ServedAuthority],
    pub(super) connections: &'a ConnectionTables,
    pub(super) listeners: &'a Listeners,
    pub(super) own: &'a Arc<OwnAddresses>,
    pub(super) taps: &'a Option<Arc<TapSet>>,
    pub(super) xdp: Option<&'a Xdp>,
}

pub(super) enum WorkerEvent {
    Ended(LostWorker),
    Due(WorkerId),
}

impl Workers {
    pub(super) fn new(count: usize, config: &Config, connections: &ConnectionTables, links: WorkerLinks) -> Self {
        let forwarder = config.forwarder.as_ref().zip(connections.forwarder());
        let hand_overs = forwarder.map(|(forwarder, table)| links.hand_overs(forwarder, table, count));
        // At most one for each life of a worker.
        let (lost_sender, lost) = unbounded_channel();
        Self { count, all: Vec::new(), ways: Ways::default(), links, hand_overs, lost_sender, lost, replaced: 0 }
    }

    /// Starts all workers and returns their counters. `learnt` is state that they know from the start.
    pub(super) fn start(
        &mut self,
        in_force: &WorkerStart<'_>,
        learnt: Option<&Learnt>,
    ) -> io::Result<Vec<Arc<Counters>>> {
        for number in 0..self.count {
            let counters = Arc::default();
            let (way, thread) = self.start_one(number, in_force, &counters)?;
            if let Some(learnt) = learnt.and_then(|learnt| learnt.of_worker(number)) {
                let _ = way.send(WorkerCommand::Learn(learnt));
            }
            self.ways.borrow_mut().push(way);
            let (replacement, heartbeat) = (Replacement::default(), Heartbeat::new(Instant::now()));
            self.all.push(WorkerThread { thread, counters, replacement, heartbeat, ended: None });
        }
        self.wait_until_begun();
        Ok(self.all.iter().map(|worker| Arc::clone(&worker.counters)).collect())
    }

    /// Waits until all workers have what they need, so that the server reports ready only then. A failed
    /// worker reports its end, and a slow one is not waited for, because clients are waiting.
    fn wait_until_begun(&self) {
        let ask = |way: &UnboundedSender<WorkerCommand>| {
            let (said, begun) = sync_channel(1);
            let _ = way.send(WorkerCommand::SayBegun(said));
            begun
        };
        let begun: Vec<_> = self.ways.borrow().iter().map(ask).collect();
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
        let WorkerStart { config, state, authorities, connections, listeners, own, taps, xdp } = in_force;
        // Unbounded: only the control thread sends, at the pace of operators, probes and transfers, and must
        // not block.
        let (way, commands) = unbounded_channel();
        let change = |name| {
            listeners.section(&name).map(|section| AddressChange::begin(section, number, self.count)).transpose()
        };
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
            let _ = way.send(WorkerCommand::SetXdp(xdp.of_worker(number)));
        }
        let busy_poll = BusyPoll::new(config.busy_poll);
        let (id, counters) = (WorkerId(number as u16), Arc::clone(counters));
        let (taps, has_xdp) = (Option::clone(taps), config.xdp.is_some());
        let parts = WorkerParts { id, commands, counters, busy_poll, taps, has_xdp };
        Ok((way, worker::start(parts, self.lost_sender.clone())?))
    }

    pub(super) fn begin_forwarder(
        &mut self,
        config: &ForwarderConfig,
        in_force: (&Arc<ForwarderState>, &Arc<ConnectionTable>, &Arc<OwnAddresses>),
        changes: Vec<AddressChange>,
    ) {
        let hand_overs = self.links.hand_overs(config, in_force.1, self.count);
        for (number, (way, change)) in self.ways.borrow().iter().zip(changes).enumerate() {
            let _ = way.send(self.links.forwarder(&hand_overs, number, in_force, change));
        }
        self.hand_overs = Some(hand_overs);
    }

    pub(super) fn begin_authority(
        &self,
        served: &ServedAuthority,
        table: &Arc<ConnectionTable>,
        own: &Arc<OwnAddresses>,
        changes: Vec<AddressChange>,
    ) {
        for (way, change) in self.ways.borrow().iter().zip(changes) {
            let _ = way.send(self.links.authority(served, table, own, change));
        }
    }

    pub(super) fn send_each(&self, changes: Vec<AddressChange>, command: impl Fn(AddressChange) -> WorkerCommand) {
        self.ways.borrow().iter().zip(changes).for_each(|(way, change)| drop(way.send(command(change))));
    }

    pub(super) fn forget_forwarder(&mut self) {
        self.hand_overs = None;
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
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

    /// Sends a command to all workers. A dead worker ignores it, because its replacement starts with the
    /// current state.
    pub(super) fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        self.ways.borrow().iter().for_each(|way| drop(way.send(command())));
    }

    pub(super) fn ways(&self) -> Vec<UnboundedSender<WorkerCommand>> {
        self.ways.borrow().clone()
    }

    /// Returns a function that makes the workers read the health of backends again and signals
    /// `known_changes`.
    pub(super) fn refresher(&self, known_changes: Rc<Notify>) -> Rc<dyn Fn()> {
        let ways = Rc::clone(&self.ways);
        Rc::new(move || {
            known_changes.notify_one();
            ways.borrow().iter().for_each(|way| drop(way.send(WorkerCommand::Refresh)));
        })
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

    pub(super) fn ping(&mut self, now: Instant) {
        for (worker, way) in self.all.iter_mut().zip(self.ways.borrow().iter()) {
            if let Some(ping) = worker.heartbeat.ask(now) {
                let _ = way.send(WorkerCommand::Ping(ping));
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
        HandOvers::new(self, config, table, workers)
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

/// The longest wait for workers to begin before the server is ready without them.
const BEGIN_PATIENCE: Duration = Duration::from_secs(1);
