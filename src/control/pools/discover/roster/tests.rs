//! The rules of a roster: each by a case, and all together by chance.

use std::cell::RefCell;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;
use crate::control::pools::discover::Item;

/// A pool whose members are identified by the last byte of their addresses.
struct Pool {
    roster: Roster,
    now: Instant,
    fixed: Vec<FixedBackend>,
    up: RefCell<BTreeSet<BackendAddress>>,
}

/// How long members are held.
const HOLD: Duration = Duration::from_secs(30);

fn address(number: u8) -> BackendAddress {
    BackendAddress::from(([192, 0, 2, number], 53))
}

/// An entry that is right.
fn item(number: u8) -> Item {
    (format!("key{number}"), Ok(MemberEntry::at(address(number))))
}

fn allow(prefix: &str) -> Vec<Prefix> {
    vec![prefix.parse().expect("a prefix")]
}

impl Pool {
    fn new() -> Self {
        let rules = RosterRules { max: 10, hold: HOLD, allow: allow("192.0.2.0/24") };
        let roster = Roster::new(rules, [MemberOrigin::File, MemberOrigin::Etcd, MemberOrigin::Dns]);
        Self { roster, now: Instant::now(), fixed: Vec::new(), up: RefCell::default() }
    }

    /// Sets the list of etcd.
    fn list(&mut self, numbers: &[u8]) -> Settlement {
        self.hear(MemberOrigin::Etcd, SourceNews::Listed(numbers.iter().copied().map(item).collect()))
    }

    fn hear(&mut self, origin: MemberOrigin, news: SourceNews) -> Settlement {
        self.roster.on_news(origin, news, self.now);
        self.settle()
    }

    fn settle(&mut self) -> Settlement {
        let is_own = |own: &BackendAddress| *own == address(99);
        self.roster.settle(self.now, &self.fixed, |one| self.up.borrow().contains(one), is_own)
    }

    fn up(&self, numbers: &[u8]) {
        *self.up.borrow_mut() = numbers.iter().map(|&number| address(number)).collect();
    }

    fn pass(&mut self, time: Duration) -> Settlement {
        self.now += time;
        self.settle()
    }

    /// Checks who is a member.
    fn has(&self, numbers: &[u8]) {
        let found: Vec<_> = self.roster.members().map(|(address, _)| address).collect();
        assert_eq!(found, numbers.iter().map(|&number| address(number)).collect::<Vec<_>>());
    }

    fn state(&self, origin: MemberOrigin) -> SourceState {
        self.roster.sources().iter().find(|source| source.origin == origin).expect("a source").state()
    }

    /// Returns the refused entries of a source.
    fn refused(&self, origin: MemberOrigin) -> Vec<String> {
        let source = self.roster.sources().iter().find(|source| source.origin == origin).expect("a source");
        assert_eq!(source.refused_count, source.refused.len());
        source.refused.iter().map(|refusal| format!("{}: {}", refusal.entry, refusal.reason)).collect()
    }
}

#[test]
fn who_is_listed_is_a_member_and_who_is_down_and_listed_no_more_goes() {
    let mut pool = Pool::new();
    assert_eq!(pool.state(MemberOrigin::Etcd), SourceState::Never);
    let settled = pool.list(&[1, 2]);
    assert_eq!(
        settled.changes,
        [
            (address(1), MemberOrigin::Etcd, MembershipChange::Joined),
            (address(2), MemberOrigin::Etcd, MembershipChange::Joined)
        ]
    );
    assert_eq!(pool.state(MemberOrigin::Etcd), SourceState::Fresh);
    assert!(!pool.settle().is_change, "nothing was heard");
    let settled = pool.list(&[1]);
    assert_eq!(settled.changes, [(address(2), MemberOrigin::Etcd, MembershipChange::Left)]);
    pool.has(&[1]);
    pool.list(&[]);
    pool.has(&[]);
}

