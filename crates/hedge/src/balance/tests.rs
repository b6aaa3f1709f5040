//! Tests of the policies: the first choice and its frequency.

mod shares;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::round::MAX_ROUND;
use super::*;
use crate::backend_load::AttemptEnd;

pub(super) const ALL: [Balance; 7] = [
    Balance::Ordered,
    Balance::RoundRobin,
    Balance::Random,
    Balance::Sticky,
    Balance::Hash,
    Balance::LeastLoad,
    Balance::Fastest,
];

/// Creates a pool with numbers as identities.
pub(super) fn pool(weights: &[u16], up: impl Fn(usize) -> bool) -> Balancer {
    let identities: Vec<u64> = (0..weights.len() as u64).collect();
    balancer(weights, &identities, up)
}

/// Creates a pool from one weight and one identity per backend.
pub(super) fn balancer(weights: &[u16], identities: &[u64], up: impl Fn(usize) -> bool) -> Balancer {
    let numbered: Vec<_> = (0..).zip(weights.iter().zip(identities)).collect();
    let backends = numbered
        .into_iter()
        .map(|(number, (&weight, &identity))| (BackendIndex(number), weight, identity, up(usize::from(number))));
    Balancer::new(backends.collect::<Vec<_>>().into_iter())
}

impl BalanceInput<'_> {
    /// Creates an input that contains only the time.
    pub(super) fn new(now: Instant) -> Self {
        Self { now, turn: 0, name: 0, loads: &[], out: 0, remembered: None }
    }
}

/// Returns the input of an idle pool at this turn.
fn at_turn(turn: u64) -> BalanceInput<'static> {
    BalanceInput { turn, ..BalanceInput::new(Instant::now()) }
}

/// Returns the candidates of the first `count` turns as numbers.
fn numbers(turns: &Balancer, balance: Balance, count: u64) -> Vec<Vec<u16>> {
    let mut rng = StdRng::seed_from_u64(1);
    let list = |turn| turns.candidates(balance, &at_turn(turn), &mut rng).iter().map(|backend| backend.0).collect();
    (0..count).map(list).collect()
}

#[test]
fn ordered_is_the_order_of_the_config() {
    let turns = pool(&[1, 9, 1], |backend| backend != 0);
    assert_eq!(numbers(&turns, Balance::Ordered, 2), [[1, 2], [1, 2]]);
}

