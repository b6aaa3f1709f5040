//! Load balancing: the order in which a pool's backends are asked.
//!
//! A worker builds a new [`Balancer`] when the set of up backends changes; a request then allocates nothing.
//! Above [`FEW`] backends a [`Crowd`] avoids the scan.

mod alias;
mod crowd;
mod places;
mod rendezvous;
mod round;
mod shortlist;
mod tiers;

use std::time::Instant;

use rand::{Rng, RngExt};

pub use self::crowd::Crowd;
use self::round::round;
use self::shortlist::Shortlist;
pub use self::tiers::{TierTurns, TurnEntry, highest_in_use};
use super::backend_load::BackendLoad;
use super::candidates::{BackendIndex, Candidates};

/// The balancing policy of a pool. All except `Ordered` use weights. Backends that are down are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// The given order.
    Ordered,
    /// Round-robin by weight. The other backends follow in the order of their turns.
    RoundRobin,
    /// A weighted random order.
    Random,
    /// The backend that answered the name before; a new name goes by round-robin.
    Sticky,
    /// The backend picked by the hash of the name, unless it is overloaded. The others follow in hash order.
    Hash,
    /// The fewest attempts in flight, then the fewest recent errors, then chance; failing backends last.
    LeastLoad,
    /// The better of two random backends (the power of two choices) by latency and attempts in flight;
    /// failing backends last.
    Fastest,
}

/// The inputs of a policy for one request.
#[derive(Clone, Copy, Debug)]
pub struct BalanceInput<'a> {
    /// The time of the decision.
    pub now: Instant,
    /// The turn counter of all workers, raised by one for each request that takes a turn.
    pub turn: u64,
    /// The hash of what is requested, such as a name or a path, equal on all workers.
    pub name: u64,
    /// The load of each backend. A missing entry counts as idle.
    pub loads: &'a [BackendLoad],
    /// The number of open attempts to all backends.
    pub out: u64,
    /// The backend that answered the name before, if known.
    pub remembered: Option<BackendIndex>,
}

impl BalanceInput<'_> {
    fn load(&self, backend: BackendIndex) -> Option<&BackendLoad> {
        self.loads.get(backend.get())
    }

    fn in_flight(&self, backend: BackendIndex) -> u32 {
        self.load(backend).map_or(0, |load| load.in_flight_of_all(self.now))
    }

    fn is_failing(&self, backend: BackendIndex) -> bool {
        self.load(backend).is_some_and(|load| load.is_failing(self.now))
    }

    fn share(&self, backend: BackendIndex) -> f64 {
        self.load(backend).map_or(1.0, |load| load.share(self.now))
    }
}

/// The turns of the backends that are up; of all backends if none is up.
#[derive(Clone, Debug)]
pub struct Balancer {
    members: Box<[BalanceMember]>,
    total_weight: u64,
    ordered: Candidates,
    /// The candidates of each turn of one round.
    round: Box<[Candidates]>,
}

#[derive(Clone, Copy, Debug)]
struct BalanceMember {
    backend: BackendIndex,
    weight: u16,
    identity: u64,
}

impl BalanceMember {
    /// Returns the members that take turns, or all if none does: then the second value is true.
    fn all(backends: impl Iterator<Item = (BackendIndex, u16, u64, bool)> + Clone) -> (Box<[Self]>, bool) {
        let all_down = !backends.clone().any(|(.., takes_turns)| takes_turns);
        let asked = backends.filter(|(.., takes_turns)| *takes_turns || all_down);
        let member = |(backend, weight, identity, _): (_, u16, _, _)| Self { backend, weight: weight.max(1), identity };
        (asked.map(member).collect(), all_down)
    }
}

impl Balancer {
    /// Creates the turns of these backends in the given order. Each item holds the index, the weight
    /// (0 counts as 1), the identity for `hash`, and true if the backend takes turns.
    pub fn new(backends: impl Iterator<Item = (BackendIndex, u16, u64, bool)> + Clone) -> Self {
        let (members, all_down) = BalanceMember::all(backends);
        Self {
            total_weight: members.iter().map(|member| u64::from(member.weight)).sum(),
            ordered: Candidates::of(members.iter().map(|member| member.backend), all_down),
            round: round(&members, all_down),
            members,
        }
    }

