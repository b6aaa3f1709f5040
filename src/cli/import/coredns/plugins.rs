//! The plugins of CoreDNS.

use std::net::IpAddr;

use config::words;
use toml::{Table, Value};

use super::super::draft::{
    self, DraftConfig, DraftPool, DraftRule, Taking, address, cache_size, domain, is_at_or_below, label, number,
    strings, table,
};
use super::super::{known_reason, reason};
use super::parse::Plugin;

/// The parts of one server block.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) zones: Vec<String>,
    /// The scheme and port of each key.
    pub(super) listen: Vec<(&'static str, u16)>,
    pub(super) bind: Vec<IpAddr>,
    /// The pool for the names of all zones.
    pub(super) pool: Option<String>,
    /// The routes to other pools, by suffix.
    pub(super) routes: Vec<(String, String)>,
    pub(super) rules: Vec<DraftRule>,
    is_cached: bool,
    dns64: Option<String>,
    /// The folder of zone files.
    root: String,
}

/// The parts that all blocks share.
#[derive(Debug, Default)]
pub(super) struct CorefileFacts {
    pub(super) has_cache: bool,
    authorities: u16,
}

/// The first port of authorities for zone files, on loopback.
const FIRST_PORT: u16 = 5391;

/// The reasons for plugins and properties that hedgerow cannot take.
const MISSING: &str = include_str!("../reasons/coredns.txt");

/// Takes a plugin, and each line in its braces.
pub(super) fn take(plugin: &Plugin<'_>, site: &mut Site, facts: &mut CorefileFacts, draft: &mut DraftConfig) {
    let mut untaken = Vec::new();
    let mut reject = |line: usize, words: &[&str], reason: String| untaken.push((line, words.join(" "), reason));
    let taking = match plugin.name {
        "forward" => forward(plugin, site, draft, &mut reject),
        "cache" => cache(plugin, site, facts, draft, &mut reject),
        "hosts" => hosts(plugin, site, draft, &mut reject),
        "acl" => acl(plugin, site, &mut reject),
        "template" => template(plugin, site),
        "file" | "secondary" => zone(plugin, site, facts, draft, &mut reject),
        _ => simple(plugin, site, draft),
    };
    for (line, words) in &plugin.body {
        let bad = untaken.iter().position(|(place, ..)| place == line).map(|at| untaken.remove(at));
        let taking = match (bad, &taking) {
            (Some((_, _, reason)), _) => Err(reason),
            // Inline hosts are taken even if the file is not.
            (None, Err(reason)) if plugin.name != "hosts" => Err(reason.clone()),
            (None, _) => Ok(()),
        };
        draft.count(*line, &format!("{} {}", plugin.name, words.join(" ")), taking);
    }
    draft.count(plugin.line, plugin.name, taking);
}

/// Notes a line in the braces that is not taken.
type Reject<'r> = dyn FnMut(usize, &[&str], String) + 'r;

/// Takes plugins without braces.
fn simple(plugin: &Plugin<'_>, site: &mut Site, draft: &mut DraftConfig) -> Taking {
    if let Some((_, words)) = plugin.body.first().filter(|_| plugin.name != "dns64" && plugin.name != "errors") {
        let other = || format!("hedgerow has no {} {}: see docs/src/configuration.md", plugin.name, words.join(" "));
        return Err(known_reason(MISSING, plugin.name).unwrap_or_else(other));
    }
    let first = plugin.args.first().copied();
    match plugin.name {
        // Errors always go to stderr.
        "errors" if plugin.body.is_empty() => {}
        "bind" => {
            let addresses: Result<Vec<_>, _> = plugin.args.iter().map(|text| address(text)).collect();
            site.bind = addresses.as_ref().map_or_else(|_| vec![IpAddr::from([127, 0, 0, 1])], Clone::clone);
            addresses
                .map_err(|_| "hedgerow listens at addresses: write those of the interface into forwarder.listen")?;
        }
        "reload" if first != Some("0") => draft.set("", "watch", true),
        "reload" => {}
        "bufsize" => draft.set("forwarder", "edns_udp_size", number(first.unwrap_or("1232"), 512, 4096)?),
        "tls" if plugin.args.len() >= 2 => {
            draft.set("certificates.main", "chain", plugin.args[0]);
            draft.set("certificates.main", "key", plugin.args[1]);
        }
        "dns64" => {
            let inner = plugin.body.iter().find(|(_, words)| words.first() == Some(&"prefix"));
            let prefix = inner.and_then(|(_, words)| words.get(1).copied()).or(first).unwrap_or("64:ff9b::/96");
            site.dns64 = Some(draft::dns64(prefix)?);
        }
        "local" => draft.set("forwarder", "special_names", "auto"),
        "root" => site.root = first.unwrap_or_default().to_owned(),
        "cancel" => {
            draft.set("defaults.pool", "timeout", draft::duration(first.unwrap_or("5001ms"), 60)?);
        }
        _ => return observe(plugin.name, first, draft),
    }
    Ok(())
}

