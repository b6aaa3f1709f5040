//! How long a backend keeps a connection on which nothing goes: as it says (RFC 7828), or as was seen.

use std::time::Duration;

/// What is known of a backend's patience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    learnt: Option<Duration>,
}

impl Patience {
    /// It has closed a connection that was idle for so long.
    pub fn closed_after(&mut self, idle: Duration) {
        self.learnt = Some(self.learnt.map_or(idle, |learnt| learnt.min(idle)));
    }

    /// It has said how long it keeps one. RFC 7828 section 3.4: the last word counts.
    pub fn told(&mut self, keeps: Duration) {
        self.learnt = Some(keeps);
    }

    /// How long one of ours is kept: a bit less, so that it is not closed just when a query leaves. Never less than a second: who closes
    /// at once would be dialled all the time.
    pub fn idle(&self, wanted: Duration) -> Duration {
        match self.learnt {
            Some(learnt) => wanted.min(learnt.mul_f64(SHARE).max(LEAST)),
            None => wanted,
        }
    }

    /// Whether the backend is known to close idle connections before that.
    pub fn is_shorter(&self, wanted: Duration) -> bool {
        self.idle(wanted) < wanted
    }
}

/// The part of the backend's patience that is used.
const SHARE: f64 = 0.8;

/// The least that is counted on.
const LEAST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_what_was_seen_or_said() {
        let second = Duration::from_secs;
        let mut patience = Patience::default();
        assert_eq!(patience.idle(second(30)), second(30));
        patience.closed_after(second(10));
        patience.closed_after(second(20));
        assert_eq!(patience.idle(second(30)), second(8));
        assert_eq!(patience.idle(second(5)), second(5));
        assert!(patience.is_shorter(second(30)) && !patience.is_shorter(second(5)));
        patience.closed_after(Duration::from_millis(3));
        assert_eq!(patience.idle(second(30)), second(1));
        patience.told(second(20));
        assert_eq!(patience.idle(second(30)), second(16));
    }
}
