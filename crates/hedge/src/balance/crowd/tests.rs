//! Many backends: shares by weight and health, and where names are at home.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::tests::ALL;
use super::*;
use crate::backend_load::BackendLoad;

/// Creates a crowd with numbers as identities; all backends take requests.
fn crowd(balance: Balance, weights: &[u16]) -> Crowd {
    let numbers = 0..weights.len() as u16;
    Crowd::new(
        balance,
        numbers.zip(weights).map(|(number, &weight)| (BackendIndex(number), weight, number.into(), true)),
    )
}

/// Counts how often each backend is the first choice.
fn firsts(crowd: &Crowd, balance: Balance, queries: u64, up: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut counts = vec![0.0; crowd.weights.len()];
    for turn in 0..queries {
        let name = turn.wrapping_mul(0x2545_F491_4F6C_DD1D);
        let input = BalanceInput { turn, name, ..BalanceInput::new(Instant::now()) };
        let list = crowd.candidates(balance, &input, |backend| up(backend.get()), &mut rng);
        assert_eq!(list.len(), MAX_ATTEMPTS, "{balance:?}");
        assert!(list.iter().all(|backend| up(backend.get())), "{balance:?}: {list:?}");
        counts[list.as_slice()[0].get()] += 1.0;
    }
    counts
}

/// Returns weights from 1 to 5.
fn weights(count: usize) -> Vec<u16> {
    (0..count).map(|number| 1 + (number % 5) as u16).collect()
}

#[test]
fn everyone_is_first_as_often_as_its_weight_says() {
    let weights = weights(200);
    let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
    for (balance, tolerance) in
        [(Balance::RoundRobin, 0.02), (Balance::Random, 0.2), (Balance::LeastLoad, 0.2), (Balance::Fastest, 0.2)]
    {
        let counts = firsts(&crowd(balance, &weights), balance, 200_000, |_| true);
        for (count, weight) in counts.iter().zip(&weights) {
            let expected = f64::from(*weight) / total * 200_000.0;
            assert!((count - expected).abs() <= tolerance * expected, "{balance:?}: {count}, not {expected}");
        }
    }
    // A home is one of 65,537 places, of which each member has some hundreds here.
    let counts = firsts(&crowd(Balance::Hash, &weights), Balance::Hash, 400_000, |_| true);
    for (count, weight) in counts.iter().zip(&weights) {
        let expected = f64::from(*weight) / total * 400_000.0;
        assert!((count - expected).abs() <= 0.35 * expected, "{count}, not {expected}");
    }
}

#[test]
fn equal_members_take_their_turns_one_by_one() {
    let counts = firsts(&crowd(Balance::RoundRobin, &[3; 100]), Balance::RoundRobin, 1_000, |_| true);
    assert!(counts.iter().all(|&count| count == 10.0), "{counts:?}");
}

#[test]
fn who_has_gone_down_since_is_passed_over() {
    for balance in ALL {
        let counts = firsts(&crowd(balance, &weights(300)), balance, 3_000, |backend| backend % 3 != 0);
        assert!(counts.iter().step_by(3).all(|&count| count == 0.0), "{balance:?}");
    }
}

#[test]
fn the_last_one_that_takes_queries_is_found() {
    let input = BalanceInput::new(Instant::now());
    for balance in ALL {
        let crowd = crowd(balance, &weights(2_000));
        let mut rng = SmallRng::seed_from_u64(1);
        let list = crowd.candidates(balance, &input, |backend| backend.0 == 1_234, &mut rng);
        assert_eq!((list.as_slice(), list.all_down()), (&[BackendIndex(1_234)][..], false), "{balance:?}");
    }
}

#[test]
fn ordered_asks_the_first_that_take_queries() {
    let crowd = crowd(Balance::Ordered, &[1; 100]);
    let input = BalanceInput::new(Instant::now());
    let list = crowd.candidates(Balance::Ordered, &input, |backend| backend.0 > 3, &mut SmallRng::seed_from_u64(1));
    assert_eq!(list.as_slice(), [4, 5, 6, 7, 8, 9, 10, 11].map(BackendIndex));
}

#[test]
fn if_none_takes_queries_all_are_asked() {
    let numbers = (0..100).map(|number| (BackendIndex(number), 1, number.into(), false));
    for balance in ALL {
        let mut rng = SmallRng::seed_from_u64(1);
        let input = BalanceInput::new(Instant::now());
        let known = Crowd::new(balance, numbers.clone());
        assert!(known.all_down());
        let list = known.candidates(balance, &input, |_| false, &mut rng);
        assert!(list.all_down() && list.is_full(), "{balance:?}: {list:?}");
        // The backends went down after the crowd was built.
        let unknown = Crowd::new(
            balance,
            numbers.clone().map(|(backend, weight, identity, _)| (backend, weight, identity, true)),
        );
        let list = unknown.candidates(balance, &input, |_| false, &mut rng);
        assert!(list.all_down() && list.is_full(), "{balance:?}: {list:?}");
        assert!(Crowd::new(balance, std::iter::empty()).candidates(balance, &input, |_| true, &mut rng).is_empty());
    }
}

