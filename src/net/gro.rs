//! GRO, generic receive offload (`UDP_GRO`, Linux since 5.0): a socket is given datagrams of equal length from one peer as one
//! coalesced datagram, with the segment size beside it. Here that is cut into its segments again.
//!
//! One call can so receive many times the datagrams that its callers handle at a time; they get them in chunks. This file only
//! says where the segments lie; [`super::batch`] receives them.

use std::ops::Range;

/// What the kernel has put into one buffer: a coalesced datagram, or one by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Octets in the buffer.
    pub(super) length: usize,
    /// Octets of every segment but the last, which may be shorter; `None` if it is one datagram.
    pub(super) segment_size: Option<usize>,
    /// The buffer was too short, and the end is lost.
    pub(super) is_truncated: bool,
}

/// Where a segment lies: a datagram as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The number of its buffer.
    pub(super) buffer: usize,
    pub(super) octets: Range<usize>,
    /// Its end is lost.
    pub(super) is_truncated: bool,
}

/// The segments of all that one call has received, a chunk of them at a time.
pub(super) struct Segments {
    /// Those that are handed out now.
    chunk: Vec<Segment>,
    /// How many a chunk has at most.
    max: usize,
    /// The buffer that the next segment is in.
    buffer: usize,
    /// Where it begins there.
    start: usize,
}

impl Segments {
    /// None yet, and room for chunks of so many.
    pub(super) fn new(max: usize) -> Self {
        Self { chunk: Vec::with_capacity(max), max, buffer: 0, start: 0 }
    }

    /// Forgets what there was: something else is in the buffers now.
    pub(super) fn clear(&mut self) {
        self.chunk.clear();
        self.buffer = 0;
        self.start = 0;
    }

    /// Passes over the buffers before this one.
    pub(super) fn skip_to(&mut self, buffer: usize) {
        self.clear();
        self.buffer = buffer;
    }

    /// Goes on to the next chunk of what is in so many buffers. It is empty if this was the end.
    pub(super) fn advance(&mut self, buffers: usize, received: impl Fn(usize) -> Received) {
        self.chunk.clear();
        while self.buffer < buffers {
            let Received { length, segment_size, is_truncated } = received(self.buffer);
            // Segments of no octets would be without end.
            let segment_size = segment_size.filter(|segment_size| *segment_size > 0).unwrap_or(length);
            loop {
                if self.chunk.len() == self.max {
                    return;
                }
                let end = (self.start + segment_size).min(length);
                let is_last = end == length;
                let octets = self.start..end;
                self.chunk.push(Segment { buffer: self.buffer, octets, is_truncated: is_truncated && is_last });
                self.start = end;
                if is_last {
                    break;
                }
            }
            self.buffer += 1;
            self.start = 0;
        }
    }

    /// The segments that are handed out now.
    pub(super) fn chunk(&self) -> &[Segment] {
        &self.chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// So many octets in a buffer, and their segment size.
    fn received(length: usize, segment_size: Option<usize>) -> Received {
        Received { length, segment_size, is_truncated: false }
    }

    /// Where the segments of each chunk lie.
    fn chunks(all_received: &[Received], max: usize) -> Vec<Vec<(usize, Range<usize>)>> {
        let mut segments = Segments::new(max);
        // What was there before leaves no trace.
        segments.advance(2, |_| received(7, Some(2)));
        segments.clear();
        let mut all = Vec::new();
        loop {
            segments.advance(all_received.len(), |number| all_received[number]);
            if segments.chunk().is_empty() {
                return all;
            }
            all.push(segments.chunk().iter().map(|segment| (segment.buffer, segment.octets.clone())).collect());
        }
    }

    #[test]
    fn coalesced_datagrams_are_cut_into_chunks() {
        let check = |all_received: &[Received], max, expected: &[&[(usize, Range<usize>)]]| {
            assert_eq!(chunks(all_received, max), expected, "{all_received:?}, at max {max}");
        };
        check(&[], 4, &[]);
        check(&[received(5, None), received(0, None)], 4, &[&[(0, 0..5), (1, 0..0)]]);
        // The last segment may be shorter.
        check(&[received(7, Some(3)), received(4, None)], 8, &[&[(0, 0..3), (0, 3..6), (0, 6..7), (1, 0..4)]]);
        check(&[received(6, Some(3))], 8, &[&[(0, 0..3), (0, 3..6)]]);
        // What does not fit comes next.
        check(&[received(9, Some(3)), received(1, None)], 2, &[&[(0, 0..3), (0, 3..6)], &[(0, 6..9), (1, 0..1)]]);
        check(&[received(6, Some(3)), received(1, None)], 2, &[&[(0, 0..3), (0, 3..6)], &[(1, 0..1)]]);
        // No kernel says this.
        check(&[received(6, Some(0)), received(0, Some(0))], 4, &[&[(0, 0..6), (1, 0..0)]]);
        check(&[received(6, Some(usize::MAX >> 1)), received(0, Some(3))], 4, &[&[(0, 0..6), (1, 0..0)]]);
    }

    #[test]
    fn only_the_last_segment_is_truncated() {
        let mut segments = Segments::new(4);
        segments.advance(1, |_| Received { length: 8, segment_size: Some(3), is_truncated: true });
        let marks: Vec<_> = segments.chunk().iter().map(|segment| segment.is_truncated).collect();
        assert_eq!(marks, [false, false, true]);
    }

    proptest! {
        #[test]
        fn every_octet_is_handed_out_once_and_in_order(
            all_received in prop::collection::vec((0..100usize, prop::option::of(0..120usize)), 0..10),
            max in 1..20usize,
        ) {
            let all_received: Vec<_> = all_received.into_iter().map(|(length, segment_size)| received(length, segment_size)).collect();
            let chunks = chunks(&all_received, max);
            for (number, segments) in chunks.iter().enumerate() {
                prop_assert!(segments.len() == max || number + 1 == chunks.len());
            }
            let chunk = chunks.concat();
            for (number, Received { length, .. }) in all_received.iter().enumerate() {
                let ends = chunk.iter().filter(|(of, _)| *of == number).try_fold(0, |end, (_, octets)| {
                    (octets.start == end).then_some(octets.end)
                });
                prop_assert_eq!(ends, Some(*length));
            }
            prop_assert!(chunk.is_sorted_by_key(|(of, octets)| (*of, octets.start)));
        }
    }
}
