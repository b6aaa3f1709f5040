//! Connection IDs that name their worker.
//!
//! ```text
//!     0        2     4             10
//!     │ worker │ tag │ random      │     worker is masked; mask and tag are SipHash-1-3 of the random octets
//! ```
//!
//! The kernel chooses the worker by the addresses of a datagram, and a client may change its address (RFC
//! 9000 section 9). So a worker reads the ID before QUIC does, and passes on datagrams of other workers:
//! QUIC would reply with a stateless reset. Without the key an observer cannot link IDs to a worker or a
//! connection (RFC 9000 section 5.1). The tag detects IDs of other processes.

use std::hash::Hasher;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand::RngExt;
use siphasher::sip::SipHasher13;
use tokio::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionIds {
    key: [u64; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatagramDestination {
    /// The worker with this number.
    Worker(u16),
    /// Any worker: the client chose the ID, because it has none of ours yet.
    Anybody,
    /// Another process issued the ID, or it is noise.
    Foreign,
}

impl ConnectionIds {
    /// The key must be secret.
    pub(super) fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    fn make(self, worker: u16, random: [u8; RANDOM]) -> [u8; LENGTH] {
        let [mask, tag] = self.hash(random);
        let mut id = [0; LENGTH];
        id[..TAG].copy_from_slice(&(worker ^ mask).to_be_bytes());
        id[TAG..RANDOM_AT].copy_from_slice(&tag.to_be_bytes());
        id[RANDOM_AT..].copy_from_slice(&random);
        id
    }

    /// Returns the worker that an ID names, or `None` if this process did not issue it.
    fn worker_of(self, id: &[u8]) -> Option<u16> {
        let (&[one, two, three, four], random) = id.split_first_chunk()?;
        let [mask, tag] = self.hash(random.try_into().ok()?);
        (u16::from_be_bytes([three, four]) == tag).then_some(u16::from_be_bytes([one, two]) ^ mask)
    }

    /// Returns the owner of a datagram (RFC 9000 section 17: position of the ID).
    pub(super) fn destination(self, datagram: &[u8]) -> DatagramDestination {
        let is_long = datagram.first().is_some_and(|first| first & LONG_HEADER != 0);
        if !is_long {
            let worker = datagram.get(1..=LENGTH).and_then(|id| self.worker_of(id));
            return worker.map_or(DatagramDestination::Foreign, DatagramDestination::Worker);
        }
        let length = datagram.get(LONG_ID_LENGTH_AT).map_or(0, |length| usize::from(*length));
        let id = datagram.get(LONG_ID_LENGTH_AT + 1..).and_then(|rest| rest.get(..length));
        id.and_then(|id| self.worker_of(id)).map_or(DatagramDestination::Anybody, DatagramDestination::Worker)
    }

    fn hash(self, random: [u8; RANDOM]) -> [u16; 2] {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(&random);
        let hash = hasher.finish();
        [hash as u16, (hash >> 16) as u16]
    }
}

#[derive(Debug)]
pub(super) struct Generator {
    pub(super) ids: ConnectionIds,
    pub(super) worker: u16,
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.ids.make(self.worker, rand::rng().random()))
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match self.ids.worker_of(id) {
            Some(_) => Ok(()),
            None => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

const LENGTH: usize = RANDOM_AT + RANDOM;

const TAG: usize = 2;

const RANDOM_AT: usize = 4;

const RANDOM: usize = 6;

const LONG_HEADER: u8 = 0x80;

const LONG_ID_LENGTH_AT: usize = 5;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn datagram(id: &[u8], is_long: bool) -> Vec<u8> {
        let header: &[u8] = if is_long { &[0xc0, 0, 0, 0, 1, id.len() as u8] } else { &[0x40] };
        [header, id, &[7; 30]].concat()
    }

    #[test]
    fn an_id_names_its_worker_to_who_has_the_key() {
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let ids = ConnectionIds::new(rng.random());
            let worker: u16 = rng.random_range(0..1024);
            let id = ids.make(worker, rng.random());
            for is_long in [false, true] {
                let found = ids.destination(&datagram(&id, is_long));
                assert_eq!(found, DatagramDestination::Worker(worker), "seed {seed}");
            }
        }
    }

    #[test]
    fn without_the_key_an_id_says_nothing() {
        let mut rng = StdRng::seed_from_u64(7);
        let ids = ConnectionIds::new(rng.random());
        let other = ConnectionIds::new(rng.random());
        let made: Vec<_> = (0..4_000).map(|_| ids.make(3, rng.random())).collect();
        // One of 65,536 IDs of another process passes the tag check, and then names any worker.
        let taken = made.iter().filter(|id| other.worker_of(&id[..]).is_some()).count();
        assert!(taken <= 2, "{taken} of {}", made.len());
        // The first byte of a worker's IDs takes all 256 values.
        let mut seen = [0_u32; 256];
        made.iter().for_each(|id| seen[usize::from(id[1])] += 1);
        assert!(seen.iter().all(|count| (1..60).contains(count)), "{seen:?}");
    }

    #[test]
    fn whatever_comes_has_a_destination() {
        let ids = ConnectionIds::new([1, 2]);
        for (octets, expected) in [
            (&[][..], DatagramDestination::Foreign),
            (&[0x40], DatagramDestination::Foreign),
            (&[0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9], DatagramDestination::Foreign),
            (&[0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], DatagramDestination::Foreign),
            (&[0xc0], DatagramDestination::Anybody),
            (&[0xc0, 0, 0, 0, 1, 8, 1, 2, 3], DatagramDestination::Anybody),
            (&[0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8], DatagramDestination::Anybody),
            (&[0xc0, 0, 0, 0, 1, 255, 1], DatagramDestination::Anybody),
        ] {
            assert_eq!(ids.destination(octets), expected, "{octets:?}");
        }
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut octets = vec![0; rng.random_range(0..64)];
            octets.iter_mut().for_each(|octet| *octet = rng.random());
            ids.destination(&octets);
        }
    }
}
