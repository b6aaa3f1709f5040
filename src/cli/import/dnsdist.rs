//! dnsdist.yml: the YAML config of dnsdist 2.x.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use config::words;
use toml::{Table, Value};

use super::Error;
use super::draft::{self, DEFAULT, DraftConfig, Taking, cache_size, domain, label, number, url};
use super::yaml::{self, Node};
use super::{known_reason, reason};

/// The sum of the sections.
#[derive(Debug, Default)]
struct DnsdistFacts {
    balance: Option<&'static str>,
    /// The pools with a cache, by the name of that.
    cached: BTreeMap<String, String>,
    caches: BTreeMap<String, i64>,
    stale: Option<i64>,
    /// The pools with backends that get the client subnet.
    subnet: BTreeSet<String>,
    prefixes: [i64; 2],
    certificates: Vec<[String; 2]>,
}

/// Reads a config of dnsdist.
pub(super) fn import(text: &str) -> Result<DraftConfig, Error> {
    let root = yaml::parse(text)?;
    if root.entries().is_empty() {
        return Err(Error::Syntax(root.line, "expected sections such as binds and backends: add them".to_owned()));
    }
    let mut draft = DraftConfig::default();
    let mut facts = DnsdistFacts { prefixes: [32, 128], ..DnsdistFacts::default() };
    for (section, node) in root.entries() {
        match section.as_str() {
            "binds" => node.items().iter().for_each(|bind| add_bind(bind, &mut facts, &mut draft)),
            "backends" => node.items().iter().for_each(|backend| add_backend(backend, &mut facts, &mut draft)),
            "pools" => node.items().iter().for_each(|pool| add_pool(pool, &mut facts, &mut draft)),
            "packet_caches" => node.items().iter().for_each(|cache| add_cache(cache, &mut facts, &mut draft)),
            // Rules name pools, which a later section may have.
            "query_rules" => {}
            _ => each(section, node, &mut draft, &mut |path, node, draft| take(path, node, &mut facts, draft)),
        }
    }
    let rules = root.get("query_rules").map(Node::items).unwrap_or_default();
    rules.iter().for_each(|rule| rules::add(rule, &mut draft));
    finish(facts, draft)
}

type Handler<'a> = dyn FnMut(&str, &Node, &mut DraftConfig) -> Taking + 'a;

/// Counts each leaf of a section: the handler takes it, or returns why not.
fn each(path: &str, node: &Node, draft: &mut DraftConfig, handler: &mut Handler<'_>) {
    if node.is_leaf() {
        let taking = handler(path, node, draft);
        draft.count(node.line, path, taking);
        return;
    }
    node.entries().iter().for_each(|(key, node)| each(&format!("{path}.{key}"), node, draft, handler));
    node.items().iter().for_each(|node| each(path, node, draft, handler));
}

/// The reasons for keys that hedgerow cannot take.
const MISSING: &str = include_str!("reasons/dnsdist.txt");

fn missing(path: &str) -> String {
    let (section, key) = (path.split('.').next().unwrap_or_default(), path.rsplit('.').next().unwrap_or_default());
    known_reason(MISSING, key).unwrap_or_else(|| reason(MISSING, section))
}

