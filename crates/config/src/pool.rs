//! `[pools.*]`: backends and the rules of races.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dns::{Rcode, RecordType};
use hedge::{Dispatch, Expect, HealthRules, Hedge, RaceRules};

use super::backend::{self, BACKENDS_EXAMPLE, BackendConfig};
use super::limits::{self, Limits, ms, secs};
use super::readers::{boolean, duration, integer, label, number, some, text, word};
use super::references::References;
use super::section::{ConfigNode, ConfigSection};
use super::words::{self, or_off};
use super::{
    ConnectionPoolRules, ExpectedReply, PoolConfig, PoolRules, ProbeConfig, ReplicaConfig, Serves, SpoofingConfig,
    discover, passing, warnings,
};

/// The keys of pools that are not in their section, for each value of `serves`.
pub(super) struct PoolDefaults {
    split: PoolConfig,
    same: PoolConfig,
}

impl Default for PoolDefaults {
    fn default() -> Self {
        let of = |serves| PoolConfig { rules: PoolRules::of(serves), ..PoolConfig::default() };
        Self { split: of(Serves::Split), same: of(Serves::Same) }
    }
}

impl PoolDefaults {
    fn of(&self, serves: Option<Serves>) -> &PoolConfig {
        match serves {
            None | Some(Serves::Split) => &self.split,
            Some(Serves::Same) => &self.same,
        }
    }
}

pub(super) fn read_defaults(section: &mut ConfigSection<'_>) -> PoolDefaults {
    let mut defaults = PoolDefaults::default();
    if let Some(node) = section.take("pool") {
        let read = |usual: &PoolConfig| {
            let keys = node.section().map(|section| {
                section.whole(|section| {
                    let serves = section.optional("serves", word);
                    PoolConfig { serves, ..read_keys(section, usual, &[]) }
                })
            });
            keys.unwrap_or_else(|| usual.clone())
        };
        defaults.split = read(&defaults.split);
        if !section.is_described() {
            defaults.same = read(&defaults.same);
        }
    }
    defaults
}

pub(super) fn read<'d>(
    name: &str,
    section: &mut ConfigSection<'d>,
    defaults: &PoolDefaults,
    references: &mut References<'d>,
) -> PoolConfig {
    section.need_any(&["backends", "discover"], &format!("backends is missing, write backends = {BACKENDS_EXAMPLE}"));
    let backends = section.take("backends");
    let discover = section.below("discover", |section| discover::read(section, references));
    let backends = backends.map(|node| backend::read_all(&node, discover.is_some(), references)).unwrap_or_default();
    let serves = section.optional("serves", word).or(defaults.split.serves);
    let keys = read_keys(section, defaults.of(serves), &backends);
    warnings::check_pool(section, &keys.rules);
    PoolConfig { name: name.to_owned(), backends, discover, serves, ..keys }
}

