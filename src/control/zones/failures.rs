//! Secondary zones without data: they have expired, or have not been transferred for long.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::{Duration, Instant};

use dns::Name;

/// The secondary zones of an authority that are not served.
#[derive(Default)]
pub(super) struct ZoneFailures {
    pub(super) expired: HashSet<Name>,
    /// Unserved zones that have not expired, each since when.
    absent: HashMap<Name, Instant>,
}

impl ZoneFailures {
    pub(super) fn note(&mut self, zone: &Name, is_expired: bool) {
        match is_expired {
            true => self.expired.insert(zone.clone()),
            false => self.expired.remove(zone),
        };
    }

    /// Takes all zones that are unserved now.
    pub(super) fn set_unserved<'a>(&mut self, now: Instant, unserved: impl Iterator<Item = &'a Name>) {
        let earlier = mem::take(&mut self.absent);
        let absent = unserved.filter(|zone| !self.expired.contains(*zone)).take(MAX_ABSENT);
        self.absent = absent.map(|zone| (zone.clone(), earlier.get(zone).copied().unwrap_or(now))).collect();
    }

    /// Returns the zones that have been absent for long.
    pub(super) fn absent(&self, now: Instant) -> impl Iterator<Item = &Name> {
        let is_old = move |since: Instant| now.saturating_duration_since(since) >= ABSENT_AFTER;
        self.absent.iter().filter(move |(_, since)| is_old(**since)).map(|(zone, _)| zone)
    }
}

/// A first transfer takes seconds; a zone that is absent longer has a problem.
const ABSENT_AFTER: Duration = Duration::from_secs(60);

const MAX_ABSENT: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_absent_after_a_minute_and_no_more_once_it_comes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let [a, b]: [Name; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let mut failures = ZoneFailures::default();
        let absent = |failures: &ZoneFailures, seconds| failures.absent(at(seconds)).cloned().collect::<Vec<_>>();
        failures.set_unserved(at(0), [&a].into_iter());
        failures.set_unserved(at(30), [&a, &b].into_iter());
        assert_eq!((absent(&failures, 59), absent(&failures, 60)), (Vec::new(), vec![a.clone()]));
        failures.set_unserved(at(61), [&b].into_iter());
        failures.set_unserved(at(62), [&a, &b].into_iter());
        assert_eq!(absent(&failures, 90), [b]);
    }
}
