//! Whose turn it is: the order in which a pool's backends are asked.
//!
//! [`Balancer`] is made anew by a worker whenever the set of backends that are up changes; from then on a query costs
//! a copy (ordered, round-robin, sticky) or a look at each backend. Nothing is allocated. What changes from query to
//! query is an argument, [`BalanceInput`]: one count of turns, shared by all workers, makes the rotation exact across them
//! without a lock.
//!
//! With more than [`FEW`] backends it would cost too much to look at each: then there is a [`Crowd`].

mod alias;
mod crowd;
mod places;
mod rendezvous;
mod round;
mod shortlist;

use std::time::Instant;

use rand::{Rng, RngExt};

pub use self::crowd::Crowd;
use self::round::Round;
use self::shortlist::Shortlist;
use super::backend_load::BackendLoad;
use super::candidates::{BackendIndex, Candidates};

/// In which order backends are asked. Weights count in all but `Ordered`; backends that are down are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// As in the config.
    Ordered,
    /// In turn. The others follow as their turns do.
    RoundRobin,
    /// By chance, the others too.
    Random,
    /// Where the name was answered before; a new name in turn. The others follow as their turns do.
    Sticky,
    /// By the hash of the name, unless that backend is overloaded. The others follow as the hash says.
    Hash,
    /// The fewest attempts in flight, then the fewest recent errors, then chance. The others follow in the same order, those that fail last.
    LeastLoad,
    /// The better of two drawn by chance (the power of two choices), by latency and attempts in flight. The others follow, the best first
    /// and those that fail last.
    Fastest,
}

/// What a policy may look at for one query.
#[derive(Clone, Copy, Debug)]
pub struct BalanceInput<'a> {
    /// When the query is looked at.
    pub now: Instant,
    /// The count of turns that all workers share, raised by one for each query that takes a turn.
    pub turn: u64,
    /// The hash of the folded name, the same on all workers.
    pub name: u64,
    /// What each backend has to do. One that is missing here is taken to be idle.
    pub loads: &'a [BackendLoad],
    /// How many attempts all of them have out.
    pub out: u64,
    /// Where the name was answered before, if that is known.
    pub remembered: Option<BackendIndex>,
}

impl BalanceInput<'_> {
    /// Sees nothing but the time.
    pub fn new(now: Instant) -> Self {
        Self { now, turn: 0, name: 0, loads: &[], out: 0, remembered: None }
    }

    /// What a backend has to do.
    fn load(&self, backend: BackendIndex) -> Option<&BackendLoad> {
        self.loads.get(backend.get())
    }

    /// How many attempts it has out.
    fn in_flight(&self, backend: BackendIndex) -> u32 {
        self.load(backend).map_or(0, BackendLoad::in_flight)
    }

    /// True if most of its recent replies are failures.
    fn is_failing(&self, backend: BackendIndex) -> bool {
        self.load(backend).is_some_and(|load| load.is_failing(self.now))
    }

    /// The part of its normal load that it is given.
    fn share(&self, backend: BackendIndex) -> f64 {
        self.load(backend).map_or(1.0, |load| load.share(self.now))
    }
}

/// The turns of the backends that are up; of all, if none is.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// The backends that take turns, in the order of the config.
    members: Box<[Member]>,
    /// The sum of their weights.
    total_weight: u64,
    /// The first members, in the order of the config.
    ordered: Candidates,
    /// Whose turn is when.
    round: Round,
}

/// A backend that takes turns.
#[derive(Clone, Copy, Debug)]
struct Member {
    backend: BackendIndex,
    /// Its part of the load, at least 1.
    weight: u16,
    /// What tells it from others, however the pool changes.
    identity: u64,
}

impl Balancer {
    /// The turns of a pool. Of each backend in the order of the config: `weights`, where 0 is taken as 1, and
    /// `identities`, by which `hash` knows it again when others come and go.
    pub fn new(weights: &[u16], identities: &[u64], up: impl Fn(usize) -> bool) -> Self {
        let backends = (0..=u16::MAX).map(BackendIndex).zip(weights).zip(identities);
        Self::of(backends.map(|((backend, &weight), &identity)| (backend, weight, identity)), |backend| {
            up(backend.get())
        })
    }

    /// The turns of these backends, in the order of the config: which each is, its weight, and its identity.
    pub fn of(
        backends: impl Iterator<Item = (BackendIndex, u16, u64)> + Clone,
        up: impl Fn(BackendIndex) -> bool,
    ) -> Self {
        let all =
            || backends.clone().map(|(backend, weight, identity)| Member { backend, weight: weight.max(1), identity });
        let mut members: Box<[_]> = all().filter(|member| up(member.backend)).collect();
        let all_down = members.is_empty();
        if all_down {
            members = all().collect();
        }
        Self {
            total_weight: members.iter().map(|member| u64::from(member.weight)).sum(),
            ordered: Candidates::of(members.iter().map(|member| member.backend), all_down),
            round: Round::new(&members, all_down),
            members,
        }
    }