fn read_keys(section: &mut ConfigSection<'_>, usual: &PoolConfig, backends: &[BackendConfig]) -> PoolConfig {
    let (health, probe) = section
        .below("health", |section| read_health(section, usual))
        .unwrap_or_else(|| (usual.rules.health, usual.probe.clone()));
    // After a wrong dispatch, the keys of hedges are not compared with it.
    let read = section.read("dispatch", Some(usual.rules.race.dispatch), some(word));
    let dispatch = read.unwrap_or(usual.rules.race.dispatch);
    let attempt_timeout = usual.rules.race.clone().with_dispatch(dispatch).attempt_timeout;
    let hedge = section.below("hedge", |section| read_hedge(section, usual.rules.race.hedge, read));
    let rules = PoolRules {
        race: RaceRules {
            dispatch,
            fanout: section.read("fanout", usual.rules.race.fanout, integer(limits::FANOUT)),
            balance: section.read("balance", usual.rules.race.balance, word),
            timeout: section.read("timeout", usual.rules.race.timeout, duration(limits::TIMEOUT)),
            grace: section.read("grace", usual.rules.race.grace, text(words::grace)),
            attempt_timeout: section.read("attempt_timeout", attempt_timeout, text(words::attempt_timeout)),
            tries: section.read("tries", usual.rules.race.tries, integer(limits::TRIES)),
            hedge: hedge.unwrap_or(usual.rules.race.hedge),
        },
        accept: section.read("accept", usual.rules.accept, word),
        believe_ede: section.read("believe_ede", usual.rules.believe_ede, boolean),
        on_timeout: section.read("on_timeout", usual.rules.on_timeout, word),
        on_all_down: section.read("on_all_down", usual.rules.on_all_down, word),
        health,
        min_up: section.read("min_up", usual.rules.min_up, integer(limits::MIN_UP)),
        passing: passing::read(section, &usual.rules.passing),
    };
    PoolConfig {
        rules,
        probe,
        replicas: read_replicas(section, &usual.replicas),
        cache: read_cache(section, usual.cache, backends),
        spoofing: read_keys!(section, usual.spoofing.clone() => SpoofingConfig {
            case: word,
            cookies: boolean,
        }),
        trust_ad: section.optional("trust_ad", boolean).or(usual.trust_ad),
        // Zero would disable a backend; more than the maximum do not fit in memory.
        max_in_flight: section.read("max_in_flight", usual.max_in_flight, integer(1..=10_000_000)),
        connections: section
            .below("connections", |section| read_connections(section, usual.connections))
            .unwrap_or(usual.connections),
        ..PoolConfig::default()
    }
}

/// Reads `cache`. Backends that get client addresses may answer per client, so caching is an error.
fn read_cache(section: &mut ConfigSection<'_>, usual: bool, backends: &[BackendConfig]) -> bool {
    let names_clients = backends.iter().any(|backend| backend.proxy_protocol);
    let cache = section.optional("cache", boolean);
    if names_clients && cache == Some(true) {
        let spot = section.spot_of("cache");
        spot.note("answers of backends with proxy_protocol may be for one client alone, write cache = false");
    }
    cache.unwrap_or(usual) && !names_clients
}

fn read_replicas(section: &mut ConfigSection<'_>, usual: &ReplicaConfig) -> ReplicaConfig {
    // Shorter is load, longer finds nothing.
    let every = Limits { min: ms(100), max: secs(3600) };
    let replicas = ReplicaConfig {
        enabled: section.read("replicas", usual.enabled, boolean),
        max_lag: section.read("max_lag", usual.max_lag, duration(ms(100)..=secs(86_400))),
        compare: section.read("compare", usual.compare, number(limits::SHARE)),
        audit: section.read("audit", usual.audit, text(|text| or_off(text, |text| every.parse(text)))),
    };
    let needs_replicas = [("compare", replicas.compare > 0.0), ("audit", replicas.audit.is_some())];
    for (key, _) in needs_replicas.into_iter().filter(|(_, is_on)| *is_on && !replicas.enabled) {
        section.spot_of(key).note(NO_REPLICAS);
    }
    replicas
}

const NO_REPLICAS: &str = "compare is for backends with the same data, write replicas = true if theirs is the same";

fn read_hedge(section: &mut ConfigSection<'_>, usual: Hedge, dispatch: Option<Dispatch>) -> Hedge {
    let (needless, remedy) = match dispatch {
        Some(Dispatch::Auto) => {
            (&["delay", "min_delay", "max_delay"][..], "dispatch = \"auto\" sets the delay, remove")
        }
        Some(Dispatch::Hedge | Dispatch::Race | Dispatch::Sequential) => {
            (&["target"][..], "only dispatch = \"auto\" has a target, remove")
        }
        None => (&[][..], ""),
    };
    for key in needless.iter().filter(|key| section.has(key)) {
        section.spot_of(key).note(format!("{remedy} {key}"));
    }
    let min = section.read("min_delay", Some(usual.min_delay), some(duration(limits::HEDGE_CLAMP)));
    let max = section.read("max_delay", Some(usual.max_delay), some(duration(limits::HEDGE_CLAMP)));
    if let Some((min, max)) = min.zip(max).filter(|(min, max)| min > max) {
        let spot = section.spot_of(if section.has("min_delay") { "min_delay" } else { "max_delay" });
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        spot.note(format!("min_delay {min} is above max_delay {max}"));
    }
    let budget = section.read("budget", usual.budget, number(limits::BUDGET));
    Hedge {
        delay: section.read("delay", usual.delay, text(words::hedge_delay)),
        min_delay: min.unwrap_or(usual.min_delay),
        max_delay: max.unwrap_or(usual.max_delay),
        budget,
        max: section.read("max", usual.max, integer(limits::HEDGES)),
        target: section.read("target", usual.target, text(words::hedge_target)),
    }
}

