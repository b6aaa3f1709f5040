//! GSO, generic segmentation offload (`UDP_SEGMENT`, Linux since 4.18): datagrams of equal length between the same addresses are
//! handed to the kernel as one, and it cuts that into segments at the very end.
//!
//! The way through the network stack, which is most of what a small datagram costs, is gone once for all of them. What arrives
//! are the same datagrams. This file only says which datagrams of a batch may be segments of one [`Transmit`], as quinn-udp calls
//! what leaves by one `sendmsg`; [`super::batch`] sends them.

use std::net::SocketAddr;
use std::ops::Range;

use super::batch::{BATCH, LocalAddress};

/// What the segments of one transmit have in common: where they go, from where, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentKey {
    /// Where to; `None` on a connected socket.
    pub(super) to: Option<SocketAddr>,
    /// The source address to use; `None` leaves it to the kernel.
    pub(super) from: Option<LocalAddress>,
    /// Octets of the payload.
    pub(super) segment_size: usize,
}

/// The datagrams of a batch, put together to transmits.
pub(super) struct Transmits {
    /// In the order of their first datagrams.
    transmits: Vec<Transmit>,
    /// For each datagram, the next segment of its transmit.
    behind: [u8; BATCH],
    /// The newest transmit for a hash of its key; [`NONE`] if there is none.
    newest: [u8; PLACES],
    /// The datagrams in the order in which they leave.
    order: Vec<u8>,
}

/// What the kernel is handed as one: segments of equal length, or a datagram by itself.
struct Transmit {
    /// What all its segments have in common.
    key: SegmentKey,
    /// The number of the first datagram in the batch.
    first: u8,
    /// The number of the last.
    last: u8,
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

    /// Adds a datagram to the transmit that it fits, or as a new one.
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

    /// How many transmits there are.
    pub(super) fn len(&self) -> usize {
        self.transmits.len()
    }

    /// The datagrams of all transmits, by their numbers, in the order in which they leave.
    pub(super) fn order(&self) -> &[u8] {
        &self.order
    }

    /// What the segments of a transmit have in common, and which part of the order they are.
    pub(super) fn get(&self, index: usize) -> (SegmentKey, Range<usize>) {
        let Transmit { key, start, count, .. } = self.transmits[index];
        (key, usize::from(start)..usize::from(start) + usize::from(count))
    }
}

impl Transmit {
    /// Whether one more segment fits.
    fn has_room(&self) -> bool {
        (1..=MAX_SEGMENT_SIZE).contains(&self.key.segment_size)
            && (usize::from(self.count) + 1) * self.key.segment_size <= MAX_TRANSMIT_SIZE
    }
}

impl SegmentKey {
    /// Where to look for a transmit with this key: the parts that differ between keys, mixed a little.
    fn place(&self) -> usize {
        let port = self.to.map_or(0, |to| usize::from(to.port()));
        (port ^ (port >> 7) ^ self.segment_size.wrapping_mul(37)) % PLACES
    }
}

/// No transmit.
const NONE: u8 = u8::MAX;
/// Places to look for transmits: a power of two above the number of datagrams, so that few keys share one.
const PLACES: usize = 2 * BATCH;
/// Octets of the longest segment. The kernel refuses what would have to be fragmented after it was cut;
/// this length passes nearly everywhere (the DNS flag day of 2020 settled on it).
const MAX_SEGMENT_SIZE: usize = 1232;
/// Octets of a transmit: until it is cut it is one datagram, whose length has 16 bits.
const MAX_TRANSMIT_SIZE: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A datagram of so many octets to a port of loopback.
    fn key(port: u16, segment_size: usize) -> SegmentKey {
        SegmentKey { to: Some(([127, 0, 0, 1], port).into()), from: None, segment_size }
    }

    /// The datagrams of each transmit.
    fn arrange(keys: &[SegmentKey], use_gso: bool) -> Vec<Vec<u8>> {
        let mut transmits = Transmits::new();
        // What was there before leaves no trace.
        transmits.arrange([key(1, 10); 3].into_iter(), true);
        transmits.arrange(keys.iter().copied(), use_gso);
        (0..transmits.len()).map(|index| transmits.order()[transmits.get(index).1].to_vec()).collect()
    }

    #[test]
    fn equal_lengths_between_the_same_addresses_are_segments() {
        let connected = SegmentKey { to: None, from: None, segment_size: 30 };
        let check = |keys: &[SegmentKey], expected: &[&[u8]]| assert_eq!(arrange(keys, true), expected, "{keys:?}");
        check(&[], &[]);
        check(&[key(1, 30)], &[&[0]]);
        check(&[connected; 3], &[&[0, 1, 2]]);
        check(&[key(1, 30), key(2, 30), key(1, 30), key(1, 31), key(2, 30)], &[&[0, 2], &[1, 4], &[3]]);
        check(&[key(1, MAX_SEGMENT_SIZE + 1); 2], &[&[0], &[1]]);
        // The kernel takes an empty segment for the end.
        check(&[key(1, 0); 2], &[&[0], &[1]]);
    }

    #[test]
    fn transmit_is_no_longer_than_a_datagram() {
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
