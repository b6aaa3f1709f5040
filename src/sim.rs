//! Races on a fake clock, among modelled backends.
//!
//! [`run`] drives the very values that the forwarder drives, [`Race`], [`Turns`], [`Latency`] and
//! [`Budget`], through a [`Scenario`] and reports what every query met with. No socket, no thread, and no
//! time of its own: a scenario and a seed make the same report each time.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::policy::balance::{Sight, Turns};
use crate::policy::budget::Budget;
use crate::policy::latency::Latency;
use crate::policy::race::{AttemptId, BackendIndex, Field, Heard, Kind, MAX_ATTEMPTS, OptRefusal, Outcome, Race, Step};
use crate::policy::timers::Timers;
use crate::policy::{Rank, Rules};

/// A pool, and the queries that come to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The rules of the pool.
    pub rules: Rules,
    /// Its backends.
    pub backends: Vec<Model>,
    /// How many queries come, each for a name of its own.
    pub queries: usize,
    /// The mean time between two of them.
    pub gap: Duration,
    /// How long a client waits before it asks again, if it does.
    pub resend: Option<Duration>,
}

/// How a backend behaves. The default knows every name and replies after a millisecond.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its weight in the pool.
    pub weight: u16,
    /// Whether the pool takes it for up.
    pub up: bool,
    /// How long it takes to reply, typically. It scatters about this exponentially.
    pub delay: Duration,
    /// The chance that a reply takes a hundred times as long.
    pub tail: f64,
    /// The chance that a datagram of an attempt is lost.
    pub loss: f64,
    /// The chance that it knows a name; it knows it in each attempt, or in none.
    pub knows: f64,
    /// Its reply to a name that it does not know; `None`: silence.
    pub miss: Option<Rank>,
    /// The chance that an attempt fails, with a reply that says so.
    pub failure: f64,
    /// The chance that a bare failure comes before the reply.
    pub bare: f64,
    /// The chance that an attempt ends with an ICMP error.
    pub unreachable: f64,
    /// Whether it refuses OPT.
    pub refuses_opt: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            weight: 1,
            up: true,
            delay: Duration::from_millis(1),
            tail: 0.0,
            loss: 0.0,
            knows: 1.0,
            miss: Some(Rank::Nxdomain),
            failure: 0.0,
            bare: 0.0,
            unreachable: 0.0,
            refuses_opt: false,
        }
    }
}

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What each query met with, in the order of their coming.
    pub queries: Vec<Record>,
    /// How many replies filled the hedge budget.
    pub successes: u64,
}

/// What one query met with. Times count from the coming of the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When its client must have the response.
    pub deadline: Duration,
    /// The attempts.
    pub asked: Vec<Asked>,
    /// The replies, those that came too late included.
    pub replies: Vec<Reply>,
    /// Whether a bare failure came while the race ran.
    pub bare_failure: bool,
    /// How often a hedge was due but denied.
    pub hedges_denied: u8,
    /// Each outcome that the race has had, and when. There must be exactly one.
    pub outcomes: Vec<(Duration, Outcome)>,
}

/// One attempt of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// When.
    pub at: Duration,
    /// Who.
    pub backend: BackendIndex,
    /// Why.
    pub kind: Kind,
    /// Whether with OPT.
    pub edns: bool,
}

/// One reply of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reply {
    /// When.
    pub at: Duration,
    /// To which attempt.
    pub attempt: AttemptId,
    /// Its rank.
    pub rank: Rank,
    /// What the race made of it.
    pub heard: Heard,
}

/// Runs a scenario from `start` to its end.
pub fn run(scenario: &Scenario, start: Instant, seed: u64) -> Report {
    let weights: Vec<_> = scenario.backends.iter().map(|model| model.weight).collect();
    let identities: Vec<_> = (0..weights.len() as u64).collect();
    let mut world = World {
        scenario,
        rng: StdRng::seed_from_u64(seed),
        turns: Turns::new(&weights, &identities, |backend| scenario.backends[backend].up),
        latency: vec![Latency::new(start); weights.len()],
        budget: Budget::new(scenario.rules.hedge.budget),
        successes: 0,
        events: Timers::new(),
        queries: Vec::with_capacity(scenario.queries),
        now: start,
    };
    world.events.push(start, Event::Query);
    while let Some(at) = world.events.peek() {
        world.now = at;
        if let Some((_, event)) = world.events.pop_due(at) {
            world.on_event(event);
        }
    }
    Report { queries: world.queries.into_iter().map(|query| query.record).collect(), successes: world.successes }
}

