//! unbound.conf: clauses such as `server:` with lines of `KEY: VALUE` (unbound.conf(5)).

mod local;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use config::words;
use toml::{Table, Value};

use self::local::LocalData;
use super::draft::{self, DEFAULT, DraftConfig, DraftPool, DraftRule, Taking, address, domain, number, url};
use super::reason;

/// A line of the file.
struct Entry<'a> {
    line: usize,
    /// The clause, without the colon.
    clause: &'a str,
    key: &'a str,
    value: &'a str,
}

/// One `forward-zone` or `stub-zone`.
#[derive(Debug, Default)]
struct ForwardZone<'a> {
    name: &'a str,
    targets: Vec<&'a str>,
    scheme: &'static str,
    is_uncached: bool,
}

/// The sum of the lines of `server:`.
#[derive(Debug, Default)]
struct UnboundFacts<'a> {
    /// True if a DNSSEC trust anchor is set, so that Unbound validates.
    validates: bool,
    /// True if all names are forwarded, so that Unbound does not recurse.
    forwards_all: bool,
    listen: ListenLines<'a>,
    access: Vec<(usize, String, &'a str)>,
    flags: BTreeSet<&'a str>,
    cache: i64,
    threads: i64,
    pool_keys: Table,
    private_names: Vec<String>,
    /// The file of trusted authorities.
    authorities: Option<&'a str>,
    local: LocalData<'a>,
}

/// The lines about listeners for clients.
#[derive(Debug)]
struct ListenLines<'a> {
    interfaces: Vec<&'a str>,
    /// The port of interfaces without their own.
    port: u16,
    tls_port: u16,
    https_port: u16,
    /// The files of the certificate and of its key.
    certificate: [Option<&'a str>; 2],
}

impl Default for ListenLines<'_> {
    fn default() -> Self {
        Self { interfaces: Vec::new(), port: 53, tls_port: 853, https_port: 443, certificate: [None; 2] }
    }
}

const CLAUSES: &[&str] = &[
    "server",
    "remote-control",
    "forward-zone",
    "stub-zone",
    "auth-zone",
    "view",
    "python",
    "dynlib",
    "cachedb",
    "dnscrypt",
    "rpz",
    "dnstap",
    "ipset",
];

/// Reads a config of Unbound.
pub(super) fn import(text: &str) -> DraftConfig {
    let entries = entries(text);
    let mut draft = DraftConfig::default();
    let has = |keys: &[&str]| entries.iter().any(|entry| keys.contains(&entry.key));
    let mut facts = UnboundFacts {
        validates: has(&["auto-trust-anchor-file", "trust-anchor-file", "trust-anchor", "trusted-keys-file"]),
        forwards_all: entries
            .iter()
            .any(|entry| entry.clause == "forward-zone" && entry.key == "name" && entry.value == "."),
        threads: 1,
        ..UnboundFacts::default()
    };
    let mut zones: Vec<ForwardZone<'_>> = Vec::new();
    for entry in &entries {
        let taking = match entry.clause {
            // The line that begins a clause.
            "forward-zone" | "stub-zone" if entry.key.is_empty() => {
                zones.push(ForwardZone::default());
                continue;
            }
            _ if entry.key.is_empty() => continue,
            "server" if entry.key.starts_with("local-") => facts.local.add(entry.line, entry.key, entry.value),
            "server" => take_server(entry, &mut facts, &mut draft),
            "forward-zone" | "stub-zone" => zones.last_mut().map_or(Ok(()), |zone| take_zone(entry, zone)),
            "remote-control" => take_control(entry, &mut draft),
            clause => Err(reason(CLAUSE_REASONS, clause)),
        };
        draft.count(entry.line, entry.key, taking);
    }
    let is_tls = facts.flags.contains("tls-upstream");
    zones.iter().for_each(|zone| add_zone(zone, is_tls, &facts, &mut draft));
    finish(facts, draft)
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut clause = "server";
    let mut found = Vec::new();
    for (line, text) in super::numbered(text) {
        let text = without_comment(text).trim();
        if text.is_empty() {
            continue;
        }
        let (key, value) = text.split_once(':').unwrap_or((text, ""));
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() && CLAUSES.contains(&key) {
            clause = key;
            found.push(Entry { line, clause, key: "", value: "" });
        } else {
            found.push(Entry { line, clause, key, value: unquoted(value) });
        }
    }
    found
}

fn unquoted(value: &str) -> &str {
    let quoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    quoted('"').or_else(|| quoted('\'')).unwrap_or(value)
}

fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let end = line.char_indices().find(|&(at, c)| match (quote, c) {
        (Some(open), c) if c == open => {
            quote = None;
            false
        }
        (None, '"' | '\'') => {
            quote = Some(c);
            false
        }
        // `#` without a blank before it is a part of an address, as in 9.9.9.9#NAME.
        (None, '#') => at == 0 || line[..at].ends_with([' ', '\t']),
        _ => false,
    });
    end.map_or(line, |(at, _)| &line[..at])
}

/// The reasons for clauses that hedgerow cannot take.
const CLAUSE_REASONS: &str = include_str!("reasons/unbound-clauses.txt");

/// Values, each with the keys for which hedgerow behaves in this way in any case; `*`: all values.
/// `so-reuseport`: each worker has its listeners. `*-slabs`: the cache is split into shards.
/// `do-not-query-localhost`: backends may be on loopback.
const ALWAYS: &[(&str, &str)] = &[
    ("yes", "do-ip4 do-ip6 do-udp do-tcp so-reuseport log-time-ascii tls-system-cert"),
    ("*", "msg-cache-slabs rrset-cache-slabs infra-cache-slabs key-cache-slabs"),
    (
        "no",
        "do-daemonize use-syslog use-systemd interface-automatic do-not-query-localhost extended-statistics \
     statistics-cumulative rrset-roundrobin minimal-responses qname-minimisation-strict use-caps-for-id \
     deny-any hide-identity log-queries log-replies log-servfail prefetch serve-expired hide-version \
     unblock-lan-zones forward-first stub-first stub-prime forward-no-cache stub-no-cache \
     forward-tls-upstream stub-tls-upstream tls-upstream control-use-cert control-enable",
    ),
    ("", "chroot"),
    ("0", "verbosity statistics-interval"),
    ("1", "verbosity"),
];

/// Keys that matter to recursion only: without effect in Unbound if it forwards all names.
const RECURSION: &str = "qname-minimisation qname-minimisation-strict root-hints harden-glue harden-referral-path \
     target-fetch-policy harden-below-nxdomain prefer-ip4 prefer-ip6";

/// Keys that matter to DNSSEC validation only: without effect in Unbound if there is no trust anchor.
const VALIDATION: &str = "harden-dnssec-stripped harden-algo-downgrade aggressive-nsec prefetch-key domain-insecure \
     key-cache-size neg-cache-size ignore-cd-flag trust-anchor-signaling root-key-sentinel \
     insecure-lan-zones";

/// The reasons for keys that hedgerow cannot take.
const MISSING: &str = include_str!("reasons/unbound.txt");

fn is_always(key: &str, value: &str) -> bool {
    let is_meant = |meant: &str| meant == "*" || meant == value;
    ALWAYS.iter().any(|(meant, keys)| is_meant(meant) && keys.split(' ').any(|known| known == key))
}

fn take_server<'a>(entry: &Entry<'a>, facts: &mut UnboundFacts<'a>, draft: &mut DraftConfig) -> Taking {
    let &Entry { line, key, value, .. } = entry;
    if is_always(key, value)
        || facts.forwards_all && RECURSION.split(' ').any(|known| known == key)
        || !facts.validates && (VALIDATION.split(' ').any(|known| known == key) || key.starts_with("val-"))
    {
        return Ok(());
    }
    match key {
        "interface" | "ip-address" => facts.listen.interfaces.push(value),
        "access-control" => {
            let (network, action) =
                value.split_once(char::is_whitespace).ok_or("expected NETWORK ACTION: add the action")?;
            words::prefix(network).map_err(|error| error.to_string())?;
            let length = if network.contains(':') { 128 } else { 32 };
            let whole = if network.contains('/') { network.to_owned() } else { format!("{network}/{length}") };
            facts.access.push((line, whole, action.trim()));
        }
        "hide-identity" | "hide-version" | "deny-any" | "use-caps-for-id" | "prefetch" | "serve-expired"
        | "log-queries" | "log-replies" | "log-servfail" | "unblock-lan-zones" | "tls-upstream" | "ssl-upstream"
            if value == "yes" =>
        {
            facts.flags.insert(if key == "ssl-upstream" { "tls-upstream" } else { key });
        }
        "private-address" => {
            if !PRIVATE.iter().any(|known| words::prefix(known).ok() == words::prefix(value).ok()) {
                return Err(reason(MISSING, key));
            }
            facts.pool_keys.insert("private_answers".to_owned(), "drop".into());
        }
        "private-domain" => facts.private_names.push(domain(value)?),
        "dns64-prefix" => drop(facts.pool_keys.insert("dns64".to_owned(), draft::dns64(value)?.into())),
        "module-config" if !facts.validates || !value.contains("validator") => {
            let known = ["validator", "iterator", "dns64"];
            if !value.split_whitespace().all(|module| known.contains(&module)) {
                return Err(reason(MISSING, key));
            }
            if value.contains("dns64") {
                facts.pool_keys.entry("dns64").or_insert_with(|| "64:ff9b::/96".into());
            }
        }
        "tls-cert-bundle" | "ssl-cert-bundle" => {
            // The file of Debian is the default of hedgerow.
            facts.authorities = Some(value).filter(|file| *file != "/etc/ssl/certs/ca-certificates.crt");
        }
        "tls-service-pem" | "ssl-service-pem" => facts.listen.certificate[0] = Some(value),
        "tls-service-key" | "ssl-service-key" => facts.listen.certificate[1] = Some(value),
        _ => return take_number(key, value, facts, draft),
    }
    Ok(())
}

