//! Tests with samples of known distributions.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::latency::{BUCKETS, TimeBucket};

const RULES: TuningRules = TuningRules { target: 0.999, budget: 0.05, step: 0.05, failover: Duration::from_secs(1) };

fn ms(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}

/// Returns the sample of a backend with this latency.
fn sample(seed: u64, latency: impl Fn(&mut SmallRng) -> Duration) -> BackendSample {
    let (mut rng, mut replied) = (SmallRng::seed_from_u64(seed), vec![0; BUCKETS]);
    let mut latencies: Vec<_> = (0..20_000).map(|_| latency(&mut rng)).collect();
    latencies.iter().for_each(|latency| replied[usize::from(TimeBucket::of(*latency).0)] += 1);
    latencies.sort_unstable();
    BackendSample {
        curve: SurvivalCurve::of(&replied, &[]),
        replies: 20_000,
        rate: 1_000.0,
        median: latencies[10_000],
        load: UsualLoad::default(),
        site: 0,
    }
}

/// Returns a latency of 1 to 2 ms, and of 100 to 110 ms for this part.
fn bimodal(slow: f64) -> impl Fn(&mut SmallRng) -> Duration {
    move |rng| ms(rng.random_range(1.0..2.0) + if rng.random_bool(slow) { 99.0 } else { 0.0 })
}

/// Returns the load of a queue that is so much longer for one more attempt per query.
fn crowded(crowding: f64) -> UsualLoad {
    UsualLoad { ahead: crowding, slope: 1.0, x: crowding.ln_1p(), y: -6.0, least: 0.0 }
}

fn tuned(samples: &[BackendSample], rules: TuningRules) -> Tuning {
    tune(samples, &rules).expect("there are enough replies")
}

fn time(tuning: &Tuning) -> Duration {
    tuning.expected.expect("the target can be reached")
}

#[test]
fn a_hedge_waits_for_the_slow_replies_that_the_budget_pays() {
    let tuning = tuned(&[sample(1, bimodal(0.03)), sample(2, bimodal(0.03))], RULES);
    for hedge in &tuning.hedges {
        assert!(hedge.probability > 0.99 && (1.2..1.5).contains(&hedge.medians), "{tuning:?}");
    }
    assert!(time(&tuning) > ms(2.5) && time(&tuning) < ms(4.1) && tuning.extra < 0.0451, "{tuning:?}");
}

#[test]
fn more_slow_replies_than_the_budget_pays_are_hedged_in_part() {
    let samples = [sample(1, bimodal(0.1)), sample(2, bimodal(0.1))];
    let tuning = tuned(&samples, TuningRules { target: 0.93, ..RULES });
    assert!(time(&tuning) < ms(5.0) && tuning.extra < 0.0451, "{tuning:?}");
    // Which of two equal backends gets the hedges makes no difference.
    let hedged = tuning.hedges.iter().map(|hedge| hedge.probability).sum::<f32>();
    assert!((0.7..1.1).contains(&hedged), "{tuning:?}");
}

#[test]
fn a_large_budget_is_used_step_by_step() {
    let mut rules = TuningRules { budget: 1.0, step: FIRST_STEP, ..RULES };
    let mut samples = [sample(1, bimodal(0.3)), sample(2, bimodal(0.3))];
    let mut steps = Vec::new();
    for _ in 0..20 {
        let tuning = tuned(&samples, rules);
        assert!(tuning.extra <= rules.step && tuning.step <= GROWTH * rules.step, "{rules:?} {tuning:?}");
        steps.push(rules.step);
        rules.step = tuning.step;
    }
    assert!(steps.is_sorted() && steps[19] == 1.0, "{steps:?}");
    // As backends fill up, the next step is small.
    samples.iter_mut().for_each(|sample| sample.load = crowded(20.0));
    let tuning = tuned(&samples, rules);
    assert!(tuning.step < 0.1, "{tuning:?}");
}

