//! All small inputs of the budget and of races, one after the other: where random tests may miss a border,
//! these cannot. Each test says how far it goes.

use std::time::{Duration, Instant};

use hedge::budget::Budget;
use hedge::latency::Latency;
use hedge::race::{
    AttemptId, AttemptKind, AttemptState, ExtensionRefusal, MAX_ATTEMPTS, Race, RaceContext, RaceEnd, RaceStep,
    ReplyRank, ReplyValue, Retry,
};
use hedge::{AttemptTimeout, BackendIndex, Candidates, Dispatch, Hedge, HedgeDelay, RaceRules};

/// Covers each sequence of six operations on a bucket at the rates 0, 0.05 and 1, against a count in whole
/// numbers.
#[test]
fn the_budget_is_a_bucket_whatever_the_order_of_its_operations() {
    let operations: [fn(&Budget, &mut Bucket); 7] = [
        |budget, bucket| assert_eq!(budget.take(), bucket.take()),
        |budget, bucket| {
            budget.give_back();
            bucket.add(TOKEN);
        },
        |budget, bucket| {
            budget.earn(1);
            bucket.add(bucket.rate);
        },
        |budget, bucket| {
            budget.earn(40);
            bucket.add(40 * bucket.rate);
        },
        |budget, bucket| {
            budget.set_recent_queries(0);
            bucket.limit(10);
        },
        |budget, bucket| {
            budget.set_recent_queries(1_199);
            bucket.limit(11);
        },
        |budget, bucket| {
            let level = budget.level();
            assert_eq!(level, (bucket.tokens, bucket.capacity));
            (0..9).for_each(|_| assert_eq!(budget.take(), bucket.take()));
        },
    ];
    for (rate, micros) in [(0.0, 0), (0.05, 50_000), (1.0, TOKEN)] {
        for number in 0..operations.len().pow(6) {
            let budget = Budget::new(rate);
            let mut bucket = Bucket { tokens: 10 * TOKEN, capacity: 10 * TOKEN, rate: micros };
            let mut rest = number;
            for _ in 0..6 {
                operations[rest % operations.len()](&budget, &mut bucket);
                rest /= operations.len();
                assert_eq!(budget.level(), (bucket.tokens, bucket.capacity), "sequence {number} at {rate}");
                assert_eq!(budget.hedges_left(), (bucket.tokens / TOKEN) as u64);
            }
        }
    }
}

const TOKEN: i64 = 1_000_000;

/// A budget in whole numbers.
struct Bucket {
    tokens: i64,
    capacity: i64,
    rate: i64,
}

impl Bucket {
    fn take(&mut self) -> bool {
        let can = self.rate > 0 && self.tokens >= TOKEN;
        self.tokens -= if can { TOKEN } else { 0 };
        can
    }

    fn add(&mut self, tokens: i64) {
        self.tokens = (self.tokens + tokens).min(self.capacity);
    }

    fn limit(&mut self, hedges: i64) {
        self.capacity = hedges * TOKEN;
        self.tokens = self.tokens.min(self.capacity);
    }
}

/// Covers races with the dispatches race, hedge and sequential, among one to three backends, and each
/// sequence of four events: each kind of reply or failure of each attempt made so far, a retransmission by
/// the client, or the end of the wait. After the last event all is silent.
#[test]
fn a_race_keeps_its_promises_whatever_happens() {
    let mut races = 0;
    for dispatch in [Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential] {
        for backends in 1..=3 {
            let site = Site::new(dispatch, backends);
            let mut story = Story::start(&site);
            story.follow(&site);
            races += play_on(&site, &story, 4);
        }
    }
    assert!(races > 100_000, "{races} races");
}

/// Plays each continuation of this many events, and returns their number.
fn play_on(site: &Site, before: &Story, events: u32) -> u64 {
    if events == 0 || before.end.is_some() {
        before.clone().end(site);
        return 1;
    }
    let inputs = Event::all(before.attempts()).filter(|event| before.is_possible(*event));
    let after = inputs.map(|event| {
        let mut story = before.clone();
        story.put_in(site, event);
        play_on(site, &story, events - 1)
    });
    after.sum()
}

/// The rank of a reply: only a good one is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Failure,
    Weak,
    Good,
}

