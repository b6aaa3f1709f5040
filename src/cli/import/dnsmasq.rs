//! dnsmasq.conf: lines of `KEY` or `KEY=VALUE` (dnsmasq(8)).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::draft::{
    self, DEFAULT, DraftConfig, DraftRule, Taking, address, ancestors, cache_size, domain, number, table,
};
use super::reason;

/// The answers and servers for one domain.
#[derive(Debug, Default)]
struct Domain {
    addresses: Vec<IpAddr>,
    /// True if no server is asked.
    is_local: bool,
    servers: Vec<String>,
    /// True if the servers for all names are asked: `server=/DOMAIN/#`.
    is_default: bool,
}

/// The sum of the lines of the file.
#[derive(Debug, Default)]
struct DnsmasqFacts {
    domains: BTreeMap<String, Domain>,
    servers: Vec<String>,
    listen: Vec<IpAddr>,
    port: u16,
    /// True if dnsmasq listens at some addresses of the host only.
    is_restricted: bool,
    flags: BTreeSet<String>,
    log_file: Option<String>,
    private_names: Vec<String>,
    cache: Option<i64>,
    stale: Option<i64>,
}

/// Reads a config of dnsmasq.
pub(super) fn import(text: &str) -> DraftConfig {
    let mut draft = DraftConfig::default();
    let mut facts = DnsmasqFacts { port: 53, ..DnsmasqFacts::default() };
    for (line, (key, value)) in super::numbered(text).filter_map(|(line, text)| Some((line, directive(text)?))) {
        let taking = take(key, value, &mut facts, &mut draft);
        draft.count(line, key, taking);
    }
    finish(facts, draft)
}

/// Splits a line into key and value; `None` if it is empty or a comment.
fn directive(line: &str) -> Option<(&str, &str)> {
    let is_comment = |at: usize| at == 0 || line[..at].ends_with([' ', '\t']);
    let end = line.match_indices('#').map(|(at, _)| at).find(|&at| is_comment(at)).unwrap_or(line.len());
    let line = line[..end].trim();
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    (!line.is_empty()).then_some((key.trim(), value.trim().trim_matches('"')))
}

/// Directives that are the behavior of hedgerow in any case, or have no effect without DHCP.
const ALWAYS: &[&str] = &[
    "bind-interfaces", // hedgerow binds to the addresses of `listen` only
    "no-resolv",       // it reads no resolv.conf for backends
    "no-poll",
    "keep-in-foreground",
    "no-daemon",
    "log-async",         // the query log never delays a query
    "fast-dns-retry",    // a late backend is hedged or retried
    "no-dhcp-interface", // there is no DHCP
    "domain",            // without DHCP and expand-hosts, it changes no answer
];

const FLAGS: &[&str] =
    &["no-hosts", "bogus-priv", "strict-order", "all-servers", "log-queries", "stop-dns-rebind", "proxy-dnssec"];

/// The reasons for directives that hedgerow cannot take.
const MISSING: &str = include_str!("reasons/dnsmasq.txt");

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

fn take(key: &str, value: &str, facts: &mut DnsmasqFacts, draft: &mut DraftConfig) -> Taking {
    match key {
        "server" | "local" => take_server(value, facts),
        "address" => take_address(value, facts),
        "rev-server" => take_rev_server(value, facts),
        "host-record" => take_host_record(value, draft),
        "cname" => take_cname(value, draft),
        "addn-hosts" => {
            draft.hosts_files.push(value.to_owned());
            Ok(())
        }
        "listen-address" => {
            facts.is_restricted = true;
            let addresses: Result<Vec<_>, _> = value.split(',').map(|text| address(text.trim())).collect();
            facts.listen.extend(addresses?);
            Ok(())
        }
        "interface" | "except-interface" | "local-service" => {
            facts.is_restricted = true;
            // dnsmasq adds the loopback interface to those that are named.
            if key == "interface" {
                facts.listen.extend(LOOPBACK);
            }
            if key == "interface" && value == "lo" { Ok(()) } else { Err(reason(MISSING, key)) }
        }
        "port" => {
            facts.port = u16::try_from(number(value, 1, 65_535)?).unwrap_or(53);
            Ok(())
        }
        "filter-AAAA" | "filter-A" => {
            draft.rules.push(DraftRule::all("nodata").of_types(&[&key["filter-".len()..]]));
            Ok(())
        }
        "rebind-domain-ok" => {
            let names: Result<Vec<_>, _> = value.split('/').filter(|part| !part.is_empty()).map(domain).collect();
            facts.private_names.extend(names?);
            Ok(())
        }
        "log-facility" if value.starts_with('/') => {
            facts.log_file = Some(value.to_owned());
            Ok(())
        }
        "log-facility" if value == "-" => Ok(()),
        "domain" if value.contains(',') => Err("hedgerow knows no names by subnet: add routes and rules".to_owned()),
        "cache-size" | "min-cache-ttl" | "max-cache-ttl" | "use-stale-cache" | "edns-packet-max"
        | "dns-forward-max" | "no-negcache" => take_limit(key, value, facts, draft),
        _ if FLAGS.contains(&key) => {
            facts.flags.insert(key.to_owned());
            Ok(())
        }
        _ if ALWAYS.contains(&key) => Ok(()),
        _ => Err(reason(MISSING, key)),
    }
}

