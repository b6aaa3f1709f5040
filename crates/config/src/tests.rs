//! Tests of whole files: results, complete problem lists, and no panic on any text. Tests beside each reader
//! cover its keys, with [`check`].

mod clients;
mod connections;
mod cookies;
mod dnstap;
mod primaries;
mod query_log;
mod slow;
mod suggest;
mod traces;

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use hedge::balance::Balance;
use hedge::{AttemptTimeout, Dispatch, Grace, HedgeDelay};
use limit::ConnectionRules;
use proptest::prelude::*;
use zone::{Identity, IdentityText, Miss};

use super::description::ANY_KEY;
use super::reference::{self, KeyDefault, ReferenceKey, ReferenceSection};
use super::{
    Accept, AdminConfig, CacheConfig, Case, Config, PoolRules, ProbeConfig, Problem, Silence, SupervisorConfig,
    TracesConfig, XdpConfig, XdpInterface,
};

const REFERENCE: &str = include_str!("../../../config.toml");

pub(super) fn parse(text: &str) -> Config {
    Config::parse(text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"))
}

/// Checks the headlines of all problems of a text, each without the file's name.
pub(super) fn check(text: &str, expected: &[&str]) {
    let problems = match Config::parse(text, "c.toml", Path::new("")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(Problem::headline).collect(),
    };
    let expected: Vec<_> = expected.iter().map(|line| format!("c.toml:{line}")).collect();
    assert_eq!(problems, expected, "\n{text}");
}

#[test]
fn the_reference_shows_the_defaults() {
    let config = parse(REFERENCE);
    let least = parse(
        r#"
        [forwarder]
        [pools.ts]
        backends = ["127.0.0.1:5301", { address = "127.0.0.1:5302", name = "ts2" }]
        [authorities.ts1]
        listen = ["127.0.0.1:5301"]
        zones = ["zones/ts1.txt"]
        [authorities.ts2]
        listen = ["127.0.0.1:5302"]
        zones = ["zones/ts2.txt"]
        [admin]
        "#,
    );
    assert_eq!(config, least);
    assert_eq!(config.pools[0].rules, PoolRules::default());
    assert_eq!(config.pools[0].probe, ProbeConfig::default());
    assert_eq!(config.forwarder.expect("there is one").connections, ConnectionRules::default());
}

/// A key that is missing in the reference stays undocumented, and a key without a reader is an error. A table
/// without a separate section is documented at its key.
#[test]
fn the_reference_shows_every_key() {
    let (shape, sections) = (reference::shape(), reference::sections());
    let mut tables = vec![(String::new(), shape.table().expect("the document is a table"))];
    let mut count = 0;
    while let Some((path, table)) = tables.pop() {
        let section = sections.iter().find(|section| section.path() == path && !section.keys.is_empty());
        for (key, below) in &table.keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let is_reported = section.is_some_and(|section| section.keys.iter().any(|reported| reported.name == *key));
            match below.table() {
                Some(table) if !is_reported && path != "defaults.pool" => tables.push((path, table)),
                Some(_) => {}
                // Sections of one name have the same keys, and one of them shows all.
                None => {
                    let path = reference::described_at(&path);
                    let name = path.rsplit('.').nth(1).unwrap_or_default();
                    let mut alike = sections.iter().filter(|section| section.path().rsplit('.').next() == Some(name));
                    let is_reported = |section: &ReferenceSection| {
                        let mut comments = section.keys.iter().flat_map(|reported| &reported.comment);
                        section.keys.iter().any(|reported| reported.name == *key || *key == ANY_KEY)
                            || comments.any(|line| line.contains(&format!("{key} = ")))
                    };
                    assert!(alike.any(is_reported), "config.toml says nothing of {path}");
                    count += 1;
                }
            }
        }
    }
    assert!(count >= 80, "{count} keys");
    for section in &sections {
        let shape = shape.at(&section.path()).unwrap_or_else(|| panic!("no reader takes [{}]", section.name));
        for key in &section.keys {
            let table = shape.table().unwrap_or_else(|| panic!("[{}] is no table", section.name));
            let taken = table.key(&key.name).or_else(|| table.key(ANY_KEY));
            assert!(taken.is_some(), "no reader takes {} in [{}]", key.name, section.name);
        }
    }
}

