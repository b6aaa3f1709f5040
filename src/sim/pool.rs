//! The pool as the forwarder would see it: what it knows of the backends, whose turn it is, what pays for hedges. It holds
//! the values of `policy/` together as `forwarder/pool.rs` does, without sockets and counters.

use std::collections::VecDeque;
use std::time::Instant;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::model::Scenario;
use crate::policy::backend_load::{BackendLoad, End};
use crate::policy::balance::{Balance, BalanceInput, Balancer};
use crate::policy::budget::Budget;
use crate::policy::candidates::{BackendIndex, Candidates};
use crate::policy::latency::Latency;
use crate::policy::ordering::{BackendStats, order};
use crate::policy::race::RaceContext;
use crate::policy::{Rules, latency};

/// What is known of the pool.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    /// Its rules.
    rules: &'a Rules,
    /// The weights of its backends.
    weights: Vec<u16>,
    /// Which backends are taken for up.
    up: Vec<bool>,
    /// Whose turn it is.
    turns: Balancer,
    /// The latency of each backend.
    latency: Vec<Latency>,
    /// The load of each backend.
    loads: Vec<BackendLoad>,
    /// What pays for hedges.
    budget: Budget,
    /// How many queries have come.
    queries: u64,
    /// How many had come by each of the last seconds.
    by_second: VecDeque<u64>,
    /// All chance that is the forwarder's.
    rng: Xoshiro256PlusPlus,
}

impl<'a> Pool<'a> {
    /// A pool of which nothing is known.
    pub(super) fn new(scenario: &'a Scenario, seed: u64, now: Instant) -> Self {
        let weights: Vec<_> = scenario.backends.iter().map(|model| model.weight).collect();
        let up: Vec<_> = scenario.backends.iter().map(|model| model.up).collect();
        Self {
            rules: &scenario.rules,
            turns: turns(&weights, &up),
            latency: vec![Latency::new(now); weights.len()],
            loads: vec![BackendLoad::new(now); weights.len()],
            budget: Budget::new(scenario.rules.hedge.budget),
            queries: 0,
            by_second: VecDeque::new(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            weights,
            up,
        }
    }

    /// Whom to ask for a query that comes now, in order.
    pub(super) fn candidates(&mut self, now: Instant) -> Candidates {
        let balance = self.rules.balance;
        let name = match balance {
            Balance::Hash | Balance::Sticky => self.rng.random(),
            Balance::Ordered | Balance::RoundRobin | Balance::Random | Balance::LeastLoad | Balance::Fastest => 0,
        };
        let sight = BalanceInput { now, turn: self.queries, name, loads: &self.loads, remembered: None };
        self.queries += 1;
        let candidates = self.turns.candidates(balance, &sight, &mut self.rng);
        let known = BackendStats { loads: &self.loads, latency: &self.latency, now };
        order(&candidates, self.rules, &known, |backend| self.weights[backend.get()], &mut self.rng)
    }

    /// What a race looks at.
    pub(super) fn race_context(&self) -> RaceContext<'_> {
        RaceContext { rules: self.rules, latency: &self.latency, budget: &self.budget }
    }

    /// An attempt goes out.
    pub(super) fn asked(&mut self, backend: BackendIndex, now: Instant) {
        self.loads[backend.get()].asked(now);
    }

    /// The race of an attempt is over without its reply. Returns whether the backend's latency was charged with that.
    pub(super) fn charge(&mut self, backend: BackendIndex, asked: Instant) -> bool {
        latency::charge(&self.loads[backend.get()], &mut self.latency[backend.get()], asked)
    }

    /// An attempt has ended, perhaps long after its race.
    pub(super) fn ended(&mut self, backend: BackendIndex, end: End, is_charged: bool, now: Instant) {
        let (load, latency) = (&mut self.loads[backend.get()], &mut self.latency[backend.get()]);
        latency::ended(load, latency, end, is_charged, now);
    }

    /// A reply that is no failure went to the client.
    pub(super) fn earn(&self) {
        self.budget.earn(1);
    }

    /// A second has passed: the bucket of the budget is fitted to the queries of the last minute.
    pub(super) fn on_second(&mut self) {
        self.by_second.push_back(self.queries);
        if self.by_second.len() > MINUTE {
            self.by_second.pop_front();
        }
        let before = self.by_second.front().copied().unwrap_or(0);
        self.budget.set_recent_queries(self.queries - before);
    }

    /// Whether a backend is taken for up.
    pub(super) fn is_up(&self, backend: BackendIndex) -> bool {
        self.up[backend.get()]
    }

    /// Takes a backend for up or down. Returns whether that is news.
    pub(super) fn set_up(&mut self, backend: BackendIndex, is_up: bool, now: Instant) -> bool {
        let is_news = std::mem::replace(&mut self.up[backend.get()], is_up) != is_up;
        if is_news {
            self.turns = turns(&self.weights, &self.up);
            if is_up {
                self.loads[backend.get()].came_back(now);
            }
        }
        is_news
    }

    /// Chance, for what else the forwarder leaves to it.
    pub(super) fn rng(&mut self) -> &mut Xoshiro256PlusPlus {
        &mut self.rng
    }
}

/// The order of asking for this standing of the backends.
fn turns(weights: &[u16], up: &[bool]) -> Balancer {
    let identities: Vec<_> = (0..weights.len() as u64).collect();
    Balancer::new(weights, &identities, |backend| up[backend])
}

/// Seconds in a minute.
const MINUTE: usize = 60;
