//! The homes of names in a pool of thousands: a table like that of Maglev, filled like a rendezvous hash.
//! Each member throws darts at places that depend on its identity, as often as its weight says, and the first
//! dart wins a place.

use super::BalanceMember;
use super::rendezvous::mix;
use crate::candidates::BackendIndex;

#[derive(Clone, Debug)]
pub(super) struct BackendPlaces(Box<[BackendIndex]>);

impl BackendPlaces {
    pub(super) fn new(members: &[BalanceMember]) -> Self {
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

    pub(super) fn at(&self, name: u64, step: u64) -> Option<BackendIndex> {
        let place = u128::from(mix(name.wrapping_add(step.wrapping_mul(STRIDE)))) * self.0.len() as u128;
        self.0.get((place >> 64) as usize).copied()
    }
}

#[derive(Clone, Copy)]
struct Hit {
    time: f64,
    member: u16,
}

struct Thrower {
    seed: u64,
    pace: f64,
    thrown: u64,
    next: (f64, usize),
}

impl Thrower {
    fn new(member: &BalanceMember) -> Self {
        let mut thrower = Self {
            seed: mix(member.identity),
            pace: 1.0 / (f64::from(member.weight) * PLACES as f64),
            thrown: 0,
            next: (0.0, 0),
        };
        thrower.aim();
        thrower
    }

    fn next_before(&mut self, end: f64) -> Option<(f64, usize)> {
        let next = self.next;
        (next.0 < end).then(|| {
            self.thrown += 1;
            self.aim();
            next
        })
    }

    fn aim(&mut self) {
        let dart = mix(self.seed ^ self.thrown.wrapping_mul(STRIDE));
        let part = (dart >> 32) as f64 / (1_u64 << 32) as f64;
        self.next = ((self.thrown as f64 + part) * self.pace, (((dart & 0xFFFF_FFFF) * PLACES as u64) >> 32) as usize);
    }
}

/// A prime above 2^16. Each of 5,000 members has 13 places on average, and usually 8 to 18.
pub(super) const PLACES: usize = 65_537;

/// Darts per place before the first check (nearly always enough) and before each further one.
const FIRST_THROWS: f64 = 12.0;
const MORE_THROWS: f64 = 2.0;

/// 2^64 divided by the golden ratio, an odd number whose multiples are spread over all of 64 bits.
pub(super) const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
