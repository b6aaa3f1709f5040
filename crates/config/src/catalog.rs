//! Catalog zones (RFC 9432), consumed and produced.

use std::path::PathBuf;

use dns::Name;
use zone::transfer::AccessList;
use zone::transfer::catalog::{CatalogRules, MAX_CATALOG_NAME};

use super::backend::{PrimaryConfig, read_primaries};
use super::readers::{boolean, integer, text};
use super::references::References;
use super::section::{ConfigNode, ConfigSection};
use super::transfer::{PRIMARIES_EXAMPLE, SecondaryConfig, Sharing, Transfers, read_access, read_file, read_sharing};
use super::{Expectation, words};

/// A consumed catalog zone. The zone itself is one of the authority's secondaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogConfig {
    /// The name of the catalog and the zones that it may list.
    pub rules: CatalogRules,
    /// The senders of accepted NOTIFYs for listed zones, besides their primaries.
    pub notify_from: AccessList,
    /// The transfer settings of listed zones.
    pub members: MemberConfig,
    /// The transfer settings by group name.
    pub groups: Vec<(String, MemberConfig)>,
}

/// The transfer settings of zones that a catalog lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// The primaries in order of preference; at least one.
    pub primaries: Vec<PrimaryConfig>,
    /// The largest memory of a transfer, in bytes.
    pub max_size: usize,
    /// The servers that receive the zone, and their key.
    pub sharing: Sharing,
}

/// A produced catalog zone: lists all zones of the authority that other servers may transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducedCatalog {
    /// The name in lower case.
    pub zone: Name,
    /// The file of the zone, so that a restart does not change the serial.
    pub file: PathBuf,
    /// The servers that receive the catalog.
    pub sharing: Sharing,
}

impl CatalogConfig {
    /// The settings of a zone in these groups: those of the first matching group, else the default ones.
    pub(crate) fn member(&self, groups: &[String]) -> &MemberConfig {
        let group = self.groups.iter().find(|(name, _)| groups.contains(name));
        group.map_or(&self.members, |(_, members)| members)
    }

    /// The secondary for a listed zone, saved in `file`.
    pub fn secondary(&self, zone: &Name, groups: &[String], file: PathBuf) -> SecondaryConfig {
        let MemberConfig { primaries, max_size, sharing } = self.member(groups);
        let sharing = Sharing { group: groups.first().cloned(), ..sharing.clone() };
        SecondaryConfig {
            zone: zone.clone(),
            primaries: primaries.clone(),
            notify_from: self.notify_from.clone(),
            file,
            max_size: *max_size,
            sharing,
        }
    }
}

pub(super) fn read<'d>(
    catalog: &ConfigNode<'d>,
    section: &mut ConfigSection<'d>,
    transfers: &mut Transfers<'d>,
    references: &mut References<'d>,
) {
    let name = catalog.parsed(words::domain_name).map(|zone| zone.folded());
    let produce = section.read("produce", false, boolean);
    let kind = if produce { "produced" } else { "secondary" };
    let file = read_file(section, kind, name.as_ref());
    let sharing = read_sharing(section, references);
    if produce {
        let Some((zone, file)) = name.zip(file) else { return };
        if zone.as_wire().len() > MAX_CATALOG_NAME {
            return catalog.spot.note(format!(
                "expected a name of at most {MAX_CATALOG_NAME} octets, since its member records have longer names"
            ));
        }
        references.written_files.push((file.clone(), catalog.spot.clone()));
        transfers.spots_of_catalogs.push((zone.clone(), catalog.spot.clone()));
        transfers.zones.produced.push(ProducedCatalog { zone, file, sharing });
        return;
    }
    let primaries = section.optional("primaries", |node| Some(read_primaries(node, references)));
    let notify_from = section.read("notify_from", AccessList::default(), |node| Some(read_access(node, references)));
    let max_size = section.read("max_size", SecondaryConfig::MAX_SIZE, text(words::size));
    let allow = section.read("allow", Vec::new(), read_names);
    // Each zone takes some 12 KB and a task; a million fill the memory of a large machine.
    let max_members = section.read("max_members", CatalogRules::MAX_MEMBERS, integer(1..=1_000_000));
    let usual = MemberConfig {
        primaries: primaries.clone().unwrap_or_default(),
        max_size: SecondaryConfig::MAX_SIZE,
        sharing: Sharing { tsig: sharing.tsig.clone(), ..Sharing::default() },
    };
    let members = section.below("members", |section| read_members(section, &usual, references)).unwrap_or(usual);
    let named = section.section("groups").map(|groups| groups.named()).unwrap_or_default();
    let mut group = |(group, node): (&str, ConfigNode<'d>)| {
        let members = node.section()?.whole(|section| read_members(section, &members, references));
        Some((group.to_owned(), members))
    };
    let groups = named.into_iter().filter_map(&mut group).collect();
    if primaries.is_none() && !section.is_described() {
        section.spot.note(format!(
            "primaries is missing, write primaries = {PRIMARIES_EXAMPLE}, or produce = true for a catalog of the zones of this authority"
        ));
    }
    let (Some(zone), Some(file), Some(primaries)) = (name, file, primaries) else { return };
    let rules = CatalogRules { catalog: zone.clone(), allow, max_members };
    transfers.zones.catalogs.push(CatalogConfig { rules, notify_from: notify_from.clone(), members, groups });
    let secondary = SecondaryConfig { zone, primaries, notify_from, file, max_size, sharing };
    transfers.add_secondary(secondary, catalog.spot.clone(), references);
}