fn take_limit(key: &str, value: &str, facts: &mut DnsmasqFacts, draft: &mut DraftConfig) -> Taking {
    match key {
        "cache-size" => facts.cache = Some(number(value, 0, 100_000_000)?),
        "use-stale-cache" if value.is_empty() => facts.stale = Some(86_400),
        "use-stale-cache" => facts.stale = Some(number(value, 1, 604_800)?),
        "min-cache-ttl" => draft.set("cache", "min_ttl", format!("{}s", number(value, 0, 3600)?)),
        "max-cache-ttl" => draft.set("cache", "max_ttl", format!("{}s", number(value, 1, 604_800)?)),
        "edns-packet-max" => draft.set("forwarder", "edns_udp_size", number(value, 512, 4096)?),
        "dns-forward-max" => draft.set("forwarder.limits", "in_flight", number(value, 100, 10_000_000)?),
        _ => {
            draft.set("cache", "max_negative_ttl", "1s");
            return Err(reason(MISSING, key));
        }
    }
    Ok(())
}

/// Splits `/DOMAIN/DOMAIN/REST` into the domains and the rest. Without domains, the list is empty.
fn scope(value: &str) -> Result<(Vec<String>, &str), String> {
    let Some(scoped) = value.strip_prefix('/') else { return Ok((Vec::new(), value)) };
    let (domains, rest) = scoped.rsplit_once('/').ok_or("expected /DOMAIN/: add the second slash")?;
    let read = |text: &str| match text {
        "" => Err("hedgerow has no route for names of one label: its backends answer them".to_owned()),
        "#" => Ok(".".to_owned()),
        _ if text.contains('*') => Err("hedgerow knows wildcards of whole labels only: write a rule".to_owned()),
        _ => domain(text),
    };
    Ok((domains.split('/').map(read).collect::<Result<_, _>>()?, rest))
}

/// Reads `IP[#PORT][@SOURCE]`, without the source.
fn server(text: &str) -> Result<String, String> {
    let target = text.split('@').next().unwrap_or_default();
    let (ip, port) = target.split_once('#').unwrap_or((target, "53"));
    let port = u16::try_from(number(port, 1, 65_535)?).unwrap_or(53);
    Ok(SocketAddr::new(address(ip)?, port).to_string())
}

fn take_server(value: &str, facts: &mut DnsmasqFacts) -> Taking {
    let (domains, target) = scope(value)?;
    if domains.is_empty() && target.is_empty() {
        return Err("expected a server: write its address".to_owned());
    }
    let found = if target.is_empty() || target == "#" { None } else { Some(server(target)?) };
    for domain in &domains {
        let entry = facts.domains.entry(domain.clone()).or_default();
        match &found {
            Some(server) => entry.servers.push(server.clone()),
            None if target == "#" => entry.is_default = true,
            None => entry.is_local = true,
        }
    }
    facts.servers.extend(found.filter(|_| domains.is_empty()));
    match target.contains('@') {
        true => Err("hedgerow selects no source: it takes the server without, use routes of the host".to_owned()),
        false => Ok(()),
    }
}

fn take_address(value: &str, facts: &mut DnsmasqFacts) -> Taking {
    let (domains, target) = scope(value)?;
    if domains.is_empty() {
        return Err("expected /DOMAIN/ADDRESS: add the domain".to_owned());
    }
    let addresses = match target {
        "" => Vec::new(),
        "#" => vec![IpAddr::from([0; 4]), IpAddr::from([0; 16])],
        _ => vec![address(target)?],
    };
    for domain in domains {
        let entry = facts.domains.entry(domain).or_default();
        entry.is_local |= addresses.is_empty();
        entry.addresses.extend(&addresses);
    }
    Ok(())
}

