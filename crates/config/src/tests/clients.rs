//! Tests of access and rate limits.

use std::path::Path;
use std::time::Duration;

use limit::{AccessRules, OnDenied, RateRules, WaitRules};

use super::super::{AuthorityConfig, Config, ForwarderConfig};
use super::check;

fn forwarder(lines: &str) -> ForwarderConfig {
    let text = format!("[pools.p]\nbackends = [\"198.51.100.1:53\"]\n[forwarder]\n{lines}\n");
    let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}"));
    config.forwarder.expect("there is one")
}

fn authority(listen: &str, lines: &str) -> AuthorityConfig {
    let text = format!("[authorities.a]\nlisten = [\"{listen}\"]\nzones = [\"a\"]\n{lines}\n");
    let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|p| panic!("{text}\n{p}"));
    config.authorities.into_iter().next().expect("there is one")
}

#[test]
fn who_is_answered_is_read() {
    assert_eq!(forwarder("").access, AccessRules::of(&AccessRules::LOCAL));
    assert_eq!(authority("127.0.0.1:53", "").access, AccessRules::of(&AccessRules::EVERYBODY));
    let read = forwarder("allow = [\"192.0.2.0/24\", \"::1\"]\ndeny = []\non_denied = \"drop\"").access;
    assert_eq!(read, AccessRules { on_denied: OnDenied::Drop, ..AccessRules::of(&["192.0.2.0/24", "::1"]) });
    assert_eq!(forwarder("allow = []").access.allow, []);
    let read = authority("127.0.0.1:53", "deny = [\"192.0.2.1\"]").access;
    assert_eq!((read.allow.len(), read.deny.len()), (2, 1));
}

#[test]
fn who_is_answered_is_checked() {
    let rest = "[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
    for (line, expected) in [
        (
            "allow = [\"192.0.2.1/24\"]",
            "2:10: forwarder.allow[0]: invalid value \"192.0.2.1/24\": expected an address or a prefix \
             (bits are set behind the prefix: write the first address of the network)",
        ),
        (
            "deny = [\"key:k\"]",
            "2:9: forwarder.deny[0]: invalid value \"key:k\": expected an address or a prefix \
             (neither an IP address nor a prefix such as 192.0.2.0/24)",
        ),
        (
            "deny = \"::1\"",
            "2:8: forwarder.deny: expected an array such as [\"192.0.2.0/24\", \"2001:db8::/32\"], not a string",
        ),
        (
            "on_denied = \"reject\"",
            "2:13: forwarder.on_denied: invalid value \"reject\": expected one of refused, drop",
        ),
    ] {
        check(&format!("[forwarder]\n{line}\n{rest}"), &[expected]);
    }
}

#[test]
fn what_may_wait_is_read_and_checked() {
    assert_eq!(forwarder("").limits, WaitRules { waiting: 1_000, in_flight: 100_000, per_zone: None });
    let read = forwarder("limits = { waiting = 5, in_flight = 100, per_zone = 20 }").limits;
    assert_eq!(read, WaitRules { waiting: 5, in_flight: 100, per_zone: Some(20) });
    assert_eq!([read, WaitRules { per_zone: None, ..read }].map(WaitRules::per_zone), [Some(20), Some(50)]);
    assert_eq!(WaitRules { per_zone: Some(100), ..read }.per_zone(), None, "in_flight is reached first");
    let rest = "[pools.p]\nbackends = [\"192.0.2.1:53\"]\n";
    for (line, expected) in [
        ("waiting = 0", "2:11: forwarder.limits.waiting: invalid value 0: expected an integer from 1 to 100000"),
        (
            "in_flight = 99",
            "2:13: forwarder.limits.in_flight: invalid value 99: expected an integer from 100 to 10000000",
        ),
        ("wating = 1", "2:1: forwarder.limits: unknown key \"wating\", did you mean \"waiting\"?"),
    ] {
        check(&format!("[forwarder.limits]\n{line}\n{rest}"), &[expected]);
    }
}

#[test]
fn rate_limits_are_read() {
    let all = "rate_limit = { answers = 5, referrals = 6, nxdomains = 7, errors = 0, total = 8, window = \"9s\", \
               slip = 1, ipv4_prefix = 32, ipv6_prefix = 64, loopback = true }";
    let rules = RateRules {
        answers: 5,
        referrals: 6,
        nxdomains: 7,
        errors: 0,
        total: 8,
        window: Duration::from_secs(9),
        slip: 1,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        loopback: true,
    };
    assert_eq!(authority("127.0.0.1:53", all).rate_limit, Some(rules));
    assert_eq!(forwarder(all).rate_limit, Some(rules));
    assert_eq!(forwarder("rate_limit = {}").rate_limit, Some(RateRules::default()));
    check(
        "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a\"]\nrate_limit = { slip = 11 }",
        &["4:23: authorities.a.rate_limit.slip: invalid value 11: expected an integer from 0 to 10"],
    );
}

#[test]
fn rates_are_limited_where_others_can_ask() {
    for (listen, expected) in [
        ("127.0.0.1:53", None),
        ("[::1]:53", None),
        ("0.0.0.0:53", Some(RateRules::default())),
        ("192.0.2.1:53", Some(RateRules::default())),
    ] {
        assert_eq!(authority(listen, "").rate_limit, expected, "{listen}");
        assert_eq!(forwarder(&format!("listen = [\"{listen}\"]")).rate_limit, expected, "{listen}");
    }
}