impl ReplyRank for Rank {
    fn is_failure(self) -> bool {
        self == Self::Failure
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Reply(AttemptId, Rank),
    Unreachable(AttemptId),
    Bare(AttemptId),
    Failed(AttemptId),
    Unsent(AttemptId, Retry),
    Lost(AttemptId),
    Refused(AttemptId),
    Retransmission,
    Wait,
}

impl Event {
    /// Returns all events that concern this many attempts.
    fn all(attempts: u8) -> impl Iterator<Item = Self> {
        let of_one = |attempt| {
            let ranks = [Rank::Failure, Rank::Weak, Rank::Good].map(|rank| Self::Reply(attempt, rank));
            let unsent = [Retry::Once, Retry::Never].map(|retry| Self::Unsent(attempt, retry));
            let others = [Self::Unreachable, Self::Bare, Self::Failed, Self::Lost, Self::Refused];
            ranks.into_iter().chain(unsent).chain(others.map(|event| event(attempt)))
        };
        (0..attempts).map(AttemptId).flat_map(of_one).chain([Self::Retransmission, Self::Wait])
    }
}

/// The surroundings of a race.
struct Site {
    rules: RaceRules,
    candidates: Candidates,
    latency: Vec<Latency>,
    budget: Budget,
    start: Instant,
}

impl Site {
    fn new(dispatch: Dispatch, backends: u16) -> Self {
        let start = Instant::now();
        Self {
            rules: RaceRules {
                dispatch,
                attempt_timeout: AttemptTimeout::after(Duration::from_millis(500)),
                tries: 2,
                hedge: Hedge { delay: HedgeDelay::Fixed(Duration::from_millis(100)), ..Hedge::default() },
                ..RaceRules::default()
            },
            candidates: Candidates::of((0..backends).map(BackendIndex), false),
            latency: vec![Latency::new(start); usize::from(backends)],
            budget: Budget::new(1.0),
            start,
        }
    }

    fn context(&self) -> RaceContext<'_> {
        let (loads, by_stream) = (&[], &[]);
        RaceContext { rules: &self.rules, latency: &self.latency, loads, by_stream, budget: &self.budget }
    }
}

/// A race, what has happened in it, and what should come of it.
#[derive(Clone)]
struct Story {
    race: Race<Rank>,
    now: Instant,
    /// The end of the wait.
    wake: Instant,
    end: Option<RaceEnd>,
    /// The first of the best replies.
    best: Option<(AttemptId, Rank)>,
    has_bare: bool,
    /// The backends that were asked, as bits; an attempt that could not be sent leaves no other trace.
    asked: u16,
    /// The level of the budget, which is shared by all stories.
    budget: (i64, i64),
    /// For the message of a failure.
    events: Vec<Event>,
}

impl Story {
    fn start(site: &Site) -> Self {
        Self {
            race: Race::start(&site.context(), &site.candidates, Rank::Good, site.start),
            now: site.start,
            wake: site.start,
            end: None,
            best: None,
            has_bare: false,
            asked: 0,
            budget: (10 * TOKEN, 10 * TOKEN),
            events: Vec::new(),
        }
    }

    fn attempts(&self) -> u8 {
        self.race.attempts().count() as u8
    }

    /// Returns false for a reply to an attempt that was not sent.
    fn is_possible(&self, event: Event) -> bool {
        match event {
            Event::Reply(attempt, _) | Event::Refused(attempt) => {
                self.race.attempt(attempt).is_some_and(|attempt| attempt.is_sent)
            }
            _ => true,
        }
    }

    fn put_in(&mut self, site: &Site, event: Event) {
        self.events.push(event);
        let (attempts, asked) = (self.attempts(), self.asked);
        let is_due = self.is_failure_of_silent(event) && asked.count_ones() < site.candidates.len() as u32;
        site.budget.set_level(self.budget);
        // Each event has a moment of its own, before the wait is over.
        self.now += (self.wake - self.now) / 2;
        match event {
            Event::Reply(attempt, rank) => self.reply(attempt, rank),
            Event::Unreachable(attempt) => self.race.on_unreachable(attempt),
            Event::Bare(attempt) => {
                let state = self.race.attempt(attempt).map(|attempt| attempt.state);
                self.has_bare |= matches!(state, Some(AttemptState::Silent | AttemptState::Unreachable));
                self.race.on_bare_failure(attempt);
            }
            Event::Failed(attempt) => self.race.on_failure(attempt),
            Event::Unsent(attempt, retry) => self.race.on_unsent(attempt, retry, &site.budget),
            Event::Lost(attempt) => self.race.on_lost(attempt),
            Event::Refused(attempt) => {
                if self.race.on_extension_refused(attempt) == ExtensionRefusal::IsFailure {
                    self.reply(attempt, Rank::Failure);
                }
            }
            Event::Retransmission => self.race.on_retransmission(),
            Event::Wait => self.now = self.wake,
        }
        self.budget = site.budget.level();
        self.follow(site);
        let is_next_asked = self.attempts() > attempts && self.asked != asked;
        assert!(!is_due || is_next_asked || self.end.is_some(), "the next is asked at once: {:?}", self.events);
    }

