//! Response rate limiting: an authority is no amplifier for who forges the addresses of queries.
//!
//! The algorithm, in plain lines:
//!
//! 1. Like responses are counted together: to one prefix of clients, about one name, of one kind. The name is what cannot be
//!    varied at will: the name asked for where there is an answer, the wildcard that made it, the zone where the name does
//!    not exist, the zone cut of a referral, nothing at all for an error.
//! 2. Each such account may have `rate` responses a second, and one second's worth at once.
//! 3. Every response counts, sent or not, so that who does not slow down stays limited; but no more than `window` is owed.
//! 4. Of the responses over the rate every `slip`th goes out as TC=1 without records, and the rest not at all. Who was
//!    forged gets little that way, and who is real comes back by TCP.
//!
//! An account is a word in a table of fixed size, in sets of eight that share a cache line:
//!
//! ```text
//!     bits 63..42   tag: part of the hash, never 0
//!     bits 41..38   slips: responses over the rate since the last that slipped
//!     bits 37..0    when all that was sent is paid for, in ticks of 100 us
//! ```
//!
//! If no word of its set is free, a new account takes the one that was paid for first. A flood of forged prefixes so
//! displaces accounts that owe nothing, long before those that owe much. All workers share the table and nobody waits: two
//! that write to one word at once may count one response for two. Ticks go around after 318 days; an account untouched for so
//! long may owe up to `window` once.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;

/// What is limited, and how much. A rate is in responses a second, at most 10,000; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// Answers and NODATA, for each name.
    pub answers: u16,
    /// Referrals, for each zone cut.
    pub referrals: u16,
    /// NXDOMAIN, for each zone.
    pub nxdomains: u16,
    /// Errors.
    pub errors: u16,
    /// How much may be owed, and so how long a client stays limited that was far over the rate.
    pub window: Duration,
    /// Every how many responses over the rate one goes out as TC=1; 0 is none.
    pub slip: u8,
    /// Bits of IPv4 addresses that make a client.
    pub ipv4_prefix: u8,
    /// Bits of IPv6 addresses that make a client.
    pub ipv6_prefix: u8,
    /// Whether clients on this host are limited too.
    pub loopback: bool,
}

impl Default for RateRules {
    /// Far above what a resolver with a cache asks for, and far below what makes an attack. Prefixes and slip are those that
    /// BIND, NSD and Knot agree on.
    fn default() -> Self {
        Self {
            answers: 200,
            referrals: 200,
            nxdomains: 200,
            errors: 200,
            window: Duration::from_secs(15),
            slip: 2,
            ipv4_prefix: 24,
            ipv6_prefix: 56,
            loopback: false,
        }
    }
}

/// What a response says, as far as limits go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Records, or none of that type. The name: that asked for, or the wildcard (`*.example.org`) that it matched.
    Answer,
    /// A referral. The name: the zone cut.
    Referral,
    /// NXDOMAIN. The name: the apex of the zone.
    Nxdomain,
    /// REFUSED, FORMERR and the like. The name: the root, whatever was asked for.
    Error,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes out.
    Pass,
    /// TC=1 goes out in its place, without records.
    Slip,
    /// Nothing goes out.
    Drop,
}

/// The accounts of all clients. Asked about datagrams only: a client that has come by TCP is where it says.
#[derive(Debug)]
pub struct ResponseRate {
    /// The rules.
    rules: RateRules,
    /// Keeps others from choosing who shares a set with whom.
    state: FixedState,
    /// The beginning of time.
    start: Instant,
    /// The accounts, a power of two of sets.
    sets: Box<[Set]>,
}

impl ResponseRate {
    /// An empty table of at least so many accounts, 8 octets each. `seed` is nobody else's to know.
    pub fn new(rules: RateRules, accounts: usize, seed: u64, now: Instant) -> Self {
        let sets = accounts.div_ceil(WAYS).next_power_of_two();
        Self {
            rules,
            state: FixedState::with_seed(seed),
            start: now,
            sets: (0..sets).map(|_| Set::default()).collect(),
        }
    }

