//! Probing: finds out which backends are up, on the control thread.
//!
//! Each backend has a task that asks [`Health`] when to probe, sends one small query, and says what came of it; signs that
//! workers met (ICMP errors, silence, replies of one that was down) go to the same place. What [`Health`] decides is
//! written to the state, where the workers see it.
//!
//! An ICMP error says which datagram it is about, by its first octets, and is believed only if those are the probe's. A forger
//! who guesses port and time has to guess the ID as well. Some systems return nothing but the headers (RFC 792 asks for
//! no more); to them a dead backend is one that is silent.
//!
//! Whether a backend gives DNS cookies (RFC 7873) is found out by the way: the first datagram of a probe may offer one. Those that
//! repeat it do not, so that a backend is found up which does not like that, or to which none such comes.

mod stream;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::SmallRng;
use rustix::net::{RecvFlags, recv};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep_until;

use self::stream::{KeptConnection, StreamHeard, StreamProbe};
use crate::config::ProbeConfig;
use crate::net::client::UdpClient;
use crate::net::proxy_protocol::ClientHeader;
use crate::net::refusal::is_unreachable;
use crate::net::tasks::{Task, TaskKind, Tasks};
use crate::policy::HealthRules;
use crate::policy::health::{Health, HealthState, ProbeReply, Step};
use crate::state::backend_cookies::{HasChanged, Offer, RepliedTo};
use crate::state::{ForwarderState, HealthEvent, HealthSignal, PoolState, SharedBackend, SharedPool};
use crate::wire;

/// Probes all backends of a state.
pub struct Prober {
    /// The backends that are probed, by where they stand.
    watches: HashMap<*const SharedBackend, Watch>,
    /// How many probes may be out at a time.
    places: Arc<Semaphore>,
    /// Called after each change, be it one that a worker has met.
    on_change: Rc<dyn Fn()>,
    /// The tasks of this thread.
    tasks: Tasks,
}

/// The task of one backend.
struct Watch {
    /// What it probes, and how.
    subject: Rc<Subject>,
    /// The way to it.
    signs: UnboundedSender<HealthSignal>,
    /// Ends with this value.
    _task: Task,
}

impl Prober {
    /// A prober without backends, whose tasks are among these, with so many probes out at a time. Must be used within a `LocalSet`.
    pub fn new(tasks: Tasks, most: usize, on_change: Rc<dyn Fn()>) -> Self {
        let places = Arc::new(Semaphore::new(most.max(1)));
        Self { watches: HashMap::new(), places, on_change, tasks }
    }

    /// Probes the backends of this state, and no others. Those that were probed before, in the same way, go on as if
    /// nothing had happened.
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

    /// Begins anew with backends that others have found to stand otherwise, as they stand now.
    pub fn begin_anew(&mut self, state: &ForwarderState, is_meant: impl Fn(&SharedBackend) -> bool) {
        self.watches.retain(|_, watch| !is_meant(&watch.subject.backend));
        self.set_state(state);
    }

    /// Probes nobody any more.
    pub fn stop(&mut self) {
        self.watches.clear();
    }

    /// Passes on what a worker met.
    pub fn on_event(&self, health_events: &HealthEvent) {
        let HealthEvent { backend, what } = health_events;
        let Some(watch) = self.watches.get(&Arc::as_ptr(backend)) else { return };
        let _ = watch.signs.send(*what);
        if *what == HealthSignal::ProbeDue && watch.subject.stands_for_all {
            let same_pool = |other: &&Watch| Arc::ptr_eq(&other.subject.state, &watch.subject.state);
            for other in self.watches.values().filter(same_pool).filter(|other| !std::ptr::eq(*other, watch)) {
                let _ = other.signs.send(*what);
            }
        }
    }

    /// Starts the task of a backend.
    fn watch(&self, pool: &SharedPool, backend: &Arc<SharedBackend>) -> Watch {
        // What an earlier task of this backend was told is lost with it.
        backend.take_signals();
        // Of each sign at most one is on its way.
        let (signs, receiver) = unbounded_channel();
        let subject = Rc::new(Subject {
            pool: pool.config.name.clone(),
            state: Arc::clone(&pool.state),
            rules: pool.rules().health,
            probe: pool.config.probe.clone(),
            cookies: pool.config.cookies,
            stands_for_all: pool.is_crowd(),
            places: Arc::clone(&self.places),
            backend: Arc::clone(backend),
            on_change: Rc::clone(&self.on_change),
        });
        let task = self.tasks.start(TaskKind::Probe, Rc::clone(&subject).run(receiver));
        Watch { subject, signs, _task: task }
    }
}