#[test]
fn whole_budget_makes_a_race() {
    let exponential = |rng: &mut SmallRng| ms(-2.0 * rng.random_range(1e-9..1.0_f64).ln());
    let tuning =
        tuned(&[sample(1, exponential), sample(2, exponential)], TuningRules { budget: 1.0, step: 1.0, ..RULES });
    assert!(tuning.hedges.iter().all(|hedge| hedge.medians < 0.1 && hedge.probability > 0.99), "{tuning:?}");
}

#[test]
fn the_budget_goes_where_replies_are_slow() {
    let tuning = tuned(&[sample(1, bimodal(0.08)), sample(2, |_| ms(1.0))], RULES);
    assert!(tuning.hedges[0].probability > 0.9 && tuning.hedges[0].medians < 1.5, "{tuning:?}");
    assert!(time(&tuning) < ms(4.0) && tuning.extra < 0.0451, "{tuning:?}");
}

#[test]
fn hedge_goes_to_another_site() {
    let slow = BackendSample { rate: 0.0, ..sample(2, |_| ms(50.0)) };
    let mut samples = [sample(1, bimodal(0.03)), slow, sample(3, |_| ms(1.0))];
    let any = tuned(&samples, RULES);
    (samples[0].site, samples[1].site) = (1, 1);
    let far = tuned(&samples, RULES);
    assert!(time(&far) < ms(4.0) && time(&any) > ms(40.0), "{far:?} {any:?}");
}

#[test]
fn crowded_backends_get_fewer_hedges() {
    let exponential = |rng: &mut SmallRng| ms(-2.0 * rng.random_range(1e-9..1.0_f64).ln());
    let extra = |crowding| {
        let samples = [1, 2].map(|seed| BackendSample { load: crowded(crowding), ..sample(seed, exponential) });
        tuned(&samples, RULES).extra
    };
    let extras = [0.0, 4.0, 19.0, 100.0].map(extra);
    assert!(extras.is_sorted_by(|more, less| more >= less) && extras[0] > 0.04 && extras[3] < 0.005, "{extras:?}");
    // Slow replies that have nothing to do with the load are hedged, for they cost more than the load.
    let samples = [1, 2].map(|seed| BackendSample { load: crowded(4.0), ..sample(seed, bimodal(0.01)) });
    assert!(time(&tuned(&samples, RULES)) < ms(5.0));
}

#[test]
fn more_losses_than_the_budget_pays_leave_the_target_out_of_reach() {
    let lossy =
        |seed| BackendSample { curve: SurvivalCurve::of(&[0; BUCKETS], &[1; BUCKETS]), ..sample(seed, bimodal(0.0)) };
    let tuning = tuned(&[lossy(1), lossy(2)], RULES);
    assert!(tuning.expected.is_none() && tuning.extra <= 0.0451, "{tuning:?}");
}

#[test]
fn too_little_is_no_tuning() {
    assert_eq!(tune(&[sample(1, bimodal(0.03))], &RULES), None, "there is no other backend");
    let with = |replies| [1, 2].map(|seed| BackendSample { replies, ..sample(seed, bimodal(0.08)) });
    assert_eq!(tune(&with(49), &RULES), None);
    // Few replies show p95 at most, which hedges of some races would lower at the expense of p99.9.
    let probabilities = |tuning: Tuning| tuning.hedges.iter().map(|hedge| hedge.probability).collect::<Vec<_>>();
    assert_eq!(probabilities(tuned(&with(50), RULES)), [1.0, 1.0]);
    assert!(probabilities(tuned(&with(20_000), TuningRules { target: 0.95, ..RULES })).iter().all(|part| *part < 0.9));
}

#[test]
fn slope_is_that_of_the_queue() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut noise = |mean: f64| ms(-mean * rng.random_range(1e-9..1.0_f64).ln());
    let (mut queue, mut wide) = (LoadSlope::default(), LoadSlope::default());
    for round in 0..2_000_u32 {
        let ahead = round * 7 % 11;
        queue.add(ahead, noise(1.0 + f64::from(ahead)));
        wide.add(ahead, noise(1.0));
    }
    assert!((0.8..1.2).contains(&queue.slope()) && (4.0..7.0).contains(&queue.load().crowding()), "{queue:?}");
    assert_eq!((wide.slope(), wide.load().crowding()), (0.0, 0.0));
}