    /// Whom a race may ask, in order.
    pub fn candidates(&self, balance: Balance, input: &BalanceInput<'_>, rng: &mut impl Rng) -> Candidates {
        let mut list = match balance {
            Balance::Ordered => self.ordered,
            Balance::RoundRobin => self.in_turn(input),
            Balance::Random => self.draw(rng),
            Balance::Sticky => self.by_affinity(input),
            Balance::Hash => self.by_name(input),
            Balance::LeastLoad => self.by_load(input, rng),
            Balance::Fastest => self.by_cost(input, rng),
        };
        if !list.all_down() {
            pass_over_slow_starters(&mut list, input, rng);
        }
        list
    }

    /// Whose turn it is, and who follows.
    fn in_turn(&self, input: &BalanceInput<'_>) -> Candidates {
        self.round.turn(input.turn).copied().unwrap_or(self.ordered)
    }

    /// Draws members by weight, none of them twice.
    fn draw(&self, rng: &mut impl Rng) -> Candidates {
        let mut drawn = self.nobody();
        let mut total = self.total_weight;
        while total > 0 && !drawn.is_full() {
            let mut draw = rng.random_range(0..total);
            let left = self.members.iter().filter(|member| !drawn.contains(member.backend));
            for member in left {
                let weight = u64::from(member.weight);
                if draw < weight {
                    drawn.push(member.backend);
                    total -= weight;
                    break;
                }
                draw -= weight;
            }
        }
        drawn
    }

    /// Where the name was answered before, then whose turn it is.
    fn by_affinity(&self, input: &BalanceInput<'_>) -> Candidates {
        let mut list = self.in_turn(input);
        let home = input.remembered.filter(|home| self.members.iter().any(|member| member.backend == *home));
        if let Some(home) = home {
            list.bring_to_front(home);
        }
        list
    }

    /// The order in which the members have thrown for the name; those that have enough to do come last.
    fn by_name(&self, input: &BalanceInput<'_>) -> Candidates {
        // This query is going to be one more.
        let total: u64 = 1 + self.members.iter().map(|member| u64::from(input.in_flight(member.backend))).sum::<u64>();
        let keyed = self.members.iter().map(|member| {
            let part = f64::from(member.weight) / self.total_weight as f64;
            let is_busy = input.in_flight(member.backend) >= rendezvous::bound(part, total);
            ((is_busy, rendezvous::hrw_score(member, input.name)), member.backend)
        });
        self.listed(&Shortlist::of(keyed))
    }

    /// By attempts in flight, then recent errors, then weighted chance; those that fail come last.
    fn by_load(&self, input: &BalanceInput<'_>, rng: &mut impl Rng) -> Candidates {
        let keyed = self.members.iter().map(|member| {
            // An idle beginner would be the first choice of all queries, of which its share may be more than its due.
            let strength = f64::from(member.weight) * input.share(member.backend);
            let load = f64::from(input.in_flight(member.backend)) / strength;
            let errors = input.load(member.backend).map_or(0, |load| load.errors().level(input.now));
            // Of exponential variables with the weights as rates, each is the least as often as its weight says.
            let chance = -(1.0 - rng.random::<f64>()).ln() / f64::from(member.weight);
            ((input.is_failing(member.backend), load, errors, chance), member.backend)
        });
        self.listed(&Shortlist::of(keyed))
    }

    /// The cheaper of two drawn members, then all by cost; those that fail come last.
    fn by_cost(&self, input: &BalanceInput<'_>, rng: &mut impl Rng) -> Candidates {
        let cost = |member: &Member| {
            let cost = input.load(member.backend).map_or(0.0, |load| load.cost(input.now)) / f64::from(member.weight);
            (input.is_failing(member.backend), cost)
        };
        let mut list = self.nobody();
        if let [_, _, ..] = *self.members {
            let one = rng.random_range(0..self.members.len());
            let other = (one + rng.random_range(1..self.members.len())) % self.members.len();
            let (one, other) = (&self.members[one], &self.members[other]);
            let better = if cost(one) <= cost(other) { one } else { other };
            // If both fail, another member may not.
            if !input.is_failing(better.backend) {
                list.push(better.backend);
            }
        }
        Shortlist::of(self.members.iter().map(|member| (cost(member), member.backend))).append_to(&mut list);
        list
    }

    /// A list that has nobody yet.
    fn nobody(&self) -> Candidates {
        Candidates::new(self.ordered.all_down())
    }

    /// A list of these.
    fn listed<K: PartialOrd + Copy>(&self, shortlist: &Shortlist<K>) -> Candidates {
        let mut list = self.nobody();
        shortlist.append_to(&mut list);
        list
    }
}

/// Passes over a first choice that is in its slow start, as often as its share says, if another will do.
fn pass_over_slow_starters(list: &mut Candidates, input: &BalanceInput<'_>, rng: &mut impl Rng) {
    let willing = list.iter().find(|&backend| {
        let share = input.share(backend);
        share >= 1.0 || rng.random_bool(share)
    });
    let is_worse = |willing| input.is_failing(willing) && list.get(0).is_some_and(|first| !input.is_failing(first));
    if let Some(willing) = willing.filter(|willing| !is_worse(*willing)) {
        list.bring_to_front(willing);
    }
}

/// So many backends can be looked at for each query.
pub const FEW: usize = 64;

#[cfg(test)]
mod shares;
#[cfg(test)]
mod tests;
