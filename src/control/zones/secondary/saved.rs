//! A zone on disk, so that a restart needs no primary: a master file, written whole or not at all. Its
//! modification time is the time at which a primary last confirmed it.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::{Config, SecondaryConfig};
use dns::{Name, display_name};
use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::transfer::Records;
use zone::{Zone, ZoneBuilder, rdata_to_text};

use super::members::saved_members;
use crate::files::{self, NewFile, Readers};

/// A zone that an earlier process has saved.
#[derive(Clone, Debug)]
pub struct SavedZone {
    pub(super) zone: Arc<Zone>,
    pub(super) size: usize,
    /// Time since the confirmation, at loading.
    age: Duration,
    loaded: Instant,
}

impl SavedZone {
    pub(super) fn confirmed(zone: Arc<Zone>, size: usize) -> Self {
        Self { zone, size, age: Duration::ZERO, loaded: Instant::now() }
    }

    pub(super) fn age(&self) -> Duration {
        self.age + self.loaded.elapsed()
    }
}

/// Saved zones that were read in advance, so that the start must read only files that have changed since.
#[derive(Clone, Debug, Default)]
pub struct SavedZones(HashMap<PathBuf, SavedZoneFile>);

#[derive(Clone, Debug)]
struct SavedZoneFile {
    version: FileVersion,
    zone: Arc<Zone>,
    size: usize,
}

/// Identifies a file without its modification time, which a confirmation changes. A new file may reuse an
/// inode, but not its time of birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileVersion {
    inode: u64,
    len: u64,
    born: Option<SystemTime>,
}

impl FileVersion {
    /// Uses the time of birth if the file system has it, otherwise the last change.
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().or_else(|_| metadata.modified()).ok();
        Self { inode: metadata.ino(), len: metadata.len(), born }
    }
}

impl SavedZones {
    /// Reads the changed files of these zones, and forgets all others. Returns the number of files read.
    pub fn read<'a>(&mut self, zones: impl IntoIterator<Item = &'a SecondaryConfig>) -> usize {
        let mut known = mem::take(&mut self.0);
        let mut read = 0;
        for SecondaryConfig { file, zone: name, .. } in zones {
            let kept = known.remove(file).filter(|kept| kept.zone.apex() == name);
            let is_current =
                |kept: &SavedZoneFile| fs::metadata(file).is_ok_and(|now| FileVersion::of(&now) == kept.version);
            let kept = kept.filter(is_current).or_else(|| {
                read += 1;
                load(file, name)
            });
            self.0.extend(kept.map(|kept| (file.clone(), kept)));
        }
        read
    }

    /// Reads all secondary zones of a config like [`read`](Self::read), members of catalogs too.
    pub fn read_all(&mut self, config: &Config) -> usize {
        let members: Vec<_> = config.authorities.iter().flat_map(saved_members).collect();
        self.read(config.secondaries().chain(&members))
    }

    /// Returns the saved data of these zones, by file.
    pub fn load_all<'a>(mut self, zones: impl IntoIterator<Item = &'a SecondaryConfig>) -> HashMap<PathBuf, SavedZone> {
        self.read(zones);
        let saved = |(file, SavedZoneFile { zone, size, .. }): (PathBuf, SavedZoneFile)| {
            // After the clock was set back, the zone counts as fresh, which errs on the side of an answer.
            let age = fs::metadata(&file).and_then(|now| now.modified()).ok()?.elapsed().unwrap_or_default();
            Some((file, SavedZone { zone, size, age, loaded: Instant::now() }))
        };
        self.0.into_iter().filter_map(saved).collect()
    }
}

/// Reads a saved zone. Logs an unreadable one, and returns `None`.
fn load(file: &Path, name: &Name) -> Option<SavedZoneFile> {
    let complain = |error: String| {
        tracing::warn!(zone = %name, file = %file.display(), error, "the saved zone is ignored and transferred again");
    };
    // Read first, so that a file that replaces this one meanwhile is detected.
    let (metadata, octets) = match fs::metadata(file).and_then(|metadata| Ok((metadata, files::read(file)?))) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            complain(error.to_string());
            return None;
        }
    };
    match parse(file, octets, name) {
        Ok(zone) => {
            let size = Records::size_of(zone.iter());
            tracing::debug!(zone = %name, serial = zone.serial(), "a saved zone is read");
            Some(SavedZoneFile { version: FileVersion::of(&metadata), zone: Arc::new(zone), size })
        }
        Err(error) => {
            complain(error);
            None
        }
    }
}

