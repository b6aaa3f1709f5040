//! The names that the forwarder answers itself: `names`, `hosts_files` and `special_names` of `[forwarder]`.

use std::net::IpAddr;
use std::path::PathBuf;

use dns::Name;

use super::readers::{distinct, file};
use super::section::{ConfigNode, ConfigSection, note_repeats};
use super::words::{self, Expectation};

/// The names that the forwarder answers itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesConfig {
    /// The hosts in the config, in its order.
    pub local: Vec<LocalName>,
    /// The hosts files, already resolved against the folder of the config file.
    pub hosts_files: Vec<PathBuf>,
    /// The special names that are answered.
    pub special: SpecialNames,
}

/// One entry of `[forwarder.names]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalName {
    /// The name of the host.
    pub name: Name,
    /// Its addresses, at least one.
    pub addresses: Vec<IpAddr>,
}

/// `special_names`: the zones without public names that the forwarder answers itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialNames {
    /// All, but those of private networks only if no backend has a private address. This is the default,
    /// because a query for them shows the network to a stranger, and is in vain.
    #[default]
    Auto,
    /// All.
    Always,
    /// None.
    Never,
}

pub(super) fn read(section: &mut ConfigSection<'_>) -> NamesConfig {
    NamesConfig {
        local: section.section("names").map(|names| read_names(&names)).unwrap_or_default(),
        hosts_files: section.optional("hosts_files", read_files).unwrap_or_default(),
        special: section.read("special_names", SpecialNames::default(), read_special),
    }
}

fn read_names(section: &ConfigSection<'_>) -> Vec<LocalName> {
    let mut names = Vec::new();
    let mut keys = Vec::new();
    for (key, node) in section.named() {
        // An unquoted nas.home is two keys in TOML: a table "nas" with a key "home".
        if !section.is_described() && node.table().is_some() {
            node.key.note("expected addresses such as [\"192.168.1.10\"], not a table; a name with dots needs quotes");
            continue;
        }
        let items = node.items("[\"192.168.1.10\"]");
        let addresses = distinct(items, |item| item.parsed(address), |address| format!("{address} is written"));
        match host(key) {
            Ok(name) => {
                keys.push((name.folded(), node.key));
                names.push(LocalName { name, addresses });
            }
            Err(_) if section.is_described() => {}
            Err(expected) => node.key.note(format!("invalid name {key:?}: {expected}")),
        }
    }
    note_repeats(keys, |name| format!("{name} is written"));
    names
}

fn host(text: &str) -> Result<Name, Expectation> {
    let name = words::domain_name(text)?;
    if name.is_root() {
        return Err(Expectation::new("the name of a host such as \"nas.home.arpa\""));
    }
    if name.labels().any(|label| label == b"*") {
        return Err(Expectation::new("the name of one host; for all names below one, add a rule with addresses"));
    }
    Ok(name)
}

fn address(text: &str) -> Result<IpAddr, Expectation> {
    text.parse().map_err(|_| Expectation::new("an IP address such as \"192.168.1.10\" or \"fd00::10\""))
}

fn read_files(node: &ConfigNode<'_>) -> Option<Vec<PathBuf>> {
    let items = node.any_items("[\"/etc/hosts\"]");
    Some(distinct(items, file, |file| format!("{} is named", file.display())))
}

fn read_special(node: &ConfigNode<'_>) -> Option<SpecialNames> {
    if node.may_be_boolean()
        && let Some(is_always) = node.boolean()
    {
        return Some(if is_always { SpecialNames::Always } else { SpecialNames::Never });
    }
    node.parsed(|text| match text {
        "auto" => Ok(SpecialNames::Auto),
        _ => Err(Expectation::one_of(text, ["auto"].into_iter(), None)),
    })
}
