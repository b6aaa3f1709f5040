//! Tests of health, step by step, and for hours on a fake clock against a modelled backend.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Good,
    Missed,
    Unreachable,
    Refused,
    /// An ICMP error for a request.
    Icmp,
    /// A reply to a request.
    Reply,
    /// A reply of this kind to a probe.
    Probed(ProbeReply),
}

/// Plays the events with `fall = 2` and `rise = 2`, and compares the state.
fn check(mut health: Health, events: &[Event], expected: HealthState) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut now = health.next_probe;
    for event in events {
        match event {
            Event::Good => {
                now = begin_probe(&mut health, now, &mut rng);
                health.on_probe_reply(now);
                // The reply to a repeated question is no second good probe.
                health.on_probe_reply(now);
            }
            Event::Missed => {
                now = begin_probe(&mut health, now, &mut rng);
                now = sit_out(&mut health, now, &mut rng);
            }
            Event::Unreachable => {
                now = begin_probe(&mut health, now, &mut rng);
                health.on_probe_unreachable(now);
                // ICMP may come for each datagram.
                health.on_probe_unreachable(now);
            }
            Event::Refused => {
                now = begin_probe(&mut health, now, &mut rng);
                health.on_probe_refused(now);
            }
            Event::Icmp => health.on_unreachable(now),
            Event::Reply => health.on_reply(now),
            Event::Probed(kind) => {
                now = begin_probe(&mut health, now, &mut rng);
                health.on_probe_reply_of(*kind, now);
            }
        }
    }
    assert_eq!(health.state, expected, "{events:?}");
}

fn begin_probe(health: &mut Health, mut now: Instant, rng: &mut StdRng) -> Instant {
    loop {
        match health.poll(now, rng) {
            HealthStep::Probe => return now,
            HealthStep::Repeat => {}
            HealthStep::WaitUntil(at) => now = at,
        }
    }
}

/// Lets the open probe fail, and stops before the next one.
fn sit_out(health: &mut Health, mut now: Instant, rng: &mut StdRng) -> Instant {
    while health.probe.is_some_and(|probe| probe.sent < SENDS) {
        match health.poll(now, rng) {
            HealthStep::Probe => panic!("a probe begins while one is out"),
            HealthStep::Repeat => {}
            HealthStep::WaitUntil(at) => now = at,
        }
    }
    now = health.probe.map_or(now, |probe| probe.due);
    health.probe = None;
    health.on_probe_missed(now);
    now
}

