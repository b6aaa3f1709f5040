//! The zones of catalogs on disk: a restart needs no primary to know them or to find their files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use config::{AuthorityConfig, SecondaryConfig};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use dns::Name;
use serde::{Deserialize, Serialize};
use zone::transfer::catalog::{CatalogEntry, CatalogRules, Consumer, ReservedNames};
use zone::transfer::tsig::TsigKey;

use crate::files::{self, NewFile, Readers};

#[derive(Serialize, Deserialize)]
struct SavedMember {
    zone: String,
    label: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    coo: Option<String>,
}

impl SavedMember {
    fn of(zone: &Name, member: &CatalogEntry) -> Self {
        Self {
            zone: zone.to_string(),
            label: HEXLOWER.encode(&member.label),
            groups: member.groups.clone(),
            coo: member.coo.as_ref().map(ToString::to_string),
        }
    }

    fn read(self) -> Option<(Name, CatalogEntry)> {
        let label = HEXLOWER_PERMISSIVE.decode(self.label.as_bytes()).ok()?.into();
        let coo = self.coo.map(|coo| coo.parse::<Name>()).transpose().ok()?;
        Some((self.zone.parse::<Name>().ok()?.folded(), CatalogEntry { label, groups: self.groups, coo }))
    }
}

/// Restores the catalog members that an earlier process had for an authority.
pub fn restore(config: &AuthorityConfig) -> Consumer {
    let mut consumer = Consumer::default();
    for catalog in &config.zones.catalogs {
        let name = &catalog.rules.catalog;
        let file = listing_file(&config.zones.members_folder, name);
        match load(&file) {
            Ok(listed) => consumer.restore(name, listed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(catalog = %name, file = %file.display(), %error, "the saved list of member zones is ignored: the catalog is read again");
            }
        }
    }
    consumer
}

/// Returns the saved catalog members, as the current config defines them.
pub(super) fn saved_members(config: &AuthorityConfig) -> Vec<SecondaryConfig> {
    if config.zones.catalogs.is_empty() {
        return Vec::new();
    }
    let mut consumer = restore(config);
    let reserved = config.zones.secondaries.iter().map(|secondary| secondary.zone.clone()).collect();
    consumer.set_rules(rules(config), ReservedNames { zones: reserved, tables: None });
    secondaries(config, &consumer).collect()
}

/// Returns the configured rules of catalogs.
pub fn rules(config: &AuthorityConfig) -> Vec<CatalogRules> {
    config.zones.catalogs.iter().map(|catalog| catalog.rules.clone()).collect()
}

/// Returns the zones that catalogs list.
pub fn secondaries(config: &AuthorityConfig, consumer: &Consumer) -> impl Iterator<Item = SecondaryConfig> {
    consumer.members().iter().filter_map(|(zone, owned)| member(config, zone, &owned.catalog, &owned.member))
}

/// Returns the config of a member zone; `None` if the config has no such catalog.
pub fn member(config: &AuthorityConfig, zone: &Name, catalog: &Name, member: &CatalogEntry) -> Option<SecondaryConfig> {
    let catalog = config.zones.catalogs.iter().find(|known| known.rules.catalog == *catalog)?;
    let file = member_file(&config.zones.members_folder, zone, &member.label);
    Some(catalog.secondary(zone, &member.groups, file))
}

/// Returns the file of a member zone. Another label means another zone of the same name, with another file.
pub fn member_file(folder: &Path, zone: &Name, label: &[u8]) -> PathBuf {
    let hashed = [zone.folded().as_wire(), label].concat();
    folder.join(format!("{}.{}.{ZONE}", readable(zone), digest(&hashed)))
}

/// Returns the file that saves the members of a catalog.
pub fn listing_file(folder: &Path, catalog: &Name) -> PathBuf {
    folder.join(format!("{}.{}.{CATALOG}", readable(catalog), digest(catalog.folded().as_wire())))
}

fn readable(name: &Name) -> String {
    let name = name.to_string().to_ascii_lowercase();
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let text: String = name.trim_end_matches('.').chars().take(READABLE).map(safe).collect();
    if text.is_empty() || text.starts_with('.') { format!("_{text}") } else { text }
}

fn digest(octets: &[u8]) -> String {
    HEXLOWER.encode(&TsigKey::digest(octets)[..16])
}

fn load(file: &Path) -> io::Result<HashMap<Name, CatalogEntry>> {
    let saved: Vec<SavedMember> = serde_json::from_slice(&files::read(file)?)?;
    let read = |saved: SavedMember| saved.read().ok_or_else(|| io::Error::other("an entry is not a zone"));
    saved.into_iter().map(read).collect()
}

/// Returns the job that saves the members of a catalog, for a thread that may block. It logs a failure.
pub fn save_listing<'a>(
    folder: &Path,
    catalog: &Name,
    members: impl Iterator<Item = (&'a Name, &'a CatalogEntry)>,
) -> Box<dyn FnOnce() + Send> {
    let (catalog, file) = (catalog.clone(), listing_file(folder, catalog));
    let members: Vec<_> = members.map(|(zone, member)| SavedMember::of(zone, member)).collect();
    Box::new(move || {
        if let Err(error) = write(&file, &members) {
            let file = file.display();
            tracing::warn!(%catalog, %file, %error, "the list of member zones cannot be saved");
        }
    })
}

/// Saves of one file. The last requested save wins, whatever the order of threads.
#[derive(Clone, Debug, Default)]
pub struct OrderedSaves {
    last: u64,
    done: Arc<Mutex<u64>>,
}

