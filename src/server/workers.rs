//! The workers of a server: what each is made of, the way to it, and who takes its place when it dies.
//!
//! A worker that panics ends alone. What belongs to the process outlives it: its listening sockets, its counters, the queue of what
//! others hand over to it. What it had in common with the other workers is given back, and a new one is made of what is in
//! force by then (`replacement.rs` says when). Lost is what it had in flight.

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::{Mutex, Notify};
use tokio::time::sleep_until;

use super::authorities::ServedAuthority;
use super::carried::Learnt;
use super::connections::Tables;
use super::heartbeat::Heartbeat;
use super::listeners::Listeners;
use super::replacement::Replacement;
use super::worker::{self, AuthorityParts, Command, ForwarderParts, HandedOver, LostWorker, Parts};
use crate::authority::ReceivedNotify;
use crate::config::Config;
use crate::engine;
use crate::engine::shortage::Shortage;
use crate::engine::single_flight::{SingleFlight, WorkerId};
use crate::forwarder::{HAND_OVERS, Shared};
use crate::limit::{Clients, OwnAddresses, Pacing};
use crate::metrics::{Counters, Limited};
use crate::net::busy_poll::BusyPoll;
use crate::net::descriptors::Shares;
use crate::state::{ForwarderState, HealthEvent};
use crate::wire::QuestionHasher;

/// All workers.
pub(super) struct Workers {
    /// By number.
    all: Vec<Worker>,
    ways: Ways,
    links: Links,
    /// What is handed over to each, until it takes that.
    queues: Vec<HandedOver>,
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
struct Links {
    shared: Arc<Shared>,
    shares: Shares,
    notifies: UnboundedSender<ReceivedNotify>,
    /// Where a worker tells that it has ended.
    lost: UnboundedSender<LostWorker>,
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
    pub(super) fn new(
        count: usize,
        config: &Config,
        connections: &Tables,
        hasher: QuestionHasher,
        shares: Shares,
        (health_events, notifies): (UnboundedSender<HealthEvent>, UnboundedSender<ReceivedNotify>),
    ) -> Self {
        let (shared, queues) = share(config, connections, hasher, health_events, count);
        // At most one for each life of a worker.
        let (lost_sender, lost) = unbounded_channel();
        let links = Links { shared, shares, notifies, lost: lost_sender };
        Self { all: Vec::new(), ways: Ways::default(), links, queues, lost, replaced: 0 }
    }

    /// Starts them. Returns what each counts. `learnt`: what they are to know from the beginning.
    ///
    /// # Errors
    /// If a thread or a descriptor cannot be had.
    pub(super) fn start(&mut self, in_force: &InForce<'_>, learnt: Option<&Learnt>) -> io::Result<Vec<Arc<Counters>>> {
        for (number, queue) in self.queues.iter().enumerate() {
            let counters = Arc::default();
            let (way, thread) = self.links.start(number, in_force, &counters, queue)?;
            if let Some(learnt) = learnt.and_then(|learnt| learnt.of_worker(number)) {
                let _ = way.send(Command::Learn(learnt));
            }
            self.ways.borrow_mut().push(way);
            let (replacement, heartbeat) = (Replacement::default(), Heartbeat::new(Instant::now()));
            self.all.push(Worker { thread, counters, replacement, heartbeat, ended: None });
        }
        Ok(self.all.iter().map(|worker| Arc::clone(&worker.counters)).collect())
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

    /// What the engines of all workers share.
    pub(super) fn engines(&self) -> &Arc<engine::Shared> {
        &self.links.shared.engines
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
        self.engines().single_flight.release_all(lost.id);
        if let Some(state) = state {
            state.forget_in_flight(number);
        }
        let worker = &mut self.all[number];
        worker.replacement.on_death(now);
        worker.ended = Some(lost);
    }

    /// Has another take the place of one that has ended, with its number, sockets and counters.
    pub(super) fn replace(&mut self, id: WorkerId, in_force: &InForce<'_>, now: Instant) {
        let number = usize::from(id.0);
        let worker = &mut self.all[number];
        match self.links.start(number, in_force, &worker.counters, &self.queues[number]) {
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
    pub(super) fn join(self) -> (impl FnOnce() + Send + 'static, UnboundedReceiver<LostWorker>) {
        let threads: Vec<_> = self.all.into_iter().map(|worker| worker.thread).collect();
        (move || threads.into_iter().for_each(|thread| drop(thread.join())), self.lost)
    }
}

impl Links {
    /// Starts the worker of this number, or another in its place. Returns the way to it, and its thread.
    fn start(
        &self,
        number: usize,
        in_force: &InForce<'_>,
        counters: &Arc<Counters>,
        handed_over: &HandedOver,
    ) -> io::Result<(UnboundedSender<Command>, JoinHandle<()>)> {
        let InForce { config, state, authorities, connections, listeners, own } = in_force;
        // The control thread alone sends, at the pace of operators, probes and transfers, and must not wait for a worker.
        let (way, commands) = unbounded_channel();
        let forwarder = match state.zip(connections.forwarder.as_ref()) {
            Some((state, table)) => Some(ForwarderParts {
                shared: Arc::clone(&self.shared),
                state: Arc::clone(state),
                own: Arc::clone(own),
                handed_over: Arc::clone(handed_over),
                sockets: listeners.of_forwarder(number)?,
                backend_sockets: self.shares.backend_sockets,
                connections: Arc::clone(table),
                fetches: self.shares.fetches,
            }),
            None => None,
        };
        let mut parts_of_authorities = Vec::new();
        for (place, (served, table)) in authorities.iter().zip(&connections.authorities).enumerate() {
            parts_of_authorities.push(AuthorityParts {
                number: place,
                state: Arc::clone(served.state()),
                own: Arc::clone(own),
                limited: table.limited(),
                notifies: self.notifies.clone(),
                sockets: listeners.of_authority(place, number)?,
                connections: Arc::clone(table),
            });
        }
        let parts = Parts {
            id: WorkerId(number as u16),
            commands,
            forwarder,
            authorities: parts_of_authorities,
            counters: Arc::clone(counters),
            busy_poll: BusyPoll::new(config.busy_poll),
        };
        Ok((way, worker::start(parts, self.lost.clone())?))
    }
}

/// What the workers of the LS share, and what each of them gets of the others.
fn share(
    config: &Config,
    connections: &Tables,
    hasher: QuestionHasher,
    health_events: UnboundedSender<HealthEvent>,
    workers: usize,
) -> (Arc<Shared>, Vec<HandedOver>) {
    let (hand_over, handed_over): (Vec<_>, Vec<_>) = (0..workers).map(|_| channel(HAND_OVERS)).unzip();
    let may_wait = config.forwarder.as_ref().map_or(0, |forwarder| forwarder.limits.in_flight as usize);
    let engines = engine::Shared {
        single_flight: SingleFlight::new(workers),
        hasher,
        clients: Arc::new(Clients::new(may_wait, rand::random())),
        limited: connections.forwarder.as_ref().map_or_else(|| Arc::new(Limited::new("")), |table| table.limited()),
        shortage: Shortage::new(Instant::now()),
    };
    let shared = Shared {
        engines: Arc::new(engines),
        workers: hand_over,
        on_the_way: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        pacing: Pacing::new(rand::random(), Instant::now()),
        health_events,
    };
    (Arc::new(shared), handed_over.into_iter().map(|queue| Arc::new(Mutex::new(queue))).collect())
}