/// The networks whose addresses `private_answers` removes.
const PRIVATE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/128",
    "::1/128",
    "fc00::/7",
    "fd00::/8",
    "fe80::/10",
];

fn take_number(key: &str, value: &str, facts: &mut UnboundFacts<'_>, draft: &mut DraftConfig) -> Taking {
    let port = |value| number(value, 1, 65_535).map(|port| u16::try_from(port).unwrap_or(53));
    let seconds = |least, most| number(value, least, most).map(|seconds| format!("{seconds}s"));
    match key {
        "port" => facts.listen.port = port(value)?,
        "tls-port" | "ssl-port" => facts.listen.tls_port = port(value)?,
        "https-port" => facts.listen.https_port = port(value)?,
        "num-threads" => {
            facts.threads = number(value, 1, 1024)?;
            draft.set("", "workers", facts.threads);
        }
        "msg-cache-size" | "rrset-cache-size" => facts.cache += octets(value)?,
        "cache-min-ttl" => draft.set("cache", "min_ttl", seconds(0, 86_400)?),
        "cache-max-ttl" => draft.set("cache", "max_ttl", seconds(1, 604_800)?),
        "cache-max-negative-ttl" => draft.set("cache", "max_negative_ttl", seconds(1, 604_800)?),
        "serve-expired-ttl" if value == "0" => draft.set("cache", "stale", "7d"),
        "serve-expired-ttl" => draft.set("cache", "stale", seconds(1, 604_800)?),
        "serve-expired-reply-ttl" => draft.set("cache", "stale_ttl", seconds(1, 3600)?),
        "serve-expired-client-timeout" => {
            draft.set("cache", "stale_answer_after", format!("{}ms", number(value, 0, 60_000)?));
        }
        "edns-buffer-size" => draft.set("forwarder", "edns_udp_size", number(value, 512, 4096)?),
        "num-queries-per-thread" => {
            let all = number(value, 1, 1_000_000)?.saturating_mul(facts.threads).clamp(100, 10_000_000);
            draft.set("forwarder.limits", "in_flight", all);
        }
        "incoming-num-tcp" => {
            let all = number(value, 1, 100_000)?.saturating_mul(facts.threads).clamp(1, 1_000_000);
            draft.set("forwarder.connections", "max", all);
        }
        "tcp-idle-timeout" => {
            draft.set("forwarder.connections", "idle", format!("{}ms", number(value, 100, 6_000_000)?));
        }
        "ip-ratelimit" => draft.set("forwarder.rate_limit", "total", number(value, 0, 10_000)?),
        _ => return Err(reason(MISSING, key)),
    }
    Ok(())
}

/// Reads a size such as `50m`.
fn octets(text: &str) -> Result<i64, String> {
    let text = text.to_ascii_lowercase();
    let (digits, shift) = match text.trim_end_matches('b') {
        text if text.ends_with('k') => (text.trim_end_matches('k'), 10),
        text if text.ends_with('m') => (text.trim_end_matches('m'), 20),
        text if text.ends_with('g') => (text.trim_end_matches('g'), 30),
        text => (text, 0),
    };
    Ok(number(digits, 0, (64 << 30) >> shift)? << shift)
}

