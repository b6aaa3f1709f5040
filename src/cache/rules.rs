//! The rules of `[cache]`: lifetimes of replies.

use std::time::Duration;

/// Lifetimes of cached replies, passed to each call, so that a reload changes them at once.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheRules {
    /// Raises shorter TTLs to this one; zero stays zero. Whole seconds.
    pub min_ttl: Duration,
    /// Lowers longer TTLs to this one. Whole seconds.
    pub max_ttl: Duration,
    /// Lowers longer TTLs of negative answers to this one. Whole seconds.
    pub max_negative_ttl: Duration,
    /// The time beyond its TTL for which an answer is kept as a stale one; 0 disables that.
    pub stale: Duration,
    /// The time that a client waits for a race before it gets a stale answer.
    pub stale_answer_after: Duration,
    /// The TTL of stale answers. Whole seconds.
    pub stale_ttl: Duration,
    /// The remaining share of its TTL at which a popular entry is refreshed; 0 disables that.
    pub prefetch: f64,
    /// The lifetime of a failure. Whole seconds.
    pub failure_ttl: Duration,
}

impl Default for CacheRules {
    fn default() -> Self {
        Self {
            min_ttl: Duration::ZERO,
            // A day: a longer time hardly gains a hit, and a mistake in a zone is gone the next day.
            max_ttl: Duration::from_secs(86_400),
            // RFC 2308 section 5: one to three hours have been found to work well.
            max_negative_ttl: Duration::from_secs(3 * 3600),
            // RFC 8767 section 5: one to three days.
            stale: Duration::from_secs(86_400),
            // RFC 8767 section 5: before a stub resolver's usual timeout of 2 s.
            stale_answer_after: Duration::from_millis(1800),
            // RFC 8767 section 4: 30 seconds.
            stale_ttl: Duration::from_secs(30),
            // Early enough for the fresh answer to arrive in time, late enough to cost little.
            prefetch: 0.1,
            // RFC 9520 section 3.2: 1 s at the least, 5 min at the most, 5 s to begin with. Deviation:
            // repeated failures are not remembered longer. One race each 5 s costs little, and a recovered
            // server is found quickly.
            failure_ttl: Duration::from_secs(5),
        }
    }
}
