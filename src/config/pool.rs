//! `[pools.*]`: who is asked, and under which rules.

use std::net::SocketAddr;
use std::time::Duration;

use super::section::{Node, Section, Spot, note_repeats};
use super::{BackendConfig, PoolConfig, ProbeConfig, limits, words};
use crate::policy::{HealthRules, Hedge, Rules};

/// An example of what `backends` takes.
const BACKENDS_EXAMPLE: &str = "[\"127.0.0.1:5301\"]";

/// Reads `[pools.NAME]`. The address of each backend goes to `asked` with its spot.
pub(super) fn read<'d>(
    name: &str,
    mut section: Section<'d>,
    asked: &mut Vec<(SocketAddr, Spot<'d>)>,
) -> PoolConfig {
    let backends = read_backends(&mut section, asked);
    let (health, probe) = match section.section("health") {
        Some(health) => read_health(health),
        None => (HealthRules::default(), ProbeConfig::default()),
    };
    let hedge = section.section("hedge").map(read_hedge).unwrap_or_default();
    let usual = Rules::default();
    let rules = Rules {
        dispatch: section.parsed("dispatch", words::dispatch, usual.dispatch),
        fanout: section.integer("fanout", limits::FANOUT, usual.fanout),
        balance: section.parsed("balance", words::balance, usual.balance),
        accept: section.parsed("accept", words::accept, usual.accept),
        timeout: section.parsed("timeout", |text| limits::TIMEOUT.parse(text), usual.timeout),
        grace: section.parsed("grace", words::grace, usual.grace),
        attempt_timeout: section.parsed(
            "attempt_timeout",
            |text| limits::ATTEMPT_TIMEOUT.parse(text),
            usual.attempt_timeout,
        ),
        tries: section.integer("tries", limits::TRIES, usual.tries),
        on_timeout: section.parsed("on_timeout", words::silence, usual.on_timeout),
        on_all_down: section.parsed("on_all_down", words::silence, usual.on_all_down),
        hedge,
        health,
    };
    section.finish();
    PoolConfig {
        name: name.to_owned(),
        backends,
        rules,
        probe,
    }
}

/// Reads `backends`: at least one, none twice by address or by name.
fn read_backends<'d>(
    section: &mut Section<'d>,
    asked: &mut Vec<(SocketAddr, Spot<'d>)>,
) -> Vec<BackendConfig> {
    let node = section.require("backends", BACKENDS_EXAMPLE);
    let items = node
        .map(|node| node.items(BACKENDS_EXAMPLE))
        .unwrap_or_default();
    let read = |item: &Node<'d>| Some((read_backend(item)?, item.spot.clone()));
    let backends: Vec<_> = items.iter().filter_map(read).collect();

    let addresses = backends
        .iter()
        .map(|(backend, spot)| (backend.address, spot.clone()));
    asked.extend(addresses.clone());
    note_repeats(addresses, |address| {
        format!("backend {address} stands in this pool")
    });
    // Unnamed backends share a name only if they share an address, which is noted already.
    let named = backends
        .iter()
        .filter(|(backend, _)| backend.name != backend.address.to_string());
    note_repeats(
        named.map(|(backend, spot)| (backend.name.as_str(), spot.clone())),
        |name| format!("the name {name:?} stands in this pool"),
    );
    backends.into_iter().map(|(backend, _)| backend).collect()
}

/// Reads one backend: an address, or a table with an address.
fn read_backend(item: &Node<'_>) -> Option<BackendConfig> {
    let Some(mut section) = item.table() else {
        let address = item.parsed(words::backend_address)?;
        return Some(BackendConfig {
            address,
            name: address.to_string(),
            weight: 1,
        });
    };
    let address = section.require("address", "\"127.0.0.1:5301\"");
    let address = address.and_then(|node| node.parsed(words::backend_address));
    let name = section
        .take("name")
        .and_then(|node| node.parsed(words::label));
    let weight = section.integer("weight", limits::WEIGHT, 1);
    section.finish();
    let address = address?;
    Some(BackendConfig {
        address,
        name: name.unwrap_or_else(|| address.to_string()),
        weight,
    })
}

/// Reads `[pools.*.hedge]`.
fn read_hedge(mut section: Section<'_>) -> Hedge {
    let usual = Hedge::default();
    let (min_delay, min_spot) = read_clamp(&mut section, "min_delay", usual.min_delay);
    let (max_delay, max_spot) = read_clamp(&mut section, "max_delay", usual.max_delay);
    if let (Some(min), Some(max)) = (min_delay, max_delay)
        && min > max
    {
        let (min, max) = (
            humantime::format_duration(min),
            humantime::format_duration(max),
        );
        // One of the two may be a default: then the other one is to be mended.
        let spot = min_spot
            .or(max_spot)
            .unwrap_or_else(|| section.spot.clone());
        spot.note(format!("min_delay {min} is above max_delay {max}"));
    }
    let budget = section
        .take("budget")
        .and_then(|node| node.number(limits::BUDGET));
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

/// Reads one clamp of the hedge delay: its value, unless what stands there is wrong, and its spot,
/// if it is there.
fn read_clamp<'d>(
    section: &mut Section<'d>,
    key: &'static str,
    usual: Duration,
) -> (Option<Duration>, Option<Spot<'d>>) {
    match section.take(key) {
        Some(node) => (
            node.parsed(|text| limits::HEDGE_CLAMP.parse(text)),
            Some(node.spot),
        ),
        None => (Some(usual), None),
    }
}

/// Reads `[pools.*.health]`.
fn read_health(mut section: Section<'_>) -> (HealthRules, ProbeConfig) {
    let usual = HealthRules::default();
    let rules = HealthRules {
        interval: section.parsed(
            "interval",
            |text| limits::PROBE_INTERVAL.parse(text),
            usual.interval,
        ),
        every_queries: section.integer("every_queries", limits::PROBE_EVERY, usual.every_queries),
        timeout: section.parsed(
            "timeout",
            |text| limits::PROBE_TIMEOUT.parse(text),
            usual.timeout,
        ),
        fall: section.integer("fall", limits::PROBES, usual.fall),
        rise: section.integer("rise", limits::PROBES, usual.rise),
    };
    let probe = section.section("probe").map(read_probe).unwrap_or_default();
    section.finish();
    (rules, probe)
}

/// Reads `pools.*.health.probe`.
fn read_probe(mut section: Section<'_>) -> ProbeConfig {
    let usual = ProbeConfig::default();
    let probe = ProbeConfig {
        name: section.parsed("name", words::domain_name, usual.name),
        rtype: section.parsed("type", words::record_type, usual.rtype),
    };
    section.finish();
    probe
}