fn take(path: &str, node: &Node, facts: &mut DnsdistFacts, draft: &mut DraftConfig) -> Taking {
    let text = node.text();
    match path {
        "acl" => {
            node.texts().iter().try_for_each(|text| words::prefix(text).map(drop).map_err(|e| e.to_string()))?;
            draft.set("forwarder", "allow", draft::strings(&node.texts()));
        }
        "load_balancing_policies.default_policy" => facts.balance = Some(balance(text)?),
        "load_balancing_policies.servfail_on_no_server" if text == "true" => {}
        "cache_settings.stale_entries_ttl" => facts.stale = Some(number(text, 0, 604_800)?),
        "webserver.listen_address" | "webserver.listen_addresses" => match node.texts()[..] {
            [one] => draft.set("admin", "listen", socket(one, 8083)?.to_string()),
            _ => return Err("hedgerow has one admin address: set admin.listen".to_owned()),
        },
        "edns_client_subnet.source_prefix_v4" => facts.prefixes[0] = number(text, 1, 32)?,
        "edns_client_subnet.source_prefix_v6" => facts.prefixes[1] = number(text, 1, 128)?,
        "edns_client_subnet.override_existing" if text == "false" => {}
        "security_polling.polling_interval" if text == "0" => {}
        "general.edns_udp_payload_size_self_generated_answers" => {
            draft.set("forwarder", "edns_udp_size", number(text, 512, 4096)?);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn balance(policy: &str) -> Result<&'static str, String> {
    match policy {
        "leastOutstanding" => Ok("least-load"),
        "firstAvailable" => Ok("ordered"),
        "roundrobin" => Ok("round-robin"),
        "wrandom" => Ok("random"),
        "whashed" | "chashed" => Ok("hash"),
        _ => Err(format!("hedgerow has no policy {policy}: set balance of the pool")),
    }
}

fn socket(text: &str, port: u16) -> Result<SocketAddr, String> {
    let address = text.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, port));
    text.parse().or(address).map_err(|_| format!("expected an address, not {text:?}: write one"))
}

fn add_bind(bind: &Node, facts: &mut DnsdistFacts, draft: &mut DraftConfig) {
    let protocol = bind.get("protocol").map_or("Do53", Node::text).to_ascii_lowercase();
    let (scheme, port) = match protocol.as_str() {
        "dot" => ("tls", 853),
        "doh" => ("https", 443),
        "doq" => ("quic", 853),
        _ => ("", 53),
    };
    let is_known = ["do53", "dot", "doh", "doq"].contains(&protocol.as_str());
    let path =
        bind.get("doh").and_then(|doh| doh.get("paths")).map_or(String::new(), |paths| match paths.texts()[..] {
            [one] if one != "/dns-query" => one.to_owned(),
            _ => String::new(),
        });
    let mut certificates: Vec<[String; 2]> = Vec::new();
    each("binds", bind, draft, &mut |at, node, draft| {
        let text = node.text();
        match at {
            "binds.listen_address" | "binds.additional_addresses" if is_known => {
                for text in node.texts() {
                    draft.listen.push((url(scheme, socket(text, port)?, "") + &path).into());
                }
            }
            "binds.protocol" if is_known => {}
            "binds.listen_address" | "binds.additional_addresses" | "binds.protocol" => {
                return Err(format!("hedgerow has no listener by {protocol}: use DoT, DoH or DoQ"));
            }
            "binds.reuseport" if text == "true" => {}
            "binds.tls.certificates.certificate" => certificates.push([text.to_owned(), String::new()]),
            "binds.tls.certificates.key" => {
                if let Some(last) = certificates.last_mut() {
                    last[1] = text.to_owned();
                }
            }
            "binds.doh.paths" if node.texts().len() == 1 => {}
            "binds.doh.paths" => return Err("hedgerow has one path for each listener: add listeners".to_owned()),
            _ => return Err(missing(at)),
        }
        Ok(())
    });
    facts.certificates.extend(certificates.into_iter().filter(|pair| !pair[1].is_empty()));
}

/// Returns the names of the pools of a backend.
fn pools_of(backend: &Node) -> Vec<String> {
    let names: Vec<_> = backend.get("pools").map(Node::texts).unwrap_or_default().into_iter().map(pool_name).collect();
    if names.is_empty() { vec![DEFAULT.to_owned()] } else { names }
}

/// Returns the name for a pool; the default pool of dnsdist has the empty name.
fn pool_name(name: &str) -> String {
    if name.is_empty() { DEFAULT.to_owned() } else { label(name) }
}

