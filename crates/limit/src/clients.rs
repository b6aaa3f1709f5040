//! Counts of waiting queries and TCP connections of each client.
//!
//! A client is an IPv4 address or an IPv6 /56, the size that one customer gets (RFC 6177 section 2). All
//! workers share a table of fixed size. A client that holds something has a place, a word in a set of eight
//! in one cache line:
//!
//! ```text
//!     bits 63..38   tag: part of the hash of the client, never 0
//!     bits 37..18   TCP connections
//!     bits 17..0    queries that wait
//! ```
//!
//! 1. The hash of a client gives a first and a second set. The second is used only if the first is full.
//! 2. A client with a place there counts on it, up to its limit. Another client takes a word with zero
//!    counts.
//! 3. A word in use never changes its client. The number of the place gives a count back.
//! 4. A client that finds both sets full is admitted and not counted, because other clients' use is no reason
//!    to refuse it.
//!
//! # Errors of the counts
//!
//! The table has [`ROOM`] words for each client. With the maximum of other clients:
//!
//! - *A client is refused because of another's counts*, with the same tag and set: one client in 30 million.
//! - *A client gets up to twice its limit*, if its first set was full and is not any more: one in 900.
//! - *A client is not counted*, if both of its sets are full: one in 800,000.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::sets::WordSets;
use super::zones::{ZonePlaces, ZoneWaits};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// The kinds of things that a client's counts cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// A query that waits for backends.
    Waiting,
    /// A TCP connection.
    Connection,
}

impl Holding {
    const fn shift(self) -> u32 {
        match self {
            Self::Waiting => 0,
            Self::Connection => WAITING_BITS,
        }
    }

    /// Returns the maximum count.
    pub(crate) const fn most(self) -> u32 {
        match self {
            Self::Waiting => (1 << WAITING_BITS) - 1,
            Self::Connection => (1 << CONNECTION_BITS) - 1,
        }
    }

    const fn of(self, word: u64) -> u32 {
        (word >> self.shift()) as u32 & self.most()
    }

    const fn one(self) -> u64 {
        1 << self.shift()
    }
}

/// The limits of waiting queries, `[forwarder.limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitRules {
    /// The limit of one client.
    pub waiting: u32,
    /// The limit of all clients together.
    pub in_flight: u32,
    /// The limit of the names below one suffix; `None` is half of `in_flight`.
    pub per_zone: Option<u32>,
}

impl WaitRules {
    /// Returns the limit of the names below one suffix; `None` if it is never reached.
    pub fn per_zone(self) -> Option<u32> {
        // Half: a flood for one zone whose servers are dead leaves the other half to all other zones.
        Some(self.per_zone.unwrap_or(self.in_flight / 2)).filter(|most| *most < self.in_flight)
    }

    /// Returns the rules for a backlog: half of all places for one client, so that other clients find room.
    pub fn for_backlog(self) -> Self {
        Self { waiting: self.waiting.max(self.in_flight / 2), ..self }
    }
}

impl Default for WaitRules {
    /// Far more than a caching resolver has out at a time; the total fits in some 40 MB.
    fn default() -> Self {
        Self { waiting: 1_000, in_flight: 100_000, per_zone: None }
    }
}

/// The limit that keeps a query from waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// The limit of its client.
    OfClient,
    /// The limit of all clients together.
    InAll,
    /// The limit of the names below one suffix.
    OfZone,
}

/// The place where one thing that a client holds is counted until it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not given back is held for ever"]
pub struct ClientPlace([u8; 3]);

impl ClientPlace {
    /// The place of things that are not counted.
    pub const UNCOUNTED: Self = Self([u8::MAX; 3]);

    fn new(number: usize) -> Self {
        let [a, b, c, ..] = number.to_le_bytes();
        Self([a, b, c])
    }

    fn number(&self) -> usize {
        let [a, b, c] = self.0;
        u32::from_le_bytes([a, b, c, 0]) as usize
    }
}

/// The table of all clients' counts.
#[derive(Debug)]
pub struct Clients {
    state: FixedState,
    sets: WordSets<WAYS>,
    waiting: Alone,
    zones: ZoneWaits,
}

