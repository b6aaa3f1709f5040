//! `local-zone`, `local-data` and `local-data-ptr` as rules and local names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::draft::{self, DraftConfig, DraftRule, Taking, address, ancestors, domain, reverse, table};

/// Local zones and data.
#[derive(Debug, Default)]
pub(super) struct LocalData<'a> {
    /// The type of each zone.
    zones: BTreeMap<String, &'a str>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    aliases: BTreeMap<String, (usize, String)>,
    /// The name of each address.
    pointers: BTreeMap<IpAddr, (usize, String)>,
}

const TYPES: &[&str] = &[
    "static",
    "redirect",
    "refuse",
    "deny",
    "transparent",
    "typetransparent",
    "always_transparent",
    "always_nxdomain",
    "always_refuse",
    "always_nodata",
    "always_null",
    "always_deny",
    "nodefault",
    "inform_deny",
    "block_a",
];

const RECORD: &str = "put the record into a zone file of an authority, and route the name to it: see docs/src/zones.md";

impl<'a> LocalData<'a> {
    /// Adds a line of the file.
    pub(super) fn add(&mut self, line: usize, key: &str, value: &'a str) -> Taking {
        match key {
            "local-zone" => {
                let (name, kind) = value.split_once(char::is_whitespace).ok_or("expected NAME TYPE: add the type")?;
                let (name, kind) = (domain(name.trim_matches(['"', '\'']))?, kind.trim().trim_matches(['"', '\'']));
                self.zones.insert(name, kind);
                match TYPES.contains(&kind) {
                    true => Ok(()),
                    false => Err(format!("hedgerow has nothing like {kind}: add a rule for the names")),
                }
            }
            "local-data" => self.add_record(line, value),
            "local-data-ptr" => {
                let mut fields = value.split_whitespace();
                let ip = address(fields.next().unwrap_or_default())?;
                self.point(line, ip, fields.next_back().ok_or("expected ADDRESS NAME: add the name")?)
            }
            _ => Err("add rules with clients: see docs/src/rules.md".to_owned()),
        }
    }

    fn add_record(&mut self, line: usize, text: &str) -> Taking {
        let mut fields = text.split_whitespace();
        let name = domain(fields.next().unwrap_or_default())?;
        let is_extra = |field: &&str| field.eq_ignore_ascii_case("IN") || field.bytes().all(|b| b.is_ascii_digit());
        let mut fields = fields.skip_while(is_extra);
        let rtype = fields.next().unwrap_or("A").to_ascii_uppercase();
        let data = fields.next().ok_or("expected NAME TYPE DATA: add the data")?;
        match rtype.as_str() {
            "A" | "AAAA" => {
                self.addresses.entry(name).or_default().push(address(data)?);
                Ok(())
            }
            "PTR" => match unreversed(&name) {
                Some(ip) => self.point(line, ip, data),
                None => Err(RECORD.to_owned()),
            },
            "CNAME" => {
                self.aliases.insert(name, (line, domain(data)?));
                Ok(())
            }
            _ => Err(RECORD.to_owned()),
        }
    }

    fn point(&mut self, line: usize, ip: IpAddr, name: &str) -> Taking {
        if self.pointers.contains_key(&ip) {
            return Err("hedgerow has one reverse name for each address: keep the first one".to_owned());
        }
        self.pointers.insert(ip, (line, domain(name)?));
        Ok(())
    }

    /// Returns the deepest zone of a name, and its type.
    fn zone_of(&self, name: &str) -> Option<(&str, &'a str)> {
        ancestors(name).find_map(|above| self.zones.get_key_value(above)).map(|(zone, kind)| (zone.as_str(), *kind))
    }

