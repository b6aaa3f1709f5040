//! Pacing: what has waited does not leave for one client at once, however much of it there is.
//!
//! Who forges the address of another may collect responses for seconds, by queries that wait for a slow server of its own,
//! and have them all leave in one moment: a pulse, hundreds of times as strong as what it had sent (DNSBomb, CVE-2024-33655). So
//! each prefix of clients has an account of the octets that it gets for queries that have waited for 100 ms or longer, a leaky
//! bucket:
//!
//! 1. As much as [`BURST`] leaves at once, and then [`OCTETS_PER_SECOND`]: what is more waits for its turn.
//! 2. What would wait for longer than [`PATIENCE`] leaves as TC=1 without records, which is as short as the query was; a true
//!    client asks again by TCP, where nobody is forged. What is hardly longer stays as it is.
//! 3. What would wait for twice that does not leave: a client with so much waiting has long asked again.
//!
//! What has not waited cannot be collected, and is none of this account's business.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;

use super::rate_table::{Accounts, Half, Key, TICKS_PER_SECOND, Verdict, prefix_of, ticks, time};

/// What each prefix of clients is owed. Asked about datagrams only.
#[derive(Debug)]
pub struct Pacing {
    /// Keeps others from choosing who shares a set with whom.
    state: FixedState,
    accounts: Accounts,
}

/// What becomes of a response to a query that has waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It leaves so much later, which may be at once.
    Whole(Duration),
    /// So does TC=1 in its place, without records.
    Cut(Duration),
    /// Nothing leaves.
    Drop,
}

impl Pacing {
    /// Nobody was sent anything yet. `seed` comes from the operating system and is nobody else's to know.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self { state: FixedState::with_seed(seed), accounts: Accounts::new(ACCOUNTS, now) }
    }

    /// Whether a query that came then is one whose response is paced.
    pub fn is_held(since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since) >= HELD
    }

    /// Decides about a response of so many octets to a query that has waited, and counts it.
    pub fn decide(&self, client: IpAddr, octets: usize, now: Instant) -> Pace {
        let (prefix, family) = prefix_of(client, IPV4_PREFIX, IPV6_PREFIX);
        let mut hasher = self.state.build_hasher();
        hasher.write_u128(prefix);
        hasher.write_u8(family);
        let hash = hasher.finish();
        let (burst, patience) = (cost(BURST), ticks(PATIENCE));
        let key = Key { set: hash, tag: hash, half: Half::Prefixes };
        self.accounts.charge(key, burst + 2 * patience, self.accounts.ticks_at(now), |owed, _| {
            let (whole, cut) = (owed + cost(octets), owed + cost(octets.min(SHORT)));
            let wait = |owed: u64| owed.saturating_sub(burst);
            let (decision, owed) = match () {
                () if wait(whole) <= patience => (Pace::Whole(time(wait(whole))), whole),
                () if wait(cut) > 2 * patience => (Pace::Drop, owed),
                () if octets <= SHORT => (Pace::Whole(time(wait(cut))), cut),
                () => (Pace::Cut(time(wait(cut))), cut),
            };
            Verdict { decision, owed, slips: 0 }
        })
    }
}

/// What so many octets cost, in ticks.
fn cost(octets: usize) -> u64 {
    (octets as u64 * TICKS_PER_SECOND).div_ceil(OCTETS_PER_SECOND)
}

/// How long a query has waited whose response is paced. What comes within that is no more of a pulse than the queries were.
const HELD: Duration = Duration::from_millis(100);

/// Octets that leave for one prefix at once.
const BURST: usize = 96 << 10;

/// Octets a second that may leave for one prefix for ever: some 6,000 usual answers, each of which took a backend long.
const OCTETS_PER_SECOND: u64 = 960 << 10;

/// How much later a whole response may leave. Most stub resolvers ask again after 5 s, of which the backends may have had 3.
const PATIENCE: Duration = Duration::from_secs(1);

/// Octets of a response that TC=1 would hardly make shorter.
const SHORT: usize = 128;

/// Accounts, of which half are used: 128 KiB. What is paced has waited, so that there are no more than queries that wait.
const ACCOUNTS: usize = 16 << 10;

/// Bits of IPv4 addresses that make a client, as in the default of [`RateRules`](super::RateRules).
const IPV4_PREFIX: u8 = 24;

/// Bits of IPv6 addresses that make a client.
const IPV6_PREFIX: u8 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    /// An address.
    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// What becomes of so many responses of this size.
    fn pulse(pacing: &Pacing, client: &str, count: usize, octets: usize, now: Instant) -> Vec<Pace> {
        (0..count).map(|_| pacing.decide(ip(client), octets, now)).collect()
    }

    /// How many of them leave so late at most, whole and cut.
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
        assert_eq!(leave(&paces, 2_000), [10_000, 0], "all clients of a prefix are told that nobody has replied");
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