impl Clients {
    /// Creates a table for this number of simultaneous clients: 32 to 64 bytes each. `seed` is secret.
    pub fn new(clients: usize, seed: u64) -> Self {
        let sets = (clients.min(MAX_CLIENTS) * ROOM).div_ceil(WAYS).max(1).next_power_of_two();
        let (state, sets) = (FixedState::with_seed(seed), WordSets::new(sets));
        Self { state, sets, waiting: Alone::default(), zones: ZoneWaits::new(clients) }
    }

    /// Returns the counts of waiting queries below suffixes.
    pub fn zones(&self) -> &ZoneWaits {
        &self.zones
    }

    /// Counts one more waiting query of a client, for a name below these suffixes, if the rules permit it;
    /// [`end_wait`](Self::end_wait) gives it back.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn wait(&self, client: IpAddr, zones: ZonePlaces, rules: WaitRules) -> Result<ClientPlace, TooMuch> {
        let place = self.take(client, Holding::Waiting, rules.waiting).ok_or(TooMuch::OfClient)?;
        if !self.zones.take(zones, rules.per_zone().unwrap_or(u32::MAX)) {
            self.give_back(place, Holding::Waiting);
            return Err(TooMuch::OfZone);
        }
        if self.waiting.0.fetch_add(1, Relaxed) < u64::from(rules.in_flight) {
            return Ok(place);
        }
        self.end_wait(place, zones);
        Err(TooMuch::InAll)
    }

    /// Counts a waiting query without a client, regardless of the rules.
    pub fn wait_regardless(&self, zones: ZonePlaces) -> ClientPlace {
        self.zones.take(zones, u32::MAX);
        self.waiting.0.fetch_add(1, Relaxed);
        ClientPlace::UNCOUNTED
    }

    /// Ends the wait of a query.
    pub fn end_wait(&self, place: ClientPlace, zones: ZonePlaces) {
        self.zones.give_back(zones);
        self.give_back(place, Holding::Waiting);
        self.waiting.0.fetch_sub(1, Relaxed);
    }

    /// Returns the number of waiting queries of all clients.
    pub fn waiting(&self) -> u64 {
        self.waiting.0.load(Relaxed)
    }

    /// Counts one more thing of a client, unless it holds `limit` of them.
    pub fn take(&self, client: IpAddr, what: Holding, limit: u32) -> Option<ClientPlace> {
        let limit = limit.min(what.most());
        let hash = self.hash(client);
        let tag = (hash >> TAG_SHIFT).max(1);
        for set in [hash as usize, (hash >> SECOND_SHIFT) as usize].map(|set| set & (self.sets.len() - 1)) {
            match self.take_in(set, tag, what, limit) {
                PlaceGrant::Place(place) => return Some(place),
                PlaceGrant::Refused => return None,
                PlaceGrant::Full => {}
            }
        }
        (limit > 0).then_some(ClientPlace::UNCOUNTED)
    }

    /// Gives back one thing that was counted at a place.
    pub fn give_back(&self, place: ClientPlace, what: Holding) {
        let Some(word) = self.word(&place) else { return };
        let before = word.fetch_sub(what.one(), Relaxed);
        debug_assert!(what.of(before) > 0, "what is given back was taken");
    }

    /// Returns the count of a place's client; 1 if it is not counted.
    pub fn held(&self, place: &ClientPlace, what: Holding) -> u32 {
        self.word(place).map_or(1, |word| what.of(word.load(Relaxed)))
    }

    /// Counts one more connection of a client while the value lives, unless it has `limit` of them.
    pub fn connect(self: &Arc<Self>, client: IpAddr, limit: u32) -> Option<ClientConnection> {
        let place = self.take(client, Holding::Connection, limit)?;
        Some(ClientConnection { clients: Arc::clone(self), place })
    }

    /// Returns the total of all clients, by a walk over the whole table.
    pub fn total(&self, what: Holding) -> u64 {
        self.sets.words().iter().map(|word| u64::from(what.of(word.load(Relaxed)))).sum()
    }

    /// Returns the constant size in bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.sets.len() * size_of::<[AtomicU64; WAYS]>()
    }

    fn take_in(&self, set: usize, tag: u64, what: Holding, limit: u32) -> PlaceGrant {
        let Some(words) = self.sets.get(set) else { return PlaceGrant::Full };
        loop {
            let seen = words.each_ref().map(|word| word.load(Relaxed));
            let own = seen.iter().position(|word| word >> TAG_SHIFT == tag);
            let Some(way) = own.or_else(|| seen.iter().position(|word| word & COUNTS == 0)) else {
                return PlaceGrant::Full;
            };
            let before = seen[way];
            let counts = if own.is_some() { before & COUNTS } else { 0 };
            if what.of(counts) >= limit {
                return PlaceGrant::Refused;
            }
            let after = tag << TAG_SHIFT | (counts + what.one());
            if words[way].compare_exchange_weak(before, after, Relaxed, Relaxed).is_ok() {
                return PlaceGrant::Place(ClientPlace::new(set * WAYS + way));
            }
        }
    }

    fn word(&self, place: &ClientPlace) -> Option<&AtomicU64> {
        self.sets.words().get(place.number())
    }

    /// Returns the keyed hash of a client, with unpredictable collisions.
    pub fn hash(&self, client: IpAddr) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(match client.to_canonical() {
            IpAddr::V4(address) => IPV4 | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> (128 - IPV6_PREFIX)) as u64,
        });
        hasher.finish()
    }
}