fn read_connections(section: &mut ConfigSection<'_>, usual: ConnectionPoolRules) -> ConnectionPoolRules {
    read_keys!(section, usual => ConnectionPoolRules {
        // More only reduce the queries lost with a connection.
        max: integer(1..=16),
        // Half of the 65,536 message IDs stay free.
        pipeline: integer(1..=10_000),
        warm: boolean,
        idle: duration(limits::CONNECTION_IDLE),
        max_age: text(|text| or_off(text, |text| limits::CONNECTION_AGE.parse(text))),
        // Three round trips take less than a second everywhere on earth.
        connect_timeout: duration(ms(10)..=secs(60)),
        padding: boolean,
        early_data: boolean,
    })
}

fn read_health(section: &mut ConfigSection<'_>, usual: &PoolConfig) -> (HealthRules, ProbeConfig) {
    let PoolConfig { rules: PoolRules { health, .. }, probe, .. } = usual;
    let rules = HealthRules {
        interval: section.read("interval", health.interval, duration(limits::PROBE_INTERVAL)),
        every_queries: section.read("every_queries", health.every_queries, integer(0..=u32::MAX)),
        timeout: section.read("timeout", health.timeout, duration(ms(1)..=secs(60))),
        fall: section.read("fall", health.fall, integer(1..=100)),
        rise: section.read("rise", health.rise, integer(1..=100)),
        expect: health.expect,
    };
    let expect = section.optional("expect", |node| node.table_or(read_expect_word, read_expected_reply));
    let (expect, reply) = expect.unwrap_or_else(|| (rules.expect, probe.expect.clone()));
    let read_probe = |section: &mut ConfigSection<'_>| ProbeConfig {
        name: section.read("name", probe.name.clone(), text(words::domain_name)),
        rtype: section.read("type", probe.rtype, text(words::record_type)),
        expect: None,
    };
    let probe = section.below("probe", read_probe).unwrap_or_else(|| probe.clone());
    if let Some(answer) = reply.as_ref().and_then(|reply| reply.answer.as_deref())
        && !may_be_data(answer, probe.rtype)
    {
        section.spot_of("expect").note(format!(
            "{answer:?} is not the data of a record of type {}, write probe = {{ name = \"www.example.org\", type = \"A\" }} \
             for the address of a name",
            probe.rtype
        ));
    }
    (HealthRules { expect, ..rules }, ProbeConfig { expect: reply, ..probe })
}

fn may_be_data(answer: &str, rtype: RecordType) -> bool {
    match rtype {
        RecordType::A => answer.parse::<Ipv4Addr>().is_ok(),
        RecordType::AAAA => answer.parse::<Ipv6Addr>().is_ok(),
        RecordType::NS => answer.parse::<IpAddr>().is_err(),
        _ => true,
    }
}

fn read_expect_word(node: &ConfigNode<'_>) -> Option<(Expect, Option<ExpectedReply>)> {
    node.parsed(words::word).map(|expect| (expect, None))
}

