//! Whether one backend is up.
//!
//! Silence is ambiguous (a backend may be silent on a miss), so it only raises suspicion and asks for a
//! probe at once; probes decide. ICMP unreachable is proof of death, any reply is proof of life. Whoever
//! drives this looks at [`Health::next_probe`], sends a probe when it is due, and says what came of it.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};

use super::rules::HealthRules;

/// The health of one backend.
///
/// ```text
///        `fall` probes missed in a row, or ICMP unreachable
///      ┌────────────────────────────────────────────────────┐
///      │                                                    ▼
///   ┌──┴───┐                                             ┌──────┐
///   │  up  │ probes every `interval`, and on suspicion   │ down │ probes after 250 ms, 500 ms, 1 s ...,
///   └──────┘                                             └──┬───┘ at last every `interval`
///      ▲                                                    │
///      └────────────────────────────────────────────────────┘
///        `rise` probes replied to in a row, or any reply to a query
/// ```
#[derive(Clone, Debug)]
pub struct Health {
    /// The rules of the pool.
    rules: HealthRules,
    /// Whether the backend is up.
    up: bool,
    /// Probes in a row that spoke against the present state.
    against: u8,
    /// When the last probe went out.
    last_probe: Option<Instant>,
    /// When the next probe is due.
    next_probe: Instant,
    /// While down: how long the probe after the next one waits.
    backoff: Duration,
}

impl Health {
    /// Up, with the first probe due at once.
    pub fn new(rules: HealthRules, now: Instant) -> Self {
        Self { rules, up: true, against: 0, last_probe: None, next_probe: now, backoff: FIRST_BACKOFF }
    }

    /// Whether the backend is up.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// When the next probe is due. Probing never stops.
    pub fn next_probe(&self) -> Instant {
        self.next_probe
    }

    /// A probe goes out now: the next one is scheduled, a little off so that backends do not march in step.
    pub fn on_probe_sent(&mut self, now: Instant, rng: &mut impl Rng) {
        let wait = if self.up {
            self.rules.interval
        } else {
            let wait = self.backoff.min(self.rules.interval);
            self.backoff = wait.saturating_mul(2);
            wait
        };
        self.last_probe = Some(now);
        self.next_probe = now + wait.mul_f64(rng.random_range(1.0 - JITTER..=1.0));
    }

    /// A probe was replied to.
    pub fn on_probe_reply(&mut self, now: Instant) -> Option<Change> {
        if self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against >= self.rules.rise {
            return self.turn(now);
        }
        // Hope: the next good probe should not be long in coming.
        self.backoff = FIRST_BACKOFF;
        self.next_probe = self.next_probe.min(now + FIRST_BACKOFF);
        None
    }

    /// A probe was not replied to in time.
    pub fn on_probe_missed(&mut self, now: Instant) -> Option<Change> {
        if !self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against >= self.rules.fall {
            return self.turn(now);
        }
        self.hasten(now);
        None
    }

    /// ICMP says that nothing listens there. That is proof, so it is down at once.
    pub fn on_unreachable(&mut self, now: Instant) -> Option<Change> {
        if self.up {
            return self.turn(now);
        }
        self.against = 0;
        None
    }

    /// A reply came to a query, of whatever kind. That is life, so it is up at once.
    pub fn on_reply(&mut self, now: Instant) -> Option<Change> {
        if self.up {
            self.against = 0;
            return None;
        }
        self.turn(now)
    }

    /// An attempt timed out. While the backend is up, that asks for a probe.
    pub fn on_silence(&mut self, now: Instant) {
        if self.up {
            self.hasten(now);
        }
    }

    /// So many queries went to the pool as `every_queries` says: a probe is due.
    pub fn on_queries(&mut self, now: Instant) {
        self.hasten(now);
    }

    /// Makes a probe due at once, but leaves the one before the time to be replied to.
    fn hasten(&mut self, now: Instant) {
        let earliest = self.last_probe.map_or(now, |last| now.max(last + self.rules.timeout));
        self.next_probe = self.next_probe.min(earliest);
    }

    /// Goes from up to down or back.
    fn turn(&mut self, now: Instant) -> Option<Change> {
        self.up = !self.up;
        self.against = 0;
        self.backoff = FIRST_BACKOFF;
        if self.up {
            return Some(Change::CameUp);
        }
        self.next_probe = self.next_probe.min(now + FIRST_BACKOFF.min(self.rules.interval));
        self.backoff = FIRST_BACKOFF.saturating_mul(2);
        Some(Change::WentDown)
    }
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The backend went down: it is not asked while another is up.
    WentDown,
    /// The backend came up.
    CameUp,
}

