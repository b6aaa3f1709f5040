//! Pacing: what has waited is not sent to one client at once, however much of it there is.
//!
//! Who forges the address of another may collect responses for seconds, by queries that wait for a slow server of its own,
//! and have them all leave in one moment: a pulse, hundreds of times as strong as what it had sent (DNSBomb, CVE-2024-33655). So
//! each prefix of clients has an account of the octets that it gets for queries that have waited for 100 ms or longer:
//!
//! 1. As much as [`BURST`] goes out at once, and [`OCTETS_PER_SECOND`] all the time.
//! 2. What is above goes out as TC=1 without records, which is as short as the query was, and a true client asks again by TCP,
//!    where nobody is forged. What is hardly longer goes out as it is.
//! 3. Above twice the burst nothing goes out: a client with so much waiting has long asked again.
//!
//! What has not waited cannot be collected, and is none of this account's business.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;

use super::accounts::{Accounts, Half, Key, TICKS_PER_SECOND, Verdict, prefix_of};
use super::rate::Decision;

/// What each prefix of clients is owed. Asked about datagrams only.
#[derive(Debug)]
pub struct Pacing {
    /// Keeps others from choosing who shares a set with whom.
    state: FixedState,
    /// The accounts.
    accounts: Accounts,
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
    pub fn decide(&self, client: IpAddr, octets: usize, now: Instant) -> Decision {
        let (prefix, family) = prefix_of(client, IPV4_PREFIX, IPV6_PREFIX);
        let mut hasher = self.state.build_hasher();
        hasher.write_u128(prefix);
        hasher.write_u8(family);
        let hash = hasher.finish();
        let burst = cost(BURST);
        self.accounts.charge(
            Key { set: hash, tag: hash, half: Half::Prefixes },
            2 * burst,
            self.accounts.ticks_at(now),
            |owed, _| {
                let whole = owed + cost(octets);
                let cut = owed + cost(octets.min(SHORT));
                let (decision, owed) = match () {
                    () if whole <= burst => (Decision::Pass, whole),
                    () if cut > 2 * burst => (Decision::Drop, owed),
                    () if octets <= SHORT => (Decision::Pass, cut),
                    () => (Decision::Slip, cut),
                };
                Verdict { decision, owed, slips: 0 }
            },
        )
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

    /// How many of so many responses of this size pass, slip and are dropped.
    fn pulse(pacing: &Pacing, client: &str, count: usize, octets: usize, now: Instant) -> [usize; 3] {
        let decisions: Vec<_> = (0..count).map(|_| pacing.decide(ip(client), octets, now)).collect();
        [Decision::Pass, Decision::Slip, Decision::Drop]
            .map(|wanted| decisions.iter().filter(|decision| **decision == wanted).count())
    }

    #[test]
    fn a_pulse_is_cut_short_and_then_cut_off() {
        let now = Instant::now();
        let pacing = Pacing::new(1, now);
        let [whole, cut, dropped] = pulse(&pacing, "192.0.2.1", 5_000, 1_200, now);
        assert!((75..=82).contains(&whole), "{whole} of 1,200 octets are some 96 KiB");
        assert!((450..=800).contains(&cut), "{cut} of 128 octets are as much again");
        assert_eq!(whole + cut + dropped, 5_000);
        assert_eq!(pulse(&pacing, "192.0.2.99", 1, 1_200, now), [0, 0, 1], "of the same prefix");
        assert_eq!(pulse(&pacing, "192.0.3.1", 1, 1_200, now), [1, 0, 0], "of another");
        let later = now + Duration::from_millis(250);
        assert_eq!(pulse(&pacing, "192.0.2.1", 10, 1_200, later), [10, 0, 0], "it is paid for soon");
    }

    #[test]
    fn short_responses_are_not_cut() {
        let now = Instant::now();
        let pacing = Pacing::new(1, now);
        let [whole, cut, _] = pulse(&pacing, "192.0.2.1", 1_000, 100, now);
        assert_eq!((whole, cut), (1_000, 0), "all clients of a prefix are told that nobody has replied");
    }

    #[test]
    fn what_backends_always_take_long_for_goes_out() {
        let start = Instant::now();
        let pacing = Pacing::new(1, start);
        for turn in 0..1_000 {
            let now = start + Duration::from_millis(10) * turn;
            assert_eq!(pulse(&pacing, "2001:db8::1", 50, 150, now), [50, 0, 0], "{turn}: 5,000 responses a second");
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
