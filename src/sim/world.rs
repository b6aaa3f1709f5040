//! Everything there is in a scenario, and what happens in it, one event after the other.
//!
//! What `forwarder` does with datagrams, this does with events: it starts races, does what they say, tells them what comes
//! back, and learns from it.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::backend::{Backend, Fate};
use super::delay::exponential;
use super::event::{Back, Event, Happening};
use super::model::Scenario;
use super::pool::Pool;
use super::prober::{Errand, Prober};
use super::slab::{Key, Slab};
use super::spells::Unfolding;
use crate::policy::backend_load::End;
use crate::policy::race::{AttemptId, BackendIndex, Heard, MAX_ATTEMPTS, OptRefusal, Outcome, Race, Step};
use crate::policy::timers::Timers;
use crate::policy::{Dispatch, Rank};

/// Plays a scenario from `start` to its end. `observe` is told what happens: to which query, in the order of their coming,
/// and how long after that one came.
pub fn play(scenario: &Scenario, start: Instant, seed: u64, observe: impl FnMut(usize, Duration, Happening)) {
    let mut world = World::new(scenario, start, seed, observe);
    world.schedule(start, Event::Query);
    if scenario.is_probed {
        backend_indexes(scenario).for_each(|backend| world.look_after(backend));
    }
    world.schedule(start + SECOND, Event::Second);
    // Probes and seconds go on for ever.
    while !world.is_over()
        && let Some(at) = world.events.peek()
    {
        world.now = at;
        if let Some((_, event)) = world.events.pop_due(at) {
            world.on_event(event);
        }
    }
}

/// One query and its race.
#[derive(Debug)]
struct Query {
    /// The number of the query.
    number: usize,
    /// When it came.
    came: Instant,
    /// Its race.
    race: Race,
    /// When the race is going to be woken. Timers for another time are stale.
    armed: Option<Instant>,
    /// Which attempts count as in flight, a bit for each.
    out: u8,
    /// Of which of them the backend's latency was charged with being late.
    charged: u8,
    /// The rank of the best reply so far.
    best: Option<Rank>,
}

/// Everything there is, now.
struct World<'a, F> {
    /// What is played.
    scenario: &'a Scenario,
    /// Who is told.
    observe: F,
    /// When it began.
    start: Instant,
    /// The fake clock.
    now: Instant,
    /// When queries come. Chances of one kind have a generator of their own, so that all policies meet the same queries.
    arrivals: Xoshiro256PlusPlus,
    /// Tells which names a backend knows.
    knowledge: u64,
    /// The backends.
    backends: Vec<Backend<'a>>,
    /// Who watches them; nobody if they are not probed.
    probers: Vec<Prober>,
    /// How slow everything is.
    slow: Unfolding<'a, f64>,
    /// What is known of them.
    pool: Pool<'a>,
    /// How many queries have come.
    came: usize,
    /// What is going to happen.
    events: Timers<Event>,
    /// The queries that are not over, or that something may still come back to.
    queries: Slab<Query>,
}

impl<'a, F: FnMut(usize, Duration, Happening)> World<'a, F> {
    /// A world in which nothing has happened.
    fn new(scenario: &'a Scenario, start: Instant, seed: u64, observe: F) -> Self {
        let mut seeds = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut seeds = || seeds.random();
        let arrivals = Xoshiro256PlusPlus::seed_from_u64(seeds());
        let pool = Pool::new(scenario, seeds(), start);
        let knowledge = seeds();
        let slow = Unfolding::new(&scenario.slow, &mut seeds);
        let backends: Vec<_> = scenario.backends.iter().map(|model| Backend::new(model, &mut seeds)).collect();
        let probed = if scenario.is_probed { backends.len() } else { 0 };
        Self {
            scenario,
            observe,
            start,
            now: start,
            arrivals,
            pool,
            knowledge,
            probers: (0..probed).map(|_| Prober::new(scenario.rules.health, start)).collect(),
            slow,
            came: 0,
            events: Timers::new(),
            queries: Slab::new(),
            backends,
        }
    }

    /// Whether all queries have come and gone.
    fn is_over(&self) -> bool {
        self.came == self.scenario.queries && self.queries.is_empty()
    }

