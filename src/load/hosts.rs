//! The local names of a config: those in it, and those in hosts files.

use std::path::Path;

use config::Config;
use engine::state::LocalNames;
use zone::read_hosts;

use super::{LoadError, disk, unreadable};

/// Reads the local names of a config, or reports all problems of its hosts files.
pub(super) fn load(config: &Config) -> Result<LocalNames, LoadError> {
    let mut names = LocalNames::default();
    let Some(forwarder) = &config.forwarder else { return Ok(names) };
    let mut problems = Vec::new();
    let added = forwarder.names.local.iter().try_for_each(|local| {
        let name = std::slice::from_ref(&local.name);
        let added = local.addresses.iter().try_for_each(|address| names.add(name, *address));
        added.map_err(|full| format!("forwarder.names: {}: {full}", local.name))
    });
    problems.extend(added.err());
    for file in &forwarder.names.hosts_files {
        problems.extend(read(file, &mut names));
    }
    if problems.is_empty() { Ok(names.finish()) } else { Err(LoadError::Unusable(problems.join("\n"))) }
}

fn read(file: &Path, names: &mut LocalNames) -> Vec<String> {
    let octets = match disk::read(file) {
        Ok((octets, _)) => octets,
        Err(error) => return vec![unreadable(file, &error)],
    };
    let file = file.display();
    let mut first_full = None;
    let errors = read_hosts(&octets, &mut |address, hosts, line| {
        if let Err(full) = names.add(hosts, address) {
            first_full.get_or_insert_with(|| format!("{file}:{line}:1: {full}"));
        }
    });
    errors.lines(&file.to_string(), MAX_SHOWN).into_iter().chain(first_full).collect()
}

/// The most errors that are shown of a file.
const MAX_SHOWN: usize = 20;
