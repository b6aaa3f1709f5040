//! The files of names that rules use. Later reads open only changed files, and rules share the set of a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Config;
use engine::state::NameSets;
use rules::{LineProblems, NameSet};

use super::disk::{self, SeenFile};
use super::parallel::do_all;
use super::{LoadError, gather, unreadable};

/// The files of names of a config.
#[derive(Clone, Debug, Default)]
pub struct RuleNames {
    /// The sets for rules, by file.
    pub sets: NameSets,
    /// The number of files with other content than at the last read.
    pub changed: usize,
}

/// Loads files of names, and remembers what it has loaded.
#[derive(Debug, Default)]
pub(super) struct NameLoader(HashMap<PathBuf, KnownNameSet>);

#[derive(Clone, Debug)]
struct KnownNameSet {
    seen: SeenFile,
    names: Arc<NameSet>,
}

impl NameLoader {
    /// Loads the files of a config. After an error, the previous sets stay known.
    pub(super) fn load(&mut self, config: &Config) -> Result<RuleNames, LoadError> {
        let files = files_of(config);
        let read = do_all(&files, |file| read(file, self.0.get(*file)));
        let read = gather(read.into_iter())?;
        let is_changed = |(file, read): &(&&Path, &KnownNameSet)| {
            self.0.get(**file).is_some_and(|known| !Arc::ptr_eq(&known.names, &read.names))
        };
        let changed = files.iter().zip(&read).filter(is_changed).count();
        self.0 = files.into_iter().map(Path::to_owned).zip(read).collect();
        let sets = self.0.iter().map(|(file, known)| (file.clone(), Arc::clone(&known.names))).collect();
        Ok(RuleNames { sets, changed })
    }

    /// Returns the files with their digests at the last read.
    pub(super) fn seen(&self) -> impl Iterator<Item = &SeenFile> {
        self.0.values().map(|known| &known.seen)
    }
}

/// Returns the distinct files with names for rules.
pub(super) fn files_of(config: &Config) -> Vec<&Path> {
    let rules = config.forwarder.iter().flat_map(|forwarder| &forwarder.rules);
    let mut files: Vec<_> = rules.filter_map(|rule| rule.names_file.as_deref()).collect();
    files.sort_unstable();
    files.dedup();
    files
}

fn read(file: &Path, known: Option<&KnownNameSet>) -> Result<KnownNameSet, String> {
    if let Some(known) = known.filter(|known| known.seen.is_same()) {
        return Ok(known.clone());
    }
    let (octets, seen) = disk::read(file).map_err(|error| unreadable(file, &error))?;
    if let Some(known) = known.filter(|known| known.seen.digest == seen.digest) {
        return Ok(KnownNameSet { seen, names: Arc::clone(&known.names) });
    }
    let mut problems = LineProblems::default();
    let names = NameSet::parse(&octets, &mut problems);
    if problems.is_empty() {
        return Ok(KnownNameSet { seen, names: Arc::new(names) });
    }
    let file = file.display();
    let mut lines: Vec<_> = problems.shown.iter().map(|problem| format!("{file}:{problem}")).collect();
    if problems.more > 0 {
        lines.push(format!("{file}: and {} more wrong lines", problems.more));
    }
    Err(lines.join("\n"))
}
