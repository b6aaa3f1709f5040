//! Measurements of how the policies distribute requests, on a fake clock against modelled backends.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::*;
use super::{ALL, balancer, pool};
use crate::affinity::Affinity;
use crate::backend_load::{AttemptEnd, SLOW_START};
use crate::timers::Timers;

const EQUAL: [u16; 10] = [1; 10];
const UNEQUAL: [u16; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

fn firsts(weights: &[u16], balance: Balance, queries: u64) -> Vec<u64> {
    let turns = pool(weights, |_| true);
    let mut rng = StdRng::seed_from_u64(7);
    let mut counts = vec![0; weights.len()];
    let now = Instant::now();
    for query in 0..queries {
        let input = BalanceInput { turn: query, name: query, ..BalanceInput::new(now) };
        let first = turns.candidates(balance, &input, &mut rng).get(0).expect("there are backends");
        counts[first.get()] += 1;
    }
    counts
}

fn chi_square(counts: &[u64], weights: &[u16]) -> f64 {
    let queries = counts.iter().sum::<u64>() as f64;
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    let terms = counts.iter().zip(weights).map(|(&count, &weight)| {
        let expected = queries * f64::from(weight) / total;
        (count as f64 - expected).powi(2) / expected
    });
    terms.sum()
}

#[test]
fn an_idle_pool_is_shared_by_weight() {
    // With nine degrees of freedom chance alone exceeds this once in a thousand times; the seed is fixed.
    let limit = 27.9;
    for (balance, weights) in [
        (Balance::Random, &EQUAL),
        (Balance::Random, &UNEQUAL),
        (Balance::Hash, &EQUAL),
        (Balance::Hash, &UNEQUAL),
        (Balance::LeastLoad, &EQUAL),
        (Balance::LeastLoad, &UNEQUAL),
        (Balance::Fastest, &EQUAL),
    ] {
        let counts = firsts(weights, balance, 20_000);
        let distance = chi_square(&counts, weights);
        println!("{balance:?} {weights:?}: {counts:?}, chi-square {distance:.1}");
        assert!(distance < limit, "{balance:?} {weights:?}: {counts:?}, chi-square {distance:.1}");
    }
    for balance in [Balance::RoundRobin, Balance::Sticky] {
        for weights in [&EQUAL, &UNEQUAL] {
            let exact: Vec<_> = weights.iter().map(|&weight| u64::from(weight) * 200).collect();
            assert_eq!(firsts(weights, balance, exact.iter().sum()), exact, "{balance:?}");
        }
    }
}

fn homes(weights: &[u16], identities: &[u64], names: u64) -> Vec<u64> {
    let turns = balancer(weights, identities, |_| true);
    let now = Instant::now();
    let home = |name| {
        let input = BalanceInput { name, ..BalanceInput::new(now) };
        let list = turns.candidates(Balance::Hash, &input, &mut StdRng::seed_from_u64(0));
        identities[list.get(0).expect("there are backends").get()]
    };
    (0..names).map(home).collect()
}

#[test]
fn hash_moves_only_the_names_of_the_backend_that_comes_or_goes() {
    let names = 30_000;
    let identities: Vec<u64> = (100..111).collect();
    let (ten, eleven) = (homes(&[1; 10], &identities[..10], names), homes(&[1; 11], &identities, names));
    let without: Vec<u64> = identities.iter().copied().filter(|&identity| identity != 103).collect();
    let nine = homes(&[1; 9], &without[..9], names);

    let left = ten.iter().zip(&nine).filter(|(before, after)| before != after).count();
    assert!(ten.iter().zip(&nine).all(|(before, after)| before == after || *before == 103));
    let joined = ten.iter().zip(&eleven).filter(|(before, after)| before != after).count();
    assert!(ten.iter().zip(&eleven).all(|(before, after)| before == after || *after == 110));
    println!("{left} of {names} names move when one of ten leaves, {joined} when one joins ten");
    assert!(left.abs_diff(3_000) < 200, "{left} of {names} names move when one of ten leaves");
    assert!(joined.abs_diff(2_727) < 200, "{joined} of {names} names move when one joins ten");

    // The order of the backends does not matter, and a greater weight only takes names from others.
    let backward: Vec<u64> = identities[..10].iter().rev().copied().collect();
    assert_eq!(homes(&[1; 10], &backward, names), ten);
    let heavier = homes(&[2, 1, 1, 1, 1, 1, 1, 1, 1, 1], &identities[..10], names);
    assert!(ten.iter().zip(&heavier).all(|(before, after)| before == after || *after == 100));
}

#[derive(Clone, Copy, Debug)]
struct SharesModel {
    delay: Duration,
    stalled: (Duration, Duration),
    fails: bool,
}

const SOUND: SharesModel = SharesModel { delay: ms(1), stalled: (Duration::MAX, Duration::MAX), fails: false };

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[derive(Clone, Copy, Debug)]
struct SharesQuestion {
    at: Duration,
    backend: usize,
    is_diverted: bool,
}

/// Sends `queries`, `gap` apart on average, each to one backend that has a second to reply.
fn simulate(
    balance: Balance,
    models: &[SharesModel],
    weights: &[u16],
    (gap, queries): (Duration, u64),
    name: impl Fn(u64) -> u64,
) -> Vec<SharesQuestion> {
    let turns = pool(weights, |_| true);
    let start = Instant::now();
    let mut rng = StdRng::seed_from_u64(11);
    let mut loads: Vec<_> = (0..models.len()).map(|_| BackendLoad::new(start)).collect();
    let mut ends: Timers<(usize, AttemptEnd)> = Timers::new();
    let exponential = |mean: Duration, rng: &mut StdRng| mean.mul_f64(-(1.0 - rng.random::<f64>()).ln());
    let mut asked = Vec::new();
    let mut now = start;
    for query in 0..queries {
        now += exponential(gap, &mut rng);
        while let Some((at, (backend, end))) = ends.pop_due(now) {
            loads[backend].ended(end, at);
        }
        let input = BalanceInput { turn: query, name: name(query), loads: &loads, ..BalanceInput::new(now) };
        let backend = turns.candidates(balance, &input, &mut rng).get(0).expect("there are backends");
        let home = turns.candidates(balance, &BalanceInput { loads: &[], ..input }, &mut rng).get(0);
        let (model, at) = (models[backend.get()], now - start);
        asked.push(SharesQuestion { at, backend: backend.get(), is_diverted: home != Some(backend) });
        if balance == Balance::Hash {
            check_bound(&loads, weights, backend.get());
        }
        loads[backend.get()].asked(now);
        let took = exponential(model.delay, &mut rng);
        let (took, end) = match (model.stalled.0..model.stalled.1).contains(&at) {
            true => (ms(1_000), AttemptEnd::Silence(ms(1_000))),
            false if model.fails => (took, AttemptEnd::Failure(took)),
            false => (took, AttemptEnd::Reply(took)),
        };
        ends.push(now + took, (backend.get(), end));
    }
    asked
}

fn check_bound(loads: &[BackendLoad], weights: &[u16], chosen: usize) {
    let total: u32 = 1 + loads.iter().map(BackendLoad::in_flight).sum::<u32>();
    let part = f64::from(weights[chosen]) / weights.iter().map(|&weight| f64::from(weight)).sum::<f64>();
    let limit = (1.25 * part * f64::from(total)).ceil().max(f64::from(rendezvous::MIN_BOUND));
    let out = loads[chosen].in_flight() + 1;
    assert!(f64::from(out) <= limit, "{out} of {total} at backend {chosen}, limit {limit}");
}

fn counts<'a>(asked: impl IntoIterator<Item = &'a SharesQuestion>, backends: usize) -> Vec<u64> {
    let mut counts = vec![0; backends];
    for query in asked {
        counts[query.backend] += 1;
    }
    counts
}

