//! Tables of cases, and properties over seeds against a model that stores and recomputes everything.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

impl SerialTable {
    /// Returns the number of zones and their size in bytes.
    fn size(&self) -> (usize, usize) {
        (self.zones.len(), self.bytes)
    }
}

const MAX_LAG: Duration = Duration::from_secs(10);
const ZONE: &[u8] = b"\x07example\0";

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Creates members 0, 1, 2, ... with these serials in this order.
fn heard(serials: &[u32], now: Instant) -> SerialTable {
    let mut all = SerialTable::default();
    for (member, serial) in serials.iter().enumerate() {
        all.set_up(BackendIndex(member as u16), true, now);
        all.hear(ZONE, BackendIndex(member as u16), *serial, SerialSource::Reply, now);
    }
    all
}

#[test]
fn the_newest_is_found_by_serial_arithmetic() {
    let check = |serials: &[u32], newest: Option<u16>, older: &[u16]| {
        let all = heard(serials, Instant::now());
        assert_eq!(all.newest(ZONE).map(|(member, _)| member.0), newest, "{serials:?}");
        let found = (0..serials.len() as u16).filter(|member| all.is_older(ZONE, BackendIndex(*member)));
        assert_eq!(found.collect::<Vec<_>>(), older, "{serials:?}");
    };
    check(&[], None, &[]);
    check(&[5], Some(0), &[]);
    check(&[5, 5, 5], Some(0), &[]);
    check(&[5, 6, 5], Some(1), &[0, 2]);
    check(&[6, 5, 6], Some(0), &[1]);
    // Across the end of the circle.
    check(&[u32::MAX, 0, 1], Some(2), &[0, 1]);
    // A wild serial is older than small serials and dates, and does no harm.
    check(&[7, u32::MAX, 7], Some(0), &[1]);
    check(&[2_026_112_301, u32::MAX], Some(0), &[1]);
    // 2^31 apart: neither is newer.
    check(&[0, 1 << 31], Some(0), &[]);
    // All around the circle none is newest, so none is older.
    check(&[0, 0x6000_0000, 0xC000_0000], None, &[]);
}

#[test]
fn only_members_that_are_up_count_and_nothing_is_kept_of_those_gone() {
    let now = Instant::now();
    let mut all = heard(&[5, 9, 6], now);
    assert_eq!(all.newest(ZONE), Some((BackendIndex(1), 9)));
    all.set_up(BackendIndex(1), false, now);
    assert_eq!(all.newest(ZONE), Some((BackendIndex(2), 6)));
    assert!(all.is_older(ZONE, BackendIndex(0)) && !all.is_older(ZONE, BackendIndex(2)));
    all.set_up(BackendIndex(1), true, now);
    assert_eq!(all.newest(ZONE), Some((BackendIndex(1), 9)));
    all.forget(BackendIndex(1), now);
    assert_eq!(all.newest(ZONE), Some((BackendIndex(2), 6)));
    // A new member in its place has no serial.
    all.set_up(BackendIndex(7), true, now);
    assert_eq!(all.newest(ZONE), Some((BackendIndex(2), 6)));
    // A serial that was set back counts as soon as all members report it.
    for member in [0, 2, 7] {
        all.hear(ZONE, BackendIndex(member), 1, SerialSource::Reply, now);
    }
    assert_eq!(all.newest(ZONE), Some((BackendIndex(0), 1)));
    assert!([0, 2, 7].iter().all(|member| !all.is_older(ZONE, BackendIndex(*member))));
}