fn take_zone<'a>(entry: &Entry<'a>, zone: &mut ForwardZone<'a>) -> Taking {
    let &Entry { key, value, .. } = entry;
    if is_always(key, value) {
        return Ok(());
    }
    match key.trim_start_matches("forward-").trim_start_matches("stub-") {
        "name" => {
            domain(value)?;
            zone.name = value;
        }
        "addr" => {
            target(value, "")?;
            zone.targets.push(value);
        }
        "tls-upstream" | "ssl-upstream" if value == "yes" => zone.scheme = "tls",
        "tcp-upstream" if value == "yes" => zone.scheme = "tcp",
        "no-cache" if value == "yes" => zone.is_uncached = true,
        _ => return Err(reason(MISSING, key)),
    }
    Ok(())
}

/// Reads `IP[@PORT][#NAME]` as a backend.
fn target(text: &str, scheme: &str) -> Result<String, String> {
    let (socket, name) = text.split_once('#').unwrap_or((text, ""));
    let (ip, port) = socket.split_once('@').unwrap_or((socket, if scheme == "tls" { "853" } else { "53" }));
    let port = u16::try_from(number(port.trim(), 1, 65_535)?).unwrap_or(53);
    let name = if scheme == "tls" { name.trim() } else { "" };
    let backend = url(scheme, SocketAddr::new(address(ip.trim())?, port), name);
    words::backend(&backend).map_err(|error| error.to_string())?;
    Ok(backend)
}

fn add_zone(zone: &ForwardZone<'_>, is_tls: bool, facts: &UnboundFacts<'_>, draft: &mut DraftConfig) {
    let Ok(name) = domain(zone.name) else { return };
    let scheme = if is_tls && zone.scheme.is_empty() { "tls" } else { zone.scheme };
    let targets: Vec<_> = zone.targets.iter().filter_map(|text| target(text, scheme).ok()).collect();
    if zone.name.is_empty() || targets.is_empty() {
        return;
    }
    let with_ca = |backend: String| match facts.authorities.filter(|_| backend.starts_with("tls")) {
        Some(file) => Value::Table(Table::from_iter([("address".into(), backend.into()), ("ca".into(), file.into())])),
        None => Value::from(backend),
    };
    let mut pool = DraftPool { keys: facts.pool_keys.clone(), ..DraftPool::default() };
    targets.into_iter().for_each(|target| pool.add(with_ca(target)));
    if facts.flags.contains("use-caps-for-id") {
        pool.keys.insert("case".to_owned(), "random".into());
    }
    if zone.is_uncached {
        pool.keys.insert("cache".to_owned(), false.into());
    }
    if pool.keys.contains_key("private_answers") && !facts.private_names.is_empty() {
        pool.keys.insert("private_names".to_owned(), draft::strings(&facts.private_names));
    }
    let pool = draft.add_pool(&name, pool);
    draft.routes.insert(name, pool);
}

fn take_control(entry: &Entry<'_>, draft: &mut DraftConfig) -> Taking {
    match (entry.key, entry.value) {
        ("control-enable", "yes") => draft.set("admin", "listen", "127.0.0.1:5380"),
        (key, value) if is_always(key, value) => {}
        _ => return Err(reason(MISSING, entry.key)),
    }
    Ok(())
}

fn finish(facts: UnboundFacts<'_>, mut draft: DraftConfig) -> DraftConfig {
    if !facts.forwards_all {
        let remedy = "hedgerow does not recurse, so other names are REFUSED: add forward-zone for \".\"";
        draft.note(1, "forward-zone", remedy);
    }
    set_listen(&facts, &mut draft);
    set_access(&facts, &mut draft);
    set_cache(&facts, &mut draft);
    let has = |flag: &str| facts.flags.contains(flag);
    let hidden: [(&str, &[&str]); 2] =
        [("hide-identity", &["id.server", "hostname.bind"]), ("hide-version", &["version.server", "version.bind"])];
    for name in hidden.iter().filter(|(flag, _)| has(flag)).flat_map(|(_, names)| *names) {
        draft.rules.push(DraftRule::exactly(name, "refused"));
    }
    if has("deny-any") {
        draft.rules.push(DraftRule::all("nodata").of_types(&["ANY"]));
    }
    if has("log-queries") || has("log-replies") || has("log-servfail") {
        let share = if has("log-queries") || has("log-replies") { 1.0 } else { 0.0 };
        draft.set("query_log", "to", "stderr");
        draft.set("query_log", "sample", share);
        draft.set("query_log", "always", draft::strings(&["failed"]));
        draft.set("query_log", "client", "full");
    }
    // Unbound answers the same names itself, except `local`.
    draft.set("forwarder", "special_names", true);
    let mut forwarded = vec!["local".to_owned()];
    if has("unblock-lan-zones") {
        forwarded.extend(["10.in-addr.arpa", "168.192.in-addr.arpa", "d.f.ip6.arpa"].map(str::to_owned));
        forwarded.extend((16..32).map(|octet| format!("{octet}.172.in-addr.arpa")));
    }
    facts.local.finish(&mut draft, &mut forwarded);
    if draft.pools.contains_key(DEFAULT) {
        for name in forwarded {
            draft.routes.entry(name).or_insert_with(|| DEFAULT.to_owned());
        }
    }
    draft.let_the_longest_name_win();
    draft
}

