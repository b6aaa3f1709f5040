//! `[pools.*]`: backends and the rules of races.

use std::path::Path;
use std::time::Duration;

use super::backend::{self, BACKENDS_EXAMPLE, BackendConfig, BackendReferences};
use super::section::{ConfigNode, ConfigSection, DocumentSpot};
use super::{Case, PoolConfig, ProbeConfig, discover, limits, words};
use crate::policy::connections::ConnectionPoolRules;
use crate::policy::{HealthRules, Hedge, PoolRules, Serves};

pub(super) struct PoolDefaults {
    serves: Option<Serves>,
    split: PoolKeys,
    same: PoolKeys,
}

impl Default for PoolDefaults {
    fn default() -> Self {
        Self { serves: None, split: PoolKeys::of(Serves::Split), same: PoolKeys::of(Serves::Same) }
    }
}

impl PoolDefaults {
    fn of(&self, serves: Serves) -> &PoolKeys {
        match serves {
            Serves::Split => &self.split,
            Serves::Same => &self.same,
        }
    }
}

#[derive(Clone)]
struct PoolKeys {
    rules: PoolRules,
    probe: ProbeConfig,
    replicas: bool,
    max_lag: Duration,
    compare: f64,
    audit: Option<Duration>,
    cache: Option<bool>,
    case: Case,
    cookies: bool,
    trust_ad: Option<bool>,
    max_in_flight: u32,
    connections: ConnectionPoolRules,
}

impl PoolKeys {
    fn of(serves: Serves) -> Self {
        Self {
            rules: PoolRules::of(serves),
            probe: ProbeConfig::default(),
            replicas: PoolConfig::REPLICAS,
            max_lag: PoolConfig::MAX_LAG,
            compare: PoolConfig::COMPARE,
            audit: None,
            cache: None,
            case: PoolConfig::CASE,
            cookies: PoolConfig::COOKIES,
            trust_ad: None,
            max_in_flight: PoolConfig::MAX_IN_FLIGHT,
            connections: ConnectionPoolRules::default(),
        }
    }
}

pub(super) fn read_defaults(mut section: ConfigSection<'_>) -> PoolDefaults {
    let mut defaults = PoolDefaults::default();
    if let Some(node) = section.take("pool") {
        let read = |defaults: &mut PoolDefaults, serves: Serves| {
            let Some(mut section) = node.section() else { return };
            defaults.serves = read_serves(&mut section);
            let keys = read_keys(&mut section, defaults.of(serves), &[]);
            section.finish();
            match serves {
                Serves::Split => defaults.split = keys,
                Serves::Same => defaults.same = keys,
            }
        };
        read(&mut defaults, Serves::Split);
        if !section.is_described() {
            read(&mut defaults, Serves::Same);
        }
    }
    section.finish();
    defaults
}

pub(super) fn read<'d>(
    name: &str,
    mut section: ConfigSection<'d>,
    defaults: &PoolDefaults,
    folder: &Path,
    asked: &mut BackendReferences<'d>,
    etcd_uses: &mut Vec<DocumentSpot<'d>>,
) -> PoolConfig {
    section.need_any(&["backends", "discover"], &format!("backends is missing, write backends = {BACKENDS_EXAMPLE}"));
    let backends_node = section.take("backends");
    let discover = section.section("discover").map(|section| discover::read(section, folder, etcd_uses));
    let backends =
        backends_node.map(|node| backend::read_all(&node, discover.is_some(), folder, asked)).unwrap_or_default();
    let serves = read_serves(&mut section).or(defaults.serves);
    let usual = defaults.of(serves.unwrap_or(Serves::Split));
    let keys = read_keys(&mut section, usual, &backends);
    section.finish();
    let names_clients = backends.iter().any(|backend| backend.proxy_protocol);
    PoolConfig {
        name: name.to_owned(),
        backends,
        discover,
        serves,
        rules: keys.rules,
        probe: keys.probe,
        replicas: keys.replicas,
        max_lag: keys.max_lag,
        compare: keys.compare,
        audit: keys.audit,
        cache: keys.cache.unwrap_or(PoolConfig::CACHE) && !names_clients,
        case: keys.case,
        cookies: keys.cookies,
        trust_ad: keys.trust_ad,
        max_in_flight: keys.max_in_flight,
        connections: keys.connections,
    }
}

fn read_serves(section: &mut ConfigSection<'_>) -> Option<Serves> {
    section.take("serves").and_then(|node| node.parsed(words::serves))
}