/// How soon a backend that is down is probed again. A restarted server is often back within a second, and
/// a probe costs less than a query.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// How much sooner than said a probe may go out, as a part of the wait.
const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    /// What happens to a backend.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A probe is replied to.
        Good,
        /// A probe is missed.
        Missed,
        /// ICMP unreachable comes.
        Unreachable,
        /// A reply to a query comes.
        Reply,
    }

    /// Runs the events with `fall = 2`, `rise = 2`, and compares the last change and the state.
    fn check(events: &[Event], change: Option<Change>, up: bool) {
        let now = Instant::now();
        let mut health = Health::new(HealthRules::default(), now);
        let mut last = None;
        for event in events {
            last = match event {
                Event::Good => health.on_probe_reply(now),
                Event::Missed => health.on_probe_missed(now),
                Event::Unreachable => health.on_unreachable(now),
                Event::Reply => health.on_reply(now),
            };
        }
        assert_eq!((last, health.is_up()), (change, up), "{events:?}");
    }

    #[test]
    fn probes_in_a_row_decide_and_proof_decides_at_once() {
        use Change::{CameUp, WentDown};
        use Event::{Good, Missed, Reply, Unreachable};
        check(&[], None, true);
        check(&[Missed], None, true);
        check(&[Missed, Missed], Some(WentDown), false);
        check(&[Missed, Good, Missed], None, true);
        check(&[Missed, Reply, Missed], None, true);
        check(&[Unreachable], Some(WentDown), false);
        check(&[Unreachable, Unreachable], None, false);
        check(&[Unreachable, Good], None, false);
        check(&[Unreachable, Good, Good], Some(CameUp), true);
        check(&[Unreachable, Good, Missed, Good], None, false);
        check(&[Unreachable, Good, Unreachable, Good], None, false);
        check(&[Unreachable, Reply], Some(CameUp), true);
        check(&[Unreachable, Reply, Missed], None, true);
    }

    #[test]
    fn the_first_probe_is_due_at_the_start_and_the_next_after_the_interval() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut health = Health::new(HealthRules::default(), start);
        assert_eq!(health.next_probe(), start);
        health.on_probe_sent(start, &mut rng);
        let wait = health.next_probe() - start;
        assert!((Duration::from_millis(4_500)..=Duration::from_secs(5)).contains(&wait), "{wait:?}");
    }

    #[test]
    fn silence_asks_for_a_probe_but_not_for_two_at_a_time() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut health = Health::new(HealthRules::default(), start);
        health.on_probe_sent(start, &mut rng);
        health.on_silence(start + Duration::from_millis(10));
        assert_eq!(health.next_probe(), start + Duration::from_secs(1));
        health.on_probe_sent(start + Duration::from_secs(1), &mut rng);
        health.on_silence(start + Duration::from_millis(2_500));
        assert_eq!(health.next_probe(), start + Duration::from_millis(2_500));
    }

    #[test]
    fn suspicion_never_puts_a_probe_off() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let rules = HealthRules { interval: Duration::from_millis(300), ..HealthRules::default() };
        let mut health = Health::new(rules, start);
        health.on_probe_sent(start, &mut rng);
        let due = health.next_probe();
        health.on_silence(start);
        health.on_queries(start);
        assert_eq!(health.next_probe(), due);
    }

    #[test]
    fn a_backend_that_is_down_is_probed_ever_more_rarely_but_never_less_than_each_interval() {
        let (start, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut health = Health::new(HealthRules::default(), start);
        health.on_probe_sent(start, &mut rng);
        health.on_unreachable(start);
        let mut now = start;
        for expected in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            let wait = health.next_probe() - now;
            let longest = Duration::from_millis(expected);
            assert!(wait <= longest && wait >= longest.mul_f64(1.0 - JITTER), "{wait:?} of {longest:?}");
            now = health.next_probe();
            health.on_probe_sent(now, &mut rng);
            health.on_probe_missed(now);
        }
        health.on_probe_reply(now);
        assert!(health.next_probe() - now <= FIRST_BACKOFF);
    }
}
