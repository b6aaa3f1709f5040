//! Portions: trains that were received whole are cut into their datagrams, so many of them at a time.
//!
//! A socket that wants trains whole (`UDP_GRO`, Linux since 5.0) is given datagrams of equal length from one peer as one, with
//! their length beside it. One call can so receive many times the datagrams that its callers handle in a turn; they get
//! them in portions. This file only says where the datagrams lie; [`super::batch`] receives them.

use std::ops::Range;

/// What the kernel has put into one buffer: a train, or a datagram by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Octets in the buffer.
    pub(super) length: usize,
    /// Octets of every datagram but the last, which may be shorter; `None` if it is one datagram.
    pub(super) cut: Option<usize>,
    /// The buffer was too short, and the end is lost.
    pub(super) is_truncated: bool,
}

/// Where a datagram lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The number of its arrival.
    pub(super) arrival: usize,
    /// Its octets in the buffer of that.
    pub(super) octets: Range<usize>,
    /// Its end is lost.
    pub(super) is_truncated: bool,
}

/// The datagrams that are dealt with at a time, and what comes after them.
pub(super) struct Portion {
    /// The datagrams.
    pieces: Vec<Piece>,
    /// How many they are at most.
    most: usize,
    /// The number of the arrival that is cut next.
    arrival: usize,
    /// What of it was cut before, octets.
    start: usize,
}

impl Portion {
    /// Nothing, and room for so many datagrams.
    pub(super) fn new(most: usize) -> Self {
        Self { pieces: Vec::with_capacity(most), most, arrival: 0, start: 0 }
    }

    /// Forgets what there was: other arrivals take its place.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.arrival = 0;
        self.start = 0;
    }

    /// Passes over the arrivals before this one: what comes next are its datagrams.
    pub(super) fn skip_to(&mut self, arrival: usize) {
        self.clear();
        self.arrival = arrival;
    }

    /// Goes on to the next datagrams of these arrivals. There are none if this was the end.
    pub(super) fn advance(&mut self, arrivals: usize, arrival: impl Fn(usize) -> Arrival) {
        self.pieces.clear();
        while self.arrival < arrivals {
            let Arrival { length, cut, is_truncated } = arrival(self.arrival);
            // Pieces of no octets would be without end.
            let cut = cut.filter(|cut| *cut > 0).unwrap_or(length);
            loop {
                if self.pieces.len() == self.most {
                    return;
                }
                let end = (self.start + cut).min(length);
                let is_last = end == length;
                let octets = self.start..end;
                self.pieces.push(Piece { arrival: self.arrival, octets, is_truncated: is_truncated && is_last });
                self.start = end;
                if is_last {
                    break;
                }
            }
            self.arrival += 1;
            self.start = 0;
        }
    }

    /// The datagrams.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An arrival of so many octets, cut so.
    fn arrival(length: usize, cut: Option<usize>) -> Arrival {
        Arrival { length, cut, is_truncated: false }
    }

    /// Where the datagrams of each portion lie.
    fn portions(arrivals: &[Arrival], most: usize) -> Vec<Vec<(usize, Range<usize>)>> {
        let mut portion = Portion::new(most);
        // What was there before leaves no trace.
        portion.advance(2, |_| arrival(7, Some(2)));
        portion.clear();
        let mut all = Vec::new();
        loop {
            portion.advance(arrivals.len(), |number| arrivals[number]);
            if portion.pieces().is_empty() {
                return all;
            }
            all.push(portion.pieces().iter().map(|piece| (piece.arrival, piece.octets.clone())).collect());
        }
    }

    #[test]
    fn trains_are_cut_into_portions() {
        let check = |arrivals: &[Arrival], most, expected: &[&[(usize, Range<usize>)]]| {
            assert_eq!(portions(arrivals, most), expected, "{arrivals:?}, at most {most}");
        };
        check(&[], 4, &[]);
        check(&[arrival(5, None), arrival(0, None)], 4, &[&[(0, 0..5), (1, 0..0)]]);
        // The last of a train may be shorter.
        check(&[arrival(7, Some(3)), arrival(4, None)], 8, &[&[(0, 0..3), (0, 3..6), (0, 6..7), (1, 0..4)]]);
        check(&[arrival(6, Some(3))], 8, &[&[(0, 0..3), (0, 3..6)]]);
        // What does not fit comes next.
        check(&[arrival(9, Some(3)), arrival(1, None)], 2, &[&[(0, 0..3), (0, 3..6)], &[(0, 6..9), (1, 0..1)]]);
        check(&[arrival(6, Some(3)), arrival(1, None)], 2, &[&[(0, 0..3), (0, 3..6)], &[(1, 0..1)]]);
        // No kernel says this.
        check(&[arrival(6, Some(0)), arrival(0, Some(0))], 4, &[&[(0, 0..6), (1, 0..0)]]);
        check(&[arrival(6, Some(usize::MAX >> 1)), arrival(0, Some(3))], 4, &[&[(0, 0..6), (1, 0..0)]]);
    }

    #[test]
    fn only_the_last_of_a_train_is_truncated() {
        let mut portion = Portion::new(4);
        portion.advance(1, |_| Arrival { length: 8, cut: Some(3), is_truncated: true });
        let marks: Vec<_> = portion.pieces().iter().map(|piece| piece.is_truncated).collect();
        assert_eq!(marks, [false, false, true]);
    }

    proptest! {
        #[test]
        fn every_octet_is_handed_out_once_and_in_order(
            arrivals in prop::collection::vec((0..100usize, prop::option::of(0..120usize)), 0..10),
            most in 1..20usize,
        ) {
            let arrivals: Vec<_> = arrivals.into_iter().map(|(length, cut)| arrival(length, cut)).collect();
            let portions = portions(&arrivals, most);
            for (number, portion) in portions.iter().enumerate() {
                prop_assert!(portion.len() == most || number + 1 == portions.len());
            }
            let pieces = portions.concat();
            for (number, Arrival { length, .. }) in arrivals.iter().enumerate() {
                let ends = pieces.iter().filter(|(of, _)| *of == number).try_fold(0, |end, (_, octets)| {
                    (octets.start == end).then_some(octets.end)
                });
                prop_assert_eq!(ends, Some(*length));
            }
            prop_assert!(pieces.is_sorted_by_key(|(of, octets)| (*of, octets.start)));
        }
    }
}