#[test]
fn who_is_up_and_listed_no_more_stays_for_a_while() {
    let mut pool = Pool::new();
    pool.list(&[1, 2, 3]);
    pool.up(&[1, 2, 3]);
    let settled = pool.list(&[1, 2]);
    assert_eq!(settled.changes, [(address(3), MemberOrigin::Etcd, MembershipChange::Held)]);
    assert_eq!(pool.roster.next_time(), Some(pool.now + HOLD));
    assert!(pool.pass(HOLD - Duration::from_millis(1)).changes.is_empty());
    // It has never left.
    assert!(pool.list(&[1, 2, 3]).changes.is_empty());
    pool.list(&[1, 2]);
    pool.pass(HOLD - Duration::from_millis(1));
    pool.has(&[1, 2, 3]);
    pool.pass(Duration::from_millis(1));
    pool.has(&[1, 2]);
    assert_eq!(pool.roster.next_time(), None);
}

#[test]
fn who_is_held_and_goes_down_goes_at_once() {
    let mut pool = Pool::new();
    pool.list(&[1, 2, 3]);
    pool.up(&[1, 2, 3]);
    pool.list(&[1, 2]);
    pool.up(&[1, 2]);
    pool.settle();
    pool.has(&[1, 2]);
}

#[test]
fn who_said_that_he_ends_is_not_held() {
    let mut pool = Pool::new();
    pool.list(&[1, 2]);
    pool.up(&[1, 2]);
    let ending = MemberEntry { is_draining: true, ..MemberEntry::at(address(1)) };
    pool.hear(MemberOrigin::Etcd, SourceNews::Changed(vec![("key1".to_owned(), Some(Ok(ending)))]));
    assert!(pool.roster.origins(&address(1)).expect("a member").1);
    pool.has(&[1, 2]);
    pool.hear(MemberOrigin::Etcd, SourceNews::Changed(vec![("key1".to_owned(), None)]));
    pool.has(&[2]);
}

#[test]
fn a_source_that_fails_changes_nothing() {
    let mut pool = Pool::new();
    pool.list(&[1, 2]);
    let settled = pool.hear(MemberOrigin::Etcd, SourceNews::Failed("refused".to_owned()));
    assert!(!settled.is_change && pool.state(MemberOrigin::Etcd) == SourceState::Stale);
    pool.pass(100 * HOLD);
    pool.has(&[1, 2]);
    pool.hear(MemberOrigin::Etcd, SourceNews::Confirmed);
    assert_eq!(pool.state(MemberOrigin::Etcd), SourceState::Fresh);
    pool.hear(MemberOrigin::Dns, SourceNews::Failed("timeout".to_owned()));
    assert_eq!(pool.state(MemberOrigin::Dns), SourceState::Never);
}

#[test]
fn a_list_that_lacks_most_of_who_is_up_is_doubted() {
    let mut pool = Pool::new();
    pool.list(&[1, 2, 3, 4]);
    pool.up(&[1, 2, 3, 4]);
    let settled = pool.list(&[1]);
    assert_eq!(settled.doubt, Some(Doubt { listed: 1, held: 3 }));
    assert_eq!(
        (pool.state(MemberOrigin::Etcd), pool.state(MemberOrigin::Dns)),
        (SourceState::Doubted, SourceState::Never)
    );
    assert_eq!(pool.pass(100 * HOLD).doubt, None, "it is reported once");
    pool.has(&[1, 2, 3, 4]);
    // The doubt ends by itself: members register again, one by one, and all stay meanwhile.
    let settled = pool.list(&[1, 2]);
    assert!(settled.is_doubt_over && pool.state(MemberOrigin::Etcd) == SourceState::Fresh);
    pool.pass(HOLD - Duration::from_millis(1));
    pool.has(&[1, 2, 3, 4]);
    pool.list(&[1, 2, 3]);
    pool.pass(Duration::from_millis(1));
    pool.has(&[1, 2, 3]);
}

#[test]
fn half_is_enough_and_the_last_one_is_doubted() {
    let mut pool = Pool::new();
    pool.list(&[1, 2]);
    pool.up(&[1, 2]);
    assert_eq!(pool.list(&[1]).doubt, None);
    pool.pass(HOLD);
    pool.has(&[1]);
    assert_eq!(pool.list(&[]).doubt, Some(Doubt { listed: 0, held: 1 }));
    pool.has(&[1]);
    // Backends of the config stay in any case.
    pool.fixed = vec![FixedBackend { address: address(7), name: "seven".to_owned(), is_by_hand: false }];
    pool.up(&[1, 7]);
    assert!(pool.settle().is_doubt_over);
    pool.pass(HOLD);
    pool.has(&[]);
}

