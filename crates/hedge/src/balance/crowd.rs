//! The turns of a pool with so many backends that a request cannot scan all of them.
//!
//! One thread builds the crowd for all workers, and rebuilds it some time after a change, so a request skips
//! drawn members that no longer take requests:
//!
//! - `ordered`: the first members of a list that take requests;
//! - `round-robin`, `sticky`: in turn, or by multiples of the golden ratio in an alias table;
//! - `random`: drawn by an alias table;
//! - `least-load`, `fastest`: the better of two that are drawn; failing members come last;
//! - `hash`: a table of places with bounded load.

use rand::{Rng, RngExt};

use super::alias::Alias;
use super::places::{BackendPlaces, STRIDE};
use super::{Balance, BalanceInput, BalanceMember, pass_over_slow_starters, rendezvous};
use crate::backend_load::BackendLoad;
use crate::candidates::{BackendIndex, Candidates};
use crate::race::MAX_ATTEMPTS;

/// The turns of many backends.
#[derive(Clone, Debug)]
pub struct Crowd {
    members: Box<[BalanceMember]>,
    all_down: bool,
    weights: Box<[u16]>,
    total_weight: u64,
    is_even: bool,
    alias: Alias,
    places: Option<BackendPlaces>,
}

impl Crowd {
    /// Creates the turns of these backends, given as to [`Balancer::new`](super::Balancer::new).
    pub fn new(balance: Balance, backends: impl Iterator<Item = (BackendIndex, u16, u64, bool)> + Clone) -> Self {
        let (members, all_down) = BalanceMember::all(backends);
        let mut weights = vec![1; members.iter().map(|member| member.backend.get() + 1).max().unwrap_or(0)];
        members.iter().for_each(|member| weights[member.backend.get()] = member.weight);
        Self {
            all_down,
            weights: weights.into(),
            total_weight: members.iter().map(|member| u64::from(member.weight)).sum(),
            is_even: members.windows(2).all(|pair| pair[0].weight == pair[1].weight),
            alias: Alias::new(members.iter().map(|member| member.weight)),
            places: (balance == Balance::Hash).then(|| BackendPlaces::new(&members)),
            members,
        }
    }

    /// Returns true if no member took requests when the crowd was built.
    pub fn all_down(&self) -> bool {
        self.all_down
    }

    /// Returns true if the crowd was built with exactly these members, in the given order.
    pub fn is_of(&self, mut taking: impl Iterator<Item = BackendIndex>) -> bool {
        let mut members = self.members.iter().filter(|_| !self.all_down);
        loop {
            match (members.next(), taking.next()) {
                (None, None) => return true,
                (Some(member), Some(backend)) if member.backend == backend => {}
                (Some(_) | None, Some(_) | None) => return false,
            }
        }
    }

    /// Returns the backends that a race may ask, in order, among those that take requests now.
    pub fn candidates(
        &self,
        balance: Balance,
        input: &BalanceInput<'_>,
        takes_queries: impl Fn(BackendIndex) -> bool,
        rng: &mut impl Rng,
    ) -> Candidates {
        if self.members.is_empty() {
            return Candidates::new(true);
        }
        let view = CrowdView { crowd: self, is_asked: |backend| self.all_down || takes_queries(backend) };
        let mut list = match balance {
            Balance::Ordered => view.first(),
            Balance::RoundRobin => view.in_turn(input.turn),
            Balance::Random => view.drawn(rng),
            Balance::Sticky => view.by_affinity(input),
            Balance::Hash => view.by_name(input),
            Balance::LeastLoad => view.better_of_two(input, rng, |backend| {
                let strength = f64::from(self.weight(backend)) * input.share(backend);
                let errors = input.load(backend).map_or(0, |load| load.error_level(input.now));
                (f64::from(input.in_flight(backend)) / strength, f64::from(errors))
            }),
            Balance::Fastest => view.better_of_two(input, rng, |backend| {
                let out = f64::from(input.in_flight(backend));
                let cost = input.load(backend).map_or(0.0, |load| load.cost(input.now));
                (cost * (out / f64::from(self.weight(backend)) + 1.0) / (out + 1.0), 0.0)
            }),
        };
        if list.is_empty() {
            let first = rng.random_range(0..self.members.len());
            let ring = self.members[first..].iter().chain(&self.members[..first]).map(|member| member.backend);
            list = Candidates::of(ring.filter(|backend| (view.is_asked)(*backend)).take(MAX_ATTEMPTS), false);
        }
        if list.is_empty() {
            list = Candidates::of((0..TRIES).map(|_| self.draw(rng.random())), true);
        }
        if !list.all_down() {
            pass_over_slow_starters(&mut list, input, rng);
        }
        list
    }

