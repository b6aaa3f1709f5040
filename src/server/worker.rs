//! A worker: one thread with a runtime of its own, and everything that the queries it takes ever touch.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};
use tokio::task::LocalSet;

use super::heartbeat::Ping;
use super::listeners::Sockets;
use crate::authority::{self, Authority, AuthorityState, ReceivedNotify};
use crate::engine::LearntBackend;
use crate::engine::single_flight::WorkerId;
use crate::forwarder::{Forwarder, HandOver, Links, Shared, serve};
use crate::limit::OwnAddresses;
use crate::metrics::{Counters, Dropped, Limited};
use crate::net::busy_poll::BusyPoll;
use crate::net::tasks::{Endless, Lost, TaskKind, Tasks};
use crate::net::tcp::{self, Connections};
use crate::net::udp::Socket;
use crate::state::ForwarderState;

/// What a worker is told by the control thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Put this state in force.
    SetForwarderState(Arc<ForwarderState>),
    /// Answer from this state, as the authority of this number.
    SetAuthorityState(usize, Arc<AuthorityState>),
    /// The state of some backend has changed.
    Refresh,
    /// Take what a worker of another process has learnt.
    Learn(Vec<LearntBackend>),
    /// Tell what is known of backends, from this number on; fewer than [`TOLD`] are the last.
    TellLearnt(usize, oneshot::Sender<Vec<LearntBackend>>),
    /// Say that there is progress.
    Ping(Ping),
    /// Take no more queries for the LS, finish those in flight, and say so.
    Drain(oneshot::Sender<()>),
    /// The same for the authorities; then end.
    Stop,
}

/// What a worker is made of: all of it is bound and built before its thread starts.
pub(super) struct Parts {
    /// Its number.
    pub(super) id: WorkerId,
    /// What is told by the control thread.
    pub(super) commands: UnboundedReceiver<Command>,
    /// The LS, if there is one.
    pub(super) forwarder: Option<ForwarderParts>,
    /// The TS, in order of the config.
    pub(super) authorities: Vec<AuthorityParts>,
    /// What is counted.
    pub(super) counters: Arc<Counters>,
    /// How long each loop that reads datagrams stays awake.
    pub(super) busy_poll: BusyPoll,
}

/// A worker's part of the LS.
pub(super) struct ForwarderParts {
    /// What it shares with the other workers.
    pub(super) shared: Arc<Shared>,
    /// The config in force.
    pub(super) state: Arc<ForwarderState>,
    /// Where no client is.
    pub(super) own: Arc<OwnAddresses>,
    /// What other workers hand over.
    pub(super) handed_over: HandedOver,
    pub(super) sockets: Sockets,
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
    pub(super) sockets: Sockets,
    /// The connections of all workers.
    pub(super) connections: Arc<Connections>,
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
    let tasks = Tasks::default();
    let unable = |error| TaskKind::Worker.ended(Err(error));
    let Parts { id, mut commands, forwarder, authorities, counters, busy_poll } = parts;
    let mut balancer = match forwarder {
        Some(parts) => Some(Turns::start(id, parts, Arc::clone(&counters), busy_poll, tasks.clone()).map_err(unable)?),
        None => None,
    };
    let sites = authorities.into_iter();
    let sites = sites.map(|parts| Site::start(parts, Arc::clone(&counters), busy_poll, tasks.clone()));
    let mut sites = sites.collect::<io::Result<Vec<_>>>().map_err(unable)?;
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            lost = lost(balancer.as_mut(), &mut sites) => return Err(lost),
            lost = tasks.lost() => return Err(lost),
        };
        let Some(command) = command else { break };
        match command {
            Command::SetForwarderState(state) => {
                if let Some(balancer) = &balancer {
                    balancer.forwarder.borrow_mut().set_state(state, Instant::now());
                }
            }
            Command::SetAuthorityState(number, state) => {
                if let Some(site) = sites.get(number) {
                    site.authority.set_state(state);
                }
            }
            Command::Refresh => {
                if let Some(balancer) = &balancer {
                    balancer.forwarder.borrow_mut().refresh_all(Instant::now());
                }
            }
            Command::Learn(learnt) => {
                if let Some(balancer) = &balancer {
                    balancer.forwarder.borrow_mut().learn(&learnt, Instant::now());
                }
            }
            Command::TellLearnt(first, answer) => {
                let forwarder = balancer.as_ref().map(|balancer| balancer.forwarder.borrow());
                let learnt = forwarder.map(|forwarder| forwarder.learnt(first, TOLD, Instant::now()));
                let _ = answer.send(learnt.unwrap_or_default());
            }
            Command::Ping(ping) => ping.answer(),
            Command::Drain(done) => match &mut balancer {
                // Commands are still taken meanwhile: a backend may die while we wait for it.
                Some(balancer) => tasks.start_and_leave(TaskKind::Drain, balancer.drain(done)),
                None => drop(done.send(())),
            },
            Command::Stop => break,
        }
    }
    for site in sites {
        site.stop().await;
    }
    Ok(())
}

