//! Test that each member keeps its data across changes, races keep their plan, and nothing is left of removed
//! members.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{BackendConfig, Config, PoolConfig};
use dns::HashSeed;
use dns::address::BackendAddress;
use hedge::balance::FEW;
use hedge::latency::LatencyImage;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::io::{
    AskedFor, Destination, FetchQuery, Io, NotSent, ResponseOrigin, ResponseSummary, SentAttempt, TcpQuery,
};
use super::super::{AttemptSlots, Outstanding, RaceRef, RaceReport, Waiter};
use super::*;
use crate::client::TestClient;
use crate::query_slots::{QuerySlot, SocketId};
use crate::state::ForwarderState;

/// I/O with sockets that do nothing.
#[derive(Default)]
struct Sockets {
    open: BTreeMap<u32, SocketAddr>,
    next: u32,
}

impl Io for Sockets {
    type Client = TestClient;

    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId {
        self.next += 1;
        self.open.insert(self.next, backend.address.socket);
        SocketSetId(self.next)
    }

    fn is_cold(&self, _: SocketSetId) -> bool {
        false
    }

    fn dial(&mut self, _: SocketSetId, _: Instant) {}

    fn opened(&self, _: SocketId) -> Option<Instant> {
        None
    }

    fn remove_backend(&mut self, sockets: SocketSetId, _: &mut Vec<QuerySlot>) {
        self.open.remove(&sockets.0).expect("it was open");
    }

    fn choose(&mut self, _: &Destination<'_, TestClient>, _: Instant) -> Result<SocketId, NotSent> {
        Err(NotSent::Unreachable)
    }

