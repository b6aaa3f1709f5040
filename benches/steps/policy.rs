//! Decisions: the backend to ask, the time to wait, the reply that wins; and learning from replies.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Rank;
use hedge::backend_load::{AttemptEnd, BackendLoad, SharedLoad};
use hedge::balance::{Balance, BalanceInput, Balancer};
use hedge::budget::Budget;
use hedge::latency::{Latency, SharedLatency};
use hedge::ordering::{BackendStats, order};
use hedge::race::{AttemptId, Race, RaceContext, RaceEnd, RaceStep};
use hedge::{BackendIndex, Candidates, Dispatch, RaceRules};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Backends to choose from.
const BACKENDS: u16 = 4;

/// The lowest rank that wins at once.
const ACCEPT: Rank = Rank::NodataAuthoritative;

/// Replies that a backend's latency is known by.
const SAMPLES: usize = 2_000;

/// A time within which every reply comes here.
const SOON: Duration = Duration::from_millis(2);

/// The order in which backends are asked for one query, each with another number of attempts out. So many
/// workers have 10,000 queries/s each.
pub(super) fn candidates(balance: Balance, workers: usize) -> impl FnMut() {
    let mut now = start();
    let rules = RaceRules { balance, dispatch: Dispatch::Hedge, ..RaceRules::default() };
    let turns = Balancer::new((0..BACKENDS).map(|number| (BackendIndex(number), 1, u64::from(number) + 1, true)));
    let latency = vec![known_latency(now); usize::from(BACKENDS)];
    let loads: Vec<_> = (0..BACKENDS).map(|backend| load(workers, now, backend)).collect();
    let mut random = SmallRng::seed_from_u64(1);
    let mut turn = 0;
    move || {
        turn += 1;
        now += Duration::from_micros(100);
        let sight = BalanceInput { now, turn, name: 0, loads: &loads, out: 0, remembered: None };
        let candidates = turns.candidates(balance, black_box(&sight), &mut random);
        let known = BackendStats { loads: &loads, latency: &latency, now };
        black_box(order(&candidates, &rules, &known, |_| 1, &mut random));
    }
}

/// A race of two backends, from its start to the reply that wins it.
pub(super) fn race(dispatch: Dispatch) -> impl FnMut() {
    let pool = Pool::new(dispatch);
    move || {
        let context = pool.race_context();
        let mut race = Race::start(&context, black_box(&pool.candidates), ACCEPT, pool.now);
        let (asked, _) = ask(&mut race, &context, pool.now);
        finish(race, &context, asked, pool.now + SOON / 2);
    }
}

/// A race with a hedge that is sent, and wins; and the replies of other races that pay for it.
pub(super) fn race_with_hedge() -> impl FnMut() {
    let pool = Pool::new(Dispatch::Hedge);
    move || {
        let context = pool.race_context();
        let mut race = Race::start(&context, black_box(&pool.candidates), ACCEPT, pool.now);
        let (first, late) = ask(&mut race, &context, pool.now);
        let (hedge, _) = ask(&mut race, &context, late);
        assert_ne!(first, hedge, "the budget pays");
        finish(race, &context, hedge, late + SOON);
        pool.budget.earn(REPLIES_PER_HEDGE);
    }
}

/// An attempt is made and answered, one of 10,000 a second.
pub(super) fn load_attempt(workers: usize) -> impl FnMut() {
    let mut now = start();
    let mut load = load(workers, now, 1);
    let mut samples = samples();
    move || {
        now += Duration::from_micros(100);
        load.asked(black_box(now));
        black_box(load.ended(AttemptEnd::Reply(samples()), now));
    }
}

/// A reply's latency is recorded.
pub(super) fn latency_record() -> impl FnMut() {
    record_by(Latency::new(start()))
}

/// A reply's latency is recorded for several workers.
pub(super) fn latency_record_shared() -> impl FnMut() {
    record_by(Latency::of_shared(&Arc::new(SharedLatency::new(start()))))
}

fn record_by(mut latency: Latency) -> impl FnMut() {
    let mut now = start();
    let mut samples = samples();
    move || {
        now += Duration::from_micros(700);
        latency.record(black_box(samples()), now);
    }
}