/// Something that is going to happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The next query comes.
    Query,
    /// The client of this query asks again.
    Retransmission(usize),
    /// The race of this query wanted to be woken.
    Wake(usize),
    /// Something comes back to an attempt of this query.
    Back(usize, AttemptId, Back),
}

/// What comes back to an attempt.
#[derive(Clone, Copy, Debug)]
enum Back {
    /// A reply.
    Reply(Rank),
    /// FORMERR, because of OPT.
    OptRefused,
    /// Twelve octets.
    Bare,
    /// ICMP.
    Unreachable,
}

/// One query and its race.
#[derive(Debug)]
struct Query {
    /// When it came.
    came: Instant,
    /// Its race.
    race: Race,
    /// Which backends know its name.
    known_by: Vec<bool>,
    /// When the race wants to be woken. Timers for another time are stale.
    wake: Instant,
    /// What beaten attempts were charged.
    charged: [Option<Duration>; MAX_ATTEMPTS],
    /// What it meets with.
    record: Record,
}

/// Everything there is, now.
struct World<'a> {
    /// What is played.
    scenario: &'a Scenario,
    /// All chance.
    rng: StdRng,
    /// Whose turn it is.
    turns: Turns,
    /// The latency of each backend.
    latency: Vec<Latency>,
    /// What pays for hedges.
    budget: Budget,
    /// How many replies filled the budget.
    successes: u64,
    /// What is going to happen.
    events: Timers<Event>,
    /// The queries that have come.
    queries: Vec<Query>,
    /// The fake clock.
    now: Instant,
}