#[test]
fn hash_keeps_names_at_home_but_overloads_nobody() {
    let spread = |query: u64| query.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // The mean of attempts in flight is the number of arrivals within one delay.
    for (in_flight, most_diverted) in [(1, 0.0), (10, 0.0), (40, 0.001), (100, 0.1), (1_000, 0.02)] {
        let models = [SharesModel { delay: ms(10), ..SOUND }; 10];
        let load = (ms(10) / in_flight, 10_000);
        let asked = simulate(Balance::Hash, &models, &EQUAL, load, spread);
        let diverted = asked.iter().filter(|query| query.is_diverted).count() as f64 / asked.len() as f64;
        println!("hash, {in_flight} in flight: {:.2} % away from home", diverted * 100.0);
        assert!(diverted <= most_diverted, "{in_flight} in flight: {diverted} of the queries away from home");
    }
    // One name makes half of the load: its home gets no more than its weighted share.
    for weights in [EQUAL, UNEQUAL] {
        let hot = |query: u64| if query.is_multiple_of(2) { 4 } else { spread(query) };
        let asked = simulate(
            Balance::Hash,
            &[SharesModel { delay: ms(10), ..SOUND }; 10],
            &weights,
            (ms(10) / 1_000, 20_000),
            hot,
        );
        let counts = counts(&asked, 10);
        println!("hash, one hot name, weights {weights:?}: {counts:?}");
        let total: u16 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            let fair = 20_000.0 * f64::from(weight) / f64::from(total);
            // The bound is a whole number of attempts, so it is a little more than a quarter.
            assert!((*count as f64) < fair * 1.3, "{counts:?}");
        }
    }
}

