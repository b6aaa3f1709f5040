//! `[authorities.*]`: the authorities that this process runs.

use std::path::{Path, PathBuf};

use super::catalog;
use super::clients::{read_access, read_rate_limit};
use super::listen::{self, ListenReferences};
use super::section::{ConfigNode, ConfigSection, DocumentSpot, note_repeats};
use super::transfer::{Claims, Transfers};
use super::{AuthorityConfig, Expectation, ZoneSource, connections, cookies, discover, words};
use crate::limit::AccessRules;
use crate::zone::{Identity, IdentityText};

const ZONES_EXAMPLE: &str = "[\"zones/ts1.txt\"]";

pub(super) fn read<'d>(
    name: &str,
    mut section: ConfigSection<'d>,
    folder: &Path,
    listening: &mut ListenReferences<'d>,
    claims: &mut Claims<'d>,
    etcd_uses: &mut Vec<DocumentSpot<'d>>,
) -> AuthorityConfig {
    let listen = section.require("listen", "[\"127.0.0.1:5301\"]");
    let zones = section.require("zones", ZONES_EXAMPLE);
    let mut transfers = Transfers::default();
    let listen = listen.map(|node| listen::read(&node, listening)).unwrap_or_default();
    let rate_limit = read_rate_limit(section.section("rate_limit"), &listen);
    let register = section.section("register");
    let register = register.map(|register| discover::read_register(register, &listen, etcd_uses));
    let zones = zones.map(|node| read_zones(&node, folder, &mut transfers, claims)).unwrap_or_default();
    let members_folder = members_folder(name, folder, &transfers);
    let authority = AuthorityConfig {
        name: name.to_owned(),
        listen,
        access: read_access(&mut section, &AccessRules::EVERYBODY),
        zones,
        shared: transfers.shared,
        secondaries: transfers.secondaries,
        catalogs: transfers.catalogs,
        produced: transfers.produced,
        members_folder,
        miss: section.parsed("miss", words::miss, AuthorityConfig::MISS),
        ttl: section.parsed("ttl", words::ttl, AuthorityConfig::TTL),
        identity: Identity {
            version: read_text(&mut section, "version"),
            id: read_text(&mut section, "id"),
            nsid: read_text(&mut section, "nsid"),
        },
        rate_limit,
        cookies: cookies::read(&mut section, folder),
        connections: section.section("connections").map(connections::read).unwrap_or_default(),
        register,
    };
    section.finish();
    authority
}

fn read_text(section: &mut ConfigSection<'_>, key: &'static str) -> Option<IdentityText> {
    let text = |text: &str| IdentityText::new(text.as_bytes()).ok_or_else(|| Expectation::new("at most 255 octets"));
    section.take(key)?.parsed(text)
}

fn read_zones<'d>(
    node: &ConfigNode<'d>,
    folder: &Path,
    transfers: &mut Transfers<'d>,
    claims: &mut Claims<'d>,
) -> Vec<ZoneSource> {
    let mut read = |item: ConfigNode<'d>| Some((read_zone(&item, folder, transfers, claims)?, item.spot));
    let zones: Vec<_> = node.items(ZONES_EXAMPLE).into_iter().filter_map(&mut read).collect();
    note_repeats(zones.iter().cloned(), |zone| format!("{} is loaded", zone.file.display()));
    transfers.note_repeats(zones.iter().filter_map(|(zone, _)| zone.origin.as_ref()));
    zones.into_iter().map(|(zone, _)| zone).collect()
}

