//! GSO, generic segmentation offload (`UDP_SEGMENT`, Linux since 4.18): the kernel gets datagrams of equal
//! length between the same addresses as one, and cuts it into segments at the very end. The last segment may
//! be shorter.
//!
//! The datagrams then pass the network stack only once, which is most of the cost of a small datagram. This
//! file decides which datagrams of a batch share one [`Transmit`] (one `sendmsg`, as in quinn-udp);
//! [`super::batch`] sends them.

use std::mem;
use std::net::SocketAddr;
use std::ops::Range;

use super::batch::{BATCH, LocalAddress};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentKey {
    /// `None` on a connected socket.
    pub(crate) to: Option<SocketAddr>,
    /// The source address; `None` leaves it to the kernel.
    pub(crate) from: Option<LocalAddress>,
    pub(crate) segment_size: usize,
}

pub(crate) struct Transmits {
    transmits: Vec<Transmit>,
    behind: [u8; BATCH],
    newest: [u8; PLACES],
    order: Vec<u8>,
}

/// A unit for the kernel: segments of equal length and maybe a shorter last one, or a single datagram.
struct Transmit {
    key: SegmentKey,
    first: u8,
    last: u8,
    count: u8,
    start: u8,
}

impl Transmits {
    pub(crate) fn new() -> Self {
        const { assert!(BATCH < NONE as usize, "datagrams and transmits are numbered by octets") };
        Self {
            transmits: Vec::with_capacity(BATCH),
            behind: [0; BATCH],
            newest: [NONE; PLACES],
            order: Vec::with_capacity(BATCH),
        }
    }

    /// Arranges the datagrams of a batch, at most [`BATCH`], into transmits; without GSO each gets its own.
    pub(crate) fn arrange(&mut self, keys: impl Iterator<Item = SegmentKey>, use_gso: bool) {
        self.transmits.clear();
        self.newest = [NONE; PLACES];
        for (number, key) in keys.enumerate() {
            self.add(number as u8, key, use_gso);
        }
        if use_gso {
            self.add_tails();
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

    /// Makes single datagrams the last segments of transmits with longer ones.
    fn add_tails(&mut self) {
        self.newest = [NONE; PLACES];
        for number in 0..self.transmits.len() {
            let place = SegmentKey { segment_size: 0, ..self.transmits[number].key }.place();
            let newest = mem::replace(&mut self.newest[place], number as u8);
            let Some([earlier, transmit]) = self.transmits.get_disjoint_mut([newest.into(), number]).ok() else {
                continue;
            };
            let is_longer = earlier.key.segment_size > transmit.key.segment_size;
            let (longer, tail) = if is_longer { (earlier, transmit) } else { (transmit, earlier) };
            if longer.may_end_with(tail) {
                self.behind[usize::from(longer.last)] = tail.first;
                longer.count += 1;
                tail.count = 0;
                self.newest[place] = NONE;
            }
        }
        self.transmits.retain(|transmit| transmit.count > 0);
    }

    pub(crate) fn len(&self) -> usize {
        self.transmits.len()
    }

    pub(crate) fn order(&self) -> &[u8] {
        &self.order
    }

    pub(crate) fn get(&self, index: usize) -> (SegmentKey, Range<usize>) {
        let Transmit { key, start, count, .. } = self.transmits[index];
        (key, usize::from(start)..usize::from(start) + usize::from(count))
    }
}

impl Transmit {
    fn may_end_with(&self, tail: &Self) -> bool {
        let is_shorter = (1..self.key.segment_size).contains(&tail.key.segment_size);
        let is_same_way = (self.key.to, self.key.from) == (tail.key.to, tail.key.from);
        tail.count == 1 && is_shorter && is_same_way && self.has_room()
    }

    fn has_room(&self) -> bool {
        (1..=MAX_SEGMENT_SIZE).contains(&self.key.segment_size)
            && (usize::from(self.count) + 1) * self.key.segment_size <= MAX_TRANSMIT_SIZE
    }
}

impl SegmentKey {
    fn place(&self) -> usize {
        let port = self.to.map_or(0, |to| usize::from(to.port()));
        (port ^ (port >> 7) ^ self.segment_size.wrapping_mul(37)) % PLACES
    }
}

const NONE: u8 = u8::MAX;
/// The size of the hash table: a power of two above the number of datagrams, so that collisions are rare.
const PLACES: usize = 2 * BATCH;
/// The longest segment in bytes. The kernel refuses segments that would need fragmentation; this length fits
/// nearly everywhere (DNS flag day 2020).
const MAX_SEGMENT_SIZE: usize = 1232;
/// The longest transmit in bytes: until it is cut it is one datagram with a 16-bit length.
const MAX_TRANSMIT_SIZE: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the key of a datagram of this size to a port of loopback.
    fn key(port: u16, segment_size: usize) -> SegmentKey {
        SegmentKey { to: Some(([127, 0, 0, 1], port).into()), from: None, segment_size }
    }

    /// Returns the datagrams of each transmit.
    fn arrange(keys: &[SegmentKey], use_gso: bool) -> Vec<Vec<u8>> {
        let mut transmits = Transmits::new();
        // Earlier content leaves no trace.
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
        check(&[key(1, 30), key(2, 30), key(1, 30), key(3, 31), key(2, 30)], &[&[0, 2], &[1, 4], &[3]]);
        check(&[key(1, MAX_SEGMENT_SIZE + 1); 2], &[&[0], &[1]]);
        // The kernel treats an empty segment as the end.
        check(&[key(1, 0); 2], &[&[0], &[1]]);
    }

    #[test]
    fn last_segment_may_be_shorter() {
        let check = |keys: &[SegmentKey], expected: &[&[u8]]| assert_eq!(arrange(keys, true), expected, "{keys:?}");
        check(&[key(1, 30), key(1, 30), key(1, 20)], &[&[0, 1, 2]]);
        check(&[key(1, 20), key(1, 30), key(1, 30)], &[&[1, 2, 0]]);
        // Only one, and only a single one.
        check(&[key(1, 30), key(1, 20), key(1, 10)], &[&[0, 1], &[2]]);
        check(&[key(1, 30), key(1, 20), key(1, 20)], &[&[0], &[1, 2]]);
        check(&[key(1, 30), key(2, 20), key(1, 0)], &[&[0], &[1], &[2]]);
        check(&[key(1, MAX_SEGMENT_SIZE + 1), key(1, 20)], &[&[0], &[1]]);
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
                let first = keys[usize::from(transmit[0])];
                let (tail, like) = transmit.split_last().unwrap();
                prop_assert!(like.is_sorted());
                prop_assert!(like.iter().all(|number| keys[usize::from(*number)] == first));
                let tail = keys[usize::from(*tail)];
                prop_assert!(tail.to == first.to && tail.segment_size <= first.segment_size);
                prop_assert!(transmit.len() == 1 || tail.segment_size > 0);
            }
        }
    }
}
