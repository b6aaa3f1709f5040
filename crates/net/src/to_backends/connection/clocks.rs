//! The times of connections: the back-off after failed dials, the idle timeout of a backend, as it states it
//! (RFC 7828) or as observed, and the silence of a connection.

use std::time::{Duration, Instant};

use hedge::backoff::Backoff;
use rand::RngExt;
use rand::rngs::StdRng;

/// The time before which a backend must not be dialled again.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBackoff {
    waits: Backoff,
    until: Option<Instant>,
}

impl ConnectionBackoff {
    /// Returns a back-off that allows a dial at once.
    pub(crate) fn new() -> Self {
        Self { waits: Backoff::new(FIRST_WAIT), until: None }
    }

    /// Notes a failed dial. The wait is random by a quarter, so that workers do not dial all at once.
    pub(crate) fn failed(&mut self, max: Duration, now: Instant, rng: &mut StdRng) {
        self.until = Some(now + self.waits.wait(max).mul_f64(rng.random_range(0.75..1.25)));
    }

    /// Resets the back-off, because a connection was useful.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// Returns the time of the next permitted dial, if it is in the future.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

impl Default for ConnectionBackoff {
    fn default() -> Self {
        Self::new()
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The known idle timeout of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearnedIdleTimeout {
    learnt: Option<Duration>,
}

impl LearnedIdleTimeout {
    /// Notes that the backend closed a connection after this idle time.
    pub fn closed_after(&mut self, idle: Duration) {
        self.learnt = Some(self.learnt.map_or(idle, |learnt| learnt.min(idle)));
    }

    /// Notes the idle timeout that the backend states. RFC 7828 section 3.4: the latest value applies.
    pub(crate) fn set_stated(&mut self, keeps: Duration) {
        self.learnt = Some(keeps);
    }

    /// Returns the idle time after which hedgerow closes a connection: a bit less than the backend's, which
    /// may otherwise close it just when a query leaves. At least a second, to limit the rate of dials.
    pub fn idle(&self, wanted: Duration) -> Duration {
        match self.learnt {
            Some(learnt) => wanted.min(learnt.mul_f64(IDLE_SHARE).max(MIN_IDLE)),
            None => wanted,
        }
    }

    /// Returns true if the backend is known to close idle connections before `wanted`.
    pub(crate) fn is_shorter(&self, wanted: Duration) -> bool {
        self.idle(wanted) < wanted
    }
}

const IDLE_SHARE: f64 = 0.8;

const MIN_IDLE: Duration = Duration::from_secs(1);

/// The time since which a connection is silent.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilenceClock {
    /// The send time of the oldest query that no received data followed.
    since: Option<Instant>,
    /// The time of the ping, and the ID of its query if the ping is a query.
    sign: Option<(Option<u16>, Instant)>,
}

/// The next action for a silent connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilenceAction {
    /// No action is needed.
    None,
    /// No action before this time.
    NotBefore(Instant),
    /// A ping must be sent.
    AskForSign,
    /// The ping is unanswered. Until this time, only check that sent data is acknowledged; then give up.
    Waits(Instant),
    /// The connection must be given up.
    GiveUp,
}

impl SilenceClock {
    /// Notes that a query was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Notes that a ping was sent, as a query with this ID or by the protocol.
    pub(crate) fn asked(&mut self, id: Option<u16>, now: Instant) {
        self.sign = Some((id, now));
    }

    /// Resets the clock, because data was received.
    pub(crate) fn heard(&mut self) {
        *self = Self::default();
    }

    /// Returns the ID of the query that serves as a ping.
    pub(crate) fn sign(&self) -> Option<u16> {
        self.sign.and_then(|(id, _)| id)
    }

    /// Returns true if a ping is unanswered.
    pub(crate) fn is_asked(&self) -> bool {
        self.sign.is_some()
    }

