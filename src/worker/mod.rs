//! A worker: one thread with its own runtime, and all state that its queries touch. The thread starts empty;
//! commands begin and end the sections of the config in it.

pub mod authority;
mod authority_tasks;
pub mod forwarder;
mod forwarder_tasks;
pub(crate) mod heartbeat;
mod reading;
mod section;

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::LearntBackend;
use engine::single_flight::WorkerId;
use engine::state::ForwarderState;
use limit::OwnAddresses;
use metrics::{Counters, LimitCounters};
use net::from_clients::service::ServedAddresses;
use net::from_clients::tcp::{ConnectionTable, Gate};
use net::sys::busy_poll::BusyPoll;
use net::sys::clock::thread_cpu_time;
use net::sys::slice::shorten_slice;
use net::tasks::{LostTask, TaskKind, Tasks};
use tokio::runtime::{self, LocalOptions};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{Mutex, mpsc, oneshot};

use self::authority_tasks::AuthorityService;
use self::forwarder_tasks::ForwarderTasks;
use self::heartbeat::Ping;
pub(super) use self::reading::Checkpoint;
use self::section::WorkerSection;
use crate::control::observe::taps::{TapSet, WorkerTaps};
use crate::control::process::{AddressSockets, SectionSockets};
use crate::control::{FrameCommand, FrameReaders};
use crate::worker::authority::{AuthorityState, ReceivedNotify};
use crate::worker::forwarder::{ExplainRequest, HandOver, RecordRequest, SharedForwarder};

#[derive(Debug)]
pub(super) enum WorkerCommand {
    BeginForwarder(Box<ForwarderParts>),
    Forwarder(ForwarderCommand),
    /// Ends the forwarder after its queries in flight.
    EndForwarder(AddressChange),
    BeginAuthority(AuthorityParts),
    SetAuthorityAddresses(usize, AddressChange),
    SetAuthorityState(usize, Arc<AuthorityState>),
    EndAuthority(usize, AddressChange),
    SetOwnAddresses(Arc<OwnAddresses>),
    SetTaps(Option<Arc<TapSet>>),
    Frames(FrameCommand),
    SayBegun(SyncSender<()>),
    Ping(Ping),
    /// Stops reading datagrams and confirms it: another process reads them from now on. Connections stay.
    StopReading(oneshot::Sender<()>),
    Stop(QueuedQueryFate),
}

/// A command to the forwarder of a worker. Without one it is dropped, with its reply channel.
#[derive(Debug)]
pub(super) enum ForwarderCommand {
    SetAddresses(AddressChange),
    SetState(Arc<ForwarderState>),
    /// Reads the health of backends again.
    Refresh,
    Explain(Box<ExplainRequest>),
    Learn(Vec<LearntBackend>),
    /// Begins to record races, or ends that.
    Record(Option<RecordRequest>),
    /// Returns the learned state of backends from this number on. A short batch marks the end.
    SendLearnt(usize, oneshot::Sender<Vec<LearntBackend>>),
    /// Stops taking queries, finishes those in flight, and confirms it.
    Drain(QueuedQueryFate, oneshot::Sender<()>),
}

impl From<ForwarderCommand> for WorkerCommand {
    fn from(command: ForwarderCommand) -> Self {
        Self::Forwarder(command)
    }
}

/// The fate of queries that wait in sockets when a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuedQueryFate {
    /// The worker takes the queries, and the sockets refuse later ones.
    Taken,
    /// The queries stay in the sockets, which a service manager keeps for the next process.
    Kept,
    /// Another process takes the queries now.
    PassedOn,
}

#[derive(Debug)]
pub(super) struct AddressChange {
    pub(super) served: ServedAddresses,
    pub(super) new: Vec<AddressSockets>,
    pub(super) checkpoint: Checkpoint,
    pub(super) owed_for: Duration,
}

impl AddressChange {
    pub(super) fn begin(section: &SectionSockets, worker: usize, workers: usize) -> io::Result<Self> {
        let new = section.addresses.iter().map(|address| address.of_worker(worker, workers));
        Ok(Self { new: new.collect::<io::Result<_>>()?, ..Self::to(ServedAddresses::new(section.served(), [])) })
    }

    fn to(served: ServedAddresses) -> Self {
        Self { served, new: Vec::new(), checkpoint: Checkpoint::new(), owed_for: Duration::ZERO }
    }
}

