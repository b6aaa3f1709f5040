//! The zone files of a config, read in parallel; later reads open only changed files.
//!
//! A [`Loader`] remembers what it has loaded. A file with the same stamp is not opened, and one with the same
//! content keeps its zone. A zone from other files is a new zone even if its content is the same. All
//! problems of all files are reported, and then nothing is loaded.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use config::{AuthorityConfig, Config};
use dns::Name;
use zone::master::{self, ZoneFileContext, ZoneFileSource};
use zone::{
    DeferredZoneBuilder, Diagnostic, DiagnosticList, FilePlace, Miss, Record, Tables, TablesBuilder, Zone, ZoneDb,
    is_master_file, read_table,
};

use super::certificates::CertificateFiles;
use super::disk::{self, SeenFile};
use super::names::NameLoader;
use super::parallel::{do_all, is_large, pipe};
use super::watch::{FileWatch, ReadingGuard};
use super::{LoadError, USUAL_PLACES, unreadable};

/// Loads the zone files of one config after the other.
#[derive(Debug, Default)]
pub struct Loader {
    known: HashMap<Key, KnownZoneFile>,
    tables: Vec<(TablesRecipe, Arc<Tables>)>,
    /// The warnings of the last read, a line each, with file, line and column.
    pub(super) warnings: Vec<String>,
    /// The files that zone files include, broken ones too.
    included: Mutex<Vec<PathBuf>>,
    /// The possible places of the config, with the digest of each at the last read.
    config: Vec<(Option<u64>, PathBuf)>,
    pub(super) watch: FileWatch,
    pub(super) certificates: CertificateFiles,
    pub(super) names: NameLoader,
}

/// The identity of a zone: a file with another origin is another zone.
type Key = (PathBuf, Option<Name>);

#[derive(Clone, Debug)]
struct KnownZoneFile {
    seen: Vec<SeenFile>,
    /// The zone; `None` if the file is a table.
    zone: Option<Arc<Zone>>,
}

/// The files that tables were built from, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TablesRecipe {
    files: Vec<(PathBuf, u64)>,
    ttl: u32,
    miss: Miss,
}

struct ZoneFileFetch {
    known: KnownZoneFile,
    table: Option<Vec<u8>>,
    warnings: Vec<String>,
}

