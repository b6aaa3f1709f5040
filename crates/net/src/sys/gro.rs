//! GRO, generic receive offload (`UDP_GRO`, Linux since 5.0): the kernel delivers datagrams of equal length
//! from one peer as one coalesced datagram with its segment size. This file finds the segments, in chunks,
//! since one call can receive many times the datagrams that callers handle at a time; [`super::batch`]
//! receives them.

use std::ops::Range;

#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedBuffer {
    pub(crate) length: usize,
    /// The length of every segment but the last, which may be shorter; `None` for a single datagram.
    pub(crate) segment_size: Option<usize>,
    /// True if the buffer was too short, and the end is lost.
    pub(crate) is_truncated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) buffer: usize,
    pub(crate) octets: Range<usize>,
    pub(crate) is_truncated: bool,
}

pub(crate) struct Segments {
    chunk: Vec<Segment>,
    max: usize,
    buffer: usize,
    start: usize,
}

impl Segments {
    pub(crate) fn new(max: usize) -> Self {
        Self { chunk: Vec::with_capacity(max), max, buffer: 0, start: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.chunk.clear();
        self.buffer = 0;
        self.start = 0;
    }

    pub(crate) fn skip_to(&mut self, buffer: usize) {
        self.clear();
        self.buffer = buffer;
    }

    pub(crate) fn advance(&mut self, buffers: usize, received: impl Fn(usize) -> ReceivedBuffer) {
        self.chunk.clear();
        while self.buffer < buffers {
            let ReceivedBuffer { length, segment_size, is_truncated } = received(self.buffer);
            // Empty segments would loop for ever.
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

    pub(crate) fn chunk(&self) -> &[Segment] {
        &self.chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(length: usize, segment_size: Option<usize>) -> ReceivedBuffer {
        ReceivedBuffer { length, segment_size, is_truncated: false }
    }

    /// Returns the locations of the segments by chunk.
    fn chunks(all_received: &[ReceivedBuffer], max: usize) -> Vec<Vec<(usize, Range<usize>)>> {
        let mut segments = Segments::new(max);
        // Earlier content leaves no trace.
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
        let check = |all_received: &[ReceivedBuffer], max, expected: &[&[(usize, Range<usize>)]]| {
            assert_eq!(chunks(all_received, max), expected, "{all_received:?}, at max {max}");
        };
        check(&[], 4, &[]);
        check(&[received(5, None), received(0, None)], 4, &[&[(0, 0..5), (1, 0..0)]]);
        // The last segment may be shorter.
        check(&[received(7, Some(3)), received(4, None)], 8, &[&[(0, 0..3), (0, 3..6), (0, 6..7), (1, 0..4)]]);
        check(&[received(6, Some(3))], 8, &[&[(0, 0..3), (0, 3..6)]]);
        // The rest is in the next chunk.
        check(&[received(9, Some(3)), received(1, None)], 2, &[&[(0, 0..3), (0, 3..6)], &[(0, 6..9), (1, 0..1)]]);
        check(&[received(6, Some(3)), received(1, None)], 2, &[&[(0, 0..3), (0, 3..6)], &[(1, 0..1)]]);
        // No kernel reports this.
        check(&[received(6, Some(0)), received(0, Some(0))], 4, &[&[(0, 0..6), (1, 0..0)]]);
        check(&[received(6, Some(usize::MAX >> 1)), received(0, Some(3))], 4, &[&[(0, 0..6), (1, 0..0)]]);
    }

    #[test]
    fn only_the_last_segment_is_truncated() {
        let mut segments = Segments::new(4);
        segments.advance(1, |_| ReceivedBuffer { length: 8, segment_size: Some(3), is_truncated: true });
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
            for (number, ReceivedBuffer { length, .. }) in all_received.iter().enumerate() {
                let ends = chunk.iter().filter(|(of, _)| *of == number).try_fold(0, |end, (_, octets)| {
                    (octets.start == end).then_some(octets.end)
                });
                prop_assert_eq!(ends, Some(*length));
            }
            prop_assert!(chunk.is_sorted_by_key(|(of, octets)| (*of, octets.start)));
        }
    }
}
