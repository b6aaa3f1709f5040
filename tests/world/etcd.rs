//! A model of etcd: keys with revisions, changes since a revision, and compaction.

use std::collections::BTreeMap;

use hedgerow::control::pools::discover::MemberEntry;

use super::forwarder::entry;

type Entry = Result<MemberEntry, String>;

#[derive(Debug, Default)]
pub(crate) struct Etcd {
    /// The keys below the prefix, with their values.
    pub(crate) keys: BTreeMap<String, String>,
    changes: Vec<(u64, String, Option<String>)>,
    pub(crate) revision: u64,
    /// Changes up to this revision are gone.
    pub(crate) compacted: u64,
    pub(crate) is_up: bool,
}

impl Etcd {
    pub(crate) fn put(&mut self, key: &str, value: Option<String>) {
        self.revision += 1;
        match &value {
            Some(value) => drop(self.keys.insert(key.to_owned(), value.clone())),
            None => drop(self.keys.remove(key)),
        }
        self.changes.push((self.revision, key.to_owned(), value));
    }

    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        self.changes.clear();
    }

    pub(super) fn list(&self) -> Vec<(String, Entry)> {
        self.keys.iter().map(|(key, value)| (key.clone(), entry(value))).collect()
    }

    pub(super) fn changes_since(&self, revision: u64) -> Vec<(String, Option<Entry>)> {
        let changes = self.changes.iter().filter(|(at, ..)| *at > revision);
        changes.map(|(_, key, value)| (key.clone(), value.as_deref().map(entry))).collect()
    }
}