#[test]
fn round_robin_rotates() {
    let turns = pool(&[1, 1, 1], |_| true);
    assert_eq!(numbers(&turns, Balance::RoundRobin, 4), [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
}

#[test]
fn round_robin_spreads_a_heavy_backend() {
    let turns = pool(&[5, 1, 1], |_| true);
    let firsts: Vec<_> = numbers(&turns, Balance::RoundRobin, 7).iter().map(|list| list[0]).collect();
    assert_eq!(firsts, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn if_none_is_up_all_are_asked() {
    let turns = pool(&[1, 1], |_| false);
    for balance in ALL {
        let list = turns.candidates(balance, &at_turn(0), &mut StdRng::seed_from_u64(1));
        assert!(list.all_down() && list.len() == 2, "{balance:?}: {list:?}");
    }
    assert!(!pool(&[1], |_| true).candidates(Balance::Ordered, &at_turn(0), &mut StdRng::seed_from_u64(1)).all_down());
}

#[test]
fn an_empty_pool_has_no_candidates() {
    let turns = pool(&[], |_| true);
    for balance in ALL {
        assert!(turns.candidates(balance, &at_turn(7), &mut StdRng::seed_from_u64(1)).is_empty());
    }
}

#[test]
fn random_follows_the_weights() {
    let turns = pool(&[1, 3], |_| true);
    let heavy = numbers(&turns, Balance::Random, 10_000).iter().filter(|list| list[0] == 1).count();
    assert!((7_300..7_700).contains(&heavy), "{heavy}");
}

#[test]
fn huge_weights_make_no_huge_round() {
    let turns = pool(&[u16::MAX, u16::MAX - 1, 1], |_| true);
    assert!(turns.round.len() <= MAX_ROUND as usize + 3, "{}", turns.round.len());
    assert!(turns.round.iter().all(|list| list.len() == 3));
}

/// The first of two, and the first three of a crowd's hundred, answer SERVFAIL to all, and sooner than the
/// others.
#[test]
fn those_that_fail_come_last_by_load_and_by_latency() {
    let now = Instant::now();
    let ms = std::time::Duration::from_millis;
    let loads = |count, failing, failures| {
        let mut loads: Vec<_> = (0..count).map(|_| BackendLoad::new(now)).collect();
        for (at, load) in loads.iter_mut().enumerate() {
            for _ in 0..failures {
                load.asked(now);
                load.ended(if at < failing { AttemptEnd::Failure(ms(0)) } else { AttemptEnd::Reply(ms(900)) }, now);
            }
            // The sound ones have more load.
            (0..if at < failing { 0 } else { 9 }).for_each(|_| load.asked(now));
        }
        loads
    };
    let mut rng = StdRng::seed_from_u64(1);
    for (balance, failures, after, expected) in [
        (Balance::LeastLoad, 6, 0, [1, 0]),
        (Balance::Fastest, 6, 0, [1, 0]),
        // Too few failures, or too long ago.
        (Balance::LeastLoad, 5, 0, [0, 1]),
        (Balance::Fastest, 5, 0, [0, 1]),
        (Balance::LeastLoad, 100, 7_000, [0, 1]),
        (Balance::Fastest, 100, 7_000, [0, 1]),
        // The other policies ignore failures.
        (Balance::Ordered, 100, 0, [0, 1]),
    ] {
        let loads = loads(2, 1, failures);
        let input = BalanceInput { loads: &loads, ..BalanceInput::new(now + ms(after)) };
        let list = pool(&[1, 1], |_| true).candidates(balance, &input, &mut rng);
        assert_eq!(list.as_slice(), expected.map(BackendIndex), "{balance:?}, {failures} failures, {after} ms later");
    }
    let (three, many) = (loads(3, 2, 6), loads(100, 50, 6));
    for balance in [Balance::LeastLoad, Balance::Fastest] {
        let crowd = Crowd::new(balance, (0..100).map(|at| (BackendIndex(at), 1, u64::from(at), true)));
        for _ in 0..100 {
            let input = BalanceInput { loads: &three, ..BalanceInput::new(now) };
            let list = pool(&[1, 1, 1], |_| true).candidates(balance, &input, &mut rng);
            assert_eq!(list.get(0), Some(BackendIndex(2)), "{balance:?}: two of three fail");
            let input = BalanceInput { loads: &many, ..input };
            let list = crowd.candidates(balance, &input, |_| true, &mut rng);
            assert!(list.iter().is_sorted_by_key(|backend| backend.get() < 50), "{balance:?}: {list:?}");
        }
    }
}

#[test]
fn one_that_starts_slowly_is_not_passed_over_for_one_that_fails() {
    let now = Instant::now();
    let mut loads = [(); 2].map(|()| BackendLoad::new(now));
    loads[0].came_back(now);
    for _ in 0..8 {
        loads[1].ended(AttemptEnd::Failure(std::time::Duration::ZERO), now);
    }
    let input = BalanceInput { loads: &loads, ..BalanceInput::new(now) };
    let (turns, mut rng) = (pool(&[1, 1], |_| true), StdRng::seed_from_u64(1));
    for balance in [Balance::LeastLoad, Balance::Fastest] {
        for _ in 0..100 {
            assert_eq!(turns.candidates(balance, &input, &mut rng).get(0), Some(BackendIndex(0)), "{balance:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_round_is_exact_and_everybody_follows(weights in prop::collection::vec(1..20_u16, 1..12)) {
        let turns = pool(&weights, |_| true);
        let lists = numbers(&turns, Balance::RoundRobin, turns.round.len() as u64);
        for (backend, &weight) in weights.iter().enumerate() {
            let firsts = lists.iter().filter(|list| usize::from(list[0]) == backend).count();
            prop_assert_eq!(firsts * usize::from(weights[0]), usize::from(weight) * lists.iter().filter(|list| list[0] == 0).count());
        }
        for (turn, list) in lists.iter().enumerate() {
            // Check against the definition: the distinct backends that follow in the ring.
            let ring = (0..lists.len()).map(|step| lists[(turn + step) % lists.len()][0]);
            let walked = Candidates::of(ring.map(BackendIndex), false);
            let walked: Vec<_> = walked.iter().map(|backend| backend.0).collect();
            prop_assert_eq!(list, &walked);
        }
    }

    #[test]
    fn only_backends_that_are_up_are_candidates(up in prop::collection::vec(any::<bool>(), 1..20), turn in any::<u64>(), seed in any::<u64>()) {
        let turns = pool(&vec![2; up.len()], |backend| up[backend]);
        let count = up.iter().filter(|&&up| up).count();
        for balance in ALL {
            let list = turns.candidates(balance, &at_turn(turn), &mut StdRng::seed_from_u64(seed));
            prop_assert_eq!(list.all_down(), count == 0);
            prop_assert_eq!(list.len(), (if count == 0 { up.len() } else { count }).min(8));
            prop_assert!(list.all_down() || list.iter().all(|backend| up[backend.get()]));
        }
    }
}
