//! Probing: finds out which backends are up, on the control thread.
//!
//! Each backend has a task that asks [`Health`] when to probe, sends one small query and writes the decision
//! to the shared state. Signals from workers (ICMP errors, silence, replies of a backend that was down) also
//! go to [`Health`].
//!
//! An ICMP error counts only if the first bytes that it quotes match the probe, so a forger must guess port,
//! time and ID. Some systems quote only the headers (RFC 792 requires no more); for them a dead backend looks
//! silent.
//!
//! Only the first datagram of a probe offers a DNS cookie (RFC 7873), so a backend that dislikes cookies is
//! found up.

mod judge;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use config::ProbeConfig;
use engine::state::backend_cookies::{CookieOffer, HasChanged, RepliedTo};
use engine::state::{ForwarderState, HealthEvent, HealthSignal, PoolState, SharedBackend, SharedPool};
use hedge::HealthRules;
use hedge::health::{Health, HealthState, HealthStep, ProbeReply};
use humantime::format_duration;
use net::proxy_protocol::ClientHeader;
use net::refusal::is_unreachable;
use net::tasks::{Task, TaskKind, Tasks};
use net::to_backends::client::UdpClient;
use net::to_backends::server_client::ServerTarget;
use net::to_backends::tls::BackendTls;
use rand::RngExt;
use rand::rngs::SmallRng;
use rustix::net::{RecvFlags, recv};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep_until;

use self::judge::judge;
use self::stream::{KeptConnection, StreamHeard, StreamProbe};

/// Probes all backends of a state.
pub struct HealthProber {
    watches: HashMap<*const SharedBackend, BackendWatch>,
    places: Arc<Semaphore>,
    /// Called after each change, even one found by a worker.
    on_change: Rc<dyn Fn()>,
    tls: Arc<BackendTls>,
    tasks: Tasks,
}

struct BackendWatch {
    subject: Rc<Subject>,
    signs: UnboundedSender<HealthSignal>,
    _task: Task,
}

impl HealthProber {
    /// Creates a prober without backends, whose tasks run among `tasks`, with at most `most` concurrent
    /// probes. Must be used within a `LocalRuntime`.
    pub fn new(tasks: Tasks, most: usize, on_change: Rc<dyn Fn()>, tls: Arc<BackendTls>) -> Self {
        let places = Arc::new(Semaphore::new(most.max(1)));
        Self { watches: HashMap::new(), places, on_change, tls, tasks }
    }

    /// Probes the backends of this state and no others. Unchanged backends continue without interruption.
    pub fn set_state(&mut self, state: &ForwarderState) {
        let mut earlier = std::mem::take(&mut self.watches);
        for pool in &state.pools {
            for backend in &pool.backends {
                let known = earlier.remove(&Arc::as_ptr(backend)).filter(|watch| watch.subject.is_of(pool, backend));
                let watch = known.unwrap_or_else(|| self.watch(pool, backend));
                self.watches.insert(Arc::as_ptr(backend), watch);
            }
        }
    }

    /// Restarts the probing of selected backends, whose state another source has changed.
    pub fn begin_anew(&mut self, state: &ForwarderState, is_meant: impl Fn(&SharedBackend) -> bool) {
        self.watches.retain(|_, watch| !is_meant(&watch.subject.backend));
        self.set_state(state);
    }

    /// Stops all probes.
    pub fn stop(&mut self) {
        self.watches.clear();
    }

    /// Passes a worker's event to the task of its backend.
    pub fn on_event(&self, health_events: &HealthEvent) {
        let HealthEvent { backend, what } = health_events;
        let Some(watch) = self.watches.get(&Arc::as_ptr(backend)) else { return };
        let _ = watch.signs.send(*what);
        if *what == HealthSignal::ProbeDue && watch.subject.stands_for_all {
            let same_pool = |other: &&BackendWatch| Arc::ptr_eq(&other.subject.state, &watch.subject.state);
            for other in self.watches.values().filter(same_pool).filter(|other| !std::ptr::eq(*other, watch)) {
                let _ = other.signs.send(*what);
            }
        }
    }

