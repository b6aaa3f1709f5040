//! An engine that is led by hand: events of any kind in any order, for tests of a whole worker and for the fuzzer.
//!
//! Backends are silent by themselves; each [`Move`] is one event, after which the invariants of the engine are checked. At the end
//! time passes until nobody waits any more.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::event::Happening;
use super::message::{self, Answer};
use super::model::{Model, PoolModel, Scenario};
use super::network::Waiting;
use super::spells::Course;
use super::world::World;
use crate::engine::NotSent;
use crate::metrics::Want;
use crate::policy::health::HealthState;
use crate::policy::query_slots::QuerySlot;
use crate::policy::{Rank, Rules};

/// One event. What it is about is a number, of which the remainder counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A client asks for one of a few names.
    Query {
        /// Which.
        name: u8,
    },
    /// A client that waits asks again.
    Retransmission {
        /// Which.
        client: u8,
    },
    /// A backend replies.
    Reply {
        /// To which of the queries that it was sent.
        slot: u8,
        /// What.
        rank: Rank,
    },
    /// A backend refuses OPT.
    OptRefused {
        /// In reply to which of the queries that it was sent.
        slot: u8,
    },
    /// A failure of twelve octets comes.
    Bare {
        /// To which of the queries that were sent.
        slot: u8,
    },
    /// A reply comes that answers another question.
    Forged {
        /// To which of the queries that were sent.
        slot: u8,
    },
    /// ICMP says that a backend is unreachable.
    Unreachable {
        /// About which of the queries that were sent.
        slot: u8,
    },
    /// A connection ends, and takes with it what waits there.
    Lost {
        /// That on which this one of the queries waits that were sent.
        slot: u8,
        /// Whether it had never been open: it was refused.
        is_refused: bool,
    },
    /// A query that was queued could not leave.
    Unsent {
        /// Which.
        slot: u8,
        /// Whether there is no way to its backend; else something of our own was wanting.
        is_unreachable: bool,
    },
    /// Probes have found a backend to be up, or down.
    Health {
        /// Which.
        backend: u8,
        /// Which of both.
        is_up: bool,
    },
    /// The config is loaded again, with other rules.
    Reload {
        /// Which of those that the script has.
        rules: u8,
    },
    /// Time passes.
    Wait {
        /// So much, milliseconds.
        millis: u16,
    },
}

/// What came of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// Queries that clients have sent, without retransmissions.
    pub queries: usize,
    /// Responses that they got, those that say nothing included.
    pub responses: usize,
    /// Races that have ended.
    pub races: usize,
}

/// Leads an engine with two pools of so many backends each, which have the first of these rules. With a cache, answers have this
/// time to live.
///
/// # Panics
/// If an invariant does not hold, or somebody waits for ever.
pub fn lead(
    rules: &[Rules],
    backends: usize,
    ttl: Option<Duration>,
    start: Instant,
    moves: impl IntoIterator<Item = Move>,
) -> Led {
    let silent = Model { loss: Course::always(1.0), ..Model::default() };
    let first = rules.first().cloned().unwrap_or_default();
    let pool = PoolModel { rules: first.clone(), backends: vec![silent; backends] };
    let usual = Scenario::of_pool(first, Vec::new());
    let scenario = Scenario { pools: vec![pool; 2], queries: 0, ttl, is_audited: true, ..usual };
    let (mut led, mut queries) = (Led::default(), 0);
    let observe = |_, happening: Happening<'_>| match happening {
        Happening::Came | Happening::Replied { .. } | Happening::FailedBare { .. } | Happening::Second { .. } => {}
        Happening::RaceOver(_) => led.races += 1,
        Happening::Responded { .. } => led.responses += 1,
    };
    let mut world = World::new(&scenario, start, 1, observe);
    world.network.asked = Some(HashMap::default());
    for step in moves {
        queries += usize::from(matches!(step, Move::Query { .. }));
        world.make(step, rules);
        world.end_event();
    }
    while !world.has_answered_all() {
        assert!(world.step(), "somebody waits, and nothing is going to happen");
    }
    drop(world);
    led.queries = queries;
    led
}