/// Returns a backend with default rules, and its start time.
fn health() -> (Health, Instant, StdRng) {
    let start = Instant::now();
    (Health::new(HealthRules::default(), HealthState::Up, start), start, StdRng::seed_from_u64(1))
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn probes_in_a_row_decide_and_a_reply_decides_at_once() {
    use Event::{Good, Icmp, Missed, Reply, Unreachable};
    for (events, expected) in [
        (&[][..], HealthState::Up),
        (&[Missed], HealthState::Up),
        (&[Missed, Missed], HealthState::Down),
        (&[Missed, Good, Missed], HealthState::Up),
        (&[Missed, Reply, Missed], HealthState::Up),
        (&[Icmp; 9], HealthState::Up),
        (&[Missed, Icmp, Icmp], HealthState::Up),
        (&[Unreachable], HealthState::Up),
        (&[Unreachable, Unreachable], HealthState::Down),
        (&[Unreachable, Missed], HealthState::Down),
        (&[Unreachable, Good, Unreachable], HealthState::Up),
        (&[Unreachable, Reply, Unreachable], HealthState::Up),
        (&[Missed, Missed, Good], HealthState::Down),
        (&[Missed, Missed, Good, Good], HealthState::Up),
        (&[Missed, Missed, Good, Missed, Good], HealthState::Down),
        (&[Missed, Missed, Good, Unreachable, Good], HealthState::Down),
        (&[Missed, Missed, Reply], HealthState::Up),
        (&[Missed, Missed, Icmp, Reply, Missed], HealthState::Up),
    ] {
        check(Health::new(HealthRules::default(), HealthState::Up, Instant::now()), events, expected);
    }
}

#[test]
fn failures_in_reply_to_probes_count_as_expect_has_it() {
    use Event::{Missed, Probed};
    let [answer, unserved, failure] = [ProbeReply::Answer, ProbeReply::Unserved, ProbeReply::Failure].map(Probed);
    for (expect, events, expected) in [
        (Expect::Reply, &[answer, failure, failure, failure][..], HealthState::Up),
        (Expect::Reply, &[answer, unserved, unserved], HealthState::Up),
        (Expect::NoFailure, &[failure], HealthState::Up),
        (Expect::NoFailure, &[failure, failure], HealthState::Down),
        (Expect::NoFailure, &[failure, Missed], HealthState::Down),
        (Expect::NoFailure, &[failure, answer, failure], HealthState::Up),
        (Expect::NoFailure, &[failure, failure, answer, answer], HealthState::Up),
        (Expect::NoFailure, &[failure, failure, answer, failure, answer], HealthState::Down),
        (Expect::NoFailure, &[unserved, unserved, unserved], HealthState::Up),
        (Expect::NoFailure, &[answer, unserved, unserved], HealthState::Down),
        (Expect::NoFailure, &[failure, unserved, failure], HealthState::Up),
        (Expect::Match, &[failure, answer, failure], HealthState::Up),
        (Expect::Match, &[failure, failure], HealthState::Down),
        (Expect::Match, &[unserved, failure, answer], HealthState::Down),
        (Expect::Match, &[failure, failure, answer, answer], HealthState::Up),
    ] {
        check(
            Health::new(HealthRules { expect, ..HealthRules::default() }, HealthState::Up, Instant::now()),
            events,
            expected,
        );
    }
}

#[test]
fn one_probe_that_is_refused_by_stream_decides() {
    use Event::{Good, Refused};
    let up = || Health::new(HealthRules::default(), HealthState::Up, Instant::now());
    check(up(), &[Refused], HealthState::Down);
    check(up(), &[Good, Refused, Good], HealthState::Down);
    check(up(), &[Refused, Good, Refused, Good], HealthState::Down);
    check(up(), &[Refused, Good, Good], HealthState::Up);
    check(Health::new(HealthRules::default(), HealthState::New, Instant::now()), &[Refused], HealthState::New);
}

#[test]
fn two_probes_that_are_unreachable_decide_whatever_fall_says() {
    use Event::{Missed, Unreachable};
    for (fall, events, expected) in [
        (1, &[Unreachable][..], HealthState::Up),
        (1, &[Unreachable, Unreachable], HealthState::Down),
        (1, &[Missed], HealthState::Down),
        (9, &[Unreachable, Unreachable], HealthState::Down),
        (9, &[Unreachable, Missed, Unreachable, Missed], HealthState::Up),
        (3, &[Unreachable, Missed, Unreachable], HealthState::Down),
    ] {
        check(
            Health::new(HealthRules { fall, ..HealthRules::default() }, HealthState::Up, Instant::now()),
            events,
            expected,
        );
    }
}

#[test]
fn icmp_to_a_query_asks_for_a_probe_and_a_probe_that_is_unreachable_for_the_next_at_once() {
    let (mut health, start, mut rng) = health();
    health.poll(start, &mut rng);
    health.on_probe_reply(start);
    let died = start + ms(1_000);
    health.on_unreachable(died);
    for _ in 0..UNREACHABLE {
        assert_eq!(health.poll(died, &mut rng), HealthStep::Probe);
        assert!(health.is_up());
        health.on_probe_unreachable(died);
    }
    assert_eq!(health.state, HealthState::Down);
    assert!(matches!(health.poll(died, &mut rng), HealthStep::WaitUntil(_)), "the next waits");
}

#[test]
fn icmp_without_end_causes_few_probes() {
    let (mut health, start, mut rng) = health();
    let (mut probes, mut now) = (0, start);
    while now < start + ms(10_000) {
        health.on_unreachable(now);
        while health.poll(now, &mut rng) == HealthStep::Probe {
            probes += 1;
            health.on_probe_reply(now);
        }
        now += Duration::from_micros(16);
    }
    assert!((195..=201).contains(&probes), "{probes} probes in ten seconds");
    assert!(health.is_up());
}

#[test]
fn a_new_backend_is_not_up_before_its_first_good_probe() {
    use Event::{Good, Missed, Reply, Unreachable};
    for (events, expected) in [
        (&[][..], HealthState::New),
        (&[Missed, Missed, Missed], HealthState::New),
        (&[Unreachable], HealthState::New),
        (&[Good], HealthState::Up),
        (&[Unreachable, Missed, Good], HealthState::Up),
        (&[Reply], HealthState::Up),
        (&[Good, Missed, Missed], HealthState::Down),
    ] {
        check(Health::new(HealthRules::default(), HealthState::New, Instant::now()), events, expected);
    }
}

#[test]
fn the_first_probe_is_due_at_the_start_and_the_next_after_the_interval_with_jitter() {
    let mut waits = Vec::new();
    for seed in 0..100 {
        let (mut health, start, _) = health();
        let mut rng = StdRng::seed_from_u64(seed);
        assert_eq!(health.poll(start, &mut rng), HealthStep::Probe);
        health.on_probe_reply(start);
        let HealthStep::WaitUntil(next) = health.poll(start, &mut rng) else { panic!("it waits") };
        waits.push(next - start);
    }
    let (shortest, longest) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
    assert!(shortest >= ms(4_500) && longest <= ms(5_000), "{shortest:?} to {longest:?}");
    assert!(longest - shortest > ms(400), "jitter scatters probes, {shortest:?} to {longest:?}");
}

#[test]
fn a_probe_is_repeated_evenly_until_it_is_replied_to() {
    let (mut health, start, mut rng) = health();
    assert_eq!(health.poll(start, &mut rng), HealthStep::Probe);
    for repetition in 1..4 {
        let due = start + repetition * ms(125);
        assert_eq!(health.poll(due - ms(1), &mut rng), HealthStep::WaitUntil(due));
        assert_eq!(health.poll(due, &mut rng), HealthStep::Repeat);
    }
    health.on_probe_reply(start + ms(376));
    let HealthStep::WaitUntil(next) = health.poll(start + ms(376), &mut rng) else { panic!("it waits") };
    assert!(next - start >= ms(4_500));
}

#[test]
fn a_process_that_was_stopped_does_not_blame_the_backend() {
    let (mut health, start, mut rng) = health();
    assert_eq!(health.poll(start, &mut rng), HealthStep::Probe);
    let woken = start + Duration::from_secs(3_600);
    assert_eq!(health.poll(woken, &mut rng), HealthStep::Repeat);
    assert_eq!(health.poll(woken, &mut rng), HealthStep::WaitUntil(woken + ms(125)));
}

#[test]
fn silence_asks_for_a_probe_but_not_for_two_at_a_time() {
    let (mut health, start, mut rng) = health();
    health.poll(start, &mut rng);
    health.on_probe_reply(start);
    health.on_silence(start + ms(10));
    assert_eq!(health.poll(start + ms(10), &mut rng), HealthStep::WaitUntil(start + ms(1_000)));
    assert_eq!(health.poll(start + ms(1_000), &mut rng), HealthStep::Probe);
    health.on_probe_reply(start + ms(1_001));
    health.on_silence(start + ms(2_500));
    assert_eq!(health.poll(start + ms(2_500), &mut rng), HealthStep::Probe);
}

#[test]
fn suspicion_never_puts_a_probe_off() {
    let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
    let mut health = Health::new(HealthRules { interval: ms(300), ..HealthRules::default() }, HealthState::Up, start);
    health.poll(start, &mut rng);
    health.on_probe_reply(start);
    let due = health.poll(start, &mut rng);
    health.on_silence(start);
    assert_eq!(health.poll(start, &mut rng), due);
}

#[test]
fn queries_ask_for_a_probe_whatever_the_state() {
    for is_down in [false, true] {
        let (mut health, start, mut rng) = health();
        health.poll(start, &mut rng);
        if is_down {
            health = Health::new(HealthRules::default(), HealthState::Down, start);
            health.poll(start, &mut rng);
        }
        health.on_probe_reply(start);
        assert!(matches!(health.poll(start + ms(1), &mut rng), HealthStep::WaitUntil(_)));
        health.on_queries(start + ms(1));
        assert_eq!(health.poll(start + ms(1), &mut rng), HealthStep::Probe, "down: {is_down}");
    }
}

#[test]
fn a_backend_that_is_down_is_probed_ever_more_rarely_but_never_less_than_each_interval() {
    let (mut health, start, mut rng) = health();
    for _ in 0..UNREACHABLE {
        health.poll(start, &mut rng);
        health.on_probe_unreachable(start);
    }
    let mut now = start;
    for expected in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
        let began = begin_probe(&mut health, now, &mut rng);
        let (wait, longest) = (began - now, ms(expected));
        assert!(wait <= longest && wait >= longest.mul_f64(1.0 - JITTER), "{wait:?} of {longest:?}");
        now = began;
        health.on_probe_unreachable(now);
    }
    now = begin_probe(&mut health, now, &mut rng);
    health.on_probe_reply(now);
    assert!(begin_probe(&mut health, now, &mut rng) - now <= FIRST_BACKOFF);
}

