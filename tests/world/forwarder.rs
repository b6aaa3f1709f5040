//! A forwarder process: the engines of its workers, probes, members from etcd and reloads, over the modelled
//! network.

mod connections;
mod fetches;
mod io;
mod membership;

pub(crate) use self::io::address_of;
pub(crate) use self::membership::entry;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Config;
use dns::{HashSeed, Header};
use engine::single_flight::{SingleFlight, WorkerId};
use engine::state::{ForwarderState, HealthSignal, PoolState, SharedBackend};
use engine::{Engine, HashedQuestion, LookupReason, QueryPath, Seeds, SharedEngineState, ValidQuery};
use hedge::health::{Health, HealthState, HealthStep, ProbeReply};
use limit::Clients;
use metrics::{Counters, LimitCounters};
use rand::RngExt;

use self::io::{Lines, WorkerSockets};
use self::membership::Membership;
use super::checks::FULL_BUDGET;
use super::clock::Around;
use super::host::HostId;
use super::network::{Datagram, Endpoint, Frames, ProcessId, StreamEvent, StreamId, StreamNews};

/// The number of workers.
const WORKERS: usize = 2;

/// The deadline of a query, as the config has it.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1500);

/// The way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) client: usize,
    /// The stream of the query; `None` by UDP.
    pub(crate) stream: Option<StreamId>,
}

impl engine::ClientHandle for Caller {
    fn ip(&self) -> std::net::IpAddr {
        std::net::Ipv4Addr::from_bits(0x0A01_0000 + self.client as u32).into()
    }

    fn transport(&self) -> dns::Transport {
        if self.stream.is_some() { dns::Transport::Tcp } else { dns::Transport::Udp }
    }

    fn is_admin(&self) -> bool {
        false
    }

    fn is_same_socket(&self, other: &Self) -> bool {
        (self.client, self.stream) == (other.client, other.stream)
    }
}

pub(crate) struct Forwarder {
    host: HostId,
    process: ProcessId,
    engines: Vec<Engine<Caller>>,
    sockets: Vec<WorkerSockets>,
    shared: Arc<SharedEngineState>,
    state: Arc<ForwarderState>,
    config: Config,
    probers: Vec<Prober>,
    next_probe: u32,
    pub(crate) membership: Membership,
    reload: Option<(Instant, Result<Config, String>)>,
    /// States that workers have not taken yet.
    commits: Vec<(Instant, usize, Arc<ForwarderState>)>,
    inbound: BTreeMap<StreamId, (Endpoint, Frames)>,
    is_draining: bool,
    begun: Instant,
    next_second: Instant,
    /// The times of the queries that wait for their response, of each client.
    waiting: BTreeMap<usize, Vec<Instant>>,
}

/// The prober of one backend.
struct Prober {
    backend: Arc<SharedBackend>,
    pool: Arc<PoolState>,
    health: Health,
    was_up: bool,
    probe: u32,
    wake: Instant,
    /// The connection of the probe, if it is by stream.
    stream: Option<(StreamId, Frames)>,
}

/// The port of probes, above those of all workers.
const PROBES: u32 = 1 << 30;

/// The port of the fetches of the first worker, above those of all probes.
const FETCHES: u32 = 1 << 31;