impl<F: FnMut(Duration, Happening<'_>)> World<'_, F> {
    /// Makes one move.
    fn make(&mut self, step: Move, rules: &[Rules]) {
        let now = self.network.now;
        match step {
            Move::Query { name } => {
                let number = self.came;
                self.came += 1;
                let (name, pool) = (u32::from(name % NAMES), usize::from(name) % 2);
                self.network.clients.insert(number, Waiting { since: now, name, pool, asked: 1, told: 0 });
                self.query(number, name, pool);
            }
            Move::Retransmission { client } => {
                let mut numbers: Vec<_> = self.network.clients.keys().copied().collect();
                numbers.sort_unstable();
                if let Some(number) = chosen(&numbers, client) {
                    self.ask_again(*number);
                }
            }
            Move::Reply { slot, rank } => self.send_back(slot, Answer::Ranked(rank), false),
            Move::OptRefused { slot } => self.send_back(slot, Answer::OptRefused, false),
            Move::Bare { slot } => self.send_back(slot, Answer::Bare, false),
            Move::Forged { slot } => self.send_back(slot, Answer::Ranked(Rank::Positive), true),
            Move::Unreachable { slot } => {
                if let Some(slot) = self.slot(slot) {
                    self.network.strike(slot);
                    self.engine.on_unreachable(&mut self.network, slot.socket(), now);
                }
            }
            Move::Lost { slot, is_refused } => {
                if let Some(slot) = self.slot(slot)
                    && let Some((sockets, taken)) = self.network.take_socket(slot.socket())
                {
                    let (network, engine) = (&mut self.network, &mut self.engine);
                    if is_refused {
                        engine.on_connection_failed(network, sockets, taken, true, now);
                    } else {
                        engine.on_connection_lost(network, sockets, taken, now);
                    }
                }
            }
            Move::Unsent { slot, is_unreachable } => {
                let why = if is_unreachable { NotSent::Unreachable } else { NotSent::Want(Want::System) };
                if let Some(slot) = self.slot(slot)
                    && let Some((sockets, taken_by)) = self.network.withdraw_unsent(slot)
                {
                    self.engine.on_unsent(&mut self.network, sockets, &taken_by, why, now);
                }
            }
            Move::Health { backend, is_up } => {
                let health = if is_up { HealthState::Up } else { HealthState::Down };
                if let Some((shared, pool)) = chosen(&self.known, backend)
                    && shared.set_health(health)
                {
                    pool.announce(shared);
                }
                self.engine.refresh_pools(&mut self.network, now);
            }
            Move::Reload { rules: which } => {
                if let Some(rules) = chosen(rules, which) {
                    self.reload(&vec![rules.clone(); self.scenario.pools.len()]);
                }
            }
            Move::Wait { millis } => {
                let until = now + Duration::from_millis(millis.into());
                while self.next_at().is_some_and(|next| next <= until) {
                    self.step();
                }
                self.network.now = until;
            }
        }
    }

    /// Something comes back to one of the queries that were sent; `is_forged`: that answers another question.
    fn send_back(&mut self, which: u8, answer: Answer, is_forged: bool) {
        let Some(slot) = self.slot(which) else { return };
        let Some(pool) = self.network.backend_of(slot.socket()).map(|backend| self.pool_of(backend)) else { return };
        let asked = self.network.asked.as_ref().and_then(|asked| asked.get(&slot).copied());
        let name = asked.filter(|_| !is_forged).unwrap_or(u32::MAX);
        let now = self.network.now;
        let ttl = self.scenario.ttl.map_or(0, |ttl| ttl.as_secs() as u32);
        message::write_reply(slot.id(), name, pool, answer, ttl, &mut self.message);
        self.engine.on_reply(&mut self.network, slot.socket(), &self.message, now);
    }

    /// One of the slots that are taken.
    fn slot(&self, which: u8) -> Option<QuerySlot> {
        let mut slots: Vec<_> = self.network.slots.taken().collect();
        slots.sort_unstable_by_key(|slot| slot.number());
        chosen(&slots, which).copied()
    }
}

/// The one that a number stands for.
fn chosen<T>(all: &[T], number: u8) -> Option<&T> {
    all.get(usize::from(number).checked_rem(all.len())?)
}

/// Names that are asked for, so few that queries meet.
const NAMES: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Dispatch, Silence};

    /// A pool that asks one backend after the other.
    fn sequential() -> Rules {
        Rules { dispatch: Dispatch::Sequential, ..Rules::default() }
    }

    /// What comes of these moves.
    fn led(rules: &[Rules], moves: &[Move]) -> Led {
        lead(rules, 3, None, Instant::now(), moves.iter().copied())
    }

    #[test]
    fn equal_queries_share_a_race_and_its_reply() {
        let query = Move::Query { name: 0 };
        let reply = Move::Reply { slot: 0, rank: Rank::Positive };
        let led = led(&[sequential()], &[query, query, query, reply]);
        assert_eq!(led, Led { queries: 3, responses: 3, races: 1 });
    }

    #[test]
    fn each_query_has_its_response_though_nobody_replies() {
        for on_timeout in [Silence::Nxdomain, Silence::Servfail, Silence::Refused, Silence::Drop] {
            let rules = Rules { on_timeout, ..sequential() };
            let moves = [0, 1, 2].map(|name| Move::Query { name });
            assert_eq!(led(&[rules], &moves), Led { queries: 3, responses: 3, races: 3 });
        }
    }

    #[test]
    fn reloads_and_deaths_under_way_leave_nobody_waiting() {
        let other = Rules { dispatch: Dispatch::Race, ..Rules::default() };
        let moves = [
            Move::Query { name: 0 },
            Move::Query { name: 1 },
            Move::Reload { rules: 1 },
            Move::Query { name: 0 },
            Move::Query { name: 2 },
            Move::Unreachable { slot: 0 },
            Move::Health { backend: 0, is_up: false },
            Move::Retransmission { client: 0 },
            Move::Wait { millis: 400 },
            Move::Unsent { slot: 1, is_unreachable: true },
            Move::Query { name: 3 },
            Move::Lost { slot: 0, is_refused: false },
            Move::Lost { slot: 1, is_refused: true },
            Move::Reply { slot: 0, rank: Rank::Nxdomain },
            Move::Reload { rules: 0 },
        ];
        let led = led(&[sequential(), other], &moves);
        assert_eq!((led.queries, led.responses), (5, 5));
    }

    #[test]
    fn forgeries_win_nothing() {
        let forged = Move::Forged { slot: 0 };
        let led = led(
            &[sequential()],
            &[Move::Query { name: 0 }, forged, forged, Move::Reply { slot: 0, rank: Rank::Positive }],
        );
        assert_eq!(led, Led { queries: 1, responses: 1, races: 1 });
    }
}
