//! Zone transfers: access to zones in files, and zones from other servers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use dns::Name;
use zone::transfer::AccessList;

use super::backend::{PrimaryConfig, read_primaries};
use super::catalog::{CatalogConfig, ProducedCatalog, read_listing};
use super::readers::{distinct, text};
use super::references::References;
use super::section::{ConfigNode, ConfigSection, DocumentSpot, note_repeats};
use super::{ZoneSource, words};

/// The distribution of a zone to other servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// The servers that may transfer the zone; none by default.
    pub transfer_to: AccessList,
    /// The targets of NOTIFY besides the name servers of the zone.
    pub also_notify: Vec<SocketAddr>,
    /// The key that signs outgoing messages: NOTIFY, and the queries of a secondary.
    pub tsig: Option<Name>,
    /// The group in produced catalogs.
    pub group: Option<String>,
    /// True if produced catalogs leave the zone out.
    pub is_unlisted: bool,
}

/// A zone in a file that other servers may copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedZone {
    /// The name in lower case.
    pub zone: Name,
    /// The servers that receive the zone.
    pub sharing: Sharing,
}

/// A zone transferred from its primaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryConfig {
    /// The name in lower case.
    pub zone: Name,
    /// The primaries in order of preference; at least one.
    pub primaries: Vec<PrimaryConfig>,
    /// The accepted senders of NOTIFY besides the primaries.
    pub notify_from: AccessList,
    /// The file of the saved zone, so that a restart needs no primary; already resolved.
    pub file: PathBuf,
    /// The largest memory of a transfer, in bytes.
    pub max_size: usize,
    /// The servers that receive the zone from here.
    pub sharing: Sharing,
}

impl SecondaryConfig {
    /// The default of `max_size`: some ten million records.
    pub(crate) const MAX_SIZE: usize = 1 << 30;
}

/// `authorities.*.zones`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorityZones {
    /// The zone files.
    pub files: Vec<ZoneSource>,
    /// The zones in files that other servers may transfer.
    pub shared: Vec<SharedZone>,
    /// Zones transferred from other servers.
    pub secondaries: Vec<SecondaryConfig>,
    /// The secondaries that are catalogs of further zones.
    pub catalogs: Vec<CatalogConfig>,
    /// The catalogs that this authority produces.
    pub produced: Vec<ProducedCatalog>,
    /// The folder for zones that catalogs list, already resolved against the folder of the config file.
    pub members_folder: PathBuf,
}

#[derive(Default)]
pub(super) struct Transfers<'d> {
    pub(super) zones: AuthorityZones,
    pub(super) spots_of_catalogs: Vec<(Name, DocumentSpot<'d>)>,
    spots: Vec<DocumentSpot<'d>>,
}

impl<'d> Transfers<'d> {
    pub(super) fn read_shared(
        &mut self,
        section: &mut ConfigSection<'d>,
        origin: Option<&Name>,
        references: &mut References<'d>,
    ) {
        let mut sharing = read_sharing(section, references);
        read_listing(section, &mut sharing);
        if sharing == Sharing::default() {
            return;
        }
        match origin {
            Some(origin) => self.zones.shared.push(SharedZone { zone: origin.clone(), sharing }),
            None => section.spot.note("what is transferred is a zone with a name, write origin = \"example.org\""),
        }
    }

    pub(super) fn read_secondary(
        &mut self,
        zone: &ConfigNode<'d>,
        section: &mut ConfigSection<'d>,
        references: &mut References<'d>,
    ) {
        let name = zone.parsed(words::domain_name).map(|zone| zone.folded());
        let primaries = section.required("primaries", PRIMARIES_EXAMPLE, |node| Some(read_primaries(node, references)));
        let notify_from =
            section.read("notify_from", AccessList::default(), |node| Some(read_access(node, references)));
        let file = read_file(section, "secondary", name.as_ref());
        let max_size = section.read("max_size", SecondaryConfig::MAX_SIZE, text(words::size));
        let mut sharing = read_sharing(section, references);
        read_listing(section, &mut sharing);
        let (Some(name), Some(file), Some(primaries)) = (name, file, primaries) else { return };
        let secondary = SecondaryConfig { zone: name, primaries, notify_from, file, max_size, sharing };
        self.add_secondary(secondary, zone.spot.clone(), references);
    }

