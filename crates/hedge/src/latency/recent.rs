//! The latest replies compared with the usual range, to detect a change of latency.

use std::ops::RangeInclusive;

#[derive(Clone, Debug)]
pub(super) struct Recent {
    buckets: [u16; PLACES],
    shorter: u64,
    longer: u64,
    next: u8,
    usual: RangeInclusive<u16>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { buckets: [0; PLACES], shorter: 0, longer: 0, next: 0, usual: 0..=u16::MAX }
    }

    pub(super) fn set_usual(&mut self, usual: RangeInclusive<u16>) {
        self.usual = usual;
    }

    /// Adds a reply. If most of the latest were unusual in the same direction, returns the replies for new
    /// windows. After faster replies, the others would look like the slowest replies, and are left out.
    pub(super) fn note(&mut self, bucket: u16) -> Option<impl Iterator<Item = u16> + Clone + use<>> {
        let place = self.next;
        self.next = (self.next + 1) % PLACES as u8;
        self.buckets[usize::from(place)] = bucket;
        set(&mut self.shorter, place, bucket < *self.usual.start());
        set(&mut self.longer, place, bucket > *self.usual.end());
        let kept = if self.longer.count_ones() >= MAX_EACH {
            u64::MAX
        } else if self.shorter.count_ones() >= MAX_EACH {
            self.shorter
        } else {
            return None;
        };
        (self.shorter, self.longer) = (0, 0);
        let places = (0..PLACES).zip(self.buckets);
        Some(places.filter_map(move |(place, bucket)| (kept >> place & 1 == 1).then_some(bucket)))
    }
}

fn set(bits: &mut u64, place: u8, is_set: bool) {
    *bits = *bits & !(1 << place) | u64::from(is_set) << place;
}

const PLACES: usize = u64::BITS as usize;

/// The number of unusual replies that shows a change. Without a change, fifty of 64 never occur, and fifty
/// are enough for new windows (`MIN_SAMPLES`).
const MAX_EACH: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds replies, and checks after how many a change is found, and the replies returned.
    fn check(buckets: impl IntoIterator<Item = u16>, expected: Option<(usize, Vec<u16>)>) {
        let mut recent = Recent::new();
        // No change is found before a usual range is set.
        assert!((0..64).all(|_| recent.note(15).is_none()));
        recent.set_usual(10..=20);
        let mut changed = buckets.into_iter().enumerate().filter_map(|(number, bucket)| {
            let mut latest: Vec<_> = recent.note(bucket)?.collect();
            latest.sort_unstable();
            Some((number + 1, latest))
        });
        assert_eq!(changed.next(), expected);
    }

    #[test]
    fn fifty_of_the_last_sixty_four_tell() {
        check([9; 100], Some((50, vec![9; 50])));
        check([15; 1_000], None);
        check([15; 100].into_iter().chain([9; 100]), Some((150, vec![9; 50])));
        check([15; 100].into_iter().chain([21; 100]), Some((150, [vec![15; 14], vec![21; 50]].concat())));
        // Faster and slower replies do not add up.
        check([9, 21].repeat(1_000), None);
        // Three in four are too few, four in five are not.
        check([9, 9, 9, 15].repeat(1_000), None);
        check([9, 9, 9, 9, 15].repeat(1_000), Some((62, vec![9; 50])));
    }
}
