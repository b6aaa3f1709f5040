//! What one backend has to do, and how it has done lately, as one worker sees it.
//!
//! The forwarder says [`asked`](BackendLoad::asked) and [`ended`](BackendLoad::ended) for each attempt; the policies of
//! `balance` read. Every attempt ends once: by a reply, however late, since its backend is down, or when nobody waits for
//! it any more. Until then it counts as in flight, or a dead backend would look idle and fast.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::peak::{PeakEwma, kept};

/// The load of one backend.
#[derive(Clone, Copy, Debug)]
pub struct BackendLoad {
    /// Attempts out, those included that nobody waits for while their ID is quarantined.
    in_flight: u32,
    /// How many of its replies were failures.
    errors: Errors,
    /// How long it takes to reply.
    latency: PeakEwma,
    /// Attempts are out and nothing was heard since then.
    silent_since: Option<Instant>,
    /// When it came back after it was down; `None`: it was up from the start.
    returned: Option<Instant>,
}

/// What is known of a backend, to be told to another process. All of it fades with time, and has faded until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadImage {
    /// How long it takes to reply, in seconds.
    latency: f64,
    /// The part of its replies that were failures.
    errors: f64,
    /// How long ago it came back after it was down; none if it was up from the start.
    returned: Option<Duration>,
}

impl BackendLoad {
    /// What is known, for a successor, who has asked nothing.
    pub fn image(&self, now: Instant) -> LoadImage {
        LoadImage {
            latency: self.latency.cost(now),
            errors: self.errors.value(now),
            returned: self.returned.map(|returned| now.saturating_duration_since(returned)),
        }
    }

    /// Takes what another process knew. What is in flight here stays so.
    pub fn learn(&mut self, image: &LoadImage, now: Instant) {
        self.errors = Errors { part: image.errors.clamp(0.0, 1.0), updated: now };
        self.latency = PeakEwma::known(image.latency, now);
        self.returned = image.returned.map(|ago| now.checked_sub(ago).unwrap_or(now));
    }

    /// An idle backend of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Self { in_flight: 0, errors: Errors::new(now), latency: PeakEwma::new(now), silent_since: None, returned: None }
    }

    /// An attempt goes out.
    pub fn asked(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_add(1);
        self.silent_since.get_or_insert(now);
    }

    /// An attempt has ended.
    pub fn ended(&mut self, end: End, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let was_heard = match end {
            End::Reply(took) => {
                self.latency.observe(took, now);
                self.errors.observe(false, now);
                true
            }
            End::Failure(took) => {
                // How soon it fails does not tell how soon it would answer.
                self.latency.observe_at_least(took, now);
                self.errors.observe(true, now);
                true
            }
            End::Unreachable => {
                self.errors.observe(true, now);
                true
            }
            End::Void => false,
            End::Silence(waited) => {
                self.latency.observe_at_least(waited, now);
                false
            }
            End::Unsent => false,
        };
        if self.in_flight == 0 {
            self.silent_since = None;
        } else if was_heard {
            self.silent_since = Some(now);
        }
    }

    /// The backend came up after it was down: it starts slowly.
    pub fn came_back(&mut self, now: Instant) {
        self.returned = Some(now);
    }

    /// Whether it has fallen silent: many attempts are out, and nothing was heard for so long.
    ///
    /// That is no proof of death, so it stays up; but until it is heard again, or nobody waits for it any more, others
    /// are asked first.
    pub fn is_stalled(&self, patience: Duration, now: Instant) -> bool {
        self.in_flight >= STALLED_ATTEMPTS && self.silence(now) >= patience
    }

    /// How long attempts have been out without anything heard.
    pub fn silence(&self, now: Instant) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Whether anything was heard since this attempt went out, which has not ended. If so, it is this one reply that is
    /// late or lost; if not, it may be the backend that is silent.
    pub fn was_heard_since(&self, asked: Instant) -> bool {
        self.silent_since.is_some_and(|since| since > asked)
    }

    /// Attempts out.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many of its replies were failures lately.
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    /// True if more than half of its recent replies were failures, six at least. Others are asked first then.
    ///
    /// That fades as [`Errors`] do: within seven seconds the backend has another chance, which one more failure ends, and one
    /// good reply extends.
    pub fn is_failing(&self, now: Instant) -> bool {
        self.errors.value(now) > FAILING
    }

    /// The part of its normal load that it is given: less than 1 during the slow start.
    pub fn share(&self, now: Instant) -> f64 {
        self.returned.map_or(1.0, |returned| slow_start_share(now.saturating_duration_since(returned)))
    }

    /// What it is taken to cost to ask this backend one more time, in seconds: the wait for its reply, if it
    /// deals with one attempt after the other.
    pub fn cost(&self, now: Instant) -> f64 {
        // With attempts out it takes at least as long as it has been silent, whatever it used to take.
        let wait = self.latency.cost(now).max(self.silence(now).as_secs_f64()).max(MIN_WAIT)
            + self.errors.value(now) * ASKED_IN_VAIN;
        wait * (f64::from(self.in_flight) + 1.0)
    }
}

