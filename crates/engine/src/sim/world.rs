//! The world of a scenario: plays one event after the other and drives the forwarder's engine with models in
//! place of sockets and the clock.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{BackendConfig, CacheConfig, PoolConfig, PoolIndex, PoolRules, Route, SpoofingConfig};
use dns::address::{BackendAddress, Scheme};
use dns::{HashSeed, Name};
use foldhash::fast::FixedState;
use hedge::health::HealthState;
use limit::{Access, AccessRules, Clients, WaitRules};
use metrics::{Counters, LimitCounters};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::backend::{QueryFate, SimulatedBackend};
use super::delay::exponential;
use super::event::{Back, Event, Happening};
use super::message::{self, ModelAnswer};
use super::model::{BackendModel, PoolModel, Scenario};
use super::names::NameDraw;
use super::network::{Caller, Network, NetworkTimes, UDP_SIZE, WaitingClient, address, set_of};
use super::prober::{ProberTask, SimulatedProber};
use super::spells::Unfolding;
use crate::cache::Cache;
use crate::query_slots::{QuerySlot, SlotState};
use crate::shortage::Shortage;
use crate::single_flight::{SingleFlight, WorkerId};
use crate::state::{ForwarderState, HealthSignal, OwnNames, PoolState, Routes, SharedBackend, SharedPool};
use crate::{Engine, HashedQuestion, LookupReason, Outstanding, QueryPath, Seeds, Tick, ValidQuery};

/// Plays a scenario from `start` to its end, and returns the last state. `observe` gets each event and its
/// time after the start.
pub fn play(
    scenario: &Scenario,
    start: Instant,
    seed: u64,
    observe: impl FnMut(Duration, Happening<'_>),
) -> Arc<ForwarderState> {
    let mut world = SimulatedWorld::new(scenario, start, seed, observe);
    world.schedule(start, Event::Query);
    world.schedule(start + SECOND, Event::Second);
    world.schedule(start + SharedPool::TUNE_EVERY, Event::Tuning);
    for (number, (at, _)) in scenario.reloads.iter().enumerate() {
        world.schedule(start + *at, Event::Reload(number));
    }
    for backend in 0..world.probing.probers.len() {
        world.look_after(backend);
    }
    world.schedule_ends();
    // Probes and seconds go on for ever.
    while !world.is_over() && world.step() {}
    Arc::clone(world.engine().state())
}

pub(super) struct SimulatedWorld<'a, F: FnMut(Duration, Happening<'_>)> {
    pub(super) scenario: &'a Scenario,
    /// The engine of each worker.
    pub(super) engines: Vec<Engine<Caller>>,
    shared: Arc<crate::SharedEngineState>,
    pub(super) network: Network<'a, F>,
    arrivals: Arrivals,
    probing: Probing,
    /// The shared states of each backend and its pool.
    pub(super) known: Vec<(Arc<SharedBackend>, Arc<PoolState>)>,
    /// The cumulative queries of each pool by second, for the last minute.
    by_second: Vec<VecDeque<u64>>,
    pub(super) came: u32,
    counters: Arc<Counters>,
    pub(super) message: Vec<u8>,
    folded: Vec<u8>,
}

/// The chance of queries. Each kind of chance has a separate generator, so that all policies meet the same
/// queries.
struct Arrivals {
    rng: Xoshiro256PlusPlus,
    names: NameDraw,
}

struct Probing {
    rng: Xoshiro256PlusPlus,
    /// The probers of all backends; empty if the scenario does not probe.
    probers: Vec<SimulatedProber>,
}

impl Probing {
    fn new<'b>(
        scenario: &Scenario,
        backends: impl Iterator<Item = &'b Arc<SharedBackend>>,
        seed: u64,
        start: Instant,
    ) -> Self {
        let rules = scenario.pools.iter().flat_map(|pool| vec![pool.rules.health; pool.backends.len()]);
        let probers = backends.zip(rules).map(|(backend, rules)| SimulatedProber::new(rules, backend.is_up(), start));
        let probers = if scenario.is_probed { probers.collect() } else { Vec::new() };
        Self { rng: Xoshiro256PlusPlus::seed_from_u64(seed), probers }
    }
}