#[test]
fn a_fleet_that_is_replaced_goes_when_the_others_are_up() {
    let mut pool = Pool::new();
    pool.list(&[1, 2, 3]);
    pool.up(&[1, 2, 3]);
    assert!(pool.list(&[4, 5, 6]).doubt.is_some());
    pool.pass(100 * HOLD);
    pool.has(&[1, 2, 3, 4, 5, 6]);
    pool.up(&[1, 2, 3, 4, 5, 6]);
    assert!(pool.settle().is_doubt_over);
    pool.pass(HOLD);
    pool.has(&[4, 5, 6]);
}

#[test]
fn an_operator_ends_a_doubt() {
    let mut pool = Pool::new();
    pool.list(&[1, 2, 3]);
    assert_eq!(pool.roster.accept(), 0, "there is nothing to accept");
    pool.up(&[1, 2, 3]);
    pool.list(&[]);
    assert_eq!(pool.roster.accept(), 3);
    let settled = pool.settle();
    assert!(settled.is_doubt_over);
    pool.has(&[]);
    // The acceptance was for this list, not for the next.
    pool.list(&[1, 2, 3]);
    pool.list(&[]);
    pool.has(&[1, 2, 3]);
}

#[test]
fn sources_add_up_and_the_first_one_says_what_a_member_is_called() {
    let mut pool = Pool::new();
    let named = |name: &str, weight| MemberEntry { name: Some(name.to_owned()), weight, ..MemberEntry::at(address(1)) };
    let list = |entry| SourceNews::Listed(vec![("x".to_owned(), Ok(entry))]);
    pool.hear(MemberOrigin::File, list(named("file", Some(9))));
    pool.hear(MemberOrigin::Dns, list(MemberEntry { weight: Some(5), ..MemberEntry::at(address(1)) }));
    let member = |pool: &Pool| {
        let (_, member) = pool.roster.members().next().expect("a member");
        (member.name.clone(), member.weight, member.origins.iter().map(MemberOrigin::label).collect::<Vec<_>>())
    };
    assert_eq!(member(&pool), ("file".to_owned(), 5, vec!["dns", "file"]));
    let settled = pool.hear(MemberOrigin::Etcd, list(named("etcd", None)));
    assert!(settled.is_change && settled.changes.is_empty());
    assert_eq!(member(&pool), ("etcd".to_owned(), 5, vec!["etcd", "dns", "file"]));
    pool.up(&[1]);
    assert!(pool.hear(MemberOrigin::File, SourceNews::Listed(Vec::new())).changes.is_empty(), "the others list it");
    pool.fixed = vec![FixedBackend { address: address(1), name: "mine".to_owned(), is_by_hand: true }];
    pool.settle();
    pool.has(&[]);
    let (origins, _) = pool.roster.origins(&address(1)).expect("it is fixed");
    assert_eq!(origins.iter().map(MemberOrigin::label).collect::<Vec<_>>(), ["hand", "etcd", "dns"]);
    assert!(pool.roster.is_listed(&address(1)) && pool.roster.count_of(MemberOrigin::Etcd) == 1);
}

#[test]
fn what_is_wrong_is_refused_alone() {
    let mut pool = Pool::new();
    pool.fixed = vec![FixedBackend { address: address(7), name: "seven".to_owned(), is_by_hand: false }];
    let named = |number, name: &str| {
        (format!("key{number}"), Ok(MemberEntry { name: Some(name.to_owned()), ..MemberEntry::at(address(number)) }))
    };
    let elsewhere = MemberEntry::at(([198, 51, 100, 1], 53).into());
    let items = vec![
        item(1),
        ("bad\n".to_owned(), Err("no JSON: x".to_owned())),
        ("far".to_owned(), Ok(elsewhere)),
        item(99),
        named(2, "seven"),
        named(3, "three"),
        named(4, "three"),
    ];
    let settled = pool.hear(MemberOrigin::Etcd, SourceNews::Listed(items.clone()));
    pool.has(&[1, 3]);
    let refused = pool.refused(MemberOrigin::Etcd);
    assert_eq!(
        refused,
        [
            "bad: no JSON: x",
            "far: 198.51.100.1:53 is in no prefix of `allow`",
            "key99: 192.0.2.99:53 is a listener of this process: a query would come back",
            "key2: the name \"seven\" is that of 192.0.2.7:53",
            "key4: the name \"three\" is that of 192.0.2.3:53",
        ]
    );
    assert_eq!(settled.refused.len(), 5);
    assert!(pool.hear(MemberOrigin::Etcd, SourceNews::Listed(items)).refused.is_empty(), "each is reported once");
    pool.list(&[1, 3]);
    assert!(pool.refused(MemberOrigin::Etcd).is_empty());
}

