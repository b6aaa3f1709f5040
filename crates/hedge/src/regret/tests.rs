//! Tests against simulated races, whose attempts are all known.

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::latency::{BUCKETS, Buckets, TimeBucket};
use crate::race::AttemptKind;

/// A model of the latency of one attempt, in µs.
type Model = fn(&mut SmallRng) -> u64;

/// 1 ms with noise, or with 3 % 40 ms with noise.
fn bimodal(rng: &mut SmallRng) -> u64 {
    let noise = rng.random_range(0.0..1.0_f64);
    if rng.random_bool(0.03) { 40_000 + (20_000.0 * noise) as u64 } else { 900 + (400.0 * noise) as u64 }
}

/// An exponential latency with a mean of 2 ms.
fn exponential(rng: &mut SmallRng) -> u64 {
    (-2_000.0 * rng.random_range(1e-9..1.0_f64).ln()) as u64
}

/// A heavy tail (Pareto, 1.1), and a loss of 0.3 %.
fn lossy(rng: &mut SmallRng) -> u64 {
    if rng.random_bool(0.003) { LOST } else { (500.0 * rng.random_range(1e-6..1.0_f64).powf(-1.0 / 1.1)) as u64 }
}

const MODELS: [Model; 3] = [bimodal, exponential, lossy];

/// Later than any race waits.
const LOST: u64 = 30_000_000;

const RULES: RegretRules = RegretRules { target: 0.999, budget: 0.05, failover: Some(Duration::from_secs(1)) };

fn took(time: u64) -> TimeBucket {
    TimeBucket::of(micros(time))
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// Lets this many races of a policy run, and counts them as the caller of a race does.
fn play(tally: &RegretTally, model: Model, races: usize, delay: Option<u64>, probability: f64, rng: &mut SmallRng) {
    for _ in 0..races {
        let (x, y) = (model(rng), model(rng));
        let hedged = delay.filter(|delay| x > *delay && rng.random_bool(probability));
        let failover = RULES.failover.map(|silence| silence.as_micros() as u64).filter(|silence| x > *silence);
        let (kind, second) = match (hedged, failover) {
            (Some(delay), _) => (AttemptKind::Hedge, Some(delay)),
            (None, failover) => (AttemptKind::Failover, failover),
        };
        let end = second.map_or(x, |second| x.min(second + y));
        if end >= LOST {
            continue;
        }
        tally.won(took(end));
        end_attempt(tally, AttemptKind::First, x, end);
        if let Some(second) = second {
            end_attempt(tally, kind, y, end - second);
        }
    }
}

/// Counts an attempt whose race ends after `end`: then it is beaten, and a late reply comes within 2 s.
fn end_attempt(tally: &RegretTally, kind: AttemptKind, latency: u64, end: u64) {
    if latency <= end {
        return tally.replied(kind, took(latency));
    }
    let beaten = tally.beaten(kind, micros(end));
    if latency <= end + 2_000_000 {
        tally.replied_late(beaten, took(latency));
    } else {
        tally.still_silent(beaten, micros(end + 2_000_000));
    }
}

fn measure(tally: &RegretTally, rules: &RegretRules) -> Option<Regret> {
    RegretMeter::default().measure([tally].into_iter(), rules, Instant::now())
}

/// Finds the best time by trying many rules on many exact samples.
fn brute_force(model: Model, rules: &RegretRules, rng: &mut SmallRng) -> f64 {
    let races: Vec<(u64, u64)> = (0..100_000).map(|_| (model(rng), model(rng))).collect();
    let mut sorted: Vec<u64> = races.iter().map(|(x, _)| *x).collect();
    sorted.sort_unstable();
    let delays = (0..100).map(|step| sorted[sorted.len() * step / 100]).chain([u64::MAX]);
    let tail = (races.len() as f64 * (1.0 - rules.target)) as usize;
    let mut best = f64::INFINITY;
    for delay in delays {
        let beyond = races.iter().filter(|(x, _)| *x > delay).count();
        let probability = (rules.budget * races.len() as f64 / beyond.max(1) as f64).min(1.0);
        // One race counts as two, hedged and not, with the weights of both.
        let failover = rules.failover.map_or(u64::MAX, |silence| silence.as_micros() as u64);
        let mut times: Vec<(u64, f64)> = Vec::new();
        for &(x, y) in &races {
            times.push((x.min(failover + y), if x > delay { 1.0 - probability } else { 1.0 }));
            if x > delay {
                times.push((x.min(delay + y), probability));
            }
        }
        times.sort_unstable_by_key(|(time, _)| std::cmp::Reverse(*time));
        let mut late = 0.0;
        let time = times.iter().find(|(_, weight)| {
            late += weight;
            late > tail as f64
        });
        best = best.min(time.map_or(f64::INFINITY, |(time, _)| *time as f64));
    }
    best
}

#[test]
fn best_rule_is_that_of_a_search_over_all_races() {
    let low = RegretRules { target: 0.95, budget: 0.02, ..RULES };
    let cases = [(bimodal as Model, RULES), (exponential, RULES), (lossy, RULES), (exponential, low)];
    for (seed, (model, rules)) in (0..).zip(cases) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tally = RegretTally::default();
        play(&tally, model, 200_000, None, 0.0, &mut rng);
        let regret = measure(&tally, &rules).expect("there are enough races");
        let (found, searched) = (regret.best.time.as_micros() as f64, brute_force(model, &rules, &mut rng));
        // One bucket for the border, and some for chance.
        assert!((0.96..1.08).contains(&(found / searched)), "case {seed}: {found} beside {searched}: {regret:?}");
        // A target below the part that the budget can hedge takes early hedges of some races (SPAA 2017).
        assert_eq!(regret.best.probability < 0.9, rules == low, "{regret:?}");
    }
}

