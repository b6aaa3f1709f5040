//! Tests of suggestions for mistyped words.

use super::super::words::*;

fn check(typed: &str, expected: Option<&str>) {
    let known = ["dispatch", "fanout", "attempt_timeout", "timeout", "tries", "on"];
    assert_eq!(nearest(typed, known), expected, "{typed:?}");
}

#[test]
fn slips_of_the_fingers_are_forgiven() {
    check("fan_out", Some("fanout"));
    check("fanuot", Some("fanout"));
    check("Timeout", Some("timeout"));
    check("attempt-timeout", Some("attempt_timeout"));
    check("tires", Some("tries"));
}

#[test]
fn other_words_are_not() {
    check("cache", None);
    check("of", None);
    check("", None);
}
