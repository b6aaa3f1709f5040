//! A worker: one thread with a runtime of its own, and everything that the queries it takes ever touch. Its thread starts with
//! nothing; sections of the config begin in it and end by commands.

mod authority_tasks;
mod forwarder_tasks;
mod reading;
mod xdp;

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::LocalSet;

use self::authority_tasks::AuthorityTasks;
use self::forwarder_tasks::ForwarderTasks;
pub(super) use self::reading::Checkpoint;
pub(super) use self::xdp::XdpSocket;
use self::xdp::XdpTargets;
use super::heartbeat::Ping;
use super::listeners::{AddressSockets, Section};
use crate::authority::{AuthorityState, ReceivedNotify};
use crate::engine::LearntBackend;
use crate::engine::single_flight::WorkerId;
use crate::forwarder::{Asked, HandOver, Shared};
use crate::limit::OwnAddresses;
use crate::metrics::{Counters, Limited};
use crate::net::busy_poll::BusyPoll;
use crate::net::clock::thread_cpu_time;
use crate::net::tasks::{Lost, TaskKind, Tasks};
use crate::net::tcp::{Connections, Gate, Served};
use crate::net::xdp::NextHops;
use crate::state::ForwarderState;
use crate::taps::{TapSet, WorkerTaps};

/// What a worker is told by the control thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Be an LS.
    BeginForwarder(Box<ForwarderParts>),
    /// Take queries for the LS at other addresses.
    SetForwarderAddresses(Change),
    /// Put this state in force.
    SetForwarderState(Arc<ForwarderState>),
    /// Be an LS no more: finish what is in flight.
    EndForwarder(Change),
    /// Be a TS.
    BeginAuthority(AuthorityParts),
    /// Answer as the authority of this number at other addresses.
    SetAuthorityAddresses(usize, Change),
    /// Answer from this state, as the authority of this number.
    SetAuthorityState(usize, Arc<AuthorityState>),
    /// Be the authority of this number no more.
    EndAuthority(usize, Change),
    /// No client is at any of these.
    SetOwnAddresses(Arc<OwnAddresses>),
    /// Have these observe queries from now on.
    SetTaps(Option<Arc<TapSet>>),
    /// Read these sockets of AF_XDP, and no others.
    SetXdp(Vec<XdpSocket>),
    /// These are the next hops of backends.
    SetNextHops(Arc<NextHops>),
    /// The state of some backend has changed.
    Refresh,
    /// Ask a question for an operator.
    Explain(Box<Asked>),
    /// Take what a worker of another process has learnt.
    Learn(Vec<LearntBackend>),
    /// Tell what is known of backends, from this number on; fewer than [`TOLD`] are the last.
    TellLearnt(usize, oneshot::Sender<Vec<LearntBackend>>),
    /// Say that all that was said before is done.
    SayBegun(SyncSender<()>),
    /// Say that there is progress.
    Ping(Ping),
    /// Read no more datagrams, and say so: another process does from now on. Connections are served on.
    StopReading(oneshot::Sender<()>),
    /// Take no more queries for the LS, finish those in flight, and say so.
    Drain(Rest, oneshot::Sender<()>),
    /// The same for the authorities; then end.
    Stop(Rest),
}

/// What becomes of queries that wait in sockets when a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It takes them, and the sockets refuse what comes later.
    Taken,
    /// They stay for whoever comes next: a service manager keeps the sockets.
    Kept,
    /// Another process takes them, now.
    PassedOn,
}

/// How the addresses of a section change.
#[derive(Debug)]
pub(super) struct Change {
    /// Where it takes queries from now on.
    pub(super) served: Served,
    /// The sockets of the addresses among these that are new.
    pub(super) new: Vec<AddressSockets>,
    /// Where workers wait for each other.
    pub(super) checkpoint: Checkpoint,
    /// After so long nothing is owed any more to whoever has asked at an address that leaves.
    pub(super) owed_for: Duration,
}

