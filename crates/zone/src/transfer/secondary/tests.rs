//! One zone of a secondary with scripted primaries: each request has its answer, and the clock advances by
//! the waits.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::sample::soa;
use super::*;

/// The version of this serial: refresh 100 s, retry 10 s, expire 1000 s.
fn version(serial: u32) -> SecondaryVersion {
    SecondaryVersion::of(&Soa::of(&soa(serial).as_record()).unwrap())
}

/// The behavior of a primary.
#[derive(Clone, Copy)]
enum Primary {
    /// Has this version, and serves it in any way.
    Has(u32),
    /// Has this version, and serves only AXFR.
    HasWhole(u32),
    /// Announces this version, but serves nothing.
    Tells(u32),
    Fails,
    IsSilent,
}

struct Bench {
    secondary: Secondary,
    start: Instant,
    now: Instant,
    rng: SmallRng,
}

impl Bench {
    fn new(primaries: usize, saved: Option<(u32, u64)>) -> Self {
        let now = Instant::now();
        let secondary = match saved {
            Some((serial, age)) => Secondary::from_saved(primaries, version(serial), Duration::from_secs(age), now),
            None => Secondary::new(primaries, now),
        };
        Self { secondary, start: now, now, rng: SmallRng::seed_from_u64(5) }
    }

    /// Follows the steps until the zone is idle. Returns the requests: `soa 0`, `ixfr 1`, ...
    fn look(&mut self, primaries: &[Primary]) -> String {
        let mut asked = Vec::new();
        loop {
            match self.secondary.next_step(self.now, &mut self.rng) {
                SecondaryStep::AskSoa { primary } => {
                    asked.push(format!("soa {primary}"));
                    match primaries[primary] {
                        Primary::Has(serial) | Primary::HasWhole(serial) | Primary::Tells(serial) => {
                            self.secondary.on_soa(Serial(serial), self.now, &mut self.rng);
                        }
                        Primary::Fails => self.secondary.on_failure(self.now, &mut self.rng),
                        Primary::IsSilent => {}
                    }
                }
                SecondaryStep::Transfer { primary, incremental } => {
                    asked.push(format!("{} {primary}", if incremental { "ixfr" } else { "axfr" }));
                    match primaries[primary] {
                        Primary::HasWhole(_) if incremental => self.secondary.on_failure(self.now, &mut self.rng),
                        Primary::Has(serial) | Primary::HasWhole(serial) => {
                            self.secondary.on_transferred(version(serial), self.now, &mut self.rng);
                        }
                        Primary::Tells(_) | Primary::Fails => self.secondary.on_failure(self.now, &mut self.rng),
                        Primary::IsSilent => {}
                    }
                }
                SecondaryStep::WaitUntil(at) if self.secondary.look.is_some() => self.now = at,
                SecondaryStep::WaitUntil(_) => return asked.join(", "),
            }
        }
    }

    /// Waits for the next step. Returns the seconds since the start.
    fn wait(&mut self) -> u64 {
        let SecondaryStep::WaitUntil(at) = self.secondary.next_step(self.now, &mut self.rng) else {
            panic!("something is to be done");
        };
        assert!(at > self.now);
        self.now = at;
        (at - self.start).as_secs()
    }

    fn serial(&self) -> Option<u32> {
        self.secondary.version().map(|version| version.serial.0)
    }
}

#[test]
fn primaries_are_asked_in_order_and_ixfr_comes_first() {
    use Primary::{Fails, Has, HasWhole, IsSilent, Tells};
    let check = |saved: Option<u32>, primaries: &[Primary], asked: &str, serial: Option<u32>| {
        let mut bench = Bench::new(primaries.len(), saved.map(|serial| (serial, 0)));
        assert_eq!(bench.look(primaries), asked);
        assert_eq!(bench.serial(), serial, "{asked}");
    };
    check(None, &[Has(1)], "axfr 0", Some(1));
    check(None, &[Fails, IsSilent, Has(1)], "axfr 0, axfr 1, axfr 2", Some(1));
    check(None, &[Fails], "axfr 0", None);
    check(Some(1), &[Has(1)], "soa 0", Some(1));
    check(Some(1), &[Has(2)], "soa 0, ixfr 0", Some(2));
    check(Some(1), &[HasWhole(2)], "soa 0, ixfr 0, axfr 0", Some(2));
    check(Some(1), &[Tells(2), Has(3)], "soa 0, ixfr 0, axfr 0, soa 1, ixfr 1", Some(3));
    check(Some(5), &[Has(4), Has(5)], "soa 0, soa 1", Some(5));
    check(Some(5), &[Has(4), Fails], "soa 0, soa 1", Some(5));
    check(Some(5), &[IsSilent, Has(6)], "soa 0, soa 1, ixfr 1", Some(6));
    // Serials wrap around.
    check(Some(u32::MAX), &[Has(0)], "soa 0, ixfr 0", Some(0));
}