/// A default in the reference, and so in the schema and the manual, equals the value without the key.
#[test]
fn defaults_of_the_reference_are_those_of_the_readers() {
    let shape = reference::shape();
    let toml = |text: &str| text.parse::<toml::Table>().expect("TOML");
    let mut count = 0;
    for section in reference::sections() {
        let is_shown = |key: &&ReferenceKey| section.default_of(key, &shape) == KeyDefault::Shown;
        for key in section.keys.iter().filter(is_shown) {
            // The reference with this key, or without.
            let with = |value: Option<toml::Value>| {
                // Commented-out sections with their required keys.
                let required = "[certificates.main]\nchain = \"c\"\nkey = \"k\"\n[keys.replica]\nsecret_file = \"replica.key\"\n[dnstap]\nto = \"file:tap\"\n\
                                [xdp]\ninterfaces = [\"eth0\"]\n[traces]\notlp = \"http://192.0.2.1:4318/\"\n\
                                [etcd]\nendpoints = [\"http://127.0.0.1:2379\"]\n[pools.ts.discover]\nfile = \"m\"\n\
                                [authorities.ts1.register]\netcd = \"ts\"\n";
                let mut document = toml(&format!("{REFERENCE}\n{required}"));
                let steps = section.name.split('.').filter(|step| !step.is_empty());
                let table = steps.fold(&mut document, |table, step| {
                    let below = table.entry(step).or_insert_with(|| toml::Table::new().into());
                    below.as_table_mut().expect("a section")
                });
                table.remove(key.name.trim_matches('"'));
                table.extend(value.map(|value| (key.name.trim_matches('"').to_owned(), value)));
                parse(&toml::to_string(&document).expect("a table"))
            };
            let shown = toml(&format!("x = {}", key.value))["x"].clone();
            assert_eq!(with(Some(shown)), with(None), "{} in [{}]", key.name, section.name);
            count += 1;
        }
    }
    assert!(count >= 75, "{count} defaults");
}