#[test]
fn there_are_no_more_members_than_may_be_and_who_is_one_stays() {
    let mut pool = Pool::new();
    let later: Vec<u8> = (20..30).collect();
    pool.list(&later);
    pool.up(&later);
    let all: Vec<u8> = (18..30).collect();
    pool.list(&all);
    pool.has(&later);
    assert_eq!(pool.refused(MemberOrigin::Etcd)[0], "key18: the pool has 10 members, the limit that `max` sets");
    // Members of other sources join at once, whatever is held.
    pool.list(&all[..10]);
    pool.has(&all);
}

#[test]
fn a_name_goes_to_who_is_listed() {
    let mut pool = Pool::new();
    let named = |number| {
        (format!("key{number}"), Ok(MemberEntry { name: Some("ts".to_owned()), ..MemberEntry::at(address(number)) }))
    };
    pool.hear(MemberOrigin::Etcd, SourceNews::Listed(vec![named(1)]));
    pool.up(&[1]);
    pool.hear(MemberOrigin::Etcd, SourceNews::Listed(vec![named(2)]));
    let names: Vec<_> = pool.roster.members().map(|(_, member)| member.name.clone()).collect();
    assert_eq!(names, ["192.0.2.1:53", "ts"]);
}

#[test]
fn what_was_saved_is_stale_until_its_source_is_heard_of() {
    let mut pool = Pool::new();
    pool.roster.restore(MemberOrigin::Etcd, vec![MemberEntry::at(address(1)), MemberEntry::at(address(2))], pool.now);
    pool.settle();
    pool.has(&[1, 2]);
    assert_eq!(pool.state(MemberOrigin::Etcd), SourceState::Stale);
    pool.up(&[1, 2]);
    pool.list(&[1]);
    pool.has(&[1, 2]);
    assert_eq!(pool.state(MemberOrigin::Etcd), SourceState::Fresh);
}

#[test]
fn a_source_that_is_another_begins_anew() {
    let mut pool = Pool::new();
    pool.list(&[1]);
    let rules = pool.roster.rules.clone();
    pool.roster.set_rules(rules.clone(), &[(MemberOrigin::Etcd, true), (MemberOrigin::Dns, true)]);
    pool.settle();
    pool.has(&[1]);
    pool.roster.set_rules(RosterRules { allow: allow("192.0.2.128/25"), ..rules }, &[(MemberOrigin::Etcd, false)]);
    pool.settle();
    pool.has(&[]);
    assert_eq!(pool.state(MemberOrigin::Etcd), SourceState::Never);
}

/// Something that happens to a pool, by chance.
fn happen(pool: &mut Pool, rng: &mut SmallRng) {
    let numbers = |rng: &mut SmallRng, share: f64| -> Vec<u8> { (1..=12).filter(|_| rng.random_bool(share)).collect() };
    let origin = [MemberOrigin::Etcd, MemberOrigin::Dns, MemberOrigin::File][rng.random_range(0..3)];
    match rng.random_range(0..9) {
        0 => {
            let share = rng.random_range(0.0..1.0);
            let items: Vec<_> = numbers(rng, share).into_iter().map(|number| random_item(number, rng)).collect();
            pool.roster.on_news(origin, SourceNews::Listed(items), pool.now);
        }
        1 | 2 => {
            let number = rng.random_range(1..=12);
            let (place, entry) = random_item(number, rng);
            let entry = rng.random_bool(0.6).then_some(entry);
            pool.roster.on_news(origin, SourceNews::Changed(vec![(place, entry)]), pool.now);
        }
        3 => drop(pool.roster.on_news(origin, SourceNews::Failed("away".to_owned()), pool.now)),
        4 => drop(pool.roster.on_news(origin, SourceNews::Confirmed, pool.now)),
        5 => pool.up(&numbers(rng, 0.7)),
        6 if rng.random_bool(0.1) => drop(pool.roster.accept()),
        _ => pool.now += Duration::from_millis(rng.random_range(0..20_000)),
    }
}