    fn watch(&self, pool: &SharedPool, backend: &Arc<SharedBackend>) -> BackendWatch {
        // The previous task of this backend takes its pending signals with it.
        backend.take_signals();
        // At most one signal of each kind is pending.
        let (signs, receiver) = unbounded_channel();
        let subject = Rc::new(Subject {
            pool: pool.config.name.clone(),
            state: Arc::clone(&pool.state),
            rules: pool.rules().health,
            probe: pool.config.probe.clone(),
            cookies: pool.config.spoofing.cookies,
            stands_for_all: pool.is_crowd(),
            places: Arc::clone(&self.places),
            backend: Arc::clone(backend),
            on_change: Rc::clone(&self.on_change),
            tls: Arc::clone(&self.tls),
        });
        let task = self.tasks.start(TaskKind::Probe, Rc::clone(&subject).run(receiver));
        BackendWatch { subject, signs, _task: task }
    }
}

struct Subject {
    pool: String,
    state: Arc<PoolState>,
    rules: HealthRules,
    probe: ProbeConfig,
    cookies: bool,
    /// True if workers of this large pool signal for all members at once that a probe is due.
    stands_for_all: bool,
    places: Arc<Semaphore>,
    backend: Arc<SharedBackend>,
    on_change: Rc<dyn Fn()>,
    tls: Arc<BackendTls>,
}

enum HealthProbe {
    Datagrams(DatagramProbe),
    Stream(StreamProbe),
}

struct DatagramProbe {
    client: UdpClient,
    /// The question without a cookie, which every server understands.
    plain: Vec<u8>,
    offer: Option<(Vec<u8>, CookieOffer)>,
    header: Vec<u8>,
    _place: OwnedSemaphorePermit,
    /// True if the question without a cookie was sent.
    is_repeated: bool,
}

impl DatagramProbe {
    fn datagram(&self) -> Vec<u8> {
        let message = match &self.offer {
            Some((message, _)) if !self.is_repeated => message,
            Some(_) | None => &self.plain,
        };
        [&self.header[..], message].concat()
    }