/// Takes plugins that show what the server does.
fn observe(name: &str, first: Option<&str>, draft: &mut DraftConfig) -> Taking {
    match name {
        "log" => {
            draft.set("query_log", "to", "stderr");
            draft.set("query_log", "format", "logfmt");
            draft.set("query_log", "client", "full");
        }
        "prometheus" => {
            let listen = first.unwrap_or("localhost:9153").replace("localhost", "127.0.0.1");
            let listen = if listen.starts_with(':') { format!("0.0.0.0{listen}") } else { listen };
            words::listen_address(&listen).map_err(|error| error.to_string())?;
            if draft.value("admin", "listen").is_some_and(|known| known.as_str() != Some(&listen)) {
                return Err("hedgerow has one admin address: use that of the first block".to_owned());
            }
            draft.set("admin", "listen", listen);
        }
        "dnstap" => {
            let to = first.unwrap_or_default();
            let to = to
                .strip_prefix("tcp://")
                .map(|at| format!("tcp:{at}"))
                .unwrap_or_else(|| format!("unix:{}", to.strip_prefix("unix://").unwrap_or(to)));
            draft.set("dnstap", "to", to);
        }
        _ => return Err(reason(MISSING, name)),
    }
    Ok(())
}

fn forward(plugin: &Plugin<'_>, site: &mut Site, draft: &mut DraftConfig, reject: &mut Reject<'_>) -> Taking {
    let (from, targets) = plugin.args.split_first().ok_or("expected FROM TO: add the backends")?;
    let property = |name: &str| plugin.body.iter().find(|(_, words)| words.first() == Some(&name));
    let server_name = property("tls_servername").and_then(|(_, words)| words.get(1).copied());
    let is_tcp = property("force_tcp").is_some();
    let mut backends = Vec::new();
    for target in targets {
        if target.starts_with('/') {
            return Err("hedgerow reads no resolv.conf: write its name servers into backends".to_owned());
        }
        let plain = target.strip_prefix("dns://").unwrap_or(target);
        let plain = if is_tcp && !plain.contains("://") { format!("tcp://{plain}") } else { plain.to_owned() };
        let name = server_name.filter(|_| plain.starts_with("tls://")).map_or(String::new(), |name| format!("#{name}"));
        let target = plain.split('%').next().unwrap_or_default().to_owned() + &name;
        words::backend(&target).map_err(|error| error.to_string())?;
        backends.push(target);
    }
    let zone = site.zones.first().cloned().unwrap_or_else(|| ".".to_owned());
    let suffix = if *from == "." { zone.clone() } else { domain(from)? };
    let mut pool = DraftPool::default();
    backends.into_iter().for_each(|backend| pool.add(backend));
    pool.keys.extend(site.dns64.iter().map(|prefix| ("dns64".to_owned(), prefix.as_str().into())));
    // The default of CoreDNS.
    pool.keys.insert("balance".to_owned(), "random".into());
    for (line, words) in &plugin.body {
        if let Err(reason) = forward_property(words, &mut pool.keys) {
            reject(*line, words, reason);
        }
    }
    if !site.is_cached {
        pool.keys.insert("cache".to_owned(), false.into());
    }
    let name = draft.add_pool(&suffix, pool);
    if *from == "." || suffix == zone {
        site.pool = Some(name);
    } else if is_at_or_below(&suffix, &zone) {
        site.routes.push((suffix, name));
    }
    Ok(())
}