/// One backend that is probed.
struct Subject {
    /// The name of its pool.
    pool: String,
    /// Where changes are announced.
    state: Arc<PoolState>,
    /// When it is probed, and how many probes decide.
    rules: HealthRules,
    /// What it is asked.
    probe: ProbeConfig,
    /// Whether cookies are to be had.
    cookies: bool,
    /// It is one of thousands, and told for all when a probe of each is due.
    stands_for_all: bool,
    /// See [`Prober`].
    places: Arc<Semaphore>,
    backend: Arc<SharedBackend>,
    /// See [`Prober`].
    on_change: Rc<dyn Fn()>,
}

/// A probe that is out.
enum Probe {
    Datagrams(DatagramProbe),
    Stream(StreamProbe),
}

/// The datagrams of one probe: a question, sent once or more, and the socket where its reply comes.
struct DatagramProbe {
    /// Connected to the backend.
    client: UdpClient,
    /// The question, in the form that every server understands.
    plain: Vec<u8>,
    offer: Option<(Vec<u8>, Offer)>,
    /// What goes ahead of it; nothing, unless the backend wants to know who asks.
    header: Vec<u8>,
    /// Its place among those that are out.
    _place: OwnedSemaphorePermit,
    /// Whether the plain one was sent.
    is_repeated: bool,
}

impl DatagramProbe {
    /// What is sent now.
    fn datagram(&self) -> Vec<u8> {
        let message = match &self.offer {
            Some((message, _)) if !self.is_repeated => message,
            Some(_) | None => &self.plain,
        };
        [&self.header[..], message].concat()
    }

    /// Whether these octets, of which some may be missing, were sent. Without the header of a message there is nothing to tell it by.
    fn has_sent(&self, octets: &[u8]) -> bool {
        let Some(octets) = octets.strip_prefix(&self.header[..]) else { return false };
        let is_sent = |message: &[u8]| message.starts_with(octets);
        let is_one = is_sent(&self.plain) || self.offer.as_ref().is_some_and(|(message, _)| is_sent(message));
        is_one && wire::Header::read(octets).is_some()
    }
}

/// What is heard of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// A reply, of this kind.
    Reply(ProbeReply),
    /// ICMP: it is unreachable.
    Unreachable,
    /// It takes no connection, or somebody else takes it: why.
    Refused(String),
}

impl Subject {
    /// Probes for ever.
    async fn run(self: Rc<Self>, mut signs: UnboundedReceiver<HealthSignal>) {
        let mut rng: SmallRng = rand::make_rng();
        let mut health = match self.backend.health() {
            HealthState::Up => Health::new(self.rules, Instant::now()),
            HealthState::New => Health::new_unproven(self.rules, Instant::now()),
            // Known from before a reload.
            HealthState::Down => Health::new_down(self.rules, Instant::now()),
        };
        let (mut probe, mut kept): (Option<Probe>, _) = (None, KeptConnection::default());
        let mut was_up = health.is_up();
        loop {
            let step = health.next_step(Instant::now(), &mut rng);
            // Changes only: a worker writes what it met before we hear of it, and is not to be contradicted with an old event.
            if std::mem::replace(&mut was_up, health.is_up()) != was_up {
                self.publish(was_up);
            }
            if self.stands_for_all && !health.is_probing() {
                // Its socket would wait for a late reply until the next one, and thousands have no room for that.
                probe = None;
            }
            match step {
                Step::Probe => {
                    self.backend.take_signals();
                    // The place of the one before, if that is still out.
                    drop(probe.take());
                    probe = self.begin(&mut health, &mut kept).await;
                    self.send(&mut health, probe.as_ref()).await;
                }
                Step::Repeat => {
                    // What goes by stream is repeated by TCP.
                    if let Some(Probe::Datagrams(datagrams)) = &mut probe {
                        datagrams.is_repeated = true;
                        self.send(&mut health, probe.as_ref()).await;
                    }
                }
                Step::WaitUntil(at) => tokio::select! {
                    sign = signs.recv() => match sign {
                        Some(sign) => self.take_signal(&mut health, sign),
                        None => return,
                    },
                    heard = self.listen(probe.as_mut(), &mut kept) => {
                        probe = None;
                        if self.backend.is_by_stream() {
                            self.note_connection(&heard);
                        }
                        match heard {
                            Heard::Reply(kind) => health.on_probe_reply_of(kind, Instant::now()),
                            Heard::Refused(_) => health.on_probe_refused(Instant::now()),
                            Heard::Unreachable => health.on_probe_unreachable(Instant::now()),
                        }
                    }
                    () = sleep_until(at.into()) => {}
                },
            }
        }
    }

