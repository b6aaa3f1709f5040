//! The zone files of a config: read side by side, and when they are read again, only those that have changed.
//!
//! A [`Loader`] remembers what it has loaded. A file that looks the same from outside is not opened; one that was touched but
//! says the same gives the zone that is there already. A zone that comes from other files is one more than before even if it
//! says the same. Everything that is wrong with any file is told, and then nothing is loaded.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::certificates::CertificateFiles;
use super::disk::{self, Seen};
use super::parallel::{do_all, is_large, pipe};
use super::watch::{Reading, Watch};
use super::{FileProblems, USUAL_PLACES};
use crate::config::{AuthorityConfig, Config};
use crate::wire::Name;
use crate::zone::master::{self, Source, Task};
use crate::zone::{
    DeferredZoneBuilder, Diagnostic, DiagnosticList, FileErrors, Miss, Place, Record, Tables, TablesBuilder, Zone,
    ZoneDb, is_master_file, read_table,
};

/// Loads the zone files of configs, one config after the other.
#[derive(Debug, Default)]
pub struct Loader {
    /// What was in the files of the last config that was loaded.
    known: HashMap<Key, Known>,
    /// The tables of its authorities.
    tables: Vec<KnownTables>,
    /// What is odd in the files that were read for it.
    warnings: Vec<String>,
    /// The files that zone files include, broken ones included.
    included: Mutex<Vec<PathBuf>>,
    /// The places of the config, with what stood there when it was read last, by its digest.
    config: Vec<(Option<u64>, PathBuf)>,
    /// Who is told which files are read.
    watch: Watch,
    /// The certificates that were read.
    certificates: CertificateFiles,
}

/// What is loaded from a file: the same file is another zone with another origin.
type Key = (PathBuf, Option<Name>);

/// What a file was found to be.
#[derive(Clone, Debug)]
struct Known {
    /// The file, and those that it includes.
    seen: Vec<Seen>,
    content: Content,
}

/// What is in a zone file.
#[derive(Clone, Debug)]
enum Content {
    /// A zone.
    Zone(Arc<Zone>),
    /// Lines of a table.
    Table,
}

/// The tables of an authority.
#[derive(Debug)]
struct KnownTables {
    /// What they are made of.
    recipe: Recipe,
    /// What they have become.
    tables: Arc<Tables>,
}

/// What the tables of an authority are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recipe {
    /// The files in order, each with the digest of its content.
    files: Vec<(PathBuf, u64)>,
    /// The TTL of all records.
    ttl: u32,
    /// What is said of other names.
    miss: Miss,
}

/// A file that was looked at.
struct Fetched {
    known: Known,
    /// Its text, if it is a table and had to be read.
    table: Option<Vec<u8>>,
    /// What is odd in it.
    warnings: Vec<String>,
}

impl Loader {
    /// Loads the zones of all authorities of a config. If anything is wrong, what was loaded before stays known.
    pub(super) fn load(&mut self, config: &Config) -> Result<Vec<Arc<ZoneDb>>, FileProblems<ZoneProblem>> {
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
                    zone_dbs.push(zone_db(authority, &found.tables, &fetched, &mut problems));
                    tables.push(found);
                }
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(FileProblems(problems));
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

    /// The config of this file, or of the usual places, and all that it names is about to be read, until the value that this returns is dropped: whoever watches the
    /// files hears of that.
    pub fn begin_read(&mut self, file: Option<&Path>) -> Reading {
        let reading = self.watch.begin_read();
        // Before it is read: if it is changed meanwhile, that is seen as a change.
        let places = file.map_or_else(|| USUAL_PLACES.map(PathBuf::from).to_vec(), |file| vec![file.to_owned()]);
        self.config = places.into_iter().map(|file| (disk::digest_of(&file), file)).collect();
        reading
    }

    /// What the config says, and if it was loaded the zone files, by its digest.
    pub(super) fn digests(&self, is_loaded: bool) -> HashMap<&Path, u64> {
        let config = self.config.iter().filter_map(|(digest, file)| Some((file.as_path(), (*digest)?)));
        let seen = self.known.values().filter(|_| is_loaded).flat_map(|known| &known.seen);
        config.chain(seen.map(|seen| (seen.path.as_path(), seen.digest))).collect()
    }

    /// The certificates that were read.
    pub(super) fn certificates(&self) -> &CertificateFiles {
        &self.certificates
    }