#[test]
fn who_is_older_for_long_is_behind_until_it_has_caught_up() {
    let start = Instant::now();
    let mut all = heard(&[5, 5, 5], start);
    all.hear(ZONE, BackendIndex(1), 6, SerialSource::Reply, start + ms(1_000));
    assert!(all.behind(MAX_LAG, start + ms(11_000)).is_empty());
    assert_eq!(all.behind(MAX_LAG, start + ms(11_001)), [BackendIndex(0), BackendIndex(2)]);
    // A newer version of the newest does not restart the lag of the others.
    all.hear(ZONE, BackendIndex(1), 7, SerialSource::Reply, start + ms(11_500));
    all.hear(ZONE, BackendIndex(0), 6, SerialSource::Probe, start + ms(11_500));
    assert_eq!(all.behind(MAX_LAG, start + ms(11_600)), [BackendIndex(0), BackendIndex(2)]);
    all.hear(ZONE, BackendIndex(2), 7, SerialSource::Probe, start + ms(11_700));
    assert_eq!(all.behind(MAX_LAG, start + ms(11_700)), [BackendIndex(0)]);
    // A down member is not asked anyway, and an unused zone puts no member behind.
    all.set_up(BackendIndex(0), false, start + ms(11_800));
    assert!(all.behind(MAX_LAG, start + ms(11_800)).is_empty());
    all.set_up(BackendIndex(0), true, start + ms(11_900));
    assert_eq!(all.behind(MAX_LAG, start + ms(11_900)), [BackendIndex(0)]);
    assert!(all.behind(MAX_LAG, start + ms(11_500) + IN_USE + ms(1)).is_empty());
}

#[test]
fn never_all_are_behind() {
    let start = Instant::now();
    let mut all = SerialTable::default();
    for (zone, serials) in [(&b"\x01a\0"[..], [1, 2]), (b"\x01b\0", [2, 1])] {
        for (member, serial) in serials.into_iter().enumerate() {
            all.set_up(BackendIndex(member as u16), true, start);
            all.hear(zone, BackendIndex(member as u16), serial, SerialSource::Reply, start);
        }
    }
    assert!(all.behind(MAX_LAG, start + ms(20_000)).is_empty());
    // A third member that is older nowhere makes the two behind.
    all.set_up(BackendIndex(2), true, start);
    for zone in [b"\x01a\0", b"\x01b\0"] {
        all.hear(zone, BackendIndex(2), 2, SerialSource::Reply, start + ms(20_000));
    }
    assert_eq!(all.behind(MAX_LAG, start + ms(20_000)), [BackendIndex(0), BackendIndex(1)]);
}

#[test]
fn who_was_not_heard_for_two_seconds_is_asked() {
    let start = Instant::now();
    let mut all = heard(&[5, 5], start);
    all.set_up(BackendIndex(2), true, start);
    // A member without a report is asked at once, and not again before it had time to answer.
    assert_eq!(all.ask(start), [(BackendIndex(2), ZONE.into())]);
    assert!(all.ask(start + FRESH - ms(1)).is_empty());
    all.hear(ZONE, BackendIndex(1), 5, SerialSource::Reply, start + ms(1_000));
    assert_eq!(all.ask(start + ms(2_000)), [(BackendIndex(0), ZONE.into()), (BackendIndex(2), ZONE.into())]);
    all.set_up(BackendIndex(1), false, start + ms(2_000));
    assert!(all.ask(start + ms(3_000)).is_empty(), "one that is down is not asked");
    // The zone is no longer in use.
    assert!(all.ask(start + ms(1_001) + IN_USE).is_empty());
    // A probe makes a zone neither used nor known.
    all.hear(ZONE, BackendIndex(0), 5, SerialSource::Probe, start + ms(1_002) + IN_USE);
    all.hear(b"\x01x\0", BackendIndex(0), 5, SerialSource::Probe, start);
    assert!(all.ask(start + ms(9_000) + IN_USE).is_empty());
    assert_eq!(all.size().0, 1);
}

#[test]
fn a_member_is_asked_ten_times_a_second_the_longest_unheard_zone_first() {
    let start = Instant::now();
    let mut all = SerialTable::default();
    all.set_up(BackendIndex(0), true, start);
    let name = |number: u8| [2, b'z', number, 0];
    for number in 0..50 {
        all.hear(&name(number), BackendIndex(0), 1, SerialSource::Reply, start + ms(number.into()));
    }
    let mut asked = Vec::new();
    for tick in 0..500 {
        asked.extend(all.ask(start + ms(3_000 + tick * 10)).into_iter().map(|(_, zone)| (tick, zone[2])));
    }
    assert_eq!(asked.len(), 50, "10 a second in 5 s");
    assert!(asked.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 10), "{asked:?}");
    assert_eq!(asked.iter().map(|(_, zone)| *zone).collect::<Vec<_>>(), (0..50).collect::<Vec<u8>>());
}

