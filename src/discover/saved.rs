//! What is saved of members and orders, so that a process that starts while no source answers knows whom to ask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::order::Orders;
use super::roster::Roster;
use crate::metrics::Origin;

/// The last known members of all pools, and the orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMembers {
    /// The form of this: [`SavedMembers::FORM`].
    form: u32,
    /// By the names of pools.
    pools: BTreeMap<String, Vec<SavedSource>>,
    /// The orders that were in force.
    pub orders: Orders,
}

/// What one source listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSource {
    /// Its kind.
    kind: String,
    /// Which it was, as the config names it. Of another one the list is of no use.
    source: String,
    /// When it last said so, in seconds since 1970.
    pub confirmed: u64,
    /// What it listed.
    pub members: Vec<Entry>,
}

impl SavedMembers {
    /// The form that this process writes, and the only one that it reads.
    pub const FORM: u32 = 1;

    /// Octets of a file at most: far more than all members of a large fleet take.
    pub const MAX_LEN: usize = 64 << 20;

    /// Nothing yet.
    pub fn new(orders: Orders) -> Self {
        Self { form: Self::FORM, pools: BTreeMap::new(), orders }
    }

    /// Adds a pool. `source_of` names a source of it, `confirmed_of` says when it last said what it says.
    pub fn add(
        &mut self,
        pool: &str,
        roster: &Roster,
        source_of: impl Fn(Origin) -> Option<String>,
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

    /// What a source of a pool listed, if it is that source.
    pub fn find(&self, pool: &str, origin: Origin, source: &str) -> Option<&SavedSource> {
        let sources = self.pools.get(pool)?;
        sources.iter().find(|saved| saved.kind == origin.label() && saved.source == source)
    }

    /// The text of it.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("names, numbers and texts are JSON")
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// If it is none, or of another form.
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
    use crate::discover::{News, Order, OrderWord, RosterRules};

    #[test]
    fn what_is_saved_is_read() {
        let rules = RosterRules { max: 10, hold: Duration::ZERO, allow: Vec::new() };
        let mut roster = Roster::new(rules, [Origin::Etcd, Origin::File]);
        let entry = Entry { weight: Some(7), ..Entry::at(([192, 0, 2, 1], 53).into()) };
        let items = vec![("a".to_owned(), Ok(entry.clone())), ("b".to_owned(), Err("no JSON".to_owned()))];
        roster.on_news(Origin::Etcd, News::Listed(items), Instant::now());
        let mut orders = Orders::default();
        let order = Order { order: OrderWord::Drain, by: "ann".to_owned(), at: String::new(), until: None };
        orders.set("ts/a", Some(order));
        let mut saved = SavedMembers::new(orders);
        saved.add("ts", &roster, |origin| Some(format!("{}-1", origin.label())), |_| 12);
        let read = SavedMembers::from_json(&saved.to_json()).expect("our own");
        assert_eq!(read, saved);
        let found = read.find("ts", Origin::Etcd, "etcd-1").expect("it was saved");
        assert_eq!((found.confirmed, &*found.members), (12, &[entry][..]));
        assert!(read.find("ts", Origin::Etcd, "etcd-2").is_none(), "another source");
        assert!(read.find("ts", Origin::File, "file-1").is_none(), "it has never said anything");
        for wrong in ["", "{}", "[]", r#"{"form":2,"pools":{},"orders":{}}"#] {
            assert!(SavedMembers::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
