//! The silence of a connection. Past a limit it is pinged, and without a response it is given up.

use std::time::{Duration, Instant};

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
    pub fn sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Notes that a ping was sent, as a query with this ID or by the protocol.
    pub fn asked(&mut self, id: Option<u16>, now: Instant) {
        self.sign = Some((id, now));
    }

    /// Resets the clock, because data was received.
    pub fn heard(&mut self) {
        *self = Self::default();
    }

    /// Returns the ID of the query that serves as a ping.
    pub fn sign(&self) -> Option<u16> {
        self.sign.and_then(|(id, _)| id)
    }

    /// Returns true if a ping is unanswered.
    pub fn is_asked(&self) -> bool {
        self.sign.is_some()
    }

    /// Returns the time since the oldest query that no received data followed.
    pub fn lasts(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// Returns true if the silence exceeds the limit.
    pub fn is_suspicious(&self, limit: Duration, now: Instant) -> bool {
        self.sign.is_some() || self.since.is_some_and(|since| now >= since + limit)
    }

    /// Returns the next action. The connection is pinged after `limit` and given up `patience` after the
    /// ping.
    pub fn judge(&self, limit: Duration, patience: Duration, now: Instant) -> SilenceAction {
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
pub fn silence_limit(p99: Option<Duration>) -> Duration {
    p99.map_or(LEAST, |p99| p99.saturating_mul(4).max(LEAST))
}

const LEAST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

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