fn add_backend(backend: &Node, facts: &mut DnsdistFacts, draft: &mut DraftConfig) {
    let protocol = backend.get("protocol").map_or("Do53", Node::text).to_ascii_lowercase();
    let is_tcp = backend.get("tcp_only").is_some_and(|node| node.text() == "true");
    let (scheme, port) = match protocol.as_str() {
        "dot" => ("tls", 853),
        "doh" => ("https", 443),
        _ if is_tcp => ("tcp", 53),
        _ => ("", 53),
    };
    let is_known = ["do53", "dot", "doh"].contains(&protocol.as_str());
    let tls = |key: &str| backend.get("tls").and_then(|tls| tls.get(key)).map_or("", Node::text);
    let path = backend.get("doh").and_then(|doh| doh.get("path")).map_or("", Node::text);
    let name = if scheme == "tls" || scheme == "https" { tls("subject_name") } else { "" };
    let pools = pools_of(backend);
    let (mut keys, mut address) = (Table::new(), None);
    each("backends", backend, draft, &mut |at, node, draft| {
        let text = node.text();
        match at {
            "backends.address" | "backends.protocol" if !is_known => {
                return Err(format!("hedgerow has no backend by {protocol}: use Do53, DoT or DoH"));
            }
            "backends.address" => {
                let server = url(scheme, socket(text, port)?, "") + path;
                let written = if name.is_empty() { server } else { format!("{server}#{name}") };
                words::backend(&written).map_err(|error| error.to_string())?;
                address = Some(written);
            }
            "backends.protocol"
            | "backends.pools"
            | "backends.tls.subject_name"
            | "backends.doh.path"
            | "backends.tcp_only" => {}
            "backends.name" => drop(keys.insert("name".into(), text.into())),
            "backends.weight" => drop(keys.insert("weight".into(), number(text, 1, 1000)?.into())),
            "backends.tls.ca_store" => drop(keys.insert("ca".into(), text.into())),
            "backends.tls.validate_certificate" if text == "true" => {}
            "backends.use_proxy_protocol" if text == "true" => {
                drop(keys.insert("proxy_protocol".into(), true.into()));
            }
            "backends.use_client_subnet" if text == "true" => facts.subnet.extend(pools.clone()),
            "backends.use_client_subnet" | "backends.use_proxy_protocol" if text == "false" => {}
            "backends.max_in_flight" | "backends.reconnect_on_up" => {
                return Err("set [pools.NAME.connections]".to_owned());
            }
            _ => return take_health(at, text, &pools, draft),
        }
        Ok(())
    });
    let Some(address) = address else { return };
    let value = match keys.is_empty() {
        true => Value::from(address),
        false => Value::Table([("address".to_owned(), address.into())].into_iter().chain(keys).collect()),
    };
    pools.iter().for_each(|pool| draft.pool(pool).add(value.clone()));
}

/// Sets a key of `health`, which all backends of a pool share.
fn take_health(path: &str, text: &str, pools: &[String], draft: &mut DraftConfig) -> Taking {
    let Some(key) = path.strip_prefix("backends.health_checks.") else { return Err(missing(path)) };
    let (key, value) = match key {
        "interval" => ("interval", Value::from(format!("{}s", number(text, 1, 3600)?))),
        "timeout" => ("timeout", Value::from(format!("{}ms", number(text, 1, 60_000)?))),
        "max_failures" => ("fall", Value::from(number(text, 1, 100)?)),
        "rise" => ("rise", Value::from(number(text, 1, 100)?)),
        "qname" => ("name", Value::from(domain(text)?)),
        "qtype" => ("type", Value::from(words::record_type(text).map_err(|e| e.to_string())?.to_string())),
        "mode" if text == "auto" => return Ok(()),
        _ => return Err("set [pools.NAME.health]".to_owned()),
    };
    for pool in pools {
        let health = draft.pool(pool).keys.entry("health").or_insert_with(|| Value::Table(Table::new()));
        let Some(mut health) = health.as_table_mut() else { continue };
        if ["name", "type"].contains(&key) {
            let probe = [("name", "."), ("type", "A")].map(|(key, value)| (key.to_owned(), Value::from(value)));
            let probe = health.entry("probe").or_insert_with(|| Value::Table(probe.into_iter().collect()));
            let Some(table) = probe.as_table_mut() else { continue };
            health = table;
        } else if health.get(key).is_some_and(|known| *known != value) {
            return Err("all backends of a pool share [pools.NAME.health]: use one value".to_owned());
        }
        health.insert(key.to_owned(), value.clone());
    }
    Ok(())
}

