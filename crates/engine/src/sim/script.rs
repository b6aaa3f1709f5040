//! An engine driven by scripts: events of any kind in any order, for tests of a whole worker and for the
//! fuzzer.
//!
//! Backends only reply by a [`ScriptEvent`]. Each move is one event, after which the invariants of the engine
//! are checked. At the end time passes until no client waits.

use std::time::{Duration, Instant};

use config::{PoolRules, Rank};
use hashbrown::HashMap;
use metrics::Want;

use super::event::Happening;
use super::message::ModelAnswer;
use super::model::{BackendModel, PoolModel, Scenario};
use super::network::set_of;
use super::spells::Course;
use super::world::SimulatedWorld;
use crate::NotSent;
use crate::query_slots::QuerySlot;

/// One event. Its target is a number modulo the number of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptEvent {
    /// A client asks for one of a few names.
    Query {
        /// The number of the name.
        name: u8,
    },
    /// A waiting client retransmits.
    Retransmission {
        /// The number of the client.
        client: u8,
    },
    /// A backend replies.
    Reply {
        /// The query that it answers.
        slot: u8,
        /// The rank of the reply.
        rank: Rank,
    },
    /// A backend refuses OPT.
    OptRefused {
        /// The query that it answers.
        slot: u8,
    },
    /// A failure arrives that is only a header.
    Bare {
        /// The query that it answers.
        slot: u8,
    },
    /// A reply arrives that answers another question.
    Forged {
        /// The query that it pretends to answer.
        slot: u8,
    },
    /// An ICMP error arrives: the backend is unreachable.
    Unreachable {
        /// The query that the error is about.
        slot: u8,
    },
    /// A connection ends with everything that waits there.
    Lost {
        /// A query on that connection.
        slot: u8,
        /// True if the connection was refused and never open.
        is_refused: bool,
    },
    /// A queued query could not be sent.
    Unsent {
        /// The number of its slot.
        slot: u8,
        /// True if there is no route to the backend; false if a local resource is missing.
        is_unreachable: bool,
    },
    /// Probes have found a backend to be up or down.
    Health {
        /// The number of the backend.
        backend: u8,
        /// True if the backend is up.
        is_up: bool,
    },
    /// The config is reloaded with other rules.
    Reload {
        /// The entry among the rules of the script.
        rules: u8,
    },
    /// Time passes.
    Wait {
        /// The duration in milliseconds.
        millis: u16,
    },
}

/// The result of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScriptResult {
    /// The queries sent by clients, without retransmissions.
    pub queries: usize,
    /// The responses to them, including silent ones.
    pub responses: usize,
    /// The races that have ended.
    pub races: usize,
}

/// Drives an engine with two pools of `backends` backends each, which start with the first of the rules. With
/// a cache, answers have the time to live `ttl`.
///
/// # Panics
/// If an invariant does not hold, or a client waits for ever.
pub fn lead(
    rules: &[PoolRules],
    backends: usize,
    ttl: Option<Duration>,
    start: Instant,
    moves: impl IntoIterator<Item = ScriptEvent>,
) -> ScriptResult {
    let silent = BackendModel { loss: Course::always(1.0), ..BackendModel::default() };
    let first = rules.first().cloned().unwrap_or_default();
    let pool = PoolModel { rules: first.clone(), backends: vec![silent; backends] };
    let usual = Scenario::of_pool(first, Vec::new());
    let scenario = Scenario { pools: vec![pool; 2], queries: 0, ttl, is_audited: true, ..usual };
    let (mut led, mut queries) = (ScriptResult::default(), 0);
    let observe = |_, happening: Happening<'_>| match happening {
        Happening::Came
        | Happening::Replied { .. }
        | Happening::RepliedLate(_)
        | Happening::FailedBare { .. }
        | Happening::Second { .. } => {}
        Happening::RaceOver(_) => led.races += 1,
        Happening::Responded { .. } => led.responses += 1,
    };
    let mut world = SimulatedWorld::new(&scenario, start, 1, observe);
    world.network.sockets_mut().asked = Some(HashMap::default());
    for step in moves {
        queries += usize::from(matches!(step, ScriptEvent::Query { .. }));
        world.make(step, rules);
        world.end_event();
    }
    while !world.has_answered_all() {
        assert!(world.step(), "a task waits for an event that cannot happen");
    }
    drop(world);
    led.queries = queries;
    led
}

