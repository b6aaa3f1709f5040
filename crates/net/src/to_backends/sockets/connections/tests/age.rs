//! Connections with `max_age`.

use super::*;

fn aging() -> ConnectionPoolRules {
    let hour = Duration::from_secs(3600);
    ConnectionPoolRules { max: 1, max_age: Some(Duration::from_secs(10)), idle: hour, ..rules() }
}

#[test]
fn old_connection_is_replaced_and_closes_after_its_pending_replies() {
    let (mut play, mut old) = used(aging());
    play.pass(7_900);
    play.turn();
    assert_eq!(play.made(ConnectionKind::Full), 1);
    play.now += Duration::from_millis(1_200);
    play.ask(1).unwrap();
    play.until_open(2);
    let mut fresh = play.accept();
    play.ask(2).unwrap();
    let query = fresh.next();
    fresh.answer(&query);
    play.until(|play| play.replied == [0, 2]);
    assert_eq!(play.counters.open.get(), 2, "a query is pending");
    let query = old.next();
    old.answer(&query);
    play.until(|play| play.replied == [0, 2, 1]);
    play.pass(10);
    assert_eq!(play.counters.open.get(), 1);
    assert!(old.is_closed() && play.ended.is_empty());
    assert_eq!(play.made(ConnectionKind::Full), 2);
}

#[test]
fn old_connection_stays_in_use_while_no_other_can_be_opened() {
    let (mut play, mut old) = used(aging());
    let address = play.listener.local_addr().unwrap();
    play.listener = TcpListener::bind("127.0.0.1:0").unwrap();
    play.pass(9_100);
    play.until(|play| play.made(ConnectionKind::Failed) == 1);
    play.ask(1).unwrap();
    let query = old.next();
    old.answer(&query);
    play.until(|play| play.replied == [0, 1]);
    play.listener = TcpListener::bind(address).unwrap();
    play.pass(300);
    play.until(|play| play.made(ConnectionKind::Full) == 2);
    play.pass(10);
    assert!(old.is_closed());
}

#[test]
fn unused_connection_is_not_replaced() {
    let (mut play, mut old) = used(aging());
    play.pass(9_100);
    play.until(|play| play.made(ConnectionKind::Full) == 2);
    play.pass(10);
    assert!(old.is_closed());
    for _ in 0..30 {
        play.pass(1_000);
    }
    assert_eq!((play.counters.open.get(), play.made(ConnectionKind::Full)), (0, 2));
}

#[test]
fn warm_connection_is_replaced_for_as_long_as_it_is_kept() {
    let (mut play, _old) = used(ConnectionPoolRules { warm: true, ..aging() });
    for _ in 0..55 {
        play.pass(1_000);
        play.until(|play| play.counters.open.get() >= 1);
    }
    let made = play.made(ConnectionKind::Full);
    assert!((6..=7).contains(&made), "{made}");
}
