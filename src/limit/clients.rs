//! What each client holds at present: queries that wait, and TCP connections.
//!
//! A client is an IPv4 address or an IPv6 /56, which is what one customer gets (RFC 6177 section 2): addresses below that cost
//! nothing. The table has a fixed size, and all workers share it. A client that holds something has a place, a word in a set of
//! eight that share a cache line:
//!
//! ```text
//!     bits 63..38   tag: part of the hash of the client, never 0
//!     bits 37..18   TCP connections
//!     bits 17..0    queries that wait
//! ```
//!
//! 1. The hash of a client gives a first set and a second. Only if the first is full is the second looked at.
//! 2. Who has a place there already gets one more on it, up to its limit. Who has none takes a word that holds nothing.
//! 3. A word that holds something is never given to another. What is taken is given back by the number of its place, so
//!    nothing is looked for then, and nothing can be given back to the wrong client.
//! 4. Who finds both sets full is let in and not counted: strangers who happen to stand there are no reason to refuse anybody.
//!
//! # What may be wrong with the counts
//!
//! A forged source has a place for as long as it holds something, so there can be no more of them than queries that may wait in
//! all. The table has [`ROOM`] words for each of those, and the hash is keyed, so that nobody chooses whom to meet. With as many
//! strangers as there can be:
//!
//! - *A client is refused for what a stranger holds*, if that has the same tag in the same set: one client in 30 million. It then
//!   shares its limit with one stranger.
//! - *A client gets more than its limit*, up to twice of it, if its first set was full and is no longer: one in 900.
//! - *A client is not counted*, if both of its sets are full: one in 800,000.
//!
//! Two workers that let the same new client in at the same moment see to it that it has one place, unless another client gives its
//! own back in the same set just then: again that client may get twice the limit, until it holds nothing.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::quality::FixedState;

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// What a client may hold several of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// A query that waits for backends.
    Waiting,
    /// A TCP connection, and whatever runs on one.
    Connection,
}

impl Holding {
    /// Where the count of these begins in a word.
    const fn shift(self) -> u32 {
        match self {
            Self::Waiting => 0,
            Self::Connection => WAITING_BITS,
        }
    }

    /// The most that can be counted of these.
    pub const fn most(self) -> u32 {
        match self {
            Self::Waiting => (1 << WAITING_BITS) - 1,
            Self::Connection => (1 << CONNECTION_BITS) - 1,
        }
    }

    /// How many of these a word counts.
    const fn of(self, word: u64) -> u32 {
        (word >> self.shift()) as u32 & self.most()
    }

    /// One of these, as it stands in a word.
    const fn one(self) -> u64 {
        1 << self.shift()
    }
}

/// How many queries may wait, `[forwarder.limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitRules {
    /// Of one client.
    pub waiting: u32,
    /// Of all clients.
    pub in_flight: u32,
}

impl WaitRules {
    /// Returns the rules for a backlog: half of all places for one client, so that others find room.
    pub fn for_backlog(self) -> Self {
        Self { waiting: self.waiting.max(self.in_flight / 2), ..self }
    }
}

impl Default for WaitRules {
    /// Far more than a resolver with a cache has out at a time, and in all what some 40 MB hold.
    fn default() -> Self {
        Self { waiting: 1_000, in_flight: 100_000 }
    }
}

/// Why a query may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// Its client has as many that wait as it may.
    OfClient,
    /// So have all clients together.
    InAll,
}

/// Where one thing that a client holds is counted, until it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not given back is held for ever"]
pub struct Place([u8; 4]);

impl Place {
    /// Of what is held but not counted.
    pub const UNCOUNTED: Self = Self(u32::MAX.to_ne_bytes());

    /// The word of this number.
    fn new(number: usize) -> Self {
        Self((number as u32).to_ne_bytes())
    }

    /// The number of the word.
    fn number(&self) -> usize {
        u32::from_ne_bytes(self.0) as usize
    }
}

/// What all clients hold.
#[derive(Debug)]
pub struct Clients {
    /// Keeps others from choosing who shares a set with whom.
    state: FixedState,
    /// The places, a power of two of sets.
    sets: Box<[Set]>,
    /// Queries that wait, of all clients.
    waiting: Alone,
}

impl Clients {
    /// A table for so many clients that hold something at a time: 32 to 64 octets for each. `seed` comes from the operating
    /// system and is nobody else's to know.
    pub fn new(clients: usize, seed: u64) -> Self {
        let sets = (clients.min(MAX_CLIENTS) * ROOM).div_ceil(WAYS).max(1).next_power_of_two();
        let sets = (0..sets).map(|_| Set::default()).collect();
        Self { state: FixedState::with_seed(seed), sets, waiting: Alone::default() }
    }