fn parse(file: &Path, octets: Vec<u8>, name: &Name) -> Result<Zone, String> {
    let source = ZoneFileSource { name: file.display().to_string(), octets };
    let mut builder = ZoneBuilder::new(name);
    let mut include = |_: &str| Err("a zone that was saved includes nothing".to_owned());
    let task = ZoneFileContext { origin: Some(name), default_ttl: None, include: &mut include };
    master::read(&source, task, &mut |record, place| builder.add(&record, place))
        .map_err(|errors| errors.to_string())?;
    let (zone, _cautions) = builder
        .finish()
        .map_err(|diagnostics| diagnostics.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    Ok(zone)
}

/// Reads a saved zone; `None` if there is none or it is invalid.
pub fn load_zone(file: &Path, name: &Name) -> Option<Arc<Zone>> {
    load(file, name).map(|kept| kept.zone)
}

/// Saves a zone, as confirmed now.
pub fn save(file: &Path, zone: &Zone) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = NewFile::open(file, Readers::Owner)?;
    writeln!(out, "; Saved by hedgerow, which replaces it: edits are lost. Confirmed by a primary when last changed.")?;
    for record in zone.iter() {
        let (owner, rdata) = (display_name(record.owner), rdata_to_text(record.rtype, record.rdata));
        writeln!(out, "{owner} {} IN {} {rdata}", record.ttl, record.rtype)?;
    }
    // The file has its name before the caller continues.
    out.finish()
}

/// Notes that a primary has confirmed what was saved.
pub(super) fn confirm(file: &Path) -> io::Result<()> {
    File::options().append(true).open(file)?.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use dns::RecordType;
    use zone::Record;

    use super::*;
    use crate::control::zones::secondary::version::build;

    /// A small zone with text that needs quotes.
    fn zone(name: &Name) -> Zone {
        let soa = [&b"\x01n\0\x01h\0"[..], &[7_u32, 100, 10, 1000, 60].map(u32::to_be_bytes).concat()].concat();
        let record = |rtype, rdata| Record { owner: name.as_wire(), rtype, ttl: 300, rdata };
        let text = b"\x05a;\"\\b";
        let records =
            [record(RecordType::SOA, &soa[..]), record(RecordType::NS, b"\x01n\0"), record(RecordType::TXT, text)];
        build(name, records.into_iter()).expect("a zone")
    }

    /// A zone of a name, as the config has it.
    fn secondary(name: &Name, file: &Path) -> SecondaryConfig {
        let text = format!(
            "[authorities.ts1]\nlisten = [\"127.0.0.1:0\"]\nzones = [{{ zone = \"{name}\", file = \"{}\", primaries = [\"127.0.0.1:9\"] }}]",
            file.display()
        );
        let config = Config::parse(&text, "config.toml", Path::new(".")).expect("a config");
        config.authorities[0].zones.secondaries[0].clone()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("below").join("e.zone");
        let name: Name = "e.example".parse().expect("a name");
        let secondary = secondary(&name, &file);
        let load = || SavedZones::default().load_all([&secondary]).remove(&file);
        assert!(load().is_none());
        let zone = zone(&name);
        save(&file, &zone).expect("the folder is ours");
        let saved = load().expect("what was saved");
        assert!(saved.zone.canonical().eq(zone.canonical()) && saved.age() < Duration::from_secs(60));
        let long_ago = SystemTime::now() - Duration::from_secs(5_000);
        File::options().append(true).open(&file).and_then(|file| file.set_modified(long_ago)).expect("ours");
        assert!(load().is_some_and(|saved| saved.age() >= Duration::from_secs(5_000)));
        confirm(&file).expect("it is there");
        assert!(load().is_some_and(|saved| saved.age() < Duration::from_secs(60)));
        fs::write(&file, "nonsense").expect("ours");
        assert!(load().is_none());
    }

    #[test]
    fn only_what_has_changed_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("e.zone");
        let name: Name = "e.example".parse().expect("a name");
        let secondary = secondary(&name, &file);
        let mut known = SavedZones::default();
        let read = |known: &mut SavedZones| known.read([&secondary]);
        assert_eq!(read(&mut known), 1, "nothing is there yet");
        let zone = zone(&name);
        save(&file, &zone).expect("ours");
        assert_eq!([read(&mut known), read(&mut known)], [1, 0]);
        confirm(&file).expect("it is there");
        assert_eq!(read(&mut known), 0, "it is as it was");
        save(&file, &zone).expect("ours");
        assert_eq!(read(&mut known), 1, "another file");
        let saved = known.clone().load_all([&secondary]);
        assert!(saved[&file].zone.canonical().eq(zone.canonical()));
        known.read([]);
        assert_eq!(read(&mut known), 1, "unused entries are forgotten");
    }
}