fn forward_property(words: &[&str], keys: &mut Table) -> Taking {
    let value = words.get(1).copied().unwrap_or_default();
    match words.first().copied().unwrap_or_default() {
        "policy" => {
            let balance = match value {
                "random" => "random",
                "round_robin" => "round-robin",
                "sequential" => "ordered",
                _ => return Err("expected random, round_robin or sequential: correct it".to_owned()),
            };
            keys.insert("balance".to_owned(), balance.into());
        }
        "max_fails" => set_health(keys, "fall", number(value, 1, 100)?.into()),
        "health_check" => {
            set_health(keys, "interval", draft::duration(value, 3600)?.into());
            if words.len() > 2 {
                return Err("the probe of hedgerow is . NS: set health.probe".to_owned());
            }
        }
        "expire" => {
            let idle = Table::from_iter([("idle".to_owned(), Value::from(draft::duration(value, 6553)?))]);
            keys.insert("connections".to_owned(), Value::Table(idle));
        }
        "max_concurrent" => drop(keys.insert("max_in_flight".to_owned(), number(value, 1, 10_000_000)?.into())),
        // `tls://` is the transport; without files, the authorities of the system are trusted.
        "tls" if words.len() == 1 => {}
        "tls_servername" | "force_tcp" | "prefer_udp" => {}
        "except" => return Err("add a route to another pool for these names".to_owned()),
        other => return Err(format!("hedgerow has no {other} here: see [pools.NAME]")),
    }
    Ok(())
}

fn set_health(keys: &mut Table, key: &str, value: Value) {
    let health = keys.entry("health").or_insert_with(|| Value::Table(Table::new()));
    health.as_table_mut().into_iter().for_each(|table| drop(table.insert(key.to_owned(), value.clone())));
}