    /// Returns the backends that a race may ask, in order.
    #[inline]
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

    fn in_turn(&self, input: &BalanceInput<'_>) -> Candidates {
        let place = input.turn.checked_rem(self.round.len() as u64);
        place.and_then(|place| self.round.get(place as usize)).copied().unwrap_or(self.ordered)
    }

    fn draw(&self, rng: &mut impl Rng) -> Candidates {
        let mut drawn = self.empty_list();
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

    fn by_affinity(&self, input: &BalanceInput<'_>) -> Candidates {
        let mut list = self.in_turn(input);
        let home = input.remembered.filter(|home| self.members.iter().any(|member| member.backend == *home));
        if let Some(home) = home {
            list.bring_to_front(home);
        }
        list
    }

    fn by_name(&self, input: &BalanceInput<'_>) -> Candidates {
        let total: u64 = 1 + self.members.iter().map(|member| u64::from(input.in_flight(member.backend))).sum::<u64>();
        let keyed = self.members.iter().map(|member| {
            let part = f64::from(member.weight) / self.total_weight as f64;
            let is_busy = input.in_flight(member.backend) >= rendezvous::bound(part, total);
            ((is_busy, rendezvous::hrw_score(member, input.name)), member.backend)
        });
        self.listed(&Shortlist::of(keyed))
    }

    fn by_load(&self, input: &BalanceInput<'_>, rng: &mut impl Rng) -> Candidates {
        let keyed = self.members.iter().map(|member| {
            // An idle backend in slow start would be the first choice of all requests.
            let strength = f64::from(member.weight) * input.share(member.backend);
            let load = f64::from(input.in_flight(member.backend)) / strength;
            let errors = input.load(member.backend).map_or(0, |load| load.error_level(input.now));
            // Of exponential variables with the weights as rates, each is the least in proportion to its
            // weight.
            let chance = -(1.0 - rng.random::<f64>()).ln() / f64::from(member.weight);
            ((input.is_failing(member.backend), load, errors, chance), member.backend)
        });
        self.listed(&Shortlist::of(keyed))
    }

    fn by_cost(&self, input: &BalanceInput<'_>, rng: &mut impl Rng) -> Candidates {
        let cost = |member: &BalanceMember| {
            let cost = input.load(member.backend).map_or(0.0, |load| load.cost(input.now)) / f64::from(member.weight);
            (input.is_failing(member.backend), cost)
        };
        let mut list = self.empty_list();
        if let [_, _, ..] = *self.members {
            let one = rng.random_range(0..self.members.len());
            let other = (one + rng.random_range(1..self.members.len())) % self.members.len();
            let (one, other) = (&self.members[one], &self.members[other]);
            let better = if cost(one) <= cost(other) { one } else { other };
            if !input.is_failing(better.backend) {
                list.push(better.backend);
            }
        }
        Shortlist::of(self.members.iter().map(|member| (cost(member), member.backend))).append_to(&mut list);
        list
    }

    fn empty_list(&self) -> Candidates {
        Candidates::new(self.ordered.all_down())
    }

    fn listed<K: PartialOrd + Copy>(&self, shortlist: &Shortlist<K>) -> Candidates {
        let mut list = self.empty_list();
        shortlist.append_to(&mut list);
        list
    }
}

#[inline]
fn pass_over_slow_starters(list: &mut Candidates, input: &BalanceInput<'_>, rng: &mut impl Rng) {
    let willing = list.iter().find(|&backend| {
        let share = input.share(backend);
        share >= 1.0 || rng.random_bool(share)
    });
    let is_worse = |willing| input.is_failing(willing) && list.get(0).is_some_and(|first| !input.is_failing(first));
    if let Some(willing) = willing.filter(|&willing| list.get(0) != Some(willing) && !is_worse(willing)) {
        list.bring_to_front(willing);
    }
}

/// The largest pool that is scanned for each request.
pub const FEW: usize = 64;

#[cfg(test)]
mod tests;
