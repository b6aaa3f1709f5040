//! A model of etcd: keys with revisions, changes since a revision, and compaction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
    is_up: bool,
    /// The last time at which a key changed or etcd came up.
    changed: Option<Instant>,
}

impl Etcd {
    pub(crate) fn put(&mut self, key: &str, value: Option<String>, now: Instant) {
        self.revision += 1;
        self.changed = Some(now);
        match &value {
            Some(value) => drop(self.keys.insert(key.to_owned(), value.clone())),
            None => drop(self.keys.remove(key)),
        }
        self.changes.push((self.revision, key.to_owned(), value));
    }

    pub(crate) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(crate) fn set_up(&mut self, is_up: bool, now: Instant) {
        if is_up && !self.is_up {
            self.changed = Some(now);
        }
        self.is_up = is_up;
    }

    /// Returns true if all followers must know all keys: etcd answers, and no key has changed for some time.
    pub(crate) fn is_steady(&self, now: Instant) -> bool {
        self.is_up && self.changed.is_none_or(|changed| changed + FOLLOWED <= now)
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

/// The time after which a follower must know a change.
pub(crate) const FOLLOWED: Duration = Duration::from_secs(2);
