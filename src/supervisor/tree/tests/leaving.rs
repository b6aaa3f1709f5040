//! Tests of orders to end that cross a change of the server.

use super::*;

/// A tree with the server 1 and the standbys 2 and 3.
fn whole_tree(now: Instant) -> Tree {
    let mut tree = Tree::first(RULES, now);
    tree.started(Purpose::First, 1, now);
    tree.introduced(1, Role::Server, now);
    for pid in [2, 3] {
        tree.started(Purpose::Stand, pid, now);
        tree.introduced(pid, Role::Standby, now);
    }
    assert!(tree.is_whole());
    tree.steps.clear();
    tree
}

#[test]
fn standbys_stay_while_a_hung_server_is_killed() {
    let begin = Instant::now();
    let mut tree = whole_tree(begin);
    for second in 1..=10 {
        let now = begin + Duration::from_secs(second);
        tree.heard(2, now);
        tree.heard(3, now);
        tree.tick(now);
    }
    let now = begin + Duration::from_secs(10);
    assert!(tree.steps.contains(&TreeStep::Kill(1)));
    tree.started(Purpose::Stand, 4, now);
    tree.introduced(4, Role::Standby, now);
    let is_end = |step: &TreeStep| matches!(step, TreeStep::Send(_, ProcessOrder::End));
    assert!(!tree.steps.iter().any(is_end), "{:?}", tree.steps);
    tree.ended(1, ProcessEnd::Signal(9), now);
    tree.says(4, Role::Server, ms(1), now);
    assert!(tree.is_whole());
    assert!(!tree.steps.iter().any(is_end), "{:?}", tree.steps);
}

#[test]
fn standby_that_serves_before_it_reads_its_order_to_end_stays() {
    let now = Instant::now();
    let mut tree = whole_tree(now);
    tree.set_rules(TreeRules { standbys: 1, ..RULES }, now);
    let [TreeStep::Send(pid, ProcessOrder::End)] = tree.steps.make_contiguous()[..] else {
        panic!("one standby too many: {:?}", tree.steps);
    };
    tree.says(pid, Role::Server, ms(1), now);
    tree.ended(1, ProcessEnd::Signal(9), now);
    assert!(tree.is_whole());
    assert!(!tree.steps.contains(&TreeStep::Start(Purpose::Stand)), "{:?}", tree.steps);
}