/// Waits until one of the tasks is lost that take queries and replies for as long as a worker lives.
async fn lost(balancer: Option<&mut Turns>, sites: &mut [Site]) -> Lost {
    let mut sets = Vec::new();
    if let Some(Turns { replies, handed_over, intake, .. }) = balancer {
        sets.extend([replies, handed_over]);
        // A drain takes them away, and ends them.
        sets.extend(intake.iter_mut().flat_map(|intake| [&mut intake.readers, &mut intake.connections]));
    }
    sets.extend(sites.iter_mut().flat_map(|site| [&mut site.intake, &mut site.connections]));
    poll_fn(|cx| {
        let mut lost = sets.iter_mut().map(|set| set.poll_lost(cx));
        lost.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// A worker's LS with its tasks.
struct Turns {
    /// The LS.
    forwarder: Rc<RefCell<Forwarder>>,
    /// What takes queries; gone once the LS drains.
    intake: Option<Intake>,
    /// Reads the replies of backends; ends with this value.
    replies: Endless,
    /// Takes what other workers hand over; ends with this value.
    handed_over: Endless,
    /// Told when the last race is over.
    idle: Rc<Notify>,
}

/// What takes queries for an LS.
struct Intake {
    /// The UDP sockets.
    sockets: Vec<Rc<Socket>>,
    /// Tasks that read them.
    readers: Endless,
    /// Tasks that serve connections.
    connections: Endless,
    /// Tells connections to end.
    drain: watch::Sender<bool>,
}

impl Turns {
    /// Starts taking queries.
    fn start(
        id: WorkerId,
        parts: ForwarderParts,
        counters: Arc<Counters>,
        busy_poll: BusyPoll,
        tasks: Tasks,
    ) -> io::Result<Self> {
        let ForwarderParts { shared, state, own, handed_over, sockets, backend_sockets, connections: table, fetches } =
            parts;
        let (udp, tcp) = register(sockets)?;
        let idle = Rc::new(Notify::new());
        let (sockets, told) = (udp.clone(), Rc::clone(&idle));
        let counted = Arc::clone(&counters);
        let links = Links { shared, sockets, backend_sockets, fetches, own, counters: counted, idle: told, tasks };
        let forwarder = Forwarder::new(id, links, state, Instant::now())?;
        let mut readers = Endless::new(TaskKind::Listener);
        for (number, socket) in udp.iter().enumerate() {
            let (forwarder, socket) = (Rc::clone(&forwarder), Rc::clone(socket));
            readers.start(serve::take_queries(forwarder, number as u16, socket, busy_poll));
        }
        let (drain, draining) = watch::channel(false);
        let mut connections = Endless::new(TaskKind::Connections);
        for listener in tcp {
            let (forwarder, gate, counters) = (Rc::clone(&forwarder), Rc::clone(&forwarder), Arc::clone(&counters));
            let handle = move |message: &[u8], responder: &tcp::Responder| {
                forwarder.borrow_mut().take_stream_query(message, responder, Instant::now());
            };
            let refused = move || counters.dropped(Dropped::Overload);
            let admits = move |client| gate.borrow().may_connect(client);
            let table = Arc::clone(&table);
            let serving = tcp::serve(listener, table, draining.clone(), admits, handle, refused);
            connections.start(async {
                serving.await;
                Ok(())
            });
        }
        let mut replies = Endless::new(TaskKind::Replies);
        replies.start(serve::take_replies(Rc::clone(&forwarder), busy_poll));
        let receiver = Rc::clone(&forwarder);
        let mut receiving = Endless::new(TaskKind::HandOver);
        receiving.start(async move {
            // Of two workers of one number only one ever lives.
            let mut handed_over = handed_over.lock().await;
            while let Some(query) = handed_over.recv().await {
                receiver.borrow_mut().take_handed_over(&query, Instant::now());
            }
            Ok(())
        });
        let intake = Intake { sockets: udp, readers, connections, drain };
        Ok(Self { forwarder, intake: Some(intake), replies, handed_over: receiving, idle })
    }

    /// Takes what has arrived by now, and nothing more; says so when every query has its response. Asked a second time,
    /// after all workers have said so, it also has finished what they handed over to each other at the last moment.
    fn drain(&mut self, done: oneshot::Sender<()>) -> impl Future<Output = ()> + 'static {
        let intake = self.intake.take();
        let (forwarder, idle) = (Rc::clone(&self.forwarder), Rc::clone(&self.idle));
        forwarder.borrow_mut().drain();
        async move {
            if let Some(intake) = intake {
                intake.readers.stop().await;
                for (number, socket) in intake.sockets.iter().enumerate() {
                    serve::take_last_queries(&forwarder, number as u16, socket);
                }
                intake.drain.send_replace(true);
                intake.connections.finish().await;
            }
            while !forwarder.borrow().is_idle() {
                idle.notified().await;
            }
            let _ = done.send(());
        }
    }
}

/// A worker's TS with its tasks.
struct Site {
    /// The TS.
    authority: Rc<Authority>,
    /// Its UDP sockets.
    sockets: Vec<Rc<Socket>>,
    /// Tasks that take queries.
    intake: Endless,
    connections: Endless,
    /// Tells connections to end.
    drain: watch::Sender<bool>,
}

impl Site {
    /// Starts answering.
    fn start(parts: AuthorityParts, counters: Arc<Counters>, busy_poll: BusyPoll, tasks: Tasks) -> io::Result<Self> {
        let AuthorityParts { number, state, own, limited, notifies, sockets, connections: table } = parts;
        let (udp, tcp) = register(sockets)?;
        let links = authority::Links { own, counters: Arc::clone(&counters), limited, notifies, tasks };
        let authority = Rc::new(Authority::new(number, state, links));
        let mut intake = Endless::new(TaskKind::Listener);
        for socket in &udp {
            let (authority, socket) = (Rc::clone(&authority), Rc::clone(socket));
            intake.start(async move { authority.serve_udp(socket, busy_poll).await });
        }
        let (drain, draining) = watch::channel(false);
        let mut connections = Endless::new(TaskKind::Connections);
        for listener in tcp {
            let (authority, gate, counters) = (Rc::clone(&authority), Rc::clone(&authority), Arc::clone(&counters));
            let handle = move |message: &[u8], responder: &tcp::Responder| {
                authority.answer_stream_query(message, responder);
            };
            let refused = move || counters.dropped(Dropped::Overload);
            let admits = move |client| gate.may_connect(client);
            let table = Arc::clone(&table);
            let serving = tcp::serve(listener, table, draining.clone(), admits, handle, refused);
            connections.start(async {
                serving.await;
                Ok(())
            });
        }
        Ok(Self { authority, sockets: udp, intake, connections, drain })
    }

    /// Answers what has arrived by now, and ends.
    async fn stop(self) {
        self.intake.stop().await;
        self.sockets.iter().for_each(|socket| self.authority.answer_last(socket));
        self.drain.send_replace(true);
        self.connections.finish().await;
    }
}

/// UDP sockets and TCP listeners that the runtime watches.
type Registered = (Vec<Rc<Socket>>, Vec<tokio::net::TcpListener>);

/// Lets this thread's runtime watch sockets.
fn register(sockets: Sockets) -> io::Result<Registered> {
    let udp = sockets.udp.into_iter().map(|socket| Socket::new(socket).map(Rc::new));
    let tcp = sockets.tcp.into_iter().map(tokio::net::TcpListener::from_std);
    Ok((udp.collect::<io::Result<_>>()?, tcp.collect::<io::Result<_>>()?))
}

/// Backends that are told of at a time: some 50 µs of the worker's time.
pub(super) const TOLD: usize = 16;