    /// Returns true if an attempt that was waited for has failed, or brought no good reply.
    fn is_failure_of_silent(&self, event: Event) -> bool {
        match event {
            Event::Reply(attempt, Rank::Failure | Rank::Weak)
            | Event::Unreachable(attempt)
            | Event::Bare(attempt)
            | Event::Failed(attempt)
            | Event::Lost(attempt) => {
                self.race.attempt(attempt).is_some_and(|attempt| attempt.state == AttemptState::Silent)
            }
            _ => false,
        }
    }

    fn reply(&mut self, attempt: AttemptId, rank: Rank) {
        let is_better = self.best.is_none_or(|(_, best)| best < rank);
        let expected = match rank {
            Rank::Good => ReplyValue::Accepted,
            _ if is_better => ReplyValue::Kept,
            _ => ReplyValue::NotNeeded,
        };
        assert_eq!(self.race.on_reply(attempt, rank, self.now), expected, "{:?}", self.events);
        if is_better {
            self.best = Some((attempt, rank));
        }
    }

    /// Asks the race for its steps until it waits or ends.
    fn follow(&mut self, site: &Site) {
        site.budget.set_level(self.budget);
        for _ in 0..=MAX_ATTEMPTS {
            match self.race.poll(&site.context(), self.now) {
                RaceStep::Ask { backend, attempt, .. } => {
                    assert!(site.candidates.iter().any(|candidate| candidate == backend), "{:?}", self.events);
                    assert_eq!(attempt.0 + 1, self.attempts(), "{:?}", self.events);
                    self.asked |= 1 << backend.0;
                }
                RaceStep::WaitUntil(wake) => {
                    assert!(wake > self.now && wake <= self.race.deadline(), "{:?}", self.events);
                    (self.wake, self.budget) = (wake, site.budget.level());
                    return self.check();
                }
                RaceStep::Finished(end) => {
                    (self.end, self.budget) = (Some(end), site.budget.level());
                    self.check();
                    return self.check_end(site, end);
                }
            }
        }
        panic!("it asks without end: {:?}", self.events);
    }

    fn check(&self) {
        let Self { race, events, .. } = self;
        assert!(usize::from(self.attempts()) <= MAX_ATTEMPTS, "{events:?}");
        let hedges = race.attempts().filter(|attempt| attempt.kind == AttemptKind::Hedge);
        let sent = hedges.filter(|attempt| attempt.is_sent).count() as i64;
        assert!(sent <= 1, "one hedge is allowed: {events:?}");
        assert_eq!(self.budget.0, (10 - sent) * TOKEN, "each hedge that was sent is paid: {events:?}");
    }

    fn check_end(&self, site: &Site, end: RaceEnd) {
        let Self { race, events, .. } = self;
        let expected = match self.best {
            Some((attempt, _)) => RaceEnd::Reply(attempt),
            None if race.is_incomplete() => RaceEnd::Unsent,
            None if self.has_bare => RaceEnd::Failed,
            None => RaceEnd::Nothing,
        };
        assert_eq!(end, expected, "{events:?}");
        let is_early = self.now < race.deadline() && self.best.is_none_or(|(_, rank)| rank != Rank::Good);
        if is_early && race.attempts().count() < MAX_ATTEMPTS {
            let is_silent = race.attempts().any(|attempt| attempt.state == AttemptState::Silent);
            assert!(!is_silent, "it ends while a backend may answer: {events:?}");
            let mut bare = race.attempts().filter(|attempt| attempt.state == AttemptState::Bare);
            let patience = site.rules.attempt_timeout.longest();
            assert!(
                bare.all(|attempt| attempt.asked_at + patience <= self.now),
                "a bare failure may be forged: {events:?}"
            );
            for backend in site.candidates.iter() {
                assert!(self.asked & 1 << backend.0 != 0, "{backend:?} was not asked: {events:?}");
            }
        }
        // Nothing changes the end.
        let mut race = race.clone();
        for event in Event::all(self.attempts()) {
            match event {
                Event::Reply(attempt, rank) => {
                    assert_eq!(race.on_reply(attempt, rank, self.now), ReplyValue::NotNeeded, "{events:?}");
                }
                Event::Bare(attempt) => race.on_bare_failure(attempt),
                Event::Failed(attempt) => race.on_failure(attempt),
                Event::Refused(attempt) => drop(race.on_extension_refused(attempt)),
                _ => race.on_retransmission(),
            }
            assert_eq!(race.poll(&site.context(), self.now), RaceStep::Finished(end), "{events:?} then {event:?}");
        }
    }

    /// Is silent to the end.
    fn end(mut self, site: &Site) {
        for _ in 0..100 {
            if self.end.is_some() {
                return;
            }
            self.now = self.wake;
            self.follow(site);
        }
        panic!("it has no end: {:?}", self.events);
    }
}