/// How long to wait before a hedge is made: a percentile.
pub(super) fn latency_hedge_delay() -> impl FnMut() {
    hedge_delay_of(Latency::new(start()))
}

/// How long to wait before a hedge is made, by the replies to several workers.
pub(super) fn latency_hedge_delay_shared() -> impl FnMut() {
    hedge_delay_of(Latency::of_shared(&Arc::new(SharedLatency::new(start()))))
}

fn hedge_delay_of(latency: Latency) -> impl FnMut() {
    let (latency, hedge) = (known(latency, start()), RaceRules::default().hedge);
    move || {
        black_box(latency.hedge_delay(black_box(&hedge)));
    }
}

/// A reply pays into a bucket that is full, as it nearly always is.
pub(super) fn budget_earn() -> impl FnMut() {
    let budget = Budget::new(RaceRules::default().hedge.budget);
    move || black_box(&budget).earn(1)
}

/// A hedge is paid for, and replies pay that back.
pub(super) fn budget_take_and_earn() -> impl FnMut() {
    let budget = Budget::new(RaceRules::default().hedge.budget);
    move || {
        assert!(black_box(&budget).take(), "replies have paid for it");
        budget.earn(REPLIES_PER_HEDGE);
    }
}

/// Replies that pay for one hedge, with the default budget.
const REPLIES_PER_HEDGE: u32 = 20;

/// The state that a race reads.
struct Pool {
    now: Instant,
    /// The rules of the pool.
    rules: RaceRules,
    /// The latencies of the backends.
    latency: Vec<Latency>,
    /// The budget for hedges.
    budget: Budget,
    /// The backends that a race may ask.
    candidates: Candidates,
}

impl Pool {
    /// Two backends whose latency is known.
    fn new(dispatch: Dispatch) -> Self {
        let now = start();
        let rules = RaceRules { dispatch, ..RaceRules::default() };
        let budget = Budget::new(rules.hedge.budget);
        let candidates = Candidates::of([BackendIndex(0), BackendIndex(1)], false);
        Self { now, rules, latency: vec![known_latency(now); 2], budget, candidates }
    }

    /// It, as races see it.
    fn race_context(&self) -> RaceContext<'_> {
        RaceContext { rules: &self.rules, latency: &self.latency, loads: &[], by_stream: &[], budget: &self.budget }
    }
}

/// Sends all attempts that the race wants. Returns the last attempt and the deadline of the wait.
fn ask(race: &mut Race<Rank>, context: &RaceContext<'_>, now: Instant) -> (AttemptId, Instant) {
    let mut asked = None;
    loop {
        match race.poll(context, now) {
            RaceStep::Ask { attempt, .. } => asked = Some(attempt),
            RaceStep::WaitUntil(at) => return (asked.expect("there is a backend to ask"), at),
            RaceStep::Finished(outcome) => panic!("no backend has replied: {outcome:?}"),
        }
    }
}

/// The race's end by a good reply.
fn finish(mut race: Race<Rank>, context: &RaceContext<'_>, attempt: AttemptId, now: Instant) {
    black_box(race.on_reply(attempt, Rank::Positive, now));
    assert_eq!(race.poll(context, now), RaceStep::Finished(RaceEnd::Reply(attempt)));
}

/// A backend with so many attempts out, which has replied before.
fn load(workers: usize, now: Instant, attempts: u16) -> BackendLoad {
    let shared = Arc::new(SharedLoad::new(workers, now));
    let mut load = if workers > 1 { BackendLoad::of_shared(&shared, 0, now) } else { BackendLoad::new(now) };
    (0..attempts).for_each(|_| load.asked(now));
    load
}

/// The latency of a backend that has replied often.
fn known_latency(now: Instant) -> Latency {
    known(Latency::new(now), now)
}

fn known(mut latency: Latency, now: Instant) -> Latency {
    let mut samples = samples();
    (0..SAMPLES).for_each(|_| _ = latency.record(samples(), now));
    latency
}

/// Latencies up to [`SOON`], far apart, always the same.
fn samples() -> impl FnMut() -> Duration {
    let mut number = 0_u32;
    move || {
        number = number.wrapping_add(0x9E37_79B9);
        SOON.mul_f64(f64::from(number) / f64::from(u32::MAX))
    }
}

/// The time of all these steps.
fn start() -> Instant {
    Instant::now()
}
