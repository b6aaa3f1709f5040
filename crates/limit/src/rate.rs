//! Response rate limiting (RRL), so that an authority does not amplify queries with forged addresses.
//!
//! 1. Similar responses share an account: one prefix of clients, one name, one kind. A client cannot vary the
//!    name at will: it is the name of an answer, the wildcard behind it, the zone of an NXDOMAIN, the zone
//!    cut of a referral, none for an error.
//! 2. Each account may have `rate` responses a second, and one second's worth at once.
//! 3. Every response counts, sent or not; the debt is at most `window`.
//! 4. Of the responses over the rate, every `slip`th leaves as TC=1 without records, and the rest are
//!    dropped. The victim of a forgery gets little, and a real client comes back by TCP.
//!
//! All responses to one prefix also share an account (`total`), against floods over many names. The name's
//! account decides first. All accounts of a prefix share a cache line, for one memory read.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dns::ResponseCategory;
use foldhash::quality::FixedState;

use super::rate_table::{Accounts, Half, RateTableKey, RateVerdict, TICKS_PER_SECOND, prefix_of, ticks};

/// The limits. A rate is in responses a second, at most 10,000; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// The rate of answers and NODATA, for each name.
    pub answers: u16,
    /// The rate of referrals, for each zone cut.
    pub referrals: u16,
    /// The rate of NXDOMAIN, for each zone.
    pub nxdomains: u16,
    /// The rate of errors.
    pub errors: u16,
    /// The rate of all responses together.
    pub total: u16,
    /// The maximum debt, and thus the time for which a client stays limited.
    pub window: Duration,
    /// The interval of TC=1 among responses over the rate; 0 is none.
    pub slip: u8,
    /// The prefix length of an IPv4 client.
    pub ipv4_prefix: u8,
    /// The prefix length of an IPv6 client.
    pub ipv6_prefix: u8,
    /// True if clients on this host are limited too.
    pub loopback: bool,
}

impl Default for RateRules {
    /// Far above the use of a caching resolver, below an attack. BIND, NSD and Knot share prefixes and slip.
    fn default() -> Self {
        Self {
            answers: 200,
            referrals: 200,
            nxdomains: 200,
            errors: 200,
            total: 2_000,
            window: Duration::from_secs(15),
            slip: 2,
            ipv4_prefix: 24,
            ipv6_prefix: 56,
            loopback: false,
        }
    }
}

/// The decision about a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The response leaves.
    Pass,
    /// TC=1 without records leaves in its place.
    Slip,
    /// No response leaves.
    Drop,
}

/// The accounts of all clients, for datagrams only, because TCP proves the address.
#[derive(Debug)]
pub struct ResponseRate {
    rules: RateRules,
    state: FixedState,
    accounts: Accounts,
}

impl ResponseRate {
    /// Creates an empty table of at least this number of accounts, 8 bytes each. `seed` is secret.
    pub fn new(rules: RateRules, accounts: usize, seed: u64, now: Instant) -> Self {
        Self { rules, state: FixedState::with_seed(seed), accounts: Accounts::new(accounts, now) }
    }

    /// Returns the rules.
    pub fn rules(&self) -> RateRules {
        self.rules
    }

    /// Returns true if responses to this client are limited. Clients on this host are exempt by default.
    pub fn limits(&self, client: IpAddr) -> bool {
        self.rules.loopback || !client.to_canonical().is_loopback()
    }

    /// Decides about one response by UDP, and counts it. `name` is in wire form, in any case; see
    /// [`ResponseCategory`].
    pub fn decide(&self, client: IpAddr, name: &[u8], category: ResponseCategory, now: Instant) -> Decision {
        if !self.limits(client) {
            return Decision::Pass;
        }
        let rate = match category {
            ResponseCategory::Answer => self.rules.answers,
            ResponseCategory::Referral => self.rules.referrals,
            ResponseCategory::Nxdomain => self.rules.nxdomains,
            ResponseCategory::Error => self.rules.errors,
        };
        let (prefix, family) = prefix_of(client, self.rules.ipv4_prefix, self.rules.ipv6_prefix);
        let mut hasher = self.state.build_hasher();
        hasher.write_u128(prefix);
        hasher.write_u8(family);
        let of_prefix = hasher.finish();
        let now = self.accounts.ticks_at(now);
        let in_all =
            self.charge(RateTableKey { set: of_prefix, tag: of_prefix, half: Half::Prefixes }, self.rules.total, now);
        if rate == 0 {
            return in_all;
        }
        hasher.write_u8(category as u8);
        let mut folded = [0; MAX_NAME];
        let name = name.get(..MAX_NAME).unwrap_or(name);
        let folded = &mut folded[..name.len()];
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        hasher.write(folded);
        match self.charge(RateTableKey { set: of_prefix, tag: hasher.finish(), half: Half::Parts }, rate, now) {
            Decision::Pass => in_all,
            limited @ (Decision::Slip | Decision::Drop) => limited,
        }
    }

