//! Tests of the latency history on fake time.

mod attempts;

use proptest::prelude::*;

use super::window::MAX_MICROS;
use super::*;

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn latency() -> (Latency, Instant) {
    let now = Instant::now();
    (Latency::new(now), now)
}

/// Returns true if a duration is within 5 % of so many microseconds.
fn is_near(actual: Duration, micros: u64) -> bool {
    actual.abs_diff(us(micros)).as_micros() as u64 * 20 <= micros
}

/// Records 100, 200, 300 and so on to 100,000 µs, not in this order, which would look like a change.
fn fill_evenly(latency: &mut Latency, now: Instant) {
    for sample in 0..1_000 {
        latency.record(us((sample * 387 % 1_000 + 1) * 100), now);
    }
}

#[test]
fn stays_small() {
    assert!(size_of::<Latency>() <= 11 * 1024, "{}", size_of::<Latency>());
}

#[test]
fn says_nothing_before_fifty_samples() {
    let (mut latency, now) = latency();
    for _ in 0..49 {
        latency.record(us(100), now);
    }
    assert_eq!(latency.quantile(0.5), None);
    assert_eq!(latency.hedge_delay(&Hedge::default()), Hedge::default().max_delay);
    latency.record(us(100), now);
    assert!(latency.quantile(0.5).is_some());
}

#[test]
fn a_new_backend_starts_with_the_latency_of_the_others_and_soon_has_its_own() {
    let now = Instant::now();
    // 1 % of the replies have a heavy tail: 3, 6, 9 ms and so on.
    let took = |reply: u64| if reply.is_multiple_of(100) { reply / 100 * 3_000 % 96_000 } else { reply % 500 + 500 };
    let others = [3, 7].map(|first| {
        let mut latency = Latency::new(now);
        (0..20_000).for_each(|reply| _ = latency.record(us(took(reply + first)), now));
        latency
    });
    let usual = LatencyImage::merged(&others.each_ref().map(|other| other.image(now)));
    let shared = Arc::new(SharedLatency::new(now));
    for mut new in [Latency::new(now), Latency::of_shared(&shared)] {
        assert!(new.is_empty());
        new.learn(&usual, now);
        assert!(!new.is_empty());
        for (part, off) in [(0.5, 0.05), (0.95, 0.05), (0.999, 0.1)] {
            let [own, other] = [&new, &others[0]].map(|latency| latency.quantile(part).expect("enough").as_secs_f64());
            assert!((own / other - 1.0).abs() < off, "p{part}: {own}, others {other}");
        }
        // It is twice as slow, which is no change of latency in the middle half alone.
        for reply in 0..2 * u64::from(SHORT.enough) {
            new.record(us(1_000 + reply % 100), now + us(reply * 200));
        }
        new.publish();
        let median = new.quantile(0.5).expect("enough");
        assert!(is_near(median, 1_050), "{median:?}");
    }
    // Without replies of others it knows nothing.
    let mut new = Latency::new(now);
    new.learn(&LatencyImage::merged(&[LatencyImage::default()]), now);
    assert!(new.is_empty());
    assert!(usual.short.replies() == SHORT.few && usual.long.replies() == LONG.few, "{usual:?}");
}

#[test]
fn what_took_long_before_two_epochs_is_forgotten() {
    let (mut latency, start) = latency();
    for epoch in 0..4 {
        // Too few of them are slow to show a change.
        for sample in 0..100 {
            let slow = epoch < 2 && sample % 2 == 0;
            latency.record(us(if slow { 100_000 } else { 10 }), start + epoch * SHORT.usual);
        }
    }
    assert_eq!(latency.quantile(COMMON), Some(us(10)));
}

#[test]
fn a_quiet_backend_keeps_its_samples_until_there_are_enough() {
    let (mut latency, start) = latency();
    for second in 0..60 {
        latency.record(us(500), start + Duration::from_secs(second));
    }
    assert!(latency.quantile(0.5).is_some());
}

#[test]
fn an_attempt_that_was_given_up_is_later_than_every_reply() {
    let (mut latency, now) = latency();
    fill_evenly(&mut latency, now);
    let check = |latency: &Latency, part, expected| {
        let quantile = latency.quantile(part).expect("there are samples enough");
        assert!(is_near(quantile, expected), "{part}: {quantile:?}, not {expected} us");
    };
    latency.record(us(50_000), now + REFRESH_AFTER);
    check(&latency, 0.9, 90_000);
    for _ in 0..50 {
        latency.give_up();
    }
    // Of 1,050 attempts 945 are in time.
    check(&latency, 0.9, 94_500);
    check(&latency, 0.5, 52_500);
    for _ in 0..10_000 {
        latency.give_up();
    }
    // The limit is reached.
    check(&latency, 0.9, 95_000);
    for _ in 0..10_050 {
        latency.forgive();
    }
    check(&latency, 0.9, 90_000);
    // No abandoned attempt is left.
    latency.forgive();
    check(&latency, 0.9, 90_000);
}

#[test]
fn a_late_reply_takes_the_place_of_its_attempt() {
    let (mut latency, now) = latency();
    for _ in 0..90 {
        latency.record(us(1_000), now);
    }
    for _ in 0..10 {
        latency.give_up();
    }
    for _ in 0..10 {
        latency.correct(us(500_000), now);
    }
    latency.samples_mut().refresh(now);
    assert_eq!((latency.samples_mut().short.replies(), latency.samples_mut().short.unanswered()), (100, 0));
    assert!(is_near(latency.quantile(0.9).expect("there are samples enough"), 1_000));
    assert!(is_near(latency.quantile(0.95).expect("there are samples enough"), 500_000));
}

