//! Counts of waiting queries below suffixes of names, so that a flood for one zone whose servers do not reply
//! leaves room for all other zones (random-subdomain attack).
//!
//! All workers share a table of fixed size: a power of two of counters, at least two for each query that may
//! wait. The hash of a suffix gives its counter. Suffixes with the same counter share their limit: a zone is
//! refused because of another zone's flood with a chance of one in the number of counters (262,144 by
//! default). The hash is secret, so no client can choose such a pair.

use crate::sync::{AtomicU32, Ordering::Relaxed, zeroed};

/// The counters of the suffixes of one name, from the shortest suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZonePlaces([[u8; 3]; Self::LEVELS]);

impl ZonePlaces {
    /// The number of suffixes of a name that count: those of two, three and four labels.
    pub const LEVELS: usize = 3;

    /// The places of a name that counts nowhere.
    pub const NONE: Self = Self([UNCOUNTED; Self::LEVELS]);
}

/// The table of all counts.
#[derive(Debug)]
pub struct ZoneWaits(Box<[AtomicU32]>);

impl ZoneWaits {
    pub(super) fn new(in_flight: usize) -> Self {
        let counters = (2 * in_flight.min(MAX_COUNTERS)).clamp(1, MAX_COUNTERS).next_power_of_two();
        Self(zeroed(counters))
    }

    /// Returns the places of suffixes with these hashes.
    pub fn places(&self, hashes: [Option<u64>; ZonePlaces::LEVELS]) -> ZonePlaces {
        let last = self.0.len() as u64 - 1;
        ZonePlaces(hashes.map(|hash| hash.map_or(UNCOUNTED, |hash| place(hash & last))))
    }

    /// Returns the number of the first suffix with `most` or more waiting queries.
    pub fn full(&self, places: ZonePlaces, most: u32) -> Option<usize> {
        places.0.iter().position(|place| self.counter(*place).is_some_and(|count| count.load(Relaxed) >= most))
    }

    /// Counts one more query, unless `most` wait below one of its suffixes. Returns true if it is counted.
    pub(super) fn take(&self, places: ZonePlaces, most: u32) -> bool {
        if places == ZonePlaces::NONE {
            return true;
        }
        // Workers that look at the same time may exceed the limit by one query each.
        let is_free = self.full(places, most).is_none();
        if is_free {
            for count in self.counters(places) {
                count.fetch_add(1, Relaxed);
            }
        }
        is_free
    }

    pub(super) fn give_back(&self, places: ZonePlaces) {
        for count in self.counters(places) {
            let before = count.fetch_sub(1, Relaxed);
            debug_assert!(before > 0, "what is given back was taken");
        }
    }

    fn counters(&self, places: ZonePlaces) -> impl Iterator<Item = &AtomicU32> {
        places.0.into_iter().filter_map(|place| self.counter(place))
    }

    fn counter(&self, [a, b, c]: [u8; 3]) -> Option<&AtomicU32> {
        self.0.get(u32::from_le_bytes([a, b, c, 0]) as usize)
    }
}

fn place(number: u64) -> [u8; 3] {
    let [a, b, c, ..] = number.to_le_bytes();
    [a, b, c]
}

const UNCOUNTED: [u8; 3] = [u8::MAX; 3];

/// 16 MiB of counters, with numbers of less than three bytes.
const MAX_COUNTERS: usize = 1 << 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_counts_below_each_of_its_suffixes_until_it_is_given_back() {
        let zones = ZoneWaits::new(1_000);
        let [one, both, other] = [[Some(1), None, None], [Some(1), Some(2), None], [None, Some(3), None]];
        let [one, both, other] = [one, both, other].map(|hashes| zones.places(hashes));
        assert!(zones.take(both, 2) && zones.take(one, 2));
        assert_eq!((zones.take(one, 2), zones.take(both, 2)), (false, false), "two wait below the first suffix");
        assert_eq!((zones.full(both, 2), zones.full(both, 1), zones.full(other, 1)), (Some(0), Some(0), None));
        assert!(zones.take(other, 2));
        zones.give_back(one);
        assert!(zones.take(both, 2));
        assert_eq!(zones.full(zones.places([None, Some(2), None]), 2), Some(1));
        [both, both, other].into_iter().for_each(|places| zones.give_back(places));
        assert_eq!(zones.full(both, 1).or_else(|| zones.full(other, 1)), None);
        assert!(zones.take(ZonePlaces::NONE, 0), "it counts nowhere");
    }

    #[test]
    fn the_table_is_bounded() {
        for (in_flight, counters) in [(0, 1), (100, 256), (100_000, 262_144), (10_000_000, MAX_COUNTERS)] {
            assert_eq!(ZoneWaits::new(in_flight).0.len(), counters, "{in_flight}");
        }
    }
}