/// The share of its normal load that a backend is given when it has been up for so long after it was down: caches are
/// cold, and what brought it down may do so again.
fn slow_start_share(up_for: Duration) -> f64 {
    (FIRST_SHARE + (1.0 - FIRST_SHARE) * up_for.div_duration_f64(SLOW_START)).min(1.0)
}

/// How long the slow start lasts.
pub const SLOW_START: Duration = Duration::from_secs(10);
/// The share with which it begins: enough to find out whether all is well.
const FIRST_SHARE: f64 = 0.1;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a reply that is no failure, after this time.
    Reply(Duration),
    /// With a reply that says failure, after this time.
    Failure(Duration),
    /// Its backend is down, or there is no way to it.
    Unreachable,
    /// Nothing came in this time, and nobody waits any longer. No failure: some backends are silent on a miss.
    Silence(Duration),
    /// It never left, for want of something of our own.
    Unsent,
    /// Nobody knows: its socket was given up, for what came there may have been forged, or its connection has ended.
    Void,
}

/// The part of recent replies that were failures. Each counts for an eighth, and time mends all.
#[derive(Clone, Copy, Debug)]
pub struct Errors {
    /// The part as of `updated`.
    part: f64,
    /// When the last reply came.
    updated: Instant,
}

impl Errors {
    /// No errors yet.
    pub fn new(now: Instant) -> Self {
        Self { part: 0.0, updated: now }
    }

    /// There was another reply.
    pub fn observe(&mut self, is_error: bool, now: Instant) {
        let part = self.value(now);
        self.part = part + (f64::from(u8::from(is_error)) - part) * ONE_REPLY;
        self.updated = now;
    }

    /// The part of recent replies that were failures, from 0 to 1.
    pub fn value(&self, now: Instant) -> f64 {
        // Most backends never fail, and nothing fades to nothing.
        if self.part == 0.0 { 0.0 } else { self.part * kept(self.updated, now) }
    }

    /// The same in whole steps, each worth one failure. A trace of a failure long past makes no difference.
    pub fn level(&self, now: Instant) -> u8 {
        (self.value(now) / ONE_REPLY).round() as u8
    }
}

