//! Tests of the history that a process takes over from another.

use serde_json::{Value, json};

use super::super::saved::places;
use super::*;
use crate::control::observe::sight::live::HistoryFigures;
use crate::control::observe::sight::verdict;

/// Returns a process with the same pools, which starts `gap` seconds after another, and reads what `change`
/// makes of the history of that.
fn successor(of: &Site, gap: u64, change: impl Fn(&mut Value)) -> Site {
    let pools = of
        .snapshot
        .pools
        .iter()
        .map(|known| pool(&known.name, known.backends.iter().map(|known| backend(&known.name)).collect()));
    let mut site = Site::new(pools.collect());
    site.seconds = of.seconds + gap;
    site.history = History::new(site.now(), &site.snapshot);
    let mut saved = serde_json::to_value(of.history.save(&of.snapshot)).expect("plain data");
    change(&mut saved);
    let saved = serde_json::from_value(saved).expect("a history");
    site.history.restore(site.now(), site.at().as_secs(), &site.snapshot, &saved);
    site
}

fn ask(site: &mut Site, seconds: u64) {
    for _ in 0..seconds {
        site.answer(0, 10, 1_000);
        site.snapshot.counts.queries[0] += 10;
        site.second();
    }
}

fn sum(column: &[u64]) -> u64 {
    column.iter().sum()
}

#[test]
fn a_successor_shows_what_its_predecessor_showed_and_goes_on() {
    let mut first = site();
    first.snapshot.cache = Some(cache(CacheStats::default()));
    for second in 0..130 {
        first.answer(0, 10, if second % 7 == 0 { 500_000 } else { 1_000 });
        let counts = &mut first.snapshot.counts;
        (counts.queries[1], counts.failures) = (counts.queries[1] + 10, counts.failures + 1);
        counts.responses[ResponseSource::Cache as usize][3] += 2;
        counts.dropped[DropReason::Late as usize] += 3;
        let pool = &mut first.snapshot.pools[0];
        (pool.counts.hedges_denied, pool.tokens, pool.counts.in_flight.0) = (2, 4, second % 5);
        pool.backends[1].counts.errors += 1;
        first.snapshot.cache.as_mut().expect("it is there").stats.misses += 8;
        first.second();
        first.history.note(VerdictState::Watch);
    }
    let mut second = successor(&first, 1, |_| {});
    second.snapshot.cache = first.snapshot.cache;
    for span in [Span::TenMinutes, Span::Day] {
        assert_eq!(second.show(span), first.show(span));
    }
    ask(&mut second, 1);
    let figures = second.show(Span::TenMinutes);
    assert_eq!((figures.at.len(), figures.pools[0].queries.len()), (131, 131));
    assert_eq!((figures.answers.queries[130], figures.pools[0].queries[130]), (10, Some(10)));
    assert!(figures.at.is_sorted());
    let ended = second.history.second(0, &second.snapshot, Verdict::default());
    assert_eq!(ended.answers.queries, 10, "the last second is an own one");
}

#[test]
fn a_minute_begun_by_the_predecessor_ends_on_time_and_whole() {
    for own in [0, 3] {
        let mut first = site();
        ask(&mut first, 90);
        let mut second = successor(&first, 1, |saved| *saved = json!(SavedHistory::default()));
        // The history may arrive when the successor has already counted some seconds.
        ask(&mut second, own);
        let saved = first.history.save(&first.snapshot);
        second.history.restore(second.now(), second.at().as_secs(), &second.snapshot, &saved);
        ask(&mut second, 29 - own);
        let day = second.show(Span::Day);
        let began = START.as_secs();
        assert_eq!(day.at, [began + 60, began + 120]);
        assert_eq!((&*day.answers.queries, &*day.pools[0].queries), (&[600, 590][..], &[Some(600), Some(590)][..]));
        ask(&mut second, 60);
        assert_eq!(second.show(Span::Day).answers.queries, [600, 590, 600]);
        assert_eq!(sum(&second.show(Span::TenMinutes).answers.queries), 1_790);
    }
}