fn read_expected_reply(section: &mut ConfigSection<'_>) -> Option<(Expect, Option<ExpectedReply>)> {
    let rcode = section.read("rcode", Rcode::NOERROR, word);
    Some((Expect::Match, Some(ExpectedReply { rcode, answer: section.optional("answer", label) })))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hedge::balance::Balance;
    use hedge::{AttemptTimeout, Dispatch, Expect};

    use super::super::Config;
    use super::super::tests::check;
    use super::*;
    use crate::{Accept, Silence};

    fn first_pool(sections: &str) -> PoolConfig {
        let text = format!("[forwarder]\n{sections}\nbackends = [\"192.0.2.1:53\"]");
        let config = Config::parse(&text, "c.toml", Path::new(""));
        config.unwrap_or_else(|problems| panic!("{text}\n{problems}")).pools.remove(0)
    }

    #[test]
    fn serves_sets_the_defaults_of_a_pool() {
        for (lines, serves) in
            [("", None), ("serves = \"split\"", Some(Serves::Split)), ("serves = \"same\"", Some(Serves::Same))]
        {
            let pool = first_pool(&format!("[pools.ts]\n{lines}"));
            assert_eq!(pool.serves, serves);
            assert_eq!(pool.rules, PoolRules::of(serves.unwrap_or(Serves::Split)));
        }
        let PoolRules { race, accept, on_timeout, on_all_down, health, .. } = PoolRules::of(Serves::Same);
        assert_eq!((race.dispatch, race.balance, accept), (Dispatch::Hedge, Balance::Fastest, Accept::Conclusive));
        assert_eq!((on_timeout, on_all_down), (Silence::Servfail, Silence::Servfail));
        assert_eq!(race.attempt_timeout, AttemptTimeout::AUTO);
        assert_eq!(health.expect, Expect::NoFailure);
        check_pool(
            "serves = \"sam\"",
            "10: pools.ts.serves: invalid value \"sam\": expected one of split, same; did you mean \"same\"?",
        );
    }

    #[test]
    fn keys_of_the_pool_win_over_defaults_and_those_over_serves() {
        let defaults = "[defaults.pool]\nserves = \"same\"\naccept = \"any\"\ntries = 3\nhealth.fall = 7\n\
                        hedge.max = 2\ncompare = 0.5\nreplicas = true\n";
        let pool = first_pool(&format!("{defaults}[pools.ts]\ntries = 4\nhealth.rise = 5\nhedge.budget = 0.5"));
        assert_eq!(pool.serves, Some(Serves::Same));
        let same = PoolRules::of(Serves::Same);
        let expected = PoolRules {
            race: RaceRules { tries: 4, hedge: Hedge { max: 2, budget: 0.5, ..same.race.hedge }, ..same.race },
            accept: Accept::Any,
            health: HealthRules { fall: 7, rise: 5, ..same.health },
            ..same
        };
        assert_eq!((pool.rules, pool.replicas.enabled, pool.replicas.compare), (expected, true, 0.5));
        let pool = first_pool(&format!("{defaults}[pools.ts]\nserves = \"split\"\non_timeout = \"drop\""));
        assert_eq!(pool.serves, Some(Serves::Split));
        assert_eq!(pool.rules.race.dispatch, Dispatch::Race);
        assert_eq!((pool.rules.accept, pool.rules.on_timeout), (Accept::Any, Silence::Drop));
    }

    #[test]
    fn auto_sets_the_attempt_timeout() {
        let attempt_timeout = |lines: &str| first_pool(lines).rules.race.attempt_timeout;
        let auto = "[pools.ts]\ndispatch = \"auto\"\n";
        assert_eq!(attempt_timeout(auto), AttemptTimeout::AUTO);
        let two = AttemptTimeout::after(secs(2));
        assert_eq!(attempt_timeout(&format!("{auto}attempt_timeout = \"2s\"")), two);
        assert_eq!(attempt_timeout(&format!("[defaults.pool]\nattempt_timeout = \"2s\"\n{auto}")), two);
    }

    #[test]
    fn defaults_are_checked_once_and_with_each_pool() {
        let pools = "[forwarder]\n[forwarder.routes]\n\".\" = \"a\"\n[pools.a]\nbackends = [\"192.0.2.1:53\"]\n\
                     [pools.b]\nbackends = [\"192.0.2.1:53\"]\n";
        for (lines, expected) in [
            ("tries = 9", "2:9: defaults.pool.tries: invalid value 9: expected an integer from 1 to 8"),
            ("health.raise = 2", "2:8: defaults.pool.health: unknown key \"raise\", did you mean \"rise\"?"),
        ] {
            check(&format!("[defaults.pool]\n{lines}\n{pools}"), &[expected]);
        }
        check(
            "defaults.pools = 1\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]",
            &["1:10: defaults: unknown key \"pools\", did you mean \"pool\"?"],
        );
        check(
            "[forwarder]\n[defaults.pool]\nreplicas = true\ncompare = 0.5\n[pools.a]\nreplicas = false\nbackends = [\"192.0.2.1:53\"]",
            &[&format!("5:1: pools.a: {NO_REPLICAS}")],
        );
    }

    fn check_pool(line: &str, expected: &str) {
        let text = format!("[forwarder]\n[pools.ts]\n{line}\nbackends = [\"192.0.2.1:53\"]");
        check(&text, &[&format!("3:{expected}")]);
    }

    #[test]
    fn pools_are_checked() {
        for (line, expected) in [
            ("timeout = \"0s\"", "11: pools.ts.timeout: invalid value \"0s\": expected a duration from 1ms to 1m"),
            ("timeout = \"61s\"", "11: pools.ts.timeout: invalid value \"61s\": expected a duration from 1ms to 1m"),
            (
                "timeout = \"soon\"",
                "11: pools.ts.timeout: invalid value \"soon\": expected a duration such as \"250ms\" or \"3s\"",
            ),
            (
                "attempt_timeout = \"0ms\"",
                "19: pools.ts.attempt_timeout: invalid value \"0ms\": expected auto or a duration from 1ms to 1m",
            ),
            ("tries = 0", "9: pools.ts.tries: invalid value 0: expected an integer from 1 to 8"),
            ("min_up = 0", "10: pools.ts.min_up: invalid value 0: expected an integer from 1 to 1000"),
            ("tries = 9", "9: pools.ts.tries: invalid value 9: expected an integer from 1 to 8"),
            ("fanout = 9", "10: pools.ts.fanout: invalid value 9: expected an integer from 0 to 8"),
            ("fanout = 1.0", "10: pools.ts.fanout: expected an integer from 0 to 8, not a float"),
            ("accept = true", "10: pools.ts.accept: expected one of positive, conclusive, any, not a boolean"),
            (
                "balance = \"stiky\"",
                "11: pools.ts.balance: invalid value \"stiky\": expected one of ordered, round-robin, random, sticky, \
             hash, least-load, fastest; did you mean \"sticky\"?",
            ),
            (
                "on_timeout = \"servfial\"",
                "14: pools.ts.on_timeout: invalid value \"servfial\": \
             expected one of nxdomain, servfail, refused, drop; did you mean \"servfail\"?",
            ),
            (
                "on_all_down = []",
                "15: pools.ts.on_all_down: expected one of nxdomain, servfail, refused, drop, not an array",
            ),
            (
                "grace = \"0s\"",
                "9: pools.ts.grace: invalid value \"0s\": expected off, auto or a duration from 1ms to 1m",
            ),
            ("case = \"mixed\"", "8: pools.ts.case: invalid value \"mixed\": expected one of keep, random"),
            ("cookies = \"on\"", "11: pools.ts.cookies: expected true or false, not a string"),
            ("compare = 2", "11: pools.ts.compare: invalid value 2: expected a number from 0 to 1"),
            (
                "compare = 0.5",
                "11: pools.ts.compare: compare is for backends with the same data, write replicas = true if theirs is the same",
            ),
            (
                "audit = \"10ms\"",
                "9: pools.ts.audit: invalid value \"10ms\": expected off or a duration from 100ms to 1h",
            ),
            (
                "audit = \"1s\"",
                "9: pools.ts.audit: compare is for backends with the same data, write replicas = true if theirs is the same",
            ),
            ("connections.max = 0", "19: pools.ts.connections.max: invalid value 0: expected an integer from 1 to 16"),
            (
                "connections.pipeline = 0",
                "24: pools.ts.connections.pipeline: invalid value 0: expected an integer from 1 to 10000",
            ),
            (
                "connections.connect_timeout = \"1ms\"",
                "31: pools.ts.connections.connect_timeout: invalid value \"1ms\": expected a duration from 10ms to 1m",
            ),
            ("connections.warm = 1", "20: pools.ts.connections.warm: expected true or false, not an integer"),
            ("compere = 1.0", "1: pools.ts: unknown key \"compere\", did you mean \"compare\"?"),
            ("cookie = true", "1: pools.ts: unknown key \"cookie\", did you mean \"cookies\"?"),
            ("hedge = 1", "9: pools.ts.hedge: expected a table, not an integer"),
            (
                "max_in_flight = 0",
                "17: pools.ts.max_in_flight: invalid value 0: expected an integer from 1 to 10000000",
            ),
        ] {
            check_pool(line, expected);
        }
    }

    #[test]
    fn hedges_are_checked() {
        for (line, expected) in [
            (
                "hedge.delay = \"p100\"",
                "15: pools.ts.hedge.delay: invalid value \"p100\": expected auto or a percentile from \
             \"p50\" to \"p99.9\" or a duration such as \"250ms\" or \"3s\"",
            ),
            ("hedge.budget = 1.1", "16: pools.ts.hedge.budget: invalid value 1.1: expected a number from 0 to 1"),
            ("hedge.budget = nan", "16: pools.ts.hedge.budget: invalid value nan: expected a number from 0 to 1"),
            ("hedge.budget = \"5%\"", "16: pools.ts.hedge.budget: expected a number from 0 to 1, not a string"),
            ("hedge.max = 0", "13: pools.ts.hedge.max: invalid value 0: expected an integer from 1 to 7"),
            ("hedge.min_delay = \"1s\"", "19: pools.ts.hedge.min_delay: min_delay 1s is above max_delay 250ms"),
            ("hedge.max_delay = \"1us\"", "19: pools.ts.hedge.max_delay: min_delay 1ms is above max_delay 1us"),
            (
                "hedge = { min_delay = \"1s\", max_delay = \"1x\" }",
                "41: pools.ts.hedge.max_delay: invalid value \"1x\": \
             expected a duration such as \"250ms\" or \"3s\"",
            ),
            (
                "hedge.target = \"p99\"",
                "16: pools.ts.hedge.target: only dispatch = \"auto\" has a target, remove target",
            ),
            (
                "hedge.delay = \"p95\"\ndispatch = \"auto\"",
                "15: pools.ts.hedge.delay: dispatch = \"auto\" sets the delay, remove delay",
            ),
            (
                "hedge.target = \"p50\"\ndispatch = \"auto\"",
                "16: pools.ts.hedge.target: invalid value \"p50\": expected a percentile from \"p90\" to \"p99.99\"",
            ),
            (
                "dispatch = \"atuo\"\nhedge.target = \"p99\"",
                "12: pools.ts.dispatch: invalid value \"atuo\": expected one of race, hedge, sequential, auto; did you mean \"auto\"?",
            ),
            ("hedge.dely = 1", "7: pools.ts.hedge: unknown key \"dely\", did you mean \"delay\"?"),
        ] {
            check_pool(line, expected);
        }
    }

    #[test]
    fn health_is_checked() {
        for (line, expected) in [
            (
                "health.interval = \"1ms\"",
                "19: pools.ts.health.interval: invalid value \"1ms\": expected a duration from 100ms to 1h",
            ),
            (
                "health.timeout = \"0s\"",
                "18: pools.ts.health.timeout: invalid value \"0s\": expected a duration from 1ms to 1m",
            ),
            (
                "health.every_queries = -1",
                "24: pools.ts.health.every_queries: invalid value -1: expected an integer from 0 to 4294967295",
            ),
            ("health.fall = 0", "15: pools.ts.health.fall: invalid value 0: expected an integer from 1 to 100"),
            ("health.rise = 101", "15: pools.ts.health.rise: invalid value 101: expected an integer from 1 to 100"),
            ("health.raise = 2", "8: pools.ts.health: unknown key \"raise\", did you mean \"rise\"?"),
            (
                "health.expect = \"answer\"",
                "17: pools.ts.health.expect: invalid value \"answer\": expected one of reply, no-failure",
            ),
            (
                "health.expect = { rcode = \"NOEROR\" }",
                "27: pools.ts.health.expect.rcode: invalid value \"NOEROR\": expected one of NOERROR, FORMERR, SERVFAIL, \
                 NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE, DSOTYPENI, BADVERS, BADKEY, BADTIME, \
                 BADMODE, BADNAME, BADALG, BADTRUNC, BADCOOKIE; did you mean \"NOERROR\"?",
            ),
            (
                "health.expect = { answer = \"192.0.2.1\" }",
                "17: pools.ts.health.expect: \"192.0.2.1\" is not the data of a record of type NS, \
                 write probe = { name = \"www.example.org\", type = \"A\" } for the address of a name",
            ),
            (
                "health = { expect = { answer = \"www\" }, probe = { type = \"AAAA\" } }",
                "21: pools.ts.health.expect: \"www\" is not the data of a record of type AAAA, \
                 write probe = { name = \"www.example.org\", type = \"A\" } for the address of a name",
            ),
            ("health.probe = \".\"", "16: pools.ts.health.probe: expected a table, not a string"),
            (
                "health.probe.type = \"NSS\"",
                "21: pools.ts.health.probe.type: invalid value \"NSS\": \
             expected a record type such as \"NS\", \"AAAA\" or \"TYPE65\"",
            ),
            ("health.probe.qtype = \"NS\"", "14: pools.ts.health.probe: unknown key \"qtype\", did you mean \"type\"?"),
        ] {
            check_pool(line, expected);
        }
    }

    #[test]
    fn backends_are_checked() {
        for (value, expected) in [
            ("[]", "2:12: pools.ts.backends: expected at least one, such as [\"127.0.0.1:5301\"]"),
            (
                "\"192.0.2.1:53\"",
                "2:12: pools.ts.backends: expected an array such as [\"127.0.0.1:5301\"], not a string",
            ),
            (
                "[\"192.0.2.300\"]",
                "2:13: pools.ts.backends[0]: invalid value \"192.0.2.300\": \
             expected an IP address with its port, such as \"127.0.0.1:53\" or \"[::1]:53\"",
            ),
            (
                "[\"192.0.2.1:0\"]",
                "2:13: pools.ts.backends[0]: invalid value \"192.0.2.1:0\": \
             expected a port from 1 to 65535, since port 0 cannot be reached",
            ),
            (
                "[\"192.0.2.1:53\", { address = \"192.0.2.1:53\", name = \"b\" }]",
                "2:29: pools.ts.backends[1]: backend 192.0.2.1:53 stands in this pool twice, first on line 2",
            ),
            (
                "[{ address = \"192.0.2.1:53\", name = \"b\" }, { address = \"192.0.2.2:53\", name = \"b\" }]",
                "2:55: pools.ts.backends[1]: the name \"b\" stands in this pool twice, first on line 2",
            ),
            (
                "[{ name = \"b\" }]",
                "2:13: pools.ts.backends[0]: address is missing, write address = \"127.0.0.1:5301\"",
            ),
            (
                "[{ address = \"192.0.2.1:53\", weight = 0 }]",
                "2:50: pools.ts.backends[0].weight: invalid value 0: expected an integer from 1 to 1000",
            ),
            (
                "[{ address = \"192.0.2.1:53\", tier = 4 }]",
                "2:48: pools.ts.backends[0].tier: invalid value 4: expected an integer from 0 to 3",
            ),
            (
                "[{ address = \"192.0.2.1:53\", weihgt = 2 }]",
                "2:41: pools.ts.backends[0]: unknown key \"weihgt\", did you mean \"weight\"?",
            ),
            (
                "[{ address = \"192.0.2.1:53\", name = \"\" }]",
                "2:48: pools.ts.backends[0].name: invalid value \"\": expected a name",
            ),
            (
                "[\"127.0.0.1:5300\"]",
                "2:13: pools.ts.backends[0]: 127.0.0.1:5300 is this forwarder itself, expected another server",
            ),
        ] {
            check(&format!("[pools.ts]\nbackends = {value}\n[forwarder]\n"), &[expected]);
        }
        check(
            "[forwarder]\n[pools.ts]\n",
            &["2:1: pools.ts: backends is missing, write backends = [\"127.0.0.1:5301\"]"],
        );
    }
}