    /// Decides about one response by UDP, and counts it. `name` in wire form, in any case; see [`Outcome`] for which.
    pub fn decide(&self, client: IpAddr, name: &[u8], outcome: Outcome, now: Instant) -> Decision {
        let rate = match outcome {
            Outcome::Answer => self.rules.answers,
            Outcome::Referral => self.rules.referrals,
            Outcome::Nxdomain => self.rules.nxdomains,
            Outcome::Error => self.rules.errors,
        };
        let client = client.to_canonical();
        if rate == 0 || client.is_loopback() && !self.rules.loopback {
            return Decision::Pass;
        }
        let hash = self.hash(client, name, outcome);
        let set = &self.sets[hash as usize & (self.sets.len() - 1)].0;
        let tag = (hash >> TAG_SHIFT).max(1);
        let now = ticks(now.saturating_duration_since(self.start));
        let mut decision = Decision::Pass;
        for _ in 0..TRIES {
            let (place, before) = self.account(set, tag, now);
            let after;
            (decision, after) = self.charge(before, tag, u64::from(rate), now);
            if place.compare_exchange(before, after, Relaxed, Relaxed).is_ok() {
                break;
            }
        }
        decision
    }

    /// Octets of memory, which never change.
    pub fn size(&self) -> usize {
        size_of_val(&*self.sets)
    }

    /// The word of an account and what it says; if there is none, the word that the account is to take.
    fn account<'a>(&self, set: &'a [AtomicU64; WAYS], tag: u64, now: u64) -> (&'a AtomicU64, u64) {
        let words = set.each_ref().map(|word| (word, word.load(Relaxed)));
        let own = words.iter().find(|(_, word)| word >> TAG_SHIFT == tag);
        // Free ones first, then who owes least, and of those who owe nothing the one that was paid for first.
        let least = || words.iter().min_by_key(|(_, word)| (*word != 0, self.owed(*word, now), !age(*word, now)));
        *own.or_else(least).unwrap_or(&words[0])
    }

    /// Counts a response to the account that a word is, or that takes its place.
    fn charge(&self, before: u64, tag: u64, rate: u64, now: u64) -> (Decision, u64) {
        let is_own = before >> TAG_SHIFT == tag;
        let (owed, slips) = if is_own { (self.owed(before, now), before >> SLIP_SHIFT & SLIPS) } else { (0, 0) };
        let owed = owed + (TICKS_PER_SECOND / rate).max(1);
        let (decision, slips) = if owed <= TICKS_PER_SECOND {
            (Decision::Pass, 0)
        } else if self.rules.slip > 0 && slips + 1 >= u64::from(self.rules.slip) {
            (Decision::Slip, 0)
        } else {
            (Decision::Drop, (slips + 1).min(SLIPS))
        };
        let paid = (now + owed.min(self.most_owed())) & TIME;
        (decision, tag << TAG_SHIFT | slips << SLIP_SHIFT | paid)
    }

    /// How many ticks ahead an account is paid for.
    fn owed(&self, word: u64, now: u64) -> u64 {
        let ahead = (word & TIME).wrapping_sub(now) & TIME;
        // More than there can be is the past.
        if ahead <= self.most_owed() { ahead } else { 0 }
    }

    /// The most that is owed: the window, and the second that is free.
    fn most_owed(&self) -> u64 {
        ticks(self.rules.window) + TICKS_PER_SECOND
    }

    /// The hash of an account.
    fn hash(&self, client: IpAddr, name: &[u8], outcome: Outcome) -> u64 {
        let mut hasher = self.state.build_hasher();
        match client {
            IpAddr::V4(address) => {
                let len = u32::from(self.rules.ipv4_prefix.min(32));
                hasher.write_u32(address.to_bits() & !u32::MAX.checked_shr(len).unwrap_or(0));
            }
            IpAddr::V6(address) => {
                let len = u32::from(self.rules.ipv6_prefix.min(128));
                hasher.write_u128(address.to_bits() & !u128::MAX.checked_shr(len).unwrap_or(0));
            }
        }
        hasher.write_u8(outcome as u8);
        let mut folded = [0; LONGEST_NAME];
        let name = name.get(..LONGEST_NAME).unwrap_or(name);
        let folded = &mut folded[..name.len()];
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        hasher.write(folded);
        hasher.finish()
    }
}

