//! The race over thousands of seeds: random rules, random backends, a fake clock.
//!
//! A failure prints its seed; `HEDGEROW_SEED=n cargo test --test it race_seeds::` runs that one alone.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hedgerow::policy::balance::Balance;
use hedgerow::policy::race::{Heard, Kind, MAX_ATTEMPTS, Outcome};
use hedgerow::policy::{Accept, Dispatch, Grace, Hedge, HedgeDelay, Rank, Rules};
use hedgerow::sim::{Course, Delay, Model, Record, Report, Scenario, run};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// How many seeds are run.
const SEEDS: u64 = 3_000;

/// Every scenario and what came of it, by seed. It is run once for all tests.
fn played() -> &'static [(u64, Scenario, Report)] {
    static PLAYED: OnceLock<Vec<(u64, Scenario, Report)>> = OnceLock::new();
    PLAYED.get_or_init(|| {
        let start = Instant::now();
        let play = |seed| {
            let _blame = Blame(seed);
            let scenario = scenario(&mut StdRng::seed_from_u64(seed));
            let report = run(&scenario, start, seed);
            (seed, scenario, report)
        };
        let alone = std::env::var("HEDGEROW_SEED").ok();
        let alone = alone.map(|seed| seed.parse().expect("HEDGEROW_SEED is a number"));
        alone.map_or(0..SEEDS, |seed| seed..seed + 1).map(play).collect()
    })
}

/// Hands the scenario of each seed to `check` with its report.
fn for_each_seed(check: impl Fn(&Scenario, &Report)) {
    for (seed, scenario, report) in played() {
        let _blame = Blame(*seed);
        check(scenario, report);
    }
}

/// Runs a check on each query of each seed.
fn for_each_query(check: impl Fn(&Scenario, &Record)) {
    for_each_seed(|scenario, report| {
        assert_eq!(report.queries.len(), scenario.queries);
        report.queries.iter().for_each(|query| check(scenario, query));
    });
}

/// Names the seed if the test fails while it runs.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: run it alone with HEDGEROW_SEED={0}", self.0);
        }
    }
}

/// Any pool under any rules.
fn scenario(rng: &mut StdRng) -> Scenario {
    let backends = rng.random_range(1..=10);
    Scenario {
        rules: rules(rng),
        backends: (0..backends).map(|_| model(rng)).collect(),
        queries: 30,
        gap: Duration::from_micros(rng.random_range(1..200_000)),
        resend: rng.random_bool(0.3).then(|| Duration::from_millis(rng.random_range(1..2_000))),
        ..Scenario::default()
    }
}

/// Any rules.
fn rules(rng: &mut StdRng) -> Rules {
    let delay =
        *pick(rng, &[HedgeDelay::Auto, HedgeDelay::Percentile(0.9), HedgeDelay::Fixed(Duration::from_millis(3))]);
    let grace = *pick(rng, &[Grace::Off, Grace::Off, Grace::Auto, Grace::After(Duration::from_millis(7))]);
    Rules {
        dispatch: *pick(rng, &[Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential]),
        fanout: rng.random_range(0..4),
        balance: *pick(rng, &[Balance::Ordered, Balance::RoundRobin, Balance::Random]),
        accept: *pick(rng, &[Accept::Positive, Accept::Conclusive, Accept::Any]),
        timeout: Duration::from_millis(rng.random_range(1..4_000)),
        grace,
        attempt_timeout: Duration::from_millis(rng.random_range(1..1_500)),
        tries: rng.random_range(1..5),
        hedge: Hedge { delay, budget: *pick(rng, &[0.0, 0.05, 0.5]), max: rng.random_range(0..4), ..Hedge::default() },
        ..Rules::default()
    }
}