    pub(super) fn add_secondary(
        &mut self,
        secondary: SecondaryConfig,
        spot: DocumentSpot<'d>,
        references: &mut References<'d>,
    ) {
        references.written_files.push((secondary.file.clone(), spot.clone()));
        self.spots.push(spot);
        self.zones.secondaries.push(secondary);
    }

    pub(super) fn note_repeats<'a>(&self, origins: impl Iterator<Item = &'a Name>) {
        let zones = self.zones.secondaries.iter().zip(&self.spots);
        note_repeats(zones.map(|(secondary, spot)| (&secondary.zone, spot.clone())), |zone| {
            format!("{zone} is transferred")
        });
        let origins: HashSet<_> = origins.collect();
        note_repeats(self.spots_of_catalogs.iter().cloned(), |zone| format!("{zone} is a catalog"));
        let secondaries: HashSet<_> = self.zones.secondaries.iter().map(|secondary| &secondary.zone).collect();
        for (zone, spot) in &self.spots_of_catalogs {
            if origins.contains(zone) || secondaries.contains(zone) {
                spot.note(format!("{zone} has an entry of its own, expected one of them"));
            }
        }
        for (secondary, spot) in self.zones.secondaries.iter().zip(&self.spots) {
            if origins.contains(&secondary.zone) {
                spot.note(format!("{} has a file of its own, expected either primaries or that file", secondary.zone));
            }
        }
    }
}

/// Reads `file` of a zone that is saved, by default named after the zone in this folder.
pub(super) fn read_file(section: &mut ConfigSection<'_>, kind: &str, zone: Option<&Name>) -> Option<PathBuf> {
    let file = section.optional("file", |node| Some(node.parsed(words::file_name).unwrap_or_default()));
    let file = file.or_else(|| zone.map(|zone| usual_file(kind, zone)))?;
    Some(section.folder().join(file))
}

fn usual_file(folder: &str, zone: &Name) -> String {
    let name = zone.to_string();
    let name = name.strip_suffix('.').filter(|name| !name.is_empty()).unwrap_or("root");
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    format!("{folder}/{}.zone", name.chars().map(safe).collect::<String>())
}

pub(super) fn read_sharing<'d>(section: &mut ConfigSection<'d>, references: &mut References<'d>) -> Sharing {
    let transfer_to = section.read("transfer_to", AccessList::default(), |node| Some(read_access(node, references)));
    let also_notify = section.read("also_notify", Vec::new(), |node| {
        let items = node.items(PRIMARIES_EXAMPLE);
        Some(distinct(items, text(words::backend_address), |address| format!("{address} is named")))
    });
    let tsig = section.optional("tsig", |node| {
        let name = node.parsed(words::domain_name)?.folded();
        references.keys.push((name.clone(), node.spot.clone()));
        Some(name)
    });
    Sharing { transfer_to, also_notify, tsig, ..Sharing::default() }
}

pub(super) fn read_access<'d>(node: &ConfigNode<'d>, references: &mut References<'d>) -> AccessList {
    let mut rules = Vec::new();
    for item in node.items("[\"192.0.2.0/24\", \"key:NAME\"]") {
        let Some(rule) = item.parsed(words::access_rule) else { continue };
        let alone = AccessList::new(vec![rule.clone()]);
        references.keys.extend(alone.keys().map(|key| (key.clone(), item.spot.clone())));
        rules.push(rule);
    }
    AccessList::new(rules)
}

