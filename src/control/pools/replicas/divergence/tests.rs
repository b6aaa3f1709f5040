//! Tables of cases, and properties over seeds with members whose data are made up.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;

impl DivergenceTable {
    /// Returns the number of suspected, known and unsteady questions.
    fn size(&self) -> [usize; 3] {
        [self.suspected.len(), self.known.len(), self.unsteady.len()]
    }
}

const QUESTION: &[u8] = b"\x03www\0\0\x01\0\x01";

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Answers of members 0, 1, 2, ...: rcode, digest, serial; `None` is silence.
type Round<'a> = &'a [Option<(u16, u32, Option<u32>)>];

fn said(round: Round<'_>) -> Vec<MemberAnswer> {
    let said = round.iter().enumerate().filter_map(|(member, said)| {
        let (rcode, digest, serial) = (*said)?;
        Some(MemberAnswer { member: BackendIndex(member as u16), rcode, digest, serial })
    });
    said.collect()
}

fn ok(digest: u32) -> Option<(u16, u32, Option<u32>)> {
    Some((0, digest, None))
}

/// NOERROR with this digest and serial.
fn of(serial: u32, digest: u32) -> Option<(u16, u32, Option<u32>)> {
    Some((0, digest, Some(serial)))
}

fn asked(divergences: &mut DivergenceTable, now: Instant) -> Option<Box<[u8]>> {
    divergences.ask(now).map(|ask| ask.question)
}

#[test]
fn who_has_said_something_is_asked_again() {
    let mut now = Instant::now();
    let mut divergences = DivergenceTable::default();
    divergences.suspect(QUESTION, Some(BackendIndex(7)), now);
    let mut ask = |round: Round<'_>| {
        now = divergences.next().expect("something to ask").max(now);
        let ask = divergences.ask(now).expect("it is time");
        divergences.hear(QUESTION, &said(round), now);
        ask.members.iter().map(|member| member.0).collect::<Vec<_>>()
    };
    assert_eq!(ask(&[ok(1), None, ok(2), ok(1)]), [7], "who is suspected");
    assert_eq!(ask(&[ok(1), None, ok(2), None]), [0, 2, 3]);
    assert_eq!(ask(&[ok(1), ok(1), ok(2), ok(1)]), [0, 2], "of those who said so all the time");
    for _ in 0..2 {
        assert_eq!(ask(&[ok(1), None, ok(2)]), [0, 2]);
    }
    assert_eq!(ask(&[ok(1), None, ok(2), ok(2)]), [0, 2], "known by now");
    assert_eq!(ask(&[ok(1)]), [0, 2, 3]);
}

#[test]
fn differences_have_kinds() {
    let check = |round: Round<'_>, kind: Option<DivergenceKind>| assert_eq!(kind_of(&said(round)), kind, "{round:?}");
    check(&[], None);
    check(&[ok(1)], None);
    check(&[ok(1), ok(1), None], None);
    check(&[ok(1), ok(2)], Some(DivergenceKind::Data));
    check(&[ok(1), Some((2, 1, None))], Some(DivergenceKind::Rcode));
    check(&[ok(1), ok(2), Some((3, 3, None))], Some(DivergenceKind::Rcode));
    check(&[of(1, 1), of(1, 1)], None);
    check(&[of(1, 1), of(2, 1)], None);
    check(&[of(1, 1), of(2, 2)], Some(DivergenceKind::Serial));
    check(&[of(1, 1), of(2, 2), of(1, 1)], Some(DivergenceKind::Serial));
    check(&[of(1, 1), Some((3, 2, Some(2)))], Some(DivergenceKind::Serial));
    // Of three versions two may agree.
    check(&[of(1, 1), of(2, 2), of(3, 1)], Some(DivergenceKind::Serial));
    // The version explains nothing: one version has two answers, or a member does not report its version.
    check(&[of(1, 1), of(1, 2)], Some(DivergenceKind::Data));
    check(&[of(1, 1), of(2, 2), of(1, 3)], Some(DivergenceKind::Data));
    check(&[of(1, 1), of(2, 2), ok(2)], Some(DivergenceKind::Data));
    check(&[of(1, 1), Some((2, 2, None))], Some(DivergenceKind::Rcode));
}