#[test]
fn it_knows_of_whom_it_was_made() {
    let of = |taking: &[u16]| taking.iter().map(|&number| BackendIndex(number)).collect::<Vec<_>>();
    let crowd = Crowd::new(Balance::Random, (0..4).map(|number| (BackendIndex(number), 1, number.into(), number != 2)));
    for (taking, expected) in [(&[0, 1, 3][..], true), (&[0, 1], false), (&[0, 1, 2, 3], false), (&[], false)] {
        assert_eq!(crowd.is_of(of(taking).into_iter()), expected, "{taking:?}");
    }
    let down = Crowd::new(Balance::Random, (0..4).map(|number| (BackendIndex(number), 1, number.into(), false)));
    assert!(down.is_of(std::iter::empty()) && !down.is_of(of(&[0, 1, 2, 3]).into_iter()));
}

#[test]
fn of_two_that_are_drawn_the_busy_and_the_slow_is_asked_less() {
    let now = Instant::now();
    let mut loads: Vec<_> = (0..100).map(|_| BackendLoad::new(now)).collect();
    for load in loads.iter_mut().skip(50) {
        (0..10).for_each(|_| load.asked(now));
    }
    for balance in [Balance::LeastLoad, Balance::Fastest] {
        let crowd = crowd(balance, &[1; 100]);
        let (mut rng, mut busy) = (SmallRng::seed_from_u64(3), 0);
        for _ in 0..10_000 {
            let input = BalanceInput { loads: &loads, ..BalanceInput::new(now + Duration::from_millis(1)) };
            let list = crowd.candidates(balance, &input, |_| true, &mut rng);
            busy += usize::from(list.as_slice()[0].get() >= 50);
        }
        // Both draws come from the busy half once in four times.
        assert!((2_200..2_800).contains(&busy), "{balance:?}: {busy}");
    }
}

#[test]
fn a_home_with_too_much_to_do_comes_last() {
    let (crowd, now) = (crowd(Balance::Hash, &[1; 100]), Instant::now());
    let mut rng = SmallRng::seed_from_u64(1);
    let mut list = |loads: &[BackendLoad], out| {
        let input = BalanceInput { name: 42, loads, out, ..BalanceInput::new(now) };
        crowd.candidates(Balance::Hash, &input, |_| true, &mut rng)
    };
    let mut loads: Vec<_> = (0..100).map(|_| BackendLoad::new(now)).collect();
    let idle = list(&loads, 0);
    let home = idle.as_slice()[0];
    (0..40).for_each(|_| loads[home.get()].asked(now));
    let busy = list(&loads, 40);
    assert_eq!((busy.as_slice()[0], busy.as_slice().last()), (idle.as_slice()[1], Some(&home)));
    // If the others are equally busy, the backend is not overloaded.
    assert_eq!(list(&loads, 4_000), idle);
}

#[test]
fn one_who_starts_slowly_is_passed_over_now_and_then() {
    let now = Instant::now();
    let mut loads: Vec<_> = (0..100).map(|_| BackendLoad::new(now)).collect();
    loads[0].came_back(now);
    let crowd = crowd(Balance::RoundRobin, &[1; 100]);
    let mut rng = SmallRng::seed_from_u64(5);
    let input = BalanceInput { loads: &loads, ..BalanceInput::new(now) };
    let first = |rng: &mut SmallRng| crowd.candidates(Balance::RoundRobin, &input, |_| true, rng).as_slice()[0];
    let asked = (0..10_000).filter(|_| first(&mut rng) == BackendIndex(0)).count();
    assert!((800..1_200).contains(&asked), "{asked}");
}

/// Returns the home of each name, as the identity of the member.
fn homes(members: &BTreeMap<u64, u16>) -> Vec<u64> {
    let identities: Vec<u64> = members.keys().copied().collect();
    let numbered =
        members.iter().zip(0..).map(|((&identity, &weight), number)| (BackendIndex(number), weight, identity, true));
    let crowd = Crowd::new(Balance::Hash, numbered.collect::<Vec<_>>().into_iter());
    let mut rng = SmallRng::seed_from_u64(1);
    let home = |name: u64| {
        let input =
            BalanceInput { name: name.wrapping_mul(0x2545_F491_4F6C_DD1D), ..BalanceInput::new(Instant::now()) };
        let list = crowd.candidates(Balance::Hash, &input, |_| true, &mut rng);
        identities[list.as_slice()[0].get()]
    };
    (0..3_000).map(home).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn only_names_of_who_came_or_went_move(
        members in prop::collection::btree_map(any::<u64>(), 1..=20_u16, 70..120),
        joining in prop::collection::btree_map(any::<u64>(), 1..=20_u16, 1..8),
        leaving in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let before = homes(&members);
        let mut with_more = members.clone();
        with_more.extend(joining.iter().filter(|(identity, _)| !members.contains_key(identity)));
        for (was, is) in before.iter().zip(homes(&with_more)) {
            prop_assert!(*was == is || !members.contains_key(&is), "a name moved to one that was there");
        }
        let gone: Vec<u64> = leaving.iter().map(|index| *index.get(&members.keys().copied().collect::<Vec<_>>())).collect();
        let with_fewer = members.iter().filter(|(identity, _)| !gone.contains(identity)).map(|(&i, &w)| (i, w)).collect();
        for (was, is) in before.iter().zip(homes(&with_fewer)) {
            prop_assert!(*was == is || gone.contains(was), "a name left one that stayed");
        }
    }
}
