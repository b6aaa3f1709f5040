//! The clock of a connection that brings nothing: from the first query that was sent since something came last. Past its limit the
//! connection is suspicious and asked for a sign of life; without one it is given up.

use std::time::{Duration, Instant};

/// Since when a connection brings nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct SilenceClock {
    /// When the oldest query was sent of those that nothing has come after.
    since: Option<Instant>,
    /// The ID of the question that was asked for a sign of life, if it is one, and when.
    sign: Option<(Option<u16>, Instant)>,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing.
    None,
    /// Nothing before then.
    NotBefore(Instant),
    /// A sign of life is to be asked for.
    AskForSign,
    /// Nothing, but to see whether what was sent is acknowledged; it is given up then at the latest.
    Waits(Instant),
    /// It is to be given up.
    GiveUp,
}

impl SilenceClock {
    /// A query was sent.
    pub fn sent(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// A sign of life was asked for, by a question with this ID or without one.
    pub fn asked(&mut self, id: Option<u16>, now: Instant) {
        self.sign = Some((id, now));
    }

    /// Something has come.
    pub fn heard(&mut self) {
        *self = Self::default();
    }

    /// The ID of the question that was asked for a sign of life.
    pub fn sign(&self) -> Option<u16> {
        self.sign.and_then(|(id, _)| id)
    }

    /// Whether a sign of life was asked for and has not come.
    pub fn is_asked(&self) -> bool {
        self.sign.is_some()
    }

    /// For how long nothing has come though something should.
    pub fn lasts(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since))
    }

    /// Whether it is past the limit.
    pub fn is_suspicious(&self, limit: Duration, now: Instant) -> bool {
        self.sign.is_some() || self.since.is_some_and(|since| now >= since + limit)
    }

    /// What is to be done, if it is suspicious past `limit` and waited for a sign for `patience`.
    pub fn judge(&self, limit: Duration, patience: Duration, now: Instant) -> Suspicion {
        match (self.since, self.sign) {
            (_, Some((_, asked))) if now >= asked + patience => Suspicion::GiveUp,
            (_, Some((_, asked))) => Suspicion::Waits(asked + patience),
            (Some(since), None) if now >= since + limit => Suspicion::AskForSign,
            (Some(since), None) => Suspicion::NotBefore(since + limit),
            (None, None) => Suspicion::None,
        }
    }
}

/// The limit, for a backend whose replies take so long in one of a hundred cases, if that is known.
pub fn silence_limit(p99: Option<Duration>) -> Duration {
    p99.map_or(LEAST, |p99| p99.saturating_mul(4).max(LEAST))
}

/// The least limit.
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
        assert_eq!(silence.judge(limit, patience, at(0)), Suspicion::None);
        silence.sent(at(0));
        silence.sent(at(50));
        assert_eq!(silence.judge(limit, patience, at(99)), Suspicion::NotBefore(at(100)));
        silence.heard();
        silence.sent(at(90));
        assert_eq!(silence.judge(limit, patience, at(189)), Suspicion::NotBefore(at(190)));
        assert!(!silence.is_suspicious(limit, at(189)) && silence.is_suspicious(limit, at(190)));
        assert_eq!(silence.judge(limit, patience, at(200)), Suspicion::AskForSign);
        silence.asked(Some(7), at(200));
        silence.sent(at(300));
        assert_eq!(silence.judge(limit, patience, at(1_199)), Suspicion::Waits(at(1_200)));
        assert_eq!(silence.lasts(at(1_199)), Some(Duration::from_millis(1_109)));
        assert_eq!(silence.judge(limit, patience, at(1_200)), Suspicion::GiveUp);
        silence.heard();
        assert_eq!(silence.judge(limit, patience, at(1_200)), Suspicion::None);
        assert_eq!(silence.lasts(at(1_200)), None);
    }

    #[test]
    fn limit_follows_the_slowest_replies() {
        assert_eq!(silence_limit(None), Duration::from_millis(100));
        assert_eq!(silence_limit(Some(Duration::from_millis(1))), Duration::from_millis(100));
        assert_eq!(silence_limit(Some(Duration::from_millis(200))), Duration::from_millis(800));
    }
}