#[test]
fn the_next_look_is_after_refresh_or_retry_and_the_zone_expires() {
    let mut bench = Bench::new(1, None);
    assert_eq!(bench.secondary.service(bench.now), ZoneService::Absent);
    bench.look(&[Primary::Has(1)]);
    assert_eq!(bench.secondary.service(bench.now), ZoneService::Served);
    assert!((90..=100).contains(&bench.wait()));
    let confirmed = bench.now;
    assert_eq!(bench.look(&[Primary::Has(1)]), "soa 0");
    bench.wait();
    let mut looks = 0;
    while bench.secondary.service(bench.now) == ZoneService::Served {
        if bench.look(&[Primary::Fails]) == "soa 0" {
            looks += 1;
        }
        bench.wait();
    }
    assert_eq!(bench.now - confirmed, Duration::from_secs(1_000));
    assert!((90..=101).contains(&looks), "{looks}");
    // The zone is asked for again, and recovers.
    bench.wait();
    bench.look(&[Primary::Has(1)]);
    assert_eq!(bench.secondary.service(bench.now), ZoneService::Served);
}

#[test]
fn a_saved_zone_is_as_old_as_it_is() {
    let service = |age, after| {
        let bench = Bench::new(1, Some((1, age)));
        bench.secondary.service(bench.now + Duration::from_secs(after))
    };
    assert_eq!(service(0, 999), ZoneService::Served);
    assert_eq!(service(900, 99), ZoneService::Served);
    assert_eq!(service(900, 100), ZoneService::Expired);
    assert_eq!(service(1_000_000, 0), ZoneService::Expired);
}

#[test]
fn without_a_version_the_wait_grows() {
    let mut bench = Bench::new(1, None);
    let mut waits = Vec::new();
    for _ in 0..15 {
        bench.look(&[Primary::Fails]);
        let before = bench.now;
        bench.wait();
        waits.push((bench.now - before).as_secs_f64());
    }
    assert!(waits[0] <= 1.0 && waits[14] > 3_000.0 && waits[14] <= 3_600.0, "{waits:?}");
    assert!(waits.windows(2).all(|pair| pair[1] <= pair[0] * 2.3), "{waits:?}");
}

#[test]
fn a_notify_has_its_sender_asked_at_once() {
    let check = |primary: usize, hint: Option<u32>, asked: &str| {
        let mut bench = Bench::new(2, Some((5, 0)));
        bench.look(&[Primary::Has(5), Primary::Has(5)]);
        bench.now += NOTIFY_GAP;
        bench.secondary.on_notify(primary, hint.map(Serial), bench.now);
        assert_eq!(bench.look(&[Primary::Has(5), Primary::Has(6)]), asked, "{primary} {hint:?}");
    };
    check(1, Some(6), "soa 1, ixfr 1");
    check(1, None, "soa 1, ixfr 1");
    check(0, Some(6), "soa 0");
    // The present version, an old one, and an unknown primary.
    check(1, Some(5), "");
    check(1, Some(4), "");
    check(2, Some(6), "");
}

#[test]
fn a_primary_that_announces_a_version_and_returns_the_present_one_is_asked_again() {
    let mut bench = Bench::new(1, Some((5, 0)));
    bench.look(&[Primary::Has(5)]);
    bench.now += NOTIFY_GAP;
    bench.secondary.on_notify(0, Some(Serial(6)), bench.now);
    assert_eq!(bench.look(&[Primary::Has(5)]), "soa 0");
    let before = bench.now;
    bench.wait();
    assert_eq!(bench.now - before, ANNOUNCED_AGAIN);
    assert_eq!(bench.look(&[Primary::Has(5)]), "soa 0", "once: a NOTIFY can be forged");
    let before = bench.now;
    bench.wait();
    assert!(bench.now - before > ANNOUNCED_AGAIN);
}