/// A backend behind a network, and its requests.
#[derive(Clone, Copy, Debug)]
struct Model {
    /// The chance that a datagram is lost, each way.
    loss: f64,
    /// The round trip time.
    round_trip: Duration,
    /// Start and end of the dead phase, counted from the start.
    dead: (Duration, Duration),
    /// The interval of requests that it never answers; zero for none. Each times out after a second.
    misses: Duration,
}

/// A healthy backend, five milliseconds away, without requests.
const SOUND: Model =
    Model { loss: 0.0, round_trip: ms(5), dead: (Duration::MAX, Duration::MAX), misses: Duration::ZERO };

/// The events of a simulation.
#[derive(Debug, Default)]
struct Log {
    /// State changes with their times.
    changes: Vec<(Duration, HealthState)>,
    /// The start of each probe.
    probes: Vec<Duration>,
    sent: usize,
}

/// Runs `health` against a model for `length`.
fn simulate(model: Model, length: Duration, seed: u64) -> Log {
    let (mut health, start, _) = health();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut log = Log::default();
    let (mut now, mut state) = (start, health.state);
    // Arrival times of replies to the open probe, and the timeout of the next request.
    let mut replies: Vec<Instant> = Vec::new();
    let mut silence = (!model.misses.is_zero()).then_some(start + Duration::from_secs(1));
    while now - start < length {
        let wake = loop {
            match health.poll(now, &mut rng) {
                HealthStep::WaitUntil(at) => break at,
                HealthStep::Probe => {
                    replies.clear();
                    log.probes.push(now - start);
                }
                HealthStep::Repeat => {}
            }
            log.sent += 1;
            let is_dead = (model.dead.0..model.dead.1).contains(&(now - start));
            if !is_dead && !rng.random_bool(model.loss) && !rng.random_bool(model.loss) {
                replies.push(now + model.round_trip);
            }
        };
        if health.state != state {
            state = health.state;
            log.changes.push((now - start, state));
        }
        let reply = replies.iter().min().copied();
        now = [Some(wake), reply, silence].into_iter().flatten().min().expect("there is always a next step");
        if reply == Some(now) {
            replies.clear();
            health.on_probe_reply(now);
        } else if silence == Some(now) {
            silence = Some(now + model.misses);
            health.on_silence(now);
        }
    }
    log
}