    /// Something happens now.
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Query => self.on_query(),
            Event::Second => {
                self.pool.on_second();
                self.schedule(self.now + SECOND, Event::Second);
            }
            Event::Retransmission(key) => {
                if let Some(query) = self.queries.get_mut(key).filter(|query| !query.race.is_finished()) {
                    query.race.on_retransmission();
                    self.drive(key);
                }
            }
            Event::Wake(key) => {
                let now = self.now;
                if let Some(query) = self.queries.get_mut(key).filter(|query| query.armed == Some(now)) {
                    query.armed = None;
                    if !query.race.is_finished() {
                        self.drive(key);
                    }
                }
            }
            Event::Back(key, attempt, back) => self.on_back(key, attempt, back),
            Event::Forget(key) => self.on_forget(key),
            Event::Probe(backend) => {
                if self.probers[backend.get()].is_woken_at(self.now) {
                    self.look_after(backend);
                }
            }
            Event::ProbeBack { backend, probe, is_reply } => {
                let prober = &mut self.probers[backend.get()];
                match is_reply {
                    _ if !prober.is_out(probe) => return,
                    true => prober.health.on_probe_reply(self.now),
                    false => prober.health.on_probe_unreachable(self.now),
                }
                self.look_after(backend);
            }
        }
    }

    /// A query comes.
    fn on_query(&mut self) {
        let number = self.came;
        if number == self.scenario.queries {
            return;
        }
        self.came += 1;
        let gap = exponential(self.scenario.gap, &mut self.arrivals);
        self.schedule(self.now + gap, Event::Query);
        self.count_for_probes();
        let candidates = self.pool.candidates(self.now);
        let race = Race::start(&self.pool.race_context(), &candidates, self.now);
        (self.observe)(number, Duration::ZERO, Happening::Came { deadline: race.deadline() - self.now });
        let query = Query { number, came: self.now, race, armed: None, out: 0, charged: 0, best: None };
        let key = self.queries.insert(query);
        if let Some(wait) = self.scenario.resend {
            self.schedule(self.now + wait, Event::Retransmission(key));
        }
        self.drive(key);
    }

    /// Something comes back to an attempt.
    fn on_back(&mut self, key: Key, attempt: AttemptId, back: Back) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let before = query.race.is_finished();
        match back {
            Back::Reply(rank) => {
                self.learn(key, attempt, rank == Rank::Failure);
                self.judge(key, attempt, rank);
            }
            Back::OptRefused => {
                self.learn(key, attempt, true);
                let refusal = self.queries.get_mut(key).map(|query| query.race.on_opt_refused(attempt));
                match refusal {
                    Some(OptRefusal::IsFailure) => self.judge(key, attempt, Rank::Failure),
                    Some(OptRefusal::AskedAgain) | None => {}
                }
            }
            Back::Bare => {
                query.race.on_bare_failure(attempt);
                (self.observe)(query.number, self.now - query.came, Happening::FailedBare);
            }
            Back::Unreachable => return self.on_unreachable(key, attempt),
        }
        let Some(query) = self.queries.get_mut(key) else { return };
        // A late one must change nothing: if it does, there is a second outcome.
        if !before || !query.race.is_finished() {
            self.drive(key);
        }
        self.remove_if_over(key);
    }

    /// Learns from a reply: how long the backend takes, whether it works, and that it is up.
    fn learn(&mut self, key: Key, attempt: AttemptId, is_error: bool) {
        let end = if is_error { End::Failure } else { End::Reply };
        let Some(backend) = self.ended(key, attempt, end) else { return };
        if !self.pool.is_up(backend)
            && let Some(prober) = self.probers.get_mut(backend.get())
        {
            prober.health.on_reply(self.now);
            self.look_after(backend);
        }
    }

    /// An attempt has ended, perhaps long after its race. Returns its backend if that is news.
    fn ended(&mut self, key: Key, attempt: AttemptId, end: fn(Duration) -> End) -> Option<BackendIndex> {
        let query = self.queries.get_mut(key)?;
        let asked = query.race.attempt(attempt)?;
        let is_charged = take_bit(&mut query.charged, attempt);
        if !take_bit(&mut query.out, attempt) {
            return None;
        }
        self.pool.ended(asked.backend, end(self.now - asked.asked_at), is_charged, self.now);
        Some(asked.backend)
    }

    /// Lets a race judge a reply.
    fn judge(&mut self, key: Key, attempt: AttemptId, rank: Rank) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let heard = query.race.on_reply(attempt, rank, self.now);
        match heard {
            Heard::Accepted | Heard::Kept => query.best = Some(rank),
            Heard::NotNeeded => {}
        }
        (self.observe)(query.number, self.now - query.came, Happening::Replied { attempt, rank, heard });
    }

    /// ICMP comes to an attempt: its race moves on, and a probe is to find out. If the backend is known to be down, the attempt
    /// has failed.
    fn on_unreachable(&mut self, key: Key, attempt: AttemptId) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let Some(backend) = query.race.attempt(attempt).map(|asked| asked.backend) else { return };
        let was_finished = query.race.is_finished();
        if self.pool.is_up(backend) {
            query.race.on_unreachable(attempt);
        } else {
            query.race.on_failure(attempt);
            self.ended(key, attempt, |_| End::Unreachable);
        }
        if !was_finished {
            self.drive(key);
        }
        self.remove_if_over(key);
        if let Some(prober) = self.probers.get_mut(backend.get()) {
            prober.health.on_unreachable(self.now);
            self.look_after(backend);
        }
    }

    /// Does what a race says until it waits or is over.
    fn drive(&mut self, key: Key) {
        loop {
            let Some(query) = self.queries.get_mut(key) else { return };
            let at = self.now - query.came;
            match query.race.next_step(&self.pool.race_context(), self.now) {
                Step::Ask { attempt, backend, kind, edns } => {
                    query.out |= 1 << attempt.0;
                    (self.observe)(query.number, at, Happening::Asked { backend, kind, edns });
                    self.pool.asked(backend, self.now);
                    self.send(key, attempt, backend, edns);
                }
                Step::WaitUntil(wake) => {
                    assert!(self.now < wake && wake <= query.race.deadline(), "a race waits for {wake:?}");
                    if query.armed.is_none_or(|armed| wake < armed) {
                        query.armed = Some(wake);
                        self.events.push(wake, Event::Wake(key));
                    }
                    return;
                }
                Step::Finished(outcome) => return self.finish(key, outcome),
            }
        }
    }

    /// An attempt goes out: what is going to come back, and when?
    fn send(&mut self, key: Key, attempt: AttemptId, index: BackendIndex, edns: bool) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let now = self.now - self.start;
        let slow = *self.slow.at(now);
        let backend = &mut self.backends[index.get()];
        let model = backend.model;
        let mut at = match backend.ask(now, slow) {
            Fate::Lost => return,
            Fate::Unreachable(at) => {
                return self.schedule(self.start + at, Event::Back(key, attempt, Back::Unreachable));
            }
            Fate::Replied(at) => self.start + at,
        };
        if backend.rng.random_bool(model.bare) {
            self.events.push(at, Event::Back(key, attempt, Back::Bare));
            at += exponential(at - self.now, &mut backend.rng);
        }
        let back = if backend.rng.random_bool(model.unreachable) {
            Some(Back::Unreachable)
        } else if edns && model.refuses_opt {
            Some(Back::OptRefused)
        } else if backend.rng.random_bool(model.failure) {
            Some(Back::Reply(Rank::Failure))
        } else if knows(self.knowledge, query.number, index, model.knows) {
            Some(Back::Reply(Rank::Positive))
        } else {
            model.miss.map(Back::Reply)
        };
        if let Some(back) = back {
            self.events.push(at, Event::Back(key, attempt, back));
        }
    }

    /// A race is over.
    fn finish(&mut self, key: Key, outcome: Outcome) {
        let Some(query) = self.queries.get_mut(key) else { return };
        let rules = &self.scenario.rules;
        let winner = match outcome {
            Outcome::Reply(attempt) => query.race.attempt(attempt).map(|attempt| attempt.kind),
            Outcome::Failed | Outcome::Nothing | Outcome::Unsent => None,
        };
        let hedges_denied = query.race.hedges_denied();
        let finished = Happening::Finished { outcome, winner, hedges_denied };
        (self.observe)(query.number, self.now - query.came, finished);
        let is_success = winner.is_some() && query.best > Some(Rank::Failure);
        if is_success && rules.dispatch == Dispatch::Hedge {
            self.pool.earn();
        }
        for attempt in query.race.attempts().filter(|attempt| attempt.open) {
            let backend = attempt.backend;
            if self.pool.charge(backend, attempt.asked_at) {
                query.charged |= 1 << attempt.id.0;
            }
            // Silence raises suspicion. The prober is woken a moment later, when this race is done with.
            if self.now - attempt.asked_at >= rules.attempt_timeout
                && let Some(prober) = self.probers.get_mut(backend.get())
            {
                prober.health.on_silence(self.now);
                prober.wake_at(self.now);
                self.events.push(self.now, Event::Probe(backend));
            }
        }
        if query.out != 0 {
            self.schedule(self.now + QUARANTINE, Event::Forget(key));
        }
        self.remove_if_over(key);
    }

    /// Nobody waits any longer for what has not come back to a query.
    fn on_forget(&mut self, key: Key) {
        for attempt in attempt_ids() {
            self.ended(key, attempt, End::Silence);
        }
        self.remove_if_over(key);
    }

    /// Forgets a query that is over and that nothing can come back to.
    fn remove_if_over(&mut self, key: Key) {
        if self.queries.get_mut(key).is_some_and(|query| query.race.is_finished() && query.out == 0) {
            self.queries.remove(key);
        }
    }

    /// Lets the prober of a backend do what is due, and heeds what it finds.
    fn look_after(&mut self, backend: BackendIndex) {
        loop {
            let Some(prober) = self.probers.get_mut(backend.get()) else { return };
            match prober.next_errand(self.now, self.pool.rng()) {
                Errand::Send(probe) => {
                    let now = self.now - self.start;
                    let slow = *self.slow.at(now);
                    let (at, is_reply) = match self.backends[backend.get()].ask(now, slow) {
                        Fate::Lost => continue,
                        Fate::Unreachable(at) => (at, false),
                        Fate::Replied(at) => (at, true),
                    };
                    self.schedule(self.start + at, Event::ProbeBack { backend, probe, is_reply });
                }
                Errand::Wake(at) => {
                    let is_up = prober.health.is_up();
                    self.schedule(at, Event::Probe(backend));
                    if self.pool.set_up(backend, is_up, self.now) && !is_up {
                        self.fail_all(backend);
                    }
                    return;
                }
            }
        }
    }

    /// A backend is down: what was asked of it is not going to be replied to.
    fn fail_all(&mut self, backend: BackendIndex) {
        let is_meant = |query: &Query, id: AttemptId| {
            let attempt = query.race.attempt(id);
            query.out & 1 << id.0 != 0 && attempt.is_some_and(|attempt| attempt.backend == backend)
        };
        let waits = |query: &Query| attempt_ids().any(|id| is_meant(query, id));
        let keys: Vec<_> = self.queries.iter().filter(|(_, query)| waits(query)).map(|(key, _)| key).collect();
        for key in keys {
            let Some(query) = self.queries.get_mut(key) else { continue };
            let was_finished = query.race.is_finished();
            let failed: Vec<_> = attempt_ids().filter(|id| is_meant(query, *id)).collect();
            failed.iter().for_each(|id| query.race.on_failure(*id));
            for id in failed {
                self.ended(key, id, |_| End::Unreachable);
            }
            if !was_finished {
                self.drive(key);
            }
            self.remove_if_over(key);
        }
    }

    /// Counts a query that comes, for probes that are due after so many.
    fn count_for_probes(&mut self) {
        let every = self.scenario.rules.health.every_queries as usize;
        if every > 0 && self.came.is_multiple_of(every) {
            for (backend, prober) in backend_indexes(self.scenario).zip(&mut self.probers) {
                prober.health.on_queries(self.now);
                prober.wake_at(self.now);
                self.events.push(self.now, Event::Probe(backend));
            }
        }
    }

    /// Sets a timer.
    fn schedule(&mut self, at: Instant, event: Event) {
        self.events.push(at, event);
    }
}

/// All backends.
fn backend_indexes(scenario: &Scenario) -> impl Iterator<Item = BackendIndex> + use<> {
    (0..=u16::MAX).take(scenario.backends.len()).map(BackendIndex)
}

/// Whether a backend knows the name of a query: the same in each attempt.
fn knows(knowledge: u64, query: usize, backend: BackendIndex, part: f64) -> bool {
    let ticket = || FixedState::with_seed(knowledge).hash_one((query, backend)) as f64 / u64::MAX as f64;
    part >= 1.0 || (part > 0.0 && ticket() < part)
}

/// All attempts that a query can have.
fn attempt_ids() -> impl Iterator<Item = AttemptId> {
    (0..MAX_ATTEMPTS as u8).map(AttemptId)
}

/// Takes the bit of an attempt out, and tells whether it was there.
fn take_bit(bits: &mut u8, attempt: AttemptId) -> bool {
    let bit = 1 << attempt.0;
    let was_there = *bits & bit != 0;
    *bits &= !bit;
    was_there
}

/// A second.
const SECOND: Duration = Duration::from_secs(1);
/// How long something may still come back to an attempt when its race is over (as `net/backend_sockets.rs` keeps an ID).
const QUARANTINE: Duration = Duration::from_secs(2);