/// Suspects the question now, and passes one round of answers after the other, the last one repeatedly.
/// Returns the results and the time that it took.
fn play(rounds: &[Round<'_>]) -> (Vec<RoundResult>, DivergenceTable, Duration) {
    let start = Instant::now();
    let (mut now, mut divergences, mut heard) = (start, DivergenceTable::default(), Vec::new());
    divergences.suspect(QUESTION, None, now);
    for round in rounds.iter().chain(std::iter::repeat_n(rounds.last().expect("a round"), 12)) {
        let Some(next) = divergences.next() else { break };
        assert!(divergences.ask(next - ms(1)).is_none(), "not before it is time");
        now = next;
        assert_eq!(asked(&mut divergences, now).as_deref(), Some(QUESTION));
        heard.push(divergences.hear(QUESTION, &said(round), now));
        if heard.last() != Some(&RoundResult::Nothing) {
            break;
        }
    }
    (heard, divergences, now - start)
}

#[test]
fn a_difference_counts_if_it_is_there_again() {
    const NEVER: &str = "never";
    let check = |rounds: &[Round<'_>], expected: &str| {
        let (heard, divergences, took) = play(rounds);
        let reported = match heard.last() {
            Some(RoundResult::Confirmed(kind)) => kind.label(),
            _ => NEVER,
        };
        assert_eq!(reported, expected, "{rounds:?}");
        assert_eq!(divergences.known().len(), usize::from(expected != NEVER));
        if expected != NEVER {
            assert!((CONFIRM_AFTER..CONFIRM_AFTER + ms(500)).contains(&took), "{took:?}");
        }
    };
    check(&[&[ok(1), ok(1), ok(1)]], NEVER);
    check(&[&[ok(1), ok(1), ok(2)]], "data");
    check(&[&[ok(1), ok(1), Some((2, 2, None))]], "rcode");
    check(&[&[of(1, 1), of(2, 2), of(2, 2)]], "serial");
    // An update that is over within the second, and one that takes longer.
    check(&[&[ok(1), ok(1), ok(2)], &[ok(2), ok(2), ok(2)]], NEVER);
    check(&[&[ok(1), ok(1), ok(2)], &[ok(1), ok(2), ok(2)]], NEVER);
    check(&[&[ok(1), ok(2)], &[ok(1), ok(2)], &[ok(2), ok(2)]], NEVER);
    // Rotating answers.
    check(&[&[ok(1), ok(2)], &[ok(2), ok(1)]], NEVER);
    check(&[&[ok(1), ok(2)], &[ok(1), ok(2)], &[ok(1), ok(2)], &[ok(2), ok(2)]], NEVER);
    // Silence is no difference, and silent members are not compared.
    check(&[&[ok(1), ok(1), None]], NEVER);
    check(&[&[ok(1), ok(2)], &[ok(1), None]], NEVER);
    check(&[&[ok(1), ok(1), ok(2)], &[ok(1), ok(1), None]], NEVER);
    check(&[&[ok(1), None, ok(2)], &[ok(1), ok(1), ok(2)]], "data");
    check(&[&[ok(1)]], NEVER);
}

#[test]
fn one_that_goes_on_is_counted_once_and_again_after_it_was_gone() {
    let (_, mut divergences, _) = play(&[&[ok(1), ok(2)]]);
    let mut now = divergences.next().expect("it is looked at again");
    let mut again = |round: Round<'_>| {
        // A repeated suspicion changes nothing.
        divergences.suspect(QUESTION, None, now);
        now = divergences.next().expect("it is looked at again").max(now);
        assert_eq!(asked(&mut divergences, now).as_deref(), Some(QUESTION));
        let heard = divergences.hear(QUESTION, &said(round), now);
        (heard, divergences.known().next().map(|(_, known)| (known.kind, known.seen == now)))
    };
    assert_eq!(again(&[ok(1), ok(2)]), (RoundResult::Nothing, Some((DivergenceKind::Data, true))));
    assert_eq!(again(&[ok(1), Some((2, 2, None))]), (RoundResult::Nothing, Some((DivergenceKind::Rcode, true))));
    // A single answer proves nothing about the others.
    assert_eq!(again(&[ok(1), None]), (RoundResult::Nothing, Some((DivergenceKind::Rcode, false))));
    assert_eq!(again(&[ok(1), ok(1)]), (RoundResult::Gone, None));
    for expected in [RoundResult::Nothing; CONFIRMATIONS as usize] {
        assert_eq!(again(&[ok(1), ok(2)]), (expected, None));
    }
    assert_eq!(again(&[ok(1), ok(2)]).0, RoundResult::Confirmed(DivergenceKind::Data));
}