pub(super) const PRIMARIES_EXAMPLE: &str = "[\"192.0.2.1:53\"]";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::check;
    use super::super::{AuthorityConfig, Config};
    use super::*;

    const HEAD: &str = "keys.k.secret_file = \"k\"\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\n";

    fn read(lines: &str) -> AuthorityConfig {
        let text = format!("{HEAD}{lines}\n");
        let config = Config::parse(&text, "c.toml", Path::new("/etc/h")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        config.authorities.into_iter().next().expect("one")
    }

    fn check_zone(entry: &str, expected: &str) {
        check(&format!("{HEAD}zones = [{entry}]\n"), &[&format!("4:{expected}")]);
    }

    #[test]
    fn secondaries_are_read() {
        let authority = read("zones = [{ zone = \"Example.org\", primaries = [\"127.0.0.1:5301\"], tsig = \"K\" }]");
        let expected = SecondaryConfig {
            zone: "example.org".parse().expect("a name"),
            primaries: vec!["127.0.0.1:5301".parse::<SocketAddr>().expect("an address").into()],
            notify_from: AccessList::default(),
            file: "/etc/h/secondary/example.org.zone".into(),
            max_size: 1 << 30,
            sharing: Sharing { tsig: Some("k".parse().expect("a name")), ..Sharing::default() },
        };
        assert_eq!((authority.zones.secondaries, authority.zones.files.len()), (vec![expected], 0));
    }

    #[test]
    fn files_of_secondaries_stay_in_their_folder() {
        for (zone, file) in [
            (".", "secondary/root.zone"),
            ("a/b.example", "secondary/a_b.example.zone"),
            ("xn--e1afmkfd.example", "secondary/xn--e1afmkfd.example.zone"),
        ] {
            assert_eq!(usual_file("secondary", &zone.parse().expect("a name")), file, "{zone}");
        }
    }

    #[test]
    fn zones_of_files_are_shared() {
        let authority = read(
            "zones = [{ file = \"a\", origin = \"A.example\", transfer_to = [\"192.0.2.0/24 key:K\"], \
             also_notify = [\"192.0.2.1:53\"] }, \"b\"]",
        );
        let [shared] = &authority.zones.shared[..] else { panic!("one zone is shared") };
        assert_eq!(shared.zone.to_string(), "a.example.");
        assert_eq!(shared.sharing.also_notify.len(), 1);
        assert_eq!(shared.sharing.transfer_to.keys().count(), 1);
    }

    #[test]
    fn entries_are_checked() {
        let secondary = |rest: &str| format!("{{ zone = \"e\", primaries = [\"192.0.2.1:53\"], {rest} }}");
        check_zone(
            "{ zone = \"e\" }",
            "10: authorities.a.zones[0]: primaries is missing, write primaries = [\"192.0.2.1:53\"]",
        );
        check_zone(
            &secondary("transfer_to = [\"192.0.2.1/24\"]"),
            "69: authorities.a.zones[0].transfer_to[0]: invalid value \"192.0.2.1/24\": expected an address, a prefix, \
             key:NAME, or an address or prefix and key:NAME (bits are set behind the prefix: write the first address of \
             the network)",
        );
        check_zone(
            &secondary("tsig = \"no\""),
            "61: authorities.a.zones[0].tsig: there is no key \"no\", add [keys.\"no\"]",
        );
        check_zone(
            &secondary("notify_from = [\"key:no\"]"),
            "69: authorities.a.zones[0].notify_from[0]: there is no key \"no\", add [keys.\"no\"]",
        );
        check_zone(
            "{ file = \"a\", transfer_to = [\"::1\"] }",
            "10: authorities.a.zones[0]: what is transferred is a zone with a name, write origin = \"example.org\"",
        );
        let one = "{ zone = \"e\", primaries = [\"192.0.2.1:53\"], file = \"f\" }";
        let two = one.replace("\"f\"", "\"g\"");
        check_zone(
            &format!("{one}, {two}"),
            "77: authorities.a.zones[1].zone: e. is transferred twice, first on line 4",
        );
        let other = one.replace("\"e\"", "\"o\"");
        check_zone(
            "{ file = \"f\", origin = \"a.example\" }, { zone = \"A.example\", primaries = [\"[::1]:53\"] }",
            "57: authorities.a.zones[1].zone: a.example. has a file of its own, expected either primaries or that file",
        );
        check_zone(&format!("{one}, {other}"), "77: authorities.a.zones[1].zone: f is written twice, first on line 4");
    }
}