impl OrderedSaves {
    /// Returns the job of the next save, for a thread that may block.
    pub fn next(&mut self, save: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
        self.last += 1;
        let (number, done) = (self.last, Arc::clone(&self.done));
        move || {
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            if *done < number {
                *done = number;
                save();
            }
        }
    }
}

fn write(file: &Path, members: &[SavedMember]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = NewFile::open(file, Readers::Owner)?;
    out.write_all(&serde_json::to_vec(members)?)?;
    out.finish()
}

/// Removes the files of deleted zones.
pub fn remove(files: &[PathBuf]) {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), %error, "the file of a removed zone cannot be deleted");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Removes files of deleted zones that a process left when it died, unless they are new.
pub fn sweep(config: &AuthorityConfig, consumer: &Consumer) {
    let is_known = |catalog: &Name| load(&listing_file(&config.zones.members_folder, catalog)).is_ok();
    if config.zones.catalogs.is_empty() || !config.zones.catalogs.iter().all(|catalog| is_known(&catalog.rules.catalog))
    {
        return;
    }
    let kept: HashSet<_> = secondaries(config, consumer).map(|secondary| secondary.file).collect();
    let Ok(entries) = fs::read_dir(&config.zones.members_folder) else { return };
    let is_old = |file: &Path| {
        let changed = fs::metadata(file).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|age| age > NEW))
    };
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    let is_zone = |file: &PathBuf| file.extension().is_some_and(|extension| extension == ZONE);
    let left: Vec<_> = files.filter(|file| is_zone(file) && !kept.contains(file) && is_old(file)).collect();
    remove(&left);
}

const ZONE: &str = "zone";

const CATALOG: &str = "catalog";

/// Characters of a zone name in a file name, of which most systems allow 255 bytes.
const READABLE: usize = 150;

/// The age from which a file was certainly not written just now.
const NEW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use config::Config;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn member(label: &str) -> CatalogEntry {
        CatalogEntry {
            label: label.as_bytes().into(),
            groups: vec!["red".to_owned()],
            coo: Some(name("other.example")),
        }
    }

    /// Makes an authority with a catalog, whose files are in this folder.
    fn config(folder: &Path) -> AuthorityConfig {
        let text = "[authorities.ts]\nlisten = [\"127.0.0.1:0\"]\nzones = [{ catalog = \"cat\", primaries = [\"127.0.0.1:9\"] }]";
        let config = Config::parse(text, "config.toml", folder).expect("a config");
        config.authorities.into_iter().next().expect("one")
    }

    #[test]
    fn what_was_had_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        assert!(saved_members(&config).is_empty());
        let mut saves = OrderedSaves::default();
        let (a, b) = (name("a.example"), member("\u{1}x"));
        let listing = |zone: &Name, member: &CatalogEntry| {
            save_listing(&config.zones.members_folder, &name("cat"), [(zone, member)].into_iter())
        };
        let (before, after) = (listing(&name("gone.example"), &member("g")), listing(&a, &b));
        let first = saves.next(before);
        saves.next(after)();
        // The first save was delayed, and has old content.
        first();
        let file = member_file(&config.zones.members_folder, &a, &b.label);
        let known = saved_members(&config);
        assert_eq!(known.iter().map(|zone| (&zone.zone, &zone.file)).collect::<Vec<_>>(), [(&a, &file)]);
        let mut consumer = restore(&config);
        consumer.set_rules(rules(&config), ReservedNames::default());
        assert_eq!(consumer.members()[&a].member, b);
        fs::write(listing_file(&config.zones.members_folder, &name("cat")), "[{").expect("ours");
        assert!(saved_members(&config).is_empty());
    }

    #[test]
    fn what_is_had_no_more_is_swept_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(folder.path());
        let (a, label) = (name("a.example"), member("x"));
        let files = ["x", "y", "z"].map(|label| member_file(&config.zones.members_folder, &a, label.as_bytes()));
        let there = || files.clone().map(|file| file.exists());
        fs::create_dir_all(&config.zones.members_folder).expect("ours");
        let long_ago = SystemTime::now() - Duration::from_secs(5_000);
        for file in &files {
            fs::write(file, "").expect("ours");
        }
        for file in &files[..2] {
            fs::File::options().append(true).open(file).and_then(|file| file.set_modified(long_ago)).expect("ours");
        }
        let restored = || {
            let mut consumer = restore(&config);
            consumer.set_rules(rules(&config), ReservedNames::default());
            consumer
        };
        sweep(&config, &restored());
        assert_eq!(there(), [true; 3], "the zones that exist are not known");
        save_listing(&config.zones.members_folder, &name("cat"), [(&a, &label)].into_iter())();
        sweep(&config, &restored());
        assert_eq!(there(), [true, false, true], "the last one is new");
    }

    #[test]
    fn names_of_files_lead_nowhere_else_and_are_no_others() {
        let file = |zone: &str, label: &str| member_file(Path::new("/f"), &name(zone), label.as_bytes());
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        let files: HashSet<_> = [
            file("a/b.example", "1"),
            file("a_b.example", "1"),
            file("a_b.example", "2"),
            file(".", "1"),
            file("..\\/x".trim_start_matches('.'), "1"),
            file(&long, "1"),
        ]
        .into_iter()
        .collect();
        assert_eq!(files.len(), 6);
        for file in files {
            assert!(file.parent() == Some(Path::new("/f")) && file.file_name().is_some_and(|name| name.len() < 255));
        }
    }
}