fn read_zone<'d>(
    item: &ConfigNode<'d>,
    folder: &Path,
    transfers: &mut Transfers<'d>,
    claims: &mut Claims<'d>,
) -> Option<ZoneSource> {
    let Some(mut section) = item.table() else {
        return Some(ZoneSource { file: folder.join(item.parsed(words::file_name)?), origin: None });
    };
    if let Some(zone) = section.take_discriminator("zone", 0) {
        transfers.read_secondary(&zone, section, folder, claims);
        return None;
    }
    if let Some(catalog) = section.take_discriminator("catalog", 1) {
        catalog::read(&catalog, section, folder, transfers, claims);
        return None;
    }
    let file = section.require("file", "\"zones/ts1.txt\"").and_then(|node| node.parsed(words::file_name));
    let origin = section.take("origin").and_then(|node| node.parsed(words::domain_name));
    transfers.read_shared(&mut section, origin.as_ref(), claims);
    section.finish();
    Some(ZoneSource { file: folder.join(file?), origin: origin.map(|origin| origin.folded()) })
}

fn members_folder(name: &str, folder: &Path, transfers: &Transfers<'_>) -> PathBuf {
    let first = transfers.catalogs.first().map(|catalog| &catalog.rules.catalog);
    let file = transfers.secondaries.iter().find(|secondary| Some(&secondary.zone) == first).map(|first| &first.file);
    let beside = file.and_then(|file| file.parent()).map_or_else(|| folder.join("secondary"), Path::to_owned);
    beside.join("members").join(safe_file_name(name))
}

fn safe_file_name(name: &str) -> String {
    let safe = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    let escape = |octet: u8| if safe(octet) { char::from(octet).to_string() } else { format!("%{octet:02x}") };
    name.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    fn check_authority(line: &str, expected: &str) {
        let mut text = format!("[authorities.ts1]\n{line}\n");
        for (key, value) in [("listen", "[\"127.0.0.1:5301\"]"), ("zones", "[\"ts1.txt\"]")] {
            if !line.starts_with(key) {
                text += &format!("{key} = {value}\n");
            }
        }
        check(&text, &[&format!("2:{expected}")]);
    }

    #[test]
    fn authorities_are_checked() {
        for (line, expected) in [
            (
                "miss = \"silence\"",
                "8: authorities.ts1.miss: invalid value \"silence\": \
             expected one of silent, nxdomain, refused; did you mean \"silent\"?",
            ),
            (
                "ttl = 300",
                "7: authorities.ts1.ttl: expected a duration with its unit, such as \"300s\" or \"300ms\", \
             not an integer",
            ),
            (
                "ttl = \"1500ms\"",
                "7: authorities.ts1.ttl: invalid value \"1500ms\": \
             expected whole seconds, at most 2147483647s",
            ),
            ("listen = []", "10: authorities.ts1.listen: expected at least one, such as [\"127.0.0.1:5300\"]"),
            ("zones = []", "9: authorities.ts1.zones: expected at least one, such as [\"zones/ts1.txt\"]"),
            ("zones = [\"\"]", "10: authorities.ts1.zones[0]: invalid value \"\": expected the name of a file"),
            ("zones = [\"a\", { file = \"a\" }]", "15: authorities.ts1.zones[1]: a is loaded twice, first on line 2"),
            (
                "zones = [{ file = \"a\", orgin = \"example.org\" }]",
                "24: authorities.ts1.zones[0]: unknown key \"orgin\", did you mean \"origin\"?",
            ),
            (
                "zones = [{ file = \"a\", origin = \"a..b\" }]",
                "33: authorities.ts1.zones[0].origin: invalid value \"a..b\": expected a domain name such as \
                 \"example.org\" (empty label: dots stand between labels, one at a time)",
            ),
            ("nsid = 7", "8: authorities.ts1.nsid: expected a string: put the integer in quotes"),
            ("zoens = [\"a\"]", "1: authorities.ts1: unknown key \"zoens\", did you mean \"zones\"?"),
        ] {
            check_authority(line, expected);
        }
        check(
            "authorities.a = {}",
            &[
                "1:17: authorities.a: listen is missing, write listen = [\"127.0.0.1:5301\"]",
                "1:17: authorities.a: zones is missing, write zones = [\"zones/ts1.txt\"]",
            ],
        );
    }
}