    /// What watches the files.
    pub(super) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The files that zone files of the last config include, or would if they were there.
    pub(super) fn included(&mut self) -> Vec<PathBuf> {
        std::mem::take(self.included.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is odd in the files that were read the last time, a line each, with file, line and column.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tables of an authority: those that are there already if nothing about them has changed.
    fn load_tables(
        &self,
        authority: &AuthorityConfig,
        fetched: &HashMap<&Key, Fetched>,
    ) -> Result<KnownTables, Vec<ZoneProblem>> {
        let files: Vec<(&PathBuf, &Fetched)> = keys_of(authority)
            .filter_map(|key| fetched.get_key_value(&key).map(|(key, found)| (&key.0, found)))
            .filter(|(_, found)| matches!(found.known.content, Content::Table))
            .collect();
        let digest = |found: &Fetched| found.known.seen.first().map_or(0, |seen| seen.digest);
        let recipe = Recipe {
            files: files.iter().map(|(file, found)| ((*file).clone(), digest(found))).collect(),
            ttl: u32::try_from(authority.ttl.as_secs()).unwrap_or(u32::MAX),
            miss: authority.miss,
        };
        if let Some(known) = self.tables.iter().find(|known| known.recipe == recipe) {
            return Ok(KnownTables { recipe, tables: Arc::clone(&known.tables) });
        }
        let mut builder = TablesBuilder::new(recipe.miss);
        let mut problems = Vec::new();
        for (file, found) in files {
            let read_now;
            let octets = match &found.table {
                Some(octets) => octets,
                None => match disk::read(file) {
                    Ok((octets, _)) => {
                        read_now = octets;
                        &read_now
                    }
                    Err(error) => {
                        problems.push(ZoneProblem::Unreadable(file.clone(), error));
                        continue;
                    }
                },
            };
            if is_large(octets.len()) {
                builder.expect_many();
            }
            let faults = pipe(
                octets.len(),
                |sink| read_table(octets, recipe.ttl, sink),
                |record, place| builder.add(record, place),
            );
            builder.end_file(&file.display().to_string(), faults);
        }
        match builder.finish() {
            Ok(tables) if problems.is_empty() => Ok(KnownTables { recipe, tables: Arc::new(tables) }),
            Ok(_) => Err(problems),
            Err(errors) => {
                problems.push(ZoneProblem::Wrong(errors));
                Err(problems)
            }
        }
    }
}

/// What an authority answers from. A zone that is there twice is a problem, also if one of them is of other servers.
fn zone_db(
    authority: &AuthorityConfig,
    tables: &Arc<Tables>,
    fetched: &HashMap<&Key, Fetched>,
    problems: &mut Vec<ZoneProblem>,
) -> Arc<ZoneDb> {
    let mut zone_db = ZoneDb::new(Arc::clone(tables)).with_identity(authority.identity.clone());
    let mut files: HashMap<Name, PathBuf> = HashMap::new();
    for key in keys_of(authority) {
        let Some(Fetched { known: Known { content: Content::Zone(zone), .. }, .. }) = fetched.get(&key) else {
            continue;
        };
        match files.get(zone.apex()) {
            Some(first) => problems.push(ZoneProblem::Twice {
                zone: Box::new(zone.apex().clone()),
                file: key.0,
                first: first.clone(),
            }),
            None => {
                files.insert(zone.apex().clone(), key.0);
                zone_db = zone_db.with_zone(Arc::clone(zone));
            }
        }
    }
    let secondaries = authority.secondaries.iter().map(|secondary| (&secondary.zone, &secondary.file));
    let produced = authority.produced.iter().map(|catalog| (&catalog.zone, &catalog.file));
    for (zone, file) in secondaries.chain(produced) {
        if let Some(first) = files.get(zone) {
            let (zone, file) = (Box::new(zone.clone()), file.clone());
            problems.push(ZoneProblem::Twice { zone, file, first: first.clone() });
        }
    }
    Arc::new(zone_db)
}

/// The files of an authority, in order.
fn keys_of(authority: &AuthorityConfig) -> impl Iterator<Item = Key> {
    authority.zones.iter().map(|zone| (zone.file.clone(), zone.origin.clone()))
}

/// The files of a config, in order, each once.
fn distinct_keys(config: &Config) -> Vec<Key> {
    let mut seen = HashSet::new();
    config.authorities.iter().flat_map(keys_of).filter(|key| seen.insert(key.clone())).collect()
}

/// Finds out what is in a file, which was `known` the last time.
fn fetch(key: &Key, known: Option<&Known>, included: &Mutex<Vec<PathBuf>>) -> Result<Fetched, ZoneProblem> {
    let includes = |files: &mut dyn Iterator<Item = PathBuf>| {
        included.lock().unwrap_or_else(PoisonError::into_inner).extend(files);
    };
    let unchanged = |known: &Known| {
        includes(&mut known.seen.iter().skip(1).map(|seen| seen.path.clone()));
        Fetched { known: known.clone(), table: None, warnings: Vec::new() }
    };
    if let Some(known) = known.filter(|known| known.seen.iter().all(Seen::is_same)) {
        return Ok(unchanged(known));
    }
    let (file, origin) = key;
    let (octets, seen) = disk::read(file).map_err(|error| ZoneProblem::Unreadable(file.clone(), error))?;
    if origin.is_none() && !is_master_file(&octets) {
        let known = Known { seen: vec![seen], content: Content::Table };
        return Ok(Fetched { known, table: Some(octets), warnings: Vec::new() });
    }
    if let Some(known) = known.and_then(|known| said_again(known, &seen)) {
        return Ok(unchanged(&known));
    }
    load_zone(file, origin.as_ref(), octets, seen, |file| includes(&mut [file].into_iter()))
}

/// What is known of a zone, if its files say the same again, of which the first was read just now.
fn said_again(known: &Known, own: &Seen) -> Option<Known> {
    let read_again = |(index, old): (usize, &Seen)| {
        let new = if index == 0 { own.clone() } else { disk::read(&old.path).ok()?.1 };
        (new.digest == old.digest).then_some(new)
    };
    match &known.content {
        Content::Zone(zone) => {
            let seen = known.seen.iter().enumerate().map(read_again).collect::<Option<Vec<_>>>()?;
            Some(Known { seen, content: Content::Zone(Arc::clone(zone)) })
        }
        Content::Table => None,
    }
}

/// Loads a zone from its file, which was read, and those that it includes.
fn load_zone(
    file: &Path,
    origin: Option<&Name>,
    octets: Vec<u8>,
    seen: Seen,
    includes: impl Fn(PathBuf) + Sync,
) -> Result<Fetched, ZoneProblem> {
    let len = octets.len();
    let source = Source { name: file.display().to_string(), octets };
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let mut builder = DeferredZoneBuilder::new(origin);
    if is_large(len) {
        builder.expect_many();
    }
    let read = |sink: &mut dyn FnMut(Record<'_>, Place)| {
        // Moved in, so that the text is given back as soon as it is read.
        let (source, mut all_seen) = (source, vec![seen]);
        let mut include = |path: &str| {
            includes(folder.join(path));
            let (octets, seen) = disk::read_below(folder, path)?;
            let source = Source { name: seen.path.display().to_string(), octets };
            all_seen.push(seen);
            Ok(source)
        };
        let task = Task { origin, default_ttl: None, include: &mut include };
        let (summary, errors) = master::read_through(&source, task, sink);
        (summary.files, errors, all_seen)
    };
    let (files, errors, seen) = pipe(len, read, |record, place| builder.add(record, place));
    match (builder.finish(), errors) {
        (Ok((zone, diagnostics)), Ok(())) => {
            let known = Known { seen, content: Content::Zone(Arc::new(zone)) };
            Ok(Fetched { known, table: None, warnings: lines(&diagnostics.warnings, &files, "more warnings") })
        }
        (Err(diagnostics), Ok(())) => Err(ZoneProblem::Errors(lines(&diagnostics.errors, &files, "more errors"))),
        (Ok(_), Err(errors)) => Err(ZoneProblem::Wrong(errors)),
        (Err(mut diagnostics), Err(errors)) => {
            diagnostics.errors.retain(|error| !error.is_of_absence());
            let errors = errors.iter().map(ToString::to_string);
            Err(ZoneProblem::Errors(errors.chain(lines(&diagnostics.errors, &files, "more errors")).collect()))
        }
    }
}

/// Diagnostics, a line each, with file, line and column.
fn lines<T: fmt::Display>(diagnostics: &DiagnosticList<T>, files: &master::Files, more: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        diagnostics.iter().map(|diagnostic: &Diagnostic<T>| diagnostic.in_files(files)).collect();
    let rest = diagnostics.count() - lines.len();
    if rest > 0 {
        let file = files.names().next().unwrap_or_default();
        lines.push(format!("{file}: and {rest} {more}"));
    }
    lines
}

/// Something that is wrong with a zone file.
#[derive(Debug)]
pub enum ZoneProblem {
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It cannot be understood.
    Wrong(FileErrors),
    /// Its records are no zone.
    Errors(Vec<String>),
    /// Another file of the authority has the same zone.
    Twice {
        /// The zone.
        zone: Box<Name>,
        /// The file.
        file: PathBuf,
        /// The other one.
        first: PathBuf,
    },
}

impl fmt::Display for ZoneProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(file, error) => write!(f, "{}: cannot be read: {error}", file.display()),
            Self::Wrong(errors) => errors.fmt(f),
            Self::Errors(lines) => f.write_str(&lines.join("\n")),
            Self::Twice { zone, file, first } => {
                write!(f, "{}: zone {zone} is in {} too: expected one of them", file.display(), first.display())
            }
        }
    }
}
