//! `[authorities.*]`: the authorities that this process runs.

use std::path::{Path, PathBuf};

use super::clients::{read_access, read_connections, read_cookies, read_rate_limit};

use limit::AccessRules;
use zone::{Identity, IdentityText};

use super::readers::{file, text, word};
use super::references::References;
use super::section::{ConfigNode, ConfigSection, note_repeats};
use super::transfer::Transfers;
use super::{AuthorityConfig, AuthorityZones, Expectation, ZoneSource, catalog, discover, listen, words};

const ZONES_EXAMPLE: &str = "[\"zones/ts1.txt\"]";

pub(super) fn read<'d>(
    name: &str,
    section: &mut ConfigSection<'d>,
    references: &mut References<'d>,
) -> AuthorityConfig {
    let listen = section.require("listen", "[\"127.0.0.1:5301\"]");
    let zones = section.require("zones", ZONES_EXAMPLE);
    let mut transfers = Transfers::default();
    let listen = listen.map(|node| listen::read(&node, references)).unwrap_or_default();
    let rate_limit = read_rate_limit(section, &listen);
    let register = section.below("register", |section| discover::read_register(section, &listen, references));
    let files = zones.map(|node| read_zones(&node, &mut transfers, references)).unwrap_or_default();
    let members_folder = members_folder(name, section.folder(), &transfers.zones);
    AuthorityConfig {
        name: name.to_owned(),
        listen,
        access: read_access(section, &AccessRules::EVERYBODY),
        zones: AuthorityZones { files, members_folder, ..transfers.zones },
        // Another authority may have the name.
        miss: section.read("miss", AuthorityConfig::MISS, word),
        ttl: section.read("ttl", AuthorityConfig::TTL, text(words::ttl)),
        identity: Identity {
            version: section.optional("version", text(identity)),
            id: section.optional("id", text(identity)),
            nsid: section.optional("nsid", text(identity)),
        },
        rate_limit,
        cookies: read_cookies(section),
        connections: section.below("connections", read_connections).unwrap_or_default(),
        register,
    }
}

fn identity(text: &str) -> Result<IdentityText, Expectation> {
    IdentityText::new(text.as_bytes()).ok_or_else(|| Expectation::new("at most 255 octets"))
}

fn read_zones<'d>(
    node: &ConfigNode<'d>,
    transfers: &mut Transfers<'d>,
    references: &mut References<'d>,
) -> Vec<ZoneSource> {
    let read = |item: ConfigNode<'d>| Some((read_zone(&item, transfers, references)?, item.spot));
    let zones: Vec<_> = node.items(ZONES_EXAMPLE).into_iter().filter_map(read).collect();
    note_repeats(zones.iter().cloned(), |zone| format!("{} is loaded", zone.file.display()));
    transfers.note_repeats(zones.iter().filter_map(|(zone, _)| zone.origin.as_ref()));
    zones.into_iter().map(|(zone, _)| zone).collect()
}

fn read_zone<'d>(
    item: &ConfigNode<'d>,
    transfers: &mut Transfers<'d>,
    references: &mut References<'d>,
) -> Option<ZoneSource> {
    let Some(mut section) = item.table() else { return file(item).map(|file| ZoneSource { file, origin: None }) };
    if let Some(zone) = section.take_discriminator("zone", 0) {
        section.whole(|section| transfers.read_secondary(&zone, section, references));
        return None;
    }
    if let Some(zone) = section.take_discriminator("catalog", 1) {
        section.whole(|section| catalog::read(&zone, section, transfers, references));
        return None;
    }
    section.whole(|section| {
        let file = section.required("file", "\"zones/ts1.txt\"", file);
        let origin = section.optional("origin", text(words::domain_name)).map(|origin| origin.folded());
        transfers.read_shared(section, origin.as_ref(), references);
        Some(ZoneSource { file: file?, origin })
    })
}

fn members_folder(name: &str, folder: &Path, zones: &AuthorityZones) -> PathBuf {
    let first = zones.catalogs.first().map(|catalog| &catalog.rules.catalog);
    let file = zones.secondaries.iter().find(|secondary| Some(&secondary.zone) == first).map(|first| &first.file);
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