#[test]
fn policies_that_look_at_load_share_a_busy_pool_by_weight() {
    for (balance, tolerance) in [(Balance::LeastLoad, 0.05), (Balance::Fastest, 0.25)] {
        let weights = [1, 2, 3, 4];
        let asked =
            simulate(balance, &[SharesModel { delay: ms(10), ..SOUND }; 4], &weights, (ms(10) / 200, 40_000), |_| 0);
        let counts = counts(&asked, 4);
        println!("{balance:?}, 200 in flight, weights {weights:?}: {counts:?}");
        for (count, weight) in counts.iter().zip(weights) {
            let fair = 4_000.0 * f64::from(weight);
            assert!((*count as f64 - fair).abs() < fair * tolerance, "{balance:?}: {counts:?}");
        }
    }
}

#[test]
fn a_slow_backend_gets_less() {
    for (balance, most) in [(Balance::LeastLoad, 0.15), (Balance::Fastest, 0.05)] {
        let models = [SharesModel { delay: ms(10), ..SOUND }, SOUND, SOUND, SOUND];
        let asked = simulate(balance, &models, &EQUAL[..4], (ms(1) / 5, 20_000), |_| 0);
        let counts = counts(&asked, 4);
        println!("{balance:?}, the first ten times as slow: {counts:?}");
        assert!(counts[0] as f64 <= 20_000.0 * most, "{balance:?}: {counts:?}");
        assert!(counts[1..].iter().all(|&count| count > 4_000), "{balance:?}: {counts:?}");
    }
}

#[test]
fn a_stalled_backend_is_left_within_a_few_queries() {
    for backends in [2, 4, 10] {
        let mut models = vec![SOUND; backends];
        models[0].stalled = (ms(1_000), Duration::MAX);
        let asked = simulate(Balance::Fastest, &models, &EQUAL[..backends], (ms(1) / 5, 25_000), |_| 0);
        let stalled = |query: &&SharesQuestion| query.backend == 0 && query.at >= ms(1_000);
        let lost = asked.iter().filter(stalled).count();
        println!("fastest, {backends} backends: {lost} of 20000 queries met with the stalled one");
        assert!(lost <= 10, "{lost} queries went to the stalled one of {backends}");
    }
}

#[test]
fn a_backend_that_stalled_is_found_back() {
    let mut models = [SOUND; 4];
    models[0].stalled = (ms(1_000), ms(2_000));
    let asked = simulate(Balance::Fastest, &models, &EQUAL[..4], (ms(10), 12_000), |_| 0);
    let counts = counts(asked.iter().filter(|query| query.at > ms(100_000)), 4);
    assert!(counts.iter().all(|&count| count > 300), "{counts:?}");
}

