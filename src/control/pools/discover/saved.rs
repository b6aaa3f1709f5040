//! The saved members and orders, so that a process that starts while no source answers still knows its
//! backends.

use std::collections::BTreeMap;

use metrics::MemberOrigin;
use serde::{Deserialize, Serialize};

use super::entry::MemberEntry;
use super::order::Orders;
use super::roster::Roster;

/// The last known members of all pools, and the orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMembers {
    form: u32,
    pools: BTreeMap<String, Vec<SavedSource>>,
    /// The orders that applied.
    pub orders: Orders,
}

/// The saved list of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSource {
    kind: String,
    /// The source as the config names it. The list is useless for another source.
    source: String,
    /// The time of the last confirmation, in seconds since 1970.
    pub confirmed: u64,
    /// The listed members.
    pub members: Vec<MemberEntry>,
}

impl SavedMembers {
    /// The only format version that this process writes and reads.
    pub const FORM: u32 = 1;

    /// The largest file in bytes: far more than all members of a large fleet take.
    pub const MAX_LEN: usize = 64 << 20;

    /// Makes a value without pools.
    pub fn new(orders: Orders) -> Self {
        Self { form: Self::FORM, pools: BTreeMap::new(), orders }
    }

    /// Adds a pool. `source_of` names a source, `confirmed_of` returns the time of its last confirmation.
    pub fn add(
        &mut self,
        pool: &str,
        roster: &Roster,
        source_of: impl Fn(MemberOrigin) -> Option<String>,
        confirmed_of: impl Fn(std::time::Instant) -> u64,
    ) {
        let saved = roster.sources().iter().filter_map(|source| {
            let confirmed = confirmed_of(source.confirmed?);
            let members = source.listing().entries().map(|(_, entry)| entry.clone()).collect();
            let kind = source.origin.label().to_owned();
            Some(SavedSource { kind, source: source_of(source.origin)?, confirmed, members })
        });
        self.pools.insert(pool.to_owned(), saved.collect());
    }

    /// Returns the saved list of a pool's source, if it is from the same source.
    pub fn find(&self, pool: &str, origin: MemberOrigin, source: &str) -> Option<&SavedSource> {
        let sources = self.pools.get(pool)?;
        sources.iter().find(|saved| saved.kind == origin.label() && saved.source == source)
    }

    /// Returns the JSON of the saved members.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("names, numbers and texts are JSON")
    }

    /// Reads saved JSON. Fails if it is malformed, or has another format version.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let saved: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if saved.form != Self::FORM {
            return Err(format!("form {}, expected {}", saved.form, Self::FORM));
        }
        Ok(saved)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::control::pools::discover::{BackendOrder, OrderWord, RosterRules, SourceNews};

    #[test]
    fn what_is_saved_is_read() {
        let rules = RosterRules { max: 10, hold: Duration::ZERO, allow: Vec::new() };
        let mut roster = Roster::new(rules, [MemberOrigin::Etcd, MemberOrigin::File]);
        let entry = MemberEntry { weight: Some(7), ..MemberEntry::at(([192, 0, 2, 1], 53).into()) };
        let items = vec![("a".to_owned(), Ok(entry.clone())), ("b".to_owned(), Err("no JSON".to_owned()))];
        roster.on_news(MemberOrigin::Etcd, SourceNews::Listed(items), Instant::now());
        let mut orders = Orders::default();
        let order = BackendOrder { order: OrderWord::Drain, by: "ann".to_owned(), at: String::new(), until: None };
        orders.set("ts/a", Some(order));
        let mut saved = SavedMembers::new(orders);
        saved.add("ts", &roster, |origin| Some(format!("{}-1", origin.label())), |_| 12);
        let read = SavedMembers::from_json(&saved.to_json()).expect("our own");
        assert_eq!(read, saved);
        let found = read.find("ts", MemberOrigin::Etcd, "etcd-1").expect("it was saved");
        assert_eq!((found.confirmed, &*found.members), (12, &[entry][..]));
        assert!(read.find("ts", MemberOrigin::Etcd, "etcd-2").is_none(), "another source");
        assert!(read.find("ts", MemberOrigin::File, "file-1").is_none(), "it has never said anything");
        for wrong in ["", "{}", "[]", r#"{"form":2,"pools":{},"orders":{}}"#] {
            assert!(SavedMembers::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