impl Change {
    /// A section begins in the worker of this number, one of so many.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub(super) fn begin(section: &Section, worker: usize, workers: usize) -> io::Result<Self> {
        let new = section.addresses.iter().map(|address| address.of_worker(worker, workers));
        Ok(Self { new: new.collect::<io::Result<_>>()?, ..Self::to(Served::new(section.served(), [])) })
    }

    /// Nothing new.
    fn to(served: Served) -> Self {
        Self { served, new: Vec::new(), checkpoint: Checkpoint::new(), owed_for: Duration::ZERO }
    }
}

/// What a worker is made of.
pub(super) struct Parts {
    /// Its number.
    pub(super) id: WorkerId,
    /// What is told by the control thread.
    pub(super) commands: UnboundedReceiver<Command>,
    /// What is counted.
    pub(super) counters: Arc<Counters>,
    /// How long each loop that reads datagrams stays awake.
    pub(super) busy_poll: BusyPoll,
    /// What observes queries, if anything does.
    pub(super) taps: Option<Arc<TapSet>>,
    /// Whether interfaces are to be served by AF_XDP.
    pub(super) has_xdp: bool,
}

/// A worker's part of the LS.
#[derive(Debug)]
pub(super) struct ForwarderParts {
    /// What it shares with the other workers.
    pub(super) shared: Arc<Shared>,
    /// The config in force.
    pub(super) state: Arc<ForwarderState>,
    /// Where no client is.
    pub(super) own: Arc<OwnAddresses>,
    /// What other workers hand over.
    pub(super) handed_over: HandedOver,
    /// Where it takes queries.
    pub(super) change: Change,
    /// For how many sockets to backends it has room.
    pub(super) backend_sockets: usize,
    /// The connections of all workers.
    pub(super) connections: Arc<Connections>,
    /// By how many connections it may fetch answers from backends.
    pub(super) fetches: usize,
}

/// What other workers hand over to a worker. It outlives the worker: what waits in it is taken by the next of that number.
pub(super) type HandedOver = Arc<Mutex<Receiver<HandOver>>>;

/// A worker's part of a TS.
#[derive(Debug)]
pub(super) struct AuthorityParts {
    pub(super) number: usize,
    /// What it answers from.
    pub(super) state: Arc<AuthorityState>,
    /// Where no client is.
    pub(super) own: Arc<OwnAddresses>,
    /// How often clients met a limit.
    pub(super) limited: Arc<Limited>,
    /// Where NOTIFY goes.
    pub(super) notifies: mpsc::UnboundedSender<ReceivedNotify>,
    /// Where it takes queries.
    pub(super) change: Change,
    /// The connections of all workers.
    pub(super) connections: Arc<Connections>,
}

/// What the sections of a worker have in common.
struct Surroundings {
    id: WorkerId,
    counters: Arc<Counters>,
    busy_poll: BusyPoll,
    tasks: Tasks,
    taps: Rc<WorkerTaps>,
    /// Keeps handshakes from queries, of whichever section they are.
    gate: Rc<Gate>,
    /// The sockets of AF_XDP, and where what they receive goes.
    xdp: Rc<XdpTargets>,
}

impl Surroundings {
    /// Takes something new of the backends, and says for how long no query was answered meanwhile. What others had of the processor is in
    /// `took_us`, and not in `cpu_us`.
    fn timed(&self, what: &'static str, take: impl FnOnce()) {
        let (began, cpu) = (Instant::now(), thread_cpu_time());
        take();
        let (took, cpu) = (began.elapsed(), thread_cpu_time().saturating_sub(cpu));
        let (took_us, cpu_us) = (took.as_micros() as u64, cpu.as_micros() as u64);
        tracing::debug!(worker = self.id.0, what, took_us, cpu_us, "the worker has taken what is new of backends");
    }
}