#[test]
fn a_backend_that_only_fails_is_not_the_fastest() {
    let models = [SharesModel { delay: ms(1) / 10, fails: true, ..SOUND }, SOUND];
    let counts = counts(&simulate(Balance::Fastest, &models, &[1, 1], (ms(1), 60_000), |_| 0), 2);
    assert!(counts[0] < 100, "{counts:?}");
}

#[test]
fn sticky_finds_names_that_tables_split_at_the_second_query() {
    let (turns, memory, now) = (pool(&[1, 1, 1], |_| true), Affinity::new(4_096), Instant::now());
    let mut rng = StdRng::seed_from_u64(3);
    let mut detours = [0; 3];
    for (round, detours) in detours.iter_mut().enumerate() {
        for number in 0..1_000_u64 {
            let name = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let known_by = BackendIndex((number % 3) as u16);
            let turn = round as u64 * 1_000 + number / 3;
            let remembered = memory.get(name).map(|backend| BackendIndex(backend as u16));
            let input = BalanceInput { turn, name, remembered, ..BalanceInput::new(now) };
            let list = turns.candidates(Balance::Sticky, &input, &mut rng);
            *detours += usize::from(list.get(0) != Some(known_by));
            memory.insert(name, known_by.0.into());
        }
    }
    assert!((500..800).contains(&detours[0]), "a new name goes to whose turn it is: {detours:?}");
    assert_eq!(detours[1..], [0, 0]);
}

#[test]
fn sticky_asks_elsewhere_while_the_home_of_a_name_is_down() {
    let turns = pool(&[1, 1, 1], |backend| backend != 2);
    let input = BalanceInput { remembered: Some(BackendIndex(2)), ..BalanceInput::new(Instant::now()) };
    let first =
        |turn| turns.candidates(Balance::Sticky, &BalanceInput { turn, ..input }, &mut StdRng::seed_from_u64(1)).get(0);
    assert_eq!([first(0), first(1), first(2)], [0, 1, 0].map(|backend| Some(BackendIndex(backend))));
}

#[test]
fn a_backend_that_came_back_gets_its_share_by_and_by() {
    let turns = pool(&[1; 4], |_| true);
    let start = Instant::now();
    let mut loads = [(); 4].map(|()| BackendLoad::new(start));
    loads[0].came_back(start);
    let mut rng = StdRng::seed_from_u64(5);
    let mut shares = BTreeMap::new();
    for balance in ALL {
        for (after, least, most) in [(0, 0.05, 0.15), (5_000, 0.5, 0.6), (10_000, 0.95, 1.05)] {
            let input = |turn| BalanceInput { turn, name: turn, loads: &loads, ..BalanceInput::new(start + ms(after)) };
            let mut first = |turn| turns.candidates(balance, &input(turn), &mut rng).get(0);
            let firsts = (0..20_000).filter(|&turn| first(turn) == Some(BackendIndex(0))).count();
            let normal = if balance == Balance::Ordered { 20_000.0 } else { 5_000.0 };
            let share = firsts as f64 / normal;
            shares.insert((format!("{balance:?}"), after), share);
            assert!((least..=most).contains(&share), "{balance:?} after {after} ms: {share} of its normal load");
        }
    }
    assert_eq!(SLOW_START, ms(10_000));
    println!("{shares:?}");
}

#[test]
fn when_all_start_slowly_the_usual_one_is_asked() {
    let start = Instant::now();
    let mut loads = [(); 2].map(|()| BackendLoad::new(start));
    loads.iter_mut().for_each(|load| load.came_back(start));
    let turns = pool(&[1, 1], |_| true);
    let mut rng = StdRng::seed_from_u64(5);
    let input = BalanceInput { loads: &loads, ..BalanceInput::new(start) };
    let mut first = || turns.candidates(Balance::Ordered, &input, &mut rng).get(0);
    let firsts = (0..1_000).filter(|_| first() == Some(BackendIndex(0))).count();
    assert!((850..950).contains(&firsts), "{firsts}");
}
