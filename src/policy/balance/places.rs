//! Where names are at home in a pool of thousands: a table of places, each with the member that has thrown best for it.
//!
//! It is looked up like the table of Maglev, and filled like a rendezvous hash, so that a member that comes takes places and one that
//! goes leaves its own, and no other place changes hands. Maglev's own way of filling moves a few more.
//!
//! To ask every member for its throw at every place would be 300 million throws. So each member throws darts, one after the other, at places
//! that only its identity says; a member of twice the weight throws twice as often. A place belongs to whoever has hit it first. Darts
//! beyond the moment at which all places were hit change nothing, and are not thrown.

use super::Member;
use super::rendezvous::mix;
use crate::policy::candidates::BackendIndex;

/// The homes of names.
#[derive(Clone, Debug)]
pub(super) struct Places(Box<[BackendIndex]>);

impl Places {
    /// The places of these members; none, if there are none.
    pub(super) fn new(members: &[Member]) -> Self {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        if total == 0 {
            return Self(Box::default());
        }
        let mut hits = vec![Hit { time: f64::INFINITY, member: u16::MAX }; PLACES];
        let mut throwers: Vec<Thrower> = members.iter().map(Thrower::new).collect();
        let mut free = PLACES;
        // Of places that get `throws` darts each on average, one in e^throws gets none.
        let mut throws = FIRST_THROWS;
        while free > 0 {
            let end = throws / total as f64;
            for (number, thrower) in throwers.iter_mut().enumerate() {
                while let Some((time, place)) = thrower.next_before(end) {
                    let hit = &mut hits[place];
                    if time < hit.time {
                        free -= usize::from(hit.time == f64::INFINITY);
                        *hit = Hit { time, member: number as u16 };
                    }
                }
            }
            throws += MORE_THROWS;
        }
        Self(hits.iter().map(|hit| members[usize::from(hit.member)].backend).collect())
    }

    /// Whose the place is that a name comes to at this step: first its home, then others by chance.
    pub(super) fn at(&self, name: u64, step: u64) -> Option<BackendIndex> {
        let place = u128::from(mix(name.wrapping_add(step.wrapping_mul(STRIDE)))) * self.0.len() as u128;
        self.0.get((place >> 64) as usize).copied()
    }
}

/// Who has hit a place first.
#[derive(Clone, Copy)]
struct Hit {
    time: f64,
    member: u16,
}

/// A member that throws darts.
struct Thrower {
    /// What its darts depend on.
    seed: u64,
    /// How long it takes for one, on average.
    pace: f64,
    /// How many it has thrown.
    thrown: u64,
    /// The next one: when it hits, and which place.
    next: (f64, usize),
}

impl Thrower {
    fn new(member: &Member) -> Self {
        let mut thrower = Self {
            seed: mix(member.identity),
            pace: 1.0 / (f64::from(member.weight) * PLACES as f64),
            thrown: 0,
            next: (0.0, 0),
        };
        thrower.aim();
        thrower
    }

    /// The next dart, if it hits before this time.
    fn next_before(&mut self, end: f64) -> Option<(f64, usize)> {
        let next = self.next;
        (next.0 < end).then(|| {
            self.thrown += 1;
            self.aim();
            next
        })
    }

    /// Says when the next dart hits which place: at a moment by chance within the time that it has for one.
    fn aim(&mut self) {
        let dart = mix(self.seed ^ self.thrown.wrapping_mul(STRIDE));
        let part = (dart >> 32) as f64 / (1_u64 << 32) as f64;
        self.next = ((self.thrown as f64 + part) * self.pace, (((dart & 0xFFFF_FFFF) * PLACES as u64) >> 32) as usize);
    }
}

/// How many there are: a prime above 2^16. Each of 5,000 members has 13 on average, and four times out of five between 8 and 18.
pub(super) const PLACES: usize = 65_537;

/// Darts for each place after which it is looked whether all were hit, nearly always; and then again after so many more.
const FIRST_THROWS: f64 = 12.0;
const MORE_THROWS: f64 = 2.0;

/// An odd number whose multiples are spread over all of 64 bits: 2^64 by the golden ratio.
pub(super) const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
