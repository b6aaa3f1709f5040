//! Two backends whose latency shifts under way, on fake time: the delay of a hedge follows, and the budget holds all the while.

use std::time::{Duration, Instant};

use hedgerow::policy::balance::{Balance, Sight, Turns};
use hedgerow::policy::budget::Budget;
use hedgerow::policy::latency::Latency;
use hedgerow::policy::race::{AttemptId, Field, Kind, MAX_ATTEMPTS, Outcome, Race, Step};
use hedgerow::policy::timers::Timers;
use hedgerow::policy::{Dispatch, Hedge, Rank, Rules};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Queries in a second.
const RATE: u32 = 3_000;

/// What will happen to a query, by its number.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It comes.
    Query,
    /// The reply to an attempt comes.
    Reply(usize, AttemptId),
    /// Its race wants to be looked at.
    Wake(usize),
}

/// A query.
struct Query {
    /// Its race.
    race: Race,
    /// Which attempts were given up when the race ended.
    given_up: [bool; MAX_ATTEMPTS],
    /// How long it took.
    took: Option<Duration>,
}

/// A pool of two backends, and its clock.
struct World {
    /// The rules.
    rules: Rules,
    /// What is learnt of the backends.
    latency: [Latency; 2],
    /// What pays for hedges.
    budget: Budget,
    /// What is to come.
    events: Timers<Event>,
    /// The queries so far.
    queries: Vec<Query>,
    /// The attempts so far: all, and the hedges among them.
    attempts: [usize; 2],
    /// The successes so far.
    successes: usize,
    /// Chance.
    rng: StdRng,
}

impl World {
    /// A pool that hedges with this budget.
    fn new(budget: f64, start: Instant) -> Self {
        let rules =
            Rules { dispatch: Dispatch::Hedge, hedge: Hedge { budget, ..Hedge::default() }, ..Rules::default() };
        let mut events = Timers::new();
        events.push(start, Event::Query);
        Self {
            rules,
            latency: [Latency::new(start), Latency::new(start)],
            budget: Budget::new(budget),
            events,
            queries: Vec::new(),
            attempts: [0; 2],
            successes: 0,
            rng: StdRng::seed_from_u64(4),
        }
    }

    /// Runs until `end`, with backends that take this long or up to a tenth more, and each hundredth time half a second.
    /// Looks at the budget all the time, and at the delay from half a second on.
    fn run(&mut self, turns: &Turns, usual: Duration, start: Instant, end: Instant) {
        while let Some((now, event)) = self.events.pop_due(end) {
            match event {
                Event::Query => self.on_query(turns, usual, now),
                Event::Reply(number, attempt) => self.on_reply(number, attempt, usual, now),
                Event::Wake(number) => self.drive(number, usual, now),
            }
            let paid = 10.0 + self.rules.hedge.budget * self.successes as f64;
            assert!(self.attempts[1] as f64 <= paid + 0.01, "{} hedges, {paid} paid", self.attempts[1]);
            if now > start + Duration::from_millis(500) {
                for latency in &self.latency {
                    let delay = latency.hedge_delay(&self.rules.hedge);
                    assert!((usual..usual.mul_f64(1.2)).contains(&delay), "{delay:?} {:?} after", now - start);
                }
            }
        }
    }

    /// A query comes, and the next will.
    fn on_query(&mut self, turns: &Turns, usual: Duration, now: Instant) {
        let number = self.queries.len();
        let sight = Sight { turn: number as u64, ..Sight::new(now) };
        let candidates = turns.candidates(Balance::RoundRobin, &sight, &mut self.rng);
        let field = Field { rules: &self.rules, latency: &self.latency, budget: &self.budget };
        let race = Race::start(&field, &candidates, now);
        self.queries.push(Query { race, given_up: [false; MAX_ATTEMPTS], took: None });
        self.events.push(now + Duration::from_secs(1) / RATE, Event::Query);
        self.drive(number, usual, now);
    }

    /// A reply comes.
    fn on_reply(&mut self, number: usize, attempt: AttemptId, usual: Duration, now: Instant) {
        let query = &mut self.queries[number];
        let asked = query.race.attempt(attempt).expect("only what was asked is answered");
        let latency = &mut self.latency[asked.backend.get()];
        match query.given_up[usize::from(attempt.0)] {
            true => latency.correct(now - asked.asked_at, now),
            false => latency.record(now - asked.asked_at, now),
        }
        query.race.on_reply(attempt, Rank::Positive, now);
        self.drive(number, usual, now);
    }

    /// Does what a race says.
    fn drive(&mut self, number: usize, usual: Duration, now: Instant) {
        loop {
            let field = Field { rules: &self.rules, latency: &self.latency, budget: &self.budget };
            let query = &mut self.queries[number];
            match query.race.next_step(&field, now) {
                Step::Ask { attempt, kind, .. } => {
                    self.attempts[0] += 1;
                    self.attempts[1] += usize::from(kind == Kind::Hedge);
                    let is_slow = self.rng.random_bool(0.01);
                    let takes = usual.mul_f64(self.rng.random_range(1.0..1.1));
                    let takes = if is_slow { Duration::from_millis(500) } else { takes };
                    self.events.push(now + takes, Event::Reply(number, attempt));
                }
                Step::WaitUntil(at) => return self.events.push(at, Event::Wake(number)),
                Step::Finished(outcome) => {
                    if query.took.is_none() {
                        assert!(matches!(outcome, Outcome::Reply(_)));
                        let first = query.race.attempt(AttemptId(0)).expect("somebody was asked");
                        query.took = Some(now - first.asked_at);
                        self.successes += 1;
                        self.budget.earn(1);
                        for attempt in query.race.attempts().filter(|attempt| attempt.open) {
                            query.given_up[usize::from(attempt.id.0)] = true;
                            self.latency[attempt.backend.get()].give_up();
                        }
                    }
                    return;
                }
            }
        }
    }
}

#[test]
fn the_delay_follows_and_the_traffic_stays_within_the_budget() {
    for budget in [0.02, 0.05, 0.1] {
        let start = Instant::now();
        let turns = Turns::new(&[1, 1], &[1, 2], |_| true);
        let mut world = World::new(budget, start);
        for (phase, usual) in [1, 20, 1].map(Duration::from_millis).into_iter().enumerate() {
            let began = start + phase as u32 * PHASE;
            world.run(&turns, usual, began, began + PHASE);
        }
        let queries = world.queries.len() as f64;
        let extra = world.attempts[0] as f64 / queries - 1.0;
        assert!(extra <= budget + 10.0 / queries, "{extra} at {budget}");
        // It is not that nobody hedged: of a stall in a hundred nothing is left but the stall of both.
        let mut took: Vec<_> = world.queries.iter().filter_map(|query| query.took).collect();
        took.sort_unstable();
        let p998 = took[took.len() * 998 / 1_000];
        println!("budget {budget}: {:.4} of the traffic, p99.8 {p998:?}, max {:?}", 1.0 + extra, took[took.len() - 1]);
        assert!(p998 < Duration::from_millis(50), "{p998:?} at {budget}");
    }
}

/// How long a latency lasts.
const PHASE: Duration = Duration::from_secs(5);
