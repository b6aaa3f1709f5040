//! Tests of what the end of an attempt records.

use super::super::*;

/// Returns the p95 in ms of a backend that replied 100 times within a millisecond, after `given_up`
/// abandoned attempts with this end.
fn p95_after(given_up: u32, is_heard: bool, end: Option<AttemptEnd>) -> u128 {
    let start = Instant::now();
    let ms = Duration::from_millis;
    let (mut load, mut latency) = (BackendLoad::new(start), Latency::new(start));
    for reply in 1..=100 {
        load.asked(start);
        ended(&mut load, &mut latency, AttemptEnd::Reply(Duration::from_micros(reply * 100)), false, start);
    }
    let now = start + ms(100);
    (0..given_up).for_each(|_| load.asked(start));
    if is_heard {
        load.asked(start);
        ended(&mut load, &mut latency, AttemptEnd::Reply(ms(1)), false, start + ms(1));
    }
    for _ in 0..given_up {
        let is_charged = charge(&load, &mut latency, start);
        assert_eq!(is_charged, is_heard);
        if let Some(end) = end {
            ended(&mut load, &mut latency, end, is_charged, now);
        }
    }
    latency.record(ms(1), now);
    latency.quantile(0.95).expect("there are samples enough").as_micros() / 100
}

#[test]
fn what_is_given_up_is_late_unless_it_is_taken_back() {
    let usual = p95_after(0, true, None);
    assert!(p95_after(3, true, None) > usual);
    assert_eq!(p95_after(3, false, None), usual, "the backend may be down");
    assert_eq!(p95_after(3, true, Some(AttemptEnd::Unreachable)), usual, "it was down");
    assert_eq!(p95_after(3, true, Some(AttemptEnd::Unsent)), usual, "it was not asked");
    assert_eq!(p95_after(3, true, Some(AttemptEnd::Void)), usual, "its duration is not known");
    let corrected = p95_after(3, true, Some(AttemptEnd::Reply(Duration::from_millis(1))));
    assert!(corrected <= usual, "they were quick after all");
}
