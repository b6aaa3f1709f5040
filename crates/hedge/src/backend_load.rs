//! The load and the recent results of one backend, for one worker or shared by several.
//!
//! Every attempt ends once: by a (late) reply, because its backend is down, or when its quarantine is over.
//! Until then it counts as in flight, or a dead backend would look idle and fast.

mod shared;
mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::shared::LoadView;
pub use self::shared::SharedLoad;
use self::watch::LoadWatch;
use super::peak::{PeakEwma, kept};

/// The load of one backend.
#[derive(Debug)]
pub struct BackendLoad {
    in_flight: u32,
    errors: Errors,
    latency: PeakEwma,
    silent_since: Option<Instant>,
    returned: Option<Instant>,
    watch: Option<Box<LoadWatch>>,
    shared: Option<Box<LoadView>>,
}

/// The faded load history of a backend for a successor process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadImage {
    latency: f64,
    errors: f64,
    returned: Option<Duration>,
}

impl BackendLoad {
    /// Exports the history for a successor process, without open attempts.
    pub fn image(&self, now: Instant) -> LoadImage {
        LoadImage {
            latency: self.latency(now),
            errors: self.errors(now),
            returned: self.returned.map(|returned| now.saturating_duration_since(returned)),
        }
    }

    /// Imports the history from another process. The local attempts in flight stay counted.
    pub fn learn(&mut self, image: &LoadImage, now: Instant) {
        self.errors = Errors { part: image.errors.clamp(0.0, 1.0), updated: now };
        self.latency = PeakEwma::known(image.latency, now);
        self.returned = image.returned.map(|ago| now.checked_sub(ago).unwrap_or(now));
        if let Some(shared) = &mut self.shared {
            shared.publish_results(&self.latency, &self.errors);
        }
    }

    /// Creates the load of an idle backend without history.
    pub fn new(now: Instant) -> Self {
        Self {
            in_flight: 0,
            errors: Errors::new(now),
            latency: PeakEwma::new(now),
            silent_since: None,
            returned: None,
            watch: None,
            shared: None,
        }
    }

    /// Creates the load of a backend for a worker that shares it with others. Each has its own number.
    pub fn of_shared(shared: &Arc<SharedLoad>, worker: usize, now: Instant) -> Self {
        Self { shared: Some(Box::new(LoadView::new(shared, worker))), ..Self::new(now) }
    }

    /// Counts a new attempt.
    pub fn asked(&mut self, now: Instant) {
        if self.watch.is_some() {
            self.watch_attempt(now);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.silent_since.get_or_insert(now);
        if let Some(shared) = &self.shared {
            shared.publish_open(self.in_flight, self.silent_since);
        }
    }

    /// Records the end of an attempt. Returns the number of others that were in flight when it was made, if
    /// it is the present sample and has a reply.
    pub fn ended(&mut self, end: AttemptEnd, now: Instant) -> Option<u32> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(shared) = &mut self.shared {
            shared.read_results(&mut self.latency, &mut self.errors, now);
        }
        let was_heard = match end {
            AttemptEnd::Reply(took) => {
                self.latency.observe(took, now);
                self.errors.observe(false, now);
                true
            }
            AttemptEnd::Failure(took) => {
                self.latency.observe_at_least(took, now);
                self.errors.observe(true, now);
                true
            }
            AttemptEnd::Unreachable => {
                self.errors.observe(true, now);
                true
            }
            AttemptEnd::Void => false,
            AttemptEnd::Silence(waited) => {
                self.latency.observe_at_least(waited, now);
                false
            }
            AttemptEnd::Unsent => false,
        };
        if self.in_flight == 0 {
            self.silent_since = None;
        } else if was_heard {
            self.silent_since = Some(now);
        }
        if let Some(shared) = &mut self.shared {
            shared.publish_open(self.in_flight, self.silent_since);
            shared.publish_results(&self.latency, &self.errors);
            if was_heard {
                shared.publish_heard(now);
            }
        }
        match (end, &mut self.watch) {
            (AttemptEnd::Reply(took) | AttemptEnd::Failure(took), Some(watch)) => watch.replied(took, now),
            _ => None,
        }
    }

    /// Starts the slow start after the backend was down.
    pub fn came_back(&mut self, now: Instant) {
        self.returned = Some(now);
    }

    /// Returns true if the backend has stalled: many attempts are open, and none was answered for `patience`.
    #[inline]
    pub(crate) fn is_stalled(&self, patience: Duration, now: Instant) -> bool {
        self.in_flight_of_all(now) >= STALLED_ATTEMPTS && self.silence(now) >= patience
    }