    /// Begins a probe, or says why that cannot be.
    async fn begin(&self, health: &mut Health, kept: &mut KeptConnection) -> Option<Probe> {
        let error = match self.open(kept).await {
            Ok(probe) => return Some(probe),
            Err(error) => error,
        };
        match is_unreachable(&error) {
            true => health.on_probe_unreachable(Instant::now()),
            // Our own want, of descriptors most likely. If it took all backends down, it would do more harm than they could.
            false => {
                health.on_probe_not_made();
                tracing::warn!(pool = self.pool, backend = self.backend.name, %error, "cannot probe");
            }
        }
        None
    }

    /// Opens the socket of a probe, once there is a place for it.
    async fn open(&self, kept: &mut KeptConnection) -> io::Result<Probe> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
        let mut plain = Vec::new();
        wire::write_plain_query(rand::rng().random(), &self.probe.name, self.probe.rtype, &mut plain);
        if self.backend.is_by_stream() {
            let (server, tls) = (self.backend.address.socket, self.backend.tls());
            if self.backend.address.scheme.is_encrypted() && tls.is_none() {
                return Err(io::Error::other("nobody is known who could vouch for its certificate"));
            }
            return Ok(Probe::Stream(StreamProbe::begin(
                kept.take(),
                (server, self.backend.protocol(), self.backend.wants_header),
                tls,
                plain,
                place,
            )));
        }
        let client = UdpClient::bind(self.backend.address.socket)?;
        client.keep_errors();
        client.connect().await?;
        let offer = if self.cookies { self.offer(&plain, client.local_ip()?) } else { None };
        let header = if self.backend.wants_header { ClientHeader::own().octets } else { Vec::new() };
        Ok(Probe::Datagrams(DatagramProbe { client, plain, offer, header, _place: place, is_repeated: false }))
    }

    /// The question of a probe that is sent from this address, with the cookie that it offers, if it is to offer one.
    fn offer(&self, plain: &[u8], local: IpAddr) -> Option<(Vec<u8>, Offer)> {
        let fresh = rand::rng().random();
        let (offer, HasChanged(has_changed)) = self.backend.cookies.offer(local, fresh, Instant::now());
        if has_changed {
            self.state.announce(&self.backend);
        }
        let offer = offer?;
        let mut message = plain.to_vec();
        wire::add_cookie(&mut message, plain.len(), &offer.pair, MAX_REPLY as u16);
        Some((message, offer))
    }

    /// Sends the question of a probe.
    async fn send(&self, health: &mut Health, probe: Option<&Probe>) {
        let Some(probe) = probe else { return };
        self.backend.probes.increment();
        let Probe::Datagrams(probe) = probe else { return };
        // An ICMP error that waits on the socket is told in place of sending.
        for is_last in [false, true] {
            let Err(error) = probe.client.send(&probe.datagram()).await else { return };
            let is_proved = self.is_proved(probe, &error);
            if is_proved || is_last && is_unreachable(&error) {
                return health.on_probe_unreachable(Instant::now());
            }
        }
    }

    /// Waits until the socket of a probe has something to say that counts: a message with the right ID, whatever it says, or an
    /// ICMP error that is about the probe.
    async fn listen(&self, probe: Option<&mut Probe>, kept: &mut KeptConnection) -> Heard {
        let probe = match probe {
            Some(Probe::Datagrams(probe)) => probe,
            Some(Probe::Stream(probe)) => match probe.heard(kept).await {
                StreamHeard::Reply(reply) => return Heard::Reply(self.kind_of(&reply)),
                StreamHeard::Refused(why) => return Heard::Refused(why),
            },
            None => return std::future::pending().await,
        };
        let mut buffer = [0; MAX_REPLY];
        let asked = wire::Header::read(&probe.plain).map(wire::Header::id);
        let is_reply = |message: &[u8]| {
            let header = wire::Header::read(message);
            header.is_some_and(|header| header.is_response() && Some(header.id()) == asked)
        };
        loop {
            match probe.client.receive(&mut buffer, is_reply).await {
                Ok(length) => {
                    let reply = buffer.get(..length).unwrap_or_default();
                    self.learn_cookie(probe, reply);
                    return Heard::Reply(self.kind_of(reply));
                }
                Err(error) if self.is_proved(probe, &error) => return Heard::Unreachable,
                // A forgery, or nothing that the backend has to do with.
                Err(_) => {}
            }
        }
    }

    /// The kind of a reply to a probe.
    fn kind_of(&self, reply: &[u8]) -> ProbeReply {
        let rcode = wire::Header::read(reply).map(wire::Header::rcode);
        kind_of(rcode, self.probe == ProbeConfig::default())
    }

    /// Learns from the reply to a probe whether the backend gives cookies.
    fn learn_cookie(&self, probe: &DatagramProbe, reply: &[u8]) {
        let Some((_, offer)) = &probe.offer else { return };
        let reply = wire::read_reply(reply).ok();
        let cookie = reply.as_ref().and_then(wire::Reply::cookie);
        let to = if probe.is_repeated { RepliedTo::Any } else { RepliedTo::Offer };
        let learnt = self.backend.cookies.on_probe_reply(offer, cookie, to, Instant::now());
        let (is_news, HasChanged(has_changed)) = learnt;
        if has_changed {
            self.state.announce(&self.backend);
        }
        if is_news {
            tracing::info!(pool = self.pool, backend = self.backend.name, "gives DNS cookies");
        }
    }

    /// Whether an error is ICMP that says that the backend is unreachable, about a datagram of this probe.
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

    /// Notes whether connections to the backend come to be, and tells the log of what is new in that.
    fn note_connection(&self, heard: &Heard) {
        let problem = match heard {
            Heard::Reply(_) | Heard::Unreachable => None,
            Heard::Refused(why) => Some(why.as_str()),
        };
        if self.backend.note_connection_problem(problem)
            && let Some(problem) = problem
        {
            tracing::warn!(pool = self.pool, backend = self.backend.name, problem, "cannot connect");
        }
    }

    /// Takes what a worker met.
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

    /// Lets the workers know.
    fn publish(&self, is_up: bool) {
        let health = match (is_up, self.backend.health()) {
            (true, _) => HealthState::Up,
            // Not yet found up is another thing than found down.
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
                false => tracing::warn!(pool, backend, "down"),
            }
        }
        // Even if a worker had written it: the others look only when they have a reason to, and may have queries out to
        // a backend that was found dead.
        (self.on_change)();
    }

    /// Whether this is how a backend of a pool is to be probed.
    fn is_of(&self, pool: &SharedPool, backend: &Arc<SharedBackend>) -> bool {
        Arc::ptr_eq(&self.backend, backend)
            && self.rules == pool.rules().health
            && self.probe == pool.config.probe
            && self.cookies == pool.config.cookies
            && self.stands_for_all == pool.is_crowd()
    }
}