    /// Lets one more query of a client wait, if that is within the rules. What it is given is given back by
    /// [`end_wait`](Self::end_wait).
    ///
    /// # Errors
    /// If it is not.
    pub fn wait(&self, client: IpAddr, rules: WaitRules) -> Result<Place, TooMuch> {
        let place = self.take(client, Holding::Waiting, rules.waiting).ok_or(TooMuch::OfClient)?;
        if self.waiting.0.fetch_add(1, Relaxed) < u64::from(rules.in_flight) {
            return Ok(place);
        }
        self.end_wait(place);
        Err(TooMuch::InAll)
    }

    /// Lets a query wait that is no client's, whatever the rules.
    pub fn wait_regardless(&self) -> Place {
        self.waiting.0.fetch_add(1, Relaxed);
        Place::UNCOUNTED
    }

    /// A query waits no more.
    pub fn end_wait(&self, place: Place) {
        self.give_back(place, Holding::Waiting);
        self.waiting.0.fetch_sub(1, Relaxed);
    }

    /// Queries that wait, of all clients.
    pub fn waiting(&self) -> u64 {
        self.waiting.0.load(Relaxed)
    }

    /// Counts one more thing that a client holds, unless it holds `limit` of them already.
    pub fn take(&self, client: IpAddr, what: Holding, limit: u32) -> Option<Place> {
        let limit = limit.min(what.most());
        let hash = self.hash(client);
        let tag = (hash >> TAG_SHIFT).max(1);
        for set in [hash as usize, (hash >> SECOND_SHIFT) as usize].map(|set| set & (self.sets.len() - 1)) {
            match self.take_in(set, tag, what, limit) {
                Taken::Place(place) => return Some(place),
                Taken::Refused => return None,
                Taken::Full => {}
            }
        }
        (limit > 0).then_some(Place::UNCOUNTED)
    }

    /// Gives back one thing that was held at a place.
    pub fn give_back(&self, place: Place, what: Holding) {
        let Some(word) = self.word(&place) else { return };
        let before = word.fetch_sub(what.one(), Relaxed);
        debug_assert!(what.of(before) > 0, "what is given back was taken");
    }

    /// How many of these the client of a place holds. Of one that is not counted: 1.
    pub fn held(&self, place: &Place, what: Holding) -> u32 {
        self.word(place).map_or(1, |word| what.of(word.load(Relaxed)))
    }

    /// Counts one more connection of a client for as long as the value lives, unless it has `limit` of them.
    pub fn connect(self: &Arc<Self>, client: IpAddr, limit: u32) -> Option<Connected> {
        let place = self.take(client, Holding::Connection, limit)?;
        Some(Connected { clients: Arc::clone(self), place })
    }

    /// How many things all clients hold: a walk over the whole table, for tests and for who is curious.
    pub fn total(&self, what: Holding) -> u64 {
        let words = self.sets.iter().flat_map(|set| &set.0);
        words.map(|word| u64::from(what.of(word.load(Relaxed)))).sum()
    }

    /// Octets of memory, which never change.
    pub fn size(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// Tries to count one more thing in one set.
    fn take_in(&self, set: usize, tag: u64, what: Holding, limit: u32) -> Taken {
        let Some(Set(words)) = self.sets.get(set) else { return Taken::Full };
        loop {
            let seen = words.each_ref().map(|word| word.load(Relaxed));
            let own = seen.iter().position(|word| word >> TAG_SHIFT == tag);
            let Some(way) = own.or_else(|| seen.iter().position(|word| word & COUNTS == 0)) else {
                return Taken::Full;
            };
            // What held nothing leaves no more than its tag.
            let before = seen[way];
            let counts = if own.is_some() { before & COUNTS } else { 0 };
            if what.of(counts) >= limit {
                return Taken::Refused;
            }
            let after = tag << TAG_SHIFT | (counts + what.one());
            if words[way].compare_exchange_weak(before, after, Relaxed, Relaxed).is_ok() {
                return Taken::Place(Place::new(set * WAYS + way));
            }
        }
    }

    /// The word of a place, if there is one.
    fn word(&self, place: &Place) -> Option<&AtomicU64> {
        let number = place.number();
        self.sets.get(number / WAYS)?.0.get(number % WAYS)
    }

    /// The keyed hash of a client, by which nobody can tell whom it meets.
    pub fn hash(&self, client: IpAddr) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(match client.to_canonical() {
            IpAddr::V4(address) => IPV4 | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> (128 - IPV6_PREFIX)) as u64,
        });
        hasher.finish()
    }
}