fn read_keys(section: &mut ConfigSection<'_>, usual: &PoolKeys, backends: &[BackendConfig]) -> PoolKeys {
    let (health, probe) = match section.section("health") {
        Some(health) => read_health(health, usual.rules.health, &usual.probe),
        None => (usual.rules.health, usual.probe.clone()),
    };
    let hedge = section.section("hedge").map_or(usual.rules.hedge, |section| read_hedge(section, usual.rules.hedge));
    let rules = PoolRules {
        dispatch: section.parsed("dispatch", words::dispatch, usual.rules.dispatch),
        fanout: section.integer("fanout", limits::FANOUT, usual.rules.fanout),
        balance: section.parsed("balance", words::balance, usual.rules.balance),
        accept: section.parsed("accept", words::accept, usual.rules.accept),
        believe_ede: section.boolean("believe_ede", usual.rules.believe_ede),
        timeout: section.parsed("timeout", |text| limits::TIMEOUT.parse(text), usual.rules.timeout),
        grace: section.parsed("grace", words::grace, usual.rules.grace),
        attempt_timeout: section.parsed(
            "attempt_timeout",
            |text| limits::ATTEMPT_TIMEOUT.parse(text),
            usual.rules.attempt_timeout,
        ),
        tries: section.integer("tries", limits::TRIES, usual.rules.tries),
        on_timeout: section.parsed("on_timeout", words::silence, usual.rules.on_timeout),
        on_all_down: section.parsed("on_all_down", words::silence, usual.rules.on_all_down),
        hedge,
        health,
    };
    let replicas = section.boolean("replicas", usual.replicas);
    PoolKeys {
        rules,
        probe,
        replicas,
        max_lag: section.parsed("max_lag", |text| limits::MAX_LAG.parse(text), usual.max_lag),
        compare: read_compare(section, replicas, usual.compare),
        audit: read_audit(section, replicas, usual.audit),
        cache: read_cache(section, backends).or(usual.cache),
        case: section.parsed("case", words::case, usual.case),
        cookies: section.boolean("cookies", usual.cookies),
        trust_ad: section.take("trust_ad").and_then(|node| node.boolean()).or(usual.trust_ad),
        max_in_flight: section.integer("max_in_flight", limits::MAX_IN_FLIGHT, usual.max_in_flight),
        connections: section
            .section("connections")
            .map_or(usual.connections, |section| read_connections(section, usual.connections)),
    }
}

/// Reads `cache`. Backends that get client addresses may answer per client, so caching is an error.
fn read_cache(section: &mut ConfigSection<'_>, backends: &[BackendConfig]) -> Option<bool> {
    let names_clients = backends.iter().any(|backend| backend.proxy_protocol);
    let node = section.take("cache")?;
    let cache = node.boolean();
    if names_clients && cache == Some(true) {
        node.spot.note("answers of backends with proxy_protocol may be for one client alone, write cache = false");
    }
    cache
}

fn read_compare(section: &mut ConfigSection<'_>, are_replicas: bool, usual: f64) -> f64 {
    let node = section.take("compare");
    let compare = node.as_ref().map_or(Some(usual), |node| node.number(limits::COMPARE)).unwrap_or(usual);
    if compare > 0.0 && !are_replicas {
        node.as_ref().map_or(&section.spot, |node| &node.spot).note(NO_REPLICAS.to_owned());
    }
    compare
}

fn read_audit(section: &mut ConfigSection<'_>, are_replicas: bool, usual: Option<Duration>) -> Option<Duration> {
    let node = section.take("audit");
    let read = |node: &ConfigNode<'_>| node.parsed(|text| limits::AUDIT.parse_or_off(text)).unwrap_or(usual);
    let audit = node.as_ref().map_or(usual, read);
    if audit.is_some() && !are_replicas {
        node.as_ref().map_or(&section.spot, |node| &node.spot).note(NO_REPLICAS.to_owned());
    }
    audit
}

const NO_REPLICAS: &str = "compare is for backends with the same data, write replicas = true if theirs is the same";

