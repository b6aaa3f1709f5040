//! The latest replies, each held against what was usual before: have the times changed?

use std::ops::RangeInclusive;

/// The buckets of the latest replies, in a ring.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    /// The replies, by place in the ring.
    buckets: [u16; PLACES],
    /// Which of them took shorter than usual, a bit for each place.
    shorter: u64,
    /// Which of them took longer than usual, a bit for each place.
    longer: u64,
    /// The place for the next.
    next: u8,
    usual: RangeInclusive<u16>,
}

impl Recent {
    /// No replies yet, and anything is usual.
    pub(super) fn new() -> Self {
        Self { buckets: [0; PLACES], shorter: 0, longer: 0, next: 0, usual: 0..=u16::MAX }
    }

    /// Says what is usual from now on.
    pub(super) fn set_usual(&mut self, usual: RangeInclusive<u16>) {
        self.usual = usual;
    }

    /// Notes a reply. If most of the latest were unusual in the same way, here is what to start anew with.
    ///
    /// If they took longer, that is all of the latest: those that did not are few, and change no percentile above the
    /// median. If they took shorter, those that did not would be taken for the slowest, and are left out.
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

/// Replies that are looked at: a bit of a word for each.
const PLACES: usize = u64::BITS as usize;

/// So many of them must be unusual. Of replies that are as ever, a quarter is expected outside the middle half on either
/// side, and fifty of 64 never come; and fifty are enough to start anew with (`MIN_SAMPLES`).
const MAX_EACH: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes these, and tells after how many the times had changed, and which replies say so.
    fn check(buckets: impl IntoIterator<Item = u16>, expected: Option<(usize, Vec<u16>)>) {
        let mut recent = Recent::new();
        // Nothing is said before there is something usual.
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
        // Both kinds of unusual do not add up.
        check([9, 21].repeat(1_000), None);
        // Three in four are too few, four in five are not.
        check([9, 9, 9, 15].repeat(1_000), None);
        check([9, 9, 9, 9, 15].repeat(1_000), Some((62, vec![9; 50])));
    }
}