/// The kind of a reply with this code, to the default probe or to another one.
fn kind_of(rcode: Option<wire::Rcode>, is_default_probe: bool) -> ProbeReply {
    match rcode {
        Some(wire::Rcode::REFUSED) if is_default_probe => ProbeReply::Unserved,
        Some(wire::Rcode::SERVFAIL | wire::Rcode::REFUSED) => ProbeReply::Failure,
        Some(_) | None => ProbeReply::Answer,
    }
}

/// Octets of the longest reply to a probe, with OPT and without (RFC 1035 section 2.3.4).
const MAX_REPLY: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_to_the_default_probe_is_not_yet_a_failure() {
        for (rcode, is_default_probe, expected) in [
            (wire::Rcode::NOERROR, true, ProbeReply::Answer),
            (wire::Rcode::NXDOMAIN, false, ProbeReply::Answer),
            (wire::Rcode::SERVFAIL, true, ProbeReply::Failure),
            (wire::Rcode::SERVFAIL, false, ProbeReply::Failure),
            (wire::Rcode::REFUSED, true, ProbeReply::Unserved),
            (wire::Rcode::REFUSED, false, ProbeReply::Failure),
        ] {
            assert_eq!(kind_of(Some(rcode), is_default_probe), expected, "{rcode:?}, {is_default_probe}");
        }
    }
}