/// Eight accounts that share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// For how many ticks an account has owed nothing.
fn age(word: u64, now: u64) -> u64 {
    now.wrapping_sub(word) & TIME
}

/// A time in ticks.
fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_micros() / TICK_MICROS).unwrap_or(u64::MAX) & TIME
}

/// Accounts in a set: what fits in a cache line.
const WAYS: usize = 8;

/// How often a word that others keep writing is tried. After that the response goes uncounted.
const TRIES: usize = 4;

/// Microseconds of a tick.
const TICK_MICROS: u128 = 100;

/// Ticks of a second.
const TICKS_PER_SECOND: u64 = 10_000;

/// Where the tag begins.
const TAG_SHIFT: u32 = 42;

/// Where the count of slips begins.
const SLIP_SHIFT: u32 = 38;

/// The largest count of slips, and its mask. `slip` is at most one more.
const SLIPS: u64 = 0xF;

/// The mask of a time.
const TIME: u64 = (1 << SLIP_SHIFT) - 1;

/// Octets of the longest name (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    /// A name.
    const NAME: &[u8] = b"\x03www\x07example\0";

    /// Ten responses a second, five seconds of window, every second over the rate slips.
    const RULES: RateRules = RateRules {
        answers: 10,
        referrals: 10,
        nxdomains: 10,
        errors: 10,
        window: Duration::from_secs(5),
        slip: 2,
        ipv4_prefix: 24,
        ipv6_prefix: 56,
        loopback: false,
    };

    /// An address.
    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of so many responses, all at once, pass, slip and are dropped.
    fn burst(limiter: &ResponseRate, client: &str, count: usize, now: Instant) -> [usize; 3] {
        let decisions: Vec<_> = (0..count).map(|_| limiter.decide(ip(client), NAME, Outcome::Answer, now)).collect();
        [Decision::Pass, Decision::Slip, Decision::Drop]
            .map(|wanted| decisions.iter().filter(|&&decision| decision == wanted).count())
    }

    #[test]
    fn a_second_is_free_and_the_rest_slips_or_is_dropped() {
        let check = |slip: u8, rate: u16, expected: [usize; 3]| {
            let now = Instant::now();
            let rules = RateRules { slip, answers: rate, ..RULES };
            let limiter = ResponseRate::new(rules, 64, 1, now);
            assert_eq!(burst(&limiter, "192.0.2.1", 30, now), expected, "{slip} {rate}");
        };
        check(0, 10, [10, 0, 20]);
        check(1, 10, [10, 20, 0]);
        check(2, 10, [10, 10, 10]);
        check(4, 10, [10, 5, 15]);
        check(2, 0, [30, 0, 0]);
        check(2, 1, [1, 14, 15]);
        check(2, 10_000, [30, 0, 0]);
    }

    #[test]
    fn who_keeps_to_the_rate_never_notices() {
        let start = Instant::now();
        let limiter = ResponseRate::new(RULES, 64, 1, start);
        for count in 0..1_000 {
            let now = start + Duration::from_millis(100) * count;
            assert_eq!(burst(&limiter, "192.0.2.1", 1, now), [1, 0, 0], "{count}");
        }
    }

    #[test]
    fn who_was_far_over_the_rate_waits_for_the_window() {
        let start = Instant::now();
        let limiter = ResponseRate::new(RULES, 64, 1, start);
        burst(&limiter, "192.0.2.1", 10_000, start);
        let passes = |after: u64| burst(&limiter, "192.0.2.1", 1, start + Duration::from_millis(after))[0];
        // Each look counts too, but no more than the window is ever owed.
        assert_eq!([passes(1_000), passes(4_000)], [0, 0]);
        assert_eq!(passes(4_000 + 5_200), 1);
    }

    #[test]
    fn accounts_are_of_prefix_name_and_kind() {
        let check = |client: &str, name: &[u8], outcome: Outcome, is_shared: bool| {
            let now = Instant::now();
            let limiter = ResponseRate::new(RULES, 4_096, 1, now);
            for other in ["192.0.2.1", "2001:db8::1"] {
                burst(&limiter, other, 100, now);
            }
            let decision = limiter.decide(ip(client), name, outcome, now);
            assert_eq!(decision != Decision::Pass, is_shared, "{client} {name:?} {outcome:?}");
        };
        check("192.0.2.255", NAME, Outcome::Answer, true);
        check("::ffff:192.0.2.9", NAME, Outcome::Answer, true);
        check("192.0.3.1", NAME, Outcome::Answer, false);
        check("2001:db8:0:ff::1", NAME, Outcome::Answer, true);
        check("2001:db8:0:100::1", NAME, Outcome::Answer, false);
        check("192.0.2.1", b"\x03WWW\x07example\0", Outcome::Answer, true);
        check("192.0.2.1", b"\x07example\0", Outcome::Answer, false);
        check("192.0.2.1", NAME, Outcome::Nxdomain, false);
        check("192.0.2.1", NAME, Outcome::Referral, false);
        check("192.0.2.1", NAME, Outcome::Error, false);
    }

    #[test]
    fn this_host_is_limited_only_if_told() {
        let now = Instant::now();
        for (loopback, expected) in [(false, [30, 0, 0]), (true, [10, 10, 10])] {
            let limiter = ResponseRate::new(RateRules { loopback, ..RULES }, 64, 1, now);
            assert_eq!(burst(&limiter, "127.0.0.1", 30, now), expected);
            assert_eq!(burst(&limiter, "::1", 30, now), expected);
        }
    }

    #[test]
    fn a_flood_of_forged_prefixes_neither_grows_nor_frees() {
        let now = Instant::now();
        let limiter = ResponseRate::new(RULES, 1_000, 7, now);
        let size = limiter.size();
        assert_eq!(size, 8 * 1_024);
        burst(&limiter, "192.0.2.1", 200, now);
        for forged in 0..200_000_u32 {
            let client = Ipv4Addr::from_bits(0x0B00_0000 + (forged << 8));
            limiter.decide(client.into(), NAME, Outcome::Answer, now);
        }
        assert_eq!(limiter.size(), size);
        assert_eq!(burst(&limiter, "192.0.2.1", 1, now)[0], 0, "the account that owes most is kept");
    }

    #[test]
    fn time_goes_around_without_harm() {
        let start = Instant::now();
        let limiter = ResponseRate::new(RULES, 64, 1, start);
        let around = Duration::from_micros((1 << SLIP_SHIFT) * 100);
        for before in [2_000, 1_000, 50, 0] {
            let now = start + around - Duration::from_millis(before);
            assert_eq!(burst(&limiter, "192.0.2.1", 5, now)[0], 5, "{before}");
        }
        burst(&limiter, "192.0.2.1", 500, start + around);
        assert_eq!(burst(&limiter, "192.0.2.1", 1, start + around + Duration::from_secs(1))[0], 0);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_rate_over_time(gaps in prop::collection::vec(0..300_u64, 1..400)) {
            let start = Instant::now();
            let limiter = ResponseRate::new(RULES, 64, 3, start);
            let mut at = 0;
            let mut passed = 0;
            for gap in gaps {
                at += gap;
                let now = start + Duration::from_millis(at);
                passed += usize::from(limiter.decide(ip("192.0.2.1"), NAME, Outcome::Answer, now) == Decision::Pass);
            }
            prop_assert!(passed <= 10 + at as usize / 100, "{} in {} ms", passed, at);
        }
    }
}