#[test]
fn zones_are_bounded_by_number_and_octets() {
    let start = Instant::now();
    let mut all = SerialTable::default();
    (0..5_000).for_each(|member| all.set_up(BackendIndex(member), true, start));
    let name = |number: u32, len: usize| [&vec![b'x'; len][..], &number.to_be_bytes()].concat();
    for number in 0..2_000 {
        all.hear(&name(number, 8), BackendIndex(0), number, SerialSource::Reply, start + ms(number.into()));
        // The first is used all the time.
        all.hear(&name(0, 8), BackendIndex(0), 0, SerialSource::Reply, start + ms(number.into()));
    }
    assert!((MAX_ZONES * 15 / 16..=MAX_ZONES).contains(&all.size().0), "{:?}", all.size());
    assert!(all.newest(&name(0, 8)).is_some() && all.newest(&name(1_999, 8)).is_some());
    assert!(all.newest(&name(1, 8)).is_none());
    // With many members the bytes are the limit.
    for number in 0..100 {
        for member in 0..5_000 {
            let now = start + ms(10_000 + u64::from(number));
            all.hear(&name(number, 250), BackendIndex(member), 1, SerialSource::Reply, now);
            assert!(all.size().1 <= MAX_BYTES, "{:?}", all.size());
        }
    }
    assert!((1..100).contains(&all.size().0), "{:?}", all.size());
    assert!(all.newest(&name(99, 250)).is_some());
}

/// All reports by zone and member, and the state of the members.
#[derive(Default)]
struct Model {
    said: BTreeMap<(u8, u16), u32>,
    /// Members; true if up.
    members: BTreeMap<u16, bool>,
}

impl Model {
    fn up(&self, zone: u8) -> Vec<u32> {
        let said = self.said.iter().filter(|((of, member), _)| *of == zone && self.members.get(member) == Some(&true));
        said.map(|(_, serial)| *serial).collect()
    }

    /// The newest serial if no other is newer. Then all others are older or equal, unless they are 2^31
    /// apart.
    fn newest(&self, zone: u8) -> Vec<u32> {
        let up = self.up(zone);
        up.iter().copied().filter(|serial| !up.iter().any(|other| is_newer(*other, *serial))).collect()
    }
}