fn cache(
    plugin: &Plugin<'_>,
    site: &mut Site,
    facts: &mut CorefileFacts,
    draft: &mut DraftConfig,
    reject: &mut Reject<'_>,
) -> Taking {
    let mut set = Table::new();
    let (mut rest, mut cap) = (&plugin.args[..], 9984);
    let positive = rest.first().filter(|text| text.parse::<u32>().is_ok());
    let (positive, negative) = match positive {
        Some(ttl) => {
            rest = &rest[1..];
            (seconds(ttl)?, seconds(ttl)?)
        }
        None => ("3600s".into(), "1800s".into()),
    };
    set.extend([("max_ttl".to_owned(), positive), ("max_negative_ttl".to_owned(), negative)]);
    set.extend([("stale".to_owned(), "0s".into()), ("prefetch".to_owned(), 0.0.into())]);
    for (line, words) in &plugin.body {
        if let Err(reason) = cache_property(words, &mut set, &mut cap) {
            reject(*line, words, reason);
        }
    }
    (facts.has_cache, site.is_cached) = (true, true);
    set.insert("size".to_owned(), cache_size(cap * 2).into());
    let differs = |(key, value): (&String, &Value)| draft.value("cache", key).is_some_and(|known| known != value);
    if set.iter().any(differs) {
        return Err("hedgerow has one [cache] for all pools: use the settings of the first block".to_owned());
    }
    set.into_iter().for_each(|(key, value)| draft.set("cache", &key, value));
    match rest.is_empty() {
        true => Ok(()),
        false => Err("hedgerow keeps answers of whole pools: set cache of the pool".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Value, String> {
    number(text.trim_end_matches('s'), 1, 604_800).map(|value| Value::from(format!("{value}s")))
}

/// Takes a line in the braces of `cache`.
fn cache_property(words: &[&str], set: &mut Table, cap: &mut i64) -> Taking {
    let value = |at: usize| words.get(at).copied().unwrap_or_default();
    match value(0) {
        key @ ("success" | "denial") => {
            *cap = (*cap).max(number(value(1), 1, 100_000_000)?);
            let key = if key == "success" { "max_ttl" } else { "max_negative_ttl" };
            if words.len() > 2 {
                set.insert(key.to_owned(), seconds(value(2))?);
            }
            if words.len() > 3 && value(3) != "0" {
                return Err("hedgerow has one lower bound for all answers: set cache.min_ttl".to_owned());
            }
        }
        "prefetch" => {
            let percent = value(3).trim_end_matches('%').parse::<f64>().unwrap_or(10.0);
            set.insert("prefetch".to_owned(), (percent / 100.0).clamp(0.0, 0.9).into());
        }
        "serve_stale" => {
            let stale = draft::duration(if words.len() > 1 { value(1) } else { "1h" }, 604_800)?;
            set.insert("stale".to_owned(), stale.into());
        }
        "servfail" => {
            let ttl = number(value(1).trim_end_matches('s'), 1, 300)?;
            set.insert("failure_ttl".to_owned(), format!("{ttl}s").into());
        }
        other => return Err(format!("hedgerow has no {other} here: see [cache]")),
    }
    Ok(())
}

fn hosts(plugin: &Plugin<'_>, site: &mut Site, draft: &mut DraftConfig, reject: &mut Reject<'_>) -> Taking {
    let has = |name: &str| plugin.body.iter().any(|(_, words)| words.first() == Some(&name));
    let is_root = site.zones.iter().any(|zone| zone == ".");
    let mut local = Vec::new();
    for (line, words) in &plugin.body {
        let value = words.get(1).copied().unwrap_or_default();
        let taking = match words.first().copied().unwrap_or_default() {
            "fallthrough" if words.len() > 1 => Err("hedgerow always looks at the next: remove the zones".to_owned()),
            "fallthrough" | "no_reverse" | "reload" => Ok(()),
            "ttl" if value == "60" || has("no_reverse") => Ok(()),
            "ttl" => Err("local names have a TTL of 60 s: nothing to set".to_owned()),
            text => address(text).and_then(|ip| {
                let names: Result<Vec<_>, _> = words[1..].iter().map(|name| domain(name)).collect();
                let inside = |name: &String| site.zones.iter().any(|zone| is_at_or_below(name, zone));
                local.extend(names?.into_iter().filter(inside).map(|name| (name, ip)));
                Ok(())
            }),
        };
        if let Err(reason) = taking {
            reject(*line, words, reason);
        }
    }
    let mut names: Vec<&String> = local.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    if has("no_reverse") {
        let addresses =
            |name: &String| local.iter().filter(|(one, _)| one == name).map(|(_, ip)| *ip).collect::<Vec<_>>();
        let rule = |name: &&String| DraftRule::exactly(name, table("addresses", strings(&addresses(name))));
        site.rules.extend(names.iter().map(rule));
    } else {
        local.iter().for_each(|(name, ip)| draft.add_name(name, *ip));
    }
    let file = plugin.args.first().copied();
    let file = if file.is_none() && local.is_empty() { Some("/etc/hosts") } else { file };
    if file.is_some() && !is_root {
        return Err("the names of a hosts file are for all zones: add it to hosts_files".to_owned());
    }
    if !has("fallthrough") {
        site.rules.extend(names.iter().map(|name| DraftRule::exactly(name, "routes")));
        site.rules.extend(file.map(|file| DraftRule { names_file: Some(file.to_owned()), ..DraftRule::all("routes") }));
        site.rules.push(DraftRule::all("nxdomain").of_types(&["A", "AAAA"]));
    }
    match file {
        Some(file) if !draft.hosts_files.iter().any(|known| known == file) => {
            draft.hosts_files.push(file.to_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}

fn acl(plugin: &Plugin<'_>, site: &mut Site, reject: &mut Reject<'_>) -> Taking {
    for (line, words) in &plugin.body {
        match acl_rule(words) {
            Ok(rule) => site.rules.push(rule),
            Err(reason) => reject(*line, words, reason),
        }
    }
    Ok(())
}

fn acl_rule(words: &[&str]) -> Result<DraftRule, String> {
    let (action, rest) = words.split_first().ok_or("expected an action: add it")?;
    let then = match *action {
        "allow" => "routes",
        "block" => "refused",
        "filter" => "nodata",
        "drop" => "drop",
        _ => return Err("expected allow, block, filter or drop: correct it".to_owned()),
    };
    let mut rule = DraftRule::all(then);
    let mut list = "";
    for word in rest {
        match (*word, list) {
            ("type" | "net", _) => list = word,
            ("*", _) => {}
            (_, "type") => {
                let rtype = words::record_type(word).map_err(|error| error.to_string())?;
                rule.types.push(rtype.to_string());
            }
            (_, "net") => {
                words::prefix(word).map_err(|error| error.to_string())?;
                rule.clients.push((*word).to_owned());
            }
            _ => return Err("expected type or net: correct it".to_owned()),
        }
    }
    Ok(rule)
}

/// Takes `template CLASS TYPE [ZONE...]` with one response code, or one address without a pattern.
fn template(plugin: &Plugin<'_>, site: &mut Site) -> Taking {
    let [class, rtype, zones @ ..] = &plugin.args[..] else { return Err("expected CLASS TYPE: add them".to_owned()) };
    let fixed = "hedgerow makes fixed answers only: add a rule with addresses or cname";
    let [(_, words)] = &plugin.body[..] else { return Err(fixed.to_owned()) };
    let then = match words[..] {
        ["rcode", "NXDOMAIN"] => "nxdomain".into(),
        ["rcode", "REFUSED"] => "refused".into(),
        ["rcode", "NOERROR"] => "nodata".into(),
        ["answer", text] => {
            let fields: Vec<_> = text.split_whitespace().collect();
            let ip =
                fields.last().and_then(|ip| ip.parse::<IpAddr>().ok()).filter(|_| text.starts_with("{{ .Name }} "));
            table("addresses", strings(&[ip.ok_or(fixed)?]))
        }
        _ => return Err(fixed.to_owned()),
    };
    if !["IN", "ANY"].contains(class) {
        return Err("rules hold for all classes: remove it".to_owned());
    }
    let names: Result<Vec<_>, _> = zones.iter().map(|zone| domain(zone)).collect();
    let rule = DraftRule { names: names?.into_iter().filter(|name| name != ".").collect(), ..DraftRule::all(then) };
    let rtype = words::record_type(rtype).map_err(|error| error.to_string())?.to_string();
    site.rules.push(if rtype == "ANY" { rule } else { rule.of_types(&[&rtype]) });
    Ok(())
}

/// Takes `file DBFILE` or `secondary { transfer from ADDRESS }`: an authority on loopback, and a route to it.
fn zone(
    plugin: &Plugin<'_>,
    site: &mut Site,
    facts: &mut CorefileFacts,
    draft: &mut DraftConfig,
    reject: &mut Reject<'_>,
) -> Taking {
    let origin = site.zones.first().cloned().unwrap_or_default();
    if site.zones.len() != 1 || origin == "." || plugin.args.len() > 1 {
        return Err("hedgerow has one zone in each file: add it to zones of an authority".to_owned());
    }
    let mut entry = Table::new();
    let mut primaries = Vec::new();
    for (line, words) in &plugin.body {
        match (plugin.name, &words[..]) {
            // A reload reads changed files.
            ("file", ["reload", ..]) => {}
            ("secondary", ["transfer", "from", from @ ..]) => primaries.extend(from.iter().copied()),
            _ => reject(*line, words, "set it in zones of the authority: see docs/src/transfers.md".to_owned()),
        }
    }
    if plugin.name == "file" {
        let file = plugin.args.first().ok_or("expected a file: add its name")?;
        let root =
            if file.starts_with('/') || site.root.is_empty() { String::new() } else { format!("{}/", site.root) };
        entry.extend([("file".to_owned(), (root + file).into()), ("origin".to_owned(), Value::from(origin.as_str()))]);
    } else {
        let checked: Result<Vec<_>, _> = primaries.iter().map(|text| words::backend(text)).collect();
        checked.map_err(|error| error.to_string())?;
        entry.extend([("zone".to_owned(), origin.as_str().into()), ("primaries".to_owned(), strings(&primaries))]);
    }
    let name = format!("zone-{}", label(&origin));
    let listen = format!("127.0.0.1:{}", FIRST_PORT + facts.authorities);
    facts.authorities += 1;
    let section = format!("authorities.{name}");
    draft.set(&section, "listen", strings(&[&listen]));
    draft.set(&section, "zones", Value::Array(vec![Value::Table(entry)]));
    draft.pool(&name).add(listen);
    draft.pool(&name).keys.insert("cache".to_owned(), false.into());
    site.pool = Some(name);
    Ok(())
}