fn read_members<'d>(
    section: &mut ConfigSection<'d>,
    usual: &MemberConfig,
    references: &mut References<'d>,
) -> MemberConfig {
    let primaries = section.optional("primaries", |node| Some(read_primaries(node, references)));
    let max_size = section.read("max_size", usual.max_size, text(words::size));
    let own = read_sharing(section, references);
    let MemberConfig { primaries: usual_primaries, sharing: usual, .. } = usual;
    let sharing = Sharing {
        transfer_to: if section.has("transfer_to") { own.transfer_to } else { usual.transfer_to.clone() },
        also_notify: if section.has("also_notify") { own.also_notify } else { usual.also_notify.clone() },
        tsig: if section.has("tsig") { own.tsig } else { usual.tsig.clone() },
        ..own
    };
    MemberConfig { primaries: primaries.unwrap_or_else(|| usual_primaries.clone()), max_size, sharing }
}

fn read_names(node: &ConfigNode<'_>) -> Option<Vec<Name>> {
    let items = node.items("[\"example.org\"]").into_iter();
    Some(items.filter_map(|item| Some(item.parsed(words::domain_name)?.folded())).collect())
}

pub(super) fn read_listing(section: &mut ConfigSection<'_>, sharing: &mut Sharing) {
    sharing.group = section.optional("group", text(group_name));
    sharing.is_unlisted = !section.read("listed", true, boolean);
    if (sharing.group.is_some() || sharing.is_unlisted) && sharing.transfer_to.is_empty() {
        section
            .spot
            .note("group and listed are about catalogs, which list zones that others may have: write transfer_to too");
    }
}

