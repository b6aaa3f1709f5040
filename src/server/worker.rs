//! A worker: one thread with a runtime of its own, and everything that the queries it takes ever touch.

use std::cell::RefCell;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::authority::{Authority, Edition, Notice};
use crate::forwarder::claims::WorkerId;
use crate::forwarder::{Forwarder, HandOver, Links, Shared, serve};
use crate::metrics::{Counters, Dropped};
use crate::net::tcp::{self, Connections};
use crate::net::udp::Socket;
use crate::net::vigil::Vigil;
use crate::plan::Plan;

/// What a worker is told by the control thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Put this plan in force.
    SetPlan(Arc<Plan>),
    /// Answer from this edition, as the authority of this number.
    SetEdition(usize, Arc<Edition>),
    /// The state of some backend has changed.
    Refresh,
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
    pub(super) vigil: Vigil,
}

/// A worker's part of the LS.
pub(super) struct ForwarderParts {
    /// What it shares with the other workers.
    pub(super) shared: Arc<Shared>,
    /// The config in force.
    pub(super) plan: Arc<Plan>,
    /// What other workers hand over.
    pub(super) handed_over: UnboundedReceiver<HandOver>,
    /// Its sockets.
    pub(super) sockets: Vec<(UdpSocket, TcpListener)>,
    /// For how many sockets to backends it has room.
    pub(super) backend_sockets: usize,
    /// The connections of all workers.
    pub(super) connections: Arc<Connections>,
    /// By how many connections it may fetch answers from backends.
    pub(super) fetches: usize,
}

/// A worker's part of a TS.
pub(super) struct AuthorityParts {
    /// Its number.
    pub(super) number: usize,
    /// What it answers from.
    pub(super) edition: Arc<Edition>,
    /// Where NOTIFY goes.
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    /// Its sockets.
    pub(super) sockets: Vec<(UdpSocket, TcpListener)>,
    /// The connections of all workers.
    pub(super) connections: Arc<Connections>,
}

/// Starts a worker's thread.
///
/// # Errors
/// If the operating system gives no thread or no descriptors.
pub(super) fn start(parts: Parts) -> io::Result<JoinHandle<io::Result<()>>> {
    let name = format!("worker-{}", parts.id.0);
    std::thread::Builder::new().name(name).spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        let result = runtime.block_on(local.run_until(run(parts)));
        report(result)
    })
}