fn set_listen(facts: &UnboundFacts<'_>, draft: &mut DraftConfig) {
    let loopback = ["127.0.0.1", "::1"];
    let listen = if facts.listen.interfaces.is_empty() { &loopback[..] } else { &facts.listen.interfaces };
    for text in listen {
        let (ip, port) = text.split_once('@').unwrap_or((text, ""));
        let port = if port.is_empty() { Ok(facts.listen.port) } else { port.trim().parse() };
        let (Ok(ip), Ok(port)) = (ip.trim().parse::<IpAddr>(), port) else {
            draft.note(1, text, "expected an address: write those of the interface into forwarder.listen");
            continue;
        };
        let scheme = match port {
            port if port == facts.listen.tls_port => "tls",
            port if port == facts.listen.https_port => "https",
            _ => "",
        };
        draft.listen.push(url(scheme, SocketAddr::new(ip, port), "").into());
    }
    if let [Some(chain), Some(key)] = facts.listen.certificate {
        draft.set("certificates.main", "chain", chain);
        draft.set("certificates.main", "key", key);
    }
}

/// Sets `allow`, `deny` and `on_denied`. In Unbound the longest prefix decides; here an exception to `allow`
/// has no exceptions.
fn set_access(facts: &UnboundFacts<'_>, draft: &mut DraftConfig) {
    let is_allowed = |action: &str| action.starts_with("allow");
    let mut allow = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
    allow.extend(facts.access.iter().filter(|(_, _, action)| is_allowed(action)).map(|(_, one, _)| one.clone()));
    let denied = |text: &String| facts.access.iter().any(|(_, one, action)| !is_allowed(action) && one == text);
    allow.retain(|text| !denied(text));
    allow.sort_unstable();
    allow.dedup();
    let mut deny = Vec::new();
    let refused: Vec<_> = facts.access.iter().filter(|(_, _, action)| !is_allowed(action)).collect();
    let is_drop = refused.iter().all(|(_, _, action)| *action == "deny")
        && refused.iter().any(|(_, prefix, _)| prefix.ends_with("/0"));
    for (line, prefix, action) in refused {
        let text = prefix.clone();
        let is_within = allow.iter().any(|above| covers(above, &text));
        if is_within {
            if allow.iter().any(|below| covers(&text, below)) {
                let remedy = "deny has no exceptions in hedgerow: list the allowed networks one by one";
                draft.note(*line, "access-control", remedy);
            }
            deny.push(text);
        }
        if *action == "deny" && !is_drop {
            draft.note(*line, "access-control", "hedgerow has one response for all denied clients: set on_denied");
        }
    }
    draft.set("forwarder", "allow", draft::strings(&allow));
    draft.set("forwarder", "deny", draft::strings(&deny));
    if is_drop {
        draft.set("forwarder", "on_denied", "drop");
    }
}

/// Returns true if a prefix contains another one.
fn covers(above: &str, below: &str) -> bool {
    let length = |text: &str| text.split_once('/').and_then(|(_, length)| length.parse::<u8>().ok()).unwrap_or(128);
    let first = below.split('/').next().and_then(|ip| ip.parse().ok());
    let prefix = words::prefix(above).ok();
    length(above) < length(below) && prefix.zip(first).is_some_and(|(prefix, first)| prefix.contains(first))
}

fn set_cache(facts: &UnboundFacts<'_>, draft: &mut DraftConfig) {
    let is_stale = facts.flags.contains("serve-expired");
    // By default, Unbound has 4 MiB for messages and 4 MiB for RRsets.
    let octets = if facts.cache == 0 { 8 << 20 } else { facts.cache };
    draft.set("cache", "size", format!("{}MiB", (octets >> 20).max(1)));
    if !is_stale {
        draft.set("cache", "stale", "0s");
    } else if draft.value("cache", "stale").is_none() {
        draft.set("cache", "stale", "1d");
    }
    if !facts.flags.contains("prefetch") {
        draft.set("cache", "prefetch", Value::from(0.0));
    }
}
