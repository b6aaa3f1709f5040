//! A Corefile: server blocks with a line for each plugin (corefile(5)).

mod parse;
mod plugins;

use std::net::{IpAddr, SocketAddr};

use self::parse::Block;
use self::plugins::{CorefileFacts, Site};
use super::Error;
use super::draft::{self, DraftConfig, DraftRule, depth, domain, is_at_or_below, number, url};

/// Reads a Corefile, with the snippets that it imports.
pub(super) fn import(text: &str) -> Result<DraftConfig, Error> {
    let blocks = parse::parse(text)?;
    let mut draft = DraftConfig::default();
    let mut facts = CorefileFacts::default();
    let mut sites = Vec::new();
    for block in &blocks {
        let mut site = Site::default();
        for key in &block.keys {
            let taking = read_key(key, &mut site);
            draft.count(block.line, key, taking);
        }
        let mut plugins: Vec<_> = block.plugins.iter().collect();
        // CoreDNS runs plugins in a fixed order.
        plugins.sort_by_key(|plugin| ORDER.iter().position(|name| *name == plugin.name));
        for plugin in plugins {
            plugins::take(plugin, &mut site, &mut facts, &mut draft);
        }
        add_site(block, &mut site, &mut draft);
        sites.push(site);
    }
    finish(sites, facts, draft)
}

/// The plugins whose order matters here, and the others before them.
const ORDER: &[&str] = &["bind", "acl", "cache", "template", "hosts", "file", "secondary", "forward"];

/// Reads a key of a block: `[SCHEME://]ZONE[:PORT]`.
fn read_key(key: &str, site: &mut Site) -> Result<(), String> {
    let (scheme, rest) = key.split_once("://").unwrap_or(("dns", key));
    let (scheme, port) = match scheme {
        "dns" => ("", 53),
        "tls" => ("tls", 853),
        "https" => ("https", 443),
        "quic" => ("quic", 853),
        _ => return Err(format!("hedgerow has no listener by {scheme}: use tls://, https:// or quic://")),
    };
    let (zone, port) = match rest.rsplit_once(':') {
        Some((zone, text)) if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) => {
            (zone, u16::try_from(number(text, 1, 65_535)?).unwrap_or(port))
        }
        _ => (rest, port),
    };
    let zone = match zone {
        "" | "." => ".".to_owned(),
        _ if zone.contains('/') => draft::reverse_zone(zone)?,
        _ => domain(zone)?,
    };
    site.zones.push(zone);
    site.listen.push((scheme, port));
    Ok(())
}

/// Adds the listeners and routes of a block.
fn add_site(block: &Block<'_>, site: &mut Site, draft: &mut DraftConfig) {
    let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
    let addresses = if site.bind.is_empty() { &all[..] } else { &site.bind };
    for (scheme, port) in &site.listen {
        for &ip in addresses {
            let listener = url(scheme, SocketAddr::new(ip, *port), "").into();
            if !draft.listen.contains(&listener) {
                draft.listen.push(listener);
            }
        }
    }
    let zones = site.zones.clone();
    let routes = zones.iter().filter_map(|zone| Some((zone.clone(), site.pool.clone()?)));
    for (zone, pool) in routes.chain(site.routes.clone()) {
        let known = draft.routes.get(&zone);
        if known.is_some_and(|known| *known != pool) {
            let remedy = "another block has this zone at another address: add a rule with listeners";
            draft.note(block.line, &zone, remedy);
        } else {
            draft.routes.insert(zone, pool);
        }
    }
}

/// Adds the rules of all blocks. The block with the longest zone decides alone.
fn finish(mut sites: Vec<Site>, facts: CorefileFacts, mut draft: DraftConfig) -> Result<DraftConfig, Error> {
    let depth_of = |site: &Site| site.zones.iter().map(|zone| depth(zone)).max().unwrap_or(0);
    sites.sort_by_key(|site| std::cmp::Reverse(depth_of(site)));
    for at in 0..sites.len() {
        let site = &sites[at];
        for rule in &site.rules {
            let is_named = !rule.names.is_empty() || rule.names_file.is_some();
            let names = if is_named { rule.names.clone() } else { below(&site.zones) };
            draft.rules.push(DraftRule { names, ..rule.clone() });
        }
        let others = sites[at + 1..].iter().filter(|other| !other.rules.is_empty());
        let above: Vec<_> = others.flat_map(|other| &other.zones).collect();
        let covered = site.zones.iter().filter(|zone| above.iter().any(|above| is_at_or_below(zone, above)));
        draft.rules.extend(covered.map(|zone| DraftRule::below(zone, "routes")));
    }
    if !facts.has_cache {
        draft.pools.values_mut().for_each(|pool| drop(pool.keys.remove("cache")));
    }
    if draft.listen.is_empty() {
        return Err(Error::Syntax(
            1,
            "no server block: add one, with { at the end of its first line and } on a line of its own".to_owned(),
        ));
    }
    if draft.value("forwarder", "special_names").is_none() {
        draft.set("forwarder", "special_names", false);
    }
    Ok(draft)
}

/// Returns the patterns for zones: none for the root.
fn below(zones: &[String]) -> Vec<String> {
    if zones.iter().any(|zone| zone == ".") { Vec::new() } else { zones.to_vec() }
}