#[test]
fn a_minute_that_is_over_is_not_continued() {
    let mut first = site();
    ask(&mut first, 90);
    let mut second = successor(&first, 40, |_| {});
    ask(&mut second, 60);
    let day = second.show(Span::Day);
    assert_eq!(day.answers.queries, [600, 600]);
    assert_eq!(day.at, [60, 190].map(|at| START.as_secs() + at));
}

#[test]
fn time_without_a_process_is_a_gap_and_old_steps_are_dropped() {
    let mut first = site();
    ask(&mut first, 130);
    let counts = |gap: u64| {
        let second = successor(&first, gap, |_| {});
        let (recent, day) = (second.show(Span::TenMinutes), second.show(Span::Day));
        assert_eq!(recent.pools[0].queries.len(), recent.at.len());
        (recent.at.len(), day.at.len(), recent.backend_at.len())
    };
    assert_eq!(counts(1), (130, 2, 13));
    assert_eq!(counts(500), (101, 2, 11));
    assert_eq!(counts(601), (0, 2, 0));
    assert_eq!(counts(86_400 - 60), (0, 1, 0));
    assert_eq!(counts(86_401), (0, 0, 0));
    let mut second = successor(&first, 500, |_| {});
    ask(&mut second, 1);
    let at = second.show(Span::TenMinutes).at;
    assert_eq!(at[at.len() - 1] - at[at.len() - 2], 501);
}

#[test]
fn a_clock_that_goes_back_does_not_break_the_order() {
    let cases: [(&[u64], &[usize]); 8] = [
        (&[], &[]),
        (&[97, 98, 99], &[2, 1, 0]),
        (&[97, 98, 100, 101], &[2, 1, 0]),
        (&[98, 99, 99, 101], &[2, 1, 0]),
        (&[98, 99, 97, 99], &[3, 2]),
        (&[10, 89, 90, 91], &[3, 2]),
        (&[u64::MAX, 95, 0, 96], &[3, 1]),
        (&[91, 92, 93, 94, 95, 96, 97], &[6, 5, 4, 3, 2]),
    ];
    for (at, expected) in cases {
        assert_eq!(places(at, 100, 90, 5), expected, "{at:?}");
    }
    let mut first = site();
    ask(&mut first, 50);
    first.seconds -= 20;
    let second = successor(&first, 1, |_| {});
    assert_eq!(second.show(Span::TenMinutes).at.len(), 31, "the seconds that are yet to come are dropped");
}

#[test]
fn pools_are_found_by_name_and_unknown_ones_are_dropped() {
    let mut first = Site::new(vec![pool("gone", vec![backend("a")]), pool("ts", vec![backend("ts1")])]);
    first.answer(1, 7, 1_000);
    first.second();
    let rename = |saved: &mut Value| {
        for span in ["seconds", "minutes"] {
            let pools = saved[span]["pools"].as_array_mut().expect("a list");
            pools.iter_mut().filter(|pool| pool["name"] == "gone").for_each(|pool| pool["name"] = json!("older"));
        }
    };
    let mut second = successor(&first, 1, rename);
    second.second();
    let figures = second.show(Span::TenMinutes);
    let columns: Vec<_> = figures.pools.iter().map(|pool| (&*pool.name, &*pool.queries)).collect();
    assert_eq!(columns, [("gone", &[None, Some(0)][..]), ("ts", &[Some(7), Some(0)])]);
}

