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
pub(super) struct SegmentKey {
    /// Where to; `None` on a connected socket.
    pub(super) to: Option<SocketAddr>,
    /// The source address to use; `None` leaves it to the kernel.
    pub(super) from: Option<LocalAddress>,
    /// Octets of the payload.
    pub(super) segment_size: usize,
}

/// The datagrams of a batch, put together to trains.
pub(super) struct Transmits {
    /// The trains in order of their first datagram.
    transmits: Vec<Transmit>,
    /// For each datagram, the one behind it in its train.
    behind: [u8; BATCH],
    /// The newest train for a hash of its way; [`NONE`] if there is none.
    newest: [u8; PLACES],
    /// The datagrams in the order in which they leave.
    order: Vec<u8>,
}

/// One train.
struct Transmit {
    /// What all its datagrams share.
    key: SegmentKey,
    /// The number of the first datagram in the batch.
    first: u8,
    /// The number of the last.
    last: u8,
    /// How many there are.
    count: u8,
    /// Where it begins in the order of leaving.
    start: u8,
}

impl Transmits {
    /// None yet.
    pub(super) fn new() -> Self {
        const { assert!(BATCH < NONE as usize, "datagrams and transmits are numbered by octets") };
        Self {
            transmits: Vec::with_capacity(BATCH),
            behind: [0; BATCH],
            newest: [NONE; PLACES],
            order: Vec::with_capacity(BATCH),
        }
    }

    /// Puts the datagrams of a batch, at most [`BATCH`], together: those that fit, or each for itself.
    pub(super) fn arrange(&mut self, keys: impl Iterator<Item = SegmentKey>, use_gso: bool) {
        self.transmits.clear();
        self.newest = [NONE; PLACES];
        for (number, key) in keys.enumerate() {
            self.add(number as u8, key, use_gso);
        }
        self.order.clear();
        for transmit in &mut self.transmits {
            transmit.start = self.order.len() as u8;
            let mut number = transmit.first;
            for _ in 0..transmit.count {
                self.order.push(number);
                number = self.behind[usize::from(number)];
            }
        }
    }

    /// Adds a datagram to the train that it fits, or as a new one.
    fn add(&mut self, number: u8, key: SegmentKey, use_gso: bool) {
        let place = key.place();
        let newest = self.transmits.get_mut(usize::from(self.newest[place]));
        match newest.filter(|transmit| use_gso && transmit.key == key && transmit.has_room()) {
            Some(transmit) => {
                self.behind[usize::from(transmit.last)] = number;
                transmit.last = number;
                transmit.count += 1;
            }
            None => {
                self.newest[place] = self.transmits.len() as u8;
                self.transmits.push(Transmit { key, first: number, last: number, count: 1, start: 0 });
            }
        }
    }

    /// How many trains there are.
    pub(super) fn len(&self) -> usize {
        self.transmits.len()
    }

    /// The datagrams of all trains, by their numbers, in the order in which they leave.
    pub(super) fn order(&self) -> &[u8] {
        &self.order
    }

    /// What the datagrams of a train share, and which part of the order they are.
    pub(super) fn get(&self, index: usize) -> (SegmentKey, Range<usize>) {
        let Transmit { key, start, count, .. } = self.transmits[index];
        (key, usize::from(start)..usize::from(start) + usize::from(count))
    }
}

impl Transmit {
    /// Whether one more of the same length may be coupled.
    fn has_room(&self) -> bool {
        (1..=MAX_SEGMENT_SIZE).contains(&self.key.segment_size)
            && (usize::from(self.count) + 1) * self.key.segment_size <= MAX_TRANSMIT_SIZE
    }
}

impl SegmentKey {
    /// Where to look for a train on this way: the parts that differ between ways, mixed a little.
    fn place(&self) -> usize {
        let port = self.to.map_or(0, |to| usize::from(to.port()));
        (port ^ (port >> 7) ^ self.segment_size.wrapping_mul(37)) % PLACES
    }
}

/// No train.
const NONE: u8 = u8::MAX;
/// Places to look for trains: a power of two above the number of datagrams, so that few ways share one.
const PLACES: usize = 2 * BATCH;
/// Octets of the longest datagram that is coupled. The kernel refuses a train whose datagrams would have to be fragmented;
/// this length passes nearly everywhere (the DNS flag day of 2020 settled on it).
const MAX_SEGMENT_SIZE: usize = 1232;
/// Octets of a train: until it is cut it is one datagram, whose length has 16 bits.
const MAX_TRANSMIT_SIZE: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A datagram of so many octets to a port of loopback.
    fn key(port: u16, segment_size: usize) -> SegmentKey {
        SegmentKey { to: Some(([127, 0, 0, 1], port).into()), from: None, segment_size }
    }

    /// The datagrams of each train.
    fn arrange(keys: &[SegmentKey], use_gso: bool) -> Vec<Vec<u8>> {
        let mut transmits = Transmits::new();
        // What was there before leaves no trace.
        transmits.arrange([key(1, 10); 3].into_iter(), true);
        transmits.arrange(keys.iter().copied(), use_gso);
        (0..transmits.len()).map(|index| transmits.order()[transmits.get(index).1].to_vec()).collect()
    }

    #[test]
    fn equal_lengths_on_one_way_are_coupled() {
        let connected = SegmentKey { to: None, from: None, segment_size: 30 };
        let check = |keys: &[SegmentKey], expected: &[&[u8]]| assert_eq!(arrange(keys, true), expected, "{keys:?}");
        check(&[], &[]);
        check(&[key(1, 30)], &[&[0]]);
        check(&[connected; 3], &[&[0, 1, 2]]);
        check(&[key(1, 30), key(2, 30), key(1, 30), key(1, 31), key(2, 30)], &[&[0, 2], &[1, 4], &[3]]);
        check(&[key(1, MAX_SEGMENT_SIZE + 1); 2], &[&[0], &[1]]);
        // The kernel takes an empty datagram for the end of a train.
        check(&[key(1, 0); 2], &[&[0], &[1]]);
    }

    #[test]
    fn a_train_is_no_longer_than_a_datagram() {
        let transmits = arrange(&[key(1, MAX_SEGMENT_SIZE); BATCH], true);
        let counts: Vec<_> = transmits.iter().map(Vec::len).collect();
        assert_eq!(counts, [MAX_TRANSMIT_SIZE / MAX_SEGMENT_SIZE, BATCH - MAX_TRANSMIT_SIZE / MAX_SEGMENT_SIZE]);
    }

    proptest! {
        #[test]
        fn each_leaves_once_with_its_like(
            keys in prop::collection::vec((0..40u16, 0..20usize), 0..=BATCH),
            use_gso: bool,
        ) {
            let keys: Vec<_> = keys.into_iter().map(|(port, segment_size)| key(port, segment_size)).collect();
            let transmits = arrange(&keys, use_gso);
            let mut all = transmits.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..keys.len() as u8).collect::<Vec<_>>());
            for transmit in transmits {
                prop_assert!(use_gso || transmit.len() == 1);
                prop_assert!(transmit.is_sorted());
                let first = keys[usize::from(transmit[0])];
                prop_assert!(transmit.iter().all(|number| keys[usize::from(*number)] == first));
            }
        }
    }
}