/// A counted connection; dropping it ends the count.
#[derive(Debug)]
pub struct ClientConnection {
    clients: Arc<Clients>,
    place: ClientPlace,
}

impl ClientConnection {
    /// Returns the number of the client's connections.
    pub fn siblings(&self) -> u32 {
        self.clients.held(&self.place, Holding::Connection)
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        let place = std::mem::replace(&mut self.place, ClientPlace::UNCOUNTED);
        self.clients.give_back(place, Holding::Connection);
    }
}

enum PlaceGrant {
    Place(ClientPlace),
    Refused,
    Full,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Alone(AtomicU64);

const WAYS: usize = if cfg!(loom) { 2 } else { 8 };

/// The words for each client: sets of eight are then a quarter full, and hardly any is full.
const ROOM: usize = 4;

/// The maximum of clients with room, in 32 MiB. With more waiting queries, more find both sets full.
const MAX_CLIENTS: usize = 1 << 20;

const WAITING_BITS: u32 = 18;

/// More connections than a process may have descriptors.
const CONNECTION_BITS: u32 = 20;

const TAG_SHIFT: u32 = WAITING_BITS + CONNECTION_BITS;

const COUNTS: u64 = (1 << TAG_SHIFT) - 1;

/// Above the tag's bits, so that clients with equal tag and first set differ in the second.
const SECOND_SHIFT: u32 = 19;

const IPV6_PREFIX: u32 = 56;

const IPV4: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::thread;

    use proptest::prelude::*;

    use super::Holding::{Connection, Waiting};
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Returns a forged source address.
    fn forged(number: u32) -> IpAddr {
        match number % 2 {
            0 => Ipv4Addr::from_bits(0x0B00_0000 + number).into(),
            _ => Ipv6Addr::from_bits(u128::from(number) << 72 | 0x2001 << 112).into(),
        }
    }

    #[test]
    fn a_client_holds_up_to_its_limit() {
        for what in [Waiting, Connection] {
            for limit in [0, 1, 7, 1_000] {
                let clients = Clients::new(16, 1);
                let client = ip("192.0.2.1");
                let mut places: Vec<_> = (0..limit).filter_map(|_| clients.take(client, what, limit)).collect();
                assert_eq!(places.len(), limit as usize);
                assert_eq!(clients.take(client, what, limit), None);
                let Some(place) = places.pop() else { continue };
                assert_eq!(clients.held(&place, what), limit);
                clients.give_back(place, what);
                let again = clients.take(client, what, limit).expect("one was given back");
                assert_eq!(clients.take(client, what, limit), None);
                places.push(again);
                places.into_iter().for_each(|place| clients.give_back(place, what));
                assert_eq!(clients.total(what), 0);
            }
        }
    }

