//! Secondary zones without data: they have expired, or have not been transferred for long.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::{Duration, Instant};

use crate::metrics::ExpiredZone;

#[derive(Default)]
pub(super) struct ZoneFailures {
    expired: BTreeSet<ExpiredZone>,
    /// Unserved zones that have not expired, each since when.
    absent: BTreeMap<ExpiredZone, Instant>,
}

impl ZoneFailures {
    pub(super) fn note(&mut self, zone: ExpiredZone, is_expired: bool) {
        match is_expired {
            true => self.expired.insert(zone),
            false => self.expired.remove(&zone),
        };
    }

    pub(super) fn expired(&self) -> impl Iterator<Item = &ExpiredZone> {
        self.expired.iter()
    }

    /// Takes all zones that are unserved now.
    pub(super) fn set_absent(&mut self, now: Instant, absent: impl Iterator<Item = ExpiredZone>) {
        let earlier = mem::take(&mut self.absent);
        let since = |zone: ExpiredZone| (earlier.get(&zone).copied().unwrap_or(now), zone);
        self.absent = absent.take(MAX_ABSENT).map(since).map(|(since, zone)| (zone, since)).collect();
    }

    /// Returns the zones that have been absent for long.
    pub(super) fn absent(&self, now: Instant) -> Vec<ExpiredZone> {
        let is_old = |since: Instant| now.saturating_duration_since(since) >= ABSENT_AFTER;
        self.absent.iter().filter(|(_, since)| is_old(**since)).map(|(zone, _)| zone.clone()).collect()
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
        let zone = |name: &str| ExpiredZone { authority: "ts1".to_owned(), zone: name.to_owned() };
        let mut failures = ZoneFailures::default();
        failures.set_absent(at(0), [zone("a.")].into_iter());
        failures.set_absent(at(30), [zone("a."), zone("b.")].into_iter());
        assert_eq!((failures.absent(at(59)), failures.absent(at(60))), (Vec::new(), vec![zone("a.")]));
        failures.set_absent(at(61), [zone("b.")].into_iter());
        failures.set_absent(at(62), [zone("a."), zone("b.")].into_iter());
        assert_eq!(failures.absent(at(90)), [zone("b.")]);
    }
}