/// Any backend: most of them well, some ill in one way, some in several.
fn model(rng: &mut StdRng) -> Model {
    let mut ill = |chance: f64| if rng.random_bool(0.2) { chance } else { 0.0 };
    let (tail, loss, failure, bare, unreachable) = (ill(0.1), ill(0.3), ill(0.5), ill(0.3), ill(0.5));
    let usual = Duration::from_micros(rng.random_range(20..100_000));
    let scattered = |median| Delay::Lognormal { median, sigma: 0.5 };
    let delay = Delay::Mixture { usual: Box::new(scattered(usual)), others: vec![(tail, scattered(100 * usual))] };
    Model {
        weight: rng.random_range(1..4),
        up: rng.random_bool(0.8),
        delay: Course::always(delay),
        loss: Course::always(loss),
        knows: *pick(rng, &[0.0, 0.5, 1.0]),
        miss: *pick(rng, &[None, Some(Rank::Nxdomain), Some(Rank::Nodata), Some(Rank::NodataAuthoritative)]),
        failure,
        bare,
        unreachable,
        refuses_opt: rng.random_bool(0.1),
        ..Model::default()
    }
}

/// One of these.
fn pick<'a, T>(rng: &mut StdRng, choices: &'a [T]) -> &'a T {
    choices.choose(rng).expect("there is something to choose")
}

/// The rank of the reply that won, if one did.
fn winning_rank(query: &Record) -> Option<Rank> {
    match query.outcomes.first()?.1 {
        Outcome::Reply(attempt) => {
            let kept = |heard| matches!(heard, Heard::Accepted | Heard::Kept);
            let mut winners = query.replies.iter().rev();
            winners.find(|reply| reply.attempt == attempt && kept(reply.heard)).map(|reply| reply.rank)
        }
        Outcome::Failed | Outcome::Nothing | Outcome::Unsent => None,
    }
}

#[test]
fn each_query_has_one_outcome_and_never_after_the_deadline() {
    for_each_query(|_, query| {
        assert_eq!(query.outcomes.len(), 1, "{query:?}");
        assert!(query.outcomes[0].0 <= query.deadline, "{query:?}");
    });
}

#[test]
fn an_accepted_reply_never_loses_to_a_kept_one() {
    for_each_query(|scenario, query| {
        let (ended, _) = query.outcomes[0];
        let accepts = |rank| scenario.rules.accept.accepts(rank);
        let first = query.replies.iter().find(|reply| reply.at <= ended && accepts(reply.rank));
        match first {
            Some(reply) if reply.at < ended || reply.heard == Heard::Accepted => {
                assert_eq!(query.outcomes[0], (reply.at, Outcome::Reply(reply.attempt)), "{query:?}");
            }
            // It came in the same microsecond as the end, but after it.
            Some(_) | None => assert!(!winning_rank(query).is_some_and(accepts), "{query:?}"),
        }
    });
}

#[test]
fn an_acceptable_reply_that_came_in_time_is_returned() {
    for_each_query(|scenario, query| {
        // With grace a kept negative may go out before, and after a bare failure SERVFAIL may.
        if scenario.rules.grace != Grace::Off || query.bare_failure {
            return;
        }
        let accepts = |rank| scenario.rules.accept.accepts(rank);
        if query.replies.iter().any(|reply| reply.at < query.deadline && accepts(reply.rank)) {
            assert!(winning_rank(query).is_some_and(accepts), "{query:?}");
        }
    });
}

#[test]
fn the_best_kept_reply_wins() {
    for_each_query(|_, query| {
        let in_time = query.replies.iter().filter(|reply| reply.heard != Heard::NotNeeded);
        assert_eq!(winning_rank(query), in_time.map(|reply| reply.rank).max(), "{query:?}");
    });
}

#[test]
fn nothing_is_said_while_somebody_who_may_know_better_is_out() {
    for_each_query(|scenario, query| {
        let (ended, outcome) = query.outcomes[0];
        let early = ended < query.deadline && scenario.rules.grace == Grace::Off && !query.bare_failure;
        if early && outcome == Outcome::Nothing {
            assert!(query.replies.iter().all(|reply| reply.at > ended), "{query:?}");
            let silent = |model: &Model| model.unreachable == 0.0;
            let asked = query.asked.iter().map(|asked| &scenario.backends[asked.backend.get()]);
            assert!(!asked.into_iter().any(silent), "{query:?}");
        }
    });
}