impl Loader {
    /// Loads the zones of all authorities of a config. After an error, the previous zones stay known.
    pub(super) fn load(&mut self, config: &Config) -> Result<Vec<Arc<ZoneDb>>, LoadError> {
        let keys = distinct_keys(config);
        let mut problems = Vec::new();
        let mut fetched = HashMap::new();
        let included = Mutex::new(Vec::new());
        let results = do_all(&keys, |key| fetch(key, self.known.get(key), &included));
        self.included = included;
        for (key, result) in keys.iter().zip(results) {
            match result {
                Ok(found) => drop(fetched.insert(key, found)),
                Err(problem) => problems.push(problem),
            }
        }
        let (mut zone_dbs, mut tables) = (Vec::new(), Vec::new());
        for authority in &config.authorities {
            match self.load_tables(authority, &fetched) {
                Ok(found) => {
                    zone_dbs.push(zone_db(authority, &found.1, &fetched, &mut problems));
                    tables.push(found);
                }
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(LoadError::Unusable(problems.join("\n")));
        }
        (self.tables, self.warnings) = (tables, Vec::new());
        self.known.clear();
        for key in &keys {
            if let Some(found) = fetched.remove(key) {
                self.warnings.extend(found.warnings);
                self.known.insert(key.clone(), found.known);
            }
        }
        Ok(zone_dbs)
    }

    /// Marks the start of a read of this config file, or of the usual places. The guard pauses the watch.
    pub fn begin_read(&mut self, file: Option<&Path>) -> ReadingGuard {
        let reading = self.watch.begin_read();
        // Taken before the read, so that a change during the read is seen as a change.
        let places = file.map_or_else(|| USUAL_PLACES.map(PathBuf::from).to_vec(), |file| vec![file.to_owned()]);
        self.config = places.into_iter().map(|file| (disk::digest_of(&file), file)).collect();
        reading
    }

    /// Returns the digests of the config, and of the zone and names files if it was loaded.
    pub(super) fn digests(&self, is_loaded: bool) -> HashMap<&Path, u64> {
        let config = self.config.iter().filter_map(|(digest, file)| Some((file.as_path(), (*digest)?)));
        let seen = self.known.values().flat_map(|known| &known.seen).chain(self.names.seen());
        let seen = seen.filter(|_| is_loaded);
        config.chain(seen.map(|seen| (seen.path.as_path(), seen.digest))).collect()
    }

    /// Returns the files that zone files of the last config include, missing ones too.
    pub(super) fn included(&mut self) -> Vec<PathBuf> {
        std::mem::take(self.included.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    fn load_tables(
        &self,
        authority: &AuthorityConfig,
        fetched: &HashMap<&Key, ZoneFileFetch>,
    ) -> Result<(TablesRecipe, Arc<Tables>), Vec<String>> {
        let files: Vec<(&PathBuf, &ZoneFileFetch)> = keys_of(authority)
            .filter_map(|key| fetched.get_key_value(&key).map(|(key, found)| (&key.0, found)))
            .filter(|(_, found)| found.known.zone.is_none())
            .collect();
        let digest = |found: &ZoneFileFetch| found.known.seen.first().map_or(0, |seen| seen.digest);
        let recipe = TablesRecipe {
            files: files.iter().map(|(file, found)| ((*file).clone(), digest(found))).collect(),
            ttl: u32::try_from(authority.ttl.as_secs()).unwrap_or(u32::MAX),
            miss: authority.miss,
        };
        if let Some((_, tables)) = self.tables.iter().find(|(known, _)| *known == recipe) {
            return Ok((recipe, Arc::clone(tables)));
        }
        let mut builder = TablesBuilder::new(recipe.miss);
        let mut problems = Vec::new();
        for (file, found) in files {
            let octets = match &found.table {
                Some(octets) => Cow::from(octets),
                None => match disk::read(file) {
                    Ok((octets, _)) => Cow::from(octets),
                    Err(error) => {
                        problems.push(unreadable(file, &error));
                        continue;
                    }
                },
            };
            if is_large(octets.len()) {
                builder.expect_many();
            }
            let faults = pipe(
                octets.len(),
                |sink| read_table(&octets, recipe.ttl, sink),
                |record, place| builder.add(record, place),
            );
            builder.end_file(&file.display().to_string(), faults);
        }
        match builder.finish() {
            Ok(tables) if problems.is_empty() => Ok((recipe, Arc::new(tables))),
            Ok(_) => Err(problems),
            Err(errors) => {
                problems.push(errors.to_string());
                Err(problems)
            }
        }
    }
}

/// Builds the zone database of an authority. A duplicate zone is a problem, also of a secondary.
fn zone_db(
    authority: &AuthorityConfig,
    tables: &Arc<Tables>,
    fetched: &HashMap<&Key, ZoneFileFetch>,
    problems: &mut Vec<String>,
) -> Arc<ZoneDb> {
    let mut zone_db = ZoneDb::new(Arc::clone(tables)).with_identity(authority.identity.clone());
    let mut files: HashMap<Name, PathBuf> = HashMap::new();
    for key in keys_of(authority) {
        let Some(zone) = fetched.get(&key).and_then(|found| found.known.zone.as_ref()) else { continue };
        match files.get(zone.apex()) {
            Some(first) => problems.push(loaded_twice(zone.apex(), &key.0, first)),
            None => {
                files.insert(zone.apex().clone(), key.0);
                zone_db = zone_db.with_zone(Arc::clone(zone));
            }
        }
    }
    let secondaries = authority.zones.secondaries.iter().map(|secondary| (&secondary.zone, &secondary.file));
    let produced = authority.zones.produced.iter().map(|catalog| (&catalog.zone, &catalog.file));
    for (zone, file) in secondaries.chain(produced) {
        if let Some(first) = files.get(zone) {
            problems.push(loaded_twice(zone, file, first));
        }
    }
    Arc::new(zone_db)
}

fn loaded_twice(zone: &Name, file: &Path, first: &Path) -> String {
    format!("{}: zone {zone} is in {} too: expected one of them", file.display(), first.display())
}

fn keys_of(authority: &AuthorityConfig) -> impl Iterator<Item = Key> {
    authority.zones.files.iter().map(|zone| (zone.file.clone(), zone.origin.clone()))
}

fn distinct_keys(config: &Config) -> Vec<Key> {
    let mut seen = HashSet::new();
    config.authorities.iter().flat_map(keys_of).filter(|key| seen.insert(key.clone())).collect()
}

fn fetch(key: &Key, known: Option<&KnownZoneFile>, included: &Mutex<Vec<PathBuf>>) -> Result<ZoneFileFetch, String> {
    let includes = |files: &mut dyn Iterator<Item = PathBuf>| {
        included.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
    };
    let unchanged = |known: &KnownZoneFile| {
        includes(&mut known.seen.iter().skip(1).map(|seen| seen.path.clone()));
        ZoneFileFetch { known: known.clone(), table: None, warnings: Vec::new() }
    };
    if let Some(known) = known.filter(|known| known.seen.iter().all(SeenFile::is_same)) {
        return Ok(unchanged(known));
    }
    let (file, origin) = key;
    let (octets, seen) = disk::read(file).map_err(|error| unreadable(file, &error))?;
    if origin.is_none() && !is_master_file(&octets) {
        let known = KnownZoneFile { seen: vec![seen], zone: None };
        return Ok(ZoneFileFetch { known, table: Some(octets), warnings: Vec::new() });
    }
    if let Some(known) = known.and_then(|known| said_again(known, &seen)) {
        return Ok(unchanged(&known));
    }
    load_zone(file, origin.as_ref(), octets, seen, |file| includes(&mut [file].into_iter()))
}

/// Returns the known zone if its files have the same content. `own` is the first of them, just read.
fn said_again(known: &KnownZoneFile, own: &SeenFile) -> Option<KnownZoneFile> {
    let read_again = |(index, old): (usize, &SeenFile)| {
        let new = if index == 0 { own.clone() } else { disk::read(&old.path).ok()?.1 };
        (new.digest == old.digest).then_some(new)
    };
    let zone = Some(Arc::clone(known.zone.as_ref()?));
    let seen = known.seen.iter().enumerate().map(read_again).collect::<Option<Vec<_>>>()?;
    Some(KnownZoneFile { seen, zone })
}

fn load_zone(
    file: &Path,
    origin: Option<&Name>,
    octets: Vec<u8>,
    seen: SeenFile,
    includes: impl Fn(PathBuf) + Sync,
) -> Result<ZoneFileFetch, String> {
    let len = octets.len();
    let source = ZoneFileSource { name: file.display().to_string(), octets };
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let mut builder = DeferredZoneBuilder::new(origin);
    if is_large(len) {
        builder.expect_many();
    }
    let read = |sink: &mut dyn FnMut(Record<'_>, FilePlace)| {
        // Moved in, so that the text is freed as soon as it is read.
        let (source, mut all_seen) = (source, vec![seen]);
        let mut include = |path: &str| {
            includes(folder.join(path));
            let (octets, seen) = disk::read_below(folder, path)?;
            let source = ZoneFileSource { name: seen.path.display().to_string(), octets };
            all_seen.push(seen);
            Ok(source)
        };
        let task = ZoneFileContext { origin, default_ttl: None, include: &mut include };
        let (summary, errors) = master::read_through(&source, task, sink);
        (summary.files, errors, all_seen)
    };
    let (files, errors, seen) = pipe(len, read, |record, place| builder.add(record, place));
    match (builder.finish(), errors) {
        (Ok((zone, diagnostics)), Ok(())) => {
            let known = KnownZoneFile { seen, zone: Some(Arc::new(zone)) };
            Ok(ZoneFileFetch { known, table: None, warnings: lines(&diagnostics.warnings, &files, "more warnings") })
        }
        (Err(diagnostics), Ok(())) => Err(lines(&diagnostics.errors, &files, "more errors").join("\n")),
        (Ok(_), Err(errors)) => Err(errors.to_string()),
        (Err(mut diagnostics), Err(errors)) => {
            diagnostics.errors.retain(|error| !error.is_of_absence());
            let lines = [vec![errors.to_string()], lines(&diagnostics.errors, &files, "more errors")];
            Err(lines.concat().join("\n"))
        }
    }
}

fn lines<T: fmt::Display>(diagnostics: &DiagnosticList<T>, files: &master::ZoneFiles, more: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        diagnostics.iter().map(|diagnostic: &Diagnostic<T>| diagnostic.in_files(files)).collect();
    let rest = diagnostics.count() - lines.len();
    if rest > 0 {
        let file = files.names().next().unwrap_or_default();
        lines.push(format!("{file}: and {rest} {more}"));
    }
    lines
}
