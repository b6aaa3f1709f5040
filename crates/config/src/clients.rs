//! Access of clients to the forwarder or an authority, their cookies, and their limits.

use limit::{AccessRules, ConnectionRules, Prefix, RateRules, WaitRules};

use super::limits::{self, Limits, ms, secs};
use super::listen::ListenConfig;
use super::readers::{boolean, duration, file, integer, seconds, size, word};
use super::section::{ConfigNode, ConfigSection};
use super::{CookieConfig, words};

pub(super) fn read_access(section: &mut ConfigSection<'_>, usual: &[&str]) -> AccessRules {
    read_keys!(section, AccessRules::of(usual) => AccessRules {
        allow: read_prefixes,
        deny: read_prefixes,
        on_denied: word,
    })
}

pub(super) fn read_prefixes(node: &ConfigNode<'_>) -> Option<Vec<Prefix>> {
    let items = node.any_items("[\"192.0.2.0/24\", \"2001:db8::/32\"]");
    Some(items.iter().filter_map(|item| item.parsed(words::prefix)).collect())
}

pub(super) fn read_cookies(section: &mut ConfigSection<'_>) -> CookieConfig {
    CookieConfig {
        enabled: section.read("cookies", CookieConfig::default().enabled, boolean),
        secrets_file: section.optional("cookie_secrets_file", file),
    }
}

pub(super) fn read_waiting(section: &mut ConfigSection<'_>) -> WaitRules {
    let usual = WaitRules::default();
    WaitRules {
        // Zero would disable the forwarder.
        waiting: section.read("waiting", usual.waiting, integer(1..=100_000)),
        // Fewer would refuse clients on any slow day; each takes some 400 bytes.
        in_flight: section.read("in_flight", usual.in_flight, integer(100..=10_000_000)),
        // As many as `in_flight`, or more, is no limit.
        per_zone: section.optional("per_zone", integer(10..=10_000_000)),
    }
}

pub(super) fn read_connections(section: &mut ConfigSection<'_>) -> ConnectionRules {
    read_keys!(section, ConnectionRules::default() => ConnectionRules {
        // 0 is as many as there is room for. A process rarely has more descriptors.
        max: integer(0..=1_000_000),
        per_client: integer(0..=1_000_000),
        // Zero would answer none; each has a slot in a channel.
        in_flight: integer(1..=10_000),
        // Less than a round trip would close every connection.
        first_query: duration(ms(100)..=secs(60)),
        idle: duration(limits::CONNECTION_IDLE),
        // Shorter, every other query would meet a closing connection.
        lifetime: duration(secs(1)..=secs(7 * 86_400)),
        unsent: size(limits::CACHE_SIZE),
        // Handshakes per second of one client; 0 is no limit.
        handshakes: integer(0..=1_000_000),
        early_data: boolean,
    })
}

pub(super) fn read_rate_limit(section: &mut ConfigSection<'_>, listen: &[ListenConfig]) -> Option<RateRules> {
    section.below("rate_limit", read_rates).or_else(|| usual_rate_limit(listen))
}

/// The default rate limits of a server with these listeners: none if only this host reaches them.
pub fn usual_rate_limit(listen: &[ListenConfig]) -> Option<RateRules> {
    let is_reached = listen.iter().any(|listener| !listener.socket().ip().to_canonical().is_loopback());
    is_reached.then(RateRules::default)
}

/// Responses per second to one client; 0 is no limit. The counters hold ten thousand at most.
const RATE: Limits<u16> = Limits { min: 0, max: 10_000 };

fn read_rates(section: &mut ConfigSection<'_>) -> RateRules {
    read_keys!(section, RateRules::default() => RateRules {
        answers: integer(RATE),
        referrals: integer(RATE),
        nxdomains: integer(RATE),
        errors: integer(RATE),
        total: integer(RATE),
        window: seconds(secs(1)..=secs(3600)),
        // One in so many responses over the rate has TC=1; 0 is none. BIND and NSD allow up to 10, too.
        slip: integer(0..=10),
        ipv4_prefix: integer(1..=32),
        ipv6_prefix: integer(1..=128),
        loopback: boolean,
    })
}