fn read_hedge(mut section: ConfigSection<'_>, usual: Hedge) -> Hedge {
    let (min_delay, min_spot) = read_clamp(&mut section, "min_delay", usual.min_delay);
    let (max_delay, max_spot) = read_clamp(&mut section, "max_delay", usual.max_delay);
    if let (Some(min), Some(max)) = (min_delay, max_delay)
        && min > max
    {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        let spot = min_spot.or(max_spot).unwrap_or_else(|| section.spot.clone());
        spot.note(format!("min_delay {min} is above max_delay {max}"));
    }
    let budget = section.take("budget").and_then(|node| node.number(limits::BUDGET));
    let hedge = Hedge {
        delay: section.parsed("delay", words::hedge_delay, usual.delay),
        min_delay: min_delay.unwrap_or(usual.min_delay),
        max_delay: max_delay.unwrap_or(usual.max_delay),
        budget: budget.unwrap_or(usual.budget),
        max: section.integer("max", limits::HEDGES, usual.max),
    };
    section.finish();
    hedge
}

fn read_clamp<'d>(
    section: &mut ConfigSection<'d>,
    key: &'static str,
    usual: Duration,
) -> (Option<Duration>, Option<DocumentSpot<'d>>) {
    match section.take(key) {
        Some(node) => (node.parsed(|text| limits::HEDGE_CLAMP.parse(text)), Some(node.spot)),
        None => (Some(usual), None),
    }
}

fn read_connections(mut section: ConfigSection<'_>, usual: ConnectionPoolRules) -> ConnectionPoolRules {
    let rules = ConnectionPoolRules {
        max: section.integer("max", limits::BACKEND_CONNECTIONS, usual.max),
        pipeline: section.integer("pipeline", limits::PIPELINE, usual.pipeline),
        warm: section.boolean("warm", usual.warm),
        idle: section.parsed("idle", |text| limits::CONNECTION_IDLE.parse(text), usual.idle),
        connect_timeout: section.parsed(
            "connect_timeout",
            |text| limits::CONNECT_TIMEOUT.parse(text),
            usual.connect_timeout,
        ),
        padding: section.boolean("padding", usual.padding),
        early_data: section.boolean("early_data", usual.early_data),
    };
    section.finish();
    rules
}

fn read_health(
    mut section: ConfigSection<'_>,
    usual: HealthRules,
    usual_probe: &ProbeConfig,
) -> (HealthRules, ProbeConfig) {
    let rules = HealthRules {
        interval: section.parsed("interval", |text| limits::PROBE_INTERVAL.parse(text), usual.interval),
        every_queries: section.integer("every_queries", limits::PROBE_EVERY, usual.every_queries),
        timeout: section.parsed("timeout", |text| limits::PROBE_TIMEOUT.parse(text), usual.timeout),
        fall: section.integer("fall", limits::PROBES, usual.fall),
        rise: section.integer("rise", limits::PROBES, usual.rise),
        expect: section.parsed("expect", words::expect, usual.expect),
    };
    let probe =
        section.section("probe").map_or_else(|| usual_probe.clone(), |section| read_probe(section, usual_probe));
    section.finish();
    (rules, probe)
}

fn read_probe(mut section: ConfigSection<'_>, usual: &ProbeConfig) -> ProbeConfig {
    let probe = ProbeConfig {
        name: section.parsed("name", words::domain_name, usual.name.clone()),
        rtype: section.parsed("type", words::record_type, usual.rtype),
    };
    section.finish();
    probe
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;
    use crate::policy::balance::Balance;
    use crate::policy::{Accept, Dispatch, Expect, Silence};

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
        let PoolRules { dispatch, balance, accept, on_timeout, on_all_down, health, .. } = PoolRules::of(Serves::Same);
        assert_eq!((dispatch, balance, accept), (Dispatch::Hedge, Balance::Fastest, Accept::Conclusive));
        assert_eq!((on_timeout, on_all_down), (Silence::Servfail, Silence::Servfail));
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
            accept: Accept::Any,
            tries: 4,
            hedge: Hedge { max: 2, budget: 0.5, ..same.hedge },
            health: HealthRules { fall: 7, rise: 5, ..same.health },
            ..same
        };
        assert_eq!((pool.rules, pool.replicas, pool.compare), (expected, true, 0.5));
        let pool = first_pool(&format!("{defaults}[pools.ts]\nserves = \"split\"\non_timeout = \"drop\""));
        assert_eq!(pool.serves, Some(Serves::Split));
        assert_eq!(pool.rules.dispatch, Dispatch::Race);
        assert_eq!((pool.rules.accept, pool.rules.on_timeout), (Accept::Any, Silence::Drop));
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
                "19: pools.ts.attempt_timeout: invalid value \"0ms\": expected a duration from 1ms to 1m",
            ),
            ("tries = 0", "9: pools.ts.tries: invalid value 0: expected an integer from 1 to 8"),
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