pub(super) struct WorkerParts {
    pub(super) id: WorkerId,
    pub(super) commands: UnboundedReceiver<WorkerCommand>,
    pub(super) counters: Arc<Counters>,
    /// The time for which each loop that reads datagrams polls before it sleeps.
    pub(super) busy_poll: BusyPoll,
    pub(super) taps: Option<Arc<TapSet>>,
    /// True if sockets must not use GRO.
    pub(super) is_gro_off: bool,
}

#[derive(Debug)]
pub(super) struct ForwarderParts {
    pub(super) shared: Arc<SharedForwarder>,
    pub(super) state: Arc<ForwarderState>,
    pub(super) own: Arc<OwnAddresses>,
    pub(super) handed_over: HandedOver,
    pub(super) change: AddressChange,
    pub(super) backend_sockets: usize,
    pub(super) connections: Arc<ConnectionTable>,
    pub(super) fetches: usize,
}

/// Queries handed over by other workers. The queue outlives the worker: its replacement takes pending
/// entries.
pub(super) type HandedOver = Arc<Mutex<Receiver<HandOver>>>;

#[derive(Debug)]
pub(super) struct AuthorityParts {
    pub(super) number: usize,
    pub(super) state: Arc<AuthorityState>,
    pub(super) own: Arc<OwnAddresses>,
    pub(super) limited: Arc<LimitCounters>,
    pub(super) notifies: mpsc::UnboundedSender<ReceivedNotify>,
    pub(super) change: AddressChange,
    pub(super) connections: Arc<ConnectionTable>,
}

struct Surroundings {
    id: WorkerId,
    counters: Arc<Counters>,
    busy_poll: BusyPoll,
    tasks: Tasks,
    taps: Rc<WorkerTaps>,
    gate: Rc<Gate>,
    frames: Rc<FrameReaders>,
}

impl Surroundings {
    /// Runs `take`, and logs for how long it kept queries waiting. `took_us` includes time of other threads
    /// on the processor, `cpu_us` does not.
    fn timed(&self, what: &'static str, take: impl FnOnce()) {
        let (began, cpu) = (Instant::now(), thread_cpu_time());
        take();
        let (took, cpu) = (began.elapsed(), thread_cpu_time().saturating_sub(cpu));
        let (took_us, cpu_us) = (took.as_micros() as u64, cpu.as_micros() as u64);
        tracing::debug!(worker = self.id.0, what, took_us, cpu_us, "the worker has applied the changes of backends");
    }
}

/// A worker that ended because it lost a task. Its queries in flight have no answer, and all its state is
/// gone, so that a replacement can start.
#[derive(Clone, Debug)]
pub(super) struct LostWorker {
    pub(super) id: WorkerId,
    pub(super) lost: LostTask,
}

/// Starts a worker's thread. An unexpected end is reported to `lost`.
pub(super) fn start(parts: WorkerParts, lost: mpsc::UnboundedSender<LostWorker>) -> io::Result<JoinHandle<()>> {
    let id = parts.id;
    std::thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
        shorten_slice();
        let live = || -> Result<(), LostTask> {
            let runtime = runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = runtime.map_err(|error| TaskKind::Worker.ended(Err(error)))?;
            runtime.block_on(run(parts))
        };
        // All its tasks end with it: state that may be inconsistent is not used any more.
        let ended =
            catch_unwind(AssertUnwindSafe(live)).unwrap_or_else(|panic| Err(TaskKind::Worker.panicked(&*panic)));
        if let Err(task) = ended {
            let _ = lost.send(LostWorker { id, lost: task });
        }
    })
}

async fn run(parts: WorkerParts) -> Result<(), LostTask> {
    TaskKind::Worker.begin();
    let unable = |error| TaskKind::Worker.ended(Err(error));
    let WorkerParts { id, mut commands, counters, busy_poll, taps, is_gro_off } = parts;
    let taps = Rc::new(WorkerTaps::new(id.0.into(), Arc::clone(&counters), taps));
    let around = Rc::new(Surroundings {
        id,
        counters,
        busy_poll,
        tasks: Tasks::default(),
        taps,
        gate: Rc::default(),
        frames: Rc::new(FrameReaders::new(id.0.into(), is_gro_off)),
    });
    let mut sections = Sections::default();
    let rest = loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            lost = poll_fn(|cx| sections.poll_lost(cx)) => return Err(lost),
            lost = around.tasks.lost() => return Err(lost),
            lost = poll_fn(|cx| around.frames.poll_lost(cx)) => return Err(lost),
        };
        match command {
            None => break QueuedQueryFate::Taken,
            Some(WorkerCommand::Stop(rest)) => break rest,
            Some(command) => sections.obey(command, &around).map_err(unable)?,
        }
    };
    for authority in sections.authorities {
        authority.stop(rest != QueuedQueryFate::Taken).await;
    }
    Ok(())
}

