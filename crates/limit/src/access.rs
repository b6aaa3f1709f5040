//! The `allow` and `deny` lists of a listener (an ACL), compiled to sorted ranges, so that a look-up takes
//! few comparisons for lists of any length.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Prefix;

/// The access rules of a listener, as in the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRules {
    /// The prefixes that are answered.
    pub allow: Vec<Prefix>,
    /// The prefixes within `allow` that are not.
    pub deny: Vec<Prefix>,
    /// The response to other clients.
    pub on_denied: OnDenied,
}

impl AccessRules {
    /// The default of `on_denied`: REFUSED shows a client with the wrong server why nothing works.
    pub(crate) const ON_DENIED: OnDenied = OnDenied::Refused;

    /// Loopback, private use (RFC 1918), behind a carrier's NAT (RFC 6598), link-local (RFC 3927, RFC 4291
    /// section 2.5.6) and unique local addresses (RFC 4193): the default prevents open resolvers by mistake
    /// (RFC 5358).
    pub const LOCAL: [&str; 9] = [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1",
        "fc00::/7",
        "fe80::/10",
    ];

    /// All addresses.
    pub const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];

    /// Allows these prefixes and refuses all others.
    pub fn of(allow: &[&str]) -> Self {
        let allow = allow.iter().filter_map(|text| text.parse().ok()).collect();
        Self { allow, deny: Vec::new(), on_denied: Self::ON_DENIED }
    }
}

/// The response to denied clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDenied {
    /// REFUSED.
    Refused,
    /// No response.
    Drop,
}

/// Compiled access rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    ipv4: Box<[(u32, u32)]>,
    ipv6: Box<[(u128, u128)]>,
    on_denied: OnDenied,
}

impl Access {
    /// Compiles rules.
    pub fn new(rules: &AccessRules) -> Self {
        let AccessRules { allow, deny, on_denied } = rules;
        let wide = |(first, last): (u32, u32)| (first.into(), last.into());
        let ipv4_of = |list: &[Prefix]| list.iter().filter_map(Prefix::range_4).map(wide).collect();
        let ipv6_of = |list: &[Prefix]| list.iter().filter_map(Prefix::range_6).collect();
        let ipv4 = without(merged(ipv4_of(allow)), &merged(ipv4_of(deny))).into_iter();
        let ipv4 = ipv4.map(|(first, last)| (first as u32, last as u32)).collect();
        let ipv6 = without(merged(ipv6_of(allow)), &merged(ipv6_of(deny))).into();
        Self { ipv4, ipv6, on_denied: *on_denied }
    }

    /// Returns true if a client at this address is answered. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn admits(&self, client: IpAddr) -> bool {
        match client.to_canonical() {
            IpAddr::V4(address) => holds(&self.ipv4, &address.to_bits()),
            IpAddr::V6(address) => holds(&self.ipv6, &address.to_bits()),
        }
    }

    /// Returns true if all addresses are answered that can reach a listener at this one.
    pub fn admits_all(&self, listener: IpAddr) -> bool {
        let (ipv4, ipv6) = (*self.ipv4 == [(0, u32::MAX)], *self.ipv6 == [(0, u128::MAX)]);
        match listener.to_canonical() {
            IpAddr::V4(_) => ipv4,
            IpAddr::V6(address) => ipv6 || ipv4 && address.is_unspecified(),
        }
    }

    /// Returns true if a client at this address may connect: also a denied client that gets REFUSED.
    pub fn may_connect(&self, client: IpAddr) -> bool {
        self.on_denied == OnDenied::Refused || self.admits(client)
    }

    /// Returns the response to denied clients.
    pub fn on_denied(&self) -> OnDenied {
        self.on_denied
    }
}

fn holds<T: PartialOrd>(ranges: &[(T, T)], address: &T) -> bool {
    let behind = ranges.partition_point(|(first, _)| first <= address);
    behind.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= last)
}

fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn without(ranges: Vec<(u128, u128)>, others: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut left = Vec::new();
    for (whole, last) in ranges {
        let (mut first, mut is_over) = (whole, false);
        for &(from, to) in others.iter().filter(|(from, to)| *from <= last && *to >= whole) {
            if from > first {
                left.push((first, from - 1));
            }
            if to >= last {
                is_over = true;
                break;
            }
            first = to + 1;
        }
        if !is_over {
            left.push((first, last));
        }
    }
    left
}

/// The times at which the log named senders of refused messages, in a fixed number of places.
#[derive(Debug)]
pub struct RefusedSources([AtomicU64; SOURCES]);

impl RefusedSources {
    /// Creates the table without senders.
    pub const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; SOURCES])
    }

    /// Returns true if the log may name this sender at this time, in seconds.
    pub fn is_due(&self, source: IpAddr, now: u64) -> bool {
        let octets = match source.to_canonical() {
            IpAddr::V4(address) => u128::from(u32::from(address)),
            IpAddr::V6(address) => u128::from(address),
        };
        let number = usize::try_from(octets % 251).unwrap_or_default();
        let Some(place) = self.0.get(number % SOURCES) else { return false };
        let last = place.load(Relaxed);
        // The clock may be set back.
        now.abs_diff(last) >= QUIET && place.compare_exchange(last, now, Relaxed, Relaxed).is_ok()
    }
}

