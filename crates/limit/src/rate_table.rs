//! The accounts of responses: a table of fixed size, in sets of eight words that share a cache line. Half of
//! a set is for whole prefixes, the other for their parts, so that accounts of many names never displace that
//! of their prefix.
//!
//! ```text
//!     bits 63..42   tag: part of the hash, never 0
//!     bits 41..38   slips: responses over the rate since the last that slipped
//!     bits 37..0    when all that was sent is paid for, in ticks of 100 us
//! ```
//!
//! If no word of its half is free, a new account replaces the one that was paid for first, without its debt.
//! Workers share the table without locks: two that write one word at once may count one response for two.
//! Ticks wrap after 318 days.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::sets::WordSets;
use crate::sync::{AtomicU64, Ordering::Relaxed};

#[derive(Debug)]
pub(super) struct Accounts {
    start: Instant,
    /// The two halves of the first set, of the second, and so on.
    halves: WordSets<WAYS>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RateTableKey {
    pub(super) set: u64,
    pub(super) tag: u64,
    pub(super) half: Half,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Prefixes,
    Parts,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RateVerdict<D> {
    pub(super) decision: D,
    pub(super) owed: u64,
    pub(super) slips: u64,
}

impl Accounts {
    /// Creates at least this number of accounts, 8 bytes each, without debt.
    pub(super) fn new(accounts: usize, now: Instant) -> Self {
        let sets = accounts.div_ceil(2 * WAYS).next_power_of_two();
        Self { start: now, halves: WordSets::new(2 * sets) }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.halves.len() * size_of::<[AtomicU64; WAYS]>()
    }

    pub(super) fn ticks_at(&self, now: Instant) -> u64 {
        ticks(now.saturating_duration_since(self.start))
    }

    /// Charges an account at this tick. `judge` gets its debt (at most `most`) and its slips, and decides.
    pub(super) fn charge<D>(
        &self,
        key: RateTableKey,
        most: u64,
        now: u64,
        judge: impl Fn(u64, u64) -> RateVerdict<D>,
    ) -> D {
        let number = ((key.set as usize) << 1 | key.half as usize) & (self.halves.len() - 1);
        let Some(half) = self.halves.get(number) else { return judge(0, 0).decision };
        let tag = (key.tag >> TAG_SHIFT).max(1);
        let mut tried = 0;
        loop {
            let (place, before) = find(half, tag, most, now);
            let is_own = before >> TAG_SHIFT == tag;
            let known = if is_own { (owed(before, most, now), before >> SLIP_SHIFT & SLIPS) } else { (0, 0) };
            let RateVerdict { decision, owed, slips } = judge(known.0, known.1);
            let paid = (now + owed.min(most)) & TIME;
            let after = tag << TAG_SHIFT | slips.min(SLIPS) << SLIP_SHIFT | paid;
            tried += 1;
            if place.compare_exchange(before, after, Relaxed, Relaxed).is_ok() || tried == TRIES {
                return decision;
            }
        }
    }
}

/// Returns the word of an account with its value, or else the word that the account takes over.
fn find(half: &[AtomicU64; WAYS], tag: u64, most: u64, now: u64) -> (&AtomicU64, u64) {
    let words = half.each_ref().map(|word| (word, word.load(Relaxed)));
    let own = words.iter().find(|(_, word)| word >> TAG_SHIFT == tag);
    // Free words first, then the smallest debt, and among those without debt the one that was paid for first.
    let least = || words.iter().min_by_key(|(_, word)| (*word != 0, owed(*word, most, now), !age(*word, now)));
    *own.or_else(least).unwrap_or(&words[0])
}

fn owed(word: u64, most: u64, now: u64) -> u64 {
    let ahead = (word & TIME).wrapping_sub(now) & TIME;
    if ahead <= most { ahead } else { 0 }
}

fn age(word: u64, now: u64) -> u64 {
    now.wrapping_sub(word) & TIME
}

/// Returns the client prefix of an address, and a value that distinguishes the families.
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

pub(super) fn time(ticks: u64) -> Duration {
    Duration::from_micros(ticks * TICK_MICROS as u64)
}

pub(super) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_micros() / TICK_MICROS).unwrap_or(u64::MAX) & TIME
}

const WAYS: usize = if cfg!(loom) { 1 } else { 4 };

/// The attempts to write a contended word. After that the response is not counted.
const TRIES: usize = 4;

const TICK_MICROS: u128 = 100;

pub(super) const TICKS_PER_SECOND: u64 = 10_000;

const TAG_SHIFT: u32 = 42;

pub(super) const SLIP_SHIFT: u32 = 38;

const SLIPS: u64 = 0xF;

const TIME: u64 = (1 << SLIP_SHIFT) - 1;