    fn send(
        &mut self,
        _: QuerySlot,
        _: &Destination<'_, TestClient>,
        _: Outstanding,
        _: &SentAttempt<'_>,
        _: Instant,
        _: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotSent> {
        Err(NotSent::Unreachable)
    }

    fn free(&mut self, _: QuerySlot, _: Instant) {}

    fn take_back(&mut self, _: SocketSetId, _: &mut Vec<QuerySlot>) {}

    fn ask_by_tcp(&mut self, _: Outstanding, _: TcpQuery, _: AskedFor<'_, TestClient>) -> bool {
        false
    }

    fn fetch(&mut self, _: RaceRef, _: FetchQuery, _: AskedFor<'_, TestClient>, _: Instant) -> bool {
        false
    }

    fn respond(
        &mut self,
        _: &Waiter<TestClient>,
        _: &ResponseOrigin<'_>,
        _: ResponseSummary,
        _: &mut Vec<u8>,
        _: Instant,
    ) {
    }

    fn respond_nothing(&mut self, _: &Waiter<TestClient>, _: &ResponseOrigin<'_>, _: &[u8], _: Instant) {}

    fn signal_prober(&mut self, _: &Arc<SharedBackend>, _: HealthSignal) {}

    fn race_over(&mut self, _: RaceReport<'_>) -> bool {
        false
    }
}

/// The address of a member.
fn address(member: u16) -> BackendAddress {
    BackendAddress::from(([127, 1, (member >> 8) as u8, member as u8], 53))
}

/// The config of a pool that has these members with these weights.
fn config(keys: &str, members: &BTreeMap<u16, u16>) -> PoolConfig {
    let text = format!("[forwarder]\n[pools.ts]\nbackends = ['192.0.2.1:53']\n{keys}");
    let mut pools = Config::parse(&text, "c.toml", Path::new("")).expect("a config").pools;
    let backend = |(&member, &weight): (&u16, &u16)| BackendConfig { weight, ..BackendConfig::at(address(member)) };
    pools[0].backends = members.iter().map(backend).collect();
    pools.remove(0)
}

/// The state of a pool with these members.
fn first_state(keys: &str, members: &BTreeMap<u16, u16>) -> ForwarderState {
    let mut config_of_all =
        Config::parse("[forwarder]\n[pools.ts]\nbackends = ['192.0.2.1:53']", "c.toml", Path::new(""))
            .expect("a config");
    config_of_all.pools = vec![config(keys, members)];
    ForwarderState::new(&config_of_all, None, None, None, 2, Instant::now()).expect("there is a forwarder")
}

/// A member, and the number of times that it was added before.
type Life = (u16, u32);

/// A race with one attempt.
struct Asked {
    life: Life,
    plan: PlanNumber,
    backend: BackendIndex,
}

/// A worker's pool, and the expected data.
struct Scene {
    keys: &'static str,
    state: ForwarderState,
    pool: Pool,
    io: Sockets,
    slots: AttemptSlots,
    now: Instant,
    members: BTreeMap<u16, u16>,
    /// The number of times that each member was added.
    lives: BTreeMap<u16, u32>,
    /// The expected latency and load of each member.
    expected: BTreeMap<Life, (Latency, BackendLoad)>,
    asked: Vec<Asked>,
    rng: SmallRng,
}

impl Scene {
    fn new(keys: &'static str, members: BTreeMap<u16, u16>) -> Self {
        let (state, mut io, now) = (first_state(keys, &members), Sockets::default(), Instant::now());
        let pool = Pool::new(Arc::clone(&state.pools[0]), &mut io, WorkerId(0), now);
        let lives = members.keys().map(|&member| (member, 1)).collect();
        let rng = SmallRng::seed_from_u64(1);
        let (expected, asked) = (BTreeMap::new(), Vec::new());
        let slots = AttemptSlots::new([1; 32]);
        Self { keys, state, pool, io, slots, now, members, lives, expected, asked, rng }
    }

    /// Returns the expected data of a member.
    fn expected(&mut self, life: Life) -> &mut (Latency, BackendLoad) {
        let now = self.now;
        self.expected.entry(life).or_insert_with(|| (Latency::new(now), BackendLoad::new(now)))
    }

    /// Returns the latency with which a new member starts beside these.
    fn usual_latency(&self, members: &BTreeMap<u16, u16>) -> LatencyImage {
        let backends = &self.state.pools[0].backends;
        let known = members.keys().filter(|member| self.members.contains_key(member)).filter_map(|member| {
            let backend = backends.iter().find(|backend| backend.address == address(*member))?;
            let is_up = self.pool.members[backend.index.get()].is_up;
            let (latency, _) = self.expected.get(&(*member, self.lives[member])).filter(|_| is_up)?;
            Some(latency.image(self.now))
        });
        let known: Vec<_> = known.filter(|image| !image.is_empty()).take(16).collect();
        LatencyImage::merged(&known)
    }

    fn change(&mut self, members: BTreeMap<u16, u16>) {
        let new: Vec<u16> = members.keys().filter(|member| !self.members.contains_key(member)).copied().collect();
        let usual = self.usual_latency(&members);
        for member in &new {
            *self.lives.entry(*member).or_default() += 1;
        }
        for member in new.iter().take(FEW) {
            let now = self.now;
            self.expected((*member, self.lives[member])).0.learn(&usual, now);
        }
        self.members = members;
        self.state = self.state.with_pools(&[config(self.keys, &self.members)], 2, Instant::now());
        for backend in &self.state.pools[0].backends {
            backend.set_health(HealthState::Up);
        }
        if !Arc::ptr_eq(&self.pool.plan.shared, &self.state.pools[0]) {
            self.pool.set_plan(&mut self.io, &mut self.slots, Arc::clone(&self.state.pools[0]), self.now);
        }
        self.state.pools[0].state.announce_all();
    }

    fn ask(&mut self) {
        self.pool.refresh(self.now, |_| {});
        let hasher = HashSeed([1, 2]).question_hasher();
        let list = self.pool.candidates(&mut self.io, b"\x07example\0", &hasher, &mut self.rng, self.now);
        let backend = list.get(0).expect("a backend is asked");
        let asked = self.pool.backend(backend).address;
        let member = *self.members.keys().find(|member| address(**member) == asked).expect("a member");
        assert_eq!(self.pool.plan.shared.weight(backend), self.members[&member]);
        let sockets = self.pool.sockets(&mut self.io, backend);
        assert_eq!((self.io.open[&sockets.0], self.pool.backend_of(sockets)), (asked.socket, Some(backend)));
        let life = (member, self.lives[&member]);
        let now = self.now;
        self.expected(life).1.asked(now);
        self.pool.asked(backend, now);
        self.pool.plan.in_flight += 1;
        self.asked.push(Asked { life, plan: self.pool.plan.number, backend });
    }

    fn answer(&mut self, place: usize) {
        let Asked { life, plan, backend } = self.asked.swap_remove(place);
        self.now += Duration::from_millis(1);
        let (now, end) = (self.now, AttemptEnd::Reply(Duration::from_millis(1 + u64::from(life.0 % 50))));
        let (latency, load) = self.expected(life);
        latency::ended(load, latency, end, false, now);
        self.pool.work_by(plan);
        assert_eq!(self.pool.plan.number, plan, "the plan of a race is there for as long as the race");
        assert_eq!(self.pool.plan.shared.backend(backend).address, address(life.0));
        assert_eq!(self.pool.backend(backend).address, address(life.0), "no other backend has its place");
        self.pool.is_waited_for_no_more(backend);
        self.pool.ended(backend, end, false, now);
        self.pool.resume();
        if self.pool.race_over(plan) {
            self.pool.forget_left(&mut self.io, &mut self.slots, now);
        }
    }

    /// Compares the data of each member with the expected data.
    fn check(&mut self) {
        for backend in self.state.pools[0].backends.clone() {
            let member = *self.members.keys().find(|member| address(**member) == backend.address).expect("a member");
            let life = (member, self.lives[&member]);
            let now = self.now;
            let unknown = (Latency::new(now), BackendLoad::new(now));
            let (latency, load) = self.expected.get(&life).unwrap_or(&unknown);
            let place = backend.index.get();
            self.pool.latency[place].publish();
            let (known_latency, known_load) = (&self.pool.latency[place], &self.pool.loads[place]);
            for part in [0.5, 0.95] {
                assert_eq!(known_latency.quantile(part), latency.quantile(part), "{life:?}");
            }
            assert_eq!(known_load.in_flight(), load.in_flight(), "{life:?}");
            assert!((known_load.cost(now) - load.cost(now)).abs() < 1e-12, "{life:?}");
            let counted = backend.counted_by(0).map_or(0, |counters| counters.pending.in_flight.get());
            assert_eq!(counted, u64::from(load.in_flight()), "{life:?}");
        }
    }

    /// Checks that after all replies nothing is left of removed members.
    fn check_end(mut self) {
        while !self.asked.is_empty() {
            self.answer(0);
        }
        self.check();
        assert!(self.pool.is_idle() && self.pool.is_not_waited_for());
        assert_eq!((self.pool.pending.out, self.pool.races()), (0, 0));
        assert_eq!(self.pool.backends().count(), self.members.len());
        let addresses: Vec<_> = self.members.keys().map(|&member| address(member)).collect();
        assert!(
            self.io.open.values().all(|open| addresses.contains(&BackendAddress::plain(*open))),
            "sockets of one who is gone"
        );
        self.pool.forget(&mut self.io, &mut self.slots, self.now);
        assert!(self.io.open.is_empty());
    }
}

/// A step of the test.
#[derive(Clone, Debug)]
enum Step {
    /// Change the members to these, with these weights.
    Change(BTreeMap<u16, u16>),
    Ask(u8),
    Answer(Vec<prop::sample::Index>),
}

fn steps(most: u16) -> impl Strategy<Value = Vec<Step>> {
    let change = prop::collection::btree_map(0..most, 1..4_u16, 1..usize::from(most)).prop_map(Step::Change);
    let answer = prop::collection::vec(any::<prop::sample::Index>(), 1..80).prop_map(Step::Answer);
    prop::collection::vec(prop_oneof![2 => change, 4 => (1..100_u8).prop_map(Step::Ask), 3 => answer], 1..30)
}

fn play(keys: &'static str, steps: Vec<Step>) {
    let mut scene = Scene::new(keys, BTreeMap::from([(0, 1), (1, 2)]));
    for step in steps {
        match step {
            Step::Change(members) => scene.change(members),
            Step::Ask(count) => (0..count).for_each(|_| scene.ask()),
            Step::Answer(which) => {
                for index in which {
                    if !scene.asked.is_empty() {
                        let place = index.index(scene.asked.len());
                        scene.answer(place);
                    }
                }
            }
        }
        scene.check();
    }
    scene.check_end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_learnt_stays_with_few_members(steps in steps(12)) {
        play("balance = 'random'", steps);
    }

    #[test]
    fn what_was_learnt_stays_with_many_members(steps in steps(130)) {
        play("balance = 'random'\nreplicas = true", steps);
    }
}

#[test]
fn of_thousands_only_those_that_are_asked_take_memory_and_sockets() {
    let members = (0..5_000).map(|member| (member, 1)).collect();
    let mut scene = Scene::new("balance = 'ordered'", members);
    (0..100).for_each(|_| scene.ask());
    assert_eq!(scene.io.open.len(), 1);
    let counted = scene.state.pools[0].backends.iter().filter(|backend| backend.counted().count() > 0);
    assert_eq!(counted.count(), 1);
    // `cargo test --release --lib of_thousands -- --nocapture` prints the time of a change of twenty.
    for round in 1..=20_u16 {
        let members = (20 * round..5_000 + 20 * round).map(|member| (member, 1)).collect();
        let (state, began) =
            (scene.state.with_pools(&[config(scene.keys, &members)], 2, Instant::now()), Instant::now());
        let built = state.pools[0].state.epoch();
        scene.pool.set_plan(&mut scene.io, &mut scene.slots, Arc::clone(&state.pools[0]), scene.now);
        println!("a worker has taken {} changes after {:?}", state.pools[0].edition.joined.len() * 2, began.elapsed());
        assert_eq!(built, scene.pool.health.epoch, "nothing was announced");
        for member in members.keys().filter(|member| !scene.members.contains_key(member)) {
            *scene.lives.entry(*member).or_default() += 1;
        }
        (scene.members, scene.state) = (members, state);
    }
    while !scene.asked.is_empty() {
        scene.answer(0);
    }
    scene.check_end();
}

#[test]
fn places_of_those_who_are_gone_are_used_again() {
    let mut scene = Scene::new("balance = 'round-robin'", (0..10).map(|member| (member, 1)).collect());
    for round in 1..2_000_u16 {
        scene.change((round..round + 10).map(|member| (member, 1)).collect());
        scene.ask();
        if round % 5 == 0 {
            while !scene.asked.is_empty() {
                scene.answer(0);
            }
        }
    }
    assert!(scene.pool.members.len() <= 40, "{} places", scene.pool.members.len());
    scene.check_end();
}

#[test]
fn a_late_reply_counts_where_the_present_plan_says_the_same() {
    for (keys, is_known) in [("replicas = true", true), ("replicas = false", false)] {
        let mut scene = Scene::new(keys, BTreeMap::from([(0, 1), (1, 1)]));
        let (plan, [stays, goes]) =
            (scene.pool.plan.number, [0, 1].map(|place| scene.state.pools[0].backends[place].index));
        assert!(scene.pool.shared_of(plan, stays).is_some());
        scene.change(BTreeMap::from([(0, 1), (2, 1)]));
        assert_eq!(scene.pool.shared_of(plan, stays).is_some(), is_known, "{keys}");
        assert!(scene.pool.shared_of(plan, goes).is_none(), "{keys}");
        assert!(scene.pool.shared_of(scene.pool.plan.number.next(), stays).is_none(), "{keys}");
    }
}
