//! Each model is run in every order of its atomic operations in which threads interrupt each other up to
//! three times, and with every value that a relaxed load may see.

use std::net::IpAddr;

use hedgerow_loom::engine::single_flight::{SingleFlight, WorkerId};
use hedgerow_loom::hedge::affinity::Affinity;
use hedgerow_loom::hedge::budget::Budget;
use hedgerow_loom::limit::Rates;
use hedgerow_loom::limit::clients::{Clients, Holding, TooMuch, WaitRules};
use hedgerow_loom::limit::zones::ZonePlaces;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::{AcqRel, Relaxed};
use loom::thread;

/// Runs a model, and says how many orders that were.
fn model(name: &str, run: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        run();
    });
    println!("{name}: {} orders", orders.load(std::sync::atomic::Ordering::Relaxed));
}

/// Runs a closure on several threads, each with its number, and returns the results.
fn threads<T: Send + 'static, const COUNT: usize>(run: impl Fn(u16) -> T + Send + Sync + 'static) -> [T; COUNT] {
    let run = Arc::new(run);
    let others: Vec<_> = (1..COUNT as u16)
        .map(|number| {
            let run = Arc::clone(&run);
            thread::spawn(move || run(number))
        })
        .collect();
    let mut results = vec![run(0)];
    results.extend(others.into_iter().map(|other| other.join().expect("a thread does not panic")));
    results.try_into().unwrap_or_else(|_| unreachable!("each has one result"))
}

#[test]
fn one_worker_at_a_time_has_the_race_of_a_question() {
    model("single-flight", || {
        let shared = Arc::new((SingleFlight::new(2), AtomicUsize::new(0)));
        let claimed: [_; 2] = threads({
            let shared = Arc::clone(&shared);
            move |me| {
                let (claims, holders) = &*shared;
                // Twice, as for two questions that share a slot.
                let taken = [(); 2].map(|()| match claims.take(0, WorkerId(me)) {
                    Ok(()) => {
                        assert!(holders.fetch_or(1 << me, AcqRel) & !(1 << me) == 0, "two workers hold one slot");
                        true
                    }
                    Err(holder) => {
                        assert_ne!(holder, WorkerId(me), "a query is handed over to another worker");
                        false
                    }
                });
                for (number, _) in taken.iter().enumerate().filter(|(_, is_taken)| **is_taken) {
                    if taken[number + 1..].iter().all(|is_taken| !is_taken) {
                        holders.fetch_and(!(1 << me), AcqRel);
                    }
                    claims.release(0);
                }
                taken.contains(&true)
            }
        });
        assert!(claimed.contains(&true), "somebody has it");
        for worker in [WorkerId(0), WorkerId(1)] {
            assert_eq!(shared.0.take(0, worker), Ok(()), "what is released is free");
            shared.0.release(0);
        }
    });
}

#[test]
fn hedges_are_paid_for_once() {
    model("hedge budget", || {
        let budget = Arc::new(Budget::new(0.5));
        while budget.hedges_left() > 1 {
            assert!(budget.take());
        }
        // One is left, and one more is earned meanwhile by one of them.
        let taken: [_; 2] = threads({
            let budget = Arc::clone(&budget);
            move |number| {
                let first = budget.take();
                if number == 0 {
                    budget.earn(2);
                }
                u64::from(first) + u64::from(budget.take())
            }
        });
        assert_eq!(taken.iter().sum::<u64>() + budget.hedges_left(), 2);
    });
}

#[test]
fn what_is_given_back_while_the_bucket_shrinks_does_not_overflow_it_for_long() {
    model("hedge budget that shrinks", || {
        let budget = Arc::new(Budget::new(0.5));
        budget.set_recent_queries(1_200);
        budget.earn(10);
        assert_eq!(budget.hedges_left(), 12);
        let _: [(); 3] = threads({
            let budget = Arc::clone(&budget);
            move |number| {
                if number == 0 {
                    budget.set_recent_queries(0);
                } else if number == 1 {
                    budget.earn(1);
                } else if budget.take() {
                    budget.give_back();
                }
            }
        });
        // A thread that gives back may have seen the previous capacity; the next query corrects that.
        assert!((9..=12).contains(&budget.hedges_left()));
        budget.set_recent_queries(0);
        assert!(budget.hedges_left() <= 10);
    });
}

#[test]
fn names_that_share_a_set_are_never_taken_for_each_other() {
    model("affinity", || {
        let affinity = Arc::new(Affinity::new(1));
        let name = |number: u16| u64::from(number + 1) << 32;
        let seen: [_; 2] = threads({
            let affinity = Arc::clone(&affinity);
            move |number| {
                affinity.insert(name(number), 10 + u32::from(number));
                [name(number), name(1 - number)].map(|name| affinity.get(name))
            }
        });
        for (own, other) in [(0_u16, 1_u16), (1, 0)] {
            assert!(seen[usize::from(own)][0].is_none_or(|backend| backend == 10 + u32::from(own)), "{seen:?}");
            assert!(seen[usize::from(own)][1].is_none_or(|backend| backend == 10 + u32::from(other)), "{seen:?}");
        }
        assert!(
            (0..2).any(|number| affinity.get(name(number)) == Some(10 + u32::from(number))),
            "the last write stays"
        );
    });
}

