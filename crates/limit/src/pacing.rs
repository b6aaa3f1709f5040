//! Pacing of responses to queries that waited, so that they do not leave for one client all at once.
//!
//! An attacker with a victim's forged address may collect responses for seconds, by queries to a slow server
//! of the attacker, and release them in one pulse, hundreds of times as strong as the queries (DNSBomb,
//! CVE-2024-33655). So each prefix of clients has a leaky bucket for the bytes of responses to queries that
//! waited for 100 ms or more:
//!
//! 1. [`BURST`] leaves at once, and then [`OCTETS_PER_SECOND`]; the rest is delayed.
//! 2. A response with a delay over [`PATIENCE`] leaves as TC=1 without records, as short as the query; a real
//!    client asks again by TCP, where addresses cannot be forged. A short response stays as it is.
//! 3. A response with twice that delay is dropped, because its client has long asked again.
//!
//! Responses to queries that did not wait cannot be collected and are not counted.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;

use super::rate_table::{Accounts, Half, RateTableKey, RateVerdict, TICKS_PER_SECOND, prefix_of, ticks, time};

/// The accounts of client prefixes, for datagrams only.
#[derive(Debug)]
pub struct Pacing {
    state: FixedState,
    accounts: Accounts,
}

/// The decision about a response to a query that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It leaves after this delay, which may be zero.
    Whole(Duration),
    /// TC=1 without records leaves in its place after this delay.
    Cut(Duration),
    /// No response leaves.
    Drop,
}

impl Pacing {
    /// Creates empty accounts. `seed` is secret and comes from the operating system.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self { state: FixedState::with_seed(seed), accounts: Accounts::new(ACCOUNTS, now) }
    }

    /// Returns true if the response to a query of this age is paced.
    pub fn is_held(since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= HELD
    }

    /// Decides about a response of this size to a query that waited, and counts it.
    pub fn decide(&self, client: IpAddr, octets: usize, now: Instant) -> Pace {
        let (prefix, family) = prefix_of(client, IPV4_PREFIX, IPV6_PREFIX);
        let mut hasher = self.state.build_hasher();
        hasher.write_u128(prefix);
        hasher.write_u8(family);
        let hash = hasher.finish();
        let (burst, patience) = (cost(BURST), ticks(PATIENCE));
        let key = RateTableKey { set: hash, tag: hash, half: Half::Prefixes };
        self.accounts.charge(key, burst + 2 * patience, self.accounts.ticks_at(now), |owed, _| {
            let (whole, cut) = (owed + cost(octets), owed + cost(octets.min(SHORT)));
            let wait = |owed: u64| owed.saturating_sub(burst);
            let (decision, owed) = match () {
                () if wait(whole) <= patience => (Pace::Whole(time(wait(whole))), whole),
                () if wait(cut) > 2 * patience => (Pace::Drop, owed),
                () if octets <= SHORT => (Pace::Whole(time(wait(cut))), cut),
                () => (Pace::Cut(time(wait(cut))), cut),
            };
            RateVerdict { decision, owed, slips: 0 }
        })
    }
}

fn cost(octets: usize) -> u64 {
    (octets as u64 * TICKS_PER_SECOND).div_ceil(OCTETS_PER_SECOND)
}

/// The wait from which a response is paced. Faster responses are no more of a pulse than their queries.
const HELD: Duration = Duration::from_millis(100);

/// The bytes that leave for one prefix at once.
const BURST: usize = 96 << 10;

/// The steady rate of one prefix: some 6,000 usual answers, each slow at its backend.
const OCTETS_PER_SECOND: u64 = 960 << 10;

/// The maximum delay of a whole response. Most stub resolvers ask again after 5 s, backends use up to 3 s.
const PATIENCE: Duration = Duration::from_secs(1);

const SHORT: usize = 128;

/// The number of accounts, of which half are used: 128 KiB.
const ACCOUNTS: usize = 16 << 10;

const IPV4_PREFIX: u8 = 24;

const IPV6_PREFIX: u8 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Returns the decisions for `count` responses of this size.
    fn pulse(pacing: &Pacing, client: &str, count: usize, octets: usize, now: Instant) -> Vec<Pace> {
        (0..count).map(|_| pacing.decide(ip(client), octets, now)).collect()
    }

    /// Counts the responses with at most this delay, whole and truncated.
    fn leave(paces: &[Pace], millis: u64) -> [usize; 2] {
        let limit = Duration::from_millis(millis);
        let whole = paces.iter().filter(|pace| matches!(pace, Pace::Whole(wait) if *wait <= limit)).count();
        [whole, paces.iter().filter(|pace| matches!(pace, Pace::Cut(wait) if *wait <= limit)).count()]
    }

    #[test]
    fn a_pulse_is_spread_and_then_cut_and_then_dropped() {
        let now = Instant::now();
        let pacing = Pacing::new(1, now);
        let paces = pulse(&pacing, "192.0.2.1", 20_000, 1_200, now);
        let [at_once, _] = leave(&paces, 0);
        assert!((75..=82).contains(&at_once), "{at_once} of 1,200 octets are some 96 KiB");
        let [soon, _] = leave(&paces, 100);
        assert!((150..=164).contains(&soon), "{soon} in 100 ms");
        let [whole, cut] = leave(&paces, 2_000);
        assert!((800..=900).contains(&whole) && (5_000..=7_700).contains(&cut), "{whole} whole, {cut} cut");
        assert_eq!(paces.iter().filter(|pace| **pace == Pace::Drop).count(), 20_000 - whole - cut);
        assert_eq!(pulse(&pacing, "192.0.2.99", 1, 1_200, now), [Pace::Drop], "of the same prefix");
        assert_eq!(leave(&pulse(&pacing, "192.0.3.1", 1, 1_200, now), 0), [1, 0], "of another");
        let later = now + Duration::from_millis(2_200);
        assert_eq!(leave(&pulse(&pacing, "192.0.2.1", 10, 1_200, later), 0), [10, 0], "it is paid for then");
    }

    #[test]
    fn short_responses_are_not_cut() {
        let now = Instant::now();
        let pacing = Pacing::new(1, now);
        let paces = pulse(&pacing, "192.0.2.1", 10_000, 80, now);
        assert_eq!(leave(&paces, 2_000), [10_000, 0], "all clients of a prefix get the made-up response");
        assert!(leave(&paces, 0)[0] >= 1_000);
    }

    #[test]
    fn what_backends_always_take_long_for_leaves_at_once() {
        let start = Instant::now();
        let pacing = Pacing::new(1, start);
        for turn in 0..1_000 {
            let now = start + Duration::from_millis(10) * turn;
            let paces = pulse(&pacing, "2001:db8::1", 50, 150, now);
            assert_eq!(leave(&paces, 0), [50, 0], "{turn}: 5,000 responses a second");
        }
    }

    #[test]
    fn only_what_has_waited_is_paced() {
        let now = Instant::now();
        for (waited, expected) in [(0, false), (99, false), (100, true), (3_000, true)] {
            assert_eq!(Pacing::is_held(now, now + Duration::from_millis(waited)), expected, "{waited}");
        }
    }
}