#[derive(Default)]
struct Sections {
    forwarder: Option<ForwarderTasks>,
    authorities: Vec<WorkerSection<AuthorityService>>,
}

impl Sections {
    fn obey(&mut self, command: WorkerCommand, around: &Rc<Surroundings>) -> io::Result<()> {
        match command {
            WorkerCommand::BeginForwarder(parts) => self.forwarder = Some(ForwarderTasks::start(*parts, around)?),
            WorkerCommand::Forwarder(command) => {
                if let Some(forwarder) = &mut self.forwarder {
                    forwarder.obey(command, around)?;
                }
            }
            WorkerCommand::BeginAuthority(parts) => self.authorities.push(WorkerSection::of_authority(parts, around)?),
            WorkerCommand::SetAuthorityAddresses(number, change) => {
                self.authority(number).map_or(Ok(()), |authority| authority.listen(change))?;
            }
            WorkerCommand::SetAuthorityState(number, state) => {
                if let Some(tasks) = self.authority(number) {
                    tasks.service.authority.set_state(state);
                }
            }
            WorkerCommand::EndForwarder(change) => {
                if let Some(forwarder) = self.forwarder.take() {
                    around.tasks.start_and_leave(TaskKind::Drain, end(forwarder.end(change)));
                }
            }
            WorkerCommand::EndAuthority(number, change) => {
                if let Some(place) = self.authorities.iter().position(|authority| authority.service.number == number) {
                    let authority = self.authorities.swap_remove(place);
                    around.tasks.start_and_leave(TaskKind::Drain, end(authority.end(change)));
                }
            }
            WorkerCommand::SetOwnAddresses(own) => {
                if let Some(tasks) = &self.forwarder {
                    tasks.forwarder.borrow_mut().set_own_addresses(Arc::clone(&own));
                }
                self.authorities.iter().for_each(|tasks| tasks.service.authority.set_own_addresses(Arc::clone(&own)));
            }
            WorkerCommand::SetTaps(set) => around.taps.set(set),
            WorkerCommand::Frames(command) => around.frames.obey(command, around.busy_poll)?,
            WorkerCommand::SayBegun(begun) => drop(begun.send(())),
            WorkerCommand::Ping(ping) => ping.answer(),
            WorkerCommand::StopReading(done) => {
                let of_forwarder = self.forwarder.iter_mut().flat_map(|tasks| tasks.section.take_readers());
                let of_authorities = self.authorities.iter_mut().flat_map(WorkerSection::take_readers);
                let readers: Vec<_> = of_forwarder.chain(of_authorities).collect();
                around.tasks.start_and_leave(TaskKind::Drain, async {
                    for readers in readers {
                        readers.stop().await;
                    }
                    let _ = done.send(());
                });
            }
            // The loop that received it ends.
            WorkerCommand::Stop(_) => {}
        }
        Ok(())
    }

    fn authority(&mut self, number: usize) -> Option<&mut WorkerSection<AuthorityService>> {
        self.authorities.iter_mut().find(|authority| authority.service.number == number)
    }

    /// Returns ready if a task is lost that should live as long as its section.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<LostTask> {
        let of_forwarder = self.forwarder.iter_mut().map(|tasks| tasks.poll_lost(cx)).find(Poll::is_ready);
        let lost =
            of_forwarder.or_else(|| self.authorities.iter_mut().map(|tasks| tasks.poll_lost(cx)).find(Poll::is_ready));
        lost.unwrap_or(Poll::Pending)
    }
}

/// Ends a section. The task that ends it reports any loss.
async fn end(section: impl Future<Output = io::Result<()>>) {
    if let Err(error) = section.await {
        panic!("a section cannot end: {error}");
    }
}

/// The backends per reply to `SendLearnt`: some 50 µs of the worker's time.
pub(super) const LEARNT_AT_ONCE: usize = 16;