#[test]
fn a_backend_that_is_silent_on_every_miss_is_never_taken_for_dead() {
    for seed in 0..50 {
        let log = simulate(Model { misses: ms(2), ..SOUND }, Duration::from_secs(60), seed);
        assert_eq!(log.changes, [], "seed {seed}");
        assert!((55..=61).contains(&log.sent), "suspicion asks once a second, not {} times a minute", log.sent);
    }
}

#[test]
fn lost_datagrams_take_no_backend_down() {
    let hour = Duration::from_secs(3_600);
    for seed in 0..40 {
        for misses in [Duration::ZERO, ms(100)] {
            let log = simulate(Model { loss: 0.2, misses, ..SOUND }, hour, seed);
            assert_eq!(log.changes, [], "seed {seed}, misses {misses:?}");
        }
    }
}

#[test]
fn a_dead_backend_is_noticed_in_two_timeouts_from_the_first_suspicion() {
    let died = ms(60_300);
    for seed in 0..200 {
        let model = Model { loss: 0.2, dead: (died, Duration::MAX), misses: ms(10), ..SOUND };
        let log = simulate(model, Duration::from_secs(70), seed);
        let [(noticed, HealthState::Down)] = log.changes[..] else { panic!("seed {seed}: {:?}", log.changes) };
        // With suspicion, a probe begins within a second of the last one.
        assert!(noticed - died <= ms(3_000 + 130), "seed {seed}: after {:?}", noticed - died);
    }
}

#[test]
fn probes_to_a_dead_backend_never_stop_and_find_it_back_within_an_interval() {
    let (died, back) = (Duration::from_secs(30), Duration::from_secs(90_000));
    for seed in 0..10 {
        let log = simulate(Model { dead: (died, back), ..SOUND }, back + Duration::from_secs(10), seed);
        let [(_, HealthState::Down), (noticed, HealthState::Up)] = log.changes[..] else {
            panic!("seed {seed}: {:?}", log.changes)
        };
        let longest = log.probes.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(longest <= Duration::from_secs(5), "seed {seed}: {longest:?} between two probes");
        assert!(noticed - back <= ms(5_000 + 300), "seed {seed}: after {:?}", noticed - back);
    }
}

#[test]
fn probe_that_could_not_be_made_tells_nothing() {
    let mut rng = StdRng::seed_from_u64(1);
    let rules = HealthRules::default();
    let start = Instant::now();
    let (mut health, mut now) = (Health::new(rules, HealthState::Up, start), start);
    for _ in 0..10 {
        now = begin_probe(&mut health, now, &mut rng);
        health.on_probe_not_made();
    }
    assert_eq!(health.state, HealthState::Up);
    assert!(now >= start + rules.interval.mul_f64(9.0 * 0.9), "it does not spin");
}