#[test]
fn sequential_pool_regrets_and_the_best_rule_does_not() {
    for (seed, model) in (10..).zip(MODELS) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tally = RegretTally::default();
        play(&tally, model, 300_000, None, 0.0, &mut rng);
        let sequential = measure(&tally, &RULES).expect("there are enough races");
        assert!(sequential.ratio() > 1.1, "model {seed}: {sequential:?}");
        let ReissueRule { delay, probability, .. } = sequential.best;
        let tally = RegretTally::default();
        play(&tally, model, 300_000, Some(delay.as_micros() as u64), probability, &mut rng);
        let optimal = measure(&tally, &RULES).expect("there are enough races");
        assert!((1.0..1.1).contains(&optimal.ratio()), "model {seed}: {optimal:?}");
        // The censored attempts of the second run yield the same optimum as the whole ones of the first.
        let best = optimal.best.time.div_duration_f64(sequential.best.time);
        assert!((0.92..1.08).contains(&best), "model {seed}: {optimal:?} {sequential:?}");
    }
}

#[test]
fn without_budget_there_is_nothing_to_regret() {
    for (seed, model) in (20..).zip(MODELS) {
        let tally = RegretTally::default();
        play(&tally, model, 100_000, None, 0.0, &mut SmallRng::seed_from_u64(seed));
        let regret = measure(&tally, &RegretRules { budget: 0.0, ..RULES }).expect("there are enough races");
        assert!(regret.ratio() < 1.04 && regret.best.probability == 0.0, "model {seed}: {regret:?}");
    }
}

#[test]
fn race_of_two_is_a_hedge_at_once_for_all() {
    let (tally, mut rng) = (RegretTally::default(), SmallRng::seed_from_u64(30));
    play(&tally, exponential, 100_000, Some(0), 1.0, &mut rng);
    let regret = measure(&tally, &RegretRules { budget: 1.0, ..RULES }).expect("there are enough races");
    assert!((1.0..1.07).contains(&regret.ratio()), "{regret:?}");
    assert!(regret.best.probability > 0.99 && regret.best.delay < micros(100), "{regret:?}");
}

#[test]
fn few_races_have_no_regret() {
    let (tally, mut rng) = (RegretTally::default(), SmallRng::seed_from_u64(40));
    play(&tally, exponential, 4_999, None, 0.0, &mut rng);
    assert_eq!(measure(&tally, &RULES), None);
    assert!(measure(&tally, &RegretRules { target: 0.99, ..RULES }).is_some(), "p99 takes 500 races");
    play(&tally, exponential, 1, None, 0.0, &mut rng);
    assert!(measure(&tally, &RULES).is_some());
    assert_eq!(RegretMeter::default().measure([].into_iter(), &RULES, Instant::now()), None);
}

#[test]
fn target_beyond_what_is_known_has_no_regret() {
    let tally = RegretTally::default();
    (0..10_000).for_each(|_| {
        tally.won(took(1_000));
        tally.replied(AttemptKind::First, took(1_000));
    });
    let beaten = |waited| (0..100).for_each(|_| _ = tally.beaten(AttemptKind::First, micros(waited)));
    beaten(900);
    let rules = RegretRules { budget: 0.0, failover: None, ..RULES };
    assert!(measure(&tally, &rules).is_some(), "their time may be that of the others");
    beaten(1_100);
    assert_eq!(measure(&tally, &rules), None, "1 % took longer, and it is not known how long");
}