const SOURCES: usize = 64;

const QUIET: u64 = 60;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refused_sender_is_named_once_a_minute() {
        let (sources, first) = (RefusedSources::empty(), IpAddr::from([192, 0, 2, 1]));
        assert!(sources.is_due(first, 1000));
        assert!(!sources.is_due(first, 1059));
        assert!(sources.is_due(IpAddr::from([192, 0, 2, 2]), 1059), "another sender");
        assert!(sources.is_due(first, 1060));
        // A flood of forged addresses makes no more lines than there are places.
        let forged = (0..10_000_u32).map(|number| IpAddr::from(Ipv4Addr::from(number)));
        assert!(forged.filter(|&source| sources.is_due(source, 2000)).count() <= SOURCES);
    }

    fn list(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().expect("a prefix")).collect()
    }

    /// Compiles the two lists of prefixes.
    fn access(allow: &[&str], deny: &[&str]) -> Access {
        Access::new(&AccessRules { allow: list(allow), deny: list(deny), on_denied: OnDenied::Drop })
    }

    #[test]
    fn who_is_allowed_and_not_denied_is_answered() {
        let check = |allow: &[&str], deny: &[&str], client: &str, expected: bool| {
            let client = client.parse().expect("an address");
            assert_eq!(access(allow, deny).admits(client), expected, "{allow:?} {deny:?} {client}");
        };
        check(&[], &[], "127.0.0.1", false);
        check(&["127.0.0.0/8"], &[], "127.255.255.255", true);
        check(&["127.0.0.0/8"], &[], "128.0.0.0", false);
        check(&["127.0.0.0/8"], &[], "::ffff:127.0.0.1", true);
        check(&["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"], &[], "11.255.255.255", true);
        check(&["10.0.0.0/8"], &["10.0.0.0/8"], "10.0.0.1", false);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.0.255.255", true);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.0.0", false);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.255.255", false);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.0.0", true);
        check(&["10.0.0.0/8"], &["10.1.0.0/16", "10.3.0.0/16"], "10.2.0.0", true);
        check(&["10.0.0.0/8"], &["10.255.0.0/16"], "10.255.255.255", false);
        check(&["10.0.0.0/8"], &["0.0.0.0/0"], "10.0.0.0", false);
        check(&["0.0.0.0/0"], &[], "255.255.255.255", true);
        check(&["0.0.0.0/0"], &[], "::1", false);
        check(&["::/0"], &["2001:db8::/32"], "2001:db8::1", false);
        check(&["::/0"], &["2001:db8::/32"], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true);
    }

    #[test]
    fn what_is_local_is_answered_by_default() {
        let access = Access::new(&AccessRules::of(&AccessRules::LOCAL));
        assert_eq!(access.on_denied(), OnDenied::Refused);
        for (client, expected) in [
            ("127.0.0.1", true),
            ("10.255.0.1", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.0.1", true),
            ("192.0.2.1", false),
            ("8.8.8.8", false),
            ("::1", true),
            ("::2", false),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(access.admits(client.parse().expect("an address")), expected, "{client}");
        }
        let everybody = Access::new(&AccessRules::of(&AccessRules::EVERYBODY));
        assert!(
            ["0.0.0.0", "255.255.255.255", "::", "ffff::"]
                .iter()
                .all(|client| everybody.admits(client.parse().unwrap()))
        );
    }

    /// Generates prefixes close enough to overlap.
    fn prefix_4() -> impl Strategy<Value = Prefix> {
        (0..64_u32, 24..=32_u8).prop_map(|(number, len)| {
            let bits = 0x0A00_0000 | (number << 3);
            let first = Ipv4Addr::from_bits(bits & !u32::MAX.checked_shr(len.into()).unwrap_or(0));
            format!("{first}/{len}").parse().expect("a prefix")
        })
    }

    proptest! {
        #[test]
        fn ranges_say_what_the_prefixes_say(
            allow in prop::collection::vec(prefix_4(), 0..8),
            deny in prop::collection::vec(prefix_4(), 0..8),
        ) {
            let access = Access::new(&AccessRules { allow: allow.clone(), deny: deny.clone(), on_denied: OnDenied::Drop });
            for number in 0..1_024_u32 {
                let client = Ipv4Addr::from_bits(0x0A00_0000 - 256 + number);
                let is_in = |list: &[Prefix]| list.iter().any(|prefix| prefix.contains(client.into()));
                prop_assert_eq!(access.admits(client.into()), is_in(&allow) && !is_in(&deny), "{}", client);
                let mapped: Ipv6Addr = client.to_ipv6_mapped();
                prop_assert_eq!(access.admits(mapped.into()), access.admits(client.into()));
            }
        }
    }
}
