//! A zone on disk, so that a restart needs no primary: a master file, written whole or not at all. The time of its last
//! change is when a primary last confirmed that it is up to date.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::SecondaryZone;
use crate::files::{self, NewFile, Readers};
use crate::transfer::Records;
use crate::wire::{Name, display_name};
use crate::zone::master::{self, Source, Task};
use crate::zone::{Zone, ZoneBuilder, rdata_to_text};

/// A zone that an earlier process has saved.
#[derive(Debug)]
pub struct Saved {
    pub(super) zone: Arc<Zone>,
    /// Octets of its records.
    pub(super) size: usize,
    /// How long ago it had been confirmed when it was loaded.
    age: Duration,
    loaded: Instant,
}

impl Saved {
    /// What is saved of these zones. Takes as long as it takes to read them.
    pub fn load_all(zones: impl IntoIterator<Item = SecondaryZone>) -> Vec<(SecondaryZone, Self)> {
        let load = |secondary: SecondaryZone| {
            let (zone, age) = load(&secondary.config.file, &secondary.config.zone)?;
            let size = Records::size_of(zone.iter());
            Some((secondary, Self { zone: Arc::new(zone), size, age, loaded: Instant::now() }))
        };
        zones.into_iter().filter_map(load).collect()
    }

    /// How long ago it was confirmed.
    pub(super) fn age(&self) -> Duration {
        self.age + self.loaded.elapsed()
    }
}

/// Reads a zone that was saved, and how long ago it was confirmed. One that cannot be read is told, and is then as good as
/// none.
fn load(file: &Path, name: &Name) -> Option<(Zone, Duration)> {
    let read = || -> io::Result<(Vec<u8>, SystemTime)> { Ok((files::read(file)?, fs::metadata(file)?.modified()?)) };
    let complain = |error: String| {
        tracing::warn!(zone = %name, file = %file.display(), error, "its file is of no use, it is transferred anew");
    };
    let (octets, confirmed) = match read() {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            complain(error.to_string());
            return None;
        }
    };
    match parse(file, octets, name) {
        // A clock that was set back since makes it as fresh as can be, which errs on the side of an answer.
        Ok(zone) => Some((zone, confirmed.elapsed().unwrap_or_default())),
        Err(error) => {
            complain(error);
            None
        }
    }
}

/// Reads the text of a zone.
fn parse(file: &Path, octets: Vec<u8>, name: &Name) -> Result<Zone, String> {
    let source = Source { name: file.display().to_string(), octets };
    let mut builder = ZoneBuilder::new(name);
    let mut include = |_: &str| Err("a zone that was saved includes nothing".to_owned());
    let task = Task { origin: Some(name), default_ttl: None, include: &mut include };
    master::read(&source, task, &mut |record, place| builder.add(&record, place))
        .map_err(|errors| errors.to_string())?;
    let (zone, _cautions) = builder
        .finish()
        .map_err(|diagnostics| diagnostics.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    Ok(zone)
}

/// Saves a zone, as confirmed now.
///
/// # Errors
/// If the file cannot be written; then what was there before still is.
pub(super) fn save(file: &Path, zone: &Zone) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut out = NewFile::open(file, Readers::Owner)?;
    writeln!(out, "; Saved by hedgerow, which replaces it: edits are lost. Confirmed by a primary when last changed.")?;
    for record in zone.iter() {
        let (owner, rdata) = (display_name(record.owner), rdata_to_text(record.rtype, record.rdata));
        writeln!(out, "{owner} {} IN {} {rdata}", record.ttl, record.rtype)?;
    }
    // Under its name before anybody is told.
    out.finish()
}

/// Notes that a primary has confirmed what was saved.
///
/// # Errors
/// If the file is not there, or not ours.
pub(super) fn confirm(file: &Path) -> io::Result<()> {
    File::options().append(true).open(file)?.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secondary::version::build;
    use crate::wire::RecordType;
    use crate::zone::Record;

    /// A small zone with text that needs quotes.
    fn zone(name: &Name) -> Zone {
        let soa = [&b"\x01n\0\x01h\0"[..], &[7_u32, 100, 10, 1000, 60].map(u32::to_be_bytes).concat()].concat();
        let record = |rtype, rdata| Record { owner: name.as_wire(), rtype, ttl: 300, rdata };
        let text = b"\x05a;\"\\b";
        let records =
            [record(RecordType::SOA, &soa[..]), record(RecordType::NS, b"\x01n\0"), record(RecordType::TXT, text)];
        build(name, records.into_iter()).expect("a zone")
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("below").join("e.zone");
        let name: Name = "e.example".parse().expect("a name");
        assert!(load(&file, &name).is_none());
        let zone = zone(&name);
        save(&file, &zone).expect("the folder is ours");
        let (loaded, age) = load(&file, &name).expect("what was saved");
        assert!(loaded.canonical().eq(zone.canonical()) && age < Duration::from_secs(60));
        let long_ago = SystemTime::now() - Duration::from_secs(5_000);
        File::options().append(true).open(&file).and_then(|file| file.set_modified(long_ago)).expect("ours");
        assert!(load(&file, &name).is_some_and(|(_, age)| age >= Duration::from_secs(5_000)));
        confirm(&file).expect("it is there");
        assert!(load(&file, &name).is_some_and(|(_, age)| age < Duration::from_secs(60)));
        fs::write(&file, "nonsense").expect("ours");
        assert!(load(&file, &name).is_none());
    }
}