    #[test]
    fn queries_wait_within_both_limits() {
        let clients = Clients::new(16, 1);
        let rules = WaitRules { waiting: 2, in_flight: 3, per_zone: None };
        let wait = |client| clients.wait(ip(client), ZonePlaces::NONE, rules);
        let places: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(wait).into_iter().flatten().collect();
        assert_eq!(places.len(), 3);
        assert_eq!(wait("192.0.2.1"), Err(TooMuch::OfClient));
        assert_eq!([wait("192.0.2.2"), wait("192.0.2.3")], [Err(TooMuch::InAll); 2]);
        assert_eq!((clients.waiting(), clients.total(Waiting)), (3, 3), "who was refused holds nothing");
        places.into_iter().for_each(|place| clients.end_wait(place, ZonePlaces::NONE));
        assert_eq!((clients.waiting(), clients.total(Waiting)), (0, 0));
        assert!(wait("192.0.2.3").is_ok());
    }

    #[test]
    fn what_is_counted_does_not_mix() {
        let clients = Clients::new(16, 1);
        let client = ip("192.0.2.1");
        let query = clients.take(client, Waiting, 1).expect("it holds none");
        let connection = clients.take(client, Connection, 1).expect("it holds none");
        assert_eq!([clients.take(client, Waiting, 1), clients.take(client, Connection, 1)], [None, None]);
        clients.give_back(query, Waiting);
        assert_eq!([clients.total(Waiting), clients.total(Connection)], [0, 1]);
        assert_eq!(clients.take(client, Connection, 1), None);
        clients.give_back(connection, Connection);
        assert!(clients.take(client, Connection, 1).is_some());
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_the_first_56_bits_of_an_ipv6_address() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8:0:ff::1", true),
            ("2001:db8::1", "2001:db8:0:100::1", false),
            ("0.0.2.1", "::", false),
        ] {
            let clients = Clients::new(1_024, 1);
            assert!(clients.take(ip(one), Waiting, 1).is_some());
            assert_eq!(clients.take(ip(other), Waiting, 1).is_none(), is_same, "{one} {other}");
        }
    }

    #[test]
    fn a_connection_counts_until_it_is_dropped() {
        let clients = Arc::new(Clients::new(16, 1));
        let client = ip("2001:db8::1");
        let first = clients.connect(client, 2).expect("it has none");
        let second = clients.connect(client, 2).expect("it has one");
        assert_eq!((first.siblings(), clients.connect(client, 2).is_none()), (2, true));
        drop(second);
        assert_eq!(first.siblings(), 1);
        drop(first);
        assert_eq!(clients.total(Connection), 0);
    }

    #[test]
    fn a_full_table_refuses_nobody_and_counts_no_stranger() {
        let clients = Clients::new(1, 1);
        let places: Vec<_> = (0..1_000).map(|number| clients.take(forged(number), Waiting, 1)).collect();
        assert!(places.iter().all(Option::is_some), "unproven clients block no other client");
        assert_eq!(clients.total(Waiting), WAYS as u64);
        places.into_iter().flatten().for_each(|place| clients.give_back(place, Waiting));
        assert_eq!(clients.total(Waiting), 0);
        assert_eq!(clients.take(ip("192.0.2.1"), Waiting, 0), None, "nothing at all is allowed");
    }

    /// One million forged sources come in turn, each up to the total limit of waiting queries.
    #[test]
    fn a_million_forged_sources_take_nothing_from_a_true_client() {
        const IN_FLIGHT: usize = 100_000;
        const LIMIT: u32 = 1_000;
        let clients = Clients::new(IN_FLIGHT, 7);
        let size = clients.size();
        let client = ip("192.0.2.1");
        let half: Vec<_> = (0..LIMIT / 2).map(|_| clients.take(client, Waiting, LIMIT)).collect();
        let mut waiting = std::collections::VecDeque::new();
        let (mut refused, mut uncounted) = (0, 0);
        for number in 0..1_000_000 {
            match clients.take(forged(number), Waiting, LIMIT) {
                Some(place) => {
                    uncounted += usize::from(place == ClientPlace::UNCOUNTED);
                    waiting.push_back(place);
                }
                None => refused += 1,
            }
            if waiting.len() > IN_FLIGHT {
                let oldest = waiting.pop_front().expect("there are some");
                clients.give_back(oldest, Waiting);
            }
        }
        assert_eq!((refused, clients.size()), (0, size));
        assert!(uncounted <= 1, "{uncounted} of a million were not counted");
        let rest: Vec<_> = (0..LIMIT).map_while(|_| clients.take(client, Waiting, LIMIT)).collect();
        assert_eq!(half.len() + rest.len(), LIMIT as usize, "neither less than its limit nor more");
        let all = half.into_iter().flatten().chain(rest).chain(waiting);
        all.for_each(|place| clients.give_back(place, Waiting));
        assert_eq!(clients.total(Waiting), 0);
    }

    /// Measures the share of full sets in a table at its limit.
    #[test]
    fn a_table_as_full_as_it_can_be_has_hardly_a_full_set() {
        let clients = Clients::new(1 << 17, 3);
        for number in 0..1 << 17 {
            let place = clients.take(forged(number), Waiting, 1).expect("no client holds a place");
            assert_ne!(place, ClientPlace::UNCOUNTED);
        }
        let sets = clients.sets.words().chunks_exact(WAYS);
        let full = sets.filter(|set| set.iter().all(|word| word.load(Relaxed) & COUNTS > 0)).count();
        assert!(full * 500 < clients.sets.len(), "{full} of {}", clients.sets.len());
    }

    #[test]
    fn many_threads_neither_exceed_the_limit_nor_lose_a_place() {
        const LIMIT: u32 = 50;
        let clients = &Clients::new(64, 5);
        let held = &[0; 3].map(|_| AtomicU64::new(0));
        thread::scope(|scope| {
            for thread in 0..4_u32 {
                scope.spawn(move || {
                    let mut own = Vec::new();
                    for turn in 0..20_000_u32 {
                        let client = (turn + thread) as usize % held.len();
                        if let Some(place) = clients.take(forged(client as u32), Waiting, LIMIT) {
                            let before = held[client].fetch_add(1, Relaxed);
                            assert!(before < u64::from(LIMIT), "{before} before this one");
                            own.push((client, place));
                        }
                        if own.len() > 60 || turn % 7 == 0 {
                            for (client, place) in own.drain(..) {
                                held[client].fetch_sub(1, Relaxed);
                                clients.give_back(place, Waiting);
                            }
                        }
                    }
                    own.into_iter().for_each(|(client, place)| {
                        held[client].fetch_sub(1, Relaxed);
                        clients.give_back(place, Waiting);
                    });
                });
            }
        });
        assert_eq!(clients.total(Waiting), 0);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_plain_map(
            steps in prop::collection::vec((0..12_u32, any::<bool>(), any::<bool>()), 1..300),
            seed in any::<u64>(),
        ) {
            const LIMIT: u32 = 4;
            let clients = Clients::new(512, seed);
            let mut known: Vec<(u32, Holding, ClientPlace)> = Vec::new();
            for (number, is_connection, is_return) in steps {
                let what = if is_connection { Connection } else { Waiting };
                let is_same = |held: &(u32, Holding, ClientPlace)| held.0 == number && held.1 == what;
                if is_return {
                    if let Some(at) = known.iter().position(is_same) {
                        clients.give_back(known.swap_remove(at).2, what);
                    }
                    continue;
                }
                let before = known.iter().filter(|held| is_same(held)).count();
                let place = clients.take(forged(number), what, LIMIT);
                prop_assert_eq!(place.is_some(), before < LIMIT as usize);
                known.extend(place.map(|place| (number, what, place)));
            }
            for what in [Waiting, Connection] {
                prop_assert_eq!(clients.total(what), known.iter().filter(|held| held.1 == what).count() as u64);
            }
        }
    }
}
