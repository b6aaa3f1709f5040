//! The guard of instruction counts (`benches/instructions`) can fail, and its baseline is read as it is
//! written.

#[path = "../benches/instructions/baseline.rs"]
mod baseline;

use baseline::{Baseline, TOLERANCE, Verdict};

#[test]
fn counts_are_held_to_what_is_known() {
    let check = |known: Option<u64>, count: u64, expected: Verdict| {
        assert_eq!(Verdict::of(known, count), expected, "{known:?} {count}");
    };
    check(Some(1000), 1000, Verdict::Same);
    check(Some(1000), 1000 + 10 * TOLERANCE, Verdict::Same);
    check(Some(1000), 1001 + 10 * TOLERANCE, Verdict::More);
    check(Some(1000), 1000 - 10 * TOLERANCE, Verdict::Same);
    check(Some(1000), 999 - 10 * TOLERANCE, Verdict::Fewer);
    // Of a few instructions one is many percent.
    check(Some(20), 28, Verdict::Same);
    check(Some(20), 29, Verdict::More);
    check(Some(100), 91, Verdict::Fewer);
    check(Some(0), 9, Verdict::More);
    check(None, 1000, Verdict::New);
}

#[test]
fn a_baseline_is_read_as_it_is_written() {
    let counts = [("wire/read_query", 182), ("table/hit", 700)].map(|(name, count)| (name.to_owned(), count));
    let baseline = Baseline { made_with: "rustc 1, x86, valgrind-3".to_owned(), counts: counts.into() };
    assert_eq!(baseline.to_string().parse(), Ok(baseline));
}

#[test]
fn a_line_that_says_nothing_is_an_error() {
    for line in ["wire/read_query", "wire/read_query many", "wire/read_query -1"] {
        let error = line.parse::<Baseline>().expect_err(line);
        assert!(error.contains(line), "{error}");
    }
}

#[test]
fn the_baseline_of_the_repository_can_be_read() {
    let baseline: Baseline = include_str!("../benches/instructions/baseline.txt").parse().expect("it is sound");
    assert!(!baseline.counts.is_empty() && !baseline.made_with.is_empty());
}