#[test]
fn a_hedge_never_asks_the_same_backend_again() {
    for_each_query(|_, query| {
        for (place, hedge) in query.asked.iter().enumerate().filter(|(_, asked)| asked.kind == Kind::Hedge) {
            let before = &query.asked[..place];
            assert!(before.iter().all(|asked| asked.backend != hedge.backend), "{query:?}");
        }
    });
}

#[test]
fn attempts_and_tries_are_bounded() {
    for_each_query(|scenario, query| {
        assert!(query.asked.len() <= MAX_ATTEMPTS, "{query:?}");
        for (number, model) in scenario.backends.iter().enumerate() {
            let asked = query.asked.iter().filter(|asked| asked.backend.get() == number);
            // A retransmission and a refusal of OPT are worth one more each.
            let tries = usize::from(scenario.rules.tries);
            let most = tries + usize::from(scenario.resend.is_some()) + usize::from(model.refuses_opt);
            assert!(asked.count() <= most, "{query:?}");
        }
    });
}

#[test]
fn backends_that_are_down_are_asked_only_if_all_are() {
    for_each_query(|scenario, query| {
        if scenario.backends.iter().any(|model| model.up) {
            assert!(query.asked.iter().all(|asked| scenario.backends[asked.backend.get()].up), "{query:?}");
        } else {
            assert!(query.deadline <= scenario.rules.attempt_timeout, "{query:?}");
            let at_once = query.asked.iter().filter(|asked| asked.at == Duration::ZERO).count();
            assert_eq!(at_once, scenario.backends.len().min(MAX_ATTEMPTS), "{query:?}");
        }
    });
}

#[test]
fn hedges_stay_within_the_rules_and_the_budget() {
    for_each_seed(|scenario, report| {
        let hedge = &scenario.rules.hedge;
        let hedges = |query: &Record| query.asked.iter().filter(|asked| asked.kind == Kind::Hedge).count();
        let most = if scenario.rules.dispatch == Dispatch::Hedge { usize::from(hedge.max) } else { 0 };
        assert!(report.queries.iter().all(|query| hedges(query) <= most));
        let all: usize = report.queries.iter().map(hedges).sum();
        let paid = if hedge.budget > 0.0 { 10.0 + hedge.budget * report.successes as f64 } else { 0.0 };
        assert!(all as f64 <= paid + 1e-6, "{all} hedges, {paid} paid");
    });
}

#[test]
fn the_same_replies_make_the_same_outcome() {
    let later = Instant::now() + Duration::from_secs(1);
    for (seed, scenario, report) in played().iter().step_by(20) {
        let _blame = Blame(*seed);
        assert_eq!(&run(scenario, later, *seed), report);
    }
}

#[test]
fn the_seeds_reach_every_corner() {
    let corners = std::cell::Cell::new([0_u32; 8]);
    for_each_query(|_, query| {
        let (ended, outcome) = query.outcomes[0];
        let mut met = corners.get();
        let has = |kind| query.asked.iter().any(|asked| asked.kind == kind);
        let seen = [
            has(Kind::Hedge),
            query.hedges_denied > 0,
            query.asked.len() == MAX_ATTEMPTS,
            query.asked.iter().any(|asked| !asked.edns),
            outcome == Outcome::Failed,
            outcome == Outcome::Nothing && ended < query.deadline,
            matches!(outcome, Outcome::Reply(_)) && ended == query.deadline,
            query.replies.iter().any(|reply| reply.at > ended),
        ];
        met.iter_mut().zip(seen).for_each(|(count, seen)| *count += u32::from(seen));
        corners.set(met);
    });
    if std::env::var_os("HEDGEROW_SEED").is_none() {
        assert!(corners.get().iter().all(|&count| count >= 50), "{:?}", corners.get());
    }
}