/// A connection that counts, until it is dropped.
#[derive(Debug)]
pub struct Connected {
    /// Where it counts.
    clients: Arc<Clients>,
    /// Its client's place.
    place: Place,
}

impl Connected {
    /// How many connections its client has.
    pub fn siblings(&self) -> u32 {
        self.clients.held(&self.place, Holding::Connection)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let place = std::mem::replace(&mut self.place, Place::UNCOUNTED);
        self.clients.give_back(place, Holding::Connection);
    }
}

/// What came of trying one set.
enum Taken {
    /// It is counted here.
    Place(Place),
    /// The client holds as many as it may.
    Refused,
    /// Others hold all of it.
    Full,
}

/// Eight places that share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// A count that shares its cache line with nothing.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Alone(AtomicU64);

/// Places in a set: what fits in a cache line.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };

/// Words for each client that may hold something: sets of eight are then a quarter full, and hardly any is full.
const ROOM: usize = 4;

/// Clients for which there is room at most, in 32 MiB. Where more queries may wait, more clients may find both sets full.
const MAX_CLIENTS: usize = 1 << 20;

/// Bits of the count of queries that wait.
const WAITING_BITS: u32 = 18;

/// Bits of the count of connections: more than descriptors that a process may have open.
const CONNECTION_BITS: u32 = 20;

/// Where the tag begins.
const TAG_SHIFT: u32 = WAITING_BITS + CONNECTION_BITS;

/// The counts of a word.
const COUNTS: u64 = (1 << TAG_SHIFT) - 1;

/// Where the bits of the hash begin that choose the second set: apart from those of the tag as far as tables go that are
/// usual, for clients with the same tag and the same first set are to part in the second.
const SECOND_SHIFT: u32 = 19;

/// Bits of IPv6 addresses that make a client.
const IPV6_PREFIX: u32 = 56;

/// Tells an IPv4 address from the first bits of an IPv6 address.
const IPV4: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::thread;

    use proptest::prelude::*;

    use super::Holding::{Connection, Waiting};
    use super::*;

    /// An address.
    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A source that somebody made up.
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
        let rules = WaitRules { waiting: 2, in_flight: 3 };
        let wait = |client| clients.wait(ip(client), rules);
        let places: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2"].map(wait).into_iter().flatten().collect();
        assert_eq!(places.len(), 3);
        assert_eq!(wait("192.0.2.1"), Err(TooMuch::OfClient));
        assert_eq!([wait("192.0.2.2"), wait("192.0.2.3")], [Err(TooMuch::InAll); 2]);
        assert_eq!((clients.waiting(), clients.total(Waiting)), (3, 3), "who was refused holds nothing");
        places.into_iter().for_each(|place| clients.end_wait(place));
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
        assert!(places.iter().all(Option::is_some), "strangers stand in nobody's way");
        assert_eq!(clients.total(Waiting), WAYS as u64);
        places.into_iter().flatten().for_each(|place| clients.give_back(place, Waiting));
        assert_eq!(clients.total(Waiting), 0);
        assert_eq!(clients.take(ip("192.0.2.1"), Waiting, 0), None, "nothing at all is allowed");
    }

    /// A million forged sources come one after another, and as many of them hold a query as may wait in all.
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
                    uncounted += usize::from(place == Place::UNCOUNTED);
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

    /// Of all that could stand in the way, how much does.
    #[test]
    fn a_table_as_full_as_it_can_be_has_hardly_a_full_set() {
        let clients = Clients::new(1 << 17, 3);
        for number in 0..1 << 17 {
            let place = clients.take(forged(number), Waiting, 1).expect("nobody holds any");
            assert_ne!(place, Place::UNCOUNTED);
        }
        let is_full = |set: &&Set| set.0.iter().all(|word| word.load(Relaxed) & COUNTS > 0);
        let full = clients.sets.iter().filter(is_full).count();
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
            let mut known: Vec<(u32, Holding, Place)> = Vec::new();
            for (number, is_connection, is_return) in steps {
                let what = if is_connection { Connection } else { Waiting };
                let is_same = |held: &(u32, Holding, Place)| held.0 == number && held.1 == what;
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