    /// Adds rules and local names. `forwarded` gets the special names that Unbound forwards.
    pub(super) fn finish(mut self, draft: &mut DraftConfig, forwarded: &mut Vec<String>) {
        self.zones.entry("test".to_owned()).or_insert("static");
        for (zone, kind) in &self.zones {
            let then = match *kind {
                "static" => "nxdomain",
                "always_nxdomain" => "nxdomain",
                "refuse" | "always_refuse" => "refused",
                "deny" | "always_deny" | "inform_deny" => "drop",
                "always_nodata" => "nodata",
                "redirect" if !self.addresses.contains_key(zone) && !self.aliases.contains_key(zone) => "nxdomain",
                "always_null" => {
                    draft.rules.push(DraftRule::below(zone, table("addresses", draft::strings(&["0.0.0.0", "::"]))));
                    continue;
                }
                "block_a" => {
                    draft.rules.push(DraftRule::below(zone, "nodata").of_types(&["A"]));
                    continue;
                }
                "transparent" | "typetransparent" | "always_transparent" | "nodefault" => {
                    forwarded.extend(is_special(zone).then(|| zone.clone()));
                    continue;
                }
                _ => continue,
            };
            draft.rules.push(DraftRule::below(zone, then));
        }
        self.add_names(draft);
        self.add_aliases(draft);
    }

    fn add_names(&self, draft: &mut DraftConfig) {
        let mut used = BTreeSet::new();
        let mut above = BTreeSet::new();
        for (name, addresses) in &self.addresses {
            let zone = self.zone_of(name);
            let is_pointed = |ip: &&IpAddr| self.pointers.get(ip).is_some_and(|(_, pointed)| pointed == name);
            let then = || table("addresses", draft::strings(addresses));
            match zone {
                Some((_, kind)) if kind.starts_with("always_") => {}
                Some((zone, "redirect")) if zone == name => draft.rules.push(DraftRule::below(name, then())),
                Some((_, "redirect")) => {}
                // In these zones, a type without data counts as a name without data.
                Some((_, "typetransparent" | "refuse" | "deny" | "inform_deny")) => {
                    let types: BTreeSet<_> =
                        addresses.iter().map(|ip| if ip.is_ipv4() { "A" } else { "AAAA" }).collect();
                    let types: Vec<_> = types.into_iter().collect();
                    draft.rules.push(DraftRule::exactly(name, then()).of_types(&types));
                }
                _ if addresses.iter().all(|ip| is_pointed(&ip)) => {
                    addresses.iter().for_each(|&ip| draft.add_name(name, ip));
                    used.extend(addresses.iter().copied());
                }
                _ => draft.rules.push(DraftRule::exactly(name, then())),
            }
            if let Some((zone, "static")) = zone {
                let between = ancestors(name).skip(1).take_while(|name| draft::is_at_or_below(name, zone));
                above.extend(between.filter(|name| !self.addresses.contains_key(*name)).map(str::to_owned));
            }
        }
        draft.rules.extend(above.iter().map(|name| DraftRule::exactly(name, "nodata")));
        for (ip, (line, name)) in self.pointers.iter().filter(|(ip, _)| !used.contains(ip)) {
            let remedy =
                "a reverse name needs a local name with this address: add local-data for all addresses of the name";
            draft.note(*line, &format!("{} PTR {name}", reverse(*ip)), remedy);
        }
    }

    fn add_aliases(&self, draft: &mut DraftConfig) {
        for (name, (line, target)) in &self.aliases {
            match self.zone_of(name) {
                Some((zone, "redirect")) if zone == name => {
                    draft.rules.push(DraftRule::below(name, table("cname", target.clone())));
                }
                _ => draft.note(
                    *line,
                    "local-data",
                    "hedgerow follows an alias, Unbound does not: add a rule with cname",
                ),
            }
        }
    }
}

/// Returns true for names that Unbound answers by default.
fn is_special(name: &str) -> bool {
    name.ends_with(".arpa") || ["localhost", "onion", "invalid"].contains(&name)
}

/// Reads the owner name of a PTR record of IPv4 or IPv6.
fn unreversed(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = octets.rsplit('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        return Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
    }
    let digits: String = name.strip_suffix(".ip6.arpa")?.rsplit('.').collect();
    if digits.len() != 32 {
        return None;
    }
    Some(IpAddr::from(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes()))
}
