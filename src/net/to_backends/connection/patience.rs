//! The idle timeout of a backend, as it states it (RFC 7828) or as observed.

use std::time::Duration;

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
    pub fn set_stated(&mut self, keeps: Duration) {
        self.learnt = Some(keeps);
    }

    /// Returns the idle time after which hedgerow closes a connection: a bit less than the backend's, which
    /// may otherwise close it just when a query leaves. At least a second, to limit the rate of dials.
    pub fn idle(&self, wanted: Duration) -> Duration {
        match self.learnt {
            Some(learnt) => wanted.min(learnt.mul_f64(SHARE).max(LEAST)),
            None => wanted,
        }
    }

    /// Returns true if the backend is known to close idle connections before `wanted`.
    pub fn is_shorter(&self, wanted: Duration) -> bool {
        self.idle(wanted) < wanted
    }
}

const SHARE: f64 = 0.8;

const LEAST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

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
}