impl Forwarder {
    pub(crate) fn new(host: HostId, process: ProcessId, config: &str, around: &mut Around) -> Self {
        let now = around.now;
        let config = Config::parse(config, "world.toml", Path::new("/")).unwrap_or_else(|error| panic!("{error}"));
        let state = ForwarderState::new(&config, None, None, None, WORKERS, now).expect("the config has a forwarder");
        let state = Arc::new(state);
        // A successor begins with the budget that its predecessor has left.
        let level = if around.chance(0.4) { around.rng.random_range(0..2_000_000) } else { FULL_BUDGET };
        state.pools.iter().for_each(|pool| pool.budget().set_level((level, FULL_BUDGET)));
        around.truth.budget_begins((host, process), level);
        let mut seed = || around.rng.random::<u64>();
        let shared = Arc::new(SharedEngineState {
            single_flight: SingleFlight::new(WORKERS),
            hasher: HashSeed([seed(), seed()]).question_hasher(),
            clients: Arc::new(Clients::new(64, seed())),
            limited: Arc::new(LimitCounters::new("")),
            shortage: engine::shortage::Shortage::new(now),
            catching_up_until: None,
        });
        let counters = Arc::new(Counters::default());
        let engine = |worker| {
            let mut seeds = Seeds { policy: seed(), proof: [0; 16], ids: [0; 32] };
            seeds.proof[..8].copy_from_slice(&seed().to_be_bytes());
            seeds.ids[..8].copy_from_slice(&seed().to_be_bytes());
            let worker = WorkerId(worker as u16);
            Engine::new(worker, Arc::clone(&shared), Arc::clone(&counters), Arc::clone(&state), seeds)
        };
        let engines: Vec<_> = (0..WORKERS).map(engine).collect();
        let membership = Membership::new(&config);
        let mut forwarder = Self {
            host,
            process,
            engines,
            sockets: (0..WORKERS).map(|_| WorkerSockets::default()).collect(),
            shared,
            state: Arc::clone(&state),
            config,
            probers: Vec::new(),
            next_probe: 0,
            membership,
            reload: None,
            commits: Vec::new(),
            inbound: BTreeMap::new(),
            is_draining: false,
            begun: now,
            next_second: now,
            waiting: BTreeMap::new(),
        };
        (0..WORKERS).for_each(|worker| forwarder.set_state(worker, Arc::clone(&state), around));
        forwarder.watch_backends(now);
        forwarder
    }

    /// Runs an event of one worker and ends its tick.
    fn tick<T>(
        &mut self,
        worker: usize,
        around: &mut Around,
        event: impl FnOnce(&mut engine::Tick<'_, Lines<'_>>) -> T,
    ) -> T {
        let now = around.now;
        let place = io::Place { host: self.host, process: self.process, worker };
        let mut signals = Vec::new();
        let result = {
            let sockets = &mut self.sockets[worker];
            let waiting = &mut self.waiting;
            let mut lines = Lines { place, sockets, around, waiting, signals: &mut signals };
            let was_due = self.engines[worker].next_due().is_some_and(|due| due <= now);
            let mut tick = self.engines[worker].tick(&mut lines, now);
            let result = event(&mut tick);
            tick.end();
            let is_due = self.engines[worker].next_due().is_some_and(|due| due <= now);
            assert!(was_due || !is_due, "an event leaves no work that is due at once");
            result
        };
        for (backend, signal) in signals {
            self.heed(&backend, signal, now);
        }
        result
    }

    fn heed(&mut self, backend: &Arc<SharedBackend>, signal: HealthSignal, now: Instant) {
        let Some(prober) = self.probers.iter_mut().find(|prober| Arc::ptr_eq(&prober.backend, backend)) else {
            return backend.take_signal(signal);
        };
        if !signal.is_suspicion() {
            backend.take_signal(signal);
        }
        match signal {
            HealthSignal::Unreachable => prober.health.on_unreachable(now),
            HealthSignal::Replied => prober.health.on_reply(now),
            HealthSignal::Silent => prober.health.on_silence(now),
            HealthSignal::ProbeDue => prober.health.on_queries(now),
        }
        prober.wake = now;
    }

    fn set_state(&mut self, worker: usize, state: Arc<ForwarderState>, around: &mut Around) {
        self.tick(worker, around, |tick| tick.set_state(state));
    }

    fn watch_backends(&mut self, now: Instant) {
        let mut earlier = std::mem::take(&mut self.probers);
        for pool in &self.state.pools {
            for backend in &pool.backends {
                let known = earlier.iter().position(|prober| Arc::ptr_eq(&prober.backend, backend));
                let prober = known.map(|at| earlier.swap_remove(at)).unwrap_or_else(|| Prober {
                    backend: Arc::clone(backend),
                    pool: Arc::clone(&pool.state),
                    health: Health::new(pool.rules().health, backend.health(), now),
                    was_up: backend.is_up(),
                    probe: 0,
                    wake: now,
                    stream: None,
                });
                self.probers.push(prober);
            }
        }
    }