#[test]
fn the_delay_follows_the_rules() {
    let (mut latency, now) = latency();
    fill_evenly(&mut latency, now);
    latency.samples_mut().refresh(now);
    let check = |delay, budget, expected: u64| {
        let hedge = Hedge { delay, budget, ..Hedge::default() };
        let actual = latency.hedge_delay(&hedge);
        assert!(is_near(actual, expected), "{delay:?}: {actual:?}, not {expected} us");
    };
    check(HedgeDelay::Fixed(Duration::from_secs(2)), 0.05, 2_000_000);
    check(HedgeDelay::Percentile(0.5), 0.05, 50_000);
    check(HedgeDelay::Auto, 0.05, 95_500);
    check(HedgeDelay::Auto, 0.5, 55_000);
    // Clamped by `min_delay` and `max_delay`.
    let clamps = |min, max| Hedge { min_delay: us(min), max_delay: us(max), ..Hedge::default() };
    assert_eq!(latency.hedge_delay(&clamps(200_000, 250_000)), us(200_000));
    assert_eq!(latency.hedge_delay(&clamps(1_000, 2_000)), us(2_000));
}

/// At 1,500 replies per second, half of the load of two backends at 3,000: 1 % take half a second, the others
/// scatter about 1 ms, then 20 ms, then 1 ms again.
#[test]
fn the_delay_follows_a_shift_within_a_tenth_of_a_second() {
    for budget in [0.02, 0.05, 0.1] {
        let hedge = Hedge { budget, ..Hedge::default() };
        let (mut latency, mut now) = latency();
        for usual in [1_000, 20_000, 1_000] {
            for sample in 0..6_000_u64 {
                now += us(667);
                let scattered = usual + sample * 37 % (usual / 5);
                latency.record(us(if sample % 100 == 99 { 500_000 } else { scattered }), now);
                // Allow time for half a window of new replies.
                let delay = latency.hedge_delay(&hedge);
                let settled = usual..=usual + usual / 4;
                assert!(sample < 150 || settled.contains(&(delay.as_micros() as u64)), "{sample}: {delay:?}");
            }
        }
    }
}

#[test]
fn rare_percentiles_have_samples_enough() {
    let (mut latency, mut now) = latency();
    for sample in 0..40_000_u64 {
        now += us(667);
        latency.record(us(if sample % 500 == 0 { 80_000 } else { 1_000 + sample % 100 }), now);
        if sample > 10_000 {
            let (p99, p999) = (latency.quantile(0.99), latency.quantile(0.999));
            assert!(p99.is_some_and(|p99| p99 < us(1_200)), "{sample}: {p99:?}");
            assert!(p999.is_some_and(|p999| is_near(p999, 80_000)), "{sample}: {p999:?}");
        }
    }
}

proptest! {
    #[test]
    fn quantiles_agree_with_sorting(mut samples in prop::collection::vec(0..MAX_MICROS, 50..500), part in 0.0..=1.0) {
        let (mut latency, now) = latency();
        // Sorted samples would look like a change.
        for &sample in &samples {
            latency.record(us(sample), now);
        }
        latency.samples_mut().refresh(now);
        prop_assume!(latency.samples_mut().short.replies() as usize == samples.len());
        samples.sort_unstable();
        let rank = f64::ceil(part * samples.len() as f64).max(1.0) as usize;
        let quantile = latency.quantile(part).expect("there are samples enough");
        prop_assert!(is_near(quantile, samples[rank - 1]), "{:?}, not {}", quantile, samples[rank - 1]);
    }

    #[test]
    fn the_delay_stays_within_its_clamps(
        samples in prop::collection::vec((0..2_000_000_u64, 0..3_u8), 0..400),
        clamps in (0..100_000_u64, 0..100_000_u64),
        budget in 0.0..=1.0,
    ) {
        let (min, max) = (us(clamps.0.min(clamps.1)), us(clamps.0.max(clamps.1)));
        let (mut latency, now) = latency();
        for (sample, what) in samples {
            match what {
                0 => latency.give_up(),
                1 => _ = latency.correct(us(sample), now),
                _ => _ = latency.record(us(sample), now),
            }
            for delay in [HedgeDelay::Auto, HedgeDelay::Percentile(0.999)] {
                let hedge = Hedge { delay, min_delay: min, max_delay: max, budget, ..Hedge::default() };
                prop_assert!((min..=max).contains(&latency.hedge_delay(&hedge)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The distribution changes again and again; after some time the quantiles match the new one.
    #[test]
    fn quantiles_follow_shifts(shifts in prop::collection::vec((100..100_000_u64, 1..100_u64), 1..6), part in 0.5..0.95) {
        let (mut latency, mut now) = latency();
        for (base, spread) in shifts {
            let mut latest: Vec<u64> = Vec::new();
            for sample in 0..4 * u64::from(SHORT.enough) {
                now += us(500);
                let micros = base + base * spread / 100 * (sample * 61 % 101) / 101;
                latest.push(micros);
                latency.record(us(micros), now);
            }
            latency.samples_mut().refresh(now);
            latest.sort_unstable();
            let exact = latest[f64::ceil(part * latest.len() as f64) as usize - 1];
            let quantile = latency.quantile(part).expect("there are samples enough");
            prop_assert!(is_near(quantile, exact), "{:?}, not {}", quantile, exact);
        }
    }
}