impl<'a, F: FnMut(Duration, Happening<'_>)> SimulatedWorld<'a, F> {
    pub(super) fn new(scenario: &'a Scenario, start: Instant, seed: u64, observe: F) -> Self {
        let mut seeds = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut seeds = || seeds.random();
        let arrivals = Xoshiro256PlusPlus::seed_from_u64(seeds());
        let (policy, hasher, proof) = (seeds(), HashSeed([seeds(), seeds()]), seeds());
        let slow = Unfolding::new(&scenario.slow, &mut seeds);
        let times = NetworkTimes { slow, replay: scenario.replay.as_deref() };
        let models = scenario.pools.iter().flat_map(|pool| &pool.backends);
        let backends = models.clone().zip(site_seeds(scenario, seed));
        let backends = backends.map(|(model, site)| SimulatedBackend::new(model, site, &mut seeds)).collect();
        let mut network = Network::new(start, backends, times, &mut seeds, observe);
        let state = Arc::new(state(scenario, start));
        let known: Vec<_> = state
            .pools
            .iter()
            .flat_map(|pool| pool.backends.iter().map(|backend| (Arc::clone(backend), Arc::clone(&pool.state))))
            .collect();
        for ((backend, _), model) in known.iter().zip(models) {
            if !model.up {
                backend.set_health(HealthState::Down);
            }
        }
        let shared = Arc::new(crate::SharedEngineState {
            single_flight: SingleFlight::new(scenario.workers.into()),
            hasher: hasher.question_hasher(),
            clients: Arc::new(Clients::new(CLIENTS, seeds())),
            limited: Arc::new(LimitCounters::new("")),
            shortage: Shortage::new(start),
            catching_up_until: None,
        });
        let probing = Probing::new(scenario, known.iter().map(|(backend, _)| backend), seeds(), start);
        let counters = Arc::new(Counters::default());
        let engine = |worker, policy, proof| {
            let (shared, counters) = (Arc::clone(&shared), Arc::clone(&counters));
            Engine::new(WorkerId(worker), shared, counters, Arc::clone(&state), engine_seeds(policy, proof))
        };
        let mut engines = vec![engine(0, policy, proof)];
        for worker in 1..scenario.workers {
            network.add_worker(&mut seeds);
            engines.push(engine(worker, seeds(), seeds()));
        }
        for (worker, engine) in engines.iter_mut().enumerate() {
            network.worker = worker;
            engine.tick(&mut network, start).set_state(Arc::clone(&state));
        }
        Self {
            scenario,
            engines,
            shared,
            network,
            arrivals: Arrivals { rng: arrivals, names: NameDraw::new(&scenario.names) },
            probing,
            known,
            by_second: vec![VecDeque::new(); scenario.pools.len()],
            came: 0,
            counters,
            message: Vec::new(),
            folded: Vec::new(),
        }
    }

    pub(super) fn tick(&mut self) -> Tick<'_, Network<'a, F>> {
        let now = self.network.now;
        self.engines[self.network.worker].tick(&mut self.network, now)
    }

    /// Returns the engine of the worker whose event is played.
    pub(super) fn engine(&self) -> &Engine<Caller> {
        &self.engines[self.network.worker]
    }

    /// Returns true if all queries have arrived and are done.
    fn is_over(&self) -> bool {
        let is_idle = |engine: &Engine<Caller>| engine.is_empty() && engine.slots().is_empty();
        self.came as usize == self.scenario.queries && self.engines.iter().all(is_idle)
    }

    /// Plays the next event. Returns false if there is none.
    pub(super) fn step(&mut self) -> bool {
        let due = self.next_due();
        let Some(next) = self.network.events.peek().into_iter().chain(due.map(|(at, _)| at)).min() else {
            return false;
        };
        // An event that is already due when it is set happens now.
        let now = next.max(self.network.now);
        self.network.now = now;
        if let Some((_, (worker, event))) = self.network.events.pop_due(now) {
            self.network.worker = worker;
            self.on_event(event);
        } else if let Some((_, worker)) = due {
            // Must come last, or a hedge would be paid for an attempt whose reply is here already.
            self.network.worker = worker;
            self.tick().on_time();
        }
        self.end_event();
        true
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.network.events.peek().into_iter().chain(self.next_due().map(|(at, _)| at)).min()
    }

    /// Returns the first due time of an engine, and its worker.
    fn next_due(&self) -> Option<(Instant, usize)> {
        let due = self.engines.iter().enumerate().filter_map(|(worker, engine)| Some((engine.next_due()?, worker)));
        due.min()
    }

    /// Ends an event: hands signals to the probers, and ends the tick of the engine.
    pub(super) fn end_event(&mut self) {
        self.heed_signals();
        self.tick().end();
        if self.scenario.is_audited {
            let waiting = self.engines.iter().map(Engine::audit).sum::<Result<usize, _>>();
            let waiting = waiting.expect("what must hold between two events");
            assert_eq!(self.shared.clients.waiting(), waiting as u64, "waiting clients are counted");
        }
    }

    /// Returns true if no client waits and no race runs.
    pub(super) fn has_answered_all(&self) -> bool {
        self.engines.iter().all(Engine::is_empty) && self.network.clients.values().all(|client| client.responses > 0)
    }

    fn on_event(&mut self, event: Event) {
        let now = self.network.now;
        match event {
            Event::Query => self.on_query(),
            Event::Second => self.on_second(),
            Event::Tuning => self.tune(),
            Event::Retransmission(number) => self.ask_again(number),
            Event::Back { slot, outstanding, name, back } => match back {
                Back::Reply(answer) => self.on_reply(slot, outstanding, name, answer),
                Back::Unreachable => self.on_unreachable(slot),
            },
            Event::Dialled { link, is_open, is_refused } => self.on_dialled(link, is_open, is_refused),
            Event::Ends { backend, place } => self.on_end(backend, place),
            Event::Look(link) => self.look_at(link),
            Event::Sign(link) => self.on_sign(link),
            Event::Probe(backend) => {
                if self.probing.probers[backend].wake == now {
                    self.look_after(backend);
                }
            }
            Event::ProbeBack { backend, probe, is_reply } => {
                let prober = &mut self.probing.probers[backend];
                match is_reply {
                    _ if prober.probe != probe => return,
                    true => prober.health.on_probe_reply(now),
                    false => prober.health.on_probe_unreachable(now),
                }
                self.look_after(backend);
            }
            Event::Reload(number) => {
                let (_, rules) = &self.scenario.reloads[number];
                self.reload(rules);
            }
        }
    }

    fn on_query(&mut self) {
        let place = self.came as usize;
        if place == self.scenario.queries {
            return;
        }
        let now = self.network.now;
        let Arrivals { rng, names } = &mut self.arrivals;
        let gap = exponential(self.scenario.gap, rng);
        let name = names.next(rng);
        self.schedule(now + gap, Event::Query);
        let pool = place % self.scenario.pools.len();
        let number = self.add_client(name, pool);
        self.network.observe(Happening::Came);
        if let Some(wait) = self.scenario.resend {
            self.schedule(now + wait, Event::Retransmission(number));
        }
        self.query(number, name, pool);
    }

    /// Adds a client that waits, and returns its number.
    pub(super) fn add_client(&mut self, name: u32, pool: usize) -> u32 {
        let number = self.came;
        self.came += 1;
        let client = WaitingClient { since: self.network.now, name, pool, asked: 1, responses: 0 };
        self.network.clients.insert(number, client);
        number
    }

    pub(super) fn on_unreachable(&mut self, slot: QuerySlot) {
        self.tick().on_unreachable(set_of(slot.socket()), &[slot]);
    }

    pub(super) fn ask_again(&mut self, number: u32) {
        let waiting = self.network.clients.get_mut(&number).filter(|client| client.responses == 0);
        if let Some(WaitingClient { name, pool, asked, .. }) = waiting {
            *asked += 1;
            let (name, pool) = (*name, *pool);
            self.query(number, name, pool);
        }
    }

    pub(super) fn query(&mut self, number: u32, name: u32, pool: usize) {
        message::write_query(number as u16, name, pool, &mut self.message);
        let query = dns::read_query(&self.message).expect("it is a sound query");
        self.folded.clear();
        let flags = query.fold_question(&mut self.folded);
        let octets = &self.folded[..];
        let question = HashedQuestion { octets, flags, hash: self.shared.hash(octets) };
        let pool = self.engine().state().routes.find(question.qname()).expect("each name has a pool");
        let valid = ValidQuery {
            message: &self.message,
            query: &query,
            cookie: None,
            question,
            pool,
            reason: LookupReason::Query,
            subnet: None,
            is_handed_over: false,
        };
        let (now, engines) = (self.network.now, &mut self.engines);
        let worker = (FixedState::default().hash_one(number) % engines.len() as u64) as usize;
        self.network.worker = worker;
        let path = engines[worker].tick(&mut self.network, now).on_query(valid, Caller(number));
        if let QueryPath::Elsewhere(owner, client) = path {
            self.network.worker = owner.0.into();
            let valid = ValidQuery { is_handed_over: true, ..valid };
            engines[self.network.worker].tick(&mut self.network, now).on_query(valid, client);
        }
    }

    fn on_reply(&mut self, slot: QuerySlot, asked: Outstanding, name: u32, answer: ModelAnswer) {
        let (race, attempt) = (asked.race(), asked.attempt());
        let found = self.engine().slots().find(slot);
        let is_late = match &found {
            Some(SlotState::InFlight(waiting)) => (waiting.race(), waiting.attempt()) != (race, attempt),
            Some(SlotState::Quarantined(_)) | None => true,
        };
        let elapsed = self.network.elapsed();
        if let Some(link) = self.network.link_of(slot) {
            // A reply to a query of the previous connection is lost.
            match found {
                Some(SlotState::InFlight(_)) if is_late => return,
                None => return,
                Some(SlotState::InFlight(_) | SlotState::Quarantined(_)) => link.heard(elapsed),
            }
        }
        match answer {
            ModelAnswer::Ranked(rank) => self.network.observe(Happening::Replied { race, attempt, rank, is_late }),
            ModelAnswer::Bare if !is_late => self.network.observe(Happening::FailedBare { race }),
            ModelAnswer::Bare | ModelAnswer::OptRefused => {}
        }
        self.send_reply(slot, name, answer);
    }

    pub(super) fn send_reply(&mut self, slot: QuerySlot, name: u32, answer: ModelAnswer) {
        let Some(backend) = self.network.backend_of(slot.socket()) else { return };
        let pool = self.pool_of(backend);
        let ttl = self.scenario.ttl.map_or(0, |ttl| ttl.as_secs() as u32);
        message::write_reply(slot.id(), name, pool, answer, ttl, &mut self.message);
        let now = self.network.now;
        self.engines[self.network.worker].tick(&mut self.network, now).on_reply(slot.socket(), &self.message);
    }

    pub(super) fn reload(&mut self, rules: &[PoolRules]) {
        let configs = configs(self.scenario, rules);
        let now = self.network.now;
        let state = Arc::new(self.engine().state().with_pools(&configs, self.engines.len(), now));
        self.each_worker(|tick| tick.set_state(Arc::clone(&state)));
    }

    pub(super) fn pool_of(&self, backend: usize) -> usize {
        let mut before = 0;
        let is_in = |pool: &PoolModel| {
            before += pool.backends.len();
            backend < before
        };
        self.scenario.pools.iter().position(is_in).unwrap_or_default()
    }

    /// Fits the bucket of each budget to the queries of the last minute, once a second.
    fn on_second(&mut self) {
        for (by_second, pool) in self.by_second.iter_mut().zip(&self.engines[0].state().pools) {
            let queries = pool.state.queries();
            by_second.push_back(queries);
            if by_second.len() > MINUTE {
                by_second.pop_front();
            }
            let before = by_second.front().copied().unwrap_or(0);
            pool.budget().set_recent_queries(queries - before);
        }
        let pools = &self.engines[0].state().pools;
        self.network.observe(Happening::Second { pools, counters: &self.counters });
        self.schedule(self.network.now + SECOND, Event::Second);
    }

    fn tune(&mut self) {
        let now = self.network.now;
        self.engines[0].state().pools.iter().for_each(|pool| pool.tune_hedges(now));
        self.schedule(now + SharedPool::TUNE_EVERY, Event::Tuning);
    }

    /// Hands the signals of queries to the probers, which wake a moment later.
    fn heed_signals(&mut self) {
        let now = self.network.now;
        while let Some((backend, signal)) = self.network.signals.pop() {
            let (shared, _) = &self.known[backend];
            let Some(prober) = self.probing.probers.get_mut(backend) else {
                shared.take_signal(signal);
                continue;
            };
            if !signal.is_suspicion() {
                shared.take_signal(signal);
            }
            match signal {
                HealthSignal::Unreachable => prober.health.on_unreachable(now),
                HealthSignal::Replied => prober.health.on_reply(now),
                HealthSignal::Silent => prober.health.on_silence(now),
                HealthSignal::ProbeDue => prober.health.on_queries(now),
            }
            prober.wake = now;
            self.network.schedule(now, Event::Probe(backend));
        }
    }

    /// Runs the due tasks of a backend's prober and reports its findings.
    fn look_after(&mut self, backend: usize) {
        loop {
            let now = self.network.now;
            let Probing { rng, probers } = &mut self.probing;
            match probers[backend].next_task(now, rng) {
                ProberTask::Send(probe) => {
                    self.known[backend].0.take_signals();
                    let (at, is_reply) = match self.network.ask(backend) {
                        QueryFate::Lost => continue,
                        QueryFate::Unreachable(at) => (at, false),
                        QueryFate::Replied(at) => (at, true),
                    };
                    self.schedule(self.network.at(at), Event::ProbeBack { backend, probe, is_reply });
                }
                ProberTask::Wake(at) => {
                    let news = probers[backend].take_news();
                    self.schedule(at, Event::Probe(backend));
                    return news.into_iter().for_each(|is_up| self.set_health(backend, is_up));
                }
            }
        }
    }

    pub(super) fn set_health(&mut self, backend: usize, is_up: bool) {
        let (shared, pool) = &self.known[backend];
        if shared.set_health(if is_up { HealthState::Up } else { HealthState::Down }) {
            pool.announce(shared);
        }
        self.each_worker(|tick| tick.refresh_pools());
    }

    fn each_worker(&mut self, mut act: impl FnMut(&mut Tick<'_, Network<'a, F>>)) {
        let now = self.network.now;
        for (worker, engine) in self.engines.iter_mut().enumerate() {
            self.network.worker = worker;
            let mut tick = engine.tick(&mut self.network, now);
            act(&mut tick);
            tick.end();
        }
    }

    pub(super) fn schedule(&mut self, at: Instant, event: Event) {
        self.network.schedule(at, event);
    }
}