/// Attempts that must be out before silence means anything: one lost datagram does not.
const STALLED_ATTEMPTS: u32 = 8;
/// How much one reply counts.
const ONE_REPLY: f64 = 1.0 / 8.0;
/// The part of failures above which a backend is one that fails. After good replies alone, six failures in a row reach it.
const FAILING: f64 = 0.5;
/// Seconds that a backend is taken to need at least, so that attempts in flight count even if it was never timed.
const MIN_WAIT: f64 = 1e-6;
/// Seconds that are charged to one that only fails, in proportion to one that sometimes does. It is often the
/// quickest of all, and the time that it costs is that of being asked in vain.
const ASKED_IN_VAIN: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds.
    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A backend that was asked once and took so long to end like this, and when that was.
    fn after(end: End, took: Duration) -> (BackendLoad, Instant) {
        let start = Instant::now();
        let mut load = BackendLoad::new(start);
        load.asked(start);
        load.ended(end, start + took);
        (load, start + took)
    }

    /// Compares a cost in milliseconds.
    fn check(load: &BackendLoad, now: Instant, expected: f64) {
        let cost = load.cost(now) * 1e3;
        assert!((cost - expected).abs() < 0.01, "{load:?}: {cost} ms, not {expected}");
    }

    #[test]
    fn a_slow_start_rises_evenly_from_a_tenth_to_all() {
        for (seconds, expected) in [(0.0, 0.1), (2.5, 0.325), (5.0, 0.55), (10.0, 1.0), (1e6, 1.0)] {
            let share = slow_start_share(Duration::from_secs_f64(seconds));
            assert!((share - expected).abs() < 1e-9, "after {seconds} s: {share}");
        }
    }

    #[test]
    fn the_way_an_attempt_ends_decides_what_it_costs() {
        for (end, expected) in [
            (End::Reply(ms(20)), 20.0),
            (End::Silence(ms(20)), 20.0),
            // One failure of eight, at 100 ms.
            (End::Failure(ms(20)), 20.0 + 12.5),
            (End::Unreachable, 0.001 + 12.5),
        ] {
            let (load, now) = after(end, ms(20));
            check(&load, now, expected);
        }
    }

    #[test]
    fn attempts_out_multiply_the_cost() {
        let (mut load, now) = after(End::Reply(ms(20)), ms(20));
        for out in 0..5 {
            assert_eq!(load.in_flight(), out);
            check(&load, now, 20.0 * f64::from(out + 1));
            load.asked(now);
        }
    }

    #[test]
    fn a_stalled_backend_costs_its_silence_and_any_reply_ends_that() {
        let (mut load, now) = after(End::Reply(ms(1)), ms(1));
        load.asked(now);
        load.asked(now + ms(50));
        check(&load, now + ms(100), 100.0 * 3.0);
        load.ended(End::Unreachable, now + ms(100));
        check(&load, now + ms(100), (0.99 + 12.5) * 2.0);
        check(&load, now + ms(300), (200.0 + 12.25) * 2.0);
        load.ended(End::Silence(ms(400)), now + ms(400));
        assert_eq!(load.in_flight(), 0);
        check(&load, now + ms(400), 400.0 + 12.13);
    }

    #[test]
    fn failures_are_soon_seen_and_forgotten() {
        let now = Instant::now();
        let mut errors = Errors::new(now);
        for (is_error, level) in
            [(true, 1), (true, 2), (true, 3), (false, 2), (false, 2), (false, 2), (false, 2), (false, 1)]
        {
            errors.observe(is_error, now);
            assert_eq!(errors.level(now), level, "{errors:?}");
        }
        assert_eq!(errors.level(now + ms(5_000)), 1);
        assert_eq!(errors.level(now + ms(20_000)), 0);
        for _ in 0..100 {
            errors.observe(true, now);
        }
        assert_eq!(errors.level(now), 8);
    }

    #[test]
    fn six_failures_make_a_failing_backend_and_time_or_a_good_reply_ends_that() {
        let now = Instant::now();
        let mut load = BackendLoad::new(now);
        let mut ended = |end, now| {
            load.asked(now);
            load.ended(end, now);
            load.is_failing(now)
        };
        let failing: Vec<_> = (0..6).map(|_| ended(End::Failure(ms(1)), now)).collect();
        assert_eq!(failing, [false, false, false, false, false, true]);
        assert!(!ended(End::Reply(ms(1)), now));
        for _ in 0..100 {
            ended(End::Unreachable, now);
        }
        assert!(load.is_failing(now + ms(6_900)) && !load.is_failing(now + ms(7_000)));
    }

    #[test]
    fn only_a_backend_that_came_back_starts_slowly() {
        let now = Instant::now();
        let mut load = BackendLoad::new(now);
        assert_eq!(load.share(now), 1.0);
        load.came_back(now);
        assert_eq!(load.share(now), 0.1);
        assert_eq!(load.share(now + SLOW_START), 1.0);
    }

    #[test]
    fn what_is_heard_counts_for_attempts_that_went_out_before() {
        let start = Instant::now();
        let mut load = BackendLoad::new(start);
        load.asked(start);
        load.asked(start + ms(10));
        assert!(!load.was_heard_since(start), "asking is not hearing");
        load.ended(End::Silence(ms(20)), start + ms(20));
        assert!(!load.was_heard_since(start + ms(10)));
        load.asked(start + ms(20));
        load.ended(End::Reply(ms(10)), start + ms(30));
        assert!(load.was_heard_since(start + ms(10)));
        load.asked(start + ms(40));
        assert!(load.was_heard_since(start + ms(10)) && !load.was_heard_since(start + ms(40)));
    }

    /// A successor deals with it as we would have, at once and later on.
    #[test]
    fn a_successor_takes_it_for_what_it_was() {
        let start = Instant::now();
        let mut load = BackendLoad::new(start);
        load.came_back(start + Duration::from_secs(2));
        for reply in 0..20_u64 {
            let now = start + ms(3_000 + reply);
            load.asked(now);
            load.ended(if reply % 3 == 0 { End::Failure(ms(reply)) } else { End::Reply(ms(reply)) }, now);
        }
        let now = start + Duration::from_secs(4);
        let told = serde_json::to_string(&load.image(now)).expect("plain data");
        let mut successor = BackendLoad::new(now);
        successor.learn(&serde_json::from_str(&told).expect("what was written"), now);
        for later in [0, 500, 5_000, 60_000] {
            let then = now + ms(later);
            assert!((successor.cost(then) - load.cost(then)).abs() < 1e-9, "{later} ms later");
            assert!((successor.errors().value(then) - load.errors().value(then)).abs() < 1e-9, "{later} ms later");
            assert_eq!(successor.share(then), load.share(then), "{later} ms later");
        }
    }

    #[test]
    fn silence_with_many_attempts_out_is_a_stall_until_something_is_heard() {
        let start = Instant::now();
        let patience = Duration::from_millis(10);
        let later = start + 2 * patience;
        let mut load = BackendLoad::new(start);
        for _ in 0..STALLED_ATTEMPTS - 1 {
            load.asked(start);
        }
        assert!(!load.is_stalled(patience, later), "too few to tell");
        load.asked(start);
        assert!(!load.is_stalled(patience, start + patience / 2), "too soon to tell");
        assert_eq!(load.silence(later), 2 * patience);
        assert!(load.is_stalled(patience, later));
        load.asked(later);
        assert!(load.is_stalled(patience, later), "asking is not hearing");
        load.ended(End::Reply(patience), later);
        assert!(!load.is_stalled(patience, later + patience / 2));
        for _ in 0..STALLED_ATTEMPTS {
            load.ended(End::Silence(patience), later);
        }
        assert!(!load.is_stalled(patience, later + 9 * patience), "nobody waits: it gets its chance");
    }
}