    /// Returns the constant size in bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.accounts.size()
    }

    fn charge(&self, key: RateTableKey, rate: u16, now: u64) -> Decision {
        if rate == 0 {
            return Decision::Pass;
        }
        let cost = (TICKS_PER_SECOND / u64::from(rate)).max(1);
        let most = ticks(self.rules.window) + TICKS_PER_SECOND;
        let slip = u64::from(self.rules.slip);
        self.accounts.charge(key, most, now, |owed, slips| {
            let owed = owed + cost;
            let (decision, slips) = if owed <= TICKS_PER_SECOND {
                (Decision::Pass, 0)
            } else if slip > 0 && slips + 1 >= slip {
                (Decision::Slip, 0)
            } else {
                (Decision::Drop, slips + 1)
            };
            RateVerdict { decision, owed, slips }
        })
    }
}

/// The longest name (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::rate_table::SLIP_SHIFT;
    use super::*;

    const NAME: &[u8] = b"\x03www\x07example\0";

    /// Ten responses a second, a window of five seconds, and every second response over the rate slips.
    const RULES: RateRules = RateRules {
        answers: 10,
        referrals: 10,
        nxdomains: 10,
        errors: 10,
        total: 0,
        window: Duration::from_secs(5),
        slip: 2,
        ipv4_prefix: 24,
        ipv6_prefix: 56,
        loopback: false,
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Counts the responses of a burst that pass, slip and are dropped.
    fn burst(limiter: &ResponseRate, client: &str, count: usize, now: Instant) -> [usize; 3] {
        let decisions: Vec<_> =
            (0..count).map(|_| limiter.decide(ip(client), NAME, ResponseCategory::Answer, now)).collect();
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
        // Each check counts too, but the debt is at most the window.
        assert_eq!([passes(1_000), passes(4_000)], [0, 0]);
        assert_eq!(passes(4_000 + 5_200), 1);
    }

    #[test]
    fn accounts_are_of_prefix_name_and_kind() {
        let check = |client: &str, name: &[u8], category: ResponseCategory, is_shared: bool| {
            let now = Instant::now();
            let limiter = ResponseRate::new(RULES, 4_096, 1, now);
            for other in ["192.0.2.1", "2001:db8::1"] {
                burst(&limiter, other, 100, now);
            }
            let decision = limiter.decide(ip(client), name, category, now);
            assert_eq!(decision != Decision::Pass, is_shared, "{client} {name:?} {category:?}");
        };
        check("192.0.2.255", NAME, ResponseCategory::Answer, true);
        check("::ffff:192.0.2.9", NAME, ResponseCategory::Answer, true);
        check("192.0.3.1", NAME, ResponseCategory::Answer, false);
        check("2001:db8:0:ff::1", NAME, ResponseCategory::Answer, true);
        check("2001:db8:0:100::1", NAME, ResponseCategory::Answer, false);
        check("192.0.2.1", b"\x03WWW\x07example\0", ResponseCategory::Answer, true);
        check("192.0.2.1", b"\x07example\0", ResponseCategory::Answer, false);
        check("192.0.2.1", NAME, ResponseCategory::Nxdomain, false);
        check("192.0.2.1", NAME, ResponseCategory::Referral, false);
        check("192.0.2.1", NAME, ResponseCategory::Error, false);
    }

    #[test]
    fn all_names_of_a_prefix_have_one_account_besides() {
        let now = Instant::now();
        let limiter = ResponseRate::new(RateRules { total: 100, ..RULES }, 4_096, 1, now);
        let name = |number: u16| [&[2][..], &number.to_be_bytes(), &[0]].concat();
        let decide = |number| limiter.decide(ip("192.0.2.1"), &name(number), ResponseCategory::Answer, now);
        let passed = (0..2_000).filter(|number| decide(*number) == Decision::Pass).count();
        assert_eq!(passed, 100, "though each name was asked for once");
        let slipped = (0..1_000).filter(|number| decide(*number) == Decision::Slip).count();
        assert_eq!(slipped, 500);
        assert_eq!(limiter.decide(ip("192.0.3.1"), &name(0), ResponseCategory::Answer, now), Decision::Pass);
    }

    #[test]
    fn the_account_of_a_name_holds_beside_that_of_all() {
        let now = Instant::now();
        let limiter = ResponseRate::new(RateRules { total: 100, ..RULES }, 4_096, 1, now);
        assert_eq!(burst(&limiter, "192.0.2.1", 30, now), [10, 10, 10]);
        let limiter = ResponseRate::new(RateRules { total: 100, answers: 0, ..RULES }, 4_096, 1, now);
        assert_eq!(burst(&limiter, "192.0.2.1", 120, now), [100, 10, 10]);
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
            limiter.decide(client.into(), NAME, ResponseCategory::Answer, now);
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
                passed += usize::from(limiter.decide(ip("192.0.2.1"), NAME, ResponseCategory::Answer, now) == Decision::Pass);
            }
            prop_assert!(passed <= 10 + at as usize / 100, "{} in {} ms", passed, at);
        }
    }
}