#[test]
fn over_many_seeds_it_says_what_a_model_says() {
    for seed in 0..2_000 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut all, mut model) = (SerialTable::default(), Model::default());
        let start = Instant::now();
        let mut now = start;
        let mut asks: BTreeMap<BackendIndex, Instant> = BTreeMap::new();
        let mut heard: BTreeMap<(u8, u16), Instant> = BTreeMap::new();
        let mut used: BTreeMap<u8, Instant> = BTreeMap::new();
        let base = if seed % 3 == 0 { u32::MAX - 3 } else { random.random_range(0..u32::MAX) };
        for _ in 0..200 {
            now += ms(random.random_range(0..900));
            let (zone, member) = (random.random_range(0..4_u8), random.random_range(0..5_u16));
            let name = [1, b'a' + zone, 0];
            match random.random_range(0..10) {
                0 => {
                    let is_up = random.random_bool(0.7);
                    all.set_up(BackendIndex(member), is_up, now);
                    model.members.insert(member, is_up);
                }
                1 if random.random_bool(0.3) => {
                    all.forget(BackendIndex(member), now);
                    model.members.remove(&member);
                    model.said.retain(|(_, of), _| *of != member);
                    heard.retain(|(_, of), _| *of != member);
                    asks.remove(&BackendIndex(member));
                }
                _ => {
                    let wild = random.random_bool(0.02);
                    let serial = if wild {
                        random.random_range(0..=u32::MAX)
                    } else {
                        base.wrapping_add(random.random_range(0..8))
                    };
                    let source = if random.random_bool(0.7) { SerialSource::Reply } else { SerialSource::Probe };
                    all.hear(&name, BackendIndex(member), serial, source, now);
                    if !model.members.contains_key(&member) {
                        // No member has reported it.
                        continue;
                    }
                    if source == SerialSource::Reply {
                        used.insert(zone, now);
                    }
                    if used.contains_key(&zone) {
                        model.said.insert((zone, member), serial);
                        heard.insert((zone, member), now);
                    }
                }
            }
            for zone in 0..4 {
                let name = [1, b'a' + zone, 0];
                let (found, expected) = (all.newest(&name), model.newest(zone));
                match found {
                    Some((member, serial)) => {
                        assert!(expected.contains(&serial), "seed {seed}: {serial} of {expected:?}");
                        assert_eq!(model.said.get(&(zone, member.0)), Some(&serial), "seed {seed}");
                        assert_eq!(model.members.get(&member.0), Some(&true), "seed {seed}: the newest is up");
                        assert!(!all.is_older(&name, member), "seed {seed}: the newest is not older");
                        for ((_, other), said) in model.said.iter().filter(|((of, _), _)| *of == zone) {
                            let is_older = all.is_older(&name, BackendIndex(*other));
                            assert_eq!(is_older, is_newer(serial, *said), "seed {seed}: {said} beside {serial}");
                        }
                    }
                    None => {
                        assert!((0..5).all(|member| !all.is_older(&name, BackendIndex(member))), "seed {seed}");
                        // Without wild serials one member is newest as soon as any is up.
                        let up = model.up(zone);
                        let are_near = up.iter().all(|serial| serial.wrapping_sub(base) < 8);
                        assert!(up.is_empty() || !are_near, "seed {seed}: {up:?}");
                    }
                }
            }
            let behind = all.behind(MAX_LAG, now);
            let up: Vec<_> =
                model.members.iter().filter(|(_, is_up)| **is_up).map(|(member, _)| BackendIndex(*member)).collect();
            assert!(behind.iter().all(|member| up.contains(member)), "seed {seed}: {behind:?} of {up:?}");
            assert!(behind.is_empty() || behind.len() < up.len(), "seed {seed}: all are behind");
            for (member, zone) in all.ask(now) {
                let zone = zone[1] - b'a';
                assert!(up.contains(&member), "seed {seed}: {member:?} is asked");
                assert!(now - used[&zone] <= IN_USE, "seed {seed}");
                let before = heard.insert((zone, member.0), now);
                assert!(before.is_none_or(|before| now - before >= FRESH), "seed {seed}: heard a moment ago");
                let before = asks.insert(member, now);
                assert!(before.is_none_or(|before| now - before >= ASK_EVERY), "seed {seed}: asked too often");
            }
        }
    }
}

#[test]
fn each_of_the_newest_is_named_in_turn() {
    let all = heard(&[9, 5, 9, 9], Instant::now());
    let named: Vec<_> = (0..6).filter_map(|turn| all.one_of_newest(ZONE, turn)).map(|member| member.0).collect();
    assert_eq!(named, [0, 2, 3, 0, 2, 3]);
    assert_eq!(all.one_of_newest(b"\x01x\0", 0), None);
}

#[test]
fn a_verdict_holds_until_somebody_else_is_older() {
    let now = Instant::now();
    let mut all = heard(&[5, 5, 5], now);
    let before = all.verdicts();
    all.hear(ZONE, BackendIndex(0), 5, SerialSource::Reply, now);
    assert_eq!(all.verdicts(), before);
    all.hear(ZONE, BackendIndex(0), 6, SerialSource::Reply, now);
    assert_eq!(all.verdicts(), before + 2);
    // Members 1 and 2 were older before; and a repeated report does not make the third older.
    all.hear(ZONE, BackendIndex(0), 7, SerialSource::Reply, now);
    all.hear(ZONE, BackendIndex(1), 7, SerialSource::Reply, now);
    assert_eq!(all.verdicts(), before + 2);
    all.hear(ZONE, BackendIndex(1), 5, SerialSource::Reply, now);
    assert_eq!(all.verdicts(), before + 3);
}

#[test]
fn what_was_said_is_shown() {
    let start = Instant::now();
    let all = heard(&[5, 6], start);
    let [shown] = &all.versions(start + ms(1_500))[..] else { panic!("one zone") };
    assert_eq!((&*shown.zone, shown.newest, shown.is_in_use), (ZONE, Some(6), true));
    let said: Vec<_> = shown.said.iter().map(|said| (said.member.0, said.serial, said.older_for)).collect();
    assert_eq!(said, [(0, 5, Some(ms(1_500))), (1, 6, None)]);
}