impl<F: FnMut(Duration, Happening<'_>)> SimulatedWorld<'_, F> {
    fn make(&mut self, step: ScriptEvent, rules: &[PoolRules]) {
        let now = self.network.now;
        match step {
            ScriptEvent::Query { name } => {
                let (name, pool) = (u32::from(name % NAMES), usize::from(name) % 2);
                let number = self.add_client(name, pool);
                self.query(number, name, pool);
            }
            ScriptEvent::Retransmission { client } => {
                let mut numbers: Vec<_> = self.network.clients.keys().copied().collect();
                numbers.sort_unstable();
                if let Some(number) = chosen(&numbers, client) {
                    self.ask_again(*number);
                }
            }
            ScriptEvent::Reply { slot, rank } => self.send_back(slot, ModelAnswer::Ranked(rank), false),
            ScriptEvent::OptRefused { slot } => self.send_back(slot, ModelAnswer::OptRefused, false),
            ScriptEvent::Bare { slot } => self.send_back(slot, ModelAnswer::Bare, false),
            ScriptEvent::Forged { slot } => self.send_back(slot, ModelAnswer::Ranked(Rank::Positive), true),
            ScriptEvent::Unreachable { slot } => {
                if let Some(slot) = self.slot(slot) {
                    self.on_unreachable(slot);
                }
            }
            ScriptEvent::Lost { slot, is_refused } => self.lose_connection(slot, is_refused),
            ScriptEvent::Unsent { slot, is_unreachable } => {
                let why = if is_unreachable { NotSent::Unreachable } else { NotSent::Want(Want::System) };
                if let Some(slot) = self.slot(slot) {
                    self.network.left(slot);
                    self.tick().on_unsent(set_of(slot.socket()), slot, why);
                }
            }
            ScriptEvent::Health { backend, is_up } => {
                if let Some(backend) = usize::from(backend).checked_rem(self.known.len()) {
                    self.set_health(backend, is_up);
                }
            }
            ScriptEvent::Reload { rules: which } => {
                if let Some(rules) = chosen(rules, which) {
                    self.reload(&vec![rules.clone(); self.scenario.pools.len()]);
                }
            }
            ScriptEvent::Wait { millis } => {
                let until = now + Duration::from_millis(millis.into());
                while self.next_at().is_some_and(|next| next <= until) {
                    self.step();
                }
                self.network.now = until;
            }
        }
    }

    fn lose_connection(&mut self, which: u8, is_refused: bool) {
        let taken = self.slot(which).and_then(|slot| self.network.take_socket(slot.socket()));
        let Some((sockets, taken)) = taken else { return };
        if is_refused {
            self.tick().on_connection_failed(sockets, &taken, true);
        } else {
            self.tick().on_connection_lost(sockets, &taken);
        }
    }

    /// Sends a reply to one of the pending queries. If `is_forged`, the reply answers another question.
    fn send_back(&mut self, which: u8, answer: ModelAnswer, is_forged: bool) {
        let Some(slot) = self.slot(which) else { return };
        let asked = self.network.sockets().asked.as_ref().and_then(|asked| asked.get(&slot).copied());
        let name = asked.filter(|_| !is_forged).unwrap_or(u32::MAX);
        self.send_reply(slot, name, answer);
    }

    fn slot(&self, which: u8) -> Option<QuerySlot> {
        let slots: Vec<_> = self.network.sockets().taken.iter().copied().collect();
        chosen(&slots, which).copied()
    }
}

/// Returns the element at `number` modulo the length.
fn chosen<T>(all: &[T], number: u8) -> Option<&T> {
    all.get(usize::from(number).checked_rem(all.len())?)
}

/// The number of names, so few that queries meet.
const NAMES: u8 = 6;

#[cfg(test)]
mod tests {
    use config::Silence;
    use hedge::{Dispatch, RaceRules};

    use super::*;

    fn sequential() -> PoolRules {
        PoolRules { race: RaceRules { dispatch: Dispatch::Sequential, ..RaceRules::default() }, ..PoolRules::default() }
    }

    fn led(rules: &[PoolRules], moves: &[ScriptEvent]) -> ScriptResult {
        lead(rules, 3, None, Instant::now(), moves.iter().copied())
    }

    #[test]
    fn equal_queries_share_a_race_and_its_reply() {
        let query = ScriptEvent::Query { name: 0 };
        let reply = ScriptEvent::Reply { slot: 0, rank: Rank::Positive };
        let led = led(&[sequential()], &[query, query, query, reply]);
        assert_eq!(led, ScriptResult { queries: 3, responses: 3, races: 1 });
    }

    #[test]
    fn each_query_has_its_response_though_nobody_replies() {
        for on_timeout in [Silence::Nxdomain, Silence::Servfail, Silence::Refused, Silence::Drop] {
            let rules = PoolRules { on_timeout, ..sequential() };
            let moves = [0, 1, 2].map(|name| ScriptEvent::Query { name });
            assert_eq!(led(&[rules], &moves), ScriptResult { queries: 3, responses: 3, races: 3 });
        }
    }

    #[test]
    fn reloads_and_deaths_under_way_leave_nobody_waiting() {
        let other =
            PoolRules { race: RaceRules { dispatch: Dispatch::Race, ..RaceRules::default() }, ..PoolRules::default() };
        let moves = [
            ScriptEvent::Query { name: 0 },
            ScriptEvent::Query { name: 1 },
            ScriptEvent::Reload { rules: 1 },
            ScriptEvent::Query { name: 0 },
            ScriptEvent::Query { name: 2 },
            ScriptEvent::Unreachable { slot: 0 },
            ScriptEvent::Health { backend: 0, is_up: false },
            ScriptEvent::Retransmission { client: 0 },
            ScriptEvent::Wait { millis: 400 },
            ScriptEvent::Unsent { slot: 1, is_unreachable: true },
            ScriptEvent::Query { name: 3 },
            ScriptEvent::Lost { slot: 0, is_refused: false },
            ScriptEvent::Lost { slot: 1, is_refused: true },
            ScriptEvent::Reply { slot: 0, rank: Rank::Nxdomain },
            ScriptEvent::Reload { rules: 0 },
        ];
        let led = led(&[sequential(), other], &moves);
        assert_eq!((led.queries, led.responses), (5, 5));
    }

    #[test]
    fn forgeries_win_nothing() {
        let forged = ScriptEvent::Forged { slot: 0 };
        let led = led(
            &[sequential()],
            &[ScriptEvent::Query { name: 0 }, forged, forged, ScriptEvent::Reply { slot: 0, rank: Rank::Positive }],
        );
        assert_eq!(led, ScriptResult { queries: 1, responses: 1, races: 1 });
    }
}