fn take_rev_server(value: &str, facts: &mut DnsmasqFacts) -> Taking {
    let (network, target) = value.split_once(',').ok_or("expected NETWORK,SERVER: add the server")?;
    let zone = draft::reverse_zone(network)?;
    take_server(&format!("/{zone}/{target}"), facts)
}

fn take_host_record(value: &str, draft: &mut DraftConfig) -> Taking {
    let parts: Vec<_> = value.split(',').map(str::trim).collect();
    let addresses: Vec<IpAddr> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    let is_name = |part: &&&str| part.parse::<IpAddr>().is_err() && part.parse::<u32>().is_err();
    let names: Result<Vec<_>, _> = parts.iter().filter(is_name).map(|name| domain(name)).collect();
    let names = names?;
    if names.is_empty() || addresses.is_empty() {
        return Err("expected NAME,ADDRESS: add the address".to_owned());
    }
    for name in names {
        addresses.iter().for_each(|&address| draft.add_name(&name, address));
    }
    Ok(())
}

fn take_cname(value: &str, draft: &mut DraftConfig) -> Taking {
    let mut parts: Vec<_> = value.split(',').map(str::trim).collect();
    if parts.last().is_some_and(|last| last.parse::<u32>().is_ok()) {
        parts.pop();
    }
    let target = parts.pop().filter(|_| !parts.is_empty()).ok_or("expected ALIAS,TARGET: add the target")?;
    let target = domain(target)?;
    if parts.iter().any(|alias| alias.starts_with('*')) {
        // Measured with dnsmasq 2.90.
        return Err("dnsmasq uses such an alias in auth-zone only: add a rule with cname".to_owned());
    }
    for alias in parts {
        draft.rules.push(DraftRule::exactly(&domain(alias)?, table("cname", target.clone())));
    }
    Ok(())
}

fn finish(facts: DnsmasqFacts, mut draft: DraftConfig) -> DraftConfig {
    let has = |flag: &str| facts.flags.contains(flag);
    if facts.servers.is_empty() && facts.domains.get(".").is_none_or(|root| root.servers.is_empty()) {
        draft.note(1, "resolv-file", "dnsmasq asks the name servers of /etc/resolv.conf: add them to backends");
    }
    let servers = [&facts.servers[..], facts.domains.get(".").map_or(&[], |root| &root.servers)].concat();
    if !servers.is_empty() {
        draft.route_to(".", &servers);
    }
    set_domains(&facts, &mut draft);
    if !has("no-hosts") {
        draft.hosts_files.insert(0, "/etc/hosts".to_owned());
    }
    draft.let_the_longest_name_win();
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let listen = match facts.listen.is_empty() {
        true if facts.is_restricted => LOOPBACK.to_vec(),
        true => all.to_vec(),
        false => facts.listen,
    };
    draft.listen = listen.into_iter().map(|ip| SocketAddr::new(ip, facts.port).to_string().into()).collect();
    draft.set("forwarder", "special_names", facts.flags.contains("bogus-priv"));
    if facts.flags.contains("log-queries") {
        draft.set("query_log", "to", facts.log_file.unwrap_or_else(|| "stderr".to_owned()));
        draft.set("query_log", "format", "logfmt");
        draft.set("query_log", "client", "full");
    }
    for pool in draft.pools.values_mut() {
        let mut set = |flag: &str, keys: &[(&str, &str)]| {
            let keys = keys.iter().filter(|_| facts.flags.contains(flag));
            pool.keys.extend(keys.map(|(key, word)| ((*key).to_owned(), (*word).into())));
        };
        set("all-servers", &[("dispatch", "race")]);
        set("strict-order", &[("dispatch", "sequential"), ("balance", "ordered")]);
        set("stop-dns-rebind", &[("private_answers", "drop")]);
        if facts.flags.contains("stop-dns-rebind") && !facts.private_names.is_empty() {
            pool.keys.insert("private_names".to_owned(), draft::strings(&facts.private_names));
        }
        if facts.flags.contains("proxy-dnssec") {
            pool.keys.insert("trust_ad".to_owned(), true.into());
        }
    }
    if facts.cache == Some(0) {
        draft.clear("cache");
    } else {
        // dnsmasq keeps 150 answers by default, and no stale ones.
        draft.set("cache", "size", cache_size(facts.cache.unwrap_or(150)));
        if draft.value("cache", "min_ttl").is_some() {
            draft.remove("cache", "max_negative_ttl");
        }
        draft.set("cache", "stale", facts.stale.map_or_else(|| "0s".to_owned(), |seconds| format!("{seconds}s")));
    }
    draft
}