#[test]
fn only_the_last_ten_minutes_count() {
    let (tally, mut meter, start) = (RegretTally::default(), RegretMeter::default(), Instant::now());
    let mut rng = SmallRng::seed_from_u64(50);
    let mut measure =
        |tally: &RegretTally, seconds| meter.measure([tally].into_iter(), &RULES, start + Duration::from_secs(seconds));
    play(&tally, bimodal, 50_000, None, 0.0, &mut rng);
    assert!(measure(&tally, 0).is_some_and(|regret| regret.ratio() > 2.0));
    let steady = |_: &mut SmallRng| 1_000;
    play(&tally, steady, 6_000, None, 0.0, &mut rng);
    assert!(measure(&tally, 4).is_some_and(|regret| regret.ratio() > 2.0), "it rests");
    for minute in 1..=9 {
        assert!(measure(&tally, 60 * minute).is_some_and(|regret| regret.ratio() > 2.0), "{minute}");
    }
    for minute in 10..=13 {
        measure(&tally, 60 * minute);
    }
    assert_eq!(measure(&tally, 60 * 13), None, "there were no races in the last ten minutes");
    play(&tally, steady, 6_000, None, 0.0, &mut rng);
    assert!(measure(&tally, 60 * 14).is_some_and(|regret| regret.ratio() == 1.0));
}

#[test]
fn a_pool_takes_two_megabytes_with_a_hundred_workers() {
    let marks = (WINDOW.as_secs() / EPOCH.as_secs() + 2) as usize * size_of::<RegretTally>();
    let octets = 100 * size_of::<RegretTally>() + marks + size_of::<RegretMeter>();
    assert!(octets < 2_000_000, "{octets}");
}

fn counts(tally: &RegretTally) -> Vec<u64> {
    let rows = [BucketRow::FirstReplied, BucketRow::FirstBeaten, BucketRow::SecondReplied, BucketRow::SecondBeaten];
    let counts = RegretCounts::of([tally].into_iter()).expect("a tally");
    rows.iter().flat_map(|row| counts.sum(&[*row])).collect()
}

proptest! {
    /// Late replies leave no trace of the censored times.
    #[test]
    fn late_replies_correct_beaten_attempts(
        attempts in prop::collection::vec((0..3_usize, 0..20_000_000_u64, 0..2_000_000_u64), 0..100),
    ) {
        let (beaten, exact) = (RegretTally::default(), RegretTally::default());
        for (kind, waited, more) in attempts {
            let kind = AttemptKind::ALL[kind];
            let attempt = beaten.beaten(kind, micros(waited));
            beaten.replied_late(attempt, took(waited + more));
            exact.replied(kind, took(waited + more));
            let uncounted = BeatenAttempt::uncounted(kind);
            beaten.replied_late(uncounted, took(waited));
            beaten.still_silent(uncounted, micros(waited));
        }
        prop_assert_eq!(counts(&beaten), counts(&exact));
    }

    /// Without censored times, the estimate is the share of longer times; with them, it is near that share
    /// where enough attempts were waited for.
    #[test]
    fn estimate_from_censored_times_is_near_the_exact_one(seed: u64, model in 0..3_usize, patience in 0.5..4.0_f64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut exact, mut replied, mut beaten) = ([0; BUCKETS], [0; BUCKETS], [0; BUCKETS]);
        for _ in 0..ATTEMPTS {
            let latency = MODELS[model](&mut rng);
            let waited = (-patience * 2_000.0 * rng.random_range(1e-9..1.0_f64).ln()) as u64;
            let bucket = |time: u64| Buckets::bucket(time.min(16_000_000));
            exact[bucket(latency)] += 1;
            if latency <= waited { replied[bucket(latency)] += 1 } else { beaten[bucket(waited)] += 1 }
        }
        let (estimate, whole) = (SurvivalCurve::of(&replied, &beaten), SurvivalCurve::of(&exact, &[]));
        let (mut later, mut open) = (ATTEMPTS, ATTEMPTS);
        for bucket in 0..BUCKETS {
            let border = Buckets::border(bucket);
            prop_assert!((whole.beyond(border) - later as f64 / ATTEMPTS as f64).abs() < 1e-9);
            let error = (estimate.beyond(border) - whole.beyond(border)).abs();
            prop_assert!(error < 0.05 || open < 500, "{bucket}: off by {error}, {open} are open");
            later -= exact[bucket];
            open -= replied[bucket] + beaten[bucket];
        }
    }
}

const ATTEMPTS: u64 = 20_000;