/// A worker has lost a task, and has ended with it: the queries that it had in flight have no answer. All that there is of it is
/// gone, so that another can take its place.
#[derive(Clone, Debug)]
pub(super) struct LostWorker {
    pub(super) id: WorkerId,
    pub(super) lost: Lost,
}

/// Starts a worker's thread. Why it has ended, if nobody has told it to, goes to `lost`.
///
/// # Errors
/// If the operating system gives no thread or no descriptors.
pub(super) fn start(parts: Parts, lost: mpsc::UnboundedSender<LostWorker>) -> io::Result<JoinHandle<()>> {
    let id = parts.id;
    std::thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        let live = || -> Result<(), Lost> {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| TaskKind::Worker.ended(Err(error)))?;
            runtime.block_on(LocalSet::new().run_until(run(parts)))
        };
        // Whatever it has left behind ends with it: what is in an unknown state is not used any more.
        let ended =
            catch_unwind(AssertUnwindSafe(live)).unwrap_or_else(|panic| Err(TaskKind::Worker.panicked(&*panic)));
        if let Err(task) = ended {
            let _ = lost.send(LostWorker { id, lost: task });
        }
    })
}

/// A worker's life.
///
/// # Errors
/// If a task has panicked, or has ended that should not have.
async fn run(parts: Parts) -> Result<(), Lost> {
    TaskKind::Worker.begin();
    let unable = |error| TaskKind::Worker.ended(Err(error));
    let Parts { id, mut commands, counters, busy_poll, taps, has_xdp } = parts;
    let taps = Rc::new(WorkerTaps::new(id.0.into(), Arc::clone(&counters), taps));
    let around = Surroundings {
        id,
        counters,
        busy_poll,
        tasks: Tasks::default(),
        taps,
        gate: Rc::default(),
        xdp: Rc::new(XdpTargets::new(id.0.into())),
    };
    if has_xdp {
        around.xdp.sockets().switch_gro_off();
    }
    let mut sections = Sections::default();
    let rest = loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            lost = poll_fn(|cx| sections.poll_lost(cx)) => return Err(lost),
            lost = around.tasks.lost() => return Err(lost),
            lost = poll_fn(|cx| around.xdp.poll_lost(cx)) => return Err(lost),
        };
        match command {
            None => break Rest::Taken,
            Some(Command::Stop(rest)) => break rest,
            Some(command) => sections.obey(command, &around).map_err(unable)?,
        }
    };
    for authority in sections.authorities {
        authority.stop(rest != Rest::Taken).await;
    }
    Ok(())
}

/// The sections of the config that a worker takes queries for.
#[derive(Default)]
struct Sections {
    forwarder: Option<ForwarderTasks>,
    authorities: Vec<AuthorityTasks>,
}