    /// Returns true if a possibly truncated quote matches. Without a whole DNS header it is not recognizable.
    fn has_sent(&self, octets: &[u8]) -> bool {
        let Some(octets) = octets.strip_prefix(&self.header[..]) else { return false };
        let is_sent = |message: &[u8]| message.starts_with(octets);
        let is_one = is_sent(&self.plain) || self.offer.as_ref().is_some_and(|(message, _)| is_sent(message));
        is_one && dns::Header::read(octets).is_some()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ProbeOutcome {
    /// A reply, with the reason if it may be a failure.
    Reply(ProbeReply, String),
    Unreachable,
    /// The reason why a connection failed, or reached another server.
    Refused(String),
}

impl Subject {
    async fn run(self: Rc<Self>, mut signs: UnboundedReceiver<HealthSignal>) {
        let mut rng: SmallRng = rand::make_rng();
        // The state may be that from before a reload.
        let mut health = Health::new(self.rules, self.backend.health(), Instant::now());
        let (mut probe, mut kept): (Option<HealthProbe>, _) = (None, KeptConnection::default());
        let mut was_up = health.is_up();
        loop {
            let was_probing = health.is_probing();
            let step = health.poll(Instant::now(), &mut rng);
            if was_probing && (step == HealthStep::Probe || !health.is_probing()) {
                self.backend
                    .note_probe_problem(Some(format!("no reply within {}", format_duration(self.rules.timeout))));
            }
            // A worker has already written its findings to the state, and an old event must not overwrite
            // them.
            if std::mem::replace(&mut was_up, health.is_up()) != was_up {
                self.publish(was_up);
            }
            if self.stands_for_all && !health.is_probing() {
                // The socket would wait for a late reply until the next probe, and thousands use too much
                // memory.
                probe = None;
            }
            match step {
                HealthStep::Probe => {
                    self.backend.take_signals();
                    drop(probe.take());
                    probe = self.begin(&mut health, &mut kept).await;
                    self.send(&mut health, probe.as_ref()).await;
                }
                HealthStep::Repeat => {
                    // TCP repeats data of a stream probe.
                    if let Some(HealthProbe::Datagrams(datagrams)) = &mut probe {
                        datagrams.is_repeated = true;
                        self.send(&mut health, probe.as_ref()).await;
                    }
                }
                HealthStep::WaitUntil(at) => tokio::select! {
                    sign = signs.recv() => match sign {
                        Some(sign) => self.take_signal(&mut health, sign),
                        None => return,
                    },
                    heard = self.listen(probe.as_mut(), &mut kept) => {
                        probe = None;
                        if self.backend.is_by_stream() {
                            self.note_connection(&heard);
                        }
                        self.hear(&mut health, heard);
                    }
                    () = sleep_until(at.into()) => {}
                },
            }
        }
    }

    fn hear(&self, health: &mut Health, heard: ProbeOutcome) {
        let now = Instant::now();
        let problem = match heard {
            ProbeOutcome::Reply(kind, reason) => (!health.on_probe_reply_of(kind, now)).then_some(reason),
            ProbeOutcome::Refused(reason) => {
                health.on_probe_refused(now);
                Some(reason)
            }
            ProbeOutcome::Unreachable => {
                health.on_probe_unreachable(now);
                Some(UNREACHABLE.to_owned())
            }
        };
        self.backend.note_probe_problem(problem);
    }

    async fn begin(&self, health: &mut Health, kept: &mut KeptConnection) -> Option<HealthProbe> {
        let error = match self.open(kept).await {
            Ok(probe) => return Some(probe),
            Err(error) => error,
        };
        match is_unreachable(&error) {
            true => self.hear(health, ProbeOutcome::Unreachable),
            // A local shortage, most likely of descriptors. Taking all backends down would do more harm than
            // they could.
            false => {
                health.on_probe_not_made();
                tracing::warn!(pool = self.pool, backend = self.backend.name, %error, "the probe could not be sent");
            }
        }
        None
    }

    async fn open(&self, kept: &mut KeptConnection) -> io::Result<HealthProbe> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let mut plain = Vec::new();
        dns::write_plain_query(rand::rng().random(), &self.probe.name, self.probe.rtype, &mut plain);
        if self.backend.is_by_stream() {
            let server = ServerTarget::new(&self.backend.stream_server(), self.backend.wants_header, &self.tls);
            server.tls()?;
            return Ok(HealthProbe::Stream(StreamProbe::begin(kept.take(), server, plain, place)));
        }
        let client = UdpClient::bind(self.backend.address.socket)?;
        client.keep_errors();
        client.connect().await?;
        let offer = if self.cookies { self.offer(&plain, client.local_ip()?) } else { None };
        let header = if self.backend.wants_header { ClientHeader::own().octets } else { Vec::new() };
        Ok(HealthProbe::Datagrams(DatagramProbe { client, plain, offer, header, _place: place, is_repeated: false }))
    }

    /// Returns `None` if no offer is due.
    fn offer(&self, plain: &[u8], local: IpAddr) -> Option<(Vec<u8>, CookieOffer)> {
        let fresh = rand::rng().random();
        let (offer, HasChanged(has_changed)) = self.backend.cookies.offer(local, fresh, Instant::now());
        if has_changed {
            self.state.announce(&self.backend);
        }
        let offer = offer?;
        let mut message = plain.to_vec();
        dns::add_cookie(&mut message, plain.len(), &offer.pair, MAX_REPLY as u16);
        Some((message, offer))
    }

    async fn send(&self, health: &mut Health, probe: Option<&HealthProbe>) {
        let Some(probe) = probe else { return };
        self.backend.probes.increment();
        let HealthProbe::Datagrams(probe) = probe else { return };
        // `send` reports a pending ICMP error of the socket instead of sending.
        for is_last in [false, true] {
            let Err(error) = probe.client.send(&probe.datagram()).await else { return };
            let is_proved = self.is_proved(probe, &error);
            if is_proved || is_last && is_unreachable(&error) {
                return self.hear(health, ProbeOutcome::Unreachable);
            }
        }
    }

    /// Waits for a message with the right ID or an ICMP error about the probe.
    async fn listen(&self, probe: Option<&mut HealthProbe>, kept: &mut KeptConnection) -> ProbeOutcome {
        let probe = match probe {
            Some(HealthProbe::Datagrams(probe)) => probe,
            Some(HealthProbe::Stream(probe)) => match probe.heard(kept).await {
                StreamHeard::Reply(reply) => return self.judge(&reply),
                StreamHeard::Refused(why) => return ProbeOutcome::Refused(why),
            },
            None => return std::future::pending().await,
        };
        let mut buffer = [0; MAX_REPLY];
        let asked = dns::Header::read(&probe.plain).map(dns::Header::id);
        let is_reply = |message: &[u8]| {
            let header = dns::Header::read(message);
            header.is_some_and(|header| header.is_response() && Some(header.id()) == asked)
        };
        loop {
            match probe.client.receive(&mut buffer, is_reply).await {
                Ok(length) => {
                    let reply = buffer.get(..length).unwrap_or_default();
                    self.learn_cookie(probe, reply);
                    return self.judge(reply);
                }
                Err(error) if self.is_proved(probe, &error) => return ProbeOutcome::Unreachable,
                // A forgery, or an error unrelated to the backend.
                Err(_) => {}
            }
        }
    }

    fn judge(&self, reply: &[u8]) -> ProbeOutcome {
        let (kind, reason) = judge(&self.probe, reply);
        ProbeOutcome::Reply(kind, reason)
    }

    fn learn_cookie(&self, probe: &DatagramProbe, reply: &[u8]) {
        let Some((_, offer)) = &probe.offer else { return };
        let reply = dns::read_reply(reply).ok();
        let cookie = reply.as_ref().and_then(dns::Reply::cookie);
        let to = if probe.is_repeated { RepliedTo::Any } else { RepliedTo::Offer };
        let learnt = self.backend.cookies.on_probe_reply(offer, cookie, to, Instant::now());
        let (is_news, HasChanged(has_changed)) = learnt;
        if has_changed {
            self.state.announce(&self.backend);
        }
        if is_news {
            tracing::debug!(pool = self.pool, backend = self.backend.name, "the backend supports DNS cookies");
        }
    }

    /// Returns true for an ICMP error about a datagram of this probe that reports the backend as unreachable.
    fn is_proved(&self, probe: &DatagramProbe, error: &io::Error) -> bool {
        let mut is_ours = false;
        let mut returned = [0; 512];
        while let Ok((_, length)) =
            recv(probe.client.socket(), &mut returned, RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT)
        {
            let returned = returned.get(..length).unwrap_or_default();
            is_ours |= probe.has_sent(returned);
        }
        if is_unreachable(error) {
            self.backend.unreachable_probes.increment();
        }
        is_ours && is_unreachable(error)
    }

    fn note_connection(&self, heard: &ProbeOutcome) {
        let problem = match heard {
            ProbeOutcome::Reply(..) | ProbeOutcome::Unreachable => None,
            ProbeOutcome::Refused(why) => Some(why.as_str()),
        };
        if self.backend.note_connection_problem(problem)
            && let Some(problem) = problem
        {
            tracing::warn!(pool = self.pool, backend = self.backend.name, problem, "cannot connect");
        }
    }

    fn take_signal(&self, health: &mut Health, sign: HealthSignal) {
        if !sign.is_suspicion() {
            self.backend.take_signal(sign);
        }
        let now = Instant::now();
        match sign {
            HealthSignal::Unreachable => health.on_unreachable(now),
            HealthSignal::Replied => health.on_reply(now),
            HealthSignal::Silent => health.on_silence(now),
            HealthSignal::ProbeDue => health.on_queries(now),
        }
    }

    fn publish(&self, is_up: bool) {
        let health = match (is_up, self.backend.health()) {
            (true, _) => HealthState::Up,
            // A backend that was never up is not the same as one that was found down.
            (false, HealthState::New) => HealthState::New,
            (false, HealthState::Up | HealthState::Down) => HealthState::Down,
        };
        if is_up {
            self.backend.cookies.resume();
        }
        if self.backend.set_health(health) {
            self.state.announce(&self.backend);
            let (pool, backend) = (&self.pool, &self.backend.name);
            match is_up {
                true => tracing::info!(pool, backend, "up"),
                false => {
                    let reason = self.backend.probe_problem();
                    let reason = reason.as_ref().map_or("", |reason| reason.as_str());
                    tracing::warn!(pool, backend, reason, "down");
                }
            }
        }
        // Notify even after a worker has written this state: others may have queries pending at a dead
        // backend.
        (self.on_change)();
    }

    /// Returns true if these settings still match the backend of a pool.
    fn is_of(&self, pool: &SharedPool, backend: &Arc<SharedBackend>) -> bool {
        Arc::ptr_eq(&self.backend, backend)
            && self.rules == pool.rules().health
            && self.probe == pool.config.probe
            && self.cookies == pool.config.spoofing.cookies
            && self.stands_for_all == pool.is_crowd()
    }
}

/// The longest reply to a probe, bytes, with OPT and without (RFC 1035 section 2.3.4).
const MAX_REPLY: usize = 512;

const UNREACHABLE: &str = "unreachable (ICMP)";