/// A worker's life.
async fn run(parts: Parts) -> io::Result<()> {
    let Parts { id, mut commands, forwarder, authorities, counters, vigil } = parts;
    let mut balancer = match forwarder {
        Some(parts) => Some(Balancer::start(id, parts, Arc::clone(&counters), vigil)?),
        None => None,
    };
    let sites = authorities.into_iter().map(|parts| Site::start(parts, Arc::clone(&counters), vigil));
    let sites = sites.collect::<io::Result<Vec<_>>>()?;
    while let Some(command) = commands.recv().await {
        match command {
            Command::SetPlan(plan) => {
                if let Some(balancer) = &balancer {
                    balancer.forwarder.borrow_mut().set_plan(plan, Instant::now());
                }
            }
            Command::SetEdition(number, edition) => {
                if let Some(site) = sites.get(number) {
                    site.authority.set_edition(edition);
                }
            }
            Command::Refresh => {
                if let Some(balancer) = &balancer {
                    balancer.forwarder.borrow_mut().refresh_all(Instant::now());
                }
            }
            Command::Drain(done) => match &mut balancer {
                // Commands are still taken meanwhile: a backend may die while we wait for it.
                Some(balancer) => drop(tokio::task::spawn_local(balancer.drain(done))),
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

/// A worker's LS with its tasks.
struct Balancer {
    /// The LS.
    forwarder: Rc<RefCell<Forwarder>>,
    /// What takes queries; gone once the LS drains.
    intake: Option<Intake>,
    /// Tasks that races need: they end with this value.
    _races: JoinSet<()>,
    /// Told when the last race is over.
    idle: Rc<Notify>,
}

/// What takes queries for an LS.
struct Intake {
    /// The UDP sockets.
    sockets: Vec<Rc<Socket>>,
    /// Tasks that read them.
    readers: JoinSet<()>,
    /// Tasks that serve connections.
    connections: JoinSet<()>,
    /// Tells connections to end.
    drain: watch::Sender<bool>,
}

impl Balancer {
    /// Starts taking queries.
    fn start(id: WorkerId, parts: ForwarderParts, counters: Arc<Counters>, vigil: Vigil) -> io::Result<Self> {
        let ForwarderParts { shared, plan, mut handed_over, sockets, backend_sockets, connections: table, fetches } =
            parts;
        let (udp, tcp) = register(sockets)?;
        let idle = Rc::new(Notify::new());
        let (sockets, told) = (udp.clone(), Rc::clone(&idle));
        let links = Links { shared, sockets, backend_sockets, fetches, counters: Arc::clone(&counters), idle: told };
        let forwarder = Forwarder::new(id, links, plan, Instant::now())?;
        let mut readers = JoinSet::new();
        for (number, socket) in udp.iter().enumerate() {
            let (forwarder, socket) = (Rc::clone(&forwarder), Rc::clone(socket));
            readers.spawn_local(async move {
                drop(report(serve::take_queries(forwarder, number as u16, socket, vigil).await))
            });
        }
        let (drain, draining) = watch::channel(false);
        let mut connections = JoinSet::new();
        for listener in tcp {
            let (forwarder, counters) = (Rc::clone(&forwarder), Arc::clone(&counters));
            let handle = move |message: &[u8], responder: &tcp::Responder| {
                forwarder.borrow_mut().take_stream_query(message, responder, Instant::now());
            };
            let refused = move || counters.dropped(Dropped::Overload);
            connections.spawn_local(tcp::serve(listener, Arc::clone(&table), draining.clone(), handle, refused));
        }
        let mut races = JoinSet::new();
        let replies = Rc::clone(&forwarder);
        races.spawn_local(async move { drop(report(serve::take_replies(replies, vigil).await)) });
        let receiver = Rc::clone(&forwarder);
        races.spawn_local(async move {
            while let Some(query) = handed_over.recv().await {
                receiver.borrow_mut().take_handed_over(&query, Instant::now());
            }
        });
        let intake = Intake { sockets: udp, readers, connections, drain };
        Ok(Self { forwarder, intake: Some(intake), _races: races, idle })
    }

    /// Takes what has arrived by now, and nothing more; says so when every query has its response. Asked a second time,
    /// after all workers have said so, it also has finished what they handed over to each other at the last moment.
    fn drain(&mut self, done: oneshot::Sender<()>) -> impl Future<Output = ()> + 'static {
        let intake = self.intake.take();
        let (forwarder, idle) = (Rc::clone(&self.forwarder), Rc::clone(&self.idle));
        forwarder.borrow_mut().drain();
        async move {
            if let Some(mut intake) = intake {
                intake.readers.shutdown().await;
                for (number, socket) in intake.sockets.iter().enumerate() {
                    serve::take_last_queries(&forwarder, number as u16, socket);
                }
                intake.drain.send_replace(true);
                while intake.connections.join_next().await.is_some() {}
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
    intake: JoinSet<()>,
    /// Connections.
    connections: JoinSet<()>,
    /// Tells connections to end.
    drain: watch::Sender<bool>,
}

impl Site {
    /// Starts answering.
    fn start(parts: AuthorityParts, counters: Arc<Counters>, vigil: Vigil) -> io::Result<Self> {
        let AuthorityParts { number, edition, notices, sockets, connections: table } = parts;
        let (udp, tcp) = register(sockets)?;
        let authority = Rc::new(Authority::new(number, edition, Arc::clone(&counters), notices));
        let mut intake = JoinSet::new();
        for socket in &udp {
            let (authority, socket) = (Rc::clone(&authority), Rc::clone(socket));
            intake.spawn_local(async move { drop(report(authority.serve_udp(socket, vigil).await)) });
        }
        let (drain, draining) = watch::channel(false);
        let mut connections = JoinSet::new();
        for listener in tcp {
            let (authority, counters) = (Rc::clone(&authority), Arc::clone(&counters));
            let handle = move |message: &[u8], responder: &tcp::Responder| {
                authority.answer_stream_query(message, responder);
            };
            let refused = move || counters.dropped(Dropped::Overload);
            connections.spawn_local(tcp::serve(listener, Arc::clone(&table), draining.clone(), handle, refused));
        }
        Ok(Self { authority, sockets: udp, intake, connections, drain })
    }

    /// Answers what has arrived by now, and ends.
    async fn stop(mut self) {
        self.intake.shutdown().await;
        self.sockets.iter().for_each(|socket| self.authority.answer_last(socket));
        self.drain.send_replace(true);
        while self.connections.join_next().await.is_some() {}
    }
}

/// UDP sockets and TCP listeners that the runtime watches.
type Registered = (Vec<Rc<Socket>>, Vec<tokio::net::TcpListener>);

/// Lets this thread's runtime watch sockets.
fn register(sockets: Vec<(UdpSocket, TcpListener)>) -> io::Result<Registered> {
    let (mut udp, mut tcp) = (Vec::new(), Vec::new());
    for (datagrams, listener) in sockets {
        udp.push(Rc::new(Socket::new(datagrams)?));
        tcp.push(tokio::net::TcpListener::from_std(listener)?);
    }
    Ok((udp, tcp))
}

/// Tells of a task that should never have ended.
fn report(result: io::Result<()>) -> io::Result<()> {
    result.inspect_err(|error| tracing::error!(%error, "a worker has lost a part of itself"))
}