fn add_pool(pool: &Node, facts: &mut DnsdistFacts, draft: &mut DraftConfig) {
    let name = pool_name(pool.get("name").map_or("", Node::text));
    each("pools", pool, draft, &mut |at, node, draft| {
        match at {
            "pools.name" => {}
            "pools.packet_cache" => drop(facts.cached.insert(name.clone(), node.text().to_owned())),
            "pools.policy" => {
                let balance = balance(node.text())?;
                draft.pool(&name).keys.insert("balance".to_owned(), balance.into());
            }
            _ => return Err(missing(at)),
        }
        Ok(())
    });
}

fn add_cache(cache: &Node, facts: &mut DnsdistFacts, draft: &mut DraftConfig) {
    let name = cache.get("name").map_or("", Node::text).to_owned();
    each("packet_caches", cache, draft, &mut |at, node, draft| {
        let text = node.text();
        let (key, least) = match at {
            "packet_caches.name" => return Ok(()),
            "packet_caches.size" => {
                facts.caches.insert(name.clone(), number(text, 1, 100_000_000)?);
                return Ok(());
            }
            // The cache is split into shards, and keeps stale answers while `stale` lasts.
            "packet_caches.shards" => return Ok(()),
            "packet_caches.keep_stale_data" | "packet_caches.dont_age" if text == "false" => return Ok(()),
            "packet_caches.keep_stale_data" => return Ok(()),
            "packet_caches.min_ttl" => ("min_ttl", 0),
            "packet_caches.max_ttl" => ("max_ttl", 1),
            "packet_caches.max_negative_ttl" => ("max_negative_ttl", 1),
            "packet_caches.temporary_failure_ttl" => ("failure_ttl", 1),
            "packet_caches.stale_ttl" => ("stale_ttl", 1),
            _ => return Err("hedgerow has no such key of [cache]: see docs/src/cache.md".to_owned()),
        };
        let value = format!("{}s", number(text, least, if key == "failure_ttl" { 300 } else { 604_800 })?);
        if draft.value("cache", key).is_some_and(|known| known.as_str() != Some(&value)) {
            return Err("hedgerow has one cache for all pools: use one value".to_owned());
        }
        draft.set("cache", key, value);
        Ok(())
    });
}

fn finish(facts: DnsdistFacts, mut draft: DraftConfig) -> Result<DraftConfig, Error> {
    let is_cached = !facts.cached.is_empty();
    let empty: Vec<_> =
        draft.pools.iter().filter(|(_, pool)| pool.backends.is_empty()).map(|(name, _)| name.clone()).collect();
    empty.iter().for_each(|name| drop(draft.pools.remove(name)));
    for (name, pool) in &mut draft.pools {
        pool.keys.entry("balance").or_insert_with(|| facts.balance.unwrap_or("least-load").into());
        if is_cached && !facts.cached.contains_key(name) {
            pool.keys.insert("cache".to_owned(), false.into());
        }
        if facts.subnet.contains(name) {
            let [ipv4, ipv6] = facts.prefixes;
            let lengths = [("ipv4".to_owned(), ipv4.into()), ("ipv6".to_owned(), ipv6.into())];
            pool.keys.insert("client_subnet".to_owned(), Value::Table(lengths.into_iter().collect()));
        }
    }
    if is_cached {
        draft.set("cache", "size", cache_size(facts.caches.values().sum()));
        draft.set("cache", "stale", format!("{}s", facts.stale.unwrap_or(0)));
    } else {
        draft.clear("cache");
    }
    if draft.pools.contains_key(DEFAULT) {
        draft.routes.insert(".".to_owned(), DEFAULT.to_owned());
    } else if let Some(only) = draft.pools.keys().next() {
        // Without a route, no pool would answer for names that no rule matches: they are REFUSED.
        draft.routes.insert("invalid".to_owned(), only.clone());
    }
    for (number, [chain, key]) in (1..).zip(&facts.certificates) {
        let section = format!("certificates.bind-{number}");
        draft.set(&section, "chain", chain.as_str());
        draft.set(&section, "key", key.as_str());
    }
    if draft.listen.is_empty() {
        draft.listen.push("127.0.0.1:53".into());
    }
    draft.set("forwarder", "special_names", false);
    Ok(draft)
}