    /// Returns the time that attempts have been open without any reply.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        let since = match &self.shared {
            Some(shared) => shared.silent_since(self.silent_since, now),
            None => self.silent_since,
        };
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Returns true if a reply to any attempt came after `asked`, so that the backend is not silent.
    pub(crate) fn was_heard_since(&self, asked: Instant) -> bool {
        self.silent_since.is_some_and(|since| since > asked)
            || self.shared.as_ref().is_some_and(|shared| shared.was_heard_since(asked))
    }

    /// Samples the attempts from now on, for [`Dispatch::Auto`](crate::Dispatch::Auto).
    pub fn watch(&mut self) {
        self.watch.get_or_insert_default();
    }

    #[cold]
    fn watch_attempt(&mut self, now: Instant) {
        let ahead = self.in_flight_of_all(now);
        self.watch.iter_mut().for_each(|watch| watch.asked(ahead, now));
    }

    /// Returns true if an attempt of this worker after this time has a reply: a queue would have answered
    /// earlier ones before.
    pub(crate) fn has_answered_since(&self, time: Instant) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.has_answered_since(time))
    }

    /// Returns the latency of the latest reply to this worker, if it is at most a second old.
    pub(crate) fn latest_latency(&self, now: Instant) -> Option<Duration> {
        self.watch.as_ref()?.latest_latency(now)
    }

    /// Returns the number of open attempts of this worker.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns the number of open attempts of all workers.
    #[inline]
    pub fn in_flight_of_all(&self, now: Instant) -> u32 {
        self.in_flight + self.shared.as_ref().map_or(0, |shared| shared.in_flight_of_others(now))
    }

    /// Returns the recent share of failures among the replies, from 0 to 1.
    #[inline]
    pub(crate) fn errors(&self, now: Instant) -> f64 {
        self.shared.as_ref().map_or_else(|| self.errors.value(now), |shared| shared.errors(&self.errors, now))
    }

    /// Returns the share in whole steps of one failure each, so that old failures make no difference.
    pub(crate) fn error_level(&self, now: Instant) -> u8 {
        level(self.errors(now))
    }

    fn latency(&self, now: Instant) -> f64 {
        self.shared.as_ref().map_or_else(|| self.latency.cost(now), |shared| shared.latency(&self.latency, now))
    }

    /// Returns true if more than half of the recent replies were failures, at least six.
    #[inline]
    pub(crate) fn is_failing(&self, now: Instant) -> bool {
        self.errors(now) > FAILING
    }

    /// Returns the share of the normal load: below 1 during the slow start.
    pub(crate) fn share(&self, now: Instant) -> f64 {
        self.returned.map_or(1.0, |returned| slow_start_share(now.saturating_duration_since(returned)))
    }

    /// Returns the expected cost of one more attempt in seconds, if the backend works sequentially.
    pub fn cost(&self, now: Instant) -> f64 {
        // With open attempts, the reply time is at least the present silence.
        let wait =
            self.latency(now).max(self.silence(now).as_secs_f64()).max(MIN_WAIT) + self.errors(now) * ASKED_IN_VAIN;
        wait * (f64::from(self.in_flight_of_all(now)) + 1.0)
    }
}

fn level(errors: f64) -> u8 {
    (errors / ONE_REPLY).round() as u8
}

fn slow_start_share(up_for: Duration) -> f64 {
    (FIRST_SHARE + (1.0 - FIRST_SHARE) * up_for.div_duration_f64(SLOW_START)).min(1.0)
}

/// The length of the slow start.
pub(crate) const SLOW_START: Duration = Duration::from_secs(10);
const FIRST_SHARE: f64 = 0.1;

/// The end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// A reply that is no failure, after this time.
    Reply(Duration),
    /// A failure reply after this time.
    Failure(Duration),
    /// The backend is down or not reachable.
    Unreachable,
    /// No reply in this time, and the wait is over. This is no failure: some backends are silent on a miss.
    Silence(Duration),
    /// The attempt was never sent because a local resource was missing.
    Unsent,
    /// Unknown: the socket was closed because its replies may be forged, or the connection ended.
    Void,
}

/// The fading share of failures among recent replies; each reply counts for an eighth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errors {
    part: f64,
    updated: Instant,
}

impl Errors {
    /// Creates a share of zero.
    pub(crate) fn new(now: Instant) -> Self {
        Self { part: 0.0, updated: now }
    }

    /// Counts one more reply.
    pub(crate) fn observe(&mut self, is_error: bool, now: Instant) {
        let part = self.value(now);
        self.part = part + (f64::from(u8::from(is_error)) - part) * ONE_REPLY;
        self.updated = now;
    }

    /// Returns the share of failures among recent replies, from 0 to 1.
    pub(crate) fn value(&self, now: Instant) -> f64 {
        if self.part == 0.0 { 0.0 } else { self.part * kept(self.updated, now) }
    }
}