impl World<'_> {
    /// Something happens now.
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Query => self.on_query(),
            Event::Retransmission(number) => {
                if !self.queries[number].race.is_finished() {
                    self.queries[number].race.on_retransmission();
                    self.drain(number);
                }
            }
            Event::Wake(number) => {
                let query = &self.queries[number];
                if query.wake == self.now && !query.race.is_finished() {
                    self.drain(number);
                }
            }
            Event::Back(number, attempt, back) => self.on_back(number, attempt, back),
        }
    }

    /// A query comes.
    fn on_query(&mut self) {
        let number = self.queries.len();
        if number == self.scenario.queries {
            return;
        }
        let rules = &self.scenario.rules;
        let sight = Sight { turn: number as u64, ..Sight::new(self.now) };
        let candidates = self.turns.candidates(rules.balance, &sight, &mut self.rng);
        let field = Field { rules, latency: &self.latency, budget: &self.budget };
        let race = Race::start(&field, &candidates, self.now);
        let models = &self.scenario.backends;
        self.queries.push(Query {
            came: self.now,
            known_by: models.iter().map(|model| self.rng.random_bool(model.knows)).collect(),
            wake: self.now,
            charged: [None; MAX_ATTEMPTS],
            record: Record { deadline: race.deadline() - self.now, ..Record::default() },
            race,
        });
        let gap = scatter(self.scenario.gap, &mut self.rng);
        self.events.push(self.now + gap, Event::Query);
        if let Some(wait) = self.scenario.resend {
            self.events.push(self.now + wait, Event::Retransmission(number));
        }
        self.drain(number);
    }

    /// Something comes back to an attempt.
    fn on_back(&mut self, number: usize, attempt: AttemptId, back: Back) {
        let query = &mut self.queries[number];
        let before = query.race.is_finished();
        match back {
            Back::Reply(rank) => self.on_reply(number, attempt, rank),
            Back::OptRefused => match query.race.on_opt_refused(attempt) {
                OptRefusal::AskedAgain => {}
                OptRefusal::IsFailure => self.on_reply(number, attempt, Rank::Failure),
            },
            Back::Bare => {
                query.record.bare_failure |= !before;
                query.race.on_bare_failure(attempt);
            }
            Back::Unreachable => query.race.on_failure(attempt),
        }
        // A late one must change nothing: if it does, there is a second outcome.
        if !before || !self.queries[number].race.is_finished() {
            self.drain(number);
        }
    }

    /// A reply comes to an attempt.
    fn on_reply(&mut self, number: usize, attempt: AttemptId, rank: Rank) {
        let query = &mut self.queries[number];
        if let Some(asked) = query.race.attempt(attempt) {
            let took = self.now - asked.asked_at;
            let latency = &mut self.latency[asked.backend.get()];
            match query.charged[usize::from(attempt.0)].take() {
                Some(_) => latency.correct(took, self.now),
                None => latency.record(took, self.now),
            }
        }
        if rank > Rank::Failure {
            self.budget.earn(1);
            self.successes += 1;
        }
        let heard = query.race.on_reply(attempt, rank, self.now);
        query.record.replies.push(Reply { at: self.now - query.came, attempt, rank, heard });
    }

    /// Lets a race take its steps until it waits or is finished.
    fn drain(&mut self, number: usize) {
        loop {
            let field = Field { rules: &self.scenario.rules, latency: &self.latency, budget: &self.budget };
            let query = &mut self.queries[number];
            match query.race.next_step(&field, self.now) {
                Step::Ask { attempt, backend, kind, edns } => {
                    query.record.asked.push(Asked { at: self.now - query.came, backend, kind, edns });
                    self.send(number, attempt, backend, edns);
                }
                Step::WaitUntil(wake) => {
                    assert!(self.now < wake && wake <= query.race.deadline(), "a race waits for {wake:?}");
                    query.wake = wake;
                    self.events.push(wake, Event::Wake(number));
                    return;
                }
                Step::Finished(outcome) => {
                    query.record.outcomes.push((self.now - query.came, outcome));
                    query.record.hedges_denied = query.race.hedges_denied();
                    charge_losers(query, &mut self.latency, self.now);
                    return;
                }
            }
        }
    }

    /// An attempt goes out: what is going to come back, and when?
    fn send(&mut self, number: usize, attempt: AttemptId, backend: BackendIndex, edns: bool) {
        let model = &self.scenario.backends[backend.get()];
        let rng = &mut self.rng;
        let slow = if rng.random_bool(model.tail) { 100 } else { 1 };
        let mut arrival = self.now + slow * scatter(model.delay, rng);
        if rng.random_bool(model.loss) {
            return;
        }
        if rng.random_bool(model.bare) {
            self.events.push(arrival, Event::Back(number, attempt, Back::Bare));
            arrival += scatter(model.delay, rng);
        }
        let back = if rng.random_bool(model.unreachable) {
            Some(Back::Unreachable)
        } else if edns && model.refuses_opt {
            Some(Back::OptRefused)
        } else if rng.random_bool(model.failure) {
            Some(Back::Reply(Rank::Failure))
        } else if self.queries[number].known_by[backend.get()] {
            Some(Back::Reply(Rank::Positive))
        } else {
            model.miss.map(Back::Reply)
        };
        if let Some(back) = back {
            self.events.push(arrival, Event::Back(number, attempt, back));
        }
    }
}

/// Charges the attempts that were beaten for the time that they had lost by then.
fn charge_losers(query: &mut Query, latency: &mut [Latency], now: Instant) {
    for attempt in query.race.attempts().filter(|attempt| attempt.open) {
        let lost = now - attempt.asked_at;
        latency[attempt.backend.get()].give_up();
        query.charged[usize::from(attempt.id.0)] = Some(lost);
    }
}

/// A time that is half fixed and half exponential, with this mean.
fn scatter(mean: Duration, rng: &mut StdRng) -> Duration {
    let part: f64 = rng.random();
    mean.mul_f64(0.5 - 0.5 * (1.0 - part).ln())
}