#[test]
fn a_notify_of_the_present_version_refreshes_an_expired_zone() {
    let mut bench = Bench::new(1, Some((5, 0)));
    while bench.secondary.service(bench.now) != ZoneService::Expired {
        bench.look(&[Primary::Fails]);
        bench.wait();
    }
    bench.look(&[Primary::Fails]);
    bench.now += NOTIFY_GAP;
    bench.secondary.on_notify(0, Some(Serial(5)), bench.now);
    assert_eq!(bench.look(&[Primary::Has(5)]), "soa 0");
    assert_eq!(bench.secondary.service(bench.now), ZoneService::Served);
}

#[test]
fn a_notify_during_a_look_is_not_lost() {
    let mut bench = Bench::new(1, Some((1, 0)));
    let mut rng = SmallRng::seed_from_u64(1);
    assert_eq!(bench.secondary.next_step(bench.now, &mut rng), SecondaryStep::AskSoa { primary: 0 });
    bench.secondary.on_notify(0, Some(Serial(2)), bench.now);
    bench.secondary.on_soa(Serial(1), bench.now, &mut rng);
    bench.wait();
    assert_eq!(bench.now - bench.start, NOTIFY_GAP);
    assert_eq!(bench.look(&[Primary::Has(2)]), "soa 0, ixfr 0");
}

#[test]
fn a_flood_of_notify_has_few_looks_begin() {
    let mut bench = Bench::new(1, Some((1, 0)));
    let mut looks = 0;
    while bench.now < bench.start + Duration::from_secs(1) {
        bench.secondary.on_notify(0, None, bench.now);
        looks += usize::from(!bench.look(&[Primary::Has(1)]).is_empty());
        bench.now += Duration::from_millis(1);
    }
    assert_eq!(looks, 10);
    bench.secondary.on_notify(0, None, bench.now);
    assert_eq!(bench.look(&[Primary::Has(1)]), "soa 0", "the last one is followed");
}

#[test]
fn a_transfer_that_only_trickles_comes_to_an_end() {
    let mut bench = Bench::new(2, None);
    let mut rng = SmallRng::seed_from_u64(1);
    let first = SecondaryStep::Transfer { primary: 0, incremental: false };
    assert_eq!(bench.secondary.next_step(bench.now, &mut rng), first);
    let step = loop {
        bench.now += Duration::from_secs(30);
        bench.secondary.on_progress(bench.now);
        match bench.secondary.next_step(bench.now, &mut rng) {
            SecondaryStep::WaitUntil(at) => assert!(at > bench.now),
            step => break step,
        }
    };
    assert_eq!(step, SecondaryStep::Transfer { primary: 1, incremental: false });
    assert_eq!(bench.now - bench.start, MAX_TRANSFER);
}

#[test]
fn what_comes_unasked_changes_nothing() {
    let mut bench = Bench::new(1, Some((1, 0)));
    bench.look(&[Primary::Has(1)]);
    let before = bench.wait();
    bench.now = bench.start;
    bench.secondary.on_soa(Serial(9), bench.now, &mut bench.rng);
    bench.secondary.on_failure(bench.now, &mut bench.rng);
    bench.secondary.on_up_to_date(bench.now, &mut bench.rng);
    assert_eq!((bench.wait(), bench.serial()), (before, Some(1)));
}

#[test]
fn times_are_brought_within_bounds() {
    let of =
        |refresh, retry, expire| SecondaryVersion::of(&Soa { mname: b"\0", serial: Serial(1), refresh, retry, expire });
    let secs = Duration::from_secs;
    let zero = of(0, 0, 0);
    assert_eq!((zero.refresh, zero.retry, zero.expire), (secs(2), secs(1), secs(3)));
    let most = of(u32::MAX, u32::MAX, u32::MAX);
    assert_eq!((most.refresh, most.retry, most.expire), (secs(28 * 86_400), secs(14 * 86_400), secs(365 * 86_400)));
    assert_eq!(of(100, 10, 50).expire, secs(110));
}