#[test]
fn an_unsteady_question_rests_and_more_is_wanted_of_it() {
    let (_, mut divergences, took) = play(&[&[ok(1), ok(2)], &[ok(2), ok(1)]]);
    assert_eq!(took, CONFIRM_AFTER);
    let mut now = Instant::now() + took;
    let mut rests = Vec::new();
    for _ in 0..5 {
        let began = now;
        while divergences.next().is_none() {
            now += ms(10);
            divergences.suspect(QUESTION, None, now);
        }
        rests.push((now - began).as_secs());
        let mut digests = [1, 2].into_iter().cycle();
        let mut asked = 0;
        while let Some(next) = divergences.next() {
            now = now.max(next);
            assert!(divergences.ask(now).is_some());
            asked += 1;
            // Unchanged for as long as was enough before.
            let is_new = asked > CONFIRMATIONS + 1;
            let digest = if is_new { digests.next().expect("for ever") } else { 3 };
            let heard = divergences.hear(QUESTION, &said(&[ok(digest), ok(4)]), now);
            assert_eq!(heard, RoundResult::Nothing, "{asked}");
        }
    }
    assert_eq!(rests, [1, 2, 4, 6, 6]);
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten() {
    let start = Instant::now();
    let mut divergences = DivergenceTable::default();
    let question = |number: u32| number.to_be_bytes();
    for number in 0..1_000 {
        divergences.suspect(&question(number), None, start + ms(number.into()));
    }
    assert_eq!(divergences.size(), [MAX_SUSPECTED, 0, 0]);
    let mut now = start + ms(1_000);
    // The latest questions are present.
    assert_eq!(asked(&mut divergences, now).as_deref(), Some(&question(744)[..]));
    assert!(divergences.ask(now + ASK_EVERY - ms(1)).is_none());
    let mut divergences = DivergenceTable::default();
    for number in 0..MAX_KNOWN as u32 + 100 {
        divergences.suspect(&question(number), None, now);
        for _ in 0..=CONFIRMATIONS {
            now = now.max(divergences.next().expect("it is to be asked"));
            // Known questions may be due; they are not answered.
            while asked(&mut divergences, now).is_some_and(|asked| *asked != question(number)) {
                now += ASK_EVERY;
            }
            divergences.hear(&question(number), &said(&[ok(1), ok(2)]), now);
        }
    }
    assert_eq!(divergences.size(), [0, MAX_KNOWN.min(divergences.known().len()), 0]);
    assert!(divergences.known().len() <= MAX_KNOWN && divergences.known().len() > 100);
    assert_eq!(divergences.known().last().map(|(asked, _)| asked), Some(&question(MAX_KNOWN as u32 + 99)[..]));
    divergences.suspect(b"last", None, now + OLD);
    assert!(divergences.ask(now + OLD).is_some());
    assert_eq!(divergences.size(), [1, 0, 0]);
}

/// The answers of a modelled pool to one question.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behavior {
    /// All members agree.
    Agreeing,
    /// One member differs, from the fifth second to the thirtieth.
    Differing,
    /// Updates reach each member within 900 ms, at least 1 s apart.
    Updating,
    /// Each member alternates between two answers.
    Rotating,
    /// All members agree, and each is silent now and then.
    Silent,
}

/// Simulates a pool for 40 s in which one question is suspected at random. Returns the reports with their
/// time in milliseconds, and the number of rounds.
fn simulate(behavior: Behavior, seed: u64) -> (Vec<(u64, RoundResult)>, usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let start = Instant::now();
    let members = rng.random_range(2..6_u64);
    let odd = rng.random_range(0..members);
    // The time of each update at each member.
    let mut updates: Vec<Vec<u64>> = Vec::new();
    let mut at = rng.random_range(0..2_000);
    while at < 40_000 {
        updates.push((0..members).map(|_| at + rng.random_range(0..900)).collect());
        at += rng.random_range(1_900..5_000);
    }
    let has_serials = rng.random_bool(0.5);
    let mut turns = vec![0_u32; members as usize];
    let (mut divergences, mut reported, mut count) = (DivergenceTable::default(), Vec::new(), 0);
    let mut millis = 0;
    while millis < 40_000 {
        millis += rng.random_range(1..40);
        let now = start + ms(millis);
        if rng.random_bool(0.1) {
            divergences.suspect(QUESTION, None, now);
        }
        let Some(question) = asked(&mut divergences, now) else { continue };
        let mut round = Vec::new();
        for member in 0..members {
            let is_odd = member == odd && (5_000..30_000).contains(&millis);
            let version = updates.iter().filter(|update| update[member as usize] <= millis).count() as u32;
            let turn = &mut turns[member as usize];
            let serial = has_serials.then_some(version);
            round.push(match behavior {
                Behavior::Agreeing => Some((0, 7, serial)),
                Behavior::Differing => Some((0, 7 + u32::from(is_odd), Some(1))),
                Behavior::Updating => Some((0, version, serial)),
                Behavior::Rotating => {
                    // Queries of clients advance the rotation too.
                    *turn += 1 + 2 * rng.random_range(0..3);
                    Some((0, (*turn + member as u32) % 2, None))
                }
                Behavior::Silent => rng.random_bool(0.7).then_some((0, 7, serial)),
            });
        }
        let heard = divergences.hear(&question, &said(&round), now);
        if heard != RoundResult::Nothing {
            reported.push((millis, heard));
        }
        count += 1;
    }
    (reported, count)
}

#[test]
fn whatever_the_seed_what_lasts_is_told_and_nothing_else() {
    for seed in 0..2_500 {
        for behavior in [Behavior::Agreeing, Behavior::Updating, Behavior::Rotating, Behavior::Silent] {
            let (reported, _) = simulate(behavior, seed);
            assert_eq!(reported, [], "seed {seed}, {behavior:?}");
        }
        let (reported, asked) = simulate(Behavior::Differing, seed);
        let [(found, RoundResult::Confirmed(DivergenceKind::Data)), (gone, RoundResult::Gone)] = *reported else {
            panic!("seed {seed}: {reported:?}");
        };
        assert!((6_000..10_000).contains(&found), "seed {seed}: found at {found} ms");
        assert!((30_000..40_100).contains(&gone), "seed {seed}: gone at {gone} ms");
        assert!(asked < 800, "seed {seed}: {asked} are more than twenty a second");
    }
    assert_eq!(simulate(Behavior::Differing, 7), simulate(Behavior::Differing, 7));
}