#[test]
fn wrong_figures_are_bounded_and_missing_ones_are_zero() {
    let mut first = site();
    ask(&mut first, 20);
    let spoil = |saved: &mut Value| {
        let seconds = &mut saved["seconds"];
        seconds["failures"] = json!(vec![u64::MAX; 5_000]);
        seconds["responses"] = json!({ "unknown": [1, 2, 3], "cache": [4] });
        seconds["dropped"] = json!({});
        seconds["verdict"] = json!([]);
        seconds["pools"][0]["p50_ms"] = json!([-1.0, 1e300, null]);
        seconds["pools"][0]["hedges"]["sent"] = json!(vec![u64::MAX; 20]);
        seconds["pools"][0]["backends"][0]["errors"] = json!([u64::MAX]);
        seconds["backend_at"] = json!([0, u64::MAX, START.as_secs() + 5]);
    };
    let mut second = successor(&first, 1, spoil);
    ask(&mut second, 70);
    let HistoryFigures { at, answers, pools, .. } = second.show(Span::TenMinutes);
    assert_eq!((at.len(), answers.failures.len(), answers.responses.len()), (90, 90, ResponseSource::ALL.len()));
    assert_eq!((answers.failures[19], answers.responses["cache"][0]), (u32::MAX.into(), 4));
    assert_eq!(
        (pools[0].p50_ms[0], pools[0].p50_ms[2], pools[0].hedges.sent[0]),
        (Some(0.0), None, Some(u32::MAX.into()))
    );
    assert_eq!(second.history.facts(second.at(), &second.snapshot).failures.now.part, 0);

    let many = |saved: &mut Value| {
        let at: Vec<_> = (0..5_000).map(|second| START.as_secs() - 5_000 + second).collect();
        for span in ["seconds", "minutes"] {
            saved[span]["at"] = json!(at);
        }
    };
    let second = successor(&first, 1, many);
    assert_eq!((second.show(Span::TenMinutes).at.len(), second.show(Span::Day).at.len()), (579, MINUTES));
}

/// The steps of another process may be hours old, or of a warm cache.
#[test]
fn a_verdict_is_not_about_the_steps_of_another_process() {
    let mut first = Site::new(vec![pool("ts", vec![backend("ts1")])]);
    for second in 0..420 {
        first.answer(0, 100, 1_000);
        let counts = &mut first.snapshot.counts;
        counts.queries[0] += 100;
        counts.responses[ResponseSource::Backend as usize][0] += 100;
        if second >= 410 {
            counts.failures += 100;
            counts.dropped[DropReason::Overload as usize] += 100;
            first.snapshot.pools[0].counts.hedges_denied += 100;
        }
        first.second();
    }
    let judged = |site: &Site| {
        let facts = site.history.facts(site.at(), &site.snapshot);
        let codes = verdict::judge(&facts).reasons.into_iter().map(|reason| reason.code);
        (codes.collect::<Vec<_>>(), facts.failures.usual.is_some(), facts.pools[0].usual_p99.is_some())
    };
    let expected = ["failing", "overload", "hedges-denied"].map(str::to_owned).to_vec();
    assert_eq!(judged(&first), (expected, true, true));
    let mut second = successor(&first, 1, |_| {});
    assert_eq!(judged(&second), (Vec::new(), false, false));
    // Far slower than before, as with a cold cache.
    for _ in 0..120 {
        second.answer(0, 100, 300_000);
        second.second();
        assert_eq!(judged(&second), (Vec::new(), false, false));
    }
    assert_eq!(second.show(Span::Day).at.len(), 9);
}

#[test]
fn a_full_history_keeps_to_the_bounds() {
    let pool = |number| pool(&format!("pool{number}"), vec![backend("a"), backend("b")]);
    let mut first = Site::new((0..16).map(pool).collect());
    for step in std::iter::repeat_n(60, 1_440).chain(std::iter::repeat_n(1, 600)) {
        (0..16).for_each(|pool| first.answer(pool, 3, 123_456));
        first.snapshot.counts.queries[0] += 5_000_000;
        first.seconds += step;
        let (now, at) = (first.now(), first.at().as_secs());
        assert!(first.history.take(now, at, &first.snapshot));
    }
    let saved = serde_json::to_vec(&first.history.save(&first.snapshot)).expect("plain data");
    assert!(saved.len() <= MAX_OCTETS, "{} octets are saved", saved.len());
    let second = successor(&first, 1, |_| {});
    assert_eq!((second.show(Span::TenMinutes).at.len(), second.show(Span::Day).at.len()), (600, 1_440));
    assert!(second.history.octets() <= MAX_OCTETS, "{} octets", second.history.octets());
}
