//! Probing: finds out which backends are up, on the control thread.
//!
//! Each backend has a task that asks [`Health`] what to send and when, and says what came of it; signs that workers
//! met (ICMP errors, silence, replies of one that was down) go to the same place. What [`Health`] decides is
//! written to the plan, where the workers see it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::config::ProbeConfig;
use crate::plan::{News, Plan, SharedPool, Sign};
use crate::policy::health::{Health, Step};
use crate::wire;

/// Probes all backends of a plan.
pub struct Prober {
    /// The pools that are probed.
    pools: Vec<Watch>,
    /// Called after a change that no worker has made itself.
    on_change: Rc<dyn Fn()>,
}

/// The tasks of one pool.
struct Watch {
    /// The pool.
    pool: Arc<SharedPool>,
    /// The way to the task of each backend.
    signs: Vec<UnboundedSender<Sign>>,
    /// The tasks; they end with this value.
    _tasks: JoinSet<()>,
}

impl Prober {
    /// A prober without pools. Must be used within a `LocalSet`.
    pub fn new(on_change: Rc<dyn Fn()>) -> Self {
        Self { pools: Vec::new(), on_change }
    }

    /// Probes the pools of this plan, and no others. Those that were probed before go on as if nothing had happened.
    pub fn set_plan(&mut self, plan: &Plan) {
        self.pools.retain(|watch| plan.pools.iter().any(|pool| Arc::ptr_eq(pool, &watch.pool)));
        for pool in &plan.pools {
            if !self.pools.iter().any(|watch| Arc::ptr_eq(pool, &watch.pool)) {
                let watch = self.watch(pool);
                self.pools.push(watch);
            }
        }
    }

    /// Passes on what a worker met.
    pub fn hear(&self, news: &News) {
        let watch = self.pools.iter().find(|watch| Arc::ptr_eq(&watch.pool, &news.pool));
        if let Some(signs) = watch.and_then(|watch| watch.signs.get(news.backend)) {
            let _ = signs.send(news.what);
        }
    }

    /// Starts the tasks of a pool.
    fn watch(&self, pool: &Arc<SharedPool>) -> Watch {
        let mut tasks = JoinSet::new();
        let mut signs = Vec::new();
        for backend in 0..pool.backends.len() {
            let (sender, receiver) = unbounded_channel();
            signs.push(sender);
            let subject = Subject { pool: Arc::clone(pool), backend, on_change: Rc::clone(&self.on_change) };
            tasks.spawn_local(subject.run(receiver));
        }
        Watch { pool: Arc::clone(pool), signs, _tasks: tasks }
    }
}

/// One backend that is probed.
struct Subject {
    /// Its pool.
    pool: Arc<SharedPool>,
    /// Its index there.
    backend: usize,
    /// See [`Prober`].
    on_change: Rc<dyn Fn()>,
}

impl Subject {
    /// Probes for ever.
    async fn run(self, mut signs: UnboundedReceiver<Sign>) {
        let backend = &self.pool.backends[self.backend];
        let mut rng: SmallRng = rand::make_rng();
        let mut health = Health::new(self.pool.rules().health, Instant::now());
        if !backend.is_up() {
            // Known from before a reload.
            health.on_unreachable(Instant::now());
        }
        let mut line = None;
        loop {
            let wake = loop {
                let sent = match health.next_step(Instant::now(), &mut rng) {
                    Step::WaitUntil(at) => break at,
                    Step::Probe => {
                        backend.clear_suspicion();
                        // No descriptor, no port: nothing that the backend has to do with. It is taken for silence.
                        line = Line::open(backend.address, &self.pool.config.probe).await.ok();
                        send(line.as_ref()).await
                    }
                    Step::Repeat => send(line.as_ref()).await,
                };
                if sent.is_err_and(|error| is_proof_of_death(&error)) {
                    line = None;
                    health.on_unreachable(Instant::now());
                }
            };
            self.publish(health.is_up());
            tokio::select! {
                sign = signs.recv() => match sign {
                    Some(sign) => Self::take_sign(&mut health, sign),
                    None => return,
                },
                found = hear(line.as_ref()) => {
                    line = None;
                    match found {
                        Found::Reply => health.on_probe_reply(Instant::now()),
                        Found::Unreachable => health.on_unreachable(Instant::now()),
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Takes what a worker met.
    fn take_sign(health: &mut Health, sign: Sign) {
        let now = Instant::now();
        match sign {
            Sign::Unreachable => health.on_unreachable(now),
            Sign::Replied => health.on_reply(now),
            Sign::Silent => health.on_silence(now),
            Sign::ProbeDue => health.on_queries(now),
        }
    }

    /// Lets the workers know.
    fn publish(&self, is_up: bool) {
        if !self.pool.set_up(self.backend, is_up) {
            return;
        }
        let (pool, backend) = (&self.pool.config.name, &self.pool.backends[self.backend].name);
        match is_up {
            true => tracing::info!(pool, backend, "up"),
            false => tracing::warn!(pool, backend, "down"),
        }
        (self.on_change)();
    }
}

/// What came of a probe, if something came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Any reply at all.
    Reply,
    /// ICMP says that it is unreachable.
    Unreachable,
}

/// The socket of the probe that is out, and its question.
struct Line {
    /// Connected to the backend.
    socket: UdpSocket,
    /// The ID that the reply must have.
    id: u16,
    /// The question.
    message: Vec<u8>,
}

impl Line {
    /// A fresh port and a fresh ID.
    async fn open(address: SocketAddr, probe: &ProbeConfig) -> io::Result<Self> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        let mut message = Vec::new();
        let id: u16 = rand::rng().random();
        wire::write_plain_query(id, &probe.name, probe.rtype, &mut message);
        Ok(Self { socket, id, message })
    }

    /// Waits for something with the right ID, whatever it says.
    async fn reply(&self) -> io::Result<()> {
        let mut reply = [0; 512];
        loop {
            let length = self.socket.recv(&mut reply).await?;
            let header = reply.get(..length).and_then(wire::Header::read);
            if header.is_some_and(|header| header.is_response() && header.id() == self.id) {
                return Ok(());
            }
        }
    }
}

/// Sends the question of the probe that is out.
async fn send(line: Option<&Line>) -> io::Result<()> {
    let Some(line) = line else { return Ok(()) };
    line.socket.send(&line.message).await.map(|_| ())
}

/// Waits until something comes of the probe that is out. Every error but ICMP's is taken for silence.
async fn hear(line: Option<&Line>) -> Found {
    let found = match line {
        Some(line) => line.reply().await,
        None => std::future::pending().await,
    };
    match found {
        Ok(()) => Found::Reply,
        Err(error) if is_proof_of_death(&error) => Found::Unreachable,
        Err(_) => std::future::pending().await,
    }
}

/// Whether an error says that nothing listens there.
fn is_proof_of_death(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}