impl Sections {
    /// Does what the control thread says.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the system no randomness.
    fn obey(&mut self, command: Command, around: &Surroundings) -> io::Result<()> {
        let now = Instant::now();
        match command {
            Command::BeginForwarder(parts) => self.forwarder = Some(ForwarderTasks::start(*parts, around)?),
            Command::BeginAuthority(parts) => self.authorities.push(AuthorityTasks::start(parts, around)?),
            Command::SetForwarderAddresses(change) => {
                self.forwarder.as_mut().map_or(Ok(()), |forwarder| forwarder.listen(change))?;
            }
            Command::SetAuthorityAddresses(number, change) => {
                self.authority(number).map_or(Ok(()), |authority| authority.listen(change))?;
            }
            Command::SetForwarderState(state) => {
                if let Some(tasks) = &self.forwarder {
                    around.timed("state", || tasks.forwarder.borrow_mut().set_state(state, now));
                }
            }
            Command::SetAuthorityState(number, state) => {
                if let Some(tasks) = self.authority(number) {
                    tasks.authority.set_state(state);
                }
            }
            Command::EndForwarder(change) => {
                if let Some(forwarder) = self.forwarder.take() {
                    around.tasks.start_and_leave(TaskKind::Drain, end(forwarder.end(change)));
                }
            }
            Command::EndAuthority(number, change) => {
                if let Some(place) = self.authorities.iter().position(|authority| authority.number == number) {
                    let authority = self.authorities.swap_remove(place);
                    around.tasks.start_and_leave(TaskKind::Drain, end(authority.end(change)));
                }
            }
            Command::SetOwnAddresses(own) => {
                if let Some(tasks) = &self.forwarder {
                    tasks.forwarder.borrow_mut().set_own_addresses(Arc::clone(&own));
                }
                self.authorities.iter().for_each(|tasks| tasks.authority.set_own_addresses(Arc::clone(&own)));
            }
            Command::SetTaps(set) => around.taps.set(set),
            Command::SetXdp(sockets) => around.xdp.read_only(&sockets, around.busy_poll)?,
            Command::SetNextHops(next_hops) => around.xdp.sockets().set_next_hops(next_hops),
            Command::Refresh => {
                if let Some(tasks) = &self.forwarder {
                    around.timed("health", || tasks.forwarder.borrow_mut().refresh_all(now));
                }
            }
            Command::Explain(asked) => {
                if let Some(tasks) = &self.forwarder {
                    tasks.forwarder.borrow_mut().explain(*asked, now);
                }
            }
            Command::Learn(learnt) => {
                if let Some(tasks) = &self.forwarder {
                    tasks.forwarder.borrow_mut().learn(&learnt, now);
                }
            }
            Command::TellLearnt(first, answer) => {
                let forwarder = self.forwarder.as_ref().map(|tasks| tasks.forwarder.borrow());
                let learnt = forwarder.map(|forwarder| forwarder.learnt(first, TOLD, now));
                let _ = answer.send(learnt.unwrap_or_default());
            }
            Command::SayBegun(begun) => drop(begun.send(())),
            Command::Ping(ping) => ping.answer(),
            Command::StopReading(done) => {
                let of_forwarder = self.forwarder.iter_mut().flat_map(ForwarderTasks::take_readers);
                let of_authorities = self.authorities.iter_mut().flat_map(AuthorityTasks::take_readers);
                let readers: Vec<_> = of_forwarder.chain(of_authorities).collect();
                around.tasks.start_and_leave(TaskKind::Drain, async {
                    for readers in readers {
                        readers.stop().await;
                    }
                    let _ = done.send(());
                });
            }
            Command::Drain(rest, done) => match &mut self.forwarder {
                // Commands are still taken meanwhile: a backend may die while we wait for it.
                Some(forwarder) => {
                    let drain = forwarder.drain(rest != Rest::Taken, done);
                    around.tasks.start_and_leave(TaskKind::Drain, drain);
                }
                None => drop(done.send(())),
            },
            // The end of the loop that has it.
            Command::Stop(_) => {}
        }
        Ok(())
    }

    /// The authority of this number.
    fn authority(&mut self, number: usize) -> Option<&mut AuthorityTasks> {
        self.authorities.iter_mut().find(|authority| authority.number == number)
    }

    /// Whether a task is lost that takes queries or replies for as long as its section lives.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let of_forwarder = self.forwarder.iter_mut().map(|tasks| tasks.poll_lost(cx)).find(Poll::is_ready);
        let lost =
            of_forwarder.or_else(|| self.authorities.iter_mut().map(|tasks| tasks.poll_lost(cx)).find(Poll::is_ready));
        lost.unwrap_or(Poll::Pending)
    }
}

/// Ends a section. What it has lost meanwhile is the loss of the task that does so.
async fn end(section: impl Future<Output = io::Result<()>>) {
    if let Err(error) = section.await {
        panic!("a section cannot end: {error}");
    }
}

/// Backends that are told of at a time: some 50 µs of the worker's time.
pub(super) const TOLD: usize = 16;