fn random_item(number: u8, rng: &mut impl Rng) -> Item {
    let entry = MemberEntry {
        name: rng.random_bool(0.2).then(|| ["a", "b"][rng.random_range(0..2)].to_owned()),
        weight: rng.random_bool(0.2).then_some(7),
        is_draining: rng.random_bool(0.1),
        address: address(number),
    };
    let wrong = rng.random_bool(0.1);
    (format!("key{number}"), if wrong { Err("no JSON".to_owned()) } else { Ok(entry) })
}

/// Checks the promises of a roster after each step of a random history. Returns the members after each step.
fn live(seed: u64) -> Vec<Vec<BackendAddress>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut pool = Pool::new();
    // The same for all histories of a seed.
    let begin = pool.now;
    let mut seen = Vec::new();
    for _ in 0..60 {
        let before: BTreeMap<_, _> = pool.roster.members().map(|(address, member)| (address, member.clone())).collect();
        let was_accepted = pool.roster.is_accepted;
        happen(&mut pool, &mut rng);
        let is_accepted = was_accepted || pool.roster.is_accepted;
        let doubted = pool.roster.doubt().is_some();
        pool.settle();
        let members: BTreeMap<_, _> =
            pool.roster.members().map(|(address, member)| (address, member.clone())).collect();
        let listed: BTreeSet<_> = pool
            .roster
            .sources()
            .iter()
            .flat_map(|source| source.listing().entries().map(|(_, entry)| entry.address))
            .collect();
        let refused: usize = pool.roster.sources().iter().map(|source| source.refused_count).sum();
        for address in &listed {
            assert!(members.contains_key(address) || refused > 0, "seed {seed}: {address} is listed and not asked");
        }
        for (address, member) in &before {
            let is_up = pool.up.borrow().contains(address);
            let is_over = member.held_since.is_some_and(|since| pool.now >= since + HOLD);
            if !members.contains_key(address) && is_up && !member.is_draining && !listed.contains(address) {
                assert!(is_accepted || is_over, "seed {seed}: {address} has left too early");
                assert!(is_accepted || !doubted || pool.roster.doubt().is_none(), "seed {seed}: left in doubt");
            }
        }
        assert!(members.len() <= 2 * pool.roster.rules.max);
        seen.push(members.into_keys().collect());
        assert!(pool.now >= begin);
    }
    seen
}

#[test]
fn promises_hold_whatever_happens() {
    for seed in 0..3000 {
        live(seed);
    }
    assert_eq!(live(7), live(7), "the same inputs, the same members");
}

#[test]
fn a_source_that_fails_alone_removes_nobody() {
    for seed in 0..500 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut pool = Pool::new();
        for _ in 0..20 {
            happen(&mut pool, &mut rng);
        }
        pool.settle();
        let listed = |pool: &Pool| -> Vec<_> {
            pool.roster
                .members()
                .filter(|(_, member)| member.held_since.is_none())
                .map(|(address, _)| address)
                .collect()
        };
        let before = listed(&pool);
        for origin in [MemberOrigin::Etcd, MemberOrigin::Dns, MemberOrigin::File] {
            pool.hear(origin, SourceNews::Failed("away".to_owned()));
        }
        pool.up(&[]);
        pool.pass(100 * HOLD);
        assert_eq!(listed(&pool), before, "seed {seed}");
    }
}

proptest! {
    #[test]
    fn every_refused_entry_is_shown(wrong in 0_usize..1500) {
        let mut pool = Pool::new();
        let items = (0..wrong).map(|number| (format!("{number:05}"), Err("no JSON".to_owned())));
        pool.hear(MemberOrigin::File, SourceNews::Listed(items.chain([item(1)]).collect()));
        pool.has(&[1]);
        let source = &pool.roster.sources()[2];
        prop_assert_eq!((source.refused_count, source.refused.len()), (wrong, wrong.min(PoolSource::MAX_REFUSED)));
    }
}