/// The number of open attempts above which silence counts as a stall: one lost datagram does not.
const STALLED_ATTEMPTS: u32 = 8;
const ONE_REPLY: f64 = 1.0 / 8.0;
/// After good replies alone, six failures in a row exceed this share.
const FAILING: f64 = 0.5;
/// Minimum cost in seconds, so that attempts in flight count even if the backend was never timed.
const MIN_WAIT: f64 = 1e-6;
/// Cost in seconds of constant failures. Such a backend is often the fastest, but useless.
const ASKED_IN_VAIN: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Returns a backend after one attempt with this end and duration, and the time of that end.
    fn after(end: AttemptEnd, took: Duration) -> (BackendLoad, Instant) {
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
            (AttemptEnd::Reply(ms(20)), 20.0),
            (AttemptEnd::Silence(ms(20)), 20.0),
            (AttemptEnd::Failure(ms(20)), 20.0 + 12.5),
            (AttemptEnd::Unreachable, 0.001 + 12.5),
        ] {
            let (load, now) = after(end, ms(20));
            check(&load, now, expected);
        }
    }

    #[test]
    fn attempts_out_multiply_the_cost() {
        let (mut load, now) = after(AttemptEnd::Reply(ms(20)), ms(20));
        for out in 0..5 {
            assert_eq!(load.in_flight(), out);
            check(&load, now, 20.0 * f64::from(out + 1));
            load.asked(now);
        }
    }

    #[test]
    fn a_stalled_backend_costs_its_silence_and_any_reply_ends_that() {
        let (mut load, now) = after(AttemptEnd::Reply(ms(1)), ms(1));
        load.asked(now);
        load.asked(now + ms(50));
        check(&load, now + ms(100), 100.0 * 3.0);
        load.ended(AttemptEnd::Unreachable, now + ms(100));
        check(&load, now + ms(100), (0.99 + 12.5) * 2.0);
        check(&load, now + ms(300), (200.0 + 12.25) * 2.0);
        load.ended(AttemptEnd::Silence(ms(400)), now + ms(400));
        assert_eq!(load.in_flight(), 0);
        check(&load, now + ms(400), 400.0 + 12.13);
    }

    #[test]
    fn failures_are_soon_seen_and_forgotten() {
        let now = Instant::now();
        let mut errors = Errors::new(now);
        for (is_error, expected) in
            [(true, 1), (true, 2), (true, 3), (false, 2), (false, 2), (false, 2), (false, 2), (false, 1)]
        {
            errors.observe(is_error, now);
            assert_eq!(level(errors.value(now)), expected, "{errors:?}");
        }
        assert_eq!(level(errors.value(now + ms(5_000))), 1);
        assert_eq!(level(errors.value(now + ms(20_000))), 0);
        for _ in 0..100 {
            errors.observe(true, now);
        }
        assert_eq!(level(errors.value(now)), 8);
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
        let failing: Vec<_> = (0..6).map(|_| ended(AttemptEnd::Failure(ms(1)), now)).collect();
        assert_eq!(failing, [false, false, false, false, false, true]);
        assert!(!ended(AttemptEnd::Reply(ms(1)), now));
        for _ in 0..100 {
            ended(AttemptEnd::Unreachable, now);
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
        load.ended(AttemptEnd::Silence(ms(20)), start + ms(20));
        assert!(!load.was_heard_since(start + ms(10)));
        load.asked(start + ms(20));
        load.ended(AttemptEnd::Reply(ms(10)), start + ms(30));
        assert!(load.was_heard_since(start + ms(10)));
        load.asked(start + ms(40));
        assert!(load.was_heard_since(start + ms(10)) && !load.was_heard_since(start + ms(40)));
    }

    /// The successor treats the backend as the original process would, at once and later on.
    #[test]
    fn a_successor_takes_it_for_what_it_was() {
        let start = Instant::now();
        let mut load = BackendLoad::new(start);
        load.came_back(start + Duration::from_secs(2));
        for reply in 0..20_u64 {
            let now = start + ms(3_000 + reply);
            load.asked(now);
            load.ended(if reply % 3 == 0 { AttemptEnd::Failure(ms(reply)) } else { AttemptEnd::Reply(ms(reply)) }, now);
        }
        let now = start + Duration::from_secs(4);
        let reported = serde_json::to_string(&load.image(now)).expect("plain data");
        let mut successor = BackendLoad::new(now);
        successor.learn(&serde_json::from_str(&reported).expect("what was written"), now);
        for later in [0, 500, 5_000, 60_000] {
            let then = now + ms(later);
            assert!((successor.cost(then) - load.cost(then)).abs() < 1e-9, "{later} ms later");
            let errors = |load: &BackendLoad| load.errors(then);
            assert!((errors(&successor) - errors(&load)).abs() < 1e-9, "{later} ms later");
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
        assert!(!load.is_stalled(patience, later), "too few to judge");
        load.asked(start);
        assert!(!load.is_stalled(patience, start + patience / 2), "too soon to judge");
        assert_eq!(load.silence(later), 2 * patience);
        assert!(load.is_stalled(patience, later));
        load.asked(later);
        assert!(load.is_stalled(patience, later), "asking is not hearing");
        load.ended(AttemptEnd::Reply(patience), later);
        assert!(!load.is_stalled(patience, later + patience / 2));
        for _ in 0..STALLED_ATTEMPTS {
            load.ended(AttemptEnd::Silence(patience), later);
        }
        assert!(!load.is_stalled(patience, later + 9 * patience), "no query waits: it gets its chance");
    }
}
