//! The rules of `[cache]`: for how long which reply is kept.

use std::time::Duration;

/// For how long replies are kept and given out. An argument of each call, so that a reload changes them at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Shorter times to live become this long; none stays none. Whole seconds.
    pub min_ttl: Duration,
    /// Longer times to live become this long. Whole seconds.
    pub max_ttl: Duration,
    /// The same of replies that say that there is nothing. Whole seconds.
    pub max_negative_ttl: Duration,
    /// For how long beyond its time to live an answer is kept for want of a better one; 0 is not at all.
    pub stale: Duration,
    /// How long a client waits for a race until it is given a stale answer.
    pub stale_answer_after: Duration,
    /// The time to live that a stale answer gets. Whole seconds.
    pub stale_ttl: Duration,
    /// Share of its time to live that is left when a popular entry is refreshed; 0 is never.
    pub prefetch: f64,
    /// For how long a failure is remembered. Whole seconds.
    pub failure_ttl: Duration,
}

impl Default for Rules {
    /// What suits a forwarder in front of servers that are trusted to say how long their answers last.
    fn default() -> Self {
        Self {
            // The servers say what they mean.
            min_ttl: Duration::ZERO,
            // A day: beyond that hardly a hit is gained, and a mistake in a zone is forgotten the next day.
            max_ttl: Duration::from_secs(86_400),
            // RFC 2308 section 5: one to three hours have been found to work well.
            max_negative_ttl: Duration::from_secs(3 * 3600),
            // RFC 8767 section 5: one to three days.
            stale: Duration::from_secs(86_400),
            // RFC 8767 section 5: before a stub resolver's usual timeout of 2 s.
            stale_answer_after: Duration::from_millis(1800),
            // RFC 8767 section 4: 30 seconds.
            stale_ttl: Duration::from_secs(30),
            // Early enough that the fresh answer is there before the last tenth is over, late enough to cost little.
            prefetch: 0.1,
            // RFC 9520 section 3.2: 1 s at the least, 5 min at the most, 5 s to begin with. Deviation: it would have failures that
            // go on remembered for longer and longer. One race each 5 s costs little, and a server that is well again is
            // found as soon as the operator expects.
            failure_ttl: Duration::from_secs(5),
        }
    }
}