/// An optional section shows all keys with their defaults, too.
#[test]
fn the_reference_shows_the_cache_commented_out() {
    assert_eq!(parse(REFERENCE).cache, None);
    let (rest, section) = REFERENCE.split_once("# [cache]\n").expect("the section");
    let section = section.split("\n\n").next().expect("its text");
    let lines: Vec<_> = section.lines().map(|line| line.strip_prefix("# ").expect("a comment")).collect();
    let config = parse(&format!("{rest}[cache]\n{}", lines.join("\n")));
    let persist = Some("/etc/hedgerow/cache.bin".into());
    let usual = CacheConfig {
        size: CacheConfig::SIZE,
        rules: super::CacheRules::default(),
        persist,
        persist_every: Some(CacheConfig::PERSIST_EVERY),
    };
    assert_eq!(config.cache, Some(usual));
    for key in ["size", "min_ttl", "max_ttl", "max_negative_ttl", "stale", "stale_answer_after", "stale_ttl"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn the_reference_shows_the_supervisor_commented_out() {
    assert_eq!(parse(REFERENCE).supervisor, None);
    let (rest, section) = REFERENCE.split_once("# [supervisor]\n").expect("the section");
    let section = section.split("\n\n").next().expect("its text");
    let lines: Vec<_> = section.lines().map(|line| line.strip_prefix("# ").expect("a comment")).collect();
    let config = parse(&format!("{rest}[supervisor]\n{}", lines.join("\n")));
    assert_eq!(config.supervisor, Some(SupervisorConfig::default()));
    for key in ["standbys", "watchdog", "succession"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn the_reference_shows_xdp_commented_out() {
    assert_eq!(parse(REFERENCE).xdp, None);
    let (rest, section) = REFERENCE.split_once("# [xdp]\n").expect("the section");
    let section = section.split("\n\n").next().expect("its text");
    let lines: Vec<_> = section.lines().map(|line| line.strip_prefix("# ").unwrap_or("#")).collect();
    let shown = parse(&format!("{rest}[xdp]\n{}", lines.join("\n"))).xdp;
    let interfaces = vec![XdpInterface::of_name("eth0".to_owned())];
    assert_eq!(shown, Some(XdpConfig { interfaces, fallback: true }));
    for key in ["interfaces", "fallback"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn the_reference_shows_the_query_log_commented_out() {
    assert_eq!(parse(REFERENCE).taps.query_log, None);
    let (rest, section) = REFERENCE.split_once("# [query_log]\n").expect("the section");
    let section = section.split("\n\n").next().expect("its text");
    let lines: Vec<_> = section.lines().map(|line| line.strip_prefix("# ").expect("a comment")).collect();
    let shown = parse(&format!("{rest}[query_log]\n{}", lines.join("\n"))).taps.query_log;
    assert_eq!(shown, parse(&format!("{rest}[query_log]\n")).taps.query_log);
    for key in ["to", "format", "sample", "always", "client", "names", "rotate", "keep", "buffer"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn the_reference_shows_dnstap_commented_out() {
    assert_eq!(parse(REFERENCE).taps.dnstap, None);
    let (rest, section) = REFERENCE.split_once("# [dnstap]\n").expect("the section");
    let section = section.split("\n\n").next().expect("its text");
    let lines: Vec<_> = section.lines().map(|line| line.strip_prefix("# ").unwrap_or("#")).collect();
    let shown = parse(&format!("{rest}[dnstap]\n{}", lines.join("\n"))).taps.dnstap.expect("dnstap");
    let usual = parse(&format!("{rest}[dnstap]\nto = 'unix:/run/dnstap.sock'\nidentity = 'ls1'\n")).taps.dnstap;
    assert_eq!(Some(shown), usual);
    for key in ["to", "messages", "identity", "sample", "client", "names", "buffer"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn the_reference_shows_traces_commented_out() {
    assert_eq!(parse(REFERENCE).taps.traces, None);
    let (rest, section) = REFERENCE.split_once("# [traces]\n").expect("the section");
    let section = section.split("\n\n").next().expect("its text");
    let lines: Vec<_> = section.lines().map(|line| line.strip_prefix("# ").expect("a comment")).collect();
    let shown = parse(&format!("{rest}[traces]\n{}\n[slow]", lines.join("\n"))).taps.traces.expect("traces");
    assert_eq!((shown.otlp.path.as_str(), shown.names), ("/v1/traces", TracesConfig::default().names));
    for key in ["otlp", "names"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
}

#[test]
fn the_reference_shows_transfers_commented_out() {
    let section = |header: &str, end: &str| {
        let (_, section) = REFERENCE.split_once(header).expect("the section");
        let lines = section.split(end).next().expect("its text").lines();
        lines.map(|line| line.strip_prefix("# ").expect("a comment")).collect::<Vec<_>>().join("\n")
    };
    let limit = section("# [authorities.ts1.rate_limit]\n", "\n\n");
    let key = section("# [keys.replica]\n", "\n\n");
    let config = parse(&format!("{REFERENCE}\n[authorities.ts1.rate_limit]\n{limit}\n[keys.replica]\n{key}"));
    assert_eq!(config.authorities[0].rate_limit, Some(limit::RateRules::default()));
    for key in ["answers", "referrals", "nxdomains", "errors", "total", "window", "slip", "loopback"] {
        assert!(limit.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
    }
    assert_eq!(config.keys[0].name().to_string(), "replica.");
}

#[test]
fn the_reference_shows_how_zones_are_transferred() {
    let (_, zones) = REFERENCE.split_once("# zones = [\n").expect("the example");
    let zones = zones.split("# ]\n").next().expect("its text").lines();
    let zones: Vec<_> = zones.map(|line| line.strip_prefix("# ").expect("a comment")).collect();
    let config = parse(&format!(
        "keys.replica.secret_file = \"k\"\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\n{}\n]",
        zones.join("\n")
    ));
    let [secondary, catalog] = &config.authorities[0].zones.secondaries[..] else {
        panic!("a secondary, and a catalog")
    };
    let [rules] = &config.authorities[0].zones.catalogs[..] else { panic!("one catalog of others") };
    assert_eq!((&rules.rules.catalog, rules.rules.allow.len(), rules.groups.len()), (&catalog.zone, 1, 1));
    let [produced] = &config.authorities[0].zones.produced[..] else { panic!("one catalog of our own") };
    assert_eq!(produced.file.file_name().and_then(|name| name.to_str()), Some("catalog.example.org.zone"));
    let example = "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [{ zone = \"example.com\", primaries = [\"192.0.2.1:53\"] }]";
    let usual = &parse(example).authorities[0].zones.secondaries[0];
    assert_eq!((&secondary.file, secondary.max_size), (&usual.file, usual.max_size));
    let [shared] = &config.authorities[0].zones.shared[..] else { panic!("one zone of a file") };
    assert_eq!((shared.zone.to_string().as_str(), shared.sharing.also_notify.len()), ("example.org.", 1));
    assert!(shared.sharing.group.is_some() && !shared.sharing.is_unlisted);
}

/// The reference enables the admin server for this host, so that `hedgerow ctl` can connect.
#[test]
fn the_reference_has_an_admin_server_for_this_host() {
    let admin = parse(REFERENCE).admin.expect("there is one");
    assert!(admin.listen.ip().is_loopback());
    assert_eq!(admin, AdminConfig::default());
    let with_token = parse(&REFERENCE.replace("# token_file", "token_file")).admin.expect("there is one");
    assert_eq!(with_token.token_file, Some("/etc/hedgerow/admin.token".into()));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        workers = 2
        busy_poll = "20us"
        drain_delay = "15s"
        [forwarder]
        listen = ["[::1]:53", "127.0.0.1:0", "127.0.0.1:0"]
        edns_udp_size = 1400
        routes = { "Example.ORG" = "b", "." = "a" }
        [pools.b]
        backends = [{ address = "192.0.2.1:53", weight = 3 }]
        dispatch = "hedge"
        fanout = 2
        balance = "random"
        accept = "any"
        timeout = "2s"
        grace = "20ms"
        attempt_timeout = "30s"
        tries = 3
        on_timeout = "drop"
        on_all_down = "servfail"
        case = "random"
        cookies = false
        hedge = { delay = "p90", min_delay = "2ms", max_delay = "90ms", budget = 1, max = 2 }
        [pools.b.health]
        interval = "1m"
        every_queries = 1000
        timeout = "200ms"
        fall = 3
        rise = 4
        probe = { name = "example.org", type = "SOA" }
        [pools.a]
        backends = ["[2001:db8::1]:53"]
        [authorities.x]
        listen = ["127.0.0.1:5301"]
        zones = ["a.txt", { file = "/srv/b.txt" }, { file = "a.txt", origin = "A.example" }]
        miss = "refused"
        ttl = "1h"
        id = "one"
        "#,
    );
    assert_eq!((config.process.workers, config.process.busy_poll), (NonZeroUsize::new(2), Duration::from_micros(20)));
    assert_eq!(config.process.drain_delay, Duration::from_secs(15));
    let forwarder = config.forwarder.expect("a forwarder");
    assert_eq!(forwarder.listen.len(), 3);
    assert_eq!(forwarder.edns_udp_size, 1400);
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "in the order of the file");
    let routes: Vec<_> = forwarder.routes.iter().map(|r| (r.suffix.to_string(), r.pool)).collect();
    assert_eq!(routes, [("Example.ORG.".to_owned(), super::PoolIndex(0)), (".".to_owned(), super::PoolIndex(1))]);

    let pool = &config.pools[0];
    assert_eq!((pool.backends[0].name.as_str(), pool.backends[0].weight), ("192.0.2.1:53", 3));
    let rules = &pool.rules;
    assert_eq!(rules.race.dispatch, Dispatch::Hedge);
    assert_eq!((rules.race.fanout, rules.race.tries), (2, 3));
    assert_eq!(rules.race.balance, Balance::Random);
    assert_eq!(rules.accept, Accept::Any);
    assert_eq!(rules.race.timeout, Duration::from_secs(2));
    assert_eq!(rules.race.grace, Grace::After(Duration::from_millis(20)));
    assert_eq!(rules.race.attempt_timeout, AttemptTimeout::after(Duration::from_secs(30)));
    assert_eq!((rules.on_timeout, rules.on_all_down), (Silence::Drop, Silence::Servfail));
    assert_eq!(rules.race.hedge.delay, HedgeDelay::Percentile(0.9));
    assert_eq!(rules.race.hedge.min_delay, Duration::from_millis(2));
    assert_eq!(rules.race.hedge.max_delay, Duration::from_millis(90));
    assert_eq!((rules.race.hedge.budget, rules.race.hedge.max), (1.0, 2));
    assert_eq!(rules.health.interval, Duration::from_secs(60));
    assert_eq!(rules.health.timeout, Duration::from_millis(200));
    assert_eq!(rules.health.every_queries, 1000);
    assert_eq!((rules.health.fall, rules.health.rise), (3, 4));
    assert_eq!(pool.probe.name.to_string(), "example.org.");
    assert_eq!((pool.spoofing.case, config.pools[1].spoofing.case), (Case::Random, Case::Keep));
    assert_eq!((pool.spoofing.cookies, config.pools[1].spoofing.cookies), (false, true));

    let authority = &config.authorities[0];
    let files: Vec<_> = authority.zones.files.iter().map(|zone| zone.file.as_path()).collect();
    let a = Path::new("/etc/hedgerow/a.txt");
    assert_eq!(files, [a, Path::new("/srv/b.txt"), a]);
    let origins: Vec<_> =
        authority.zones.files.iter().map(|zone| zone.origin.as_ref().map(ToString::to_string)).collect();
    assert_eq!(origins, [None, None, Some("a.example.".to_owned())]);
    assert_eq!(authority.identity, Identity { id: IdentityText::new(b"one"), ..Identity::default() });
    assert_eq!((authority.miss, authority.ttl), (Miss::Refused, Duration::from_secs(3600)));
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = r#"
[forwarder]
listen = ["localhost:53"]
[forwarder.routes]
"." = "tz"

[pools.ts]
backends = ["127.0.0.1:5301"]
dispatch = "hegde"
fan_out = 2
timeout = 3
"#;
    check(
        text,
        &[
            "3:11: forwarder.listen[0]: invalid value \"localhost:53\": expected an IP address with its \
             port, not a host name, such as \"127.0.0.1:53\" or \"[::1]:53\"",
            "5:7: forwarder.routes.\".\": there is no pool \"tz\", expected one of ts",
            "9:12: pools.ts.dispatch: invalid value \"hegde\": expected one of race, hedge, sequential, auto; \
             did you mean \"hedge\"?",
            "10:1: pools.ts: unknown key \"fan_out\", did you mean \"fanout\"?",
            "11:11: pools.ts.timeout: expected a duration with its unit, such as \"3s\" or \"3ms\", \
             not an integer",
        ],
    );
}

#[test]
fn a_problem_shows_its_line_and_a_caret() {
    let text = "[forwarder]\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\nfan_out = 2\n";
    let problems = Config::parse(text, "config.toml", Path::new("")).expect_err("unknown key");
    let expected = "config.toml:4:1: pools.ts: unknown key \"fan_out\", did you mean \"fanout\"?\n  \
                    4 | fan_out = 2\n    | ^^^^^^^";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn what_looks_odd_but_is_right_is_taken() {
    for line in [
        "attempt_timeout = \"10s\"",
        "fanout = 2\ndispatch = \"sequential\"",
        "hedge.max = 2",
        "hedge.budget = 0",
        "hedge.min_delay = \"0s\"",
        "backends = [\"192.0.2.1:53\", \"192.0.2.1:54\"]",
    ] {
        let rest = if line.starts_with("backends") { "" } else { "backends = [\"192.0.2.1:53\"]" };
        check(&format!("[forwarder]\n[pools.\"a b\"]\n{line}\n{rest}"), &[]);
    }
    check("\u{feff}[forwarder]\r\n[pools.ts]\r\nbackends = [\"192.0.2.1:53\"]\r\n", &[]);
}

proptest! {
    /// Any text yields a config or problems, each on an existing line.
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        check_places(&text)?;
    }

    #[test]
    fn no_edit_makes_the_reader_panic(
        at in 0..REFERENCE.len(),
        cut in 0_usize..40,
        put in "[\\[\\]{}=\"'.,#\n 0-9a-z\\-é]{0,8}",
    ) {
        let text = REFERENCE.as_bytes();
        let end = (at + cut).min(text.len());
        let edited = [&text[..at], put.as_bytes(), &text[end..]].concat();
        check_places(&String::from_utf8_lossy(&edited))?;
    }
}

fn check_places(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = Config::parse(text, "c.toml", Path::new("")) {
        prop_assert!(problems.count() > 0);
        for problem in problems.iter() {
            let lines = text.split('\n').count();
            prop_assert!(problem.line().is_none_or(|line| (1..=lines).contains(&line)), "{problem}");
        }
        prop_assert!(!problems.to_string().is_empty());
    }
    Ok(())
}

#[test]
fn depth_is_bounded() {
    for deep in ["a = ".to_owned() + &"[".repeat(100_000), vec!["a"; 100_000].join(".") + " = 1"] {
        assert!(Config::parse(&deep, "c.toml", Path::new("")).is_err());
    }
}