    /// Returns the time since the oldest query that no received data followed.
    pub(crate) fn lasts(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// Returns true if the silence exceeds the limit.
    pub(crate) fn is_suspicious(&self, limit: Duration, now: Instant) -> bool {
        self.sign.is_some() || self.since.is_some_and(|since| now >= since + limit)
    }

    /// Returns the next action. The connection is pinged after `limit` and given up `patience` after the
    /// ping.
    pub(crate) fn judge(&self, limit: Duration, patience: Duration, now: Instant) -> SilenceAction {
        match (self.since, self.sign) {
            (_, Some((_, asked))) if now >= asked + patience => SilenceAction::GiveUp,
            (_, Some((_, asked))) => SilenceAction::Waits(asked + patience),
            (Some(since), None) if now >= since + limit => SilenceAction::AskForSign,
            (Some(since), None) => SilenceAction::NotBefore(since + limit),
            (None, None) => SilenceAction::None,
        }
    }
}

/// Returns the silence limit for a backend with this 99th percentile of latency, if known.
pub(crate) fn silence_limit(p99: Option<Duration>) -> Duration {
    p99.map_or(MIN_SILENCE, |p99| p99.saturating_mul(4).max(MIN_SILENCE))
}

const MIN_SILENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let (mut now, max) = (Instant::now(), Duration::from_secs(1));
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = ConnectionBackoff::new();
        assert_eq!(backoff.until(now), None);
        for expected in [100, 200, 400, 800, 1_000, 1_000] {
            backoff.failed(max, now, &mut rng);
            let wait = backoff.until(now).unwrap() - now;
            let expected = Duration::from_millis(expected);
            assert!(expected.mul_f64(0.75) <= wait && wait <= expected.mul_f64(1.25), "{wait:?}, not {expected:?}");
            now += wait;
            assert_eq!(backoff.until(now), None);
        }
        backoff.succeeded();
        backoff.failed(max, now, &mut rng);
        assert!(backoff.until(now).unwrap() <= now + Duration::from_millis(125));
    }

    #[test]
    fn patience_is_what_was_seen_or_said() {
        let second = Duration::from_secs;
        let mut patience = LearnedIdleTimeout::default();
        assert_eq!(patience.idle(second(30)), second(30));
        patience.closed_after(second(10));
        patience.closed_after(second(20));
        assert_eq!(patience.idle(second(30)), second(8));
        assert_eq!(patience.idle(second(5)), second(5));
        assert!(patience.is_shorter(second(30)) && !patience.is_shorter(second(5)));
        patience.closed_after(Duration::from_millis(3));
        assert_eq!(patience.idle(second(30)), second(1));
        patience.set_stated(second(20));
        assert_eq!(patience.idle(second(30)), second(16));
    }

    #[test]
    fn clock_runs_from_the_oldest_query_since_something_came() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (limit, patience) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut silence = SilenceClock::default();
        assert_eq!(silence.judge(limit, patience, at(0)), SilenceAction::None);
        silence.sent(at(0));
        silence.sent(at(50));
        assert_eq!(silence.judge(limit, patience, at(99)), SilenceAction::NotBefore(at(100)));
        silence.heard();
        silence.sent(at(90));
        assert_eq!(silence.judge(limit, patience, at(189)), SilenceAction::NotBefore(at(190)));
        assert!(!silence.is_suspicious(limit, at(189)) && silence.is_suspicious(limit, at(190)));
        assert_eq!(silence.judge(limit, patience, at(200)), SilenceAction::AskForSign);
        silence.asked(Some(7), at(200));
        silence.sent(at(300));
        assert_eq!(silence.judge(limit, patience, at(1_199)), SilenceAction::Waits(at(1_200)));
        assert_eq!(silence.lasts(at(1_199)), Some(Duration::from_millis(1_109)));
        assert_eq!(silence.judge(limit, patience, at(1_200)), SilenceAction::GiveUp);
        silence.heard();
        assert_eq!(silence.judge(limit, patience, at(1_200)), SilenceAction::None);
        assert_eq!(silence.lasts(at(1_200)), None);
    }

    #[test]
    fn limit_follows_the_slowest_replies() {
        assert_eq!(silence_limit(None), Duration::from_millis(100));
        assert_eq!(silence_limit(Some(Duration::from_millis(1))), Duration::from_millis(100));
        assert_eq!(silence_limit(Some(Duration::from_millis(200))), Duration::from_millis(800));
    }
}