    fn draw(&self, part: u64) -> BackendIndex {
        self.members[self.alias.at(part)].backend
    }

    fn weight(&self, backend: BackendIndex) -> u16 {
        self.weights.get(backend.get()).copied().unwrap_or(1)
    }
}

struct CrowdView<'a, F> {
    crowd: &'a Crowd,
    is_asked: F,
}

impl<F: Fn(BackendIndex) -> bool> CrowdView<'_, F> {
    fn list(&self, backends: impl Iterator<Item = BackendIndex>) -> Candidates {
        let mut list = Candidates::new(self.crowd.all_down);
        for backend in backends.take(TRIES) {
            if (self.is_asked)(backend) {
                list.push(backend);
            }
            if list.is_full() {
                break;
            }
        }
        list
    }

    fn first(&self) -> Candidates {
        self.list(self.crowd.members.iter().map(|member| member.backend))
    }

    fn in_turn(&self, turn: u64) -> Candidates {
        let Crowd { members, is_even, .. } = self.crowd;
        if *is_even {
            let first = (turn % members.len() as u64) as usize;
            let ring = members[first..].iter().chain(&members[..first]);
            return self.list(ring.map(|member| member.backend));
        }
        self.list((turn..=u64::MAX).map(|turn| self.crowd.draw(turn.wrapping_mul(STRIDE))))
    }

    fn drawn(&self, rng: &mut impl Rng) -> Candidates {
        self.list(std::iter::repeat_with(|| self.crowd.draw(rng.random())))
    }

    fn by_affinity(&self, input: &BalanceInput<'_>) -> Candidates {
        let mut list = self.in_turn(input.turn);
        if let Some(home) = input.remembered.filter(|home| (self.is_asked)(*home)) {
            list.bring_to_front(home);
        }
        list
    }

    fn by_name(&self, input: &BalanceInput<'_>) -> Candidates {
        let Some(places) = &self.crowd.places else { return self.in_turn(input.name) };
        let list = self.list((0..).map_while(|step| places.at(input.name, step)));
        let total = input.out + 1;
        let is_busy = |backend: &BackendIndex| {
            let part = f64::from(self.crowd.weight(*backend)) / self.crowd.total_weight as f64;
            let in_flight = input.load(*backend).map_or(0, BackendLoad::in_flight);
            in_flight >= rendezvous::bound(part, total)
        };
        if !list.iter().any(|backend| is_busy(&backend)) {
            return list;
        }
        let idle = list.iter().filter(|backend| !is_busy(backend));
        Candidates::of(idle.chain(list.iter().filter(is_busy)), list.all_down())
    }

    fn better_of_two(
        &self,
        input: &BalanceInput<'_>,
        rng: &mut impl Rng,
        cost: impl Fn(BackendIndex) -> (f64, f64),
    ) -> Candidates {
        let mut list = self.drawn(rng);
        if let &[one, other, ..] = list.as_slice()
            && cost(other) < cost(one)
        {
            list.bring_to_front(other);
        }
        let is_failing = |backend: &BackendIndex| input.is_failing(*backend);
        if !list.iter().any(|backend| is_failing(&backend)) {
            return list;
        }
        let sound = list.iter().filter(|backend| !is_failing(backend));
        Candidates::of(sound.chain(list.iter().filter(is_failing)), list.all_down())
    }
}

const TRIES: usize = 64;

#[cfg(test)]
mod tests;