fn set_domains(facts: &DnsmasqFacts, draft: &mut DraftConfig) {
    for (name, domain) in &facts.domains {
        let types: Vec<&str> = [("A", true), ("AAAA", false)]
            .into_iter()
            .filter(|(_, is_ipv4)| domain.addresses.iter().any(|address| address.is_ipv4() == *is_ipv4))
            .map(|(rtype, _)| rtype)
            .collect();
        if !types.is_empty() {
            let mut addresses = domain.addresses.clone();
            addresses.sort_unstable();
            addresses.dedup();
            let then = table("addresses", draft::strings(&addresses));
            draft.rules.push(DraftRule::below(name, then).of_types(&types));
        }
        if domain.is_local && domain.servers.is_empty() {
            draft.rules.push(DraftRule::below(name, if types.is_empty() { "nxdomain" } else { "nodata" }));
        }
        if name != "." && !domain.servers.is_empty() {
            draft.route_to(name, &domain.servers);
        }
    }
    set_default_routes(facts, draft);
    if facts.flags.contains("bogus-priv") {
        keep_private_names(draft);
    }
    // A server for a name below a blocked one is asked.
    let asked = facts.domains.iter().filter(|(_, domain)| domain.is_default || !domain.servers.is_empty());
    let exempt: Vec<_> = asked.map(|(name, _)| name).filter(|name| *name != "." && draft.is_covered(name)).collect();
    draft.rules.extend(exempt.into_iter().map(|name| DraftRule::below(name, "routes")));
    // A name above a local one is no NXDOMAIN (RFC 8020).
    let above = |name: &str| {
        let nearest = ancestors(name).position(|name| facts.domains.contains_key(name));
        let nearest = nearest.filter(|&at| {
            let domain = ancestors(name).nth(at).and_then(|name| facts.domains.get(name));
            domain.is_some_and(|domain| domain.is_local && domain.addresses.is_empty())
        });
        ancestors(name).skip(1).take(nearest.unwrap_or(0)).map(str::to_owned).collect::<Vec<_>>()
    };
    let empty: BTreeSet<_> = draft.names.keys().flat_map(|name| above(name)).collect();
    let empty = empty.into_iter().filter(|name| !draft.names.contains_key(name));
    let rules: Vec<_> = empty.map(|name| DraftRule::exactly(&name, "nodata")).collect();
    draft.rules.extend(rules);
}

/// Routes the domains of `server=/DOMAIN/#`, if a domain above has its own servers.
fn set_default_routes(facts: &DnsmasqFacts, draft: &mut DraftConfig) {
    let domains = facts.domains.iter().filter(|(_, domain)| domain.is_default && domain.servers.is_empty());
    let names: Vec<_> = domains.map(|(name, _)| name).filter(|name| *name != ".").collect();
    for name in names.into_iter().filter(|_| draft.pools.contains_key(DEFAULT)) {
        let above = ancestors(name).skip(1).find_map(|above| draft.routes.get(above));
        if above.is_some_and(|pool| pool != DEFAULT) {
            draft.routes.insert(name.clone(), DEFAULT.to_owned());
        }
    }
}

/// Makes rules of routes to parts of private reverse zones. A route would turn off the special name for the
/// rest.
fn keep_private_names(draft: &mut DraftConfig) {
    let mut zones = vec!["10.in-addr.arpa".to_owned(), "168.192.in-addr.arpa".to_owned(), "d.f.ip6.arpa".to_owned()];
    zones.extend((16..32).map(|octet| format!("{octet}.172.in-addr.arpa")));
    let is_part = |route: &str| zones.iter().any(|zone| route != zone && draft::is_at_or_below(route, zone));
    let (parts, routes): (BTreeMap<_, _>, _) =
        std::mem::take(&mut draft.routes).into_iter().partition(|(route, _)| is_part(route));
    draft.routes = routes;
    draft.rules.extend(parts.iter().map(|(zone, pool)| DraftRule::below(zone, format!("pool:{pool}"))));
}
