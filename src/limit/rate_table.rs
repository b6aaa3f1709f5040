//! Accounts of what is sent to whom: a table of fixed size, in sets of eight words that share a cache line. Half of a set is for
//! accounts of whole prefixes, the other for what is told apart of these: accounts of many names displace each other, never
//! that of their prefix.
//!
//! ```text
//!     bits 63..42   tag: part of the hash, never 0
//!     bits 41..38   slips: responses over the rate since the last that slipped
//!     bits 37..0    when all that was sent is paid for, in ticks of 100 us
//! ```
//!
//! If no word of its half is free, a new account takes the one that was paid for first. A flood of forged prefixes so displaces
//! accounts that owe nothing, long before those that owe much, and a new account owes nothing of what strangers do. All workers
//! share the table and nobody waits: two that write to one word at once may count one response for two. Ticks go around after
//! 318 days; an account untouched for so long may owe once.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering::Relaxed};

#[derive(Debug)]
pub(super) struct Accounts {
    /// The beginning of time.
    start: Instant,
    /// The words, a power of two of sets.
    sets: Box<[Set]>,
}

/// Which account is charged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Chooses the set: all accounts with the same share a cache line.
    pub(super) set: u64,
    /// Tells accounts apart, by its upper bits.
    pub(super) tag: u64,
    /// In which half of the set.
    pub(super) half: Half,
}

/// A half of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Of whole prefixes.
    Prefixes,
    /// Of what is told apart of a prefix.
    Parts,
}

/// What becomes of a response, and of the account that it is charged to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict<D> {
    /// What becomes of it.
    pub(super) decision: D,
    /// What the account owes then, in ticks.
    pub(super) owed: u64,
    /// Slips of the account.
    pub(super) slips: u64,
}

impl Accounts {
    /// At least so many, 8 octets each, none of which owes anything.
    pub(super) fn new(accounts: usize, now: Instant) -> Self {
        let sets = accounts.div_ceil(2 * WAYS).next_power_of_two();
        Self { start: now, sets: (0..sets).map(|_| Set::default()).collect() }
    }

    /// Octets of memory, which never change.
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// A time in ticks of this table.
    pub(super) fn ticks_at(&self, now: Instant) -> u64 {
        ticks(now.saturating_duration_since(self.start))
    }

    /// Charges an account at this tick. `judge` is told what it owes and how many slips it has had, and says what becomes of
    /// the response. No more than `most` is ever owed, which is the same for all accounts of a table.
    pub(super) fn charge<D>(&self, key: Key, most: u64, now: u64, judge: impl Fn(u64, u64) -> Verdict<D>) -> D {
        let Set { prefixes, parts } = &self.sets[key.set as usize & (self.sets.len() - 1)];
        let half = match key.half {
            Half::Prefixes => prefixes,
            Half::Parts => parts,
        };
        let tag = (key.tag >> TAG_SHIFT).max(1);
        let mut tried = 0;
        loop {
            let (place, before) = find(half, tag, most, now);
            let is_own = before >> TAG_SHIFT == tag;
            let known = if is_own { (owed(before, most, now), before >> SLIP_SHIFT & SLIPS) } else { (0, 0) };
            let Verdict { decision, owed, slips } = judge(known.0, known.1);
            let paid = (now + owed.min(most)) & TIME;
            let after = tag << TAG_SHIFT | slips.min(SLIPS) << SLIP_SHIFT | paid;
            tried += 1;
            if place.compare_exchange(before, after, Relaxed, Relaxed).is_ok() || tried == TRIES {
                return decision;
            }
        }
    }
}

/// The word of an account and what it says; if there is none, the word that the account is to take.
fn find(half: &[AtomicU64; WAYS], tag: u64, most: u64, now: u64) -> (&AtomicU64, u64) {
    let words = half.each_ref().map(|word| (word, word.load(Relaxed)));
    let own = words.iter().find(|(_, word)| word >> TAG_SHIFT == tag);
    // Free ones first, then who owes least, and of those who owe nothing the one that was paid for first.
    let least = || words.iter().min_by_key(|(_, word)| (*word != 0, owed(*word, most, now), !age(*word, now)));
    *own.or_else(least).unwrap_or(&words[0])
}

/// How many ticks ahead an account is paid for.
fn owed(word: u64, most: u64, now: u64) -> u64 {
    let ahead = (word & TIME).wrapping_sub(now) & TIME;
    // More than there can be is the past.
    if ahead <= most { ahead } else { 0 }
}

/// For how many ticks an account has owed nothing.
fn age(word: u64, now: u64) -> u64 {
    now.wrapping_sub(word) & TIME
}

/// The first bits of an address, as many as make a client of its family, and what tells the families apart.
pub(super) fn prefix_of(client: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> (u128, u8) {
    match client.to_canonical() {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(u32::from(ipv4_prefix.min(32))).unwrap_or(0);
            (u128::from(address.to_bits() & !host), 4)
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(u32::from(ipv6_prefix.min(128))).unwrap_or(0);
            (address.to_bits() & !host, 6)
        }
    }
}

/// So many ticks as a time.
pub(super) fn time(ticks: u64) -> Duration {
    Duration::from_micros(ticks * TICK_MICROS as u64)
}

pub(super) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_micros() / TICK_MICROS).unwrap_or(u64::MAX) & TIME
}

/// Eight accounts that share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    /// Of whole prefixes.
    prefixes: [AtomicU64; WAYS],
    /// Of what is told apart of these.
    parts: [AtomicU64; WAYS],
}

/// Accounts in half a set: what fits in half a cache line.
const WAYS: usize = if cfg!(loom) { 1 } else { 4 };

/// How often a word that others keep writing is tried. After that the response goes uncounted.
const TRIES: usize = 4;

/// Microseconds of a tick.
const TICK_MICROS: u128 = 100;

pub(super) const TICKS_PER_SECOND: u64 = 10_000;

/// Where the tag begins.
const TAG_SHIFT: u32 = 42;

/// Where the count of slips begins.
pub(super) const SLIP_SHIFT: u32 = 38;

/// The largest count of slips, and its mask. `slip` is at most one more.
const SLIPS: u64 = 0xF;

/// The mask of a time.
const TIME: u64 = (1 << SLIP_SHIFT) - 1;