fn engine_seeds(policy: u64, proof: u64) -> Seeds {
    let mut seeds = Seeds { policy, proof: [0; 16], ids: [0; 32] };
    seeds.proof[..8].copy_from_slice(&proof.to_be_bytes());
    seeds.ids[..8].copy_from_slice(&proof.to_be_bytes());
    seeds
}

/// Returns a seed for the site of each backend; backends without a site are one for themselves.
fn site_seeds(scenario: &Scenario, seed: u64) -> impl Iterator<Item = u64> {
    let models: Vec<_> = scenario.pools.iter().flat_map(|pool| &pool.backends).collect();
    (0..models.len()).map(move |place| {
        let is_same = |other: &&BackendModel| other.site.name.is_some() && other.site.name == models[place].site.name;
        let first = models.iter().position(is_same).unwrap_or(place);
        seed ^ (first as u64 + 1) << 32
    })
}

fn state(scenario: &Scenario, start: Instant) -> ForwarderState {
    let suffix = |pool: usize| {
        let mut suffix = Vec::new();
        message::write_suffix(pool, &mut suffix);
        Name::from_wire(&suffix).expect("it is a sound name")
    };
    let route = |pool: usize| Route { suffix: suffix(pool), is_below_only: false, pool: PoolIndex(pool) };
    let routes: Vec<_> = (0..scenario.pools.len()).map(route).collect();
    let cache_config = scenario.ttl.map(|_| {
        let rules = config::CacheRules::default();
        CacheConfig { size: CacheConfig::SIZE, rules, persist: None, persist_every: None }
    });
    let empty = ForwarderState {
        edns_udp_size: UDP_SIZE,
        access: Arc::new(Access::new(&AccessRules::of(&AccessRules::EVERYBODY))),
        limits: WaitRules { waiting: u32::MAX, in_flight: u32::MAX, per_zone: Some(u32::MAX) },
        rate: None,
        rules: None,
        routes: Arc::new(Routes::new(&routes)),
        own: OwnNames::default(),
        pools: Vec::new(),
        cache: cache_config.as_ref().map(|config| Arc::new(Cache::new(config.size, start))),
        cache_config,
        cookies: None,
    };
    let rules: Vec<_> = scenario.pools.iter().map(|pool| pool.rules.clone()).collect();
    empty.with_pools(&configs(scenario, &rules), scenario.workers.into(), start)
}

fn configs(scenario: &Scenario, rules: &[PoolRules]) -> Vec<PoolConfig> {
    let mut number = 0;
    let pools = scenario.pools.iter().zip(rules).enumerate();
    let config = |(place, (pool, rules)): (usize, (&PoolModel, &PoolRules))| {
        let backends = pool.backends.iter().map(|model| {
            number += 1;
            let scheme = if model.connections.is_some() { Scheme::Tcp } else { Scheme::Plain };
            BackendConfig {
                name: format!("backend{number}"),
                weight: model.seat.weight,
                tier: model.seat.tier,
                site: model.site.name.clone(),
                ..BackendConfig::at(BackendAddress { scheme, socket: address(number - 1) })
            }
        });
        PoolConfig {
            name: format!("pool{place}"),
            backends: backends.collect(),
            rules: rules.clone(),
            spoofing: SpoofingConfig { cookies: false, ..SpoofingConfig::default() },
            ..PoolConfig::default()
        }
    };
    pools.map(config).collect()
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: usize = 60;
/// The clients with a separate entry in the client table.
const CLIENTS: usize = 1024;