#[test]
fn name_that_two_workers_learn_lives_at_one_of_their_backends() {
    model("affinity of one name", || {
        let affinity = Arc::new(Affinity::new(1));
        let _: [(); 3] = threads({
            let affinity = Arc::clone(&affinity);
            move |number| {
                affinity.insert(1 << 32, u32::from(number));
                assert!(affinity.get(1 << 32).is_some_and(|backend| backend < 3));
            }
        });
        assert!(affinity.get(1 << 32).is_some_and(|backend| backend < 3));
        affinity.remove(1 << 32);
        assert_eq!(affinity.get(1 << 32), None, "though it may have been written twice");
    });
}

#[test]
fn client_that_is_let_in_while_another_goes_gets_twice_its_limit_at_most() {
    model("clients, one that comes and one that goes", || {
        let clients = Arc::new(Clients::new(0, 7));
        let places: [_; 3] = threads({
            let clients = Arc::clone(&clients);
            let other = clients.take(client(2), Holding::Connection, 1).expect("there is room");
            move |number| match number {
                0 => {
                    clients.give_back(other, Holding::Connection);
                    None
                }
                _ => clients.take(client(1), Holding::Connection, 1),
            }
        });
        let places: Vec<_> = places.into_iter().flatten().collect();
        assert!((1..=2).contains(&places.len()), "{places:?}");
        assert_eq!(clients.total(Holding::Connection), places.len() as u64);
        places.into_iter().for_each(|place| clients.give_back(place, Holding::Connection));
        assert_eq!(clients.total(Holding::Connection), 0);
        let again = clients.take(client(1), Holding::Connection, 1);
        assert!(again.is_some() && clients.take(client(1), Holding::Connection, 1).is_none());
    });
}

fn client(last: u16) -> IpAddr {
    [192, 0, 2, last as u8].into()
}

#[test]
fn client_that_two_workers_let_in_holds_what_it_may() {
    model("clients, one of them", || {
        let clients = Arc::new(Clients::new(0, 7));
        let places: [_; 3] = threads({
            let clients = Arc::clone(&clients);
            move |_| clients.take(client(1), Holding::Connection, 1)
        });
        let places: Vec<_> = places.into_iter().flatten().collect();
        assert_eq!((places.len(), clients.total(Holding::Connection)), (1, 1));
        places.into_iter().for_each(|place| clients.give_back(place, Holding::Connection));
        assert_eq!(clients.total(Holding::Connection), 0);
    });
}

#[test]
fn what_two_clients_hold_is_given_back_to_themselves() {
    model("clients, two of them", || {
        let clients = Arc::new(Clients::new(0, 7));
        let kept: [_; 2] = threads({
            let clients = Arc::clone(&clients);
            move |number| {
                let place = clients.take(client(number), Holding::Waiting, 2).expect("there is room");
                clients.give_back(place, Holding::Waiting);
                clients.take(client(number), Holding::Connection, 2).expect("there is room")
            }
        });
        assert_eq!([Holding::Waiting, Holding::Connection].map(|what| clients.total(what)), [0, 2]);
        assert!(kept.iter().all(|place| clients.held(place, Holding::Connection) == 1), "{kept:?}");
        kept.into_iter().for_each(|place| clients.give_back(place, Holding::Connection));
        assert_eq!(clients.total(Holding::Connection), 0);
    });
}

#[test]
fn no_more_queries_wait_than_may() {
    model("clients, queries in all", || {
        let shared = Arc::new((Clients::new(0, 7), AtomicUsize::new(0)));
        let _: [(); 3] = threads({
            let shared = Arc::clone(&shared);
            move |number| {
                let (clients, waiting) = &*shared;
                match clients.wait(
                    client(number),
                    ZonePlaces::NONE,
                    WaitRules { waiting: 5, in_flight: 1, per_zone: None },
                ) {
                    Ok(place) => {
                        assert_eq!(waiting.fetch_add(1, Relaxed), 0);
                        waiting.fetch_sub(1, Relaxed);
                        clients.end_wait(place, ZonePlaces::NONE);
                    }
                    Err(error) => assert_eq!(error, TooMuch::InAll),
                }
            }
        });
        assert_eq!((shared.0.waiting(), shared.0.total(Holding::Waiting)), (0, 0));
    });
}

#[test]
fn every_response_to_a_client_is_counted() {
    model("rates, one account", || {
        let rates = Arc::new(Rates::new());
        let mut owed: [_; 3] = threads({
            let rates = Arc::clone(&rates);
            move |_| rates.charge(1)
        });
        owed.sort_unstable();
        assert_eq!((owed, rates.charge(1)), ([0, 1_000, 2_000], 3_000));
    });
}

#[test]
fn accounts_that_share_a_set_never_owe_for_each_other() {
    model("rates, two accounts", || {
        let rates = Arc::new(Rates::new());
        let owed: [_; 2] = threads({
            let rates = Arc::clone(&rates);
            move |number| rates.charge(u64::from(number) + 1)
        });
        assert_eq!(owed, [0, 0]);
        // One of them may have taken the place of the other.
        assert!([1, 2].map(|account| rates.charge(account)).iter().all(|owed| [0, 1_000].contains(owed)));
    });
}
