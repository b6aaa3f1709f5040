//! Trains: datagrams of equal length on the same way, which the kernel takes as one and cuts apart at the very end.
//!
//! Linux calls it generic segmentation offload (`UDP_SEGMENT`, since 4.18): the way through the network stack, which is
//! most of what a small datagram costs, is gone once for the whole train. What arrives are the same datagrams. This file
//! only says which datagrams of a batch may leave together; [`super::batch`] sends them.

use std::net::SocketAddr;
use std::ops::Range;

use super::batch::{BATCH, LocalAddress};

/// Where a datagram goes, and from where; and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Where to; `None` on a connected socket.
    pub(super) to: Option<SocketAddr>,
    /// The source address to use; `None` leaves it to the kernel.
    pub(super) from: Option<LocalAddress>,
    /// Octets of the payload.
    pub(super) length: usize,
}

/// The datagrams of a batch, put together to trains.
pub(super) struct Trains {
    /// The trains in order of their first datagram.
    trains: Vec<Train>,
    /// For each datagram, the one behind it in its train.
    behind: [u8; BATCH],
    /// The newest train for a hash of its way; [`NONE`] if there is none.
    newest: [u8; PLACES],
    /// The datagrams in the order in which they leave.
    order: Vec<u8>,
}

/// One train.
struct Train {
    /// What all its datagrams share.
    way: Way,
    /// The number of the first datagram in the batch.
    first: u8,
    /// The number of the last.
    last: u8,
    /// How many there are.
    count: u8,
    /// Where it begins in the order of leaving.
    start: u8,
}

impl Trains {
    /// None yet.
    pub(super) fn new() -> Self {
        const { assert!(BATCH < NONE as usize, "datagrams and trains are numbered by octets") };
        Self {
            trains: Vec::with_capacity(BATCH),
            behind: [0; BATCH],
            newest: [NONE; PLACES],
            order: Vec::with_capacity(BATCH),
        }
    }

    /// Puts the datagrams of a batch, at most [`BATCH`], together: those that fit, or each for itself.
    pub(super) fn arrange(&mut self, ways: impl Iterator<Item = Way>, may_couple: bool) {
        self.trains.clear();
        self.newest = [NONE; PLACES];
        for (number, way) in ways.enumerate() {
            self.add(number as u8, way, may_couple);
        }
        self.order.clear();
        for train in &mut self.trains {
            train.start = self.order.len() as u8;
            let mut number = train.first;
            for _ in 0..train.count {
                self.order.push(number);
                number = self.behind[usize::from(number)];
            }
        }
    }

    /// Adds a datagram to the train that it fits, or as a new one.
    fn add(&mut self, number: u8, way: Way, may_couple: bool) {
        let place = way.place();
        let newest = self.trains.get_mut(usize::from(self.newest[place]));
        match newest.filter(|train| may_couple && train.way == way && train.has_room()) {
            Some(train) => {
                self.behind[usize::from(train.last)] = number;
                train.last = number;
                train.count += 1;
            }
            None => {
                self.newest[place] = self.trains.len() as u8;
                self.trains.push(Train { way, first: number, last: number, count: 1, start: 0 });
            }
        }
    }

    /// How many trains there are.
    pub(super) fn len(&self) -> usize {
        self.trains.len()
    }

    /// The datagrams of all trains, by their numbers, in the order in which they leave.
    pub(super) fn order(&self) -> &[u8] {
        &self.order
    }

    /// What the datagrams of a train share, and which part of the order they are.
    pub(super) fn get(&self, index: usize) -> (Way, Range<usize>) {
        let Train { way, start, count, .. } = self.trains[index];
        (way, usize::from(start)..usize::from(start) + usize::from(count))
    }
}

impl Train {
    /// Whether one more of the same length may be coupled.
    fn has_room(&self) -> bool {
        (1..=MAX_COUPLED).contains(&self.way.length) && (usize::from(self.count) + 1) * self.way.length <= TRAIN_MAX
    }
}

impl Way {
    /// Where to look for a train on this way: the parts that differ between ways, mixed a little.
    fn place(&self) -> usize {
        let port = self.to.map_or(0, |to| usize::from(to.port()));
        (port ^ (port >> 7) ^ self.length.wrapping_mul(37)) % PLACES
    }
}

/// No train.
const NONE: u8 = u8::MAX;
/// Places to look for trains: a power of two above the number of datagrams, so that few ways share one.
const PLACES: usize = 2 * BATCH;
/// Octets of the longest datagram that is coupled. The kernel refuses a train whose datagrams would have to be fragmented;
/// this length passes nearly everywhere (the DNS flag day of 2020 settled on it).
const MAX_COUPLED: usize = 1232;
/// Octets of a train: until it is cut it is one datagram, whose length has 16 bits.
const TRAIN_MAX: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A datagram of so many octets to a port of loopback.
    fn way(port: u16, length: usize) -> Way {
        Way { to: Some(([127, 0, 0, 1], port).into()), from: None, length }
    }

    /// The datagrams of each train.
    fn arrange(ways: &[Way], may_couple: bool) -> Vec<Vec<u8>> {
        let mut trains = Trains::new();
        // What was there before leaves no trace.
        trains.arrange([way(1, 10); 3].into_iter(), true);
        trains.arrange(ways.iter().copied(), may_couple);
        (0..trains.len()).map(|index| trains.order()[trains.get(index).1].to_vec()).collect()
    }

    #[test]
    fn equal_lengths_on_one_way_are_coupled() {
        let connected = Way { to: None, from: None, length: 30 };
        let check = |ways: &[Way], expected: &[&[u8]]| assert_eq!(arrange(ways, true), expected, "{ways:?}");
        check(&[], &[]);
        check(&[way(1, 30)], &[&[0]]);
        check(&[connected; 3], &[&[0, 1, 2]]);
        check(&[way(1, 30), way(2, 30), way(1, 30), way(1, 31), way(2, 30)], &[&[0, 2], &[1, 4], &[3]]);
        check(&[way(1, MAX_COUPLED + 1); 2], &[&[0], &[1]]);
        // The kernel takes an empty datagram for the end of a train.
        check(&[way(1, 0); 2], &[&[0], &[1]]);
    }

    #[test]
    fn a_train_is_no_longer_than_a_datagram() {
        let trains = arrange(&[way(1, MAX_COUPLED); BATCH], true);
        let counts: Vec<_> = trains.iter().map(Vec::len).collect();
        assert_eq!(counts, [TRAIN_MAX / MAX_COUPLED, BATCH - TRAIN_MAX / MAX_COUPLED]);
    }

    proptest! {
        #[test]
        fn each_leaves_once_with_its_like(
            ways in prop::collection::vec((0..40u16, 0..20usize), 0..=BATCH),
            may_couple: bool,
        ) {
            let ways: Vec<_> = ways.into_iter().map(|(port, length)| way(port, length)).collect();
            let trains = arrange(&ways, may_couple);
            let mut all = trains.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..ways.len() as u8).collect::<Vec<_>>());
            for train in trains {
                prop_assert!(may_couple || train.len() == 1);
                prop_assert!(train.is_sorted());
                let first = ways[usize::from(train[0])];
                prop_assert!(train.iter().all(|number| ways[usize::from(*number)] == first));
            }
        }
    }
}