    /// Begins a reload: the config is read on another thread.
    pub(crate) fn reload(&mut self, text: &str, around: &mut Around) {
        let read = Config::parse(text, "world.toml", Path::new("/")).map_err(|problems| problems.to_string());
        self.reload = Some((around.now + around.millis(300), read));
    }

    fn commit(&mut self, config: Config, around: &mut Around) {
        self.membership.set_config(&config);
        self.config = config;
        self.apply(around);
    }

    /// Makes the state of the config and the members, and sends it to the workers.
    fn apply(&mut self, around: &mut Around) {
        let now = around.now;
        let mut config = self.config.clone();
        self.membership.add_members(&mut config.pools);
        let state = ForwarderState::new(&config, Some(&self.state), None, None, WORKERS, now);
        self.state = Arc::new(state.expect("the config has a forwarder"));
        self.watch_backends(now);
        for worker in 0..WORKERS {
            let at = now + around.millis(5);
            self.commits.push((at, worker, Arc::clone(&self.state)));
        }
    }

    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.engines.iter_mut().for_each(Engine::drain);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.is_draining && self.engines.iter().all(Engine::is_empty)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.engines.iter().all(Engine::is_empty)
            && self.shared.clients.waiting() == 0
            && self.shared.single_flight.is_free()
            && self.waiting.values().all(Vec::is_empty)
    }

    /// Returns true if no query waits for a late reply.
    pub(crate) fn has_free_slots(&self) -> bool {
        self.sockets.iter().all(|sockets| sockets.taken.is_empty())
    }

    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<SharedBackend>> {
        self.state.pools.iter().flat_map(|pool| &pool.backends)
    }

    /// Checks what holds between two events.
    pub(crate) fn audit(&self, around: &Around) {
        let now = around.now;
        self.membership.audit(&around.etcd, self.begun, now);
        let held = self.engines.iter().map(|engine| engine.audit().expect("an invariant of the engine")).sum::<usize>();
        assert_eq!(self.shared.clients.waiting(), held as u64, "places of clients are counted");
        for (client, since) in self.waiting.iter().filter_map(|(client, all)| Some((client, all.first()?))) {
            assert!(*since + TIMEOUT >= now, "client {client} waits for longer than the timeout: {:?}", now - *since);
        }
        let streams: usize = self.sockets.iter().map(WorkerSockets::open_streams).sum();
        assert!(streams <= WORKERS * 4 * 16, "{streams} connections to backends");
    }

    pub(crate) fn on_datagram(&mut self, datagram: Datagram, around: &mut Around) {
        let Datagram { from, to, octets } = datagram;
        match (from, to) {
            (Endpoint::Client(client), _) => self.on_query(Caller { client, stream: None }, &octets, around),
            (_, Endpoint::Own { port, .. }) if port >= PROBES => self.on_probe_reply(port - PROBES, &octets, around),
            (_, Endpoint::Own { port, .. }) => {
                let (worker, socket) = io::socket_of(port);
                around.truth.heard(self.host, &octets, around.now);
                self.tick(worker, around, |tick| tick.on_reply(socket, &octets));
            }
            (_, Endpoint::Service(_) | Endpoint::Client(_)) => {}
        }
    }

    /// Handles an ICMP error for a datagram that one of our sockets sent.
    pub(crate) fn on_unreachable(&mut self, datagram: &Datagram, around: &mut Around) {
        let (Endpoint::Own { port, .. }, octets, now) = (datagram.from, &datagram.octets, around.now) else { return };
        if port >= PROBES {
            let probe = port - PROBES;
            if let Some(prober) = self.probers.iter_mut().find(|prober| prober.probe == probe) {
                prober.health.on_probe_unreachable(now);
                prober.wake = now;
            }
            return;
        }
        let (worker, socket) = io::socket_of(port);
        let slot = Header::read(octets).and_then(|header| engine::query_slots::QuerySlot::new(socket, header.id()));
        let struck: Vec<_> = slot.into_iter().filter(|slot| self.sockets[worker].is_taken(*slot)).collect();
        self.tick(worker, around, |tick| tick.on_unreachable(io::set_of(socket), &struck));
    }

    fn on_query(&mut self, caller: Caller, octets: &[u8], around: &mut Around) {
        let Ok(query) = dns::read_query(octets) else { return };
        let now = around.now;
        self.waiting.entry(caller.client).or_default().push(now);
        around.truth.query_read(caller.client, (self.host, self.process));
        around.log(format_args!("forwarder {}: query of client {}", self.host, caller.client));
        let mut folded = Vec::new();
        let flags = query.fold_question(&mut folded);
        let question = HashedQuestion { octets: &folded, flags, hash: self.shared.hash(&folded) };
        let pool = self.state.routes.route(question.qname()).expect("a route for each name").1;
        let valid = ValidQuery {
            message: octets,
            query: &query,
            cookie: None,
            question,
            pool,
            reason: LookupReason::Query,
            subnet: None,
            is_handed_over: false,
        };
        let worker = caller.client % WORKERS;
        if let QueryPath::Elsewhere(owner, caller) = self.tick(worker, around, |tick| tick.on_query(valid, caller)) {
            let valid = ValidQuery { is_handed_over: true, ..valid };
            self.tick(owner.0.into(), around, |tick| tick.on_query(valid, caller));
        }
    }

    pub(crate) fn on_stream(&mut self, event: StreamEvent, around: &mut Around) {
        let StreamEvent { stream, to, what } = event;
        match (what, to) {
            (StreamNews::Dialed(from), _) => {
                let by = Endpoint::Own { host: self.host, process: self.process, port: PROBES - 1 };
                around.accept(stream, by);
                self.inbound.insert(stream, (from, Frames::default()));
            }
            (StreamNews::Bytes(bytes), _) if self.inbound.contains_key(&stream) => {
                let Some((from, frames)) = self.inbound.get_mut(&stream) else { return };
                frames.push(&bytes);
                let Endpoint::Client(client) = *from else { return };
                let queries: Vec<_> = std::iter::from_fn(|| frames.next()).collect();
                for query in queries {
                    self.on_query(Caller { client, stream: Some(stream) }, &query, around);
                }
            }
            (StreamNews::Reset, _) if self.inbound.remove(&stream).is_some() => {}
            (what, Endpoint::Own { port, .. }) if port >= FETCHES => self.on_fetch_stream(stream, port, what, around),
            (what, Endpoint::Own { port, .. }) if port >= PROBES => {
                self.on_probe_stream(stream, port - PROBES, what, around)
            }
            (what, Endpoint::Own { port, .. }) => self.on_backend_stream(stream, port, what, around),
            (_, Endpoint::Service(_) | Endpoint::Client(_)) => {}
        }
    }

    /// Does what is due. Returns the next wake-up time.
    pub(crate) fn on_time(&mut self, around: &mut Around) -> Instant {
        let now = around.now;
        if let Some((_, read)) = self.reload.take_if(|(at, _)| *at <= now) {
            match read {
                Ok(config) => self.commit(config, around),
                Err(_) => around.log(format_args!("forwarder {} refuses its new config", self.host)),
            }
        }
        self.membership.follow(&around.etcd, now);
        if self.membership.settle(now, &self.state) {
            self.apply(around);
        }
        while let Some(place) = self.commits.iter().position(|(at, ..)| *at <= now) {
            // Commands to one worker arrive in order.
            let worker = self.commits[place].1;
            let first = self.commits.iter().position(|(_, of, _)| *of == worker).unwrap_or(place);
            let (_, worker, state) = self.commits.remove(first);
            self.set_state(worker, state, around);
        }
        if now >= self.next_second {
            self.next_second = now + Duration::from_secs(1);
            self.state.pools.iter().for_each(|pool| pool.tune_hedges(now));
        }
        for worker in 0..WORKERS {
            if self.engines[worker].next_due().is_some_and(|due| due <= now) {
                self.tick(worker, around, |tick| tick.on_time());
            }
            self.look_at_streams(worker, around);
            self.look_at_fetches(worker, around);
        }
        self.probe(around);
        self.next_due(now)
    }

    fn next_due(&self, now: Instant) -> Instant {
        let commits = self.commits.iter().map(|(at, ..)| *at);
        let engines = self.engines.iter().filter_map(Engine::next_due);
        let streams = self.sockets.iter().filter_map(WorkerSockets::next_look);
        let probers = self.probers.iter().map(|prober| prober.wake);
        let rest = [Some(self.next_second), self.reload.as_ref().map(|(at, _)| *at), self.membership.next_time()];
        let all = commits.chain(engines).chain(streams).chain(probers).chain(rest.into_iter().flatten());
        all.min().unwrap_or(now)
    }

    fn probe(&mut self, around: &mut Around) {
        if self.is_draining {
            self.probers.iter_mut().for_each(|prober| prober.wake = around.now + Duration::from_secs(3600));
            return;
        }
        let mut changed = Vec::new();
        for at in 0..self.probers.len() {
            let prober = &mut self.probers[at];
            while prober.wake <= around.now {
                let step = prober.health.poll(around.now, &mut around.rng);
                if let HealthStep::WaitUntil(until) = step {
                    prober.wake = until;
                    break;
                }
                if step == HealthStep::Probe {
                    self.next_probe += 1;
                    prober.probe = self.next_probe;
                    prober.backend.take_signals();
                }
                let own = Endpoint::Own { host: self.host, process: self.process, port: PROBES + prober.probe };
                let to = io::host_of(prober.backend.address.ip());
                if !prober.backend.is_by_stream() {
                    around.send(own, Endpoint::Service(to), probe_query(prober.probe));
                } else if step == HealthStep::Probe {
                    if let Some((earlier, _)) = prober.stream.take() {
                        around.close(earlier, own);
                    }
                    prober.stream = Some((around.dial(own, to, prober.backend.address.scheme), Frames::default()));
                }
            }
            let is_up = prober.health.is_up();
            if std::mem::replace(&mut prober.was_up, is_up) != is_up {
                let health = if is_up { HealthState::Up } else { HealthState::Down };
                if prober.backend.set_health(health) {
                    prober.pool.announce(&prober.backend);
                }
                changed.push((prober.backend.address, is_up));
            }
        }
        for (address, is_up) in &changed {
            let word = if *is_up { "up" } else { "down" };
            around.log(format_args!("forwarder {}: backend {address} is {word}", self.host));
        }
        if !changed.is_empty() {
            self.membership.on_health();
            (0..WORKERS).for_each(|worker| self.tick(worker, around, |tick| tick.refresh_pools()));
        }
    }

    fn on_probe_reply(&mut self, probe: u32, octets: &[u8], around: &mut Around) {
        let Some(prober) = self.probers.iter_mut().find(|prober| prober.probe == probe) else { return };
        if dns::read_reply(octets).is_ok_and(|reply| reply.header().id() == probe as u16) {
            prober.health.on_probe_reply_of(ProbeReply::Unserved, around.now);
            prober.wake = around.now;
        }
    }

    fn on_probe_stream(&mut self, stream: StreamId, probe: u32, what: StreamNews, around: &mut Around) {
        let own = Endpoint::Own { host: self.host, process: self.process, port: PROBES + probe };
        let known = self.probers.iter_mut().find(|prober| prober.stream.as_ref().is_some_and(|(id, _)| *id == stream));
        let Some(prober) = known else { return around.close(stream, own) };
        match what {
            StreamNews::Opened => around.write(stream, own, &probe_query(probe)),
            StreamNews::Bytes(bytes) => {
                let Some((_, frames)) = &mut prober.stream else { return };
                frames.push(&bytes);
                if let Some(reply) = frames.next() {
                    prober.stream = None;
                    self.on_probe_reply(probe, &reply, around);
                    around.close(stream, own);
                }
            }
            StreamNews::Reset => {
                prober.stream = None;
                prober.health.on_probe_refused(around.now);
                prober.wake = around.now;
            }
            StreamNews::Dialed(_) => {}
        }
    }
}

/// Writes the question of a probe, `. NS`.
fn probe_query(probe: u32) -> Vec<u8> {
    let mut query = Vec::new();
    dns::write_plain_query(probe as u16, &dns::Name::root(), dns::RecordType::NS, &mut query);
    query
}