fn group_name(text: &str) -> Result<String, Expectation> {
    let is_group = (1..=usize::from(u8::MAX)).contains(&text.len());
    if is_group { Ok(text.to_owned()) } else { Err(Expectation::new("the name of a group, of at most 255 octets")) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::super::{AuthorityConfig, Config};

    const HEAD: &str = "keys.k.secret_file = \"k\"\n[authorities.a]\nlisten = [\"127.0.0.1:53\"]\n";

    fn read(zones: &str) -> AuthorityConfig {
        let text = format!("{HEAD}zones = [{zones}]\n");
        let config = Config::parse(&text, "c.toml", "/etc/h".as_ref()).unwrap_or_else(|p| panic!("{text}\n{p}"));
        config.authorities.into_iter().next().expect("one")
    }

    fn check_zone(entry: &str, expected: &str) {
        check(&format!("{HEAD}zones = [{entry}]\n"), &[&format!("4:{expected}")]);
    }

    #[test]
    fn catalogs_are_read() {
        let authority = read(
            "{ catalog = \"Cat.example\", primaries = [\"192.0.2.1:53\"], tsig = \"k\", allow = [\"Example.org\"], max_members = 7, \
             members = { max_size = \"1MiB\", transfer_to = [\"::1\"] }, \
             groups.red = { primaries = [\"192.0.2.2:53\"] }, groups.blue = { transfer_to = [\"192.0.2.9\"] } }",
        );
        let [catalog] = &authority.zones.catalogs[..] else { panic!("one catalog") };
        assert_eq!((catalog.rules.catalog.to_string().as_str(), catalog.rules.max_members), ("cat.example.", 7));
        assert_eq!(catalog.rules.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["example.org."]);
        let [zone] = &authority.zones.secondaries[..] else { panic!("the zone itself") };
        assert_eq!(zone.file.to_str(), Some("/etc/h/secondary/cat.example.zone"));
        assert!(zone.sharing.transfer_to.is_empty());
        let primary = |groups: &[&str]| {
            let groups: Vec<_> = groups.iter().map(|&group| group.to_owned()).collect();
            let member = catalog.member(&groups);
            assert_eq!((member.max_size, member.sharing.tsig.is_some()), (1 << 20, true), "{groups:?}");
            let hosts = [[192, 0, 2, 9], [127, 0, 0, 1]].map(|ip| member.sharing.transfer_to.allows(ip.into(), None));
            (member.primaries[0].to_string(), hosts[0])
        };
        assert_eq!(primary(&[]), ("192.0.2.1:53".to_owned(), false));
        assert_eq!(primary(&["green"]), ("192.0.2.1:53".to_owned(), false));
        assert_eq!(primary(&["green", "red"]), ("192.0.2.2:53".to_owned(), false));
        assert_eq!(primary(&["blue", "red"]), ("192.0.2.2:53".to_owned(), false), "the first of the config");
        assert_eq!(primary(&["blue"]), ("192.0.2.1:53".to_owned(), true));
    }

    #[test]
    fn catalogs_of_our_own_are_read() {
        let authority = read(
            "{ catalog = \"c\", produce = true, transfer_to = [\"::1\"] }, \
             { file = \"f\", origin = \"e\", transfer_to = [\"::1\"], group = \"red\" }, \
             { zone = \"z\", primaries = [\"192.0.2.1:53\"], transfer_to = [\"::1\"], listed = false }",
        );
        let [produced] = &authority.zones.produced[..] else { panic!("one catalog") };
        assert_eq!(produced.file.to_str(), Some("/etc/h/produced/c.zone"));
        assert_eq!(authority.zones.shared[0].sharing.group.as_deref(), Some("red"));
        assert!(authority.zones.secondaries[0].sharing.is_unlisted && authority.zones.catalogs.is_empty());
    }

    #[test]
    fn catalogs_are_checked() {
        check_zone(
            "{ catalog = \"c\" }",
            "10: authorities.a.zones[0]: primaries is missing, write primaries = [\"192.0.2.1:53\"], or produce = true \
             for a catalog of the zones of this authority",
        );
        check_zone(
            "{ catalog = \"c\", primaries = [\"192.0.2.1:53\"], alow = [\"e\"] }",
            "57: authorities.a.zones[0]: unknown key \"alow\", did you mean \"allow\"?",
        );
        check_zone(
            "{ catalog = \"c\", primaries = [\"192.0.2.1:53\"], max_members = 0 }",
            "71: authorities.a.zones[0].max_members: invalid value 0: expected an integer from 1 to 1000000",
        );
        check_zone(
            "{ catalog = \"c\", primaries = [\"192.0.2.1:53\"], groups.red = { primary = [\"[::1]:53\"] } }",
            "72: authorities.a.zones[0].groups.red: unknown key \"primary\", did you mean \"primaries\"?",
        );
        check_zone(
            "{ catalog = \"c\", produce = true, primaries = [\"192.0.2.1:53\"] }",
            "43: authorities.a.zones[0]: unknown key \"primaries\", expected one of zone, catalog, produce, file, \
             transfer_to, also_notify, tsig",
        );
        check_zone(
            "{ file = \"f\", origin = \"e\", group = \"red\" }",
            "10: authorities.a.zones[0]: group and listed are about catalogs, which list zones that others may have: \
             write transfer_to too",
        );
        check_zone(
            "{ catalog = \"c\", produce = true, file = \"1\" }, { catalog = \"C\", produce = true, file = \"2\" }",
            "69: authorities.a.zones[1].catalog: c. is a catalog twice, first on line 4",
        );
        check_zone(
            "{ catalog = \"c\", produce = true, file = \"1\" }, { zone = \"c\", primaries = [\"192.0.2.1:53\"], file = \"2\" }",
            "22: authorities.a.zones[0].catalog: c. has an entry of its own, expected one of them",
        );
    }
}
